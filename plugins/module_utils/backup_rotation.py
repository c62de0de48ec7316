# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new key for the backups of a host: new repositories beside the former ones, and both are used until the new ones are proven.

What lies on the host says how far that is, so whoever runs it again goes on with the same key:

- C(save): new backups are encrypted with the new key; WAL goes to the repositories of both keys;
- C(leave): the new ones are proven, and nothing new goes to the former ones. They are removed when their time has come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import typing as t

from . import backup_keys, backup_results, backup_run, backup_settings, restore_host, restore_journal, restore_plan, scratch_cluster, secret_store
from .backup_keys import LEAVE, SAVE, Former, Ring
from .backup_settings import APART, DATABASE, LOCAL, Settings, Target
from .errors import AnchorageError
from .world import World

#: How pgBackRest says that a key does not fit.
REFUSED = re.compile(r"\[(?:CryptoError|FormatError|ChecksumError)\] unable to load info file")

#: The characters of a key that is made here.
LENGTH = 64

DAY = 86400.0
MIB = 1 << 20

NOTHING = "the backups go on with the key of now; nothing was done"
BOTH = "backups go on; both keys are known to the host, and WAL goes to the repositories of both"
AGAIN = "Mend the cause and run rotate_backup_key.yml again; it goes on here, with the same key."

Data = dict[str, t.Any]


def begin(world: World, given: str, *, check: bool) -> Data:
    """Make the new key, or find the one that was made. Returns C(id), C(phase), C(under_way) and, for people, C(lines).

    :arg given: a key that somebody chose; empty where the host makes one.
    :arg check: only say what would be done.
    :raises AnchorageError: when it cannot begin.
    """
    settings = backup_settings.load(world)
    ring = backup_keys.read(world)
    _undisturbed(world)
    if ring.rotation:
        if given not in ("", ring.key):
            raise AnchorageError(
                "The key of the backups is being rotated to another one than backup_key of the inventory.",
                live=BOTH,
                next_step="Give the one that was begun with (anchorage backup key prints it) or none, and run rotate_backup_key.yml again.",
            )
        minutes = (world.now() - ring.rotation["began_at"]) / 60
        doing = {SAVE: "what is saved with the new one is not all proven", LEAVE: "the former one is left"}[ring.rotation["phase"]]
        lines = [f"The key of the backups has been rotated for {minutes:.0f} min: {doing}. This run goes on with it."]
        return {"id": ring.rotation["id"], "phase": ring.rotation["phase"], "under_way": True, "changed": False, "lines": lines}
    _acceptable(given, ring)
    lines = [_story(settings, given)]
    with contextlib.ExitStack() as held:
        held.enter_context(restore_journal.lock(world))
        for job in settings.jobs():
            held.enter_context(backup_run.lock(world, job))
        lines += _reached(settings, world)
        if check:
            return {"id": "", "phase": "", "under_way": False, "changed": True, "lines": lines}
        fresh = renewed(ring, given or secret_store.make(LENGTH), [target.name for target in settings.targets], now=world.now(), name=secret_store.make(12))
        backup_keys.write(world, fresh)
    return {"id": t.cast(Data, fresh.rotation)["id"], "phase": SAVE, "under_way": False, "changed": True, "lines": lines}


def renewed(ring: Ring, key: str, targets: t.Sequence[str], *, now: float, name: str) -> Ring:
    """Return the keys of a host with a new one."""
    former = Former(ring.number, ring.place, tuple(targets), None, key=ring.key)
    return Ring(key, backup_keys.place_of(key), ring.number + 1, (former, *ring.former), {"id": name, "began_at": now, "phase": SAVE})


def _acceptable(given: str, ring: Ring) -> None:
    if given == ring.key:
        raise AnchorageError(
            "backup_key of the inventory is the key that is to be replaced.",
            live=NOTHING,
            next_step="Put a new value in its place (openssl rand -hex 32), or take it out, so that the host makes one and prints it; then run this again.",
        )
    if given in [one.key for one in ring.former]:
        raise AnchorageError("backup_key of the inventory is a former key of this host.", live=NOTHING, next_step="Give a new value, or none.")
    if given and not backup_keys.is_acceptable(given):
        raise AnchorageError("backup_key needs at least 32 printable characters without blanks.", live=NOTHING, next_step="Give such a value, or none.")


