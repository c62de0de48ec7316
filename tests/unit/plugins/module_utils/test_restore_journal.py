# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore_journal
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_journal import RestoreJournal, lock
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import GO, LATEST, Wish
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

WISH = Wish("database", "shop", LATEST)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(restore_journal, "DIRECTORY", str(tmp_path / "backup"))
    monkeypatch.setattr(restore_journal, "LOCK", str(tmp_path / "backup" / "lock"))
    return str(tmp_path / "backup" / "restore.json")


def test_what_is_written_is_read_by_the_next(place):
    journal = RestoreJournal(World(), place)
    journal.begin(WISH, GO, log="/log")
    journal.set_aside("database", "shop_before", "shop")
    journal.mark("exchanged shop", lost={"shop": []})
    found = RestoreJournal(World(), place)
    assert found.wish == WISH and found.has("exchanged shop") and found.id == journal.id and [entry["name"] for entry in found.aside] == ["shop_before"]


def test_a_restore_that_is_under_way_keeps_its_name_and_its_steps(place):
    journal = RestoreJournal(World(), place)
    journal.begin(WISH, GO, log="/a")
    journal.data["id"] = "first"
    journal.under_way(True)
    journal.mark("exchanged shop")
    journal.begin(WISH, GO, log="/b")
    assert journal.id == "first" and journal.has("exchanged shop") and journal.data["log"] == "/b" and journal.data["finished_at"] is None


def test_a_new_restore_knows_what_earlier_ones_have_set_aside_and_none_of_their_steps(place):
    journal = RestoreJournal(World(), place)
    journal.begin(WISH, GO, log="/a")
    journal.set_aside("database", "shop_before_1", "shop")
    journal.set_aside("database", "shop_before_1", "shop")
    journal.mark("exchanged shop")
    journal.end(ok=True)
    journal.begin(WISH, GO, log="/b")
    assert not journal.has("exchanged shop") and len(journal.aside) == 1
    journal.forget_aside("shop_before_1")
    assert RestoreJournal(World(), place).aside == []


def test_a_damaged_journal_and_one_of_a_newer_engine_are_refused(place, tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "restore.json").write_text("{")
    with pytest.raises(AnchorageError, match="is damaged"):
        RestoreJournal(World(), place)
    (tmp_path / "backup" / "restore.json").write_text(json.dumps({"schema": 9}))
    with pytest.raises(AnchorageError, match="schema 9"):
        RestoreJournal(World(), place)


def test_only_one_restore_at_a_time(place):
    with lock(World()), pytest.raises(AnchorageError, match="Another restore runs"), lock(World()):
        pass
    with lock(World()):
        pass


def test_without_any_restore_there_is_no_wish(place):
    journal = RestoreJournal(World(), place)
    assert journal.wish is None and journal.id == "" and not journal.unfinished
