# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_probe, backup_results, backup_settings, restore_journal
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import GAP, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .backup_samples import KEY, LOCAL, OFFSITE, document, ring
from .health_fakes import FakeWorld

STATUS = "/var/lib/postgresql/17/main/pg_wal/archive_status"


class Host(FakeWorld):
    """Files with times."""

    def __init__(self):
        super().__init__()
        self.times = {}
        self.files[backup_settings.SETTINGS] = json.dumps(document())
        self.files[backup_settings.KEY] = json.dumps({"key": KEY})
        for job in ("database", "files"):
            self.leave(job)

    def leave(self, job, **changes):
        good = {"ok": True, "finished": self.now() - 60, "proof": {"ok": True, "finished": self.now() - 3600, "cause": ""}}
        self.files[backup_results.path(job)] = json.dumps({**good, **changes})

    def modified(self, path):
        return self.times.get(path)

    def wait(self, *ages):
        for number, age in enumerate(ages):
            path = f"{STATUS}/00000001000000000000000{number}.ready"
            self.files[path], self.times[path] = "", self.now() - age


def told(world):
    return backup_probe.check(world)


def test_a_host_whose_backups_are_good():
    found = told(Host())
    assert found.healthy and found.grade == "ok" and "database 0 h old, files 0 h old" in found.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda host: host.leave("files", ok=False, cause="local: it is away"), "the last backup failed 0 h ago (local: it is away)"),
        (lambda host: host.leave("database", finished=host.now() - 27 * 3600), "the last backup is 27 h old, the limit is 26 h"),
        (lambda host: host.leave("files", proof={"ok": False, "finished": host.now()}), "the last proof of a restore failed"),
        (lambda host: host.leave("files", proof=None), "no restore of it was ever proven"),
        (lambda host: host.files.pop(backup_results.path("files")), "there was no backup yet"),
        (lambda host: host.wait(10, 400), "WAL has not reached its target for 7 min: 2 segments (32 MB) wait in pg_wal"),
        (lambda host: host.files.update({GAP: f"{host.now() - 120:.0f} 0000000100000000000000AA\n"}), "WAL was given up 2 min ago"),
        (lambda host: host.files.update({backup_settings.SETTINGS: "{"}), "is damaged"),
        (lambda host: host.files.pop(backup_settings.KEY), "The key of the backups"),
    ],
)
def test_what_is_wrong_is_red_and_named(change, words):
    host = Host()
    change(host)
    found = told(host)
    assert not found.healthy and words in found.message and "Look next at:" in found.message


def test_wal_that_waits_for_one_target_is_red_by_its_name():
    host = Host()
    path = f"{backup_settings.QUEUE}/offsite/000000010000000000000001"
    host.files[path], host.times[path] = "", host.now() - 600
    assert not told(host).healthy and "WAL has not reached offsite for 10 min: 1 segments (16 MB) wait" in told(host).message
    host.times[path] = host.now() - 60
    assert told(host).healthy


def test_wal_that_has_just_been_written_is_on_its_way():
    host = Host()
    host.wait(10, 290)
    assert told(host).healthy


def test_a_doubted_clock_is_a_warning():
    host = Host()
    host.leave("files", clock_doubted=True)
    assert told(host).grade == "warn" and "of files the time does not follow" in told(host).message


def test_without_an_archive_no_wal_is_judged():
    host = Host()
    host.files[backup_settings.SETTINGS] = json.dumps(document(archive=None))
    host.wait(4000)
    assert told(host).healthy


def test_a_restore_that_was_cut_off_is_red_until_it_is_finished():
    host = Host()
    journal = {"schema": 1, "step": "restore", "id": "20261130T050000Z", "under_way": True, "done": [], "aside": []}
    host.files[restore_journal.PATH] = json.dumps(journal)
    found = told(host)
    assert not found.healthy and "a restore (20261130T050000Z) was cut off" in found.message and "anchorage restore --resume" in found.message
    host.commands = lambda call: Completed(0, "active", "")
    assert told(host).healthy
    host.files[restore_journal.PATH] = json.dumps({**journal, "under_way": False})
    host.commands = None
    assert told(host).healthy


@pytest.mark.parametrize(("hours", "verdict"), [(2, "ok"), (25, "warn")])
def test_a_rotation_of_the_key_that_was_left_half_way_is_a_warning(hours, verdict):
    host = Host()
    rotation = {"id": "3f2a", "began_at": host.now() - hours * 3600, "phase": "save"}
    host.files[backup_settings.KEY] = json.dumps({**ring(None).as_dict(), "rotation": rotation})
    (check,) = backup_probe.judge_rotation(host)
    assert check.verdict == verdict and told(host).healthy
    assert verdict == "ok" or ("has been under way for 25 h" in check.cause and check.advice == "rotate_backup_key.yml")


def test_backups_on_this_machine_alone_go_with_it():
    here = backup_probe.judge_places(Settings.parse(document(), KEY))
    assert here.verdict == "warn" and "goes with it" in here.cause
    assert backup_probe.judge_places(Settings.parse(document(targets=[LOCAL, OFFSITE]), KEY)).verdict == "ok"
