# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the present data with what a backup gives, row by row: what would be lost is counted before anything is touched."""

from __future__ import annotations

import itertools
import json
import typing as t

from .database import Database
from .errors import AnchorageError
from .world import World

#: Rows of a table beyond which only their numbers are compared.
MOST_ROWS = 5_000_000

#: Hexadecimal digits of a key's hash that make a group of rows: 65 536 groups.
BUCKET = 4

#: Groups of which a command line can name each: 8 bytes apiece, of the 128 KiB that one argument may have.
MOST_GROUPS = 12_000

#: Both sides must write a value the same way.
SESSION = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex';"

TABLES = """
SELECT coalesce(json_object_agg(format('%s.%s', n.nspname, c.relname), json_build_object('sql', format('%I.%I', n.nspname, c.relname), 'key',
  (SELECT json_agg(quote_ident(a.attname) ORDER BY k.place) FROM pg_index i
   CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(number, place)
   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE i.indrelid = c.oid AND i.indisprimary))), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""

Data = dict[str, t.Any]


def tables(database: Database) -> dict[str, Data]:
    """Return the tables of a database by their names: C(sql), how SQL names it, and C(key), the columns of its primary key."""
    return t.cast("dict[str, Data]", json.loads(database.execute(TABLES)))


def fingerprints(database: Database, known: t.Mapping[str, Data], *, seconds: float) -> dict[str, tuple[int, str]]:
    """Return for each table how many rows it has, and a sum over all of them that does not depend on their order."""
    if not known:
        return {}
    queries = [f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ONLY {entry['sql']} AS t;" for entry in known.values()]
    answers = database.execute("\n".join([SESSION, *queries]), timeout=seconds).splitlines()
    if len(answers) != len(known):
        raise AnchorageError(f"{database.name} did not count all of its tables.")
    parted = (answer.split("|") for answer in answers)
    return {name: (int(count), digest) for name, (count, digest) in zip(known, parted)}


def count(database: Database, *, seconds: float) -> dict[str, tuple[int, str]]:
    """Return the fingerprints of all tables."""
    return fingerprints(database, tables(database), seconds=seconds)


def compare(world: World, live: Database, restored: Database, *, seconds: float = 3600, then: dict[str, tuple[int, str]] | None = None) -> list[Data]:
    """Return the tables that differ, each with its C(only_live), C(changed) and C(only_restored) rows.

    :arg then: the fingerprints of what was restored, where they are known; they are written into it where they are not.

    C(state) is C(gone) for a table that only the backup has, C(new) for one that only the present data have.
    """
    here, there = tables(live), tables(restored)
    then = {} if then is None else then
    if not then:
        then.update(fingerprints(restored, there, seconds=seconds))
    now = fingerprints(live, here, seconds=seconds)
    found: list[Data] = []
    for name in sorted({*here, *there}):
        if name not in there:
            found.append(row(name, only_live=now[name][0], state="new"))
        elif name not in here:
            found.append(row(name, only_restored=then[name][0], state="gone"))
        elif now[name] != then[name]:
            found.append(_differing(world, live, restored, name, here[name], there[name], now[name][0], then[name][0], seconds))
    return found


def row(name: str, *, only_live: int = 0, changed: int = 0, only_restored: int = 0, state: str = "", approximate: bool = False) -> Data:
    return {"table": name, "only_live": only_live, "changed": changed, "only_restored": only_restored, "state": state, "approximate": approximate}


def _differing(world: World, live: Database, restored: Database, name: str, here: Data, there: Data, rows: int, rows_then: int, seconds: float) -> Data:
    if max(rows, rows_then) > MOST_ROWS:
        return row(name, only_live=max(0, rows - rows_then), only_restored=max(0, rows_then - rows), approximate=True)
    keyed = bool(here["key"]) and here["key"] == there["key"]
    ours, theirs = _buckets(live, here, keyed, seconds), _buckets(restored, there, keyed, seconds)
    differing = sorted(number for number in {*ours, *theirs} if ours.get(number) != theirs.get(number))
    with _lines(world, live, here, keyed, differing) as left, _lines(world, restored, there, keyed, differing) as right:
        only_live, changed, only_restored = merge(_split(left.stdout), _split(right.stdout))
        codes = (left.wait(timeout=60), right.wait(timeout=60))
    if any(codes):
        raise AnchorageError(f"The rows of {name} could not be compared (psql ended with {codes[0] or codes[1]}).", what="counting what would be lost")
    return row(name, only_live=only_live, changed=changed, only_restored=only_restored)


def _key(table: Data, keyed: bool) -> str:
    """Return what tells rows apart, as SQL: the primary key, or the whole row where there is none."""
    text = "t::text" if not keyed else f"ROW({', '.join(f't.{column}' for column in table['key'])})::text"
    return f"md5({text})"


def _buckets(database: Database, table: Data, keyed: bool, seconds: float) -> dict[str, str]:
    """Return a sum over the rows of each of many groups, so that only rows of groups that differ need to be read one by one."""
    sums = "count(*) AS n, sum(hashtextextended(t::text, 0)::numeric) AS s"
    groups = f"SELECT left({_key(table, keyed)}, {BUCKET}) AS g, {sums} FROM ONLY {table['sql']} AS t GROUP BY 1"
    text = database.execute(f"{SESSION} SELECT json_object_agg(g, n || ' ' || s) FROM ({groups}) AS q", timeout=seconds)
    return t.cast("dict[str, str]", json.loads(text)) if text else {}


def _lines(world: World, database: Database, table: Data, keyed: bool, groups: t.Sequence[str]) -> t.Any:
    key = _key(table, keyed)
    # Of very many groups, a list would be longer than a command line may be.
    only = f"WHERE left({key}, {BUCKET}) IN ({', '.join(repr(group) for group in groups)})" if len(groups) <= MOST_GROUPS else ""
    query = f'SELECT {key} COLLATE "C", hashtextextended(t::text, 0) FROM ONLY {table["sql"]} AS t {only} ORDER BY 1, 2'
    return world.output(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", f"{SESSION} COPY ({query}) TO STDOUT", address(database)])


def address(database: Database) -> str:
    """Return a connection string without a password, for a command line: those who are asked here are entered by who one is."""
    part = database.environment
    return " ".join(f"{key}='{part[name]}'" for key, name in (("host", "PGHOST"), ("port", "PGPORT"), ("user", "PGUSER"), ("dbname", "PGDATABASE")))


def _split(stream: t.Any) -> t.Iterator[tuple[bytes, bytes]]:
    for line in stream:
        key, _tab, digest = line.rstrip(b"\n").partition(b"\t")
        yield key, digest


def merge(ours: t.Iterable[tuple[bytes, bytes]], theirs: t.Iterable[tuple[bytes, bytes]]) -> tuple[int, int, int]:
    """Return how many rows only the one side has, differ, and only the other has. Both are sorted by their keys."""
    only_ours = changed = only_theirs = 0
    left, right = _grouped(ours), _grouped(theirs)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            only_ours += len(t.cast("tuple[bytes, list[bytes]]", a)[1])
            a = next(left, None)
        elif a is None or b[0] < a[0]:
            only_theirs += len(b[1])
            b = next(right, None)
        else:
            both = min(len(a[1]), len(b[1]))
            changed += sum(one != other for one, other in zip(a[1], b[1]))
            only_ours, only_theirs = only_ours + len(a[1]) - both, only_theirs + len(b[1]) - both
            a, b = next(left, None), next(right, None)
    return only_ours, changed, only_theirs


def _grouped(rows: t.Iterable[tuple[bytes, bytes]]) -> t.Iterator[tuple[bytes, list[bytes]]]:
    for key, group in itertools.groupby(rows, key=lambda row: row[0]):
        yield key, [digest for _key, digest in group]
