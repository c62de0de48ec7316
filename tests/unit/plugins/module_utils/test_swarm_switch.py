# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release on a Swarm that is a few dictionaries: told, followed, confirmed, taken back; and what the nodes that are told nothing make of it."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import health, recovery, restart, step_activate, swarm_probe, swarm_switch
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.runtimes import of
from ansible_collections.anchorage.vps.plugins.module_utils.swarm_runtime import Swarm
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import OK, PASSWORD, HostWorld, document, place

IMAGE = f"sha256:{'ab' * 32}"
SWARMED = {
    "runtime": "swarm",
    "image": {"base": "node:22", "dockerfile": None, "build_args": {}, "directory": "/app", "read_only": True},
    "hosts": ["n1", "n2"],
    "database_url": None,
    "migrate": None,
}


class SwarmWorld(HostWorld):
    """An Engine that manages a Swarm.

    C(bad) names processes whose tasks of a release end, C(stuck) those that never get there.
    """

    def __init__(self):
        super().__init__()
        self.services, self.told, self.bad, self.stuck = {}, [], {}, set()
        self.state = {"LocalNodeState": "active", "ControlAvailable": True, "Error": ""}
        self.containers, self.secrets, self.removed = [], [], []
        self.nodes = [self._node("n1"), self._node("n2")]
        self.units.add("docker.service")
        self.gone = []
        self.processes = {}

    @staticmethod
    def _node(name, state="ready", availability="active", reachability="reachable"):
        return {
            "ID": f"id-{name}",
            "Description": {"Hostname": name},
            "Status": {"State": state, "Addr": "192.0.2.1"},
            "Spec": {"Availability": availability},
            "ManagerStatus": {"Addr": "192.0.2.1:2377", "Reachability": reachability},
        }

    def _docker(self, argv, call):
        words = [word for word in argv[1:] if not word.startswith("-")]
        if words[0] == "image":
            return Completed(0, words[-1], "")
        return getattr(self, f"_do_{words[0]}_{words[1]}" if words[0] in ("stack", "service", "secret", "node") else f"_do_{words[0]}")(words, argv)

    def _do_info(self, words, argv):
        return Completed(0, json.dumps(self.state), "")

    def _do_stack_deploy(self, words, argv):
        (path,) = [word.partition("=")[2] for word in argv if word.startswith("--compose-file=")]
        found = json.loads(self.files[path])
        self.told.append((sorted(found["services"]), found["services"]["server"]["labels"]["vps.anchorage.release"]))
        for name, wanted in found["services"].items():
            release = wanted["labels"]["vps.anchorage.release"]
            before = self.services.get(name)
            if before and before["release"] == release:
                continue
            error = self.bad.get((name, release))
            kept = {"name": name, "release": release, "labels": wanted["deploy"]["labels"], "update": {}, "tasks": []}
            if error and before:
                kept = {**before, "update": {"State": "rollback_completed", "Message": "rollback completed"}}
                kept["tasks"] = [*before["tasks"], self._task(name, release, "failed", error)]
            elif error:
                kept["tasks"] = [self._task(name, release, "failed", error)] * 3
            elif name in self.stuck:
                kept["tasks"] = [self._task(name, release, "pending", "no suitable node")]
            else:
                kept["tasks"] = [self._task(name, release) for _number in range(wanted["deploy"]["replicas"])]
            self.services[name] = kept
        return OK

    @staticmethod
    def _task(name, release, state="running", error=""):
        spec = {"ContainerSpec": {"Labels": {"vps.anchorage.release": release}}}
        told = {"State": state, "Err": error, "PortStatus": {"Ports": [{"PublishedPort": 9000}]}}
        return {"ServiceID": name, "NodeID": "id-n2", "Spec": spec, "Status": told, "DesiredState": "running" if state == "running" else "shutdown"}

    def _do_stack_rm(self, words, argv):
        self.services.clear()
        return OK

    def _do_service_ls(self, words, argv):
        return Completed(0, "\n".join(self.services), "")

    def _do_service_ps(self, words, argv):
        return Completed(0, "\n".join(f"{name}/{number}" for name, told in self.services.items() for number in range(len(told["tasks"]))), "")

    def _do_service_logs(self, words, argv):
        return Completed(0, "line of its log\n", "")

    def _do_service_update(self, words, argv):
        self.told.append((argv[-1], "force", "--update-order=stop-first" in argv))
        return OK

    def _do_node_ls(self, words, argv):
        if not self.state["ControlAvailable"]:
            return Completed(1, "", "This node is not a swarm manager.")
        return Completed(0, "\n".join(node["ID"] for node in self.nodes), "")

    def _do_secret_ls(self, words, argv):
        return Completed(0, "\n".join(self.secrets), "")

    def _do_secret_rm(self, words, argv):
        self.removed.append(words[-1])
        return OK

    def _do_builder(self, words, argv):
        return OK

    def _do_ps(self, words, argv):
        return Completed(0, "\n".join(container["Name"] for container in self.containers), "")

    @staticmethod
    def _spec(name, told):
        return {"Name": f"shop_{name}", "Labels": told["labels"]}

    def _do_inspect(self, words, argv):
        kind = next(word.partition("=")[2] for word in argv if word.startswith("--type="))
        if kind == "service":
            found = [{"ID": name, "Spec": self._spec(name, told), "UpdateStatus": told["update"]} for name, told in self.services.items()]
        elif kind == "task" and self.gone:
            return Completed(1, "[]", f"Error response from daemon: task {self.gone.pop()} not found")
        elif kind == "task":
            found = [self.services[word.partition("/")[0]]["tasks"][int(word.partition("/")[2])] for word in words[1:]]
        elif kind == "node":
            found = self.nodes
        else:
            found = self.containers
        return Completed(0, json.dumps(found), "")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app of two nodes with staged releases r1 to r3, and its world."""
    place(tmp_path, monkeypatch)
    monkeypatch.setattr(swarm_switch, "probe", lambda *_arguments, **_more: [health.Check("status")])

    def make(host="n1", **changes):
        world = SwarmWorld()
        told = document(str(tmp_path / "home"), **{**SWARMED, "host": host, **changes})
        told["processes"][0]["health"] = {"path": "/health", "status": 200, "body": None, "deadline_seconds": 10, "interval_seconds": 1, "successes": 2}
        app = App("shop", world, told)
        world.files[f"{app.layout.build('t1')}/.anchorage.json"] = json.dumps({"image": IMAGE})
        for release in ("r1", "r2", "r3"):
            app.journal.mark(release, "staged", tree="t1", source="s1")
            of(app).lay_out(app.layout.release(release), "t1", release, 0)
        lines = []
        return app, world, Log(lines.append), lines

    return make


def go(app, log, release, **more):
    return step_activate.activate(app, log, release=release, **more)


def test_a_first_release_is_told_public_first_and_confirmed(shop):
    app, world, log, lines = shop()
    assert isinstance(of(app), Swarm)
    assert go(app, log, "r1")
    assert world.told == [(["server"], "r1"), (["server", "worker"], "r1")]
    assert (app.journal.live, app.journal.slot, app.journal.switch, app.unsettled) == ("r1", "blue", None, False)
    assert any("proven: server on n2" in line for line in lines)
    assert not go(app, log, "r1") and len(world.told) == 2, "what serves is not told again"


def test_the_next_release_takes_the_ports_of_the_other_slot(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    go(app, log, "r2")
    assert (app.journal.live, app.journal.slot, app.journal.data["previous"]) == ("r2", "green", "r1")
    assert world.services["server"]["labels"]["vps.anchorage.slot"] == "green"


def test_nothing_of_the_environment_is_written_where_others_read_it(shop):
    app, world, _log, _lines = shop(database_url=f"postgres://shop:{PASSWORD}@192.0.2.9:5432/shop")
    place_of = app.layout.release("r1")
    private = {path: text for path, text in world.files.items() if path.startswith(place_of) and PASSWORD in text}
    assert set(private) == {f"{place_of}/run/server.env", f"{place_of}/run/worker.env"}
    assert all(world.written[path]["mode"] == 0o600 for path in world.files if path.startswith(f"{place_of}/run/"))


def test_a_release_that_the_swarm_took_back_fails_with_its_cause_and_the_old_one_is_live(shop):
    app, world, log, lines = shop()
    go(app, log, "r1")
    world.bad["server", "r2"] = "task: non-zero exit (1)"
    with pytest.raises(AnchorageError) as caught:
        go(app, log, "r2")
    assert "non-zero exit (1) on n2" in caught.value.message and "release r1 in slot blue" in caught.value.live
    assert caught.value.what == "update of server" and caught.value.next_step
    assert any("the Swarm has rolled server back (rollback completed)" in line for line in lines) and "  | line of its log" in lines
    assert (app.journal.live, app.journal.switch) == ("r1", None)
    assert world.told[-1] == (["server", "worker"], "r1"), "and the rest of the stack is told, too"
    assert {told["release"] for told in world.services.values()} == {"r1"}


def test_a_worker_that_is_no_good_takes_the_server_back_with_it(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    world.bad["worker", "r2"] = "task: non-zero exit (1)"
    with pytest.raises(AnchorageError):
        go(app, log, "r2")
    assert {told["release"] for told in world.services.values()} == {"r1"}
    assert world.services["server"]["labels"]["vps.anchorage.slot"] == "blue"


def test_a_first_release_that_is_no_good_is_taken_down(shop):
    app, world, log, _lines = shop()
    world.bad["server", "r1"] = "No such image"
    with pytest.raises(AnchorageError) as caught:
        go(app, log, "r1")
    assert world.services == {} and app.journal.live is None and "No such image" in caught.value.message


def test_a_task_that_went_while_it_was_looked_at_is_no_failure(shop):
    app, world, log, _lines = shop()
    world.gone = ["p9ynq", "o4i7a"]
    assert go(app, log, "r1") and not world.gone


def test_where_the_way_back_cannot_be_told_it_says_so(shop, monkeypatch):
    app, world, log, lines = shop()
    go(app, log, "r1")
    world.bad["server", "r2"] = "exit (1)"
    told = Swarm.apply

    def apply(self, release, *arguments, **more):
        if release != "r2":
            raise AnchorageError("no quorum")
        told(self, release, *arguments, **more)

    monkeypatch.setattr(Swarm, "apply", apply)
    with pytest.raises(AnchorageError) as caught:
        go(app, log, "r2")
    assert "exit (1)" in caught.value.message and caught.value.live.endswith(", but all of it did not come back")
    assert any("no quorum" in line for line in lines)
    assert app.journal.switch["release"] == "r2" and app.unsettled, "whoever comes next tries again"
    monkeypatch.undo()
    assert recovery.recover(app, log) and {told["release"] for told in world.services.values()} == {"r1"} and app.journal.switch is None


def test_what_does_not_come_is_given_up_in_time(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    world.stuck.add("server")
    began = world.monotonic()
    with pytest.raises(AnchorageError) as caught:
        go(app, log, "r2")
    assert "no suitable node" in caught.value.message and "after" in caught.value.message
    assert world.monotonic() - began < 600


def test_what_does_not_answer_is_no_release(shop, monkeypatch):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    monkeypatch.setattr(swarm_switch, "probe", lambda *_a, **_m: [health.judge("status", False, cause="it answered 500")])
    with pytest.raises(AnchorageError, match="it answered 500"):
        go(app, log, "r2")
    assert {told["release"] for told in world.services.values()} == {"r1"}


@pytest.mark.parametrize("how", ["ends", "silent"])
def test_a_release_that_dies_in_its_soak_goes_back(shop, monkeypatch, how):
    app, world, log, lines = shop(soak={"seconds": 20, "max_error_percent": 1, "max_slowdown": 3})
    go(app, log, "r1")
    lines.clear()
    before = []

    def later():
        if not any("soak: watching" in line for line in lines) or before:
            return
        before.append(True)
        if how == "ends":
            world.services["server"]["tasks"].append(world._task("server", "r2", "failed", "out of memory"))
        else:
            monkeypatch.setattr(swarm_switch, "probe", lambda *_a, **_m: [health.judge("status", False, cause="refused")])

    world.on_sleep = later
    with pytest.raises(AnchorageError, match="out of memory" if how == "ends" else "did not answer 3 times in a row"):
        go(app, log, "r2")
    assert {told["release"] for told in world.services.values()} == {"r1"} and app.journal.live == "r1"


def test_a_way_back_is_not_watched(shop):
    app, world, log, lines = shop(soak={"seconds": 20, "max_error_percent": 1, "max_slowdown": 3})
    go(app, log, "r1")
    go(app, log, "r2")
    assert any("soak is over" in line for line in lines)
    lines.clear()
    go(app, log, "r1", leaving="r2")
    assert not any("soak" in line for line in lines) and app.journal.live == "r1" and "left_at" in app.journal.release("r2")


def test_a_step_that_died_goes_back_and_one_that_another_host_went_past_is_left_alone(shop):
    app, world, log, lines = shop()
    go(app, log, "r1")
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    of(app).apply("r2", "green")
    assert recovery.recover(app, log)
    assert {told["release"] for told in world.services.values()} == {"r1"} and app.journal.switch is None and not app.unsettled
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    of(app).apply("r3", "green")
    assert recovery.recover(app, log)
    assert {told["release"] for told in world.services.values()} == {"r3"}, "the Swarm knows better what is wanted of it"
    assert any("another host has told it" in line for line in lines)


def test_a_host_that_went_down_in_an_update_goes_back_when_it_is_there_again(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    of(app).apply("r2", "green")
    assert not recovery.at_boot(app, log) and app.journal.switch is not None, "the Engine is not there yet"
    assert recovery.recover(app, log)
    assert {told["release"] for told in world.services.values()} == {"r1"} and app.journal.switch is None


def test_what_another_host_has_led_since_is_left_alone_also_where_it_is_the_same_release(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    of(app).apply("r2", "green")
    for told in world.services.values():
        told["labels"]["vps.anchorage.lead"] = "n2"
    assert recovery.recover(app, log) and {told["release"] for told in world.services.values()} == {"r2"}


def test_ports_are_taken_by_what_the_swarm_says_not_by_a_journal_that_guessed(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    app.journal.go_live("r1", "green", "t1")
    go(app, log, "r2")
    assert world.services["server"]["labels"]["vps.anchorage.slot"] == app.journal.slot == "green"


def test_a_worker_that_ends_again_and_again_is_no_release(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    world.on_sleep = lambda: world.services["worker"]["tasks"].append(world._task("worker", "r2", "failed", "exit (2)"))
    with pytest.raises(AnchorageError, match="its tasks end again and again.*exit .2. on n2"):
        go(app, log, "r2")


def test_after_a_boot_nothing_is_told(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    recovery.at_boot(app, log)
    world.told.clear()
    assert recovery.recover(app, log) and world.told == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"LocalNodeState": "inactive", "ControlAvailable": False}, "is no node of the Swarm (it is inactive)"),
        ({"LocalNodeState": "error", "ControlAvailable": False, "Error": "no route"}, "it is error: no route"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "does not manage the Swarm"),
    ],
)
def test_a_host_that_cannot_tell_the_swarm_anything_says_so_first(shop, state, words):
    app, world, log, _lines = shop()
    world.state = state
    with pytest.raises(AnchorageError) as caught:
        go(app, log, "r1")
    assert words in caught.value.message and world.told == [] and app.journal.switch is None


# ---- the other nodes


def container(release="r2", status="running", checked="healthy"):
    labels = {"vps.anchorage.release": release, "vps.anchorage.slot": "green", "com.docker.swarm.service.name": "shop_server"}
    state = {"Status": status, **({"Health": {"Status": checked}} if checked else {})}
    return {"Name": "/shop_server.1.abc", "Config": {"Labels": labels}, "State": state}


@pytest.fixture
def follower(shop, monkeypatch):
    app, world, log, lines = shop("n2")
    world.state["ControlAvailable"] = False
    environment = {"ANCHORAGE_PROCESS": "shop-server.1", "ANCHORAGE_RELEASE": "r2"}
    monkeypatch.setattr(swarm_switch.processes, "pids", lambda world: [7])
    monkeypatch.setattr(swarm_switch.processes, "environment", lambda world, pid: environment)
    return app, world, log, lines, environment


def test_a_follower_writes_down_what_runs_there(follower):
    app, world, log, lines, _environment = follower
    world.containers = [container(), container("r1", "exited")]
    assert go(app, log, "r2")
    assert (app.journal.live, app.journal.slot) == ("r2", "green") and world.told == []
    assert any("on this host run shop_server.1.abc" in line for line in lines)
    assert not go(app, log, "r2")


def test_a_follower_without_tasks_follows_as_well(follower):
    app, _world, log, lines, _environment = follower
    assert go(app, log, "r2") and app.journal.live == "r2"
    assert any("none of its tasks" in line for line in lines)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (container("r1"), "is of release r1"),
        (container(checked="starting"), "shop_server.1.abc is starting"),
        (container(status="restarting"), "shop_server.1.abc is not running"),
    ],
)
def test_a_follower_waits_and_then_says_what_runs_instead(follower, seen, words):
    app, world, log, _lines, _environment = follower
    seen["State"].pop("Health") if seen["State"]["Status"] == "restarting" else None
    world.containers = [seen]
    began = world.monotonic()
    with pytest.raises(AnchorageError) as caught:
        go(app, log, "r2")
    assert words in caught.value.message and "n1 tells the Swarm" in caught.value.next_step
    assert world.monotonic() - began >= swarm_switch.BEHIND and app.journal.live is None


def test_a_label_alone_is_no_proof(follower):
    app, world, log, _lines, environment = follower
    world.containers = [container()]
    environment["ANCHORAGE_RELEASE"] = "r1"
    with pytest.raises(AnchorageError, match="no process of shop_server.1.abc says that it is of release r2"):
        go(app, log, "r2")


# ---- looking after it


def causes(app):
    return [check.cause for check in swarm_probe.ask(app, app.document, "r1") if check.cause]


def test_health_on_the_host_that_leads(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    assert causes(app) == []
    world.nodes = [world._node("n1"), world._node("n2", state="down", reachability="unreachable"), world._node("n3", availability="drain")]
    world.services["server"]["tasks"] = []
    found = {check.name: check for check in swarm_probe.ask(app, app.document, "r1") if check.cause}
    assert "n2 is down; n3 takes no tasks; 2 of 3 managers are reachable, and 2 are needed" in found["nodes"].cause and found["nodes"].healthy
    assert not found["service"].healthy and "0 of 1 tasks run" in found["service"].cause
    world.state = {"LocalNodeState": "inactive"}
    assert causes(app) == ["this host is no node of the Swarm (it is inactive)"]


def test_health_where_the_majority_is_lost(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    world.state = {"LocalNodeState": "active", "ControlAvailable": False}
    assert any("service" in cause or "node" in cause for cause in causes(app))


def test_health_on_another_node(follower):
    app, world, log, _lines, _environment = follower
    app.journal.go_live("r1", "blue", "t1")
    world.containers = [container("r1")]
    assert causes(app) == []
    world.containers = [container("r2")]
    assert causes(app) == ["shop_server.1.abc is of release r2, and r1 is live"]
    assert all(check.healthy for check in swarm_probe.ask(app, app.document, "r1")), "while a release comes that is no alarm"
    world.containers = [container("r1", checked="unhealthy")]
    assert causes(app) == ["shop_server.1.abc is unhealthy"]


def test_a_restart_replaces_all_tasks(shop):
    app, world, log, _lines = shop()
    go(app, log, "r1")
    world.told.clear()
    assert restart.restart(app, log, force=True)["changed"]
    assert sorted(world.told) == [("shop_server", "force", True), ("shop_worker", "force", False)], "the port of an old task is the new one's"


def test_secrets_that_no_release_uses_go(shop):
    app, world, _log, _lines = shop()
    kept = json.loads(world.files[f"{app.layout.release('r1')}/run/stack-blue.json"])["secrets"]["server"]["name"]
    world.secrets = [kept, f"shop-{'a' * 24}", f"shop-two-{'a' * 24}", "shop-of-somebody", "other"]
    of(app).sweep({"t1"})
    assert world.removed == [f"shop-{'a' * 24}"]


def test_no_process_is_started_or_stopped_by_hand(shop):
    app, _world, _log, _lines = shop()
    for forbidden in (lambda: of(app).start([], "r1"), lambda: of(app).delete(["x"])):
        with pytest.raises(AnchorageError, match="by the Swarm"):
            forbidden()
