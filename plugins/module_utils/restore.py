# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore: one story for a database, a cluster, and files.

Make ready beside what is there → say what would be lost → stop writers → set the present data aside and exchange → verify → migrate, start, prove.
It runs on the host as one transient unit and writes down how far it came. Killed at any point, it goes on when it is run again; until the
exchange nothing is lost but time, and after it the former data lie aside.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import backup_run, backup_settings, engine, restore_apps, restore_plan, room
from .app import UNIT as UNIT_VARIABLE
from .app import App, Log
from .database import first_line
from .errors import AnchorageError
from .layout import COMMAND
from .local_cluster import LocalCluster, local_cluster
from .restore_cluster import ClusterRestore
from .restore_database import DatabaseRestore
from .restore_files import FilesRestore
from .restore_journal import LOGS, PATH, UNIT, RestoreJournal, lock
from .restore_plan import Wish
from .world import World

#: Seconds that a backup which runs may still take before a restore gives up.
PATIENCE = 600

#: The backup that follows a restore of the cluster, since WAL has a new timeline.
NEXT_BACKUP = "anchorage-backup-database.service"

AGAIN = "anchorage restore --resume"

Data = dict[str, t.Any]


class PlanOnly(Exception):
    """What was asked for is known, and no more is wanted."""


class Follower:
    """What the engine's follower wants to know of a step: the host's restore, as if it were an app's."""

    name = "the restore"
    again = "Run it again: anchorage restore --resume"

    class Layout:
        """Where its step and its log are."""

        step = PATH
        unit = UNIT
        logs = LOGS

    layout = Layout()

    def __init__(self, world: World) -> None:
        self.world = world

    def living(self) -> str:
        """Say what serves now."""
        return living(RestoreJournal(self.world))


def living(journal: RestoreJournal) -> str:
    """Say which data are live, in a few words."""
    if any(step.startswith("exchanged") for step in journal.data.get("done", [])):
        aside = ", ".join(entry["name"] for entry in journal.aside if entry.get("restore") == journal.id)
        return f"the restored data{f'; the former ones lie aside in {aside}' if aside else ''}"
    return "the data that were there before; nothing of them was changed"


def subject(settings: backup_settings.Settings, world: World, log: Log, journal: RestoreJournal) -> t.Any:
    """Return what is to be restored, as one of the three kinds."""
    wish = t.cast(Wish, journal.wish)
    if wish.what == restore_plan.CLUSTER:
        return ClusterRestore(settings, world, log, journal)
    if wish.what == restore_plan.FILES:
        return FilesRestore(settings, world, log, journal)
    return DatabaseRestore(settings, world, log, journal, LocalCluster(world, *local_cluster(world, settings.archive)))


def run(world: World, log: Log) -> bool:
    """Do what the journal says is wanted, to its end, and write down how it ended. Returns whether it went well."""
    with lock(world):
        journal = RestoreJournal(world)
        if journal.wish is None:
            raise AnchorageError("Nobody has said what is to be restored.", next_step="anchorage restore --help")
        outcome: Data
        try:
            with room.guarded(backup_settings.DIRECTORY, "/var/lib/postgresql"):
                done = _run(world, log, journal)
            outcome = {"ok": True, "changed": done, "text": words(journal, done=done)}
        except AnchorageError as error:
            error.live = error.live or living(journal)
            error.next_step = error.next_step or (AGAIN if journal.unfinished else "Mend the cause, then run the restore again.")
            outcome = {"ok": False, "error": error.as_dict(), "text": error.text()}
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            text = f"The engine itself failed in the restore: {said}. Live now: {living(journal)}. Next: {AGAIN}"
            outcome = {"ok": False, "error": {"message": said, "live": living(journal), "next_step": AGAIN}, "text": text}
        # In this order: whoever follows stops at the end that the journal says.
        log.say(outcome["text"])
        journal.end(**outcome, seconds=round(world.now() - journal.data["started_at"], 1))
        return t.cast(bool, outcome["ok"])


