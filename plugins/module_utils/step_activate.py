# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a release in the idle slot, prove it, and only then give it the traffic. Anything else leaves the old one serving."""

from __future__ import annotations

import contextlib
import typing as t

from . import drain, hold, host_drain, room, swarm_switch
from .app import App, Log
from .dead_man import DeadMan
from .errors import AnchorageError
from .recovery import recover
from .release_plan import Instance, instances, listen_address, other_slot
from .runtime import SWARM, name_of
from .slots import Slots, proof, running
from .soak import PATIENCE, Soak, place

#: Seconds after which a health check during the soak counts as not answered.
SLOWEST_ANSWER = 10.0


def activate(app: App, log: Log, *, release: str, leaving: str | None = None) -> bool:
    """Bring a release to serve on this host. Returns whether anything was done.

    :arg leaving: the release that is gone back from.
    :raises AnchorageError: when it did not come to serve; what served before still does.
    """
    if not app.journal.says(release, "staged"):
        raise AnchorageError(
            f"Release {release} of {app.name} is not staged on this host.", live=app.living(), next_step="Run deploy.yml without --tags and --start-at-task."
        )
    if not app.migrated(release):
        raise AnchorageError(
            f"Release {release} of {app.name} may not start: its database does not carry the mark of its migration.",
            what="gate",
            live=app.living(),
            next_step="Run deploy.yml without --tags, --limit and --start-at-task, so that the gate is passed.",
        )
    recover(app, log)
    if name_of(app.document) == SWARM:
        return swarm_switch.activate(app, log, release=release, leaving=leaving)
    tree = app.journal.release(release)["tree"]
    if app.journal.live == release and app.journal.data.get("tree") == tree and running(app):
        log.say(f"{app.name}: release {release} serves already")
        return False
    return Switch(app, log, release, leaving).run()


