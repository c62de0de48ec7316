# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import socket

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.pm2_runtime import Pm2
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import PATIENCE, migrate, schema_id

from .engine_fakes import PASSWORD, make, place, written_json


@pytest.fixture(autouse=True)
def paths(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)


@pytest.fixture
def host(tmp_path):
    """A staged release r1 of an app whose r0 lives."""

    def start(**changes):
        app, world, log = make(tmp_path, **changes)
        app.journal.mark("r0", "staged", tree="t0")
        app.journal.go_live("r0", "blue", "t0")
        app.journal.mark("r1", "staged", tree="t1", source="s1")
        return app, world, log

    return start


def test_the_mark_is_the_last_act(host):
    app, world, log = host()
    assert migrate(app, log, release="r1") is True
    assert world.events == ["lock", "dump", "run", "FROM migrations", "mark"]
    assert world.marks == {"r1"} and app.journal.says("r1", "migrated")


def test_a_marked_release_is_not_migrated_again(host):
    app, world, log = host()
    world.marks.add("r1")
    assert migrate(app, log, release="r1") is False
    assert "run" not in world.events and app.journal.says("r1", "migrated")


def test_an_app_without_a_gate_passes_it(host):
    app, world, log = host(migrate=None)
    assert migrate(app, log, release="r1") is False
    assert world.events == [] and app.journal.release("r1")["migrated_by"] == "nothing to migrate"


def test_a_release_that_is_not_staged_is_refused(host):
    app, world, log = host()
    with pytest.raises(AnchorageError, match="Release r9 of shop is not staged"):
        migrate(app, log, release="r9")
    assert world.events == []


@pytest.mark.parametrize(
    ("rc", "output", "answer", "message"),
    [
        (1, ["boom"], "3", "ended with code 1"),
        (124, [], "3", "ended with code 124"),
        (0, ["fine", '{"level":"error","message":"lock"}'], "3", 'it said: {"level":"error","message":"lock"}'),
        (0, ["fine"], "2", "said it succeeded, but all is recorded: .* gives '2', expected '3'"),
    ],
    ids=["code", "timeout", "error-line", "tables"],
)
def test_a_failed_migration_leaves_no_mark_and_says_what_lives(host, rc, output, answer, message):
    app, world, log = host()
    world.rc, world.output = rc, output
    world.answers["FROM migrations"] = answer
    with pytest.raises(AnchorageError, match=message) as error:
        migrate(app, log, release="r1")
    assert error.value.live == "shop release r0 in slot blue"
    assert "deploy.yml" in error.value.next_step
    assert world.marks == set() and not app.journal.says("r1", "migrated")


def test_the_migration_runs_with_limits_and_without_a_secret_in_its_command_line(host):
    app, world, log = host()
    migrate(app, log, release="r1")
    (command,) = world.streamed
    path = f"{app.layout.release('r1')}/run/migrate.json"
    assert command[-3:] == [app.command, "exec", path]
    assert PASSWORD not in " ".join(command) and "--property=RuntimeMaxSec=60" in command
    wanted = written_json(world, path)
    assert wanted["argv"] == ["node", "migrate.js"] and wanted["cwd"] == f"{app.layout.release('r1')}/app"
    assert wanted["env"]["PGOPTIONS"] == "-c lock_timeout=5s -c statement_timeout=30s"
    assert wanted["env"]["DATABASE_URL"].count(PASSWORD) == 1 and wanted["env"]["RELEASE_ID"] == "r1"


def test_what_a_killed_step_left_running_is_ended_before_the_restore_point(host, monkeypatch):
    app, world, log = host()
    monkeypatch.setattr(Pm2, "end", lambda self, name: world.events.append(f"end {name}") or name == "migrate")
    migrate(app, log, release="r1")
    assert world.events.index("lock") < world.events.index("end migrate") < world.events.index("end rehearse") < world.events.index("dump")
    assert "ended the command (migrate) that a killed step had left behind" in " ".join(log.tail)


def test_no_password_is_in_a_command_line_of_psql(host):
    app, world, log = host()
    migrate(app, log, release="r1")
    calls = [call for call in world.ran if call["argv"][0] == "psql"]
    assert calls and all(PASSWORD not in " ".join(call["argv"]) and call["env"]["PGPASSWORD"] == PASSWORD for call in calls)


def test_what_another_run_migrated_while_we_waited_is_believed(host):
    app, world, log = host()
    world.lock_answers = ["f", "f", "t"]
    world.on_sleep = lambda: world.marks.add("r1")
    assert migrate(app, log, release="r1") is False
    assert "run" not in world.events
    assert "waiting for its lock" in " ".join(log.tail)


def test_a_lock_that_is_never_given_is_not_waited_for_for_ever(host):
    app, world, log = host()
    world.lock_answers = ["f"] * 1000
    with pytest.raises(AnchorageError, match="holds the lock of shop on 127.0.0.1:5432 for too long"):
        migrate(app, log, release="r1")
    assert sum(world.slept) <= 65


@pytest.mark.parametrize("said", [[], ["psql: error: server closed the connection"]])
def test_a_lock_whose_connection_broke_is_no_lock(host, said):
    app, world, log = host()
    world.lock_answers = said
    with pytest.raises(AnchorageError, match="The migration lock of shop .* cannot be taken"):
        migrate(app, log, release="r1")
    assert "run" not in world.events


