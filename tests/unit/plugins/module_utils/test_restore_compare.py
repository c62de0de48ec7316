# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.plugins.module_utils import restore_compare as compare
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError


class Side:
    """A database whose tables are lists of rows, by name: (key, contents)."""

    def __init__(self, tables, keyed=True):
        self.data, self.keyed = tables, keyed
        self.environment = {"PGHOST": "/run", "PGPORT": "5432", "PGUSER": "postgres", "PGDATABASE": "it"}

    name = "it"

    def group(self, row):
        """The digits of a key's hash."""
        return f"{hash(str(row[0] if self.keyed else row)) % 7:04x}"

    def execute(self, sql, *, timeout=60, **_variables):
        if "pg_index" in sql:
            return json.dumps({name: {"sql": name, "key": ["id"] if self.keyed else None} for name in self.data})
        if "GROUP BY" in sql:
            groups = {}
            for row in self.data[sql.split("FROM ONLY ")[1].split(" AS ")[0]]:
                groups.setdefault(self.group(row), []).append(row)
            return json.dumps({group: str(hash(tuple(sorted(rows)))) for group, rows in groups.items()})
        names = [part.split(" AS ")[0].strip() for part in sql.split("FROM ONLY ")[1:]]
        return "\n".join(f"{len(self.data[name])}|{hash(tuple(sorted(self.data[name])))}" for name in names)


class Rows(io.BytesIO):
    code = 0

    def __init__(self, rows, keyed):
        super().__init__(b"".join(b"%s\t%s\n" % (str(key if keyed else (key, value)).encode(), str(value).encode()) for key, value in rows))
        self.stdout = self

    def wait(self, timeout):
        return self.code


class World:
    def __init__(self, *sides):
        self.sides, self.asked = list(sides), []

    def output(self, argv):
        self.asked.append(argv)
        side = self.sides[(len(self.asked) - 1) % 2]
        table = argv[-2].split("FROM ONLY ")[1].split(" AS ")[0]
        query = argv[-2]
        wanted = [row for row in side.data[table] if "WHERE" not in query or f"'{side.group(row)}'" in query.partition("IN (")[2]]
        self.read = [*getattr(self, "read", []), len(wanted)]
        rows = sorted(wanted, key=lambda row: str(row[0] if side.keyed else row).encode())
        return Rows(rows, side.keyed)


def differing(live, restored, keyed=True):
    sides = Side(live, keyed), Side(restored, keyed)
    return compare.compare(World(*sides), *sides)


def test_what_is_the_same_is_not_read_row_by_row():
    sides = Side({"a": [(1, "x")]}), Side({"a": [(1, "x")]})
    world = World(*sides)
    assert compare.compare(world, *sides) == [] and world.asked == []


def test_rows_that_only_one_side_has_and_rows_that_differ():
    (found,) = differing({"a": [(1, "x"), (2, "new"), (3, "z")]}, {"a": [(1, "x"), (3, "y"), (4, "back")]})
    assert (found["table"], found["only_live"], found["changed"], found["only_restored"]) == ("a", 1, 1, 1)


def test_only_rows_of_groups_that_differ_are_read(monkeypatch):
    rows = [(number, "x") for number in range(100)]
    sides = Side({"a": rows}), Side({"a": [row for row in rows if row[0] != 5]})
    world = World(*sides)
    (found,) = compare.compare(world, *sides)
    assert found["only_live"] == 1 and sum(world.read) < 60
    monkeypatch.setattr(compare, "MOST_GROUPS", 0)
    world = World(*sides)
    (found,) = compare.compare(world, *sides)
    assert found["only_live"] == 1 and sum(world.read) == 199


def test_what_was_restored_is_read_once(monkeypatch):
    sides, known, asked = (Side({"a": [(1, "x")]}), Side({"a": [(1, "x")]})), {}, []
    real = compare.fingerprints
    monkeypatch.setattr(compare, "fingerprints", lambda database, *args, **more: asked.append(database) or real(database, *args, **more))
    assert compare.compare(World(*sides), *sides, then=known) == [] and compare.compare(World(*sides), *sides, then=known) == []
    assert asked == [sides[1], sides[0], sides[0]] and known["a"][0] == 1


def test_tables_that_only_one_side_has():
    found = differing({"late": [(1, "x"), (2, "x")]}, {"gone": [(1, "x")]})
    assert [(row["table"], row["state"], row["only_live"], row["only_restored"]) for row in found] == [("gone", "gone", 0, 1), ("late", "new", 2, 0)]


def test_without_a_key_a_changed_row_is_one_that_goes_and_one_that_comes():
    (found,) = differing({"a": [(1, "x")]}, {"a": [(1, "y")]}, keyed=False)
    assert (found["only_live"], found["changed"], found["only_restored"]) == (1, 0, 1)


def test_a_huge_table_is_counted_only(monkeypatch):
    monkeypatch.setattr(compare, "MOST_ROWS", 2)
    (found,) = differing({"a": [(1, "x"), (2, "x"), (3, "x")]}, {"a": [(1, "x")]})
    assert found["approximate"] and found["only_live"] == 2


def test_a_psql_that_fails_is_no_answer(monkeypatch):
    monkeypatch.setattr(Rows, "code", 2)
    with pytest.raises(AnchorageError, match="could not be compared"):
        differing({"a": [(1, "x")]}, {"a": [(1, "y")]})


def test_a_database_that_counts_only_some_of_its_tables_is_not_believed(monkeypatch):
    monkeypatch.setattr(Side, "execute", lambda self, sql, **_more: json.dumps({"a": {"sql": "a", "key": None}}) if "pg_index" in sql else "")
    with pytest.raises(AnchorageError, match="did not count"):
        compare.count(Side({"a": []}), seconds=1)


ROWS = st.dictionaries(st.binary(max_size=3), st.binary(max_size=1), max_size=12)


@given(ROWS, ROWS)
def test_merging_says_what_sets_say(ours, theirs):
    both = ours.keys() & theirs.keys()
    wanted = (len(ours.keys() - theirs.keys()), sum(ours[key] != theirs[key] for key in both), len(theirs.keys() - ours.keys()))
    assert compare.merge(sorted(ours.items()), sorted(theirs.items())) == wanted


@given(st.lists(st.sampled_from([b"a", b"b", b"c"])), st.lists(st.sampled_from([b"a", b"b", b"c"])))
def test_rows_that_are_there_several_times_are_counted_so(ours, theirs):
    only_ours, changed, only_theirs = compare.merge(sorted((row, b"") for row in ours), sorted((row, b"") for row in theirs))
    assert changed == 0 and len(ours) - only_ours == len(theirs) - only_theirs
    assert only_ours == sum(max(0, ours.count(row) - theirs.count(row)) for row in {*ours, *theirs})


def test_an_address_holds_no_password():
    assert compare.address(Side({})) == "host='/run' port='5432' user='postgres' dbname='it'"
