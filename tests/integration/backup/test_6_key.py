# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backups get a new key while an app writes: at no moment is there less to come back from, and the former key reads what it has saved until that goes.

The last tests take the host away, so nothing comes after them.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release

from .restoring import APP, HOST, LAB, ROOT, Ledger

pytestmark = pytest.mark.fault

KEPT, PLACE = "/etc/anchorage/secrets/backup.json", "/var/backups/anchorage"

#: Before which task a controller is killed, in turn in one and the same rotation, and how many seconds after that.
KILLED = {
    "secrets | Read or make the secrets that nobody gave": 0,
    "anchorage.vps.backup : configure | Put the tools, their settings and their timers into their state": 1,
    "Save everything with the new key, and prove it": 4,
    "Let nothing new go to the former one, and say until when it stays": 0,
    "anchorage.vps.backup : configure | Put the tools, their settings and their timers into their state #1": 0,
    "End the rotation": 0,
}


def kept(ground):
    """Return the keys as they lie on the host."""
    return json.loads(ground.host.shell(f"cat {KEPT}"))


def listed(ground):
    """Return the backups by job and target. The list ends with 1 where a target has a problem, which is told in it."""
    return {(one["job"], one["target"]): one for one in json.loads(ground.host.shell("anchorage backup list --json || true"))}


def places(ground):
    """Return the repositories that lie on the host."""
    return set(ground.host.shell(f"ls {PLACE}").split())


def switch(ground):
    """Close a segment of WAL, and return its name."""
    segment = ground.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    ground.sql("SELECT pg_switch_wal()")
    return segment


def archived(ground, place, segment):
    """Tell whether a repository has a segment."""
    return segment in ground.host.shell(f"find {PLACE}/{place}/archive -name '{segment}-*'")


def cut_off(ground, directory, task, seconds):
    """Start a rotation, and kill it at a task. Returns what it said."""
    directory.mkdir()
    borders = {"ANSIBLE_CALLBACKS_ENABLED": "task_borders", "TASK_BORDERS": str(directory), "TASK_BORDERS_STOP": task}
    run = ground.apps.start("rotate_backup_key", "-vv", "--diff", **borders)
    release.until(lambda: (directory / "reached").exists() or run.poll() is not None, f"task {task}", 300)
    assert run.poll() is None, f"the run never came to {task}:\n{ground.apps.end(run).output[-5000:]}"
    if seconds:
        (directory / "go").touch()
        time.sleep(seconds)
    release.kill(run)
    return pathlib.Path(run.log.name).read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def saved(ground):
    """The host, saved, with the time at which it had a hundred orders, and the key of then."""
    ground.settle()
    ground.orders(100)
    ground.backup()
    ground.host.shell("anchorage backup prove")
    moment = ground.now()
    ground.orders(50, "later")
    return moment, kept(ground)["key"]


def test_what_stands_in_the_way_is_named_and_check_mode_changes_nothing(ground, saved):
    _moment, old = saved
    before = ground.host.shell(f"cat {KEPT}; cat /etc/pgbackrest.conf /etc/anchorage/backup.json")
    run = ground.apps.run("rotate_backup_key", "-e", json.dumps({"backup_key": old}), rc=None)
    assert "is the key that is to be replaced" in run.output and "openssl rand -hex 32" in run.output
    ground.host.shell("systemd-run --unit=verify-lock flock /var/lib/anchorage/backup/lock-files sleep 300")
    assert "Another run of the backup job files is under way" in ground.apps.run("rotate_backup_key", rc=None).output
    ground.host.shell(f"systemctl stop verify-lock; mv {PLACE}/files {PLACE}/away")
    run = ground.apps.run("rotate_backup_key", rc=None)
    assert "local does not give its repository of files" in run.output and "nothing was done" in run.output
    ground.host.shell(f"mv {PLACE}/away {PLACE}/files")
    run = ground.apps.run("rotate_backup_key", "--check")
    assert "The backups get a new key" in run.output and "database at local: answers" in run.output and run.changed == 0
    assert ground.host.shell(f"cat {KEPT}; cat /etc/pgbackrest.conf /etc/anchorage/backup.json") == before


