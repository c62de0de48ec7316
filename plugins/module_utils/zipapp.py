# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the command C(anchorage): one reproducible zip archive of the engine's modules that Python runs as it is."""

from __future__ import annotations

import ast
import io
import typing as t
import zipfile

ROOT = "anchorage_engine"
EPOCH = (1980, 1, 1, 0, 0, 0)

#: The module that the command begins with. Whatever it imports, and what that imports, is the engine.
FIRST = "command"

MAIN = f"import sys\n\nfrom {ROOT}.command import main\n\nsys.exit(main())\n"


def members(read: t.Callable[[str], bytes], first: str = FIRST) -> dict[str, bytes]:
    """Return the modules of the engine by name: the first one, and all that are imported from there on. They import the standard library and each other only.

    :arg read: returns a module's source by its name.
    """
    found: dict[str, bytes] = {}
    wanted = [first]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = read(name)
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.level:
                wanted += [node.module] if node.module else [alias.name for alias in node.names]
    return found


def build(read: t.Callable[[str], bytes]) -> bytes:
    """Return the archive; the same modules give the same bytes.

    :arg read: returns a module's source by its name.
    """
    files = {"__main__.py": MAIN.encode(), f"{ROOT}/__init__.py": b""}
    files.update({f"{ROOT}/{name}.py": source for name, source in members(read).items()})
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/python3 -I\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return buffer.getvalue()
