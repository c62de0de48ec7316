# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts of compose_health on containers of this machine's own Engine, which carry the labels that Compose gives."""

from __future__ import annotations

import contextlib
import uuid

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.compose_probe import ONE_OFF, PROJECT, SERVICE
from ansible_collections.anchorage.vps.plugins.modules import compose_health
from ansible_collections.anchorage.vps.tests.lab import engine, images
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import within
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

from .conftest import free_port

HEALTH = ("--health-interval=0.2s", "--health-retries=1", "--health-start-period=0s")
SLEEP = ("sleep", "600")


class Project:
    """A project of containers, each with a password in its environment that nobody may see."""

    def __init__(self, image):
        self.image = image
        self.name = f"anchorage-test-{uuid.uuid4().hex[:8]}"

    def run(self, service, *options, command=SLEEP, name=None, oneoff="False"):
        """Start a container as Compose would."""
        labels = [f"--label={key}={value}" for key, value in {PROJECT: self.name, SERVICE: service, ONE_OFF: oneoff}.items()]
        name = f"{self.name}-{name or f'{service}-1'}"
        engine.docker("run", "--detach", f"--name={name}", "--env=PASSWORD=sesame", "--entrypoint=", "--init", *labels, *options, self.image, *command)
        return name

    def ask(self, *services, seconds=8, **params):
        """Ask the module."""
        with within(seconds + 2):
            wanted = {"project": self.name, "services": list(services), "fail": False, "deadline_seconds": seconds, "interval_seconds": 0.2, **params}
            code, result = run_module(compose_health, **wanted)
        assert code == 0 and result["changed"] is False, result
        assert "sesame" not in repr(result)
        return result, {item["name"]: item["cause"] for item in result["checks"] if item["verdict"] != "ok"}

    def ids(self):
        """Its containers."""
        return engine.docker("ps", "--all", "--quiet", f"--filter=label={PROJECT}={self.name}").split()


@pytest.fixture
def project(this_engine):
    made = Project(images.ensure("trixie"))
    yield made
    with contextlib.suppress(engine.LabError):
        engine.docker("rm", "--force", "--volumes", *made.ids())


def test_what_is_well(project):
    web = project.run("web", *HEALTH, "--health-cmd=true", f"--publish=127.0.0.1:{free_port()}:80")
    project.run("worker")
    engine.docker("wait", project.run("migrate", command=("true",)))
    project.run("web", name="web-run", command=("false",), oneoff="True")
    image = engine.inspect("container", web)[0]["Image"]
    result, wrong = project.ask(
        {"name": "web", "require_health": True, "digest": image},
        {"name": "worker", "max_restarts": 0},
        {"name": "migrate", "completed": True},
        published=[],
        successes=3,
    )
    assert result["healthy"] and wrong == {}, result
    assert [(item["service"], item["health"], item["digest"]) for item in result["containers"]][1] == ("web", "healthy", image)
    assert project.ask()[1] == {}


def test_what_is_not(project):
    """One of each fault, told side by side."""
    job = project.run("job", command=("sh", "-c", "exit 3"))
    crash = project.run("crash", "--restart=always", command=("sh", "-c", "exit 7"))
    ill = project.run("ill", *HEALTH, "--health-cmd=false")
    stopped = project.run("stopped")
    engine.docker("kill", stopped)
    paused = project.run("paused")
    engine.docker("pause", paused)
    port = free_port()
    public = project.run("public", f"--publish=0.0.0.0:{port}:80")
    # The restarted one is seen while it is up for a moment, while it waits, or both.
    result, wrong = project.ask(
        {"name": "job", "completed": True},
        {"name": "crash", "max_restarts": 1},
        {"name": "ill"},
        {"name": "stopped"},
        {"name": "paused"},
        {"name": "public", "digest": f"sha256:{'0' * 64}"},
        {"name": "gone"},
        published=["443"],
        seconds=6,
    )
    assert not result["healthy"]
    assert wrong["service:job"] == f"{job} ended with code 3"
    assert wrong["service:crash"].startswith((f"{crash} ended with code 7 and is started again and again", f"{crash} was restarted"))
    assert wrong["service:ill"] == f"{ill} runs, and its own health check fails"
    assert wrong["service:stopped"] == f"{stopped} ended with code 137"
    assert wrong["service:paused"] == f"{paused} is paused"
    assert wrong["service:gone"] == "no container of gone, wanted 1"
    assert wrong["image:public"].startswith(f"{public} runs {project.image} (sha256:")
    assert wrong["published"] == f"{public} publishes 0.0.0.0:{port}/tcp, which nobody allowed; Docker opens it past the host's firewall"
    engine.docker("unpause", paused)


def test_it_comes_up_while_it_is_waited_for(project):
    project.run(
        "web",
        "--health-cmd=test -e /run/ready",
        "--health-interval=0.3s",
        "--health-retries=99",
        command=("sh", "-c", "sleep 1.5; touch /run/ready; sleep 600"),
    )
    result, wrong = project.ask({"name": "web", "require_health": True}, seconds=20)
    assert wrong == {} and result["checks"][1]["attempts"] > 1


def test_a_restart_between_two_looks_is_noticed(project):
    project.run("web", "--restart=always", command=("sh", "-c", "sleep 1; exit 1"))
    result, wrong = project.ask({"name": "web"}, successes=20, seconds=8)
    assert not result["healthy"] and "healthy probes came in a row" in wrong["steadiness"]


def test_an_engine_that_is_away(project, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    wrong = project.ask(seconds=1)[1]
    assert [*wrong] == ["engine"] and "The Docker Engine did not answer" in wrong["engine"]
