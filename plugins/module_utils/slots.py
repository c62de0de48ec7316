# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two slots of an app: which processes live in them, whether a release answers there, which one the proxy uses."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from . import drain, health, hold, memory, postgresql_probe, processes, redis_probe, runtimes, worker_probe
from .app import App, Log
from .errors import AnchorageError
from .http_probe import Expectation, Target, bracketed, probe
from .release_plan import Instance, instances, listen_address
from .swarm_runtime import Swarm
from .world import fsync_directory

#: How a process without a health check is judged: it must stay alive.
STEADY: dict[str, t.Any] = {"path": None, "status": 200, "deadline_seconds": 60, "interval_seconds": 1, "successes": 5}


def proof(process: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return how a process is proven: as its health check says, or by staying, with time for its first sign of life where it leaves one."""
    beat = process.get("heartbeat")
    options = process.get("health") or STEADY
    return {**options, "deadline_seconds": max(options["deadline_seconds"], beat["max_age_seconds"])} if beat else dict(options)


def heartbeat(app: App, process: t.Mapping[str, t.Any], release: str) -> worker_probe.Heartbeat:
    """Return where a process of a release leaves its sign of life, as it is read from this host."""
    beat, document = process["heartbeat"], app.document

    def text(key: str) -> str:
        return t.cast(str, beat[key]).replace(RELEASE, release)

    limit = float(beat["max_age_seconds"])
    if beat.get("sql"):
        return worker_probe.Heartbeat(sql=(postgresql_probe.parse_url(document["database_url"]), text("sql")), max_age_seconds=limit)
    if beat.get("redis_key"):
        return worker_probe.Heartbeat(redis=(redis_probe.parse_url(document["redis_url"]), text("redis_key")), max_age_seconds=limit)
    return worker_probe.Heartbeat(file=f"{app.layout.shared}/{text('file')}", max_age_seconds=limit)


def running(app: App) -> bool:
    """Tell whether every process of the live release is there, without waking a daemon that is not."""
    journal = app.journal
    if journal.live is None or journal.slot is None:
        return False
    app = app.at(journal.live)
    runtime = runtimes.of(app)
    if isinstance(runtime, Swarm):
        return runtime.serves(journal.live)
    table = {listener.port for listener in processes.listeners(app.world)}
    wanted = instances(app.document, journal.slot)
    seen = set()
    for pid in processes.pids(app.world):
        environment = processes.environment(app.world, pid) or {}
        if environment.get("ANCHORAGE_RELEASE") == journal.live and environment.get("ANCHORAGE_PROCESS"):
            seen.add(environment["ANCHORAGE_PROCESS"])
    return all(instance.name in seen and (instance.port is None or instance.port in table) for instance in wanted)


#: Stands for the release's id in the words of a heartbeat.
RELEASE = "{release}"


class Slots:
    """What runs in the slots of an app, and how that is changed."""

    def __init__(self, app: App, log: Log) -> None:
        self.app = app
        self.log = log
        self.runtime = runtimes.of(app)

    def used_by_proxy(self) -> str:
        """Return the slot that the proxy uses."""
        return "green" if os.path.exists(self.app.layout.slot_flag) else "blue"

    def observed(self) -> tuple[str | None, str | None]:
        """Return the slot that the proxy uses and the release that lives in it: a lost journal does not know, and it must serve on."""
        slot = self.used_by_proxy()
        names = {instance.name for instance in instances(self.app.document, slot)}
        for pid in processes.pids(self.app.world):
            environment = processes.environment(self.app.world, pid) or {}
            if environment.get("ANCHORAGE_PROCESS") in names:
                return slot, environment.get("ANCHORAGE_RELEASE")
        return None, None

    def start(self, wanted: t.Sequence[Instance], release: str, *, until: float | None = None) -> None:
        """Start processes of a release and prove each.

        :arg until: when the clock says so, there is no more time to prove them.
        :raises AnchorageError: with the cause that was seen last, when one is not proven within its deadline.
        """
        if not wanted:
            return
        for instance in wanted:
            self.log.say(f"{self.app.name}: start {instance.name} of release {release}" + (f" on port {instance.port}" if instance.port else ""))
        self.runtime.start(wanted, release)
        for instance in wanted:
            self.prove(instance, release, until=until)

    def ask(self, instance: Instance, release: str, seconds: float) -> list[health.Check]:
        """Ask a process once whether it is of this release and well."""
        options = proof(instance.process)
        checks = [self._identity(instance, release)]
        if checks[0].healthy:
            checks.append(memory.within(self.app.world, checks[0].evidence["pids"], instance.process))
        if instance.port is not None and options.get("path") and checks[0].healthy:
            address = listen_address(self.app.at(release).document, instance.process)
            wanted = Expectation(status=(options["status"],), body=options.get("body") or None)
            checks += probe(Target(f"http://{bracketed(address)}:{instance.port}{options['path']}"), wanted, world=self.app.world, seconds=min(seconds, 10.0))
        if instance.process.get("heartbeat") and checks[0].healthy:
            checks += self._beat(instance, release, checks[0].evidence["pids"], min(seconds, 10.0))
        return checks

    def _beat(self, instance: Instance, release: str, owners: t.Sequence[int], seconds: float) -> list[health.Check]:
        """Judge its sign of life: not one that was left before it was started."""
        beat = heartbeat(self.app.at(release), instance.process, release)
        # As old as its oldest process: one that it has just started itself makes it no younger.
        alive = max(processes.age(self.app.world, pid) for pid in owners)
        found = worker_probe.feel(dataclasses.replace(beat, max_age_seconds=min(beat.max_age_seconds, alive)), world=self.app.world, seconds=seconds)
        if found[0].healthy or alive >= beat.max_age_seconds:
            return found
        cause = f"{instance.name} has left no sign of life yet: {found[0].cause}"
        return [dataclasses.replace(found[0], cause=cause)]

    def prove(self, instance: Instance, release: str, *, until: float | None = None) -> None:
        """Wait until exactly this release answers on its port, k times in a row; a process without port must stay."""
        options = proof(instance.process)
        least = options["interval_seconds"] * options["successes"]
        left = options["deadline_seconds"] if until is None else max(least, until - self.app.world.monotonic())
        watch = health.poll(
            lambda seconds: self.ask(instance, release, seconds),
            world=self.app.world,
            deadline_seconds=min(options["deadline_seconds"], left),
            interval_seconds=options["interval_seconds"],
            successes=options["successes"],
        )
        verdict = health.verdict(instance.name, watch, good=f"release {release} answers")
        if not verdict.healthy:
            mend = f"Read the log above. If it only needs longer, raise apps.{self.app.name}.hold_seconds and timeout_seconds. Run deploy.yml again."
            short = left < options["deadline_seconds"]
            raise AnchorageError(verdict.message, what=f"proof of {instance.name}", next_step=mend if short else None, log=self._last_lines(instance))
        self.log.say(f"{self.app.name}: proven: {verdict.summary}")

    def owners(self, instance: Instance, release: str) -> list[int]:
        """Return the processes that were started as this instance of this release; what they start themselves is among them."""
        world = self.app.world
        wanted = {"ANCHORAGE_PROCESS": instance.name, "ANCHORAGE_RELEASE": release}
        found = []
        for pid in processes.pids(world):
            environment = processes.environment(world, pid) or {}
            if all(environment.get(key) == value for key, value in wanted.items()):
                found.append(pid)
        return found

    def main(self, instance: Instance, release: str) -> int | None:
        """Return the oldest of them, which is the one that PM2 started; None where there is none."""
        return min(self.owners(instance, release), key=lambda pid: (processes.started(self.app.world, pid), pid), default=None)

    def _identity(self, instance: Instance, release: str) -> health.Check:
        """The process on the port must be of this release."""
        owners = self.owners(instance, release)
        if not owners:
            why = self.runtime.ended(instance)
            cause = f"no process {instance.name} of release {release} is alive{why and f': {why}'}"
            return health.judge("identity", False, cause=cause, advice=self.runtime.where_it_logs(instance))
        if instance.port is None:
            return health.judge("identity", True, evidence={"pids": owners})
        return self.runtime.owns_port(instance, owners)

    def _last_lines(self, instance: Instance) -> list[str]:
        lines = self.runtime.last_lines(instance)
        for line in lines:
            self.log.command(line)
        return lines

    def point_proxy(self, slot: str, release: str | None, *, soak: bool = False) -> None:
        """Switch the proxy to a slot by its flag file; nothing is reloaded.

        :arg soak: whether the other slot answers what this one cannot, until settle_files() ends that.
        """
        if soak:
            self._set_flag(self.app.layout.soak_flag, True)
        self._set_flag(self.app.layout.slot_flag, slot == "green")
        self.app.journal.note("switched", release, slot=slot)
        self.log.say(f"{self.app.name}: the proxy's slot is {slot}")

    def _set_flag(self, flag: str, wanted: bool) -> None:
        os.makedirs(self.app.layout.slot_directory, exist_ok=True)
        if wanted:
            with open(flag, "ab"):
                pass
        elif os.path.exists(flag):
            os.unlink(flag)
        fsync_directory(self.app.layout.slot_directory)

    def keep_for_boot(self, release: str | None, slot: str | None) -> None:
        """See that the next boot starts what is live. Where nothing was ever confirmed there is nothing to keep."""
        if release is not None and slot is not None:
            self.runtime.keep_for_boot(release, slot)

    def settle_files(self) -> tuple[str | None, str | None]:
        """Let the proxy and the next boot use what the journal says is live. Returns that release and its slot."""
        release, slot = self.app.journal.should_live()
        if slot is not None and self.used_by_proxy() != slot:
            self._set_flag(self.app.layout.slot_flag, slot == "green")
            # The way back must not depend on a disk that takes another line of history.
            with contextlib.suppress(OSError):
                self.app.journal.note("switched", release, slot=slot)
            self.log.say(f"{self.app.name}: the proxy's slot is {slot}")
        if os.path.exists(self.app.layout.soak_flag):
            self._set_flag(self.app.layout.soak_flag, False)
        self.keep_for_boot(release, slot)
        return release, slot

    def _longest_stop(self) -> float:
        """Return how long a process of either slot may need to stop, in seconds."""
        journal = self.app.journal
        releases = {journal.live, *((journal.switch or {}).get(key) for key in ("release", "from_release"))}
        return 15 + max(process["stop_seconds"] for release in releases for process in self.app.at(release).document["processes"])

    def settle(self) -> list[str]:
        """Bring proxy, boot and processes to what the journal says is live: others away, missing ones back.

        It serves the confirmation, the way back, and a step that died in between.

        :returns: the processes that did not come back.
        """
        waiting = self._hold_on()
        try:
            return self._settle(waiting)
        finally:
            # Where nothing came back, waiting is of no use any more either.
            if waiting.active:
                waiting.end(hold.NOWHERE)
            waiting.tidy()

    def _settle(self, waiting: hold.Hold) -> list[str]:
        release, slot = self.settle_files()
        wanted = [] if release is None or slot is None else instances(self.app.at(release).document, slot)
        present = self.runtime.at_rest(self._longest_stop())
        leaving = set(present) - {instance.name for instance in wanted}
        drain.drain(self.app, self.log, leaving, at_most=hold.seconds(self.app.document) / hold.SHARE if waiting.active else None)
        self.runtime.delete(sorted(leaving, reverse=True))
        missing = [instance for instance in wanted if not present.get(instance.name)]
        public = [instance for instance in wanted if instance.process["public"]]
        lost = self._bring_back([instance for instance in missing if instance in public], release)
        if waiting.active and public and not lost:
            waiting.end(hold.address(self.app, public[0]))
        return lost + self._bring_back([instance for instance in missing if instance not in public], release)

    def _bring_back(self, missing: list[Instance], release: str | None) -> list[str]:
        """Start processes of the live release again. Returns those that did not come back."""
        lost: list[str] = []
        if not missing or release is None:
            return lost
        self.runtime.start(missing, release)
        for instance in missing:
            try:
                self.prove(instance, release)
            except AnchorageError as problem:
                self.log.say(f"{self.app.name}: {problem.message}")
                lost.append(instance.name)
        return lost

    def _hold_on(self) -> hold.Hold:
        """Let visitors wait where the release that is to serve must be started first, and there was no room for it beside the other one."""
        waiting = hold.Hold(self.app, self.log)
        release, slot = self.app.journal.should_live()
        if release is None or slot is None or not (waiting.active or hold.wanted(self.app.document)):
            return waiting
        public = instances(self.app.at(release).document, slot, public=True)
        if not all(self.owners(instance, release) for instance in public):
            # Those who wait may have been sent to the other release already. And better a gap than to stay between the two.
            with contextlib.suppress(AnchorageError, OSError):
                waiting.begin()
        return waiting
