# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a release in the idle slot, prove it, and only then give it the traffic. Anything else leaves the old one serving."""

from __future__ import annotations

import json
import os
import pwd
import typing as t

from . import health, processes
from .app import App, Log
from .errors import AnchorageError
from .http_probe import Expectation, Target, probe
from .layout import PATH
from .release_plan import Instance, ecosystem_entry, instances, listen_address, other_slot
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
    table = {listener.port for listener in processes.listeners(app.world)}
    wanted = instances(app.document, journal.slot)
    seen = set()
    for pid in processes.pids(app.world):
        environment = processes.environment(app.world, pid) or {}
        if environment.get("ANCHORAGE_RELEASE") == journal.live and environment.get("ANCHORAGE_PROCESS"):
            seen.add(environment["ANCHORAGE_PROCESS"])
    return all(instance.name in seen and (instance.port is None or instance.port in table) for instance in wanted)


def activate(app: App, log: Log, *, release: str) -> bool:
    """Bring a release to serve on this host. Returns whether anything was done.

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
    tree = app.journal.release(release)["tree"]
    if app.journal.live == release and app.journal.data.get("tree") == tree and running(app):
        log.say(f"{app.name}: release {release} serves already")
        return False
    return Switch(app, log, release).run()


class Switch:
    """One change of the live release."""

    def __init__(self, app: App, log: Log, release: str) -> None:
        self.app = app
        self.log = log
        self.release = release
        self.old = app.journal.live
        self.old_slot = app.journal.slot
        self.slot = other_slot(self.old_slot) if self.old is not None else "blue"
        self.manager = Manager(app)
        self.started: list[str] = []
        self.stopped: list[Instance] = []

    def run(self) -> bool:
        """Do it, or leave everything as it was."""
        self.manager.require_unit()
        if self.old_slot is None:
            self.old_slot, self.old = self._what_the_proxy_uses()
            self.slot = other_slot(self.old_slot)
        self._clear_idle_slot()
        switched = False
        try:
            self._start(instances(self.app.document, self.slot, public=True))
            self._point_proxy(self.slot)
            switched = True
            self._hand_over_workers()
        except AnchorageError as error:
            lost = self._go_back(switched)
            error.live = self.app.living() + (f", but {' and '.join(lost)} did not come back" if lost else "")
            error.what = error.what or "activate"
            error.next_step = error.next_step or "Read the log above, mend the release and run deploy.yml again."
            raise
        self._confirm()
        return True

    def _what_the_proxy_uses(self) -> tuple[str | None, str | None]:
        """Return the slot that the proxy uses and the release that lives in it: a lost journal does not know, and it must serve on."""
        slot = "green" if self.app.world.exists(self.app.layout.slot_flag) else "blue"
        names = {instance.name for instance in instances(self.app.document, slot)}
        for pid in processes.pids(self.app.world):
            environment = processes.environment(self.app.world, pid) or {}
            if environment.get("ANCHORAGE_PROCESS") in names:
                return slot, environment.get("ANCHORAGE_RELEASE")
        return None, None

    def _clear_idle_slot(self) -> None:
        """Remove what an interrupted run left in the slot that is to be used."""
        left = {instance.name for instance in instances(self.app.document, self.slot)} & self.manager.names()
        if left:
            self.log.say(f"{self.app.name}: removing what an earlier run left in slot {self.slot}: {', '.join(sorted(left))}")
            self.manager.delete(sorted(left))

    def _entry(self, instance: Instance, release: str) -> dict[str, t.Any]:
        return ecosystem_entry(self.app.layout, release, instance, self.app.command, f"/var/log/pm2/{self.app.user}")

    def _start(self, wanted: list[Instance]) -> None:
        if not wanted:
            return
        for instance in wanted:
            self.log.say(f"{self.app.name}: start {instance.name} of release {self.release}" + (f" on port {instance.port}" if instance.port else ""))
        self.started += [instance.name for instance in wanted]
        self.manager.start([self._entry(instance, self.release) for instance in wanted])
        for instance in wanted:
            self._prove(instance, self.release)

    def _prove(self, instance: Instance, release: str) -> None:
        """Wait until exactly this release answers on its port, k times in a row; a process without port must stay."""
        options = instance.process.get("health") or STEADY
        address = listen_address(self.app.document, instance.process)
        wanted = Expectation(status=(options["status"],), body=options.get("body") or None)

        def ask(seconds: float) -> list[health.Check]:
            checks = [self._identity(instance, release)]
            if instance.port is not None and options.get("path") and checks[0].healthy:
                checks += probe(Target(f"http://{address}:{instance.port}{options['path']}"), wanted, world=self.app.world, seconds=min(seconds, 10.0))
            return checks

        watch = health.poll(
            ask,
            world=self.app.world,
            deadline_seconds=options["deadline_seconds"],
            interval_seconds=options["interval_seconds"],
            successes=options["successes"],
        )
        verdict = health.verdict(instance.name, watch, good=f"release {release} answers")
        if not verdict.healthy:
            raise AnchorageError(verdict.message, what=f"proof of {instance.name}", log=self._last_lines(instance))
        self.log.say(f"{self.app.name}: proven: {verdict.summary}")

    def _identity(self, instance: Instance, release: str) -> health.Check:
        """The process on the port must be of this release: PM2 calls a process online that listens nowhere."""
        world = self.app.world
        owners = [
            pid
            for pid in processes.pids(world)
            if (processes.environment(world, pid) or {}).get("ANCHORAGE_PROCESS") == instance.name
            and (processes.environment(world, pid) or {}).get("ANCHORAGE_RELEASE") == release
        ]
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

    def _point_proxy(self, slot: str) -> None:
        """Switch the proxy to a slot by its flag file; nothing is reloaded."""
        flag = self.app.layout.slot_flag
        os.makedirs(self.app.layout.slot_directory, exist_ok=True)
        if slot == "green":
            with open(flag, "ab"):
                pass
        elif os.path.exists(flag):
            os.unlink(flag)
        fsync_directory(self.app.layout.slot_directory)
        self.app.journal.note("switched", self.release if slot == self.slot else self.old, slot=slot)
        self.log.say(f"{self.app.name}: the proxy's slot is {slot}")

    def _hand_over_workers(self) -> None:
        """Workers take real jobs as soon as they live, so they come after the proof; one that may not overlap stops first."""
        for process in self.app.document["processes"]:
            if process["public"]:
                continue
            new = [instance for instance in instances(self.app.document, self.slot, public=False) if instance.process["name"] == process["name"]]
            if not process["overlap"]:
                self._stop_old(process["name"])
            self._start(new)

    def _stop_old(self, process: str) -> None:
        if self.old_slot is None:
            return
        present = self.manager.names()
        for instance in instances(self.app.document, self.old_slot):
            if instance.process["name"] == process and instance.name in present:
                self.log.say(f"{self.app.name}: stop {instance.name} first (overlap: false)")
                self.stopped.append(instance)
                self.manager.delete([instance.name])

    def _go_back(self, switched: bool) -> list[str]:
        """Undo: the proxy to the old slot, the new processes away, stopped workers back. Returns those that did not come back."""
        self.log.say(f"{self.app.name}: going back to {self.old or 'nothing'}")
        if switched and self.old_slot is not None:
            self._point_proxy(self.old_slot)
        present = self.manager.names()
        self.manager.delete([name for name in reversed(self.started) if name in present])
        lost = []
        if self.stopped and self.old is not None:
            self.manager.start([self._entry(instance, self.old) for instance in self.stopped])
            for instance in self.stopped:
                try:
                    self._prove(instance, self.old)
                except AnchorageError as problem:
                    self.log.say(f"{self.app.name}: {problem.message}")
                    lost.append(instance.name)
        self.app.journal.note("failed", self.release)
        return lost

    def _confirm(self) -> None:
        """Write down what is live, for the next boot and the next run; then retire the old slot."""
        layout = self.app.layout
        entries = [self._entry(instance, self.release) for instance in instances(self.app.document, self.slot)]
        gid = pwd.getpwnam(self.app.user).pw_gid
        self.app.world.write_atomic(layout.live_file, json.dumps({"apps": entries}, indent=1).encode(), mode=0o640, uid=0, gid=gid)
        self.app.journal.go_live(self.release, self.slot, self.app.journal.release(self.release)["tree"])
        keep = {entry["name"] for entry in entries}
        self.manager.delete(sorted(self.manager.names() - keep))
        self.log.say(f"{self.app.name}: release {self.release} is live in slot {self.slot}")
