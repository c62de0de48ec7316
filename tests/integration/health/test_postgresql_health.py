# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts of postgresql_health on a real server that is broken in one way after another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest

from ansible_collections.anchorage.vps.plugins.modules import postgresql_health
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import within
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

from .conftest import as_user, until


def ask(server, *, seconds=15.0, check_mode=False, **params):
    """Ask once, with time enough for a busy machine, unless a test wants it otherwise."""
    params = {"url": server.url, "fail": False, "deadline_seconds": 12, "interval_seconds": 12, "timeout_seconds": 12, **params}
    with within(seconds):
        code, result = run_module(postgresql_health, check_mode=check_mode, **{key: value for key, value in params.items() if value is not None})
    assert code == 0 and result["changed"] is False, result
    assert "sesame" not in repr(result)
    return result, [item["name"] for item in result["checks"] if item["verdict"] == "fail"]


@contextlib.contextmanager
def with_sql(server, do, undo, database="postgres"):
    server.sql(do, database)
    try:
        yield
    finally:
        server.sql(undo, database)


@pytest.mark.parametrize("check_mode", [False, True])
def test_healthy(postgres, check_mode):
    result, failed = ask(postgres, check_mode=check_mode, owner="shop", min_version="13", max_latency_milliseconds=2000, successes=2, interval_seconds=0.2)
    assert failed == [] and result["healthy"], result["summary"]
    evidence = {item["name"]: item["evidence"] for item in result["checks"]}
    assert evidence["connections"]["limit"] == 9 and evidence["role"]["role"] == "primary" and "write" in evidence


def test_nothing_is_left_behind(postgres):
    ask(postgres)
    assert postgres.sql("SELECT count(*) FROM pg_class WHERE relname = 'anchorage_probe'", "shop") == "0"


def test_login_options_instead_of_a_url(postgres):
    login = {"login_host": "127.0.0.1", "login_port": postgres.port, "login_user": "shop", "login_password": postgres.password, "login_db": "shop"}
    assert ask(postgres, url=None, **login)[0]["healthy"]


def test_wrong_password(postgres):
    result, failed = ask(postgres, url=postgres.url.replace("%27open", "%27shut"))
    assert failed == ["connect"] and "the password is refused" in result["summary"], result["summary"]


def test_missing_database(postgres):
    result, failed = ask(postgres, url=postgres.url + "x")
    assert failed == ["connect"] and "the database does not exist" in result["summary"], result["summary"]


