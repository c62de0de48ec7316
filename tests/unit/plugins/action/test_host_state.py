# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import types

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.anchorage.vps.plugins.action import host_state
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

SEEN = {
    "packages": {"missing": {}, "present": {}, "broken": []},
    "groups": [],
    "users": [],
    "repositories": [],
    "tree": [],
    "strays": [],
    "units": {"off": [], "unknown": [], "daemon_reload": False, "remember": []},
    "validators": [],
    "notes": [],
}
ACTED = {"acted": [], "failure": None}
APPLIED = {"changes": [], "daemon_reload": False, "armed": False, "notes": [], **ACTED}
STARTED = {"name": "nginx.service", "before": {}, "after": {"enabled": True, "state": "started"}, "because": []}


class Action(host_state.ActionModule):
    """The plugin with a scripted host behind it."""

    def __init__(self, arguments, script, *, check=False, diff=False):
        self._task = types.SimpleNamespace(args=arguments, check_mode=check, diff=diff, async_val=0)
        self._connection = types.SimpleNamespace(reset=self.reset, _shell=types.SimpleNamespace(tmpdir=None))
        self._display = types.SimpleNamespace(display=lambda text: None, warning=lambda text: None)
        self.script = script
        self.calls = []

    def reset(self):
        self.calls.append("reset")

    def _remove_tmp_path(self, path):
        pass

    def _execute_module(self, module_name, module_args, task_vars):
        short = module_name.rpartition(".")[2]
        operation = module_args["operation"] if short == "host_state_agent" else short
        self.calls.append(operation)
        self.sent = module_args
        answer = self.script.get(operation, {})
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer.get("failed") or short != "host_state_agent":
            return answer
        return {"answer": answer}


def run(arguments, monkeypatch, *, script=None, **options):
    monkeypatch.setattr(host_state.ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(host_state.time, "sleep", lambda seconds: None)
    action = Action(arguments, script or {"read": SEEN}, **options)
    return action.run(task_vars={}), action


def off(path, secret=False, **after):
    return {"kind": "file", "path": path, "secret": secret, "before": {"content": "other content"}, "after": after or {"content": "as wanted"}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"files": [{"path": "/x", "content": "x", "onwer": "me"}]}, "files[0].onwer is not a key"),
        ({"files": [{"path": "/x", "content": "x", "mode": 420}]}, "files[0].mode must be a quoted string"),
        ({"files": [{"path": "/x"}]}, "needs exactly one of template, content and src"),
        ({"units": [{"name": "x", "state": "running"}]}, "state"),
        ({"files": [{"content": "x"}]}, "path"),
    ],
)
def test_a_wrong_document_is_refused_before_the_host_is_asked(arguments, words, monkeypatch):
    result, action = run(arguments, monkeypatch)
    assert result["failed"] and words in result["msg"]
    assert action.calls == [] and result["executions"] == 0


def test_when_nothing_is_off_the_read_is_the_only_execution(monkeypatch):
    result, action = run({"packages": ["nginx"], "files": [{"path": "/etc/x", "content": "x"}]}, monkeypatch)
    assert action.calls == ["read"]
    assert (result["changed"], result["executions"]) == (False, 1)


def test_in_check_mode_the_read_carries_digests_and_no_content(monkeypatch):
    _result, action = run({"files": [{"path": "/etc/x", "content": "TOPSECRET", "secret": True}]}, monkeypatch, check=True)
    payload = json.loads(action.sent["payload"])
    assert payload["contents"] is None and "content" not in payload["document"]["files"][0]
    assert len(payload["document"]["files"][0]["sha256"]) == 64


def test_what_is_off_is_done_in_order(monkeypatch):
    seen = {
        **SEEN,
        "packages": {"missing": {"nginx": None}, "present": {"telnet": "1"}, "broken": ["x"], "lists_old": False},
        "repositories": [off("/etc/apt/sources.list.d/r.sources")],
        "groups": [{"name": "g", "before": None, "after": "present"}],
        "users": [{"name": "u", "before": None, "after": "present"}],
        "tree": [off("/etc/x")],
    }
    script = {
        "read": seen,
        "heal": {"changed": True},
        "repositories": {},
        "packages": {"changed": True},
        "apply": {**APPLIED, "changes": [off("/etc/x")], "acted": [STARTED]},
    }
    arguments = {"packages": ["nginx"], "packages_absent": ["telnet"], "groups": [{"name": "g"}], "users": [{"name": "u"}]}
    result, action = run({**arguments, "files": [{"path": "/etc/x", "content": "x"}]}, monkeypatch, script=script)
    assert action.calls == ["read", "heal", "repositories", "packages", "group", "user", "apply"]
    assert json.loads(action.sent["payload"])["act"] is True
    kinds = [change["kind"] for change in result["changes"]]
    assert kinds == ["dpkg", "file", "package", "package", "group", "user", "file", "unit"]


