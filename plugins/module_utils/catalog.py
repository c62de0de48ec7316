# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration did to the tables, seen by PostgreSQL's own catalog before and after it.

Whatever wrote the migration (MikroORM, Prisma, SQL by hand), the older code has to live with its result: new tables and columns do not
disturb it, what is gone or has become stricter does. Changes of the data alone are not seen.
"""

from __future__ import annotations

import typing as t

Catalog = dict[str, t.Any]

#: Nothing changed; only additions; something that the release before may need is gone, or may refuse what it writes.
NONE, EXPAND, CONTRACT = "none", "expand", "contract"

_MINE = "n.nspname NOT IN ('information_schema', 'anchorage') AND n.nspname NOT LIKE 'pg\\_%'"

QUERY = f"""
SELECT json_build_object(
  'columns', (
    SELECT coalesce(json_object_agg(format('%s.%s', n.nspname, c.relname), columns), '{{}}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, LATERAL (
      SELECT coalesce(json_object_agg(a.attname, json_build_array(format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '')), '{{}}') AS columns
      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS found
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_MINE}),
  'rules', (
    SELECT coalesce(json_agg(json_build_array(format('%s.%s', n.nspname, c.relname), k.conname, pg_get_constraintdef(k.oid))), '[]')
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND {_MINE}),
  'unique', (
    SELECT coalesce(json_agg(json_build_array(format('%s.%s', n.nspname, c.relname), i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid))), '[]')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.indisunique AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) AND {_MINE}),
  'labels', (
    SELECT coalesce(json_agg(json_build_array(format('%s.%s', n.nspname, y.typname), e.enumlabel)), '[]')
    FROM pg_enum e JOIN pg_type y ON y.oid = e.enumtypid JOIN pg_namespace n ON n.oid = y.typnamespace WHERE {_MINE}))
"""


def compare(before: Catalog, after: Catalog) -> tuple[str, list[str]]:
    """Return the verdict on a migration, and what speaks for it, worst first."""
    old, new = before["columns"], after["columns"]
    harder = [f"table {table} is gone" for table in sorted(set(old) - set(new))]
    softer = [f"table {table} is new" for table in sorted(set(new) - set(old))]
    for table in sorted(set(old) & set(new)):
        _compare_table(table, old[table], new[table], harder, softer)
    for key, what in (("rules", "constraint"), ("unique", "unique index")):
        known = {(entry[0], entry[1]): entry[2:] for entry in before[key]}
        for table, name, *definition in sorted(after[key]):
            if table in old and known.get((table, name)) != definition:
                harder.append(f"table {table} has a new {what} {name}" + (f": {definition[0]}" if definition else ""))
        present = {(entry[0], entry[1]) for entry in after[key]}
        for table, name in sorted(set(known) - present):
            if table in new:
                # An upsert names the uniqueness that it relies on; other rules are only missed by nobody.
                needed = key == "unique" or known[table, name][0].startswith(("PRIMARY KEY", "UNIQUE", "EXCLUDE"))
                (harder if needed else softer).append(f"table {table} lost its {what} {name}")
    labels_before, labels_after = ({tuple(entry) for entry in side["labels"]} for side in (before, after))
    harder += [f"type {name} lost its value '{label}'" for name, label in sorted(labels_before - labels_after)]
    softer += [f"type {name} has a new value '{label}'" for name, label in sorted(labels_after - labels_before)]
    return (CONTRACT if harder else EXPAND if softer else NONE), [*harder, *softer]


def _compare_table(table: str, old: Catalog, new: Catalog, harder: list[str], softer: list[str]) -> None:
    harder += [f"column {table}.{column} is gone" for column in sorted(set(old) - set(new))]
    for column in sorted(set(new) - set(old)):
        _type, required, filled = new[column]
        if required and not filled:
            harder.append(f"column {table}.{column} is new, must not be null and has no default")
        else:
            softer.append(f"column {table}.{column} is new")
    for column in sorted(set(old) & set(new)):
        (type_before, required_before, filled_before), (type_after, required_after, filled_after) = old[column], new[column]
        if type_before != type_after:
            harder.append(f"column {table}.{column} was {type_before} and is {type_after}")
        if required_after and not required_before:
            harder.append(f"column {table}.{column} must not be null any more")
        elif required_before and not required_after:
            softer.append(f"column {table}.{column} may be null now")
        if required_after and filled_before and not filled_after:
            harder.append(f"column {table}.{column} lost its default")
