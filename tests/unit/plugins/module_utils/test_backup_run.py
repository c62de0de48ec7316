# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_results, backup_run
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_run import doubtful_clock, due, gap, kind, lock, run
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import DATABASE, FILES, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_fakes import NOW, SNAPSHOT, backup
from .backup_samples import KEY, LOCAL, OFFSITE, PLACE, VAULT, document, ring

DAY = 86400
FULL = "[055]: unable to write"


@pytest.fixture
def host(tmp_path, monkeypatch):
    return backup_fakes.place(tmp_path, monkeypatch)


@pytest.fixture
def log():
    return Log(lambda line: None)


def settings(tmp_path, **changes):
    (tmp_path / "etc").mkdir(exist_ok=True)
    return Settings.parse(document(**{"paths": [str(tmp_path / "etc"), str(tmp_path / "none")], **changes}), KEY)


# ---- the cluster


def test_a_new_target_gets_a_stanza_and_a_full_backup(host, log, tmp_path):
    host.stanza = False
    found = run(settings(tmp_path), host, log, DATABASE)
    assert found["ok"] and found["targets"]["local"]["kind"] == "full" and found["targets"]["local"]["backup"] == "new-full-0" and found["bytes"] == 30 << 20
    assert backup_results.read(host, DATABASE) == found and not pathlib.Path(backup_results.mark(DATABASE)).exists()
    assert any("stanza-create" in words for words in host.words("pgbackrest"))


def test_it_runs_as_postgres_and_its_words_hold_no_key(host, log, tmp_path):
    run(settings(tmp_path), host, log, DATABASE)
    calls = [call for call in host.ran if call["argv"][0] == "pgbackrest"]
    assert {call["user"] for call in calls} == {"postgres"} and {call["cwd"] for call in calls} == {"/"}
    assert all(KEY not in " ".join(call["argv"]) for call in calls)


@pytest.mark.parametrize(
    ("backups", "gap", "wanted"),
    [
        ([], None, "full"),
        ([backup("a", at=NOW - DAY)], None, "incr"),
        ([backup("a", at=NOW - 8 * DAY)], None, "full"),
        ([backup("a", at=NOW - DAY, error=True)], None, "full"),
        ([backup("a", at=NOW - DAY, kind="incr")], None, "full"),
        ([backup("a", at=NOW + DAY)], None, "full"),
        ([backup("a", at=NOW - DAY)], NOW - 3600, "full"),
        ([backup("a", at=NOW - DAY)], NOW - 2 * DAY, "incr"),
    ],
)
def test_a_full_backup_is_made_when_there_is_no_good_young_one_or_wal_was_lost_since(backups, gap, wanted):
    assert kind({"backup": backups}, now=NOW, full_days=7, gap=gap) == wanted


def test_what_is_old_goes_after_a_good_backup_only(host, log, tmp_path):
    host.broken["--type="] = Completed(55, "", f"ERROR: {FULL} '/x': No space left on device\n")
    found = run(settings(tmp_path), host, log, DATABASE)
    assert not found["ok"] and found["cause"] == f"local: pgBackRest failed at local: {FULL} '/x': No space left on device."
    assert not any("expire" in words for words in host.words("pgbackrest"))
    host.broken.clear()
    assert run(settings(tmp_path), host, log, DATABASE)["ok"] and any("expire" in words for words in host.words("pgbackrest"))


def test_a_backup_that_pgbackrest_claims_and_nobody_finds_is_none(host, log, tmp_path, monkeypatch):
    host.broken["--type="] = Completed(0, "", "")
    found = run(settings(tmp_path), host, log, DATABASE)
    assert not found["ok"] and "local has no new backup" in found["cause"]


def test_one_target_that_fails_keeps_the_other_from_nothing(host, log, tmp_path):
    host.broken["--repo=1 & info"] = Completed(
        0, json.dumps([{"repo": [{"status": {"code": 99, "message": "[FileOpenError] it is away"}}], "status": {"code": 99}}]), ""
    )
    found = run(settings(tmp_path, targets=[LOCAL, OFFSITE]), host, log, DATABASE)
    assert not found["ok"] and found["cause"] == "local: The target local does not answer: [FileOpenError] it is away."
    assert found["targets"]["offsite"]["ok"] and found["targets"]["offsite"]["last_good"] == NOW and found["targets"]["local"]["last_good"] is None


def test_the_target_of_another_cluster_is_told_with_the_way_to_its_data(host, log, tmp_path):
    said = "ERROR: [051]: PostgreSQL version 17, system-id 1 do not match stanza version 17, system-id 2\n       HINT: is this the correct stanza?\n"
    told = []
    host.broken["--type="] = Completed(51, "", said)
    found = run(settings(tmp_path), host, Log(told.append), DATABASE)
    assert "system-id 1 do not match" in found["cause"] and any("recover.yml" in line for line in told)


