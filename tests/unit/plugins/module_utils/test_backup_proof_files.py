# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import hashlib
import json
import os
import socket

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_proof, backup_proof_files
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_proof_files import STAGE, chosen, complaint, escaped, keys, moment
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.database import Database
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, VAULT, document

SNAPSHOT = "7caee0b5" * 8
AT = "2026-11-30T05:24:31.410578123+01:00"


class Host(World):
    """A repository that is a dictionary of files, brought back into a real directory."""

    def __init__(self, tmp_path):
        self.ran = []
        self.files = {f"{STAGE}/databases/shop.dump": b"PGDMP", f"{STAGE}/redis/shop-jobs.rdb": b"REDIS", f"{tmp_path}/live/upload [1].bin": b"picture"}
        self.manifest = {
            "at": 1.0,
            "databases": {"shop": {**weigh(b"PGDMP"), "tables": {"public.item": 3}, "server": 17}},
            "redis": {"shop-jobs": {**weigh(b"REDIS"), "keys": 40}},
        }
        self.answers = {}
        self.rows = {"public.item": 3, "public.new": 1}
        self.server = "17"
        self.size = 1 << 20

    def put(self, path, data):
        self.files[path] = data

    def run(self, argv, *, input=None, env=None, timeout=None, cwd=None, user=None):
        words = list(argv)
        self.ran.append(words)
        for word, answer in self.answers.items():
            if word in words:
                return answer
        if words[0] == "rm":
            return World.run(self, words)
        if "snapshots" in words:
            return Completed(0, json.dumps([{"id": SNAPSHOT, "time": AT}]), "")
        if "stats" in words:
            return Completed(0, json.dumps({"total_size": self.size}), "")
        saved = {**self.files, f"{STAGE}/manifest.json": json.dumps(self.manifest).encode() if isinstance(self.manifest, dict) else self.manifest}
        saved = {path: data for path, data in saved.items() if data is not None}
        if "ls" in words:
            rows = [
                {"struct_type": "snapshot"},
                *[{"type": "file", "path": path, "size": len(data), "mtime": self.mtime(path)} for path, data in saved.items()],
            ]
            return Completed(0, "\n".join(map(json.dumps, rows)), "")
        if "restore" in words:
            (target,) = [word.partition("=")[2] for word in words if word.startswith("--target=")]
            wanted = [word.partition("=")[2] for word in words if word.startswith("--include=")]
            for path, data in saved.items():
                if any(path == one.replace("\\", "") or path.startswith(f"{one}/") for one in wanted):
                    os.makedirs(os.path.dirname(f"{target}{path}"), exist_ok=True)
                    with open(f"{target}{path}", "wb") as stream:
                        stream.write(data)
            return Completed(0, "", "")
        if words[0] == "redis-check-rdb":
            return Completed(0, "[info] 40 keys read\n", "")
        if words[0] == "psql" and "json_agg" in input:
            return Completed(0, json.dumps([{"name": name, "quoted": name} for name in self.rows]), "")
        if words[0] == "psql" and "json_build_array" in input:
            return Completed(0, "\n".join(json.dumps([name, rows]) for name, rows in self.rows.items()), "")
        return Completed(0, "", "")

    def mtime(self, path):
        try:
            return f"{datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.timezone.utc).isoformat()}"
        except OSError:
            return AT

    def exists(self, path):
        return path == f"/usr/lib/postgresql/{self.server}/bin/postgres" or World.exists(self, path)

    def listdir(self, path):
        return [self.server] if path == "/usr/lib/postgresql" and self.server else []


