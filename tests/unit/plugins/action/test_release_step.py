# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import tarfile
import types

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.anchorage.vps.plugins.action import release_step
from ansible_collections.anchorage.vps.plugins.module_utils import controller_image, source_tree
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.controller_fakes import ControllerDocker
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.engine_fakes import document
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.test_compose_runtime import DOCKED

PLAN = {"release": "r1", "tree": "t1", "source": "s1", "steps": ["stage", "migrate", "activate"], "source_needed": False, "live": "r0", "slot": "blue"}
DONE = {"ok": True, "changed": True, "seconds": 1}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Action(release_step.ActionModule):
    """The action with a host whose answers were written down before; an exception among them is raised."""

    def __init__(self, args, answers, check_mode=False):
        self._task = types.SimpleNamespace(args=args, check_mode=check_mode, async_val=0, diff=False, _role=None)
        self._connection = types.SimpleNamespace(reset=lambda: self.resets.append(1), _shell=types.SimpleNamespace(tmpdir=None))
        self._supports_async, self.resets = False, []
        self.answers, self.asked, self.sent, self.printed, self.arrives = list(answers), [], [], [], None

    def _execute_module(self, module_name=None, module_args=None, task_vars=None, **_more):
        assert module_name == release_step.MODULE
        self.asked.append(module_args)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _low_level_execute_command(self, cmd, in_data=None, **_more):
        done = subprocess.run(["sh", "-c", cmd], input=(in_data or b"")[: self.arrives], capture_output=True, check=False)
        self.sent += [len(in_data)] if in_data else []
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

    def _print(self, name, lines):
        self.printed += lines

    def go(self):
        return self.run(task_vars={"inventory_hostname": "vps"})


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(release_step, "time", clock)
    return clock


def planned(**apps):
    return {"apps": {name: {**PLAN, **changes} for name, changes in (apps or {"shop": {}}).items()}}


def step(name, *apps):
    return {"step": name, "apps": list(apps or ("shop",))}


def lines(*said, offset=0, running=True, outcome=None):
    return {"log": "/l", "running": running, "lines": list(said), "offset": offset, "outcome": outcome}


def test_nothing_to_do_is_one_question_for_all_apps():
    action = Action(step("stage", "shop", "blog"), [planned(shop={"steps": []}, blog={"steps": []})])
    result = action.go()
    assert result["changed"] is False and len(action.asked) == 1 and action.asked[0]["apps"] == ["shop", "blog"]


def test_a_staged_release_is_a_change_until_it_is_migrated():
    action = Action(step("stage"), [planned(shop={"steps": ["migrate", "activate"]})])
    assert action.go()["changed"] is True, "so that the handler is notified by what is, and not by what happened"
    assert len(action.asked) == 1, "there is nothing to stage"


@pytest.mark.parametrize("name", ["migrate", "activate"])
def test_other_steps_are_changes_only_where_they_are_needed(name):
    assert Action(step(name), [planned(shop={"steps": ["stage"]})]).go()["changed"] is False


def test_a_step_is_started_and_followed_to_its_end():
    action = Action(step("stage"), [planned(), lines("one", offset=4), lines("two", offset=8), lines("three", offset=12, running=False, outcome=DONE)])
    result = action.go()
    assert result["changed"] is True and result["apps"]["shop"]["outcome"] == DONE and action.printed == ["one", "two", "three"]
    assert action.asked[1] == {
        "operation": "start",
        "step": "stage",
        "apps": ["shop"],
        "wish": {"release": "r1", "tree": "t1", "source": "s1", "owner": release_step.owner()},
    }
    assert [question["offset"] for question in action.asked[2:]] == [4, 8]


def test_check_mode_starts_nothing():
    action = Action(step("stage"), [planned()], check_mode=True)
    assert action.go()["changed"] is True and len(action.asked) == 1


def test_a_failed_step_is_a_failed_task_with_all_that_it_said():
    outcome = {
        "ok": False,
        "text": "It broke. Live now: r0. Next: mend it.",
        "error": {"message": "It broke.", "live": "r0", "next_step": "mend it", "details": {"output": ["x"]}},
    }
    result = Action(step("stage", "shop", "blog"), [planned(shop={}, blog={}), lines(running=False, outcome=outcome)]).go()
    assert result["failed"] is True and result["msg"] == outcome["text"]
    assert result["error"] == {"message": "It broke.", "live": "r0", "next_step": "mend it"}


def test_what_was_done_for_the_apps_before_the_one_that_failed_is_told():
    failed = lines(running=False, outcome={"ok": False, "text": "It broke.", "error": {"message": "It broke."}})
    result = Action(step("stage", "shop", "blog"), [planned(shop={}, blog={}), lines(running=False, outcome=DONE), failed]).go()
    assert result["failed"] is True and result["apps"]["shop"]["outcome"] == DONE and "outcome" not in result["apps"]["blog"]