def _undisturbed(world: World) -> None:
    """Refuse while somebody works with what is saved."""
    recovery = restore_host.read(world)
    if recovery and not recovery.get("finished_at"):
        raise AnchorageError("This host is being recovered.", live=NOTHING, next_step="Run recover.yml to its end, then this again.")
    if restore_journal.RestoreJournal(world).unfinished:
        raise AnchorageError("A restore is not finished.", live=NOTHING, next_step="anchorage restore --resume, then run this again.")
    for app, pending in secret_store.under_way(world).items():
        what = "are being rotated" if pending else f"may be being rotated: {secret_store.state_path(app)} cannot be read"
        raise AnchorageError(f"The secrets of {app} {what}.", live=NOTHING, next_step="Run rotate_secrets.yml to its end, then this again.")


def _story(settings: Settings, given: str) -> str:
    days = settings.retention_days
    stopped = f" {' and '.join(project.name for project in settings.apart)} stops while it is saved." if APART in settings.jobs() else ""
    return (
        f"The backups get a new key, {'the one of backup_key' if given else 'made here and printed once'}. {' and '.join(settings.jobs())} are saved whole"
        f" into new repositories beside the present ones, and proven; until then WAL goes to both. What the key of now has saved stays readable for"
        f" {days} days after that, then it is removed and that key forgotten.{stopped}"
    )


def _reached(settings: Settings, world: World) -> list[str]:
    """See that every target answers and has room for all of it a second time. Returns what each has.

    :raises AnchorageError: when one does not.
    """
    lines, wrong = [], []
    need: dict[str, int] = {}
    for job in settings.jobs():
        for target in settings.for_job(job):
            try:
                size = _size(settings, world, job, target)
            except AnchorageError as error:
                wrong.append(error.message.rstrip("."))
                continue
            lines.append(f"{job} at {target.name}: answers; about {size / MIB:.0f} MiB once more")
            if target.type == LOCAL:
                need[target.path] = need.get(target.path, 0) + size
    for path, size in need.items():
        free = world.free_bytes(path)
        if free < size:
            wrong.append(f"{path} has {free / MIB:.0f} MiB free, and up to {size / MIB:.0f} MiB are needed")
    if wrong:
        raise AnchorageError(
            f"Not every target could take a second set of backups: {'; '.join(wrong)}.",
            live=NOTHING,
            next_step="Mend the targets, then anchorage backup run, and run rotate_backup_key.yml again.",
        )
    return lines


def _size(settings: Settings, world: World, job: str, target: Target) -> int:
    """Return about how many bytes a first backup takes at a target."""
    if job == DATABASE:
        found = backup_run.info(settings, world, target).get("backup") or []
        if not found:
            raise AnchorageError(f"{target.name} has no backup of the cluster yet.")
        kept = found[-1].get("info") or {}
        return int((kept.get("repository") or {}).get("size") or kept.get("size") or 0)
    done = backup_run.restic(settings, world, target, "cat", "config", timeout=120, job=job)
    if done.rc != 0:
        raise AnchorageError(f"{target.name} does not give its repository of {job}: {backup_run.restic_said(done)}.")
    if backup_run.single(settings, world, target, job):
        raise AnchorageError(
            f"{target.name} gives the same repository whatever is asked for, so a new key has no place there; give it the forced command of the role's README,"
            f" and move what is in its directory to {target.directory(job)} with that command's prefix."
        )
    return int(backup_results.of(backup_results.read(world, job), target).get("bytes") or 0)


# ---- towards the end -------------------------------------------------------------------------------------------------


def _of(world: World, name: str) -> Ring:
    """Return the keys, while the rotation of that name is under way.

    :raises AnchorageError: when it is not.
    """
    ring = backup_keys.read(world)
    if not ring.rotation or ring.rotation["id"] != name:
        raise AnchorageError(
            "The rotation that this run works on is not under way any more; another run has ended it.", next_step="Look: anchorage backup list."
        )
    return ring


