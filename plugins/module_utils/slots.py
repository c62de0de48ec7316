# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two slots of an app: which processes live in them, whether a release answers there, which one the proxy uses."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import typing as t

from . import drain, health, hold, memory, processes
from .app import App, Log
from .errors import AnchorageError
from .http_probe import Expectation, Target, bracketed, probe
from .layout import PATH
from .release_plan import Instance, ecosystem_entry, instances, listen_address
from .world import fsync_directory

#: How a process without a health check is judged: it must stay alive.
STEADY = {"path": None, "status": 200, "deadline_seconds": 60, "interval_seconds": 1, "successes": 5}


class Manager:
    """PM2 of one app, spoken to as the app's user and with a clean environment (PM2 dumps what it is called with)."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.environment = {"PATH": PATH, "HOME": app.layout.pm2_home, "PM2_HOME": app.layout.pm2_home, "LANG": "C.UTF-8"}

    def _pm2(self, *args: str, timeout: float = 120) -> str:
        done = self.app.world.run(["pm2", *args], env=self.environment, cwd=self.app.layout.pm2_home, user=self.app.user, timeout=timeout)
        if done.rc != 0:
            text = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise AnchorageError(f"'pm2 {args[0]}' of {self.app.name} failed with code {done.rc}: {' '.join(text)[:400]}")
        return done.stdout

    def require_unit(self) -> None:
        """PM2's daemon must be the unit's, so that every process lives in its cgroup: start the unit before any pm2 command."""
        unit = f"pm2-{self.app.user}.service"
        if self.app.world.run(["systemctl", "is-active", "--quiet", unit]).rc == 0:
            return
        done = self.app.world.run(["systemctl", "start", unit], timeout=120)
        if done.rc != 0:
            raise AnchorageError(f"{unit} does not start: {done.stderr.strip()[:300]}", next_step=f"Read: journalctl -u {unit}")

    def list(self) -> list[dict[str, t.Any]]:
        """Return PM2's processes. Before its JSON it may print a banner."""
        text = self._pm2("jlist")
        start = text.find("[{") if "[{" in text else text.find("[]")
        return t.cast("list[dict[str, t.Any]]", json.loads(text[start:])) if start >= 0 else []

    def names(self) -> set[str]:
        """Return the names of all processes."""
        return {entry["name"] for entry in self.list()}

    def at_rest(self, seconds: float) -> dict[str, bool]:
        """Return all processes, and whether each is meant to run, once none of them is about to stop (its daemon ends what a dead caller began)."""
        end = self.app.world.monotonic() + seconds
        while True:
            states = {entry["name"]: entry.get("pm2_env", {}).get("status", "online") for entry in self.list()}
            if "stopping" not in states.values() or self.app.world.monotonic() >= end:
                return {name: state not in ("stopping", "stopped", "errored") for name, state in states.items()}
            self.app.world.sleep(1)

    def start(self, entries: list[dict[str, t.Any]]) -> None:
        """Start processes; one that exists under a name is replaced."""
        present = self.names()
        stale = [entry["name"] for entry in entries if entry["name"] in present]
        if stale:
            self.delete(stale)
        path = f"{self.app.layout.pm2_home}/starting.json"
        user = pwd.getpwnam(self.app.user)
        self.app.world.write_atomic(path, json.dumps({"apps": entries}).encode(), mode=0o640, uid=0, gid=user.pw_gid)
        self._pm2("start", path)
        os.unlink(path)

    def delete(self, names: t.Iterable[str]) -> None:
        """Stop processes gracefully and forget them."""
        for name in names:
            self._pm2("delete", name, timeout=600)


def running(app: App) -> bool:
    """Tell whether every process of the live release is there, without waking a daemon that is not."""
    journal = app.journal
    if journal.live is None or journal.slot is None:
        return False
    app = app.at(journal.live)
    table = {listener.port for listener in processes.listeners(app.world)}
    wanted = instances(app.document, journal.slot)
    seen = set()
    for pid in processes.pids(app.world):
        environment = processes.environment(app.world, pid) or {}
        if environment.get("ANCHORAGE_RELEASE") == journal.live and environment.get("ANCHORAGE_PROCESS"):
            seen.add(environment["ANCHORAGE_PROCESS"])
    return all(instance.name in seen and (instance.port is None or instance.port in table) for instance in wanted)


