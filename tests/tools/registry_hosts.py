# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse host names of package registries in the project's files: names of packages travel, addresses of registries do not."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Written so that this file does not name them either.
HOSTS = re.compile(rb"np[m]js\.org|py[p]i\.org|python[h]osted\.org|(deb|security)\.d[e]bian\.org", re.IGNORECASE)


def findings(files: dict[str, bytes]) -> list[str]:
    """List every line that names a registry's host."""
    return [
        f"{name}:{number}: names a host of a package registry"
        for name, content in files.items()
        for number, line in enumerate(content.splitlines(), 1)
        if HOSTS.search(line)
    ]


def project_files(root: pathlib.Path) -> dict[str, bytes]:
    """Read the files that are or would be committed."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, check=True, capture_output=True).stdout
    paths = [root / name.decode() for name in listed.split(b"\0") if name]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()}


if __name__ == "__main__":
    found = findings(project_files(ROOT))
    print("\n".join(found) or "no host of a package registry is named")
    sys.exit(bool(found))
