# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release's own migrations are going to do, and whether the contract lets them."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import posixpath
import typing as t

from . import catalog, migrations
from .app import App
from .catalog import CONTRACT, NONE
from .database import Database, Marks
from .errors import AnchorageError
from .migrations import LOCK_HEAVY, Finding

MANIFEST = ".anchorage.json"

#: Bytes of a file above which it is no migration that somebody wrote.
LARGEST = 4 << 20

SIZES = (
    "SELECT format('%s.%s', n.nspname, c.relname) AS name, CASE c.relkind WHEN 'p' THEN (SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)"
    " FROM pg_partition_tree(c.oid) t) ELSE pg_total_relation_size(c.oid) END AS bytes FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND n.nspname <> 'information_schema'"
    " AND n.nspname NOT LIKE 'pg\\_%'"
)

#: Statements by path.
Migrations = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The verdict on pending migrations.

    :arg files: how many statements each pending file brings.
    :arg unknown: why there is none.
    """

    unknown: str = ""
    verdict: str = NONE
    findings: tuple[Finding, ...] = ()
    files: t.Mapping[str, int] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, t.Any]:
        """Return it as plain data."""
        return {"verdict": self.verdict, "findings": [finding._asdict() for finding in self.findings], "files": dict(self.files)}


def schema_files(app: App, release: str) -> dict[str, str]:
    """Return the checksums of the files that a release's schema is made from, by their path in what runs."""
    return _schema_files(app, app.journal.release(release)["tree"])


def _schema_files(app: App, tree: str) -> dict[str, str]:
    manifest = json.loads(app.world.read(f"{app.layout.build(tree)}/{MANIFEST}") or b"{}")
    return chosen(app.document, manifest.get("files", {}))


def chosen(document: dict[str, t.Any], files: t.Mapping[str, str]) -> dict[str, str]:
    """Return those of a tree's files that C(migrate.files) names, by their path in what runs."""
    base = posixpath.normpath(document["build"]["output"])
    inside = {posixpath.relpath(path, base) if base != "." else path: checksum for path, checksum in files.items()}
    return {path: checksum for path, checksum in inside.items() if wanted(document, path)}


def wanted(document: dict[str, t.Any], path: str) -> bool:
    """Tell whether the contract says that a file makes the schema."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in (document.get("migrate") or {}).get("files") or [])


def of_release(app: App, release: str) -> Migrations:
    """Return the migrations of a release that lies on this host."""
    return of_tree(app, app.journal.release(release)["tree"])


def of_tree(app: App, tree: str) -> Migrations:
    """Return the migrations of a tree that was built on this host."""
    root = os.path.normpath(f"{app.layout.build(tree)}/{app.document['build']['output']}")
    return {path: migrations.statements(path, _text(app, f"{root}/{path}")) for path in _schema_files(app, tree) if migrations.is_migration(path)}


def _text(app: App, path: str) -> str:
    return app.world.read_part(path, 0, LARGEST).decode("utf-8", "replace")


def known(app: App, marks: Marks) -> list[Migrations] | None:
    """Return the migrations of all releases on this host that the database was migrated to; None where it never was."""
    marked = marks.all(app.name)
    if not marked:
        return None
    here = [release for release in marked if release in app.journal.data["releases"] and app.world.exists(f"{app.layout.release(release)}/release.json")]
    return [of_release(app, release) for release in here]


def look(app: App, database: Database, new: Migrations) -> Forecast:
    """Return what migrations would do to the database as it is. Changes nothing."""
    seen = known(app, Marks(database))
    if seen is None:
        # A database that was never migrated holds nothing that a release could need.
        return Forecast()
    if not seen:
        return Forecast(unknown="no release that the database was migrated to lies on this host")
    fresh = migrations.pending(new, seen)
    if not fresh:
        return Forecast()
    verdict, found = migrations.judge(fresh, _tables(app, database))
    return Forecast(verdict=verdict, findings=tuple(found), files={path: len(lines) for path, lines in fresh.items()})


def _tables(app: App, database: Database) -> migrations.Tables:
    """Return the tables that the live release uses: what a failed attempt at this very migration has made is not among them."""
    sizes = {row["name"]: int(row["bytes"]) for row in database.rows(SIZES)}
    kept = app.world.read(app.layout.catalog)
    known = json.loads(kept) if kept else json.loads(database.execute(catalog.QUERY))
    sizes = {name: size for name, size in sizes.items() if not kept or name in known["columns"]}
    rules = {(table, name): definition for table, name, definition in known["rules"]}
    return migrations.Tables(sizes, app.document["migrate"]["large_table_mb"] << 20, known["columns"], rules)


def allowed(app: App, verdict: str) -> bool:
    """Tell whether the contract lets a migration with this verdict pass."""
    return verdict not in migrations.ALLOWED or migrations.ALLOWED[verdict] in app.document["migrate"]["allow"]


def refusal(app: App, release: str, verdict: str, reasons: t.Sequence[str]) -> AnchorageError:
    """Return the refusal of a migration that the contract does not allow, with the ways out."""
    word = migrations.ALLOWED[verdict]
    shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
    if verdict == CONTRACT:
        cause = "would take away or tighten what the release that serves meanwhile may need"
        way = "First deploy code that does without it, then this migration. Where the live release can do without it already,"
    else:
        cause = "would keep a large table locked while the site serves"
        way = "Split it (CREATE INDEX CONCURRENTLY, NOT VALID and VALIDATE, rows in batches), or choose an hour for it and"
    return AnchorageError(
        f"The migration of {app.name} to release {release} {cause} ({verdict}), so it was not run: {shown}.",
        what="gate (verdict)",
        next_step=f"{way} set apps.{app.name}.migrate.allow: [{word}] and run deploy.yml again.",
    )


def check(app: App, forecast: Forecast, release: str, *, measured: bool) -> None:
    """Refuse what the contract does not allow.

    :arg measured: whether a rehearsal is going to measure the locks, which is better than to guess them.
    """
    for verdict in (CONTRACT, LOCK_HEAVY):
        found = [str(finding) for finding in forecast.findings if finding.verdict == verdict]
        if found and not allowed(app, verdict) and not (verdict == LOCK_HEAVY and measured):
            raise refusal(app, release, verdict, found)
