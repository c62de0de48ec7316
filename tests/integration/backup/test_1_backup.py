# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may go wrong while a host is backed up: nothing is lost, and somebody is told what it was."""

from __future__ import annotations

import json
import threading

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.conftest import until

PLACE = "/var/backups/anchorage"
STATE = "/var/lib/anchorage/backup"
DAY = 86400


class Backups:
    """The backups of the host, and ways to look at them."""

    def __init__(self, ground):
        self.ground, self.shell = ground, ground.host.shell

    def run(self, *words, good=True):
        output = self.shell(f"anchorage backup {' '.join(words)} 2>&1; echo code $?", check=False)
        assert ("code 0" in output) == good, output[-3000:]
        return output

    def result(self, job):
        return json.loads(self.shell(f"cat {STATE}/{job}.json"))

    def health(self):
        (found,) = json.loads(self.shell("anchorage health --kinds backup --json", check=False))["parts"]
        return found["grade"], found["message"]

    def snapshots(self):
        return [backup["id"] for place in json.loads(self.shell("anchorage backup list --json")) if place["job"] == "files" for backup in place["backups"]]


@pytest.fixture
def backups(host):
    found = Backups(host)
    found.run("run")
    yield found
    found.run("run")
    assert found.health()[0] == "green", "whatever was wrong is made good by the next run"


def test_of_two_runs_at_once_one_is_refused_by_name(backups):
    backups.shell("systemd-run --quiet --collect --unit=verify-first anchorage backup run files")
    until(lambda: backups.shell(f"ls {STATE}/files.running 2>/dev/null", check=False), "the first run")
    assert "Another run of the backup job files is under way" in backups.run("run", "files", good=False)
    until(lambda: not backups.shell("systemctl is-active verify-first || true").startswith("active"), "its end")
    assert backups.result("files")["ok"]


def test_a_run_that_is_killed_says_so_and_the_next_one_is_good(backups):
    backups.shell("systemctl start --no-block anchorage-backup-files")
    until(lambda: backups.shell(f"ls {STATE}/files.running 2>/dev/null", check=False), "the run")
    backups.shell("systemctl kill --signal=KILL anchorage-backup-files")
    found = until(lambda: not backups.result("files")["ok"] and backups.result("files"), "its word")
    assert "the run was ended before it was done" in found["cause"] and "the run was ended" in backups.health()[1]
    assert found["last_good"] and backups.snapshots()
    backups.shell("systemctl reset-failed anchorage-backup-files", check=False)


def test_a_target_without_room_is_named_and_keeps_what_it_has(backups):
    before = backups.snapshots()
    # The file system of the target, filled to its last block: what root may still use counts, so a quota of blocks is of no use.
    backups.shell(f"mv {PLACE} {PLACE}.good && mkdir {PLACE} && mount -t tmpfs -o size=2m,mode=0711 tmpfs {PLACE} && cp -a {PLACE}.good/files {PLACE}/")
    backups.shell(f"dd if=/dev/zero of={PLACE}/full bs=64k 2>/dev/null; head -c 3000000 /dev/urandom > /srv/alpha/shared/static/large.bin", check=False)
    try:
        assert "no space left on device" in backups.run("run", "files", good=False).lower()
        assert backups.health()[0] == "red" and "the last backup failed" in backups.health()[1]
        backups.ground.serves()
    finally:
        backups.shell(f"umount {PLACE}; rmdir {PLACE}; mv {PLACE}.good {PLACE}; rm -f /srv/alpha/shared/static/large.bin", check=False)
    assert backups.snapshots() == before


def test_another_key_opens_nothing_and_spoils_nothing(backups):
    before = backups.snapshots()
    backups.shell('cp -p /etc/anchorage/secrets/backup.json /root/key && sed -i \'s/: ".*"/: "' + "f" * 64 + "\"/' /etc/anchorage/secrets/backup.json")
    try:
        assert "this host's key does not open it" in backups.run("run", "files", good=False)
        assert backups.health()[0] == "red"
    finally:
        backups.shell("mv /root/key /etc/anchorage/secrets/backup.json")
    assert backups.snapshots() == before


