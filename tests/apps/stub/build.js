// Makes `dist` anew, as Medusa's build makes .medusa/server.
'use strict';
const fs = require('fs');
const { spawnSync } = require('child_process');
const { switches, seconds, sleep, hog } = require('./stub');

async function build() {
  fs.rmSync('dist', { recursive: true, force: true });
  if (switches.build === 'empty') return;
  fs.mkdirSync('dist');
  fs.copyFileSync('server.js', 'dist/server.js');
  console.log('info: backend build started');
  await sleep(seconds(switches.build));
  if (switches.build === 'hog') await hog();
  if (switches.build === 'hog-child') {
    const done = spawnSync(process.execPath, ['-e', "require('./stub').hog()"], { stdio: 'inherit' });
    if (done.status !== 0) {
      console.error(`error: the bundler ended with ${done.status ?? done.signal}`);
      process.exit(1);
    }
  }
  if (switches.build === 'fill') for (let number = 0; ; number++) fs.writeFileSync(`dist/chunk-${number}.js`, Buffer.alloc(1048576, 120));
  if (switches.build === 'fail') {
    console.error("src/api/route.ts:7:3 - error TS2322: Type 'string' is not assignable to type 'number'.");
    process.exit(1);
  }
  for (const name of ['package.json', 'switches.json', 'stub.js', 'ops.js', 'migrate.js', 'worker.js']) fs.copyFileSync(name, `dist/${name}`);
  if (fs.existsSync('migrations')) fs.cpSync('migrations', 'dist/migrations', { recursive: true });
  console.log('info: backend build completed successfully');
}

build();
