# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration on a fresh copy of the database first: how long it takes, what it locks, what it makes of the tables.

The copy is a database of its own that provisioning made for the app's login. It is emptied before and after, so that no second copy of
customers' data lies about. Redis is a server for this one run, so that no worker hears of what is rehearsed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import typing as t

from . import catalog, restore_point
from .app import UNIT, App, Log
from .database import AS_LOGIN, Database, environment, first_line
from .errors import AnchorageError

#: Locks under which nobody else can write to a table, the weakest first.
MODES = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")

#: Seconds between two looks at the locks.
INTERVAL = 0.1

REDIS = "/usr/bin/redis-server"
CLUSTER = "/var/lib/postgresql"

#: A schema that says that a database is a rehearsal's.
MARK = "anchorage_rehearsal"

#: Of a dump's list: what only a superuser may make, and the record of what the database itself was migrated to.
SKIPPED = re.compile(
    r"\d+; \d+ \d+ (?:EXTENSION|ACL|DEFAULT ACL|PUBLICATION|SUBSCRIPTION|COMMENT - EXTENSION|SCHEMA - (?:public|anchorage)|[A-Z][A-Z ]* anchorage)\s"
)

#: Drops all that belongs to the login itself; what an extension brought stays.
EMPTY = """
DO $empty$
DECLARE item record;
BEGIN
  FOR item IN SELECT nspname FROM pg_namespace WHERE pg_get_userbyid(nspowner) = current_user AND nspname !~ '^pg_' AND nspname <> 'public' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', item.nspname);
  END LOOP;
  FOR item IN
    SELECT format('%I.%I', n.nspname, c.relname) AS name,
      CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND pg_get_userbyid(c.relowner) = current_user
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP %s IF EXISTS %s CASCADE', item.kind, item.name);
  END LOOP;
  FOR item IN
    SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND pg_get_userbyid(p.proowner) = current_user AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', item.name);
  END LOOP;
  FOR item IN
    SELECT format('%I.%I', n.nspname, y.typname) AS name FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
    LEFT JOIN pg_class c ON c.oid = y.typrelid
    WHERE n.nspname = 'public' AND pg_get_userbyid(y.typowner) = current_user AND (y.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = y.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP TYPE IF EXISTS %s CASCADE', item.name);
  END LOOP;
  PERFORM lo_unlink(oid) FROM pg_largeobject_metadata WHERE pg_get_userbyid(lomowner) = current_user;
END $empty$;
"""

LOCKS = (
    "SELECT json_build_object('table', format('%s.%s', n.nspname, c.relname), 'mode', l.mode, 'pid', l.pid, 'statement', left(a.query, 200))"
    " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm') AND a.datname = current_database()"
    f" AND l.pid <> pg_backend_pid() AND a.usename = session_user AND l.mode IN ({', '.join(repr(mode) for mode in MODES)})"
)


class Held(t.NamedTuple):
    """A table that nobody could write to, for how long, and because of what."""

    table: str
    mode: str
    seconds: float
    statement: str

    def __str__(self) -> str:
        return f"{self.table} for {self.seconds:.1f} s ({self.mode}: {' '.join(self.statement.split())[:120]})"


