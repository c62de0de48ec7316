# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import fcntl
import json
import os
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import scratch_cluster
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.room import Amount, Full
from ansible_collections.anchorage.vps.plugins.module_utils.scratch_cluster import (
    DAMAGED,
    MARKER,
    Recovered,
    Scratch,
    backups,
    caller,
    complaint,
    configuration,
    last_words,
    recovered,
    recovery_options,
    recovery_settings,
)
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, OFFSITE, document
from .health_fakes import FakeWorld

LABEL = "20261130-051454F"
INFO = {
    "name": "main",
    "status": {"code": 0, "message": "ok"},
    "repo": [{"key": 1, "status": {"code": 0, "message": "ok"}}],
    "backup": [{"label": LABEL, "info": {"size": 1000}}],
    "archive": [{"id": "17-1", "min": "000000010000000000000001", "max": "000000010000000000000004"}],
}

RESTORED = """\
LOG:  starting PostgreSQL 17.12 (Debian 17.12-0+deb13u1) on x86_64-pc-linux-gnu
LOG:  starting point-in-time recovery to "proof"
FATAL:  the database system is starting up
LOG:  restored log file "000000010000000000000002" from archive
LOG:  redo done at 0/6004BF0 system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.01 s
LOG:  last completed transaction was at log time 2026-11-30 05:15:30.978733+00
LOG:  selected new timeline ID: 2
LOG:  database system is ready to accept connections
"""


FETCHED = """\
2026-11-30 05:15:30.1 P00  ERROR: [029]: unable to get 000000010000000000000032:
                                    ChecksumError: invalid checksum
FATAL:  recovery ended before configured recovery target was reached
FATAL:  the database system is shutting down
"""

EARLY = "recovery ended before configured recovery target was reached"

GARBAGE = (
    "[FormatError] unable to load info file '/a' or '/a.copy':\nFormatError: key/value found outside of section at line 1: `\x01\x02\nFormatError: x\nHINT: y"
)


class Host(World):
    """A machine whose commands are written down, and whose files are real ones below a temporary directory."""

    def __init__(self):
        self.ran = []
        self.info = INFO
        self.answers = {}
        self.clock = 0.0
        self.log = RESTORED
        self.alive = "active"
        self.ready = 1

    def monotonic(self):
        return self.clock

    def sleep(self, seconds):
        self.clock += seconds

    def run(self, argv, *, input=None, env=None, timeout=None, cwd=None, user=None):
        words = list(argv)
        self.ran.append(types.SimpleNamespace(argv=words, env=env, user=user, cwd=cwd, input=input))
        for word, answer in self.answers.items():
            if word in words:
                return answer
        if words[0] == "install":
            os.makedirs(words[-1], exist_ok=True) if "-d" in words else open(words[-1], "w").close()
        if words[0] == "rm":
            return World.run(self, words)
        if "info" in words:
            return Completed(0, json.dumps([self.info]), "")
        if words[0] == "systemd-run":
            (log,) = [word.partition("append:")[2] for word in words if "StandardOutput" in word]
            with open(log, "w", encoding="utf-8") as stream:
                stream.write(self.log)
        if words[0] == "psql" and "pg_is_in_recovery" in input:
            self.ready -= 1
            return Completed(0, "f\n", "") if self.ready <= 0 else Completed(2, "", "the database system is starting up")
        if words[:2] == ["systemctl", "show"]:
            return Completed(0, f"{self.alive}\n", "")
        return Completed(0, "", "")

    def calls(self, word):
        return [call for call in self.ran if word in call.argv]


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def settings():
    return Settings.parse(document(targets=[document()["targets"][0], OFFSITE]), KEY)


@pytest.fixture
def scratch(host, tmp_path):
    return Scratch(host, "17", str(tmp_path / "backup" / "scratch"))


def filled(scratch):
    os.makedirs(scratch.data, exist_ok=True)
    return scratch


# ---- pure decisions --------------------------------------------------------------------------------------------------


