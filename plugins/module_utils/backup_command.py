# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""C(anchorage backup): what systemd's timers run, and what people ask."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import typing as t

from . import backup_apart, backup_former, backup_list, backup_proofs, backup_results, backup_run, backup_settings
from .app import Log
from .errors import AnchorageError
from .world import World

Data = dict[str, t.Any]

#: What systemd tells those that it runs after a unit of how that ended.
SERVICE_RESULT = "SERVICE_RESULT"

#: Whether systemd runs this, and how long such a run waits for another one, in seconds.
INVOCATION_ID, PATIENCE = "INVOCATION_ID", 3600

PROOF = "anchorage-backup-proof.service"


def add_parser(commands: t.Any) -> None:
    """Add the command to those of C(anchorage)."""
    top = commands.add_parser("backup", help="back up, prove a backup by restoring it, say what there is")
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="back up now")
    run.add_argument("job", nargs="*", help="database, files or apart; all of this host where none is named")
    run.add_argument("--due", action="store_true", help="only what has no good backup that is young enough, and prove what was never proven")
    run.add_argument("--units", action="store_true", help="through systemd's units, which go on where this command ends")
    run.add_argument("--anew", action="store_true", help="make a repository where the one that was there is lost")
    run.add_argument("--full", action="store_true", help="a full backup of the cluster, whatever there is")
    run.add_argument("--json", action="store_true")
    prove = verbs.add_parser("prove", help="restore the newest backup beside everything, and compare")
    prove.add_argument("job", nargs="*", help="database, files or apart; all of this host where none is named")
    prove.add_argument("--target", help="where it is taken from; every target where none is named")
    prove.add_argument("--json", action="store_true")
    listing = verbs.add_parser("list", help="the backups at each target")
    listing.add_argument("--json", action="store_true")
    status = verbs.add_parser("status", help="how the last runs and proofs ended")
    status.add_argument("--json", action="store_true")
    verbs.add_parser("key", help="print the key without which no backup can be read; keep it elsewhere")
    ended = verbs.add_parser("ended", help="say that a run ended without a word, if it did (systemd asks)")
    ended.add_argument("job")


def run(options: argparse.Namespace) -> int:
    """Do what was asked. Returns 1 where something is not good."""
    return t.cast(int, globals()[f"_{options.verb}"](options, World()))


def say(text: str) -> None:
    """Tell one line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _jobs(settings: backup_settings.Settings, named: t.Sequence[str]) -> list[str]:
    known = settings.jobs()
    for job in named:
        if job not in known:
            raise AnchorageError(f"This host has no backup job {job!r}; it has: {', '.join(known) or 'none'}.", next_step="Name one of these.")
    return [job for job in known if not named or job in named]


def _log(options: argparse.Namespace) -> Log:
    return Log((lambda text: None) if options.json else say)


def _run(options: argparse.Namespace, world: World) -> int:
    settings = backup_settings.load(world)
    log = _log(options)
    wanted = _jobs(settings, options.job)
    due = backup_run.due(settings, world) if options.due else wanted

    # A timer's run that falls into a restore comes after it; people are told at once.
    patience = PATIENCE if os.environ.get(INVOCATION_ID) else 0

    def one(job: str) -> Data:
        if options.units:
            return _by_unit(world, job)
        result = backup_run.run(settings, world, log, job, full=options.full, anew=options.anew, patience=patience)
        # Where there is something new, what former keys made may go; never by a clock that is doubted.
        if result["ok"] and not result.get("clock_doubted"):
            backup_former.remove(settings, world, log, job)
        return result

    found = {job: one(job) for job in wanted if job in due}
    unproven = [job for job in wanted if backup_proofs.lacking(settings, world, job)] if options.due else []
    if unproven and options.units:
        world.run(["systemctl", "start", PROOF])
        found.update({f"proof of {job}": backup_results.read(world, job).get("proof") or {"ok": False, "cause": "there is none"} for job in unproven})
    elif unproven:
        found.update({f"proof of {job}": backup_proofs.prove(settings, world, log, job) for job in unproven})
    if options.json:
        say(json.dumps({"changed": bool(found), "results": found}, sort_keys=True))
    elif not found:
        say("Nothing is due.")
    return 0 if all(result.get("ok") for result in found.values()) else 1


def _by_unit(world: World, job: str) -> Data:
    """Run a job as systemd's timer does, and return its result."""
    before = world.now()
    done = world.run(["systemctl", "start", f"anchorage-backup-{job}.service"])
    found = backup_results.read(world, job)
    if found.get("finished", 0) < before:
        return {"ok": False, "cause": f"its unit left no result: {done.stderr.strip()[:300] or done.rc}"}
    return found


def _prove(options: argparse.Namespace, world: World) -> int:
    settings = backup_settings.load(world)
    log = _log(options)
    found = {job: backup_proofs.prove(settings, world, log, job, only=options.target) for job in _jobs(settings, options.job)}
    if options.json:
        say(json.dumps(found, indent=1, sort_keys=True))
    return 0 if all(one["ok"] for one in found.values()) else 1


def _list(options: argparse.Namespace, world: World) -> int:
    found = backup_list.listing(backup_settings.load(world), world)
    if options.json:
        say(json.dumps(found, indent=1, sort_keys=True))
    for line in [] if options.json else backup_list.lines(found, _time):
        say(line)
    return 0 if all(not one["problem"] for one in found) else 1


def _status(options: argparse.Namespace, world: World) -> int:
    settings = backup_settings.load(world)
    found = {job: backup_results.read(world, job) for job in settings.jobs()}
    if options.json:
        say(json.dumps(found, indent=1, sort_keys=True))
    for job, result in [] if options.json else found.items():
        say(f"{job}: {_told(result)}")
        say(f"  proof: {_told(result.get('proof') or {})}")
    return 0 if all(result.get("ok") for result in found.values()) else 1


def _told(result: Data) -> str:
    if not result:
        return "never"
    return f"{'ok' if result.get('ok') else 'FAILED'} {_time(result.get('finished'))}, {result.get('seconds')} s" + (
        f": {result['cause']}" if result.get("cause") else ""
    )


def _time(stamp: float | None) -> str:
    return "-" if stamp is None else datetime.datetime.fromtimestamp(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _key(options: argparse.Namespace, world: World) -> int:
    say(backup_settings.read_key(world))
    return 0


def _ended(options: argparse.Namespace, world: World) -> int:
    if options.job == backup_settings.APART:
        backup_apart.start_again(backup_settings.load(world), world, Log(say))
    if backup_results.died(world, options.job, os.environ.get(SERVICE_RESULT) or "killed"):
        say(f"{options.job}: the run was ended before it was done")
    return 0
