# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where what is restored comes from: the targets are asked what they have, and a file of a snapshot is fetched."""

from __future__ import annotations

import json
import re
import socket
import typing as t

from . import backup_run, restore_plan, scratch_cluster
from .app import App
from .backup_settings import ARCHIVE, DATABASE, FILES, Settings, Target
from .errors import AnchorageError
from .restore_plan import Chosen, Wish
from .world import World

#: What pgBackRest calls a backup; everything else names a snapshot of restic.
LABEL = re.compile(r"\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?")

Data = dict[str, t.Any]


def choose(settings: Settings, world: World, wish: Wish, wanted: t.Any) -> Chosen:
    """Return the backup that gives a database as it is wanted.

    :arg wanted: what the settings say of the database.
    :raises AnchorageError: when there is none.
    """
    if wish.how == restore_plan.POINT:
        return restore_plan.from_points(App(wanted.app, world).journal.restore_points(), wish)
    if wanted.method == ARCHIVE and not _is_snapshot(settings, wish):
        try:
            return restore_plan.from_archive(archives(settings, world, wish), wish)
        except AnchorageError:
            # The archive may be gone with the host that it lay on, while dumps went elsewhere.
            if wish.how == restore_plan.BACKUP or wish.target or not any(settings.dumped(target) for target in settings.for_job(FILES)):
                raise
    return choose_snapshot(settings, world, wish)


def choose_snapshot(settings: Settings, world: World, wish: Wish) -> Chosen:
    """Return the snapshot that fulfils a wish."""
    return restore_plan.from_snapshots(snapshots(settings, world, wish), wish, socket.gethostname())


def _is_snapshot(settings: Settings, wish: Wish) -> bool:
    """Tell whether a dump is wanted of a database whose WAL is archived: by the snapshot's id, or because the archive does not go to the target."""
    if wish.how == restore_plan.BACKUP:
        return LABEL.fullmatch(t.cast(str, wish.value)) is None
    return wish.target is not None and all(target.name != wish.target for target in settings.readable(DATABASE))


def asked(settings: Settings, job: str, wish: Wish) -> list[Target]:
    """Return the targets that may have what is wanted.

    What a former key made holds nothing since it was left. So unless it is named it is asked for a time before, or for a backup, and never for the newest:
    where no other target answers, old data would be taken for new ones.
    """
    if wish.target:
        return [settings.target(wish.target, job)]
    moment = wish.moment
    return [
        target
        for target in settings.readable(job)
        if target.left is None or wish.how == restore_plan.BACKUP or (moment is not None and moment.timestamp() <= target.left)
    ]


def archives(settings: Settings, world: World, wish: Wish) -> dict[str, Data | AnchorageError]:
    """Return what each target has of the cluster."""
    found: dict[str, Data | AnchorageError] = {}
    for target in asked(settings, DATABASE, wish):
        try:
            found[target.name] = scratch_cluster.backups(world, settings, target)
        except AnchorageError as error:
            found[target.name] = error
    return found


def snapshots(settings: Settings, world: World, wish: Wish) -> dict[str, list[Data] | AnchorageError]:
    """Return the snapshots that each target has."""
    found: dict[str, list[Data] | AnchorageError] = {}
    for target in asked(settings, FILES, wish):
        done = backup_run.restic(settings, world, target, "snapshots", "--json", f"--tag={FILES}", timeout=300)
        try:
            if done.rc != 0:
                raise ValueError(backup_run.restic_said(done))
            found[target.name] = json.loads(done.stdout) or []
        except ValueError as error:
            found[target.name] = AnchorageError(f"it cannot be read: {error}")
    return found


def fetch_file(settings: Settings, world: World, chosen: Chosen, source: str, path: str, *, seconds: float = 14400) -> None:
    """Put one file of a snapshot at a path.

    :raises AnchorageError: when it is not in the snapshot, or does not come whole.
    """
    target = settings.target(chosen.target, FILES)
    argv, environment = settings.restic(target)
    # restic writes it to standard output, and a dump may be larger than the memory.
    done = world.run(["sh", "-c", 'exec "$@" > "$0"', path, *argv, "dump", chosen.backup, source], env=environment, cwd="/", timeout=seconds)
    if done.rc != 0 or not world.size(path):
        world.remove(path)
        raise AnchorageError(
            f"{source} could not be had from {chosen}: {backup_run.restic_said(done)}.",
            what="fetching from the backup",
            next_step="Take another backup, or another target: anchorage backup list",
        )
