# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import host_drain, processes
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.pm2_runtime import Pm2
from ansible_collections.anchorage.vps.plugins.module_utils.slots import heartbeat, proof, running
from ansible_collections.anchorage.vps.plugins.module_utils.step_activate import activate
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import ME, PASSWORD, HostWorld, document, place

PORTS = {"shop-server-blue": 9000, "shop-server-green": 9002}


class Pm2Host(HostWorld):
    """A host whose PM2 starts processes that listen at once, unless a test says otherwise of one."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str, int] = {}
        self.deaf: set[str] = set()
        self.dead: set[str] = set()
        self.stopping: dict[str, int] = {}
        self.given_up: set[str] = set()
        self.history: list[str] = []
        self.next_pid = 100
        self.strangers: list[tuple[str, int, int]] = []

    def write_atomic(self, path, data, *, mode, uid=None, gid=None):
        super().write_atomic(path, data, mode=mode, uid=uid, gid=gid)
        if path.endswith("starting.json"):
            pathlib.Path(path).write_bytes(data)

    def _pm2(self, argv, call):
        assert call["user"] == ME.pw_name and set(call["env"]) == {"PATH", "HOME", "PM2_HOME", "LANG"}, "PM2 dumps what it is called with"
        if argv[1] == "jlist":
            found = [{"name": name, "pid": pid, "pm2_env": {"status": self._status(name)}} for name, pid in self.table.items()]
            return Completed(0, f">>>> In-memory PM2 is out-of-date\n{json.dumps(found)}", "")
        if argv[1] == "start":
            for entry in json.loads(self.files[argv[2]])["apps"]:
                self._begin(entry)
        if argv[1] == "delete":
            self.history.append(f"stop {argv[2]}")
            pid = self.table.pop(argv[2], None)
            if pid is None:
                return Completed(1, "", "[PM2][ERROR] Process or Namespace not found")
            for store in (self.files, self.links):
                for path in [path for path in store if path.startswith(f"/proc/{pid}/")]:
                    del store[path]
        self._sockets()
        return Completed(0, "", "")

    def _status(self, name):
        """Say how a process fares; one that stops is gone after a few looks."""
        if name in self.stopping:
            self.stopping[name] -= 1
            if not self.stopping[name]:
                del self.stopping[name]
                self.given_up.add(name)
            return "stopping"
        return "errored" if name in self.given_up else "online"

    def _begin(self, entry):
        name, release = entry["name"], entry["cwd"].split("/")[-2]
        assert name not in self.stopping, "the daemon would end the new process for the old one"
        self.next_pid += 1
        self.history.append(f"start {name} {release}")
        self.table[name] = self.next_pid
        self.given_up.discard(name)
        if name not in self.dead:
            environ = {"ANCHORAGE_RELEASE": release, "ANCHORAGE_PROCESS": name}
            self.process(self.next_pid, environ=environ, sockets=[self.next_pid] if name in PORTS and name not in self.deaf else [])

    def _sockets(self):
        mine = [("127.0.0.1", PORTS[name], pid) for name, pid in self.table.items() if name in PORTS and name not in self.deaf | self.dead]
        self.listen(*mine, *self.strangers)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app whose release r1 lives in slot blue, and whose r2 is staged and migrated."""
    place(tmp_path, monkeypatch)
    world = Pm2Host()
    world.units.add(f"pm2-{ME.pw_name}.service")
    return begun(App("shop", world, document(str(tmp_path / "home"))))


def begun(app):
    """Let release r1 of an app live in slot blue, and r2 be staged and migrated. Returns the app, its world and a log."""
    log = Log(lambda line: None)
    for number in (1, 2):
        app.journal.mark(f"r{number}", "staged", tree=f"t{number}")
        app.world.marks.add(f"r{number}")
    assert activate(app, log, release="r1") is True
    app.world.history.clear()
    return app, app.world, log


def flag(app):
    return os.path.exists(app.layout.slot_flag)


