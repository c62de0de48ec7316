# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_point import take
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import PASSWORD, make, place


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app whose r0 lives, and whose database has tables."""
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    app.journal.mark("r0", "staged", tree="t0")
    app.journal.go_live("r0", "blue", "t0")
    return app, world, log


def point(shop, release="r1"):
    app, _world, log = shop
    return take(app, log, app.database, release)


def test_a_restore_point_is_written_down_with_what_it_was_taken_for(shop):
    app, world, log = shop
    found = point(shop)
    assert app.journal.restore_points() == [found]
    assert (found["release"], found["before"], found["entries"], found["bytes"]) == ("r1", "r0", 2, 5)
    assert found["path"].startswith(f"{app.layout.restore_points}/") and found["path"].endswith("-r1.dump")
    assert world.written[found["path"]]["mode"] == 0o600 and world.written[app.layout.restore_points]["mode"] == 0o700
    assert found["path"] in log.tail[-1]


def test_the_dump_has_a_limit_waits_for_no_lock_for_ever_and_holds_no_password_in_its_command_line(shop):
    app, world, _log = shop
    point(shop)
    (call,) = [call for call in world.ran if call["argv"][0] == "pg_dump" and "--format=custom" in call["argv"]]
    assert call["timeout"] == 60 and "--lock-wait-timeout=30s" in call["argv"] and "--no-password" in call["argv"]
    assert PASSWORD not in " ".join(call["argv"]) and call["env"]["PGPASSWORD"] == PASSWORD


def test_an_empty_database_needs_none(shop):
    app, world, _log = shop
    world.answers["FROM pg_class"] = "0"
    assert point(shop) is None and "dump" not in world.events and app.journal.restore_points() == []


def test_the_oldest_go_when_there_are_too_many(shop):
    app, world, _log = shop
    paths = []
    for number in (1, 2, 3):
        paths.append(point(shop, f"r{number}")["path"])
        app.journal.settle_restore_points(f"r{number}")
    assert [entry["path"] for entry in app.journal.restore_points()] == paths[1:]
    assert paths[0] not in world.files and paths[1] in world.files and paths[2] in world.files


@pytest.mark.parametrize(
    ("fault", "cause", "advice"),
    [
        (
            lambda world: world.answers.update({"SHOW server_version_num": "180001"}),
            "pg_dump 17 of this host is older than the server's PostgreSQL 18",
            "Install postgresql-client-18",
        ),
        (lambda world: setattr(world, "free", 0), "MiB are free", "Make room"),
        (
            lambda world: setattr(world, "dump", Completed(1, "", "pg_dump: error: permission denied for table x\n")),
            "failed: pg_dump: error: permission denied for table x",
            "deploy.yml again",
        ),
        (lambda world: setattr(world, "dump", Completed(124, "", "")), "took more than 60 s", "deploy.yml again"),
        (
            lambda world: setattr(world, "listing", Completed(1, "", "pg_restore: error: unsupported version\n")),
            "cannot be read back: pg_restore: error: unsupported version",
            "Look at the disk",
        ),
        (lambda world: setattr(world, "listing", Completed(0, "; a list without entries\n", "")), "it holds no data", "Look at the disk"),
    ],
    ids=["old-client", "full-disk", "refused", "slow", "unreadable", "empty"],
)
def test_what_cannot_be_dumped_and_read_back_is_no_restore_point(shop, fault, cause, advice):
    app, world, _log = shop
    world.answers["pg_database_size"] = "4096"
    fault(world)
    with pytest.raises(AnchorageError) as error:
        point(shop)
    assert "There is no restore point, so shop is not migrated" in error.value.message and cause in error.value.message
    assert advice in error.value.next_step and error.value.what == "gate (restore point)"
    assert app.journal.restore_points() == [] and not [path for path in world.files if "/restore/" in path]


def test_the_first_one_since_the_last_success_stays_however_often_it_fails(shop):
    """What failed attempts left is in every later dump."""
    app, world, _log = shop
    paths = [point(shop, f"r{number}")["path"] for number in (1, 2, 3, 4)]
    assert [entry["path"] for entry in app.journal.restore_points()] == [paths[0], *paths[2:]] and paths[0] in world.files
    app.journal.settle_restore_points("r4")
    assert {entry["migrated"] for entry in app.journal.restore_points()} == {"r4"}
    last = point(shop, "r5")["path"]
    assert [entry["path"] for entry in app.journal.restore_points()] == [paths[3], last]
