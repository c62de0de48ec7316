# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a database that lives with its restored copy, while the living one moves on.

The living one is looked at twice, before and after the moment to which the copy was restored: rows are counted, and digests of a sample are
taken. What was the same both times must be so in the copy, to the row. Where something moved, the copy must lie between the two looks, with
as much slack as the server's own counters of inserts, updates and deletes give.

A restored cluster has its rows at the same places (ctid), so the sample is chosen by place, and choosing costs no reading of the rows.
"""

from __future__ import annotations

import json
import math
import typing as t

from .database import Database, first_line
from .encoders import sql_literal

#: Rows of a table whose digests are compared.
SAMPLE = 1000

#: A table that is larger is not read whole on the living server: blocks of it are chosen, up to as much.
LARGE_BYTES = 2 << 30

#: Statements that make a row's text the same wherever it is read; a look waits for no lock for long.
SESSION = """\
\\set ON_ERROR_STOP off
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET bytea_output = 'hex'; SET extra_float_digits = 1;
SET lc_monetary = 'C'; SET search_path = pg_catalog; SET lock_timeout = '10s'; SET max_parallel_workers_per_gather = 0;
SET default_transaction_read_only = on; SET statement_timeout = {milliseconds};
"""

#: Ordinary tables, partitions and filled materialized views; what is not logged is empty in a copy. Large objects are data too.
TABLES = (
    "SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind = 'r' AS plain, greatest(c.reltuples, 0) AS estimated, pg_table_size(c.oid) AS bytes,"
    " coalesce(s.n_tup_ins, 0) AS inserted, coalesce(s.n_tup_upd, 0) AS updated, coalesce(s.n_tup_del, 0) AS deleted"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid"
    " WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated"
    " AND (c.oid = 'pg_largeobject'::regclass OR n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')"
    " ORDER BY 1"
)


class Way(t.NamedTuple):
    """How a table is looked at, every time the same."""

    #: One row of so many is sampled.
    every: int
    #: Share of the table's blocks that are read, in percent; None for all of it.
    percent: float | None


class Moved(t.NamedTuple):
    """What the server counted on a table since it began to count, or between two moments."""

    inserted: int
    updated: int
    deleted: int

    def since(self, before: Moved) -> Moved | None:
        """Return what came on top; None where the server began to count anew in between."""
        found = Moved(self.inserted - before.inserted, self.updated - before.updated, self.deleted - before.deleted)
        return found if min(found) >= 0 else None


class Look(t.NamedTuple):
    """What one look at a table showed."""

    rows: int
    sample: frozenset[str]


class Compared(t.NamedTuple):
    """How a copy's tables compare."""

    #: Those that did not move and are the same.
    equal: list[str]
    #: Those that moved, and whose copy lies between the two looks.
    moving: list[str]
    #: Those that could not be looked at on the living server.
    skipped: list[str]
    #: What is wrong, by table.
    wrong: dict[str, str]


def way(estimated: float, size: int) -> Way:
    """Return how to look at a table of about so many rows and bytes."""
    # Nobody has counted a table that was just filled, or it has grown since: its size says that there may be more.
    estimated = max(estimated, size / 1000) if estimated > 0 else size / 64
    percent = None if size <= LARGE_BYTES else round(100 * LARGE_BYTES / size, 4)
    read = estimated * (percent or 100) / 100
    return Way(max(1, math.ceil(read / SAMPLE)), percent)


def ways(database: Database) -> dict[str, Way]:
    """Return the tables of a database, quoted, and how to look at each."""
    return {row["name"]: way(float(row["estimated"]), int(row["bytes"])) for row in database.rows(TABLES)}


def counted(database: Database) -> dict[str, Moved]:
    """Return what the server counted on each table."""
    return {row["name"]: Moved(int(row["inserted"]), int(row["updated"]), int(row["deleted"])) for row in database.rows(TABLES)}