def test_the_first_release_serves_from_blue(shop):
    app, world, _log = shop
    assert (app.journal.live, app.journal.slot, flag(app)) == ("r1", "blue", False)
    assert set(world.table) == {"shop-server-blue", "shop-worker-blue"} and running(app)


def test_the_first_release_lets_the_proxies_in_and_only_when_it_is_live(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    world = Pm2Host()
    world.units.add(f"pm2-{ME.pw_name}.service")
    world.files[host_drain.RULES_DIRECTORY] = ""
    app = App("shop", world, document(str(tmp_path / "home")))
    app.journal.mark("r1", "staged", tree="t1")
    host_drain.keep_out_new(world, {"shop": 9019})
    world.marks.add("r1")
    world.deaf.add("shop-server-blue")
    with pytest.raises(AnchorageError):
        activate(app, Log(lambda line: None), release="r1")
    assert list(host_drain.drained(world)) == ["shop"]
    world.deaf.clear()
    assert activate(app, Log(lambda line: None), release="r1") is True and host_drain.drained(world) == {}


def test_the_new_release_is_proven_beside_the_old_one_before_anything_stops(shop):
    app, world, log = shop
    assert activate(app, log, release="r2") is True
    assert world.history == [
        "start shop-server-green r2",
        "stop shop-worker-blue",
        "start shop-worker-green r2",
        "stop shop-server-blue",
    ]
    assert (app.journal.live, app.journal.slot, app.journal.data["previous"], app.journal.data["tree"], flag(app)) == ("r2", "green", "r1", "t2", True)
    boot = json.loads(world.files[app.layout.live_file])
    assert [entry["name"] for entry in boot["apps"]] == ["shop-server-green", "shop-worker-green"]
    assert world.written[app.layout.live_file]["mode"] == 0o640


def test_nothing_that_pm2_is_told_holds_a_secret(shop):
    app, world, log = shop
    activate(app, log, release="r2")
    told = [world.files[path] for path in (app.layout.live_file, f"{app.layout.pm2_home}/starting.json")]
    assert all(PASSWORD not in text and "j" * 32 not in text for text in told)
    assert not os.path.exists(f"{app.layout.pm2_home}/starting.json")


def test_after_a_lost_journal_what_serves_goes_on_until_the_new_release_is_proven(shop):
    app, world, log = shop
    app.journal.data.update(live=None, slot=None, previous=None)
    assert activate(app, log, release="r2") is True
    assert world.history[:3] == ["start shop-server-green r2", "stop shop-worker-blue", "start shop-worker-green r2"]
    assert (app.journal.live, app.journal.slot, flag(app)) == ("r2", "green", True)


def test_after_a_lost_journal_a_failed_worker_brings_back_what_served(shop):
    app, world, log = shop
    app.journal.data.update(live=None, slot=None, previous=None)
    world.dead.add("shop-worker-green")
    with pytest.raises(AnchorageError):
        activate(app, log, release="r2")
    assert set(world.table) == {"shop-server-blue", "shop-worker-blue"} and flag(app) is False
    assert world.history[-1] == "start shop-worker-blue r1"


def test_a_worker_that_may_overlap_is_stopped_last(shop):
    app, world, log = shop
    app.document["processes"][1]["overlap"] = True
    activate(app, log, release="r2")
    assert world.history[:2] == ["start shop-server-green r2", "start shop-worker-green r2"]
    assert sorted(world.history[2:]) == ["stop shop-server-blue", "stop shop-worker-blue"]


def test_what_serves_already_is_left_alone(shop):
    app, world, log = shop
    assert activate(app, log, release="r1") is False
    assert world.history == []


def test_a_release_whose_processes_died_is_brought_up_in_the_other_slot(shop):
    app, world, log = shop
    world._pm2(["pm2", "delete", "shop-worker-blue"], {"user": ME.pw_name, "env": Pm2(app).environment})
    world.history.clear()
    assert not running(app)
    assert activate(app, log, release="r1") is True
    assert app.journal.slot == "green" and app.journal.data["previous"] is None and running(app)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda app, world: app.journal.data["releases"].pop("r2"), "Release r2 of shop is not staged on this host"),
        (lambda app, world: world.marks.discard("r2"), "may not start: its database does not carry the mark"),
        (lambda app, world: setattr(world, "database_up", False), "may not start: its database does not carry the mark"),
    ],
    ids=["not-staged", "not-migrated", "no-database"],
)
def test_the_gate_cannot_be_walked_around(shop, change, message):
    app, world, log = shop
    app.journal.mark("r2", "migrated")
    change(app, world)
    with pytest.raises(AnchorageError, match=message) as error:
        activate(app, log, release="r2")
    assert error.value.live == "shop release r1 in slot blue" and "Run deploy.yml without" in error.value.next_step
    assert world.history == [] and app.journal.live == "r1"


