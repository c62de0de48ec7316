# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import types

import pytest

from ansible_collections.anchorage.vps.plugins.action import diagnosis_report

GREEN = {"grade": "green", "text": ["green: All 8 are well."]}
RED = {"grade": "red", "text": ["Likely cause: shop Redis (jobs): it is gone", "To mend it:   systemctl restart redis-server@shop-jobs", "", "log:"]}


@pytest.fixture
def report(monkeypatch):
    """Run the action; what it prints comes back beside its result."""

    def run(hosts, check_mode=False, **args):
        said = []
        monkeypatch.setattr(diagnosis_report, "display", types.SimpleNamespace(display=lambda text, color=None: said.append((text, color))))
        action = object.__new__(diagnosis_report.ActionModule)
        action._task = types.SimpleNamespace(args={"hosts": hosts, **args}, check_mode=check_mode, async_val=0, diff=False)
        action._connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir="/nowhere"))
        action._supports_async = False
        return action.run(task_vars={}), said

    return run


def test_the_worst_host_stands_first_with_its_likely_cause(report):
    result, said = report({"web1": GREEN, "web2": RED})
    text = [line for line, _colour in said]
    assert result["grade"] == "red" and result["changed"] is False and not result.get("failed")
    assert text.index("web2: red") < text.index("  Likely cause: shop Redis (jobs): it is gone") < text.index("web1: green")
    assert ("web2: red", "red") in said


@pytest.mark.parametrize(("answer", "words"), [(None, "was not reached"), ({"unreachable": True, "msg": "no route to host"}, "no route to host")])
def test_a_host_that_gave_no_answer_is_red_and_says_why(report, answer, words):
    result, said = report({"web1": GREEN, "web2": answer})
    assert result["grade"] == "red" and any(words in line for line, _colour in said)


def test_the_text_is_written_for_its_owner_only(report, tmp_path):
    path = tmp_path / "reports" / "diagnosis.txt"
    report({"web2": RED}, path=str(path))
    assert path.read_text().splitlines()[1:3] == ["web2: red", "  Likely cause: shop Redis (jobs): it is gone"]
    assert path.stat().st_mode & 0o777 == 0o600
    report({"web2": RED}, path=str(tmp_path / "other.txt"), check_mode=True)
    assert not (tmp_path / "other.txt").exists()
