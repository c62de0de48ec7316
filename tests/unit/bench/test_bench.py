# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench compares what it says: the script is made of the difference, the ratios of the least times."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.anchorage.vps.tests.bench import releases, report, script

FRESH = script.Seen(
    packages=("bash", "systemd"),
    accounts=("root:x:0:0:root:/root:/bin/bash",),
    groups=("root:x:0:", "www-data:x:33:"),
    units=("ssh.service", "systemd-logind.service"),
    paths=("/etc/systemd/system/ssh.service",),
    releases=(),
)
READY = script.Seen(
    packages=("bash", "nginx", "redis-server", "systemd"),
    accounts=("root:x:0:0:root:/root:/bin/bash", "shop:x:999:998::/srv/shop:/usr/sbin/nologin"),
    groups=("root:x:0:", "www-data:x:33:shop", "shop:x:998:"),
    units=("nginx.service", "redis-server@shop-jobs.service", "ssh.service", "systemd-logind.service", "systemd-journald.service"),
    paths=("/etc/systemd/system/ssh.service", "/etc/nginx/nginx.conf"),
    releases=("/opt/pm2/7.0.4/package-lock.json",),
)


def test_the_script_installs_the_difference_in_one_transaction():
    text = script.script(FRESH, READY)
    installs = [line for line in text.splitlines() if "apt-get install" in line]
    assert [line.split()[-2:] for line in installs] == [["nginx", "redis-server"]]


def test_the_script_restarts_what_runs_now_and_did_not_before():
    text = script.script(FRESH, READY)
    assert "systemctl restart nginx.service redis-server@shop-jobs.service\n" in text


def test_the_script_takes_away_what_only_packages_want():
    lists = script.lists(FRESH, READY)
    assert lists["paths.list"] == "/etc/nginx/nginx.conf\n/etc/systemd/system/ssh.service\n"
    assert "redis-server.service\n" not in lists["units.list"]
    text = script.script(FRESH, READY)
    assert text.index("tar --extract") < text.index("paths.list | xargs") < text.index("systemctl restart")


def test_the_script_makes_accounts_that_no_package_made():
    commands = script.accounts(FRESH, READY)
    assert commands == [
        "getent group shop >/dev/null || groupadd --system shop",
        "getent passwd shop >/dev/null || useradd --system --no-create-home --gid shop --home-dir /srv/shop --shell /usr/sbin/nologin shop",
        "usermod --append --groups www-data shop",
    ]


def test_the_script_is_a_shell_script():
    assert subprocess.run(["sh", "-n"], input=script.script(FRESH, READY), text=True, check=False).returncode == 0
    assert subprocess.run(["sh", "-n"], input=script.question(), text=True, check=False).returncode == 0
    assert subprocess.run(["sh", "-n"], input=script.collect_files(), text=True, check=False).returncode == 0


def test_answers_are_told_apart():
    told = "\n".join(f"## {name}\n{name} one\n{name} two" for name in script.QUESTIONS)
    assert script.answer(told).units == ("units one", "units two")


@pytest.fixture
def measured():
    found = {name: report.Measurement() for name in report.NAMES}
    found[report.FRESH_SCRIPT].seconds = [60.0, 50.0]
    found[report.FRESH_PROVISION].seconds = [65.0, 90.0]
    found[report.PING].seconds = [1.0, 0.5]
    found[report.PROVISION].seconds = [3.5, 3.25]
    found[report.SITE].seconds = [6.0, 7.0]
    found[report.FLOOR].seconds = [0.5, 0.75]
    found[report.DEPLOY].seconds = [9.0, 3.0]
    found[report.EMPTY].seconds = [0.5, 0.75]
    found[report.UNCHANGED_DEPLOY].seconds = [4.25, 4.0]
    return found


def test_ratios_are_of_the_least_times(measured):
    assert [(entry["ratio"], entry["reached"]) for entry in report.ratios(measured)] == [(1.3, True), (6.5, False), (12.0, True), (6.0, False)]


def test_a_busy_machine_is_named(measured):
    assert "say little" in report.lines(measured, load=9.0, cores=2, difference=0)[-1]
    assert "say little" not in report.lines(measured, load=1.0, cores=2, difference=0)[-1]


def test_what_was_not_measured_has_no_ratio(measured):
    measured[report.SITE].seconds = []
    assert [entry["over"] for entry in report.ratios(measured)] == [report.FRESH_PROVISION, report.PROVISION, report.DEPLOY]


def test_differences_are_of_the_least_times(measured):
    (entry,) = report.differences(measured)
    assert (entry["seconds"], entry["reached"]) == (3.5, False)
    measured[report.UNCHANGED_DEPLOY].seconds.append(3.5)
    assert report.differences(measured)[0]["reached"]
    assert "unchanged: deploy.yml - empty playbook: 3.00 s (at most 3 s, reached)" in report.lines(measured, load=1.0, cores=2, difference=None)


OUTPUT = """
  "alpha: fetch path 12"
  bench: dependencies 0a1b2c3d4e5f are here already (0.1 s)
  bench: stage done in 1.25 s
  bench: activate done in 7.5 s
"""


def test_steps_are_told_by_their_medians():
    seen = [releases.phases(OUTPUT), releases.phases(OUTPUT.replace("1.25", "2.25")), releases.phases(OUTPUT.replace("1.25", "9"))]
    assert seen[0] == {"dependencies": 0.1, "stage": 1.25, "activate": 7.5}
    assert releases.median(seen) == {"dependencies": 0.1, "stage": 2.25, "activate": 7.5}


def test_a_code_only_release_that_installs_dependencies_is_no_measurement():
    with pytest.raises(SystemExit, match="installed dependencies"):
        releases.phases(OUTPUT.replace("are here already (0.1 s)", ""))
