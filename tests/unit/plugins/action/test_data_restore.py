# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import types

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.anchorage.vps.plugins.action import data_restore, release_step

DONE = {"ok": True, "changed": True, "text": "Restored.", "plan": [{"database": "shop", "lost_rows": 7}], "aside": [], "seconds": 9.0, "log": "/l"}


class Action(data_restore.ActionModule):
    """The action with a host whose answers were written down before; an exception among them is raised."""

    def __init__(self, args, answers, check_mode=False):
        self._task = types.SimpleNamespace(args=args, check_mode=check_mode, async_val=0, diff=False, _role=None)
        self._connection = types.SimpleNamespace(reset=lambda: self.resets.append(1), _shell=types.SimpleNamespace(tmpdir=None))
        self._supports_async, self.resets, self.answers, self.asked, self.printed = False, [], list(answers), [], []

    def _execute_module(self, module_name=None, module_args=None, task_vars=None, **_more):
        assert module_name == "anchorage.vps.data_restore"
        self.asked.append(module_args)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _print(self, name, lines):
        self.printed += lines

    def go(self):
        return self.run(task_vars={"inventory_hostname": "vps"})


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda seconds: setattr(clock, "now", clock.now + seconds))
    monkeypatch.setattr(release_step, "time", clock)
    return clock


def answer(*said, offset=0, running=True, outcome=None):
    return {"log": "/l", "running": running, "lines": list(said), "offset": offset, "outcome": outcome}


def test_a_restore_is_followed_to_its_end_and_its_plan_is_handed_on():
    action = Action({"app": "shop", "confirm": True}, [answer("shop: one", offset=5), answer("shop: two", running=False, outcome=DONE)])
    result = action.go()
    assert action.printed == ["shop: one", "shop: two"] and result["changed"] and result["plan"][0]["lost_rows"] == 7 and result["text"] == "Restored."
    assert action.asked[0]["operation"] == "start" and action.asked[0]["plan"] is False and action.asked[0]["owner"]
    assert action.asked[1] == {"operation": "follow", "log": "/l", "offset": 5}


def test_check_mode_asks_for_the_plan():
    action = Action({"app": "shop"}, [answer(running=False, outcome={**DONE, "changed": False})], check_mode=True)
    assert not action.go()["changed"] and action.asked[0]["plan"] is True


def test_a_lost_connection_costs_one_look():
    action = Action({"app": "shop"}, [answer(offset=1), AnsibleConnectionFailure("gone"), answer(running=False, outcome=DONE)])
    assert action.go()["changed"] and action.resets == [1]


def test_a_host_that_does_not_come_back_is_told_to_go_on_by_itself():
    action = Action({"what": "cluster"}, [answer(), *[AnsibleConnectionFailure("gone")] * 100])
    result = action.go()
    assert result["failed"] and "The restore goes on there; to see how it ended: anchorage restore --follow" in result["msg"]


def test_what_failed_says_what_is_live_and_what_to_do():
    error = {"message": "shop holds data now", "live": "the data that were there before", "next_step": "--yes", "details": {"long": 1}}
    result = Action({"app": "shop"}, [answer(running=False, outcome={"ok": False, "text": "shop holds data now.", "error": error})]).go()
    assert result["failed"] and result["error"]["live"] == "the data that were there before" and "details" not in result["error"]


@pytest.mark.parametrize("operation", ["stop_apps", "start_apps", "follow"])
def test_what_is_short_is_asked_once(operation):
    action = Action({"operation": operation, "apps": ["shop"]}, [{"changed": True, "lines": []}])
    assert action.go()["changed"] and len(action.asked) == 1
