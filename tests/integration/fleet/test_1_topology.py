# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the same contract, with another inventory: who serves, who reaches whom, and a host that is taken out and put back."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.conftest import Visitor, until

from .conftest import WEB

pytestmark = pytest.mark.fault

EDGE = 9019


def test_all_hosts_serve_and_nothing_is_left_to_do(fleet):
    (live,) = set(fleet.live().values())
    answers = fleet.answering()
    assert {release for release, _pid in answers} == {live} and len(answers) == len(WEB), "each host answers"
    assert fleet.database.runs(live) == 1, "migrated once for all"
    assert fleet.run("site").changed == 0


def test_nobody_reaches_more_than_needed(fleet):
    wanted = {
        ("outside", "edge1"): {22, 80},
        **{("outside", name): {22} for name in (*WEB, "db1", "cache1")},
        **{("edge1", name): {22, EDGE} for name in WEB},
        ("edge1", "db1"): {22},
        ("edge1", "cache1"): {22},
        ("web1", "web2"): {22},
        ("web1", "db1"): {22, 5432},
        ("web1", "cache1"): {22, 7379},
        ("db1", "web1"): {22},
    }
    ports = (22, 80, 443, 5432, 6379, 7379, 9000, 9001, 9002, 9003, EDGE)
    assert {(source, target): fleet.reach(source, target, ports) for source, target in wanted} == wanted


def test_a_host_that_is_drained_gets_nobody_new_and_no_visitor_notices(fleet):
    host = fleet.web[1]
    before = len(fleet.answering())
    with Visitor(fleet.proxy) as visitor:
        told = json.loads(host.shell("anchorage drain --json"))
        assert told["changed"] and told["connected"] == 0
        assert len(fleet.answering()) == before - 1
        fleet.proxy.command("reboot", host.lab, host.name)
        assert len(fleet.answering()) == before - 1, "it stays out until somebody puts it back"
        until(lambda: host.state()["running"], "the release", 90)
        host.shell("anchorage undrain")
        until(lambda: len(fleet.answering()) == before, "the host to be back", 30)
    visitor.check()


def test_a_new_release_comes_host_by_host(fleet):
    before = set(fleet.live().values())
    fleet.apps.app("alpha")
    with Visitor(fleet.proxy) as visitor:
        fleet.deploy()
    visitor.check()
    (live,) = set(fleet.live().values())
    assert {live} != before and fleet.database.runs(live) == 1
    assert {release for release, _pid in fleet.answering()} == {live}
