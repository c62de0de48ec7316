# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PgBouncer is told, what is refused before anything is changed, and how it is judged."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.filter.postgresql_configuration import postgresql_configuration
from ansible_collections.anchorage.vps.plugins.filter.postgresql_pool_configuration import postgresql_pool_configuration
from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_pool
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.health import FAIL, OK, WARN, worst
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_objects import POOL
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_replication import RECORD
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .health_fakes import FakeWorld

SHOP = {"name": "shop", "mode": "transaction", "size": 20, "prepared_statements": False}
CMS = {"name": "cms", "mode": "session", "size": 5}


def told(*databases, version="1.24", settings=None, clients=("10.0.0.11/32",), known=("shop", "cms", "rival-app"), **pool):
    server = postgresql_configuration(settings or {}, memory_mb=512, client_addresses=clients)
    return postgresql_pool_configuration({**pool, "databases": list(databases)}, configuration=server, databases=known, version=version)


class TestConfiguration:
    def test_each_database_has_its_mode_and_its_size_for_all_logins_together(self):
        assert told(SHOP, CMS)["databases"] == {
            "cms": "host=/var/run/postgresql port=5432 pool_mode=session pool_size=5 max_db_connections=6",
            "shop": "host=/var/run/postgresql port=5432 pool_mode=transaction pool_size=20 max_db_connections=21",
        }

    def test_only_what_listens_takes_a_restart(self):
        found = told(SHOP)
        assert found["restart"] == {"listen_addr": "*", "listen_port": 6432, "unix_socket_dir": "/var/run/postgresql"}
        assert told(SHOP, clients=(), port=6500)["restart"] == {"listen_addr": "127.0.0.1", "listen_port": 6500, "unix_socket_dir": "/var/run/postgresql"}
        assert found["clients"] == ["10.0.0.11/32"]

    def test_it_follows_the_port_and_the_certificate_of_the_server(self):
        found = told(SHOP, settings={"port": 5433, "ssl_cert_file": "/etc/tls/db.pem", "ssl_key_file": "/etc/tls/db.key"})
        assert "port=5433" in found["databases"]["shop"]
        assert (found["reload"]["client_tls_cert_file"], found["reload"]["client_tls_key_file"]) == ("/etc/tls/db.pem", "/etc/tls/db.key")
        assert told(SHOP)["reload"]["client_tls_cert_file"] == "/etc/ssl/certs/ssl-cert-snakeoil.pem"

    def test_it_keeps_no_password_and_asks_for_apps_only(self):
        query = told(SHOP)["reload"]["auth_query"]
        assert "NOT rolsuper" in query and "NOT rolreplication" in query and "rolcanlogin" in query and "SCRAM-SHA-256$%" in query

    def test_what_is_reset_brings_back_as_whom_a_second_login_acts(self):
        statements = [part.strip() for part in told(CMS)["reload"]["server_reset_query"].split(";")]
        assert statements.index("SET SESSION AUTHORIZATION DEFAULT") < statements.index("RESET ROLE")
        assert "DISCARD ALL" not in statements, "it cannot stand beside another"

    def test_health_and_a_promotion_are_told_what_they_need(self):
        assert told(SHOP, CMS, max_clients=300)["document"] == {"port": 6432, "max_clients": 300, "databases": {"shop": 20, "cms": 5}}
        assert told(SHOP)["document"]["max_clients"] == told(SHOP)["reload"]["max_client_conn"] == 1000

    @pytest.mark.parametrize(("version", "signal"), [("1.18", "SIGTERM"), ("1.22", "SIGTERM"), ("1.23", "SIGQUIT"), ("1.24", "SIGQUIT")])
    def test_it_is_ended_by_what_its_version_ends_at_once_by(self, version, signal):
        assert told(SHOP, version=version)["stop_signal"] == signal

    @pytest.mark.parametrize(("version", "kept"), [("1.18", False), ("1.20", False), ("1.21", True), ("1.24", True)])
    def test_prepared_statements_are_kept_where_it_can(self, version, kept):
        assert ("max_prepared_statements" in told(SHOP, version=version)["reload"]) is kept
        assert told({**SHOP, "mode": "session", "prepared_statements": True}, version=version)
        wants = {**SHOP, "prepared_statements": True}
        if kept:
            assert told(wants, version=version)
        else:
            with pytest.raises(AnsibleFilterError, match=f"PgBouncer {version} of this host forgets them"):
                told(wants, version=version)

    @pytest.mark.parametrize(
        ("databases", "more", "says"),
        [
            ([{**SHOP, "size": 80}], {}, None),
            ([{**SHOP, "size": 81}], {}, "set postgresql_settings.max_connections to 101 or more"),
            ([{**SHOP, "size": 76}, CMS], {}, "all pools together are 81 connections"),
            ([{**SHOP, "size": 81}], {"settings": {"max_connections": 101}}, None),
            ([SHOP], {"settings": {"max_connections": 30}}, "Give them 10 together"),
            ([{**SHOP, "size": 0}], {}, "the size of shop is 0"),
            ([{**SHOP, "name": "other"}], {}, "other is none of postgresql_databases"),
            ([{**SHOP, "name": "a b"}], {"known": ["a b"]}, "cannot be the name"),
            ([{**SHOP, "name": "pgbouncer"}], {"known": ["pgbouncer"]}, "cannot be the name"),
            ([{**SHOP, "name": "rival-app"}], {}, None),
            ([SHOP], {"port": 5432}, "the port 5432 is none"),
            ([SHOP], {"port": 80}, "the port 80 is none"),
            ([SHOP], {"settings": {"ssl_key_file": "server key"}}, "no path of a certificate"),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_changed(self, databases, more, says):
        if says is None:
            assert told(*databases, **more)
        else:
            with pytest.raises(AnsibleFilterError, match=says):
                told(*databases, **more)

    def test_a_pool_of_nothing_has_no_databases(self):
        assert told()["databases"] == {} == told()["document"]["databases"]


TOLD = {"port": 6432, "max_clients": 100, "databases": {"shop": 20}}


def answer(waiting=0, wait=0, active=1, paused=0, disabled=0, clients=5, name="shop", micro=0):
    return (
        "@pools\ndatabase|user|cl_active|cl_waiting|sv_active|sv_idle|maxwait|maxwait_us|pool_mode\n"
        f"{name}|shop|1|{waiting}|{active}|0|{wait}|{micro}|transaction\n{name}|shop-b|1|0|1|0|99|0|transaction\npgbouncer|pgbouncer|1|0|0|0|0|0|statement\n"
        f"@databases\nname|host|port|paused|disabled\n{name}|/var/run/postgresql|5432|{paused}|{disabled}\npgbouncer||6432|0|0\n"
        f"@lists\nlist|items\ndatabases|2\nused_clients|{clients}\n"
    )


def judged(**state):
    checks = postgresql_pool.judge_pool(TOLD, {"answer": "", **postgresql_pool.parse(answer(**state))})
    return worst(check.verdict for check in checks), " ".join(check.cause for check in checks).strip()


class TestHealth:
    @pytest.mark.parametrize(
        ("state", "grade", "words"),
        [
            ({}, OK, ""),
            ({"waiting": 3, "micro": 900000}, OK, ""),
            ({"waiting": 3, "wait": 1, "active": 19}, WARN, "3 clients wait, the first for 1.0 s; all 20 connections to shop are in use"),
            ({"waiting": 3, "wait": 14, "micro": 900000, "active": 4}, WARN, "5 of 20 connections to shop are in use"),
            ({"waiting": 3, "wait": 15}, FAIL, "the first for 15.0 s"),
            ({"waiting": 0, "wait": 60}, OK, ""),
            ({"paused": 1}, FAIL, "shop is paused or disabled"),
            ({"disabled": 1}, FAIL, "shop is paused or disabled"),
            ({"name": "other"}, FAIL, "does not know shop"),
            ({"clients": 90}, OK, ""),
            ({"clients": 91}, WARN, "its use of 100 clients is 91 %"),
        ],
    )
    def test_who_waits_is_told(self, state, grade, words):
        found, causes = judged(**state)
        assert (found, words in causes, causes == "") == (grade, True, grade == OK)

    def test_it_is_asked_as_the_user_that_it_runs_as_without_a_password(self):
        world = FakeWorld({POOL: json.dumps(TOLD)}, commands=lambda _call: Completed(0, answer(), ""))
        found = postgresql_pool.check(world, deadline_seconds=3)
        assert found.healthy and "serves on port 6432 (shop 20)" in found.summary
        (call,) = world.ran
        assert call["user"] == "postgres" and "-w" in call["argv"] and call["argv"][-2:] == ["pgbouncer", "pgbouncer"] and "6432" in call["argv"]

    def test_one_that_is_away_is_red(self):
        world = FakeWorld({POOL: json.dumps(TOLD)}, commands=lambda _call: Completed(2, "", "connection refused\n"))
        found = postgresql_pool.check(world, deadline_seconds=3)
        assert not found.healthy and "it does not answer: connection refused" in found.message

    def test_one_that_a_promotion_has_stopped_is_not_asked(self):
        world = FakeWorld({POOL: json.dumps(TOLD), RECORD: "{}"})
        found = postgresql_pool.check(world, deadline_seconds=3)
        assert (found.grade, world.ran) == (WARN, []) and "a promotion has stopped it" in found.message

    def test_what_provisioning_left_can_be_damaged(self):
        assert postgresql_pool.settings(FakeWorld()) == {}
        with pytest.raises(AnchorageError, match="pool.json is no JSON"):
            postgresql_pool.settings(FakeWorld({POOL: "{"}))
