# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_results, backup_settings
from ansible_collections.anchorage.vps.plugins.module_utils.backup_gate import check, doubts, job_of
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .backup_samples import KEY, document
from .engine_fakes import make, place

DAY = 86400
DUMPED = {"name": "blog", "method": "dump", "app": "blog", "owner": "blog"}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app that is live, on a host whose settings and last proof a test chooses."""
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    app.journal.mark("r0", "staged", tree="t0")
    app.journal.go_live("r0", "blue", "t0")

    def with_proof(proof=None, deploys="refuse", **changes):
        world.files[backup_settings.SETTINGS] = json.dumps(document(proof={"max_age_days": 9, "deploys": deploys}, **changes))
        world.files[backup_settings.KEY] = json.dumps({"key": KEY})
        world.files[backup_results.path("database")] = json.dumps({"ok": True, "finished": world.now(), **({"proof": proof} if proof else {})})
        return app, world, log

    return with_proof


def good(world, days):
    return {"ok": True, "finished": world.now() - days * DAY}


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        ({}, "no restore of it was ever proven"),
        ({"ok": False, "cause": "local: flipped", "finished": 0}, "its last proof failed: local: flipped"),
        ({"ok": True, "finished": -10 * DAY}, "its last proof is 10.0 days old, the limit is 9"),
        ({"ok": True, "finished": -9 * DAY}, ""),
    ],
)
def test_what_speaks_against_a_proof(proof, words):
    assert doubts(proof, 0, 9) == words


def test_a_deploy_is_refused_without_a_proof_where_that_is_wanted(shop):
    app, _world, log = shop()
    with pytest.raises(AnchorageError, match="cannot be relied on, so nothing is deployed: no restore of it was ever proven") as error:
        check(app, log)
    assert "anchorage backup prove database" in error.value.next_step


def test_it_goes_on_with_a_good_one(shop):
    app, world, log = shop()
    shop(good(world, 1))
    check(app, log)
    assert log.tail == []


def test_by_default_it_is_told_and_goes_on(shop):
    app, _world, log = shop(deploys="warn")
    check(app, log)
    assert "WARNING: its backup cannot be relied on" in log.tail[-1]
    app, _world, log = shop(deploys="ignore")
    log.tail.clear()
    check(app, log)
    assert log.tail == []


def test_the_first_release_needs_none(shop):
    app, _world, log = shop()
    app.journal.data["live"] = None
    check(app, log)


def test_a_host_that_does_not_save_the_database_does_not_judge(shop):
    app, world, log = shop(databases=[])
    check(app, log)
    del world.files[backup_settings.SETTINGS]
    check(app, log)


def test_the_proof_that_counts_is_that_of_the_job_which_saves_the_database():
    settings = Settings.parse(document(databases=[*document()["databases"], DUMPED]), KEY)
    assert (job_of(settings, "shop"), job_of(settings, "blog"), job_of(settings, "other")) == ("database", "files", None)
