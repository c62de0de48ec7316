# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy, three hosts of an app, a database and a cache: six hosts, made once for all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release

LAB = os.environ.get("ANCHORAGE_FLEET_LAB", "fleet")
WEB = ("web1", "web2", "web3")
GROUPS = {"edge1": "proxy", **dict.fromkeys(WEB, "app"), "db1": "database", "cache1": "cache"}


def pytest_configure(config):
    """Name the marker of the slow tests."""
    config.addinivalue_line("markers", "fault: takes long; runs with 'make fleet' only")


#: Asks all ports at once, since one that drops what comes is waited for.
REACH = """
import concurrent.futures, json, socket, sys

def reached(port):
    try:
        socket.create_connection((sys.argv[1], int(port)), timeout=3).close()
        return True
    except OSError:
        return False

with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(json.dumps([int(port) for port, there in zip(sys.argv[2:], pool.map(reached, sys.argv[2:])) if there]))
"""


class Fleet:
    """The hosts and their contract."""

    def __init__(self, apps: release.Apps) -> None:
        self.apps = apps
        self.hosts = {name: release.Host(LAB, name) for name in (*GROUPS, "outside")}
        self.proxy, self.web = self.hosts["edge1"], [self.hosts[name] for name in WEB]
        self.database = self.hosts["db1"]

    def live(self, app: str = "alpha", *, without: str = "") -> dict[str, str]:
        """Which release is live on each host."""
        return {host.name: host.state(app)["live"] for host in self.web if host.name != without}

    def off(self, name: str) -> None:
        """Take a host its power."""
        subprocess.run(["docker", "kill", self.hosts[name].facts["lab_container"]], capture_output=True, check=True)

    def on(self, name: str) -> None:
        """Give it back."""
        self.proxy.command("reboot", LAB, name)

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen:
        """Start a playbook for all hosts of the fleet."""
        return self.apps.start(playbook, "--limit", "all:!outside", *arguments)

    def run(self, playbook: str, *arguments: str, rc: int | None = 0) -> release.Ended:
        """Run one to its end; ``rc=None`` wants a failure."""
        return self.apps.run(playbook, "--limit", "all:!outside", *arguments, rc=rc, timeout=1800)

    def deploy(self, *arguments: str, rc: int | None = 0) -> release.Ended:
        """Deploy."""
        return self.run("deploy", *arguments, rc=rc)

    def answering(self, app: str = "alpha", number: int = 30) -> set[tuple[str, int]]:
        """Who answers visitors: releases with their processes."""
        found = [self.proxy.public(app) for _number in range(number)]
        return {(info["release"], info["pid"]) for info in found}

    def reach(self, source: str, target: str, ports: t.Sequence[int]) -> set[int]:
        """Tell to which of these ports of another host one gets a connection."""
        argv = ["docker", "exec", "-i", self.hosts[source].facts["lab_container"], "python3", "-", self.hosts[target].facts["lab_address"], *map(str, ports)]
        done = subprocess.run(argv, input=REACH, capture_output=True, text=True, check=True)
        return set(json.loads(done.stdout))


@pytest.fixture(scope="session")
def fleet(tmp_path_factory) -> t.Iterator[Fleet]:
    """Six fresh hosts with the app alpha."""
    first = release.Host(LAB, "edge1")
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)
    first.command("up", LAB, *[f"--host={name}:trixie:{group}" for name, group in GROUPS.items()], "--host=outside:trixie")
    directory = tmp_path_factory.mktemp("fleet")
    hosts = directory / "hosts"
    hosts.mkdir()
    (hosts / "lab.yml").symlink_to(release.ROOT / ".cache" / "lab" / LAB / "hosts.yml")
    found = Fleet(release.Apps(hosts, directory))
    addresses = {name: {"anchorage_address": host.facts["lab_address"]} for name, host in found.hosts.items()}
    (hosts / "addresses.yml").write_text(json.dumps({"all": {"hosts": addresses}}))
    found.apps.app("alpha")
    found.run("site")
    yield found
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)
