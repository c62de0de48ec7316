# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Break a run at a chosen moment in one of three ways, run it again as it was, and judge the host. One oracle judges all cases."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import random
import shlex
import signal
import subprocess
import time
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils import engine

from .conftest import Apps, Ended, Host, Serving, Visitor, kill, until

#: The ways in which a controller is lost: its machine dies, somebody presses Ctrl-C, its packets get lost.
WAYS = ("kill", "interrupt", "lost-ssh")

#: Seconds for which packets get lost, unless the controller gives up before.
CUT_SECONDS = 20

#: Seconds within which a run must end after Ctrl-C.
INTERRUPT_SECONDS = 30

#: Seconds within which whatever a run left on the host must have ended by itself.
GRACE_SECONDS = 30

#: A line of its log that a step writes at its beginning, amidst, and near its end. Nothing but a step's record says that it began.
MOMENTS: dict[str, dict[str, str]] = {
    "stage": {"begun": "", "amidst": "backend build started", "ending": "is staged"},
    "migrate": {"begun": "", "amidst": "Running migrations", "ending": "is migrated"},
    "activate": {"begun": "", "amidst": "start alpha-server", "ending": "the proxy's slot is"},
    "rollback": {"begun": "", "amidst": "start alpha-server", "ending": "the proxy's slot is"},
}

#: How the stub is slowed down, so that there is something to be amidst of.
SLOW = {"stage": {"build": "slow:2"}, "migrate": {"migrate": "slow:2"}, "activate": {"server": "slow:1", "worker": "slow:1"}}

#: Marks every process of a run in its environment, also those that leave its session as Ansible's workers do.
MARK = "ANCHORAGE_TRIAL"

#: SSH notices a dead connection sooner than the project's own setting would, so that a case costs less.
SSH = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=2 -o ServerAliveCountMax=2"

LOOK = r"""
import fcntl, glob, json, os, subprocess
state, app = "/var/lib/anchorage/alpha", "alpha"
journal = json.load(open(f"{state}/journal.json"))

def text(path):
    try:
        return open(path, "rb").read().decode("utf-8", "replace")
    except OSError:
        return ""

# Each file that does not belong to a release. Those of other services, as systemd names them, are not ours.
places = ["/tmp", "/var/tmp", state, "/etc/anchorage/apps", "/var/lib/pm2/alpha", "/srv/alpha", "/srv/alpha/work", "/root/.ansible/tmp", "/home/*/.ansible/tmp"]
patterns = [f"{place}/*" for place in places] + [f"/srv/alpha/*/*.{end}" for end in ("new", "old", "part")]
files = {path for pattern in patterns for path in glob.glob(pattern, include_hidden=True)}
files -= {f"{state}/restore"}  # the first release that migrates makes it
known = {f"{entry.get('source')}.tar" for entry in journal["releases"].values()}
strays = [path for path in glob.glob("/srv/alpha/incoming/*", include_hidden=True) if os.path.basename(path) not in known]
strays += [path for path in glob.glob("/srv/alpha/releases/*") if os.path.basename(path) not in journal["releases"]]
files = sorted(path for path in files if "systemd-private" not in path or "anchorage" in path) + strays

shown = subprocess.run(["systemctl", "show", "--property=Id,Transient", "anchorage-*", "run-*"], capture_output=True, text=True).stdout
units = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n") if block.strip()]

table = {}
for entry in os.listdir("/proc"):
    if entry.isdigit():
        words = text(f"/proc/{entry}/cmdline").replace("\0", " ").strip()
        status = dict(line.split(":\t", 1) for line in text(f"/proc/{entry}/status").splitlines() if ":\t" in line)
        if words and status:
            table[int(entry)] = (words, int(status["PPid"]), status["Uid"].split()[0])
user = subprocess.run(["id", "-u", app], capture_output=True, text=True).stdout.strip()
orphans = []
for pid, (words, parent, uid) in table.items():
    environment = dict(part.split("=", 1) for part in text(f"/proc/{pid}/environ").split("\0") if "=" in part)
    of_the_app = uid == user and not words.startswith("PM2 ") and environment.get("ANCHORAGE_RELEASE") != journal["live"]
    of_a_run = "sshd" in table.get(parent, ("",))[0] and not words.startswith("sshd")
    of_a_step = "/usr/local/bin/anchorage" in words or words.startswith(("systemd-run", "pg_dump", "psql"))
    if (of_the_app or of_a_run or of_a_step) and pid != os.getpid():
        orphans.append(f"{pid} {words[:120]}")

with open(f"{state}/lock", "a") as stream:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
if free and "@ASKED@":
    told = json.loads(subprocess.run(["anchorage", "unlock-info", app, "--json"], capture_output=True, text=True).stdout)
    free = told["step"] is None and told["database"] == []
print(json.dumps({
    "files": files,
    "units": [unit["Id"] for unit in units if unit.get("Transient") == "yes"],
    "orphans": orphans,
    "free": free,
    "settled": journal.get("switch") is None and not journal.get("unsettled"),
}))
"""