def test_check_mode_only_reads_and_names_what_it_cannot_know(monkeypatch):
    seen = {
        **SEEN,
        "packages": {"missing": {"nginx": None}, "present": {}, "broken": []},
        "tree": [off("/etc/nginx/x")],
        "validators": ["nginx"],
        "units": {**SEEN["units"], "unknown": ["nginx.service"]},
    }
    result, action = run({"packages": ["nginx"]}, monkeypatch, script={"read": seen}, check=True)
    assert action.calls == ["read"] and result["changed"]
    assert result["notes"] == [
        "not predicted: whether nginx accepts the new files, because nginx is not installed yet",
        "not predicted: nginx.service, because nginx is not installed yet",
    ]


def test_check_mode_lets_validators_judge_where_they_are_installed(monkeypatch):
    script = {"read": {**SEEN, "tree": [off("/etc/x")], "validators": ["v"]}, "apply": APPLIED}
    _result, action = run({"files": [{"path": "/etc/x", "content": "x"}]}, monkeypatch, script=script, check=True)
    assert action.calls == ["read", "apply"]


def test_a_diff_shows_texts_but_hides_secret_ones(monkeypatch):
    seen = {**SEEN, "tree": [{**off("/etc/x"), "text": "old\n"}, off("/etc/s", secret=True)]}
    script = {"read": seen, "apply": {**APPLIED, "changes": seen["tree"]}}
    files = [{"path": "/etc/x", "content": "new\n"}, {"path": "/etc/s", "content": "TOPSECRET", "secret": True}]
    result, _action = run({"files": files}, monkeypatch, script=script, diff=True)
    assert [(part["before"], part["after"]) for part in result["diff"]] == [("old\n", "new\n"), ("", host_state.HIDDEN)]
    assert "TOPSECRET" not in json.dumps(result)


def test_a_complaint_never_quotes_a_secret_file(monkeypatch):
    refusal = {"failed": True, "msg": 'bad token "TOPSECRET" in line 1', "error": {"message": "TOPSECRET=1", "failed": "TOPSECRET"}}
    script = {"read": {**SEEN, "tree": [off("/etc/s", secret=True)]}, "apply": refusal}
    result, _action = run({"files": [{"path": "/etc/s", "content": "TOPSECRET=1\n", "secret": True}]}, monkeypatch, script=script)
    assert result["failed"] is True and "TOPSECRET" not in json.dumps(result)
    assert result["msg"] == 'bad token "(hidden)" in line 1'


@pytest.mark.parametrize("old", [True, False])
def test_packages_are_one_execution_that_knows_whether_its_lists_may_be_used(monkeypatch, old):
    seen = {**SEEN, "packages": {"missing": {"nginx": None}, "present": {"telnet": "1"}, "broken": [], "lists_old": old}}
    _result, action = run({"packages": ["nginx"], "packages_absent": ["telnet"]}, monkeypatch, script={"read": seen})
    payload = json.loads(action.sent["payload"])
    assert action.calls == ["read", "packages"]
    assert (payload["missing"], payload["unwanted"], payload["refresh"]) == (["nginx"], ["telnet"], old)


def test_a_policy_that_a_dead_run_left_goes(monkeypatch):
    seen = {**SEEN, "packages": {**SEEN["packages"], "policy_left": True}}
    result, action = run({"packages": ["nginx"]}, monkeypatch, script={"read": seen})
    assert action.calls == ["read", "packages"] and result["changed"] is True


def test_a_unit_that_nothing_brings_is_an_error_by_name(monkeypatch):
    seen = {**SEEN, "units": {**SEEN["units"], "unknown": ["nothing.service"]}}
    failure = {"msg": "nothing.service does not exist on the host"}
    result, action = run({"units": [{"name": "nothing", "state": "started"}]}, monkeypatch, script={"read": seen, "apply": {**APPLIED, "failure": failure}})
    assert action.calls == ["read", "apply"] and result["failed"] and result["msg"] == failure["msg"]


