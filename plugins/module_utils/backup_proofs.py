# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove the newest backup at every target of a job, one after the other, and write down what that showed."""

from __future__ import annotations

import typing as t

from . import backup_proof, backup_results, backup_run
from .app import Log
from .backup_settings import APART, Settings, Target
from .errors import AnchorageError
from .world import World

#: The lock of the throw-away server: one proof, or one restore, at a time.
SCRATCH = "scratch"

#: Seconds that a proof waits for another one, or for a restore.
PATIENCE = 600

Data = dict[str, t.Any]


def prove(settings: Settings, world: World, log: Log, job: str, *, only: str | None = None) -> Data:
    """Prove a job's newest backup. Returns the proof; it is good where it was at every target that was asked.

    :arg only: the one target that is asked; the others then keep what was known of them.
    """
    began = world.now()
    named = [_asked(settings, job, only)] if only else settings.for_job(job)
    before = backup_results.read(world, job).get("proof") or {}
    known: dict[str, Data] = {target.name: backup_results.of(before, target) for target in settings.for_job(job) if backup_results.of(before, target)}
    with backup_run.lock(world, SCRATCH, seconds=PATIENCE):
        for target in named:
            log.say(f"{job}: proving the newest backup at {target.name}")
            try:
                known[target.name] = _apart(settings, world, target) if job == APART else backup_proof.prove(settings, world, log, job=job, target=target)
            except AnchorageError as error:
                known[target.name] = {"ok": False, "cause": error.message, "finished": world.now()}
            one = known[target.name] = backup_results.placed(target, known[target.name])
            log.say(f"{target.name}: {'proven' if one['ok'] else 'NOT PROVEN'}" + (f": {one['cause']}" if one.get("cause") else ""))
    found = judged(known, began=began, now=world.now())
    backup_results.proven(world, job, found)
    return found


def lacking(settings: Settings, world: World, job: str) -> bool:
    """Tell whether a job's backups at some target were never proven, or only those that a former key made."""
    proof = backup_results.read(world, job).get("proof") or {}
    return not proof.get("ok") or not backup_results.covers(proof, settings.for_job(job))


def _asked(settings: Settings, job: str, name: str) -> Target:
    target = settings.target(name, job)
    if target.former:
        raise AnchorageError(
            f"Nothing new goes to {name}, which a former key made, so there is nothing to compare it with.",
            next_step=f"Look into it: anchorage restore APP --target {name} --latest --plan; or prove what is new: anchorage backup prove {job}.",
        )
    return target


def _apart(settings: Settings, world: World, target: Target) -> Data:
    """Read everything that was saved apart, without starting anything that could spend money."""
    began = world.monotonic()
    done = backup_run.restic(settings, world, target, "check", "--read-data", timeout=float(settings.timeouts["proof_seconds"]), job=APART)
    found = {"ok": done.rc == 0, "finished": world.now(), "seconds": round(world.monotonic() - began, 1), "what": "everything was read, nothing started"}
    return {**found, "cause": "" if done.rc == 0 else backup_run.restic_said(done)}


def judged(targets: t.Mapping[str, Data], *, began: float, now: float) -> Data:
    """Return the proof of a job from those of its targets. It is as old as the oldest of them."""
    wrong = [f"{name}: {one.get('cause') or 'not proven'}" for name, one in targets.items() if not one["ok"]]
    return {
        "ok": bool(targets) and not wrong,
        "cause": "; ".join(wrong),
        "finished": min((float(one.get("finished") or now) for one in targets.values()), default=now),
        "seconds": round(now - began, 1),
        "targets": dict(targets),
    }
