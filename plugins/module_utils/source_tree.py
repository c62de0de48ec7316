# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that lie on the controller: their checksum, and the archive that a host gets."""

from __future__ import annotations

import gzip
import hashlib
import os
import pathlib
import stat
import tarfile
import typing as t

from . import forecast
from .errors import AnchorageError
from .migrations import is_migration, statements

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


def migrations(path: str, document: dict[str, t.Any]) -> dict[str, list[str]]:
    """Return the statements of a source's migrations by file, as far as the contract names them."""
    base = str(document["source"].get("subdir") or "").strip("/")
    found = {}
    for name, read in _texts(path):
        inside = os.path.relpath(name, base) if base else os.path.normpath(name)
        if not inside.startswith("..") and forecast.wanted(document, inside) and is_migration(inside):
            found[inside] = statements(inside, read().decode("utf-8", "replace"))
    return found


def _texts(path: str) -> t.Iterator[tuple[str, t.Callable[[], bytes]]]:
    """Return the files of a source, each with what reads it."""
    if os.path.isdir(path):
        for name in members(path):
            yield name, lambda name=name: pathlib.Path(path, name).read_bytes()
        return
    with tarfile.open(path) as bundle:
        found = [member for member in bundle.getmembers() if member.isreg()]
        tops = {os.path.normpath(member.name).split("/")[0] for member in bundle.getmembers() if os.path.normpath(member.name) != "."}
        top = f"{min(tops)}/" if len(tops) == 1 and all("/" in os.path.normpath(member.name) for member in found) else ""
        for member in found:
            yield os.path.normpath(member.name).removeprefix(top), lambda member=member: t.cast("t.IO[bytes]", bundle.extractfile(member)).read()


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
