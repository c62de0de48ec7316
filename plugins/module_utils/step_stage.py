# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage a release: fetch, install, build, and put it beside the one that runs, whole and on the disk, or not at all."""

from __future__ import annotations

import json
import os
import pwd
import shutil

from . import backup_gate, pruning, room, runtimes
from .app import App, Log
from .compose_runtime import Compose
from .errors import AnchorageError
from .image_build import ImageBuilder
from .layout import AUTHORITY
from .runtime import contained, name_of
from .tree_build import Builder, replace_directory, sync_tree

MANIFEST = room.MANIFEST


def stage(app: App, log: Log, *, source_id: str, tree: str, release: str) -> bool:
    """Make a release ready to be migrated and started. Returns whether anything was done.

    :raises AnchorageError: when it cannot be; what runs is not touched in any case.
    """
    if app.journal.says(release, "staged") and app.journal.release(release).get("tree") == tree and _complete(app, tree, release):
        return False
    try:
        _refuse_another_runtime(app, release)
        _refuse_without_authority(app)
        backup_gate.check(app, log)
        built = is_built(app, tree)
        _make_room(app, log, pruning.Wanted(release, tree, source_id), built=built)
        if built:
            log.say(f"{app.name}: tree {tree} is built already")
        else:
            builder(app, log, source_id, tree).build()
        with room.guarded(app.layout.home):
            _lay_out(app, tree, release)
    except AnchorageError as error:
        error.live = app.living()
        raise
    finally:
        pruning.remove_partial(app, tree)
    app.journal.mark(release, "staged", tree=tree, source=source_id, version=_version(app))
    log.say(f"{app.name}: release {release} is staged")
    return True


def _refuse_another_runtime(app: App, release: str) -> None:
    """Refuse to go from one runtime to another under visitors: each would keep processes alive that the other does not know of."""
    if app.journal.live is None:
        return
    now, wanted = name_of(app.at(app.journal.live).document), name_of(app.document)
    if now != wanted:
        raise AnchorageError(
            f"{app.name} serves by runtime {now}, and the contract says {wanted}. A release cannot change that.",
            what=f"release {release}",
            next_step=f"Set apps.{app.name}.runtime: {now}, or give the new runtime an app of its own and move domain and data to it.",
        )


def _refuse_without_authority(app: App) -> None:
    """Refuse a release that is to reach other hosts over TLS before provisioning has made that possible."""
    if app.document.get("trusted_file") and not app.world.exists(AUTHORITY):
        raise AnchorageError(
            f"{app.name} reaches its services on other hosts over TLS, and this host does not know the fleet's authority yet ({AUTHORITY} is missing).",
            what="staging",
            next_step="Run site.yml, which provisions before it deploys.",
        )


def _make_room(app: App, log: Log, wanted: pruning.Wanted, *, built: bool) -> None:
    """Remove what may go anyway, and refuse to begin where what is left is too little."""
    why = f"Staging release {wanted.release} of {app.name}"
    for counting in (False, True):
        gone = pruning.sweep(app, wanted, counting=counting)
        if gone:
            names = (os.path.relpath(path, app.layout.home) if os.path.isabs(path) else path for path in gone)
            log.say(f"{app.name}: removed what no release needs: {', '.join(names)}")
        need = room.to_stage(app, wanted.source, built=built)
        if counting or room.supply(app.layout.home).holds(need):
            break
    room.require(app.layout.home, need, why)


def _version(app: App) -> str:
    source = app.document["source"]
    return str(source.get("version") or source.get("path") or source.get("archive") or source.get("image") or "")


def _complete(app: App, tree: str, release: str) -> bool:
    return is_built(app, tree) and app.world.exists(f"{app.layout.release(release)}/release.json")


def _lay_out(app: App, tree: str, release: str) -> None:
    """Make the directory of a release: a link to its tree, and one file for each process with command and environment."""
    output = app.document["build"]["output"]
    target = app.layout.release(release)
    staging = f"{target}.new"
    shutil.rmtree(staging, ignore_errors=True)
    group = pwd.getpwnam(app.user).pw_gid
    os.makedirs(f"{staging}/run", mode=0o750)
    for path in (staging, f"{staging}/run"):
        os.chown(path, 0, group)
        os.chmod(path, 0o750)
    running = os.path.normpath(f"{app.layout.build(tree)}/{output}")
    os.symlink(os.path.relpath(running, target), f"{staging}/app")
    runtimes.of(app).lay_out(staging, tree, release, group)
    app.world.write_atomic(f"{staging}/document.json", json.dumps(app.document, sort_keys=True).encode(), mode=0o600, uid=0, gid=0)
    facts = {"release": release, "tree": tree, "app": app.name}
    app.world.write_atomic(f"{staging}/release.json", json.dumps(facts).encode(), mode=0o640, uid=0, gid=group)
    sync_tree(app, staging)
    replace_directory(app.world, staging, target)


def is_built(app: App, tree: str) -> bool:
    """Tell whether what a release stands on is whole: the tree, and where it is an image, that too."""
    if not app.world.exists(f"{app.layout.build(tree)}/{MANIFEST}"):
        return False
    return not contained(app.document) or Compose(app).has_image(tree)


def builder(app: App, log: Log, source_id: str, tree: str) -> Builder:
    """Return who makes it."""
    kind = ImageBuilder if contained(app.document) else Builder
    return kind(app, log, source_id, tree)
