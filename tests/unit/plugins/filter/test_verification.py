# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.filter.verification import all_verdicts

PART = {"name": "shop database", "kind": "database", "grade": "amber", "summary": "s", "message": "m", "checks": [{"name": "connect"}], "healthy": True}


def test_a_hosts_verdicts_are_the_parts_of_its_answer():
    (found,) = all_verdicts({"anchorage_health": {"parts": [PART]}})
    assert found == {key: value for key, value in PART.items() if key != "healthy"}


def test_a_host_that_has_nothing_of_what_was_asked_is_well():
    (found,) = all_verdicts({"anchorage_health": {"parts": [], "grade": "green", "summary": "There is nothing to ask on this host."}})
    assert found["grade"] == "green" and "nothing of this kind" in found["summary"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"inventory_hostname": "web1"}, "was not reached"),
        ({"anchorage_health": {"unreachable": True, "msg": "no route"}}, "no route"),
        ({"anchorage_health": {"failed": True, "msg": "no JSON", "grade": "red", "parts": []}}, "no JSON"),
    ],
)
def test_a_host_that_gave_no_answer_is_red(variables, words):
    (found,) = all_verdicts(variables)
    assert found["grade"] == "red" and words in found["summary"]
