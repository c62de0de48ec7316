# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the backups of a host are good: how the last runs and proofs ended, how old they are, and whether WAL reaches its targets."""

from __future__ import annotations

import typing as t

from . import backup_keys, backup_results, backup_run, backup_settings, host_probe
from .backup_settings import DATABASE, Archive, Settings
from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, Watch, judge, verdict
from .restore_journal import UNIT, RestoreJournal
from .world import World

#: Seconds that a segment may wait for its target: PostgreSQL tries again after a minute, and a large one takes its time.
PATIENCE = 300

#: Hours that a rotation of the key may take.
ROTATION_HOURS = 24

#: The size of a segment in MB, as every Debian has it.
SEGMENT_MB = 16


def exists(world: World) -> bool:
    """Tell whether this host is backed up."""
    return world.exists(backup_settings.SETTINGS)


def expected(settings: Settings) -> list[host_probe.Backup]:
    """Return the results that are judged, with how old they may be."""
    days = float(settings.proof["max_age_days"])
    return [host_probe.Backup(job, backup_results.path(job), float(settings.ages[f"{job}_hours"]), days) for job in settings.jobs()]


def judge_archive(world: World, archive: Archive) -> list[Check]:
    """Judge the segments of WAL that wait for their target, and those that were given up."""
    place = f"{archive.data}/pg_wal/archive_status"
    waiting = [name for name in world.listdir(place) if name.endswith(".ready")]
    times = [found for found in (world.modified(f"{place}/{name}") for name in waiting) if found is not None]
    age = round(world.now() - min(times)) if times else 0
    evidence = {"waiting": len(waiting), "oldest_seconds": age, "limit_seconds": PATIENCE}
    cause = f"WAL has not reached its target for {age / 60:.0f} min: {len(waiting)} segments ({len(waiting) * SEGMENT_MB} MB) wait in pg_wal"
    checks = [judge("archive", age <= PATIENCE, evidence=evidence, cause=cause, advice=f"journalctl -u {archive.unit}, /var/log/postgresql, and the target")]
    for target in world.listdir(backup_settings.QUEUE):
        checks.append(_queued(world, target))
    lost = backup_run.gap(world)
    if lost is not None:
        minutes = (world.now() - lost) / 60
        cause = (
            f"WAL was given up {minutes:.0f} min ago, since no target took it: until the next full backup nothing since then can be restored to a point in time"
        )
        checks.append(Check("gap", FAIL, {"at": lost}, cause, f"the target, then anchorage backup run {DATABASE}"))
    return checks


def _queued(world: World, target: str) -> Check:
    """Judge the segments that wait for one target, while others have them."""
    place = f"{backup_settings.QUEUE}/{target}"
    waiting = world.listdir(place)
    times = [found for found in (world.modified(f"{place}/{name}") for name in waiting) if found is not None]
    age = round(world.now() - min(times)) if times else 0
    evidence = {"waiting": len(waiting), "oldest_seconds": age, "limit_seconds": PATIENCE}
    cause = f"WAL has not reached {target} for {age / 60:.0f} min: {len(waiting)} segments ({len(waiting) * SEGMENT_MB} MB) wait in {place}"
    return judge(f"archive:{target}", age <= PATIENCE, evidence=evidence, cause=cause, advice="the target, and journalctl -u anchorage-backup-wal")


def judge_clock(world: World, settings: Settings) -> list[Check]:
    """Judge whether old backups stay because the time is doubted."""
    doubted = [job for job in settings.jobs() if backup_results.read(world, job).get("clock_doubted")]
    cause = f"of {' and '.join(doubted)} {backup_run.DOUBT}"
    return [judge("clock", not doubted, evidence={"jobs": doubted}, cause=cause, advice="timedatectl, and the disk that fills meanwhile", severity=WARN)]


def judge_restore(world: World) -> Check:
    """Judge whether a restore was cut off between two states of the data; one that runs is no fault."""
    journal = RestoreJournal(world)
    runs = world.run(["systemctl", "is-active", UNIT], timeout=10).rc == 0 if journal.unfinished else False
    cause = f"a restore ({journal.id}) was cut off and is not finished"
    return judge("restore", not journal.unfinished or runs, evidence={"runs": runs}, cause=cause, advice="anchorage restore --resume")


def judge_rotation(world: World) -> list[Check]:
    """Judge whether a rotation of the key was left half-way: nothing is lost by it, and everything is kept twice until it goes on."""
    rotation = backup_keys.read(world).rotation
    if not rotation:
        return []
    hours = (world.now() - rotation["began_at"]) / 3600
    cause = f"the rotation of the backups' key has been under way for {hours:.0f} h"
    return [judge("key", hours <= ROTATION_HOURS, evidence={"hours": round(hours, 1)}, cause=cause, advice="rotate_backup_key.yml", severity=WARN)]


def judge_places(settings: Settings) -> Check:
    """Judge where the backups are: what lies on this very machine goes with it."""
    away = [target.name for target in settings.targets if target.away]
    evidence = {"targets": [target.name for target in settings.targets], "away": away}
    return judge(
        "off_site",
        bool(away),
        evidence=evidence,
        cause="every backup lies on this machine and goes with it",
        advice="backup_targets, and provision.yml",
        severity=WARN,
    )


def check(world: World) -> Verdict:
    """Look once and judge."""
    began = world.monotonic()
    try:
        settings = backup_settings.load(world)
    except AnchorageError as error:
        checks = [Check("settings", FAIL, {}, error.message.rstrip("."), error.next_step or "")]
        return verdict("The backup", Watch(tuple(checks), 1, 0, 0, 1, world.monotonic() - began), good="")
    checks = [found for backup in expected(settings) for found in host_probe.judge_backup(world, backup)]
    checks += [*judge_clock(world, settings), *judge_rotation(world), judge_restore(world)]
    if settings.archive is not None:
        checks += judge_archive(world, settings.archive)
    healthy = all(one.healthy for one in checks)
    watch = Watch(tuple(checks), 1, int(healthy), int(healthy), 1, world.monotonic() - began)
    return verdict("The backup", watch, good=", ".join(_ages(checks)))


def _ages(checks: t.Iterable[Check]) -> list[str]:
    return [f"{check.name.partition(':')[2]} {check.evidence['age_hours']:g} h old" for check in checks if "age_hours" in check.evidence]
