# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each role is told, on one host and on several."""

from __future__ import annotations

import json
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.contract_samples import BOT, FLEET, GIT, ONE_HOST, RANDOM, SHOP, WEB, changed, resolved

SECRETS = {
    "shop": {
        "database_password": "d/b:p@ss#1",
        "redis_password": "r?d%s",
        "admin_password": "a" * 24,
        "JWT_SECRET": "j" * 128,
        "COOKIE_SECRET": "c" * 128,
    }
}
#: How other hosts come to PostgreSQL.
VERIFIED = "sslmode=verify-full&sslrootcert=/etc/anchorage/tls/ca.pem"
ALONE = resolved({"shop": SHOP})
SPREAD = resolved({"shop": SHOP}, FLEET)
MIXED = resolved({"shop": SHOP}, {**FLEET, "proxy": FLEET["app"]})


def only(items):
    assert len(items) == 1, items
    return items[0]


class TestTopology:
    @staticmethod
    def places(**groups):
        return {group: [host["name"] for host in hosts] for group, hosts in views.topology(groups, lambda name: f"address of {name}").items()}

    def test_one_host_without_groups_is_everything(self):
        assert self.places(all=["vps"], ungrouped=["vps"]) == {"app": ["vps"], "database": ["vps"], "cache": ["vps"], "proxy": ["vps"]}

    def test_app_hosts_are_their_own_proxies_and_no_database_is_guessed(self):
        assert self.places(all=["a1", "a2"], app=["a1", "a2"]) == {"app": ["a1", "a2"], "database": [], "cache": [], "proxy": ["a1", "a2"]}

    def test_redis_lives_where_the_database_is(self):
        assert self.places(all=["a1", "d1", "d2"], app=["a1"], database=["d1", "d2"])["cache"] == ["d1"]

    def test_groups_win(self):
        groups = {"app": ["a"], "database": ["b"], "cache": ["c"], "proxy": ["d"]}
        assert self.places(all=["a", "b", "c", "d", "e"], **groups) == groups

    def test_addresses(self):
        assert views.topology({"all": ["vps"]}, lambda name: "192.0.2.1")["proxy"] == [{"name": "vps", "address": "192.0.2.1"}]


