# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a Swarm replace one release by another, and believe what its tasks show, not what it answers.

The first host of the app tells the Swarm; the others see that what runs there is of the release, and write it down. What goes wrong the Swarm itself takes
back, service by service; the rest of the stack is brought back here, so that no two releases are left side by side.
"""

from __future__ import annotations

import contextlib
import typing as t

from . import health, processes, room, swarm
from .app import App, Log
from .dead_man import DeadMan
from .errors import AnchorageError
from .http_probe import Expectation, Target, bracketed, probe
from .release_plan import other_slot
from .slots import proof
from .swarm_runtime import Swarm

#: Seconds between two looks at the Swarm.
PAUSE = 1.0

#: Seconds that the other nodes may be behind the one that leads, besides what it and old tasks may take.
BEHIND = 60.0

#: Looks in a row at a task in its soak that may go unanswered, and the seconds of each.
UNANSWERED, SLOWEST_ANSWER = 3, 10.0


def activate(app: App, log: Log, *, release: str, leaving: str | None = None) -> bool:
    """Bring a release to serve, or see that it does. Returns whether anything was done.

    :raises AnchorageError: when it does not; what served before serves again.
    """
    runtime = Swarm(app)
    runtime.require()
    runtime.check_node()
    if not runtime.leads:
        return Follower(app, log, release, leaving).run()
    tree = app.journal.release(release)["tree"]
    if app.journal.live == release and app.journal.data.get("tree") == tree and runtime.serves(release):
        log.say(f"{app.name}: release {release} serves already")
        return False
    return Update(app, log, release, leaving).run()


def settle(app: App, log: Log) -> list[str]:
    """Bring the Swarm back to what was live where an update was never confirmed.

    Where the Swarm runs a third release, another host has told it so since, and nothing is done: the Swarm itself knows better what is wanted of it.

    :returns: the processes that did not come back.
    """
    switch = app.journal.switch
    runtime = Swarm(app)
    if switch is None or not runtime.leads:
        return []
    before, slot, own = switch["from_release"], switch["from_slot"], app.document["host"]
    strangers = [service.release for service in runtime.look().values() if service.release not in (switch["release"], before) or service.lead not in ("", own)]
    if strangers:
        log.say(f"{app.name}: the Swarm runs {health.joined(sorted(strangers), ', ')}, which another host has told it; it is left alone")
        return []
    return Update(app, log, switch["release"]).back(before, slot)


class Update:
    """One change of the release that the Swarm runs."""

    def __init__(self, app: App, log: Log, release: str, leaving: str | None = None) -> None:
        self.app, self.log = app.at(release), log
        self.release, self.leaving = release, leaving
        self.runtime = Swarm(self.app)
        self.old, self.old_slot = app.journal.live, app.journal.slot
        self.slot = other_slot(self.old_slot) if self.old_slot else "blue"

    def run(self) -> bool:
        """Do it, or leave everything as it was."""
        journal = self.app.journal
        self.runtime.check(self.release)
        self._learn_slots()
        journal.begin_switch(self.release, self.slot, from_release=self.old, from_slot=self.old_slot)
        dead_man = DeadMan(self.app)
        wanted = self.app.document["processes"]
        public = [process for process in wanted if process["public"]]
        try:
            dead_man.arm(2 * sum(swarm.patience(process) for process in wanted) + self._soak_seconds())
            with self.app.timed("prove"):
                if public:
                    self._roll(public, public_only=True)
                    self._prove(public)
            with self.app.timed("workers"):
                self._roll(wanted, public_only=False)
            if self._soak_seconds():
                with self.app.timed("soak"):
                    self._watch(wanted)
            journal.go_live(self.release, self.slot, journal.release(self.release)["tree"], leaving=self.leaving)
        except (AnchorageError, OSError) as problem:
            error = room.named(problem, self.app.layout.state)
            room.Reserve(self.app).give_up()
            lost = self._back_anyhow()
            if lost is not None:
                with contextlib.suppress(OSError):
                    journal.end_switch("failed")
                dead_man.disarm()
            # Else the journal goes on saying that an update is unfinished, and the next to read it goes back: the end of this step, or the timer.
            lost = ["all of it"] if lost is None else lost
            error.live = self.app.living() + (f", but {' and '.join(lost)} did not come back" if lost else "")
            error.what = error.what or "activate"
            error.next_step = error.next_step or "Read the log above, mend the release and run deploy.yml again."
            raise error from (None if error is problem else problem)
        self.log.say(f"{self.app.name}: release {self.release} is live, on ports of slot {self.slot}")
        dead_man.disarm()
        journal.settled()
        return True

    def _learn_slots(self) -> None:
        """Take the ports that are free by what the Swarm says: a journal that followed, or was lost, may have guessed."""
        seen = self.runtime.look()
        public = [process["name"] for process in self.app.document["processes"] if process["public"]]
        self.old_slot = next((service.slot for service in seen.values() if service.release == self.old and service.slot), self.old_slot)
        held = next((seen[name].slot for name in public if name in seen and seen[name].slot), self.old_slot)
        self.slot = other_slot(held) if held else "blue"

    # -- forwards

    def _roll(self, wanted: t.Sequence[dict[str, t.Any]], *, public_only: bool) -> None:
        """Tell the Swarm, and follow it until all tasks run, or until it has gone back."""
        names = ", ".join(process["name"] for process in wanted)
        self.log.say(f"{self.app.name}: the Swarm is told to run {names} of release {self.release}")
        self.runtime.apply(self.release, self.slot, public_only=public_only)
        failed = self._follow(wanted, self.release, sum(swarm.patience(process) for process in wanted))
        if failed:
            name, cause = failed
            for line in self.runtime.last_words(name):
                self.log.command(line)
            raise AnchorageError(
                f"Release {self.release} of {self.app.name} does not run on the Swarm: {cause}.", what=f"update of {name}", log=self.runtime.last_words(name)
            )

    def _follow(self, wanted: t.Sequence[dict[str, t.Any]], release: str, seconds: float) -> tuple[str, str] | None:
        """Wait until all run. Returns the process that does not, with the cause; of one that the Swarm takes back only when it has done so."""
        world, told = self.app.world, ""
        end = world.monotonic() + seconds
        steady: tuple[float, int] | None = None
        while True:
            seen = self.runtime.look()
            found = {process["name"]: swarm.judge(seen.get(process["name"]), process, release) for process in wanted}
            failed = next(((name, verdict.cause) for name, verdict in found.items() if verdict.state == swarm.FAILED), None)
            if failed and all(swarm.settled(service) for service in seen.values()):
                if seen[failed[0]].update.startswith("rollback"):
                    self.log.say(f"{self.app.name}: the Swarm has rolled {failed[0]} back ({seen[failed[0]].said})")
                return failed
            going = "; ".join(verdict.cause for verdict in found.values() if verdict.state == swarm.GOING)
            if not failed and not going:
                # Of a new service the Swarm judges nothing, and of one that was just told it may not have begun: what runs must go on running.
                ended = sum(len(seen[name].ended(release)) for name in found)
                if steady is None or steady[1] != ended:
                    steady = (world.monotonic(), ended)
                if world.monotonic() - steady[0] >= swarm.MONITOR + PAUSE:
                    return None
            else:
                steady = None
            if world.monotonic() >= end:
                return failed or self._late(seen, found, release, seconds)
            if going and going != told:
                self.log.say(f"{self.app.name}: {going}")
                told = going
            world.sleep(PAUSE)

    @staticmethod
    def _late(seen: t.Mapping[str, swarm.Service], found: t.Mapping[str, swarm.Verdict], release: str, seconds: float) -> tuple[str, str]:
        """Return which process is not there when the time is over, and what is known of it."""
        for name, verdict in found.items():
            if verdict.state == swarm.GOING:
                return name, f"{verdict.cause} after {seconds:.0f} s"
        name = max(found, key=lambda name: len(seen[name].ended(release)))
        ended = seen[name].ended(release)[-1]
        return name, f"{name}: its tasks end again and again, after {seconds:.0f} s still: {ended.error or swarm.UNSAID} on {ended.node}"

    def _prove(self, wanted: t.Sequence[dict[str, t.Any]]) -> None:
        """Ask each task of the release at its node, as the proxies do."""
        for process in wanted:
            options = proof(process)
            if not options.get("path"):
                continue
            service = self.runtime.look()[process["name"]]
            for task in service.running(self.release):
                watch = health.poll(
                    lambda seconds, task=task, process=process: self._ask(task, process, seconds),
                    world=self.app.world,
                    deadline_seconds=options["deadline_seconds"],
                    interval_seconds=options["interval_seconds"],
                    successes=options["successes"],
                )
                verdict = health.verdict(f"{process['name']} on {task.node}", watch, good=f"release {self.release} answers")
                if not verdict.healthy:
                    mend = f"Does the firewall of {task.node} let this host in? provision.yml opens it to all hosts of the app. Then run deploy.yml again."
                    raise AnchorageError(verdict.message, what=f"proof of {process['name']}", next_step=mend)
                self.log.say(f"{self.app.name}: proven: {verdict.summary}")

    def _ask(self, task: swarm.Task, process: dict[str, t.Any], seconds: float) -> list[health.Check]:
        options = proof(process)
        address, port = task.place
        wanted = Expectation(status=(options["status"],), body=options.get("body") or None)
        url = f"http://{bracketed(address)}:{port}{options['path']}"
        return [*probe(Target(url), wanted, world=self.app.world, seconds=min(seconds, SLOWEST_ANSWER))]

    def _soak_seconds(self) -> float:
        wanted = self.app.document.get("soak") or {"seconds": 0}
        return float(wanted["seconds"]) if self.old is not None and self.leaving is None else 0.0

    def _watch(self, wanted: t.Sequence[dict[str, t.Any]]) -> None:
        """Watch the release that serves: no task may end, and each must answer."""
        seconds = self._soak_seconds()
        self.log.say(f"{self.app.name}: soak: watching release {self.release} for {seconds:.0f} s")
        world, asked, silent = self.app.world, 0, 0
        before = {name: len(service.ended(self.release)) for name, service in self.runtime.look().items()}
        end = world.monotonic() + seconds
        while world.monotonic() < end:
            causes = []
            for name, service in self.runtime.look().items():
                ended = service.ended(self.release)
                if len(ended) > before.get(name, 0):
                    cause = ended[0].error or swarm.UNSAID
                    raise AnchorageError(f"{name} of release {self.release} ended in its soak on {ended[0].node}: {cause}.", what="soak")
                process = next((process for process in wanted if process["name"] == name and process["public"]), None)
                if process and proof(process).get("path"):
                    for task in service.running(self.release):
                        asked += 1
                        causes += [f"on {task.node}: {check.cause}" for check in self._ask(task, process, SLOWEST_ANSWER) if not check.healthy]
            silent = silent + 1 if causes else 0
            if silent >= UNANSWERED:
                raise AnchorageError(f"Release {self.release} did not answer {silent} times in a row in its soak: {causes[0]}.", what="soak")
            world.sleep(PAUSE)
        self.log.say(f"{self.app.name}: soak is over: {asked} answers, no task ended")

    def renew(self) -> list[str]:
        """Replace all tasks by others of the same release. Returns the processes that did not come back."""
        wanted = self.app.document["processes"]
        self.runtime.restart([], self.release)
        failed = self._follow(wanted, self.release, sum(swarm.patience(process) for process in wanted))
        if failed:
            # What is half done would be tried for ever.
            self.runtime.apply(self.release, t.cast(str, self.old_slot))
        return [failed[0]] if failed else []

    # -- backwards

    def _back_anyhow(self) -> list[str] | None:
        """Go back; what failed first is what is told. Returns the processes that did not come back, None where the Swarm could not be told."""
        try:
            return self.back(self.old, self.old_slot)
        except AnchorageError as problem:
            self.log.say(f"{self.app.name}: {problem.message}")
            return None

    def back(self, release: str | None, slot: str | None) -> list[str]:
        """Let the Swarm run what ran before. Returns the processes that did not come back."""
        self.log.say(f"{self.app.name}: going back to {release or 'nothing'}")
        if release is None or slot is None:
            self.runtime.take_down()
            return []
        wanted = self.app.at(release).document["processes"]
        # What the Swarm has taken back by itself already is what is asked for, and not touched.
        self.runtime.apply(release, slot)
        failed = self._follow(wanted, release, sum(swarm.patience(process) for process in wanted))
        return [failed[0]] if failed else []


def restart(app: App, log: Log) -> list[str]:
    """Let the Swarm replace all tasks of the live release, one by one, under visitors. Returns the processes that did not come back."""
    update = Update(app, log, t.cast(str, app.journal.live))
    return update.renew()


class Follower:
    """A host that does not tell the Swarm anything: it sees that what runs there is of the release."""

    def __init__(self, app: App, log: Log, release: str, leaving: str | None) -> None:
        self.app, self.log = app.at(release), log
        self.release, self.leaving = release, leaving
        self.runtime = Swarm(self.app)

    def run(self) -> bool:
        """Wait for it, and write it down.

        :raises AnchorageError: when something else runs here after a while.
        """
        journal = self.app.journal
        tree = journal.release(self.release)["tree"]
        self.runtime.check(self.release)
        end = self.app.world.monotonic() + self._behind()
        while True:
            found = self.runtime.here()
            wrong = [cause for container in found for cause in [self._wrong(container)] if cause]
            if not wrong:
                break
            if self.app.world.monotonic() >= end:
                raise AnchorageError(
                    f"Release {self.release} of {self.app.name} is not what runs on this host: {health.joined(wrong)}.",
                    what="activate",
                    live=self.app.living(),
                    next_step=f"{self.app.document['hosts'][0]} tells the Swarm what to run: run deploy.yml with that host, and see docker stack ps there.",
                )
            self.app.world.sleep(PAUSE)
        if journal.live == self.release and journal.data.get("tree") == tree:
            self.log.say(f"{self.app.name}: release {self.release} runs here already")
            return False
        slot = next((container["slot"] for container in found if container["slot"]), None) or (other_slot(journal.slot) if journal.slot else "blue")
        journal.go_live(self.release, slot, tree, leaving=self.leaving)
        journal.settled()
        names = health.joined((container["name"] for container in found), ", ")
        self.log.say(f"{self.app.name}: release {self.release} is live; on this host run {names or 'none of its tasks'}")
        return True

    def _behind(self) -> float:
        """Return how long the release before may run here, in seconds: the lead may be at it still, and an old task finishes what it has in hand."""
        live = self.app.at(self.app.journal.live).document
        stops = max(process["stop_seconds"] for process in live["processes"]) + swarm.HEARD + swarm.STRAGGLERS
        soak = (self.app.document.get("soak") or {"seconds": 0})["seconds"]
        return float(BEHIND + stops + soak + sum(swarm.patience(process) for process in self.app.document["processes"]))

    def _wrong(self, container: dict[str, t.Any]) -> str:
        """Say what is wrong with a container; the process in it must say itself that it is of the release."""
        if container["release"] != self.release:
            return f"{container['name']} is of release {container['release']}"
        if not container["alive"] or container["health"] not in (None, "healthy"):
            return f"{container['name']} is {container['health'] or 'not running'}"
        told = f"{self.app.name}-{container['process']}."
        for pid in processes.pids(self.app.world):
            environment = processes.environment(self.app.world, pid) or {}
            if environment.get("ANCHORAGE_PROCESS", "").startswith(told) and environment.get("ANCHORAGE_RELEASE") == self.release:
                return ""
        return f"no process of {container['name']} says that it is of release {self.release}"