def weigh(data):
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class Copy:
    def __init__(self, world, version, *, cluster, patience):
        self.world, self.version = world, version

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def initialise(self, *, need_bytes):
        assert need_bytes > 0

    def start(self, seconds):
        pass

    def psql(self, database, sql, **variables):
        return ""

    def database(self, name):
        return Database(self.world, f"postgres://postgres@localhost/{name}")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(backup_proof_files, "PLACE", str(tmp_path / "scratch-files"))
    monkeypatch.setattr(backup_proof_files, "Scratch", Copy)
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "upload [1].bin").write_bytes(b"picture")
    yield Host(tmp_path)
    assert not (tmp_path / "scratch-files").exists()


def prove(host, **changes):
    settings = Settings.parse(document(targets=[VAULT], **changes), KEY)
    return backup_proof.prove(settings, host, Log(lambda line: None), job="files", target="vault")


def test_a_good_snapshot_is_proven(host):
    found = prove(host)
    assert found["ok"], found["cause"]
    what = found["what"]
    assert what["backup"] == "7caee0b5" and what["newest"] == moment(AT) and what["read"] == "whole"
    assert what["redis"] == {"shop-jobs": 40}
    assert what["databases"]["shop"]["restored"] is True and what["databases"]["shop"]["rows"] == 4
    assert what["files"] == {"brought_back": 1, "equal_to_live": 1}


def test_the_target_is_read_without_a_lock_and_without_the_cache(host):
    prove(host)
    calls = [words for words in host.ran if "restic" in words]
    assert {"snapshots", "check", "ls", "restore"} <= {word for words in calls for word in words}
    assert all("--no-lock" in words and "--no-cache" in words for words in calls)
    assert f"--host={socket.gethostname()}" in str(calls[0])
    assert KEY not in str(host.ran)


def test_what_somebody_removes_meanwhile_is_no_alarm(host):
    answers = [Completed(1, "", "Fatal: repository contains errors\n"), Completed(0, "", "")]
    locks = ["abc\n", ""]
    run = host.run

    def answer(argv, **options):
        if "check" in argv:
            return answers.pop(0)
        if "locks" in argv:
            return Completed(0, locks.pop(0), "")
        return run(argv, **options)

    slept = []
    host.run, host.sleep = answer, slept.append
    found = prove(host)
    assert found["ok"], found["cause"]
    assert slept == [5] and not answers and not locks


def test_a_large_repository_behind_a_network_is_read_in_part(host):
    host.size = 100 << 30
    assert prove(host)["what"]["read"] == "part"
    assert [word for words in host.ran for word in words if word.startswith("--read-data")] == ["--read-data-subset=2048M"]


@pytest.mark.parametrize(
    ("word", "answer", "cause"),
    [
        ("snapshots", Completed(0, "null", ""), "the repository vault holds no snapshot of this host"),
        ("snapshots", Completed(1, "", "Fatal: wrong password or no key found\n"), "the key of this host does not open it"),
        (
            "check",
            Completed(1, "load indexes\npack 1234: not found\n", "Fatal: repository contains errors\n"),
            "is damaged: restic said: repository contains errors; pack 12",
        ),
        ("restore", Completed(1, "", "ciphertext verification failed\n"), "cannot be restored: restic said: ciphertext verification failed"),
        ("redis-check-rdb", Completed(1, "[offset 0] Checking\n--- RDB ERROR DETECTED ---\n", ""), "the Redis data of shop-jobs cannot be read"),
        ("redis-check-rdb", Completed(0, "[info] 7 keys read\n", ""), "the Redis data of shop-jobs hold 7 keys, and 40 were saved"),
        (
            "pg_restore",
            Completed(1, "", "pg_restore: error: unexpected end of file\n"),
            "the dump of shop cannot be restored: pg_restore: error: unexpected end",
        ),
    ],
)
def test_what_a_tool_finds_is_told(host, word, answer, cause):
    host.answers[word] = answer
    found = prove(host)
    assert found["ok"] is False and cause in found["cause"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda host: setattr(host, "manifest", None), "the snapshot has no manifest.json"),
        (lambda host: setattr(host, "manifest", b"{"), "manifest.json is damaged"),
        (lambda host: setattr(host, "manifest", b"[]"), "manifest.json is damaged"),
        (lambda host: host.put(f"{STAGE}/databases/shop.dump", b"PGDM"), "databases/shop.dump is not what the manifest says: 4 bytes for 5"),
        (lambda host: host.put(f"{STAGE}/databases/shop.dump", b"PGDMQ"), "databases/shop.dump is not what the manifest says"),
        (lambda host: host.put(f"{STAGE}/databases/shop.dump", None), "databases/shop.dump is missing in the snapshot"),
        (lambda host: host.put(f"{STAGE}/redis/shop-jobs.rdb", None), "redis/shop-jobs.rdb is missing in the snapshot"),
        (lambda host: host.manifest["databases"].clear(), "the manifest does not know databases/shop, which is to be backed up"),
        (lambda host: host.manifest["redis"].clear(), "the manifest does not know redis/shop-jobs"),
        (lambda host: host.rows.update({"public.item": 2}), "table public.item of shop has 2 rows, and 3 were saved"),
        (lambda host: host.rows.pop("public.item"), "table public.item is missing in the dump of shop"),
        (lambda host: host.manifest["databases"]["shop"].update(tables={}), "the manifest does not say which tables shop had"),
    ],
)
def test_a_stage_that_is_not_what_was_saved_is_found(host, change, cause):
    change(host)
    found = prove(host)
    assert found["ok"] is False and cause in found["cause"]