class TestOneHost:
    def test_nothing_but_the_proxy_is_reachable(self):
        assert views.base_firewall_allow(ALONE, "vps") == []
        assert views.postgresql_client_addresses(ALONE, "vps") == []
        assert only(views.redis_instances(ALONE, {}, "vps"))["bind"] == ["127.0.0.1"]

    def test_a_database_to_rehearse_on_is_the_same_logins(self):
        contract = resolved({"shop": changed(SHOP, migrate={"rehearsal": {"enabled": True}})})
        names = [(entry["name"], entry["owner"]) for entry in views.postgresql_databases(contract, SECRETS, "vps")]
        assert names == [("shop", "shop"), ("shop_rehearsal", "shop")]
        (document,) = views.release_documents(contract, SECRETS, "vps")
        assert document["rehearsal_url"] == document["database_url"] + "_rehearsal"

    def test_a_managed_database_is_rehearsed_where_the_contract_says(self):
        urls = {name: f"postgres://u:{RANDOM}@{name}.example.com/shop" for name in ("db", "copy")}
        app = changed(SHOP, database={"url": urls["db"]}, migrate={"rehearsal": {"enabled": True, "url": urls["copy"]}})
        (document,) = views.release_documents(resolved({"shop": app}), SECRETS, "vps")
        assert (document["database_url"], document["rehearsal_url"]) == (urls["db"], urls["copy"])

    def test_where_an_app_is_scaled_nothing_of_the_others_is_released(self):
        apps = {"shop": SHOP, "b2b": changed(SHOP, domain="b2b.example.com")}
        found = {document["name"]: document for document in views.release_documents(resolved(apps, scale={"b2b": {"server": 2}}), {}, "vps")}
        assert found["b2b"]["keep_source"] and "at_rest" not in found["b2b"]
        assert found["shop"]["at_rest"] and "keep_source" not in found["shop"]
        plain = {document["name"]: document for document in views.release_documents(resolved(apps), {}, "vps")}
        assert plain["shop"] == {key: value for key, value in found["shop"].items() if key != "at_rest"}

    def test_database(self):
        wanted = {"name": "shop", "owner": "shop", "password": SECRETS["shop"]["database_password"], "extensions": []}
        assert only(views.postgresql_databases(ALONE, SECRETS, "vps")) == wanted

    def test_redis(self):
        assert only(views.redis_instances(ALONE, SECRETS, "vps")) == {
            "name": "shop-jobs",
            "port": 6379,
            "bind": ["127.0.0.1"],
            "maxmemory_mb": 256,
            "policy": "noeviction",
            "appendonly": True,
            "users": [{"name": "shop", "password": SECRETS["shop"]["redis_password"]}],
        }

    def test_a_cache_is_a_second_instance_that_forgets(self):
        contract = resolved({"shop": changed(SHOP, redis={"cache": {"maxmemory_mb": 64}})})
        cache = views.redis_instances(contract, {}, "vps")[1]
        assert (cache["name"], cache["port"], cache["policy"], cache["appendonly"], cache["maxmemory_mb"]) == ("shop-cache", 6380, "allkeys-lru", False, 64)

    def test_site(self):
        assert only(views.nginx_sites(ALONE, "vps")) == {
            "name": "shop",
            "domains": ["api.example.com"],
            "tls": {"mode": "acme", "certificate": None, "key": None},
            "upstreams": {"blue": [{"address": "127.0.0.1", "port": 9000}], "green": [{"address": "127.0.0.1", "port": 9002}]},
            "slot_directory": "/var/lib/anchorage/slots/shop",
            "rate_limit": {"requests_per_second": 10, "burst": 20, "paths": ["/store", "/auth", "/admin"]},
            "unlimited_paths": [],
            "health_path": "/health",
            "webhook_paths": ["/hooks"],
            "max_body_mb": 25,
            "timeout_seconds": 60,
        }

    def test_the_worker_has_no_upstream(self):
        assert "9001" not in json.dumps(views.nginx_sites(ALONE, "vps"))
        assert "9003" not in json.dumps(views.nginx_sites(ALONE, "vps"))

    def test_certificate(self):
        assert views.certbot_certificates(ALONE, "vps") == [{"name": "shop", "domains": ["api.example.com"], "method": "webroot"}]

    @pytest.mark.parametrize("tls", [{"mode": "off"}, {"mode": "files", "certificate": "c.pem", "key": "k.pem"}])
    def test_no_certificate_is_asked_for_without_acme(self, tls):
        contract = resolved({"shop": changed(SHOP, tls=tls)})
        assert views.certbot_certificates(contract, "vps") == []
        assert only(views.nginx_sites(contract, "vps"))["tls"]["mode"] == tls["mode"]

    def test_user_and_address(self):
        assert views.pm2_users(ALONE, "vps") == [{"name": "shop", "home": "/srv/shop"}]
        assert views.app_urls(ALONE) == [{"name": "shop", "url": "https://api.example.com", "health_url": "https://api.example.com/health", "admin": None}]

    def test_secrets_to_make(self):
        contract = resolved({"shop": changed(SHOP, admin={"email": "admin@example.com"}), "bot": BOT})
        assert views.app_secrets(contract, "vps") == [
            {
                "name": "shop",
                "generate": {"JWT_SECRET": 128, "COOKIE_SECRET": 128, "database_password": 48, "redis_password": 48, "admin_password": 24},
            },
            {"name": "bot", "generate": {}},
        ]

    def test_an_app_without_a_domain_has_no_site(self):
        contract = resolved({"bot": BOT})
        assert views.nginx_sites(contract, "vps") == views.certbot_certificates(contract, "vps") == views.app_urls(contract) == []
        assert only(views.release_documents(contract, {}, "vps"))["listen_address"] == "127.0.0.1"


REPLICATED = {**FLEET, "database": [*FLEET["database"], {"name": "d2", "address": "192.0.2.22"}]}


