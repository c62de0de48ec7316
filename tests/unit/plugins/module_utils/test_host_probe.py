# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.host_probe import Backup, Expectation, HostWorld, check
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld

MEMORY = "MemTotal: 2048000 kB\nMemFree: 100000 kB\nMemAvailable: 1024000 kB\nSwapTotal: 1000000 kB\nSwapFree: 900000 kB\n"
KERNEL = "6.12.57+deb13-cloud-amd64"
SYNCHRONISED = "NTP=yes\nNTPSynchronized=yes\n"
RESULT = "/var/lib/anchorage/backup/database.json"


def file_system(*, fsid=1, free=60, size=100, free_inodes=900, inodes=1000):
    """Return what statvfs says, in blocks of a megabyte."""
    blocks = {"f_blocks": size * 1024, "f_bfree": free * 1024, "f_bavail": free * 1024, "f_frsize": 1048576}
    return types.SimpleNamespace(f_fsid=fsid, **blocks, f_files=inodes, f_ffree=free_inodes, f_favail=free_inodes)


class Machine(FakeWorld):
    """A machine that is well until a test says otherwise."""

    def __init__(self) -> None:
        super().__init__(
            files={
                "/proc/meminfo": MEMORY,
                "/proc/loadavg": "0.50 0.40 0.30 1/300 4711\n",
                f"/boot/vmlinuz-{KERNEL}": "",
            },
            commands=self.command,
        )
        self.mounts = {"/": file_system()}
        self.failed, self.clock_facts, self.running = "", SYNCHRONISED, KERNEL
        self.listen(("127.0.0.1", 5432, 11), ("0.0.0.0", 22, 12), ("::", 443, 13))
        for pid, command, inode in ((5, "/usr/lib/postgresql/17/bin/postgres", 11), (6, "/usr/sbin/sshd\0-D", 12), (7, "nginx: master process", 13)):
            self.process(pid, command=command, sockets=[inode])

    def command(self, call):
        if call["argv"][0] == "timedatectl":
            return Completed(0, self.clock_facts, "")
        return Completed(0, self.failed, "") if self.failed is not None else Completed(1, "", "Failed to connect to bus")

    def statvfs(self, path):
        return self.mounts.get(path)

    def cores(self):
        return 2

    def kernel(self):
        return self.running


@pytest.fixture
def machine():
    return Machine()


def look(machine, **wanted):
    found = check(Expectation(**wanted), world=machine, deadline_seconds=0.5)
    return found, {item.name: item for item in found.checks}


def test_a_machine_that_is_well(machine):
    found, checks = look(machine, controller_time=machine.now() - 2, allowed_ports=[22, 443])
    assert found.grade == "ok", found.message
    assert {*checks} == {"disk:/", "inodes:/", "memory", "swap", "load", "clock", "clock_source", "units", "reboot", "ports"}
    assert "disk 40 %" in found.summary and "memory 50 %" in found.summary and found.extra == {"kernel": KERNEL}


@pytest.mark.parametrize(
    ("mounts", "name", "grade", "words"),
    [
        ({"/": file_system(free=15)}, "disk:/", "warn", "15360 MB are free"),
        ({"/": file_system(free=5)}, "disk:/", "fail", "is 95 %, the limit is 92 %"),
        ({"/": file_system(free=0)}, "disk:/", "fail", "0 MB are free"),
        ({"/": file_system(free_inodes=150)}, "inodes:/", "warn", "the share of the inodes"),
        ({"/": file_system(free_inodes=10)}, "inodes:/", "fail", "is 99 %"),
        ({}, "disk:/", "fail", "/ is not there"),
    ],
)
def test_room(machine, mounts, name, grade, words):
    machine.mounts = mounts
    found, checks = look(machine)
    assert checks[name].verdict == grade == found.grade and words in found.message


def test_what_is_kept_for_root_counts_as_used(machine):
    machine.mounts["/"].f_bavail = 2 * 1024
    found, checks = look(machine)
    assert not found.healthy and checks["disk:/"].evidence["free_mb"] == 2048


def test_two_paths_of_one_file_system_are_judged_once_and_others_apart(machine):
    machine.mounts.update({"/srv": file_system(), "/var/lib/postgresql": file_system(fsid=2, free=1)})
    found, checks = look(machine, paths=["/", "/srv", "/var/lib/postgresql"])
    assert {name for name in checks if name.startswith("disk:")} == {"disk:/", "disk:/var/lib/postgresql"}
    assert not found.healthy and "/var/lib/postgresql" in found.message


