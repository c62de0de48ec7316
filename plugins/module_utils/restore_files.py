# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring back uploads and Redis from a snapshot: fetched beside what is there, exchanged for it, and what was there is kept."""

from __future__ import annotations

import os
import pwd
import typing as t

from . import backup_run, restore_plan
from .app import Log
from .backup_settings import FILES, Redis, Settings
from .errors import AnchorageError
from .layout import STATE
from .restore_journal import DIRECTORY, RestoreJournal
from .restore_plan import Chosen, Wish, ago, told
from .restore_source import choose_snapshot, fetch_file
from .room import MIB
from .world import World, fsync_directory

#: What is the host's own and no app's: recover.yml and provision.yml bring it, since a running host must not change under its own feet.
OWN = ("/etc/", f"{STATE}/")

#: What deploy.yml makes again.
BUILT = "/releases"

#: Enters an instance as its administrator.
REDIS = "/usr/local/lib/anchorage/redis-instance"

WORK = f"{DIRECTORY}/restore-redis"

Data = dict[str, t.Any]


class Tree(t.NamedTuple):
    """A directory on its way back."""

    path: str
    #: Where the snapshot is fetched to: on the same file system, so that two names can be exchanged.
    staging: str
    aside: str

    @property
    def coming(self) -> str:
        """The fetched directory."""
        return f"{self.staging}{self.path}"


def differences(present: str, coming: str) -> tuple[int, int, int]:
    """Return how many files only the present directory has, differ in size or time, and only the snapshot has."""
    here, there = _files(present), _files(coming)
    return len(here.keys() - there.keys()), sum(here[name] != there[name] for name in here.keys() & there.keys()), len(there.keys() - here.keys())


def _files(top: str) -> dict[str, tuple[int, int]]:
    found = {}
    for directory, _directories, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            entry = os.lstat(path)
            found[os.path.relpath(path, top)] = (entry.st_size, int(entry.st_mtime))
    return found


