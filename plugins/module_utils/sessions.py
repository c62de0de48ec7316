# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of a migration in the database: PostgreSQL goes on with a statement whose client was killed, so they are ended by name."""

from __future__ import annotations

from .app import App, Log
from .database import AS_LOGIN, Database
from .errors import AnchorageError

#: Seconds to wait until sessions that were ended are gone: each takes back what it was doing.
PATIENCE = 30

#: Of the app's own login, which may end its own sessions.
WHO = (
    "FROM pg_stat_activity WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid()"
    " AND application_name = left(:'name', current_setting('max_identifier_length')::int)"
)


def name(app: App, what: str = "migrate") -> str:
    """Return what the sessions of an app's migration, or of its rehearsal, are called."""
    return f"anchorage-{what}-{app.name}"


def end(app: App, log: Log, database: Database, what: str = "migrate") -> int:
    """End what a migration left in the database. The caller holds the migration lock, so nobody else migrates. Returns how many there were.

    What cannot be ended is told and not raised: the migration's own end is what matters.
    """
    try:
        ended = int(database.execute(f"{AS_LOGIN}SELECT count(pg_terminate_backend(pid)) {WHO}", name=name(app, what)))
        if not ended:
            return 0
        log.say(f"{app.name}: ended {ended} database session{'s' if ended > 1 else ''} that a migration had left behind")
        patience = app.world.monotonic() + PATIENCE
        while app.world.monotonic() < patience:
            if database.execute(f"{AS_LOGIN}SELECT count(*) {WHO}", name=name(app, what)) == "0":
                return ended
            app.world.sleep(0.5)
        log.say(f"{app.name}: they are still taking back what they did (anchorage unlock-info {app.name})")
        return ended
    except (AnchorageError, ValueError) as error:
        log.say(f"{app.name}: the sessions that the migration left in the database could not be ended: {error}")
        return 0