class TestFleet:
    def test_app_hosts_let_the_proxy_in_to_their_edge_and_to_no_process(self):
        assert views.base_firewall_allow(SPREAD, "a1") == [{"port": 9019, "protocol": "tcp", "from": ["192.0.2.31/32"]}]
        assert views.base_firewall_allow(SPREAD, "p1") == []

    def test_the_database_host_lets_the_app_hosts_in(self):
        clients = ["192.0.2.11/32", "192.0.2.12/32"]
        assert views.base_firewall_allow(SPREAD, "d1") == [{"port": port, "protocol": "tcp", "from": clients} for port in (5432, 7379)]
        assert views.postgresql_client_addresses(SPREAD, "d1") == clients
        assert only(views.redis_instances(SPREAD, {}, "d1"))["bind"] == ["127.0.0.1", "192.0.2.21"]

    def test_the_first_database_host_is_the_primary_and_those_after_it_follow(self):
        contract = resolved({"shop": SHOP}, REPLICATED)
        assert views.postgresql_primary(contract, "d2") == {"name": "d1", "address": "192.0.2.21", "port": 5432, "ca_file": "/etc/anchorage/tls/ca.pem"}
        assert views.postgresql_replicas(contract, "d1") == [{"name": "d2", "address": "192.0.2.22"}]
        assert views.postgresql_primary(contract, "d1") == views.postgresql_primary(contract, "a1") == {}
        assert views.postgresql_replicas(contract, "d2") == views.postgresql_replicas(contract, "a1") == []
        assert contract["apps"]["shop"]["database"]["host"] == contract["apps"]["shop"]["secrets_host"] == "d1"
        assert "postgresql" in views.host_roles(contract, "d2") and "d2" in views.upgrade_order(contract)["services"]

    def test_a_replica_lets_the_same_logins_in_and_saves_nothing(self):
        contract = resolved({"shop": SHOP}, REPLICATED)
        clients = ["192.0.2.11/32", "192.0.2.12/32"]
        assert views.postgresql_databases(contract, {}, "d2") == views.postgresql_databases(contract, {}, "d1") != []
        assert views.postgresql_client_addresses(contract, "d2") == [*clients, "192.0.2.21/32"]
        assert {"port": 5432, "protocol": "tcp", "from": [*clients, "192.0.2.21/32"]} in views.base_firewall_allow(contract, "d2")
        assert {"port": 5432, "protocol": "tcp", "from": [*clients, "192.0.2.22/32"]} in views.base_firewall_allow(contract, "d1")
        assert views.backup_databases(contract, {}, "d2") == [] and views.backup_databases(contract, {}, "d1") != []
        kept = {"postgresql.replication": {"password": "p"}}
        assert [views.postgresql_replication_password(contract, kept, host) for host in ("d1", "d2", "a1")] == ["p", "p", ""]
        assert {"name": "postgresql.replication", "generate": {"password": 48}} in views.app_secrets(contract, "d1")
        assert views.app_secrets(contract, "d2") == []

    def test_a_pool_stands_on_every_database_host_and_lets_in_whom_the_database_lets_in(self):
        apps = {"shop": changed(SHOP, database__pool={"enabled": True, "size": 30}), "b2b": changed(SHOP, domain="b.example.com", hosts=["a1"])}
        contract = resolved(apps, REPLICATED)
        told = {"port": 6432, "databases": [{"name": "shop", "mode": "transaction", "size": 30, "prepared_statements": False}]}
        assert [views.postgresql_pool(contract, host) for host in ("d1", "d2", "a1")] == [told, told, {}]
        rules = {rule["port"]: rule["from"] for rule in views.base_firewall_allow(contract, "d2")}
        assert rules[6432] == rules[5432] == ["192.0.2.11/32", "192.0.2.12/32", "192.0.2.21/32"]
        assert 6432 not in [rule["port"] for rule in views.base_firewall_allow(resolved({"shop": SHOP}, REPLICATED), "d1")]

    def test_processes_get_the_pool_s_address_and_everything_else_the_database_s(self):
        document = only(views.release_documents(resolved({"shop": changed(SHOP, database__pool={"enabled": True})}, FLEET), SECRETS, "a1"))
        assert document["database_pool_url"] == f"postgres://shop:d%2Fb%3Ap%40ss%231@192.0.2.21:6432/shop?{VERIFIED}"
        assert document["database_url"] == document["database_pool_url"].replace(":6432/", ":5432/")
        assert document["database_read_url"] is None
        here = only(views.release_documents(resolved({"shop": changed(SHOP, database__pool={"enabled": True})}), SECRETS, "vps"))
        assert here["database_pool_url"] == "postgres://shop:d%2Fb%3Ap%40ss%231@127.0.0.1:6432/shop"

    def test_app_hosts_read_from_replicas_in_turn(self):
        places = {**REPLICATED, "app": [*FLEET["app"], {"name": "a3", "address": "192.0.2.13"}]}
        places["database"] = [*REPLICATED["database"], {"name": "a3", "address": "192.0.2.13"}]
        contract = resolved({"shop": changed(SHOP, database__read_url_env="READ")}, places)
        found = {host: only(views.release_documents(contract, SECRETS, host)) for host in ("a1", "a2", "a3")}
        reads = {host: urlsplit(document["database_read_url"]) for host, document in found.items()}
        assert [(reads[host].hostname, reads[host].port, reads[host].query) for host in reads] == [
            ("192.0.2.22", 5432, VERIFIED),
            ("192.0.2.13", 5432, VERIFIED),
            ("127.0.0.1", 5432, ""),
        ]
        assert {urlsplit(document["database_url"]).hostname for document in found.values()} == {"192.0.2.21"}

    def test_they_read_through_the_replica_s_pool_and_from_no_replica_in_a_promotion(self):
        contract = resolved({"shop": changed(SHOP, database__read_url_env="READ", database__pool={"enabled": True})}, REPLICATED)
        document = only(views.release_documents(contract, SECRETS, "a1"))
        assert document["database_read_url"] == document["database_pool_url"].replace("192.0.2.21", "192.0.2.22")
        assert only(views.release_documents(contract, SECRETS, "a1", True))["database_read_url"] is None

    def test_nobody_who_did_not_ask_reads_from_a_replica(self):
        assert only(views.release_documents(resolved({"shop": SHOP}, REPLICATED), SECRETS, "a1"))["database_read_url"] is None
        inside = resolved({"shop": changed(SHOP, runtime="compose", hosts=["a1"], database__read_url_env="READ")}, {**REPLICATED, "proxy": FLEET["app"][:1]})
        assert only(views.release_documents(inside, SECRETS, "a1"))["database_read_url"] is None

    def test_a_database_elsewhere_or_in_a_container_has_no_replica(self):
        elsewhere = resolved({"shop": changed(SHOP, database={"url": "postgres://u:kQ7rT2vX9mB4nC6p@db.example.com/shop"})}, REPLICATED)
        inside = resolved({"shop": changed(SHOP, runtime="compose", hosts=["a1"])}, {**REPLICATED, "proxy": FLEET["app"][:1]})
        for contract in (elsewhere, inside, resolved({"shop": SHOP}, FLEET)):
            assert views.postgresql_primary(contract, "d2") == {} and views.postgresql_replicas(contract, "d1") == []
            assert views.postgresql_replication_password(contract, {}, "d1") == ""

    def test_a_port_that_two_apps_use_is_one_rule(self):
        apps = {"one": changed(SHOP, hosts=["a1"]), "two": changed(SHOP, domain="two.example.com", hosts=["a2"])}
        rules = views.base_firewall_allow(resolved(apps, FLEET), "d1")
        assert [(rule["port"], rule["from"]) for rule in rules] == [
            (5432, ["192.0.2.11/32", "192.0.2.12/32"]),
            (7379, ["192.0.2.11/32"]),
            (7381, ["192.0.2.12/32"]),
        ]

    def test_each_host_gets_its_own_part_only(self):
        assert views.postgresql_databases(SPREAD, {}, "a1") == views.redis_instances(SPREAD, {}, "a1") == views.nginx_sites(SPREAD, "d1") == []
        assert views.pm2_users(SPREAD, "d1") == views.release_documents(SPREAD, {}, "d1") == views.app_secrets(SPREAD, "a1") == []
        assert len(views.certbot_certificates(SPREAD, "p1")) == 1

    def test_the_proxy_goes_to_the_edge_of_every_app_host_and_knows_no_slots(self):
        site = only(views.nginx_sites(SPREAD, "p1"))
        assert site["upstreams"] == {"blue": [{"address": "192.0.2.11", "port": 9019}, {"address": "192.0.2.12", "port": 9019}]}
        assert (site["name"], site["hops"], "slot_directory" in site) == ("shop-public", True, False)
        assert only(views.certbot_certificates(SPREAD, "p1"))["name"] == site["tls"]["name"] == "shop"

    def test_the_edge_chooses_the_slot_for_the_proxies_alone(self):
        site = only(views.nginx_sites(SPREAD, "a2"))
        assert site["listen"] == {"address": "192.0.2.12", "port": 9019, "from": ["192.0.2.31"]}
        assert (site["name"], site["tls"], site["slot_directory"]) == ("shop", {"mode": "off"}, "/var/lib/anchorage/slots/shop")
        assert site["upstreams"] == {"blue": [{"address": "127.0.0.1", "port": 9000}], "green": [{"address": "127.0.0.1", "port": 9002}]}
        assert "rate_limit" not in site, "visitors are counted where they come in"
        document = only(views.release_documents(SPREAD, {}, "a2"))
        assert (document["listen_address"], document["edge"]) == ("127.0.0.1", {"address": "192.0.2.12", "port": 9019})
        assert document["proxy_address"] == "192.0.2.31"

    def test_proxies_that_are_app_hosts_have_both(self):
        public, own = views.nginx_sites(MIXED, "a1")
        assert (public["name"], own["name"]) == ("shop-public", "shop")
        assert public["upstreams"]["blue"] == [{"address": f"192.0.2.{last}", "port": 9019} for last in (11, 12)]
        assert own["listen"]["from"] == ["192.0.2.11", "192.0.2.12"], "its own proxy comes from its own address"
        assert views.base_firewall_allow(MIXED, "a1")[0]["from"] == ["192.0.2.12/32"]

    def test_one_host_that_is_its_one_proxy_has_no_edge(self):
        assert only(views.nginx_sites(ALONE, "vps"))["name"] == "shop"
        assert "edge" not in only(views.release_documents(ALONE, SECRETS, "vps"))
        assert views.base_firewall_allow(ALONE, "vps") == []

    def test_the_edge_s_port_can_be_chosen(self):
        contract = resolved({"shop": changed(SHOP, edge_port=8100)}, FLEET)
        assert views.base_firewall_allow(contract, "a1")[0]["port"] == 8100

    def test_a_host_watches_the_sites_of_apps_that_are_elsewhere(self):
        site = {"name": "shop", "domains": only(views.nginx_sites(SPREAD, "p1"))["domains"], "tls_mode": "acme", "health_path": "/health", "health_status": 200}
        assert views.monitoring_sites(SPREAD, "p1") == [site]
        assert views.monitoring_sites(SPREAD, "a1") == [], "no proxy"
        assert views.monitoring_sites(MIXED, "a1") == [], "its own app is asked about as an app"

    def test_exactly_one_host_migrates(self):
        assert [only(views.release_documents(SPREAD, {}, host))["migrator"] for host in ("a1", "a2")] == [True, False]

    def test_nobody_migrates_without_a_migration(self):
        contract = resolved({"web": WEB}, FLEET)
        assert [only(views.release_documents(contract, {}, host))["migrator"] for host in ("a1", "a2")] == [False, False]

    def test_remote_services_are_reached_encrypted_or_by_address(self):
        document = only(views.release_documents(SPREAD, SECRETS, "a1"))
        verified = "sslmode=verify-full&sslrootcert=/etc/anchorage/tls/ca.pem"
        assert document["database_url"] == f"postgres://shop:d%2Fb%3Ap%40ss%231@192.0.2.21:5432/shop?{verified}"
        assert document["redis_url"] == "rediss://shop:r%3Fd%25s@192.0.2.21:7379/0"
        assert document["trusted_file"] == "/etc/anchorage/tls/trusted.pem"
        assert document["database_address"] == "192.0.2.21"

    def test_ipv6(self):
        fleet = json.loads(json.dumps(FLEET).replace("192.0.2.21", "2001:db8::21").replace("192.0.2.12", "2001:db8::12"))
        contract = resolved({"shop": SHOP}, fleet)
        assert urlsplit(only(views.release_documents(contract, {}, "a1"))["database_url"]).hostname == "2001:db8::21"
        assert views.postgresql_client_addresses(contract, "d1") == ["192.0.2.11/32", "2001:db8::12/128"]