def test_how_far_to_recover_is_said_in_one_of_four_ways():
    assert recovery_options() == ["--type=default"]
    assert recovery_options(backup=LABEL) == [f"--set={LABEL}", "--type=immediate", "--target-action=promote"]
    assert recovery_options(name="p1") == ["--type=name", "--target=p1", "--target-action=promote"]
    assert recovery_options(time="2026-11-30 05:15:29+01", backup=LABEL)[:3] == [f"--set={LABEL}", "--type=time", "--target=2026-11-30 05:15:29+01"]
    with pytest.raises(AnchorageError, match="not at both"):
        recovery_options(time="2026-11-30", name="p1")


def test_a_moment_is_told_in_utc():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert recovery_options(time=datetime.datetime(2026, 11, 30, 7, 15, 29, 5, tzinfo=zone))[1] == "--target=2026-11-30 05:15:29.000005+00"
    assert recovery_options(time=datetime.datetime(2026, 11, 30, 5, 15))[1] == "--target=2026-11-30 05:15:00.000000+00"


def test_of_the_live_settings_only_those_of_recovery_are_kept():
    told = ["restore_command = 'pgbackrest archive-get %f \"%p\"'", "recovery_target_name = 'p1'"]
    text = "\n".join(["shared_buffers = '8GB'", "archive_command = 'rm -rf /'", *told, "#recovery_target_time = 'x'", ""])
    assert recovery_settings(text) == f"{told[0]}\n{told[1]}\n"


def test_it_archives_nothing_and_listens_nowhere():
    text = configuration("17", directory="/d", port=None, preload="pg_stat_statements, it's")
    for line in ("archive_mode = 'off'", "listen_addresses = ''", "max_worker_processes = '0'", "unix_socket_directories = '/d/socket'"):
        assert f"{line}\n" in text
    assert "shared_preload_libraries = 'pg_stat_statements, it''s'\n" in text
    assert "event_triggers = 'off'\n" in text


def test_a_setting_that_an_older_server_does_not_know_is_left_out():
    assert "event_triggers" not in configuration("15", directory="/d", port=None, preload="")


def test_a_port_is_of_this_machine_only():
    text = configuration("17", directory="/d", port=5999, preload="")
    assert "listen_addresses = '127.0.0.1'\n" in text and "port = '5999'\n" in text
    assert "scram-sha-256" in scratch_cluster.ACCESS and "trust" not in scratch_cluster.ACCESS


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (RESTORED + "FATAL:  recovery ended before configured recovery target was reached\n", "recovery ended before configured recovery target was reached"),
        (
            FETCHED,
            f"{EARLY}; pgBackRest said: [029]: unable to get 000000010000000000000032: ChecksumError: invalid checksum ({DAMAGED})",
        ),
        ("LOG:  starting\nPANIC:  could not locate a valid checkpoint record\n", "could not locate a valid checkpoint record"),
        ("FATAL:  the database system is starting up\nLOG:  redo in progress\n", "LOG:  redo in progress"),
        ("", "its log is empty"),
    ],
)
def test_a_server_that_does_not_come_up_is_quoted(log, words):
    assert last_words(log) == words


def test_where_recovery_ended_is_read_from_the_log():
    assert recovered(RESTORED, 1.5) == Recovered(1.5, "0/6004BF0", pytest.approx(1796015730.978733), 2)
    assert recovered("LOG:  database system is ready to accept connections\n", 0.1) == Recovered(0.1, None, None, None)


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (Completed(75, "WARN: repo1: x\n2026 P00  ERROR: [075]: no backup set found to restore\n", ""), "[075]: no backup set found to restore"),
        (Completed(124, "", "\nkilled after 5 s"), "it took too long"),
        (Completed(127, "", "pgbackrest: No such file or directory"), "pgbackrest: No such file or directory (code 127)"),
    ],
)
def test_pgbackrest_is_quoted(done, words):
    assert complaint(done) == words


# ---- what a target has -----------------------------------------------------------------------------------------------


def test_a_repository_is_asked_by_its_number_as_postgres(host, settings):
    assert backups(host, settings, settings.targets[1]) == INFO
    (call,) = host.ran
    assert "--repo=2" in call.argv and call.user == "postgres" and call.cwd == "/"
    assert KEY not in str(call.argv)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({**INFO, "backup": []}, "no backup that could be restored: no backup"),
        ({**INFO, "status": {"code": 1, "message": "missing stanza path"}}, "could be restored: missing stanza path"),
        ({**INFO, "repo": [{"key": 1, "status": {"code": 99, "message": "[CryptoError] x"}}]}, r"could be restored: \[CryptoError\]"),
        ({**INFO, "repo": [{"key": 1, "status": {"code": 99, "message": GARBAGE}}]}, "found outside of section .its files are damaged, or the key"),
        ({"name": "other"}, "has no backup of this cluster"),
    ],
)
def test_a_repository_without_a_backup_is_refused(host, settings, info, words):
    host.info = info
    with pytest.raises(AnchorageError, match=words):
        backups(host, settings, settings.targets[0])


