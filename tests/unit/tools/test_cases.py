# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The closing line of the test run cannot claim what did not happen."""

from __future__ import annotations

import os

import pytest

from ansible_collections.anchorage.vps.tests.tools import __main__ as runner
from ansible_collections.anchorage.vps.tests.tools import cases, parts, registry_hosts, sanity
from ansible_collections.anchorage.vps.tests.tools.cases import Tally

REPORT = '<testsuites><testsuite tests="{0}" failures="{1}" errors="{2}" skipped="{3}"/></testsuites>'


@pytest.mark.parametrize(
    ("code", "report", "expected"),
    [
        (0, None, Tally(passed=1)),
        (2, None, Tally(failed=1)),
        (0, REPORT.format(5, 0, 0, 1), Tally(4, 0, 1)),
        (1, REPORT.format(5, 1, 1, 0), Tally(3, 2, 0)),
        (2, REPORT.format(5, 0, 0, 0), Tally(5, 1, 0)),
        (5, REPORT.format(0, 0, 0, 0), Tally(0, 1, 0)),
    ],
)
def test_a_bad_exit_code_is_a_failure_whatever_the_report_says(code, report, expected):
    assert cases.verdict(code, report) == expected


def run(tmp_path, *argv, **more):
    with (tmp_path / "log").open("wb") as log:
        tally = cases.run(cases.Case("probe", argv, place=tmp_path, **more), log)
    return tally, (tmp_path / "log").read_text()


def test_what_a_case_says_is_in_the_log(tmp_path):
    tally, log = run(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert tally == Tally(failed=1)
    assert "out\nerr\n" in log


def test_a_case_that_hangs_is_stopped_with_its_children(tmp_path):
    tally, log = run(tmp_path, "sh", "-c", "sleep 60 & wait", timeout_seconds=0.2)
    assert tally == Tally(failed=1)
    assert "stopped after 0.2 s" in log


def test_a_missing_report_is_a_failure(tmp_path):
    assert run(tmp_path, "true", junit="no-such-report.xml")[0] == Tally(failed=1)


def test_the_whole_vps_comes_after_the_roles(tmp_path):
    for name in ("default", "base", "redis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "molecule.yml").touch()
    (tmp_path / "shared").mkdir()
    assert parts.scenarios(tmp_path, None) == ["base", "redis", "default"]
    assert parts.scenarios(tmp_path, "redis") == ["redis"]
    with pytest.raises(SystemExit, match="SCENARIO=shared"):
        parts.scenarios(tmp_path, "shared")


@pytest.mark.parametrize("host", ["registry.np" + "mjs.org", "py" + "pi.org", "files.python" + "hosted.org", "deb.deb" + "ian.org"])
def test_a_registry_is_found_wherever_it_stands(host):
    assert registry_hosts.findings({"a.yml": b"fine\nurl: https://" + host.encode()}) == ["a.yml:2: names a host of a package registry"]


def test_other_hosts_may_be_named():
    assert registry_hosts.findings({"a.yml": b"https://www.debian.org https://deb.nodesource.com npm pypi"}) == []


def test_the_pinned_pip_is_read_or_missed_loudly():
    assert sanity.pip_version("packages = dict(\n        pip='25.2',\n") == "25.2"
    with pytest.raises(SystemExit, match="no longer says"):
        sanity.pip_version("packages = {}")


def test_the_tests_that_failed_are_named():
    report = '<testsuite><testcase classname="a.b" name="one"/><testcase classname="a.b" name="two"><failure/></testcase></testsuite>'
    assert cases.failed_tests(report) == ["a.b::two"]


def case(name, lane=""):
    return cases.Case(name, ("true",), lane=lane)


def test_cases_of_one_lane_follow_each_other_and_one_without_a_lane_is_alone():
    of = {
        "lint": [case("a", "lint"), case("b", "lint")],
        "unit": [case("c", "unit")],
        "hosts": [case("d")],
        "roles": [case("e", "x"), case("f", "y"), case("g")],
    }
    names = [[[one.name for _part, one in lane] for lane in batch] for batch in runner.batches(list(of), of.__getitem__)]
    assert names == [[["a", "b"], ["c"]], [["d"]], [["e"], ["f"]], [["g"]]]


def test_every_case_is_run_beside_others_or_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cases, "OUTPUT", tmp_path)
    lanes = [[("one", case("a", "x")), ("one", cases.Case("b", ("false",), lane="x"))], [("two", case("c", "y"))]]
    assert runner.run_lanes(lanes, cases.Running()) == Tally(passed=2, failed=1)
    assert "1 failed" in capsys.readouterr().out and (tmp_path / "one-x.log").exists()


def test_whoever_stops_the_tests_stops_what_runs_and_what_would_come():
    running = cases.Running()
    with open(os.devnull, "wb") as log:
        process = running.start(cases.Case("long", ("sleep", "60")), log)
        running.stop()
        assert process.poll() is not None
        with pytest.raises(SystemExit):
            running.start(case("next"), log)
