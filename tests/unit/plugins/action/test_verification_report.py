# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import types

import pytest

from ansible_collections.anchorage.vps.plugins.action import verification_report


def verdict(grade, name="shop", summary="HTTP 503"):
    return {"name": name, "grade": grade, "summary": summary, "checks": [{"name": "identity", "verdict": "ok"}, {"name": "answer", "verdict": "ok"}]}


@pytest.fixture
def report(monkeypatch):
    """Run the action; what it prints comes back beside its result."""

    def run(hosts, urls=None, check_mode=False, **args):
        said = []
        monkeypatch.setattr(verification_report, "display", types.SimpleNamespace(display=lambda text, color=None: said.append((text, color))))
        action = object.__new__(verification_report.ActionModule)
        action._task = types.SimpleNamespace(args={"hosts": hosts, "urls": urls, **args}, check_mode=check_mode, async_val=0, diff=False)
        action._connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir="/nowhere"))
        action._supports_async = False
        return action.run(task_vars={}), said

    return run


def test_a_green_table_passes_and_names_what_was_looked_at(report):
    result, said = report({"web1": [verdict("green")]}, [{"name": "shop", "url": "https://shop.example.com"}])
    assert not result.get("failed") and result["grade"] == "green" and result["changed"] is False
    text = "\n".join(text for text, _colour in said)
    assert "web1  shop  green  identity, answer" in text and "shop: https://shop.example.com" in text


def test_an_amber_verdict_is_said_and_passes(report):
    result, said = report({"web1": [verdict("green"), verdict("amber", summary="certificate ends in 20 days")]})
    assert not result.get("failed") and result["grade"] == "amber"
    assert any("certificate ends in 20 days" in text and colour == "yellow" for text, colour in said)


def test_one_red_verdict_fails_with_host_and_cause(report):
    result, _said = report({"web1": [verdict("green"), verdict("red")], "web2": [verdict("amber")]})
    assert result["failed"] is True and result["grade"] == "red"
    assert result["msg"] == "1 of 3 checks are red: web1: HTTP 503"


def test_check_mode_reports_without_failing(report):
    result, _said = report({"web1": [verdict("red")]}, check_mode=True)
    assert not result.get("failed") and result["grade"] == "red"


def test_a_table_has_straight_columns(report):
    _result, said = report({"a": [verdict("green", name="x")], "longer": [verdict("green", name="longest")]})
    rows = [text for text, colour in said if colour]
    assert len({row.index("green") for row in rows}) == 1


def test_nothing_to_verify_is_no_failure(report):
    assert report({})[0]["grade"] == "green"


def test_the_verdicts_are_written_as_json_and_as_a_page_with_their_history(report, tmp_path):
    place = tmp_path / "reports" / "shop"
    for grade in ("red", "green"):
        report({"web1": [verdict(grade)]}, [{"name": "shop", "url": "https://shop.example.com"}], directory=str(place))
    told = json.loads((place / "verify.json").read_text())
    assert told["grade"] == "green" and told["hosts"]["web1"][0]["summary"] == "HTTP 503"
    runs = json.loads((place / "history.json").read_text())
    assert [run["grade"] for run in runs] == ["red", "green"] and runs[0]["amiss"] == ["web1: shop"]
    page = (place / "verify.html").read_text()
    assert "The last 2 runs" in page and "https://shop.example.com" in page
    assert sorted(path.name for path in place.iterdir()) == ["history.json", "verify.html", "verify.json"]


@pytest.mark.parametrize("content", ["", "{", "{}", "[1, {}]"])
def test_a_history_that_is_none_is_begun_anew(report, tmp_path, content):
    (tmp_path / "history.json").write_text(content)
    report({"web1": [verdict("green")]}, directory=str(tmp_path))
    assert len(json.loads((tmp_path / "history.json").read_text())) == 1


def test_check_mode_writes_nothing(report, tmp_path):
    report({"web1": [verdict("green")]}, directory=str(tmp_path / "reports"), check_mode=True)
    assert list(tmp_path.iterdir()) == []
