# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command C(anchorage) on a host: for people at 3 a.m., for systemd, and for the playbooks."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import socket
import sys
import typing as t

from . import (
    app_health,
    backup_command,
    diagnosis,
    engine,
    health_notice,
    hold,
    host_drain,
    memory,
    preview,
    restart,
    restore_command,
    rollback,
    room,
    runtimes,
)
from .app import App, Log
from .errors import AnchorageError
from .world import World

#: Brings the cursor of a terminal home and clears what was there.
CLEAR = "\033[H\033[2J"


def say(text: str) -> None:
    """Tell one line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Tell what went wrong."""
    sys.stderr.write(f"anchorage: {text}\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="anchorage", description="State and steps of the apps on this host.")
    commands = top.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="what is live, what ran last")
    status.add_argument("app", nargs="?")
    status.add_argument("--json", action="store_true")
    health = commands.add_parser("health", help="everything that must be well: database, Redis, processes, answers, site, certificate, host")
    health.add_argument("app", nargs="?", help="all of this host where none is named")
    health.add_argument("--json", action="store_true")
    health.add_argument(
        "--kinds",
        type=_kinds,
        default=app_health.KINDS,
        metavar="KIND,...",
        help="what is asked; without it %(default)s, on request also negative (what must be refused), golive (a checklist) and drift (files changed by hand)",
    )
    health.add_argument("--watch", action="store_true", help="look again and again, until it is interrupted")
    health.add_argument("--notify", action="store_true", help="remember the verdict, and tell whoever is to know when it has changed for good")
    health.add_argument("--interval", type=float, default=5, metavar="SECONDS", help="pause between two looks of --watch (%(default)s)")
    health.add_argument("--deadline", type=float, default=10, metavar="SECONDS", help="time for everything together (%(default)s)")
    diagnose = commands.add_parser("diagnose", help="what is wrong, its likely cause first, with what mends it, logs and sessions; no secret is in it")
    diagnose.add_argument("app", nargs="?", help="all of this host where none is named")
    diagnose.add_argument("--json", action="store_true")
    diagnose.add_argument("--deadline", type=float, default=5, metavar="SECONDS", help="time for asking how everything is (%(default)s)")
    releases = commands.add_parser("releases", help="the releases on this host")
    releases.add_argument("app")
    releases.add_argument("--json", action="store_true")
    plan = commands.add_parser("plan", help="what a deploy with the settings that lie on this host would do")
    plan.add_argument("app")
    plan.add_argument("--json", action="store_true")
    logs = commands.add_parser("logs", help="the log of the last step")
    logs.add_argument("app")
    unlock = commands.add_parser("unlock-info", help="who holds the locks of an app, and how to end that")
    unlock.add_argument("app")
    unlock.add_argument("--json", action="store_true")
    step = commands.add_parser("step", help="run one step here and now (playbooks start it as a unit)")
    step.add_argument("step", choices=(*engine.STEPS, engine.ROLLBACK))
    step.add_argument("app")
    for name in ("release", "tree", "source"):
        step.add_argument(f"--{name}", required=True)
    step.add_argument("--owner", default="")
    step.add_argument("--document", help="what the contract says of the app; without it, what the host keeps")
    step.add_argument("--log", default=None)
    recover = commands.add_parser("recover", help="go back to what is live where a release was never confirmed")
    recover.add_argument("app", nargs="?", help="all of this host where none is named")
    recover.add_argument("--boot", action="store_true", help="before PM2 and the proxy start: touch files only")
    recover.add_argument("--overdue", action="store_true", help="end the step that should have confirmed by now")
    back = commands.add_parser("rollback", help="give the traffic back to a release that served before")
    back.add_argument("app")
    back.add_argument("--to", metavar="RELEASE", help="the one before the live one where none is named")
    back.add_argument("--code-only", action="store_true", help="although migrations came since that its code may not get along with")
    back.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")
    back.add_argument("--json", action="store_true")
    again = commands.add_parser("restart", help="start the processes of the live release again; who visits meets nobody meanwhile, so drain the host first")
    again.add_argument("app")
    again.add_argument("--if-outdated", action="store_true", help="only where they still use what an upgrade has replaced")
    again.add_argument("--json", action="store_true")
    out = commands.add_parser("drain", help="take this host out of the balance of its proxies, and wait for who is connected")
    out.add_argument("app", nargs="*", help="all of this host where none is named")
    out.add_argument("--seconds", type=float, help="how long who is connected may take; the contract's drain_seconds without it")
    out.add_argument("--json", action="store_true")
    into = commands.add_parser("undrain", help="put this host back into the balance of its proxies")
    into.add_argument("app", nargs="*", help="all that are out where none is named")
    into.add_argument("--json", action="store_true")
    backup_command.add_parser(commands)
    end = commands.add_parser("end", help="end what a killed migration has left running in a container")
    end.add_argument("app")
    execute = commands.add_parser("exec", help="become the process that a file describes")
    execute.add_argument("file")
    held = commands.add_parser("held", help="keep the requests of a socket waiting until a file says where they go")
    held.add_argument("file")
    held.add_argument("--patience", type=float, default=hold.PATIENCE, help="seconds after which nobody waits any more for an answer (%(default)s)")
    restore_command.add_parser(commands)
    commands.add_parser("out-of-memory", help="say whether processes of the unit that this runs in were killed for want of memory")
    return top


