# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talk to an app's PostgreSQL through psql, as the app: no driver needed, no password in a command line."""

from __future__ import annotations

import json
import re
import typing as t
import urllib.parse

from .encoders import url_part
from .errors import AnchorageError
from .world import Completed, World

#: Parameters of a connection URL that libpq reads from the environment.
PARAMETERS = {"host": "PGHOST", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "connect_timeout": "PGCONNECT_TIMEOUT"}

#: What node-postgres calls differently: its "no-verify" is libpq's "require".
SSL_MODES = {"no-verify": "require"}


def environment(url: str) -> dict[str, str]:
    """Return what libpq wants to know, from a connection URL.

    :raises AnchorageError: when it is not a PostgreSQL URL.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise AnchorageError("The database URL is not of the form postgres://user:password@host:port/database.")
    values = {
        "PGHOST": parts.hostname or "127.0.0.1",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": urllib.parse.unquote(parts.username or ""),
        "PGPASSWORD": urllib.parse.unquote(parts.password or ""),
        "PGDATABASE": urllib.parse.unquote(parts.path.lstrip("/")),
        "PGCONNECT_TIMEOUT": "5",
        "PGAPPNAME": "anchorage",
    }
    for key, value in urllib.parse.parse_qsl(parts.query):
        if key in PARAMETERS:
            values[PARAMETERS[key]] = SSL_MODES.get(value, value)
    return values


#: Makes a session what it logged in as. Sessions belong to logins and not to the owner whom they act as: only so are their statements seen, and can
#: they be ended.
AS_LOGIN = "SET ROLE NONE; "


class Database:
    """One app's database.

    :arg world: runs psql.
    :arg url: connection URL with password; never shown.
    """

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.environment = {**environment(url), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

    @property
    def name(self) -> str:
        """What to call it in messages."""
        part = self.environment
        return f"{part['PGDATABASE']} on {part['PGHOST']}:{part['PGPORT']}"

    def psql(self, sql: str, *, timeout: float = 60, **variables: str) -> Completed:
        """Run SQL that may name psql variables (C(:'name')).

        What it makes belongs to the owner of the database, whichever of its logins this is: a further login acts as the owner from the start.
        """
        argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        for name, value in variables.items():
            argv += ["-v", f"{name}={value}"]
        return self.world.run(argv, input=sql, env=self.environment, timeout=timeout)

    def execute(self, sql: str, *, timeout: float = 60, **variables: str) -> str:
        """Run SQL and return what it printed.

        :raises AnchorageError: when it fails.
        """
        done = self.psql(sql, timeout=timeout, **variables)
        if done.rc != 0:
            raise AnchorageError(f"PostgreSQL refused ({self.name}): {first_line(done.stderr)}", rc=done.rc)
        return done.stdout.strip()

    def rows(self, query: str, *, before: str = "", **variables: str) -> list[dict[str, t.Any]]:
        """Return a query's rows.

        :arg before: a statement that its session runs first and that prints nothing.
        """
        text = self.execute(f"{before}SELECT coalesce(json_agg(q), '[]') FROM ({query}) AS q", **variables)
        return t.cast("list[dict[str, t.Any]]", json.loads(text))

    def wait(self, seconds: float) -> None:
        """Wait until a login works.

        A wrong password or a missing database is not waited for: neither mends itself.

        :raises AnchorageError: with what the server said last.
        """
        end = self.world.monotonic() + seconds
        while True:
            done = self.psql("SELECT 1", timeout=10)
            if done.rc == 0:
                return
            hopeless = any(word in done.stderr for word in ("authentication failed", "not permitted to log in", "does not exist", "no pg_hba.conf entry"))
            if hopeless or self.world.monotonic() >= end:
                raise AnchorageError(
                    f"The database {self.name} cannot be reached as {self.environment['PGUSER']}: {first_line(done.stderr)}",
                    next_step="Check that PostgreSQL runs (anchorage health says which) and knows the app's login, then run deploy.yml again.",
                )
            self.world.sleep(1)


def local_url(name: str, port: int) -> str:
    """Return the address at which root finds a database of this host's own cluster: through its socket, as postgres."""
    return f"postgresql://postgres@:{port}/{url_part(name, 'the database')}?host=/var/run/postgresql"