def question(name: str, chosen: Way) -> str:
    """Return the statement that looks at one table. The alias is no column's name, so that it means the row."""
    part = "" if chosen.percent is None else f" TABLESAMPLE SYSTEM ({chosen.percent}) REPEATABLE (1)"
    digests = f"json_agg(left(md5(anchorage_row::text), 16)) FILTER (WHERE hashtid(anchorage_row.ctid) % {chosen.every} = 0)"
    found = f"json_build_object('name', {sql_literal(name)}, 'rows', count(*), 'sample', coalesce({digests}, '[]'))::text"
    return f"SELECT {found} FROM ONLY {name} AS anchorage_row{part};\n"


def look(database: Database, chosen: t.Mapping[str, Way], *, seconds: float) -> tuple[dict[str, Look], dict[str, str]]:
    """Look at tables. Returns what was seen, and why the others could not be read."""
    session = SESSION.format(milliseconds=int(seconds * 1000))
    done = database.psql(session + "".join(question(name, one) for name, one in chosen.items()), timeout=seconds)
    seen = {}
    for line in filter(None, done.stdout.splitlines()):
        row = json.loads(line)
        seen[row["name"]] = Look(row["rows"], frozenset(row["sample"]))
    failed = {}
    for name in set(chosen) - set(seen):
        # Again and alone, for its own words; it may have been locked, too.
        again = database.psql(session + question(name, chosen[name]), timeout=seconds)
        if again.stdout.strip():
            row = json.loads(again.stdout)
            seen[name] = Look(row["rows"], frozenset(row["sample"]))
        else:
            failed[name] = first_line(again.stderr).partition("ERROR:")[2].strip() or first_line(again.stderr)
    return seen, failed


def judge(first: Look, second: Look, copy: Look, every: int, moved: Moved | None) -> tuple[str, bool]:
    """Say what is wrong with a table's copy, and whether it is proven to the row.

    :arg moved: what the server counted between the looks; None where it is not known.
    """
    if first == second == copy:
        return "", True
    if moved is None:
        moved = Moved(max(first.rows, second.rows), max(first.rows, second.rows), max(first.rows, second.rows))
    low, high = min(first.rows, second.rows) - moved.deleted, max(first.rows, second.rows) + moved.inserted
    if not low <= copy.rows <= high:
        wanted = f"{low}" if low == high else f"{max(low, 0)} to {high}"
        return f"it has {copy.rows} rows, and {wanted} were to be there", False
    changed = moved.updated + moved.deleted
    lost = (first.sample & second.sample) - copy.sample
    if len(lost) > _slack(changed, every):
        return f"{len(lost)} of {len(first.sample & second.sample)} sampled rows are missing or differ", False
    strange = copy.sample - (first.sample | second.sample)
    if len(strange) > _slack(moved.inserted + moved.updated, every):
        return f"{len(strange)} of {len(copy.sample)} sampled rows were never there", False
    return "", False


def _slack(moved: int, every: int) -> float:
    """Return how many rows of a sample may differ, given how many rows moved in all: what falls into the sample, and what chance adds."""
    return 0 if moved == 0 else 3 + 3 * moved / every


def compare(
    chosen: t.Mapping[str, Way],
    first: t.Mapping[str, Look],
    second: t.Mapping[str, Look],
    copy: t.Mapping[str, Look],
    failed: t.Mapping[str, str],
    before: t.Mapping[str, Moved],
    after: t.Mapping[str, Moved],
) -> Compared:
    """Compare all tables of a database.

    :arg chosen: tables and their ways, as of the first look.
    :arg failed: why tables of the copy could not be read.
    :arg before: counters before the first look.
    :arg after: counters after the second look; later ones only widen what may have moved.
    """
    found = Compared([], [], [], {})
    for name, one in chosen.items():
        if name not in first or name not in second:
            found.skipped.append(name)
        elif name in failed:
            found.wrong[name] = f"it cannot be read: {failed[name]}"
        elif name not in copy:
            found.wrong[name] = "it is missing"
        else:
            moved = after[name].since(before[name]) if name in before and name in after else None
            problem, exact = judge(first[name], second[name], copy[name], one.every, moved)
            if problem:
                found.wrong[name] = problem
            else:
                (found.equal if exact else found.moving).append(name)
    return found
