# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove the newest snapshot of files: its dumps are restored into a throw-away PostgreSQL, its Redis data are read, its files are compared.

The repository is read without a lock and without restic's cache, which would answer in the place of what is broken.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import socket
import stat
import typing as t

from .backup_report import Report
from .backup_settings import DIRECTORY, DUMP, FILES, Settings, Target
from .database import first_line
from .encoders import sql_literal
from .errors import AnchorageError
from .room import Amount, Full, mount_point, supply
from .scratch_cluster import ENVIRONMENT, Scratch, ScratchDatabase
from .world import Completed, World

STAGE = f"{DIRECTORY}/stage"
PLACE = f"{DIRECTORY}/scratch-files"
SERVERS = "/usr/lib/postgresql"

#: A repository is read whole up to this size, and else a part of it of this size, another one each time.
READ_BYTES = {True: 2 << 30, False: 64 << 30}

#: How long to wait for somebody who works on the repository before what looks damaged is looked at again.
QUIET_SECONDS = 900

#: Files outside the stage that are brought back, and how much in all.
SAMPLE_FILES, SAMPLE_BYTES = 60, 64 << 20

#: restic says so before it says what is wrong.
_NOISE = re.compile(r"^(repository |created new cache|using temporary cache|load indexes|\[\d+:\d+\]|create exclusive lock|check |read |no errors)")

#: Names of tables as a dump's manifest has them.
NAMES = (
    "SELECT n.nspname || '.' || c.relname AS name, format('%I.%I', n.nspname, c.relname) AS quoted"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"
)

Data = dict[str, t.Any]


def prove(settings: Settings, world: World, target: Target, report: Report) -> None:
    """Prove it; what is wrong goes into the report.

    :raises AnchorageError: when there is nothing to go on with.
    """
    limit = float(settings.timeouts["proof_seconds"])
    try:
        found = _newest(settings, world, target)
        report.facts.update(backup=found["id"][:8], newest=found["at"], age_seconds=round(world.now() - found["at"]))
    finally:
        # Also where there is no snapshot to be had: it says more about why.
        _read(settings, world, target, report, limit)
    listed = _listed(settings, world, target, found["id"], limit)
    with _place(world) as place:
        sample = chosen(listed)
        wanted = {path: entry for path, entry in listed.items() if path.startswith(f"{STAGE}/")}
        _require(sum(int(entry.get("size") or 0) for entry in [*wanted.values(), *sample.values()]))
        _bring_back(settings, world, target, found["id"], [STAGE, *sample], place, limit)
        manifest = _manifest(world, f"{place}{STAGE}/manifest.json")
        _files(place, sample, report)
        dumps = _staged(settings, target, place, manifest, report)
        _redis(world, place, manifest, report)
        if dumps:
            _databases(settings, world, dumps, manifest, report, limit)


# ---- restic ----------------------------------------------------------------------------------------------------------


def restic(settings: Settings, world: World, target: Target, *words: str, seconds: float) -> Completed:
    """Run restic so that it reads what lies at the target, and writes nothing there."""
    argv, environment = settings.restic(target)
    return world.run(["nice", "-n", "10", *argv, "--no-lock", "--no-cache", *words], env=environment, cwd="/", timeout=seconds)


def complaint(done: Completed) -> str:
    """Return in a line what restic said was wrong."""
    if done.rc == 124:
        return "it took too long"
    lines = []
    for line in f"{done.stderr}\n{done.stdout}".splitlines():
        words = line.strip()
        with contextlib.suppress(ValueError, AttributeError):
            told = json.loads(words)
            words = str(told.get("message") or (told.get("error") or {}).get("message") or "")
        if words and not _NOISE.match(words):
            lines.append(words)
    if any("wrong password or no key found" in line for line in lines):
        return "the key of this host does not open it (wrong password or no key found)"
    worse = [line for line in lines if re.search(r"error|fatal|fail|invalid|not found|no such|damaged|missing|mismatch|ciphertext", line, re.IGNORECASE)]
    said = (worse or lines or [f"code {done.rc}"])[:2]
    return "; ".join(line.removeprefix("Fatal: ").rstrip(".") for line in said)[:400]


