# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that comes host by host, and a host on the way that does not take it."""

from __future__ import annotations

import contextlib
import json
import random
import time

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.conftest import Visitor, kill, until
from ansible_collections.anchorage.vps.tests.integration.release.disk import Disk

from .conftest import WEB

pytestmark = pytest.mark.fault

STOP = ("-e", "deploy_on_failure=stop")


@contextlib.contextmanager
def stranger(host):
    """Somebody else listens where the next release of a host has to."""
    document = json.loads(host.shell("cat /etc/anchorage/apps/alpha.json"))
    idle = {"blue": "green", "green": "blue"}[host.state()["slot"]]
    (server,) = [process for process in document["processes"] if process["public"]]
    (port,) = server["slots"][idle]
    host.shell(f"systemd-run --quiet --collect --unit=stranger python3 -m http.server --bind 127.0.0.1 {port}")
    try:
        yield
    finally:
        host.shell("systemctl stop stranger")


def settled(fleet):
    """No host is between two releases, and each runs whole what it says is live."""
    states = [host.state("alpha") for host in fleet.web]
    assert all(state["running"] and not state["unconfirmed"] for state in states), states
    return {host.name: state["live"] for host, state in zip(fleet.web, states)}


def test_a_second_host_that_fails_brings_the_first_one_back(fleet):
    old = settled(fleet)
    fleet.apps.app("alpha")
    with Visitor(fleet.proxy) as visitor, stranger(fleet.web[1]):
        ended = fleet.deploy(rc=None)
    visitor.check()
    assert settled(fleet) == old, "all are back on the release before"
    said = " ".join(ended.output.split())
    assert "web2 did not take the release" in said and "belongs to another process" in said and "The others serve the release before" in said
    fleet.deploy()
    (live,) = set(settled(fleet).values())
    assert live not in old.values() and fleet.database.runs(live) == 1, "mended, it goes on where it was, and the database is migrated already"


def test_where_the_policy_is_to_stop_each_host_stays_as_it_is(fleet):
    old = settled(fleet)
    fleet.apps.app("alpha")
    with Visitor(fleet.proxy) as visitor, stranger(fleet.web[1]):
        ended = fleet.deploy(*STOP, rc=None)
    visitor.check()
    now = settled(fleet)
    assert now["web1"] not in old.values() and (now["web2"], now["web3"]) == (old["web2"], old["web3"])
    for name, release in now.items():
        assert any(line.split()[:3] == [name, "alpha", release] for line in ended.output.splitlines()), f"the table has the release of {name}"
    fleet.deploy()
    assert set(settled(fleet).values()) == {now["web1"]}


def test_a_canary_that_dies_in_the_soak_is_the_only_one_that_had_it(fleet):
    old = settled(fleet)
    fleet.apps.app("alpha")
    run = fleet.start("deploy", "-e", "deploy_soak_seconds=12", "-e", json.dumps({"deploy_serial": [1, 2]}))
    until(lambda: fleet.web[0].state()["live"] not in old.values() and fleet.web[0].state()["last_step"]["ok"], "the canary", 120)
    fleet.web[0].shell("systemctl stop pm2-alpha")
    ended = fleet.apps.end(run, timeout=900)
    assert ended.rc != 0
    assert settled(fleet) == old
    assert "web1 did not take the release" in " ".join(ended.output.split())
    fleet.deploy("-e", "deploy_soak_seconds=3", "-e", json.dumps({"deploy_serial": [1, 2]}))
    assert len(set(settled(fleet).values())) == 1


def test_a_canary_that_goes_down_in_the_soak_is_no_good_canary(fleet):
    old = settled(fleet)
    fleet.apps.app("alpha")
    run = fleet.start("deploy", "-e", "deploy_soak_seconds=20", "-e", json.dumps({"deploy_serial": [1, 2]}))
    until(lambda: fleet.web[0].state()["live"] not in old.values() and fleet.web[0].state()["last_step"]["ok"], "the canary", 120)
    fleet.off("web1")
    try:
        ended = fleet.apps.end(run, timeout=900)
        assert ended.rc != 0
        assert fleet.live(without="web1") == {name: old[name] for name in ("web2", "web3")}
        assert "web1 did not take the release: the host did not answer" in " ".join(ended.output.split())
        assert any(line.split()[:3] == ["web1", "-", "unknown"] for line in ended.output.splitlines()), "the table has it too"
    finally:
        fleet.on("web1")
    until(lambda: fleet.web[0].state()["running"], "web1", 120)
    fleet.deploy()
    assert len(set(settled(fleet).values())) == 1