def test_an_answer_with_the_bytes_of_a_damaged_file_is_one(host, settings):
    host.answers["info"] = Completed(0, '[{"name":"main","status":{"message":"`\x01"q"}}]', "")
    with pytest.raises(AnchorageError, match="damaged, or the key of this host is another one"):
        backups(host, settings, settings.targets[0])


# ---- its life --------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_it(host, scratch):
    with scratch:
        assert sorted(os.listdir(scratch.directory)) == [MARKER, "data", "socket", "tablespaces"]
    assert not os.path.exists(scratch.directory)
    assert host.ran[-2].argv[:2] != ["systemctl", "start"] and host.calls("stop")


def test_nothing_is_left_of_it_after_a_failure(scratch):
    with pytest.raises(RuntimeError), scratch:
        raise RuntimeError
    assert not os.path.exists(scratch.directory)


def test_what_a_killed_one_left_goes_first(host, scratch):
    with scratch:
        with open(f"{scratch.data}/old", "w", encoding="utf-8"):
            pass
        # As if it had been killed here: the directory stays.
        scratch._lock.close()
        with Scratch(host, "17", scratch.directory) as second:
            assert not os.path.exists(f"{second.data}/old")


def test_a_directory_of_somebody_else_is_not_touched(scratch):
    os.makedirs(scratch.directory)
    with open(f"{scratch.directory}/PG_VERSION", "w", encoding="utf-8"):
        pass
    with pytest.raises(AnchorageError, match="holds something that is no throw-away server"), scratch:
        pass
    assert os.listdir(scratch.directory) == ["PG_VERSION"]


def test_two_do_not_share_a_directory(host, scratch):
    with scratch, pytest.raises(AnchorageError, match="Another proof or restore"), Scratch(host, "17", scratch.directory, patience=3):
        pass
    assert host.clock >= 3
    with open(f"{scratch.directory}.lock", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_restore_writes_into_it_alone(host, settings, scratch):
    with scratch:
        assert scratch.restore(settings, settings.targets[0], name="p1")["label"] == LABEL
        (call,) = host.calls("restore")
        for word in (f"--pg1-path={scratch.data}", "--archive-mode=off", f"--tablespace-map-all={scratch.directory}/tablespaces", "--type=name", "--repo=1"):
            assert word in call.argv
        assert call.user == "postgres"


def test_a_backup_that_is_not_there_is_refused_with_those_that_are(host, settings, scratch):
    with scratch, pytest.raises(AnchorageError, match=f"no backup '20200101-000000F'; there is: {LABEL}"):
        scratch.restore(settings, settings.targets[0], backup="20200101-000000F")
    assert not host.calls("restore")


def test_room_is_seen_to_before_anything_is_written(host, settings, scratch, monkeypatch):
    monkeypatch.setattr(scratch_cluster, "supply", lambda path: Amount(scratch_cluster.SPARE_BYTES, 1000))
    with scratch, pytest.raises(Full, match="A throw-away PostgreSQL needs"):
        scratch.restore(settings, settings.targets[0])
    with scratch, pytest.raises(Full):
        scratch.initialise(need_bytes=1)
    assert not host.calls("restore") and not any("initdb" in call.argv[0] for call in host.ran)


def test_a_restore_that_fails_is_quoted(host, settings, scratch):
    host.answers["restore"] = Completed(29, "P00  ERROR: [029]: unable to restore base/5/1: checksum mismatch\n", "")
    with scratch, pytest.raises(AnchorageError, match=r"pgBackRest said: \[029\]: unable to restore"):
        scratch.restore(settings, settings.targets[0])


def test_it_starts_in_a_unit_that_is_bounded_and_sees_no_live_data(host, scratch, monkeypatch):
    monkeypatch.setenv("ANCHORAGE_UNIT", "anchorage-backup.service")
    host.ready = 3
    with scratch:
        with open(f"{filled(scratch).data}/postgresql.auto.conf", "w", encoding="utf-8") as stream:
            stream.write("port = 5432\nlisten_addresses = '*'\nrestore_command = 'x'\n")
        assert scratch.start(60).timeline == 2
        with open(f"{scratch.data}/postgresql.auto.conf", encoding="utf-8") as stream:
            assert stream.read() == "restore_command = 'x'\n"
        (unit,) = host.calls("systemd-run")
        for word in (
            "--unit=anchorage-scratch-postgresql.service",
            "--property=User=postgres",
            "--property=MemoryMax=1024M",
            "--property=Nice=10",
            "--property=ProtectSystem=strict",
            f"--property=ReadWritePaths={scratch.directory}",
            "--property=InaccessiblePaths=-/var/lib/postgresql",
            "--property=BindsTo=anchorage-backup.service",
        ):
            assert word in unit.argv
        assert unit.argv[-3:] == ["/usr/lib/postgresql/17/bin/postgres", "-D", scratch.data]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("12:cpu:/\n1:name=systemd:/docker/ab/system.slice/anchorage-backup-proof.service\n", "anchorage-backup-proof.service"),
        ("0::/system.slice/anchorage-backup-proof.service/.control\n", "anchorage-backup-proof.service"),
        ("0::/system.slice/ssh.service\n", None),
        ("0::/user.slice/user-0.slice/session-3.scope\n", None),
        ("", None),
    ],
)
def test_it_ends_with_the_unit_that_it_was_started_from(text, unit):
    assert caller(FakeWorld({"/proc/self/cgroup": text})) == unit


