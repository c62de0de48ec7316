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
    ...(url.searchParams.get('sslrootcert') ? { PGSSLROOTCERT: url.searchParams.get('sslrootcert') } : {}),
  };
}

// Asks PostgreSQL through psql, and waits.
function sql(text, database) {
  const done = spawnSync('psql', PSQL, { input: text, encoding: 'utf8', env: login(database) });
  if (done.status !== 0) throw new Error((done.stderr || String(done.error)).trim());
  return done.stdout.trim();
}

const POOL = 3;
const pool = [];
const waiting = [];
const END = '--end--';

function join() {
  const child = spawn('psql', ['-XAtq'], { env: login() });
  const member = { child, said: '', told: null };
  child.stdout.on('data', (data) => {
    member.said += data;
    if (member.said.includes(END)) answer(member, null);
  });
  child.stderr.on('data', (data) => { member.error = `${member.error || ''}${data}`; });
  child.stdin.on('error', () => {});
  child.on('close', () => {
    pool.splice(pool.indexOf(member), 1);
    if (member.told) answer(member, new Error(member.error || 'psql ended'));
  });
  pool.push(member);
  return member;
}

function give(member, [text, told]) {
  Object.assign(member, { said: '', error: null, told });
  member.child.stdin.write(`${text};\n\\echo ${END}\n`);
}

function answer(member, error) {
  const { told } = member;
  member.told = null;
  told(error || (member.error ? new Error(member.error) : null), member.said.replace(END, '').trim());
  if (!error && waiting.length) give(member, waiting.shift());
}

// Asks PostgreSQL through one of a few sessions that stay, as a pool does, while other requests are answered.
function ask(text, told) {
  const member = pool.find((other) => !other.told) || (pool.length < POOL ? join() : null);
  if (member) give(member, [text, told]);
  else waiting.push([text, told]);
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
