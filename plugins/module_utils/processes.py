# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc knows of processes: who listens where, from which directory, with which environment, in which unit."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import typing as t

from .health import FAIL, Check, judge
from .world import World

LISTEN = "0A"
SECRET_NAME = re.compile(r"SECRET|PASS|TOKEN|KEY|CREDENTIAL|_URL$|DSN", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Listener:
    """A listening TCP socket and the processes that hold it (none are named where /proc may not be read)."""

    address: str
    port: int
    inode: str
    pids: tuple[int, ...] = ()

    @property
    def loopback(self) -> bool:
        """Tell whether only this machine can reach the socket."""
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


def decode_address(text: str) -> tuple[str, int]:
    """Return address and port of a field in /proc/net/tcp or tcp6 of a little-endian machine."""
    raw, port = text.split(":")
    words = [bytes.fromhex(raw[index : index + 8])[::-1] for index in range(0, len(raw), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(port, 16)


def parse_sockets(table: str) -> list[Listener]:
    """Return the listening sockets of a table such as /proc/net/tcp."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            address, port = decode_address(fields[1])
            found.append(Listener(address, port, fields[9]))
    return found


def pids(world: World) -> list[int]:
    """Return the ids of all processes."""
    return [int(name) for name in world.listdir("/proc") if name.isdigit()]


def socket_owners(world: World, among: t.Iterable[int] | None = None) -> dict[str, list[int]]:
    """Return the pids that hold each socket inode, as far as /proc may be read."""
    owners: dict[str, list[int]] = {}
    for pid in pids(world) if among is None else among:
        try:
            names = world.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for inode in {_inode(world.readlink(f"/proc/{pid}/fd/{name}")) for name in names} - {""}:
            owners.setdefault(inode, []).append(pid)
    return owners


def _inode(target: str | None) -> str:
    return target[8:-1] if target and target.startswith("socket:[") else ""


def listeners(world: World) -> list[Listener]:
    """Return all listening TCP sockets with the processes that hold them."""
    found = [listener for name in ("tcp", "tcp6") for listener in parse_sockets(_text(world, f"/proc/net/{name}") or "")]
    owners = socket_owners(world) if found else {}
    return [dataclasses.replace(listener, pids=tuple(owners.get(listener.inode, ()))) for listener in found]


def sockets_inside(world: World, pid: int) -> list[Listener] | None:
    """Return the listening TCP sockets of the network that a process lives in, without their owners; None where the process is gone."""
    tables = [_text(world, f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    return None if tables == [None, None] else [listener for table in tables for listener in parse_sockets(table or "")]


def _text(world: World, path: str) -> str | None:
    """Return a file of /proc, or None where the process is gone or may not be seen."""
    try:
        data = world.read(path)
    except OSError:
        return None
    return None if data is None else data.decode("utf-8", "replace")


def environment(world: World, pid: int) -> dict[str, str] | None:
    """Return the environment a process was started with, or None where it cannot be read."""
    text = _text(world, f"/proc/{pid}/environ")
    if text is None:
        return None
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if "=" in entry)


def command_line(world: World, pid: int) -> str | None:
    """Return the command line of a process in one piece, or None where there is no such process."""
    text = _text(world, f"/proc/{pid}/cmdline")
    return None if text is None else text.replace("\0", " ").strip()


def directory(world: World, pid: int) -> str | None:
    """Return the real path of a process's working directory, or None where it cannot be read."""
    return world.readlink(f"/proc/{pid}/cwd")


def owner(world: World, pid: int) -> int | None:
    """Return the effective user id of a process."""
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", _text(world, f"/proc/{pid}/status") or "", re.MULTILINE)
    return int(found.group(1)) if found else None


def started(world: World, pid: int) -> int:
    """Return when a process was started, in ticks since the boot; 0 where that cannot be read."""
    fields = (_text(world, f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def age(world: World, pid: int) -> float:
    """Return for how many seconds a process has been alive; 0 where that cannot be read."""
    uptime = (_text(world, "/proc/uptime") or "").split()
    since = started(world, pid)
    return max(0.0, float(uptime[0]) - since / os.sysconf("SC_CLK_TCK")) if uptime and since else 0.0


def parents(world: World) -> dict[int, int]:
    """Return the parent of every process."""
    table = {}
    for pid in pids(world):
        found = re.search(r"^PPid:\s+(\d+)", _text(world, f"/proc/{pid}/status") or "", re.MULTILINE)
        if found:
            table[pid] = int(found.group(1))
    return table


def family(pid: int, table: t.Mapping[int, int]) -> set[int]:
    """Return a process and all that descend from it, by a table of parents."""
    members = {pid}
    grown = True
    while grown:
        more = {child for child, parent in table.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return members


def units(world: World, pid: int) -> set[str]:
    """Return the names on the control group path of a process; its systemd unit is among them."""
    text = _text(world, f"/proc/{pid}/cgroup") or ""
    return {part for line in text.splitlines() for part in line.split(":", 2)[-1].split("/") if part}


def real_path(world: World, path: str, _depth: int = 0) -> str:
    """Resolve the links in an absolute path, as the kernel does for a working directory."""
    resolved = "/"
    rest = [part for part in path.split("/") if part and part != "."]
    while rest:
        part = rest.pop(0)
        if part == "..":
            resolved = os.path.dirname(resolved)
            continue
        candidate = os.path.join(resolved, part)
        target = world.readlink(candidate)
        if target is None or _depth >= 40:
            resolved = candidate
            continue
        _depth += 1
        rest = [piece for piece in target.split("/") if piece and piece != "."] + rest
        if target.startswith("/"):
            resolved = "/"
    return resolved


def shown(name: str, value: str | None) -> str:
    """Return the value of an environment variable as it may be shown."""
    if value is None:
        return "not set"
    return "(hidden)" if SECRET_NAME.search(name) else repr(value)


def judge_identity(
    world: World,
    name: str,
    members: t.Iterable[int],
    *,
    cwd: str | None = None,
    variables: t.Mapping[str, str] | None = None,
    user: str | None = None,
    uid: int | None = None,
) -> Check:
    """Return the check that processes run where, with what and as whom they should.

    :arg cwd: the wanted working directory; links in it are followed first.
    :arg variables: the wanted values of environment variables.
    :arg uid: the wanted effective user; ``user`` is its name for the message.
    """
    wanted_cwd = real_path(world, cwd) if cwd else None
    seen, wrong = [], []
    for pid in sorted(members):
        facts: dict[str, t.Any] = {"pid": pid}
        if wanted_cwd:
            facts["cwd"] = directory(world, pid)
            if facts["cwd"] is None:
                wrong.append(f"the working directory of pid {pid} cannot be read")
            elif facts["cwd"] != wanted_cwd:
                wrong.append(f"pid {pid} runs in {facts['cwd']}, not in {wanted_cwd}")
        if variables:
            real = environment(world, pid)
            facts["environment"] = {key: shown(key, (real or {}).get(key)) for key in variables}
            if real is None:
                wrong.append(f"the environment of pid {pid} cannot be read")
            else:
                wrong.extend(
                    f"pid {pid} has {key} = {shown(key, real.get(key))}, wanted {shown(key, value)}"
                    for key, value in variables.items()
                    if real.get(key) != value
                )
        if uid is not None:
            facts["uid"] = owner(world, pid)
            if facts["uid"] is None:
                wrong.append(f"pid {pid} has ended")
            elif facts["uid"] != uid:
                wrong.append(f"pid {pid} runs as user id {facts['uid']}, not as {user or uid}")
        seen.append(facts)
    return judge(
        name,
        not wrong,
        evidence={"processes": seen, "wanted_cwd": wanted_cwd},
        cause="; ".join(wrong),
        advice="which release the process was started from (and whether this task may read /proc of its user: become root)",
    )


def judge_port(
    world: World,
    port: int,
    *,
    cwd: str | None = None,
    variables: t.Mapping[str, str] | None = None,
    user: str | None = None,
    uid: int | None = None,
) -> Check:
    """Return the check that the processes which listen on a port are the wanted ones."""
    held = [listener for listener in listeners(world) if listener.port == port]
    owners = sorted({pid for listener in held for pid in listener.pids})
    if not held:
        cause, advice = f"no process of this host listens on port {port}", "whether the service runs on this host and listens at all"
    elif not owners:
        cause = f"the process that listens on port {port} belongs to another user"
        advice = "running this task as root, which may see whose socket it is"
    else:
        return judge_identity(world, "identity", owners, cwd=cwd, variables=variables, user=user, uid=uid)
    return Check("identity", FAIL, {"port": port, "listeners": len(held)}, cause, advice)
