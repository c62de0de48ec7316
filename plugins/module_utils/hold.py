# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let visitors wait while a release starts for which there is no room beside the one before (C(strategy: hold)).

A flag file sends the proxy to a socket that systemd holds. Nobody reads from it, so requests wait there, until it is known who gets them:
then systemd's own proxy takes over the socket and passes them on. That neither the engine's death nor its restart loses them is the point.
"""

from __future__ import annotations

import typing as t

from .app import App, Log
from .errors import AnchorageError
from .layout import COMMAND
from .release_plan import Instance, listen_address
from .world import World

HOLD, BLUE_GREEN = "hold", "blue_green"

#: Of documents that were written before there was such a key.
DEFAULT_SECONDS = 40

#: The part of the time in which requests in hand may finish; the others wait already.
DRAIN_SHARE = 3

#: systemd's own proxy, and the most requests that it passes on at once. Nginx's default for one worker is less.
PROXY = "/lib/systemd/systemd-socket-proxyd"
CONNECTIONS = 4096

#: Seconds without a request after which systemd's proxy ends.
IDLE = 30

#: Seconds after which nobody can wait any more: the proxy's own patience ends much earlier.
FORGOTTEN = 7200.0
LOOK = 0.05


def wanted(document: dict[str, t.Any]) -> bool:
    """Tell whether an app's visitors wait while its releases change."""
    return bool(document.get("strategy") == HOLD)


def seconds(document: dict[str, t.Any]) -> float:
    """Return how long visitors wait at most for a new release."""
    return float(document.get("hold_seconds") or DEFAULT_SECONDS)


def address(app: App, instance: Instance) -> str:
    """Return where the requests that waited go."""
    host = listen_address(app.document, instance.process)
    return f"[{host}]:{instance.port}" if ":" in host else f"{host}:{instance.port}"


class Hold:
    """The waiting room of one app."""

    def __init__(self, app: App, log: Log) -> None:
        self.app = app
        self.log = log
        self.world = app.world
        #: When the clock says so, those who wait have waited for as long as they may.
        self.until: float | None = None

    @property
    def active(self) -> bool:
        """Whether new requests wait."""
        return self.world.exists(self.app.layout.hold_flag)

    def begin(self, at_most: float | None = None) -> None:
        """Let new requests wait. Where they wait already they go on waiting, unless those before them were sent on.

        :arg at_most: seconds; it is the caller's to end it by then.
        :raises AnchorageError: when there is no place to wait in; then nothing may be stopped.
        """
        self.until = None if at_most is None else self.world.monotonic() + at_most
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
        number = self._number()
        if not number:
            return
        # First those who wait: whoever comes in between goes the same way. A power cut that undoes the removal is nothing: see clear().
        self.world.write_atomic(self._target(number), place.encode(), mode=0o644)
        self.world.remove(self.app.layout.hold_flag)
        self.log.say(f"{self.app.name}: requests wait no more")

    def clear(self) -> None:
        """Forget all of it, before the proxy starts: with the host, the socket and those who waited went down."""
        directory = self.app.layout.slot_directory
        for name in self.world.listdir(directory):
            if name == "hold" or name.startswith(("hold-", "hold.")):
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
        for socket in sockets:
            self.world.remove(self._target(socket.removesuffix(".socket").rpartition(".")[2]))


def wait(world: World, path: str) -> str | None:
    """Wait until a file says where the requests go, and return that; None where nobody says it any more."""
    end = world.monotonic() + FORGOTTEN
    while world.monotonic() < end:
        found = (world.read(path) or b"").decode("ascii", "replace").strip()
        if found:
            return found
        world.sleep(LOOK)
    return None


def command(place: str) -> list[str]:
    """Return the command that passes on what waits in the socket that it inherits."""
    return [PROXY, f"--connections-max={CONNECTIONS}", f"--exit-idle-time={IDLE}s", place]
