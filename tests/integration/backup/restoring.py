# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with an app whose data are backed up, for tests that take the data away and bring them back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import threading
import time
import typing as t

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release

ROOT = release.ROOT
LAB = os.environ.get("ANCHORAGE_RESTORE_LAB", "backup-restore")
HOST = "db"
APP = "alpha"
UNIT = "anchorage-restore.service"

#: What of the restore's own files the tests look at.
JOURNAL = "/var/lib/anchorage/backup/restore.json"


@dataclasses.dataclass
class Ground:
    """A provisioned host, the contract that it follows, and ways to look at its data."""

    host: release.Host
    apps: release.Apps

    def sql(self, query: str, database: str = APP) -> str:
        """Ask a database as its superuser."""
        return self.host.sql(query, database)

    def rows(self, database: str = APP, table: str = "orders") -> int:
        """Count the rows of a table; -1 where it is missing."""
        if self.sql(f"SELECT to_regclass('{table}') IS NULL", database) == "t":
            return -1
        return int(self.sql(f"SELECT count(*) FROM {table}", database))

    def now(self) -> str:
        """The time of the database, with a moment before and after it in which nothing is written."""
        time.sleep(1.1)
        moment = self.sql("SELECT clock_timestamp()")
        time.sleep(1.1)
        return moment

    def restore(self, arguments: str, *, good: bool = True) -> str:
        """Run anchorage restore on the host, and return what it said."""
        output = self.host.shell(f"anchorage restore {arguments} 2>&1; echo code $?", check=False)
        assert ("code 0" in output) == good, output[-3000:]
        return output

    @property
    def journal(self) -> dict[str, t.Any]:
        """What the restore wrote down."""
        return json.loads(self.host.shell(f"cat {JOURNAL}"))

    def aside(self) -> list[str]:
        """The names of what is set aside."""
        return [entry["name"] for entry in self.journal["aside"]]

    def backup(self) -> None:
        """Back up everything now."""
        self.host.shell("anchorage backup run")

    def orders(self, number: int, text: str = "early") -> None:
        """Write rows of a table of the test's own, which the app's role owns."""
        self.sql(
            "CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, what text); ALTER TABLE orders OWNER TO alpha;"
            f" INSERT INTO orders (what) SELECT '{text}' FROM generate_series(1, {number})"
        )

    def serves(self) -> None:
        """The whole live release runs, and answers."""
        self.host.serving(APP).check(APP)

    def settle(self) -> None:
        """Let nothing of the test before be left: no restore that is unfinished, nothing aside, no table of its own."""
        self.host.shell(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}; anchorage restore --resume; anchorage restore --drop-aside", check=False)
        self.sql("DROP TABLE IF EXISTS orders, later")


@contextlib.contextmanager
def provisioned(directory: t.Any) -> t.Iterator[Ground]:
    """Give a host with the app alpha, made by site.yml; KEEP_LAB leaves it for the next run, and C(as-is) takes what one has left."""
    host = release.Host(LAB, HOST)
    if not os.environ.get("KEEP_LAB"):
        host.command("down", LAB)
    as_it_is = os.environ.get("KEEP_LAB") == "as-is"
    if not as_it_is:
        host.command("up", LAB, f"--host={HOST}:trixie:app,database,cache,proxy")
    apps = release.Apps(ROOT / ".cache" / "lab" / LAB / "hosts.yml", directory)
    apps.app(APP)
    if not as_it_is:
        apps.run("site")
    try:
        yield Ground(host, apps)
    finally:
        if not os.environ.get("KEEP_LAB"):
            host.command("down", LAB)


#: Writes again and again over one connection that it keeps, as an app's pool does, and says of each write when its commit was acknowledged.
WRITER = """
import subprocess, sys, time
number, prefix = 0, sys.argv[1]
while True:
    psql = subprocess.Popen(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", "/var/run/postgresql", sys.argv[2]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
    try:
        while True:
            number += 1
            psql.stdin.write(f"INSERT INTO stub_items (name) VALUES ('{prefix}-{number}');\\n\\\\echo {number}\\n")
            psql.stdin.flush()
            if psql.stdout.readline().strip() != str(number):
                raise OSError
            print(number, time.time(), flush=True)
            time.sleep(0.02)
    except OSError:
        psql.kill()
        psql.wait()
        time.sleep(0.2)
"""


class Ledger(threading.Thread):
    """A customer who writes again and again, and keeps a ledger of what was acknowledged, and when."""

    def __init__(self, host: release.Host, prefix: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[tuple[int, float]] = []
        #: When the newest write was acknowledged.
        self.last = 0.0
        argv = ["docker", "exec", "-i", host.facts["lab_container"], "timeout", "600", "python3", "-c", WRITER, prefix, APP]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.prefix, self.host = prefix, host

    def run(self) -> None:
        """Write down what comes."""
        for line in t.cast("t.IO[str]", self.process.stdout):
            number, stamp = line.split()
            self.last = float(stamp)
            self.acknowledged.append((int(number), self.last))

    def __enter__(self) -> Ledger:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.host.shell(f"pkill -f -- '{self.prefix}'", check=False)
        self.process.wait(timeout=30)
        self.join(timeout=30)

    def lost(self, kept: t.Collection[int]) -> list[tuple[int, float]]:
        """Return what was acknowledged and is not there."""
        return [entry for entry in self.acknowledged if entry[0] not in kept]