class FilesRestore:
    """The restore of uploads and Redis."""

    def __init__(self, settings: Settings, world: World, log: Log, journal: RestoreJournal) -> None:
        self.settings = settings
        self.world = world
        self.log = log
        self.journal = journal
        self.wish = t.cast(Wish, journal.wish)
        self.redis = [redis for redis in settings.redis if self.wish.app in (None, redis.app, redis.name)]
        self._chosen: Chosen | None = None

    @property
    def apps(self) -> list[str]:
        """The apps whose files these are."""
        known = [self.wish.app] if self.wish.app else [database.app for database in self.settings.databases]
        return [app for app in [*known, *(redis.app for redis in self.redis)] if app]

    @property
    def paths(self) -> list[str]:
        """The directories that come back."""
        found = []
        for pattern in self.settings.paths:
            if pattern.startswith(OWN) or pattern.endswith(BUILT):
                continue
            for path in self.world.glob(pattern) or ([pattern] if not any(letter in pattern for letter in "*?[") else []):
                if self.wish.app is None or f"/{self.wish.app}/" in f"{path}/":
                    found.append(path.rstrip("/"))
        return list(dict.fromkeys(found))

    @property
    def trees(self) -> list[Tree]:
        """The same, with the places that they need."""
        return [Tree(path, f"{os.path.dirname(path)}/.anchorage-restored-{os.path.basename(path)}", f"{path}.before-{self.journal.id}") for path in self.paths]

    @property
    def is_exchanged(self) -> bool:
        """Whether all of it is back."""
        return self.journal.has("exchanged files")

    @property
    def costs_data(self) -> list[str]:
        """What holds anything now."""
        return [
            *(tree.path for tree in self.trees if self.world.listdir(tree.path)),
            *(redis.name for redis in self.redis if self.world.listdir(redis.directory)),
        ]

    def check(self) -> None:
        """Refuse what cannot be done here."""
        if not self.paths and not self.redis:
            raise AnchorageError(
                f"Nothing of {self.wish.app or 'any app'} is among the files that are backed up.", what="restore", next_step="See: anchorage backup list"
            )
        if self.wish.how == restore_plan.POINT:
            raise AnchorageError("A restore point holds a database, and no files.", what="restore", next_step="Take --time or --backup.")

    def make_ready(self, go_on: t.Callable[[], None]) -> None:
        """Fetch it beside what is there, and count what would be lost."""
        if not self.journal.has("files ready"):
            chosen = self._choose()
            self.log.say(f"files: {chosen}, of {told(chosen.at)}, {ago(max(0.0, self.world.now() - (chosen.at or 0)))} ago")
            plan = [self._fetch(chosen, tree) for tree in self.trees] + [self._fetch_redis(chosen, redis) for redis in self.redis]
            self.journal.note(plan=[{"from": str(chosen), "at": chosen.at, "files": plan}])
        try:
            go_on()
        except BaseException:
            self._discard()
            raise
        self.journal.mark("files ready")

    def _choose(self) -> Chosen:
        self._chosen = self._chosen or choose_snapshot(self.settings, self.world, self.wish)
        return self._chosen

    def _fetch(self, chosen: Chosen, tree: Tree) -> Data:
        self._clear(tree.staging)
        self.world.make_directory(tree.staging, mode=0o700)
        target = self.settings.target(chosen.target, FILES)
        words = ["restore", chosen.backup, "--target", tree.staging, "--include", tree.path]
        done = backup_run.restic(self.settings, self.world, target, *words, timeout=float(self.settings.timeouts["files_seconds"]))
        if done.rc != 0:
            raise AnchorageError(
                f"{tree.path} could not be had from {chosen}: {backup_run.restic_said(done)}.",
                what="restore",
                next_step="Take another backup or target: anchorage backup list",
            )
        if not self.world.exists(tree.coming):
            self.log.say(f"files: {tree.path} is not in the snapshot, and stays as it is")
            return {"path": tree.path, "missing": True}
        self._settle_owner(tree)
        only_here, changed, only_there = differences(tree.path, tree.coming)
        self.log.say(f"files: {tree.path}: {only_here} files that only the present has, {changed} that go back to what they were, {only_there} that come back")
        return {"path": tree.path, "only_live": only_here, "changed": changed, "only_restored": only_there, "aside": tree.aside}

    def _settle_owner(self, tree: Tree) -> None:
        """Give the files to the app's user of today: on another host it has another number."""
        owner = os.lstat(tree.coming)
        for app in self.apps:
            if f"/{app}/" not in f"{tree.path}/":
                continue
            try:
                user = pwd.getpwnam(app)
            except KeyError:
                continue
            if owner.st_uid not in (0, user.pw_uid):
                self._must("chown", "-hR", f"--from={owner.st_uid}", f"{user.pw_uid}", tree.coming)
            if owner.st_gid not in (0, user.pw_gid):
                self._must("chown", "-hR", f"--from=:{owner.st_gid}", f":{user.pw_gid}", tree.coming)

    def _fetch_redis(self, chosen: Chosen, redis: Redis) -> Data:
        self.world.make_directory(WORK, mode=0o700)
        path = f"{WORK}/{redis.name}.rdb"
        try:
            fetch_file(self.settings, self.world, chosen, f"{backup_run.STAGE}/redis/{redis.name}.rdb", path)
        except AnchorageError as error:
            if self.wish.app:
                raise
            self.log.say(f"redis {redis.name} stays as it is: {error.message}")
            return {"redis": redis.name, "missing": True}
        if not self.world.read_part(path, 0, 5) == b"REDIS":
            raise AnchorageError(
                f"What {chosen} has of Redis {redis.name} is no snapshot of Redis.", what="restore", next_step="Take another backup: anchorage backup list"
            )
        present = self._keys(redis)
        self.log.say(
            f"redis {redis.name}: a snapshot of {self.world.size(path) / MIB:.1f} MiB; now {'it does not answer' if present is None else f'{present} keys'}"
        )
        return {"redis": redis.name, "bytes": self.world.size(path), "keys_now": present}

    def _keys(self, redis: Redis) -> int | None:
        """Return how many keys an instance has in all its databases; None where it does not answer."""
        done = self.world.run([REDIS, redis.name, "cli", "INFO", "keyspace"], timeout=30)
        if done.rc != 0:
            return None
        return sum(int(line.partition("keys=")[2].partition(",")[0]) for line in done.stdout.splitlines() if line.startswith("db"))

    def exchange(self) -> None:
        """Let what was fetched take the place of what is there."""
        if self.is_exchanged:
            return
        for tree in self.trees:
            self._exchange(tree)
        for redis in self.redis:
            self._exchange_redis(redis)
        self._clear(WORK)
        self.journal.mark("exchanged files")

    def _exchange(self, tree: Tree) -> None:
        # Each state tells what is still to be done: the fetched directory is there until it has its place.
        if self.world.exists(tree.coming):
            if self.world.exists(tree.path):
                self.journal.set_aside("directory", tree.aside, tree.path)
                os.rename(tree.path, tree.aside)
            os.rename(tree.coming, tree.path)
            fsync_directory(os.path.dirname(tree.path))
            self.log.say(f"files: {tree.path} is back" + (f"; what was there is in {tree.aside}" if self.world.exists(tree.aside) else ""))
        self._clear(tree.staging)

    def _exchange_redis(self, redis: Redis) -> None:
        path, aside = f"{WORK}/{redis.name}.rdb", f"{redis.directory}.before-{self.journal.id}"
        if not self.world.exists(path):
            return
        self.log.say(f"redis {redis.name}: stop, exchange, start")
        self.world.run(["systemctl", "stop", redis.unit], timeout=300)
        if not self.journal.has(f"aside {redis.name}"):
            if self.world.listdir(redis.directory) and not self.world.exists(aside):
                self.journal.set_aside("directory", aside, redis.directory)
                os.rename(redis.directory, aside)
            self.journal.mark(f"aside {redis.name}")
        self._must("install", "-d", "--owner=redis", "--group=redis", "--mode=0750", redis.directory)
        self._must("install", "--owner=redis", "--group=redis", "--mode=0640", path, f"{redis.directory}/dump.rdb")
        fsync_directory(redis.directory)
        self._must("systemctl", "start", redis.unit)
        self.world.remove(path)

    def _must(self, *argv: str) -> None:
        done = self.world.run(argv, timeout=300)
        if done.rc != 0:
            raise AnchorageError(
                f"'{' '.join(argv[:2])}' failed: {done.stderr.strip()[:300]}", what="restore", next_step="Mend the cause, then: anchorage restore --resume"
            )

    def verify(self) -> None:
        """See that Redis answers with what the snapshot had."""
        for redis in self.redis:
            end = self.world.monotonic() + 60
            keys = self._keys(redis)
            while keys is None and self.world.monotonic() < end:
                self.world.sleep(0.5)
                keys = self._keys(redis)
            if keys is None:
                raise AnchorageError(f"Redis {redis.name} does not answer with the restored data.", what="verifying", next_step=f"journalctl -u {redis.unit}")
            self.log.say(f"redis {redis.name}: {keys} keys")

    def go_back(self) -> None:
        """What was fetched goes; what was exchanged already stays so, and what it replaced is aside."""
        for tree in self.trees:
            if not self.world.exists(tree.path) and self.world.exists(tree.aside):
                os.rename(tree.aside, tree.path)
        self._discard()

    def _discard(self) -> None:
        for tree in self.trees:
            self._clear(tree.staging)
        self._clear(WORK)

    def _clear(self, path: str) -> None:
        self.world.run(["rm", "-rf", "--one-file-system", "--", path], timeout=3600)
