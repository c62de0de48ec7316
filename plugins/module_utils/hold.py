# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let visitors wait while a release starts for which there is no room beside the one before (C(strategy: hold)).

A flag file sends the proxy to a socket that systemd holds. Nobody reads from it, so requests wait there, until it is known who gets them:
then systemd's own proxy takes over the socket and passes them on. That neither the engine's death nor its restart loses them is the point.
"""

from __future__ import annotations

import os
import select
import socket
import typing as t

from .app import App, Log
from .errors import AnchorageError
from .layout import COMMAND
from .release_plan import Instance, listen_address
from .world import World

HOLD = "hold"

#: Of documents that were written before there was such a key.
DEFAULT_SECONDS = 40

#: A third of the time is for requests in hand, a third for the stop of the server, and what is left for its successor.
SHARE = 3

#: systemd's own proxy, and the most requests that it passes on at once. Nginx's default for one worker is less.
PROXY = "/lib/systemd/systemd-socket-proxyd"
CONNECTIONS = 4096

#: Seconds without a request after which systemd's proxy ends.
IDLE = 30

#: How long the proxy waits for an answer, in seconds, where a document does not say it.
PATIENCE = 60.0

#: Seconds after which nobody is going to say where the requests go.
FORGOTTEN = 7200.0
LOOK = 0.05

#: Seconds in which a proxy that read the flag file right before its removal has connected.
STRAGGLERS = 1.0

#: Where those are sent whom nobody can serve, so that they learn it at once.
NOWHERE = "127.0.0.1:1"

#: The first descriptor that systemd hands over.
SOCKET = 3


def wanted(document: dict[str, t.Any]) -> bool:
    """Tell whether an app's visitors wait while its releases change."""
    return bool(document.get("strategy") == HOLD)


def seconds(document: dict[str, t.Any]) -> float:
    """Return how long visitors wait at most for a new release."""
    return float(document.get("hold_seconds") or DEFAULT_SECONDS)


def stop_seconds(document: dict[str, t.Any], process: dict[str, t.Any]) -> float:
    """Return how long one instance of a process may take to stop."""
    limit = float(process["stop_seconds"])
    if not wanted(document) or not process["public"] or not process["instances"]:
        return limit
    return min(limit, seconds(document) / SHARE / process["instances"])


def address(app: App, instance: Instance) -> str:
    """Return where the requests that waited go, as systemd's proxy reads it: the port is what stands after the last colon."""
    return f"{listen_address(app.document, instance.process)}:{instance.port}"


