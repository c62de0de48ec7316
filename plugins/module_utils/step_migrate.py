# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: migrate a database once for a release, prove it by the tables, and say so in the database itself."""

from __future__ import annotations

import json
import re
import socket
import typing as t
import urllib.parse

from . import catalog, forecast, lock_waits, memory, migration_lock, rehearsal, restore_point, runtimes, sessions
from .app import App, Log
from .database import Database, Marks
from .errors import AnchorageError
from .migration_lock import LOCK
from .release_plan import common_environment, digest

#: Seconds that a host which may not migrate waits while nobody holds the migration lock.
PATIENCE = 60

#: Seconds to wait for the database before giving up; with the last try that is 15 at most (Medusa alone would hang for 311 s on a closed port).
REACH = 10


def migrate(app: App, log: Log, *, release: str) -> bool:
    """Migrate the app's database to a release. Returns whether this host did it.

    :raises AnchorageError: when it failed; the release then cannot be started, and what runs keeps running.
    """
    try:
        if not app.journal.says(release, "staged"):
            raise AnchorageError(f"Release {release} of {app.name} is not staged on this host.", next_step="Run deploy.yml without --tags and --start-at-task.")
        if not app.gated:
            log.say(f"{app.name}: nothing to migrate")
            app.journal.mark(release, "migrated", migrated_by="nothing to migrate")
            return False
        database = t.cast(Database, app.database)
        database.wait(REACH)
        marks = Marks(database)
        done = False
        if not marks.has(app.name, release):
            if app.document.get("migrator", True):
                done = _migrate_locked(app, log, database, marks, release)
            else:
                _wait_for_the_migrator(app, log, marks, release)
        if done or not app.journal.says(release, "migrated"):
            # Here, and not where the mark is set, so that a step which died right after that is made good too.
            app.world.remove(app.layout.catalog)
            app.journal.settle_restore_points(release)
        app.journal.mark(release, "migrated")
        return done
    except AnchorageError as error:
        error.live = app.living()
        raise


def _migrate_locked(app: App, log: Log, database: Database, marks: Marks, release: str) -> bool:
    with migration_lock.hold(app.world, log, database, seconds=app.document["migrate"]["timeout_seconds"], who=app.name):
        for name in ("migrate", "rehearse"):
            if runtimes.of(app).end(name):
                log.say(f"{app.name}: ended the command ({name}) that a killed step had left behind")
        sessions.end(app, log, database)
        if marks.has(app.name, release):
            log.say(f"{app.name}: release {release} was migrated by another run")
            return False
        _check_redis(app)
        schema = schema_id(app, release)
        if schema and marks.schema(app.name) == schema:
            log.say(f"{app.name}: no restore point, since nothing that makes the schema has changed")
        else:
            _prepare(app, log, database, release)
        before = _catalog_before(app, database)
        try:
            with app.timed("migration"):
                lock_waits.patiently(app, log, lambda: _run(app, log, release, app.document, "migrate"))
                _verify(app, log, database)
        except AnchorageError as error:
            sessions.end(app, log, database)
            _tell_what_it_left(log, database, before, error)
            raise
        verdict, findings = catalog.compare(before, _catalog(database))
        log.say(f"{app.name}: what it did to the tables: {verdict}")
        for finding in findings:
            log.say(f"{app.name}:   {finding}")
        source = app.journal.release(release).get("source", "")
        marks.set(app.name, release, source, socket.gethostname(), schema=schema, verdict=verdict, findings=findings)
        log.say(f"{app.name}: release {release} is migrated")
        return True


