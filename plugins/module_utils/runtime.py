# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps an app's processes alive: the one seam between the story of a release and PM2, Docker Compose, or a Docker Swarm."""

from __future__ import annotations

import abc
import typing as t

if t.TYPE_CHECKING:
    from .app import App
    from .health import Check
    from .release_plan import Instance

Data = dict[str, t.Any]

PM2, COMPOSE, SWARM = "pm2", "compose", "swarm"

#: Those whose release is an image.
CONTAINED = (COMPOSE, SWARM)

#: Who builds an image, where it is not the host itself.
CONTROLLER = "controller"


def name_of(document: Data) -> str:
    """Return the runtime of a document; those that were written before there was a choice name none."""
    return str(document.get("runtime") or PM2)


def contained(document: Data) -> bool:
    """Tell whether the processes of a document live in containers."""
    return name_of(document) in CONTAINED


class Runtime(abc.ABC):
    """The processes of one app, each known by the name of its instance.

    :arg app: the app as the release in question was made.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    @property
    @abc.abstractmethod
    def services(self) -> str:
        """How people look at the app's Redis on this host."""

    @abc.abstractmethod
    def require(self) -> None:
        """See that there is somebody to talk to.

        :raises AnchorageError: when there is nobody.
        """

    @abc.abstractmethod
    def check(self, release: str) -> None:
        """See that what a release stands on is there, before anything is stopped for it.

        :raises AnchorageError: when it is not.
        """

    @abc.abstractmethod
    def names(self) -> set[str]:
        """Return the names of all processes that it knows of, those that do not run among them."""

    @abc.abstractmethod
    def at_rest(self, seconds: float) -> dict[str, bool]:
        """Return all processes, and whether each is meant to run, once none of them is about to stop.

        :arg seconds: how long to wait for that at most.
        """

    @abc.abstractmethod
    def start(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Start processes of a release; one that exists under a name is replaced.

        :raises AnchorageError: when one cannot be started.
        """

    @abc.abstractmethod
    def delete(self, names: t.Iterable[str]) -> None:
        """Stop processes gracefully and forget them.

        :raises AnchorageError: when one cannot be stopped.
        """

    @abc.abstractmethod
    def restart(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Stop all processes gracefully, with what keeps them alive, and start these; they are not proven yet.

        :raises AnchorageError: when one cannot be started.
        """

    @abc.abstractmethod
    def keep_for_boot(self, release: str, slot: str) -> None:
        """See that the next boot starts a release, and no other."""

    @abc.abstractmethod
    def owns_port(self, instance: Instance, owners: t.Collection[int]) -> Check:
        """Judge whether an instance's port is its own: a stranger's answer proves nothing.

        :arg owners: the processes that were started as this instance.
        """

    @abc.abstractmethod
    def where_it_logs(self, instance: Instance) -> str:
        """Return where people find what an instance printed: a path, or a command."""

    @abc.abstractmethod
    def last_lines(self, instance: Instance) -> list[str]:
        """Return the last lines that an instance printed."""

    @abc.abstractmethod
    def lay_out(self, place: str, tree: str, release: str, group: int) -> None:
        """Write into a release's directory, which nobody reads yet, what its processes are started with.

        :arg place: the directory.
        :arg tree: what the release stands on.
        :arg group: the app's group, which may read what is not for root alone.
        """

    @abc.abstractmethod
    def once(
        self,
        release: str,
        name: str,
        argv: t.Sequence[str],
        env: t.Mapping[str, str],
        on_line: t.Callable[[str], None],
        *,
        memory_mb: int | None,
        seconds: int,
        forget: bool = False,
    ) -> int:
        """Run one command of a release to its end, as the app's user. Returns its code.

        :arg name: what it is: migrate, rehearse, admin.
        :arg env: its environment; PATH, HOME and LANG are added.
        :arg memory_mb: what Node's heap may take in it, in MiB; the whole may take twice that.
        :arg forget: leave nothing of its environment on the disk.
        """

    def ended(self, instance: Instance) -> str:
        """Return why an instance of which no process is alive has ended, where that is known."""
        return ""

    def mend(self, log: t.Callable[[str], None]) -> bool:
        """Put right what a power cut can leave of it, before anything is started again. Returns whether there was something."""
        return False

    def end(self, name: str) -> bool:
        """End what a step that was killed has left of a command that runs once. Returns whether there was something."""
        return False

    def sweep(self, trees: t.Collection[str]) -> list[str]:
        """Remove what it keeps of trees that are gone. Returns what went.

        :arg trees: those that are not gone.
        """
        return []
