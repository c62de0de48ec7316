# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may go from a host: releases beyond those to keep, by number and by size, and what none of the others stands on."""

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t

from . import restore_point, room, runtimes
from .app import App
from .layout import ARRIVING, DOCUMENTS
from .release_plan import prunable

#: What a step makes in the app's home and gives its name at the end, by directory: left behind by one that was killed.
PARTIAL = ((".new", ("builds", "deps", "releases")), (".part", ("incoming",)))

#: What a write that died leaves beside its file, and how old it must be in the same boot until nobody can be at work on it any more.
LEFTOVER = re.compile(r"\..+\.json\.[a-z0-9_]{8}|starting\.json")
LEFTOVER_SECONDS = 3600


class Wanted(t.NamedTuple):
    """What is being staged, and so must stay."""

    release: str
    tree: str
    source: str


def held(app: App, wanted: Wanted | None = None) -> set[str]:
    """Return the releases that never go: the live one, the previous one, the one that is staged."""
    journal = app.journal
    switch = journal.switch or {}
    names = {journal.live, journal.data["previous"], switch.get("release"), switch.get("from_release"), wanted.release if wanted else None}
    return {name for name in names if name}


def releases(app: App, wanted: Wanted | None = None, *, counting: bool = False) -> list[str]:
    """Return the releases that may go: the oldest beyond C(keep_releases), then the oldest beyond C(keep_mb).

    :arg counting: count the one that is staged among those to keep, as it will be when it lives.
    """
    stay = held(app, wanted)
    extra = 1 if counting and wanted and wanted.release not in app.journal.data["releases"] else 0
    gone = [name for name in prunable(app.journal, max(1, app.document["keep_releases"] - extra)) if name not in stay]
    limit = app.document.get("keep_mb")
    if limit is None:
        return gone
    known = app.journal.data["releases"]
    rest = sorted((entry.get("staged_at", 0), name) for name, entry in known.items() if name not in stay and name not in gone)
    while rest and _taken(app, [name for _at, name in rest], stay, wanted) > limit * room.MIB:
        gone.append(rest.pop(0)[1])
    return gone


def _taken(app: App, names: list[str], stay: set[str], wanted: Wanted | None) -> int:
    """Return how many bytes releases take besides what those that stay take anyway."""
    used = _places(app, {*stay}, {wanted.tree} if wanted else set())
    return room.measure(*sorted(_places(app, set(names), set()) - used)).bytes


def _places(app: App, names: set[str], trees: set[str]) -> set[str]:
    """Return the directories that releases stand on."""
    known = app.journal.data["releases"]
    trees = trees | {known[name]["tree"] for name in names if known.get(name, {}).get("tree")}
    keys = _dependencies(app, trees)
    return {*map(app.layout.release, names), *map(app.layout.build, trees), *map(app.layout.dependencies, keys)}


def _dependencies(app: App, trees: t.Iterable[str]) -> set[str]:
    manifests = [app.world.read(f"{app.layout.build(tree)}/{room.MANIFEST}") for tree in trees]
    return {key for key in (json.loads(raw).get("dependencies") for raw in manifests if raw) if key}


def stale(app: App, gone: t.Collection[str], wanted: Wanted | None = None) -> list[str]:
    """Return the paths that go together with some releases, and those that no release needs."""
    layout, world, known = app.layout, app.world, app.journal.data["releases"]
    rest = {name: entry for name, entry in known.items() if name not in gone}
    trees = {entry["tree"] for entry in rest.values() if entry.get("tree")} | {tree for tree in [app.journal.data.get("tree")] if tree}
    sources = {f"{entry.get('source')}.tar" for entry in rest.values()}
    if wanted:
        trees.add(wanted.tree)
        sources |= {f"{wanted.source}.tar", os.path.basename(layout.image(wanted.tree))}
    found = [layout.release(name) for name in gone]
    if app.journal.live is not None:
        spared = {*known, *([wanted.release] if wanted else [])}
        found += [layout.release(name) for name in world.listdir(f"{layout.home}/releases") if name not in spared]
    found += [layout.build(name) for name in world.listdir(f"{layout.home}/builds") if name not in trees]
    used = _dependencies(app, trees)
    found += [layout.dependencies(key) for key in world.listdir(f"{layout.home}/deps") if key not in used]
    found += [f"{layout.incoming}/{name}" for name in world.listdir(layout.incoming) if name not in sources and not name.startswith(ARRIVING)]
    found += [f"{layout.home}/work/{name}" for name in world.listdir(f"{layout.home}/work")]
    found += [*leftovers(app), *restore_point.leftovers(app)]
    if not wanted:
        found += [f"{layout.state}/{name}" for name in world.listdir(layout.state) if name.startswith("wish-")]
    return found


def leftovers(app: App) -> list[str]:
    """Return what writes have left that were cut off by a kill or a power cut."""
    now = app.world.now()
    limit = max(now - app.world.monotonic(), now - LEFTOVER_SECONDS)
    runs = [f"{app.layout.release(name)}/run" for name in app.world.listdir(f"{app.layout.home}/releases")]
    found = [f"{place}/{name}" for place in (app.layout.state, app.layout.pm2_home, *runs) for name in app.world.listdir(place) if LEFTOVER.fullmatch(name)]
    found += [f"{DOCUMENTS}/{name}" for name in app.world.listdir(DOCUMENTS) if name.startswith(f".{app.name}.json.")]
    # Another run may be sending its source just now: it learns of this step when it asks for its own.
    found += [f"{app.layout.incoming}/{name}" for name in app.world.listdir(app.layout.incoming) if name.startswith(ARRIVING)]
    return [path for path in found if (app.world.modified(path) or now) < limit]


def sweep(app: App, wanted: Wanted | None = None, *, counting: bool = False, check: bool = False) -> list[str]:
    """Remove what may go. The caller holds the app's lock. Returns what went.

    :arg wanted: what is being staged right now.
    """
    gone = releases(app, wanted, counting=counting)
    found = [path for path in stale(app, gone, wanted) if os.path.lexists(path)]
    if not check:
        remove(found)
        for name in gone:
            app.journal.forget(name)
        trees = app.world.listdir(f"{app.layout.home}/builds")
        found += runtimes.of(app).sweep([*trees, *([wanted.tree] if wanted else [])])
    return found


def remove_partial(app: App, tree: str) -> None:
    """Remove what a failed attempt to stage left under names that nothing points at."""
    work = app.layout.work(tree)
    found = [work, f"{work}.json"]
    for ending, directories in PARTIAL:
        for directory in directories:
            found += [f"{app.layout.home}/{directory}/{name}" for name in app.world.listdir(f"{app.layout.home}/{directory}") if name.endswith(ending)]
    remove(found)


def remove(paths: t.Iterable[str]) -> None:
    """Remove files and directories; what is gone already is no error."""
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)