def _prepare(app: App, log: Log, database: Database, release: str) -> None:
    """Judge what is going to happen, take a restore point, and rehearse, as far as the contract asks for it.

    :raises AnchorageError: when the contract does not allow the migration, or there is no way back for the data.
    """
    options = app.document["migrate"]
    rehearses = bool(options["rehearsal"]["enabled"] and app.document.get("rehearsal_url"))
    expected = forecast.look(app, database, forecast.of_release(app, release))
    if expected.unknown:
        log.say(f"{app.name}: pending migrations are not judged, since {expected.unknown}")
    for path, count in expected.files.items():
        log.say(f"{app.name}: pending: {path} ({count} statements)")
    for finding in expected.findings:
        log.say(f"{app.name}:   {finding.verdict}: {finding}")
    forecast.check(app, expected, release, measured=rehearses)
    with app.timed("restore point"):
        point = restore_point.take(app, log, database, release) if options["restore_point"]["enabled"] else None
    if rehearses and database.execute(restore_point.TABLES) != "0":
        _rehearse(app, log, database, release, point)


def _rehearse(app: App, log: Log, database: Database, release: str, point: dict[str, t.Any] | None) -> None:
    def on_copy(copy: Database, document: dict[str, t.Any]) -> None:
        try:
            _run(app, log, release, document, "rehearse")
            _verify(app, log, copy)
        except AnchorageError:
            sessions.end(app, log, copy, "rehearse")
            raise

    with app.timed("rehearsal"):
        found = rehearsal.rehearse(app, log, database, point["path"] if point else None, on_copy)
    rehearsal.report(app, log, found)
    app.journal.note("rehearsed", release, **found.as_dict())
    if found.verdict == catalog.CONTRACT and not forecast.allowed(app, catalog.CONTRACT):
        raise forecast.refusal(app, release, catalog.CONTRACT, found.findings)
    too_long = [str(held) for held in found.locks if held.seconds > app.document["migrate"]["rehearsal"]["max_lock_seconds"]]
    if too_long and not forecast.allowed(app, forecast.LOCK_HEAVY):
        raise forecast.refusal(app, release, forecast.LOCK_HEAVY, too_long)


def _catalog(database: Database) -> catalog.Catalog:
    return t.cast("catalog.Catalog", json.loads(database.execute(catalog.QUERY)))


def _catalog_before(app: App, database: Database) -> catalog.Catalog:
    """Return what the tables were after the last migration that succeeded: what failed attempts left is charged to the one that succeeds."""
    path = app.layout.catalog
    raw = app.world.read(path)
    if raw is None:
        raw = json.dumps(_catalog(database)).encode()
        app.world.write_atomic(path, raw, mode=0o600)
    return t.cast("catalog.Catalog", json.loads(raw))


def _tell_what_it_left(log: Log, database: Database, before: catalog.Catalog, error: AnchorageError) -> None:
    """Add to a failure what the tables look like now, since the release that serves has to live with them."""
    try:
        verdict, findings = catalog.compare(before, _catalog(database))
    except (AnchorageError, ValueError):
        error.add("What it left of the tables is not known.")
        return
    if verdict == catalog.NONE:
        error.add("The tables are what they were.")
        return
    error.add(f"It left changed tables ({verdict}): {'; '.join(findings[:3])}{' …' if len(findings) > 3 else ''}.")
    for finding in findings:
        log.say(f"  {finding}")


def schema_id(app: App, release: str) -> str:
    """Name what a release's schema is made from: the files of C(migrate.files), and its dependencies. Empty where the contract names no files."""
    if not app.document["migrate"]["files"]:
        return ""
    tree = app.layout.build(app.journal.release(release)["tree"])
    manifest = json.loads(app.world.read(f"{tree}/{forecast.MANIFEST}") or b"{}")
    return digest({"files": forecast.schema_files(app, release), "dependencies": manifest.get("dependencies")})


def _wait_for_the_migrator(app: App, log: Log, marks: Marks, release: str) -> None:
    """Wait for the mark as long as somebody migrates; where that one failed, there is nothing to wait for."""
    now = app.world.monotonic
    end, patience = now() + app.document["migrate"]["timeout_seconds"] + PATIENCE, now() + PATIENCE
    log.say(f"{app.name}: another host migrates release {release}; waiting for its mark")
    while not marks.has(app.name, release):
        if _is_locked(marks.database):
            patience = now() + PATIENCE
        if now() >= min(end, patience):
            raise AnchorageError(
                f"No other host migrated release {release} of {app.name}.",
                what="gate",
                next_step="Look at the migrating host's report above, then run deploy.yml again without --limit.",
            )
        app.world.sleep(1)