def test_a_gap_is_closed_by_full_backups_at_every_target(host, log, tmp_path):
    host.backups = [backup("a", at=NOW - DAY)]
    (tmp_path / "gap").write_text(f"{NOW - 60:.0f} 0000000100000000000000AA\nrubbish\n")
    assert gap(host) == NOW - 60
    assert run(settings(tmp_path), host, log, DATABASE)["targets"]["local"]["kind"] == "full" and gap(host) is None


def test_a_gap_stays_where_a_target_has_no_full_backup_of_what_came_after(host, log, tmp_path):
    (tmp_path / "gap").write_text(f"{NOW - 60:.0f} 0000000100000000000000AA\n")
    host.broken["--repo=2 & --type="] = Completed(1, "", "ERROR: [001]: no\n")
    run(settings(tmp_path, targets=[LOCAL, OFFSITE]), host, log, DATABASE)
    assert gap(host) == NOW - 60


# ---- everything else


def test_files_snapshots_and_a_manifest_are_saved_together_and_the_staging_is_gone(host, log, tmp_path, monkeypatch):
    seen = {}
    save = host._restic

    def look(argv, call):
        if "backup" in argv:
            seen.update(json.loads((tmp_path / "backup" / "stage" / "manifest.json").read_text()))
        return save(argv, call)

    monkeypatch.setattr(host, "_restic", look)
    found = run(settings(tmp_path), host, log, FILES)
    assert found["ok"] and found["targets"]["local"] == {
        "ok": True,
        "cause": "",
        "backup": SNAPSHOT,
        "bytes": 5 << 20,
        "added": 1 << 20,
        "pruned": NOW,
        "last_good": NOW,
    }
    assert host.saved == [backup_run.STAGE, str(tmp_path / "etc")] and not pathlib.Path(backup_run.STAGE).exists()
    assert seen["redis"]["shop-jobs"]["keys"] == 7 and seen["databases"] == {}
    assert "--exclude=/var/lib/anchorage/backup" in next(words for words in host.words("restic") if "backup" in words)


def test_a_target_without_the_archive_gets_dumps(host, log, tmp_path, monkeypatch):
    found = run(settings(tmp_path, targets=[LOCAL, VAULT]), host, log, FILES)
    assert found["ok"] and any("--snapshot=00000003-0000001B-1" in words for words in host.words("pg_dump"))


def test_what_cannot_be_dumped_is_told_and_the_rest_is_saved(host, log, tmp_path):
    host.broken["--rdb"] = Completed(1, "", "Could not connect to Redis at /run/redis-shop-jobs/redis.sock: No such file or directory\n")
    found = run(settings(tmp_path), host, log, FILES)
    assert not found["ok"] and "There is no snapshot of Redis shop-jobs: Could not connect" in found["cause"]
    assert found["targets"]["local"]["ok"] and host.saved


@pytest.mark.parametrize("job", [DATABASE, FILES])
def test_a_repository_that_was_there_and_is_gone_is_not_made_again_unasked(host, log, tmp_path, job):
    """An empty mount point would take its place, and nobody would miss what was there."""
    told = []
    assert run(settings(tmp_path), host, log, job)["ok"]
    host.repositories.clear()
    host.stanza, host.backups = False, []
    host.ran.clear()
    found = run(settings(tmp_path), host, Log(told.append), job)
    assert found["cause"] == "local: The repository at local, which was there before, is gone" and any(f"run --anew {job}" in line for line in told)
    assert not any("init" in words or "stanza-create" in words for words in (call["argv"] for call in host.ran))
    assert run(settings(tmp_path), host, log, job, anew=True)["ok"]


def test_a_repository_that_is_not_there_is_made_and_one_of_another_key_is_not(host, log, tmp_path):
    assert run(settings(tmp_path), host, log, FILES)["ok"] and sum("init" in words for words in host.words("restic")) == 1
    assert run(settings(tmp_path), host, log, FILES)["ok"] and sum("init" in words for words in host.words("restic")) == 1
    host.broken["cat config"] = Completed(12, "", "Fatal: wrong password or no key found\n")
    found = run(settings(tmp_path), host, log, FILES)
    assert "this host's key does not open it" in found["cause"] and sum("init" in words for words in host.words("restic")) == 1


def test_an_old_restic_says_the_same_with_other_words(host, log, tmp_path):
    host.broken["cat config"] = Completed(
        1, "", "Fatal: unable to open config file: stat /x: no such file\nIs there a repository at the following location?\n/x\n"
    )
    assert run(settings(tmp_path), host, log, FILES)["ok"] and any("init" in words for words in host.words("restic"))


def test_files_that_could_not_be_read_are_no_good_backup(host, log, tmp_path):
    message = '{"message_type":"error","error":{"message":"open /etc/x: permission denied"}}\n'
    host.broken["--json --tag"] = Completed(3, json.dumps(host.summary), message)
    found = run(settings(tmp_path), host, log, FILES)
    assert not found["ok"] and "open /etc/x: permission denied" in found["cause"]
    assert not any("forget" in words for words in host.words("restic"))


