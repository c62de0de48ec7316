# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity on a copy of the collection, since ansible-test refuses a linked clone."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / ".cache" / "ansible_collections" / "anchorage" / "vps"
HOME = ROOT / ".cache" / "ansible-test"
PLANTED = "plugins/module_utils/planted_error.py"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
# ansible-test downloads this script from a host that not every machine reaches; Python ships all it does.
GET_PIP = """\
import ensurepip
import runpy
import sys

ensurepip.bootstrap()
arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.argv[:] = ["pip", "install", "--upgrade", *arguments]
runpy.run_module("pip", run_name="__main__")
"""


def pip_version(source: str) -> str:
    """Read the version of pip that this ansible-test pins."""
    found = re.search(r"^\s*pip=['\"]([0-9.]+)['\"]", source, re.MULTILINE)
    if not found:
        raise SystemExit("ansible-test no longer says which pip it pins: mend tests/tools/sanity.py")
    return found[1]


def seed_pip() -> None:
    """Put the bootstrap script where ansible-test looks before it downloads."""
    package = pathlib.Path(importlib.util.find_spec("ansible_test").origin).parent
    version = pip_version((package / "_internal" / "python_requirements.py").read_text())
    seed = HOME / ".ansible" / "test" / "cache" / f"get_pip_{version.replace('.', '_')}.py"
    seed.parent.mkdir(parents=True, exist_ok=True)
    seed.write_text(GET_PIP)


def copy() -> None:
    """Make the copy anew; without a repository in it ansible-test skips all targets and calls that a success."""
    COPY.mkdir(parents=True, exist_ok=True)
    # What the artefact leaves out is judged by the other linters; the demo's inventory is a link that ends nowhere without its lab.
    surplus = [f"--exclude=/{name}" for name in (".git", "examples", "inventories", "molecule")]
    filters = ["--filter=:- .gitignore", *surplus]
    subprocess.run(["rsync", "--archive", "--delete", "--delete-excluded", *filters, f"{ROOT}/", f"{COPY}/"], check=True)
    subprocess.run(["git", "init", "--quiet"], cwd=COPY, check=True)


def sanity(*arguments: str) -> int:
    """Run ansible-test sanity in the copy, with a home of its own."""
    environment = {
        **os.environ,
        "HOME": str(HOME),
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", str(pathlib.Path.home() / ".config")),
    }
    environment.pop("ANSIBLE_CONFIG", None)
    command = ["ansible-test", "sanity", "--color", "no", "--venv", "--python", VERSION, *arguments]
    return subprocess.run(command, cwd=COPY, env=environment, check=False).returncode


def planted() -> int:
    """Succeed only where sanity fails on an error that we plant."""
    (COPY / PLANTED).write_text("def broken(:\n")
    try:
        found = sanity("--test", "compile", PLANTED) != 0
    finally:
        (COPY / PLANTED).unlink()
    print("the planted error was found" if found else "sanity did not find a planted error: it tests nothing")
    return not found


if __name__ == "__main__":
    copy()
    seed_pip()
    sys.exit(planted() if sys.argv[1:] == ["planted"] else sanity())
