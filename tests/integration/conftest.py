# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the integration tests: one lab for the session, real SSH, removed at the end (kept where KEEP_LAB is set)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.anchorage.vps.tests.lab import engine

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class LabHosts:
    """The way to the hosts of a lab."""

    name: str

    @property
    def inventory(self) -> pathlib.Path:
        """Where the lab wrote its inventory."""
        return ROOT / ".cache" / "lab" / self.name / "hosts.yml"

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Give the lab a command."""
        return run(sys.executable, "-m", "tests.lab", *arguments, check=check)

    def up(self, *hosts: str) -> None:
        """Bring up hosts, described as the lab's command line wants them."""
        self.command("up", self.name, *hosts)

    def down(self) -> None:
        """Remove the lab."""
        self.command("down", self.name)

    def execute(self, host: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run a command on a host as root, past SSH."""
        return self.command("exec", self.name, host, *argv, check=check)

    def playbook(self, path: pathlib.Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a playbook on the hosts."""
        return run("ansible-playbook", "-i", str(self.inventory), str(path), *arguments, check=check, **environment)


def run(*argv: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in the clone; one that fails shows what it said."""
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-3000:]}", pytrace=False)
    return done


@pytest.fixture(scope="session")
def this_engine():
    """This machine's container engine, installed and started where it is not; for tests that ask it without a lab of their own."""
    engine.ensure()
    return engine


def both_releases(name: str) -> t.Iterator[LabHosts]:
    """Two fresh hosts, `trixie` and `bookworm`, in a lab of their own."""
    hosts = LabHosts(name)
    hosts.down()
    hosts.up("--host=trixie:trixie", "--host=bookworm:bookworm")
    yield hosts
    if not os.environ.get("KEEP_LAB"):
        hosts.down()


@pytest.fixture(scope="session")
def lab():
    """The hosts that the targets of a session share: empty but for what a target leaves."""
    yield from both_releases("integration")


@pytest.fixture(scope="module")
def sinks():
    """The hosts with the programs that read values: they install much that a target expects to be missing."""
    yield from both_releases("sinks")
