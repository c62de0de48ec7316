# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the test run, each a list of cases: the one place that says what is tested and how."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import sysconfig

from ..lab import engine
from .cases import OUTPUT, ROOT, Case

PYTHON = sys.executable
BIN = sysconfig.get_path("scripts")
#: The scenario of the whole VPS.
WHOLE = "default"


def tool(name: str) -> str:
    """Path of a tool of our own environment."""
    return f"{BIN}/{name}"


def need(**packages: str) -> None:
    """Have the programs there, installed where this machine lets us."""
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if missing and not engine.is_root_debian():
        raise SystemExit(f"This part needs {', '.join(missing)}: install {'it' if len(missing) == 1 else 'them'} and run it again.")
    if missing:
        engine.install(*missing)


def lint() -> list[Case]:
    """Judge the text of the project."""
    need(git="git")
    return [
        Case("ansible-lint", (tool("ansible-lint"), "--nocolor"), lane="lint"),
        Case("yamllint", (tool("yamllint"), "--strict", "."), lane="lint"),
        Case("ruff", (tool("ruff"), "check", "."), lane="lint"),
        Case("format", (tool("ruff"), "format", "--check", "."), lane="lint"),
        Case("registry hosts", (PYTHON, "-m", "tests.tools.registry_hosts"), lane="lint"),
        Case("generated docs", (PYTHON, "-m", "tests.tools.docs", "--check"), lane="lint"),
        Case("module pages", (tool("antsibull-docs"), "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=self", "."), lane="lint"),
        Case("changelog", (tool("antsibull-changelog"), "lint"), lane="lint"),
    ]


def sanity() -> list[Case]:
    """Let ansible-test judge a copy of the collection; a planted error proves that it looks at all."""
    need(rsync="rsync", git="git")
    return [
        Case("planted error is found", (PYTHON, "-m", "tests.tools.sanity", "planted"), lane="sanity"),
        Case("ansible-test sanity", (PYTHON, "-m", "tests.tools.sanity", "all"), lane="sanity"),
    ]


def pytest(name: str, *arguments: str, timeout_seconds: int, lane: str = "") -> Case:
    """Run one pytest session that reports into tests/output."""
    argv = (PYTHON, "-m", "pytest", f"tests/{name}", "-ra", f"--junitxml={OUTPUT}/{name}.xml", *arguments)
    return Case("pytest", argv, junit=f"{name}.xml", timeout_seconds=timeout_seconds, lane=lane)


def unit() -> list[Case]:
    """Run the pure parts."""
    return [pytest("unit", timeout_seconds=900, lane="unit")]


def build() -> list[Case]:
    """Build the artefact and use it from somewhere else."""
    return [Case("artefact", (PYTHON, "-m", "tests.tools.artefact"), lane="build")]


def integration() -> list[Case]:
    """Run modules and playbooks against real services on hosts of the lab."""
    need(**{"ssh-keygen": "openssh-client", "redis-server": "redis-server", "nginx": "nginx-light", "psql": "postgresql", "openssl": "openssl"})
    return [pytest("integration", timeout_seconds=4200, lane="integration")]


def scenarios(directory: pathlib.Path, chosen: str | None) -> list[str]:
    """Name the scenarios: those of the roles in order, the whole VPS last."""
    found = sorted(path.parent.name for path in directory.glob("*/molecule.yml"))
    if chosen and chosen not in found:
        raise SystemExit(f"SCENARIO={chosen}: molecule/ has {', '.join(found) or 'none'}.")
    return [chosen] if chosen else sorted(found, key=lambda name: (name == WHOLE, name))


def molecule() -> list[Case]:
    """Run each scenario from create to destroy: the roles beside what else has a lane, the whole VPS by itself."""
    need(**{"ssh-keygen": "openssh-client"})
    environment = {"MOLECULE_GLOB": "molecule/*/molecule.yml", "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
    return [
        Case(name, (tool("molecule"), "test", "--scenario-name", name), environment, lane="" if name == WHOLE else "molecule")
        for name in scenarios(ROOT / "molecule", os.environ.get("SCENARIO"))
    ]


PARTS = {part.__name__: part for part in (lint, sanity, unit, build, integration, molecule)}