def words(journal: RestoreJournal, *, done: bool) -> str:
    """Return what is said at the end of a restore that went well, or of a plan."""
    wish = t.cast(Wish, journal.wish)
    if not done:
        return f"Plan of the restore ({wish}). Nothing was changed. To do it: {wish.command()} --yes"
    aside = [entry for entry in journal.aside if entry.get("restore") == journal.id]
    kept = "".join(f" The former data of {entry['of']} are kept in {entry['name']}." for entry in aside)
    return f"Restored: {wish}.{kept}" + (" When nobody needs them any more: anchorage restore --drop-aside" if kept else "")


def _run(world: World, log: Log, journal: RestoreJournal) -> bool:
    """Do it. Returns False where no more than the plan was wanted."""
    settings = backup_settings.load(world)
    what = subject(settings, world, log, journal)
    mode = journal.data["mode"]
    apps = restore_apps.here(world, what.apps)
    with contextlib.ExitStack() as stack:
        if mode != restore_plan.PLAN:
            for job in settings.jobs():
                # A backup that reads what is being exchanged would be half of each.
                stack.enter_context(backup_run.lock(world, job, seconds=PATIENCE))
        if not (journal.unfinished and what.is_exchanged):
            what.check()

            def go_on() -> None:
                _go_on(stack, what, mode, apps, log, journal)

            try:
                what.make_ready(go_on)
            except PlanOnly:
                return False
            except AnchorageError:
                if journal.unfinished:
                    _go_back(what, apps, log, journal)
                raise
        else:
            _begin(stack, apps, log, journal)
        _finish(what, apps, log, journal, world)
        return True


def _go_on(stack: contextlib.ExitStack, what: t.Any, mode: str, apps: list[App], log: Log, journal: RestoreJournal) -> None:
    """Stop here if that is all that is wanted, or if it would cost data without a word; else stop the writers."""
    if mode == restore_plan.PLAN:
        raise PlanOnly
    costs = what.costs_data
    if costs and mode != restore_plan.GO:
        raise AnchorageError(
            f"{', '.join(costs)} {'holds' if len(costs) == 1 else 'hold'} data now, so nothing is restored over it without the word."
            " What it would cost is said above.",
            what="restore",
            live=living(journal),
            next_step=f"{t.cast(Wish, journal.wish).command()} --yes",
        )
    _begin(stack, apps, log, journal)


def _begin(stack: contextlib.ExitStack, apps: list[App], log: Log, journal: RestoreJournal) -> None:
    """Keep everybody else from the apps, and stop them."""
    for app in apps:
        stack.enter_context(engine.lock(app, seconds=restore_apps.PATIENCE))
    journal.note(apps=[app.name for app in apps])
    journal.under_way(True)
    for app in apps:
        restore_apps.stop(app, log)


def _go_back(what: t.Any, apps: list[App], log: Log, journal: RestoreJournal) -> None:
    """Before the exchange, what failed leaves everything as it was."""
    log.say("going back: what was there serves on")
    what.go_back()
    for app in apps:
        try:
            restore_apps.start(app, log)
        except AnchorageError as error:
            log.say(f"{app.name}: {error.text()}")
    journal.under_way(False)


def _finish(what: t.Any, apps: list[App], log: Log, journal: RestoreJournal, world: World) -> None:
    try:
        what.exchange()
    except AnchorageError:
        if not any(step.startswith("exchanged") for step in journal.data["done"]):
            _go_back(what, apps, log, journal)
        raise
    what.verify()
    for app in apps:
        restore_apps.start(app, log)
    journal.under_way(False)
    if what.__class__ is ClusterRestore:
        world.run(["systemctl", "start", "--no-block", NEXT_BACKUP], timeout=60)
        log.say("cluster: a backup of the restored data begins")


# ---- from outside ----------------------------------------------------------------------------------------------------


