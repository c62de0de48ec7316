# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""C(anchorage restore) on a host: what is asked for in words, followed until it is done."""

from __future__ import annotations

import argparse
import json
import sys
import typing as t

from . import backup_run, backup_settings, restore, restore_plan, restore_source, room
from .app import Log
from .errors import AnchorageError
from .restore_journal import RestoreJournal
from .restore_plan import Wish
from .world import World


def say(text: str) -> None:
    """Tell one line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def add_parser(commands: t.Any) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "restore",
        help="bring data back: a database, the cluster, uploads and Redis; says what would be lost, and changes nothing without --yes",
        description="Without --yes it says what would be lost, and only goes on where there is nothing to lose.",
    )
    parser.add_argument("app", nargs="?", help="whose database, or with --files whose uploads and Redis")
    moment = parser.add_mutually_exclusive_group()
    moment.add_argument("--latest", action="store_true", help="as new as the backup has it")
    moment.add_argument("--time", help="as it was at a time: '2026-11-20 19:12:27', in this host's time unless it says Z or +01:00")
    moment.add_argument("--point", metavar="RELEASE", help="as it was before the migration to a release")
    moment.add_argument("--backup", metavar="ID", help="from one backup, as anchorage backup list names them")
    parser.add_argument("--cluster", action="store_true", help="the whole PostgreSQL cluster: its data are gone, or all of them are to go back")
    parser.add_argument("--files", action="store_true", help="uploads and Redis")
    parser.add_argument("--target", help="the target that is asked; the first that has it where none is named")
    parser.add_argument("--plan", action="store_true", help="say what would be lost, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do it although there are data now; they are set aside")
    parser.add_argument("--json", action="store_true")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--resume", action="store_true", help="go on with the restore that is unfinished")
    other.add_argument("--back", action="store_true", help="give up the restore that is unfinished; what was there serves on")
    other.add_argument("--follow", action="store_true", help="follow the restore that runs")
    other.add_argument("--fetch", metavar="DIRECTORY", help="put the dumps of an app's databases there, and restore nothing: for databases that are elsewhere")
    other.add_argument("--list-aside", action="store_true", help="what restores have set aside")
    other.add_argument("--drop-aside", action="store_true", help="remove what restores have set aside")
    other.add_argument("--run", action="store_true", help=argparse.SUPPRESS)


def wish_of(options: argparse.Namespace, now: float) -> Wish:
    """Return what is asked for.

    :raises AnchorageError: when it is not said whole.
    """
    if options.cluster and (options.files or options.app):
        raise AnchorageError("--cluster is about all databases; it goes with no app and not with --files.")
    what = restore_plan.CLUSTER if options.cluster else restore_plan.FILES if options.files else restore_plan.DATABASE
    if what == restore_plan.DATABASE and not options.app:
        raise AnchorageError("Say whose database comes back.", next_step="anchorage restore APP --latest --plan")
    for how in (restore_plan.TIME, restore_plan.POINT, restore_plan.BACKUP):
        value = getattr(options, how)
        if value:
            return Wish(what, options.app, how, restore_plan.read_time(value, now) if how == restore_plan.TIME else value, options.target)
    if not options.latest and not options.fetch:
        raise AnchorageError("Say what comes back: --latest, --time, --point or --backup.", next_step="anchorage restore --help")
    return Wish(what, options.app, restore_plan.LATEST, None, options.target)


def run(options: argparse.Namespace) -> int:
    """Do it. Returns 0 where it went well."""
    world, log = World(), Log(room.tolerant(say))
    if options.run:
        return 0 if restore.run(world, log) else 1
    if options.back:
        restore.back(world, log)
        return 0
    if options.fetch:
        _fetch(wish_of(options, world.now()), options.fetch, world)
        return 0
    if options.list_aside:
        return _list_aside(world, as_json=options.json)
    if options.drop_aside:
        if not restore.drop_aside(world, log, [options.app] if options.app else []):
            say("Nothing was set aside.")
        return 0
    unfinished = options.resume or options.follow
    mode = restore_plan.PLAN if options.plan else restore_plan.GO if options.yes else restore_plan.ASK
    if options.follow:
        started = {"log": RestoreJournal(world).data.get("log")}
        if not started["log"]:
            raise AnchorageError("There was no restore on this host.")
    else:
        started = restore.start(world, None if unfinished else wish_of(options, world.now()), mode, owner=restore.owner())
    answer: dict[str, t.Any] = {"running": True, "offset": 0}
    while answer["running"]:
        answer = restore.follow(world, log=started["log"], offset=answer["offset"], wait_seconds=10)
        for line in [] if options.json else answer["lines"]:
            say(line)
    outcome = answer["outcome"]
    if options.json:
        say(json.dumps(outcome, indent=1, sort_keys=True))
    elif outcome.get("finished_at") is None:
        # One that was killed has no last word of its own.
        say(outcome.get("text") or "")
    return 0 if outcome.get("ok") else 1


def _fetch(wish: Wish, directory: str, world: World) -> None:
    settings = backup_settings.load(world)
    world.make_directory(directory, mode=0o700)
    for database in restore_plan.chosen_databases(wish, settings.databases):
        chosen = restore_source.choose_snapshot(settings, world, wish)
        path = f"{directory.rstrip('/')}/{database.name}.dump"
        restore_source.fetch_file(settings, world, chosen, f"{backup_run.STAGE}/databases/{database.name}.dump", path)
        say(f"{path}: {database.name} as of {restore_plan.told(chosen.at)}, for pg_restore")


def _list_aside(world: World, *, as_json: bool) -> int:
    aside = RestoreJournal(world).aside
    if as_json:
        say(json.dumps(aside, indent=1, sort_keys=True))
        return 0
    for entry in aside:
        say(f"{entry['name']}: the former data of {entry['of']}, set aside {restore_plan.told(entry['at'])}")
    if not aside:
        say("Nothing was set aside.")
    return 0
