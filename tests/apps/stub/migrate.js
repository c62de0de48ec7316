// Brings the database to the release's schema: a line for each migration, JSON lines like Medusa's logger, a transaction each.
'use strict';
const fs = require('fs');
const { switches, migrations, seconds, sleep, sql, quoted, hog } = require('./stub');

function say(level, message) {
  console.log(JSON.stringify({ level, message, timestamp: new Date().toISOString() }));
}

async function migrate() {
  sql(`
    SET client_min_messages = warning;
    CREATE TABLE IF NOT EXISTS stub_migrations (id text PRIMARY KEY, release text NOT NULL, at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS stub_runs (id serial PRIMARY KEY, release text NOT NULL, at timestamptz NOT NULL DEFAULT now());
    INSERT INTO stub_runs (release) VALUES (${quoted(process.env.RELEASE_ID)});
  `);
  say('info', 'Running migrations...');
  await sleep(seconds(switches.migrate));
  if (switches.migrate === 'hog') await hog();
  if (switches.migrate === 'prompt') {
    console.log('The following links are to be removed. Continue? [y/N]');
    if (fs.readFileSync(0, 'utf8').trim() !== 'y') throw new Error('nobody answered the question');
  }
  const known = sql('SELECT id FROM stub_migrations').split('\n');
  for (const { id, sql: text } of migrations) {
    if (known.includes(id)) continue;
    say('info', `● Migrating ${id}`);
    sql(`BEGIN; ${text}; INSERT INTO stub_migrations (id, release) VALUES (${quoted(id)}, ${quoted(process.env.RELEASE_ID)}); COMMIT;`);
    say('info', `✔ Migrated ${id}`);
  }
  if (switches.migrate === 'quiet-error') {
    say('error', 'Failed to acquire lock for key migration-scripts-running');
    return;
  }
  say('info', 'Migrations completed');
}

migrate().catch((error) => {
  console.error(`${error.message}`);
  process.exit(1);
});