def _newest(settings: Settings, world: World, target: Target) -> Data:
    done = restic(settings, world, target, "snapshots", "--json", "--latest=1", f"--tag={FILES}", f"--host={socket.gethostname()}", seconds=600)
    if done.rc != 0:
        raise AnchorageError(f"the repository {target.name} cannot be read: restic said: {complaint(done)}")
    found = json.loads(done.stdout or "null") or []
    if not found:
        raise AnchorageError(f"the repository {target.name} holds no snapshot of this host")
    newest = max(found, key=lambda entry: entry["time"])
    return {"id": newest["id"], "at": moment(newest["time"])}


def moment(text: str) -> float:
    """Return a time of restic's, which has nanoseconds, in seconds since the epoch."""
    whole = re.sub(r"(\.\d{6})\d*", r"\1", re.sub(r"\.(\d{1,5})(?=[Z+-])", lambda found: f".{found.group(1):0<6}", text)).replace("Z", "+00:00")
    return datetime.datetime.fromisoformat(whole).timestamp()


def _read(settings: Settings, world: World, target: Target, report: Report, limit: float) -> None:
    """Read all packs, or a part of them where that is much, and see that they are what their names say."""
    weighed = restic(settings, world, target, "stats", "--json", "--mode=raw-data", seconds=limit)
    try:
        size = int(json.loads(weighed.stdout.splitlines()[-1])["total_size"])
    except (ValueError, KeyError, IndexError, TypeError):
        size = 0
    part = size > READ_BYTES[target.away]
    words = f"--read-data-subset={READ_BYTES[target.away] >> 20}M" if part else "--read-data"
    done = restic(settings, world, target, "check", words, seconds=limit)
    if done.rc != 0:
        # Without a lock, a run that removes what is old looks like damage while it lasts.
        _quiet(settings, world, target)
        done = restic(settings, world, target, "check", words, seconds=limit)
    if done.rc != 0:
        report.wrong(f"the repository {target.name} is damaged: restic said: {complaint(done)}")
    report.facts.update(read="part" if part else "whole", read_bytes=min(size, READ_BYTES[target.away]))


def _quiet(settings: Settings, world: World, target: Target) -> None:
    """Wait until nobody works on the repository, for a while."""
    end = world.monotonic() + QUIET_SECONDS
    while world.monotonic() < end:
        done = restic(settings, world, target, "list", "locks", seconds=120)
        if done.rc != 0 or not done.stdout.strip():
            return
        world.sleep(5)


def _listed(settings: Settings, world: World, target: Target, snapshot: str, limit: float) -> dict[str, Data]:
    """Return the regular files of a snapshot."""
    done = restic(settings, world, target, "ls", "--json", snapshot, seconds=limit)
    if done.rc != 0:
        raise AnchorageError(f"the snapshot {snapshot[:8]} cannot be listed: restic said: {complaint(done)}")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    return {entry["path"]: entry for entry in entries if entry.get("type") == "file"}


