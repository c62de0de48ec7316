# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The apps of a restore: their writers stop before it, and what is live starts after it, migrated where the restored data know nothing of it."""

from __future__ import annotations

import typing as t

from . import engine
from .app import App, Log
from .errors import AnchorageError
from .slots import Slots, running
from .step_migrate import migrate
from .world import World

#: Seconds that a step of an app which is about to end may still take.
PATIENCE = 30


def here(world: World, names: t.Iterable[str]) -> list[App]:
    """Return those of some apps that were deployed to this host."""
    known = set(engine.apps(world))
    return [App(name, world) for name in dict.fromkeys(names) if name in known]


def stop(app: App, log: Log) -> None:
    """Stop all processes of an app. The journal goes on saying what is live, so whoever finds it stopped knows what to start.

    The caller holds the app's lock.
    """
    slots = Slots(app, log)
    app.journal.unsettle()
    slots.runtime.require()
    names = sorted(slots.runtime.names(), reverse=True)
    if names:
        log.say(f"{app.name}: stop {', '.join(names)}; its site answers 502 until the restore is done")
        slots.runtime.delete(names)


def start(app: App, log: Log) -> None:
    """Start what is live, and prove it. Where its database does not know the release, it is migrated first.

    The caller holds the app's lock.

    :raises AnchorageError: when the migration fails, or a process does not come back.
    """
    release = app.journal.live
    if release is None:
        log.say(f"{app.name}: nothing is live here, so nothing is started; deploy.yml brings a release")
        app.journal.settled()
        return
    if app.gated:
        t.cast("t.Any", app.database).wait(30)
    if not app.migrated(release):
        log.say(f"{app.name}: the restored data do not know release {release}; it is migrated again")
        migrate(app.at(release), log, release=release)
    slots = Slots(app, log)
    slots.runtime.require()
    lost = slots.settle()
    if lost or not running(app):
        raise AnchorageError(
            f"{app.name} does not run: {', '.join(lost) or 'a process of it is missing'} did not come back.",
            what="starting the app",
            next_step=f"Read its log (anchorage diagnose {app.name}), then: anchorage restore --resume",
        )
    app.journal.settled()
    log.say(f"{app.name}: release {release} serves again from slot {app.journal.slot}")