def test_a_host_that_refuses_is_believed():
    refusal = {"failed": True, "msg": "Another step works on shop", "error": {"message": "Another step works on shop"}}
    result = Action(step("stage"), [planned(), refusal]).go()
    assert result["failed"] is True and result["msg"] == "Another step works on shop"


@pytest.mark.parametrize("loss", [AnsibleConnectionFailure("gone"), {"unreachable": True, "msg": "gone"}])
def test_a_lost_connection_costs_one_look(loss):
    action = Action(step("stage"), [planned(), lines("one", offset=4), loss, loss, lines("two", offset=8, running=False, outcome=DONE)])
    assert action.go()["apps"]["shop"]["outcome"] == DONE
    assert len(action.resets) == 2 and action.asked[-1]["offset"] == 4, "nothing is lost of what was said meanwhile"


def test_a_host_that_stays_away_is_given_up_and_the_step_is_not(clock):
    action = Action(step("stage"), [planned(), lines("one", offset=4), *[AnsibleConnectionFailure("gone")] * 200])
    result = action.go()
    assert result["failed"] is True and "goes on there" in result["msg"] and "run deploy.yml again" in result["msg"]
    assert release_step.PATIENCE < clock.now <= release_step.PATIENCE + 10


def test_a_source_on_the_controller_is_named_by_its_checksum_and_sent_where_it_is_needed(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.js").write_text("1")
    known = source_tree.checksum(str(source))
    ended = lines(running=False, outcome=DONE)
    place = tmp_path / "the host" / "s1.tar"
    action = Action({**step("stage"), "sources": {"shop": str(source)}}, [planned(shop={"source_needed": True, "incoming": str(place)}), ended])
    action.go()
    assert action.asked[0]["sources"] == {"shop": known} and action.asked[1]["operation"] == "start"
    with tarfile.open(place) as bundle:
        assert bundle.getnames() == ["./a.js"]
    assert place.stat().st_mode & 0o777 == 0o600 and os.listdir(place.parent) == ["s1.tar"]
    action = Action({**step("stage"), "sources": {"shop": str(source)}}, [planned(), ended])
    action.go()
    assert action.sent == []


@pytest.mark.parametrize("arrives", [0, 1, -1], ids=["nothing", "one-byte", "all-but-one"])
def test_a_source_that_is_cut_off_on_its_way_leaves_nothing_behind(tmp_path, arrives):
    (tmp_path / "a.js").write_text("12345")
    place = tmp_path / "host" / "s1.tar"
    action = Action({**step("stage"), "sources": {"shop": str(tmp_path / "a.js")}}, [planned(shop={"source_needed": True, "incoming": str(place)})])
    action.arrives = arrives
    result = action.go()
    assert result["failed"] is True and os.listdir(place.parent) == [] and len(action.asked) == 1
    assert "did not reach this host whole" in result["msg"]


def test_a_connection_that_goes_with_a_source_on_its_way_takes_it_along(tmp_path):
    """The connection goes and takes the receiving shell with it."""
    place = tmp_path / "host" / "s1.tar"
    command = ["sh", "-c", release_step.receive(str(place), b"12345678")]
    # Whoever runs the tests under nohup hands on that the signal is ignored, and then no shell can trap it.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    process.stdin.write(b"1234")
    process.stdin.flush()
    while not place.parent.exists() or not any(path.stat().st_size for path in place.parent.iterdir()):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGHUP)
    process.wait(10)
    assert list(place.parent.iterdir()) == []


# -- an image that the controller builds


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """A controller with Docker, and a source; C(start) makes the action that stages it on a host."""
    docker = ControllerDocker(tmp_path, os.urandom(5 << 19))
    monkeypatch.setenv("PATH", docker.path())
    monkeypatch.setattr(controller_image, "PIECE", 1 << 20)
    monkeypatch.setattr(release_step.C, "DEFAULT_LOCAL_TMP", str(tmp_path / "local" / "run"))
    (tmp_path / "local" / "run").mkdir(parents=True)
    source = tmp_path / "source"
    source.mkdir()
    (source / "package.json").write_text("{}")
    wanted = json.dumps(document(str(tmp_path / "home"), **DOCKED, source={"kind": "path", "path": str(source)}))
    wish = {
        "source": source_tree.checksum(str(source)),
        "incoming": str(tmp_path / "host" / "s1.tar"),
        "image_platform": "linux/amd64",
        "image_incoming": str(tmp_path / "host" / "t1.image.tar.gz"),
        "image_needed": True,
    }

    def start(*more, check_mode=False):
        args = {**step("stage"), "sources": {"shop": str(source)}, "documents": [wanted]}
        return Action(args, [planned(shop=wish), *more], check_mode=check_mode)

    docker.start, docker.host = start, tmp_path / "host"
    return docker


ENDED = lines(running=False, outcome=DONE)


