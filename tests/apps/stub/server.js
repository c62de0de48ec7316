// Serves /health (static), /info, /slow and POST /items; `worker.js` is the same with another mode.
'use strict';
const http = require('http');
const { switches, migrations, seconds, sleep, sql, ask, quoted } = require('./stub');

const ops = switches.pulses ? require('./ops') : null;
const mode = process.env.STUB_MODE || 'server';
const wish = switches[mode];
let asked = 0;
let failing = false;

function later(what) {
  return typeof wish === 'string' && wish.startsWith(`${what}:`) ? Number(wish.split(':')[1]) : 0;
}

// Ways to answer that are no good health.
const ILL = {
  lying: (response) => response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"status":"error","message":"no connection"}'),
  flapping: (response) => (asked++ % 2 ? response.writeHead(200).end('OK') : response.writeHead(500).end('no')),
  headers: (response) => response.writeHead(200, { 'Content-Type': 'text/html' }).flushHeaders(),
  redirect: (response) => response.writeHead(302, { Location: '/health' }).end(),
  endless: (response) => {
    response.writeHead(200, { 'Content-Type': 'text/html' });
    const timer = setInterval(() => response.write('x'.repeat(4096)), 10);
    response.on('close', () => clearInterval(timer));
  },
};

function answer(request, response) {
  const url = new URL(request.url, 'http://stub');
  if (url.pathname === '/health' && ILL[wish]) {
    ILL[wish](response);
  } else if (url.pathname === '/health') {
    response.writeHead(wish === 'sick' ? 503 : 200, { 'Content-Type': 'text/html; charset=utf-8' });
    response.end(wish === 'sick' ? 'no' : 'OK');
  } else if (ops && mode === 'server' && ops.serve(request, response, url)) {
    // answered
  } else if (url.pathname === '/info' && mode === 'server') {
    if (failing) return void response.writeHead(500).end('no');
    const { RELEASE_ID: release, GREETING: greeting } = process.env;
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ release, pid: process.pid, cwd: process.cwd(), mode, version: switches.version, greeting }));
  } else if (url.pathname === '/items' && request.method === 'GET' && mode === 'server') {
    ask('SELECT count(*) FROM stub_items', (error, text) => response.writeHead(error ? 500 : 200).end(error ? error.message : text));
  } else if (url.pathname === '/slow' && mode === 'server') {
    setTimeout(() => response.end('slow'), Number(url.searchParams.get('ms')));
  } else if (url.pathname === '/items' && request.method === 'POST' && mode === 'server') {
    add(request, response);
  } else {
    response.writeHead(404);
    response.end();
  }
}

// Writes a row named by the body. 201 is said only after the commit.
function add(request, response) {
  let name = '';
  request.on('data', (part) => { name += part; });
  request.on('end', () => {
    try {
      response.writeHead(201).end(sql(`INSERT INTO stub_items (name) VALUES (${quoted(name)}) RETURNING id`));
    } catch (error) {
      console.error(`error: ${error.message}`);
      response.writeHead(500).end('no');
    }
  });
}

async function start() {
  console.log(`info: ${mode} of release ${process.env.RELEASE_ID} starts`);
  if (wish === 'exit') process.exit(0);
  if (wish === 'crash') throw new Error('cannot read properties of undefined');
  if (mode === 'server' && switches.wants && !process.env[switches.wants]) throw new Error(`${switches.wants} is not set`);
  if (process.env.DATABASE_URL) {
    const known = sql('SELECT id FROM stub_migrations', mode === 'server' ? switches.database : undefined).split('\n');
    const missing = migrations.filter(({ id }) => !known.includes(id));
    if (missing.length) throw new Error(`not migrated: ${missing.map(({ id }) => id).join(', ')}`);
  }
  if (ops) ops.start(mode);
  await sleep(seconds(wish));
  if (wish === 'deaf') {
    setInterval(() => {}, 60000);
    return;
  }
  if (wish === 'hog') global.kept = Buffer.alloc(160 * 1048576, 1);
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
