# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.backup_list import lines, listing, seconds
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_fakes import NOW, backup
from .backup_samples import KEY, LOCAL, OFFSITE, document, ring


@pytest.fixture
def host(tmp_path, monkeypatch):
    return backup_fakes.place(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2026-11-30T05:24:40.123456789Z", 1796016280.123456), ("2026-11-30T06:24:40.1+01:00", 1796016280.1), ("2026-11-30T05:24:40Z", 1796016280.0)],
)
def test_times_of_restic_are_read_with_any_number_of_digits(text, wanted):
    assert seconds(text) == wanted


def test_each_target_is_asked_and_one_that_is_away_is_told_beside_the_others(host):
    host.backups = [backup("20261130-052628F", at=NOW)]
    snapshots = [
        {"short_id": "dd8e1102", "time": "2026-11-30T06:24:40Z", "hostname": "vps"},
        {"short_id": "0b6ae7e0", "time": "2026-11-30T05:24:40Z", "hostname": "vps"},
    ]
    host.broken["s3: & snapshots"] = Completed(1, "", "Fatal: dial tcp: connection refused\n")
    host.broken["snapshots"] = Completed(0, json.dumps(snapshots), "")
    found = listing(Settings.parse(document(targets=[LOCAL, OFFSITE]), KEY), host)
    assert [(place["job"], place["target"], [one["id"] for one in place["backups"]], place["problem"]) for place in found] == [
        ("database", "local", ["20261130-052628F"], ""),
        ("database", "offsite", ["20261130-052628F"], ""),
        ("files", "local", ["0b6ae7e0", "dd8e1102"], ""),
        ("files", "offsite", [], "The repository at offsite cannot be read: dial tcp: connection refused."),
    ]
    told = lines(found, lambda stamp: f"{stamp:.0f}")
    assert told[0] == "database at local: 1" and told[1] == f"  20261130-052628F  {NOW + 1:.0f}  full  30.0 MiB"


def test_a_damaged_backup_says_so(host):
    host.backups = [backup("20261130-052628F", error=True)]
    assert any("DAMAGED" in line for line in lines(listing(Settings.parse(document(), KEY), host), str))


@pytest.mark.parametrize(("until", "words"), [(5.0, "goes 5.0"), (None, "whose rotation is under way")])
def test_what_a_former_key_made_is_listed_with_the_time_when_it_goes(host, until, words):
    host.backups = [backup("20261130-052628F")]
    found = listing(Settings.parse(document(keys=ring(until).told), ring(until)), host)
    assert [place["target"] for place in found] == ["local", "local-before-2"] * 2 and found[1]["until"] == until
    told = lines(found, str)
    assert words in next(line for line in told if line.startswith("database at local-before-2")) and "former" not in told[0]
