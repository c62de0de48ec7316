# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backups that each target holds, as its tools say."""

from __future__ import annotations

import datetime
import json
import re
import typing as t

from . import backup_run
from .backup_settings import DATABASE, Settings, Target
from .errors import AnchorageError
from .world import World

Data = dict[str, t.Any]


def listing(settings: Settings, world: World) -> list[Data]:
    """Return for each job and target what is there, the oldest first; C(problem) says why a target could not tell."""
    found = []
    for job in settings.jobs():
        for target in settings.readable(job):
            try:
                backups, problem = (_database(settings, world, target) if job == DATABASE else _files(settings, world, target, job)), ""
            except AnchorageError as error:
                backups, problem = [], error.message
            former = {"former": target.former, "until": target.until} if target.former else {}
            found.append({"job": job, "target": target.name, "backups": backups, "problem": problem, **former})
    return found


def _database(settings: Settings, world: World, target: Target) -> list[Data]:
    found = backup_run.info(settings, world, target)
    return [
        {"id": one["label"], "at": one["timestamp"]["stop"], "kind": one["type"], "bytes": one["info"]["size"], "error": bool(one.get("error"))}
        for one in found.get("backup", [])
    ]


def _files(settings: Settings, world: World, target: Target, job: str) -> list[Data]:
    done = backup_run.restic(settings, world, target, "snapshots", "--json", f"--tag={job}", timeout=120, job=job)
    if done.rc != 0:
        raise AnchorageError(f"The repository at {target.name} cannot be read: {backup_run.restic_said(done)}.")
    found = [{"id": one["short_id"], "at": seconds(one["time"]), "kind": "snapshot", "host": one["hostname"]} for one in json.loads(done.stdout or "[]")]
    return sorted(found, key=lambda one: t.cast(float, one["at"]))


def seconds(text: str) -> float:
    """Return a time as restic writes it (with up to nine digits behind the second) in seconds since the epoch."""
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text).replace("Z", "+00:00")).timestamp()


def lines(found: list[Data], time: t.Callable[[float], str]) -> list[str]:
    """Return the list for people."""
    told = []
    for place in found:
        told.append(f"{place['job']} at {place['target']}: {place['problem'] or len(place['backups'])}{_goes(place, time)}")
        for one in place["backups"]:
            size = f"  {one['bytes'] / 1048576:.1f} MiB" if one.get("bytes") is not None else ""
            told.append(f"  {one['id']}  {time(one['at'])}  {one['kind']}{size}{'  DAMAGED' if one.get('error') else ''}")
    return told


def _goes(place: Data, time: t.Callable[[float], str]) -> str:
    """Return of what a former key made when it is removed."""
    if "former" not in place:
        return ""
    return f" (of the former key; goes {time(place['until'])})" if place["until"] else " (of the former key, whose rotation is under way)"