class Slots:
    """What runs in the slots of an app, and how that is changed."""

    def __init__(self, app: App, log: Log) -> None:
        self.app = app
        self.log = log
        self.manager = Manager(app)

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

    def entries(self, release: str, slot: str) -> list[dict[str, t.Any]]:
        """Return what PM2 is told of a release in a slot."""
        return [self._entry(instance, release) for instance in instances(self.app.at(release).document, slot)]

    def _entry(self, instance: Instance, release: str) -> dict[str, t.Any]:
        stop_seconds = hold.stop_seconds(self.app.document, instance.process)
        return ecosystem_entry(self.app.layout, release, instance, self.app.command, f"/var/log/pm2/{self.app.user}", stop_seconds)

    def start(self, wanted: t.Sequence[Instance], release: str, *, until: float | None = None) -> None:
        """Start processes of a release and prove each.

        :arg until: when the clock says so, there is no more time to prove them.
        :raises AnchorageError: with the cause that was seen last, when one is not proven within its deadline.
        """
        if not wanted:
            return
        for instance in wanted:
            self.log.say(f"{self.app.name}: start {instance.name} of release {release}" + (f" on port {instance.port}" if instance.port else ""))
        self.manager.start([self._entry(instance, release) for instance in wanted])
        for instance in wanted:
            self.prove(instance, release, until=until)

    def ask(self, instance: Instance, release: str, seconds: float) -> list[health.Check]:
        """Ask a process once whether it is of this release and well."""
        options = instance.process.get("health") or STEADY
        checks = [self._identity(instance, release)]
        if checks[0].healthy:
            checks.append(memory.within(self.app.world, checks[0].evidence["pids"], instance.process))
        if instance.port is not None and options.get("path") and checks[0].healthy:
            address = listen_address(self.app.at(release).document, instance.process)
            wanted = Expectation(status=(options["status"],), body=options.get("body") or None)
            checks += probe(Target(f"http://{bracketed(address)}:{instance.port}{options['path']}"), wanted, world=self.app.world, seconds=min(seconds, 10.0))
        return checks

    def prove(self, instance: Instance, release: str, *, until: float | None = None) -> None:
        """Wait until exactly this release answers on its port, k times in a row; a process without port must stay."""
        options = instance.process.get("health") or STEADY
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
        """The process on the port must be of this release: PM2 calls a process online that listens nowhere."""
        world = self.app.world
        owners = self.owners(instance, release)
        if not owners:
            return health.judge(
                "identity",
                False,
                cause=f"no process {instance.name} of release {release} is alive",
                advice=f"/var/log/pm2/{self.app.user}/{instance.name}.log",
            )
        if instance.port is None:
            return health.judge("identity", True, evidence={"pids": owners})
        listening = [listener for listener in processes.listeners(world) if listener.port == instance.port]
        if not listening:
            return health.judge(
                "identity", False, cause=f"nobody listens on port {instance.port} yet", advice=f"/var/log/pm2/{self.app.user}/{instance.name}.log"
            )
        table = processes.parents(world)
        mine = {member for pid in owners for member in processes.family(pid, table)}
        strangers = [pid for listener in listening for pid in listener.pids if pid not in mine]
        return health.judge(
            "identity",
            not strangers,
            evidence={"pids": owners, "port": instance.port},
            cause=f"port {instance.port} belongs to another process ({', '.join(str(pid) for pid in strangers)})",
            advice=f"ss -ltnp 'sport = :{instance.port}'",
        )

    def _last_lines(self, instance: Instance) -> list[str]:
        raw = self.app.world.read(f"/var/log/pm2/{self.app.user}/{instance.name}.log") or b""
        lines = raw.decode("utf-8", "replace").splitlines()[-15:]
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

    def write_boot_file(self, release: str | None, slot: str | None) -> None:
        """Write down what PM2 starts at boot. Where nothing was ever confirmed there is nothing to write."""
        if release is None or slot is None:
            return
        path = self.app.layout.live_file
        data = json.dumps({"apps": self.entries(release, slot)}, indent=1).encode()
        if self.app.world.read(path) != data:
            gid = pwd.getpwnam(self.app.user).pw_gid
            self.app.world.write_atomic(path, data, mode=0o640, uid=0, gid=gid)

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
        self.write_boot_file(release, slot)
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
        present = self.manager.at_rest(self._longest_stop())
        leaving = set(present) - {instance.name for instance in wanted}
        drain.drain(self.app, self.log, leaving, at_most=hold.seconds(self.app.document) / hold.SHARE if waiting.active else None)
        self.manager.delete(sorted(leaving, reverse=True))
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
        self.manager.start([self._entry(instance, release) for instance in missing])
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