class TestDocuments:
    def test_addresses_on_the_same_host_are_loopback(self):
        document = only(views.release_documents(ALONE, SECRETS, "vps"))
        assert document["database_url"] == "postgres://shop:d%2Fb%3Ap%40ss%231@127.0.0.1:5432/shop"
        assert document["redis_url"] == "redis://shop:r%3Fd%25s@127.0.0.1:6379/0"
        assert (document["listen_address"], document["host"], document["host_address"], document["migrator"]) == ("127.0.0.1", "vps", "192.0.2.10", True)
        assert document["redis_cache_url"] is None
        assert "trusted_file" not in document

    def test_secrets_stand_apart(self):
        contract = resolved({"shop": changed(SHOP, env={"JWT_SECRET": RANDOM, "SEARCH_URL": f"https://u:{RANDOM}@s.example.com", "LOG_LEVEL": "info"})})
        document = only(views.release_documents(contract, SECRETS, "vps"))
        assert document["secrets_env"] == {"COOKIE_SECRET": "c" * 128, "JWT_SECRET": RANDOM, "SEARCH_URL": f"https://u:{RANDOM}@s.example.com"}
        assert document["env"]["LOG_LEVEL"] == "info"
        assert RANDOM not in json.dumps(document["env"])
        assert document["secret_keys"] == ["JWT_SECRET", "SEARCH_URL"]

    @pytest.mark.parametrize("secrets", [{}, None, {"shop": None}, {"other": {}}])
    def test_secrets_that_are_not_there_yet_are_named_so(self, secrets):
        document = only(views.release_documents(ALONE, secrets, "vps"))
        assert document["secrets_env"] == {"JWT_SECRET": views.UNKNOWN, "COOKIE_SECRET": views.UNKNOWN}
        assert views.UNKNOWN in document["database_url"] and views.UNKNOWN in document["redis_url"]

    def test_managed_addresses_are_handed_on_untouched(self):
        urls = {"database": f"postgres://u:{RANDOM}@db.example.com/x?sslmode=require", "redis": f"rediss://:{RANDOM}@r.example.com:6380/2"}
        contract = resolved({"shop": changed(SHOP, database={"url": urls["database"]}, redis={"url": urls["redis"]})})
        document = only(views.release_documents(contract, {}, "vps"))
        assert (document["database_url"], document["redis_url"], document["database_password"]) == (urls["database"], urls["redis"], None)
        assert views.postgresql_databases(contract, {}, "vps") == views.redis_instances(contract, {}, "vps") == []
        assert only(views.app_secrets(contract, "vps"))["generate"] == {"JWT_SECRET": 128, "COOKIE_SECRET": 128}

    def test_the_admins_password(self):
        contract = resolved({"shop": changed(SHOP, admin={"email": "admin@example.com"})})
        assert only(views.release_documents(contract, SECRETS, "vps"))["admin_password"] == "a" * 24
        assert only(views.release_documents(ALONE, SECRETS, "vps"))["admin_password"] is None

    def test_the_contract_is_left_alone(self):
        before = json.dumps(ALONE)
        views.release_documents(ALONE, SECRETS, "vps")[0]["env"]["X"] = "y"
        assert json.dumps(ALONE) == before

    @given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1))
    def test_every_password_survives_its_address(self, password):
        url = views.database_url(SPREAD, {"shop": {"database_password": password}}, SPREAD["apps"]["shop"], "a1")
        parts = urlsplit(url)
        assert unquote(parts.password) == password
        assert (parts.hostname, parts.port, parts.path, parts.query) == (
            "192.0.2.21",
            5432,
            "/shop",
            "sslmode=verify-full&sslrootcert=/etc/anchorage/tls/ca.pem",
        )


