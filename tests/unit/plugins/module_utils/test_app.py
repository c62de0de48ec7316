# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import ME, PASSWORD, HostWorld, document, make, place, written_json


@pytest.fixture(autouse=True)
def paths(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)


def test_an_app_without_document_is_named_with_those_that_have_one():
    world = HostWorld()
    world.files["/etc/anchorage/apps/blog.json"] = json.dumps(document("/srv/blog"))
    with pytest.raises(AnchorageError, match="no app 'shop' on this host .*; there is: blog"):
        App("shop", world)


def test_the_document_that_the_last_deploy_left_is_read(tmp_path):
    world = HostWorld()
    world.files["/etc/anchorage/apps/shop.json"] = json.dumps(document("/srv/shop"))
    assert App("shop", world).layout.release("r1") == "/srv/shop/releases/r1"


def test_a_host_without_node_says_what_to_run(tmp_path):
    app, world, _log = make(tmp_path)
    world._node = lambda argv, call: Completed(127, "", "node: not found")
    with pytest.raises(AnchorageError, match="Node is not installed") as error:
        app.node_version()
    assert "provision.yml" in error.value.next_step


@pytest.mark.parametrize(
    ("changes", "gated"),
    [({}, True), ({"migrate": None}, False), ({"database_url": None}, False)],
)
def test_only_an_app_with_database_and_migration_has_a_gate(tmp_path, changes, gated):
    app, _world, _log = make(tmp_path, **changes)
    assert app.gated is gated
    assert app.migrated("r1") is not gated


def test_the_mark_in_the_database_opens_the_gate_and_nothing_else_does(tmp_path):
    app, world, _log = make(tmp_path)
    app.journal.mark("r1", "migrated")
    assert not app.migrated("r1"), "the journal is only a copy"
    world.marks.add("r1")
    assert app.migrated("r1")
    world.database_up = False
    assert not app.migrated("r1"), "a database that does not answer opens nothing"


def test_what_lives_is_said_in_words(tmp_path):
    app, _world, _log = make(tmp_path)
    assert app.living() == "shop has no live release on this host"
    app.journal.go_live("r1", "green", "t1")
    assert app.living() == "shop release r1 in slot green"


def test_a_sandbox_has_a_user_limits_and_its_own_unit(tmp_path):
    app, world, _log = make(tmp_path)
    options = {"argv": ["npm", "ci", "${d}"], "cwd": "/work", "env": {"B": PASSWORD, "A": "1"}, "writable": ["/work", "/cache"], "timeout_seconds": 60}
    command = app.sandboxed("/run/x$.json", **options, memory_mb=700, name="install")
    assert command[0] == "systemd-run" and command[-4:] == ["--", app.command, "exec", "/run/x$$.json"]
    assert written_json(world, "/run/x$.json") == {"argv": ["npm", "ci", "${d}"], "cwd": "/work", "env": {"A": "1", "B": PASSWORD}}
    for word in (
        "--unit=anchorage-shop-install",
        f"--property=User={ME.pw_name}",
        "--property=RuntimeMaxSec=60",
        "--property=MemoryMax=700M",
        "--property=ProtectSystem=strict",
        "--property=ReadWritePaths=/work",
        "--property=ReadWritePaths=/cache",
    ):
        assert word in command
    assert not any(PASSWORD in word or word.startswith("--setenv") for word in command), "everybody may read a command line"
    unlimited = app.sandboxed("/run/x.json", **options, memory_mb=None, name="x")
    assert not any("MemoryMax" in word for word in unlimited)


def test_what_a_step_runs_ends_with_the_step(tmp_path, monkeypatch):
    app, _world, _log = make(tmp_path)
    options = {"argv": ["true"], "cwd": "/", "env": {}, "writable": [], "memory_mb": None, "timeout_seconds": 1, "name": "x"}
    assert not any("BindsTo" in word for word in app.sandboxed("/run/x.json", **options)), "a step run by hand has no unit"
    monkeypatch.setenv("ANCHORAGE_UNIT", "anchorage-shop.service")
    command = app.sandboxed("/run/x.json", **options)
    assert "--property=BindsTo=anchorage-shop.service" in command and "--property=After=anchorage-shop.service" in command


def test_what_a_process_is_started_with_is_for_the_apps_group_only(tmp_path):
    app, world, _log = make(tmp_path)
    app.write_exec("/run/x.json", argv=["node", "x"], cwd="/srv", env={"PASSWORD": PASSWORD}, gid=ME.pw_gid)
    assert world.written["/run/x.json"] == {"mode": 0o640, "uid": 0, "gid": ME.pw_gid}
    assert written_json(world, "/run/x.json") == {"argv": ["node", "x"], "cwd": "/srv", "env": {"PASSWORD": PASSWORD}}


def test_a_log_remembers_its_end_only():
    said = []
    log = Log(said.append)
    for number in range(100):
        log.command(f"line {number}")
    assert len(said) == 100 and len(log.tail) == Log.KEEP and log.tail[-1] == "  | line 99"