WAIT = r"""
import json, sys, time
step, words, path, end = "@STEP@", "@WORDS@", "/var/lib/anchorage/alpha/step.json", time.monotonic() + 90
while time.monotonic() < end:
    try:
        record = json.load(open(path))
        if record["step"] == step and record["started_at"] >= @SINCE@ and words in (open(record["log"], errors="replace").read() if words else ""):
            print("seen")
            break
    except (OSError, ValueError, KeyError):
        pass
    time.sleep(0.02)
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A moment of a run, and the way in which the run is lost at it: before a task, inside a step, or some seconds after its start."""

    playbook: str
    way: str
    before: str | None = None
    inside: tuple[str, str] | None = None
    after: float | None = None

    @property
    def name(self) -> str:
        """Say which case this is, the same in each run."""
        if self.before is not None:
            moment = f"before '{self.before}'"
        elif self.inside is not None:
            moment = f"inside {self.inside[0]}, {self.inside[1]}"
        else:
            moment = f"{self.after:.2f} s after its start"
        return f"{self.playbook}, {moment}: {self.way}"


def steps_of(playbook: str) -> tuple[str, ...]:
    """Return the long steps that a playbook runs, as the engine names them."""
    return (engine.ROLLBACK,) if playbook == "rollback" else engine.STEPS


def marked(mark: str) -> list[int]:
    """Return the processes of a run on this machine, except the connections that SSH keeps for the next run."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes() and b"[mux]" not in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


class Run:
    """One run of a playbook that can be lost in every way."""

    def __init__(self, host: Host, apps: Apps, directory: pathlib.Path, playbook: str, *arguments: str, stop: str | None = None) -> None:
        self.host, self.apps, self.directory = host, apps, directory
        directory.mkdir()
        self.mark = f"{os.getpid()}-{directory.name}"
        (directory / "tmp").mkdir()
        environment = {
            "ANSIBLE_CALLBACKS_ENABLED": "task_borders",
            "TASK_BORDERS": str(directory),
            "ANSIBLE_SSH_ARGS": SSH,
            "ANSIBLE_TIMEOUT": "5",
            "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
            "TMPDIR": str(directory / "tmp"),
            MARK: self.mark,
        }
        if stop is not None:
            environment["TASK_BORDERS_STOP"] = stop
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell's background job ignores Ctrl-C, and so would whatever it starts.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.started = time.time()
        self.process = apps.start(playbook, *arguments, **environment)

    def tasks(self) -> list[dict[str, t.Any]]:
        """Return the tasks and handlers that have started, with their times."""
        path = self.directory / "tasks"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def end(self) -> Ended:
        """Wait for it."""
        return self.apps.end(self.process, timeout=300)

    def reach(self, case: Case) -> str | None:
        """Wait for the moment of a case. Returns what went wrong, if anything did."""
        if case.before is not None:
            until(lambda: (self.directory / "reached").exists() or self.process.poll() is not None, f"task {case.before}", 120)
            return None if (self.directory / "reached").exists() else f"the run ended with {self.process.returncode} and never came to its task"
        if case.inside is not None:
            step, moment = case.inside
            script = WAIT.replace("@STEP@", step).replace("@WORDS@", MOMENTS[step][moment]).replace("@SINCE@", repr(self.started - 1))
            seen = self.host.shell("python3 -", given=script)
            return None if "seen" in seen else f"the step {step} never came to its moment '{moment}'"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(t.cast(float, case.after))
        return None

    def lose(self, way: str) -> str | None:
        """Lose it. Returns what went wrong, if anything did."""
        if way == "kill":
            while victims := marked(self.mark):
                for pid in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.poll()
            kill(self.process)
            return None
        if way == "interrupt":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)
            return self._ends_within(INTERRUPT_SECONDS, "Ctrl-C")
        with lost_packets(self.host):
            (self.directory / "go").touch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(CUT_SECONDS)
        return self._ends_within(240, "the connection came back")

    def _ends_within(self, seconds: float, event: str) -> str | None:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(self.process)
            return f"the run did not end within {seconds:.0f} s after {event}"
        return None

    def left_here(self, way: str) -> list[str]:
        """Return what is left of the run on this machine. SIGKILL leaves files: nobody is there to remove them."""
        with contextlib.suppress(AssertionError):
            until(lambda: not marked(self.mark), "the run's processes", 10)
        found = [f"process {pid} of the run is left on the controller" for pid in marked(self.mark)]
        return found + [f"{path.name} is left on the controller" for path in (self.directory / "tmp").iterdir() if way != "kill"]


@contextlib.contextmanager
def lost_packets(host: Host) -> t.Iterator[None]:
    """Drop each packet of SSH, in both directions and without a word."""
    rules = ["add table inet lost"]
    for chain, match in (("input", "dport"), ("output", "sport")):
        rules.append(f"add chain inet lost {chain} {{ type filter hook {chain} priority -300; }}")
        rules.append(f"add rule inet lost {chain} tcp {match} 22 drop")
    host.shell(f"nft {shlex.quote('; '.join(rules))}")
    try:
        yield
    finally:
        host.shell("nft delete table inet lost")


class KnownHost(Host):
    """A host whose address is read once, since visitors ask it many times a second."""

    @functools.cached_property
    def facts(self) -> dict[str, t.Any]:  # type: ignore[override]
        """What the lab's inventory says of the host."""
        return Host(self.lab, self.name).facts


