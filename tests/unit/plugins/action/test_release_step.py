# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import types

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.anchorage.vps.plugins.action import release_step
from ansible_collections.anchorage.vps.plugins.module_utils import source_tree

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
        self._connection = types.SimpleNamespace(
            reset=lambda: self.resets.append(1), _shell=types.SimpleNamespace(tmpdir="/tmp/x", join_path=lambda *parts: "/".join(parts))
        )
        self._supports_async, self.resets = False, []
        self.answers, self.asked, self.sent, self.printed = list(answers), [], [], []

    def _execute_module(self, module_name=None, module_args=None, task_vars=None, **_more):
        assert module_name == release_step.MODULE
        self.asked.append(module_args)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _transfer_file(self, local_path, remote_path):
        self.sent.append(remote_path)

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
    (tmp_path / "a.js").write_text("1")
    known = source_tree.checksum(str(tmp_path))
    ended = lines(running=False, outcome=DONE)
    action = Action({**step("stage"), "sources": {"shop": str(tmp_path)}}, [planned(shop={"source_needed": True}), ended])
    action.go()
    assert action.asked[0]["sources"] == {"shop": known} and action.sent == ["/tmp/x/source.tar"] and action.asked[1]["incoming"] == "/tmp/x/source.tar"
    action = Action({**step("stage"), "sources": {"shop": str(tmp_path)}}, [planned(), ended])
    action.go()
    assert action.sent == [] and "incoming" not in action.asked[1]


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
