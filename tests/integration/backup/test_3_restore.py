# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data come back: one database to any second, the cluster from nothing, uploads and Redis; never over data without the word, and never half."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.trials import Results

from .restoring import APP, ROOT, UNIT, Ledger

CLUSTER = "/var/lib/postgresql/17/main"

#: Seconds of acknowledged writes that may be lost with the data directory, at the default archive_timeout.
MOST_SECONDS = 90.0

KILLS = Results(ROOT / "tests" / "results" / "restore-kills.json", "A restore is killed at one of its points and run again; the former data must be kept")
#: In a file each, so that two hosts can be at it at once.
LOSSES = {
    manner: Results(
        ROOT / "tests" / "results" / f"data-loss-{manner}.json", f"The data directory is {how}; what of a writer's acknowledged writes is not restored"
    )
    for manner, how in (("deleted", "deleted under a writer"), ("orderly", "deleted after an orderly stop under a writer"))
}
SIZES = Results(ROOT / "tests" / "results" / "restore-size.json", "A database of 1 GB and a cluster with it are restored")


def test_one_second_before_a_drop_table(host):
    host.orders(1000)
    host.sql("CREATE DATABASE other")
    host.sql("CREATE TABLE kept AS SELECT 1 AS id", "other")
    started = host.sql("SELECT pg_postmaster_start_time()")
    moment = host.now()
    host.sql("DROP TABLE orders; CREATE TABLE later AS SELECT * FROM generate_series(1, 7) AS id")
    told = host.restore(f"{APP} --time '{moment}' --plan")
    assert "public.later (a table that the backup does not have): 7 rows that only the present data has are lost" in told
    assert "public.orders (a table that is missing now): 1000 rows come back" in told and "Nothing was changed" in told
    assert host.rows() == -1 and host.aside() == []
    told = host.restore(f"{APP} --time '{moment}'", good=False)
    assert "nothing is restored over it without the word" in told and host.rows() == -1
    host.serves()
    done = host.apps.run("restore", "-e", f'{{"time": "{moment}", "confirm": true}}')
    assert "7 rows of the former data are not in the restored ones" in done.output
    assert host.rows() == 1000 and host.rows(table="later") == -1
    (aside,) = host.aside()
    assert host.rows(aside, "later") == 7 and host.rows(aside) == -1
    # Nobody else was touched: the other database has what it had, and the server was not restarted.
    assert host.rows("other", "kept") == 1 and host.sql("SELECT pg_postmaster_start_time()") == started
    host.serves()
    host.sql("DROP DATABASE other")
    assert f"removed {aside}" in host.restore("--drop-aside") and host.sql(f"SELECT count(*) FROM pg_database WHERE datname = '{aside}'") == "0"


def test_check_mode_prints_the_plan_and_changes_nothing(host):
    host.orders(3)
    moment = host.now()
    host.orders(2, "late")
    done = host.apps.run("restore", "--check", "-e", f'{{"time": "{moment}"}}')
    assert "public.orders: 2 rows that only the present data has are lost" in done.output and done.changed == 0
    done = host.apps.run("restore", "-e", f'{{"time": "{moment}"}}', rc=None)
    assert "without the word" in done.output and host.rows() == 5


def test_rights_owner_and_sequences_come_back_as_they_were(host):
    host.orders(5)
    host.sql("ALTER DATABASE alpha SET statement_timeout = '55s'; ALTER DATABASE alpha CONNECTION LIMIT 40")
    before = host.sql(
        "SELECT datacl, datconnlimit, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'alpha'"
    )
    moment = host.now()
    host.sql("UPDATE orders SET what = 'spoilt'")
    host.restore(f"{APP} --time '{moment}' --yes")
    after = host.sql("SELECT datacl, datconnlimit, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'alpha'")
    assert after == before and host.sql("SELECT count(*) FROM orders WHERE what = 'early'") == "5"
    # A recovered sequence skips what was set aside for it beforehand, and never gives a number twice.
    assert host.sql("SHOW statement_timeout") == "55s" and int(host.sql("INSERT INTO orders (what) VALUES ('next') RETURNING id")) > 5
    assert host.sql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'") == "alpha"
    host.sql("ALTER DATABASE alpha RESET statement_timeout; ALTER DATABASE alpha CONNECTION LIMIT -1")


def test_a_restore_that_fails_leaves_what_was_there_and_serves_it(host):
    host.orders(5)
    moment = host.now()
    host.orders(1, "late")
    tool = "/usr/lib/postgresql/17/bin/pg_restore"
    host.host.shell(f"mv {tool} {tool}.kept && printf '#!/bin/sh\\necho no such luck >&2\\nexit 1\\n' > {tool} && chmod 755 {tool}")
    try:
        told = host.restore(f"{APP} --time '{moment}' --yes", good=False)
    finally:
        host.host.shell(f"mv {tool}.kept {tool}")
    assert "no such luck" in told and "going back: what was there serves on" in told
    assert "Live now: the data that were there before" in told
    assert host.rows() == 6 and host.aside() == [] and host.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'alpha\\_%'") == "0"
    host.serves()


