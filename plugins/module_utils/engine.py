# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on a host: plan, run one step under a lock, start it as a unit of its own, follow it, tell the state.

The playbooks, systemd's timers and the command C(anchorage) use the same functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import typing as t

from . import admin_user, pruning, recovery, release_plan, room
from .app import UNIT, App, Log
from .database import AS_LOGIN, Database
from .dead_man import DeadMan
from .errors import AnchorageError
from .layout import COMMAND, DOCUMENTS
from .migration_lock import LOCK
from .prober import Prober
from .prober import target as prober_target
from .runtime import contained
from .slots import running
from .step_activate import activate
from .step_migrate import migrate
from .step_stage import is_built, stage
from .world import World

STEPS = ("stage", "migrate", "activate")

#: A step that is no part of a deploy: the same activation, of an earlier release.
ROLLBACK = "rollback"

#: What is said of a step that died; whoever lets something else be followed has words of its own.
AGAIN = "Run deploy.yml again; it goes on where the journal says."

#: Seconds that the unit of a step which has ended may need to go.
LAST_WORDS = 30

#: Bytes of a step's log that one look returns at most.
SLICE = 64 * 1024


def resolve_source(app: App, given: str | None) -> str:
    """Return the id of the source that the contract asks for: a commit, or a checksum.

    :arg given: the checksum of a source that lies on the controller.
    """
    source = app.document["source"]
    if app.document.get("keep_source"):
        return _live_source(app)
    if source["kind"] == "image":
        return t.cast(str, source["digest"].removeprefix("sha256:"))
    if source["kind"] == "archive":
        if given and given != source["sha256"].lower():
            raise AnchorageError(
                f"{source['archive']} has the SHA-256 {given}, the contract says {source['sha256']}.",
                live=app.living(),
                next_step=f"Check the archive, then set apps.{app.name}.source.sha256.",
            )
        return t.cast(str, source["sha256"].lower())
    if source["kind"] == "path":
        if not given:
            raise AnchorageError(f"The source of {app.name} lies on the controller, and its checksum was not given.", next_step="Use deploy.yml.")
        return given
    version = source["version"]
    if len(version) == 40 and all(letter in "0123456789abcdef" for letter in version):
        return t.cast(str, version)
    names = [f"refs/heads/{version}", f"refs/tags/{version}", f"refs/tags/{version}^{{}}"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "HOME": app.layout.cache, "LANG": "C.UTF-8"}
    # As the app's user, like the clone: what a build left in that home (a .gitconfig) may name commands, and they must not be root's.
    done = app.world.run(["git", "ls-remote", "--", source["repo"], *names], env=environment, timeout=60, user=app.user)
    if done.rc != 0:
        raise AnchorageError(
            f"The repository {source['repo']} of {app.name} does not answer: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.rc}.",
            live=app.living(),
            next_step=f"Check apps.{app.name}.source.repo and this host's access to it.",
        )
    found = dict(reversed(line.split("\t", 1)) for line in done.stdout.splitlines() if "\t" in line)
    for name in reversed(names):
        if name in found:
            return t.cast(str, found[name])
    raise AnchorageError(
        f"The repository {source['repo']} has no branch or tag '{version}'.",
        live=app.living(),
        next_step=f"Set apps.{app.name}.source.version to a branch, a tag or a full commit.",
    )


def _live_source(app: App) -> str:
    """Return the source of the release that is live."""
    source = app.journal.release(app.journal.live).get("source") if app.journal.live else None
    if not source:
        raise AnchorageError(
            f"{app.name} has no live release on this host whose source could be kept.", live=app.living(), next_step="Run deploy.yml, which makes one."
        )
    return t.cast(str, source)


