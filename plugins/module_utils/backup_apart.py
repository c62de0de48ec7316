# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that hold money: saved apart from the shop, in a repository of their own, and while nothing writes to them.

A wallet that was copied while it was written may open and hold another balance. So the project that it belongs to is stopped, saved, and
started again, also where saving failed; what a killed run left stopped is started when its unit ends.
"""

from __future__ import annotations

import contextlib
import json
import typing as t

from .app import Log
from .backup_settings import DIRECTORY, Project, Settings
from .errors import AnchorageError
from .world import World

#: Says of a volume that it is saved by this job.
LABEL = "vps.anchorage.backup=apart"

#: Names the projects that are stopped at the moment.
STOPPED = f"{DIRECTORY}/apart.stopped"

#: Seconds that a project may need to stop, or to start.
PATIENCE = 300


def _compose(world: World, project: Project, verb: str) -> str:
    """Let Compose stop or start a project. Returns why it did not."""
    done = world.run(["docker", "compose", "--project-directory", project.directory, verb], timeout=PATIENCE)
    return "" if done.rc == 0 else (done.stderr.strip().splitlines() or [f"code {done.rc}"])[-1]


def volumes(world: World, project: Project) -> list[str]:
    """Return where the volumes of a project lie that are to be saved.

    :raises AnchorageError: when Docker does not say.
    """
    filters = [f"--filter=label={LABEL}", f"--filter=label=com.docker.compose.project={project.name}"]
    listed = world.run(["docker", "volume", "ls", "--quiet", *filters], timeout=60)
    names = listed.stdout.split()
    shown = world.run(["docker", "volume", "inspect", *names], timeout=60) if names else listed
    if listed.rc != 0 or shown.rc != 0:
        raise AnchorageError(f"Docker does not name the volumes of {project.name}: {(listed.stderr or shown.stderr).strip()[:200]}.", what="backup apart")
    if not names:
        raise AnchorageError(
            f"The project {project.name} has no volume with the label {LABEL}.", what="backup apart", next_step="Run provision.yml, which makes the project."
        )
    return sorted(str(entry["Mountpoint"]) for entry in json.loads(shown.stdout))


@contextlib.contextmanager
def at_rest(settings: Settings, world: World, log: Log) -> t.Iterator[tuple[list[str], str]]:
    """Stop the projects, and give where their volumes lie, and what could not be stopped."""
    paths: list[str] = []
    problems: list[str] = []
    start_again(settings, world, log)
    world.write_atomic(STOPPED, json.dumps([project.name for project in settings.apart]).encode(), mode=0o600)
    try:
        for project in settings.apart:
            try:
                found = volumes(world, project)
                problem = _compose(world, project, "stop")
                if problem:
                    raise AnchorageError(f"The project {project.name} could not be stopped, so it is not saved: {problem}.", what="backup apart")
                log.say(f"{project.name}: at rest, {len(found)} volumes")
                paths += found
            except AnchorageError as error:
                problems.append(error.message)
        yield paths, "; ".join(problems)
    finally:
        start_again(settings, world, log)


def start_again(settings: Settings, world: World, log: Log) -> None:
    """Start what is stopped.

    :raises AnchorageError: when one does not start.
    """
    raw = world.read(STOPPED)
    if raw is None:
        return
    wrong = []
    for project in settings.apart:
        problem = _compose(world, project, "start") if project.name in json.loads(raw) else ""
        if problem:
            wrong.append(f"{project.name}: {problem}")
    if wrong:
        raise AnchorageError(
            f"What was stopped to be saved could not be started again: {'; '.join(wrong)}.",
            what="backup apart",
            next_step="docker compose --project-directory DIRECTORY up -d",
        )
    world.remove(STOPPED)
    log.say("apart: everything runs again")
