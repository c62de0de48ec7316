# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a database's migrations: whoever changes its tables, or must have them hold still, holds it."""

from __future__ import annotations

import contextlib
import typing as t

from .database import Database
from .errors import AnchorageError
from .world import World

if t.TYPE_CHECKING:
    from .app import Log

#: The keys of the lock.
LOCK = ("hashtext('anchorage')", "hashtext(current_database())")


@contextlib.contextmanager
def hold(world: World, log: Log, database: Database, *, seconds: float, who: str) -> t.Iterator[None]:
    """Hold the database's migration lock on a connection of its own. It is gone with the connection, so it cannot go stale.

    :arg seconds: how long it is waited for at most.
    :arg who: whose name is told while it is waited for.
    :raises AnchorageError: when somebody else holds it for that long.
    """
    argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
    process = world.converse(argv, env=database.environment)
    stdin, stdout = t.cast("t.IO[str]", process.stdin), t.cast("t.IO[str]", process.stdout)
    try:
        end = world.monotonic() + seconds
        told = False
        while True:
            stdin.write(f"SELECT pg_try_advisory_lock({LOCK[0]}, {LOCK[1]});\n")
            stdin.flush()
            answer = stdout.readline().strip()
            if answer == "t":
                break
            if answer != "f":
                raise AnchorageError(f"The migration lock of {database.name} cannot be taken: {answer or 'the connection broke'}.")
            if world.monotonic() >= end:
                raise AnchorageError(
                    f"Another migration holds the lock of {database.name} for too long.",
                    next_step="See who: SELECT * FROM pg_locks WHERE locktype = 'advisory'.",
                )
            if not told:
                log.say(f"{who}: another migration of {database.name} runs; waiting for its lock")
                told = True
            world.sleep(1)
        yield
    finally:
        with contextlib.suppress(OSError):
            stdin.close()
        try:
            process.wait(timeout=10)
        except Exception:
            process.kill()
        stdout.close()