def plan(app: App, given_source: str | None = None) -> dict[str, t.Any]:
    """Tell what a deploy would do for an app on this host. Changes nothing."""
    if app.document.get("keep_source"):
        given_source = None
    source_id = resolve_source(app, given_source)
    tree, release = app.wanted(source_id)
    steps = release_plan.pending(app.journal, release, tree, running=app.journal.live == release and running(app))
    if "migrate" not in steps and not app.migrated(release):
        steps.append("migrate")
    if "activate" not in steps and (admin_user.wanted(app) or app.unsettled):
        steps.append("activate")
    if contained(app.document) and "activate" in steps and "stage" not in steps and not is_built(app, tree):
        # An image that somebody has removed since; of a tree, nobody but the engine removes anything.
        steps.append("stage")
    from_controller = "stage" in steps and given_source is not None and not is_built(app, tree)
    as_image = release_plan.built_elsewhere(app.document)
    return {
        "app": app.name,
        "release": release,
        "tree": tree,
        "source": source_id,
        "incoming": app.layout.source(source_id),
        "source_needed": from_controller and not as_image and not app.world.exists(app.layout.source(source_id)),
        **(_image_wish(app, tree) if from_controller and as_image else {}),
        "steps": [step for step in STEPS if step in steps],
        "live": app.journal.live,
        "slot": app.journal.slot,
    }


def _image_wish(app: App, tree: str) -> dict[str, t.Any]:
    """Return what the controller must know to build the image of a tree, which may be here since a run that died."""
    return {
        "image_platform": release_plan.image_platform(app.world.machine()),
        "image_incoming": app.layout.image(tree),
        "image_needed": not app.world.exists(app.layout.image(tree)),
    }


