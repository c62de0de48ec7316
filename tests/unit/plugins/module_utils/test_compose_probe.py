# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import compose_probe
from ansible_collections.anchorage.vps.plugins.module_utils.compose_probe import Expectation, Wanted
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld

IMAGE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DIGEST = "sha256:" + "d" * 64
STARTED = "2023-11-14T22:13:20.123456789Z"  # 1000 s before the fake clock's now


def container(name="shop-web-1", service="web", status="running", **more):
    """What `docker inspect` says of a container, with the secrets that it holds."""
    health = more.get("health", "healthy")
    ports = {inside: [{"HostIp": ip, "HostPort": str(port)} for ip, port in bindings] for inside, bindings in more.get("ports", {}).items()}
    return {
        "Id": more.get("id", name),
        "Name": f"/{name}",
        "Image": more.get("image_id", IMAGE),
        "RestartCount": more.get("restarts", 0),
        "State": {
            "Status": status,
            "ExitCode": more.get("code", 0),
            "OOMKilled": more.get("oom", False),
            "StartedAt": more.get("started", STARTED),
            **({"Health": {"Status": health, "Log": [{"Output": "sesame"}]}} if health else {}),
        },
        "Config": {
            "Image": "shop:7",
            "Env": ["JWT_SECRET=sesame"],
            "Labels": {compose_probe.PROJECT: "shop", compose_probe.SERVICE: service, compose_probe.ONE_OFF: more.get("oneoff", "False")},
        },
        "HostConfig": {"NetworkMode": more.get("network", "shop_default"), "RestartPolicy": {"Name": more.get("restart", "no")}},
        "NetworkSettings": {"Ports": {**ports, "9/tcp": None}},
    }


WEB = container(ports={"9000/tcp": [("127.0.0.1", 9000)]})
WORKER = container("shop-worker-1", "worker", health=None)
MIGRATE = container("shop-migrate-1", "migrate", "exited", health=None)


class Engine:
    """An Engine with some containers; a list of lists is what is seen from look to look."""

    def __init__(self, *containers, answer=None, digests=()):
        self.looks = list(containers) if containers and isinstance(containers[0], list) else [list(containers)]
        self.answer = answer
        self.digests = list(digests)
        self.world = FakeWorld(commands=self.command)
        self.asked = []

    def command(self, call):
        argv = call["argv"]
        self.asked.append(argv[1:])
        if self.answer:
            return self.answer
        if argv[1] == "ps":
            assert argv[2:] == ["--all", "--no-trunc", "--quiet", "--filter", "label=com.docker.compose.project=shop"]
            return Completed(0, "".join(f"{item['Id']}\n" for item in self.looks[0]), "")
        if argv[1] == "image":
            return Completed(0, json.dumps([{"Id": name, "RepoDigests": self.digests} for name in argv[3:]]), "")
        assert argv[1:4] == ["inspect", "--type", "container"] and call["timeout"] > 0
        now = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return Completed(0, json.dumps([item for item in now if item["Id"] in argv]), "")

    def ask(self, *services, published=None, unexpected="warn", **more):
        wanted = Expectation(services, published, unexpected)
        return compose_probe.check("shop", wanted, world=self.world, **{"deadline_seconds": 2, **more})


def causes(found):
    return {check.name: check.cause for check in found.checks if check.verdict != "ok"}


def test_what_is_wanted_is_there():
    engine = Engine(WEB, WORKER, MIGRATE, digests=[f"registry.example.com/shop@{DIGEST}"])
    found = engine.ask(
        Wanted("web", require_health=True, digest=DIGEST, min_uptime_seconds=900), Wanted("worker", max_restarts=0), Wanted("migrate", completed=True)
    )
    assert found.healthy and causes(found) == {}
    assert found.summary.startswith("Compose project shop is healthy (shop-migrate-1 exited, shop-web-1 healthy, shop-worker-1 running, 1 probe")
    assert [check.name for check in found.checks] == [
        "engine",
        *(f"{what}:{name}" for name in ("web", "worker", "migrate") for what in ("service", "image")),
        "unexpected",
    ]
    web = found.extra["containers"][1]
    assert (web["digest"], web["published"], web["image"]) == (DIGEST, ["127.0.0.1:9000/tcp"], "shop:7")
    assert "sesame" not in json.dumps(found.as_result()) + found.message


def test_without_a_list_all_that_is_there_must_be_well_and_a_job_may_have_ended():
    assert Engine(WEB, WORKER, MIGRATE).ask().healthy
    assert causes(Engine(WEB, container("shop-worker-1", "worker", "exited", code=1)).ask()) == {"service:worker": "shop-worker-1 ended with code 1"}
    half = Engine(container("shop-web-1"), container("shop-web-2", status="exited")).ask()
    assert causes(half) == {"service:web": "shop-web-2 ended with code 0"}