class Trial:
    """A host, the contract that is tried on it, and the cases."""

    def __init__(self, host: Host, apps: Apps, directory: pathlib.Path) -> None:
        self.host, self.apps, self.directory = KnownHost(host.lab, host.name), apps, directory
        self.number = 0
        self.earlier = self.later = ""

    def _run(self, playbook: str, stop: str | None = None) -> Run:
        self.number += 1
        arguments = ("-e", "app=alpha") if playbook == "rollback" else ()
        return Run(self.host, self.apps, self.directory / f"run-{self.number}", playbook, *arguments, stop=stop)

    def wish(self, **switches: t.Any) -> None:
        """Ask for a release that nobody saw before, whose proofs are quick."""
        self.apps.app("alpha", **switches)
        processes = self.apps.apps["alpha"]["processes"]
        quick = {name: {**process, "health": {**process["health"], "successes": 1}} for name, process in processes.items()}
        self.apps.apps["alpha"] = {**self.apps.apps["alpha"], "processes": quick}
        self.apps.write()

    def good_run(self, playbook: str) -> Run:
        """Run a playbook to its good end."""
        run = self._run(playbook)
        ended = run.end()
        assert ended.rc == 0, ended.output[-4000:]
        return run

    def whole_run(self, playbook: str) -> dict[str, t.Any]:
        """Run a playbook that has work to do to its end. Returns the tasks and handlers that it starts, in their order, and its seconds."""
        if playbook == "rollback":
            self.two_releases()
        else:
            self.wish()
        run = self.good_run(playbook)
        tasks = run.tasks()
        steps = [task["key"] for task in tasks if task["action"].endswith("release_step")]
        return {"tasks": [task["key"] for task in tasks], "steps": steps, "seconds": round(tasks[-1]["at"] - run.started, 1)}

    def two_releases(self, *, slow: bool = True) -> None:
        """Have a live release, and an earlier one to go back to.

        :arg slow: the earlier one starts slowly enough to be caught at it.
        """
        if self.earlier and self.host.serving().live == self.earlier:
            self.good_run("deploy")
        if self.later and self.host.serving().live == self.later:
            return
        planned = json.loads(self.host.shell("anchorage rollback alpha --plan --json || echo '{}'").partition("\nanchorage:")[0] or "{}")
        if not slow and planned.get("needed"):
            self.earlier, self.later = planned["release"], ""
            return
        self.wish(**SLOW["activate"])
        self.good_run("deploy")
        self.earlier = self.host.serving().live
        self.wish()
        self.good_run("deploy")
        self.later = self.host.serving().live

    def look(self, *, ask: bool = False) -> dict[str, t.Any]:
        """Look at all that a run may leave on the host.

        :arg ask: the engine too, who holds the locks; the kernel is asked in any case.
        """
        return t.cast("dict[str, t.Any]", json.loads(self.host.shell("python3 -", given=LOOK.replace("@ASKED@", "yes" if ask else ""))))

    def run(self, *cases: Case) -> tuple[list[str], dict[str, t.Any]]:
        """Run a case, or several in a row: each run is lost, and the next one is its plain re-run until it is lost too.

        :arg cases: all of one playbook.
        :returns: the causes for which it failed, and its figures.
        """
        (playbook,) = {case.playbook for case in cases}
        slow = {key: value for case in cases if case.inside for key, value in SLOW.get(case.inside[0], {}).items()}
        if playbook == "rollback":
            self.two_releases(slow=any(case.inside for case in cases))
        before, clean = self.host.serving(), self.look()
        if playbook == "deploy":
            self.wish(**slow)
        wanted = self.earlier if playbook == "rollback" else None
        began = time.monotonic()
        causes: list[str] = []
        with Visitor(self.host) as visitor:
            codes = []
            for case in cases:
                lost = self._run(playbook, stop=case.before)
                try:
                    causes += filter(None, [lost.reach(case), lost.lose(case.way)])
                finally:
                    kill(lost.process)
                causes += lost.left_here(case.way)
                codes.append(lost.process.returncode)
            ended = self._run(playbook).end()
            if ended.rc != 0:
                causes.append(f"the plain re-run ended with {ended.rc}: {ended.output[-1500:]}")
            causes += self._judge(before, clean, wanted, visitor, settled=False)
            unchanged = self._run(playbook).end()
            if (unchanged.rc, unchanged.changed) != (0, 0):
                causes.append(f"the run after that ended with {unchanged.rc} and changed={unchanged.changed}: {unchanged.output[-1500:]}")
            causes += self._judge(before, clean, wanted, visitor, settled=True)
        facts = {
            "codes": [*codes, ended.rc, unchanged.rc],
            "requests": len(visitor.releases) + len(visitor.failures),
            "failed_requests": len(visitor.failures),
            "seconds": round(time.monotonic() - began, 1),
        }
        return list(dict.fromkeys(causes)), facts

    def _judge(self, before: Serving, clean: dict[str, t.Any], wanted: str | None, visitor: Visitor, *, settled: bool) -> list[str]:
        """Judge the host after the plain re-run, and once more after the run that changed nothing. Returns what is wrong."""
        causes = []
        # The lock is free and nothing is left over at once: what lives on for a moment are sessions that wait for lost packets.
        now = self.look(ask=not settled)
        if not now["free"]:
            causes.append(f"the lock is not free: {self.host.shell('anchorage unlock-info alpha')}")
        if not now["settled"]:
            causes.append("the journal has an open switch")
        end = time.monotonic() + GRACE_SECONDS
        while settled and now["orphans"] and time.monotonic() < end:
            time.sleep(1)
            now = self.look()
        causes += [f"left running: {words}" for words in now["orphans"] if settled]
        causes += [f"left unit: {name}" for name in now["units"]]
        causes += [f"left behind: {path}" for path in now["files"] if path not in clean["files"]]
        try:
            after = self.host.serving()
            after.check()
            if not self.host.state()["running"]:
                causes.append("the engine says that the live release does not run")
            if after.live != (wanted or after.live) or after.live == before.live:
                causes.append(f"release {after.live} is live after {before.live}, wanted {wanted or 'the new one'}")
            if (times := self.host.runs(after.live)) != 1 or not self.host.marked(after.live):
                causes.append(f"the migration of {after.live} was run {times} times, its mark is {self.host.marked(after.live)}")
            strangers = set(visitor.releases) - {before.live, after.live}
            causes += [f"visitors saw release {release}" for release in strangers]
        except (AssertionError, OSError, LookupError, ValueError) as error:
            causes.append(f"no release is wholly live: {error!r}")
        if visitor.failures:
            causes.append(f"{len(visitor.failures)} of {len(visitor.releases) + len(visitor.failures)} requests failed: {visitor.failures[0]}")
        if settled and len(visitor.releases) < 20:
            causes.append(f"only {len(visitor.releases)} requests were answered")
        return causes


def random_cases(playbook: str, seed: int, seconds: float, number: int) -> list[Case]:
    """Return cases at random moments of the first so many seconds of a playbook's runs."""
    dice = random.Random(f"{playbook} {seed}")
    return [Case(playbook, dice.choice(WAYS), after=round(dice.uniform(0.3, seconds), 2)) for _point in range(number)]