def sessions(postgres):
    """Return how many sessions the role shop has; while others are being refused there may be no place to ask from."""
    try:
        return int(postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop'"))
    except subprocess.CalledProcessError:
        return None


def test_out_of_connections(postgres):
    sleeper = as_user(["psql", "-XAtq", postgres.url, "-c", "SELECT pg_sleep(60)"])
    holders = []

    def full():
        count = sessions(postgres)
        if count is not None and count < 9:  # one that was refused does not come again by itself
            holders.append(subprocess.Popen(sleeper, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return count == 9

    try:
        until(full, "nine sleepers")
        result, failed = ask(postgres)
        assert failed == ["connect"] and "all connections are taken" in result["summary"], result["summary"]
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
        until(lambda: sessions(postgres) is not None, "a place to ask from")
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
        until(lambda: sessions(postgres) == 0, "the sleepers' end")


def test_nearly_out_of_the_role_s_own_connections(postgres):
    with with_sql(postgres, "ALTER ROLE shop CONNECTION LIMIT 1", "ALTER ROLE shop CONNECTION LIMIT -1"):
        result, failed = ask(postgres)
    assert failed == ["connections"] and "the role shop (1 of 1)" in result["summary"], result["summary"]


def test_read_only(postgres):
    with with_sql(postgres, "ALTER DATABASE shop SET default_transaction_read_only = on", "ALTER DATABASE shop RESET default_transaction_read_only"):
        result, failed = ask(postgres)
    assert failed == ["write"], result["summary"]
    assert next(item for item in result["checks"] if item["name"] == "write")["evidence"]["sqlstate"] == "25006"


def test_no_right_to_write(postgres):
    with with_sql(postgres, "ALTER DATABASE shop OWNER TO boss; REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC", "ALTER DATABASE shop OWNER TO shop"):
        result, failed = ask(postgres, owner="shop")
    assert failed == ["owner", "write"] and "belongs to boss" in result["summary"], result["summary"]


def test_pending_restart(postgres):
    with with_sql(postgres, "ALTER SYSTEM SET max_connections = 20", "ALTER SYSTEM RESET max_connections"):
        postgres.sql("SELECT pg_reload_conf()")
        until(lambda: postgres.sql("SELECT count(*) FROM pg_settings WHERE pending_restart") == "1", "the reload")
        result, failed = ask(postgres)
        strict, strictly = ask(postgres, pending_restart="fail")
    postgres.sql("SELECT pg_reload_conf()")
    assert failed == [] and "max_connections" in result["summary"] and "warning" in result["summary"], result["summary"]
    assert strictly == ["pending_restart"] and not strict["healthy"], strict["summary"]


def test_archiving_fails(postgres):
    with with_sql(postgres, "ALTER SYSTEM SET archive_command = 'false'", "ALTER SYSTEM RESET archive_command"):
        postgres.sql("SELECT pg_reload_conf()")
        postgres.sql("CREATE TABLE grow AS SELECT 1; DROP TABLE grow; SELECT pg_switch_wal()")
        until(lambda: int(postgres.sql("SELECT failed_count FROM pg_stat_archiver")) > 0, "a failure", 60)
        result, failed = ask(postgres)
    postgres.sql("SELECT pg_reload_conf()")
    assert failed == ["archiving"] and "WAL archiving fails" in result["summary"], result["summary"]
    until(lambda: ask(postgres)[0]["healthy"], "the archiver", 90)


def test_somebody_waits_for_a_lock(postgres):
    postgres.sql("CREATE TABLE wanted (n int)", "shop")
    where = f"host=127.0.0.1 port={postgres.port} user=boss password=boss dbname=shop"
    commands = ("BEGIN; LOCK TABLE wanted; SELECT pg_sleep(60)", "BEGIN; LOCK TABLE wanted")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    sessions_of_it = []
    try:
        for text in commands:
            sessions_of_it.append(
                subprocess.Popen(as_user(["psql", "-XAtq", where, "-c", text]), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            time.sleep(0.5)
        until(lambda: postgres.sql(waiting) != "0", "somebody who waits")
        time.sleep(1.2)
        result, failed = ask(postgres, max_lock_wait_seconds=1)
        patient, _failed = ask(postgres)
    finally:
        for process in sessions_of_it:
            process.kill()
            process.wait()
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE wanted%' AND pid <> pg_backend_pid()")
        until(lambda: postgres.sql(waiting) == "0", "nobody who waits")
        postgres.sql("DROP TABLE wanted", "shop")
    verdicts = {item["name"]: item["verdict"] for item in result["checks"]}
    assert failed == [] and verdicts["locks"] == "warn" and "the longest of" in result["summary"]
    assert {item["name"]: item["verdict"] for item in patient["checks"]}["locks"] == "ok"


def test_the_disk_of_the_data(postgres):
    assert ask(postgres, disk_path=str(postgres.data), min_free_mb=1)[1] == []
    result, failed = ask(postgres, disk_path=str(postgres.data), min_free_mb=1e9)
    assert failed == ["disk"] and "MB are free at" in result["summary"]


def test_an_index_that_is_not_valid(postgres):
    postgres.sql("CREATE TABLE doubled AS SELECT 1 AS n UNION ALL SELECT 1", "shop")
    with pytest.raises(subprocess.CalledProcessError):
        postgres.sql("CREATE UNIQUE INDEX CONCURRENTLY doubled_n ON doubled (n)", "shop")
    try:
        result, failed = ask(postgres, invalid_indexes="fail")
        assert failed == ["indexes"] and "doubled_n" in result["summary"], result["summary"]
    finally:
        postgres.sql("DROP TABLE doubled", "shop")


def test_a_server_that_hangs_is_unhealthy_in_time(postgres):
    os.kill(postgres.pid, signal.SIGSTOP)
    try:
        result, failed = ask(postgres, seconds=6, deadline_seconds=1.5)
    finally:
        os.kill(postgres.pid, signal.SIGCONT)
    assert failed == ["connect"] and "in time" in result["summary"], result["summary"]


def test_a_write_that_hangs_is_unhealthy_in_time(postgres):
    """A table lock of the catalogue stops CREATE TABLE while reading goes on."""
    lock = "BEGIN; LOCK TABLE pg_attribute IN EXCLUSIVE MODE; SELECT pg_sleep(30)"
    environment = {**os.environ, "PGPASSWORD": "boss"}
    where = f"host=127.0.0.1 port={postgres.port} user=boss dbname=shop"
    holder = subprocess.Popen(as_user(["psql", "-XAtq", where, "-c", lock]), cwd="/", env=environment, stdout=subprocess.DEVNULL)
    try:
        until(lambda: postgres.sql("SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'pg_attribute'::regclass", "shop") == "1", "lock")
        result, failed = ask(postgres, seconds=6, deadline_seconds=1.5)
        assert failed == ["write"], result["summary"]
    finally:
        holder.kill()
        holder.wait()
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND pid <> pg_backend_pid()")
        time.sleep(0.3)


def test_a_standby_follows(postgres, standby):
    until(lambda: postgres.sql("SELECT count(*) FROM pg_stat_replication") == "1", "replication")
    result, failed = ask(standby, role="standby")
    assert failed == [] and "write" not in [item["name"] for item in result["checks"]], result["summary"]
    result, failed = ask(standby, role="primary")
    assert failed == ["role"] and "it is a standby, wanted a primary" in result["summary"], result["summary"]


def test_a_standby_that_lost_its_primary_falls_behind(postgres, standby):
    until(lambda: ask(standby, role="standby")[0]["healthy"], "the standby")
    postgres.stop("fast")
    try:
        until(lambda: ask(standby, max_lag_seconds=1)[1] == ["lag"], "lag", 60)
        result, _failed = ask(standby, max_lag_seconds=1)
        assert "it receives nothing from its primary" in result["summary"]
        result, failed = ask(postgres)
        assert failed == ["connect"] and "nothing listens there" in result["summary"], result["summary"]
    finally:
        postgres.start()


def test_the_service_comes_up_while_it_is_waited_for(postgres):
    postgres.stop("fast")
    starter = subprocess.Popen(as_user(["sh", "-c", f"sleep 1; {postgres.ctl} -D {postgres.data} -w -l {postgres.data}/log start"]), cwd="/")
    result, _failed = ask(postgres, seconds=40, deadline_seconds=35, interval_seconds=0.3)
    starter.wait()
    assert result["healthy"] and result["checks"][0]["attempts"] > 1