@pytest.mark.parametrize("days", [400, -2])
def test_by_a_time_that_cannot_be_right_nothing_old_is_removed(backups, days):
    # As a clock that has jumped since the last run looks from here: the last one is far away, or yet to come.
    backups.shell("printf '#!/bin/sh\\necho no\\n' > /usr/local/bin/timedatectl && chmod 755 /usr/local/bin/timedatectl")
    before = backups.snapshots()
    found = backups.result("files")
    found["finished"] -= days * DAY
    backups.shell(f"cat > {STATE}/files.json", given=json.dumps(found))
    try:
        assert "nothing old is removed" in backups.run("run", "files") and "nothing old is removed" in backups.run("run", "files")
        assert set(before) < set(backups.snapshots()) and backups.health()[0] == "amber" and "no time server has confirmed it" in backups.health()[1]
    finally:
        backups.shell("printf '#!/bin/sh\\necho yes\\n' > /usr/local/bin/timedatectl")
        backups.run("run", "files")
        backups.shell("rm /usr/local/bin/timedatectl")
    assert not backups.result("files")["clock_doubted"]


def test_a_database_goes_on_while_no_target_takes_its_wal_and_its_wal_stays_within_bounds(backups):
    backups.shell("cd /usr/local/lib/anchorage && sed -i.good 's/-ge 4096/-ge 96/' pgbackrest-archive && grep -q 'ge 96' pgbackrest-archive")
    backups.shell(f"mv {PLACE} {PLACE}.away")
    try:
        backups.ground.orders(10)
        for _number in range(20):
            backups.ground.sql("INSERT INTO orders (what) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 20000) AS i; SELECT pg_switch_wal()")
        until(lambda: backups.shell("cat /var/spool/pgbackrest/gap 2>/dev/null", check=False), "WAL that is given up", 120)
        waiting = "find /var/lib/postgresql/17/main/pg_wal/archive_status -name '*.ready' | wc -l"
        until(lambda: int(backups.shell(waiting)) * 16 <= 96, "WAL within its bounds", 120)
        assert backups.health()[0] == "red" and "WAL was given up" in backups.health()[1]
        backups.ground.serves()
    finally:
        backups.shell(
            f"rm -rf {PLACE}; mv {PLACE}.away {PLACE}; mv /usr/local/lib/anchorage/pgbackrest-archive.good /usr/local/lib/anchorage/pgbackrest-archive"
        )
    backups.run("run", "database")
    assert backups.result("database")["targets"]["local"]["kind"] == "full" and not backups.shell("cat /var/spool/pgbackrest/gap 2>/dev/null", check=False)


def test_backups_and_a_deploy_leave_each_other_alone(backups):
    stop, said = threading.Event(), []

    def save():
        while not stop.is_set():
            said.append(backups.shell("anchorage backup run 2>&1; echo code $?", check=False))

    saver = threading.Thread(target=save)
    saver.start()
    try:
        backups.ground.apps.app("alpha")
        backups.ground.apps.deploy()
    finally:
        stop.set()
        saver.join()
    assert said and all("code 0" in output for output in said), [output[-500:] for output in said if "code 0" not in output]
    backups.ground.serves()


def test_a_deploy_is_refused_where_the_proof_is_bad_and_that_is_wanted(backups):
    settings = json.loads(backups.shell("cat /etc/anchorage/backup.json"))
    good = json.dumps(backups.result("database"))
    bad = {**backups.result("database"), "proof": {"ok": False, "cause": "local: a page is damaged", "finished": 0}}
    before = backups.ground.host.serving("alpha")
    try:
        backups.shell("cat > /etc/anchorage/backup.json", given=json.dumps({**settings, "proof": {**settings["proof"], "deploys": "refuse"}}))
        backups.shell(f"cat > {STATE}/database.json", given=json.dumps(bad))
        backups.ground.apps.app("alpha")
        refused = backups.ground.apps.deploy(rc=None)
        assert "cannot be relied on, so nothing is deployed: its last proof failed: local: a page is damaged" in refused.output
        assert backups.ground.host.serving("alpha") == before
    finally:
        backups.shell("cat > /etc/anchorage/backup.json", given=json.dumps(settings))
        backups.shell(f"cat > {STATE}/database.json", given=good)
    backups.ground.apps.deploy()
