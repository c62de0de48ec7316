# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of databases and snapshots of Redis, each read back, with what a proof holds them against: sizes, digests, rows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import typing as t

from . import migration_lock
from .app import Log
from .backup_settings import Database as Wanted
from .backup_settings import Redis, Settings
from .database import Database, first_line, local_url, versions
from .errors import AnchorageError
from .world import World

#: Free space that a dump needs, as a share of the database's size: it is not compressed, since restic does that and finds what is the same.
ROOM = 1.1

#: Seconds that a dump waits for a table somebody has locked.
LOCK_WAIT = 60

#: The tables whose rows are counted: those of extensions are their own.
TABLES = (
    "SELECT n.nspname || '.' || c.relname AS name, format('%I.%I', n.nspname, c.relname) AS quoted"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'p'"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1"
)

REDIS_CLI = "/usr/local/lib/anchorage/redis-instance"

Data = dict[str, t.Any]


def address(database: Wanted) -> str:
    """Return how a database is reached from this host."""
    if database.url:
        return database.url
    return local_url(database.name, database.port)


def _failed(database: Wanted, cause: str, next_step: str = "Mend the cause, then run anchorage backup run files.") -> AnchorageError:
    return AnchorageError(f"There is no dump of {database.name}: {cause}.", what="backup of files", next_step=next_step)


def dump(settings: Settings, world: World, log: Log, database: Wanted, path: str) -> Data:
    """Dump a database to a file, in one snapshot with the counts of its rows. Returns what the manifest says of it.

    No migration runs meanwhile: it would wait for the dump's locks, and give up.

    :raises AnchorageError: when it cannot be had; the file is then not there.
    """
    where = Database(world, address(database))
    limit = float(settings.timeouts["files_seconds"])
    try:
        client, server = versions(where)
        if client is None or client < server:
            raise _failed(database, f"pg_dump {client or 'is missing'} of this host cannot read PostgreSQL {server}", f"Install postgresql-client-{server}.")
        size = int(where.execute("SELECT pg_database_size(current_database())"))
        free = world.free_bytes(path.rpartition("/")[0])
        if free < size * ROOM:
            raise _failed(
                database, f"it needs {size * ROOM / 1048576:.0f} MiB in {path.rpartition('/')[0]}, and {free / 1048576:.0f} MiB are free", "Make room."
            )
        with migration_lock.hold(world, log, where, seconds=limit, who=database.name), _snapshot(world, where) as session:
            rows = {name: session.count(quoted) for name, quoted in session.tables}
            command = ["pg_dump", "--format=custom", "--compress=0", "--no-password", f"--lock-wait-timeout={LOCK_WAIT}s", f"--snapshot={session.id}"]
            done = world.run([*command, f"--file={path}"], env=where.environment, timeout=limit)
        if done.rc != 0:
            raise _failed(database, f"it took more than {limit:g} s" if done.rc == 124 else first_line(done.stderr).rstrip("."))
        listed = world.run(["pg_restore", "--list", path], timeout=600)
        if listed.rc != 0:
            raise _failed(database, f"what was dumped cannot be read back: {first_line(listed.stderr).rstrip('.')}")
    except BaseException:
        world.remove(path)
        raise
    found = {**_weighed(path), "tables": rows, "server": server}
    log.say(f"{database.name}: dumped, {found['bytes'] / 1048576:.1f} MiB, {sum(rows.values())} rows in {len(rows)} tables")
    return found


class _Session:
    """A session whose snapshot others may use, so that what it counts is what they dump."""

    def __init__(self, database: Database, process: t.Any) -> None:
        self.database = database
        self.process = process
        self.id = self._ask("SELECT pg_export_snapshot()")
        found = json.loads(self._ask(f"SELECT coalesce(json_agg(q), '[]') FROM ({TABLES}) AS q"))
        self.tables = [(row["name"], row["quoted"]) for row in found]

    def _ask(self, sql: str) -> str:
        self.process.stdin.write(f"{sql};\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith(("ERROR", "FATAL", "psql:")):
            raise AnchorageError(f"PostgreSQL refused ({self.database.name}): {answer or 'the connection broke'}", what="backup of files")
        return t.cast(str, answer)

    def count(self, quoted: str) -> int:
        """Return the rows of a table."""
        return int(self._ask(f"SELECT count(*) FROM {quoted}"))


@contextlib.contextmanager
def _snapshot(world: World, database: Database) -> t.Iterator[_Session]:
    process = world.converse(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"], env=database.environment)
    try:
        process.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n")  # type: ignore[union-attr]
        yield _Session(database, process)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(timeout=10)
        except Exception:
            process.kill()
        process.stdout.close()  # type: ignore[union-attr]


def snapshot(world: World, log: Log, redis: Redis, path: str) -> Data:
    """Let a Redis instance write its data to a file, and read it back. Returns what the manifest says of it.

    :raises AnchorageError: when it cannot be had.
    """
    done = world.run([REDIS_CLI, redis.name, "cli", "--rdb", path], timeout=1800)
    if done.rc == 0:
        done = world.run(["redis-check-rdb", path], timeout=1800)
    if done.rc != 0:
        world.remove(path)
        cause = first_line(done.stderr or done.stdout).rstrip(".")
        raise AnchorageError(
            f"There is no snapshot of Redis {redis.name}: {cause}.",
            what="backup of files",
            next_step=f"systemctl status {redis.unit}, then anchorage backup run files.",
        )
    keys = re.search(r"(\d+) keys read", done.stdout)
    found = {**_weighed(path), "keys": int(keys.group(1)) if keys else None}
    log.say(f"{redis.name}: snapshot, {found['bytes'] / 1048576:.1f} MiB, {found['keys']} keys")
    return found


def _weighed(path: str) -> Data:
    """Return size and digest of a file."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}
