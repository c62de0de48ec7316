# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine is asked for: pure functions from data to argument lists."""

from __future__ import annotations

import dataclasses
import re

PREFIX = "anchorage-lab-"
SUITES = ("trixie", "bookworm")
BASE_PORTS = (22, 80, 443)
CACHE = PREFIX + "cache"
LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class Host:
    """One host of a lab: what its container is started with."""

    name: str
    suite: str = SUITES[0]
    groups: tuple[str, ...] = ()
    user: str = "root"
    ports: dict[int, int] = dataclasses.field(default_factory=dict)
    docker: bool = False
    memory_mb: int | None = None
    kind: str = "host"
    dns: tuple[tuple[str, str], ...] = ()


def parse_host(text: str) -> Host:
    """Read NAME[:SUITE[:GROUP,GROUP]]; the suite is the newest one where none is given."""
    name, suite, groups = [*text.split(":", 2), "", ""][:3]
    suite = suite or SUITES[0]
    if not NAME.fullmatch(name):
        raise ValueError(f"host name {name!r}: lower-case letters, digits and inner dashes, 32 at most")
    if suite not in SUITES:
        raise ValueError(f"host {name}: suite {suite!r} is none of {', '.join(SUITES)}")
    return Host(name, suite, tuple(filter(None, groups.split(","))))


def container(lab: str, host: str) -> str:
    """Name of a host's container."""
    return f"{PREFIX}{lab}-{host}"


def network(lab: str) -> str:
    """Name of a lab's network."""
    return f"{PREFIX}{lab}"


def labels(pairs: dict[str, str]) -> list[str]:
    """Labels from which status, inventory and removal are derived later: nothing else remembers a lab."""
    return [f"--label=anchorage.{key}={value}" for key, value in pairs.items()]


def cgroup_arguments(version: str) -> list[str]:
    """Let systemd own its cgroups: the machine's tree on v1, a private one on v2."""
    if version == "2":
        return ["--cgroupns=private"]
    return [
        "--cgroupns=host",
        "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
        "--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
    ]


def host_arguments(host: Host, *, lab: str, image: str, cgroup_version: str, root: str) -> list[str]:
    """Build the arguments of `docker create` for one systemd host."""
    arguments = [
        "--name", container(lab, host.name), "--hostname", host.name,
        "--network", network(lab), "--network-alias", host.name,
        *labels({
            "lab": lab, "kind": host.kind, "host": host.name, "suite": host.suite,
            "groups": ",".join(host.groups), "user": host.user, "root": root,
            "dns": ",".join(f"{name}={target}" for name, target in host.dns),
        }),
        "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE",
        "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
        "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec",
        "--env=container=docker", "--stop-signal=SIGRTMIN+3", "--stop-timeout=30",
        *cgroup_arguments(cgroup_version),
    ]  # fmt: skip
    if host.docker:
        arguments.append("--volume=/var/lib/docker")
    if host.memory_mb:
        arguments.append(f"--memory={host.memory_mb}m")
    arguments += [f"--publish=127.0.0.1:{outside}:{inside}" for inside, outside in sorted(host.ports.items())]
    return [*arguments, image]
