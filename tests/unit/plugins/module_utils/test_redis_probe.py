# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import redis_probe
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.redis_probe import Expectation, Login, judge_info, parse_info, parse_url
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeRedis, within

INFO = """# Server
redis_version:8.0.2
uptime_in_seconds:4711

# Clients
connected_clients:12
maxclients:10000
# Memory
used_memory:52428800
maxmemory:268435456
maxmemory_policy:noeviction
# Persistence
loading:0
rdb_changes_since_last_save:3
rdb_last_save_time:1700000900
rdb_last_bgsave_status:ok
aof_enabled:1
aof_last_bgrewrite_status:ok
aof_last_write_status:ok
# Stats
rejected_connections:0
evicted_keys:0
# Replication
role:master
"""
JOBS = Expectation(purpose="jobs")
CACHE = Expectation(purpose="cache")


def judge(changes=None, wanted=JOBS):
    info = {**parse_info(INFO.replace("\n", "\r\n")), **(changes or {})}
    return {check.name: check for check in judge_info(info, wanted, 1_700_001_000)}


def worst(checks):
    return {name: check.verdict for name, check in checks.items() if check.verdict != "ok"}


def test_a_healthy_instance_for_jobs():
    checks = judge()
    assert worst(checks) == {} and checks["snapshot"].evidence["seconds_since_save"] == 100


CASES = [
    ({"maxmemory_policy": "allkeys-lru"}, JOBS, {"policy": "fail"}, "queued jobs can be thrown away"),
    ({"aof_enabled": "0"}, JOBS, {"append_only": "fail"}, "append-only file is off"),
    ({"aof_last_write_status": "err"}, JOBS, {"append_only": "fail"}, "aof_last_write_status:err"),
    ({"rdb_last_bgsave_status": "err"}, JOBS, {"snapshot": "fail"}, "snapshot failed"),
    ({"used_memory": "228000000"}, JOBS, {"memory": "warn"}, "217 of 256 MB"),
    ({"used_memory": "268000000"}, JOBS, {"memory": "fail"}, "255 of 256 MB"),
    ({"rejected_connections": "4"}, JOBS, {"rejected_connections": "warn"}, "maxclients"),
    ({"role": "slave", "master_link_status": "up"}, JOBS, {"role": "fail"}, "refuses writes"),
    ({"role": "slave", "master_link_status": "down"}, JOBS, {"role": "fail"}, "link to the master is down"),
    ({"loading": "1"}, JOBS, {"append_only": "fail"}, "loads its data"),
    ({}, CACHE, {"policy": "fail"}, "wanted allkeys-lru"),
    ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, CACHE, {"policy": "warn"}, "without a memory limit"),
    ({}, Expectation(policy="volatile-ttl"), {"policy": "fail"}, "wanted volatile-ttl"),
]


@pytest.mark.parametrize(("changes", "wanted", "verdicts", "words"), CASES, ids=[f"{'-'.join(case[2])}-{i}" for i, case in enumerate(CASES)])
def test_each_fault_turns_its_own_check(changes, wanted, verdicts, words):
    checks = judge(changes, wanted)
    assert worst(checks) == verdicts
    assert words in " ".join(check.cause for check in checks.values())


HEALTHY = [
    ({"maxmemory_policy": "allkeys-lru", "used_memory": "268435456", "aof_enabled": "0"}, CACHE),
    ({"maxmemory": "0"}, JOBS),
    ({"aof_enabled": "0", "maxmemory_policy": "volatile-lru"}, Expectation()),
    ({"aof_enabled": "0"}, Expectation(purpose="jobs", append_only=False)),
    ({"rdb_last_bgsave_status": "err"}, Expectation(persistence="ignore")),
    ({"role": "slave", "master_link_status": "up"}, Expectation(purpose="jobs", role="replica")),
    ({"role": "slave", "master_link_status": "up"}, Expectation()),
]


@pytest.mark.parametrize(("changes", "wanted"), HEALTHY)
def test_what_fits_the_purpose_is_healthy(changes, wanted):
    assert worst(judge(changes, wanted)) == {}