@pytest.mark.parametrize(("policy", "healthy"), [("no", True), ("on-failure", True), ("always", False), ("unless-stopped", False)])
def test_what_was_to_be_started_again_and_was_not_is_no_job(policy, healthy):
    assert Engine(container(status="exited", restart=policy)).ask().healthy is healthy


def test_what_inspect_prints_is_in_no_message():
    def command(call):
        return Completed(0, "abc\n", "") if call["argv"][1] == "ps" else Completed(-9, '[{"Env":["JWT_SECRET=sesame"', "")

    engine = Engine(WEB)
    engine.world.commands = command
    found = engine.ask()
    assert "code -9" in found.message and "sesame" not in repr(found)


def test_a_project_of_which_nothing_is_there():
    assert causes(Engine().ask()) == {"project": "there is no container of the project shop"}
    assert causes(Engine().ask(Wanted("web"))) == {"service:web": "no container of web, wanted 1"}
    assert "nobody knows how it ended" in causes(Engine().ask(Wanted("migrate", completed=True)))["service:migrate"]


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (container(status="restarting", code=1, restarts=7), "shop-web-1 ended with code 1 and is started again and again (7 times)"),
        (container(status="exited", code=137, oom=True), "shop-web-1 ended with code 137 for want of memory"),
        (container(status="dead", code=255), "shop-web-1 ended with code 255"),
        (container(status="paused"), "shop-web-1 is paused"),
        (container(status="created", started="0001-01-01T00:00:00Z"), "shop-web-1 is created"),
        (container(health="unhealthy"), "shop-web-1 runs, and its own health check fails"),
        (container(health="starting"), "shop-web-1 runs, and its health check has not succeeded yet"),
        (container(health=None), "shop-web-1 has no health check"),
        (container(restarts=2), "shop-web-1 was restarted 2 times, wanted at most 1"),
        (container(started="2023-11-14T22:29:50Z"), "shop-web-1 has been up for 11 s only, wanted 60 s"),
        (container(started=""), "shop-web-1 has been up for 0 s only, wanted 60 s"),
    ],
)
def test_what_may_be_wrong_with_a_container(there, words):
    found = Engine(there).ask(Wanted("web", require_health=True, max_restarts=1, min_uptime_seconds=60))
    assert causes(found) == {"service:web": words} and not found.healthy
    assert "docker logs --tail 50 shop-web-1" in found.message


def test_the_number_of_containers_is_meant():
    two = Engine(container(), container("shop-web-2"))
    assert causes(two.ask(Wanted("web"))) == {"service:web": "2 containers of web, wanted 1"}
    assert two.ask(Wanted("web", instances=2)).healthy


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (container("shop-migrate-1", "migrate", "exited", code=3), "shop-migrate-1 ended with code 3"),
        (container("shop-migrate-1", "migrate"), "shop-migrate-1 is running, and should have ended"),
        (container("shop-migrate-1", "migrate", "restarting", code=1), "shop-migrate-1 is restarting, and should have ended"),
    ],
)
def test_a_job_must_have_ended_well(there, words):
    assert causes(Engine(there).ask(Wanted("migrate", completed=True))) == {"service:migrate": words}


def test_containers_of_compose_run_are_passed_over():
    assert Engine(WEB, container("shop-web-run-1", oneoff="True", status="exited", code=9)).ask(Wanted("web")).healthy


def test_an_image_is_known_by_its_id_or_by_a_registry_s_digest():
    engine = Engine(WEB)
    assert engine.ask(Wanted("web", digest=IMAGE)).healthy
    wrong = Engine(WEB, digests=[f"shop@{OTHER}"]).ask(Wanted("web", digest=DIGEST))
    assert causes(wrong) == {"image:web": f"shop-web-1 runs shop:7 ({IMAGE[:19]}), not the image {DIGEST[:19]}"} and not wrong.healthy


def test_two_images_of_one_service_are_a_warning():
    engine = Engine(container(), container("shop-web-2", image_id=OTHER))
    found = engine.ask(Wanted("web", instances=2))
    assert found.healthy and causes(found) == {"image:web": "web runs 2 different images"}
    assert not any(argv[0] == "image" for argv in engine.asked), "nobody wanted to know digests"