def test_a_host_that_may_not_migrate_waits_for_the_mark(host):
    app, world, log = host(migrator=False)
    world.answers["pg_locks"] = "t"
    world.on_sleep = lambda: world.marks.add("r1") if len(world.slept) == 100 else None
    assert migrate(app, log, release="r1") is False
    assert "run" not in world.events and len(world.slept) == 100 and app.journal.says("r1", "migrated")


def test_a_host_that_may_not_migrate_stops_waiting_when_nobody_migrates(host):
    app, world, log = host(migrator=False)
    world.answers["pg_locks"] = "f"
    with pytest.raises(AnchorageError, match="No other host migrated release r1 of shop"):
        migrate(app, log, release="r1")
    assert sum(world.slept) <= PATIENCE + 1, "a migrator that failed is not waited for as long as one that works"
    assert not app.journal.says("r1", "migrated")


def test_a_database_that_is_away_is_named_soon(host):
    app, world, log = host()
    world.database_up = False
    with pytest.raises(AnchorageError, match="The database shop on 127.0.0.1:5432 cannot be reached as shop"):
        migrate(app, log, release="r1")
    assert sum(world.slept) <= 20 and "run" not in world.events


def test_redis_is_asked_before_the_migration(host):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    app, world, log = host(redis_url=f"redis://shop:{PASSWORD}@127.0.0.1:{port}/0")
    with pytest.raises(AnchorageError, match=f"Redis of shop does not answer at 127.0.0.1:{port}") as error:
        migrate(app, log, release="r1")
    assert PASSWORD not in error.value.text() and "run" not in world.events


@pytest.mark.parametrize(("known", "events"), [("", ["dump", "run"]), ("same", ["run"]), ("other", ["dump", "run"])])
def test_a_restore_point_is_taken_where_the_schemas_sources_changed(host, known, events):
    app, world, log = host()
    app.document["migrate"]["files"] = ["src/modules/*"]
    files = {"src/modules/a/1.js": "aa", "src/api/b.js": "bb"}
    world.files[f"{app.layout.build('t1')}/.anchorage.json"] = json.dumps({"files": files, "dependencies": "d1"})
    world.schema = schema_id(app, "r1") if known == "same" else known
    migrate(app, log, release="r1")
    assert [event for event in world.events if event in ("dump", "run")] == events


def test_the_schemas_sources_are_the_named_files_and_the_dependencies(host):
    app, world, _log = host()
    app.document["migrate"]["files"] = ["src/modules/*"]
    app.document["build"]["output"] = ".medusa/server"

    def named(files, dependencies="d1"):
        inside = {f".medusa/server/{path}": checksum for path, checksum in files.items()}
        world.files[f"{app.layout.build('t1')}/.anchorage.json"] = json.dumps({"files": inside, "dependencies": dependencies})
        return schema_id(app, "r1")

    first = named({"src/modules/a/migrations/1.js": "aa", "src/api/b.js": "bb"})
    assert named({"src/modules/a/migrations/1.js": "aa", "src/api/b.js": "changed"}) == first
    assert len({first, named({"src/modules/a/migrations/1.js": "changed"}), named({"src/modules/a/migrations/1.js": "aa"}, "d2")}) == 3


def test_no_restore_point_is_taken_where_the_contract_says_so(host):
    app, world, log = host()
    app.document["migrate"]["restore_point"]["enabled"] = False
    migrate(app, log, release="r1")
    assert "dump" not in world.events


def test_without_a_restore_point_nothing_is_migrated(host):
    app, world, log = host()
    world.free = 1000
    world.answers["pg_database_size"] = str(1 << 20)
    with pytest.raises(AnchorageError, match="no restore point, so shop is not migrated: it needs 1 MiB") as error:
        migrate(app, log, release="r1")
    assert "run" not in world.events and world.marks == set() and error.value.live == "shop release r0 in slot blue"


EMPTY = {"columns": {}, "rules": [], "unique": [], "labels": []}
ITEMS = {**EMPTY, "columns": {"public.items": {"name": ["text", False, False]}}}


def test_the_mark_says_what_the_migration_did_to_the_tables(host):
    app, world, log = host()
    world.catalogs = [ITEMS, EMPTY]
    migrate(app, log, release="r1")
    (mark,) = [call["argv"] for call in world.ran if call["input"] and "INSERT INTO anchorage.release" in call["input"]]
    assert "verdict=contract" in mark and 'findings=["table public.items is gone"]' in mark
    assert app.layout.catalog not in world.files


@pytest.mark.parametrize(
    ("catalogs", "said"),
    [([ITEMS, ITEMS], "The tables are what they were"), ([ITEMS, EMPTY], r"It left changed tables \(contract\): table public.items is gone")],
)
def test_a_failure_says_what_it_left_of_the_tables(host, catalogs, said):
    app, world, log = host()
    world.rc, world.catalogs = 1, list(catalogs)
    with pytest.raises(AnchorageError, match=said):
        migrate(app, log, release="r1")


def test_what_a_failed_attempt_left_counts_for_the_one_that_succeeds(host):
    app, world, log = host()
    world.rc, world.catalogs = 1, [ITEMS, EMPTY]
    with pytest.raises(AnchorageError):
        migrate(app, log, release="r1")
    app.journal.mark("r2", "staged", tree="t2", source="s2")
    world.rc, world.catalogs = 0, [EMPTY]
    migrate(app, log, release="r2")
    assert {point["migrated"] for point in app.journal.restore_points()} == {"r2"}
    assert any("verdict=contract" in call["argv"] for call in world.ran)
