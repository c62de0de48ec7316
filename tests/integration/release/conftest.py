# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which releases of the stub (tests/apps/stub) are made by the real playbooks over SSH, and its ways to look behind them.

The host is provisioned once. Every test starts from whatever is live then, and makes its own release by a switch of the stub.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing as t
import urllib.error
import urllib.request

import pytest
import yaml

from ansible_collections.anchorage.vps.tests.lab import images

from .watch import Watch

ROOT = pathlib.Path(__file__).resolve().parents[3]
STUB = ROOT / "tests" / "apps" / "stub"
CALLBACKS = ROOT / "tests" / "plugins" / "callback"
#: What keeps the stub alive: with "compose" these very tests are about containers.
RUNTIME = os.environ.get("ANCHORAGE_RUNTIME", "pm2")
LAB = os.environ.get("ANCHORAGE_LAB", "release" if RUNTIME == "pm2" else f"release-{RUNTIME}")
HOST = "vps"
FAULTS = "ANCHORAGE_FAULTS"


def results_of(name: str) -> pathlib.Path:
    """Return the file that keeps results by this name; those about containers have files of their own."""
    return ROOT / "tests" / "results" / f"{name}{'' if RUNTIME == 'pm2' else f'-{RUNTIME}'}.json"


FAULT_RESULTS = results_of("faults")

#: Secrets that the engine makes for an app, by name.
SECRETS = {"JWT_SECRET": 128}

STUB_APP = {
    "preset": "node",
    "tls": {"mode": "off"},
    "secrets": {"generate": SECRETS},
    "build": {"command": ["node", "build.js"], "output": "dist", "timeout_seconds": 90},
    "migrate": {
        "command": ["node", "migrate.js"],
        "timeout_seconds": 90,
        "error_patterns": ['"level":"error"'],
        "changed_patterns": ["● Migrating "],
        "verify": [{"name": "the first migration is recorded", "sql": "SELECT count(*) FROM stub_migrations WHERE id = 'Migration001'", "expect": "1"}],
    },
    "database": {"enabled": True},
    "redis": {"enabled": True},
    "shared": ["static"],
    "soak": {"seconds": 2},
    "processes": {
        "server": {"command": ["node", "server.js"], "public": True, "stop_seconds": 10, "health": {"path": "/health", "body": "OK", "deadline_seconds": 20}},
        "worker": {"command": ["node", "worker.js"], "overlap": False, "stop_seconds": 10, "health": {"path": "/health", "body": "OK", "deadline_seconds": 20}},
    },
}

if RUNTIME == "compose":
    STUB_APP.update(runtime="compose", image={"base": images.STAND_INS["node"]})
    STUB_APP["database"]["image"], STUB_APP["redis"]["image"] = images.STAND_INS["postgres"], images.STAND_INS["redis"]

#: What differs on a host of the lab from one of the internet's.
LAB_SETTINGS = {
    "nodejs_source": "distribution",
    "nodejs_version": "20",
    "nodejs_npm_version": "10.9.4",
    "nodejs_extra_ca_file": "/etc/ssl/certs/ca-certificates.crt",
    "release_extra_ca_file": "/etc/ssl/certs/ca-certificates.crt",
    "base_swap_mb": 0,
}


def pytest_configure(config):
    """Name the marker of the slow tests."""
    config.addinivalue_line("markers", "fault: takes long or another host; runs with 'make faults' only")