def test_an_image_is_built_here_and_sent_in_pieces(controller):
    action = controller.start(ENDED)
    assert action.go()["changed"] is True
    assert os.listdir(controller.host) == ["t1.image.tar.gz"] and len(action.sent) == 3 and max(action.sent) == 1 << 20
    assert gzip.decompress((controller.host / "t1.image.tar.gz").read_bytes()) == (controller.state / "archive").read_bytes()
    assert action.asked[1]["operation"] == "start" and any("built anchorage-controller/shop:" in line for line in action.printed)
    action = controller.start(ENDED)
    action.go()
    assert controller.builds() == 1 and len(action.sent) == 3, "a second host gets the same"


def test_what_a_host_calls_its_platform_is_no_word_of_a_command(controller):
    action = controller.start()
    action.answers[0]["apps"]["shop"]["image_platform"] = "linux/amd64 --output=x"
    result = action.go()
    assert result["failed"] is True and "which is none" in result["msg"] and controller.asked() == [] and action.sent == []


def test_check_mode_builds_nothing(controller):
    assert controller.start(check_mode=True).go()["changed"] is True
    assert controller.asked() == [] and not controller.host.exists()


@pytest.mark.parametrize(("name", "words"), [("fails", "'docker build' of shop failed"), ("down", "its Docker does not answer")])
def test_what_cannot_be_built_here_touches_no_host(controller, name, words):
    controller.say(name, "ERROR: no such stage")
    action = controller.start()
    result = action.go()
    assert result["failed"] is True and words in result["msg"] and "Live now: shop release r0 in slot blue" in result["msg"]
    assert "Broke: the image of shop, on the controller" in result["msg"] and "Next: " in result["msg"]
    assert action.sent == [] and len(action.asked) == 1 and not controller.host.exists()


def test_an_image_that_cannot_be_read_to_its_end_leaves_nothing_on_the_host(controller):
    controller.say("save-fails")
    action = controller.start()
    result = action.go()
    assert result["failed"] is True and "docker save" in result["msg"] and os.listdir(controller.host) == [] and len(action.asked) == 1


def test_an_image_that_is_cut_off_on_its_way_leaves_nothing_behind(controller):
    action = controller.start()
    action.arrives = -1
    result = action.go()
    assert result["failed"] is True and "The image of shop did not reach this host whole" in result["msg"] and os.listdir(controller.host) == []
    assert "the way of the image to the host" in result["msg"] and "Live now: shop release r0" in result["msg"]


def test_a_source_that_is_not_there_is_a_sentence(tmp_path):
    action = Action({**step("stage"), "sources": {"shop": str(tmp_path / "none")}}, [])
    result = action.go()
    assert result["failed"] is True and "source" in result["msg"] and "none" in result["msg"] and action.asked == []


def test_plan_and_step_get_what_this_run_brings_and_nothing_of_other_apps():
    documents = ['{"name": "shop", "a": 1}', '{"name": "blog"}']
    answers = [planned(shop={}, blog={"steps": []}), lines(running=False, outcome=DONE)]
    action = Action({**step("stage", "shop", "blog"), "documents": documents}, answers)
    action.go()
    assert action.asked[0]["documents"] == documents and action.asked[1]["documents"] == documents[:1]


def test_news_without_a_step_are_a_change():
    action = Action({**step("stage"), "documents": ['{"name": "shop"}']}, [{"changed": True, **planned(shop={"steps": []})}])
    assert action.go()["changed"] is True


def way_back(**changes):
    return {"apps": {"shop": {**PLAN, "release": "r0", "needed": True, **changes}}}


def test_a_rollback_is_planned_then_done():
    action = Action({"operation": "rollback", "apps": ["shop"], "release": "r0"}, [way_back(), lines("back", running=False, outcome=DONE)])
    assert action.go()["changed"] is True and action.printed == ["back"]
    assert action.asked[0] == {"operation": "rollback_plan", "apps": ["shop"], "release": "r0"}
    assert (action.asked[1]["step"], action.asked[1]["wish"]["release"]) == ("rollback", "r0")


@pytest.mark.parametrize(("changes", "check", "changed"), [({"needed": False}, False, False), ({}, True, True)])
def test_a_rollback_that_is_not_needed_or_only_asked_for_starts_nothing(changes, check, changed):
    action = Action({"operation": "rollback", "apps": ["shop"]}, [way_back(**changes)], check_mode=check)
    assert action.go()["changed"] is changed and len(action.asked) == 1


def test_a_refused_rollback_is_a_failed_task():
    action = Action({"operation": "rollback", "apps": ["shop"]}, [{"failed": True, "msg": "no way back"}])
    assert action.go()["failed"] is True


def test_who_asks_is_one_word(monkeypatch):
    monkeypatch.setattr(release_step.getpass, "getuser", lambda: "the admin")
    monkeypatch.setattr(release_step.platform, "node", lambda: "laptop")
    assert release_step.owner() == "the_admin@laptop"
