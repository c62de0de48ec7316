# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the processes that the proxy no longer uses finish the requests in hand before they are told to stop.

The proxy opens a connection of its own for each request and closes it after the answer, so a connection that stands is a request in hand
(or a websocket). The kernel's table of the app's host shows them all, whichever host the proxy is on.
"""

from __future__ import annotations

import typing as t

from . import processes
from .app import App, Log
from .layout import SLOTS
from .release_plan import instances
from .world import World

#: Of documents that were written before there was such a key.
DEFAULT_SECONDS = 30

#: Seconds without any connection: a proxy that read the flag file right before the switch has connected by then.
QUIET = 1.0
PAUSE = 0.25

#: States of a connection in the kernel's table that a request may travel on: established, and about to be.
OPEN = ("01", "03")


def connections(world: World, ports: t.Container[int]) -> dict[int, int]:
    """Count the open connections to local ports, by port. Those that wait to be accepted are among them."""
    found: dict[int, int] = {}
    for name in ("tcp", "tcp6"):
        table = (world.read(f"/proc/net/{name}") or b"").decode("ascii", "replace")
        for line in table.splitlines()[1:]:
            fields = line.split(None, 4)
            if len(fields) > 3 and fields[3] in OPEN:
                port = int(fields[1].rpartition(":")[2], 16)
                if port in ports:
                    found[port] = found.get(port, 0) + 1
    return found


def limits(app: App, names: t.Container[str]) -> dict[int, float]:
    """Return the ports of those public processes that are alive, each with the seconds that its requests may take to finish."""
    found = {}
    for pid in processes.pids(app.world):
        environment = processes.environment(app.world, pid) or {}
        if environment.get("ANCHORAGE_PROCESS") not in names:
            continue
        document = app.at(environment.get("ANCHORAGE_RELEASE")).document
        for instance in [instance for slot in SLOTS for instance in instances(document, slot, public=True)]:
            if instance.name == environment["ANCHORAGE_PROCESS"] and instance.port is not None:
                found[instance.port] = float(instance.process.get("drain_seconds", DEFAULT_SECONDS))
    return found


def longest(document: dict[str, t.Any]) -> float:
    """Return how long drain() may take for a release of this document, in seconds."""
    return max((float(process.get("drain_seconds", DEFAULT_SECONDS)) for process in document["processes"] if process["public"]), default=0.0) + QUIET


def drain(app: App, log: Log, names: t.Container[str], *, at_most: float | None = None) -> dict[int, int]:
    """Wait until no request is in hand at processes that are about to be stopped, each for its own time at most.

    :arg names: PM2's names of them; the proxy sends them nothing new any more.
    :arg at_most: seconds that none may take longer than.
    :returns: the connections that were still open at the end, by port.
    """
    waited = {port: seconds if at_most is None else min(seconds, at_most) for port, seconds in limits(app, names).items()}
    began = app.world.monotonic()
    quiet_since: float | None = None
    told = False
    while True:
        now = app.world.monotonic()
        waited_for = {port for port, seconds in waited.items() if now - began < seconds}
        if not waited_for:
            break
        busy = connections(app.world, waited_for)
        if busy and not told:
            log.say(f"{app.name}: {_counted(busy)}; waiting for them before the old processes stop")
            told = True
        quiet_since = None if busy else now if quiet_since is None else quiet_since
        if quiet_since is not None and now - quiet_since >= QUIET:
            break
        app.world.sleep(PAUSE)
    left = connections(app.world, waited)
    if left:
        limit = "drain_seconds" if at_most is None else "drain_seconds, or a third of hold_seconds"
        log.say(f"{app.name}: {_counted(left)} after {app.world.monotonic() - began:.0f} s ({limit}); the stop ends them")
    return left


def _counted(open_connections: dict[int, int]) -> str:
    count = sum(open_connections.values())
    return f"{count} connection{'' if count == 1 else 's'} open on port {' and '.join(str(port) for port in sorted(open_connections))}"
