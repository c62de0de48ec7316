# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on a host's disks: what a step needs, what there is, and what is said where it was not enough."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tarfile
import typing as t

from .errors import AnchorageError

if t.TYPE_CHECKING:
    from .app import App

MIB = 1 << 20

#: What the system says where a disk, or somebody's share of it, is used up.
CODES = (errno.ENOSPC, errno.EDQUOT)
WORDS = re.compile(r"No space left on device|\bENOSPC\b|Disk quota exceeded|\bEDQUOT\b", re.IGNORECASE)

BLOCK = 4096

#: The manifest of a built tree.
MANIFEST = ".anchorage.json"


class Amount(t.NamedTuple):
    """Bytes and names (inodes) on a file system; None where it does not count its inodes."""

    bytes: int
    inodes: int | None

    def __str__(self) -> str:
        size = f"{self.bytes / MIB:.0f} MiB" if self.bytes >= 10 * MIB else f"{self.bytes / MIB:.1f} MiB"
        return size if self.inodes is None else f"{size} and {self.inodes} inodes"

    def plus(self, other: Amount, times: int = 1) -> Amount:
        """Return the sum."""
        return Amount(self.bytes + times * other.bytes, (self.inodes or 0) + times * (other.inodes or 0))

    def holds(self, need: Amount) -> bool:
        """Tell whether there is enough of both."""
        return self.bytes >= need.bytes and (self.inodes is None or self.inodes >= (need.inodes or 0))


#: What a step needs in any case: for what it writes besides the tree, and so that a disk is not filled to its last block.
SPARE = Amount(16 * MIB, 500)

#: What the state's directory must have: a journal, a log, a step's record.
STATE = Amount(4 * MIB, 100)

#: What one package of a lock file took in a Medusa shop (741 MB and 88 000 files in 1 230 packages), for a host that has none yet.
PACKAGE = Amount(630_000, 72)

#: Files that are given up when a disk is full, so that what goes back can still be written down: number and size.
RESERVE = (16, 64 * 1024)


class Full(AnchorageError):
    """A file system has no room left, or not enough."""


