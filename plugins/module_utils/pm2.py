# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PM2 asked without ever starting it: what its daemon says, held against what /proc and systemd know.

Any pm2 command starts a daemon for the user who calls it. So the daemon is looked for first, and without one nothing is called.
The list that PM2 gives holds the whole environment of every process; only harmless fields of it are taken over.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import pwd
import shlex
import typing as t

from .errors import AnchorageError
from .health import FAIL, OK, WARN, Check, Verdict, joined, judge, poll, verdict
from .processes import (
    Listener,
    command_line,
    environment,
    family,
    judge_identity,
    listeners,
    owner,
    parents,
    units,
)
from .world import World

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LISTENING = "00010000"
UNIT_FIELDS = ("LoadState", "ActiveState", "UnitFileState", "User", "ControlGroup")

__all__ = ["Listener", "Process", "check", "daemon_pid", "environment", "listeners", "parse_jlist"]


@dataclasses.dataclass(frozen=True)
class Process:
    """One process as PM2 sees it."""

    name: str
    pm_id: int
    pid: int
    status: str
    restarts: int
    unstable_restarts: int
    started_ms: int
    memory_bytes: int
    exec_mode: str
    cwd: str


def parse_jlist(text: str) -> list[Process]:
    """Return the processes of ``pm2 jlist``; whatever PM2 prints before and after the list is passed over."""
    decoder = json.JSONDecoder()
    place = text.find("[")
    while place >= 0:
        try:
            items, _end = decoder.raw_decode(text, place)
        except ValueError:
            items = None
        if isinstance(items, list) and all(isinstance(item, dict) and "pm2_env" in item for item in items):
            return [_process(item) for item in items]
        place = text.find("[", place + 1)
    raise AnchorageError("pm2 jlist printed no list of processes.", next_step="Run pm2 jlist as that user and read its first lines.")


def _process(item: t.Mapping[str, t.Any]) -> Process:
    env = item.get("pm2_env") or {}
    monit = item.get("monit") or {}
    return Process(
        name=str(item.get("name", env.get("name", ""))),
        pm_id=int(item.get("pm_id", env.get("pm_id", -1)) or 0),
        pid=int(item.get("pid") or 0),
        status=str(env.get("status", "unknown")),
        restarts=int(env.get("restart_time") or 0),
        unstable_restarts=int(env.get("unstable_restarts") or 0),
        started_ms=int(env.get("pm_uptime") or 0),
        memory_bytes=int(monit.get("memory") or 0),
        exec_mode=str(env.get("exec_mode", "")),
        cwd=str(env.get("pm_cwd", "")),
    )


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One process that must be there."""

    name: str
    instances: int = 1
    ports: t.Sequence[int] = ()
    cwd: str | None = None
    environment: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    loopback_only: bool = True
    max_restarts: int | None = None
    min_uptime_seconds: float = 0
    max_memory_mb: float | None = None


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a healthy PM2 looks like."""

    processes: t.Sequence[Wanted] = ()
    unexpected: str = WARN
    unit: str | None = None


@dataclasses.dataclass(frozen=True)
class Account:
    """Whose PM2 it is."""

    user: str
    uid: int
    home: str
    pm2_home: str
    executable: str = "pm2"