class Hold:
    """The waiting room of one app."""

    def __init__(self, app: App, log: Log) -> None:
        self.app = app
        self.log = log
        self.world = app.world
        #: When the clock says so, those who wait have waited for as long as they may.
        self.until: float | None = None
        #: Since when they wait, and for how long they did.
        self.since: float | None = None
        self.waited = 0.0

    @property
    def active(self) -> bool:
        """Whether new requests wait."""
        return self.world.exists(self.app.layout.hold_flag)

    def require_proxy(self) -> None:
        """See that the proxy's configuration knows of waiting. One that was written before would send everybody to a server that has stopped.

        :raises AnchorageError: when it does not.
        """
        raw = self.world.read(self.app.layout.site) or b""
        if self.app.layout.hold_flag.encode() not in raw:
            raise AnchorageError(
                f"The proxy does not know how to let requests of {self.app.name} wait ({self.app.layout.site}), so nothing was stopped.",
                what="hold",
                next_step="Run site.yml, which writes the proxy's configuration and deploys.",
            )

    def begin(self, at_most: float | None = None) -> None:
        """Let new requests wait. Where they wait already they go on waiting, unless those before them were sent on.

        :arg at_most: seconds; it is the caller's to end it by then.
        :raises AnchorageError: when there is no place to wait in; then nothing may be stopped.
        """
        self.since = self.world.monotonic()
        self.until = None if at_most is None else self.since + at_most
        number = self._number()
        if number and not self.world.exists(self._target(number)) and self._listens(number):
            return
        before = self._sockets()
        self.world.make_directory(self.app.layout.slot_directory, mode=0o755)
        number = str(int(self.world.now() * 1000))
        done = self.world.run(
            [
                "systemd-run",
                "--quiet",
                f"--unit={self._unit(number)}",
                f"--description=Requests of {self.app.name} that wait for a release",
                f"--socket-property=ListenStream={self.app.layout.hold_socket}",
                "--socket-property=SocketGroup=www-data",
                "--socket-property=SocketMode=0660",
                f"--socket-property=Backlog={CONNECTIONS}",
                f"--property=User={self.app.user}",
                f"--property=LimitNOFILE={CONNECTIONS * 8}",
                "--property=NoNewPrivileges=yes",
                "--setenv=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                COMMAND,
                "held",
                self._target(number),
                f"--patience={self.app.document.get('timeout_seconds') or PATIENCE:.0f}",
            ],
            timeout=60,
        )
        if done.rc != 0:
            raise AnchorageError(f"The socket in which requests wait could not be made: {done.stderr.strip()[:300]}", what="hold")
        self.world.write_atomic(self.app.layout.hold_flag, number.encode(), mode=0o644)
        self._forget(before)
        self.log.say(f"{self.app.name}: requests wait now (strategy: hold)" + (f", for {at_most:.0f} s at most" if at_most else ""))

    def end(self, place: str) -> None:
        """Let the requests that waited, and all new ones, go to their release.

        :arg place: address and port of the process that gets those that waited.
        """
        if not self.active:
            return
        # First those who wait: whoever comes in between goes the same way. A power cut that undoes the removal is nothing: see clear().
        try:
            self.world.write_atomic(self._target(self._number()), place.encode(), mode=0o644)
        finally:
            self.world.remove(self.app.layout.hold_flag)
        self.waited = 0.0 if self.since is None else self.world.monotonic() - self.since
        self.log.say(f"{self.app.name}: requests wait no more")

    def tidy(self) -> None:
        """Remove the socket when nobody can come to it any more. What was passed on from it goes on until it ends by itself."""
        left = [name for name in self.world.listdir(self.app.layout.slot_directory) if name.startswith(("hold-", ".hold"))]
        if self.active or not left:
            return
        self.world.sleep(STRAGGLERS)
        self._forget(self._sockets())
        for name in [*left, os.path.basename(self.app.layout.hold_socket)]:
            self.world.remove(f"{self.app.layout.slot_directory}/{name}")

    def clear(self) -> None:
        """Forget all of it, before the proxy starts: with the host, the socket and those who waited went down."""
        directory = self.app.layout.slot_directory
        for name in self.world.listdir(directory):
            if name.lstrip(".").startswith("hold"):
                self.world.remove(f"{directory}/{name}")

    def _number(self) -> str:
        return (self.world.read(self.app.layout.hold_flag) or b"").decode("ascii", "replace").strip()

    def _unit(self, number: str) -> str:
        return f"anchorage-hold-{self.app.name}.{number}"

    def _target(self, number: str) -> str:
        return f"{self.app.layout.slot_directory}/hold-{number}"

    def _listens(self, number: str) -> bool:
        return self.world.run(["systemctl", "is-active", "--quiet", f"{self._unit(number)}.socket"], timeout=60).rc == 0

    def _sockets(self) -> list[str]:
        """Return the sockets of earlier times. Their last requests may still be under way, which ends by itself."""
        pattern = f"{self._unit('*')}.socket"
        done = self.world.run(["systemctl", "list-units", "--plain", "--no-legend", "--all", "--type=socket", pattern], timeout=60)
        return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]

    def _forget(self, sockets: t.Sequence[str]) -> None:
        if sockets:
            self.world.run(["systemctl", "stop", *sockets], timeout=60)
        for unit in sockets:
            self.world.remove(self._target(unit.removesuffix(".socket").rpartition(".")[2]))


def wait(world: World, path: str, patience: float, send_away: t.Callable[[], None]) -> str | None:
    """Wait until a file says where the requests go, and return that; None where nobody says it any more.

    :arg patience: seconds after which the proxy has given up on those who came first. Their requests must not be carried out afterwards, since
        whoever was told of a failure tries again.
    :arg send_away: hangs up on all who wait.
    """
    began = since = world.monotonic()
    while world.monotonic() - began < FORGOTTEN:
        found = (world.read(path) or b"").decode("ascii", "replace").strip()
        if found:
            return found
        if world.monotonic() - since >= patience:
            send_away()
            since = world.monotonic()
        world.sleep(LOOK)
    send_away()
    return None


def send_away(listener: socket.socket) -> None:
    """Hang up on all who wait at a socket."""
    while select.select([listener], [], [], 0)[0]:
        listener.accept()[0].close()


def command(place: str) -> list[str]:
    """Return the command that passes on what waits in the socket that it inherits."""
    return [PROXY, f"--connections-max={CONNECTIONS}", f"--exit-idle-time={IDLE}s", place]
