# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of builds, migrations and processes: their limits, and how it is told that one was reached."""

from __future__ import annotations

import re
import typing as t

from .health import Check, judge

if t.TYPE_CHECKING:
    from .world import World

#: A unit may take this many times what Node's heap may: the rest is for code, buffers and child processes.
UNIT_TO_HEAP = 2

#: What a unit of a build or migration says at its end, when something in it was killed for want of memory.
MARK = "anchorage: out of memory:"

#: What Node says before it gives up by itself.
HEAP = re.compile(r"JavaScript heap out of memory|Reached heap limit|Allocation failed - process out of memory")

#: Codes of a command that was killed or gave up; without other evidence, that is how running out of memory looks.
LIKELY = (134, 137, 255)


def unit_limit(heap_mb: int | None) -> int | None:
    """Return what the unit of a command may take whose heap is limited, in MiB."""
    return heap_mb * UNIT_TO_HEAP if heap_mb else None


def limit_heap(environment: dict[str, str], heap_mb: int | None) -> None:
    """Limit Node's heap, unless the environment says something of its own."""
    if heap_mb:
        environment.setdefault("NODE_OPTIONS", f"--max-old-space-size={heap_mb}")


class Watch:
    """Reads along what a command says, to tell afterwards whether memory or time ran out.

    :arg on_line: where the lines go.
    """

    def __init__(self, world: World, on_line: t.Callable[[str], None]) -> None:
        self.world = world
        self.on_line = on_line
        self.began = world.monotonic()
        self.evidence = ""

    def __call__(self, line: str) -> None:
        """Take one line."""
        self.on_line(line)
        if line.startswith(MARK) or HEAP.search(line):
            self.evidence = line

    @property
    def seconds(self) -> float:
        """How long the command has run."""
        return self.world.monotonic() - self.began

    def cause(self, rc: int, *, key: str, heap_mb: int | None, limit_seconds: float) -> str:
        """Say why a command failed, as far as its limits are why; nothing otherwise.

        :arg key: the contract's key that limits the heap.
        """
        limits = f"{key} is {heap_mb}, in MiB, for Node's heap, and the whole unit may take {unit_limit(heap_mb)}"
        if heap_mb and self.evidence:
            return f"it ran out of memory ({limits})"
        if rc != 0 and self.seconds >= limit_seconds:
            return f"it was stopped after {limit_seconds} s"
        if heap_mb and rc in LIKELY:
            return f"it ended with code {rc}, and this is how running out of memory looks ({limits})"
        return ""


def advice(app: str, key: str) -> str:
    """Say what to do when memory ran out."""
    return f"Raise apps.{app}.{key} if this host has more memory, or give it more (base_swap_mb); then run deploy.yml again."


def killed(read: t.Callable[[str], bytes | None]) -> str | None:
    """Say whether the unit that this runs in had processes killed for want of memory, on either generation of control groups."""
    for line in (read("/proc/self/cgroup") or b"").decode().splitlines():
        _number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            places = [f"/sys/fs/cgroup/memory{path}/memory.oom_control"]
        elif not controllers:
            # systemd runs a unit's last command in a group of its own below the unit's.
            places = [f"/sys/fs/cgroup{path.removesuffix('/.control')}/memory.events"]
        else:
            continue
        for place in places:
            found = re.search(r"^oom_kill (\d+)$", (read(place) or b"").decode(), re.MULTILINE)
            if found and int(found.group(1)):
                return f"{MARK} {found.group(1)} processes of this unit were killed at its limit"
    return None


def resident_mb(world: World, pid: int) -> float | None:
    """Return what a process holds in memory, in MiB; None where that is not known."""
    found = re.search(rb"^VmRSS:\s+(\d+) kB", world.read(f"/proc/{pid}/status") or b"", re.MULTILINE)
    return int(found.group(1)) / 1024 if found else None


def within(world: World, pids: t.Iterable[int], process: dict[str, t.Any]) -> Check:
    """Judge whether processes take less than the contract gives them: PM2 would restart them again and again, but looks every half minute only."""
    taken = max((mb for mb in (resident_mb(world, pid) for pid in pids) if mb is not None), default=0.0)
    limit = process.get("memory_mb")
    return judge(
        "memory",
        not limit or taken <= limit,
        evidence={"resident_mb": round(taken), "limit_mb": limit},
        cause=f"it takes {taken:.0f} MiB, and processes.{process['name']}.memory_mb is {limit}, so PM2 would restart it again and again",
        advice=f"processes.{process['name']}.memory_mb",
    )
