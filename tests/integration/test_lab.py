# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab keeps its promises: what every other test on hosts stands on."""

from __future__ import annotations

import pytest
import yaml


def variables(lab):
    return yaml.safe_load(lab.inventory.read_text())["all"]["children"]["lab"]["hosts"]


@pytest.mark.parametrize("host", ["trixie", "bookworm"])
def test_a_host_is_the_release_it_says_and_runs_without_a_failed_unit(lab, host):
    told = lab.execute(host, "sh", "-c", "systemctl is-system-running; . /etc/os-release; echo $VERSION_CODENAME")
    assert told.stdout.split() == ["running", host]


def test_hosts_know_each_other_by_name(lab):
    told = lab.execute("trixie", "getent", "hosts", "bookworm")
    assert told.stdout.split() == [variables(lab)["bookworm"]["lab_address"], "bookworm"]


def test_a_second_up_changes_nothing(lab):
    before = lab.inventory.read_text()
    lab.up("--host=trixie:trixie", "--host=bookworm:bookworm")
    assert lab.inventory.read_text() == before


@pytest.mark.parametrize("how", ["reboot", "power-cut"])
def test_a_host_comes_back_under_the_same_address(lab, how):
    ports = variables(lab)["trixie"]["lab_ports"]
    lab.execute("trixie", "sh", "-c", "echo kept > /root/mark; echo lost > /run/mark")
    lab.command(how, lab.name, "trixie")
    assert variables(lab)["trixie"]["lab_ports"] == ports
    left = lab.execute("trixie", "sh", "-c", "cat /root/mark /run/mark 2>/dev/null || true; systemctl is-system-running")
    assert left.stdout.split() == ["kept", "running"]


def test_strangers_are_not_let_in(lab):
    one = variables(lab)["trixie"]
    lab.command("ssh", lab.name, "trixie", "true")
    told = lab.execute("bookworm", "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", f"root@{one['lab_address']}", "true", check=False)
    assert "Permission denied" in told.stderr
