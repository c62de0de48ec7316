# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty host takes the place of one that is lost: what must be there before anything is provisioned, and how far that came.

Secrets come first: provisioning makes those that are missing, and new ones would fit neither the data nor the visitors' sessions.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import typing as t

from . import backup_keys, backup_run, backup_settings, restore_plan, restore_source
from .app import Log
from .backup_settings import DATABASE, FILES, Settings
from .errors import AnchorageError
from .layout import DOCUMENTS, SECRETS
from .restore_journal import DIRECTORY
from .restore_plan import LATEST, Wish, told
from .world import World

SCHEMA = 1
PATH = f"{DIRECTORY}/recovery.json"
STAGE = f"{DIRECTORY}/recovered"

#: The key is given by whoever recovers, and is in no backup.
KEY = f"{SECRETS}/backup.json"
CLUSTERS = "/var/lib/postgresql"

#: What provisioning makes itself, out of the contract.
MADE = "/etc/anchorage"

Data = dict[str, t.Any]


def read(world: World) -> Data:
    """Return how far the recovery of this host came; nothing where none was begun."""
    raw = world.read(PATH)
    try:
        return t.cast("Data", json.loads(raw)) if raw else {}
    except ValueError as error:
        raise AnchorageError(f"{PATH} is damaged: {error}.", next_step=f"If this host is being recovered, remove {PATH} and empty the host again.") from error


def _write(world: World, data: Data) -> Data:
    world.make_directory(DIRECTORY, mode=0o711)
    world.write_atomic(PATH, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode(), mode=0o600)
    return data


def holds(world: World) -> list[str]:
    """Return what on this host says that it is not empty."""
    found = [f"{DOCUMENTS}/{name}" for name in world.listdir(DOCUMENTS) if name.endswith(".json")]
    found += [f"{SECRETS}/{name}" for name in world.listdir(SECRETS) if f"{SECRETS}/{name}" != KEY]
    found += [f"{CLUSTERS}/{version}/{name}" for version in world.listdir(CLUSTERS) if version.isdigit() for name in world.listdir(f"{CLUSTERS}/{version}")]
    return found


def begin(world: World, *, key: str = "", check: bool = False) -> Data:
    """Begin a recovery, or go on with the one that was begun. Returns how far it came.

    :arg key: the key of the backups. One that an earlier run was given, and that opened nothing, is forgotten.
    :raises AnchorageError: when the host is not empty, and its recovery was not begun.
    """
    data = read(world)
    if data and not data.get("finished_at"):
        if key and not check and "secrets" not in data["done"] and json.loads(world.read(KEY) or b"{}").get("key") != key:
            world.remove(KEY)
        return data
    found = holds(world)
    if found:
        since = f" It was recovered at {told(data['finished_at'])}." if data else ""
        raise AnchorageError(
            f"This host has data or secrets ({', '.join(found[:4])}{' …' if len(found) > 4 else ''}), so it is not recovered.{since}",
            what="recovery",
            live="what was live before; nothing was touched",
            next_step="To bring back data of a host that lives: restore.yml. To recover it from nothing all the same, take an empty host.",
        )
    return {"done": []} if check else _write(world, {"schema": SCHEMA, "begun_at": world.now(), "finished_at": None, "done": []})


def mark(world: World, step: str) -> bool:
    """Say that a step of the recovery is done. Returns whether that is news."""
    data = read(world)
    if not data or data.get("finished_at") or step in data["done"]:
        return False
    data["done"].append(step)
    _write(world, data)
    return True


def finish(world: World) -> Data:
    """Say that the host serves. Returns how long it took, in C(seconds)."""
    data = read(world)
    if data and not data.get("finished_at"):
        data["finished_at"] = world.now()
        data["seconds"] = round(data["finished_at"] - data["begun_at"], 1)
        _write(world, data)
    return data


def place(world: World, log: Log) -> Settings:
    """Find the repositories that the key opens, and remember where they are. Returns the settings.

    A key that was made by a rotation has them at a place that follows from it; a host's first one has them where names have nothing behind them.
    """
    ring = backup_keys.read(world)
    if ring.place:
        return backup_settings.rewrite(world, ring)
    derived = dataclasses.replace(ring, place=backup_keys.place_of(ring.key))
    settings = backup_settings.Settings.parse({**json.loads(world.read(backup_settings.SETTINGS) or b"{}"), "keys": derived.told}, derived)
    for target in settings.for_job(FILES):
        if backup_run.restic(settings, world, target, "cat", "config", timeout=120).rc == 0 and not backup_run.single(settings, world, target):
            log.say(f"{target.name}: the key opens {target.directory(FILES)}")
            # The key first: what the role writes follows from it.
            backup_keys.write(world, derived)
            return backup_settings.rewrite(world, derived)
    return backup_settings.load(world)


def early(settings: Settings) -> list[str]:
    """Return the paths that must be there before anything is provisioned: secrets, and keys of certificates."""
    return [SECRETS, *(path for path in settings.paths if path.startswith("/etc/") and path.rstrip("/") != MADE)]