def start(world: World, wish: Wish | None, mode: str, *, owner: str = "") -> Data:
    """Start a restore as a transient unit, or attach to the one that runs.

    :arg wish: what is wanted; None to go on with what is unfinished.
    :returns: what follow() wants to know.
    :raises AnchorageError: when another restore runs or is unfinished.
    """
    journal = RestoreJournal(world)
    follower = Follower(world)
    if engine.unit_active(t.cast(App, follower)):
        if wish is None or wish == journal.wish:
            return {"log": journal.data["log"], "attached": True}
        raise AnchorageError(f"Another restore runs on this host: {journal.wish}.", live=living(journal), next_step="Follow it: anchorage restore --follow")
    if wish is None and not journal.unfinished:
        raise AnchorageError("No restore is unfinished on this host.", live=living(journal), next_step="anchorage restore --help")
    if wish is not None and journal.unfinished and wish != journal.wish:
        raise AnchorageError(
            f"A restore is unfinished on this host: {journal.wish}.",
            live=living(journal),
            next_step=f"Finish it ({AGAIN}), or go back (anchorage restore --back).",
        )
    # What is unfinished has had its word.
    mode = restore_plan.GO if journal.unfinished else mode
    world.make_directory(LOGS, mode=0o700)
    log = f"{LOGS}/{int(world.now() * 1000)}-restore.log"
    journal.begin(wish or t.cast(Wish, journal.wish), mode, log=log, owner=owner)
    world.run(["systemctl", "reset-failed", UNIT])
    done = world.run(
        [
            "systemd-run",
            f"--unit={UNIT}",
            "--collect",
            "--quiet",
            "--service-type=exec",
            f"--description=anchorage restore: {journal.wish}",
            f"--property=StandardOutput=append:{log}",
            f"--property=StandardError=append:{log}",
            "--property=UMask=0077",
            "--property=KillMode=mixed",
            "--property=WorkingDirectory=/",
            "--setenv=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "--setenv=LANG=C.UTF-8",
            f"--setenv={UNIT_VARIABLE}={UNIT}",
            COMMAND,
            "restore",
            "--run",
        ]
    )
    if done.rc != 0:
        raise AnchorageError(f"The restore could not be started: {first_line(done.stderr)}", live=living(journal))
    return {"log": log, "attached": False}


def follow(world: World, *, log: str, offset: int, wait_seconds: float) -> Data:
    """Look at the restore until it says something or ends, at most for a while."""
    return engine.follow(t.cast(App, Follower(world)), log=log, offset=offset, wait_seconds=wait_seconds)


def back(world: World, log: Log) -> None:
    """Give up a restore that is unfinished: the data that were there serve on.

    :raises AnchorageError: when the restored data serve already.
    """
    with lock(world):
        journal = RestoreJournal(world)
        if not journal.unfinished:
            raise AnchorageError("No restore is unfinished on this host.", live=living(journal))
        what = subject(backup_settings.load(world), world, log, journal)
        if any(step.startswith("exchanged") for step in journal.data["done"]) or what.is_exchanged:
            raise AnchorageError("The restored data serve already, so it only goes forward.", live=living(journal), next_step=AGAIN)
        with contextlib.ExitStack() as stack:
            apps = restore_apps.here(world, what.apps)
            for app in apps:
                stack.enter_context(engine.lock(app, seconds=restore_apps.PATIENCE))
            _go_back(what, apps, log, journal)
        journal.end(ok=False, text="The restore was given up; the data that were there before serve on.", error={"message": "given up"})


def drop_aside(world: World, log: Log, names: t.Collection[str] = ()) -> int:
    """Remove what restores have set aside. Returns how many things went.

    :arg names: which of it; all of it where none is named.
    """
    with lock(world):
        journal = RestoreJournal(world)
        if journal.unfinished:
            raise AnchorageError("A restore is unfinished, so nothing is removed.", live=living(journal), next_step=AGAIN)
        gone = 0
        for entry in [entry for entry in journal.aside if not names or entry["name"] in names]:
            if entry["kind"] == "database":
                settings = backup_settings.load(world)
                LocalCluster(world, *local_cluster(world, settings.archive)).drop(entry["name"])
            else:
                done = world.run(["rm", "-rf", "--one-file-system", "--", entry["name"]], timeout=3600)
                if done.rc != 0:
                    raise AnchorageError(f"{entry['name']} could not be removed: {first_line(done.stderr)}")
            journal.forget_aside(entry["name"])
            log.say(f"removed {entry['name']}, the former data of {entry['of']}")
            gone += 1
        return gone


def owner() -> str:
    """Return who asks on this host."""
    return os.environ.get("SUDO_USER") or "root"