def pytest_collection_modifyitems(config, items):
    """Leave the slow tests to 'make faults', which runs nothing else of this directory twice."""
    if os.environ.get(FAULTS):
        results = fault_results()
        left_out = [item for item in items if results.has_passed(fault_name(item.nodeid))]
    else:
        left_out = [item for item in items if item.get_closest_marker("fault")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def fault_results():
    """Return what is known of the slow tests. One that passed with the engine as it is now is not run again."""
    from .trials import Results  # trials.py needs this file

    return Results(
        FAULT_RESULTS, "Faults on a real host, each with customers who must not notice; those of the kill matrix and of two deploys have files of their own"
    )


def fault_name(nodeid: str) -> str:
    """Name a test the same from wherever it is run."""
    return nodeid.rpartition("/")[2].replace(".py::", ": ")


def pytest_runtest_logreport(report):
    """Write down how a slow test ended, with the figures that it gave."""
    own = any(name in report.nodeid for name in ("test_7_kill_matrix", "test_8_two_deploys"))
    if not os.environ.get(FAULTS) or own or report.skipped or (report.when != "call" and report.passed):
        return
    lines = report.longreprtext.strip().splitlines()
    causes = [] if report.passed else [next((line[1:].strip() for line in lines if line.startswith("E  ")), lines[-1])[:300]]
    fault_results().add(fault_name(report.nodeid), causes, seconds=round(report.duration, 1), **dict(report.user_properties))


@dataclasses.dataclass
class Ended:
    """How a run of ansible-playbook ended."""

    rc: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Counters of the last lines, by host."""
        lines = self.output.rpartition("PLAY RECAP")[2].splitlines()
        return {words[0]: {key: int(value) for key, value in (word.split("=") for word in words[2:])} for words in map(str.split, lines) if len(words) > 2}

    @property
    def changed(self) -> int:
        """How many tasks changed something, on all hosts."""
        return sum(counters["changed"] for counters in self.recap.values())


class Apps:
    """A contract in the making: apps made of copies of the stub, and the inventory that holds it."""

    numbers = itertools.count(1)

    def __init__(self, hosts: pathlib.Path, directory: pathlib.Path) -> None:
        self.hosts = hosts
        self.directory = directory
        self.apps: dict[str, dict[str, t.Any]] = {}
        self.live: dict[str, dict[str, t.Any]] = {}

    @property
    def inventory(self) -> pathlib.Path:
        """Where the contract is written."""
        return self.directory / "contract.yml"

    def app(self, name: str, *, env: dict[str, str] | None = None, files: dict[str, str] | None = None, **switches: t.Any) -> None:
        """Ask for a release of an app with these switches and more files; without any it is a good one that nobody saw before."""
        source = self.directory / f"{name}-{next(self.numbers)}"
        shutil.copytree(STUB, source)
        switches.setdefault("version", f"{source.name}-{time.time_ns()}")
        (source / "switches.json").write_text(json.dumps(switches))
        for path, text in (files or {}).items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text)
        self.apps[name] = {**STUB_APP, "source": {"path": str(source)}, "domain": f"{name}.localhost", "env": env or {}}
        self.write()

    def migrate(self, name: str, **options: t.Any) -> None:
        """Change how an app is migrated."""
        self.apps[name] = {**self.apps[name], "migrate": {**self.apps[name]["migrate"], **options}}
        self.write()

    def soak(self, name: str, seconds: int) -> None:
        """Let the release of an app be watched for some seconds."""
        self.apps[name] = {**self.apps[name], "soak": {"seconds": seconds}}
        self.write()

    def hold(self, name: str, seconds: int) -> None:
        """Let the visitors of an app wait while its release changes."""
        self.apps[name] = {**self.apps[name], "strategy": "hold", "hold_seconds": seconds}
        self.write()

    def write(self) -> None:
        """Write the inventory. JSON, so that YAML's taste for on, off and dates has no part in it."""
        self.inventory.write_text(json.dumps({"all": {"vars": {**LAB_SETTINGS, "apps": self.apps}}}, indent=1))

    def copy(self) -> Apps:
        """Return the contract that was deployed last, in a directory of its own, to be changed without regret."""
        other = Apps(self.hosts, self.directory.with_name(f"{self.directory.name}-{next(self.numbers)}"))
        other.directory.mkdir()
        other.apps, other.live = {**self.apps, **self.live}, self.live
        other.write()
        return other

    def start(self, playbook: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start a playbook in a session of its own."""
        log = (self.directory / f"run-{next(self.numbers)}.log").open("w+b")
        command = ["ansible-playbook", "-i", str(self.hosts), "-i", str(self.inventory), f"playbooks/{playbook}.yml", *arguments]
        settings = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), **environment}
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        process.log, process.deploys = log, playbook in ("deploy", "site") and "--check" not in arguments  # type: ignore[attr-defined]
        return process

    def end(self, process: subprocess.Popen, *, timeout: float = 600) -> Ended:
        """Wait for a run."""
        rc = process.wait(timeout=timeout)
        if rc == 0 and process.deploys:  # type: ignore[attr-defined]
            self.live.update(self.apps)
        process.log.seek(0)  # type: ignore[attr-defined]
        return Ended(rc, process.log.read().decode("utf-8", "replace"))  # type: ignore[attr-defined]

    def run(self, playbook: str, *arguments: str, rc: int | None = 0, timeout: float = 600, **environment: str) -> Ended:
        """Run a playbook to its end; ``rc=None`` wants a failure, of whatever code."""
        ended = self.end(self.start(playbook, *arguments, **environment), timeout=timeout)
        good = ended.rc == rc if rc is not None else ended.rc > 0
        if not good:
            pytest.fail(f"{playbook}.yml ended with {ended.rc}, wanted {rc if rc is not None else 'a failure'}:\n{ended.output[-7000:]}", pytrace=False)
        return ended

    def deploy(self, *arguments: str, rc: int | None = 0, **environment: str) -> Ended:
        """Run deploy.yml."""
        return self.run("deploy", *arguments, rc=rc, **environment)


def kill(process: subprocess.Popen) -> None:
    """Kill a run and all its workers, as the end of a laptop's battery does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(good: t.Callable[[], t.Any], what: str, seconds: float = 60) -> t.Any:
    """Wait for something and return it."""
    end = time.monotonic() + seconds
    while True:
        answer = good()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.3)


class Host:
    """A host of the lab, looked at past Ansible."""

    def __init__(self, lab: str, name: str) -> None:
        self.lab = lab
        self.name = name

    def command(self, *argv: str) -> str:
        """Give the lab a command."""
        done = subprocess.run([sys.executable, "-m", "tests.lab", *argv], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"lab {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def facts(self) -> dict[str, t.Any]:
        """What the lab's inventory says of the host."""
        return yaml.safe_load((ROOT / ".cache" / "lab" / self.lab / "hosts.yml").read_text())["all"]["children"]["lab"]["hosts"][self.name]

    def shell(self, script: str, *, check: bool = True, given: str | None = None) -> str:
        """Run a shell script as root and return what it printed."""
        argv = ["docker", "exec", "-i", self.facts["lab_container"], "sh", "-c", script]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, errors="replace", check=False)
        assert not check or done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def state(self, app: str = "alpha") -> dict[str, t.Any]:
        """What the engine says of an app."""
        return json.loads(self.shell(f"anchorage status {app} --json || true"))[0]

    def journal(self, app: str = "alpha") -> dict[str, t.Any]:
        """What the journal says."""
        return json.loads(self.shell(f"cat /var/lib/anchorage/{app}/journal.json"))

    def unit_active(self, name: str) -> bool:
        """Whether a unit runs, or what does its work where apps are in containers."""
        app, _dash, what = name.rpartition("-")
        if RUNTIME == "compose" and what == "build":
            # Where it counts none, pgrep ends with 1.
            return self.shell("pgrep -fc '^docker build' || true").strip() != "0"
        if RUNTIME == "compose" and what == "migrate":
            return self.shell(f"docker ps --quiet --filter name=^anchorage-{app}-migrate$").strip() != ""
        return self.shell(f"systemctl is-active anchorage-{name}.service || true").strip() == "active"

    def sql(self, query: str, app: str = "alpha") -> str:
        """Ask an app's database as its superuser."""
        if RUNTIME == "compose":
            return self.shell(f"docker exec -i {app}-base-postgres-1 psql -XAtq -v ON_ERROR_STOP=1 -U postgres {app}", given=query).strip()
        return self.shell(f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 {app}", given=query).strip()

    def as_postgres(self, script: str, *, given: str | None = None) -> str:
        """Run a shell script where PostgreSQL's own user is at home."""
        if RUNTIME == "compose":
            return self.shell(f"docker exec -i -u postgres alpha-base-postgres-1 sh -c {shlex.quote(script)}", given=given)
        return self.shell(f"cd / && runuser -u postgres -- sh -c {shlex.quote(script)}", given=given)

    def runs(self, release: str | None = None, app: str = "alpha") -> int:
        """How often a release's migration really ran."""
        where = f" WHERE release = '{release}'" if release else ""
        return int(self.sql(f"SELECT count(*) FROM stub_runs{where}", app))

    def marked(self, release: str, app: str = "alpha") -> bool:
        """Whether the database says that a release is migrated."""
        return self.sql(f"SELECT count(*) FROM anchorage.release WHERE id = '{release}'", app) == "1"

    def public(self, app: str = "alpha", path: str = "/info", *, timeout: float = 10) -> dict[str, t.Any]:
        """Ask the site through nginx, from outside the host."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.facts['lab_ports']['80']}{path}", headers={"Host": f"{app}.localhost"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read())

    def direct(self, port: int, path: str = "/info") -> str:
        """Ask a port on the host itself; the name of the error where nobody answers."""
        url = f"http://127.0.0.1:{port}{path}"
        script = f"import urllib.request as u\ntry: print(u.urlopen('{url}', timeout=5).read().decode())\nexcept Exception as e: print(repr(e))"
        return self.shell("python3 -", given=script).strip()

    def processes(self, user: str = "alpha") -> dict[str, dict[str, t.Any]]:
        """PM2's processes of an app, or its containers as PM2 would tell of them, by name."""
        if RUNTIME == "compose":
            ids = self.shell(f"docker ps --all --quiet --filter label=vps.anchorage.app={user} --filter label=vps.anchorage.slot").split()
            found = json.loads(self.shell(f"docker inspect {' '.join(ids)}")) if ids else []
            states = {"running": "online", "exited": "stopped"}
            return {
                item["Name"].lstrip("/"): {"pid": item["State"]["Pid"], "pm2_env": {"status": states.get(item["State"]["Status"], item["State"]["Status"])}}
                for item in found
            }
        listed = self.shell(f"runuser -u {user} -- env -i PATH=/usr/local/bin:/usr/bin:/bin pm2 jlist")
        return {entry["name"]: entry for entry in json.loads(listed[listed.index("[") :])}

    def serving(self, app: str = "alpha") -> Serving:
        """What serves, seen from everywhere; it must be one and the same release."""
        state, info = self.state(app), self.public(app)
        online = {name: entry["pid"] for name, entry in self.processes(app).items() if entry["pm2_env"]["status"] == "online"}
        return Serving(state["live"], state["slot"], info["release"], info["pid"], online)


class Visitor(threading.Thread):
    """Asks a site again and again, as customers do, and writes down what came.

    :arg ask: how it asks, and what it makes of the answer; the release that answered, without it.
    """

    def __init__(self, host: Host, ask: t.Callable[[], str] | None = None) -> None:
        super().__init__(daemon=True)
        self.ask = ask or (lambda: host.public(timeout=5)["release"])
        self.stop, self.releases, self.failures = threading.Event(), [], []

    def run(self) -> None:
        """Ask until it is enough."""
        while not self.stop.is_set():
            try:
                self.releases.append(self.ask())
            except Exception as error:
                self.failures.append(f"{error!r} after {len(self.releases)} answers")
            time.sleep(0.02)

    def __enter__(self) -> Visitor:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        self.join()

    def check(self, least: int = 20) -> None:
        """Every request was answered, and there were enough to say so."""
        assert len(self.releases) >= least
        assert not self.failures, (len(self.failures), len(self.releases), self.failures[:3])


class Serving(t.NamedTuple):
    """Who serves an app, according to the journal, to the site, and to PM2."""

    live: str
    slot: str
    release: str
    pid: int
    online: dict[str, int]

    def check(self, app: str = "alpha") -> None:
        """Nothing but the whole live release runs, and it is what answers."""
        assert self.live == self.release
        assert set(self.online) == {f"{app}-server-{self.slot}", f"{app}-worker-{self.slot}"}


@dataclasses.dataclass
class Shop:
    """A provisioned host and the contract that it follows.

    :arg said: what its provisioning said, at its most talkative.
    :arg provisioning: what others could see of processes meanwhile.
    """

    host: Host
    apps: Apps
    said: str = ""
    provisioning: Watch | None = None


@pytest.fixture(scope="session")
def vps(tmp_path_factory) -> t.Iterator[Shop]:
    """One host with the app alpha, provisioned from nothing by site.yml."""
    host = Host(LAB, HOST)
    if not os.environ.get("KEEP_LAB"):
        host.command("down", LAB)
    docker = ["--with-docker"] if RUNTIME == "compose" else []
    host.command("up", LAB, *docker, f"--host={HOST}:trixie:app,database,cache,proxy")
    if RUNTIME == "compose":
        host.command("stand-ins", LAB, HOST)
    apps = Apps(ROOT / ".cache" / "lab" / LAB / "hosts.yml", tmp_path_factory.mktemp("contract"))
    apps.app("alpha")
    with Watch(host) as watch:
        said = apps.run("site", "-vvv", "--diff").output
    yield Shop(host, apps, said, watch)
    if not os.environ.get("KEEP_LAB"):
        host.command("down", LAB)


@pytest.fixture
def shop(vps) -> Shop:
    """The host, with a contract of the test's own. What is live is whole before the test begins, whatever the one before left."""
    try:
        vps.host.serving().check()
    except (AssertionError, OSError):
        vps.apps.copy().run("site")
        vps.host.serving().check()
    return dataclasses.replace(vps, apps=vps.apps.copy())
