# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import controller_faults, trials


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return a way to open one file of results, as a run with this engine does."""

    def open_with(engine):
        monkeypatch.setattr(trials, "engine_digest", lambda: engine)
        return trials.Results(tmp_path / "some" / "results.json", "What was tried")

    return open_with


def test_what_has_passed_is_not_tried_again_until_the_engine_changes(results):
    first = results("e1")
    first.add("good", [], requests=7)
    first.add("bad", ["it broke", "and more"])
    second = results("e1")
    assert second.has_passed("good") and not second.has_passed("bad") and not second.has_passed("new")
    assert second.failures(["good", "bad", "new"]) == ["bad: it broke"]
    assert not results("e2").has_passed("good")


def test_the_file_counts_and_keeps_its_figures(results):
    found = results("e1")
    found.add("good", [], requests=7)
    found = results("e2")
    found.add("bad", ["it broke"])
    found.add("bad", [])
    data = json.loads(found.path.read_text())
    assert data["title"] == "What was tried" and data["counts"] == {"cases": 2, "passed": 2, "of_the_last_engine": 1}
    assert data["cases"]["good"]["requests"] == 7 and "causes" not in data["cases"]["bad"] and len(list(found.path.parent.iterdir())) == 1


@pytest.mark.parametrize(("seconds", "over"), [("0", True), ("60", False), (None, False)])
def test_a_run_that_has_had_its_time_begins_no_further_case(results, monkeypatch, seconds, over):
    if seconds is None:
        monkeypatch.delenv(trials.BUDGET, raising=False)
    else:
        monkeypatch.setenv(trials.BUDGET, seconds)
    assert results("e1").out_of_time() is over


def test_the_engine_is_named_by_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "ROOT", tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "a.py").write_text("1")
    before = trials.engine_digest()
    (tmp_path / "README.md").write_text("other")
    (tmp_path / "plugins" / "__pycache__").mkdir()
    (tmp_path / "plugins" / "__pycache__" / "a.pyc").write_text("x")
    assert trials.engine_digest() == before
    (tmp_path / "plugins" / "a.py").write_text("2")
    assert trials.engine_digest() != before


def test_the_same_seed_gives_the_same_points_and_another_one_others():
    def points(seed):
        return controller_faults.random_cases("deploy", seed, 20, 8)

    assert points(1) == points(1) != points(2) and all(0.3 <= case.after <= 20 for case in points(1))
    assert len({case.name for case in points(1)}) == 8
