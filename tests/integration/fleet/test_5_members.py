# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host joins the others and leaves them again, and a host dies, while visitors read and write."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.conftest import Host, Visitor, until

from .conftest import GROUPS, LAB, WEB
from .test_2_rollout import settled

pytestmark = pytest.mark.fault


def writer(fleet):
    """A visitor who writes."""

    def ask():
        url = f"http://127.0.0.1:{fleet.proxy.facts['lab_ports']['80']}/items"
        request = urllib.request.Request(url, data=b'{"name": "thing"}', headers={"Host": "alpha.localhost", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    return Visitor(fleet.proxy, ask)


def join(fleet, name, group):
    """Let a host more be one of the fleet."""
    wanted = [f"--host={host}:trixie:{groups}" for host, groups in GROUPS.items()]
    fleet.proxy.command("up", LAB, *wanted, "--host=outside:trixie", f"--host={name}:trixie:{group}")
    found = Host(LAB, name)
    file = fleet.apps.hosts / "addresses.yml"
    told = json.loads(file.read_text())
    told["all"]["hosts"][name] = {"anchorage_address": found.facts["lab_address"]}
    file.write_text(json.dumps(told))
    return found


def test_a_host_joins_and_leaves_and_nobody_notices(fleet):
    old = set(settled(fleet).values())
    fourth = join(fleet, "web4", "app")
    with Visitor(fleet.proxy) as reader, writer(fleet) as author:
        fleet.run("site")
        assert {fourth.state()["live"]} == old == set(settled(fleet).values())
        assert len(fleet.answering(number=40)) == 4
    reader.check()
    author.check()
    with Visitor(fleet.proxy) as reader, writer(fleet) as author:
        fourth.shell("anchorage drain")
        fleet.apps.apps["alpha"]["hosts"] = list(WEB)
        fleet.apps.write()
        fleet.run("site")
        fourth.shell("systemctl poweroff --no-wall || true")
        assert len(fleet.answering()) == 3
    reader.check()
    author.check()


def test_when_a_host_dies_only_what_it_had_in_hand_fails(fleet):
    until(lambda: len(fleet.answering()) == 3, "all", 30)
    with Visitor(fleet.proxy) as reader, writer(fleet) as author:
        until(lambda: len(reader.releases) > 50, "visitors")
        fleet.off("web2")
        until(lambda: len(reader.releases) > 400, "more visitors", 120)
    fleet.on("web2")
    assert len(reader.failures) + len(author.failures) <= 2, (reader.failures, author.failures)
    until(lambda: fleet.web[1].state()["running"], "web2", 120)
    until(lambda: len(fleet.answering()) == 3, "all", 60)


def test_one_of_two_proxies_dies_and_who_tries_the_other_address_is_served(fleet):
    second = join(fleet, "edge2", "proxy")
    fleet.run("site")
    ports = [host.facts["lab_ports"]["80"] for host in (fleet.proxy, second)]

    def one(port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/info", headers={"Host": "alpha.localhost"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())["release"]

    def ask():
        try:
            return one(ports[0])
        except (ConnectionError, urllib.error.URLError):
            return one(ports[1])

    with Visitor(second, ask) as visitor:
        until(lambda: len(visitor.releases) > 50, "visitors")
        fleet.off("edge1")
        until(lambda: len(visitor.releases) > 200, "more visitors", 120)
    visitor.check()
    fleet.on("edge1")


def test_a_proxy_that_restarts_has_its_sites_again(fleet):
    fleet.proxy.command("reboot", LAB, "edge1")
    until(lambda: len(fleet.answering()) == 3, "the proxy", 60)
