# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Engine is asked, and what is believed of it, on a host whose containers are a dictionary."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import compose_project, recovery, runtimes, step_stage
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.compose_runtime import Compose
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.pm2_runtime import Pm2
from ansible_collections.anchorage.vps.plugins.module_utils.release_plan import instances
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import ME, OK, PASSWORD, HostWorld, document, place, written_json

IMAGE = f"sha256:{'ab' * 32}"
DOCKED = {
    "runtime": "compose",
    "image": {"base": "node:22", "dockerfile": None, "build_args": {}, "directory": "/app", "read_only": True},
    "inside": {"127.0.0.1:5432": "postgres:5432"},
}


class DockerWorld(HostWorld):
    """A host with an Engine: containers by name, each with its state; images by their tag."""

    def __init__(self):
        super().__init__()
        self.containers = {}
        self.images = {IMAGE}
        self.tags, self.delivered = [], []
        self.refuses = {}
        self.asked = []
        self.publishing = {}
        self.made = {"State": {"Status": "exited", "ExitCode": 0, "OOMKilled": False}}

    def _docker(self, argv, call):
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.asked.append(words)
        assert set(call["env"]) == {"PATH", "HOME", "LANG", "COMPOSE_IGNORE_ORPHANS"}, "nothing of the caller's"
        if words[0] in self.refuses:
            return Completed(1, "", self.refuses[words[0]])
        return getattr(self, f"_do_{words[0]}", lambda words, argv: OK)(words, argv)

    def _do_ps(self, words, argv):
        published = next((word.rpartition("=")[2] for word in argv if word.startswith("--filter=publish=")), None)
        if published:
            return Completed(0, "".join(f"{name}\n" for name in self.publishing.get(published, [])), "")
        return Completed(0, "".join(f"{name}\t{state}\n" for name, state in self.containers.items()), "")

    def _do_compose(self, words, argv):
        project = json.loads(self.files[words[1]])
        if words[2] == "up":
            self.containers.update({project["services"][name]["container_name"]: "running" for name in words[3:]})
        return OK

    def _do_stop(self, words, argv):
        for name in words[1:]:
            self.containers[name] = "exited"
        return OK

    def _do_rm(self, words, argv):
        return OK if self.containers.pop(words[1], None) else Completed(1, "", f"Error: No such container: {words[1]}")

    def _do_inspect(self, words, argv):
        return Completed(0, json.dumps([self.made]), "")

    def _do_image(self, words, argv):
        if words[1] == "ls":
            return Completed(0, "\n".join(self.tags if words[2].startswith("anchorage/") else self.delivered), "")
        if words[1] == "inspect":
            return Completed(0, words[2], "") if words[2] in self.images else Completed(1, "", f"Error: No such image: {words[2]}")
        return OK


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app in containers with one staged release, the runtime, and its world."""
    place(tmp_path, monkeypatch)

    def make(**changes):
        world = DockerWorld()
        app = App("shop", world, document(str(tmp_path / "home"), **DOCKED, **changes))
        world.files[f"{app.layout.build('t1')}/.anchorage.json"] = json.dumps({"image": IMAGE})
        app.journal.mark("r1", "staged", tree="t1")
        runtime = runtimes.of(app)
        runtime.lay_out(app.layout.release("r1"), "t1", "r1", 0)
        return app, runtime, world

    return make


def test_the_document_names_the_runtime(shop, tmp_path):
    app, runtime, world = shop()
    assert isinstance(runtime, Compose)
    assert isinstance(runtimes.of(App("shop", world, document(str(tmp_path / "home")))), Pm2)


def test_a_release_is_laid_out_as_two_projects_that_only_root_reads(shop):
    app, _runtime, world = shop()
    for slot in ("blue", "green"):
        path = f"{app.layout.release('r1')}/run/compose-{slot}.json"
        assert world.written[path] == {"mode": 0o600, "uid": 0, "gid": 0}
        services = written_json(world, path)["services"]
        assert {service["image"] for service in services.values()} == {IMAGE}, "by its id, which cannot be given to another"
        assert services["server-r1"]["user"] == f"{ME.pw_uid}:{ME.pw_gid}"


def test_only_what_is_wanted_is_started_and_what_stands_in_its_way_is_stopped_first(shop):
    app, runtime, world = shop()
    world.containers = {"shop-server-blue": "exited", "shop-worker-green": "running"}
    server = instances(app.document, "blue", public=True)
    runtime.start(server, "r1")
    assert world.containers == {"shop-worker-green": "running", "shop-server-blue": "running"}
    (up,) = [words for words in world.asked if words[0] == "compose"]
    assert up[2:] == ["up", "server-r1"] and up[1].endswith("/releases/r1/run/compose-blue.json")


ALLOCATED = "Error response from daemon: driver failed programming external connectivity: Bind for 127.0.0.1:9000 failed: port is already allocated"


def listening(world, *held):
    """Let processes listen, each by its port, its pid and its command line."""
    for _port, pid, command in held:
        world.process(pid, sockets=[pid])
        world.files[f"/proc/{pid}/cmdline"] = command.replace(" ", "\0")
    world.listen(*(("127.0.0.1", port, pid) for port, pid, _command in held))


PROXY = "/usr/sbin/docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port {} -container-ip 172.18.0.2 -container-port {}"


@pytest.mark.parametrize(
    ("held", "publishing", "message", "advice"),
    [
        ([(9000, 77, "python3 -m http.server")], {}, r"port 9000 belongs to another process \(77\)", "ss -ltnp 'sport = :9000'"),
        ([(9000, 78, PROXY.format(9000, 9000))], {}, "The Engine holds port 9000 for a container that is gone", "systemctl restart docker"),
        ([(9000, 78, PROXY.format(9000, 9000))], {"9000/tcp": ["other"]}, "port is already allocated", "systemctl status docker"),
        ([], {}, "port is already allocated", "systemctl status docker"),
        ([(9300, 77, "python3 -m http.server")], {}, "port is already allocated", "systemctl status docker"),
    ],
    ids=["a stranger", "nobody", "another container", "unknown", "elsewhere"],
)
def test_a_port_that_cannot_be_had_is_explained(shop, held, publishing, message, advice):
    app, runtime, world = shop()
    listening(world, *held)
    world.publishing = publishing
    world.refuses["compose"] = ALLOCATED
    with pytest.raises(AnchorageError, match=message) as caught:
        runtime.start(instances(app.document, "blue", public=True), "r1")
    assert advice in caught.value.next_step


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"Status": "restarting", "ExitCode": 137, "OOMKilled": True}, "it was killed at its limit of 256 MiB (processes.server.memory_mb)"),
        ({"Status": "restarting", "ExitCode": 1, "OOMKilled": False}, "it ended with code 1"),
        ({"Status": "exited", "ExitCode": 0, "OOMKilled": False}, "it ended with code 0"),
        ({"Status": "running", "ExitCode": 0, "OOMKilled": False}, ""),
        (None, ""),
    ],
)
def test_why_a_container_is_gone_is_said(shop, state, words):
    app, runtime, world = shop()
    world.made = {"State": state}
    (server,) = instances(app.document, "blue", public=True)
    assert runtime.ended(server) == words


def restarts(world):
    return [call["argv"] for call in world.ran if call["argv"][:2] == ["systemctl", "restart"]]


def test_ports_that_the_engine_holds_for_nobody_are_given_back_before_anything_is_started(shop):
    app, runtime, world = shop()
    said = []
    listening(world, (9002, 78, PROXY.format(9002, 9002)), (9000, 79, PROXY.format(9000, 9000)), (9001, 80, "node server.js"))
    world.publishing = {"9000/tcp": ["shop-server-blue"]}
    runtime.mend(said.append)
    assert restarts(world) == [["systemctl", "restart", "docker.service"]]
    assert said == ["shop: the Engine holds port 9002 for a container that is gone; it is restarted, containers run on"]
    world.publishing["9002/tcp"] = ["shop-server-green"]
    runtime.mend(said.append)
    assert len(restarts(world)) == 1 and len(said) == 1, "it is a moment only until a proxy has its container"


def test_an_engine_that_does_not_come_back_is_told(shop, monkeypatch):
    _app, runtime, world = shop()
    listening(world, (9000, 78, PROXY.format(9000, 9000)))
    monkeypatch.setattr(world, "_systemctl", lambda argv, call: Completed(1, "", "Job failed\n") if argv[1] == "restart" else OK)
    with pytest.raises(AnchorageError, match="docker.service does not restart: Job failed"):
        runtime.mend(lambda line: None)


def test_a_recovery_mends_the_engine_first(shop, monkeypatch):
    app, _runtime, world = shop()
    order = []
    monkeypatch.setattr(Compose, "mend", lambda self, log: order.append("mend"))
    monkeypatch.setattr(recovery.Slots, "settle", lambda self: order.append("settle") or [])
    app.journal.unsettle()
    assert recovery.recover(app, Log(lambda line: None)) and order == ["mend", "settle"]


def test_stopped_ones_are_not_stopped_again_and_all_are_removed(shop):
    _app, runtime, world = shop()
    world.containers = {"a": "running", "b": "exited", "c": "restarting"}
    runtime.delete(["a", "b", "c", "gone"])
    assert world.containers == {}
    assert [words for words in world.asked if words[0] == "stop"] == [["stop", "a", "c"]]
    runtime.delete([])
    assert len([words for words in world.asked if words[0] == "ps"]) == 1


@pytest.mark.parametrize("command", ["stop", "rm"])
def test_one_that_does_not_go_is_a_failure(shop, command):
    _app, runtime, world = shop()
    world.containers = {"a": "running"}
    world.refuses[command] = "Error response from daemon: driver failed"
    with pytest.raises(AnchorageError, match="driver failed"):
        runtime.delete(["a"])


def test_an_engine_that_is_away_is_named(shop):
    _app, runtime, world = shop()
    world.refuses["ps"] = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    with pytest.raises(AnchorageError, match="'docker ps' of shop failed with code 1: Cannot connect") as error:
        runtime.names()
    assert error.value.next_step == "systemctl status docker; docker info"


def test_what_is_being_removed_is_waited_for(shop):
    _app, runtime, world = shop()
    world.containers = {"a": "running", "b": "removing", "c": "exited"}
    world.on_sleep = lambda: world.containers.pop("b", None)
    assert runtime.at_rest(30) == {"a": True, "c": False}
    world.containers = {"b": "removing"}
    world.on_sleep = None
    assert runtime.at_rest(3) == {"b": False}, "not for ever"


def proxy(address, port=9000):
    return f"/usr/sbin/docker-proxy\0-proto\0tcp\0-host-ip\x00127.0.0.1\0-host-port\0{port}\0-container-ip\0{address}\0-container-port\0{port}"


@pytest.mark.parametrize(
    ("command", "inside", "cause"),
    [
        (proxy("172.18.0.3"), "::", ""),
        (proxy("172.19.0.9"), "0.0.0.0", "port 9000 belongs to another process (70)"),
        (proxy("172.18.0.3", 9001), "0.0.0.0", "port 9000 belongs to another process (70)"),
        ("node\0server.js", "0.0.0.0", "port 9000 belongs to another process (70)"),
        (proxy("172.18.0.3"), "127.0.0.1", "it listens on loopback of its container only, so nobody else gets to port 9000"),
        (proxy("172.18.0.3"), "", "nobody listens on port 9000 yet"),
        (None, "0.0.0.0", "nobody listens on port 9000 yet"),
    ],
    ids=["its own", "another container's", "another port's", "a stranger", "loopback inside", "nobody inside", "nobody outside"],
)
def test_a_port_is_a_containers_own_if_the_engine_passes_it_on_to_it(shop, command, inside, cause):
    app, runtime, world = shop()
    world.made = {"Id": "f" * 64, "Image": IMAGE, "NetworkSettings": {"Networks": {"base": {"IPAddress": "172.18.0.3"}, "none": {"IPAddress": ""}}}}
    world.listen(*([(inside, 9000, 3)] if inside else []), ("0.0.0.0", 22, 4))
    for name in ("tcp", "tcp6"):
        world.files[f"/proc/60/net/{name}"] = world.files[f"/proc/net/{name}"]
    world.listen(*([("127.0.0.1", 9000, 7)] if command else []))
    if command:
        world.process(70, command=command, sockets=(7,))
    check = runtime.owns_port(instances(app.document, "blue", public=True)[0], [60])
    assert check.cause == cause and check.healthy is (not cause)


def once(runtime, **options):
    said = []
    rc = runtime.once("r1", "migrate", ["node", "migrate.js"], {"DATABASE_URL": f"postgres://shop:{PASSWORD}@x/y"}, said.append, **options)
    return rc, said


def test_a_command_runs_once_in_a_container_that_is_gone_afterwards(shop):
    app, runtime, world = shop()
    world.containers["anchorage-shop-migrate"] = "running"
    world.rc, world.output = 1, ["a line"]
    world.made["State"]["ExitCode"] = 7
    assert once(runtime, memory_mb=512, seconds=60) == (7, ["a line"])
    (command,) = world.streamed
    assert PASSWORD not in " ".join(command) and command[:2] == ["env", "-i"]
    path = f"{app.layout.release('r1')}/run/migrate.json"
    (service,) = written_json(world, path)["services"].values()
    assert world.written[path]["mode"] == 0o600 and service["mem_limit"] == "1024m" and service["environment"]["DATABASE_URL"].endswith("@x/y")
    assert "anchorage-shop-migrate" not in world.containers, "neither the one that a killed step left, nor this one"
    assert world.asked.index(["rm", "anchorage-shop-migrate"]) == 0 and world.asked[-1][2:] == ["down"]


def test_a_secret_of_one_command_is_not_kept(shop):
    app, runtime, world = shop()
    once(runtime, memory_mb=None, seconds=60, forget=True)
    assert f"{app.layout.release('r1')}/run/migrate.json" not in world.files


def test_a_container_that_was_killed_for_its_memory_says_so(shop):
    _app, runtime, world = shop()
    world.made["State"] = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
    rc, said = once(runtime, memory_mb=64, seconds=60)
    assert rc == 137 and said == ["anchorage: out of memory: anchorage-shop-migrate was killed at its limit"]


def test_a_command_that_takes_too_long_is_told_as_that(shop):
    _app, runtime, world = shop()
    world.rc, world.made["State"]["Status"] = 124, "running"
    assert once(runtime, memory_mb=None, seconds=60)[0] == 124


def test_a_tree_without_its_image_is_not_built(shop):
    app, _runtime, world = shop()
    assert step_stage.is_built(app, "t1") and not step_stage.is_built(app, "t2")
    world.images.clear()
    assert not step_stage.is_built(app, "t1")


def test_without_its_image_a_release_is_not_begun(shop):
    _app, runtime, world = shop()
    runtime.check("r1")
    world.images.clear()
    with pytest.raises(AnchorageError, match="The image of release r1 of shop is gone from this host"):
        runtime.check("r1")


def test_an_engine_that_does_not_answer_says_nothing_about_images(shop):
    app, _runtime, world = shop()
    world.refuses["image"] = "Cannot connect to the Docker daemon"
    with pytest.raises(AnchorageError, match="Cannot connect to the Docker daemon"):
        step_stage.is_built(app, "t1")


def test_what_a_killed_step_left_is_ended(shop):
    _app, runtime, world = shop()
    world._do_ps = lambda words, argv: Completed(0, "f00\n", "")
    world.containers["anchorage-shop-migrate"] = "running"
    assert runtime.end("migrate") is True and world.containers == {}
    world._do_ps = lambda words, argv: OK
    assert runtime.end("migrate") is False


def test_names_of_images_go_with_their_trees(shop):
    _app, runtime, world = shop()
    world.tags = ["t1", "t0", "<none>"]
    assert runtime.sweep(["t1"]) == ["anchorage/shop:t0"]
    assert world.asked[-1] == ["image", "rm", "anchorage/shop:t0"]
    world.tags = ["t1"]
    assert runtime.sweep(["t1"]) == [] and world.asked[-1][1] == "ls"
    world.delivered = ["t1-amd64"]
    assert runtime.sweep(["t1"]) == ["anchorage-controller/shop:t1-amd64"], "a step that loaded it and died"


def test_a_release_cannot_change_the_runtime_of_what_serves(shop, tmp_path):
    app, _runtime, world = shop()
    native = document(str(tmp_path / "home"))
    world.files[app.layout.document("r0")] = json.dumps(native)
    app.journal.mark("r0", "staged", tree="t0", source="s0")
    app.journal.go_live("r0", "blue", "t0")
    with pytest.raises(AnchorageError, match="shop serves by runtime pm2, and the contract says compose") as error:
        step_stage.stage(app, Log(lambda line: None), source_id="s1", tree="t1", release="r1")
    assert "apps.shop.runtime: pm2" in error.value.next_step and error.value.live == "shop release r0 in slot blue"


def test_after_a_boot_in_the_middle_of_a_switch_there_is_something_left_to_do(shop):
    """The Engine starts whatever ran, so what is not live is removed once it runs; PM2 is told before it starts."""
    app, _runtime, _world = shop()
    os.makedirs(app.layout.slot_directory, exist_ok=True)
    app.journal.go_live("r1", "blue", "t1")
    app.journal.settled()
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    assert recovery.at_boot(app, Log(lambda line: None)) is True
    assert app.journal.switch is None and app.unsettled
    app.journal.settled()
    assert recovery.at_boot(app, Log(lambda line: None)) is False
    assert app.unsettled, "what was stopped by hand is not started by the Engine"


def test_the_names_of_projects_never_meet():
    assert {compose_project.base_name("a"), compose_project.project_name("a", "blue"), compose_project.project_name("a", "green")} == {
        "a-base", "a-blue", "a-green",
    }  # fmt: skip
