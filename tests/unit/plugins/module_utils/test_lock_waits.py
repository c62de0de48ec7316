# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import lock_waits
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate

from .engine_fakes import make, place

LOCKED = "ERROR:  canceling statement due to lock timeout"


@pytest.fixture
def host(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    return app, world, log


def test_a_migration_that_did_not_get_a_lock_is_tried_again(host):
    app, world, log = host
    world.rc, world.output = 1, [LOCKED]
    world.on_sleep = lambda: setattr(world, "rc", 0)
    assert migrate(app, log, release="r1") is True
    assert world.events.count("run") == 2 and world.events.count("dump") == 1 and world.marks == {"r1"}
    assert lock_waits.PAUSE[0] <= sum(world.slept) <= lock_waits.PAUSE[1]


def test_it_is_not_tried_for_ever(host):
    app, world, log = host
    world.rc, world.output = 1, [LOCKED]
    with pytest.raises(AnchorageError, match="It waited 5 s for a lock, 3 times") as error:
        migrate(app, log, release="r1")
    assert world.events.count("run") == 3 and "pg_stat_activity" in error.value.next_step and world.marks == set()


def test_what_failed_for_another_reason_is_not_tried_again(host):
    app, world, log = host
    world.rc, world.output = 1, ["ERROR:  relation does not exist"]
    with pytest.raises(AnchorageError, match="ended with code 1"):
        migrate(app, log, release="r1")
    assert world.events.count("run") == 1
