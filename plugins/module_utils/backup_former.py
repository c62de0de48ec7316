# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a former key has saved is removed when its time has come, and the key forgotten: by a run of the job that has saved since, and by a good clock."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from . import backup_keys, backup_run, backup_settings, secret_store
from .app import Log
from .backup_settings import DATABASE, LOCAL, SPOOL, Settings, Target, wal_file
from .errors import AnchorageError
from .world import World

#: Where pgBackRest is told that an old stanza is stopped, so that it may be deleted; the place that others look at stays as it is.
LOCKS = f"{SPOOL}/former"


def remove(settings: Settings, world: World, log: Log, job: str) -> None:
    """Remove what former keys have saved of a job, as far as its time has come. What cannot be removed now is tried again by the next run."""
    over = [target for target in settings.readable(job) if target.former and target.until is not None and target.until <= world.now()]
    if not over:
        return
    done = []
    with backup_run.lock(world, job, seconds=60):
        for target in over:
            try:
                _remove(settings, world, log, job, target)
                done.append(target)
            except AnchorageError as error:
                log.say(f"{target.name}: {error.text()}")
    with secret_store.alone():
        _forget(settings, world, log, job, done)


def _remove(settings: Settings, world: World, log: Log, job: str, target: Target) -> None:
    if target.append_only:
        log.say(
            f"{target.name}: its time has come. This host may not remove there: on {target.host}, below what its forced command serves, remove"
            f" {'/'.join(part for part in (target.path.strip('/'), target.directory(job)) if part)}"
        )
        return
    if target.type == LOCAL:
        _remove_here(settings, world, job, target)
    elif job == DATABASE:
        _remove_stanza(settings, world, target)
    else:
        _remove_snapshots(settings, world, job, target)
    log.say(f"{target.name}: what the former key has saved of {job} is removed")


def _remove_here(settings: Settings, world: World, job: str, target: Target) -> None:
    path = f"{target.path}/{target.directory(job)}"
    if path in [f"{one.path}/{one.directory(job)}" for one in settings.for_job(job)]:
        raise AnchorageError(f"{path} is in use.", what="removal of former backups")
    done = world.run(["rm", "-rf", "--one-file-system", "--", path], timeout=3600)
    if done.rc != 0 or world.exists(path):
        raise AnchorageError(f"{path} could not be removed: {done.stderr.strip()[:300] or done.rc}", what="removal of former backups")


def _remove_stanza(settings: Settings, world: World, target: Target) -> None:
    """Let pgBackRest empty a repository at a store."""
    limit = float(settings.timeouts["database_seconds"])
    for words in (["stop"], ["--force", "stanza-delete"]):
        repository = [f"--repo={settings.pgbackrest_repo(target)}"] if words[-1] == "stanza-delete" else []
        argv = ["pgbackrest", f"--stanza={settings.cluster.stanza}", f"--lock-path={LOCKS}", *repository, *words]
        done = world.run(argv, env=backup_run.ENVIRONMENT, timeout=limit, cwd="/", user="postgres")
        if done.rc != 0:
            raise AnchorageError(f"pgBackRest could not empty {target.name}: {(done.stderr or done.stdout).strip()[:300]}", what="removal of former backups")
    world.remove_tree(LOCKS)


def _remove_snapshots(settings: Settings, world: World, job: str, target: Target) -> None:
    """Let restic empty a repository at a store: nothing is left but its own key, which opens nothing any more."""
    limit = float(settings.timeouts["files_seconds"])
    listed = backup_run.restic(settings, world, target, "snapshots", "--json", timeout=300, job=job)
    try:
        known = [one["id"] for one in json.loads(listed.stdout or "[]") or []] if listed.rc == 0 else None
    except (ValueError, LookupError, TypeError):
        known = None
    if known is None:
        raise AnchorageError(f"{target.name} could not be listed: {backup_run.restic_said(listed)}", what="removal of former backups")
    done = backup_run.restic(settings, world, target, "forget", "--prune", *known, timeout=limit, job=job) if known else listed
    if done.rc != 0:
        raise AnchorageError(f"restic could not empty {target.name}: {backup_run.restic_said(done)}", what="removal of former backups")


def _forget(settings: Settings, world: World, log: Log, job: str, done: t.Sequence[Target]) -> None:
    """Write down what is gone, and forget a key that nothing is left of."""
    ring = backup_keys.read(world)
    former = []
    for one in ring.former:
        gone = {*one.gone, *(f"{job}@{target.former}" for target in done if target.place == one.place)}
        left = [
            f"{which}@{target.former}"
            for which in settings.jobs()
            for target in settings.readable(which)
            if target.former and target.place == one.place and f"{which}@{target.former}" not in gone
        ]
        if left or one.until is None or one.until > world.now():
            former.append(dataclasses.replace(one, gone=tuple(sorted(gone))))
        else:
            log.say(f"The key before the {one.number + 1}. is forgotten")
    changed = dataclasses.replace(ring, former=tuple(former))
    if changed == ring:
        return
    backup_keys.write(world, changed)
    if len(former) < len(ring.former):
        backup_settings.rewrite(world, changed)
        for target in settings.former:
            if target.place not in changed.keys:
                world.remove(wal_file(target))