def is_full(error: BaseException | None) -> bool:
    """Tell whether an error of the system, or the one it was made from, says that a disk is full."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in CODES:
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def existing(path: str) -> str:
    """Return the nearest directory above a path that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def supply(path: str) -> Amount:
    """Return what a user without privileges may still write to the file system of a path."""
    found = os.statvfs(existing(path))
    return Amount(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def mount_point(path: str) -> str:
    """Return where the file system of a path is mounted."""
    path = os.path.realpath(existing(path))
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def advice(path: str) -> str:
    """Say what to do about a full disk."""
    look = f"df -h {path}; df -i {path}; what may go is in docs/operations.md, 'Disk full'"
    return f"Make room in {mount_point(path)} ({look}), then run deploy.yml again; it goes on."


def full(path: str, cause: str) -> Full:
    """Return the error that says which file system is full."""
    return Full(f"The file system {mount_point(path)} is full ({supply(path)} left for {path}): {cause}", next_step=advice(path))


def fullest(paths: t.Sequence[str]) -> str:
    """Return the path whose file system has the least left."""
    found = [(supply(path), path) for path in paths]
    return min(found, key=lambda entry: (min(entry[0].bytes // BLOCK, entry[0].bytes if entry[0].inodes is None else entry[0].inodes), entry[1]))[1]


@contextlib.contextmanager
def guarded(*paths: str) -> t.Iterator[None]:
    """Turn what goes wrong for want of room into an error that names the file system. To be left before anything is cleaned up.

    :arg paths: where the work inside writes.
    """
    try:
        yield
    except Full:
        raise
    except AnchorageError as error:
        evidence = [error.message, *map(str, error.details.get("output", []))]
        if is_full(error) or any(WORDS.search(line) for line in evidence):
            told = full(fullest(paths), error.message)
            told.what, told.live = error.what, error.live
            raise told from error
        raise
    except OSError as error:
        if not is_full(error):
            raise
        named = error.filename if isinstance(error.filename, str) and os.path.isabs(error.filename) else None
        raise full(named or fullest(paths), f"{error.strerror or error}.") from error


def named(error: Exception, *paths: str) -> AnchorageError:
    """Return an error as one that people can read: which file system is full, or what the system said."""
    try:
        with guarded(*paths):
            raise error
    except AnchorageError as told:
        return told
    except OSError as told:
        return AnchorageError(f"{told}", what="the operating system")


@contextlib.contextmanager
def explained(app: App, *paths: str) -> t.Iterator[None]:
    """Do the same for work on an app, and say what serves."""
    try:
        with guarded(*(paths or (app.layout.home, app.layout.state))):
            yield
    except AnchorageError as error:
        error.live = error.live or app.living()
        raise


def require(path: str, need: Amount, why: str) -> None:
    """Refuse to begin what a file system has no room for.

    :raises Full: with path, need and supply.
    """
    have = supply(path)
    if not have.holds(need):
        raise Full(f"{why} needs {need} in {path}, and {have} are free on {mount_point(path)}.", what="room on the disk", next_step=advice(path))


def measure(*paths: str) -> Amount:
    """Return what trees take. What is linked more than once counts once; links are not followed."""
    size, seen = 0, set()
    stack = [path for path in paths if os.path.lexists(path)]
    while stack:
        path = stack.pop()
        facts = os.lstat(path)
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        size += facts.st_blocks * 512
        if os.path.isdir(path) and not os.path.islink(path):
            stack += [entry.path for entry in os.scandir(path)]
    return Amount(size, len(seen))


def unpacked(archive: str) -> Amount:
    """Return what an archive takes once it is unpacked; four times its size where it cannot be read."""
    try:
        with tarfile.open(archive) as bundle:
            sizes = [-(-member.size // BLOCK) * BLOCK if member.isreg() else BLOCK for member in bundle]
        return Amount(sum(sizes), len(sizes))
    except (tarfile.TarError, EOFError):
        return Amount(4 * os.stat(archive).st_size, 0)
    except FileNotFoundError:
        return Amount(0, 0)


def to_stage(app: App, source_id: str, *, built: bool) -> Amount:
    """Return what staging a release needs in the app's home, dependencies apart.

    A build needs its source, unpacked, and twice what the live tree takes: for what it writes on the way, and for the result.
    """
    need = SPARE
    live = app.journal.data.get("tree")
    if not built:
        need = need.plus(unpacked(app.layout.source(source_id)))
        if live:
            need = need.plus(measure(app.layout.build(live)), times=2)
    return need


def to_install(app: App, directory: str) -> Amount:
    """Return what the dependencies of a source need that no release has yet: what those of the live release take, or a guess from the lock file."""
    live = app.journal.data.get("tree")
    raw = app.world.read(f"{app.layout.build(live)}/{MANIFEST}") if live else None
    key = json.loads(raw).get("dependencies") if raw else None
    if key and os.path.isdir(app.layout.dependencies(key)):
        return SPARE.plus(measure(app.layout.dependencies(key)))
    try:
        packages = len(json.loads(app.world.read(f"{directory}/package-lock.json") or b"{}").get("packages", {}))
    except (ValueError, AttributeError):
        packages = 0
    return SPARE.plus(PACKAGE, times=packages)


class Reserve:
    """Room in the state's directory that a step sets aside, and gives up to be able to write down how it failed and to go back."""

    def __init__(self, app: App) -> None:
        self.directory = f"{app.layout.state}/reserve"
        self.state = app.layout.state

    def keep(self) -> None:
        """Set it aside, where that was not done yet.

        :raises Full: when there is too little room to begin anything.
        """
        number, size = RESERVE
        # A power cut may have left fewer.
        if os.path.isdir(self.directory) and len(os.listdir(self.directory)) >= number:
            return
        self.give_up()
        require(self.state, STATE, "A step")
        staging = f"{self.directory}.new"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with guarded(self.state):
                os.makedirs(staging, mode=0o700)
                for name in range(number):
                    with open(f"{staging}/{name}", "wb") as stream:
                        os.posix_fallocate(stream.fileno(), 0, size)
                os.rename(staging, self.directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def give_up(self) -> None:
        """Free it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def tolerant(write: t.Callable[[str], None]) -> t.Callable[[str], None]:
    """Return a way to tell lines that a full disk, or a reader who left, cannot stop: no step may fail for its log."""

    def tell(text: str) -> None:
        with contextlib.suppress(OSError):
            write(text)

    return tell