def test_what_was_done_before_a_unit_failed_is_told(monkeypatch):
    applied = {**APPLIED, "changes": [off("/etc/x")], "acted": [STARTED], "failure": {"msg": "no", "log": "why"}}
    arguments = {"files": [{"path": "/etc/x", "content": "x"}]}
    result, _action = run(arguments, monkeypatch, script={"read": {**SEEN, "tree": [off("/etc/x")]}, "apply": applied})
    assert result["failed"] and result["log"] == "why"
    assert [change["name"] for change in result["changes"]] == ["/etc/x", "nginx.service"]


def test_files_and_units_alone_are_put_right_by_the_read(monkeypatch):
    applied = {**APPLIED, "changes": [off("/etc/x")], "acted": [STARTED]}
    seen = {**SEEN, "tree": [off("/etc/x")], "units": {**SEEN["units"], "off": [STARTED]}, "applied": applied}
    result, action = run({"files": [{"path": "/etc/x", "content": "x"}], "units": [{"name": "nginx"}]}, monkeypatch, script={"read": seen})
    assert action.calls == ["read"] and json.loads(action.sent["payload"])["contents"] == {"/etc/x": "eA=="}
    assert [change["name"] for change in result["changes"]] == ["/etc/x", "nginx.service"]


def test_large_contents_travel_only_when_they_are_needed(monkeypatch):
    arguments = {"files": [{"path": "/etc/x", "content": "x" * (host_state.OFFER_BYTES + 1)}]}
    _result, action = run(arguments, monkeypatch)
    assert action.calls == ["read"] and json.loads(action.sent["payload"])["contents"] is None


RISKY = {"files": [{"path": "/etc/ssh/x", "content": "x"}], "confirm": {"name": "ssh", "paths": ["/etc/ssh/"], "seconds": 30}}


def test_risky_changes_are_confirmed_by_a_new_connection(monkeypatch):
    script = {"read": {**SEEN, "tree": [off("/etc/ssh/x")]}, "apply": {**APPLIED, "armed": True}, "act": {**ACTED, "acted": [STARTED]}, "settle": {}}
    _result, action = run(RISKY, monkeypatch, script=script)
    assert action.calls == ["read", "apply", "act", "reset", "settle"]
    assert json.loads(action.sent["payload"])["acted"] == {"nginx.service": "started"}


def test_a_window_that_a_dead_run_left_open_is_confirmed_too(monkeypatch):
    _result, action = run(RISKY, monkeypatch, script={"read": {**SEEN, "confirm": "pending"}, "act": ACTED, "settle": {}})
    assert action.calls == ["read", "act", "reset", "settle"]


def test_a_host_that_cannot_be_reached_is_tried_until_its_files_are_back(monkeypatch):
    late = {"failed": True, "msg": "the previous files are back", "error": {"message": "the previous files are back"}}
    script = {
        "read": {**SEEN, "tree": [off("/etc/ssh/x")]},
        "apply": {**APPLIED, "armed": True},
        "act": ACTED,
        "settle": [AnsibleConnectionFailure("refused"), AnsibleConnectionFailure("refused"), late],
    }
    result, action = run(RISKY, monkeypatch, script=script)
    assert action.calls.count("settle") == 3
    assert result["failed"] and result["msg"] == "the previous files are back The last attempt to connect anew said: refused"


def test_a_unit_that_does_not_take_risky_files_sends_them_back_at_once(monkeypatch):
    script = {
        "read": {**SEEN, "tree": [off("/etc/ssh/x")]},
        "apply": {**APPLIED, "armed": True},
        "act": {**ACTED, "failure": {"msg": "no", "log": "why"}},
        "go_back": {},
    }
    result, action = run(RISKY, monkeypatch, script=script)
    assert action.calls == ["read", "apply", "act", "go_back"]
    assert result["failed"] and "were put back" in result["msg"] and result["log"] == "why"


def test_validated_fills_defaults():
    document = host_state.validated({"files": [{"path": "/etc/x", "content": "x", "mode": None}]})
    assert (document["files"][0]["mode"], document["files"][0]["owner"], document["units"]) == ("0644", "root", [])


def test_validated_names_every_problem():
    with pytest.raises(AnchorageError) as raised:
        host_state.validated({"a": 1, "b": 2})
    assert len(raised.value.details["problems"]) == 2