def test_a_rotation_that_is_killed_again_and_again_ends_with_one_new_key(ground, saved, tmp_path, record_property):
    _moment, old = saved
    said, news = "", set()
    with Ledger(ground.host, "writer") as ledger:
        for number, (task, seconds) in enumerate(KILLED.items()):
            said += cut_off(ground, tmp_path / str(number), task, seconds)
            now = kept(ground)
            news.add(now["key"])
            assert now["former"][0]["key"] == old and now["number"] == 2
            if number == 2:
                # Between two runs both are served, and what a timer does fits in.
                ground.host.shell("anchorage backup run files")
                segment = switch(ground)
                for place in ("postgresql", f"postgresql-{now['place']}"):
                    release.until(lambda place=place, segment=segment: archived(ground, place, segment), f"WAL in {place}", 120)
                # It ends with 1: the new repositories are not all there yet.
                assert "whose rotation is under way" in ground.host.shell("anchorage backup list || true")
        began = time.monotonic()
        ended = ground.apps.run("rotate_backup_key", "-vv", "--diff")
        record_property("last_run_seconds", round(time.monotonic() - began))
        said += ended.output
        assert len(ledger.acknowledged) > 100
    now = kept(ground)
    assert news == {now["key"]} and "rotation" not in now and now["former"][0]["until"] > time.time() + 29 * 86400
    assert said.count(now["key"]) <= 2 and "A new key encrypts the backups of db" in said, (
        "once, and again where the run was killed between that and what follows"
    )
    assert old not in said
    place = now["place"]
    assert places(ground) == {"postgresql", "files", f"postgresql-{place}", f"files-{place}"}
    found = listed(ground)
    assert set(found) == {(job, target) for job in ("database", "files") for target in ("local", "local-before-2")}
    assert all(one["backups"] and not one["problem"] for one in found.values()), found
    assert found["database", "local"]["backups"][0]["kind"] == "full"


def test_wal_goes_to_the_new_one_alone_and_nothing_is_left_to_do(ground, saved):
    now = kept(ground)
    segment = switch(ground)
    release.until(lambda: archived(ground, f"postgresql-{now['place']}", segment), "WAL in the new repository", 120)
    assert not archived(ground, "postgresql", segment)
    assert "local-before-2" not in ground.host.shell("cat /usr/local/lib/anchorage/pgbackrest-archive; ls /etc/pgbackrest")
    assert ground.apps.run("site").changed == 0
    ground.backup()
    ground.host.shell("anchorage backup prove")
    # It ends with 1 where anything is red; what is looked at stands in the answer.
    (found,) = json.loads(ground.host.shell("anchorage health --kinds backup --json || true"))["parts"]
    assert found["grade"] in ("green", "amber"), found


def test_the_former_key_opens_nothing_new_and_the_new_one_nothing_former(ground, saved):
    _moment, old = saved
    now = kept(ground)

    # What ends with an error here is the answer: a key that is refused.
    def restic(place, key):
        return ground.host.shell(f"RESTIC_PASSWORD={key} restic --no-cache -r {PLACE}/{place} snapshots --json 2>&1 || true")

    def pgbackrest(place, key):
        words = f"--repo1-path={PLACE}/{place} --repo1-cipher-type=aes-256-cbc --stanza=main --config=/dev/null --lock-path=/tmp/verify info"
        return ground.host.shell(f"cd / && PGBACKREST_REPO1_CIPHER_PASS={key} runuser -u postgres -- pgbackrest {words} 2>&1 || true")

    place = now["place"]
    assert "wrong password" in restic(f"files-{place}", old) and "wrong password" in restic("files", now["key"])
    assert '"short_id"' in restic(f"files-{place}", now["key"]) and '"short_id"' in restic("files", old)
    assert "status: ok" in pgbackrest(f"postgresql-{place}", now["key"]) and "status: ok" in pgbackrest("postgresql", old)
    assert "status: ok" not in pgbackrest(f"postgresql-{place}", old) and "status: ok" not in pgbackrest("postgresql", now["key"])
    # No backup holds a key, former ones neither.
    assert KEPT not in ground.host.shell(f"RESTIC_PASSWORD={now['key']} restic --no-cache -r {PLACE}/files-{place} ls latest")


def test_data_come_back_from_both(ground, saved):
    moment, _old = saved
    ground.orders(25, "newest")
    assert ground.rows() == 175
    switch(ground)
    ground.sql("DROP TABLE orders")
    # A time before the new repository's first backup is found where it is kept, named or not.
    ground.restore(f"{APP} --time '{moment}' --yes")
    assert ground.rows() == 100 and "local-before-2" in json.dumps(ground.journal["plan"])
    ground.sql("DROP TABLE orders")
    ground.restore(f"{APP} --time '{moment}' --target local-before-2 --yes")
    assert ground.rows() == 100
    ground.orders(1, "after")
    switch(ground)
    ground.restore(f"{APP} --latest --target local --yes")
    assert ground.rows() == 101 and "local-before-2" not in json.dumps(ground.journal["plan"])
    ground.restore(f"--cluster --time '{moment}' --target local-before-2 --yes")
    assert ground.rows() == 100
    ground.serves()
    ground.backup()


