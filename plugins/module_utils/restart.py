# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the processes of the live release again, as an upgrade of what they stand on asks for.

An upgrade replaces files, and who has them open goes on with the old ones. Which processes do is read from the processes themselves, so it does not matter
who upgraded, or whether the run that did came to its end.
"""

from __future__ import annotations

import re
import typing as t

from . import engine, processes, swarm_switch
from .app import App, Log
from .errors import AnchorageError
from .layout import PATH
from .release_plan import instances
from .runtime import PM2, SWARM, name_of
from .slots import Slots
from .world import World

#: Where the files of packages lie. What is deleted elsewhere is a process's own: temporary files, shared memory.
INSTALLED = ("/usr/", "/lib", "/bin/", "/sbin/", "/opt/")

DELETED = " (deleted)"

#: What PM2's daemon calls itself.
TITLE = re.compile(r"PM2 v(\S+): God Daemon")

#: The last line of our command pm2: node, and the tree of the installed version.
TREE = re.compile(r"^exec node \S*/([^/\s]+)/node_modules/pm2/", re.MULTILINE)


def outdated(app: App) -> list[str]:
    """Return why processes of the live release should be started again; nothing where they should not, or in containers, which bring all they use."""
    if name_of(app.document) != PM2 or app.journal.live is None or app.journal.slot is None:
        return []
    world, release = app.world, app.journal.live
    slots = Slots(app, Log(lambda text: None))
    daemon = _daemon(app)
    wanted = instances(app.at(release).document, app.journal.slot)
    own = {pid: instance.name for instance in wanted for pid in slots.owners(instance, release)}
    found = [f"{name} uses {path}, which was replaced" for name, path in _replaced(world, {**own, **({daemon: "PM2"} if daemon else {})})]
    if daemon:
        found += _other_node(world, daemon) + _other_pm2(world, daemon)
    return found


def restart(app: App, log: Log, *, force: bool = False) -> dict[str, t.Any]:
    """Stop the processes of the live release, each with its own time to finish, and start and prove them again.

    Visitors of an app whose only host this is meet nobody meanwhile.

    :arg force: although nothing asks for it.
    :raises AnchorageError: when another step works, or when not all came back.
    """
    with engine.lock(app):
        release, slot = app.journal.live, app.journal.slot
        reasons = outdated(app)
        if release is None or slot is None or not (reasons or force):
            return {"changed": False, "reasons": reasons}
        for reason in reasons:
            log.say(f"{app.name}: {reason}")
        log.say(f"{app.name}: restart release {release}")
        lost = swarm_switch.restart(app, log) if name_of(app.document) == SWARM else _restart(app, log, release, slot)
        if lost:
            raise AnchorageError(
                f"{' and '.join(lost)} of release {release} did not come back.",
                what=f"restart of {app.name}",
                live=app.living(),
                next_step=f"anchorage diagnose {app.name}",
            )
    return {"changed": True, "reasons": reasons}


def _restart(app: App, log: Log, release: str, slot: str) -> list[str]:
    """Restart the processes of this host. Returns those that did not come back."""
    slots = Slots(app.at(release), log)
    wanted = instances(app.at(release).document, slot)
    slots.runtime.restart(wanted, release)
    lost = []
    for instance in wanted:
        try:
            slots.prove(instance, release)
        except AnchorageError as problem:
            log.say(f"{app.name}: {problem.message}")
            lost.append(instance.name)
    return lost


def _daemon(app: App) -> int | None:
    raw = (app.world.read(f"{app.layout.pm2_home}/pm2.pid") or b"").strip()
    return int(raw) if raw.isdigit() and int(raw) in processes.pids(app.world) else None


def _replaced(world: World, named: t.Mapping[int, str]) -> list[tuple[str, str]]:
    """Return the processes that have a file of a package in memory which is gone, with the first such file."""
    found = {}
    for pid, name in named.items():
        try:
            lines = (world.read(f"/proc/{pid}/maps") or b"").decode("utf-8", "replace").splitlines()
        except OSError:  # it has ended meanwhile
            continue
        # Address, rights, offset, device, inode, and the path, in which blanks may be.
        paths = [line.split(None, 5)[5] for line in lines if line.endswith(DELETED) and len(line.split(None, 5)) == 6]
        gone = [path.removesuffix(DELETED) for path in paths if path.startswith(INSTALLED)]
        if gone:
            found.setdefault(name, gone[0])
    return sorted(found.items())


def _other_node(world: World, daemon: int) -> list[str]:
    runs = world.readlink(f"/proc/{daemon}/exe")
    installed = next((processes.real_path(world, f"{place}/node") for place in PATH.split(":") if world.exists(f"{place}/node")), None)
    if runs is None or installed is None or runs in (installed, f"{installed}{DELETED}"):
        return []
    return [f"PM2 runs on {runs}, and {installed} is installed"]


def _other_pm2(world: World, daemon: int) -> list[str]:
    runs = TITLE.search(processes.command_line(world, daemon) or "")
    installed = TREE.search((world.read("/usr/local/bin/pm2") or b"").decode("utf-8", "replace"))
    if not runs or not installed or runs[1] == installed[1]:
        return []
    return [f"PM2 {runs[1]} runs, and {installed[1]} is installed"]
