# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole story on a fresh host, and again: one app on one host. First in order, while the host has one app only."""

from __future__ import annotations

import pathlib

import pytest

#: One for each role that has work on the host (backup is the newest), and what the release story asks.
EXECUTIONS = 16
TRANSACTIONS = 2


def test_a_fresh_host_gets_its_packages_at_once(vps):
    history = vps.host.shell("grep -A1 ^Start-Date /var/log/apt/history.log")
    assert 1 <= history.count("Start-Date") <= TRANSACTIONS, history
    assert "nginx" in history and "postgresql" in history


def test_site_ends_with_a_release_that_was_migrated_before_it_started(vps):
    serving = vps.host.serving()
    serving.check()
    assert vps.host.runs(serving.live) == 1 and vps.host.marked(serving.live)
    entry = vps.host.journal()["releases"][serving.live]
    assert entry["staged_at"] < entry["migrated_at"] < entry["proven_at"]


def test_an_unchanged_site_changes_nothing_and_asks_little(vps, tmp_path):
    counts = tmp_path / "executions"
    before = vps.host.serving()
    again = vps.apps.run("site", ANSIBLE_CALLBACKS_ENABLED="count_executions", COUNT_EXECUTIONS=str(counts))
    assert again.changed == 0, again.output
    assert vps.host.serving() == before
    words = [line.split()[0] for line in pathlib.Path(counts).read_text().splitlines()]
    assert 0 < words.count("exec") <= EXECUTIONS, f"{words.count('exec')} remote executions and {words.count('put')} files"
    assert words.count("put") == 0, "pipelining sends no file"


@pytest.mark.fault
def test_check_mode_predicts_a_release_and_changes_nothing(shop):
    before, journal = shop.host.serving(), shop.host.journal()
    shop.apps.app("alpha")
    predicted = shop.apps.run("site", "--check", "--diff")
    assert predicted.changed > 0
    assert shop.host.serving() == before and shop.host.journal() == journal
