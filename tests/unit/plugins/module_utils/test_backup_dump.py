# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_dump import address, dump, snapshot
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Database, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_samples import KEY, document

SETTINGS = Settings.parse(document(), KEY)
OWN = Database("shop", "archive", "shop", "shop")
PASSWORD = "sesame-open-sesame"
FAR = Database("shop", "dump", "shop", "shop", f"postgres://shop:{PASSWORD}@db.example.com:6543/shop")


@pytest.fixture
def host(tmp_path, monkeypatch):
    return backup_fakes.place(tmp_path, monkeypatch)


@pytest.fixture
def log():
    return Log(lambda line: None)


def test_root_enters_its_own_cluster_as_postgres_through_the_socket(host, log, tmp_path):
    assert address(OWN) == "postgresql://postgres@:5432/shop?host=/var/run/postgresql" and address(FAR) == FAR.url
    dump(SETTINGS, host, log, OWN, str(tmp_path / "shop.dump"))
    environment = next(call for call in host.ran if call["argv"][0] == "pg_dump" and "--version" not in call["argv"])["env"]
    assert (environment["PGHOST"], environment["PGUSER"], environment["PGPASSWORD"]) == ("/var/run/postgresql", "postgres", "")


def test_a_dump_and_the_counts_beside_it_are_of_one_snapshot(host, log, tmp_path):
    path = tmp_path / "shop.dump"
    found = dump(SETTINGS, host, log, FAR, str(path))
    assert found == {"bytes": 5, "sha256": hashlib.sha256(b"PGDMP").hexdigest(), "tables": {"public.item": 42}, "server": 17}
    (call,) = [call for call in host.ran if call["argv"][0] == "pg_dump" and "--version" not in call["argv"]]
    assert "--snapshot=00000003-0000001B-1" in call["argv"] and "--lock-wait-timeout=60s" in call["argv"] and call["timeout"] == 7200
    assert PASSWORD not in " ".join(call["argv"]) and call["env"]["PGPASSWORD"] == PASSWORD and call["env"]["PGPORT"] == "6543"


def test_no_migration_runs_meanwhile(host, log, tmp_path, monkeypatch):
    conversations = []
    real = host.converse
    monkeypatch.setattr(host, "converse", lambda argv, env: conversations.append(real(argv, env=env)) or conversations[-1])
    asked = []

    def look(argv, call):
        asked.append([conversation.stdin.getvalue() for conversation in conversations[:1]])
        return backup_fakes.Host._pg_dump(host, argv, call)

    monkeypatch.setattr(host, "_pg_dump", look)
    dump(SETTINGS, host, log, OWN, str(tmp_path / "shop.dump"))
    assert "pg_try_advisory_lock(hashtext('anchorage'), hashtext(current_database()))" in asked[-1][0]


@pytest.mark.parametrize(
    ("words", "done", "cause"),
    [
        ("pg_dump --format", Completed(1, "", "pg_dump: error: permission denied for table x\n"), "pg_dump: error: permission denied for table x"),
        ("pg_dump --format", Completed(124, "", ""), "it took more than 7200 s"),
        ("pg_restore --list", Completed(1, "", "pg_restore: error: input file is too short\n"), "what was dumped cannot be read back"),
        ("pg_dump --version", Completed(0, "pg_dump (PostgreSQL) 16.2\n", ""), "pg_dump 16 of this host cannot read PostgreSQL 17"),
        ("pg_dump --version", Completed(127, "", ""), "pg_dump is missing of this host"),
        ("psql", Completed(2, "", "psql: error: connection refused\n"), "connection refused"),
    ],
)
def test_a_dump_that_fails_says_why_and_leaves_nothing(host, log, tmp_path, words, done, cause):
    host.broken[words] = done
    path = tmp_path / "shop.dump"
    with pytest.raises(AnchorageError, match=cause):
        dump(SETTINGS, host, log, OWN, str(path))
    assert not path.exists()


def test_a_dump_is_not_begun_without_room(host, log, tmp_path):
    host.free = 1
    with pytest.raises(AnchorageError, match="it needs 1 MiB in .*, and 0 MiB are free"):
        dump(SETTINGS, host, log, OWN, str(tmp_path / "shop.dump"))


def test_a_session_that_breaks_is_an_error_and_no_count(host, log, tmp_path):
    host.session = host.session[:2]
    with pytest.raises(AnchorageError, match="the connection broke"):
        dump(SETTINGS, host, log, OWN, str(tmp_path / "shop.dump"))


def test_a_snapshot_of_redis_is_read_back(host, log, tmp_path):
    path = tmp_path / "jobs.rdb"
    found = snapshot(host, log, SETTINGS.redis[0], str(path))
    assert found["keys"] == 7 and found["bytes"] == 9
    host.broken["redis-check-rdb"] = Completed(1, "--- RDB ERROR DETECTED ---\n", "")
    with pytest.raises(AnchorageError, match="There is no snapshot of Redis shop-jobs: --- RDB ERROR"):
        snapshot(host, log, SETTINGS.redis[0], str(path))
    assert not path.exists()
