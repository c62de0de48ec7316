# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_report import Report


def test_a_proof_that_found_nothing_is_good():
    lines = []
    report = Report(Log(lines.append))
    report.facts["target"] = "local"
    assert report.ended(now=5.0, seconds=1.26) == {"finished": 5.0, "ok": True, "cause": "", "seconds": 1.3, "what": {"target": "local"}}
    assert lines == ["proof: good"]


def test_what_is_wrong_is_told_as_it_is_found_and_the_first_of_it_in_the_result():
    lines = []
    report = Report(Log(lines.append))
    for number in range(5):
        report.wrong(f"table {number} is missing.")
    found = report.ended(now=5.0, seconds=1)
    assert found["ok"] is False
    assert found["cause"] == "table 0 is missing; table 1 is missing; table 2 is missing; and 2 more"
    assert "proof: WRONG: table 4 is missing" in lines and lines[-1] == "proof: FAILED"


def test_bytes_of_a_damaged_file_do_not_get_into_a_result():
    report = Report(Log(lambda line: None))
    report.wrong("key/value at line 1: `\x00\x1b[31m\u202e\ufffd`")
    cause = report.ended(now=5.0, seconds=1)["cause"]
    assert cause.isprintable() and "\x1b" not in cause