def test_a_site_of_two_instances_has_two_upstreams():
    contract = resolved(
        {"web": {"preset": "node", "source": GIT, "domain": "w.example.com", "processes": {"web": {**WEB["processes"]["web"], "instances": 2}}}}
    )
    assert [upstream["port"] for upstream in only(views.nginx_sites(contract, "vps"))["upstreams"]["green"]] == [9001, 9003]


def test_the_topology_of_a_contract_is_kept():
    assert ALONE["topology"] == ONE_HOST


class TestHostRoles:
    @pytest.mark.parametrize("contract", [ALONE, SPREAD, MIXED], ids=["alone", "spread", "mixed"])
    def test_a_role_has_work_exactly_where_its_input_is_not_empty(self, contract):
        for host in {place["name"] for places in contract["topology"].values() for place in places}:
            inputs = {
                "postgresql": views.postgresql_databases(contract, SECRETS, host),
                "redis": views.redis_instances(contract, SECRETS, host),
                "nodejs": views.pm2_users(contract, host),
                "pm2": views.pm2_users(contract, host),
                "nginx": views.nginx_sites(contract, host),
                "certbot": views.certbot_certificates(contract, host),
            }
            assert views.host_roles(contract, host) == ["base", *(role for role, given_input in inputs.items() if given_input), "backup"]

    def test_one_host_is_everything(self):
        assert views.host_roles(ALONE, "vps") == ["base", "postgresql", "redis", "nodejs", "pm2", "nginx", "certbot", "backup"]