def test_a_release_s_restore_point_comes_back_and_is_migrated_again(host):
    before = host.host.serving()
    host.apps.app(APP, migrations=[{"id": "MigrationOrders", "sql": "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)"}])
    host.apps.deploy()
    live = host.host.serving().live
    assert live != before.live and host.rows() == 1
    host.sql("DELETE FROM orders")
    told = host.restore(f"{APP} --point {live} --yes")
    assert f"the restored data do not know release {live}; it is migrated again" in told
    assert host.rows() == 1 and host.host.marked(live) and host.host.serving().live == live
    host.serves()


def test_a_cluster_that_is_gone_comes_back_and_one_that_lives_needs_the_word(host):
    host.orders(10)
    told = host.restore("--cluster --latest", good=False)
    assert "holds data now, so nothing is restored over it without the word" in told and host.rows() == 10
    host.host.shell(f"systemctl stop postgresql@17-main && rm -rf {CLUSTER}")
    told = host.restore("--cluster --latest")
    assert f"now {CLUSTER} is missing" in told and host.rows() == 10
    host.serves()
    host.host.shell("systemctl start anchorage-backup-database.service")
    # On the new timeline every second can be reached too.
    moment = host.now()
    host.sql("DROP TABLE orders")
    told = host.restore(f"--cluster --time '{moment}' --yes")
    (aside,) = host.aside()
    assert (
        host.rows() == 10 and aside.startswith(f"{CLUSTER}.before-") and host.host.shell(f"test -s {aside}/global/pg_control && echo whole").strip() == "whole"
    )
    host.serves()


def test_a_role_gets_the_password_that_its_app_has_today(host):
    host.backup()
    url = host.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'alpha'")
    host.sql("ALTER ROLE alpha PASSWORD 'what-it-was-long-ago'; CHECKPOINT")
    moment = host.now()
    host.sql("SELECT pg_current_xact_id()")
    assert url
    told = host.restore(f"--cluster --time '{moment}' --yes")
    assert "the role alpha gets the password that its app has today" in told
    host.serves()


def test_uploads_and_redis_come_back(host):
    redis = "/usr/local/lib/anchorage/redis-instance alpha-jobs cli"
    host.host.shell(
        f"cd /srv/alpha/shared/static && rm -f * && echo one > a && echo two > b && chown alpha:alpha a b && {redis} SET k1 v1 && {redis} SET k2 v2"
    )
    host.backup()
    host.host.shell(f"cd /srv/alpha/shared/static && echo more >> a && rm b && echo new > c && {redis} SET k1 wrong && {redis} DEL k2 && {redis} SET k3 v3")
    told = host.restore(f"{APP} --files --latest", good=False)
    assert "1 files that only the present has, 1 that go back to what they were, 1 that come back" in told
    host.restore(f"{APP} --files --latest --yes")
    assert host.host.shell("cd /srv/alpha/shared/static && cat a b && ls && stat -c %U a").split() == ["one", "two", "a", "b", "alpha"]
    assert [host.host.shell(f"{redis} GET k{number}").strip() for number in (1, 2, 3)] == ["v1", "v2", ""]
    files, keys = host.aside()
    assert host.host.shell(f"cat {files}/static/c").strip() == "new" and keys.startswith("/var/lib/redis/alpha-jobs.before-")
    host.serves()


# ---- what takes long -------------------------------------------------------------------------------------------------

#: Of the restore of a database and of a cluster: what it says when it has come to the point at which it is killed.
POINTS = [
    ("database", "pgBackRest's backup"),
    ("database", "recovered beside"),
    ("database", "it holds the data as of"),
    ("database", "stop alpha-worker"),
    ("database", "made ready as"),
    ("database", "are not in the restored ones"),
    ("database", "have its name now"),
    ("database", "proven: alpha-server"),
    ("cluster", "pgBackRest fills"),
    ("cluster", "filled in"),
    ("cluster", "stop postgresql"),
    ("cluster", "the restored data lie in"),
    ("cluster", "start postgresql"),
    ("cluster", "recovered in"),
    ("cluster", "proven: alpha-server"),
]


@pytest.mark.fault
@pytest.mark.parametrize(("kind", "point"), POINTS)
def test_a_restore_that_is_killed_is_finished_by_the_next_run(host, kind, point):
    name = f"{kind}: {point}"
    if KILLS.has_passed(name):
        pytest.skip("passed with this very engine")
    causes, began = [], time.monotonic()
    try:
        _killed(host, kind, point)
    except BaseException as error:
        causes = [str(error).splitlines()[0][:300]]
        raise
    finally:
        KILLS.add(name, causes, seconds=round(time.monotonic() - began, 1))