class Switch:
    """One change of the live release."""

    def __init__(self, app: App, log: Log, release: str, leaving: str | None = None) -> None:
        self.leaving = leaving
        self.app, self.present = app.at(release), app.document
        self.log = log
        self.release = release
        self.slots = Slots(app, log)
        self.runtime = self.slots.runtime
        self.old, self.old_slot = app.journal.live, app.journal.slot
        self.slot = "blue"

    def run(self) -> bool:
        """Do it, or leave everything as it was."""
        journal = self.app.journal
        self.runtime.require()
        self.runtime.check(self.release)
        if self.old_slot is None:
            self.old_slot, self.old = self.slots.observed()
        if self.old_slot is not None:
            self.slot = other_slot(self.old_slot)
        self._clear_idle_slot()
        journal.begin_switch(self.release, self.slot, from_release=self.old, from_slot=self.old_slot)
        dead_man = DeadMan(self.app)
        try:
            waiting = self._make_room(dead_man) if self._one_at_a_time() else None
            public = instances(self.app.document, self.slot, public=True)
            with self.app.timed("prove"):
                self.slots.start(public, self.release, until=waiting and waiting.until)
            dead_man.arm(self._seconds_to_confirm())
            soak = self._soak()
            if soak:
                soak.know(public, self._main)
            self.slots.point_proxy(self.slot, self.release, soak=soak is not None and waiting is None)
            if waiting:
                waiting.end(hold.address(self.app, public[0]))
                if soak:
                    soak.rush = waiting.waited
            with self.app.timed("workers"):
                self._hand_over_workers()
            if soak:
                soak.know(instances(self.app.document, self.slot, public=False), self._main)
                with self.app.timed("soak"):
                    self._watch(soak)
            journal.go_live(self.release, self.slot, journal.release(self.release)["tree"], leaving=self.leaving)
        except (AnchorageError, OSError) as problem:
            error = room.named(problem, self.app.layout.state, self.app.layout.pm2_home)
            room.Reserve(self.app).give_up()
            lost = self._go_back(dead_man)
            dead_man.disarm()
            error.live = self.app.living() + (f", but {' and '.join(lost)} did not come back" if lost else "")
            error.what = error.what or "activate"
            error.next_step = error.next_step or "Read the log above, mend the release and run deploy.yml again."
            raise error from (None if error is problem else problem)
        self.log.say(f"{self.app.name}: release {self.release} is live in slot {self.slot}")
        dead_man.disarm()
        with self.app.timed("retire"):
            self.slots.settle()
        journal.settled()
        host_drain.first_release(self.app.world, self.log, self.app.name)
        return True

    def _one_at_a_time(self) -> bool:
        """Whether the host has room for one release: the contract of today says so, whatever it said when a release was made that is gone back to."""
        return self.old_slot is not None and hold.wanted(self.present) and bool(instances(self.app.document, self.slot, public=True))

    def _make_room(self, dead_man: DeadMan) -> hold.Hold:
        """Stop the release before, of which there is no room beside the new one; visitors wait from here on."""
        most = hold.seconds(self.present)
        waiting = hold.Hold(self.app, self.log)
        waiting.require_proxy()
        old = self._old_app()
        stops = sum(process["stop_seconds"] * process["instances"] for process in old.document["processes"])
        dead_man.arm(stops + most + drain.QUIET + sum(self._starts(process) for process in self.app.document["processes"] if process["public"]))
        for process in old.document["processes"]:
            if not process["public"]:
                self._stop_old(process["name"])
        waiting.begin(most)
        leaving = {instance.name for instance in instances(old.document, t.cast(str, self.old_slot), public=True)}
        drain.drain(self.app, self.log, leaving, at_most=most / hold.SHARE)
        for name in sorted(leaving & self.runtime.names()):
            self.log.say(f"{self.app.name}: stop {name} first (strategy: hold)")
            self.runtime.delete([name])
        left = t.cast(float, waiting.until) - self.app.world.monotonic()
        self.log.say(f"{self.app.name}: the release before took {most - left:.0f} s to finish and stop; {max(0.0, left):.0f} s are left for this one")
        return waiting

    def _seconds_to_confirm(self) -> float:
        """Return how long the way from the switch to the confirmation may take at most: proofs of the new workers, stops of the old ones."""
        soak = self._soak_seconds() and self._soak_seconds() + PATIENCE * SLOWEST_ANSWER * len(instances(self.app.document, self.slot))
        return self._workers(self.app, "deadline_seconds") + self._workers(self._old_app(), "stop_seconds") + soak

    def _seconds_back(self) -> float:
        """Return how long the way back may take at most: requests in hand, stops of all new processes, proofs of the old workers."""
        stops = sum(process["stop_seconds"] * process["instances"] for process in self.app.document["processes"])
        old = self._old_app()
        starts = sum(self._starts(process) for process in old.document["processes"] if process["public"]) if self._one_at_a_time() else 0
        return drain.longest(self.app.document) + stops + starts + self._workers(old, "deadline_seconds")

    def _old_app(self) -> App:
        return self.app.at(self.old) if self.old else self.app

    @staticmethod
    def _starts(process: dict[str, t.Any]) -> float:
        """Return how long all instances of a process may take to be proven, in seconds."""
        return float(proof(process)["deadline_seconds"] * process["instances"])

    @staticmethod
    def _workers(app: App, key: str) -> float:
        workers = [process for process in app.document["processes"] if not process["public"]]
        return float(sum({**process, **proof(process)}[key] * process["instances"] for process in workers))

    def _soak_seconds(self) -> float:
        """Return how long the release is watched: not at all where nothing runs that could be gone back to, nor on the way back itself."""
        wanted = self.app.document.get("soak") or {"seconds": 0}
        return float(wanted["seconds"]) if self.old_slot is not None and self.leaving is None else 0.0

    def _soak(self) -> Soak | None:
        if not self._soak_seconds() or self.old_slot is None:
            return None
        old, new = self._places(self._old_app(), self.old_slot), self._places(self.app, self.slot)
        return Soak(self.app.world, self.app.document["soak"], old=old, new=new)

    @staticmethod
    def _places(app: App, slot: str) -> set[str]:
        wanted = instances(app.document, slot, public=True)
        return {place(listen_address(app.document, instance.process), instance.port) for instance in wanted if instance.port is not None}

    def _main(self, instance: Instance) -> int | None:
        return self.slots.main(instance, self.release)

    def _watch(self, soak: Soak) -> None:
        def ask(instance: Instance) -> str:
            return "; ".join(check.cause for check in self.slots.ask(instance, self.release, SLOWEST_ANSWER) if not check.healthy)

        net = "has stopped" if self._one_at_a_time() else "still runs"
        self.log.say(f"{self.app.name}: soak: watching release {self.release} for {self._soak_seconds():.0f} s; the release before {net}")
        soak.watch(instances(self.app.document, self.slot), self._main, ask)
        self.log.say(f"{self.app.name}: soak is over: {soak.summary()}")

    def _clear_idle_slot(self) -> None:
        """Remove what an interrupted run left in the slot that is to be used."""
        left = {instance.name for instance in instances(self.app.document, self.slot)} & self.runtime.names()
        if left:
            self.log.say(f"{self.app.name}: removing what an earlier run left in slot {self.slot}: {', '.join(sorted(left))}")
            self.runtime.delete(sorted(left))

    def _hand_over_workers(self) -> None:
        """Workers take real jobs as soon as they live, so they come after the proof; one that may not overlap stops first."""
        for process in self.app.document["processes"]:
            if process["public"]:
                continue
            new = [instance for instance in instances(self.app.document, self.slot, public=False) if instance.process["name"] == process["name"]]
            if not process["overlap"]:
                self._stop_old(process["name"])
            self.slots.start(new, self.release)

    def _stop_old(self, process: str) -> None:
        if self.old_slot is None:
            return
        present = self.runtime.names()
        reason = "strategy: hold" if self._one_at_a_time() else "overlap: false"
        for instance in instances(self._old_app().document, self.old_slot):
            if instance.process["name"] == process and instance.name in present:
                self.log.say(f"{self.app.name}: stop {instance.name} first ({reason})")
                self.runtime.delete([instance.name])

    def _go_back(self, dead_man: DeadMan) -> list[str]:
        """Undo: the proxy to the old slot, the new processes away, stopped workers back. Returns those that did not come back."""
        with contextlib.suppress(AnchorageError):
            dead_man.arm(self._seconds_back())
        self.log.say(f"{self.app.name}: going back to {self.old or 'nothing'}")
        lost = self.slots.settle()
        # Where even this cannot be written, the journal goes on saying that a switch is unfinished, and the next to read it goes back.
        with contextlib.suppress(OSError):
            self.app.journal.end_switch("failed")
        return lost
