# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back up what a host keeps: one job for the PostgreSQL cluster, one for everything else, each to all of its targets.

Every run leaves a result that health reads. A target that fails keeps none of the others from being served; what is old goes only after
a good run, and never by a clock that cannot be right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import socket
import typing as t

from . import backup_apart, backup_dump, backup_results
from .app import Log
from .backup_settings import DATABASE, DIRECTORY, DUMP, FILES, GAP, Settings, Target, wal_file
from .database import first_line
from .errors import AnchorageError
from .world import Completed, World

STAGE = f"{DIRECTORY}/stage"
DAY = 86400.0

#: A last run that is older than this says that the host was away, or that its clock is wrong; nothing old is removed then.
LONG_AGO = 8 * DAY

#: Why nothing old is removed.
DOUBT = "the time does not follow from the last run's, and no time server has confirmed it, so nothing old is removed"

#: How often a repository of restic is tidied up, in seconds.
PRUNED_EVERY = DAY

#: Exit codes of restic: since 0.17 there is one for a repository that is not there; 3 says that some files could not be read.
NO_REPOSITORY, PARTIAL = 10, 3

#: What pgBackRest finds in its environment.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/var/lib/postgresql"}

Data = dict[str, t.Any]


@contextlib.contextmanager
def lock(world: World, job: str, *, seconds: float = 0) -> t.Iterator[None]:
    """Hold the lock of a job. The kernel frees it with its owner.

    :arg seconds: how long to wait for it at most.
    :raises AnchorageError: when another run holds it.
    """
    world.make_directory(DIRECTORY, mode=0o700)
    end = world.monotonic() + seconds
    with open(f"{DIRECTORY}/lock-{job}", "a", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if world.monotonic() >= end:
                    raise AnchorageError(
                        f"Another run of the backup job {job} is under way on this host.",
                        what=f"backup of {job}",
                        next_step=f"Wait for it: journalctl -fu anchorage-backup-{job}.",
                    ) from error
            world.sleep(0.2)
        yield


def run(settings: Settings, world: World, log: Log, job: str, *, full: bool = False, anew: bool = False, patience: float = 0) -> Data:
    """Run a job to all of its targets, and write down how it ended. Returns what was written.

    :arg full: a full backup of the cluster, whatever there is.
    :arg anew: whether a repository may be made where there was one at the last run.
    :arg patience: seconds to wait for another run, or for a restore, at most.
    """
    with lock(world, job, seconds=patience):
        return _run(settings, world, log, job, full=full, anew=anew)


def _run(settings: Settings, world: World, log: Log, job: str, *, full: bool, anew: bool) -> Data:
    began = world.now()
    before = backup_results.read(world, job)
    backup_results.begin(world, job)
    targets: dict[str, Data] = {}
    problem = ""
    doubted = doubtful_clock(before, began, lambda: synchronised(world))
    if doubted:
        log.say(f"{job}: {DOUBT}")
    try:
        if job == DATABASE:
            for target in settings.for_job(job):
                known = _was_there(before, target) and not anew
                targets[target.name] = _guarded(
                    log, target, lambda target=target, known=known: _database(settings, world, log, target, known=known, full=full, expire=not doubted)
                )
            _close_gap(world, log, began, targets)
        else:
            with (_staged if job == FILES else backup_apart.at_rest)(settings, world, log) as (staged, problem):
                for target in settings.for_job(job) if staged else []:
                    known = _was_there(before, target) and not anew
                    targets[target.name] = _guarded(
                        log,
                        target,
                        lambda target=target, known=known: _files(settings, world, log, job, target, staged, None if doubted else before, known=known),
                    )
    except AnchorageError as error:
        problem = error.message
        log.say(f"{job}: {error.text()}")
    found = backup_results.judged(job, targets, problem=problem, began=began, now=world.now(), before=before)
    found["clock_doubted"] = doubted
    backup_results.end(world, job, found)
    log.say(f"{job}: {'done' if found['ok'] else 'FAILED'} in {found['seconds']} s" + (f": {found['cause']}" if found["cause"] else ""))
    return found


def _guarded(log: Log, target: Target, save: t.Callable[[], Data]) -> Data:
    """Save to one target; what goes wrong there is told, and the next one is served."""
    try:
        return backup_results.placed(target, {"ok": True, "cause": "", **save()})
    except AnchorageError as error:
        log.say(f"{target.name}: {error.text()}")
        return backup_results.placed(target, {"ok": False, "cause": error.message})


def _was_there(before: Data, target: Target) -> bool:
    """Tell whether a target had a repository when this job ran last."""
    return bool(backup_results.of(before, target).get("last_good"))


def _gone(target: Target, job: str) -> AnchorageError:
    """Return the refusal to begin anew where something has been lost."""
    return AnchorageError(
        f"The repository at {target.name}, which was there before, is gone",
        what=f"backup of {job}",
        next_step=f"Mount or mend the target. If all that was there is lost for good: anchorage backup run --anew {job}.",
    )


def doubtful_clock(before: Data, now: float, synchronised: t.Callable[[], bool]) -> bool:
    """Tell whether the time cannot be relied on; nothing old is removed then.

    A clock that jumps ahead would make everything old, and one that went back makes what is new the oldest. So a time that does not follow from
    the last run's is doubted, by that run and those after it, until a time server has confirmed it.
    """
    last = before.get("finished")
    jumped = last is not None and not 0 <= now - float(last) <= LONG_AGO
    return (jumped or bool(before.get("clock_doubted"))) and not synchronised()


def synchronised(world: World) -> bool:
    """Tell whether a time server has set this host's clock."""
    return world.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"], timeout=20).stdout.strip() == "yes"


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def postgres(settings: Settings, world: World, target: Target, *words: str, timeout: float) -> Completed:
    """Run pgBackRest as postgres."""
    return world.run(settings.pgbackrest(target, *words), env=ENVIRONMENT, timeout=timeout, cwd="/", user="postgres")


def info(settings: Settings, world: World, target: Target) -> Data:
    """Return what a target knows of the cluster: C(backup), C(archive), C(db), C(status).

    :raises AnchorageError: when it does not answer.
    """
    done = postgres(settings, world, target, "info", "--output=json", timeout=120)
    try:
        found = json.loads(done.stdout)[0] if done.rc == 0 else None
    except (ValueError, IndexError):
        found = None
    code = (found or {}).get("status", {}).get("code", 99)
    if found is None or code == 99:
        said = (found or {}).get("repo", [{}])[0].get("status", {}).get("message") or done.stderr or done.stdout
        raise AnchorageError(
            f"The target {target.name} does not answer: {_said(said)}.",
            what="backup of the database",
            next_step=f"Look at the target, then run anchorage backup run {DATABASE}.",
        )
    return t.cast("Data", found)


def kind(found: Data, *, now: float, full_days: int, gap: float | None) -> str:
    """Return which kind of backup is due: C(full) where there is no good one that is young enough, or WAL was given up since; else C(incr)."""
    good = [one["timestamp"]["start"] for one in found.get("backup", []) if one["type"] == "full" and not one.get("error")]
    newest = max(good, default=None)
    if newest is None or now - newest > full_days * DAY or now < newest:
        return "full"
    return "full" if gap is not None and gap >= newest else "incr"


def gap(world: World) -> float | None:
    """Return when the last segment of WAL was given up; None where none was."""
    lines = [line.split() for line in (world.read(GAP) or b"").decode("utf-8", "replace").splitlines()]
    return max((float(words[0]) for words in lines if words and words[0].isdigit()), default=None)


def _database(settings: Settings, world: World, log: Log, target: Target, *, known: bool, full: bool, expire: bool) -> Data:
    limit = float(settings.timeouts["database_seconds"])
    found = info(settings, world, target)
    if not found.get("db"):
        if known:
            raise _gone(target, DATABASE)
        created = create(settings, world, target)
        found = info(settings, world, target)
        if not found.get("db"):
            _must(created, target)
        log.say(f"{target.name}: a new repository for this cluster")
        # WAL that waited for it goes first, and a backup waits for its own.
        world.run(["systemctl", "start", "anchorage-backup-wal.service"], timeout=600)
    wanted = "full" if full else kind(found, now=world.now(), full_days=settings.full_days, gap=gap(world))
    # What is old is removed afterwards, and by a clock that can be right.
    _must(postgres(settings, world, target, f"--type={wanted}", "--no-expire-auto", "backup", timeout=limit), target)
    labels = {one["label"] for one in found.get("backup", [])}
    fresh = [one for one in info(settings, world, target)["backup"] if one["label"] not in labels and not one.get("error")]
    if not fresh:
        raise AnchorageError(f"pgBackRest said that it was done, but {target.name} has no new backup without an error.", what="backup of the database")
    newest = fresh[-1]
    log.say(f"{target.name}: {newest['type']} backup {newest['label']}, {newest['info']['size'] / 1048576:.1f} MiB")
    if expire:
        _must(postgres(settings, world, target, "expire", timeout=600), target)
    return {"backup": newest["label"], "kind": newest["type"], "bytes": newest["info"]["size"]}


def create(settings: Settings, world: World, target: Target) -> Completed:
    """Make the stanza where it is missing. pgBackRest does so for all repositories at once, so it is shown no other: one that is away keeps none from it."""
    words = ["pgbackrest", f"--config={wal_file(target)}", f"--stanza={settings.cluster.stanza}", "stanza-create"]
    return world.run(words, env=ENVIRONMENT, timeout=300, cwd="/", user="postgres")


def _must(done: Completed, target: Target) -> None:
    if done.rc != 0:
        cause = "it took too long" if done.rc == 124 else _said(done.stderr or done.stdout)
        raise AnchorageError(f"pgBackRest failed at {target.name}: {cause}.", what="backup of the database", next_step=_mend(cause))


def _mend(cause: str) -> str:
    """Return what helps against the errors of pgBackRest that somebody meets."""
    if "system-id" in cause or "do not match the database" in cause or "[028]" in cause or "[051]" in cause:
        return "The target holds another cluster's backups. To get that data back, run recover.yml; to leave it alone, give backup_targets another path."
    if "[082]" in cause:
        return "WAL does not reach the target: journalctl -u 'postgresql@*', and the target's disk or address."
    return f"Mend the cause, then run anchorage backup run {DATABASE}."


def _said(text: str) -> str:
    """Return the first error that a command told, in one line; pgBackRest puts hints behind it, indented."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if "ERROR" in line]
    if not errors:
        return first_line(text).rstrip(".:")
    chosen = lines[errors[0]].partition("ERROR:")[2].strip() or lines[errors[0]]
    follows = lines[errors[0] + 1] if chosen.endswith(":") and errors[0] + 1 < len(lines) else ""
    return f"{chosen} {follows}".strip().rstrip(".")[:400]


def _close_gap(world: World, log: Log, began: float, targets: dict[str, Data]) -> None:
    """Forget what WAL was given up, once every target has a full backup from after that."""
    when = gap(world)
    if when is not None and when < began and targets and all(one["ok"] and one.get("kind") == "full" for one in targets.values()):
        world.remove(GAP)
        log.say("database: WAL had been given up; there is a full backup of everything since")


# ---- everything else -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _staged(settings: Settings, world: World, log: Log) -> t.Iterator[tuple[list[str], str]]:
    """Put dumps and snapshots beside the files, with a manifest that says what they hold. They are gone afterwards.

    What cannot be had is told, and does not keep the rest from being saved.
    """
    world.remove_tree(STAGE)
    for place in (STAGE, f"{STAGE}/databases", f"{STAGE}/redis"):
        world.make_directory(place, mode=0o700)
    manifest: Data = {"at": world.now(), "host": socket.gethostname(), "databases": {}, "redis": {}}
    problems: list[str] = []

    def take(kind: str, name: str, save: t.Callable[[], Data]) -> None:
        try:
            manifest[kind][name] = save()
        except AnchorageError as error:
            log.say(f"{name}: {error.text()}")
            problems.append(error.message)

    try:
        every = any(settings.dumped(target) for target in settings.for_job(FILES))
        for database in settings.databases:
            if every or database.method == DUMP:
                dump = f"{STAGE}/databases/{database.name}.dump"
                take("databases", database.name, lambda database=database, dump=dump: backup_dump.dump(settings, world, log, database, dump))
        for redis in settings.redis:
            rdb = f"{STAGE}/redis/{redis.name}.rdb"
            take("redis", redis.name, lambda redis=redis, rdb=rdb: backup_dump.snapshot(world, log, redis, rdb))
        world.write_atomic(f"{STAGE}/manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode(), mode=0o600)
        yield [STAGE, *[path for pattern in settings.paths for path in world.glob(pattern)]], "; ".join(problems)
    finally:
        world.remove_tree(STAGE)


def restic(settings: Settings, world: World, target: Target, *words: str, timeout: float, job: str = FILES) -> Completed:
    """Run restic against a target."""
    argv, environment = settings.restic(target, job)
    return world.run([*argv, *words], env=environment, timeout=timeout, cwd="/")


def single(settings: Settings, world: World, target: Target, job: str = FILES) -> bool:
    """Tell whether a target gives the same repository whatever is asked for: a forced command over SSH that does not look at it."""
    if not target.append_only:
        return False
    nowhere = dataclasses.replace(target, place="nowhere")
    asked = dataclasses.replace(settings, keys={**settings.keys, nowhere.place: settings.keys[target.place]})
    return restic(asked, world, nowhere, "cat", "config", timeout=120, job=job).rc == 0


def _files(settings: Settings, world: World, log: Log, job: str, target: Target, paths: list[str], before: Data | None, *, known: bool) -> Data:
    """Save to one target; without what was C(before) nothing old is removed."""
    limit = float(settings.timeouts["files_seconds"])
    _open(settings, world, log, job, target, known=known)
    argv = ["backup", "--json", f"--tag={job}", f"--host={socket.gethostname()}", "--exclude-caches"]
    argv += [f"--exclude={pattern}" for pattern in settings.excludes if job == FILES]
    done = restic(settings, world, target, *argv, "--", *paths, timeout=limit, job=job)
    summary = _summary(done.stdout)
    if done.rc == PARTIAL and summary:
        raise AnchorageError(f"Some files could not be read for {target.name}: {restic_said(done)}.", what=f"backup of {job}")
    if done.rc != 0 or not summary:
        cause = f"it took more than {limit:g} s" if done.rc == 124 else restic_said(done)
        raise AnchorageError(
            f"restic failed at {target.name}: {cause}.", what=f"backup of {job}", next_step=f"Mend the cause, then anchorage backup run {job}."
        )
    size = int(summary["total_bytes_processed"])
    log.say(f"{target.name}: snapshot {summary['snapshot_id'][:8]}, {size / 1048576:.1f} MiB, {summary['data_added'] / 1048576:.1f} MiB of it new")
    told = {"backup": summary["snapshot_id"], "bytes": size, "added": int(summary["data_added"])}
    return {**told, **({} if before is None or target.append_only else _tidy(settings, world, job, target, before, limit))}


def _tidy(settings: Settings, world: World, job: str, target: Target, before: Data, limit: float) -> Data:
    """Remove what is older than the retention."""
    pruned = float(backup_results.of(before, target).get("pruned") or 0)
    prune = not 0 <= world.now() - pruned < PRUNED_EVERY
    keep = ["--keep-last=1", "--keep-within-hourly=2d", f"--keep-within-daily={settings.retention_days}d"]
    words = ["forget", f"--tag={job}", f"--host={socket.gethostname()}", "--group-by=host,tags", *keep, *(["--prune"] if prune else [])]
    done = restic(settings, world, target, *words, timeout=limit, job=job)
    if done.rc != 0:
        raise AnchorageError(f"What is old could not be removed at {target.name}: {restic_said(done)}.", what=f"backup of {job}")
    return {"pruned": world.now() if prune else pruned}


def _open(settings: Settings, world: World, log: Log, job: str, target: Target, *, known: bool) -> None:
    """See that there is a repository which this host's key opens; make it where there never was one. Locks of the dead are removed."""
    done = restic(settings, world, target, "cat", "config", timeout=120, job=job)
    if done.rc != 0 and (done.rc == NO_REPOSITORY or "Is there a repository at the following location" in done.stderr):
        if known:
            raise _gone(target, job)
        done = restic(settings, world, target, "init", timeout=120, job=job)
        if done.rc == 0:
            log.say(f"{target.name}: a new repository")
    if done.rc != 0:
        cause = "this host's key does not open it" if "wrong password or no key found" in done.stderr else restic_said(done)
        raise AnchorageError(
            f"The repository at {target.name} cannot be used: {cause}.",
            what=f"backup of {job}",
            next_step="Look at the target; where it belongs to a host before this one, give its key as backup_key.",
        )
    restic(settings, world, target, "unlock", timeout=120, job=job)


def _summary(output: str) -> Data:
    """Return what restic told at its end."""
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict) and told.get("message_type") == "summary":
                return told
    return {}


def restic_said(done: Completed) -> str:
    """Return in one line why restic failed; with --json its errors are JSON on either stream."""
    for line in done.stderr.splitlines():
        try:
            told = json.loads(line)
            words = told.get("message") or (told.get("error") or {}).get("message") if isinstance(told, dict) else None
        except ValueError:
            words = line.strip()
        if words and not words.startswith(("repository ", "created new cache", "unable to open cache")):
            return str(words).removeprefix("Fatal: ").rstrip(".")[:400]
    return f"code {done.rc}"


# ---- what is due -----------------------------------------------------------------------------------------------------


def due(settings: Settings, world: World) -> list[str]:
    """Return the jobs whose last run was no good, is older than it may be, or did not go where a run goes now."""
    found = {job: backup_results.read(world, job) for job in settings.jobs()}
    return [
        job
        for job, last in found.items()
        if not backup_results.fresh(last, world.now(), float(settings.ages[f"{job}_hours"])) or not backup_results.covers(last, settings.for_job(job))
    ]
