# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.backup_compare import (
    LARGE_BYTES,
    Look,
    Moved,
    Way,
    compare,
    counted,
    judge,
    look,
    question,
    way,
    ways,
)
from ansible_collections.anchorage.vps.plugins.module_utils.database import Database
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .health_fakes import FakeWorld

STILL = Moved(0, 0, 0)


def seen(rows, *sample):
    return Look(rows, frozenset(sample))


def database(answer):
    return Database(FakeWorld(commands=answer), "postgres://shop:x@127.0.0.1/shop")


def test_small_tables_are_looked_at_whole_and_large_ones_in_part():
    assert way(0, 0) == Way(1, None)
    assert way(1000, 100_000) == Way(1, None)
    assert way(50_000, 100_000) == Way(50, None)
    # One that nobody has counted yet must not send all of its rows.
    assert way(0, 1 << 30) == Way(16778, None)
    assert way(10, 1 << 30) == Way(1074, None)
    assert way(0, 32768) == Way(1, None)
    part = way(100e6, LARGE_BYTES * 20)
    assert part.percent == 5.0 and part.every == 5000


def test_the_alias_of_the_row_is_no_name_that_a_column_has():
    text = question('"Od""d \'Name"', Way(3, None))
    assert "'\"Od\"\"d ''Name\"'" in text and 'FROM ONLY "Od""d \'Name" AS anchorage_row;' in text
    assert "% 3 = 0" in text and "TABLESAMPLE" not in text
    assert "AS anchorage_row TABLESAMPLE SYSTEM (0.5) REPEATABLE (1);" in question("t", Way(3, 0.5))


@pytest.mark.parametrize(
    ("first", "second", "copy", "moved", "problem", "exact"),
    [
        # What did not move must be the same, to the row.
        (seen(5, "a", "b"), seen(5, "a", "b"), seen(5, "a", "b"), STILL, "", True),
        (seen(5, "a", "b"), seen(5, "a", "b"), seen(4, "a", "b"), STILL, "it has 4 rows, and 5 were to be there", False),
        (seen(5, "a", "b"), seen(5, "a", "b"), seen(6, "a", "b"), STILL, "it has 6 rows", False),
        (seen(5, "a", "b"), seen(5, "a", "b"), seen(5, "a"), STILL, "1 of 2 sampled rows are missing or differ", False),
        (seen(5, "a", "b"), seen(5, "a", "b"), seen(5, "a", "b", "c"), STILL, "1 of 3 sampled rows were never there", False),
        (seen(5, "a"), seen(5, "a"), seen(0), STILL, "it has 0 rows", False),
        # What moved lies between.
        (seen(5, "a"), seen(9, "a", "b"), seen(7, "a"), Moved(4, 0, 0), "", False),
        (seen(5, "a"), seen(9, "a", "b"), seen(4, "a"), Moved(4, 0, 0), "it has 4 rows, and 5 to 13 were to be there", False),
        (seen(5, "a"), seen(9, "a", "b"), seen(14, "a"), Moved(4, 0, 0), "it has 14 rows", False),
        (seen(9, "a"), seen(9, "a"), seen(7, "a"), Moved(2, 0, 2), "", False),
        # A row that was changed and changed back.
        (seen(5, "a", "b"), seen(5, "a", "b"), seen(5, "a", "c"), Moved(0, 2, 0), "", False),
        # Too many of them for what was counted.
        (seen(90, *"abcdefgh"), seen(90, *"abcdefgh"), seen(90), Moved(0, 1, 0), "8 of 8 sampled rows are missing", False),
        # A table that was emptied is not counted as rows that were deleted.
        (seen(9, "a"), seen(0), seen(9, "a"), STILL, "", False),
        # The server began to count anew.
        (seen(9, "a"), seen(12, "b"), seen(10, "c"), None, "", False),
        (seen(9, "a"), seen(12, "b"), seen(30, "c"), None, "it has 30 rows", False),
    ],
)
def test_a_copy_is_what_lies_between_two_looks(first, second, copy, moved, problem, exact):
    found, proven = judge(first, second, copy, 1, moved)
    assert proven is exact
    assert problem in found and bool(problem) == bool(found)


def test_the_slack_of_a_sample_is_a_share_of_what_moved():
    sample = frozenset(map(str, range(100)))
    whole, half = Look(100_000, sample), Look(100_000, frozenset(sorted(sample)[:50]))
    assert judge(whole, whole, half, 1000, Moved(0, 1000, 0))[0] == "50 of 100 sampled rows are missing or differ"
    assert judge(whole, whole, half, 1000, Moved(0, 50_000, 0))[0] == ""


def test_tables_are_compared_one_by_one():
    chosen = dict.fromkeys(("same", "busy", "gone", "locked", "broken", "less"), Way(1, None))
    first = {name: seen(3, "x") for name in chosen if name != "locked"}
    second = {**first, "busy": seen(4, "x", "y")}
    copy = {"same": seen(3, "x"), "busy": seen(3, "x"), "less": seen(2, "x"), "new": seen(1)}
    before = dict.fromkeys(chosen, STILL)
    found = compare(chosen, first, second, copy, {"broken": "invalid page in block 3"}, before, {**before, "busy": Moved(1, 0, 0)})
    assert (found.equal, found.moving, found.skipped) == (["same"], ["busy"], ["locked"])
    assert found.wrong == {
        "gone": "it is missing",
        "broken": "it cannot be read: invalid page in block 3",
        "less": "it has 2 rows, and 3 were to be there",
    }


def test_counters_that_went_back_are_not_known():
    assert Moved(3, 2, 1).since(Moved(1, 1, 1)) == Moved(2, 1, 0)
    assert Moved(0, 0, 0).since(Moved(1, 1, 1)) is None


def test_tables_come_with_their_counters():
    row = {"name": "public.item", "plain": True, "estimated": 20000.0, "bytes": 8192, "inserted": 3, "updated": 2, "deleted": 1}
    where = database(lambda call: Completed(0, json.dumps([row]), ""))
    assert ways(where) == {"public.item": Way(20, None)}
    assert counted(where) == {"public.item": Moved(3, 2, 1)}


def test_a_table_that_cannot_be_read_costs_none_of_the_others():
    answers = {"good": json.dumps({"name": "good", "rows": 2, "sample": ["x"]})}

    def answer(call):
        rows = [text for name, text in answers.items() if f"ONLY {name} " in call["input"]]
        wrong = 'psql:<stdin>:9: ERROR:  could not read block 3 in file "base/5/1"\n' if "ONLY bad " in call["input"] else ""
        return Completed(3 if wrong else 0, "\n".join(rows), wrong)

    found, failed = look(database(answer), {"good": Way(1, None), "bad": Way(1, None)}, seconds=60)
    assert found == {"good": seen(2, "x")}
    assert failed == {"bad": 'could not read block 3 in file "base/5/1"'}


def test_a_table_that_was_locked_for_a_moment_is_looked_at_again():
    asked = []

    def answer(call):
        asked.append(call["input"])
        return Completed(0, "" if len(asked) == 1 else json.dumps({"name": "t", "rows": 1, "sample": []}), "")

    assert look(database(answer), {"t": Way(1, None)}, seconds=60) == ({"t": seen(1)}, {})
    assert "lock_timeout" in asked[0] and "statement_timeout = 60000" in asked[0] and "TimeZone = 'UTC'" in asked[1]