def account(user: str, pm2_home: str | None = None, executable: str = "pm2") -> Account:
    """Look the user up."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise AnchorageError(f"The user {user} does not exist on this host.", next_step="Name the user whose PM2 is asked.") from error
    return Account(user, entry.pw_uid, entry.pw_dir, pm2_home or f"{entry.pw_dir}/.pm2", executable)


def home_of_unit(world: World, unit: str, seconds: float = 10) -> str | None:
    """Return the PM2_HOME that a boot unit sets, or None where there is no such unit or it sets none."""
    done = world.run(["systemctl", "show", "--property=Environment", "--value", unit], timeout=seconds)
    try:
        settings = dict(word.partition("=")[::2] for word in shlex.split(done.stdout))
    except ValueError:
        return None
    return settings.get("PM2_HOME") or None


def daemon_pid(world: World, who: Account) -> int | None:
    """Return the pid of the running daemon of this user, or None; nothing is started."""
    socket_path = posixpath.join(who.pm2_home, "rpc.sock")
    sockets = (line.split() for line in _read(world, "/proc/net/unix").splitlines())
    if not any(fields[3:4] == [LISTENING] and fields[-1] == socket_path for fields in sockets):
        return None
    text = _read(world, posixpath.join(who.pm2_home, "pm2.pid")).strip()
    if not text.isdigit():
        return None
    pid = int(text)
    name = command_line(world, pid)
    return pid if name and "God Daemon" in name and owner(world, pid) == who.uid else None


def _read(world: World, path: str) -> str:
    try:
        return (world.read(path) or b"").decode("utf-8", "replace")
    except OSError as error:
        raise AnchorageError(f"{path} cannot be read: {error.strerror}.", next_step="Run this as root or as that user.") from error


def jlist(world: World, who: Account, seconds: float) -> list[Process]:
    """Return what the running daemon says; call it only where one runs."""
    env = {"PATH": PATH, "HOME": who.home, "PM2_HOME": who.pm2_home, "PM2_DISCRETE_MODE": "true", "LC_ALL": "C.UTF-8", "USER": who.user}
    completed = world.run([who.executable, "jlist"], env=env, timeout=seconds, cwd=who.pm2_home, user=who.user)
    if completed.rc == 127:
        raise AnchorageError(f"The program {who.executable} cannot be run.", next_step="Install PM2, or name its path in executable.")
    if completed.rc:
        said = (completed.stderr or completed.stdout).strip()[-200:]
        raise AnchorageError(f"pm2 jlist ended with code {completed.rc}: {said}")
    return parse_jlist(completed.stdout)


def judge_daemon(pid: int | None, who: Account) -> Check:
    """Judge whether there is somebody to ask."""
    return judge(
        "daemon",
        pid is not None,
        evidence={"pid": pid, "user": who.user, "pm2_home": who.pm2_home},
        cause=f"no PM2 daemon of user {who.user} runs (looked in {who.pm2_home})",
        advice=f"systemctl status pm2-{who.user}",
    )


def judge_unit(world: World, name: str, who: Account, daemon: int | None, members: t.Iterable[int], seconds: float = 10) -> Check:
    """Judge whether the boot unit brings everything back: enabled, for the right user, and the processes live in it."""
    completed = world.run(["systemctl", "show", f"--property={','.join(UNIT_FIELDS)}", name], timeout=seconds)
    facts = dict(line.partition("=")[::2] for line in completed.stdout.splitlines() if "=" in line)
    wrong = []
    if facts.get("LoadState") != "loaded":
        wrong.append(f"there is no unit {name} (systemd says {facts.get('LoadState') or completed.stderr.strip() or 'nothing'})")
    else:
        if facts.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "generated"):
            wrong.append(f"the unit {name} is {facts.get('UnitFileState') or 'not enabled'}, so nothing comes back after a boot")
        if facts.get("ActiveState") != "active":
            wrong.append(f"the unit {name} is {facts.get('ActiveState')}")
        if facts.get("User") != who.user:
            wrong.append(f"the unit {name} runs as {facts.get('User') or 'root'}, not as {who.user}")
        # One that has ended since PM2 named it, as in a crash loop, is nowhere.
        alive = [pid for pid in {*members, *([daemon] if daemon else [])} if pid and world.exists(f"/proc/{pid}/cgroup")]
        outside = sorted(pid for pid in alive if name not in units(world, pid))
        if outside:
            pids = ", ".join(str(pid) for pid in outside)
            wrong.append(f"pid {pids} live{'s' if len(outside) == 1 else ''} outside the control group of {name}")
    return judge("boot_unit", not wrong, evidence={"unit": name, **facts}, cause="; ".join(wrong), advice=f"systemctl status {name}")


def judge_process(wanted: Wanted, found: t.Sequence[Process], now: float) -> Check:
    """Judge what PM2 says of one wanted process."""
    wrong, warned = [], []
    if len(found) != wanted.instances:
        wrong.append(f"{len(found) or 'no'} process{'es' if len(found) > 1 else ''} {wanted.name}, wanted {wanted.instances}")
    facts = []
    for item in found:
        uptime = round(now - item.started_ms / 1000, 1) if item.status == "online" and item.started_ms else 0
        memory = round(item.memory_bytes / 1048576, 1)
        label = wanted.name if len(found) == 1 else f"{wanted.name} (id {item.pm_id})"
        if item.status != "online":
            wrong.append(f"{label} is {item.status} after {item.restarts} restarts")
        elif uptime < wanted.min_uptime_seconds:
            wrong.append(f"{label} has been up for {uptime:g} s only, wanted {wanted.min_uptime_seconds:g} s")
        if wanted.max_restarts is not None and item.restarts > wanted.max_restarts:
            wrong.append(f"{label} was restarted {item.restarts} times, wanted at most {wanted.max_restarts}")
        if wanted.max_memory_mb is not None and memory > wanted.max_memory_mb:
            wrong.append(f"{label} uses {memory:g} MB, the limit is {wanted.max_memory_mb:g} MB")
        if item.unstable_restarts:
            warned.append(f"{label} crashed {item.unstable_restarts} times right after a start")
        facts.append(
            {
                "pm_id": item.pm_id,
                "pid": item.pid,
                "status": item.status,
                "restarts": item.restarts,
                "unstable_restarts": item.unstable_restarts,
                "uptime_seconds": uptime,
                "memory_mb": memory,
                "exec_mode": item.exec_mode,
            }
        )
    name, evidence, advice = f"process:{wanted.name}", {"wanted": wanted.instances, "processes": facts}, f"pm2 logs {wanted.name}"
    if wrong or warned:
        return Check(name, FAIL if wrong else WARN, evidence, "; ".join([*wrong, *warned]), advice)
    return Check(name, OK, evidence)


def judge_ports(wanted: Wanted, members: t.Collection[int], sockets: t.Sequence[Listener]) -> list[Check]:
    """Judge whether the wanted ports, and only loopback, are listened on by these very processes."""
    own = [listener for listener in sockets if set(listener.pids) & set(members)]
    wrong = []
    for port in wanted.ports:
        held = [listener for listener in sockets if listener.port == port]
        strangers = sorted({pid for listener in held for pid in listener.pids} - set(members))
        if not held:
            wrong.append(f"{wanted.name} does not listen on port {port}, nobody does")
        elif strangers:
            wrong.append(f"port {port} of {wanted.name} belongs to pid {', '.join(str(pid) for pid in strangers)}, which is another process")
        elif not any(listener in own for listener in held):
            wrong.append(f"whose port {port} is cannot be seen")
    checks = []
    seen = [f"[{item.address}]:{item.port}" if ":" in item.address else f"{item.address}:{item.port}" for item in own]
    if wanted.ports:
        evidence = {"ports": list(wanted.ports), "listening": seen}
        advice = f"pm2 logs {wanted.name} (EADDRINUSE?), ss -ltnp, and whether this task runs as root"
        checks.append(judge(f"port:{wanted.name}", not wrong, evidence=evidence, cause="; ".join(wrong), advice=advice))
    if wanted.loopback_only:
        public = [text for text, item in zip(seen, own) if not item.loopback]
        cause = f"{wanted.name} listens beyond loopback, on {', '.join(public)}"
        checks.append(judge(f"loopback:{wanted.name}", not public, evidence={"listening": seen}, cause=cause, advice="HOST=127.0.0.1"))
    return checks


class Prober:
    """Asks again and again, and notices a process that was restarted in between."""

    def __init__(self, who: Account, wanted: Expectation, world: World) -> None:
        self.who = who
        self.wanted = wanted
        self.world = world
        self.before: dict[int, tuple[int, int]] = {}
        self.found: list[Process] = []

    def __call__(self, seconds: float) -> list[Check]:
        """Ask once and judge."""
        end = self.world.monotonic() + seconds
        daemon = daemon_pid(self.world, self.who)
        checks = [judge_daemon(daemon, self.who)]
        if daemon is None:
            self.found = []
            return [*checks, *self._unit(None, seconds)]
        try:
            self.found = jlist(self.world, self.who, seconds)
        except AnchorageError as error:
            return [*checks, Check("list", FAIL, {}, error.message.rstrip("."), (error.next_step or f"pm2 jlist as {self.who.user}").rstrip("."))]
        checks.extend(self._unit(daemon, max(end - self.world.monotonic(), 0.1)))
        table = parents(self.world)
        sockets = listeners(self.world)
        for wanted in self.wanted.processes:
            found = [item for item in self.found if item.name == wanted.name]
            checks.append(judge_process(wanted, found, self.world.now()))
            roots = [item.pid for item in found if item.pid and item.status == "online"]
            members = {pid for root in roots for pid in family(root, table)}
            if roots or any(item.port in wanted.ports for item in sockets):
                checks.extend(judge_ports(wanted, members, sockets))
            if roots:
                checks.append(self._release(wanted, roots, members, sockets))
        return [*checks, *self._strangers(), *self._steady()]

    def _unit(self, daemon: int | None, seconds: float) -> list[Check]:
        if not self.wanted.unit:
            return []
        return [judge_unit(self.world, self.wanted.unit, self.who, daemon, [item.pid for item in self.found], seconds)]

    def _release(self, wanted: Wanted, roots: t.Sequence[int], members: t.Collection[int], sockets: t.Sequence[Listener]) -> Check:
        """Judge the processes that listen, or the ones PM2 started where none has to."""
        holders = {pid for item in sockets if item.port in wanted.ports for pid in item.pids} & set(members)
        return judge_identity(
            self.world,
            f"identity:{wanted.name}",
            holders or roots,
            cwd=wanted.cwd,
            variables=wanted.environment,
            user=self.who.user,
            uid=self.who.uid,
        )

    def _strangers(self) -> list[Check]:
        names = sorted({item.name for item in self.found} - {item.name for item in self.wanted.processes})
        if not self.wanted.processes:
            return []
        cause = f"PM2 also runs {', '.join(names)}"
        return [
            judge(
                "unexpected",
                not names,
                evidence={"names": names},
                cause=cause,
                advice="pm2 delete, if they are leftovers",
                severity=self.wanted.unexpected,
            )
        ]

    def _steady(self) -> list[Check]:
        now = {item.pm_id: (item.pid, item.restarts) for item in self.found}
        names = {item.pm_id: item.name for item in self.found}
        watched = {item.name for item in self.wanted.processes} or set(names.values())
        changed = [names[key] for key, value in now.items() if key in self.before and self.before[key] != value and names[key] in watched]
        first, self.before = not self.before, now
        if first:
            return []
        cause = f"{', '.join(sorted(set(changed)))} was restarted between two looks"
        return [judge("restarts", not changed, evidence={"changed": changed}, cause=cause, advice=f"pm2 logs of {self.who.user}")]


def check(
    who: Account,
    wanted: Expectation,
    *,
    world: World,
    timeout_seconds: float = 10.0,
    deadline_seconds: float = 20.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over."""
    prober = Prober(who, wanted, world)
    watch = poll(
        lambda seconds: prober(min(seconds, timeout_seconds)),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    seen = [
        {
            "name": item.name,
            "pm_id": item.pm_id,
            "pid": item.pid,
            "status": item.status,
            "restarts": item.restarts,
            "memory_mb": round(item.memory_bytes / 1048576, 1),
        }
        for item in prober.found
    ]
    good = joined((f"{item.name} {item.status}" for item in prober.found), ", ")
    return verdict(f"PM2 of user {who.user}", watch, good=good, extra={"processes": seen})
