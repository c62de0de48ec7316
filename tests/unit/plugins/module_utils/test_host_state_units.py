# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.host_state_units import commands, loaded_by, parse_show, plan, skipped, stale

WANTED = {"name": "x.service", "enabled": True, "state": "started", "masked": None}
RUNNING = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "InvocationID": "abc"}


def test_blocks_belong_to_the_names_in_their_order():
    text = "Id=ssh.service\nActiveState=active\n\nId=cron.service\nActiveState=inactive\n"
    shown = parse_show(text, ["sshd.service", "cron.service"])
    assert (shown["sshd.service"]["Id"], shown["cron.service"]["ActiveState"]) == ("ssh.service", "inactive")


def test_with_a_record_the_digests_decide_whatever_the_times_say():
    files = {"/a": ["1", 999.0], "/b": ["2", 0.0], "/d": ["4", 0.0]}
    assert stale(files, {"/a": "1", "/b": "other", "/c": "3"}, 100.0) == ["/b", "/c", "/d"]


def test_without_a_record_the_times_decide():
    assert stale({"/a": ["1", 101.0], "/b": ["2", 99.0]}, None, 100.0) == ["/a"]


def test_a_record_of_an_earlier_invocation_says_nothing():
    record = {"invocation": "abc", "restart": {"/a": "1"}}
    assert loaded_by(record, {"InvocationID": "abc"}, "restart") == {"/a": "1"}
    assert loaded_by(record, {"InvocationID": "def"}, "restart") is None
    assert loaded_by({"invocation": "", "restart": {}}, {"InvocationID": ""}, "restart") is None
    assert loaded_by(None, {"InvocationID": "abc"}, "restart") is None


@pytest.mark.parametrize(
    ("wanted", "properties", "restart", "reload", "after"),
    [
        ({}, {}, [], [], None),
        ({}, {}, ["/a"], ["/b"], {"state": "restarted"}),
        ({}, {}, [], ["/b"], {"state": "reloaded"}),
        ({}, {"ActiveState": "failed"}, ["/a"], [], {"state": "started"}),
        ({"state": None}, {"ActiveState": "inactive"}, ["/a"], [], None),
        ({"state": "stopped"}, {}, ["/a"], [], {"state": "stopped"}),
        ({"state": "stopped"}, {"ActiveState": "failed"}, [], [], None),
        ({}, {"UnitFileState": "disabled"}, [], [], {"enabled": True}),
        ({}, {"UnitFileState": "static"}, [], [], None),
        ({"enabled": False}, {}, [], [], {"enabled": False}),
        ({"enabled": None}, {"UnitFileState": "disabled"}, [], [], None),
        ({"enabled": None, "state": None, "masked": True}, {}, [], [], {"masked": True}),
        ({"masked": False}, {"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"}, [], [],
         {"masked": False, "enabled": True, "state": "started"}),
        ({}, {"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestampMonotonic": "5"}, [], [], None),
        ({}, {"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestampMonotonic": "0"}, [], [], {"state": "started"}),
    ],
)  # fmt: skip
def test_plan(wanted, properties, restart, reload, after):
    planned = plan({**WANTED, **wanted}, {**RUNNING, **properties}, restart, reload)
    assert (planned and planned["after"]) == after


def test_the_reason_of_a_restart_is_told():
    assert plan(WANTED, RUNNING, ["/etc/x"], [])["because"] == ["/etc/x"]


def test_a_unit_that_was_never_started_was_not_skipped():
    assert not skipped({"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestampMonotonic": "0"})


@pytest.mark.parametrize(
    ("after", "verbs"),
    [
        ({"enabled": True, "state": "started"}, ["enable", "start"]),
        ({"masked": True, "state": "stopped"}, ["mask", "stop"]),
        ({"masked": False, "enabled": False}, ["unmask", "disable"]),
        ({"state": "restarted"}, ["restart"]),
        ({"state": "reloaded"}, ["reload"]),
        ({}, []),
    ],
)
def test_a_plan_becomes_calls_of_systemctl(after, verbs):
    assert [call[3:] for call in commands("a.service", after)] == [[verb, "--", "a.service"] for verb in verbs]
