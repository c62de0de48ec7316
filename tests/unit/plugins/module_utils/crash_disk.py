# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a power cut leaves of a directory: a recorder of its file-system operations, and the states that a prefix of them can come to.

The model is weaker than ext4, and on purpose: an operation that no fsync has covered may be lost alone, be kept alone, or be torn, whatever came
before or after it. Content and mode of a file are safe after an fsync of the file, names after an fsync of their directory, all after `sync -f`.
A rename is one operation, and so is an exchange. Owners are not recorded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import random
import stat
import typing as t
from unittest import mock

FILE, DIRECTORY, LINK = "file", "directory", "link"

#: Functions of os that change names, contents or modes; shutil, tarfile and tempfile come down to these.
WATCHED = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "symlink", "link", "chmod", "fchmod", "truncate", "ftruncate")

ROOT = 0
Name = tuple[int, str]


@dataclasses.dataclass(frozen=True)
class Node:
    """A file, directory or link as it was born."""

    kind: str
    mode: int
    target: str = ""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One thing that happened, on the disk or in the database.

    :arg names: directory entries that it sets, or removes with None.
    :arg node: whose content or mode it changes, or what it brings to the disk.
    """

    kind: str
    what: str
    names: tuple[tuple[Name, int | None], ...] = ()
    node: int | None = None
    value: t.Any = None

    @property
    def losable(self) -> bool:
        """Whether a power cut may undo it."""
        return self.kind in ("name", "data", "mode")


@dataclasses.dataclass
class State:
    """What lies on a disk, and in a database whose commits are always kept."""

    names: dict[Name, int]
    data: dict[int, bytes]
    modes: dict[int, int]
    nodes: dict[int, Node]
    database: t.Any = None

    def copy(self) -> State:
        """Return one that may be changed; nodes never change."""
        return State(dict(self.names), dict(self.data), dict(self.modes), self.nodes, self.database)

    def apply(self, operation: Operation) -> None:
        """Let an operation happen."""
        for name, node in operation.names:
            if node is None:
                self.names.pop(name, None)
            else:
                self.names[name] = node
        if operation.kind == "data":
            self.data[t.cast(int, operation.node)] = operation.value
        elif operation.kind == "mode":
            self.modes[t.cast(int, operation.node)] = operation.value
        elif operation.kind == "database":
            self.database = operation.value

    def walk(self) -> t.Iterator[tuple[str, int]]:
        """Give the paths that can be reached, parents first, and what they lead to."""
        below: dict[int, list[tuple[str, int]]] = {}
        for (parent, name), node in self.names.items():
            below.setdefault(parent, []).append((name, node))
        todo, seen = [("", ROOT)], {ROOT}
        while todo:
            path, directory = todo.pop()
            for name, node in sorted(below.get(directory, ())):
                if self.nodes[node].kind == DIRECTORY:
                    if node in seen:
                        continue
                    seen.add(node)
                    todo.append((f"{path}/{name}", node))
                yield f"{path}/{name}", node

    def digest(self) -> str:
        """Name the state by its content."""
        total = hashlib.sha256(repr(self.database).encode())
        for path, node in sorted(self.walk()):
            born = self.nodes[node]
            total.update(repr((path, born.kind, born.target, self.modes.get(node, born.mode), self.data.get(node, b""))).encode())
        return total.hexdigest()

    def write(self, root: str) -> None:
        """Make a directory hold exactly this."""
        empty(root)
        made: dict[int, str] = {}
        modes = []
        for path, node in self.walk():
            full, born = root + path, self.nodes[node]
            mode = self.modes.get(node, born.mode)
            if born.kind == DIRECTORY:
                os.mkdir(full)
                modes.append((full, mode))
            elif node in made:
                os.link(made[node], full, follow_symlinks=False)
            elif born.kind == LINK:
                os.symlink(born.target, full)
            else:
                with open(full, "wb") as stream:
                    stream.write(self.data.get(node, b""))
                os.chmod(full, mode)
            made.setdefault(node, full)
        for full, mode in modes:
            os.chmod(full, mode)


def empty(root: str) -> None:
    """Remove all below a directory."""
    for entry in list(os.scandir(root)):
        if entry.is_dir(follow_symlinks=False):
            empty(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)


class Recorder:
    """Writes down what happens below a directory, by looking at it before and after each call that changes something.

    What is written without such a call (the bytes of an open file) is seen at the next one, and before every fsync.
    """

    def __init__(self, root: str, database: t.Callable[[], t.Any]) -> None:
        self.root = root
        self.database = database
        self.operations: list[Operation] = []
        self.numbers = itertools.count(1)
        self.ids: dict[tuple[int, int], int] = {}
        self.stamps: dict[int, tuple[int, ...]] = {}
        self.now = State({}, {}, {}, {ROOT: Node(DIRECTORY, 0o755)}, database())
        self.paths: dict[int, str] = {ROOT: ""}
        self.busy = False
        self.look()
        self.base = self.now.copy()
        self.operations.clear()

    @contextlib.contextmanager
    def watching(self) -> t.Iterator[Recorder]:
        """Record while the block runs."""
        with contextlib.ExitStack() as stack:
            for name in WATCHED:
                stack.enter_context(mock.patch.object(os, name, self._watched(getattr(os, name))))
            stack.enter_context(mock.patch.object(os, "fsync", self._fsync))
            yield self
            self.look()

    def _watched(self, function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*args: t.Any, **options: t.Any) -> t.Any:
            self.look()
            try:
                return function(*args, **options)
            finally:
                self.look()

        return call

    def _fsync(self, handle: int) -> None:
        """Bringing tmpfs to the disk takes no time and does nothing, so only the wish is written down."""
        self.look()
        found = os.fstat(handle)
        node = self.ids.get((found.st_dev, found.st_ino))
        if node is not None:
            self.operations.append(Operation("sync", self.paths.get(node, "?"), node=node))

    def sync_all(self) -> None:
        """Write down that all is on the disk now."""
        self.look()
        self.operations.append(Operation("sync", "everything"))

    def committed(self) -> None:
        """Write down that the database has committed something."""
        self.look()
        value = self.database()
        if value != self.now.database:
            self._add(Operation("database", f"commit {value}", value=value))

    def _add(self, operation: Operation) -> None:
        self.operations.append(operation)
        self.now.apply(operation)

    def look(self) -> None:
        """Compare the directory with what it was, and write down the differences in an order in which they can have happened."""
        if self.busy:
            return
        self.busy = True
        try:
            self._compare()
        finally:
            self.busy = False

    def _compare(self) -> None:
        names: dict[Name, int] = {}
        contents: dict[int, tuple[str, os.stat_result]] = {}
        todo = [(self.root, ROOT)]
        paths = {ROOT: ""}
        found = os.stat(self.root)
        self.ids[(found.st_dev, found.st_ino)] = ROOT
        while todo:
            directory, number = todo.pop()
            for entry in sorted(os.scandir(directory), key=lambda one: one.name):
                status = entry.stat(follow_symlinks=False)
                key = (status.st_dev, status.st_ino)
                node = self.ids.get(key)
                if node is None:
                    node = self.ids[key] = next(self.numbers)
                    self.now.nodes[node] = self._born(entry, status)
                names[(number, entry.name)] = node
                paths.setdefault(node, f"{paths[number]}/{entry.name}")
                if entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, node))
                contents[node] = (entry.path, status)
        self._tell_names(names, paths)
        self._tell_contents(contents, paths)
        gone = set(self.paths) - set(paths)
        if gone:
            self.ids = {key: node for key, node in self.ids.items() if node not in gone}
        self.paths = paths

    @staticmethod
    def _born(entry: os.DirEntry[str], status: os.stat_result) -> Node:
        mode = stat.S_IMODE(status.st_mode)
        if entry.is_symlink():
            return Node(LINK, mode, os.readlink(entry.path))
        return Node(DIRECTORY if entry.is_dir() else FILE, mode)

    def _tell_names(self, names: dict[Name, int], paths: dict[int, str]) -> None:
        before = self.now.names
        added = {name: node for name, node in names.items() if before.get(name) != node}
        removed = {name: node for name, node in before.items() if name not in names}
        for name, node in list(added.items()):
            other = next((one for one, its in added.items() if before.get(one) == node and its == before.get(name)), None)
            if other is not None and name in added:
                self._add(Operation("name", f"exchange {paths[node]} and {paths[added[other]]}", names=((name, node), (other, added[other]))))
                del added[name], added[other]
        for name, node in added.items():
            source = next((old for old, its in removed.items() if its == node), None)
            if source is None:
                self._add(Operation("name", f"create {paths[node]}", names=((name, node),)))
            else:
                del removed[source]
                self._add(Operation("name", f"rename {self.paths.get(node, '?')} to {paths[node]}", names=((source, None), (name, node))))
        for name, node in reversed(list(removed.items())):
            self._add(Operation("name", f"remove {self.paths.get(node, '?')}", names=((name, None),)))

    def _tell_contents(self, contents: dict[int, tuple[str, os.stat_result]], paths: dict[int, str]) -> None:
        for node, (path, status) in contents.items():
            born = self.now.nodes[node]
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode)
            if born.kind == LINK or self.stamps.get(node) == stamp:
                continue
            self.stamps[node] = stamp
            mode = stat.S_IMODE(status.st_mode)
            if self.now.modes.get(node, born.mode) != mode:
                self._add(Operation("mode", f"mode of {paths[node]}", node=node, value=mode))
            if born.kind == FILE:
                with open(path, "rb") as stream:
                    content = stream.read()
                if self.now.data.get(node, b"") != content:
                    self._add(Operation("data", f"content of {paths[node]}", node=node, value=content))


class Crash(t.NamedTuple):
    """A power cut: how many operations had been done, which of them did not reach the disk, and which did in part."""

    done: int
    lost: frozenset[int] = frozenset()
    torn: tuple[tuple[int, int], ...] = ()

    def told(self, operations: t.Sequence[Operation]) -> str:
        """Describe it."""
        last = operations[self.done - 1].what if self.done else "nothing"
        lost = "; ".join(operations[number].what for number in sorted(self.lost)[:8])
        torn = "; ".join(f"{operations[number].what} to {size} bytes" for number, size in self.torn[:8])
        return f"after {self.done} operations (last: {last}), lost: {lost or 'none'}, torn: {torn or 'none'}"


def pending(operations: t.Sequence[Operation], done: int) -> list[int]:
    """Return the operations that no sync has brought to the disk."""
    waiting: list[int] = []
    for number, operation in enumerate(operations[:done]):
        if operation.losable:
            waiting.append(number)
        elif operation.kind == "sync":
            waiting = [] if operation.node is None else [one for one in waiting if not _covered(operations[one], operation.node)]
    return waiting


def _covered(operation: Operation, node: int) -> bool:
    if operation.kind == "name":
        return any(parent == node for (parent, _name), _node in operation.names)
    return operation.node == node


def crashes(operations: t.Sequence[Operation], generator: random.Random, *, subsets: int = 2) -> t.Iterator[Crash]:
    """Give the power cuts after every operation: nothing lost, all lost, each alone lost, kept and torn, all contents torn, and some mixtures."""
    for done in range(len(operations) + 1):
        waiting = pending(operations, done)
        whole = frozenset(waiting)
        contents = [number for number in waiting if operations[number].kind == "data"]
        yield Crash(done)
        yield Crash(done, whole)
        yield Crash(done, torn=tuple((number, 0) for number in contents))
        for number in waiting:
            yield Crash(done, frozenset({number}))
            yield Crash(done, whole - {number})
        for number in contents:
            yield Crash(done, torn=((number, 0),))
            yield Crash(done, torn=((number, len(operations[number].value) // 2),))
        for _index in range(subsets if len(waiting) > 2 else 0):
            lost = frozenset(number for number in waiting if generator.random() < 0.5)
            yield Crash(done, lost, tuple((number, 0) for number in contents if number not in lost and generator.random() < 0.5))


def prefixes(base: State, operations: t.Sequence[Operation]) -> list[State]:
    """Return the states before each operation and after the last one, nothing lost."""
    states = [base.copy()]
    for operation in operations:
        states.append(states[-1].copy())
        states[-1].apply(operation)
    return states


def after(states: t.Sequence[State], operations: t.Sequence[Operation], crash: Crash) -> State:
    """Return what a power cut leaves.

    :arg states: what prefixes() gave.
    """
    torn = dict(crash.torn)
    first = min({crash.done, *crash.lost, *torn})
    state = states[first].copy()
    for number in range(first, crash.done):
        operation = operations[number]
        if number in torn:
            operation = dataclasses.replace(operation, value=operation.value[: torn[number]])
        if number not in crash.lost:
            state.apply(operation)
    return state
