# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts of redis_health on a real instance that is broken in one way after another."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from ansible_collections.anchorage.vps.plugins.modules import redis_health
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Authority, within
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

from .conftest import free_port, own, until


def ask(server, *, user="shop", password="sesame", purpose="jobs", **params):
    defaults = {"login_port": server.port, "login_user": user, "login_password": password, "purpose": purpose}
    defaults.update(fail=False, deadline_seconds=8, interval_seconds=8, timeout_seconds=8)
    with within(10):
        code, result = run_module(redis_health, **{key: value for key, value in {**defaults, **params}.items() if value is not None})
    assert code == 0 and result["changed"] is False, result
    assert "sesame" not in repr(result)
    return result, {item["name"]: item["verdict"] for item in result["checks"] if item["verdict"] != "ok"}


def test_healthy_for_jobs_and_not_for_a_cache(redis):
    server = redis()
    result, faults = ask(server, successes=3, interval_seconds=0.1)
    assert result["healthy"] and faults == {} and result["role"] == "master"
    assert ask(server, purpose="cache")[1] == {"policy": "fail"}


def test_healthy_for_a_cache_and_not_for_jobs(redis):
    server = redis(maxmemory_policy="allkeys-lru", appendonly="no")
    assert ask(server, purpose="cache")[1] == {}
    result, faults = ask(server)
    assert faults == {"policy": "fail", "append_only": "fail"} and "queued jobs can be thrown away" in result["summary"]


def test_unix_socket_and_url(redis):
    server = redis()
    assert ask(server, login_unix_socket=f"{server.directory}/r.sock")[0]["healthy"]
    url = f"redis://shop:sesame@127.0.0.1:{server.port}/1"
    assert ask(server, url=url, user=None, password=None)[0]["healthy"]


@pytest.mark.parametrize(
    ("user", "password", "name", "words"),
    [
        (None, None, "connect", "it wants a password"),
        ("shop", "wrong", "connect", "user or password is refused"),
        ("blind", "sesame", "info", "+info"),
    ],
)
def test_login(redis, user, password, name, words):
    result, faults = ask(redis(), user=user, password=password)
    assert faults == {name: "fail"} and words in result["summary"]


def test_stopped_and_hanging(redis):
    server = redis()
    os.kill(server.process.pid, signal.SIGSTOP)
    result, faults = ask(server, deadline_seconds=1)
    assert faults == {"connect": "fail"} and "did not answer AUTH within" in result["summary"]
    server.stop()
    result, faults = ask(server)
    assert faults == {"connect": "fail"} and "refused the connection" in result["summary"]


def test_a_replica_refuses_writes_and_has_lost_its_master(redis):
    master, replica = redis(), redis()
    replica.cli("CONFIG", "SET", "masterauth", "boss")
    replica.cli("REPLICAOF", "127.0.0.1", str(master.port))
    until(lambda: "master_link_status:up" in replica.cli("INFO", "replication"), "replication")
    result, faults = ask(replica)
    assert faults == {"role": "fail"} and "it refuses writes" in result["summary"]
    assert ask(replica, role="replica")[1] == {}
    master.stop()
    until(lambda: "master_link_status:down" in replica.cli("INFO", "replication"), "the loss")
    assert "link to the master is down" in ask(replica, role="replica")[0]["summary"]


def test_snapshots_and_append_only_file_that_cannot_be_written(redis):
    server = redis()
    server.cli("SET", "a", "1")
    for name in (server.directory, server.directory / "appendonlydir"):
        os.chown(name, 0, 0)
        name.chmod(0o555)
    server.cli("BGSAVE")
    until(lambda: "rdb_last_bgsave_status:err" in server.cli("INFO", "persistence"), "a failed save")
    server.cli("BGREWRITEAOF", check=False)
    until(lambda: "aof_last_bgrewrite_status:err" in server.cli("INFO", "persistence"), "a failed rewrite")
    result, faults = ask(server)
    for name in (server.directory, server.directory / "appendonlydir"):
        name.chmod(0o755)
        own(str(name))
    assert faults == {"ping": "fail", "append_only": "fail", "snapshot": "fail"}
    assert "aof_last_bgrewrite_status:err" in result["summary"] and "snapshot failed" in result["summary"]


def test_full_memory(redis):
    server = redis(maxmemory="4mb")
    server.cli("EVAL", "for i = 1, 4000 do if redis.pcall('SET', 'k' .. i, string.rep('x', 1000))['err'] then break end end", "0")
    assert ask(server)[1] == {"memory": "fail"}


def test_refused_connections(redis):
    server = redis(maxclients="4")
    holders = [socket.create_connection(("127.0.0.1", server.port)) for _index in range(6)]
    refused, _faults = ask(server)
    assert refused["healthy"] is False and "closed the connection" in refused["summary"] or "max number of clients" in refused["summary"]
    for holder in holders:
        holder.close()
    until(lambda: ask(server)[0]["healthy"], "free places")
    assert ask(server)[1] == {"rejected_connections": "warn"}


def test_tls(redis, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ca")
    authority = Authority(str(directory), "redis")
    certificate, key = authority.issue("localhost")
    for path in (directory, directory.parent, directory.parent.parent):
        path.chmod(0o755)
    os.chmod(key, 0o644)
    port = free_port()
    settings = {"tls-port": str(port), "tls-cert-file": certificate, "tls-key-file": key, "tls-auth-clients": "no"}
    server = redis(**settings)
    secure = {"login_host": "localhost", "login_port": port, "tls": True}
    assert ask(server, **secure, ca_path=authority.certificate)[0]["healthy"]
    result, _faults = ask(server, **secure)
    assert "certificate" in result["summary"]
    result, _faults = ask(server, **{**secure, "tls": False})
    assert not result["healthy"]
