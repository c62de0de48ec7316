# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a project's own migrations would do to a database that is in use, read from their files before anything runs.

Two questions: may the release that serves meanwhile need what is taken away (contract), and would a large table be locked against
writes for as long as it is read or written through (lock-heavy). Statements are taken from C(.sql) files and from the strings of JavaScript and
TypeScript (the part before C(down)). Rules after PostgreSQL's documentation of C(ALTER TABLE) and of explicit locking, and after squawk's.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import typing as t

from .catalog import CONTRACT, EXPAND, NONE

LOCK_HEAVY = "lock-heavy"

#: What a contract calls these verdicts in C(migrate.allow).
ALLOWED = {CONTRACT: "contract", LOCK_HEAVY: "lock_heavy"}

SCRIPTS = (".js", ".cjs", ".mjs", ".ts", ".cts", ".mts")
DIRECTORIES = ("migrations", "migration")

#: Stands for what a script puts into a statement when it runs.
HOLE = "anchorage_some_name"

_NAME = r'(?:"[^"]+"|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|[\w$]+))?'
_MAYBE = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_KINDS = "TABLE|VIEW|MATERIALIZED VIEW|FOREIGN TABLE|SCHEMA|TYPE|DOMAIN|FUNCTION|PROCEDURE|ROUTINE|AGGREGATE|SEQUENCE|EXTENSION"
_SQL = re.compile(
    r"\s*(ALTER|CREATE|DROP|TRUNCATE|DELETE|UPDATE|INSERT|LOCK|VACUUM|CLUSTER|REINDEX|REFRESH|DO|COMMENT|GRANT|REVOKE|SET|WITH|MERGE|SELECT)\b", re.IGNORECASE
)
_DOWN = re.compile(r"\bdown\s*(?:=|:|\()|\bfunction\s+down\b")
_BUILDER = re.compile(r"\.\s*(drop(?:Table|Column|View|Schema|Enum|Database)\w*|rename(?:Table|Column)\w*|removeColumn|changeColumn)\s*\(")
_VOLATILE = re.compile(r"\b(random|gen_random_uuid|uuid_generate_v\d\w*|clock_timestamp|nextval|timeofday)\s*\(", re.IGNORECASE)


class Finding(t.NamedTuple):
    """One statement that somebody has to answer for."""

    verdict: str
    path: str
    statement: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.statement[:160]}{' …' if len(self.statement) > 160 else ''} ({self.reason})"


@dataclasses.dataclass
class Tables:
    """What is known of the tables that are in use.

    :arg sizes: bytes of each table, by C(schema.table); None where the database was not asked: every table then counts as large.
    :arg large: bytes from which a table is large.
    :arg columns: type, not null, default of each column of each table.
    :arg rules: the definition of each constraint, by table and name.
    """

    sizes: t.Mapping[str, int] | None = None
    large: int = 0
    columns: t.Mapping[str, t.Mapping[str, t.Any]] = dataclasses.field(default_factory=dict)
    rules: t.Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    created: set[str] = dataclasses.field(default_factory=set)

    def known(self, name: str) -> list[str]:
        """Return the tables that a name may mean: the search path is the migration's own affair, so any schema will do for a name without one."""
        bare = name.removeprefix("public.")
        return [other for other in self.sizes or () if other == name or (bare != name and other.partition(".")[2] == bare)]

    def in_use(self, name: str) -> bool:
        """Tell whether a table was there before these migrations; one whose name is made at run time counts as if it was."""
        return HOLE in name or (name not in self.created and (self.sizes is None or bool(self.known(name))))

    def is_large(self, name: str) -> bool:
        """Tell whether to read a table through takes long."""
        if HOLE in name or self.sizes is None:
            return self.in_use(name)
        return self.in_use(name) and any(self.sizes[other] >= self.large for other in self.known(name))

    def column(self, name: str, column: str) -> tuple[str, bool, bool] | None:
        """Return type, whether it must not be null, and whether it has a default; None where that is not known."""
        for other in self.known(name):
            found = self.columns.get(other, {}).get(column)
            if found:
                return t.cast("tuple[str, bool, bool]", tuple(found))
        return None

    def rule(self, name: str, rule: str) -> str | None:
        """Return the definition of a constraint that a table has."""
        return next((self.rules[other, rule] for other in self.known(name) if (other, rule) in self.rules), None)


