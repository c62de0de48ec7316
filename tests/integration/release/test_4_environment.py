# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One value, many sinks: what the contract says reaches build, migration, server and worker byte for byte, whatever reads it on the way."""

from __future__ import annotations

import base64
import json

import pytest

from ansible_collections.anchorage.vps.tests.hostile import CANARY, contract_values

from .conftest import STUB

SEEN = "const seen = JSON.stringify(Object.fromEntries(Object.entries(process.env).filter(([key]) => /^V[0-9]{3}$/.test(key))));\n"


@pytest.mark.fault
def test_values_arrive_byte_for_byte_everywhere(shop):
    values = contract_values()
    build = (STUB / "build.js").read_text() + SEEN + "process.on('exit', () => fs.writeFileSync('dist/seen.json', seen));\n"
    migrate = (STUB / "migrate.js").read_text() + SEEN
    migrate += "process.on('exit', () => sql(`CREATE TABLE IF NOT EXISTS seen (env text); DELETE FROM seen; INSERT INTO seen VALUES (${quoted(seen)})`));\n"
    shop.host.shell(f"rm -f {CANARY}")
    shop.apps.app("alpha", env=values, files={"build.js": build, "migrate.js": migrate})
    # Into a build in containers no password goes.
    harmless = {key: value for key, value in values.items() if "://" not in value}
    shop.apps.apps["alpha"]["build"] = {**shop.apps.apps["alpha"]["build"], "env": harmless}
    shop.apps.write()
    shop.apps.deploy()
    online = shop.host.serving().online
    assert len(online) == 2
    for name, pid in online.items():
        raw = shop.host.shell(f"base64 -w0 /proc/{pid}/environ")
        found = dict(part.decode().split("=", 1) for part in base64.b64decode(raw).split(b"\0") if b"=" in part)
        assert {key: found.get(key) for key in values} == values, name
    assert json.loads(shop.host.sql("SELECT env FROM seen")) == values, "the migration"
    path = shop.host.shell(f"find -L /proc/{online[min(online)]}/cwd/ -maxdepth 1 -name seen.json").strip()
    assert json.loads(shop.host.shell(f"cat {path}")) == harmless, "the build"
    assert shop.host.shell(f"ls {CANARY} 2>/dev/null || true").strip() == "", "no value was run"
    assert shop.apps.deploy().changed == 0
