# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection's artefact, install it outside the clone, ask it for its modules."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a user of the collection has no use for, by its first directory or file.
UNWANTED = {".venv", ".cache", ".collections", ".ansible", ".git", ".github", ".ci", "molecule", "tests", "Makefile", "ansible.cfg"}


def unwanted(names: list[str]) -> list[str]:
    """Name what must not be in the artefact."""
    return [name for name in names if pathlib.PurePosixPath(name).parts[:1] and pathlib.PurePosixPath(name).parts[0] in UNWANTED]


def run(*command: str, place: str, **environment: str) -> str:
    """Run one command away from the clone's configuration."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    done = subprocess.run(command, cwd=place, env={**clean, **environment}, capture_output=True, text=True, check=False)
    print(f"$ {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def main() -> int:
    """Build, look inside, install, use."""
    with tempfile.TemporaryDirectory(prefix="anchorage-artefact-") as place:
        run("ansible-galaxy", "collection", "build", "--output-path", place, str(ROOT), place=place)
        artefact = next(pathlib.Path(place).glob("anchorage-vps-*.tar.gz"))
        with tarfile.open(artefact) as archive:
            surplus = unwanted(archive.getnames())
        if surplus:
            raise SystemExit(f"the artefact holds what nobody needs (build_ignore in galaxy.yml): {', '.join(surplus[:10])}")
        target = f"{place}/collections"
        run("ansible-galaxy", "collection", "install", "--no-deps", "-p", target, str(artefact), place=place)
        modules = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
        names = [f"anchorage.vps.{module}" for module in modules]
        told = json.loads(run("ansible-doc", "--json", *names, place=place, ANSIBLE_COLLECTIONS_PATH=target)) if names else {}
        missing = [name for name in names if name not in told]
        if missing or not names:
            raise SystemExit(f"the installed artefact does not document {', '.join(missing) or 'a single module'}")
        print(f"{artefact.name}: {len(names)} modules are found and documented")
    return 0


if __name__ == "__main__":
    sys.exit(main())