def is_migration(path: str) -> bool:
    """Tell whether a file of a project is a migration: SQL, or a script in a directory of migrations."""
    if path.endswith(".sql"):
        return posixpath.basename(path) not in ("down.sql",) and not path.endswith(".down.sql")
    directories = posixpath.dirname(path).split("/")
    return path.endswith(SCRIPTS) and not path.endswith(".d.ts") and any(name in DIRECTORIES for name in directories)


def stem(path: str) -> str:
    """Return what a migration is called before and after it is compiled."""
    return posixpath.splitext(path)[0]


def statements(path: str, text: str) -> list[str]:
    """Return the statements of a migration, in one line each."""
    if path.endswith(".sql"):
        return split(text)
    found = []
    for piece in _strings(text):
        lines = split(piece)
        if any(_SQL.match(line) for line in lines):
            found += lines
    return found + [f"{call}(…)" for call in _calls(text)]


def split(text: str) -> list[str]:
    """Split SQL at its semicolons, without comments and with single blanks."""
    found, current = [], []
    for kind, piece in _tokens(text):
        if kind == "end":
            found.append(current)
            current = []
        else:
            current.append(piece)
    return [line for line in (" ".join("".join(part).split()) for part in [*found, current]) if line]


_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<text>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"[^\"]*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|(?P<end>;)|(?P<other>.)",
    re.DOTALL,
)


def _tokens(text: str) -> t.Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        kind = t.cast(str, match.lastgroup) if match.lastgroup != "tag" else "text"
        yield ("other", " ") if kind == "comment" else (kind, match[0])


_CODE = re.compile(r"//[^\n]*|/\*.*?\*/|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|`(?:[^`\\]|\\.)*`", re.DOTALL)


def _up(text: str) -> str:
    """Return a script up to its way back, whose statements are not what is going to run."""
    bare = _CODE.sub(lambda match: " " * len(match[0]), text)
    down = _DOWN.search(bare)
    up = re.search(r"\bup\b", bare)
    if down is None or (up is not None and up.start() > down.start()):
        return text
    return text[: down.start()]


def _strings(text: str) -> t.Iterator[str]:
    """Return the strings of a script; those that are added up are one."""
    up = _up(text)
    found, end = "", -1
    for match in _CODE.finditer(up):
        if match[0][0] not in "'\"`":
            continue
        between = re.fullmatch(r"\s*\+\s*(?P<word>[\w.()]+\s*\+\s*)?", up[end : match.start()]) if end >= 0 else None
        if end >= 0 and not between:
            yield found
        found = (found + (HOLE if between["word"] else "") if between else "") + _body(match[0])
        end = match.end()
    if end >= 0:
        yield found


def _body(literal: str) -> str:
    body = re.sub(r"\$\{[^}]*\}", HOLE, literal[1:-1]) if literal[0] == "`" else literal[1:-1]
    return re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), body, flags=re.DOTALL)


def _calls(text: str) -> list[str]:
    """Return calls of a query builder that take something away; their arguments are not read."""
    bare = _CODE.sub(lambda match: " " * len(match[0]), _up(text))
    return [match[1] for match in _BUILDER.finditer(bare)]


def pending(new: t.Mapping[str, t.Sequence[str]], known: t.Iterable[t.Mapping[str, t.Sequence[str]]]) -> dict[str, list[str]]:
    """Return what is in a release's migrations and in none of those that the database has seen, in the order of their names.

    :arg new: statements by path.
    :arg known: the same of each release that the database was migrated to.
    """
    seen: dict[str, set[str]] = {}
    for release in known:
        for path, lines in release.items():
            seen.setdefault(stem(path), set()).update([*lines, ""])
    fresh = {path: [line for line in lines if line not in seen.get(stem(path), ())] for path, lines in sorted(new.items())}
    return {path: lines for path, lines in fresh.items() if lines or stem(path) not in seen}


