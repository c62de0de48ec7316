# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine itself: room, memory, load, clock, units, kernel, open ports, and what the last backup left behind.

All of it is read from /proc, the file systems and systemd; nothing is written and nothing but systemctl and timedatectl is run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing as t

from . import rotation, secret_store
from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, joined, judge, judge_limit, poll, verdict
from .processes import command_line, listeners
from .world import World

KIB, MIB = 1024, 1048576
HOUR, DAY = 3600.0, 86400.0

#: Seconds after which a rotation of secrets that is not finished counts as forgotten.
ROTATION_SECONDS = HOUR

CONTAINER = "/run/systemd/container"
REBOOT_FILES = ("/run/reboot-required", "/var/run/reboot-required")


class HostWorld(World):
    """The world, with what a machine's state needs of it besides."""

    def statvfs(self, path: str) -> os.statvfs_result | None:
        """Return the figures of a path's file system, or None where the path is not there."""
        try:
            return os.statvfs(path)
        except OSError:
            return None

    def cores(self) -> int:
        """Return the processors this machine may use."""
        return len(os.sched_getaffinity(0)) or 1

    def kernel(self) -> str:
        """Return the release of the kernel that runs."""
        return os.uname().release


@dataclasses.dataclass(frozen=True)
class Backup:
    """The result file that a backup writes, and how old it may be."""

    name: str
    path: str
    max_age_hours: float = 26
    max_proof_age_days: float | None = None


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a healthy machine looks like; a limit that is None is not judged."""

    paths: t.Sequence[str] = ("/",)
    disk_warn_percent: float = 80
    disk_fail_percent: float = 92
    inodes_warn_percent: float = 80
    inodes_fail_percent: float = 92
    memory_warn_percent: float = 90
    memory_fail_percent: float = 97
    swap_warn_percent: float | None = 60
    load_warn_per_core: float | None = 3
    controller_time: float | None = None
    max_clock_skew_seconds: float = 60
    clock_synchronised: str = WARN
    failed_units: str = FAIL
    ignored_units: t.Sequence[str] = ()
    reboot: str = WARN
    allowed_ports: t.Sequence[int] | None = None
    unexpected_ports: str = FAIL
    backups: t.Sequence[Backup] = ()


# ---- room ------------------------------------------------------------------------------------------------------------


def judge_room(world: HostWorld, wanted: Expectation) -> list[Check]:
    """Judge the file systems of the wanted paths, each file system once; what only root may use counts as used, as df does."""
    checks = []
    known: set[t.Any] = set()
    for path in wanted.paths:
        found = world.statvfs(path)
        if found is None:
            checks.append(Check(f"disk:{path}", FAIL, {"path": path}, f"{path} is not there", "the mounts of this host (findmnt)"))
            continue
        # Two mounts of one file system tell the same figures, and there is no better identity that needs no mount table.
        figures = (found.f_fsid, found.f_blocks, found.f_bfree, found.f_files)
        if figures in known:
            continue
        known.add(figures)
        free = found.f_bavail * found.f_frsize
        size = (found.f_blocks - found.f_bfree) * found.f_frsize + free
        used = round(100 * (1 - free / size), 1) if size else 0.0
        checks.append(
            judge_limit(
                f"disk:{path}",
                used,
                unit="%",
                subject=f"the share of the disk in use at {path} ({free // MIB} MB are free)",
                warn=wanted.disk_warn_percent,
                fail=wanted.disk_fail_percent,
                evidence={"free_mb": free // MIB, "size_mb": size // MIB},
                advice=f"what fills it: du -xh --max-depth=2 {path} | sort -h | tail",
            )
        )
        if found.f_files:  # a file system without a table of inodes, such as btrfs, says 0
            checks.append(
                judge_limit(
                    f"inodes:{path}",
                    round(100 * (1 - found.f_favail / found.f_files), 1),
                    unit="%",
                    subject=f"the share of the inodes in use at {path}",
                    warn=wanted.inodes_warn_percent,
                    fail=wanted.inodes_fail_percent,
                    evidence={"free": found.f_favail, "all": found.f_files},
                    advice=f"which directory holds the many files: du -x --inodes --max-depth=2 {path} | sort -n | tail",
                )
            )
    return checks


# ---- memory and load -------------------------------------------------------------------------------------------------


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo in bytes."""
    return {found.group(1): int(found.group(2)) * KIB for found in re.finditer(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def judge_memory(world: World, wanted: Expectation) -> list[Check]:
    """Judge what programs could still get, and how much of the swap is in use."""
    info = parse_meminfo(_text(world, "/proc/meminfo"))
    if not info.get("MemTotal"):
        return [Check("memory", FAIL, {}, "/proc/meminfo says nothing of the memory", "whether /proc is mounted")]
    total, available = info["MemTotal"], info.get("MemAvailable", info.get("MemFree", 0))
    checks = [
        judge_limit(
            "memory",
            round(100 * (1 - available / total), 1),
            unit="%",
            subject=f"the share of the memory in use ({available // MIB} of {total // MIB} MB are left)",
            warn=wanted.memory_warn_percent,
            fail=wanted.memory_fail_percent,
            evidence={"available_mb": available // MIB, "total_mb": total // MIB},
            advice="what uses it: ps -eo rss,pid,args --sort=-rss | head",
        )
    ]
    swap = info.get("SwapTotal", 0)
    if swap:
        free = info.get("SwapFree", 0)
        checks.append(
            judge_limit(
                "swap",
                round(100 * (1 - free / swap), 1),
                unit="%",
                subject=f"the share of the swap in use ({free // MIB} of {swap // MIB} MB are left)",
                warn=wanted.swap_warn_percent,
                evidence={"free_mb": free // MIB, "total_mb": swap // MIB},
                advice="what was pushed out, and whether memory is short: vmstat 1 5",
            )
        )
    return checks


def judge_load(world: HostWorld, wanted: Expectation) -> Check:
    """Judge the load of the last five minutes for each core."""
    words = _text(world, "/proc/loadavg").split()
    cores = world.cores()
    try:
        averages = [float(word) for word in words[:3]]
        five = averages[1]
    except (ValueError, IndexError):
        return Check("load", FAIL, {}, "/proc/loadavg says nothing", "whether /proc is mounted")
    return judge_limit(
        "load",
        round(five / cores, 2),
        unit="per core",
        subject=f"the load of the last five minutes ({five:g} on {cores} core{'s' if cores > 1 else ''})",
        warn=wanted.load_warn_per_core,
        evidence={"averages": averages, "cores": cores},
        advice="what runs: top -bn1 | head -20",
    )


# ---- clock -----------------------------------------------------------------------------------------------------------


def judge_clock(world: World, wanted: Expectation, seconds: float) -> list[Check]:
    """Judge whether something keeps the clock right, and how far it is from the controller's."""
    checks = []
    if wanted.controller_time is not None:
        skew = round(world.now() - wanted.controller_time, 1)
        direction = "ahead of" if skew > 0 else "behind"
        checks.append(
            judge(
                "clock",
                abs(skew) <= wanted.max_clock_skew_seconds,
                evidence={"skew_seconds": skew, "max_clock_skew_seconds": wanted.max_clock_skew_seconds},
                cause=f"the clock is {abs(skew):g} s {direction} the controller's, the limit is {wanted.max_clock_skew_seconds:g} s",
                advice="timedatectl; tokens and certificates fail on a wrong clock",
            )
        )
    if world.exists(CONTAINER):  # it has the clock of the machine that it runs on, and may not set it
        return checks
    facts = _properties(world, ["timedatectl", "show", "--property=NTP,NTPSynchronized"], seconds)
    told = "the clock is not synchronised yet" if facts.get("NTP") == "yes" else "nothing synchronises the clock"
    checks.append(
        judge(
            "clock_source",
            facts.get("NTPSynchronized") == "yes",
            evidence=facts,
            cause=told if facts else "timedatectl does not say whether the clock is synchronised",
            advice="timedatectl; systemctl status systemd-timesyncd, and whether UDP port 123 is open outwards",
            severity=wanted.clock_synchronised,
        )
    )
    return checks


# ---- units and kernel ------------------------------------------------------------------------------------------------


def judge_units(world: World, wanted: Expectation, seconds: float) -> Check:
    """Judge whether systemd counts any unit as failed."""
    done = world.run(["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--full", "--all"], timeout=seconds)
    if done.rc != 0:
        return Check("units", FAIL, {"rc": done.rc}, f"systemd does not say which units failed ({done.stderr.strip()[-200:] or done.rc})", "systemctl")
    names = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    failed = [name for name in names if name not in wanted.ignored_units]
    evidence = {"failed": failed, "ignored": sorted(set(names) - set(failed))}
    cause = f"systemd counts {len(failed)} unit{'s' if len(failed) != 1 else ''} as failed: {', '.join(failed[:8])}"
    advice = f"systemctl status {failed[0]}; journalctl -u {failed[0]}" if failed else ""
    return judge("units", not failed, evidence=evidence, cause=cause, advice=advice, severity=wanted.failed_units)


def _natural(text: str) -> list[t.Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _flavour(release: str) -> str:
    """Return what is not a number at the end of a kernel's release, such as -cloud-amd64."""
    return re.sub(r"^[0-9.]+(?:[-+~](?:deb|bpo|rc|ubuntu|rpt)?[0-9][0-9a-z.+~]*)*", "", release)


def judge_reboot(world: HostWorld, wanted: Expectation) -> Check:
    """Judge whether an update waits for a reboot: somebody left a note, or a newer kernel of the same flavour is installed."""
    running = world.kernel()
    reasons = []
    if any(world.exists(path) for path in REBOOT_FILES):
        packages = sorted({line for path in REBOOT_FILES for line in _text(world, f"{path}.pkgs").split()})
        reasons.append(f"an update asked for it ({', '.join(packages[:6])})" if packages else "an update asked for it")
    installed = [name[len("vmlinuz-") :] for name in world.listdir("/boot") if name.startswith("vmlinuz-")]
    newer = sorted((name for name in installed if _flavour(name) == _flavour(running) and _natural(name) > _natural(running)), key=_natural)
    if newer:
        reasons.append(f"the kernel {newer[-1]} is installed and {running} runs")
    evidence = {"kernel": running, "installed": installed, "reasons": reasons}
    advice = "a reboot at a good moment (rolling_upgrade.yml where there are several hosts)"
    return judge("reboot", not reasons, evidence=evidence, cause=f"the host waits for a reboot: {'; '.join(reasons)}", advice=advice, severity=wanted.reboot)


# ---- ports -----------------------------------------------------------------------------------------------------------


def judge_open_ports(world: World, wanted: Expectation) -> list[Check]:
    """Judge whether anything listens (TCP) beyond loopback on a port that is not on the list."""
    if wanted.allowed_ports is None:
        return []
    open_ports: dict[int, set[str]] = {}
    for item in listeners(world):
        if not item.loopback:
            names = {(command_line(world, pid) or "?").split(" ")[0].rpartition("/")[2] or "?" for pid in item.pids}
            open_ports.setdefault(item.port, set()).update(names)
    strangers = {port: sorted(names) for port, names in sorted(open_ports.items()) if port not in wanted.allowed_ports}
    told = ", ".join(f"{port} ({'/'.join(names) or 'unknown'})" for port, names in strangers.items())
    evidence = {"open": sorted(open_ports), "allowed": sorted(wanted.allowed_ports), "unexpected": {str(key): value for key, value in strangers.items()}}
    advice = "bind it to 127.0.0.1, or add it to the allowed ports; whether the firewall closes it: nft list ruleset"
    return [judge("ports", not strangers, evidence=evidence, cause=f"beyond loopback listens: {told}", advice=advice, severity=wanted.unexpected_ports)]


# ---- backups ---------------------------------------------------------------------------------------------------------


def judge_backup(world: World, backup: Backup) -> list[Check]:
    """Judge the result file of a backup: JSON with C(finished) (seconds since the epoch), C(ok), C(cause), and C(proof) with the same."""
    name, advice = f"backup:{backup.name}", f"the backup's log: journalctl -u '*backup*'; {backup.path}"
    raw = world.read(backup.path)
    if raw is None:
        return [Check(name, FAIL, {"path": backup.path}, f"there was no backup yet ({backup.path} is missing)", advice)]
    try:
        told = json.loads(raw)
        finished = float(told["finished"])
        good = told["ok"] is True
        proof = told.get("proof")
        proven, proof_good = (float(proof["finished"]), proof["ok"] is True) if proof else (None, False)
    except (ValueError, TypeError, KeyError) as error:
        return [Check(name, FAIL, {"path": backup.path}, f"the result file {backup.path} cannot be read ({type(error).__name__}: {error})", advice)]
    age = round((world.now() - finished) / HOUR, 1)
    wrong = []
    if not good:
        wrong.append(f"the last backup failed {age:g} h ago" + (f" ({told['cause']})" if told.get("cause") else ""))
    elif age > backup.max_age_hours:
        wrong.append(f"the last backup is {age:g} h old, the limit is {backup.max_age_hours:g} h")
    facts = {"age_hours": age, "max_age_hours": backup.max_age_hours, "ok": good, **{key: told.get(key) for key in ("bytes", "seconds")}}
    checks = [judge(name, not wrong, evidence=facts, cause="; ".join(wrong), advice=advice)]
    if backup.max_proof_age_days is not None:
        days = None if proven is None else round((world.now() - proven) / DAY, 1)
        if days is None:
            cause = "no restore of it was ever proven"
        elif not proof_good:
            cause = f"the last proof of a restore failed {days:g} days ago"
        else:
            cause = f"the last proof of a restore is {days:g} days old, the limit is {backup.max_proof_age_days:g}"
        proven_in_time = days is not None and proof_good and days <= backup.max_proof_age_days
        evidence = {"age_days": days, "max_age_days": backup.max_proof_age_days, "ok": proof_good}
        checks.append(judge(f"backup_proof:{backup.name}", proven_in_time, evidence=evidence, cause=cause, advice=advice))
    return checks


# ---- what was begun and not ended --------------------------------------------------------------------------------------


def judge_rotations(world: World) -> list[Check]:
    """Judge rotations of secrets that were begun on this host: one that was cut off leaves the old ones accepted. Those that have ended say nothing."""
    checks = []
    try:
        begun = secret_store.under_way(world)
    except PermissionError:  # only root may look there; the rest of the host's health is for everybody
        return []
    for app, pending in begun.items():
        path = secret_store.state_path(app)
        if pending is None:
            checks.append(Check(f"rotation:{app}", FAIL, {"path": path}, f"{path} cannot be read", "its copy in the backup"))
            continue
        age = world.now() - float(pending["began_at"])
        evidence = {"age_seconds": round(age), "limit_seconds": ROTATION_SECONDS}
        told = rotation.describe(app, {"pending": pending}, world.now())
        advice = f"rotate_secrets.yml -e app={app}, which goes on where it was"
        checks.append(judge(f"rotation:{app}", age <= ROTATION_SECONDS, evidence=evidence, cause=told, advice=advice, severity=WARN))
    return checks


# ---- the probe -------------------------------------------------------------------------------------------------------


def _text(world: World, path: str) -> str:
    try:
        return (world.read(path) or b"").decode("utf-8", "replace")
    except OSError:
        return ""


def _properties(world: World, argv: list[str], seconds: float) -> dict[str, str]:
    done = world.run(argv, timeout=seconds)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)


def probe(world: HostWorld, wanted: Expectation, *, seconds: float) -> list[Check]:
    """Look once and judge."""
    return [
        *judge_room(world, wanted),
        *judge_memory(world, wanted),
        judge_load(world, wanted),
        *judge_clock(world, wanted, seconds),
        judge_units(world, wanted, seconds),
        judge_reboot(world, wanted),
        *judge_open_ports(world, wanted),
        *judge_rotations(world),
        *[check for backup in wanted.backups for check in judge_backup(world, backup)],
    ]


def refuse_nonsense(wanted: Expectation) -> None:
    """Fail before anything is looked at when the question itself is wrong."""
    for name in ("disk", "inodes", "memory"):
        warn, fail = getattr(wanted, f"{name}_warn_percent"), getattr(wanted, f"{name}_fail_percent")
        if not 0 < warn <= fail <= 100:
            raise AnchorageError(f"0 < {name}_warn_percent <= {name}_fail_percent <= 100 must hold, not {warn:g} and {fail:g}.")
    if not wanted.paths:
        raise AnchorageError("paths must have at least one path.")


def check(
    wanted: Expectation,
    *,
    world: HostWorld,
    timeout_seconds: float = 10.0,
    deadline_seconds: float = 10.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Look until it is proven or the deadline is over."""
    refuse_nonsense(wanted)
    watch = poll(
        lambda seconds: probe(world, wanted, seconds=min(seconds, timeout_seconds)),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    facts = {item.name: item.evidence for item in watch.checks}
    disks = [item.evidence["value"] for item in watch.checks if item.name.startswith("disk:") and "value" in item.evidence]
    words = (
        f"disk {max(disks):g} %" if disks else "",
        f"memory {facts['memory']['value']:g} %" if "value" in facts["memory"] else "",
        f"load {facts['load']['averages'][1]:g}" if "averages" in facts["load"] else "",
    )
    return verdict("The host", watch, good=joined(words, ", "), extra={"kernel": world.kernel()})
