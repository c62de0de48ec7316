# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that a backup can be restored, by restoring it: beside the live data, which are never touched.

The job C(database): a restore point is set on the live cluster, so that there is no doubt what "the newest" is. The newest backup and the WAL
since then are restored up to it into a throw-away server, whose tables are compared with the live ones, whose rows and indexes are all read
by pg_amcheck, and the archive is looked through for segments that are missing or damaged. Where the live server is away, the copy is judged
by itself. The job C(files) is in backup_proof_files.py.

A proof finds; it does not raise for a broken backup. What it says is for people: which part is broken, and how it shows.
"""

from __future__ import annotations

import re
import time
import typing as t

from . import backup_boot, backup_compare, backup_proof_files
from .app import Log
from .backup_report import Report
from .backup_settings import DATABASE, GAP, Settings, Target
from .database import Database, first_line
from .errors import AnchorageError
from .scratch_cluster import ENVIRONMENT, Recovered, Scratch, backups, complaint, pgbackrest
from .world import World

#: Seconds until a segment of WAL that was just closed must be at the target.
ARCHIVE_SECONDS = 180

#: A backend that has nothing to do tells its counters after ten seconds.
COUNTERS_SECONDS = 12

#: Repositories behind a network are looked through whole up to this size; a local one always is.
VERIFY_BYTES = 4 << 30

#: How long to wait for a backup that is under way before what looks damaged is looked at again.
QUIET_SECONDS = 900

SOCKET = "/var/run/postgresql"
SEGMENT = re.compile(r"\b([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-[0-9a-f]{40}")

Data = dict[str, t.Any]


class Live(Database):
    """One database of the cluster that lives on this host, spoken to as its superuser."""

    def __init__(self, world: World, port: int, name: str = "postgres") -> None:
        self.world = world
        self.environment = {**ENVIRONMENT, "PGHOST": SOCKET, "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": name, "PGCONNECT_TIMEOUT": "10"}
        self.environment["PGAPPNAME"] = "anchorage-proof"

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.environment["PGDATABASE"]


class Sight(t.NamedTuple):
    """The live tables of one database, looked at twice."""

    ways: dict[str, backup_compare.Way]
    before: dict[str, backup_compare.Moved]
    first: dict[str, backup_compare.Look]


def prove(settings: Settings, world: World, log: Log, *, job: str, target: Target | str) -> Data:
    """Prove the newest backup of a job at a target. Writes nothing but what it throws away.

    :returns: C(finished), C(ok), C(cause), C(seconds), and as C(what) the evidence.
    """
    report = Report(log)
    began = world.monotonic()
    try:
        where = settings.target(target, job) if isinstance(target, str) else target
        report.facts["target"] = where.name
        if job == DATABASE:
            _database(settings, world, where, report)
        else:
            backup_proof_files.prove(settings, world, where, report)
    except AnchorageError as error:
        report.wrong(error.message)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        # What a damaged repository makes of its tools' answers is not foreseen in every detail, and must be found nevertheless.
        report.wrong(f"the proof could not be led to its end: {type(error).__name__}: {error}")
    return report.ended(now=world.now(), seconds=world.monotonic() - began)


# ---- what is known before anything is restored -----------------------------------------------------------------------


def _answers(live: Live) -> bool:
    return live.psql("SELECT pg_is_in_recovery()", timeout=15).stdout.strip() == "f"


def _names(live: Live) -> list[str]:
    return [row["name"] for row in live.rows("SELECT datname AS name FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")]


def _archived(found: Data) -> str | None:
    """Return the newest segment of WAL at a target."""
    return max((entry["max"] for entry in found["archive"] if entry.get("max")), default=None)


def _point(settings: Settings, world: World, live: Live, target: Target, report: Report) -> str:
    """Set a restore point on the live cluster and see it into the archive. Returns its name.

    :raises AnchorageError: when it does not get there.
    """
    # Recovery ends at the first one of a name, so no two may be called the same, whatever the clock does.
    name = f"anchorage-proof-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(world.now()))}-{world.monotonic() * 1000:.0f}"
    behind = live.execute("SELECT round(extract(epoch FROM now() - last_archived_time)) FROM pg_stat_archiver")
    report.facts["archived_seconds_ago"] = int(behind) if behind else None
    segment = live.execute("SELECT pg_walfile_name(pg_create_restore_point(:'name'))", name=name)
    report.facts["newest"] = world.now()
    live.execute("SELECT pg_switch_wal()")
    end = world.monotonic() + ARCHIVE_SECONDS
    while True:
        newest = _archived(backups(world, settings, target))
        if newest is not None and newest >= segment:
            return name
        if world.monotonic() >= end:
            failed = live.execute("SELECT coalesce(last_failed_wal || ' at ' || last_failed_time, '') FROM pg_stat_archiver")
            raise AnchorageError(
                f"WAL does not reach {target.name}: segment {segment} was not there after {ARCHIVE_SECONDS} s, the newest one is {newest}"
                + (f"; the server could not archive {failed}" if failed else "")
            )
        world.sleep(1)


# ---- the job database ------------------------------------------------------------------------------------------------


def _database(settings: Settings, world: World, target: Target, report: Report) -> None:
    archive = settings.archive
    if archive is None:
        raise AnchorageError("No cluster of this host is archived.")
    limit = float(settings.timeouts["proof_seconds"])
    live = Live(world, archive.port)
    sights: dict[str, Sight] = {}
    point, need = None, 0
    with Scratch(world, archive.version, cluster=archive.cluster, patience=limit) as scratch:
        known = backups(world, settings, target)
        if _answers(live):
            for name in _names(live):
                database = Live(world, archive.port, name)
                ways = backup_compare.ways(database)
                before = backup_compare.counted(database)
                sights[name] = Sight(ways, before, backup_compare.look(database, ways, seconds=limit)[0])
            need = int(live.execute("SELECT sum(pg_database_size(oid)) FROM pg_database"))
            point = _point(settings, world, live, target, report)
            report.say(f"the live cluster was looked at, and marked with {point}")
        else:
            report.say("the live cluster is away, so the copy is judged by itself")
        report.facts.update(backup=known["backup"][-1]["label"], compared=point is not None)
        second = {name: backup_compare.look(Live(world, archive.port, name), sight.ways, seconds=limit)[0] for name, sight in sights.items()}
        after = {name: backup_compare.counted(Live(world, archive.port, name)) for name in sights}
        looked = world.monotonic()
        chosen, ended = _restored(settings, world, target, scratch, report, point, need, limit)
        report.facts["backup"] = chosen["label"]
        if point is None:
            _reaches(known, ended, report, world.now())
        expected = {database.name for database in settings.databases if database.method == "archive" and database.url is None}
        _compared(world, archive.port, scratch, sights, second, after, looked, expected, report, limit)
        _checked(world, scratch, report, limit)
        booted(settings, world, scratch, expected, report)
        size = scratch.psql("postgres", "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")
    _looked_through(settings, world, target, known, int(size), report, limit)


def _restored(
    settings: Settings, world: World, target: Target, scratch: Scratch, report: Report, point: str | None, need: int, limit: float
) -> tuple[Data, Recovered]:
    """Restore and start. An error says as well whether WAL was given up."""
    began = world.monotonic()
    try:
        chosen = scratch.restore(settings, target, name=point, need_bytes=need, seconds=limit)
        ended = scratch.start(limit)
    except AnchorageError as error:
        given_up = (world.read(GAP) or b"").decode(errors="replace").split()
        if given_up:
            error.add(f"WAL was given up on this host since the last full backup ({GAP}); the next full backup closes the gap.")
        raise
    seconds = round(world.monotonic() - began, 1)
    report.facts.update(restored_seconds=seconds, lsn=ended.lsn, timeline=ended.timeline)
    report.say(f"backup {chosen['label']} was restored and recovered in {seconds} s")
    return chosen, ended


def segment_number(lsn: str, size: int = 16 << 20) -> int:
    """Return the number of the segment in which a place of the WAL lies."""
    high, low = lsn.split("/")
    return ((int(high, 16) << 32) | int(low, 16)) // size


def number_of(segment: str, size: int = 16 << 20) -> int:
    """Return the number of a segment by its name, whatever its timeline."""
    return int(segment[8:16], 16) * ((1 << 32) // size) + int(segment[16:24], 16)


def _reaches(known: Data, ended: Recovered, report: Report, now: float) -> None:
    """See that recovery did not end before the archive does: damaged WAL looks like the end of it to PostgreSQL."""
    report.facts["newest"] = ended.newest
    report.facts["age_seconds"] = None if ended.newest is None else round(now - ended.newest)
    newest = _archived(known)
    if newest and ended.lsn and segment_number(ended.lsn) < number_of(newest):
        report.wrong(f"recovery ended at {ended.lsn}, though the archive reaches to segment {newest}: what lies between is missing or damaged")


def _compared(
    world: World,
    port: int,
    scratch: Scratch,
    sights: dict[str, Sight],
    second: dict[str, dict[str, backup_compare.Look]],
    after: dict[str, dict[str, backup_compare.Moved]],
    looked: float,
    expected: set[str],
    report: Report,
    limit: float,
) -> None:
    there = scratch.databases()
    report.facts["databases"] = facts = {}
    for name in sorted(expected | set(sights)):
        if name not in there:
            report.wrong(f"the database {name} is not in the restored cluster")
    for name in there:
        database = scratch.database(name)
        known = sights[name].ways if name in sights else {}
        ways = {table: known.get(table, way) for table, way in backup_compare.ways(database).items()}
        copy, failed = backup_compare.look(database, ways, seconds=limit)
        told: Data = {"tables": len(copy), "rows": sum(one.rows for one in copy.values()), "sampled": sum(len(one.sample) for one in copy.values())}
        facts[name] = told
        if name not in sights:
            told["newest_release"] = _mark(database)
            for table, cause in sorted(failed.items()):
                report.wrong(f"table {table} of {name} cannot be read: {cause}")
            continue
        sight = sights[name]
        found = backup_compare.compare(sight.ways, sight.first, second[name], copy, failed, sight.before, after[name])
        if found.wrong:
            # Perhaps a table has moved, and its counters had not been told yet.
            world.sleep(max(0.0, COUNTERS_SECONDS - (world.monotonic() - looked)))
            later = backup_compare.counted(Live(world, port, name))
            found = backup_compare.compare(sight.ways, sight.first, second[name], copy, failed, sight.before, later)
        told.update(equal=len(found.equal), moving=sorted(found.moving), skipped=sorted(found.skipped))
        for table, cause in sorted(found.wrong.items()):
            report.wrong(f"table {table} of {name}: {cause}")
        report.say(f"{name}: {told['tables']} tables with {told['rows']} rows; {len(found.equal)} equal to the row, {len(found.moving)} in motion")


def booted(settings: Settings, world: World, scratch: Scratch, databases: t.Collection[str], report: Report) -> None:
    """Start the apps that the settings name against their restored databases."""
    wanted = [database.app for database in settings.databases if database.name in databases and database.app in (settings.proof.get("boot") or [])]
    for name in sorted(set(wanted)):
        try:
            found = backup_boot.boot(world, scratch, name)
        except AnchorageError as error:
            report.wrong(f"{name} does not start on the restored data: {error.message}")
            continue
        report.facts.setdefault("booted", {})[name] = found
        report.say(f"{name}: {found['skipped']}, so it was not started" if "skipped" in found else f"{name} runs on the restored data ({found['seconds']} s)")


def _mark(database: Database) -> str | None:
    """Return the release for which a database was migrated last."""
    if database.execute("SELECT to_regclass('anchorage.release') IS NOT NULL") != "t":
        return None
    return database.execute("SELECT app || ' ' || id FROM anchorage.release ORDER BY migrated_at DESC LIMIT 1") or None


def _checked(world: World, scratch: Scratch, report: Report, limit: float) -> None:
    """Read every page of every table and index."""
    command = ["nice", "-n", "10", f"{scratch.programs}/pg_amcheck", "--all", "--install-missing"]
    done = world.run(command, env=scratch.environment, timeout=limit, cwd="/")
    if done.rc == 2:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        report.wrong(f"pg_amcheck found damage in the restored data: {' '.join(said[:2])[:300]}")
    elif done.rc != 0:
        report.facts["amcheck"] = f"not run: {first_line(done.stderr)[:200]}"
    else:
        report.facts["amcheck"] = "clean"


# ---- the repository --------------------------------------------------------------------------------------------------


def missing(segments: t.Iterable[str], size: int, *, first: str) -> list[str]:
    """Return the names of segments that lie between others and are not there, from a segment on.

    A timeline begins where an older one was left, so only what lies within one is judged.
    """
    timelines: dict[str, list[int]] = {}
    for name in segments:
        timelines.setdefault(name[:8], []).append(number_of(name, size))
    gone = []
    each = (1 << 32) // size
    for timeline, numbers in sorted(timelines.items()):
        begin = max(min(numbers), number_of(first, size)) if timeline == first[:8] else min(numbers)
        there = set(numbers)
        gone += [f"{timeline}{number // each:08X}{number % each:08X}" for number in range(begin, max(numbers)) if number not in there]
    return gone


def complaints(text: str) -> list[str]:
    """Return what pgBackRest's verify found wrong, by what it found it in. It ends with 0 all the same."""
    found: dict[str, list[str]] = {}
    within = ""
    for line in text.splitlines():
        words = line.strip()
        if words.startswith(("archiveId:", "backup:")):
            within = words.split(",")[0]
        if "status: invalid" in words:
            found.setdefault(within, [])
        counts = re.findall(r"(missing|checksum invalid|size invalid|other): ([1-9]\d*)", words)
        if counts:
            found.setdefault(within, []).extend(f"{number} {kind}" for kind, number in counts)
    return [f"{name}: {', '.join(counts) or 'invalid'}" for name, counts in found.items()]