def unchanged(app, world):
    """The old release serves from its slot, and nothing else is there."""
    assert (app.journal.live, app.journal.slot, flag(app)) == ("r1", "blue", False)
    assert set(world.table) == {"shop-server-blue", "shop-worker-blue"} and running(app)
    assert app.journal.data["history"][-1]["event"] == "failed"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda world: world.deaf.add("shop-server-green"), "nobody listens on port 9002 yet"),
        (lambda world: world.dead.add("shop-server-green"), "no process shop-server-green of release r2 is alive"),
        (lambda world: world.dead.add("shop-worker-green"), "no process shop-worker-green of release r2 is alive"),
    ],
    ids=["deaf", "dead", "worker"],
)
def test_a_release_that_is_not_proven_leaves_the_old_one_as_it_was(shop, fault, message):
    app, world, log = shop
    fault(world)
    with pytest.raises(AnchorageError, match=message) as error:
        activate(app, log, release="r2")
    assert error.value.live == "shop release r1 in slot blue" and error.value.what.startswith("proof of shop-")
    assert "deploy.yml again" in error.value.next_step
    unchanged(app, world)


def test_a_stranger_on_the_port_is_no_proof(shop):
    app, world, log = shop
    world.process(77, environ={})
    world.links["/proc/77/fd/3"] = "socket:[77]"
    world.deaf.add("shop-server-green")
    world.strangers = [("127.0.0.1", 9002, 77)]
    with pytest.raises(AnchorageError, match=r"port 9002 belongs to another process \(77\)"):
        activate(app, log, release="r2")
    assert (app.journal.live, flag(app)) == ("r1", False)


def test_a_failed_worker_takes_the_traffic_back_and_the_old_worker_returns(shop):
    app, world, log = shop
    world.dead.add("shop-worker-green")
    with pytest.raises(AnchorageError):
        activate(app, log, release="r2")
    assert world.history == [
        "start shop-server-green r2",
        "stop shop-worker-blue",
        "start shop-worker-green r2",
        "stop shop-worker-green",
        "stop shop-server-green",
        "start shop-worker-blue r1",
    ], "two workers are never there at once"
    switches = [entry["slot"] for entry in app.journal.data["history"] if entry["event"] == "switched"][-2:]
    assert switches == ["green", "blue"]
    unchanged(app, world)


def test_an_old_worker_that_does_not_come_back_is_said(shop):
    app, world, log = shop
    world.dead |= {"shop-worker-green", "shop-worker-blue"}
    with pytest.raises(AnchorageError) as error:
        activate(app, log, release="r2")
    assert error.value.live == "shop release r1 in slot blue, but shop-worker-blue did not come back"
    assert "shop-worker-green" in error.value.message, "the cause is the new release's"


@pytest.fixture
def watched(shop):
    """The same app, whose releases are watched for ten seconds before they are confirmed."""
    app, world, log = shop
    app.document["soak"] = {"seconds": 10, "max_error_percent": 1, "max_slowdown": 3}
    world.clock = 0.0
    return app, world, log


def soaking(app):
    return os.path.exists(app.layout.soak_flag)


def again(world, name):
    """Let PM2 start a process again that ended."""
    world.files.pop(f"/proc/{world.table[name]}/environ")
    world._begin({"name": name, "cwd": "/x/r2/app"})