class TestBackup:
    def test_a_host_saves_its_own_databases_without_an_address(self):
        assert views.backup_databases(ALONE, SECRETS, "vps") == [
            {"name": app["database"]["name"], "app": app["name"], "owner": app["database"]["user"]}
            for app in ALONE["apps"].values()
            if app["database"]["enabled"]
        ]

    def test_a_database_elsewhere_is_saved_by_the_first_host_of_its_app(self):
        hosts = {place["name"] for places in SPREAD["topology"].values() for place in places}
        saved = {host: [(entry["app"], "url" in entry) for entry in views.backup_databases(SPREAD, SECRETS, host)] for host in hosts}
        for app in SPREAD["apps"].values():
            if app["database"]["enabled"]:
                where = [host for host, entries in saved.items() if app["name"] in [name for name, _url in entries]]
                assert where == [app["hosts"][0] if app["database"]["external"] else app["database"]["host"]], app["name"]

    def test_queues_are_saved_and_caches_are_not(self):
        names = [entry["name"] for entry in views.backup_redis(ALONE, "vps")]
        assert names == [instance["name"] for instance in views.redis_instances(ALONE, SECRETS, "vps") if instance["policy"] == "noeviction"] and names

    def test_uploads_are_saved_where_the_app_runs(self):
        for host in {place["name"] for places in SPREAD["topology"].values() for place in places}:
            paths = views.backup_paths(SPREAD, host)
            assert "/etc/anchorage" in paths
            assert {path for path in paths if path.endswith("/shared")} == {f"{app['home']}/shared" for app in SPREAD["apps"].values() if host in app["hosts"]}


