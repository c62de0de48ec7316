# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes use what an upgrade has replaced, and how they are started again."""

from __future__ import annotations

import contextlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, restart
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.health import FAIL, OK, Check
from ansible_collections.anchorage.vps.plugins.module_utils.slots import Slots

from .engine_fakes import make, place

DAEMON, SERVER = 50, 60
MAP = "7f00-7f10 r-xp 00000000 08:01 42    {path}\n"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libssl.so.3"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An app whose release r1 is live in slot blue: PM2's daemon and the server, on the Node that is installed."""
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path)
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    app.journal.go_live("r1", "blue", "t1")
    app.journal.settled()
    world.process(DAEMON, command="PM2 v7.0.4: God Daemon (/var/lib/pm2/shop)")
    world.process(SERVER, parent=DAEMON, environ={"ANCHORAGE_PROCESS": "shop-server-blue", "ANCHORAGE_RELEASE": "r1"})
    for pid in (DAEMON, SERVER):
        world.files[f"/proc/{pid}/maps"] = MAP.format(path="/usr/bin/node") + MAP.format(path=LIBRARY)
        world.links[f"/proc/{pid}/exe"] = "/usr/bin/node"
    world.files["/usr/bin/node"] = world.files["/usr/local/bin/pm2"] = ""
    world.files["/usr/local/bin/pm2"] = 'umask 077\nexec node /opt/pm2/7.0.4/node_modules/pm2/bin/pm2 "$@"\n'
    world.files[f"{app.layout.pm2_home}/pm2.pid"] = f"{DAEMON}\n"
    return app, world


def test_nothing_asks_for_a_restart_where_nothing_was_replaced(host):
    app, _world = host
    assert restart.outdated(app) == []


@pytest.mark.parametrize(("pid", "name"), [(DAEMON, "PM2"), (SERVER, "shop-server-blue")])
def test_a_library_that_was_replaced_is_named_with_who_uses_it(host, pid, name):
    app, world = host
    world.files[f"/proc/{pid}/maps"] += MAP.format(path=f"{LIBRARY} (deleted)")
    assert restart.outdated(app) == [f"{name} uses {LIBRARY}, which was replaced"]


@pytest.mark.parametrize("path", ["/tmp/.node-1 (deleted)", "/memfd:wasm (deleted)", "/dev/zero (deleted)", "/SYSV00000000 (deleted)"])
def test_what_a_process_has_made_itself_is_no_reason(host, path):
    app, world = host
    world.files[f"/proc/{SERVER}/maps"] += MAP.format(path=path)
    assert restart.outdated(app) == []


def test_another_node_than_the_installed_one_is_a_reason(host):
    app, world = host
    world.links["/usr/local/bin/node"] = "/opt/nodejs/24.2.0/bin/node"
    assert restart.outdated(app) == ["PM2 runs on /usr/bin/node, and /opt/nodejs/24.2.0/bin/node is installed"]


def test_another_pm2_than_the_installed_one_is_a_reason(host):
    app, world = host
    world.files["/usr/local/bin/pm2"] = world.files["/usr/local/bin/pm2"].replace("7.0.4", "7.1.0")
    assert restart.outdated(app) == ["PM2 7.0.4 runs, and 7.1.0 is installed"]


def test_containers_bring_what_they_use(host):
    app, world = host
    world.files[f"/proc/{SERVER}/maps"] += MAP.format(path=f"{LIBRARY} (deleted)")
    app.document["runtime"] = "compose"
    assert restart.outdated(app) == []


@pytest.fixture
def answers(monkeypatch):
    """What processes say when they are asked."""
    found = {"verdict": OK}
    monkeypatch.setattr(engine, "lock", lambda app, **more: contextlib.nullcontext())
    monkeypatch.setattr(Slots, "ask", lambda self, instance, release, seconds: [Check("identity", found["verdict"], cause="nobody is there")])
    return found


def units(world):
    return [call["argv"] for call in world.ran if call["argv"][:2] == ["systemctl", "restart"]]


def test_a_restart_is_of_the_unit_and_only_where_something_asks_for_it(host, answers):
    app, world = host
    said = []
    assert restart.restart(app, Log(said.append)) == {"changed": False, "reasons": []} and units(world) == []
    assert restart.restart(app, Log(said.append), force=True)["changed"] and units(world) == [["systemctl", "restart", f"pm2-{app.user}.service"]]
    world.files[f"/proc/{SERVER}/maps"] += MAP.format(path=f"{LIBRARY} (deleted)")
    found = restart.restart(app, Log(said.append))
    assert found["changed"] and len(found["reasons"]) == 1 and len(units(world)) == 2
    assert f"shop: shop-server-blue uses {LIBRARY}, which was replaced" in said


def test_what_does_not_come_back_is_named(host, answers):
    app, _world = host
    answers["verdict"] = FAIL
    with pytest.raises(AnchorageError, match="shop-server-blue and shop-worker-blue of release r1 did not come back") as error:
        restart.restart(app, Log(lambda line: None), force=True)
    assert error.value.next_step == "anchorage diagnose shop"


def test_nothing_is_restarted_where_nothing_is_live(tmp_path, monkeypatch, answers):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    assert restart.restart(app, log, force=True) == {"changed": False, "reasons": []} and units(world) == []
