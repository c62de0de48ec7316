// Makes `dist` anew, as Medusa's build makes .medusa/server.
'use strict';
const fs = require('fs');
const { switches, seconds, sleep } = require('./stub');

async function build() {
  fs.rmSync('dist', { recursive: true, force: true });
  if (switches.build === 'empty') return;
  fs.mkdirSync('dist');
  fs.copyFileSync('server.js', 'dist/server.js');
  console.log('info: backend build started');
  await sleep(seconds(switches.build));
  if (switches.build === 'fail') {
    console.error("src/api/route.ts:7:3 - error TS2322: Type 'string' is not assignable to type 'number'.");
    process.exit(1);
  }
  for (const name of ['package.json', 'switches.json', 'stub.js', 'migrate.js', 'worker.js']) fs.copyFileSync(name, `dist/${name}`);
  console.log('info: backend build completed successfully');
}

build();