def judge(wanted: t.Mapping[str, t.Sequence[str]], tables: Tables) -> tuple[str, list[Finding]]:
    """Return the verdict on pending migrations (none, expand, contract, lock-heavy) and the statements that speak for it, the worst first."""
    found: list[Finding] = []
    for path, lines in wanted.items():
        for line in lines:
            found += [Finding(verdict, path, shown(line), reason) for verdict, reason in judge_statement(line, tables)]
    found.sort(key=lambda finding: finding.verdict != CONTRACT)
    return (found[0].verdict if found else EXPAND if wanted else NONE), found


def shown(line: str) -> str:
    """Return a statement as it may be printed: its values may be secrets."""
    return re.sub(r"'(?:[^']|'')*'", "'…'", line)


def normal(name: str) -> str:
    """Return a table's name as the catalog writes it, with its schema."""
    parts = [part[1:-1] if part.startswith('"') else part.lower() for part in re.findall(r'"[^"]+"|[\w$]+', name)]
    return ".".join(parts if len(parts) > 1 else ["public", *parts])


def judge_statement(line: str, tables: Tables) -> list[tuple[str, str]]:
    """Return the verdicts on one statement, each with its reason; remembers which tables it creates."""
    # What stands in quotes as a value is no keyword.
    bare = re.sub(r"'(?:[^']|'')*'", "''", line)
    if re.match(r"DO\b", bare, re.IGNORECASE):
        return _judge_block(line, tables)
    if re.match(r"(?:WITH|MERGE)\b", bare, re.IGNORECASE):
        parts = [bare[match.start() :] for match in re.finditer(r"\b(?:DELETE\s+FROM|UPDATE)\b", bare, re.IGNORECASE)]
        return [verdict for part in parts for verdict in judge_statement(part, tables)]
    if re.match(r"ALTER\s+TABLE\b", bare, re.IGNORECASE):
        bare = line  # the values in a constraint say whether it is wider than the one before
    for pattern, judge_it in _RULES:
        match = pattern.match(bare)
        if match:
            return judge_it(match, tables)
    return [(CONTRACT, "a call that takes away or renames")] if re.match(r"\w+\(…\)$", bare) else []


def _judge_block(line: str, tables: Tables) -> list[tuple[str, str]]:
    body = re.search(r"\$(\w*)\$(.*)\$\1\$", line, re.DOTALL)
    quoted = re.search(r"'((?:[^']|'')*)'", line) if body is None else None
    text = body[2] if body else quoted[1].replace("''", "'") if quoted else ""
    parts = split(re.sub(r"\b(?:BEGIN|THEN|ELSE|LOOP)\b", ";", text, flags=re.IGNORECASE))
    for command in re.finditer(r"\bEXECUTE\s+(?:format\s*\(\s*)?(?:'((?:[^']|'')*)'|\$(\w*)\$(.*?)\$\2\$)", text, re.IGNORECASE | re.DOTALL):
        parts += split(re.sub(r"%(?:\d+\$)?[IsL]", HOLE, (command[1] or command[3] or "").replace("''", "'")))
    return [verdict for part in parts for verdict in judge_statement(part, tables)]


