// What the parts of the stub share.
'use strict';
const { spawn, spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');

const switches = JSON.parse(fs.readFileSync(path.join(__dirname, 'switches.json'), 'utf8'));

const FIRST = { id: 'Migration001', sql: 'CREATE TABLE stub_items (id serial PRIMARY KEY, name text NOT NULL)' };
const files = path.join(__dirname, 'migrations');
const written = (fs.existsSync(files) ? fs.readdirSync(files).sort() : []).map((name) => ({ id: name, sql: fs.readFileSync(path.join(files, name), 'utf8') }));
const migrations = [FIRST, ...(switches.migrations || []), ...written];

function seconds(value) {
  return typeof value === 'string' && value.startsWith('slow:') ? Number(value.slice(5)) : 0;
}

function sleep(time) {
  return new Promise((resolve) => setTimeout(resolve, time * 1000));
}

const PSQL = ['-XAtq', '-v', 'ON_ERROR_STOP=1'];

// The password goes by the environment, never by the command line.
function login(database) {
  const url = new URL(process.env.DATABASE_URL);
  const modes = { 'no-verify': 'require' };
  const mode = url.searchParams.get('sslmode');
  return {
    ...process.env,
    PGHOST: url.hostname, PGPORT: url.port || '5432', PGDATABASE: database || decodeURIComponent(url.pathname.slice(1)),
    PGUSER: decodeURIComponent(url.username), PGPASSWORD: decodeURIComponent(url.password),
    ...(mode ? { PGSSLMODE: modes[mode] || mode } : {}),
  };
}

// Asks PostgreSQL through psql, and waits.
function sql(text, database) {
  const done = spawnSync('psql', PSQL, { input: text, encoding: 'utf8', env: login(database) });
  if (done.status !== 0) throw new Error((done.stderr || String(done.error)).trim());
  return done.stdout.trim();
}

// Asks PostgreSQL through psql while other requests are answered.
function ask(text, told) {
  const child = spawn('psql', [...PSQL, '-c', text], { env: login() });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { said += data; });
  child.on('close', (code) => told(code ? new Error(said.trim()) : null, said.trim()));
}

// Takes memory until somebody ends it.
async function hog() {
  for (const kept = []; ;) {
    kept.push(Buffer.alloc(8 * 1048576, 1));
    await sleep(0.01);
  }
}

function quoted(text) {
  return `'${String(text).replace(/'/g, "''")}'`;
}

module.exports = { switches, migrations, seconds, sleep, sql, ask, hog, quoted };