def versions(database: Database) -> tuple[int | None, int]:
    """Return the major versions of this host's pg_dump, None where there is none, and of the server.

    A client that is older than its server refuses, or leaves out what it does not know.
    """
    done = database.world.run(["pg_dump", "--version"], env=database.environment, timeout=30)
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    server = int(database.execute("SHOW server_version_num")) // 10000
    return (int(found.group(1)) if done.rc == 0 and found else None), server


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")


class Marks:
    """The authoritative record of what was migrated: a table in the app's own database.

    A restored database so knows its release, and every host that uses it sees the same.
    """

    TABLE = "anchorage.release"

    #: Only where a mark was set before there were verdicts: it locks out whoever reads the table, a backup too.
    _COLUMNS = "ALTER TABLE anchorage.release ADD COLUMN schema_id text, ADD COLUMN verdict text, ADD COLUMN findings text;"

    def __init__(self, database: Database) -> None:
        self.database = database

    def has(self, app: str, release: str) -> bool:
        """Tell whether a release of an app was migrated here."""
        if not self._exists():
            return False
        sql = "SELECT count(*) FROM anchorage.release WHERE app = :'app' AND id = :'release'"
        return self.database.execute(sql, app=app, release=release) != "0"

    def all(self, app: str) -> list[str]:
        """Return the releases of an app that were migrated here, the newest first."""
        if not self._exists():
            return []
        return [row["id"] for row in self.database.rows("SELECT id FROM anchorage.release WHERE app = :'app' ORDER BY migrated_at DESC", app=app)]

    def schema(self, app: str) -> str | None:
        """Return what identified the schema's sources when an app was migrated last; None where nobody knows."""
        if not self._has_verdicts():
            return None
        sql = "SELECT coalesce(schema_id, '') FROM anchorage.release WHERE app = :'app' ORDER BY migrated_at DESC LIMIT 1"
        return self.database.execute(sql, app=app) or None

    def since(self, app: str, release: str) -> list[dict[str, t.Any]]:
        """Return what was migrated after a release, the oldest first: C(id), C(verdict), C(findings), C(at) in seconds since the epoch."""
        if not self._has_verdicts():
            return []
        return self.database.rows(
            "SELECT id, coalesce(verdict, 'unknown') AS verdict, coalesce(findings, '[]')::json AS findings, extract(epoch FROM migrated_at) AS at"
            " FROM anchorage.release WHERE app = :'app' AND migrated_at >"
            " (SELECT migrated_at FROM anchorage.release WHERE app = :'app' AND id = :'release') ORDER BY migrated_at",
            app=app,
            release=release,
        )

    def _exists(self) -> bool:
        return self.database.execute("SELECT to_regclass('anchorage.release') IS NOT NULL") == "t"

    def _has_verdicts(self) -> bool:
        column = "SELECT 1 FROM information_schema.columns WHERE table_schema = 'anchorage' AND table_name = 'release' AND column_name = 'verdict'"
        return self.database.execute(f"SELECT EXISTS ({column})") == "t"

    def set(self, app: str, release: str, source: str, host: str, *, schema: str = "", verdict: str = "unknown", findings: t.Sequence[str] = ()) -> None:
        """Say that a release was migrated. This is the last act of the gate.

        :arg schema: identifies what the schema is made from in this release.
        :arg verdict: what the migration did to the tables, as catalog.compare() says, with its findings.
        """
        self.database.execute(
            """
            BEGIN;
            CREATE SCHEMA IF NOT EXISTS anchorage;
            CREATE TABLE IF NOT EXISTS anchorage.release (
              app text NOT NULL, id text NOT NULL, source text NOT NULL, host text NOT NULL,
              migrated_at timestamptz NOT NULL DEFAULT now(), schema_id text, verdict text, findings text, PRIMARY KEY (app, id));
            """
            + ("" if self._has_verdicts() or not self._exists() else self._COLUMNS)
            + """
            INSERT INTO anchorage.release (app, id, source, host, schema_id, verdict, findings)
              VALUES (:'app', :'release', :'source', :'host', :'schema', :'verdict', :'findings') ON CONFLICT (app, id) DO NOTHING;
            COMMIT;
            """,
            app=app,
            release=release,
            source=source,
            host=host,
            schema=schema,
            verdict=verdict,
            findings=json.dumps(list(findings)),
        )
