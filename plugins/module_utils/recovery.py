# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make good what a step that died, or a host that went down, left between two releases."""

from __future__ import annotations

from . import swarm_switch
from .app import App, Log
from .dead_man import DeadMan
from .hold import Hold
from .runtime import PM2, SWARM, name_of
from .slots import Slots


def recover(app: App, log: Log) -> bool:
    """Bring the host to what the journal says is live; an unconfirmed release goes back. Returns whether anything was to be done.

    The caller holds the app's lock: nobody works on the app any more.
    """
    journal = app.journal
    if not app.unsettled:
        return False
    slots = Slots(app, log)
    slots.runtime.require()
    slots.runtime.mend(log.say)
    if journal.switch is not None:
        log.say(f"{app.name}: release {journal.switch['release']} was never confirmed; going back to {journal.switch['from_release'] or 'nothing'}")
    lost = swarm_switch.settle(app, log) if name_of(app.document) == SWARM else slots.settle()
    if journal.switch is not None:
        journal.end_switch("went back")
    journal.settled()
    DeadMan(app).disarm()
    log.say(f"{app.name}: live now: {app.living()}" + (f", but {' and '.join(lost)} did not come back" if lost else ""))
    return True


def at_boot(app: App, log: Log) -> bool:
    """Before PM2 and the proxy start: let both use what the journal says is live. Returns whether a release went back."""
    switch = app.journal.switch
    Hold(app, log).clear()
    Slots(app, log).settle_files()
    if switch is not None and name_of(app.document) == SWARM:
        # What it runs the Swarm has kept meanwhile, and is asked for once the Engine is there.
        app.journal.unsettle()
        return False
    if switch is not None:
        log.say(f"{app.name}: release {switch['release']} was not confirmed before the host went down; {switch['from_release'] or 'nothing'} is live")
        app.journal.end_switch("went back")
    if name_of(app.document) != PM2:
        # The Engine starts again whatever ran, of both slots, and nothing that was stopped: what is live is made so once it runs.
        app.journal.unsettle()
    elif app.journal.unsettled:
        app.journal.settled()
    return switch is not None
