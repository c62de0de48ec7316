// Copyright: (c) 2026, Anchorage maintainers
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// Answers GET and POST, some of them after a while. No signal is handled, on purpose.
'use strict';
const http = require('http');

const release = process.env.RELEASE_ID;
const LARGE = Buffer.alloc(2_000_000, 'x');

function receive(request, done) {
  let bytes = 0;
  request.on('data', (piece) => { bytes += piece.length; });
  request.on('end', () => done(bytes));
}

function send(response, status, data) {
  const body = typeof data === 'string' || Buffer.isBuffer(data) ? data : JSON.stringify(data);
  response.writeHead(status, { 'Content-Type': typeof data === 'object' && !Buffer.isBuffer(data) ? 'application/json' : 'text/plain' });
  response.end(body);
}

function answer(request, response) {
  const url = new URL(request.url, 'http://abrupt');
  receive(request, (bytes) => {
    const pause = url.pathname === '/slow' ? Math.min(Number(url.searchParams.get('ms')) || 0, 60000) : 0;
    const status = request.method === 'POST' ? 201 : 200;
    setTimeout(() => {
      if (url.pathname === '/health') send(response, 200, 'OK');
      else if (url.pathname === '/large') send(response, 200, LARGE);
      else if (['/page', '/note', '/slow'].includes(url.pathname)) send(response, status, { release, pid: process.pid, bytes });
      else send(response, 404, 'no such page');
    }, pause);
  });
}

http.createServer(answer).listen(Number(process.env.PORT), process.env.HOST);
