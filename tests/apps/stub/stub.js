// What the parts of the stub share.
'use strict';
const { spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');

const switches = JSON.parse(fs.readFileSync(path.join(__dirname, 'switches.json'), 'utf8'));

const FIRST = { id: 'Migration001', sql: 'CREATE TABLE stub_items (id serial PRIMARY KEY, name text NOT NULL)' };
const migrations = [FIRST, ...(switches.migrations || [])];

function seconds(value) {
  return typeof value === 'string' && value.startsWith('slow:') ? Number(value.slice(5)) : 0;
}

function sleep(time) {
  return new Promise((resolve) => setTimeout(resolve, time * 1000));
}

// Asks PostgreSQL through psql. The password goes by the environment, never by the command line.
function sql(text) {
  const url = new URL(process.env.DATABASE_URL);
  const modes = { 'no-verify': 'require' };
  const mode = url.searchParams.get('sslmode');
  const login = {
    PGHOST: url.hostname, PGPORT: url.port || '5432', PGDATABASE: decodeURIComponent(url.pathname.slice(1)),
    PGUSER: decodeURIComponent(url.username), PGPASSWORD: decodeURIComponent(url.password),
    ...(mode ? { PGSSLMODE: modes[mode] || mode } : {}),
  };
  const done = spawnSync('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1'], { input: text, encoding: 'utf8', env: { ...process.env, ...login } });
  if (done.status !== 0) throw new Error((done.stderr || String(done.error)).trim());
  return done.stdout.trim();
}

module.exports = { switches, migrations, seconds, sleep, sql };
