# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import types

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.anchorage.vps.plugins.action import deploy_plan, deploy_report
from ansible_collections.anchorage.vps.plugins.filter.release import deploy_results


@pytest.fixture
def run(monkeypatch):
    """Run one of the actions; returns its result and what it printed."""
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})

    def act(module, check_mode=False, **args):
        said = []
        monkeypatch.setattr(module, "display", types.SimpleNamespace(display=lambda text, color=None: said.append((text.strip(), color))))
        action = object.__new__(module.ActionModule)
        action._task = types.SimpleNamespace(args=args, check_mode=check_mode)
        return action.run(), said

    return act


PREVIEW = {"app": "shop", "class": "nothing", "live": "r1", "slot": "blue", "id": "a1"}


def test_the_plans_of_all_hosts_have_one_id(run, tmp_path):
    hosts = {"web1": {"preview": {"shop": PREVIEW}}, "web2": {"preview": {"shop": PREVIEW}}, "db1": {"preview": {}, "status": []}}
    result, said = run(deploy_plan, hosts=hosts, path=str(tmp_path / "plan.json"))
    assert [line for line, _colour in said][:3] == [
        "web1 shop: nothing to do; release r1 is live in slot blue",
        "web2 shop: nothing to do; release r1 is live in slot blue",
        "db1: no app, or not asked",
    ]
    assert said[-1][0] == f"plan {result['id']}; to do exactly this: -e plan={result['id']}"
    assert json.loads((tmp_path / "plan.json").read_text())["plan"] == result["id"]
    other = {**hosts, "web2": {"preview": {"shop": {**PREVIEW, "id": "a2"}}}}
    assert run(deploy_plan, hosts=other)[0]["id"] != result["id"]


def test_another_plan_than_the_one_agreed_to_is_refused(run):
    hosts = {"web1": {"preview": {"shop": PREVIEW}}}
    name = run(deploy_plan, hosts=hosts)[0]["id"]
    assert not run(deploy_plan, hosts=hosts, expect=name)[0].get("failed")
    result, _said = run(deploy_plan, hosts=hosts, expect="0123456789ab")
    assert result["failed"] and "This is not the plan 0123456789ab any more" in result["msg"] and f"-e plan={name}" in result["msg"]


def outcome(step, seconds, requests=0, failed=0, longest=0.0, **phases):
    prober = {"requests": requests, "failed": failed, "longest_seconds": longest, "first_failure": "status 502" if failed else None}
    return {"apps": {"shop": {"outcome": {"step": step, "seconds": seconds, "phases": phases, "prober": prober}}}}


STATUS = {"app": "shop", "live": "r2", "previous": "r1", "slot": "green", "running": True}
STEPS = [outcome("stage", 61.2, 300, longest=0.02, build=52.0), outcome("migrate", 10.1, 50), outcome("activate", 44.9, 220, longest=0.09, soak=30.0)]


def test_one_line_for_each_app_says_what_is_live_how_long_it_took_and_what_was_seen(run, tmp_path):
    result, said = run(deploy_report, hosts={"web1": {"status": [STATUS], "steps": STEPS}}, path=str(tmp_path / "done.json"))
    assert said[1] == ("web1  shop  r2    green  61.2 s  10.1 s   44.9 s    570       0       0.09 s", None)
    assert said[2] == ("web1 shop: build 52.0 s, soak 30.0 s", None)
    written = json.loads((tmp_path / "done.json").read_text())
    assert written["apps"] == result["apps"] and written["apps"][0]["prober"]["requests"] == 570


def test_failed_requests_are_red(run):
    steps = [*STEPS[:2], outcome("activate", 44.9, 220, failed=2, longest=3.0)]
    result, said = run(deploy_report, hosts={"web1": {"status": [STATUS], "steps": steps}})
    assert said[1][1] == "red" and said[-1] == ("web1 shop: first failed request: status 502", "red")
    assert result["apps"][0]["prober"]["failed"] == 2


def test_an_unchanged_app_has_a_line_without_figures(run):
    result, said = run(deploy_report, hosts={"web1": {"status": [STATUS], "steps": [{"apps": {"shop": {"steps": []}}}]}})
    assert said[1][0].split() == ["web1", "shop", "r2", "green", "-", "-", "-", "-", "-", "-"] and len(said) == 2
    assert result["apps"][0]["changed"] is False


def test_a_rollback_counts_as_an_activation(run):
    result, _said = run(deploy_report, hosts={"web1": {"status": [STATUS], "steps": [outcome("rollback", 17.3, 90)]}})
    assert result["apps"][0]["seconds"] == {"activate": 17.3}


def test_in_check_mode_nothing_is_printed(run, tmp_path):
    _result, said = run(deploy_report, check_mode=True, hosts={"web1": {"status": [STATUS], "steps": []}}, path=str(tmp_path / "no.json"))
    assert said == [] and not (tmp_path / "no.json").exists()


def test_what_a_run_did_is_found_among_a_hosts_variables():
    found = deploy_results({"anchorage_status": {"status": [STATUS]}, "release_staged": STEPS[0], "release_activated": STEPS[2], "other": 1})
    assert found == {"preview": {}, "status": [STATUS], "steps": [STEPS[0], STEPS[2]]}
    at_rest = {**STEPS[0], "status": [STATUS]}
    assert deploy_results({"anchorage_status": {"skipped": True}, "release_staged": at_rest})["status"] == [STATUS]
    assert deploy_results({"anchorage_status": {"status": []}, "release_staged": at_rest})["status"] == []
    assert deploy_results({}) == {"preview": {}, "status": [], "steps": []}
    assert deploy_results({"release_preview": {"apps": {"shop": PREVIEW}}})["preview"] == {"shop": PREVIEW}


def test_a_host_that_failed_has_its_line_also_where_nobody_knows_what_is_live(run):
    status = {"app": "shop", "live": "r1", "previous": None, "slot": "blue", "running": True}
    failed = {"rollout_failure": "the host did not answer: no route"}
    assert deploy_results({**failed, "rollout_lost": "gone"})["failure"] == "the host did not answer: no route; gone"
    hosts = {"web1": deploy_results({"anchorage_status": {"status": [status]}}), "web2": deploy_results(failed), "db1": deploy_results({})}
    result, said = run(deploy_report, hosts=hosts)
    assert [(one["host"], one["live"]) for one in result["apps"]] == [("web1", "r1"), ("web2", "unknown")]
    assert ("web2 -: the host did not answer: no route", "red") in said and not [line for line, _colour in said if line.startswith("db1")]
