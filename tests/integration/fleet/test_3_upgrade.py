# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet is upgraded host by host, and visitors do not notice."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.conftest import Visitor, kill, until

from .conftest import WEB
from .test_2_rollout import settled

pytestmark = pytest.mark.fault

SOAK = ("-e", "upgrade_soak_seconds=2")


def daemons(fleet):
    """PM2's daemon on each host."""
    return {host.name: host.shell("systemctl show --value --property=MainPID pm2-alpha").strip() for host in fleet.web}


def test_nothing_is_done_where_nothing_is_to_be_done_but_each_host_is_seen(fleet):
    before, live = daemons(fleet), settled(fleet)
    with Visitor(fleet.proxy) as visitor:
        ended = fleet.run("rolling_upgrade", *SOAK)
    visitor.check()
    assert daemons(fleet) == before and settled(fleet) == live
    said = " ".join(ended.output.split())
    for name in ("edge1", "db1", "cache1"):
        assert f'ok: [{name}] => {{ "msg": "left as it is"' in said


def test_the_plan_names_each_host_and_changes_nothing(fleet):
    before = daemons(fleet)
    ended = fleet.run("rolling_upgrade", "--check", "-e", "upgrade_restart=true", *SOAK)
    said = " ".join(ended.output.split())
    assert all(f'ok: [{name}] => {{ "msg": "' in said for name in (*WEB, "edge1", "db1", "cache1"))
    assert "stays as it is, since visitors would notice" in said
    assert daemons(fleet) == before


def test_processes_that_use_what_was_replaced_are_started_again_under_load(fleet):
    before, live = daemons(fleet), settled(fleet)
    host = fleet.web[1]
    # As an upgraded package does: another file in the place of the one that is in use.
    library = host.shell("awk '/libz.so|libuv.so|libssl.so/ {print $6; exit}' /proc/$(systemctl show --value --property=MainPID pm2-alpha)/maps").strip()
    host.shell(f"cp -p {library} {library}.new && mv {library}.new {library}")
    assert "outdated" in host.shell("anchorage health alpha --kinds release --json || true")
    with Visitor(fleet.proxy) as visitor:
        fleet.run("rolling_upgrade", *SOAK)
    visitor.check()
    after = daemons(fleet)
    assert {name for name in WEB if after[name] != before[name]} == {"web2"} and settled(fleet) == live
    assert len(fleet.answering()) == len(WEB), "all are back in the balance"


def test_a_reboot_of_every_host_is_not_noticed(fleet):
    boots = [host.shell("cat /proc/sys/kernel/random/boot_id; stat -c %Z /proc/1") for host in fleet.web]
    with Visitor(fleet.proxy) as visitor:
        fleet.run("rolling_upgrade", "-e", "upgrade_restart=true", *SOAK)
    visitor.check()
    assert len(fleet.answering()) == len(WEB) and boots
    assert settled(fleet)


def test_a_host_that_does_not_come_back_stays_out_and_the_next_one_is_not_touched(fleet):
    before, host = daemons(fleet), fleet.web[1]
    host.shell("mkdir -p /etc/systemd/system/pm2-alpha.service.d && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n'"
               " > /etc/systemd/system/pm2-alpha.service.d/broken.conf && systemctl daemon-reload")  # fmt: skip
    try:
        with Visitor(fleet.proxy) as visitor:
            ended = fleet.run("rolling_upgrade", "-e", "upgrade_restart=true", *SOAK, rc=None)
        visitor.check()
        after = daemons(fleet)
        assert after["web1"] != before["web1"] and after["web3"] == before["web3"]
        said = " ".join(ended.output.split())
        assert "The upgrade of web2 failed" in said and "It is out of the balance, and the other hosts serve" in said
        assert "balance" in host.shell("anchorage health alpha --kinds release --json || true")
        assert len(fleet.answering()) == 2
    finally:
        host.shell("rm -r /etc/systemd/system/pm2-alpha.service.d && systemctl daemon-reload && systemctl reset-failed pm2-alpha; true")
    with Visitor(fleet.proxy) as visitor:
        fleet.run("rolling_upgrade", "-e", "upgrade_restart=true", *SOAK)
    visitor.check()
    assert len(fleet.answering()) == len(WEB) and settled(fleet)


def test_a_fleet_that_is_not_well_is_left_alone(fleet):
    before = daemons(fleet)
    fleet.web[2].shell("systemctl stop pm2-alpha")
    try:
        ended = fleet.run("rolling_upgrade", "-e", "upgrade_restart=true", rc=None)
        assert "web3 is not well" in " ".join(ended.output.split())
        assert {name: pid for name, pid in daemons(fleet).items() if name != "web3"} == {name: before[name] for name in ("web1", "web2")}
    finally:
        fleet.web[2].shell("systemctl start pm2-alpha")
    until(lambda: fleet.web[2].state()["running"], "web3", 60)


def test_no_host_is_restarted_into_a_database_that_is_away(fleet):
    before = daemons(fleet)
    run = fleet.start("rolling_upgrade", "-e", "upgrade_restart=true", "-e", "upgrade_soak_seconds=20")
    until(lambda: daemons(fleet)["web1"] not in (before["web1"], "0"), "web1", 300)
    fleet.database.shell("systemctl stop postgresql")
    try:
        ended = fleet.apps.end(run, timeout=900)
        assert ended.rc != 0 and {name: daemons(fleet)[name] for name in ("web2", "web3")} == {name: before[name] for name in ("web2", "web3")}
    finally:
        fleet.database.shell("systemctl start postgresql")
    for host in fleet.web:
        host.shell("anchorage undrain")
    until(lambda: len(fleet.answering()) == len(WEB), "all hosts", 60)


@pytest.mark.parametrize("seconds", [25, 45, 65, 85])
def test_an_upgrade_that_was_cut_off_is_made_good_by_the_next(fleet, seconds):
    live = settled(fleet)
    with Visitor(fleet.proxy) as visitor:
        run = fleet.start("rolling_upgrade", "-e", "upgrade_restart=true", *SOAK)
        try:
            run.wait(timeout=seconds)
        except Exception:
            kill(run)
        fleet.run("rolling_upgrade", *SOAK)
    visitor.check()
    assert settled(fleet) == live and len(fleet.answering()) == len(WEB)
