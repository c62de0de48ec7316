# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration that did not get a lock soon is tried again: it gives up early, because all who want to read queue up behind it as long as it waits."""

from __future__ import annotations

import random
import re
import typing as t

from .app import App, Log
from .errors import AnchorageError

TRIES = 3

#: Seconds between two tries, at least and at most, so that what comes at fixed times is not met each time.
PAUSE = (2.0, 5.0)

#: What PostgreSQL says (SQLSTATE 55P03), and its clients hand on.
WORDS = re.compile(r"canceling statement due to lock timeout|\b55P03\b")


def patiently(app: App, log: Log, run: t.Callable[[], None]) -> None:
    """Run a migration, and again where it did not get a lock in time; what it has committed by then stands, as in any other re-run.

    :raises AnchorageError: the last failure.
    """
    for number in range(1, TRIES + 1):
        try:
            run()
            return
        except AnchorageError as error:
            if not any(WORDS.search(line) for line in [error.message, *map(str, error.details.get("output", []))]):
                raise
            if number == TRIES:
                error.add(f"It waited {app.document['migrate']['lock_timeout_seconds']} s for a lock, {TRIES} times.")
                error.next_step = (
                    "See who holds it (SELECT pid, state, xact_start, query FROM pg_stat_activity WHERE xact_start < now() - interval '10 seconds'),"
                    " then run deploy.yml again."
                )
                raise
            seconds = random.uniform(*PAUSE)
            log.say(f"{app.name}: it did not get a lock in time, so that nobody has to wait behind it; trying again in {seconds:.0f} s")
            app.world.sleep(seconds)