class TestUpgradeOrder:
    def test_hosts_behind_a_proxy_stand_in_for_each_other(self):
        found = views.upgrade_order(SPREAD)
        assert found["balanced"] == ["a1", "a2"] and "p1" in found["others"] and "d1" in found["services"]

    def test_nobody_stands_in_for_a_host_that_is_alone(self):
        assert views.upgrade_order(ALONE) == {"balanced": [], "services": ["vps"], "others": []}

    def test_a_proxy_is_never_out_of_the_balance(self):
        assert views.upgrade_order(MIXED)["balanced"] == []

    def test_one_app_that_has_no_other_host_keeps_its_host_in(self):
        found = views.upgrade_order(resolved({"shop": SHOP, "web": changed(WEB, hosts=["a1"])}, FLEET))
        assert found["balanced"] == ["a2"] and "a1" in found["others"]


def test_proxies_know_each_other_for_what_an_authority_asks():
    assert views.nginx_challenge_peers(MIXED, "a1") == ["192.0.2.12"] and views.nginx_challenge_peers(MIXED, "d1") == []
    assert views.nginx_challenge_peers(SPREAD, "p1") == [] and views.nginx_challenge_peers(ALONE, "vps") == []


class TestTlsBetweenHosts:
    CACHED = resolved({"shop": changed(SHOP, redis={"cache": {}}), "web": WEB}, FLEET)
    HOME = {**FLEET, "cache": [FLEET["app"][0]], "database": [FLEET["app"][0]]}

    def test_a_host_alone_has_nothing_to_do_with_it(self):
        assert views.tls_links(ALONE, "vps") == {}
        assert ALONE["apps"]["shop"]["redis"]["jobs"]["tls_port"] is None
        assert not {"tls_port", "tls_file", "plain"} & set(only(views.redis_instances(ALONE, {}, "vps")))

    def test_who_serves_shows_a_certificate_and_who_asks_trusts(self):
        links = views.tls_links(SPREAD, "d1")
        assert links == {
            "authority": "d1",
            "names": ["d1"],
            "addresses": ["127.0.0.1", "192.0.2.21"],
            "services": ["postgresql", "redis"],
            "apps": [],
            "instances": ["shop-jobs"],
            "follow": False,
        }
        assert {key: views.tls_links(SPREAD, "a2")[key] for key in ("authority", "services", "names", "apps")} == {
            "authority": "d1",
            "services": [],
            "names": [],
            "apps": ["shop"],
        }
        assert views.tls_links(SPREAD, "p1") == {}, "a proxy talks to neither"

    def test_an_app_without_services_has_nothing_to_do_with_it(self):
        contract = resolved({"web": WEB}, FLEET)
        assert [views.tls_links(contract, host) for host in ("a1", "d1")] == [{}, {}]
        assert "trusted_file" not in only(views.release_documents(contract, {}, "a1"))

    def test_a_release_is_the_same_on_the_host_of_its_redis(self):
        contract = resolved({"shop": SHOP}, self.HOME)
        urls = [urlsplit(only(views.release_documents(contract, SECRETS, host))["redis_url"]) for host in ("a1", "a2")]
        assert [(url.scheme, url.hostname, url.port) for url in urls] == [("rediss", "127.0.0.1", 7379), ("rediss", "192.0.2.11", 7379)]
        documents = [only(views.release_documents(contract, SECRETS, host)) for host in ("a1", "a2")]
        assert [document["trusted_file"] for document in documents] == ["/etc/anchorage/tls/trusted.pem"] * 2
        assert urlsplit(documents[0]["database_url"]).query == "", "on its own host no wire is between them"

    def test_database_hosts_answer_in_the_place_of_each_other(self):
        pair = {**FLEET, "database": [*FLEET["database"], {"name": "d2", "address": "192.0.2.22"}]}
        contract = resolved({"shop": SHOP}, pair)
        for host in ("d1", "d2"):
            links = views.tls_links(contract, host)
            assert (links["names"], links["addresses"]) == (["d1", "d2"], ["127.0.0.1", "192.0.2.21", "192.0.2.22"])
            assert (links["authority"], links["follow"]) == ("d1", host == "d2")
        assert views.postgresql_primary(contract, "d2")["ca_file"] == "/etc/anchorage/tls/ca.pem"

    def test_a_replica_alone_is_reason_enough(self):
        home = {group: [{"name": "vps", "address": "192.0.2.10"}] for group in ("app", "database", "cache", "proxy")}
        contract = resolved({"shop": SHOP}, {**home, "database": [*home["database"], {"name": "d2", "address": "192.0.2.22"}]})
        assert [views.tls_links(contract, host)["services"] for host in ("vps", "d2")] == [["postgresql"], ["postgresql"]]
        assert contract["apps"]["shop"]["redis"]["jobs"]["tls_port"] is None

    def test_ports_follow_the_order_of_the_apps_and_can_be_pinned(self):
        ports = [self.CACHED["apps"]["shop"]["redis"][kind]["tls_port"] for kind in ("jobs", "cache")]
        assert ports == [7379, 7380]
        pinned = resolved({"shop": changed(SHOP, redis={"jobs": {"tls_port": 7000}})}, FLEET)
        assert only(views.redis_instances(pinned, {}, "d1"))["tls_port"] == 7000

    def test_the_firewall_opens_the_plain_port_only_while_it_is_needed(self):
        assert [rule["port"] for rule in views.base_firewall_allow(SPREAD, "d1")] == [5432, 7379]
        assert [rule["port"] for rule in views.base_firewall_allow(SPREAD, "d1", ["shop-jobs"])] == [5432, 6379, 7379]
        assert only(views.redis_instances(SPREAD, {}, "d1", ["shop-jobs"]))["plain"] is True
        assert only(views.redis_instances(SPREAD, {}, "d1"))["plain"] is False

    OPEN = {"open": ["shop-jobs"], "plain": []}

    @pytest.mark.parametrize(
        ("answers", "plain"),
        [
            ({"d1": OPEN, "a1": {"open": [], "plain": []}, "a2": {"open": [], "plain": []}}, []),
            ({"d1": OPEN, "a1": {"open": [], "plain": []}, "a2": {"open": [], "plain": ["shop"]}}, ["shop-jobs"]),
            ({"d1": OPEN, "a1": {"open": [], "plain": []}, "a2": {"open": [], "plain": ["other"]}}, []),
            ({"d1": OPEN, "a1": {"open": [], "plain": []}}, ["shop-jobs"]),
            ({"d1": OPEN}, ["shop-jobs"]),
            ({"d1": {"open": [], "plain": []}, "a1": {"open": [], "plain": ["shop"]}}, []),
            ({"a1": {"open": [], "plain": ["shop"]}}, []),
            ({}, []),
        ],
        ids=["all use TLS", "one does not yet", "another app does not", "one said nothing", "nobody said anything", "closed", "nothing known", "nothing"],
    )
    def test_plain_is_closed_when_nobody_needs_it_and_never_opened(self, answers, plain):
        assert views.plain_redis(SPREAD, answers, "d1") == plain
        assert views.plain_redis(SPREAD, {**answers, "a1": {**answers.get("a1", {}), "open": ["shop-jobs"]}}, "a1") == []

    def test_an_environment_must_not_hide_the_authority(self):
        ours = changed(SHOP, env={"NODE_EXTRA_CA_CERTS": "/etc/ssl/mine.pem"})
        resolved({"shop": ours})
        with pytest.raises(AnchorageError, match=r"apps\.shop\.env\.NODE_EXTRA_CA_CERTS: is set by the release"):
            resolved({"shop": ours}, FLEET)
