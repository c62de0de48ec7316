# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of the database, taken right before it is migrated and read back: the way back for the data."""

from __future__ import annotations

import time
import typing as t

from .app import App, Log
from .database import Database, first_line, versions
from .errors import AnchorageError

#: Free space that a dump needs, as a share of the database's size. The custom format compresses, so this is the worst case with room.
ROOM = 1.2

#: Seconds that the dump waits for a table somebody has locked.
LOCK_WAIT = 30

TABLES = (
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'anchorage') AND n.nspname NOT LIKE 'pg\\_%'"
)


STAMP = "%Y%m%dT%H%M%SZ"


def leftovers(app: App) -> list[str]:
    """Return what a dump left that was cut off: its part, or the whole of it that the journal never came to know.

    What is older than the journal's own word on the release stays: a lost journal must not cost the way back.
    """
    known = {point["path"] for point in app.journal.restore_points()}
    found = []
    for name in app.world.listdir(app.layout.restore_points):
        stamp, _dash, release = name.partition(".")[0].partition("-")
        staged = app.journal.release(release).get("staged_at")
        forgotten = f"{app.layout.restore_points}/{name}" not in known and staged is not None and stamp >= time.strftime(STAMP, time.gmtime(staged))
        if name.endswith((".part", ".list")) or name.startswith("rehearsal.dump") or forgotten:
            found.append(f"{app.layout.restore_points}/{name}")
    return found


def take(app: App, log: Log, database: Database, release: str) -> dict[str, t.Any] | None:
    """Take a restore point for a release and write it into the journal. Returns what was written; None for a database without tables.

    :raises AnchorageError: when it cannot be had; then nothing may be migrated.
    """
    options = app.document["migrate"]["restore_point"]
    if database.execute(TABLES) == "0":
        log.say(f"{app.name}: no restore point, since {database.name} has no tables yet")
        return None
    _check_client(app, database)
    _check_room(app, database)
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(app.world.now()))}-{release}.dump"
    path = f"{app.layout.restore_points}/{name}"
    began = app.world.monotonic()
    size = _dump(app, database, path, options["timeout_seconds"])
    entries = _read_back(app, path)
    point = {
        "path": path,
        "at": app.world.now(),
        "release": release,
        "before": app.journal.live,
        "pending": True,
        "bytes": size,
        "entries": entries,
        "seconds": round(app.world.monotonic() - began, 1),
    }
    app.journal.add_restore_point(point)
    points = app.journal.restore_points()
    # What failed attempts left is in every later dump, so the first one since the last success stays.
    first = next(entry for entry in points if entry["pending"])
    for old in [entry for entry in points[: -options["keep"]] if entry is not first]:
        # Once the journal has forgotten it, nobody knows that it may go.
        app.world.remove_for_good(old["path"])
        app.journal.drop_restore_point(old["path"])
    log.say(f"{app.name}: restore point {path} ({size / 1048576:.1f} MiB, {entries} entries, {point['seconds']} s)")
    return point


def dump_for(app: App, database: Database, name: str) -> str:
    """Take a dump that is no restore point, with the same checks. Returns its path."""
    _check_client(app, database)
    _check_room(app, database)
    path = f"{app.layout.restore_points}/{name}"
    _dump(app, database, path, app.document["migrate"]["restore_point"]["timeout_seconds"])
    return path


def _refused(app: App, cause: str, next_step: str) -> AnchorageError:
    return AnchorageError(f"There is no restore point, so {app.name} is not migrated: {cause}", what="gate (restore point)", next_step=next_step)


def _check_client(app: App, database: Database) -> None:
    """Refuse a client that is older than its server: it would refuse too, or leave out what it does not know."""
    client, server = versions(database)
    if client is None:
        raise _refused(app, "this host has no pg_dump.", "Run provision.yml for this host; postgresql-client brings it.")
    if client < server:
        raise _refused(
            app,
            f"pg_dump {client} of this host is older than the server's PostgreSQL {server}.",
            f"Install postgresql-client-{server} on this host, then run deploy.yml again.",
        )


def _check_room(app: App, database: Database) -> None:
    size = int(database.execute("SELECT pg_database_size(current_database())"))
    app.world.make_directory(app.layout.restore_points, mode=0o700)
    free = app.world.free_bytes(app.layout.restore_points)
    if free < size * ROOM:
        raise _refused(
            app,
            f"it needs {size * ROOM / 1048576:.0f} MiB in {app.layout.restore_points}, and {free / 1048576:.0f} MiB are free.",
            "Make room, or set migrate.restore_point.enabled: false where other backups are at hand; then run deploy.yml again.",
        )


def _dump(app: App, database: Database, path: str, seconds: float) -> int:
    temporary = f"{path}.part"
    command = ["pg_dump", "--format=custom", "--no-password", f"--lock-wait-timeout={LOCK_WAIT}s", f"--file={temporary}"]
    done = app.world.run(command, env=database.environment, timeout=seconds)
    if done.rc != 0:
        app.world.remove(temporary)
        cause = f"it took more than {seconds} s" if done.rc == 124 else first_line(done.stderr)
        raise _refused(app, f"pg_dump of {database.name} failed: {cause}.", "Mend the cause, then run deploy.yml again; nothing was changed.")
    return app.world.commit_file(temporary, path, mode=0o600)


def _read_back(app: App, path: str) -> int:
    """Return how many entries the dump's own list has; one that cannot be listed cannot be restored."""
    done = app.world.run(["pg_restore", "--list", path], timeout=600)
    entries = [line for line in done.stdout.splitlines() if line and not line.startswith(";")]
    if done.rc != 0 or not any(" TABLE DATA " in line for line in entries):
        app.world.remove(path)
        raise _refused(app, f"the dump cannot be read back: {first_line(done.stderr or 'it holds no data')}.", "Look at the disk, then run deploy.yml again.")
    return len(entries)
