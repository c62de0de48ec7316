# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import sessions
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import make, place

END, COUNT = "SELECT count(pg_terminate_backend(pid))", "SELECT count(*) FROM pg_stat_activity"


@pytest.fixture
def host(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    world.answers = {END: "0", COUNT: "0", **world.answers}
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    return app, world, log


def calls(world):
    return [call for call in world.ran if call["input"] and END in call["input"]]


def test_what_a_killed_migration_left_is_ended_before_the_next_and_after_a_failure(host):
    app, world, log = host
    world.answers[END] = "1"
    world.rc = 137
    with pytest.raises(AnchorageError):
        migrate(app, log, release="r1")
    events = [event for event in world.events if event in (END, "run", "lock")]
    assert events == ["lock", END, "run", END], "nobody else's: the migration lock is held"
    assert "ended 1 database session that a migration had left behind" in " ".join(log.tail)


def test_a_migration_that_succeeds_ends_nobody_afterwards(host):
    app, world, log = host
    migrate(app, log, release="r1")
    assert len(calls(world)) == 1


def test_only_sessions_of_this_apps_migration_are_ended(host):
    app, world, log = host
    assert sessions.end(app, log, app.database) == 0
    (call,) = calls(world)
    assert "name=anchorage-migrate-shop" in call["argv"]
    for part in ("datname = current_database()", "SET ROLE NONE;", "usename = session_user", "pid <> pg_backend_pid()", "application_name = left(:'name'"):
        assert part in call["input"]


def test_a_session_that_takes_back_what_it_did_is_waited_for(host):
    app, world, log = host
    world.answers.update({END: "2", COUNT: "1"})
    world.on_sleep = lambda: world.answers.update({COUNT: "0"}) if len(world.slept) == 4 else None
    assert sessions.end(app, log, app.database) == 2 and len(world.slept) == 4
    world.on_sleep = None
    world.answers[COUNT] = "1"
    assert sessions.end(app, log, app.database) == 2 and sum(world.slept) <= sessions.PATIENCE + 3
    assert "still taking back what they did" in log.tail[-1]


def test_a_database_that_is_gone_does_not_hide_the_migrations_own_failure(host):
    app, world, log = host
    world._psql = lambda argv, call: Completed(2, "", "connection refused")
    assert sessions.end(app, log, app.database) == 0
    assert "could not be ended" in log.tail[-1]
