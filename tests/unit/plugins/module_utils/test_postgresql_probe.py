# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_probe
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_probe import Expectation, Login, judge_disk, parse_url
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld

FACTS = {
    "version": "17.11 (Debian 17.11-0+deb13u1)",
    "version_number": 170011,
    "database": "shop",
    "user": "shop",
    "owner": "shop",
    "standby": False,
    "read_only": False,
    "receiving": False,
    "lag_seconds": None,
    "size_bytes": 20 * 1048576,
    "encrypted": True,
    "connections": 4,
    "max_connections": 97,
    "role_connections": 2,
    "role_limit": -1,
    "pending_restart": [],
    "archive_mode": "off",
    "archive_failing": False,
    "archive_failed_file": None,
    "oldest_transaction_seconds": 0,
    "waiting_locks": 0,
    "longest_lock_wait_seconds": 0,
    "invalid_indexes": [],
}


def session(write="written", latency=(0.4, 0.2, 0.3, 9.0, 0.2), rc=0, stderr="", **facts):
    lines = ["@anchorage:facts", json.dumps({**FACTS, **facts}), "@anchorage:latency"]
    for value in latency:
        lines += ["1", f"Time: {value:.3f} ms"]
    if write is not None:
        lines += ["@anchorage:write", *([write] if write else [])]
    return Completed(rc, "\n".join([*lines, *(["@anchorage:end"] if rc == 0 else []), ""]), stderr)


def judge(completed, **wanted):
    return {check.name: check for check in postgresql_probe.judge_session(completed, Expectation(**wanted), Login(database="shop"))}


def failed(checks, verdict="fail"):
    return [name for name, check in checks.items() if check.verdict == verdict]


def test_a_healthy_session_has_no_fault():
    checks = judge(session())
    assert failed(checks) == failed(checks, "warn") == []
    assert checks["latency"].evidence["value"] == 0.3 and checks["connect"].evidence["version"].startswith("17.11")


CASES = [
    ({"owner": "postgres"}, {"owner": "shop"}, "owner", "fail", "belongs to postgres, wanted shop"),
    ({"version": "15.4"}, {"min_version": "15.10"}, "version", "fail", "15.4, wanted at least 15.10"),
    ({"connections": 90}, {}, "connections", "warn", "(90 of 97)"),
    ({"connections": 96}, {}, "connections", "fail", "(96 of 97)"),
    ({"role_limit": 2}, {}, "connections", "fail", "the role shop (2 of 2)"),
    ({"pending_restart": ["shared_buffers"]}, {}, "pending_restart", "warn", "shared_buffers"),
    ({"pending_restart": ["shared_buffers"]}, {"pending_restart": "fail"}, "pending_restart", "fail", "shared_buffers"),
    ({"size_bytes": 3 * 1048576}, {"max_database_mb": 2}, "size", "fail", "3 MB, the limit is 2 MB"),
    ({"archive_mode": "on", "archive_failing": True, "archive_failed_file": "0001"}, {}, "archiving", "fail", "at 0001"),
    ({"invalid_indexes": ["a_idx"]}, {}, "indexes", "warn", "a_idx"),
    ({"oldest_transaction_seconds": 70}, {"max_transaction_seconds": 60}, "transactions", "warn", "70 s"),
    ({"waiting_locks": 3, "longest_lock_wait_seconds": 40.2}, {}, "locks", "warn", "the longest of 3 waits for a lock is 40.2 s"),
    ({"waiting_locks": 3, "longest_lock_wait_seconds": 5}, {"max_lock_wait_seconds": 4}, "locks", "warn", "the limit is 4 s"),
    ({}, {"max_latency_milliseconds": 0.25}, "latency", "fail", "0.3 ms"),
    ({"encrypted": False}, {"require_encryption": True}, "encrypted", "fail", "not encrypted"),
    ({}, {"role": "standby"}, "role", "fail", "is a primary, wanted a standby"),
]


@pytest.mark.parametrize(("facts", "wanted", "name", "verdict", "words"), CASES, ids=[f"{case[2]}-{case[3]}-{i}" for i, case in enumerate(CASES)])
def test_each_fact_has_its_check(facts, wanted, name, verdict, words):
    checks = judge(session(**facts), **wanted)
    assert failed(checks, verdict) == [name] and words in checks[name].cause


def test_a_wait_for_a_lock_that_is_short_is_no_fault():
    assert judge(session(waiting_locks=3, longest_lock_wait_seconds=29))["locks"].verdict == "ok"


@pytest.mark.parametrize(
    ("path", "free", "words"),
    [("/", 0, ""), ("/", 10**9, "MB are free at /, wanted 1e+09 MB"), ("/no/such/place", 0, "cannot be asked for: No such file or directory")],
)
def test_the_room_for_the_data_is_asked_of_the_host(path, free, words):
    check = judge_disk(World(), path, free)
    assert check.healthy == (not words) and words in check.cause


@pytest.mark.parametrize(("lag", "receiving", "good"), [(0, True, True), (59, True, True), (61, True, False), (61, False, False), (None, False, False)])
def test_a_standby_is_judged_by_its_lag_and_not_written_to(lag, receiving, good):
    checks = judge(session(write=None, standby=True, lag_seconds=lag, receiving=receiving))
    assert checks["lag"].healthy is good and "write" not in checks


