# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract becomes for an app in containers: its stateful project, its addresses, what other roles are not told."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import compose_views, release_plan
from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils.contract import ContractError

from .contract_samples import BOT, FLEET, RANDOM, SHOP, WEB, changed, resolved

SECRETS = {"shop": {"database_password": "owner-owner-owner", "database_superuser_password": "super-super-super", "redis_password": "redis-redis-redis"}}
DOCKED = changed(SHOP, runtime="compose", redis={"cache": {}}, database={"extensions": ["pg_trgm"]})


@pytest.fixture
def contract():
    return resolved({"web": WEB, "shop": DOCKED})


def test_nothing_of_it_is_the_hosts_own(contract):
    shop = contract["apps"]["shop"]
    assert views.host_roles(contract, "vps") == ["base", "docker_compose", "nodejs", "pm2", "nginx", "certbot", "backup"]
    assert views.host_roles(resolved({"shop": DOCKED}), "vps") == ["base", "docker_compose", "nginx", "certbot", "backup"]
    assert views.postgresql_databases(contract, SECRETS, "vps") == [] and views.redis_instances(contract, SECRETS, "vps") == []
    assert [user["name"] for user in views.pm2_users(contract, "vps")] == ["web"]
    assert (shop["database"]["port"], shop["database"]["image"], shop["redis"]["image"]) == (15433, "postgres:17", "redis:7")
    assert [site["name"] for site in views.nginx_sites(contract, "vps")] == ["web", "shop"], "the proxy is the host's"


def test_its_stateful_services_are_a_project_that_only_loopback_reaches(contract):
    (project,) = compose_views.docker_compose_projects(contract, SECRETS, "vps")
    services = project["definition"]["services"]
    assert project["name"] == "shop-base" and set(services) == {"postgres", "redis-jobs", "redis-cache"}
    assert project["definition"]["networks"] == {"default": {"name": "shop-base"}}
    for service in services.values():
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"] and service["healthcheck"]
        assert service["restart"] == "unless-stopped"
    assert services["postgres"]["environment"]["APP_DATABASES"] == "shop shop_rehearsal"
    assert services["postgres"]["environment"]["APP_EXTENSIONS"] == "pg_trgm"
    assert services["postgres"]["volumes"][0] == "postgres:/var/lib/postgresql/data" and set(project["definition"]["volumes"]) == set(services)


def test_secrets_are_in_files_and_not_in_what_is_shown(contract):
    (project,) = compose_views.docker_compose_projects(contract, SECRETS, "vps")
    files = {file["path"]: file["content"] for file in project["files"]}
    assert not any(secret in repr(project["definition"]) for secret in SECRETS["shop"].values())
    assert files["superuser_password"] == "super-super-super" and files["app_password"] == "owner-owner-owner"
    assert "redis-redis-redis" not in repr(files) and "user shop reset on #" in files["redis-jobs.acl"]
    assert "maxmemory-policy noeviction\nappendonly yes" in files["redis-jobs.conf"]
    assert "maxmemory-policy allkeys-lru\nappendonly no" in files["redis-cache.conf"]
    assert "NOSUPERUSER" in files["initdb.sh"]


def test_without_services_of_its_own_there_is_no_project():
    lean = changed(BOT, runtime="compose")
    external = changed(
        DOCKED,
        redis={"url": f"redis://u:{RANDOM}@cache.example.com:6379/0"},
        database={"url": f"postgres://u:{RANDOM}@db.example.com/shop"},
        domain="b.example.com",
    )
    contract = resolved({"bot": lean, "shop": external})
    assert compose_views.docker_compose_projects(contract, {}, "vps") == []
    assert [document["inside"] for document in views.release_documents(contract, {}, "vps")] == [{}, {}]


def test_the_processes_are_told_where_the_services_are_inside(contract):
    document = next(document for document in views.release_documents(contract, SECRETS, "vps") if document["name"] == "shop")
    assert document["database_url"] == "postgres://shop:owner-owner-owner@127.0.0.1:15433/shop", "as the host sees it"
    environment = release_plan.common_environment(document)
    assert environment["DATABASE_URL"] == "postgres://shop:owner-owner-owner@postgres:5432/shop?sslmode=disable"
    assert environment["REDIS_URL"].endswith("@redis-jobs:6379/0") and environment["REDIS_CACHE_URL"].endswith("@redis-cache:6379/0")
    copied = release_plan.common_environment({**document, "database_url": "postgres://shop:x@127.0.0.1:15433/shop_rehearsal"})
    assert copied["DATABASE_URL"] == "postgres://shop:x@postgres:5432/shop_rehearsal?sslmode=disable"
    assert release_plan.seen_from_inside(document, "postgres://u:p@db.example.com:5432/x?a=b") == "postgres://u:p@db.example.com:5432/x?a=b"


def test_the_superuser_has_a_password_that_is_generated(contract):
    (web, shop) = views.app_secrets(contract, "vps")
    assert web["generate"] == {} and shop["generate"]["database_superuser_password"] == views.PASSWORD_LENGTH


@pytest.mark.parametrize("hosts", [None, ["a1"]], ids=["two hosts", "another proxy"])
def test_it_runs_on_one_host_which_is_its_own_proxy(hosts):
    with pytest.raises(ContractError, match="apps.shop.runtime: compose is for an app on one host, which is its own proxy"):
        resolved({"shop": changed(DOCKED, hosts=hosts)}, FLEET)


def test_two_apps_may_not_have_one_port():
    with pytest.raises(ContractError, match="port 15432 on vps is already taken by apps.a.database"):
        resolved({"a": changed(DOCKED, domain="a.example.com"), "b": changed(DOCKED, domain="b.example.com", database={"port": 15432})})


def test_apps_in_containers_may_have_databases_of_one_name():
    both = {name: changed(DOCKED, domain=f"{name}.example.com", database={"name": "store"}) for name in ("a", "b")}
    assert [app["database"]["name"] for app in resolved(both)["apps"].values()] == ["store", "store"]