def main(argv: t.Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, 1 when something failed, 2 when it was called wrongly."""
    options = parser().parse_args(argv)
    try:
        return t.cast(int, globals()[f"_{options.command.replace('-', '_')}"](options))
    except AnchorageError as error:
        complain(error.text())
        return 1
    except PermissionError as error:
        complain(f"{error.filename}: permission denied; run it as root.")
        return 1
    except BrokenPipeError:
        return 1


def _time(stamp: float | None) -> str:
    return "-" if stamp is None else datetime.datetime.fromtimestamp(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _status(options: argparse.Namespace) -> int:
    world = World()
    names = [options.app] if options.app else engine.apps(world)
    found = [engine.status(App(name, world)) for name in names]
    if options.json:
        say(json.dumps(found, indent=1, sort_keys=True))
        return 0
    if not found:
        say("No app was deployed to this host yet.")
    for app in found:
        health = "running" if app["running"] else "NOT RUNNING"
        place = f"live {app['live'] or 'nothing'} in slot {app['slot'] or '-'} since {_time(app['since'])}"
        say(f"{app['app']}: {health}, {place}, previous {app['previous'] or '-'}")
        step = app["last_step"]
        if step:
            state = "running" if step["finished_at"] is None else "ok" if step["ok"] else "FAILED"
            say(f"  last step: {step['step']} of {step['release']}, {state}, started {_time(step['started_at'])}")
            if step.get("text"):
                say(f"  {step['text']}")
    return 0 if all(app["running"] for app in found) else 1


def _kinds(text: str) -> list[str]:
    """Return the kinds of questions that a list names."""
    known = (*app_health.KINDS, *app_health.ON_REQUEST)
    kinds = [part.strip() for part in text.split(",")]
    for kind in kinds:
        if kind not in known:
            raise argparse.ArgumentTypeError(f"there is no kind {kind!r}; there are {', '.join(known)}")
    return kinds


def _health(options: argparse.Namespace) -> int:
    """Ask everything at once; what is not green is told with its cause and where to look next. Returns 1 where anything is red."""
    world = World()
    if options.deadline <= 0 or options.interval < 0:
        raise AnchorageError("--deadline must be more than 0, and --interval not less than 0.")
    try:
        return _health_looks(options, world)
    except KeyboardInterrupt:
        return 130


def _health_looks(options: argparse.Namespace, world: World) -> int:
    while True:
        found = app_health.look([options.app] if options.app else None, world, deadline_seconds=options.deadline, kinds=options.kinds)
        if options.json:
            say(json.dumps(found, sort_keys=True) if options.watch else json.dumps(found, indent=1, sort_keys=True))
        else:
            say("\n".join([*([f"{CLEAR}{_time(found['at'])}"] if options.watch else []), *app_health.lines(found)]))
        if options.notify:  # a verdict is no failure of the unit that looks, a notice that is not delivered is
            wrong = health_notice.look_and_tell(found, world, os.uname().nodename)
            for words in wrong:
                complain(words)
            return 1 if wrong else 0
        if not options.watch:
            return 0 if found["healthy"] else 1
        world.sleep(options.interval)


def _diagnose(options: argparse.Namespace) -> int:
    """Returns 1 where anything is red."""
    told = diagnosis.diagnose([options.app] if options.app else None, World(), deadline_seconds=options.deadline)
    say(json.dumps(told, indent=1, sort_keys=True) if options.json else "\n".join(diagnosis.lines(told)))
    return 1 if told["grade"] == app_health.RED else 0


def _restart(options: argparse.Namespace) -> int:
    log = Log((lambda text: None) if options.json else say)
    found = restart.restart(App(options.app, World()), log, force=not options.if_outdated)
    if options.json:
        say(json.dumps(found, sort_keys=True))
    elif not found["changed"]:
        say("Nothing to do: no process uses what was replaced." if options.if_outdated else "Nothing to do: no release is live.")
    return 0


def _drain(options: argparse.Namespace) -> int:
    world = World()
    known = engine.apps(world)
    for name in options.app:
        if name not in known:
            raise AnchorageError(f"There is no app {name!r} on this host; there is: {', '.join(known) or 'none'}.", next_step="Name one of these.")
    apps = [app for app in (App(name, world) for name in options.app or known) if options.app or app.document.get("edge")]
    if not apps:
        raise AnchorageError("No app of this host has other hosts that could serve meanwhile.", what="draining this host")
    return _told(options, host_drain.out(world, Log((lambda text: None) if options.json else say), apps, seconds=options.seconds))


def _undrain(options: argparse.Namespace) -> int:
    return _told(options, host_drain.back(World(), Log((lambda text: None) if options.json else say), options.app or None))


def _told(options: argparse.Namespace, found: dict[str, t.Any]) -> int:
    if options.json:
        say(json.dumps(found, sort_keys=True))
    elif not found["changed"]:
        say(f"Nothing to do; out of the balance: {', '.join(found['apps']) or 'none'}.")
    return 0


def _releases(options: argparse.Namespace) -> int:
    app = App(options.app, World())
    entries = sorted(app.journal.data["releases"].values(), key=lambda entry: entry.get("staged_at", 0))
    if options.json:
        say(json.dumps(entries, indent=1, sort_keys=True))
        return 0
    for entry in entries:
        mark = "live" if entry["id"] == app.journal.live else "previous" if entry["id"] == app.journal.data["previous"] else ""
        times = " ".join(f"{state} {_time(entry.get(state + '_at'))}" for state in ("staged", "migrated", "proven"))
        say(f"{entry['id']}  {mark:8}  {times}  {entry.get('version', '')} {entry.get('source', '')[:12]}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    """Plan with what the last deploy left on this host; a source that lies on the controller counts as the one that was staged last."""
    app = App(options.app, World())
    staged = [entry for entry in app.journal.data["releases"].values() if entry.get("staged_at")]
    newest = max(staged, key=lambda entry: entry["staged_at"], default={})
    given = newest.get("source") if app.document["source"]["kind"] == "path" else None
    found = preview.preview(app, engine.plan(app, given))
    if options.json:
        say(json.dumps(found, indent=1, sort_keys=True))
        return 0
    for line in preview.lines(found):
        say(line)
    return 0


def _unlock_info(options: argparse.Namespace) -> int:
    """There is nothing to unlock, since locks end with their owners; so say who the owners are."""
    found = engine.unlock_info(App(options.app, World()))
    if options.json:
        say(json.dumps(found, indent=1, sort_keys=True))
        return 0
    name, step = found["app"], found["step"]
    if step:
        owner = f" by {step['owner']}" if step["owner"] else ""
        say(f"{name}: {step['step']} of release {step['release']} runs, started{owner} {step['seconds']:.0f} s ago; its log: anchorage logs {name}")
        say(f"  to end it: systemctl stop {found['unit']} 'anchorage-{name}-*'")
    else:
        say(f"{name}: no step runs, and the lock is free")
    if found["database"] is None:
        say("  the database does not answer, so who migrates it is not known")
    for session in found["database"] or []:
        waits = ", waits for a lock" if session["waits"] else ""
        say(f"  database session {session['pid']} ({session['name'] or 'nameless'}, {session['seconds']:.0f} s{waits}): {session['query']}")
        say(f"  to end it: psql, SELECT pg_terminate_backend({session['pid']});")
    return 0


def _logs(options: argparse.Namespace) -> int:
    app = App(options.app, World())
    path = engine.read_step(app).get("log")
    raw = app.world.read(path) if path else None
    if raw is None:
        raise AnchorageError(f"No step of {app.name} left a log on this host.")
    sys.stdout.write(raw.decode("utf-8", "replace"))
    return 0


def _step(options: argparse.Namespace) -> int:
    world = World()
    raw = world.read(options.document) if options.document else None
    if options.document and raw is None:
        raise AnchorageError(f"{options.document}, which says what this step is for, is gone.", next_step="Run deploy.yml again.")
    app = App(options.app, world, json.loads(raw) if raw else None)
    log = Log(room.tolerant(say))
    wish = {"release": options.release, "tree": options.tree, "source": options.source, "owner": options.owner, "log": options.log}
    ended = engine.run_step(app, options.step, wish, log)
    if raw:
        os.unlink(options.document)
    return 0 if ended["ok"] else 1


def _rollback(options: argparse.Namespace) -> int:
    """Go back as a step of its own, which goes on when this command is interrupted."""
    app = App(options.app, World())
    plan = rollback.plan(app, options.to, code_only=options.code_only)
    if options.plan:
        told = plan.get("note") or f"{app.name}: would go back from {plan['live']} to {plan['release']}"
        say(json.dumps(plan, indent=1, sort_keys=True) if options.json else told)
        return 0
    if not plan["needed"]:
        say(plan["note"])
        return 0
    wish = {key: plan[key] for key in ("release", "tree", "source")}
    started = engine.start(app, engine.ROLLBACK, {**wish, "owner": os.environ.get("SUDO_USER") or "root"})
    answer: dict[str, t.Any] = {"running": True, "offset": 0, "lines": []}
    while answer["running"]:
        answer = engine.follow(app, log=started["log"], offset=answer["offset"], wait_seconds=10)
        for line in [] if options.json else answer["lines"]:
            say(line)
    if options.json:
        say(json.dumps(answer["outcome"], indent=1, sort_keys=True))
    return 0 if answer["outcome"]["ok"] else 1


def _restore(options: argparse.Namespace) -> int:
    """Bring data back."""
    return restore_command.run(options)


def _backup(options: argparse.Namespace) -> int:
    """Back up, prove, list."""
    return backup_command.run(options)


def _end(options: argparse.Namespace) -> int:
    """End the commands of a step that is over."""
    app = App(options.app, World())
    for name in ("migrate", "rehearse"):
        if runtimes.of(app).end(name):
            say(f"{app.name}: ended the command ({name}) that a killed step had left behind")
    return 0


def _recover(options: argparse.Namespace) -> int:
    """Make good what was left between two releases; what ails one app does not keep the others."""
    world, code = World(), 0
    for name in [options.app] if options.app else engine.apps(world):
        try:
            engine.recover(App(name, world), Log(room.tolerant(say)), boot=options.boot, overdue=options.overdue)
        except AnchorageError as error:
            complain(error.text())
            code = 1
        except Exception as error:
            complain(f"{name}: {type(error).__name__}: {error}")
            code = 1
    return code


def _out_of_memory(options: argparse.Namespace) -> int:
    """Units of builds and migrations end with this, since a killed process cannot say why."""
    said = memory.killed(World().read)
    if said:
        say(said)
    return 0


def _held(options: argparse.Namespace) -> int:
    """Wait, and then become systemd's own proxy, which finds the socket where this process found it."""
    with socket.socket(fileno=os.dup(hold.SOCKET)) as listener:
        place = hold.wait(World(), options.file, options.patience, lambda: hold.send_away(listener))
    if place is not None:
        os.execv(hold.PROXY, hold.command(place))
    return 0


def _exec(options: argparse.Namespace) -> int:
    """Replace this process: the environment is the file's and nothing else, so no secret goes through PM2."""
    with open(options.file, encoding="utf-8") as stream:
        wanted = json.load(stream)
    os.chdir(wanted["cwd"])
    try:
        os.execvpe(wanted["argv"][0], wanted["argv"], wanted["env"])
    except OSError as error:
        raise AnchorageError(f"'{wanted['argv'][0]}' of {options.file} cannot be run: {error.strerror}.") from error