def test_with_a_key_of_ones_own_it_is_said_nowhere_and_the_one_before_stays_too(ground, saved):
    _moment, old = saved
    second, given = kept(ground)["key"], os.urandom(32).hex()
    wanted = ground.apps.directory / "key.json"
    wanted.write_text(json.dumps({"backup_key": given}))
    assert "rotate_backup_key.yml" in ground.apps.run("provision", "-e", f"@{wanted}", rc=None).output
    ended = ground.apps.run("rotate_backup_key", "-vv", "--diff", "-e", f"@{wanted}")
    now = kept(ground)
    assert now["key"] == given and [one["key"] for one in now["former"]] == [second, old]
    assert not [key for key in (old, second, given) if key in ended.output]
    assert ground.apps.run("site", "-e", f"@{wanted}").changed == 0
    assert all(one["backups"] and not one["problem"] for one in listed(ground).values()) and len(listed(ground)) == 6
    run = ground.apps.run("rotate_backup_key", "-e", f"@{wanted}", rc=None)
    assert "is the key that is to be replaced" in run.output and kept(ground) == now


AGE = """
import json
for path in ("/etc/anchorage/secrets/backup.json", "/etc/anchorage/backup.json"):
    data = json.load(open(path))
    for one in (data.get("keys") or data)["former"]:
        if one["number"] == 1:
            one["until"] = 1.0
    json.dump(data, open(path, "w"), indent=4, sort_keys=True)
"""


def test_what_is_old_goes_with_its_key(ground, saved):
    _moment, old = saved
    now = kept(ground)
    ground.host.shell("python3 -", given=AGE)
    ground.host.shell("anchorage backup run database")
    assert "postgresql" not in places(ground) and "files" in places(ground) and old in ground.host.shell(f"cat {KEPT}")
    said = ground.host.shell("anchorage backup run files")
    assert "is forgotten" in said
    after = kept(ground)
    assert after["key"] == now["key"] and [one["number"] for one in after["former"]] == [2]
    assert places(ground) == {f"{kind}{place}" for kind in ("postgresql", "files") for place in (f"-{now['place']}", f"-{now['former'][0]['place']}")}
    assert old not in ground.host.shell("cat /etc/anchorage/secrets/* /etc/anchorage/*.json /etc/pgbackrest.conf /etc/pgbackrest/*")
    assert ground.apps.run("site").changed == 0
    assert all(one["backups"] and not one["problem"] for one in listed(ground).values()) and len(listed(ground)) == 4


@pytest.fixture(scope="module")
def disk(ground, saved):
    """The disk with the backups, and what a lost host had of orders by each of its keys."""
    rows = ground.rows()
    ground.backup()
    ground.orders(10, "last")
    switch(ground)
    time.sleep(5)
    taken = ["docker", "exec", ground.host.facts["lab_container"], "tar", "-C", "/", "-cf", "-", "var/backups/anchorage"]
    now = kept(ground)
    return subprocess.run(taken, capture_output=True, check=True).stdout, {now["key"]: rows + 10, now["former"][0]["key"]: None}


@pytest.mark.parametrize("which", ["the key of now", "the key before it"])
def test_an_empty_host_finds_what_its_key_opens(ground, disk, tmp_path, which):
    data, keys = disk
    key, rows = list(keys.items())[which != "the key of now"]
    ground.host.command("down", LAB)
    ground.host.command("up", LAB, f"--host={HOST}:trixie:app,database,cache,proxy")
    unpack = ["docker", "exec", "-i", ground.host.facts["lab_container"], "tar", "-C", "/", "--no-same-owner", "-xpf", "-"]
    subprocess.run(unpack, input=data, check=True)
    apps = release.Apps(ROOT / ".cache" / "lab" / LAB / "hosts.yml", tmp_path)
    apps.apps = dict(ground.apps.live or ground.apps.apps)
    apps.write()
    (tmp_path / "key.json").write_text(json.dumps({"backup_key": key}))
    ended = apps.run("recover", "-e", f"@{tmp_path / 'key.json'}")
    assert key not in ended.output
    assert ground.rows() == rows if rows else ground.rows() > 0
    ground.serves()
    assert kept(ground)["place"] in "".join(places(ground))
    assert json.loads(ground.host.shell("anchorage backup status --json"))["files"]["ok"]
    assert apps.run("site", "-e", f"@{tmp_path / 'key.json'}").changed == 0