def test_a_file_that_came_back_with_other_bytes_is_found(host):
    (path,) = [path for path in host.files if path.endswith("upload [1].bin")]
    host.files[path] = b"pictura"
    # It is listed as the live one is: same size, same time.
    assert "came back with other bytes than the file on the host has" in prove(host)["cause"]


def test_a_file_that_changed_since_is_not_compared(host):
    (path,) = [path for path in host.files if path.endswith("upload [1].bin")]
    with open(path, "wb") as stream:
        stream.write(b"another picture")
    found = prove(host)
    assert found["ok"] and found["what"]["files"] == {"brought_back": 1, "equal_to_live": 0}


@pytest.mark.parametrize("server", ["", "15"])
def test_without_a_server_for_it_a_dump_is_read_and_not_restored(host, server):
    host.server = server
    found = prove(host)
    assert found["ok"] and found["what"]["databases"]["shop"] == {"restored": False}
    assert any("--file=/dev/null" in words for words in host.ran)


def test_a_sample_of_files_is_spread_and_bounded(monkeypatch):
    monkeypatch.setattr(backup_proof_files, "SAMPLE_FILES", 10)
    monkeypatch.setattr(backup_proof_files, "SAMPLE_BYTES", 50)
    listed = {f"/srv/{number:03}": {"size": 100 if number == 0 else 10} for number in range(100)} | {f"{STAGE}/manifest.json": {"size": 1}}
    assert list(chosen(listed)) == ["/srv/010", "/srv/020", "/srv/030", "/srv/040", "/srv/050"]


def test_a_path_means_just_itself():
    assert escaped("/srv/a [1]*?\\b") == "/srv/a \\[1\\]\\*\\?\\\\b"


def test_times_of_restic_have_nanoseconds():
    assert moment("2026-11-30T05:24:31.5Z") == moment("2026-11-30T06:24:31.500000000+01:00")
    assert moment("2026-11-30T05:24:31Z") == moment("2026-11-30T05:24:31.0Z")


def test_restic_is_quoted_in_either_of_its_languages():
    assert complaint(Completed(124, "", "")) == "it took too long"
    assert complaint(Completed(10, "", '{"message_type":"exit_error","code":10,"message":"Fatal: repository does not exist"}')) == "repository does not exist"
    assert complaint(Completed(1, "", "")) == "code 1"


def test_keys_are_counted_by_redis_check_rdb():
    assert keys("[info] 12 keys read\n[info] 0 expires\n") == 12
    assert keys("") is None