def chosen(listed: t.Mapping[str, Data]) -> dict[str, Data]:
    """Return files to bring back: spread over all paths, not too large, the same ones for the same snapshot."""
    paths = sorted(path for path in listed if not path.startswith(f"{STAGE}/"))
    step = max(1, len(paths) // SAMPLE_FILES)
    found: dict[str, Data] = {}
    left = SAMPLE_BYTES
    for path in paths[::step][:SAMPLE_FILES]:
        size = int(listed[path].get("size") or 0)
        if size <= left:
            found[path] = listed[path]
            left -= size
    return found


def escaped(path: str) -> str:
    """Return a path as a pattern of restic that means just it."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path)


def _bring_back(settings: Settings, world: World, target: Target, snapshot: str, paths: t.Sequence[str], place: str, limit: float) -> None:
    words = [f"--include={escaped(path)}" for path in paths]
    done = restic(settings, world, target, "restore", snapshot, f"--target={place}", "--verify", *words, seconds=limit)
    if done.rc != 0:
        raise AnchorageError(f"the snapshot {snapshot[:8]} cannot be restored: restic said: {complaint(done)}")


# ---- what came back --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _place(world: World) -> t.Iterator[str]:
    """Give a directory that is gone afterwards. What a killed proof left goes first."""
    world.run(["rm", "-rf", "--one-file-system", "--", PLACE], timeout=3600)
    world.make_directory(PLACE, mode=0o700)
    try:
        yield PLACE
    finally:
        world.run(["rm", "-rf", "--one-file-system", "--", PLACE], timeout=3600)


def _require(size: int) -> None:
    need, have = Amount(size + size // 10 + (64 << 20), None), Amount(supply(PLACE).bytes, None)
    if have.bytes < need.bytes:
        raise Full(f"The proof needs {need} in {PLACE}, and {have} are free on {mount_point(PLACE)}", what="room on the disk")


def weighed(path: str) -> tuple[int, str]:
    """Return size and digest of a file."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _manifest(world: World, path: str) -> Data:
    raw = world.read(path)
    if raw is None:
        raise AnchorageError("the snapshot has no manifest.json, so nobody knows what was to be in it")
    try:
        found = json.loads(raw)
        if not (isinstance(found["databases"], dict) and isinstance(found["redis"], dict)):
            raise TypeError("no mapping")
    except (ValueError, KeyError, TypeError) as error:
        raise AnchorageError(f"the snapshot's manifest.json is damaged ({type(error).__name__}: {error})") from error
    return t.cast("Data", found)


def _files(place: str, sample: t.Mapping[str, Data], report: Report) -> None:
    """See that the sample came back, and is what lies on the host where that has not changed since."""
    same = 0
    for path, entry in sample.items():
        back = f"{place}{path}"
        if not os.path.lexists(back):
            report.wrong(f"{path} did not come back")
            continue
        if os.lstat(back).st_size != int(entry.get("size") or 0):
            report.wrong(f"{path} came back with {os.lstat(back).st_size} bytes, and {entry.get('size')} were saved")
            continue
        with contextlib.suppress(OSError):
            live = os.lstat(path)
            unchanged = stat.S_ISREG(live.st_mode) and live.st_size == entry.get("size") and abs(live.st_mtime - moment(entry["mtime"])) < 0.001
            # Its ctime tells whether somebody wrote and set the old time again.
            if unchanged and live.st_ctime <= moment(entry.get("ctime") or entry["mtime"]) + 0.001:
                if weighed(path) != weighed(back):
                    report.wrong(f"{path} came back with other bytes than the file on the host has, which has not changed since")
                else:
                    same += 1
    report.facts["files"] = {"brought_back": len(sample), "equal_to_live": same}


def _staged(settings: Settings, target: Target, place: str, manifest: Data, report: Report) -> dict[str, str]:
    """See that dumps and Redis data are there and are what the manifest says. Returns the dumps that are."""
    wanted = {
        "databases": {database.name for database in settings.databases if database.method == DUMP or settings.dumped(target)},
        "redis": {redis.name for redis in settings.redis},
    }
    dumps = {}
    for kind, ending in (("databases", "dump"), ("redis", "rdb")):
        for name in sorted(wanted[kind] - set(manifest[kind])):
            report.wrong(f"the manifest does not know {kind}/{name}, which is to be backed up")
        for name, told in sorted(manifest[kind].items()):
            path = f"{place}{STAGE}/{kind}/{name}.{ending}"
            if not os.path.isfile(path):
                report.wrong(f"{kind}/{name}.{ending} is missing in the snapshot")
                continue
            size, digest = weighed(path)
            if (size, digest) != (told.get("bytes"), told.get("sha256")):
                report.wrong(f"{kind}/{name}.{ending} is not what the manifest says: {size} bytes for {told.get('bytes')}, or another sha256")
            elif kind == "databases":
                dumps[name] = path
    return dumps


def keys(text: str) -> int | None:
    """Return how many keys redis-check-rdb has read."""
    found = re.search(r"(\d+) keys read", text)
    return int(found.group(1)) if found else None


def _redis(world: World, place: str, manifest: Data, report: Report) -> None:
    report.facts["redis"] = facts = {}
    for name, told in sorted(manifest["redis"].items()):
        path = f"{place}{STAGE}/redis/{name}.rdb"
        if not os.path.isfile(path):
            continue
        done = world.run(["redis-check-rdb", path], env=ENVIRONMENT, timeout=1800)
        if done.rc != 0:
            errors = [line for line in done.stdout.splitlines() if "ERROR" in line or "error" in line]
            report.wrong(f"the Redis data of {name} cannot be read: {(errors or [first_line(done.stderr or done.stdout)])[0].strip()[:200]}")
            continue
        facts[name] = keys(done.stdout)
        if told.get("keys") is not None and facts[name] != told["keys"]:
            report.wrong(f"the Redis data of {name} hold {facts[name]} keys, and {told['keys']} were saved")
    if facts:
        report.say(f"Redis: {', '.join(f'{name} {count} keys' for name, count in facts.items())}")


# ---- dumps -----------------------------------------------------------------------------------------------------------


def server(settings: Settings, world: World) -> str | None:
    """Return the newest PostgreSQL server that is installed on this host; None where there is none."""
    found = [int(name) for name in world.listdir(SERVERS) if name.isdigit() and world.exists(f"{SERVERS}/{name}/bin/postgres")]
    return str(max(found)) if found else None


def _databases(settings: Settings, world: World, dumps: dict[str, str], manifest: Data, report: Report, limit: float) -> None:
    version = server(settings, world)
    report.facts["databases"] = facts = {}
    older = {name for name in dumps if int(manifest["databases"][name].get("server") or 0) > int(version or 0)}
    for name, path in dumps.items():
        if version is None or name in older:
            # No server here that could take it: at least all of it is read.
            done = world.run(["nice", "-n", "10", "pg_restore", "--file=/dev/null", path], env=ENVIRONMENT, timeout=limit)
            if done.rc != 0:
                report.wrong(f"the dump of {name} cannot be read: {first_line(done.stderr)[:300]}")
            facts[name] = {"restored": False}
            report.say(f"{name}: its dump was read, not restored: this host has no server for it")
    restorable = {name: path for name, path in dumps.items() if name not in facts}
    if not restorable or version is None:
        return
    cluster = settings.archive.cluster if settings.archive else "main"
    with Scratch(world, version, cluster=cluster, patience=limit) as scratch:
        scratch.initialise(need_bytes=sum(os.stat(path).st_size for path in restorable.values()) * 2)
        scratch.start(120)
        for name, path in sorted(restorable.items()):
            began = world.monotonic()
            told = _loaded(world, scratch, name, path, manifest["databases"][name], report, limit)
            if told:
                facts[name] = {**told, "seconds": round(world.monotonic() - began, 1)}


def _loaded(world: World, scratch: Scratch, name: str, path: str, wanted: Data, report: Report, limit: float) -> Data | None:
    """Load a dump and compare its tables with what the manifest says."""
    scratch.psql("postgres", 'CREATE DATABASE :"name" TEMPLATE template0', name=name)
    database = scratch.database(name)
    command = ["nice", "-n", "10", "pg_restore", "--no-owner", "--no-acl", "--exit-on-error", f"--dbname={name}", path]
    done = world.run(command, env=database.environment, timeout=limit)
    if done.rc != 0:
        cause = "it took too long" if done.rc == 124 else first_line(done.stderr)[:300]
        report.wrong(f"the dump of {name} cannot be restored: {cause}")
        return None
    found = _counted(database)
    tables = t.cast("dict[str, int]", wanted.get("tables") or {})
    if not tables and found:
        report.wrong(f"the manifest does not say which tables {name} had")
    for table, rows in sorted(tables.items()):
        if table not in found:
            report.wrong(f"table {table} is missing in the dump of {name}")
        elif found[table] != rows:
            report.wrong(f"table {table} of {name} has {found[table]} rows, and {rows} were saved")
    report.say(f"{name}: its dump was restored: {len(found)} tables with {sum(found.values())} rows")
    return {"restored": True, "tables": len(found), "rows": sum(found.values())}


def _counted(database: ScratchDatabase) -> dict[str, int]:
    """Return the rows of each table."""
    tables = database.rows(f"{NAMES} AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'")
    script = "".join(f"SELECT json_build_array({sql_literal(row['name'])}, count(*)) FROM {row['quoted']};\n" for row in tables)
    text = database.execute(script, timeout=3600) if tables else ""
    return dict(json.loads(line) for line in text.splitlines())