@pytest.fixture
def fake():
    started = []

    def start(**options):
        answers = {"PING": "+PONG\r\n", "INFO": f"${len(INFO)}\r\n{INFO}\r\n", **options.pop("answers", {})}
        started.append(FakeRedis(answers, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


def ask(server, wanted=JOBS, **login):
    with within(2):
        return redis_probe.check(Login(port=server.port, **login), wanted, world=World(), deadline_seconds=0.5, timeout_seconds=0.4, interval_seconds=0.2)


def test_a_healthy_instance_is_asked_with_ping_and_info_only(fake):
    server = fake()
    found = ask(server, user="shop", password="sesame ünd\r\n")
    assert found.healthy and {words[0] for words in server.seen} == {"AUTH", "PING", "INFO"}
    assert server.seen[0] == ["AUTH", "shop", "sesame ünd\r\n"]
    assert "sesame" not in repr(found)


def test_an_answer_in_single_bytes_is_put_together(fake):
    assert ask(fake(chunk=1)).healthy


REFUSALS = [
    ({"PING": "-NOAUTH Authentication required.\r\n"}, "connect", "none was given"),
    ({"AUTH": "-WRONGPASS invalid username-password pair\r\n"}, "connect", "user or password is refused"),
    ({"INFO": "-NOPERM User shop has no permissions to run the 'info' command\r\n"}, "info", "+info"),
    ({"PING": "-LOADING Redis is loading the dataset in memory\r\n"}, "ping", "still loads"),
    ({"PING": "-MISCONF Errors writing to the AOF file\r\n"}, "ping", "refuses writes"),
    ({"PING": "-ERR max number of clients reached\r\n"}, "connect", "max number of clients"),
    ({"PING": ""}, "connect", "closed the connection"),
    ({"PING": "HTTP/1.1 400 Bad Request\r\n\r\n"}, "connect", "does not speak the protocol"),
    ({"PING": None}, "connect", "did not answer PING within"),
    ({"INFO": f"${2 * 1024**2}\r\n" + "x" * 2 * 1024**2}, "connect", "sent more than"),
]


@pytest.mark.parametrize(("answers", "name", "words"), REFUSALS, ids=[row[2].replace(" ", "-") for row in REFUSALS])
def test_a_refusal_names_its_cause_in_time(fake, answers, name, words):
    found = ask(fake(answers=answers), user="shop", password="sesame")
    assert [check.name for check in found.checks if not check.healthy] == [name]
    assert words in found.message and "sesame" not in found.message


def test_a_stopped_instance(fake):
    server = fake()
    server.close()
    assert "refused the connection" in ask(server).message


def test_latency_has_a_limit(fake):
    assert [check.name for check in ask(fake(), Expectation(max_latency_milliseconds=0.0001)).checks if not check.healthy] == ["latency"]


URLS = [
    ("redis://:p%40ss@10.0.0.1:6380/2", ("10.0.0.1", 6380, None, "p@ss", None, False)),
    ("rediss://shop:secret@cache.example.com", ("cache.example.com", 6379, "shop", "secret", None, True)),
    ("unix://shop:secret@/run/redis/redis.sock", ("127.0.0.1", 6379, "shop", "secret", "/run/redis/redis.sock", False)),
    ("redis://localhost", ("localhost", 6379, None, None, None, False)),
]


@pytest.mark.parametrize(("url", "wanted"), URLS)
def test_urls_as_applications_write_them(url, wanted):
    login = parse_url(url)
    assert (login.host, login.port, login.user, login.password, login.unix_socket, login.tls) == wanted


@pytest.mark.parametrize("url", ["http://u:sesame@h", "redis://u:sesame@h:x"])
def test_a_bad_url_is_refused_without_its_password(url):
    with pytest.raises(AnchorageError) as error:
        parse_url(url)
    assert "sesame" not in error.value.text()


@pytest.mark.parametrize("known", [True, False])
def test_a_host_of_a_fleet_trusts_its_authority_besides_all_others(monkeypatch, tmp_path, known):
    seen = {}
    authority = tmp_path / "ca.pem"
    if known:
        authority.write_text("")
    monkeypatch.setattr(redis_probe, "AUTHORITY", str(authority))
    monkeypatch.setattr(redis_probe, "connect", lambda *_arguments: (None, "there"))
    monkeypatch.setattr(redis_probe, "secure", lambda sock, target, name, *_rest: seen.update(target=target, name=name) or (sock, {}))
    redis_probe.Connection(redis_probe.parse_url("rediss://shop:x@10.0.0.22:7379/0"), 1.0)
    assert seen["name"] == "10.0.0.22" and seen["target"].validate_certs
    assert (seen["target"].ca_path, seen["target"].further_ca_path) == (None, str(authority) if known else None)