def test_where_a_shop_waits_it_does_not_stand_behind_everybody_else(host, settings, tmp_path):
    with Scratch(host, "17", str(tmp_path / "backup" / "scratch"), urgent=True) as scratch:
        scratch.restore(settings, settings.targets[0])
        filled(scratch).start(60)
    assert not any("Nice=" in word or "Weight=" in word for call in host.calls("systemd-run") for word in call.argv)
    assert host.calls("restore")[0].argv[0] == "pgbackrest"


def test_a_server_that_ends_is_told_at_once(host, scratch):
    host.ready, host.alive = 99, "inactive"
    host.log = RESTORED + "FATAL:  recovery ended before configured recovery target was reached\n"
    with scratch, pytest.raises(AnchorageError, match="ended: recovery ended before configured recovery target was reached"):
        filled(scratch).start(60)
    assert host.clock < 1


def test_a_server_that_does_not_get_ready_is_not_waited_for_for_ever(host, scratch):
    host.ready = 10_000
    with scratch, pytest.raises(AnchorageError, match="was not ready after 60 s"):
        filled(scratch).start(60)
    assert 60 <= host.clock < 62


def test_it_is_spoken_to_on_its_own_socket(host, scratch):
    host.answers["psql"] = Completed(0, '["postgres", "shop"]\n', "")
    assert scratch.databases() == ["postgres", "shop"]
    (call,) = host.calls("psql")
    assert call.env["PGHOST"] == f"{scratch.directory}/socket" and call.env["PGUSER"] == "postgres" and "PGPASSWORD" not in call.env
    assert scratch.url("shop") == f"postgresql://postgres@/shop?host={scratch.directory}/socket&port=5432"
    assert scratch.database("shop").name == "shop (restored)"


def test_an_empty_one_is_made_by_postgres(host, scratch):
    with scratch:
        scratch.initialise()
    (call,) = [call for call in host.ran if call.argv[0].endswith("/initdb")]
    assert call.user == "postgres" and "--locale=C.UTF-8" in call.argv


def test_the_live_cluster_is_asked_by_its_files_which_libraries_it_loads(host, scratch):
    host.answers["-C"] = Completed(0, "pg_stat_statements\n", "")
    with scratch:
        filled(scratch).start(60)
        with open(f"{scratch.data}/postgresql.conf", encoding="utf-8") as stream:
            assert "shared_preload_libraries = 'pg_stat_statements'\n" in stream.read()
    assert any("/etc/postgresql/17/main" in call.argv for call in host.calls("-C"))