@pytest.mark.parametrize(
    ("bindings", "allowed", "wrong"),
    [
        ({"5432/tcp": [("0.0.0.0", 5432), ("::", 5432)]}, [], ["0.0.0.0:5432/tcp", "[::]:5432/tcp"]),
        ({"5432/tcp": [("", 5432)]}, [], ["0.0.0.0:5432/tcp"]),
        ({"5432/tcp": [("127.0.0.1", 5432), ("::1", 5432)]}, [], []),
        ({"443/tcp": [("0.0.0.0", 443)], "443/udp": [("0.0.0.0", 443)]}, ["443"], ["0.0.0.0:443/udp"]),
        ({"443/udp": [("::", 443)]}, ["443/udp"], []),
        ({"80/tcp": [("0.0.0.0", 8080)]}, ["80"], ["0.0.0.0:8080/tcp"]),
        ({"80/tcp": [("10.0.0.5", 80)]}, ["10.0.0.5:80"], []),
        ({"80/tcp": [("10.0.0.6", 80)]}, ["10.0.0.5:80"], ["10.0.0.6:80/tcp"]),
        ({"80/tcp": [("2001:db8::1", 80)]}, ["[2001:0db8::1]:80"], []),
    ],
)
def test_published_ports(bindings, allowed, wrong):
    found = Engine(container(ports=bindings)).ask(published=allowed)
    told = causes(found).get("published", "")
    assert found.healthy is not bool(wrong)
    assert told == (
        f"{', '.join(f'shop-web-1 publishes {port}' for port in wrong)}, which nobody allowed; Docker opens it past the host's firewall" if wrong else ""
    )


def test_published_ports_are_judged_only_when_somebody_says_which():
    found = Engine(container(ports={"5432/tcp": [("0.0.0.0", 5432)]})).ask()
    assert found.healthy and "published" not in {check.name for check in found.checks}


def test_the_host_s_own_network_hides_ports():
    found = Engine(container(network="host")).ask(published=[])
    assert found.healthy and causes(found) == {"published": "shop-web-1 uses the host's own network, so the ports cannot be told from here"}


@pytest.mark.parametrize("text", ["", "http", "0", "70000", "443/quic", "localhost:80", "::1:80", "1.2.3:80", "80:80"])
def test_what_is_no_port_is_refused_before_anything_is_asked(text):
    engine = Engine(WEB)
    with pytest.raises(AnchorageError, match="published: .* is no port"):
        engine.ask(published=[text])
    assert not engine.asked


@pytest.mark.parametrize(("severity", "healthy"), [("ignore", True), ("warn", True), ("fail", False)])
def test_services_that_nobody_named(severity, healthy):
    found = Engine(WEB, WORKER).ask(Wanted("web"), unexpected=severity)
    assert found.healthy is healthy
    assert causes(found) == ({} if severity == "ignore" else {"unexpected": "the project shop also has worker"})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Completed(127, "", "docker: No such file or directory"), "The program docker cannot be run"),
        (Completed(124, "", "killed after 2 s"), "docker ps gave no answer in time"),
        (Completed(1, "", "permission denied while trying to connect to the Docker daemon socket"), "This user may not talk to the Docker Engine"),
        (Completed(1, "", "Cannot connect to the Docker daemon. Is it running?"), "The Docker Engine did not answer: Cannot connect to the Docker daemon"),
        (Completed(1, "", ""), "The Docker Engine did not answer: code 1"),
    ],
)
def test_an_engine_that_does_not_answer(answer, words):
    found = Engine(answer=answer).ask(Wanted("web"))
    assert not found.healthy and words in causes(found)["engine"] and len(found.checks) == 1


@pytest.mark.parametrize("text", ["", "{", "null", '[{"Id": 1}]', "[1]"])
def test_an_answer_that_cannot_be_read_is_said_so(text):
    with pytest.raises(AnchorageError, match="no list of containers"):
        compose_probe.parse_containers(text)
    with pytest.raises(AnchorageError, match="no list of images"):
        compose_probe.parse_digests(text if "Id" not in text else '[{"RepoDigests": []}]')


def test_a_container_that_goes_between_two_questions_is_no_error():
    engine = Engine(WEB, WORKER)
    whole = engine.command

    def command(call):
        done = whole(call)
        if call["argv"][1] != "inspect":
            return done
        return Completed(1, json.dumps([WEB]), "Error response from daemon: No such container: shop-worker-1")

    engine.world.commands = command
    assert engine.ask(Wanted("web")).healthy


def test_a_restart_between_two_looks_breaks_the_row():
    again = {**WEB, "State": {**WEB["State"], "StartedAt": "2023-11-14T22:29:50Z"}}
    looks = [[WEB], [again], [again], [again]]
    found = Engine(*looks).ask(Wanted("web"), successes=3, deadline_seconds=3.5)
    assert not found.healthy and "only 2 of the wanted 3 healthy probes came in a row" in found.message
    assert "shop-web-1 was restarted or made anew between two looks" in found.message
    assert Engine(*looks).ask(Wanted("web"), successes=3, deadline_seconds=9).healthy


def test_a_job_that_ran_again_is_no_restart():
    done = container("shop-migrate-1", "migrate", "exited", id="other")
    assert Engine([MIGRATE], [done]).ask(Wanted("migrate", completed=True), successes=2, deadline_seconds=3).healthy
