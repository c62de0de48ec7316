# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy is going to do, for whoever has to say yes: code, environment, migrations, room, and whether anybody will notice."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
import typing as t

from . import forecast, hold, memory, migrations, processes, release_plan, restore_point, room
from .app import App
from .database import Database
from .errors import AnchorageError
from .release_plan import other_slot, services

#: Nothing to do; the first release; old and new release run side by side until the new one is confirmed.
NOTHING, FIRST, NO_GAP, HELD = "nothing", "first", "no gap", "held"

CLASSES = {
    NOTHING: "nothing to do",
    FIRST: "the first release: nothing serves before it",
    HELD: "held: requests wait while the release before stops and this one starts (strategy: hold)",
    NO_GAP: "no gap: the release before serves until this one is proven, and runs until it is confirmed",
}

MIB = 1 << 20


def preview(app: App, plan: dict[str, t.Any], given: dict[str, list[str]] | None = None) -> dict[str, t.Any]:
    """Return what a plan means. Changes nothing.

    :arg plan: what engine.plan() says.
    :arg given: the statements of the source's migrations, where the source lies on the controller.
    """
    found: dict[str, t.Any] = {**plan, "source": _source(app, plan), "environment": _environment(app), "class": _class(app, plan)}
    found["soak_seconds"] = (app.document.get("soak") or {}).get("seconds", 0) if plan["live"] else 0
    found["hold_seconds"] = hold.seconds(app.document) if found["class"] == HELD else 0
    single = app.document.get("hosts", []) == [app.document.get("host")] and bool(app.document.get("proxy_address"))
    found["may_hold"] = found["class"] == NO_GAP and single
    found["stops_first"] = [process["name"] for process in app.document["processes"] if not process["overlap"] and plan["live"]]
    found["next_slot"] = (other_slot(plan["slot"]) if plan["slot"] else "blue") if "activate" in plan["steps"] else plan["slot"]
    found["migrations"] = _migrations(app, plan, given) if "migrate" in plan["steps"] and app.gated else None
    found["room"] = _room(app, plan) if plan["steps"] else []
    found["id"] = release_plan.digest({**{key: value for key, value in found.items() if key != "room"}, "document": app.document})
    return found


def _class(app: App, plan: dict[str, t.Any]) -> str:
    if not plan["steps"]:
        return NOTHING
    if not plan["live"]:
        return FIRST
    return HELD if "activate" in plan["steps"] and hold.wanted(app.document) else NO_GAP


def _source(app: App, plan: dict[str, t.Any]) -> dict[str, t.Any]:
    live = app.journal.release(plan["live"]) if plan["live"] else {}
    wish = app.document["source"]
    now = str(wish.get("version") or wish.get("path") or wish.get("archive") or wish.get("image") or "")
    return {"from": live.get("source"), "from_version": live.get("version"), "to": plan["source"], "to_version": now}


def _environment(app: App) -> dict[str, list[str]]:
    """Return the names of what changes in the environment of the processes; never a value."""
    if app.journal.live is None:
        return {"added": [], "removed": [], "changed": []}
    old, new = _variables(app.at(app.journal.live).document), _variables(app.document)
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }


def _variables(document: dict[str, t.Any]) -> dict[str, t.Any]:
    found = {**document["env"], **(document.get("secrets_env") or {})}
    found.update(services(document, pooled=True))
    for process in document["processes"]:
        found.update({f"{process['name']}: {name}": value for name, value in (process.get("env") or {}).items()})
    return found