@contextlib.contextmanager
def lock(app: App, *, seconds: float = 0) -> t.Iterator[None]:
    """Hold the app's lock. The kernel frees it with its owner, so it never goes stale.

    :arg seconds: how long to wait for it at most.
    :raises AnchorageError: when another step holds it, naming that step.
    """
    end = app.world.monotonic() + seconds
    with open(app.layout.lock, "a", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if app.world.monotonic() >= end:
                    raise AnchorageError(
                        f"Another step works on {app.name}: {describe_step(app)}.", live=app.living(), next_step="Wait for it, then run again."
                    ) from error
            app.world.sleep(0.1)
        yield


def describe_step(app: App) -> str:
    """Name the step that runs or ran last."""
    step = read_step(app)
    if not step:
        return "none yet"
    age = app.world.now() - step["started_at"]
    owner = f" by {step['owner']}" if step.get("owner") else ""
    return f"{step['step']} of release {step['release']}, started{owner} {age:.0f} s ago in {app.layout.unit}"


def unlock_info(app: App) -> dict[str, t.Any]:
    """Tell who holds the locks of an app: the step that runs, and whoever migrates its database. Changes nothing.

    :returns: C(step), None where none runs; C(database), the sessions that hold the migration lock or do the migration, None where it cannot be asked.
    """
    found: dict[str, t.Any] = {"app": app.name, "unit": app.layout.unit, "step": None, "database": []}
    step = read_step(app)
    if step and unit_active(app):
        found["step"] = {key: step.get(key) for key in ("step", "release", "owner", "pid", "started_at", "log")}
        found["step"]["seconds"] = round(app.world.now() - step["started_at"], 1)
    if app.gated:
        try:
            found["database"] = t.cast(Database, app.database).rows(
                "SELECT pid, application_name AS name, client_addr::text AS client, state, wait_event_type = 'Lock' AS waits,"
                " round(extract(epoch FROM now() - backend_start)) AS seconds, left(query, 200) AS query"
                " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND (application_name LIKE 'anchorage-migrate-%' OR pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
                f" AND (classid, objid) = ({LOCK[0]}::oid, {LOCK[1]}::oid)))",
                before=AS_LOGIN,
            )
        except AnchorageError:
            found["database"] = None
    return found


def read_step(app: App) -> dict[str, t.Any]:
    """Return what the last step wrote down of itself."""
    raw = app.world.read(app.layout.step)
    return {} if raw is None else t.cast("dict[str, t.Any]", json.loads(raw))


def run_step(app: App, step: str, wish: dict[str, t.Any], log: Log) -> dict[str, t.Any]:
    """Run a step to its end and write down how it ended.

    :arg wish: release, tree and source, as plan() names them.
    """
    # There is one unit of this name, so in it only acts of a moment hold the lock, as the tidying up of a run that has just ended.
    with lock(app, seconds=LAST_WORDS if os.environ.get(UNIT) else 0):
        record = {"step": step, **wish, "pid": os.getpid(), "started_at": app.world.now(), "finished_at": None}
        reserve = room.Reserve(app)
        began = app.world.monotonic()
        prober = Prober(prober_target(app.document) if app.journal.live else None)
        try:
            reserve.keep()
            _write_step(app, record)
            keep_document(app)
            with prober:
                changed = _do_step(app, step, wish, log)
            outcome: dict[str, t.Any] = {"ok": True, "changed": changed}
        except Exception as error:
            outcome = _failure(app, step, error)
            reserve.give_up()
        record.update(outcome, seconds=round(app.world.monotonic() - began, 2), phases=dict(app.phases), prober=prober.figures())
        if prober.requests:
            log.say(f"{app.name}: {prober.summary()}")
        record["finished_at"] = app.world.now()
        _write_step(app, record)
        log.say(record["text"] if not record["ok"] else f"{app.name}: {step} done in {record['seconds']} s")
        return record


def _do_step(app: App, step: str, wish: dict[str, t.Any], log: Log) -> bool:
    """Do a step. Returns whether it changed anything."""
    release = wish["release"]
    if step == "stage":
        return stage(app, log, source_id=wish["source"], tree=wish["tree"], release=release)
    if step == "migrate":
        return migrate(app.at(release), log, release=release)
    if step == ROLLBACK:
        return activate(app, log, release=release, leaving=app.journal.live)
    changed = activate(app, log, release=release)
    return admin_user.ensure(app.at(release), log, release) or changed


def _failure(app: App, step: str, error: Exception) -> dict[str, t.Any]:
    """Return how a step ended that failed."""
    try:
        with room.explained(app):
            raise error
    except AnchorageError as problem:
        problem.what = problem.what or f"step {step} of {app.name}"
        return {"ok": False, "changed": True, "error": problem.as_dict(), "text": problem.text()}
    except Exception as problem:
        said = f"{type(problem).__name__}: {problem}"
        text = f"The engine itself failed in step {step} of {app.name}: {said}. Live now: {app.living()}."
        return {"ok": False, "changed": True, "error": {"message": said, "live": app.living()}, "text": text}


def keep_document(app: App) -> bool:
    """Write down what the contract says of the app, for the host's own use. The caller holds the lock. Returns whether it was news."""
    # What one run alone is about is not what the contract says.
    document = {key: value for key, value in app.document.items() if key != "keep_source"}
    path, data = f"{DOCUMENTS}/{app.name}.json", document_text(document)
    if app.world.read(path) == data:
        return False
    app.world.write_atomic(path, data, mode=0o600)
    return True


def keep_document_unless_busy(app: App) -> bool:
    """Do the same from outside a step; whoever holds the lock brings a document of his own."""
    os.makedirs(app.layout.state, exist_ok=True)
    try:
        with lock(app):
            return keep_document(app)
    except AnchorageError:
        return False


def document_text(document: dict[str, t.Any]) -> bytes:
    """Return a document as it lies on the host."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _write_step(app: App, record: dict[str, t.Any]) -> None:
    app.world.write_atomic(app.layout.step, (json.dumps(record, sort_keys=True) + "\n").encode(), mode=0o600)


def unit_active(app: App) -> bool:
    """Tell whether a step of the app runs right now, or what it left is being made good."""
    done = app.world.run(["systemctl", "is-active", app.layout.unit], timeout=10)
    return done.rc == 0 or done.stdout.strip() in ("activating", "deactivating", "reloading")


def start(app: App, step: str, wish: dict[str, t.Any]) -> dict[str, t.Any]:
    """Start a step as a transient unit, or attach to the one that runs already.

    The step outlives the connection and the controller, and works with this very document, whatever others bring meanwhile.

    :returns: what follow() wants to know.
    """
    with room.explained(app, app.layout.state), starting(app):
        return _start(app, step, wish)


@contextlib.contextmanager
def starting(app: App) -> t.Iterator[None]:
    """Let one run at a time look whether a step works, and start its own: of two at once, the other then sees the step of the one.

    It is held for a moment only, so it is waited for. The step itself holds the app's lock.
    """
    os.makedirs(app.layout.state, exist_ok=True)
    with open(app.layout.start_lock, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _start(app: App, step: str, wish: dict[str, t.Any]) -> dict[str, t.Any]:
    current = read_step(app)
    end = app.world.monotonic() + LAST_WORDS
    while current.get("finished_at") and unit_active(app) and app.world.monotonic() < end:
        app.world.sleep(0.2)
        current = read_step(app)
    if unit_active(app):
        if current.get("step") == step and current.get("release") == wish["release"]:
            return {"log": current.get("log"), "attached": True}
        raise AnchorageError(
            f"Another step works on {app.name}: {describe_step(app)}.",
            live=app.living(),
            next_step=f"Wait for it (anchorage logs {app.name}), then run again.",
        )
    os.makedirs(app.layout.logs, exist_ok=True)
    log = f"{app.layout.logs}/{int(app.world.now() * 1000)}-{step}.log"
    record = {"step": step, **wish, "log": log, "started_at": app.world.now(), "finished_at": None}
    app.world.write_atomic(app.layout.wish(wish["release"]), document_text(app.at(wish["release"]).document), mode=0o600)
    app.world.run(["systemctl", "reset-failed", app.layout.unit])
    _write_step(app, record)
    done = app.world.run(
        [
            "systemd-run",
            f"--unit={app.layout.unit}",
            "--collect",
            "--quiet",
            "--service-type=exec",
            f"--description=anchorage {step} {app.name} {wish['release']}",
            f"--property=StandardOutput=append:{log}",
            f"--property=StandardError=append:{log}",
            "--property=UMask=0027",
            "--property=KillMode=mixed",
            "--setenv=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "--setenv=LANG=C.UTF-8",
            f"--setenv={UNIT}={app.layout.unit}",
            *([f"--property=ExecStopPost={COMMAND} recover {app.name}", "--property=TimeoutStopSec=900"] if step in ("activate", ROLLBACK) else []),
            # A container outlives the unit that started it.
            *([f"--property=ExecStopPost=-{COMMAND} end {app.name}"] if step == "migrate" and contained(app.document) else []),
            COMMAND,
            "step",
            step,
            app.name,
            f"--release={wish['release']}",
            f"--tree={wish['tree']}",
            f"--source={wish['source']}",
            f"--owner={wish.get('owner') or ''}",
            f"--document={app.layout.wish(wish['release'])}",
            f"--log={log}",
        ]
    )
    if done.rc != 0:
        raise AnchorageError(f"The step {step} of {app.name} could not be started: {done.stderr.strip()[:300]}", live=app.living())
    return {"log": log, "attached": False}


def recover(app: App, log: Log, *, boot: bool = False, overdue: bool = False) -> bool:
    """Go back to what is live where a release was never confirmed. Returns whether anything was to be done.

    :arg boot: PM2 and the proxy do not run yet, so only what they read is put right.
    :arg overdue: the step had its time; it is ended first, and its own unit then does this.
    """
    if overdue and app.journal.switch is not None and unit_active(app) and read_step(app).get("step") in ("activate", ROLLBACK):
        log.say(f"{app.name}: {describe_step(app)} has not confirmed its release in time and is ended")
        app.world.run(["systemctl", "kill", "--kill-who=main", "--signal=SIGKILL", app.layout.unit], timeout=60)
        return True
    if not boot and not app.unsettled:
        DeadMan(app).disarm()
        return False
    reserve = room.Reserve(app)
    reserve.give_up()
    with lock(app):
        done = recovery.at_boot(app, log) if boot else recovery.recover(app, log)
        with contextlib.suppress(AnchorageError):
            reserve.keep()
    return done


def follow(app: App, *, log: str, offset: int, wait_seconds: float) -> dict[str, t.Any]:
    """Look at a step until it says something or ends, at most for a while.

    :returns: new lines, where to go on, and the outcome once there is one.
    """
    end = app.world.monotonic() + wait_seconds
    while True:
        # In this order: once the unit is gone, the step has written its last word.
        active = unit_active(app)
        step = read_step(app)
        finished = step.get("finished_at") is not None and step.get("log") == log
        lines, offset_now, more = _read_lines(log, offset, whole=finished or not active)
        if more:
            return {"running": True, "lines": lines, "offset": offset_now, "outcome": None}
        if finished:
            return {"running": False, "lines": lines, "offset": offset_now, "outcome": step}
        if not active:
            return {"running": False, "lines": lines, "offset": offset_now, "outcome": _died(app, step)}
        if app.world.monotonic() >= end:
            return {"running": True, "lines": lines, "offset": offset_now, "outcome": None}
        app.world.sleep(0.2)


def _died(app: App, step: dict[str, t.Any]) -> dict[str, t.Any]:
    name = f"{step.get('step', 'the step')} of {app.name}"
    message = f"Step {name} ended without a word: it was killed, or the host went down."
    error = {"message": message, "live": app.living(), "next_step": getattr(app, "again", AGAIN)}
    return {**step, "ok": False, "changed": True, "error": error, "text": f"{message} Live now: {app.living()}. Next: {error['next_step']}"}


def _read_lines(log: str, offset: int, *, whole: bool) -> tuple[list[str], int, bool]:
    """Return the complete lines behind an offset, where to go on, and whether there is more than one look returns."""
    try:
        with open(log, "rb") as stream:
            stream.seek(offset)
            data = stream.read(SLICE)
    except FileNotFoundError:
        return [], offset, False
    full = len(data) == SLICE
    if full or not whole:
        end = data.rfind(b"\n") + 1
        data = data[: end or (SLICE if full else 0)]
    return data.decode("utf-8", "replace").splitlines(), offset + len(data), full


def apps(world: World) -> list[str]:
    """Return the names of the apps on this host."""
    return [name[: -len(".json")] for name in world.listdir(DOCUMENTS) if name.endswith(".json")]


def _last_step(app: App, step: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what is told of the last step; one that nobody runs any more although it did not end has died."""
    if step.get("finished_at") is None and not unit_active(app):
        step = {**_died(app, step), "finished_at": step["started_at"]}
    return {key: step.get(key) for key in ("step", "release", "ok", "started_at", "finished_at", "seconds", "text")}


def status(app: App) -> dict[str, t.Any]:
    """Return what is live, and what the last step was."""
    live = app.journal.release(app.journal.live) if app.journal.live else {}
    step = read_step(app)
    return {
        "app": app.name,
        "live": app.journal.live,
        "slot": app.journal.slot,
        "previous": app.journal.data["previous"],
        "unconfirmed": (app.journal.switch or {}).get("release"),
        "source": live.get("source"),
        "version": live.get("version"),
        "since": live.get("proven_at"),
        "running": running(app),
        "last_step": _last_step(app, step) if step else None,
        "releases": sorted(app.journal.data["releases"]),
    }


def prune(app: App, *, check: bool = False) -> list[str]:
    """Remove releases beyond those to keep, and trees and dependencies that no release uses any more. Returns what went."""
    with lock(app), room.explained(app):
        return pruning.sweep(app, check=check)
