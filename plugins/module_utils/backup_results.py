# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each job of the backup left: a small file that health, deploys and people read. A run that was killed leaves its word too."""

from __future__ import annotations

import contextlib
import fcntl
import json
import typing as t

from .backup_settings import DIRECTORY, Target
from .world import World

HOUR = 3600.0

Data = dict[str, t.Any]


def path(job: str) -> str:
    """Return where a job leaves its result."""
    return f"{DIRECTORY}/{job}.json"


def mark(job: str) -> str:
    """Return the file that is there while a job runs."""
    return f"{DIRECTORY}/{job}.running"


def read(world: World, job: str) -> Data:
    """Return the result of a job's last run; nothing where there was none, or nobody can read it."""
    try:
        found = json.loads(world.read(path(job)) or b"{}")
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def begin(world: World, job: str) -> None:
    """Say that a job has begun."""
    world.write_atomic(mark(job), json.dumps({"at": world.now()}).encode(), mode=0o600)


def end(world: World, job: str, found: Data) -> None:
    """Write down how a job ended. A proof that was written meanwhile stays."""
    with _held(job):
        proof = read(world, job).get("proof")
        _write(world, job, {**found, **({"proof": proof} if proof else {})})
    world.remove(mark(job))


def proven(world: World, job: str, proof: Data) -> None:
    """Write down what the proof of a job's newest backup showed."""
    with _held(job):
        _write(world, job, {**read(world, job), "proof": proof})


def died(world: World, job: str, cause: str) -> bool:
    """Write down that a run ended without a word, if one did. Returns whether it did."""
    raw = world.read(mark(job))
    if raw is None:
        return False
    before = read(world, job)
    try:
        began = float(json.loads(raw)["at"])
    except (ValueError, KeyError, TypeError):
        began = world.now()
    end(world, job, judged(job, {}, problem=f"the run was ended before it was done ({cause})", began=began, now=world.now(), before=before))
    return True


def judged(job: str, targets: t.Mapping[str, Data], *, problem: str, began: float, now: float, before: Data) -> Data:
    """Return the result of a run: good if it is at every target.

    :arg problem: what kept it from reaching any target.
    """
    wrong = [f"{name}: {one['cause']}" for name, one in targets.items() if not one["ok"]]
    good = not problem and not wrong and bool(targets)
    found = {
        "job": job,
        "started": began,
        "finished": now,
        "seconds": round(now - began, 1),
        "ok": good,
        "cause": problem or "; ".join(wrong),
        "bytes": max((int(one.get("bytes") or 0) for one in targets.values()), default=0),
        "targets": {name: dict(one) for name, one in targets.items()},
        "last_good": now if good else before.get("last_good"),
    }
    for name, one in found["targets"].items():
        last = (before.get("targets") or {}).get(name) or {}
        # What is good under a former key says nothing of the repository of this one.
        one["last_good"] = now if one["ok"] else last.get("last_good") if last.get("place") == one.get("place") else None
    return found


def placed(target: Target, found: Data) -> Data:
    """Return what a result says of a target, with the place that it is about."""
    return {**found, **({"place": target.place} if target.place else {})}


def of(found: Data, target: Target) -> Data:
    """Return what a result, or its proof, says of a target; nothing where that is about repositories of another key."""
    one = (found.get("targets") or {}).get(target.name) or {}
    return t.cast("Data", one if (one.get("place") or "") == target.place else {})


def covers(found: Data, targets: t.Iterable[Target]) -> bool:
    """Tell whether a result, or its proof, is about all of some targets as they are now."""
    return "targets" not in found or all(of(found, target) for target in targets)


def fresh(found: Data, now: float, max_age_hours: float) -> bool:
    """Tell whether a result is good and young enough."""
    return found.get("ok") is True and 0 <= now - float(found["finished"]) <= max_age_hours * HOUR


def _write(world: World, job: str, found: Data) -> None:
    world.write_atomic(path(job), (json.dumps(found, indent=1, sort_keys=True) + "\n").encode(), mode=0o600)


@contextlib.contextmanager
def _held(job: str) -> t.Iterator[None]:
    """Let one at a time change a result; job and proof have locks of their own."""
    with open(f"{DIRECTORY}/lock-result-{job}", "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
