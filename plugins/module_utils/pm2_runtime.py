# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PM2 of one app, spoken to as the app's user and with a clean environment (PM2 dumps what it is called with)."""

from __future__ import annotations

import json
import os
import pwd
import typing as t

from . import hold, processes
from .errors import AnchorageError
from .health import Check, judge
from .layout import PATH
from .memory import unit_limit
from .release_plan import Instance, ecosystem_entry, instances, process_command, process_environment
from .runtime import Runtime

if t.TYPE_CHECKING:
    from .app import App


class Pm2(Runtime):
    """Processes in fork mode, in the control group of the app's own unit."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.environment = {"PATH": PATH, "HOME": app.layout.pm2_home, "PM2_HOME": app.layout.pm2_home, "LANG": "C.UTF-8"}

    @property
    def services(self) -> str:
        """Return the command that shows the unit."""
        return f"systemctl status 'redis-server@{self.app.name}-jobs'"

    def _pm2(self, *args: str, timeout: float = 120) -> str:
        done = self.app.world.run(["pm2", *args], env=self.environment, cwd=self.app.layout.pm2_home, user=self.app.user, timeout=timeout)
        if done.rc != 0:
            text = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise AnchorageError(f"'pm2 {args[0]}' of {self.app.name} failed with code {done.rc}: {' '.join(text)[:400]}")
        return done.stdout

    def require(self) -> None:
        """PM2's daemon must be the unit's, so that every process lives in its cgroup: start the unit before any pm2 command."""
        unit = f"pm2-{self.app.user}.service"
        if self.app.world.run(["systemctl", "is-active", "--quiet", unit]).rc == 0:
            return
        done = self.app.world.run(["systemctl", "start", unit], timeout=120)
        if done.rc != 0:
            raise AnchorageError(f"{unit} does not start: {done.stderr.strip()[:300]}", next_step=f"Read: journalctl -u {unit}")

    def check(self, release: str) -> None:
        """Nobody but the engine removes a tree, and never one that a release stands on."""

    def list(self) -> list[dict[str, t.Any]]:
        """Return PM2's processes. Before its JSON it may print a banner."""
        text = self._pm2("jlist")
        start = text.find("[{") if "[{" in text else text.find("[]")
        return t.cast("list[dict[str, t.Any]]", json.loads(text[start:])) if start >= 0 else []

    def names(self) -> set[str]:
        """Return the names of all processes."""
        return {entry["name"] for entry in self.list()}

    def at_rest(self, seconds: float) -> dict[str, bool]:
        """Wait until no process is about to stop: its daemon ends what a dead caller began."""
        end = self.app.world.monotonic() + seconds
        while True:
            states = {entry["name"]: entry.get("pm2_env", {}).get("status", "online") for entry in self.list()}
            if "stopping" not in states.values() or self.app.world.monotonic() >= end:
                return {name: state not in ("stopping", "stopped", "errored") for name, state in states.items()}
            self.app.world.sleep(1)

    def entry(self, instance: Instance, release: str) -> dict[str, t.Any]:
        """Return what PM2 is told of a process."""
        stop_seconds = hold.stop_seconds(self.app.document, instance.process)
        return ecosystem_entry(self.app.layout, release, instance, self.app.command, self._log_directory, stop_seconds)

    def start(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Start processes; one that exists under a name is replaced."""
        entries = [self.entry(instance, release) for instance in wanted]
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

    def restart(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Restart the unit: the daemon is a process that was upgraded too, and what the unit starts is what is live."""
        unit = f"pm2-{self.app.user}.service"
        done = self.app.world.run(["systemctl", "restart", unit], timeout=900)
        if done.rc != 0:
            raise AnchorageError(f"{unit} does not start: {done.stderr.strip()[:300]}", next_step=f"Read: journalctl -u {unit}")

    def keep_for_boot(self, release: str, slot: str) -> None:
        """Write down what the unit starts at boot."""
        path = self.app.layout.live_file
        entries = [self.entry(instance, release) for instance in instances(self.app.at(release).document, slot)]
        data = json.dumps({"apps": entries}, indent=1).encode()
        if self.app.world.read(path) != data:
            gid = pwd.getpwnam(self.app.user).pw_gid
            self.app.world.write_atomic(path, data, mode=0o640, uid=0, gid=gid)

    def owns_port(self, instance: Instance, owners: t.Collection[int]) -> Check:
        """Judge who listens: PM2 calls a process online that listens nowhere."""
        world = self.app.world
        listening = [listener for listener in processes.listeners(world) if listener.port == instance.port]
        if not listening:
            return judge("identity", False, cause=f"nobody listens on port {instance.port} yet", advice=self.where_it_logs(instance))
        table = processes.parents(world)
        mine = {member for pid in owners for member in processes.family(pid, table)}
        strangers = [pid for listener in listening for pid in listener.pids if pid not in mine]
        return judge(
            "identity",
            not strangers,
            evidence={"pids": list(owners), "port": instance.port},
            cause=f"port {instance.port} belongs to another process ({', '.join(str(pid) for pid in strangers)})",
            advice=f"ss -ltnp 'sport = :{instance.port}'",
        )

    @property
    def _log_directory(self) -> str:
        return f"/var/log/pm2/{self.app.user}"

    def where_it_logs(self, instance: Instance) -> str:
        """Return the path of its log."""
        return f"{self._log_directory}/{instance.name}.log"

    def last_lines(self, instance: Instance) -> list[str]:
        """Return the end of its log."""
        raw = self.app.world.read(self.where_it_logs(instance)) or b""
        return raw.decode("utf-8", "replace").splitlines()[-15:]

    def lay_out(self, place: str, tree: str, release: str, group: int) -> None:
        """Write one file for each process, with command, directory and environment."""
        running = os.path.normpath(f"{self.app.layout.build(tree)}/{self.app.document['build']['output']}")
        for slot in ("blue", "green"):
            for instance in instances(self.app.document, slot):
                environment = process_environment(self.app.document, instance, release, self.app.extra_ca_file)
                argv = process_command(instance, environment)
                self.app.write_exec(f"{place}/run/{instance.name}.json", argv=argv, cwd=running, env=environment, gid=group)

    def once(
        self,
        release: str,
        name: str,
        argv: t.Sequence[str],
        env: t.Mapping[str, str],
        on_line: t.Callable[[str], None],
        *,
        memory_mb: int | None,
        seconds: int,
        forget: bool = False,
    ) -> int:
        """Run a command in a control group and a sandbox of its own."""
        app = self.app
        environment = {"PATH": PATH, "HOME": app.layout.pm2_home, "LANG": "C.UTF-8", **env}
        if app.extra_ca_file:
            environment["NODE_EXTRA_CA_CERTS"] = app.extra_ca_file
        path = f"{app.layout.release(release)}/run/{name}.json"
        command = app.sandboxed(
            path,
            argv=argv,
            cwd=f"{app.layout.release(release)}/app",
            env=environment,
            writable=[app.layout.shared, app.layout.pm2_home],
            memory_mb=unit_limit(memory_mb),
            timeout_seconds=seconds,
            name=name,
        )
        try:
            return app.world.stream(command, on_line, timeout=seconds + 60)
        finally:
            if forget:
                os.unlink(path)