def _killed(host, kind, point):
    host.orders(300)
    moment = host.now()
    host.orders(20, "late")
    wish = f"{APP} --time '{moment}'" if kind == "database" else f"--cluster --time '{moment}'"
    # It watches the newest log from the host itself, and kills everything of the unit.
    script = f"""
    rm -f /var/lib/anchorage/backup/log/*
    (anchorage restore {wish} --yes > /tmp/restore.out 2>&1) &
    for i in $(seq 6000); do grep -qs "{point}" /var/lib/anchorage/backup/log/*.log && break; sleep 0.01; done
    sleep 0.1
    systemctl kill --signal=SIGKILL {UNIT} && echo killed
    wait
    """
    said = host.host.shell(script, check=False)
    assert "killed" in said, said + host.host.shell("cat /tmp/restore.out")
    # The server may be down in the middle of the restore of a cluster; what was there is somewhere all the same.
    told = host.restore("--resume" if host.journal.get("under_way") else f"{wish} --yes")
    assert "Restored:" in told and host.rows() == 300
    (aside,) = host.aside()
    if kind == "database":
        assert host.rows(aside) == 320
    else:
        assert host.host.shell(f"test -s {aside}/global/pg_control && echo whole").strip() == "whole"
    assert host.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'alpha\\_restored%'") == "0"
    host.serves()


@pytest.mark.fault
@pytest.mark.parametrize("trial", range(20))
@pytest.mark.parametrize("manner", ["orderly", "deleted"])
def test_what_is_lost_with_the_data_directory(host, manner, trial):
    name = f"{manner}: {trial:02}"
    if LOSSES[manner].has_passed(name):
        pytest.skip("passed with this very engine")
    if LOSSES[manner].out_of_time():
        pytest.skip("out of time; the next run goes on")
    causes, facts = [], {}
    try:
        facts = _loss(host, manner, trial)
        causes = facts.pop("causes")
    except BaseException as error:
        causes = [str(error).splitlines()[0][:300]]
        raise
    finally:
        LOSSES[manner].add(name, causes, **facts)  # pylint: disable=redundant-keyword-arg  # they were taken out
    assert not causes, causes


def _loss(host, manner, trial):
    prefix = f"{manner}-{trial}-{int(time.time())}"
    with Ledger(host.host, prefix) as ledger:
        # At every phase of the time after which WAL is archived.
        time.sleep(10 + 3 * trial if manner == "deleted" else 5)
        if manner == "orderly":
            host.host.shell(f"systemctl stop postgresql@17-main && rm -rf {CLUSTER}")
        else:
            host.host.shell(f"rm -rf {CLUSTER}", check=False)
        deleted = time.time()
        while time.time() - max(deleted, ledger.last) < 10 and time.time() - deleted < 200:
            time.sleep(0.5)
    began = time.monotonic()
    output = host.host.shell("anchorage restore --cluster --latest --yes", check=False)
    seconds = time.monotonic() - began
    if "Restored:" not in output and "does not run" in output:
        # A machine that others use too may be too slow for the app's own deadline; the data are what is measured here.
        host.restore("--resume")
    kept = {int(number) for number in host.sql(f"SELECT split_part(name, '-', 4) FROM stub_items WHERE name LIKE '{prefix}-%'").split()}
    lost = ledger.lost(kept)
    span = ledger.last - lost[0][1] if lost else 0.0
    causes = []
    if len(ledger.acknowledged) < 20:
        causes.append(f"only {len(ledger.acknowledged)} writes were acknowledged")
    if lost and [entry[0] for entry in lost] != [entry[0] for entry in ledger.acknowledged[-len(lost) :]]:
        causes.append("a write is missing that was older than one that is there")
    if span > MOST_SECONDS or (manner == "orderly" and lost):
        causes.append(f"{len(lost)} writes of {span:.0f} s are lost")
    host.serves()
    return {
        "causes": causes,
        "acknowledged": len(ledger.acknowledged),
        "lost": len(lost),
        "lost_seconds": round(span, 1),
        "served_after_deletion_seconds": round(max(0.0, ledger.last - deleted), 1),
        "restore_seconds": round(seconds, 1),
    }


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["database", "cluster"])
def test_a_gigabyte_is_back_within_five_minutes(host, kind):
    gigabytes = float(os.environ.get("ANCHORAGE_RESTORE_GB", "1"))
    host.sql(
        "CREATE TABLE IF NOT EXISTS bulk (id bigint PRIMARY KEY, what text);"
        f" INSERT INTO bulk SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, {int(gigabytes * 1350000)}) AS i ON CONFLICT DO NOTHING"
    )
    host.host.shell("anchorage backup run database")
    size = int(host.sql("SELECT pg_database_size('alpha')"))
    assert size >= gigabytes * 1e9, size
    moment = host.now()
    host.sql("DELETE FROM bulk WHERE id % 1000 = 0")
    began = time.monotonic()
    host.restore(f"{APP} --time '{moment}' --yes" if kind == "database" else f"--cluster --time '{moment}' --yes")
    seconds = round(time.monotonic() - began, 1)
    host.serves()
    whole = host.sql("SELECT count(*) FROM bulk") == str(int(gigabytes * 1350000))
    host.restore("--drop-aside")
    SIZES.add(kind, [] if seconds <= 300 and whole else [f"{seconds} s, {'whole' if whole else 'not whole'}"], seconds=seconds, bytes=size)
    assert seconds <= 300 and whole