def test_a_file_system_without_inodes_is_not_judged_by_them(machine):
    machine.mounts["/"] = file_system(free_inodes=0, inodes=0)
    found, checks = look(machine)
    assert found.grade == "ok" and "inodes:/" not in checks


@pytest.mark.parametrize(
    ("path", "text", "name", "grade", "words"),
    [
        ("/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 80 kB\n", "memory", "warn", "is 92 %"),
        ("/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 20 kB\n", "memory", "fail", "is 98 %"),
        ("/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 900 kB\nSwapTotal: 1000 kB\nSwapFree: 300 kB\n", "swap", "warn", "share of the swap"),
        ("/proc/meminfo", "", "memory", "fail", "says nothing"),
        ("/proc/loadavg", "9.0 7.0 1.0 1/1 1\n", "load", "warn", "7 on 2 cores"),
        ("/proc/loadavg", "", "load", "fail", "says nothing"),
        ("/run/reboot-required", "", "reboot", "warn", "an update asked for it"),
        ("/boot/vmlinuz-6.12.63+deb13-cloud-amd64", "", "reboot", "warn", "6.12.63+deb13-cloud-amd64 is installed and 6.12.57+deb13-cloud-amd64 runs"),
    ],
)
def test_what_files_tell(machine, path, text, name, grade, words):
    machine.files[path] = text
    found, checks = look(machine)
    assert checks[name].verdict == grade == found.grade and words in found.message


def test_the_packages_that_want_the_reboot_are_named(machine):
    machine.files.update({"/run/reboot-required": "", "/run/reboot-required.pkgs": "linux-image\nlibc6\nlibc6\n"})
    assert "(libc6, linux-image)" in look(machine)[0].message


@pytest.mark.parametrize(
    "installed",
    ["6.12.9+deb13-cloud-amd64", "6.12.63+deb13-amd64", "6.12.63+deb13-rt-amd64", "6.1.0-40-cloud-amd64"],
    ids=["older", "other flavour", "real time", "much older"],
)
def test_another_kernel_is_no_reason_for_a_reboot(machine, installed):
    machine.files[f"/boot/vmlinuz-{installed}"] = ""
    assert look(machine)[1]["reboot"].verdict == "ok"


def test_a_newer_kernel_of_the_older_naming(machine):
    machine.running = "6.1.0-9-amd64"
    machine.files["/boot/vmlinuz-6.1.0-40-amd64"] = ""
    assert "6.1.0-40-amd64 is installed" in look(machine)[0].message


@pytest.mark.parametrize(("seconds", "words"), [(-61, "is 61 s behind the controller's"), (400, "is 400 s ahead of the controller's")])
def test_a_clock_that_is_off(machine, seconds, words):
    found, _checks = look(machine, controller_time=machine.now() - seconds)
    assert not found.healthy and words in found.message


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ("NTP=no\nNTPSynchronized=no\n", "nothing synchronises the clock"),
        ("NTP=yes\nNTPSynchronized=no\n", "not synchronised yet"),
        ("", "does not say"),
    ],
)
def test_a_clock_that_nobody_keeps(machine, facts, words):
    machine.clock_facts = facts
    found, checks = look(machine)
    assert found.healthy and checks["clock_source"].verdict == "warn" and words in found.message
    machine.files["/run/systemd/container"] = "docker"
    assert "clock_source" not in look(machine)[1]


def test_failed_units_are_named_and_may_be_ignored(machine):
    machine.failed = "certbot.service loaded failed failed Certbot\nx.mount loaded failed failed X\n"
    found, checks = look(machine)
    assert not found.healthy and "2 units as failed: certbot.service, x.mount" in found.message and "journalctl -u certbot.service" in found.message
    assert look(machine, ignored_units=["certbot.service", "x.mount"])[0].healthy
    assert look(machine, failed_units="warn")[0].grade == "warn"
    assert checks["units"].evidence["failed"] == ["certbot.service", "x.mount"]
    machine.failed = None
    assert "does not say which units failed" in look(machine)[0].message


