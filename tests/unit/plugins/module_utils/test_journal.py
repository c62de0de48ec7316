# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.journal import HISTORY, Journal


class Store:
    """Files in memory and a clock that ticks."""

    def __init__(self):
        self.files, self.time, self.writes = {}, 0.0, 0

    def read(self, path):
        return self.files.get(path)

    def write_atomic(self, path, data, *, mode):
        self.files[path] = data
        self.writes += 1

    def now(self):
        self.time += 1
        return self.time


def test_a_new_journal_knows_no_release():
    journal = Journal("/j", "shop", Store())
    assert journal.live is None and journal.slot is None
    assert not journal.says("r1", "staged")


def test_what_was_marked_is_read_by_the_next_run():
    store = Store()
    Journal("/j", "shop", store).mark("r1", "staged", tree="t1")
    later = Journal("/j", "shop", store)
    assert later.says("r1", "staged") and not later.says("r1", "migrated")
    assert later.release("r1")["tree"] == "t1"


def test_the_release_that_goes_live_remembers_the_one_before():
    store = Store()
    journal = Journal("/j", "shop", store)
    journal.go_live("r1", "blue", "t1")
    journal.go_live("r2", "green", "t2")
    assert (journal.live, journal.slot, journal.data["previous"], journal.data["tree"]) == ("r2", "green", "r1", "t2")
    journal.go_live("r2", "blue", "t3")
    assert journal.data["previous"] == "r1", "the same release in its other slot is no step back"


def test_history_is_bounded():
    journal = Journal("/j", "shop", Store())
    for number in range(HISTORY + 20):
        journal.note("event", f"r{number}")
    assert len(journal.data["history"]) == HISTORY
    assert journal.data["history"][-1]["release"] == f"r{HISTORY + 19}"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"app": "shop"}', b"null"])
def test_a_damaged_journal_is_named_and_not_overwritten(raw):
    store = Store()
    store.files["/j"] = raw
    with pytest.raises(AnchorageError, match="/j is damaged"):
        Journal("/j", "shop", store)
    assert store.writes == 0


def test_a_newer_schema_is_refused():
    store = Store()
    store.files["/j"] = json.dumps({"schema": 99}).encode()
    with pytest.raises(AnchorageError, match="schema 99"):
        Journal("/j", "shop", store)
