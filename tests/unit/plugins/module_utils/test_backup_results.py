# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_results, host_probe
from ansible_collections.anchorage.vps.plugins.module_utils.backup_results import begin, died, end, fresh, judged, proven, read

from . import backup_fakes
from .backup_fakes import NOW

GOOD = {"ok": True, "cause": "", "bytes": 5}
BAD = {"ok": False, "cause": "it is away"}


@pytest.fixture
def host(tmp_path, monkeypatch):
    return backup_fakes.place(tmp_path, monkeypatch)


def result(**targets):
    return judged("files", targets, problem="", began=NOW - 5, now=NOW, before={})


def test_a_run_is_good_where_it_is_at_every_target():
    assert result(a=GOOD, b=GOOD)["ok"] and result(a=GOOD)["seconds"] == 5 and result(a=GOOD)["bytes"] == 5
    assert result(a=GOOD, b=BAD)["ok"] is False and result(a=GOOD, b=BAD)["cause"] == "b: it is away"
    assert result()["ok"] is False


def test_the_last_good_time_of_each_target_outlives_a_bad_run():
    before = judged("files", {"a": GOOD, "b": GOOD}, problem="", began=1, now=2, before={})
    after = judged("files", {"a": GOOD, "b": BAD}, problem="", began=3, now=4, before=before)
    assert (after["last_good"], after["targets"]["a"]["last_good"], after["targets"]["b"]["last_good"]) == (2, 4, 2)


def test_a_proof_outlives_the_next_run_and_a_run_the_next_proof(host):
    end(host, "files", result(a=GOOD))
    proven(host, "files", {"ok": True, "finished": NOW})
    end(host, "files", result(a=BAD))
    assert read(host, "files")["proof"] == {"ok": True, "finished": NOW} and read(host, "files")["ok"] is False
    proven(host, "files", {"ok": False, "finished": NOW + 1, "cause": "flipped"})
    assert read(host, "files")["cause"] == "a: it is away" and read(host, "files")["proof"]["cause"] == "flipped"


def test_a_run_that_was_killed_leaves_its_word(host):
    end(host, "files", result(a=GOOD))
    begin(host, "files")
    host.clock += 30
    assert died(host, "files", "timeout") is True
    found = read(host, "files")
    assert found["ok"] is False and found["cause"] == "the run was ended before it was done (timeout)" and found["seconds"] == 30 and found["last_good"] == NOW
    assert died(host, "files", "timeout") is False


def test_a_run_that_ended_by_itself_is_no_dead_one(host):
    begin(host, "files")
    end(host, "files", result(a=GOOD))
    assert died(host, "files", "success") is False and read(host, "files")["ok"]


def test_rubbish_is_no_result(host):
    for text in ("{", "[]", ""):
        pathlib.Path(backup_results.path("files")).write_text(text)
        assert read(host, "files") == {}


@pytest.mark.parametrize(("age", "good"), [(0, True), (3 * 3600, True), (3 * 3600 + 1, False), (-1, False)])
def test_a_result_is_young_within_its_hours(age, good):
    assert fresh({"ok": True, "finished": NOW - age}, NOW, 3) is good
    assert fresh({"ok": False, "finished": NOW}, NOW, 3) is False and fresh({}, NOW, 3) is False


def test_health_reads_what_a_run_writes(host):
    end(host, "files", result(a=GOOD))
    proven(host, "files", {"ok": True, "finished": NOW, "cause": ""})
    wanted = host_probe.Backup("files", backup_results.path("files"), 3, 9)
    assert [check.verdict for check in host_probe.judge_backup(host, wanted)] == ["ok", "ok"]
    end(host, "files", result(a=BAD))
    assert "the last backup failed 0 h ago (a: it is away)" in host_probe.judge_backup(host, wanted)[0].cause
