// Copyright: (c) 2026, Anchorage maintainers
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// "Builds" the server: copies what runs into built/.
'use strict';
const fs = require('fs');

fs.mkdirSync('built', { recursive: true });
for (const name of ['server.js', 'package.json', 'number.txt']) if (fs.existsSync(name)) fs.copyFileSync(name, `built/${name}`);