def test_a_host_that_is_not_there_stops_a_release_before_it_begins(fleet):
    old = settled(fleet)
    fleet.apps.app("alpha")
    fleet.off("web2")
    try:
        ended = fleet.deploy(rc=None)
        assert {host.name: host.state()["live"] for host in fleet.web if host.name != "web2"} == {name: old[name] for name in ("web1", "web3")}
        assert "[web2]: UNREACHABLE" in ended.output or "web2 failed before or did not answer" in " ".join(ended.output.split())
        with Visitor(fleet.proxy) as visitor:
            fleet.apps.run("deploy", "--limit", "all:!outside:!web2")
        visitor.check()
        found = fleet.run("verify", rc=None)
        assert "web2" in found.output.rpartition("PLAY RECAP")[2]
    finally:
        fleet.on("web2")
    until(lambda: fleet.web[1].state()["running"], "web2", 120)
    assert settled(fleet)["web2"] == old["web2"]
    fleet.deploy()
    assert len(set(settled(fleet).values())) == 1


def test_a_host_that_goes_down_while_it_takes_the_release(fleet):
    old = settled(fleet)
    fleet.apps.app("alpha")
    run = fleet.start("deploy")
    until(lambda: (fleet.web[1].state()["last_step"] or {}).get("step") == "activate" and fleet.web[1].state()["unconfirmed"], "web2 to begin", 200)
    fleet.off("web2")
    ended = fleet.apps.end(run, timeout=900)
    assert ended.rc != 0
    assert fleet.live(without="web2") == {name: old[name] for name in ("web1", "web3")}
    said = " ".join(ended.output.split())
    assert "web2 did not take the release" in said
    fleet.on("web2")
    until(lambda: fleet.web[1].state()["running"] and not fleet.web[1].state()["unconfirmed"], "web2", 120)
    assert settled(fleet) == old, "at boot it goes back by itself"
    fleet.deploy()
    assert len(set(settled(fleet).values())) == 1


def test_a_host_without_room_stops_a_release_before_it_begins(fleet, tmp_path):
    old = settled(fleet)
    fleet.apps.app("alpha")
    host = fleet.web[1]
    home = json.loads(host.shell("cat /etc/anchorage/apps/alpha.json"))["home"]
    disk = Disk(host, home, tmp_path / "home.img", mib=96, inodes=4096)
    disk.mount()
    try:
        disk.fill()
        ended = fleet.deploy(rc=None)
        assert fleet.live() == old and "web2" in ended.output
    finally:
        disk.unmount()
    fleet.deploy()
    assert len(set(settled(fleet).values())) == 1


@pytest.mark.parametrize("number", range(13))
def test_a_controller_that_dies_leaves_each_host_whole_and_the_next_run_goes_on(fleet, number):
    """At each border between batches, and at ten points of a run by chance."""
    old = settled(fleet)
    fleet.apps.app("alpha")
    seed = random.randrange(10**6)
    with Visitor(fleet.proxy) as visitor:
        run = fleet.start("deploy")
        if number < len(WEB):
            until(lambda: fleet.web[number].state()["live"] not in old.values(), f"host {number + 1}", 200)
        else:
            time.sleep(random.Random(seed).uniform(2, 45))
        kill(run)
        until(lambda: all(not host.unit_active("alpha") for host in fleet.web), "the steps to end on the hosts", 120)
        now = settled(fleet)
        assert set(now.values()) <= {*old.values(), *now.values()} and len(set(now.values())) <= 2, (seed, now)
        fleet.deploy()
        (live,) = set(settled(fleet).values())
    visitor.check()
    assert live not in old.values() and fleet.database.runs(live) == 1, seed
