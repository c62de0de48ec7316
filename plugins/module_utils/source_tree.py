# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that lie on the controller: their checksum, and the archive that a host gets."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import typing as t

from .errors import AnchorageError

#: Never part of a source: made by tools, or secret.
SKIPPED = frozenset({".git", "node_modules", ".medusa", ".cache", ".next", ".turbo", "__pycache__"})


def _skip(name: str) -> bool:
    return name in SKIPPED or name == ".env" or (name.startswith(".env.") and name not in (".env.template", ".env.example"))


def members(directory: str) -> list[str]:
    """Return the paths that make up a source, relative and sorted.

    :raises AnchorageError: when there is no such directory.
    """
    if not os.path.isdir(directory):
        raise AnchorageError(f"The source directory {directory} does not exist on the controller.", next_step="Set source.path in the contract.")
    found = []
    for place, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if not _skip(name))
        links = [name for name in names if os.path.islink(os.path.join(place, name))]
        found += [os.path.relpath(os.path.join(place, name), directory) for name in [*files, *links] if not _skip(name)]
    return sorted(found)


def checksum(directory: str) -> str:
    """Return the SHA-256 of a source: names, contents, execute bits. Times and owners do not count."""
    total = hashlib.sha256()
    for name in members(directory):
        path = os.path.join(directory, name)
        if os.path.islink(path):
            total.update(f"link {name} {os.readlink(path)}\n".encode())
            continue
        with open(path, "rb") as stream:
            content = hashlib.sha256(stream.read()).hexdigest()
        total.update(f"file {name} {bool(os.stat(path).st_mode & stat.S_IXUSR)} {content}\n".encode())
    return total.hexdigest()


def pack(directory: str, target: t.IO[bytes]) -> None:
    """Write a source as a compressed tar archive; the same source gives the same bytes."""
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as bundle:
        for name in members(directory):
            path = os.path.join(directory, name)
            info = bundle.gettarinfo(path, f"./{name}")
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            info.mode = 0o755 if info.mode & stat.S_IXUSR else 0o644
            if info.isreg():
                with open(path, "rb") as stream:
                    bundle.addfile(info, stream)
            else:
                bundle.addfile(info)


def file_checksum(path: str) -> str:
    """Return the SHA-256 of one file."""
    total = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                total.update(block)
    except OSError as error:
        raise AnchorageError(
            f"The source archive {path} cannot be read on the controller: {error.strerror}.", next_step="Set source.archive in the contract."
        ) from error
    return total.hexdigest()