def test_a_port_that_nobody_allowed_is_named_with_its_program(machine):
    machine.listen(("127.0.0.1", 5432, 11), ("0.0.0.0", 22, 12), ("0.0.0.0", 6379, 14), ("::", 9000, 99))
    machine.process(8, command="/usr/bin/redis-server\0*:6379", sockets=[14])
    found, checks = look(machine, allowed_ports=[22, 80, 443])
    assert not found.healthy and "beyond loopback listens: 6379 (redis-server), 9000 (unknown)" in found.message
    assert checks["ports"].evidence["open"] == [22, 6379, 9000]
    assert "ports" not in look(machine)[1]
    assert look(machine, allowed_ports=[22, 6379, 9000])[0].healthy


def told(machine, **result):
    machine.files[RESULT] = json.dumps({"finished": machine.now() - 3600, "ok": True, "bytes": 4096, "seconds": 3, **result})


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({}, ""),
        ({"finished": 0}, "h old, the limit is 26 h"),
        ({"ok": False, "cause": "no room"}, "the last backup failed 1 h ago (no room)"),
        ({"ok": "yes"}, "the last backup failed"),
        ({"finished": "yesterday"}, "cannot be read"),
        ({"proof": {"finished": 1}}, "cannot be read"),
    ],
)
def test_a_backup_is_judged_by_the_result_that_it_left(machine, result, words):
    told(machine, **result)
    found, _checks = look(machine, backups=[Backup("database", RESULT)])
    assert found.healthy == (not words) and words in found.message


def test_a_backup_that_never_ran_or_left_rubbish(machine):
    assert "there was no backup yet" in look(machine, backups=[Backup("database", RESULT)])[0].message
    machine.files[RESULT] = "{"
    assert "cannot be read" in look(machine, backups=[Backup("database", RESULT)])[0].message


@pytest.mark.parametrize(
    ("days", "ok", "words"),
    [(3, True, ""), (40, True, "40 days old, the limit is 31"), (3, False, "failed 3 days ago"), (None, True, "no restore of it was ever proven")],
)
def test_a_backup_that_was_never_restored_is_a_hope(machine, days, ok, words):
    told(machine, **({} if days is None else {"proof": {"finished": machine.now() - days * 86400, "ok": ok}}))
    found, checks = look(machine, backups=[Backup("database", RESULT, max_proof_age_days=31)])
    assert checks["backup:database"].verdict == "ok"
    assert found.healthy == (not words) and words in found.message


@pytest.mark.parametrize(
    ("wanted", "words"),
    [({"disk_warn_percent": 95}, "disk_warn_percent <= disk_fail_percent"), ({"memory_fail_percent": 101}, "memory_fail_percent"), ({"paths": []}, "paths")],
)
def test_a_question_without_sense(machine, wanted, words):
    with pytest.raises(AnchorageError, match=words):
        look(machine, **wanted)


def test_the_real_machine_can_be_looked_at():
    found = check(Expectation(allowed_ports=[]), world=HostWorld(), deadline_seconds=0.5)
    assert {"disk:/", "memory", "load", "reboot", "ports"} <= {item.name for item in found.checks}


def test_a_rotation_that_was_cut_off_is_named_after_an_hour_and_one_that_ended_is_not():
    machine = Machine()
    path = "/etc/anchorage/secrets/shop.rotation.json"
    began = machine.now() - 3000

    def judged(state):
        machine.files[path] = json.dumps(state)
        return {one.name: one for one in check(Expectation(), world=machine).checks}.get("rotation:shop")

    pending = {"secrets": ["database", "redis"], "phase": "use", "began_at": began, "before": {"values": {"database_password": "CANARY"}}}
    assert judged({"login": "a"}) is None
    assert judged({"pending": pending}).verdict == "ok"
    found = judged({"pending": {**pending, "began_at": began - 3000}})
    assert found.verdict == "warn" and "a rotation of database, redis has been under way for 100 min" in found.cause
    assert "rotate_secrets.yml -e app=shop" in found.advice and "CANARY" not in repr(found)
    machine.files[path] = "{"
    assert {one.name: one.verdict for one in check(Expectation(), world=machine).checks}["rotation:shop"] == "fail"


def test_who_may_not_look_at_secrets_is_told_the_rest(monkeypatch):
    machine = Machine()
    usual = machine.listdir

    def listdir(path):
        if path == "/etc/anchorage/secrets":
            raise PermissionError(path)
        return usual(path)

    monkeypatch.setattr(machine, "listdir", listdir)
    assert check(Expectation(), world=machine).healthy