def _looked_through(settings: Settings, world: World, target: Target, known: Data, size: int, report: Report, limit: float) -> None:
    """See that all WAL since the oldest backup is there, and that every file at the target is what it was, as far as that is not too much to read."""
    archive = t.cast("t.Any", settings.archive)
    listed = pgbackrest(world, settings, target, "repo-ls", f"archive/{archive.stanza}", "--recurse", "--filter=[0-9A-F]{24}-", seconds=limit)
    if listed.rc != 0:
        report.wrong(f"the archive at {target.name} cannot be listed: {complaint(listed)}")
    else:
        segments = ["".join(found.groups()) for found in SEGMENT.finditer(listed.stdout)]
        gone = missing(segments, size, first=known["backup"][0]["archive"]["start"])
        report.facts.update(segments=len(segments), gaps=gone[:20])
        newest = max((entry["archive"]["start"] for entry in known["backup"] if entry.get("type") == "full"), default="")
        if any(name[8:] >= newest[8:] for name in gone):
            report.wrong(f"{len(gone)} segments of WAL are missing at {target.name}, so no moment between is to be had: {', '.join(gone[:5])}")
        elif gone:
            # It was told when it happened, and a full backup has been taken since; it stays so until that time is too old to be kept.
            report.say(f"{len(gone)} segments of WAL before the newest full backup are missing, so no moment between is to be had: {', '.join(gone[:5])}")
    weight = sum(int(entry["info"]["repository"].get("delta") or 0) for entry in known["backup"])
    if target.away and weight > VERIFY_BYTES:
        report.facts["verified"] = f"not the whole repository: {weight >> 20} MiB behind a network"
        return
    found = _verify(settings, world, target, limit)
    if found:
        # Perhaps a backup that was under way removed something old meanwhile.
        _quiet(settings, world, target)
        found = _verify(settings, world, target, limit)
    if found:
        report.wrong(f"files at {target.name} are damaged: {'; '.join(found[:3])}")
    report.facts["verified"] = "damaged" if found else "clean"


def _verify(settings: Settings, world: World, target: Target, limit: float) -> list[str]:
    done = pgbackrest(world, settings, target, "--output=text", "verify", seconds=limit)
    if done.rc != 0:
        return [f"pgBackRest said: {complaint(done)}"]
    return complaints(done.stdout) or (["pgbackrest verify says so"] if "status: error" in done.stdout else [])


def _quiet(settings: Settings, world: World, target: Target) -> None:
    """Wait until no backup is under way, for a while."""
    end = world.monotonic() + QUIET_SECONDS
    while backups(world, settings, target)["status"].get("lock", {}).get("backup", {}).get("held") and world.monotonic() < end:
        world.sleep(5)