def test_what_a_process_starts_itself_may_come_and_go_while_it_is_watched(watched):
    app, world, log = watched

    def helper():
        if soaking(app):
            world.process(900, parent=1, environ={"ANCHORAGE_RELEASE": "r2", "ANCHORAGE_PROCESS": "shop-server-green"})
        if world.clock > 9:
            world.files.pop("/proc/900/environ", None)

    world.on_sleep = helper
    assert activate(app, log, release="r2") is True


def test_a_release_is_watched_while_the_one_before_still_runs(watched):
    app, world, log = watched
    seen = set()
    world.on_sleep = lambda: seen.add((frozenset(world.table), app.journal.live, flag(app), soaking(app)))
    assert activate(app, log, release="r2") is True
    assert (frozenset({"shop-server-blue", "shop-server-green", "shop-worker-green"}), "r1", True, True) in seen
    assert world.clock >= 10 and app.journal.live == "r2" and not soaking(app)


def test_a_process_that_dies_while_it_is_watched_takes_the_traffic_back(watched):
    app, world, log = watched

    def die():
        if soaking(app) and world.clock > 7 and "shop-server-green" in world.table:
            world.files.pop(f"/proc/{world.table['shop-server-green']}/environ", None)

    world.on_sleep = die
    with pytest.raises(AnchorageError, match=r"but \d+ s later shop-server-green died") as error:
        activate(app, log, release="r2")
    assert error.value.what == "soak" and error.value.live == "shop release r1 in slot blue"
    assert not soaking(app)
    unchanged(app, world)


def test_a_process_that_is_restarted_while_it_is_watched_takes_the_traffic_back(watched):
    app, world, log = watched

    def restart():
        if soaking(app) and world.clock > 7:
            again(world, "shop-worker-green")
            world.on_sleep = None

    world.on_sleep = restart
    with pytest.raises(AnchorageError, match="shop-worker-green was restarted"):
        activate(app, log, release="r2")


def test_a_server_that_is_restarted_while_the_workers_are_handed_over_is_found_out(watched):
    app, world, log = watched
    start = world._begin

    def begin(entry):
        start(entry)
        if entry["name"] == "shop-worker-green":
            world.files.pop(f"/proc/{world.table['shop-server-green']}/environ")
            start({"name": "shop-server-green", "cwd": "/x/r2/app"})

    world._begin = begin
    with pytest.raises(AnchorageError, match="shop-server-green was restarted"):
        activate(app, log, release="r2")


def test_the_first_release_and_the_way_back_are_not_watched(watched):
    app, world, log = watched
    activate(app, log, release="r2")
    assert soaked(app, world, log, "r1", leaving="r2") is False
    app.journal.data.update(live=None, slot=None)
    for name in list(world.table):
        world._pm2(["pm2", "delete", name], {"user": ME.pw_name, "env": Pm2(app).environment})
    assert soaked(app, world, log, "r1") is False


def soaked(app, world, log, release, leaving=None):
    """Activate a release and tell whether it was watched."""
    seen = []
    world.on_sleep = lambda: seen.append(soaking(app))
    activate(app, log, release=release, leaving=leaving)
    return any(seen)


def test_what_an_interrupted_run_left_in_the_idle_slot_goes_first(shop):
    app, world, log = shop
    world._begin({"name": "shop-server-green", "cwd": "/x/r9/app"})
    world.history.clear()
    activate(app, log, release="r2")
    assert world.history[:2] == ["stop shop-server-green", "start shop-server-green r2"]


def test_the_daemon_is_the_units(shop):
    app, world, log = shop
    world.units.clear()
    world.ran.clear()
    activate(app, log, release="r2")
    commands = [call["argv"] for call in world.ran]
    started = commands.index(["systemctl", "start", f"pm2-{ME.pw_name}.service"])
    assert "pm2" not in [argv[0] for argv in commands[:started]], "any pm2 command before it would start a daemon of its own"


