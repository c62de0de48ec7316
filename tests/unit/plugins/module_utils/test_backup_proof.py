# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_proof
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import GAP, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.database import Database
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.scratch_cluster import Recovered
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .backup_samples import KEY, OFFSITE, document
from .health_fakes import FakeWorld

LABEL = "20261130-051454F"
SEGMENTS = [f"0000000100000000000000{number:02X}" for number in range(2, 6)]
DIGEST = "7b4947cbc49ebb5ffc014c133a64d5974b33c0a7"

VERIFIED = """\
stanza: main
status: ok
  archiveId: 17-1, total WAL checked: 4, total valid WAL: 4
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261130-051454F, status: valid, total files checked: 1273, total valid files: 1273
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""

INVALID = """\
stanza: main
status: error
  archiveId: 17-1, total WAL checked: 3, total valid WAL: 2
    checksum invalid: 1
  backup: 20261130-051454F, status: invalid, total files checked: 1273, total valid files: 1270
    missing: 2, checksum invalid: 1
"""


class Host(FakeWorld):
    """A live cluster with one table, a repository, and a copy that is as good as the test says."""

    def __init__(self):
        super().__init__(commands=self.answer)
        self.up = True
        self.rows = {"live": [3, 3], "copy": [3]}
        self.segments = [*SEGMENTS]
        self.arrives = True
        self.verified = [VERIFIED]
        self.amcheck = Completed(0, "", "")
        self.databases = ["postgres", "shop"]
        self.inserted = [0]
        self.full = 0
        self.busy = []

    def status(self):
        return {"code": 0, "lock": {"backup": {"held": self.busy.pop(0) if self.busy else False}}}

    def row(self):
        counter = self.inserted.pop(0) if len(self.inserted) > 1 else self.inserted[0]
        return {"name": "public.item", "plain": True, "estimated": 3, "bytes": 8192, "inserted": counter, "updated": 0, "deleted": 0}

    def answer(self, call):
        words, sql = call["argv"], call["input"] or ""
        where = "copy" if "socket" in (call["env"] or {}).get("PGHOST", "") else "live"
        if words[0] == "psql":
            if not self.up and where == "live":
                return Completed(2, "", "connection refused")
            return Completed(0, f"{self.psql(sql, where, call['env']['PGDATABASE'])}\n", "")
        if "info" in words:
            known = {"label": LABEL, "type": "full", "info": {"size": 1, "repository": {"delta": 1 << 20}}, "archive": {"start": SEGMENTS[self.full]}}
            archive = [{"id": "17-1", "min": self.segments[0], "max": self.segments[-1]}]
            old = {**known, "archive": {"start": SEGMENTS[0]}}
            return Completed(0, json.dumps([{"name": "main", "status": self.status(), "repo": [], "backup": [old, known], "archive": archive}]), "")
        if "repo-ls" in words:
            return Completed(0, "\n".join(f"17-1/{name[:16]}/{name}-{DIGEST}.zst" for name in self.segments), "")
        if "verify" in words:
            return Completed(0, self.verified.pop(0) if len(self.verified) > 1 else self.verified[0], "")
        if any(word.endswith("pg_amcheck") for word in words):
            return self.amcheck
        return Completed(0, "", "")

    def psql(self, sql, where, database):
        if "pg_is_in_recovery" in sql:
            return "f"
        if "pg_database_size" in sql:
            return "4711"
        if "FROM pg_database" in sql:
            return json.dumps(self.databases if where == "copy" else [{"name": name} for name in ("postgres", "shop")])
        if "pg_create_restore_point" in sql:
            if self.arrives:
                self.segments.append("000000010000000000000006")
            return "000000010000000000000006"
        if "last_failed_wal" in sql:
            return "000000010000000000000006 at 2026-11-30"
        if "FROM pg_stat_archiver" in sql:
            return "42"
        if "wal_segment_size" in sql:
            return str(16 << 20)
        if "json_agg(q)" in sql:
            return json.dumps([self.row()] if database == "shop" else [])
        if "json_build_object" in sql:
            rows = self.rows[where].pop(0) if len(self.rows[where]) > 1 else self.rows[where][0]
            return json.dumps({"name": "public.item", "rows": rows, "sample": []})
        if "to_regclass" in sql:
            return "t"
        if "FROM anchorage.release" in sql:
            return "shop r1"
        return ""


class Copy:
    """A throw-away server that never is one."""

    def __init__(self, world, version, *, cluster, patience):
        self.world, self.programs, self.error, self.newest = world, "/usr/lib/postgresql/17/bin", None, 1_700_000_900.0
        self.log, self.wanted, self.lsn = [], None, "0/6004BF0"
        Copy.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.log.append("removed")

    def restore(self, settings, target, *, name, need_bytes, seconds):
        self.wanted, self.need = name, need_bytes
        if Copy.error:
            raise AnchorageError(Copy.error)
        return {"label": LABEL}

    def start(self, seconds):
        return Recovered(1.0, Copy.lsn, self.newest, 2)

    @property
    def environment(self):
        return {"PGHOST": "/scratch/socket"}

    def database(self, name):
        made = Database(self.world, "postgres://postgres@localhost/x")
        made.environment = {**self.environment, "PGDATABASE": name}
        return made

    def psql(self, database, sql):
        return self.database(database).execute(sql)

    def databases(self):
        return json.loads(self.psql("postgres", "SELECT FROM pg_database"))


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(backup_proof, "Scratch", Copy)
    Copy.error, Copy.lsn = None, "0/6004BF0"
    return Host()


def prove(host, target="local", **changes):
    settings = Settings.parse(document(targets=[document()["targets"][0], OFFSITE], **changes), KEY)
    return backup_proof.prove(settings, host, Log(lambda line: None), job="database", target=target)


def test_a_good_backup_is_restored_to_a_point_that_was_just_set(host):
    found = prove(host)
    assert found["ok"] is True and found["cause"] == ""
    assert found["finished"] == host.now()
    what = found["what"]
    assert Copy.last.need == 4711
    assert Copy.last.wanted.startswith("anchorage-proof-") and Copy.last.log == ["removed"]
    assert what["backup"] == LABEL and what["compared"] is True and what["archived_seconds_ago"] == 42
    assert what["databases"]["shop"] == {"tables": 1, "rows": 3, "sampled": 0, "equal": 1, "moving": [], "skipped": []}
    assert what["amcheck"] == "clean" and what["verified"] == "clean" and what["segments"] == 5
    assert KEY not in str(found)


def test_wal_that_does_not_arrive_is_named(host):
    host.arrives = False
    found = prove(host)
    assert found["ok"] is False
    assert "WAL does not reach local: segment 000000010000000000000006 was not there after 180 s, the newest one is 000000010000000000000005" in found["cause"]
    assert "could not archive 000000010000000000000006" in found["cause"]
    assert 180 <= host.clock - 1000 < 200


def test_a_backup_that_cannot_be_restored_is_a_result_and_no_error(host):
    Copy.error = "The restored server ended: recovery ended before configured recovery target was reached"
    found = prove(host)
    assert found["ok"] is False and "recovery ended before" in found["cause"] and "given up" not in found["cause"]
    host.files[GAP] = "1700000000 000000010000000000000003\n"
    assert "WAL was given up on this host" in prove(host)["cause"]


def test_a_copy_that_has_less_is_found(host):
    host.rows["copy"] = [2]
    assert prove(host)["cause"] == "table public.item of shop: it has 2 rows, and 3 were to be there"


def test_a_table_whose_counters_come_late_is_no_alarm(host):
    host.rows = {"live": [3, 3], "copy": [4]}
    # The ways, the counters before, those after, the copy's own, and those that are asked when something differs.
    host.inserted = [0, 0, 0, 0, 2]
    found = prove(host)
    assert found["ok"], found["cause"]
    assert found["what"]["databases"]["shop"]["moving"] == ["public.item"]
    assert any(seconds > 10 for seconds in host.slept)


def test_a_database_that_is_missing_is_found(host):
    host.databases = ["postgres"]
    assert "the database shop is not in the restored cluster" in prove(host)["cause"]


def test_damage_in_the_data_is_found(host):
    host.amcheck = Completed(2, 'btree index "shop.public.item_pkey":\n    ERROR:  item order invariant violated\n', "")
    assert 'pg_amcheck found damage in the restored data: btree index "shop.public.item_pkey":' in prove(host)["cause"]
    host.amcheck = Completed(1, "", "pg_amcheck: error: could not connect")
    found = prove(host)
    assert found["ok"] and found["what"]["amcheck"].startswith("not run: ")


def test_without_the_live_server_the_copy_is_judged_by_itself(host):
    host.up = False
    Copy.lsn = "0/50000F8"
    found = prove(host)
    assert found["ok"], found["cause"]
    assert Copy.last.wanted is None and found["what"]["compared"] is False
    assert found["what"]["databases"]["shop"]["newest_release"] == "shop r1"
    assert found["what"]["newest"] == 1_700_000_900.0 and found["what"]["age_seconds"] == 100
    Copy.lsn = "0/3004BF0"
    assert "recovery ended at 0/3004BF0, though the archive reaches to segment 000000010000000000000005" in prove(host)["cause"]


def test_wal_that_is_missing_in_between_is_named(host):
    del host.segments[1]
    assert "1 segments of WAL are missing at local, so no moment between is to be had: 000000010000000000000003" in prove(host)["cause"]


def test_a_gap_that_a_full_backup_has_closed_is_told_and_no_alarm(host):
    del host.segments[1]
    host.full = 2
    found = prove(host)
    assert found["ok"], found["cause"]
    assert found["what"]["gaps"] == ["000000010000000000000003"]


def test_a_repository_that_is_damaged_elsewhere_is_found(host):
    host.verified = [INVALID]
    assert "files at local are damaged: archiveId: 17-1: 1 checksum invalid; backup: 20261130-051454F: 2 missing, 1 checksum invalid" in prove(host)["cause"]


def test_what_a_backup_under_way_removes_is_no_alarm(host):
    host.verified = [INVALID, VERIFIED]
    host.busy = [False, False, True, True]
    found = prove(host)
    assert found["ok"], found["cause"]
    assert not host.busy and host.slept.count(5) >= 1


def test_what_nobody_foresaw_is_a_result_too(host):
    host.databases = None
    found = prove(host)
    assert found["ok"] is False and "the proof could not be led to its end: TypeError" in found["cause"]


def test_a_target_that_is_not_there_is_a_result_too(host):
    assert "There is no target 'nowhere'" in prove(host, target="nowhere")["cause"]
    assert "No cluster of this host is archived" in prove(host, archive=None)["cause"]


@pytest.mark.parametrize(
    ("segments", "first", "gone"),
    [
        (SEGMENTS, SEGMENTS[0], []),
        ([SEGMENTS[0], SEGMENTS[3]], SEGMENTS[0], SEGMENTS[1:3]),
        # What lies before the oldest backup does not matter.
        (["000000010000000000000001", *SEGMENTS[2:]], SEGMENTS[2], []),
        # Over the end of a log's 256 segments.
        (["0000000100000000000000FE", "000000010000000100000001"], "0000000100000000000000FE", ["0000000100000000000000FF", "000000010000000100000000"]),
        # A new timeline begins where the old one was left.
        (["000000010000000000000002", "000000010000000000000003", "000000020000000000000003", "000000020000000000000004"], SEGMENTS[0], []),
        (["000000010000000000000002", "000000020000000000000003", "000000020000000000000005"], SEGMENTS[0], ["000000020000000000000004"]),
        ([], SEGMENTS[0], []),
    ],
)
def test_segments_that_are_missing_are_counted_within_a_timeline(segments, first, gone):
    assert backup_proof.missing(segments, 16 << 20, first=first) == gone


def test_segments_of_another_size_are_counted_by_it():
    assert backup_proof.missing(["00000001000000000000003E", "000000010000000100000001"], 64 << 20, first="000000010000000000000000") == [
        "00000001000000000000003F",
        "000000010000000100000000",
    ]
    assert backup_proof.segment_number("1/8000000", 64 << 20) == backup_proof.number_of("000000010000000100000002", 64 << 20)


def test_what_verify_finds_is_read_from_its_words():
    assert backup_proof.complaints(VERIFIED) == []
    assert backup_proof.complaints("stanza: main\n  backup: x, status: invalid, total files checked: 0\n") == ["backup: x: invalid"]