def _migrations(app: App, plan: dict[str, t.Any], given: dict[str, list[str]] | None) -> dict[str, t.Any]:
    options = app.document["migrate"]
    facts = {"restore_point": options["restore_point"]["enabled"], "rehearsal": options["rehearsal"]["enabled"]}
    unknown = {**facts, "known": False, "verdict": None, "findings": [], "files": {}, "stops": False}
    if not options["files"]:
        return {**unknown, "why": f"apps.{app.name}.migrate.files names no files"}
    built = app.world.exists(f"{app.layout.build(plan['tree'])}/{forecast.MANIFEST}")
    try:
        new = forecast.of_tree(app, plan["tree"]) if built else given if given is not None else _fetched(app, plan["source"])
        if new is None:
            return {**unknown, "why": "the source is not on this host yet"}
        if not new and not built:
            return {**unknown, "why": "no migration of the source is among migrate.files; they are read when it is built"}
        expected = forecast.look(app, t.cast(Database, app.database), new)
        if expected.unknown:
            return {**unknown, "why": expected.unknown}
    except AnchorageError as error:
        return {**unknown, "why": error.message}
    stops = ""
    try:
        forecast.check(app, expected, str(plan["release"]), measured=facts["rehearsal"])
    except AnchorageError as error:
        stops = error.text()
    return {**facts, "known": True, "why": "", **expected.as_dict(), "stops": stops}


def _fetched(app: App, source_id: str) -> dict[str, list[str]] | None:
    """Return the migrations of a commit, fetched into a place that is thrown away."""
    source = app.document["source"]
    if source["kind"] != "git":
        return None
    os.makedirs(app.layout.cache, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="plan-", dir=app.layout.cache)
    os.chown(directory, pwd.getpwnam(app.user).pw_uid, -1)
    try:
        _git(app, directory, "init", "--quiet", "--bare", ".")
        _git(app, directory, "fetch", "--quiet", "--depth=1", "--no-tags", "--", source["repo"], source["version"])
        base = f"{source['subdir'].strip('/')}/" if source.get("subdir") else ""
        listed = _git(app, directory, "ls-tree", "-r", "--name-only", "-z", "FETCH_HEAD").split("\0")
        inside = [path[len(base) :] for path in listed if path.startswith(base)]
        chosen = [path for path in inside if forecast.wanted(app.document, path) and migrations.is_migration(path)]
        return {path: migrations.statements(path, _git(app, directory, "show", f"FETCH_HEAD:{base}{path}")) for path in chosen}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _git(app: App, directory: str, *words: str) -> str:
    """Run git as the app's user, whose home the build could write to."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "HOME": app.layout.cache, "LANG": "C.UTF-8"}
    done = app.world.run(["git", *words], env=environment, cwd=directory, timeout=120, user=app.user)
    if done.rc != 0:
        lines = done.stderr.strip().splitlines()
        raise AnchorageError(f"git {words[0]} of {app.document['source']['repo']} failed: {lines[-1] if lines else done.rc}")
    return done.stdout


def _room(app: App, plan: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return need and supply of what a release takes. The archive that is still on the controller is not in it."""
    found = []
    if "stage" in plan["steps"]:
        built = app.world.exists(f"{app.layout.build(plan['tree'])}/{forecast.MANIFEST}")
        need, have = room.to_stage(app, plan["source"], built=built), room.supply(app.layout.home)
        found.append(_need("disk", app.layout.home, need.bytes / MIB, have.bytes / MIB, "MiB"))
        if have.inodes is not None:
            found.append(_need("inodes", app.layout.home, need.inodes or 0, have.inodes, ""))
    if "migrate" in plan["steps"] and app.gated and app.document["migrate"]["restore_point"]["enabled"]:
        try:
            size = int(t.cast(Database, app.database).execute("SELECT pg_database_size(current_database())"))
            have = room.supply(app.layout.restore_points)
            found.append(_need("disk", app.layout.restore_points, size * restore_point.ROOM / MIB, have.bytes / MIB, "MiB"))
        except AnchorageError:
            pass  # The migrations' part says that the database does not answer.
    free = memory_available(app)
    if "activate" in plan["steps"] and free is not None:
        held = _class(app, plan) == HELD
        beside = [process for process in app.document["processes"] if process["overlap"] or held or not plan["live"]]
        supply = free + (_resident(app) if held else 0)
        found.append(_need("memory", "", sum(process["memory_mb"] * process["instances"] for process in beside), supply, "MiB"))
    return found