def fetch(settings: Settings, world: World, log: Log, wish: Wish) -> list[str]:
    """Bring secrets and certificates from the newest snapshot. What is there already stays, and must be the same. Returns what came.

    :raises AnchorageError: when the snapshot has no secrets, or the host has others.
    """
    chosen = restore_source.choose_snapshot(settings, world, wish)
    log.say(f"secrets: {chosen}, of {told(chosen.at)}")
    target = settings.target(chosen.target, FILES)
    world.remove_tree(STAGE)
    world.make_directory(STAGE, mode=0o700)
    try:
        includes = [word for path in early(settings) for word in ("--include", path)]
        done = backup_run.restic(settings, world, target, "restore", chosen.backup, "--target", STAGE, *includes, timeout=1800)
        if done.rc != 0:
            raise AnchorageError(f"Secrets could not be had from {chosen}: {backup_run.restic_said(done)}.", what="recovery")
        if not world.listdir(f"{STAGE}{SECRETS}"):
            raise AnchorageError(
                f"{chosen} holds no secrets ({SECRETS}).", what="recovery", next_step="Take another target (-e target=NAME) or moment (-e time='…')."
            )
        entries = list(_entries(STAGE))
        differing = [path for path, source in entries if _differs(path, source)]
        if differing:
            raise AnchorageError(
                f"This host has another {', '.join(differing[:5])} than the backup, so nothing was put over it.",
                what="recovery",
                next_step="Look whether this is the right host; to take those of the backup, move these away and run recover.yml again.",
            )
        came = [path for path, source in entries if _place(world, path, source)]
    finally:
        world.remove_tree(STAGE)
    log.say(f"secrets: {len(came)} files came, {len(entries) - len(came)} were there already")
    return came


def _entries(top: str) -> t.Iterator[tuple[str, str]]:
    """Return where each thing in a directory belongs, and where it is; a directory before what is in it."""
    for directory, directories, names in os.walk(top):
        for name in sorted([*directories, *names]):
            source = os.path.join(directory, name)
            yield source[len(top) :], source


def _differs(path: str, source: str) -> bool:
    if not os.path.lexists(path):
        return False
    here, there = os.lstat(path), os.lstat(source)
    if stat.S_IFMT(here.st_mode) != stat.S_IFMT(there.st_mode):
        return True
    if stat.S_ISLNK(here.st_mode):
        return os.readlink(path) != os.readlink(source)
    if not stat.S_ISREG(here.st_mode):
        return False
    with open(path, "rb") as ours, open(source, "rb") as theirs:
        return ours.read() != theirs.read()


def _place(world: World, path: str, source: str) -> bool:
    """Put one thing where it belongs, whole or not at all. Returns whether it was missing."""
    if os.path.lexists(path):
        return False
    entry = os.lstat(source)
    if stat.S_ISLNK(entry.st_mode):
        os.symlink(os.readlink(source), path)
    elif stat.S_ISDIR(entry.st_mode):
        os.mkdir(path, stat.S_IMODE(entry.st_mode))
        os.chown(path, entry.st_uid, entry.st_gid)
    elif stat.S_ISREG(entry.st_mode):
        with open(source, "rb") as stream:
            world.write_atomic(path, stream.read(), mode=stat.S_IMODE(entry.st_mode), uid=entry.st_uid, gid=entry.st_gid)
    return True


def own(settings: Settings, world: World) -> None:
    """Give repositories that lie on this host to its own postgres: on the lost host, that user had another number."""
    for target in settings.readable(DATABASE):
        path = f"{target.path}/{target.directory(DATABASE)}"
        if not target.away and world.exists(path):
            done = world.run(["chown", "-hR", "postgres:postgres", path], timeout=3600)
            if done.rc != 0:
                raise AnchorageError(f"{path} could not be given to postgres: {done.stderr.strip()[:300]}", what="recovery")


def sources(settings: Settings, world: World, wish: Wish) -> str:
    """Return where the databases of a lost host come from: C(cluster), C(dumps), or C(none) where it has none of its own.

    :raises AnchorageError: when neither is anywhere.
    """
    if not [database for database in settings.databases if not database.url]:
        return "none"
    archived = [target.name for target in settings.readable(DATABASE) if wish.target in (None, target.name)]
    if settings.archive is not None and archived:
        found = restore_source.archives(settings, world, wish)
        try:
            restore_plan.from_archive(found, wish)
            return "cluster"
        except AnchorageError:
            if not any(settings.dumped(target) for target in settings.for_job(FILES)):
                raise
    restore_source.choose_snapshot(settings, world, wish)
    return "dumps"


def wish(value: str | None, target: str | None, now: float) -> Wish:
    """Return what a recovery wants: the newest, or what was there at a time."""
    how = restore_plan.TIME if value else LATEST
    return Wish(restore_plan.CLUSTER, None, how, restore_plan.read_time(value, now) if value else None, target)