def prove(world: World, name: str) -> list[str]:
    """See that every job is saved and proven with the new key, and that the former key opens none of it. Returns what is proven.

    :raises AnchorageError: when something is not.
    """
    ring, settings = _of(world, name), backup_settings.load(world)
    if settings.key != ring.key:
        raise AnchorageError("What the role backup wrote does not know the new key yet.", what="the rotation", live=BOTH, next_step=AGAIN)
    lines, wrong = [], []
    for job in settings.jobs():
        found = backup_results.read(world, job)
        for target in settings.for_job(job):
            saved, proof = backup_results.of(found, target), backup_results.of(found.get("proof") or {}, target)
            if not saved.get("last_good"):
                wrong.append(f"{job} at {target.name} is not saved: {saved.get('cause') or 'no run came to it'}")
            elif not proof.get("ok"):
                wrong.append(f"{job} at {target.name} is not proven: {proof.get('cause') or 'no proof came to it'}")
            elif opens(settings, world, job, target, ring.former[0].key):
                wrong.append(f"{job} at {target.name} is opened by the former key")
            else:
                lines.append(f"{job} at {target.name}: saved and proven with the new key; the former one is refused")
    if wrong:
        raise AnchorageError(
            f"The new key cannot be relied on yet: {'; '.join(one.rstrip('.') for one in wrong)}.", what="the proof of the new key", live=BOTH, next_step=AGAIN
        )
    return lines


def opens(settings: Settings, world: World, job: str, target: Target, key: str) -> bool:
    """Tell whether a key opens a repository. It stands in no command line.

    :raises AnchorageError: when that could not be told.
    """
    if job != DATABASE:
        argv, environment = settings.restic(target, job)
        done = world.run([*argv, "--no-cache", "cat", "config"], env={**environment, "RESTIC_PASSWORD": key}, timeout=120, cwd="/")
        if done.rc == 0:
            return True
        if "wrong password or no key found" in done.stderr:
            return False
        raise AnchorageError(f"{target.name} did not answer whether the former key opens {job}: {backup_run.restic_said(done)}.", live=BOTH, next_step=AGAIN)
    number = settings.pgbackrest_repo(target)
    environment = {**backup_run.ENVIRONMENT, f"PGBACKREST_REPO{number}_CIPHER_PASS": key}
    done = world.run(settings.pgbackrest(target, "info", "--output=json"), env=environment, timeout=120, cwd="/", user="postgres")
    try:
        # What it quotes of a file that it could not read is not always JSON.
        status = json.loads(done.stdout, strict=False)[0]["repo"][0]["status"]
        code, message = status["code"], str(status["message"])
    except (ValueError, LookupError, TypeError):
        code, message = None, done.stderr or done.stdout
    if code == 0:
        return True
    # What another key makes of a file is noise, which ends badly or is no settings file; the key of now has read it for the proof.
    if REFUSED.match(message):
        return False
    raise AnchorageError(f"{target.name} did not answer whether the former key opens {job}: {scratch_cluster.reason(message)}.", live=BOTH, next_step=AGAIN)


def leave(world: World, name: str) -> Data:
    """Let nothing new go to the former repositories, and say until when they stay."""
    ring, settings = _of(world, name), backup_settings.load(world)
    rotation = t.cast(Data, ring.rotation)
    if rotation["phase"] == SAVE:
        prove(world, name)
        until = world.now() + settings.retention_days * DAY
        former = (dataclasses.replace(ring.former[0], until=until, left=world.now()), *ring.former[1:])
        ring = dataclasses.replace(ring, former=former, rotation={**rotation, "phase": LEAVE})
        backup_keys.write(world, ring)
    until = t.cast(float, ring.former[0].until)
    names = [ring.former[0].name(target) for target in ring.former[0].targets]
    lines = [f"What the former key has saved stays readable until {restore_plan.told(until)}, as {' and '.join(names)} (anchorage backup list)."]
    return {"changed": rotation["phase"] == SAVE, "lines": lines}


def finish(world: World, name: str) -> Data:
    """Say that the rotation is over."""
    ring = _of(world, name)
    if t.cast(Data, ring.rotation)["phase"] != LEAVE:
        raise AnchorageError("The former key is not left yet.", live=BOTH, next_step=AGAIN)
    settings = backup_settings.load(world)
    if ring.told != settings.told:
        raise AnchorageError("What the role backup wrote does not say yet that the former key is left.", what="the rotation", live=BOTH, next_step=AGAIN)
    # They hold the key, and the archiver uses them no more.
    for target in settings.former:
        if target.left is not None:
            world.remove(backup_settings.wal_file(target))
    backup_keys.write(world, dataclasses.replace(ring, rotation=None))
    return {"changed": True, "lines": []}
