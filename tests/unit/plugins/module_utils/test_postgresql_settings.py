# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL is told: tuning, the user's word, and which half of the configuration a setting goes to."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_settings import configuration, formatted, networks, replicated, shown, tuned


@pytest.mark.parametrize(
    ("memory", "shared", "cache", "work", "maintenance"),
    [
        (128, "32MB", "96MB", "4MB", "32MB"),
        (1024, "256MB", "768MB", "4MB", "64MB"),
        (4096, "1024MB", "3072MB", "10MB", "256MB"),
        (65536, "16384MB", "49152MB", "64MB", "2048MB"),
    ],
)
def test_memory_decides_the_caches(memory, shared, cache, work, maintenance):
    assert tuned(memory) == {
        "shared_buffers": shared,
        "effective_cache_size": cache,
        "work_mem": work,
        "maintenance_work_mem": maintenance,
    }


@pytest.mark.parametrize("memory", [128, 512, 2048, 8192, 131072])
@pytest.mark.parametrize("connections", [10, 100, 1000])
def test_every_connection_sorting_at_once_stays_within_the_memory_that_is_not_shared(memory, connections):
    work = int(tuned(memory, max_connections=connections)["work_mem"][:-2])
    assert work == 4 or work * connections <= memory - memory // 4


def test_too_little_memory_is_refused_by_the_name_of_its_key():
    with pytest.raises(AnchorageError, match="postgresql_memory_mb is 64"):
        tuned(64)


def test_more_connections_mean_less_memory_for_each():
    few = configuration({"max_connections": 20}, memory_mb=4096)["reload"]["work_mem"]
    many = configuration({"max_connections": 400}, memory_mb=4096)["reload"]["work_mem"]
    assert (few, many) == ("'51MB'", "'4MB'")


def test_a_change_of_a_reloadable_setting_leaves_the_half_that_restarts_alone():
    before, after = (configuration({"log_min_duration_statement": value}, memory_mb=1024) for value in (500, 700))
    assert before["restart"] == after["restart"]
    assert before["reload"] != after["reload"]


@pytest.mark.parametrize("name", ["listen_addresses", "shared_preload_libraries", "shared_buffers", "max_connections", "port"])
def test_what_only_a_restart_brings_into_force_is_in_that_half(name):
    result = configuration({}, memory_mb=1024)
    assert name in result["restart"]
    assert name not in result["reload"]


def test_the_user_wins_over_what_is_computed():
    result = configuration({"work_mem": "32MB", "shared_buffers": "1GB", "jit": False}, memory_mb=1024)
    assert result["reload"]["work_mem"] == "'32MB'"
    assert result["reload"]["jit"] == "off"
    assert result["restart"]["shared_buffers"] == "'1GB'"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "'pg_stat_statements'"),
        ("auto_explain", "'pg_stat_statements, auto_explain'"),
        ("auto_explain,pg_stat_statements", "'pg_stat_statements, auto_explain'"),
        (["auto_explain", "pg_cron"], "'pg_stat_statements, auto_explain, pg_cron'"),
    ],
)
def test_statements_are_always_counted(value, text):
    assert configuration({"shared_preload_libraries": value}, memory_mb=1024)["restart"]["shared_preload_libraries"] == text


def test_the_server_listens_outside_only_when_somebody_may_come():
    assert configuration({}, memory_mb=512)["restart"]["listen_addresses"] == "'localhost'"
    result = configuration({}, memory_mb=512, client_addresses=["10.0.0.0/24", "192.0.2.7", "10.0.0.0/24"])
    assert result["restart"]["listen_addresses"] == "'*'"
    assert result["clients"] == ["10.0.0.0/24", "192.0.2.7/32"]


@pytest.mark.parametrize("address", ["10.0.0.1/24", "0.0.0.0/0 trust", "example.com", "", "10.0.0.0/24\nhost all all all trust"])
def test_what_is_no_network_never_reaches_the_access_rules(address):
    with pytest.raises(AnchorageError, match="postgresql_client_addresses"):
        networks([address])


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "on"), (False, "off"), (0, "0"), (1.1, "1.1"), ("it's", "'it''s'"), ("a\\b", "'a\\\\b'"), (["a", "b"], "'a, b'")],
)
def test_values_are_written_as_the_server_reads_them(value, text):
    assert formatted("x", value) == text


@pytest.mark.parametrize("settings", [{"a b": 1}, {"x = 1\ny": 1}, {"X": 1}, {"archive_command": "true\nport = 1"}, {"max_connections": "many"}])
def test_settings_that_could_smuggle_a_line_are_refused_by_name(settings):
    with pytest.raises(AnchorageError, match="postgresql_settings"):
        configuration(settings, memory_mb=512)


def told(**changes):
    return replicated(**{"primary": {}, "replicas": [], "name": "db2", "passfile": "/etc/pgpass", "wal_max_mb": 4096, **changes})


def test_a_replica_is_told_where_its_primary_is_and_no_password():
    found = told(primary={"address": "192.0.2.21", "port": 5432})
    assert found == {
        "max_slot_wal_keep_size": "4096MB",
        "primary_conninfo": "host=192.0.2.21 port=5432 user=anchorage_replication passfile=/etc/pgpass sslmode=require application_name=anchorage_db2",
        "primary_slot_name": "anchorage_db2",
    }


def test_what_is_kept_for_a_replica_has_a_bound_and_a_server_alone_is_told_nothing():
    assert told(replicas=["db2"], wal_max_mb=512) == {"max_slot_wal_keep_size": "512MB"}
    assert told() == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"primary": {"address": "a"}, "replicas": ["db3"]}, "are both set"),
        ({"primary": {"port": 5432}}, "has no address"),
        ({"primary": {"address": "a password=x"}}, "postgresql_primary: host is 'a password=x'"),
        ({"replicas": ["db2"], "wal_max_mb": 1}, "postgresql_replica_wal_max_mb is 1"),
    ],
)
def test_a_replication_that_cannot_be_is_refused_by_its_key(changes, words):
    with pytest.raises(AnchorageError, match=words):
        told(**changes)


def test_a_server_with_replicas_listens_for_them():
    found = configuration({}, memory_mb=512, replica_addresses=["192.0.2.22"])
    assert found["replicas"] == ["192.0.2.22/32"] and found["restart"]["listen_addresses"] == "'*'"


def test_a_replica_verifies_the_primary_whose_authority_it_knows():
    found = told(primary={"address": "192.0.2.21", "port": 5432, "ca_file": "/etc/anchorage/tls/ca.pem"})
    assert " sslmode=verify-full sslrootcert=/etc/anchorage/tls/ca.pem " in found["primary_conninfo"]


def test_key_and_certificate_come_from_one_file_and_a_reload_brings_them():
    found = configuration(shown("/etc/anchorage/tls/postgresql.pem"), memory_mb=512)
    settings = {name: found["reload"].get(name) for name in ("ssl", "ssl_cert_file", "ssl_key_file")}
    assert settings == {"ssl": "on", "ssl_cert_file": "'/etc/anchorage/tls/postgresql.pem'", "ssl_key_file": "'/etc/anchorage/tls/postgresql.pem'"}
    assert shown("") == {}
