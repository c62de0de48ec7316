# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy, three nodes of a Swarm, and a host with database and cache: five hosts, made once for all tests here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release
from ansible_collections.anchorage.vps.tests.lab import images
from ansible_collections.anchorage.vps.tests.lab.registry import DOCKERFILE, serve

LAB = os.environ.get("ANCHORAGE_SWARM_LAB", "swarm")
NODES = ("node1", "node2", "node3")
GROUPS = {"edge1": "proxy", **dict.fromkeys(NODES, "app"), "data1": "database,cache"}


def pytest_configure(config):
    """Name the marker of the slow tests."""
    config.addinivalue_line("markers", "fault: takes long; runs with 'make swarm' only")


REGISTRY_PORT, NAME = 5005, "acme/alpha"


class Apps(release.Apps):
    """The stub as a stack: two servers and a worker, from images that a CI has pushed."""

    registry = ""
    pusher: release.Host | None = None

    def app(self, name: str, **options: t.Any) -> None:
        """Ask for a release."""
        super().app(name, **options)
        source = self.apps[name]["source"]["path"]
        told = {key: value for key, value in self.apps[name].items() if key != "build"}
        processes = {**told["processes"], "server": {**told["processes"]["server"], "instances": 2}}
        digest = self._push(source) if self.pusher else f"sha256:{'0' * 64}"
        found = {"image": f"{self.registry}/{NAME}", "digest": digest}
        self.apps[name] = {**told, "runtime": "swarm", "source": found, "image": {"directory": "/app/dist"}, "shared": [], "processes": processes}
        self.write()

    def _push(self, source: str) -> str:
        """Build an image on this machine, and let a node push it, which forgets it then. Returns its digest."""
        (release.pathlib.Path(source) / "Dockerfile").write_text(DOCKERFILE)
        name = f"{self.registry}/{NAME}:next"
        subprocess.run(["docker", "build", "--quiet", "--tag", name, source], env={**os.environ, "DOCKER_BUILDKIT": "0"}, capture_output=True, check=True)
        packed = subprocess.run(["docker", "save", name], capture_output=True, check=True).stdout
        subprocess.run(["docker", "exec", "-i", self.pusher.facts["lab_container"], "docker", "load", "--quiet"], input=packed, capture_output=True, check=True)
        told = self.pusher.shell(f"docker push {name} && docker image rm {name}")
        subprocess.run(["docker", "image", "rm", name], capture_output=True, check=True)
        return re.search(r"digest: (sha256:[0-9a-f]{64})", told)[1]

    def change(self, name: str, **keys: t.Any) -> None:
        """Change keys of an app."""
        self.apps[name] = {**self.apps[name], **keys}
        self.write()


class Swarm:
    """The hosts and their contract."""

    def __init__(self, apps: Apps) -> None:
        self.apps = apps
        self.hosts = {name: release.Host(LAB, name) for name in GROUPS}
        self.proxy, self.database = self.hosts["edge1"], self.hosts["data1"]
        self.nodes = [self.hosts[name] for name in NODES]
        self.lead = self.nodes[0]

    def live(self, app: str = "alpha", *, without: str = "") -> dict[str, str]:
        """Which release is live on each node."""
        return {host.name: host.state(app)["live"] for host in self.nodes if host.name != without}

    def tasks(self, app: str = "alpha", *, manager: release.Host | None = None) -> dict[str, list[tuple[str, str]]]:
        """The tasks that run, by process: node and release of each."""
        manager = manager or self.lead
        ids = manager.shell(f"docker stack ps --quiet --no-trunc --filter desired-state=running {app}").split()
        names = {node["ID"]: node["Hostname"] for node in map(json.loads, manager.shell("docker node ls --format '{{json .}}'").splitlines())}
        found: dict[str, list[tuple[str, str]]] = {}
        for task in json.loads(manager.shell(f"docker inspect --type=task {' '.join(ids)}")) if ids else []:
            if task["Status"]["State"] == "running":
                labels = task["Spec"]["ContainerSpec"]["Labels"]
                process = next(word.partition("=")[2] for word in task["Spec"]["ContainerSpec"]["Env"] if word.startswith("ANCHORAGE_PROCESS="))
                found.setdefault(process.partition(".")[0], []).append((names[task["NodeID"]], labels["vps.anchorage.release"]))
        return {process: sorted(places) for process, places in found.items()}

    def off(self, name: str) -> None:
        """Take a host its power."""
        subprocess.run(["docker", "kill", self.hosts[name].facts["lab_container"]], capture_output=True, check=True)

    def on(self, name: str) -> None:
        """Give it back."""
        self.proxy.command("reboot", LAB, name)

    def run(self, playbook: str, *arguments: str, rc: int | None = 0) -> release.Ended:
        """Run a playbook to its end; ``rc=None`` wants a failure."""
        return self.apps.run(playbook, *arguments, rc=rc, timeout=1800)

    def deploy(self, *arguments: str, rc: int | None = 0) -> release.Ended:
        """Deploy."""
        return self.run("deploy", *arguments, rc=rc)


@pytest.fixture(scope="session")
def swarm(tmp_path_factory) -> t.Iterator[Swarm]:
    """Five fresh hosts with the app alpha."""
    first = release.Host(LAB, "edge1")
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)
    first.command("up", LAB, "--with-docker", *[f"--host={name}:trixie:{group}" for name, group in GROUPS.items()])
    directory = tmp_path_factory.mktemp("swarm")
    hosts = directory / "hosts"
    hosts.mkdir()
    (hosts / "lab.yml").symlink_to(release.ROOT / ".cache" / "lab" / LAB / "hosts.yml")
    found = Swarm(Apps(hosts, directory))
    registry = f"{found.database.facts['lab_address']}:{REGISTRY_PORT}"
    addresses = {name: {"anchorage_address": host.facts["lab_address"]} for name, host in found.hosts.items()}
    addresses["data1"]["base_firewall_rules_extra"] = [f"tcp dport {REGISTRY_PORT} accept"]
    settings = {"docker_compose_insecure_registries": [registry]}
    (hosts / "addresses.yml").write_text(json.dumps({"all": {"hosts": addresses, "vars": settings}}))
    for node in found.nodes:
        images.settle(node.facts["lab_container"])
    found.apps.registry = registry
    found.apps.app("alpha")
    found.run("provision")
    images.ensure_stand_ins()
    found.database.shell(serve(f":{REGISTRY_PORT}"))
    found.apps.pusher = found.lead
    found.apps.app("alpha")
    found.run("site")
    yield found
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)