def _is_locked(database: Database) -> bool:
    """Tell whether somebody holds the migration lock of a database."""
    own = "SELECT oid FROM pg_database WHERE datname = current_database()"
    keys = f"(classid, objid) = ({LOCK[0]}::oid, {LOCK[1]}::oid)"
    return database.execute(f"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = ({own}) AND {keys}") == "t"


def _check_redis(app: App) -> None:
    """Medusa's migration says 0 when Redis is away and leaves work undone, so ask first."""
    url = app.document.get("redis_url")
    if not url:
        return
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=5).close()
    except OSError as error:
        raise AnchorageError(
            f"Redis of {app.name} does not answer at {parts.hostname}:{parts.port or 6379}: {error}.",
            what="gate",
            next_step=f"Start it ({runtimes.of(app).services}), then run deploy.yml again.",
        ) from error


def _run(app: App, log: Log, release: str, document: dict[str, t.Any], name: str) -> None:
    """Run the migration command as the app's user, in a cgroup of its own, with limits that PostgreSQL itself keeps.

    :arg document: names the database and the services; the live ones, or those of a rehearsal.
    :arg name: what the process and its sessions are called.
    """
    migrate_options = app.document["migrate"]
    environment = common_environment(document)
    environment.update(
        {
            "RELEASE_ID": release,
            "PGAPPNAME": sessions.name(app, name),
            "PGOPTIONS": f"-c lock_timeout={migrate_options['lock_timeout_seconds']}s -c statement_timeout={migrate_options['statement_timeout_seconds']}s",
        }
    )
    memory.limit_heap(environment, migrate_options.get("memory_mb"))
    patterns = [re.compile(pattern) for pattern in migrate_options["error_patterns"]]
    changes = [re.compile(pattern) for pattern in migrate_options["changed_patterns"]]
    errors: list[str] = []
    counted = [0]

    def on_line(line: str) -> None:
        log.command(line)
        if any(pattern.search(line) for pattern in patterns):
            errors.append(line)
        counted[0] += any(pattern.search(line) for pattern in changes)

    limit, watch = migrate_options["timeout_seconds"], memory.Watch(app.world, on_line)
    log.say(f"{app.name}: {' '.join(migrate_options['command'])} (at most {limit} s)")
    options = {"memory_mb": migrate_options.get("memory_mb"), "seconds": limit}
    rc = runtimes.of(app).once(release, name, migrate_options["command"], environment, watch, **options)
    if rc != 0 or errors:
        cause = watch.cause(rc, key="migrate.memory_mb", heap_mb=migrate_options.get("memory_mb"), limit_seconds=limit)
        seen = cause or (f"it said: {errors[0][:300]}" if errors else f"it ended with code {rc}")
        mend = "Mend the migration (its last lines are above) and run deploy.yml again; the release is not started before it succeeded."
        raise AnchorageError(
            f"The migration of {app.name} to release {release} failed: {seen}",
            what="gate (migrate)",
            next_step=memory.advice(app.name, "migrate.memory_mb") if "memory" in cause else mend,
            output=log.tail[-15:],
        )
    log.say(f"{app.name}: migration command succeeded ({counted[0]} changes)")


def _verify(app: App, log: Log, database: Database) -> None:
    """Judge by the tables, since a return code of 0 proves nothing."""
    for check in app.document["migrate"].get("verify") or []:
        answer = database.execute(check["sql"])
        if answer != str(check["expect"]):
            raise AnchorageError(
                f"The migration of {app.name} said it succeeded, but {check['name']}: '{check['sql']}' gives '{answer}', expected '{check['expect']}'.",
                what="gate (verify)",
                next_step="Run deploy.yml again; if it stays so, run the migration command by hand and read its output.",
            )
        log.say(f"{app.name}: proven by the tables: {check['name']}")