class Watch:
    """Looks at the locks again and again while a migration runs."""

    def __init__(self, app: App, database: Database) -> None:
        self.app = app
        self.database = database
        self.stop = threading.Event()
        self.seen: dict[tuple[str, str, int], list[t.Any]] = {}
        self.ended: list[tuple[str, Held]] = []
        self.thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Watch:
        self.process = self.app.world.converse(["psql", "-X", "-q", "-A", "-t"], env=self.database.environment)
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        self.thread.join(timeout=10)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                t.cast("t.IO[str]", stream).close()
        try:
            self.process.wait(timeout=10)
        except Exception:
            self.process.kill()

    def _look_on(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self.stop.is_set():
                if not self.look():
                    return
                self.stop.wait(INTERVAL)

    def look(self) -> bool:
        """Look once. Returns whether the session still answers."""
        stdin, stdout = t.cast("t.IO[str]", self.process.stdin), t.cast("t.IO[str]", self.process.stdout)
        stdin.write(f"{AS_LOGIN}{LOCKS};\n\\echo .\n")
        stdin.flush()
        now = self.app.world.monotonic()
        held = set()
        for line in iter(stdout.readline, ""):
            if line.strip() == ".":
                for key in set(self.seen) - held:
                    self.ended.append(self._held(key))
                    del self.seen[key]
                return True
            row = json.loads(line)
            key = (row["table"], row["mode"], row["pid"])
            held.add(key)
            entry = self.seen.setdefault(key, [now, now, row["statement"]])
            entry[1:] = [now, row["statement"]]
        return False

    def _held(self, key: tuple[str, str, int]) -> tuple[str, Held]:
        first, last, statement = self.seen[key]
        return key[0], Held(key[0], key[1], last - first, statement)

    def held(self, tables: t.Collection[str]) -> list[Held]:
        """Return the longest lock on each of some tables, the longest first; of two that were held as long, the one that keeps out more."""
        longest: dict[str, Held] = {}
        for table, found in sorted([*self.ended, *map(self._held, self.seen)], key=lambda one: (one[1].seconds, MODES.index(one[1].mode))):
            if table in tables:
                longest[table] = found
        return sorted(longest.values(), key=lambda found: -found.seconds)


class Rehearsed(t.NamedTuple):
    """What a rehearsal showed."""

    seconds: float
    verdict: str
    findings: list[str]
    locks: list[Held]
    growth_bytes: int

    def as_dict(self) -> dict[str, t.Any]:
        """Return it as plain data."""
        return {**self._asdict(), "seconds": round(self.seconds, 1), "locks": [held._asdict() for held in self.locks]}


def rehearse(app: App, log: Log, database: Database, dump: str | None, migrate: t.Callable[[Database, dict[str, t.Any]], None]) -> Rehearsed:
    """Migrate a copy of the database and return what was seen.

    :arg dump: a dump that was just taken; without it one is taken, and removed afterwards.
    :arg migrate: migrates a database, with the document that names it.
    :raises AnchorageError: when the copy cannot be had, or the migration fails on it. The database itself was not touched then.
    """
    copy = Database(app.world, app.document["rehearsal_url"])
    own = dump is None
    try:
        copy.wait(15)
        _check_room(app, database, copy)
        dump = dump or restore_point.dump_for(app, database, "rehearsal.dump")
        log.say(f"{app.name}: rehearsal on {copy.name}")
        _refuse_a_stranger(app, copy)
        copy.execute(f"{EMPTY}\nCREATE SCHEMA {MARK};", timeout=600)
        try:
            _restore(app, copy, dump)
            return _migrate(app, database, copy, migrate)
        finally:
            emptied = copy.psql(EMPTY, timeout=600)
            if emptied.rc != 0:
                log.say(f"{app.name}: {copy.name} could not be emptied and holds a copy of the data: {first_line(emptied.stderr)}")
    except AnchorageError as error:
        error.what = "gate (rehearsal)"
        error.message = f"The rehearsal on {copy.name} failed, so {app.name} is not migrated: {error.message}"
        error.add("The database itself was not touched.")
        raise
    finally:
        if own and dump:
            app.world.remove(dump)


def _elsewhere(app: App, database: Database, values: dict[str, str]) -> dict[str, str]:
    """Return variables that name no database but the copy: some tools migrate by another address of the same one (DIRECT_URL)."""
    real = {key: database.environment[key] for key in ("PGHOST", "PGPORT", "PGDATABASE")}

    def same(value: str) -> bool:
        try:
            found = environment(str(value))
        except (AnchorageError, ValueError):
            return False
        return all(found[key] == real[key] for key in ("PGHOST", "PGDATABASE"))

    return {name: app.document["rehearsal_url"] if same(value) else value for name, value in values.items()}


def _migrate(app: App, database: Database, copy: Database, migrate: t.Callable[[Database, dict[str, t.Any]], None]) -> Rehearsed:
    world = app.world
    before, size = _catalog(copy), _size(copy)
    with _redis(app) as url, Watch(app, copy) as watch:
        began = world.monotonic()
        document = {**app.document, "database_url": app.document["rehearsal_url"], "redis_url": url, "redis_cache_url": url}
        document["env"] = _elsewhere(app, database, app.document["env"])
        document["secrets_env"] = _elsewhere(app, database, app.document.get("secrets_env") or {})
        if app.document.get("redis_url") and not url:
            # An empty value keeps a .env file of the source from naming the real one.
            document["env"].update(REDIS_URL="", REDIS_CACHE_URL="")
        migrate(copy, document)
        seconds = world.monotonic() - began
    verdict, findings = catalog.compare(before, _catalog(copy))
    return Rehearsed(seconds, verdict, findings, watch.held(before["columns"]), _size(copy) - size)


def _catalog(database: Database) -> catalog.Catalog:
    return t.cast("catalog.Catalog", json.loads(database.execute(catalog.QUERY)))


def _size(database: Database) -> int:
    return int(database.execute("SELECT pg_database_size(current_database())"))


def _refuse_a_stranger(app: App, copy: Database) -> None:
    """Empty nothing but an empty database, or what an interrupted rehearsal left."""
    if copy.execute(restore_point.TABLES) != "0" and copy.execute(f"SELECT to_regnamespace('{MARK}') IS NOT NULL") != "t":
        raise AnchorageError(
            "it holds tables that no rehearsal made.",
            next_step=f"Give apps.{app.name}.migrate.rehearsal a database that is empty, then run deploy.yml again.",
        )


def _check_room(app: App, database: Database, copy: Database) -> None:
    """Where the copy lies on this very host, its disk must have room for it."""
    if copy.environment["PGHOST"] not in ("127.0.0.1", "::1", "localhost") or not app.world.exists(CLUSTER):
        return
    need, free = _size(database) * restore_point.ROOM, app.world.free_bytes(CLUSTER)
    if free < need:
        raise AnchorageError(
            f"it needs {need / 1048576:.0f} MiB in {CLUSTER}, and {free / 1048576:.0f} MiB are free.",
            next_step=f"Make room, or set apps.{app.name}.migrate.rehearsal.enabled: false; then run deploy.yml again.",
        )


def _restore(app: App, copy: Database, dump: str) -> None:
    """Fill the copy. What only a superuser may make (extensions) is there already, by the same contract."""
    listed = app.world.run(["pg_restore", "--list", dump], timeout=600)
    lines = [line for line in listed.stdout.splitlines() if line and not line.startswith(";") and not SKIPPED.match(line)]
    order = f"{dump}.list"
    app.world.write_atomic(order, ("\n".join(lines) + "\n").encode(), mode=0o600)
    try:
        command = ["pg_restore", "--no-owner", "--no-acl", "--exit-on-error", f"--use-list={order}", f"--dbname={copy.environment['PGDATABASE']}", dump]
        done = app.world.run(command, env=copy.environment, timeout=app.document["migrate"]["restore_point"]["timeout_seconds"])
    finally:
        app.world.remove(order)
    if listed.rc != 0 or done.rc != 0:
        raise AnchorageError(
            f"the copy could not be filled: {first_line(listed.stderr if listed.rc else done.stderr)}.",
            next_step="Mend the cause (the login and the extensions of the copy come with provision.yml), then run deploy.yml again.",
        )


@contextlib.contextmanager
def _redis(app: App) -> t.Iterator[str | None]:
    """Run a Redis for the rehearsal alone and give its address; None where the app has none, or this host has no server."""
    if not app.document.get("redis_url") or not app.world.exists(REDIS):
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    unit = f"anchorage-{app.name}-rehearsal-redis"
    bound = [f"--property=BindsTo={os.environ[UNIT]}", f"--property=After={os.environ[UNIT]}"] if os.environ.get(UNIT) else []
    command = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--property=User={app.user}", "--property=PrivateTmp=yes", *bound, "--"]
    done = app.world.run([*command, REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"], timeout=30)
    if done.rc != 0:
        raise AnchorageError(f"a Redis for it could not be started: {done.stderr.strip()[:200]}")
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        app.world.run(["systemctl", "stop", f"{unit}.service"], timeout=60)


def report(app: App, log: Log, found: Rehearsed) -> None:
    """Tell what a rehearsal showed."""
    locks = ", ".join(str(held) for held in found.locks[:3]) or "nothing that is in use"
    log.say(f"{app.name}: rehearsed in {found.seconds:.1f} s; the tables: {found.verdict}; growth: {found.growth_bytes / 1048576:.1f} MiB")
    log.say(f"{app.name}: writers were kept out of {locks}")
    for finding in found.findings:
        log.say(f"{app.name}:   {finding}")
