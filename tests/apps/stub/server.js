// Serves /health (static), /info and /slow; `worker.js` is the same with another mode.
'use strict';
const http = require('http');
const { switches, migrations, seconds, sleep, sql } = require('./stub');

const mode = process.env.STUB_MODE || 'server';
const wish = switches[mode];
let failing = false;

function later(what) {
  return typeof wish === 'string' && wish.startsWith(`${what}:`) ? Number(wish.split(':')[1]) : 0;
}

function answer(request, response) {
  const url = new URL(request.url, 'http://stub');
  if (url.pathname === '/health') {
    response.writeHead(wish === 'sick' ? 503 : 200, { 'Content-Type': 'text/html; charset=utf-8' });
    response.end(wish === 'sick' ? 'no' : 'OK');
  } else if (url.pathname === '/info' && mode === 'server') {
    if (failing) return void response.writeHead(500).end('no');
    const { RELEASE_ID: release, GREETING: greeting } = process.env;
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ release, pid: process.pid, cwd: process.cwd(), mode, version: switches.version, greeting }));
  } else if (url.pathname === '/slow' && mode === 'server') {
    setTimeout(() => response.end('slow'), Number(url.searchParams.get('ms')));
  } else {
    response.writeHead(404);
    response.end();
  }
}

async function start() {
  console.log(`info: ${mode} of release ${process.env.RELEASE_ID} starts`);
  if (wish === 'exit') process.exit(0);
  if (process.env.DATABASE_URL) {
    const known = sql('SELECT id FROM stub_migrations').split('\n');
    const missing = migrations.filter(({ id }) => !known.includes(id));
    if (missing.length) throw new Error(`not migrated: ${missing.map(({ id }) => id).join(', ')}`);
  }
  await sleep(seconds(wish));
  if (wish === 'deaf') {
    setInterval(() => {}, 60000);
    return;
  }
  const server = http.createServer(answer);
  // As with Medusa, a taken port is logged and the process lives on for ever.
  server.on('error', (error) => {
    console.error(`error: ${error.message}`);
    setInterval(() => {}, 60000);
  });
  server.listen(Number(process.env.PORT), process.env.HOST, () => console.log(`info: ${mode} is ready on port ${process.env.PORT}`));
  // What a release may do although it was proven.
  if (later('dies')) setTimeout(() => process.exit(1), later('dies') * 1000);
  if (later('fails')) setTimeout(() => { failing = true; }, later('fails') * 1000);
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      console.log(`info: ${mode} drains`);
      server.close(() => process.exit(0));
      server.closeIdleConnections?.();
    });
  }
}

start().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exit(1);
});
