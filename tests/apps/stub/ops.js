// What a shop with a queue has besides, as examples/medusa-shop has it: /ops/ready, and pulses that only a worker answers. On with `pulses`.
'use strict';
const net = require('net');
const tls = require('tls');
const crypto = require('crypto');
const { ask, sql, quoted } = require('./stub');

const TABLES = `CREATE TABLE IF NOT EXISTS pulse_request (token text PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS pulse_beat (token text, source text, worker_mode text, created_at timestamptz DEFAULT now())`;

function json(response, status, data) {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(data));
}

function redis(told) {
  const url = new URL(process.env.REDIS_URL);
  const socket = (url.protocol === 'rediss:' ? tls : net).connect({ port: Number(url.port), host: url.hostname });
  let said = '';
  socket.setTimeout(5000, () => socket.destroy(new Error('timeout')));
  socket.on('data', (data) => {
    said += data;
    if (said.split('\r\n').length > 2) socket.end();
  });
  socket.on('error', (error) => console.error(`error: Redis: ${error.message}`));
  socket.on('close', () => {
    const good = said.endsWith('+PONG\r\n');
    if (!good) console.error(`error: Redis said ${JSON.stringify(said)}`);
    told(good ? 'ok' : 'failed');
  });
  socket.write(`AUTH ${decodeURIComponent(url.username)} ${decodeURIComponent(url.password)}\r\nPING\r\n`);
}

function ready(response) {
  redis((queue) => ask('SELECT 1', (error) => {
    const checks = { postgres: error ? 'failed' : 'ok', redis: queue };
    const good = Object.values(checks).every((value) => value === 'ok');
    json(response, good ? 200 : 503, { ready: good, checks });
  }));
}

function submit(response) {
  const token = crypto.randomUUID();
  ask(`INSERT INTO pulse_request VALUES (${quoted(token)})`, (error) => json(response, error ? 500 : 202, error ? { error: error.message } : { token }));
}

function beats(response, token) {
  ask(`SELECT coalesce(json_agg(b), '[]') FROM pulse_beat b WHERE token = ${quoted(token)}`, (error, text) => {
    if (error) return void json(response, 500, { error: error.message });
    const found = JSON.parse(text);
    json(response, 200, { count: found.length, beats: found });
  });
}

// A token that JWT_SECRET signs, as a session is.
function signed(text) {
  return `${text}.${crypto.createHmac('sha256', process.env.JWT_SECRET).update(text).digest('base64url')}`;
}

// Keys of AES-256 as 64 hexadecimal digits: the one to write with, then the earlier ones that may have written.
function keys() {
  return [process.env.ENCRYPTION_KEY_CURRENT, ...(process.env.ENCRYPTION_KEY_OLD || '').split(',')].filter(Boolean).map((key) => Buffer.from(key, 'hex'));
}

function seal(text) {
  const iv = crypto.randomBytes(12);
  const cipher = crypto.createCipheriv('aes-256-gcm', keys()[0], iv);
  return Buffer.concat([iv, cipher.update(text), cipher.final(), cipher.getAuthTag()]).toString('base64url');
}

function open(sealed) {
  const data = Buffer.from(sealed, 'base64url');
  for (const key of keys()) {
    const decipher = crypto.createDecipheriv('aes-256-gcm', key, data.subarray(0, 12)).setAuthTag(data.subarray(-16));
    try {
      return Buffer.concat([decipher.update(data.subarray(12, -16)), decipher.final()]).toString();
    } catch { /* another key wrote it */ }
  }
  return null;
}

function me(request, response) {
  const token = (request.headers.authorization || '').replace('Bearer ', '');
  const good = token && signed(token.split('.')[0]) === token;
  json(response, good ? 200 : 401, { user: good ? token.split('.')[0] : null });
}

// Tells whether a request was meant for this.
function serve(request, response, url) {
  if (url.pathname === '/ops/login') json(response, 200, { token: signed('customer') });
  else if (url.pathname === '/ops/me') me(request, response);
  else if (url.pathname === '/ops/seal') json(response, 200, { sealed: seal(url.searchParams.get('text')) });
  else if (url.pathname === '/ops/open') {
    const text = open(url.searchParams.get('sealed'));
    json(response, text === null ? 500 : 200, { text });
  } else if (url.pathname === '/ops/ready') ready(response);
  else if (url.pathname === '/ops/pulses' && request.method === 'POST') submit(response);
  else if (url.pathname === '/ops/pulses') beats(response, url.searchParams.get('token'));
  else return false;
  return true;
}

function start(mode) {
  sql(TABLES);
  if (mode !== 'worker') return;
  const work = (source, token) => `INSERT INTO pulse_beat (token, source, worker_mode) SELECT ${token}, '${source}', 'worker'`;
  ask(work('job', 'NULL'), () => {});
  setInterval(() => ask(`WITH taken AS (DELETE FROM pulse_request RETURNING token) ${work('queue', 'token')} FROM taken`, () => {}), 500);
}

module.exports = { serve, start };