def test_an_append_only_target_is_never_asked_to_forget(host, log, tmp_path):
    run(settings(tmp_path, targets=[VAULT]), host, log, FILES)
    assert not any("forget" in words for words in host.words("restic"))


def test_what_is_old_is_forgotten_every_time_and_its_room_freed_once_a_day(host, log, tmp_path):
    wanted = settings(tmp_path, redis=[])
    for hours, pruned in ((0, True), (1, False), (22, False), (1, True)):
        host.clock += hours * 3600
        host.ran.clear()
        run(wanted, host, log, FILES)
        (words,) = [words for words in host.words("restic") if "forget" in words]
        assert ("--prune" in words) is pruned and "--keep-within-daily=30d" in words and "--group-by=host,tags" in words


@pytest.mark.parametrize(
    ("before", "synchronised", "doubted"),
    [
        ({}, False, False),
        ({"finished": NOW - 3600}, False, False),
        ({"finished": NOW + 60}, False, True),
        ({"finished": NOW - 9 * DAY}, False, True),
        ({"finished": NOW - 9 * DAY}, True, False),
        ({"finished": NOW - 3600, "clock_doubted": True}, False, True),
        ({"finished": NOW - 3600, "clock_doubted": True}, True, False),
    ],
)
def test_a_time_that_does_not_follow_is_doubted_until_a_time_server_confirms_it(before, synchronised, doubted):
    assert doubtful_clock(before, NOW, lambda: synchronised) is doubted


@pytest.mark.parametrize("job", [DATABASE, FILES])
def test_by_a_clock_that_jumped_nothing_old_is_removed_in_that_run_and_those_after_it(host, log, tmp_path, job):
    def removes():
        host.ran.clear()
        assert run(settings(tmp_path), host, log, job)["ok"]
        return any("forget" in words or "expire" in words for words in (call["argv"] for call in host.ran))

    assert removes()
    host.clock += 400 * DAY
    assert not removes()
    host.clock += 3600
    assert not removes() and backup_results.read(host, job)["clock_doubted"]
    host.broken["timedatectl"] = Completed(0, "yes\n", "")
    assert removes() and not backup_results.read(host, job)["clock_doubted"]


# ---- runs beside each other, and what is due


def test_of_two_runs_of_a_job_the_second_is_refused_by_name(host, log, tmp_path):
    with lock(host, FILES), pytest.raises(AnchorageError, match="Another run of the backup job files is under way") as error:
        run(settings(tmp_path), host, log, FILES)
    assert "journalctl" in error.value.next_step
    assert run(settings(tmp_path), host, log, FILES)["ok"]


def test_due_is_what_has_no_good_young_result(host, log, tmp_path):
    wanted = settings(tmp_path)
    assert due(wanted, host) == [DATABASE, FILES]
    run(wanted, host, log, FILES)
    assert due(wanted, host) == [DATABASE]
    host.clock += 4 * 3600
    assert due(wanted, host) == [DATABASE, FILES]
    host.broken["--rdb"] = Completed(1, "", "no\n")
    run(wanted, host, log, FILES)
    assert FILES in due(wanted, host)


# ---- with a new key


def rotated(tmp_path):
    (tmp_path / "etc").mkdir(exist_ok=True)
    return Settings.parse(document(paths=[str(tmp_path / "etc")], keys=ring(None).told), ring(None))


@pytest.mark.parametrize("job", [DATABASE, FILES])
def test_a_new_key_makes_everything_due_and_begins_anew_without_being_asked(host, log, tmp_path, job):
    run(settings(tmp_path), host, log, job)
    assert due(settings(tmp_path), host) == [other for other in (DATABASE, FILES) if other != job]
    assert job in due(rotated(tmp_path), host)
    host.stanza, host.backups, host.ran = False, [], []
    found = run(rotated(tmp_path), host, log, job)
    assert found["ok"] and found["targets"]["local"]["place"] == PLACE and list(found["targets"]) == ["local"] and job not in due(rotated(tmp_path), host)
    if job == DATABASE:
        (create,) = [words for words in host.words("pgbackrest") if "stanza-create" in words]
        assert create == ["pgbackrest", "--config=/etc/pgbackrest/anchorage-local.conf", "--stanza=main", "stanza-create"]
    else:
        assert f"--repo=/var/backups/anchorage/files-{PLACE}" in host.repositories


def test_once_it_was_there_a_repository_of_the_new_key_is_missed_as_any_other(host, log, tmp_path):
    host.broken["init"] = Completed(1, "", "Fatal: no space\n")
    run(settings(tmp_path), host, log, FILES)
    bad = run(rotated(tmp_path), host, log, FILES)
    assert not bad["ok"] and bad["targets"]["local"]["last_good"] is None, "that the former one was good says nothing of it"
    host.broken.clear()
    assert run(rotated(tmp_path), host, log, FILES)["ok"]
    host.repositories.clear()
    assert "which was there before, is gone" in run(rotated(tmp_path), host, log, FILES)["cause"]