def _create_table(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
    if tables.sizes is None or normal(match["name"]) not in tables.sizes:
        tables.created.add(normal(match["name"]))
    return []


def _create_index(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
    name = normal(match["name"])
    found = []
    if match["unique"] and tables.in_use(name):
        found.append((CONTRACT, f"a new unique index may refuse what the release before writes to {name}"))
    if not match["concurrently"] and tables.is_large(name):
        found.append((LOCK_HEAVY, f"{name} cannot be written to while the index is built; CREATE INDEX CONCURRENTLY can"))
    return found


def _drop(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
    what = " ".join(match["what"].lower().split())
    names = [normal(name) for name in re.split(r"\s*,\s*", match["names"])]
    if what in ("table", "view", "materialized view", "foreign table"):
        names = [name for name in names if tables.in_use(name)]
    return [(CONTRACT, f"{what} {name} is gone") for name in names]


def _in_use(verdict: str, reason: str) -> t.Callable[[re.Match[str], Tables], list[tuple[str, str]]]:
    def judge_it(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
        name = normal(match["name"])
        good = tables.in_use(name) if verdict == CONTRACT else tables.is_large(name)
        return [(verdict, reason.format(name))] if good else []

    return judge_it


def _truncate(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
    names = [normal(name) for name in re.split(r"\s*,\s*", match["names"])]
    return [(CONTRACT, f"all rows of {name} are gone") for name in names if tables.in_use(name)]


def _without_where(verdict: str, reason: str) -> t.Callable[[re.Match[str], Tables], list[tuple[str, str]]]:
    """Judge a statement that has no condition of its own; those of what is in parentheses are not its own."""
    judge_it = _in_use(verdict, reason)

    def judge_whole(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
        rest, before = match.string, ""
        while rest != before:
            rest, before = re.sub(r"\([^()]*\)", " ", rest), rest
        return [] if re.search(r"\bWHERE\b", rest.partition(")")[0], re.IGNORECASE) else judge_it(match, tables)

    return judge_whole


def _always(verdict: str, reason: str) -> t.Callable[[re.Match[str], Tables], list[tuple[str, str]]]:
    return lambda match, tables: [(verdict, reason)]


def _alter_table(match: re.Match[str], tables: Tables) -> list[tuple[str, str]]:
    name = normal(match["name"])
    if not tables.in_use(name):
        return []
    found = []
    for action in _actions(match["actions"]):
        for pattern, verdicts in _ACTIONS:
            hit = pattern.match(action)
            if hit:
                if not _is_idle(hit, action, name, tables):
                    found += [(verdict, reason.format(table=name, **hit.groupdict())) for verdict, reason in verdicts(hit, action)]
                break
    return [(verdict, reason) for verdict, reason in found if verdict == CONTRACT or tables.is_large(name)]


_SAME = {
    "varchar": "character varying",
    "char": "character",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "bool": "boolean",
    "float8": "double precision",
    "float4": "real",
    "decimal": "numeric",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
}


def _type(text: str) -> str:
    """Return a type as the catalog writes it."""
    text = " ".join(text.lower().split())
    zone = re.fullmatch(r"timestamp(tz)?\s*\((\d+)\)( with(?:out)? time zone)?", text)
    if zone:
        return f"timestamp({zone[2]}){zone[3] or (' with time zone' if zone[1] else ' without time zone')}"
    word, parenthesis, rest = text.partition("(")
    return _SAME.get(word.strip(), word.strip()) + (f"({rest}".replace(" ", "") if parenthesis else "")


def _is_idle(hit: re.Match[str], action: str, table: str, tables: Tables) -> bool:
    """Tell whether an action changes nothing that anybody could need: generators write many that do not."""
    groups = hit.groupdict()
    if groups.get("rule"):
        before = tables.rule(table, groups["rule"].strip('"'))
        old, new = (set(re.findall(r"'((?:[^']|'')*)'", text)) for text in (before or "", action))
        return bool(old) and old <= new and re.search(r"\bIN\b|= ANY", action, re.IGNORECASE) is not None
    have = tables.column(table, groups["column"].strip('"')) if groups.get("column") else None
    if have is None:
        return False
    now, required, filled = have
    if groups.get("wanted"):
        wanted = _type(groups["wanted"])
        return now == wanted or (wanted == "text" and now.startswith("character varying"))
    if groups.get("idle"):
        return required if "NOT" in groups["idle"].upper() else not (required and filled)
    return False


def _actions(text: str) -> list[str]:
    """Split the actions of an ALTER TABLE at the commas that are in no parentheses and no quotes."""
    depth, quoted, found = 0, False, [""]
    for letter in text:
        quoted ^= letter == "'"
        depth += 0 if quoted else (letter == "(") - (letter == ")")
        if letter == "," and depth == 0 and not quoted:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


Verdicts = t.Callable[[re.Match[str], str], list[tuple[str, str]]]

_SCAN = (LOCK_HEAVY, "{table} is read through under a lock that keeps writers out")


def _both(reason: str) -> Verdicts:
    return lambda hit, action: [(CONTRACT, reason), (LOCK_HEAVY, "{table} is rewritten or read through under a lock that keeps everybody out")]


def _contract(reason: str) -> Verdicts:
    return lambda hit, action: [(CONTRACT, reason)]


def _nothing(hit: re.Match[str], action: str) -> list[tuple[str, str]]:
    return []


def _add_column(hit: re.Match[str], action: str) -> list[tuple[str, str]]:
    found = []
    action = re.sub(r'"[^"]*"', '""', action)
    filled = re.search(r"\b(DEFAULT|GENERATED|SERIAL|BIGSERIAL|SMALLSERIAL)\b", action, re.IGNORECASE)
    if re.search(r"\bNOT\s+NULL\b|\bPRIMARY\s+KEY\b", action, re.IGNORECASE) and not filled:
        found.append((CONTRACT, "column {column} must not be null and has no default, so the release before can add no row"))
    if re.search(r"\bUNIQUE\b|\bPRIMARY\s+KEY\b", action, re.IGNORECASE):
        found.append((LOCK_HEAVY, "an index of {table} is built under a lock that keeps everybody out"))
    elif _VOLATILE.search(action) or re.search(r"\b(STORED|SERIAL|BIGSERIAL|SMALLSERIAL)\b", action, re.IGNORECASE):
        found.append((LOCK_HEAVY, "{table} is rewritten, since each row gets a value of its own"))
    return found


def _add_constraint(hit: re.Match[str], action: str) -> list[tuple[str, str]]:
    found = [(CONTRACT, "a new constraint may refuse what the release before writes to {table}")]
    if not re.search(r"\bNOT\s+VALID\b|\bUSING\s+INDEX\b", action, re.IGNORECASE):
        found.append(_SCAN)
    return found


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("<name>", f"(?P<name>{_NAME})").replace("<maybe>", _MAYBE).replace(" ", r"\s+").replace("~", r"\s*"), re.IGNORECASE)


_ACTIONS: list[tuple[re.Pattern[str], Verdicts]] = [
    (re.compile(r"DROP\s+CONSTRAINT\b|RENAME\s+CONSTRAINT\b", re.IGNORECASE), _nothing),
    (re.compile(rf"DROP\s+(?:COLUMN\s+)?{_MAYBE}(?P<column>{_NAME})", re.IGNORECASE), _contract("column {column} of {table} is gone")),
    (re.compile(r"RENAME\s+TO\b|SET\s+SCHEMA\b", re.IGNORECASE), _contract("{table} is called otherwise")),
    (re.compile(rf"RENAME\s+(?:COLUMN\s+)?(?P<column>{_NAME})\s+TO\b", re.IGNORECASE), _contract("column {column} of {table} is called otherwise")),
    (re.compile(rf"ADD\s+CONSTRAINT\s+(?P<rule>{_NAME})\s+CHECK\b", re.IGNORECASE), _add_constraint),
    (re.compile(r"ADD\s+(?:CONSTRAINT\s|FOREIGN\s+KEY|CHECK\b|UNIQUE\b|PRIMARY\s+KEY|EXCLUDE\b)", re.IGNORECASE), _add_constraint),
    (re.compile(r"DETACH\s+PARTITION\b", re.IGNORECASE), _contract("a partition of {table} is gone from it")),
    (re.compile(r"(?:ENABLE|FORCE)\s+ROW\s+LEVEL\s+SECURITY\b", re.IGNORECASE), _contract("rows of {table} may be hidden from the release before")),
    (re.compile(rf"ADD\s+(?:COLUMN\s+)?{_MAYBE}(?P<column>{_NAME})", re.IGNORECASE), _add_column),
    (
        re.compile(rf"ALTER\s+(?:COLUMN\s+)?(?P<column>{_NAME})\s+(?:SET\s+DATA\s+)?TYPE\s+(?P<wanted>.+?)(?:\s+(?:USING|COLLATE)\b.*)?$", re.IGNORECASE),
        _both("column {column} of {table} gets another type"),
    ),
    (
        re.compile(rf"ALTER\s+(?:COLUMN\s+)?(?P<column>{_NAME})\s+(?P<idle>SET\s+NOT\s+NULL)\b", re.IGNORECASE),
        _both("column {column} of {table} must not be null any more"),
    ),
    (
        re.compile(rf"ALTER\s+(?:COLUMN\s+)?(?P<column>{_NAME})\s+(?P<idle>DROP\s+(?:DEFAULT|IDENTITY))\b", re.IGNORECASE),
        _contract("column {column} of {table} loses its default"),
    ),
    (re.compile(r"VALIDATE\s+CONSTRAINT\b", re.IGNORECASE), _nothing),
]

_RULES: list[tuple[re.Pattern[str], t.Callable[[re.Match[str], Tables], list[tuple[str, str]]]]] = [
    (_compile(r"CREATE (?:(?:UNLOGGED|TEMP|TEMPORARY|GLOBAL|LOCAL|FOREIGN) )*TABLE <maybe><name>"), _create_table),
    (_compile(r"CREATE (?P<unique>UNIQUE )?INDEX (?P<concurrently>CONCURRENTLY )?.*?\bON (?:ONLY )?<name>"), _create_index),
    (_compile(r"ALTER TABLE <maybe>(?:ONLY )?<name>~\*? (?P<actions>.+)"), _alter_table),
    (
        _compile(rf"DROP (?P<what>{_KINDS}) <maybe>(?P<names>{_NAME}(?:~,~{_NAME})*)"),
        _drop,
    ),
    (_compile(r"ALTER (?:VIEW|MATERIALIZED VIEW|TYPE|SEQUENCE|SCHEMA) .* RENAME\b"), _always(CONTRACT, "it is called otherwise")),
    (_compile(r"ALTER TYPE .* DROP ATTRIBUTE\b"), _always(CONTRACT, "a part of the type is gone")),
    (_compile(rf"TRUNCATE (?:TABLE )?(?:ONLY )?(?P<names>{_NAME}(?:~,~{_NAME})*)"), _truncate),
    (_compile(r"DELETE FROM (?:ONLY )?<name>"), _without_where(CONTRACT, "all rows of {} are gone")),
    (_compile(r"UPDATE (?:ONLY )?<name> "), _without_where(LOCK_HEAVY, "every row of {} is rewritten and locked in one transaction")),
    (_compile(r"LOCK (?:TABLE )?(?:ONLY )?<name>"), _in_use(LOCK_HEAVY, "{} is locked by hand")),
    (_compile(r"(?:CLUSTER|VACUUM FULL|VACUUM~\([^)]*\bFULL\b[^)]*\)) <name>"), _in_use(LOCK_HEAVY, "{} is rewritten under a lock that keeps everybody out")),
    (_compile(r"REINDEX (?!.*\bCONCURRENTLY\b)TABLE <name>"), _in_use(LOCK_HEAVY, "{} cannot be written to meanwhile; REINDEX CONCURRENTLY can")),
    (_compile(r"REFRESH MATERIALIZED VIEW (?!CONCURRENTLY)<name>"), _in_use(LOCK_HEAVY, "{} cannot be read meanwhile; REFRESH … CONCURRENTLY can")),
]