def test_a_unit_of_pm2_that_does_not_start_is_named(shop):
    app, world, log = shop
    world.units.clear()
    world._systemctl = lambda argv, call: Completed(1, "", "Job failed")
    with pytest.raises(AnchorageError, match=f"pm2-{ME.pw_name}.service does not start: Job failed"):
        activate(app, log, release="r2")
    assert world.history == []


def test_pm2s_words_before_its_json_are_skipped(shop):
    app, world, _log = shop
    assert Pm2(app).names() == set(world.table)


# -- the sign of life


BEAT = {"sql": None, "redis_key": None, "file": "static/{release}", "max_age_seconds": 30}


def beating(shop, monkeypatch, beats, alive=20.0):
    """Let the worker leave signs of life, each so many seconds ago."""
    app, world, log = shop
    app.document["processes"][1]["heartbeat"] = BEAT
    monkeypatch.setattr(processes, "age", lambda world, pid: alive)
    monkeypatch.setattr(world, "modified", lambda path: world.now() - beats[path] if path in beats else None, raising=False)
    return app, world, log


def test_a_worker_is_proven_by_its_sign_of_life(shop, monkeypatch):
    app, _world, log = beating(shop, monkeypatch, {f"{shop[0].layout.shared}/static/r2": 3})
    assert activate(app, log, release="r2") is True and app.journal.live == "r2"


def test_what_a_process_starts_itself_makes_it_no_younger(shop, monkeypatch):
    app, world, log = beating(shop, monkeypatch, {f"{shop[0].layout.shared}/static/r2": 3})
    begin = world._begin

    def with_child(entry):
        begin(entry)
        world.process(1000 + world.next_pid, environ={"ANCHORAGE_RELEASE": "r2", "ANCHORAGE_PROCESS": entry["name"]})

    monkeypatch.setattr(world, "_begin", with_child)
    monkeypatch.setattr(processes, "age", lambda world, pid: 0.1 if pid > 1000 else 20.0)
    assert activate(app, log, release="r2") is True


@pytest.mark.parametrize(
    ("age", "alive", "words"),
    [
        (None, 20.0, "has left no sign of life yet: the file .*static/r2 is not there"),
        (21, 20.0, "has left no sign of life yet: .* is 21 s old, the limit is 20 s"),
        (31, 500.0, "the last sign of life in the file .* is 31 s old, the limit is 30 s"),
    ],
    ids=["none", "from before its start", "too old"],
)
def test_without_a_fresh_sign_of_life_the_release_goes_back(shop, monkeypatch, age, alive, words):
    # That of the release before is young, and does not count.
    beats = {f"{shop[0].layout.shared}/static/r1": 1, **({} if age is None else {f"{shop[0].layout.shared}/static/r2": age})}
    app, world, log = beating(shop, monkeypatch, beats, alive)
    with pytest.raises(AnchorageError, match=words):
        activate(app, log, release="r2")
    assert app.journal.live == "r1" and set(world.table) == {"shop-server-blue", "shop-worker-blue"}


def test_the_first_sign_of_life_may_take_as_long_as_it_may_be_old():
    assert proof({"health": None})["deadline_seconds"] == 60
    assert proof({"health": None, "heartbeat": {**BEAT, "max_age_seconds": 300}})["deadline_seconds"] == 300
    assert proof({"health": {"deadline_seconds": 400}, "heartbeat": BEAT})["deadline_seconds"] == 400


def test_signs_of_life_are_read_where_the_app_leaves_them(shop):
    app, _world, _log = shop
    app.document["redis_url"] = "redis://shop:pw@127.0.0.1:6379/0"

    def of(**given):
        return heartbeat(app, {"heartbeat": {**BEAT, "file": None, **given}}, "r7")

    assert of(file="static/{release}").file == f"{app.layout.shared}/static/r7"
    login, query = of(sql="SELECT at FROM beats WHERE release = '{release}'").sql
    assert (login.port, query) == (5432, "SELECT at FROM beats WHERE release = 'r7'")
    login, key = of(redis_key="beat:{release}").redis
    assert (login.port, key) == (6379, "beat:r7")
