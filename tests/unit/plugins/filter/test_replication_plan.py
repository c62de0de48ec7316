# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of a replication: they take the hosts' answers out of hostvars, and are documented as they are called."""

from __future__ import annotations

import inspect
import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.filter import replication_plan as plugin

FILTERS = plugin.FilterModule().filters()
PRIMARY = {"data": True, "running": True, "in_recovery": False, "standby": False, "empty": False, "fenced": False, "forwarding": False, "answer": ""}
REPLICA = {**PRIMARY, "in_recovery": True, "standby": True}
HOSTVARS = {"db1": {"asked": {"state": PRIMARY}}, "db2": {"asked": {"state": REPLICA}}, "db3": {"asked": {"skipped": True}}, "db4": {}}


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_each_filter_is_documented_as_it_is_called(name):
    document = yaml.safe_load((pathlib.Path(plugin.__file__).parent / f"{name}.yml").read_text(encoding="utf-8"))
    parameters = list(inspect.signature(FILTERS[name]).parameters)[1:]
    assert document["DOCUMENTATION"]["name"] == name
    assert [*filter(None, document["DOCUMENTATION"].get("positional", "").split(", "))] == parameters
    assert set(document["DOCUMENTATION"]["options"]) == {"_input", *parameters}
    assert f"anchorage.vps.{name}" in document["EXAMPLES"]


def test_hosts_that_were_not_asked_are_not_judged():
    assert FILTERS["replication_refusal"](["db1", "db3", "db4", "db5"], HOSTVARS, "asked") == ""
    assert "run promote.yml" in FILTERS["replication_refusal"](["db2", "db1"], HOSTVARS, "asked")


def test_a_promotion_asks_every_host():
    assert "db3 and db4 did not answer" in FILTERS["replication_plan"](["db2", "db1", "db3", "db4"], HOSTVARS, "asked")["refusal"]
    assert FILTERS["replication_plan"](["db1", "db2"], HOSTVARS, "asked")["action"] == "finish"


def test_the_password_stands_in_a_file_as_libpq_reads_it():
    assert FILTERS["replication_passfile"]("a:b", "192.0.2.21") == "192.0.2.21:5432:replication:anchorage_replication:a\\:b\n"
    with pytest.raises(AnsibleFilterError, match="the password"):
        FILTERS["replication_passfile"]("", "192.0.2.21")