def _need(what: str, place: str, need: float, have: float, unit: str) -> dict[str, t.Any]:
    return {"what": what, "place": place, "need": round(need), "have": round(have), "unit": unit, "enough": have >= need}


def memory_available(app: App) -> float | None:
    """Return the memory that new processes may take, in MiB; None where the system does not say."""
    raw = app.world.read("/proc/meminfo")
    match = re.search(rb"^MemAvailable:\s+(\d+) kB", raw or b"", re.MULTILINE)
    return int(match[1]) / 1024 if match else None


def _resident(app: App) -> float:
    """Return what the processes of the live release hold in memory, in MiB."""
    pids = [pid for pid in processes.pids(app.world) if (processes.environment(app.world, pid) or {}).get("ANCHORAGE_RELEASE") == app.journal.live]
    return sum(memory.resident_mb(app.world, pid) or 0.0 for pid in pids)


def lines(found: dict[str, t.Any]) -> list[str]:
    """Return a preview as people read it."""
    name = found["app"]
    if found.get("note"):
        return [f"{name}: {found['note']}"]
    if found["class"] == NOTHING:
        return [f"{name}: {CLASSES[NOTHING]}; release {found['live']} is live in slot {found['slot']}"]
    said = [f"{name}: {found['live'] or 'nothing'} -> {found['release']} in slot {found['next_slot']} ({', '.join(found['steps'])})"]
    source = found["source"]
    versions = f" ({source['from_version'] or 'none'} -> {source['to_version']})"
    code = "as it is" if source["from"] == source["to"] else f"{_short(source['from'])} -> {_short(source['to'])}"
    said.append(f"  code: {code}{versions}")
    said.append(f"  environment: {_changes(found['environment'])}")
    said += _told_migrations(found)
    for need in found["room"]:
        place = f" in {need['place']}" if need["place"] else ""
        unit = f" {need['unit']}" if need["unit"] else ""
        verdict = "" if need["enough"] else " NOT ENOUGH" + (" for two releases at once (strategy: hold)" if _two_at_once(found, need) else "")
        said.append(f"  {need['what']}{place}: needs {need['need']}{unit}, free {need['have']}{unit}{verdict}")
    said.append(f"  expected: {CLASSES[found['class']]}{_times(found)}")
    if found["stops_first"]:
        said.append(f"  stops before its successor starts: {', '.join(found['stops_first'])}")
    return said


def _two_at_once(found: dict[str, t.Any], need: dict[str, t.Any]) -> bool:
    return bool(need["what"] == "memory" and found["may_hold"])


def _times(found: dict[str, t.Any]) -> str:
    held, soak = found["hold_seconds"], found["soak_seconds"]
    watched = f", then {soak} s of watching" if held else f", after {soak} s of watching"
    return (f", for {held:.0f} s at most" if held else "") + (watched if soak else "")


def _short(source: str | None) -> str:
    return source[:12] if source else "none"


def _changes(environment: dict[str, list[str]]) -> str:
    words = [*(f"+{name}" for name in environment["added"]), *(f"-{name}" for name in environment["removed"]), *(f"~{name}" for name in environment["changed"])]
    return ", ".join(words) or "as it is"


def _told_migrations(found: dict[str, t.Any]) -> list[str]:
    expected = found["migrations"]
    if expected is None:
        return []
    means = (
        ", ".join(word for word, wanted in (("restore point", expected["restore_point"]), ("rehearsal", expected["rehearsal"])) if wanted)
        or "no restore point, no rehearsal"
    )
    if not expected["known"]:
        return [f"  migrations: not judged, since {expected['why']} ({means})"]
    said = [f"  migrations: {len(expected['files'])} of the project's own pending, {expected['verdict']} ({means})"]
    said += [f"    {path} ({count} statements)" for path, count in expected["files"].items()]
    said += [f"    {finding['verdict']}: {finding['path']}: {finding['statement'][:120]} ({finding['reason']})" for finding in expected["findings"]]
    return said + ([f"    STOPS: {expected['stops']}"] if expected["stops"] else [])
