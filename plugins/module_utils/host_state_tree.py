# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories, files and links: what is there, what is off, and one transaction that mends all of it or nothing.

An *entry* is one wanted thing: ``{kind: directory|file|link|absent, path, owner, group, mode, sha256, target, secret, home}``.
Entries and what lies on disk are compared the same way on the way in (reading) and on the way out (installing).
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import grp
import hashlib
import os
import pwd
import shutil
import stat
import typing as t

from .errors import AnchorageError
from .world import fsync_directory

Entry = dict[str, t.Any]
Lookup = t.Callable[[str], t.Optional[int]]

NEW = ".anchorage-new"
OLD = ".anchorage-old"
TEXT_LIMIT = 128 * 1024


def uid_of(name: str) -> int | None:
    """Return a user's number, or None where the user does not exist."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def gid_of(name: str) -> int | None:
    """Return a group's number, or None where the group does not exist."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def matches(pattern: str, path: str) -> bool:
    """Tell whether a path is what a pattern names: itself, a glob, or anything below a directory."""
    bare = pattern.rstrip("/")
    return path == bare or path.startswith(bare + "/") or fnmatch.fnmatchcase(path, pattern)


def staged_name(path: str, suffix: str) -> str:
    """Return the hidden neighbour of a path in which it is prepared or kept; programs that read whole directories skip it."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{suffix}")


class Tree:
    """The file tree below a root (the real one, or a test's)."""

    def __init__(self, root: str = "/", *, uid: Lookup = uid_of, gid: Lookup = gid_of) -> None:
        self.root = root.rstrip("/")
        self.uid = uid
        self.gid = gid

    def real(self, path: str) -> str:
        """Return where a path lies for the kernel."""
        return self.root + path

    def observe(self, path: str, *, digest: bool = True) -> dict[str, t.Any] | None:
        """Return what lies at a path, without following a link."""
        real = self.real(path)
        try:
            status = os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        seen = {"owner": _user(status.st_uid), "group": _group(status.st_gid), "uid": status.st_uid, "gid": status.st_gid}
        if stat.S_ISLNK(status.st_mode):
            return {"kind": "link", "target": os.readlink(real), **seen}
        seen["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
        if stat.S_ISDIR(status.st_mode):
            return {"kind": "directory", **seen}
        if not stat.S_ISREG(status.st_mode):
            return {"kind": "special", **seen}
        return {"kind": "file", "sha256": self.digest(path) if digest else None, **seen}

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file's bytes."""
        summary = hashlib.sha256()
        with open(self.real(path), "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                summary.update(block)
        return summary.hexdigest()

    def text(self, path: str) -> str | None:
        """Return a file's text for a diff; None for what is no text, too long or absent."""
        try:
            if not stat.S_ISREG(os.lstat(self.real(path)).st_mode) or os.stat(self.real(path)).st_size > TEXT_LIMIT:
                return None
            with open(self.real(path), encoding="utf-8") as stream:
                return stream.read()
        except (OSError, UnicodeDecodeError):
            return None

    def is_private(self, path: str) -> bool:
        """Tell whether not everybody on the host may read a file: what is in it is shown to nobody either."""
        found = os.lstat(self.real(path))
        return stat.S_ISREG(found.st_mode) and not found.st_mode & stat.S_IROTH

    def expand(self, pattern: str) -> list[str]:
        """Return the files that a pattern names; a directory names all files below it."""
        found: list[str] = []
        base = len(self.root)
        for real in sorted(glob.glob(glob.escape(self.root) + pattern.rstrip("/"))):
            if os.path.isdir(real):
                for directory, names, files in os.walk(real):
                    names.sort()
                    found += [os.path.join(directory, name)[base:] for name in sorted(files)]
            elif os.path.lexists(real):
                found.append(real[base:])
        return [path for path in found if not path.endswith((NEW, OLD))]

    def removable(self, patterns: t.Iterable[str], wanted: t.Iterable[str]) -> list[str]:
        """Return what lies at ``patterns`` and is neither wanted nor holds something wanted."""
        keep = list(wanted)
        base = len(self.root)
        found = {
            real[base:]
            for pattern in patterns
            for real in glob.glob(glob.escape(self.root) + pattern)
            if os.path.lexists(real) and not real.endswith((NEW, OLD))
        }
        return sorted(path for path in found if not any(path == kept or kept.startswith(path + "/") for kept in keep))

    def strays(self, entries: t.Iterable[Entry]) -> list[str]:
        """Return what an interrupted transaction left beside its entries."""
        return [name for entry in entries for suffix in (NEW, OLD) if os.path.lexists(self.real(name := staged_name(entry["path"], suffix)))]

    def off(self, entry: Entry) -> dict[str, t.Any] | None:
        """Return ``{before, after}`` of what is not as an entry wants it, or None."""
        actual = self.observe(entry["path"])
        if entry["kind"] == "absent":
            return None if actual is None else {"before": _summary(actual), "after": None}
        if actual is not None and actual["kind"] == "directory" and entry["kind"] != "directory":
            raise AnchorageError(
                f"{entry['path']} is a directory, and a {entry['kind']} is wanted there",
                next_step="move the directory away or choose another path",
            )
        if actual is not None and actual["kind"] != "directory" and entry["kind"] == "directory":
            followed = actual["kind"] == "link" and os.path.isdir(self.real(entry["path"]))
            raise AnchorageError(
                f"{entry['path']} is a {actual['kind']}{' to a directory' if followed else ''}, and a directory is wanted there",
                next_step="name the directory itself, or move what lies there away",
            )
        if entry["kind"] == "link":
            if actual is not None and actual["kind"] == "link" and actual["target"] == entry["target"]:
                return None
            return {"before": _summary(actual), "after": f"link to {entry['target']}"}
        wanted = {"owner": entry["owner"], "group": entry["group"], "mode": entry["mode"]}
        if actual is None or actual["kind"] != entry["kind"]:
            return {"before": _summary(actual), "after": {"kind": entry["kind"], **wanted}}
        before: dict[str, t.Any] = {}
        after: dict[str, t.Any] = {}
        if actual["uid"] != self.uid(entry["owner"]):
            before["owner"], after["owner"] = actual["owner"], entry["owner"]
        if actual["gid"] != self.gid(entry["group"]):
            before["group"], after["group"] = actual["group"], entry["group"]
        if actual["mode"] != entry["mode"]:
            before["mode"], after["mode"] = actual["mode"], entry["mode"]
        if entry["kind"] == "file" and actual["sha256"] != entry["sha256"]:
            before["content"], after["content"] = "other content", "as wanted"
        return {"before": before, "after": after} if after else None


def _summary(actual: dict[str, t.Any] | None) -> t.Any:
    if actual is None:
        return None
    if actual["kind"] == "link":
        return f"link to {actual['target']}"
    return {key: actual[key] for key in ("kind", "owner", "group", "mode") if key in actual}


class Transaction:
    """Changes to a tree that come to stand together or not at all.

    ``prepare`` writes everything beside its place, ``install`` renames it into place and remembers how to go back,
    ``commit`` forgets the way back, ``undo`` goes it.
    """

    def __init__(self, tree: Tree, *, lenient: bool = False) -> None:
        """Open a transaction.

        :arg lenient: give to root what is for owners that do not exist yet (for a tree that is thrown away).
        """
        self.tree = tree
        self.lenient = lenient
        self._back: list[t.Callable[[], None]] = []
        self._kept: list[str] = []
        self._directories: set[str] = set()

    def _owner(self, entry: Entry) -> tuple[int, int]:
        uid, gid = self.tree.uid(entry["owner"]), self.tree.gid(entry["group"])
        if self.lenient:
            return uid or 0, gid or 0
        for what, name, number in (("user", entry["owner"], uid), ("group", entry["group"], gid)):
            if number is None:
                raise AnchorageError(
                    f"{entry['path']} is to belong to the {what} {name}, which does not exist on the host",
                    next_step=f"name the {what} in {what}s or install the package that makes it",
                )
        return t.cast(int, uid), t.cast(int, gid)

    def _make_directory(self, path: str, mode: int, uid: int, gid: int) -> None:
        real = self.tree.real(path)
        os.mkdir(real, 0o700)
        self._back.append(lambda: os.rmdir(real))
        os.chown(real, uid, gid)
        os.chmod(real, mode)
        self._directories.update({real, os.path.dirname(real)})

    def _parents(self, path: str) -> None:
        missing = []
        parent = os.path.dirname(path)
        while parent != "/" and not os.path.isdir(self.tree.real(parent)):
            if os.path.lexists(self.tree.real(parent)):
                raise AnchorageError(f"{parent} is no directory, so {path} cannot lie in it")
            missing.append(parent)
            parent = os.path.dirname(parent)
        for directory in reversed(missing):
            self._make_directory(directory, 0o755, *self._root())

    def _root(self) -> tuple[int, int]:
        return self.tree.uid("root") or 0, self.tree.gid("root") or 0

    def _guard_home(self, entry: Entry) -> None:
        """Refuse to follow a link that a user may have put into the way of root."""
        if not entry.get("home"):
            return
        path = os.path.dirname(entry["path"])
        while len(path) > len(entry["home"]):
            if os.path.islink(self.tree.real(path)):
                raise AnchorageError(f"{path} is a link in a home directory; it is not followed as root")
            path = os.path.dirname(path)

    def prepare(self, entries: t.Sequence[Entry], contents: t.Mapping[str, bytes]) -> None:
        """Create directories and write files and links under their hidden names."""
        for stray in self.tree.strays(entries):
            _discard(self.tree.real(stray))
        for entry in entries:
            if entry["kind"] == "directory" and not os.path.isdir(self.tree.real(entry["path"])):
                self._guard_home(entry)
                uid, gid = self._owner(entry)
                self._parents(entry["path"])
                self._make_directory(entry["path"], int(entry["mode"], 8), uid, gid)
        for entry in entries:
            if entry["kind"] not in ("file", "link"):
                continue
            self._guard_home(entry)
            self._parents(entry["path"])
            staged = self.tree.real(staged_name(entry["path"], NEW))
            if entry["kind"] == "link":
                self._back.append(lambda staged=staged: _discard(staged))
                os.symlink(entry["target"], staged)
            elif self._needs_content(entry):
                uid, gid = self._owner(entry)
                if entry["path"] not in contents:
                    raise AnchorageError(f"{entry['path']} changed on the host while it was worked on", next_step="run it again")
                self._back.append(lambda staged=staged: _discard(staged))
                self._write(staged, contents[entry["path"]], int(entry["mode"], 8), uid, gid)

    def _needs_content(self, entry: Entry) -> bool:
        actual = self.tree.observe(entry["path"])
        return actual is None or actual["kind"] != "file" or actual["sha256"] != entry["sha256"]

    @staticmethod
    def _write(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())

    def install(self, entries: t.Sequence[Entry]) -> None:
        """Put everything that was prepared into its place."""
        for entry in entries:
            if entry["kind"] == "absent":
                self._set_aside(entry["path"])
            elif entry["kind"] in ("file", "link") and os.path.lexists(self.tree.real(staged_name(entry["path"], NEW))):
                self._replace(entry["path"])
            elif entry["kind"] in ("file", "directory"):
                self._attributes(entry)
        self._flush()

    def _set_aside(self, path: str) -> None:
        real, kept = self.tree.real(path), self.tree.real(staged_name(path, OLD))
        if os.path.lexists(real):
            try:
                os.rename(real, kept)
            except OSError as error:
                # An overlay renames no directory of the layer below it, and a tree of overlays is thrown away.
                if error.errno != errno.EXDEV or not self.lenient:
                    raise
                shutil.rmtree(real)
                return
            self._back.append(lambda: os.rename(kept, real))
            self._kept.append(kept)
            self._directories.add(os.path.dirname(real))

    def _replace(self, path: str) -> None:
        real, kept = self.tree.real(path), self.tree.real(staged_name(path, OLD))
        staged = self.tree.real(staged_name(path, NEW))
        self._directories.add(os.path.dirname(real))
        if os.path.lexists(real):
            os.link(real, kept, follow_symlinks=False)
            self._kept.append(kept)
            self._back.append(lambda: _rename_or_drop(kept, real))
        else:
            self._back.append(lambda: _discard(real))
        os.replace(staged, real)

    def _attributes(self, entry: Entry) -> None:
        real = self.tree.real(entry["path"])
        uid, gid = self._owner(entry)
        status = os.lstat(real)
        before = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        if before == (uid, gid, int(entry["mode"], 8)):
            return
        self._back.append(lambda: _attribute(real, *before))
        _attribute(real, uid, gid, int(entry["mode"], 8))
        self._directories.add(real if stat.S_ISDIR(status.st_mode) else os.path.dirname(real))

    def _flush(self) -> None:
        for directory in sorted(self._directories):
            if os.path.isdir(directory):
                fsync_directory(directory)

    def commit(self) -> None:
        """Forget the way back."""
        self._back.clear()
        for kept in self._kept:
            _discard(kept)
        self._flush()

    def undo(self) -> None:
        """Restore what was, as far as it goes; the first error is raised after everything was tried."""
        first: BaseException | None = None
        while self._back:
            try:
                self._back.pop()()
            except OSError as error:
                first = first or error
        self._flush()
        if first is not None:
            raise first


def _attribute(path: str, uid: int, gid: int, mode: int) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)
    os.chmod(path, mode)


def _rename_or_drop(kept: str, real: str) -> None:
    """Put a kept name back; when both names are one file, rename does nothing and the kept one stays."""
    os.replace(kept, real)
    _discard(kept)


def _discard(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