@pytest.mark.parametrize("archive_mode", ["off", "on"])
def test_archiving_that_once_failed_but_works_is_healthy(archive_mode):
    assert judge(session(archive_mode=archive_mode, archive_failing=archive_mode == "off"))["archiving"].healthy


def test_a_refused_write_is_unhealthy_and_has_its_sqlstate():
    stderr = "psql:<stdin>:20: ERROR:  25006: cannot execute CREATE TABLE in a read-only transaction\nLOCATION:  PreventCommandIfReadOnly"
    checks = judge(session(write="", rc=3, stderr=stderr))
    assert failed(checks) == ["write"] and checks["write"].evidence["sqlstate"] == "25006"
    assert "read-only transaction" in checks["write"].cause and "LOCATION" not in checks["write"].cause


def test_a_session_that_breaks_after_the_facts_is_unhealthy():
    assert failed(judge(session(write=None, latency=(), rc=2, stderr="server closed the connection"), write_probe=False)) == ["session"]
    assert failed(judge(session(write=None, latency=(), rc=2, stderr="server closed the connection"))) == ["write"]


REASONS = [
    ('FATAL:  password authentication failed for user "shop"', "the password is refused"),
    ("FATAL:  SASL authentication failed", "the password is refused"),
    ("FATAL:  no such user", "the password is refused"),
    ("fe_sendauth: no password supplied", "the password is refused"),
    ("FATAL:  sorry, too many clients already", "all connections are taken"),
    ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "all connections are taken"),
    ("FATAL:  the database system is starting up", "the server starts"),
    ('FATAL:  database "shop" does not exist', "the database does not exist"),
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "pg_hba.conf"),
    ("Connection refused\n\tIs the server running?", "nothing listens"),
    ('could not translate host name "db" to address', "cannot be resolved"),
    ("something new", "something new"),
]


@pytest.mark.parametrize(("said", "cause"), REASONS)
def test_a_refused_login_names_its_cause(said, cause):
    stderr = f'psql: error: connection to server at "127.0.0.1", port 5432 failed: {said}'
    checks = judge(Completed(2, "", stderr))
    assert failed(checks) == ["connect"] and cause in checks["connect"].cause


def test_a_server_that_hangs_is_named():
    assert "did not answer in time" in judge(Completed(124, "", "\nkilled after 5 s"))["connect"].cause


URLS = [
    ("postgres://shop:p%40ss%2Fw%3A@db.example.com:6432/shop", ("db.example.com", 6432, "shop", "p@ss/w:", "shop", None)),
    ("postgresql://shop@[2001:db8::1]/shop?sslmode=verify-full", ("2001:db8::1", None, "shop", None, "shop", "verify-full")),
    ("postgresql:///shop?host=/var/run/postgresql&user=me", ("/var/run/postgresql", None, "me", None, "shop", None)),
    ("postgres://u:p@h/d?ssl=true", ("h", None, "u", "p", "d", "require")),
    ("postgres://u:p@h/d?sslmode=no-verify", ("h", None, "u", "p", "d", "require")),
]


@pytest.mark.parametrize(("url", "wanted"), URLS)
def test_urls_as_applications_write_them(url, wanted):
    login = parse_url(url)
    assert (login.host, login.port, login.user, login.password, login.database, login.ssl_mode) == wanted


def test_parameters_of_applications_are_left_out_and_named():
    login = parse_url("postgresql://u:p@h/d?schema=public&connection_limit=5")
    assert login.ignored == ("connection_limit", "schema")


@pytest.mark.parametrize("url", ["mysql://u:sesame@h/d", "postgres://u:sesame@h:port/d", "postgres://u:p@h/d?sslmode=sesame1"])
def test_a_bad_url_is_refused_without_its_password(url):
    with pytest.raises(AnchorageError) as error:
        parse_url(url)
    assert "sesame@" not in error.value.text()


def test_the_password_is_in_the_environment_of_psql_and_nowhere_else():
    world = FakeWorld(commands=lambda call: session())
    login = parse_url("postgres://shop:sesame@127.0.0.1:5433/shop")
    found = postgresql_probe.check(login, Expectation(), world=world, home="/root")
    assert found.healthy
    call = world.ran[0]
    assert call["env"]["PGPASSWORD"] == "sesame" and call["env"]["PGPORT"] == "5433" and call["timeout"] == 5
    assert "sesame" not in " ".join(call["argv"]) + call["input"] + repr(login) + json.dumps(found.as_result())


def test_a_missing_psql_is_an_error_and_no_verdict():
    with pytest.raises(AnchorageError) as error:
        postgresql_probe.check(Login(), Expectation(), world=FakeWorld())
    assert "postgresql-client" in error.value.next_step


def test_the_session_leaves_nothing_behind_in_a_pooled_connection():
    text = postgresql_probe.script(Expectation(), 5)
    assert text.count("SET LOCAL") == text.count("SET ") == 3 and text.count("BEGIN;") == text.count("COMMIT;") == 2
    assert "ON COMMIT DROP" in text
    assert "CREATE" not in postgresql_probe.script(Expectation(write_probe=False), 5)


def test_nothing_of_libpq_leaks_in_from_the_environment_of_the_task(monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c search_path=evil")
    assert "PGOPTIONS" not in Login().environment(5)
    assert subprocess.run(["true"], env=Login().environment(5), check=True).returncode == 0
