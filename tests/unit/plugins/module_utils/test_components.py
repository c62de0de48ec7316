# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components: what the contract takes and refuses, and what each becomes: a project, files, secrets, a site, the app's environment."""

from __future__ import annotations

import json

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.anchorage.vps.plugins.filter.contract import load_components
from ansible_collections.anchorage.vps.plugins.module_utils import components, compose_views, release_plan
from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils.contract import ContractError
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.masking import secrets_of

from .contract_samples import FLEET, RANDOM, ROLE, SHOP, WEB, changed, resolved

ROLES = ROLE.parent
ALL = {
    "s3": {},
    "keycloak": {"domain": "auth.example.com", "realm": {"name": "cityos"}},
    "cerbos": {"policies": "policies"},
    "btcpay": {"domain": "pay.example.com"},
    "pgbouncer": {},
}
DOCKED = changed(SHOP, runtime="compose")
POLICIES = {"shop": {"cerbos": {"order.yaml": "apiVersion: api.cerbos.dev/v1\n", "tests/order_test.yaml": "name: order\n"}}}


def beside(**wanted):
    """A shop with components."""
    return changed(DOCKED, components=wanted)


def contract_of(**wanted):
    return resolved({"shop": beside(**wanted)})


def secrets_for(contract):
    """Secrets as they would be generated, each of its own name."""
    (wanted,) = views.app_secrets(contract, "vps")
    return {wanted["name"]: {key: f"<{key}>".ljust(length, "x") for key, length in wanted["generate"].items()}}


def projects(contract, files=None):
    found = compose_views.docker_compose_projects(contract, secrets_for(contract), "vps", POLICIES if files is None else files)
    return {project["name"]: project for project in found}


def document_of(contract):
    (document,) = views.release_documents(contract, secrets_for(contract), "vps")
    return document


def wrong(app, topology=None, **others):
    with pytest.raises(ContractError) as caught:
        resolved({"shop": app, **others}, topology)
    return {problem.path.removeprefix("apps."): problem.rule for problem in caught.value.problems}


@pytest.fixture(scope="module")
def contract():
    return contract_of(**ALL)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key", "rule"),
    [
        ({"keycloack": {}}, "keycloack", "is unknown; did you mean keycloak?"),
        ({"s3": []}, "s3", "must be a mapping of keys"),
        ({"s3": {"bukket": "x"}}, "s3.bukket", "is unknown; did you mean bucket?"),
        ({"s3": {"realm": {}}}, "s3.realm", "belongs to keycloak, not to s3"),
        ({"s3": {"bucket": "No"}}, "s3.bucket", "must be 3 to 63 small letters"),
        ({"s3": {"image": "minio/minio"}}, "s3.image", "must name a version"),
        ({"s3": {"port": 17500}}, "s3.port", "is for a component with a domain"),
        ({"s3": {"domain": "*.example.com"}}, "s3.domain", "is a wildcard"),
        ({"s3": {"domain": "s3.example.com", "port": 443}}, "s3.port", "port 443 belongs to Nginx"),
        ({"s3": {"images": {"s3": "a:1"}}}, "s3.images.s3", "is no other container of s3; there is s3-keeper"),
        ({"cerbos": {"policies": "p", "images": {"x": "a:1"}}}, "cerbos.images.x", "is no other container of cerbos; there is none"),
        ({"s3": {"images": {"s3-keeper": "node"}}}, "s3.images.s3-keeper", "must name a version"),
        ({"s3": {"images": {"s3-keeper": 1}}}, "s3.images.s3-keeper", "must be text"),
        ({"s3": {"memory_mb": 1}}, "s3.memory_mb", "must lie between 32 and"),
        ({"s3": {"env": {"A B": "1"}}}, "s3.env.A B", "the name of a variable"),
        ({"s3": {"env": {"X_PASSWORD": "changeme"}}}, "s3.env.X_PASSWORD", "is a placeholder"),
        ({"s3": {"env": {"X_PASSWORD": f"{RANDOM}\\"}}}, "s3.env.X_PASSWORD", "ends with a backslash"),
        ({"keycloak": {}}, "keycloak.domain", "is required"),
        ({"keycloak": {"domain": "auth"}}, "keycloak.domain", "is no host name"),
        ({"keycloak": {**ALL["keycloak"], "env": {"KC_DB_PASSWORD": RANDOM}}}, "keycloak.env.KC_DB_PASSWORD", "is set by the component"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"name": "master"}}}, "keycloak.realm.name", "must not be master"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"rolls": []}}}, "keycloak.realm.rolls", "is unknown; did you mean roles?"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"roles": ["a b"]}}}, "keycloak.realm.roles[0]", "must be letters"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"clients": [{"id": "a"}, {"public": True}]}}}, "keycloak.realm.clients[1].id", "is required"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"clients": [{"id": "a", "public": True}]}}}, "keycloak.realm.clients", "must begin with a client"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"clients": [{"id": "a-b"}, {"id": "a_b"}]}}}, "keycloak.realm.clients[1].id", "stands there twice"),
        ({"keycloak": {**ALL["keycloak"], "realm": {"clients": [{"id": "a", "urls": ["*"]}]}}}, "keycloak.realm.clients[0].urls[0]", "must be an address"),
        ({"cerbos": {}}, "cerbos.policies", "is required"),
        ({"cerbos": {"policies": "p", "domain": "c.example.com"}}, "cerbos.domain", "is refused: cerbos is for the app alone"),
        ({"btcpay": {}}, "btcpay.domain", "is required"),
        ({"btcpay": {**ALL["btcpay"], "prune_mb": 1}}, "btcpay.prune_mb", "must lie between 550"),
        ({"btcpay": {**ALL["btcpay"], "network": "main"}}, "btcpay.network", "must be one of mainnet"),
        ({"pgbouncer": {"pool_mode": "statement"}}, "pgbouncer.pool_mode", "must be one of session, transaction"),
        ({"pgbouncer": {"domain": "p.example.com"}}, "pgbouncer.domain", "is refused"),
    ],
)
def test_what_is_refused_is_named_by_its_key(given, key, rule):
    problems = wrong(beside(**given))
    assert list(problems) == [f"shop.components.{key}"]
    assert problems[f"shop.components.{key}"].startswith(rule)
    assert RANDOM not in repr(problems)


def test_they_belong_to_containers():
    assert wrong(changed(SHOP, components={"s3": {}}))["shop.components"] == "belongs to runtime compose, not to pm2"


def test_they_join_a_network_that_is_there():
    managed = {"database__url": f"postgres://u:{RANDOM}@db.example.com/shop", "redis__url": f"redis://u:{RANDOM}@cache.example.com:6379/0"}
    lean = changed(beside(s3={}, btcpay=ALL["btcpay"], pgbouncer={}), **managed)
    found = wrong(lean)
    assert set(found) == {"shop.components.s3", "shop.components.pgbouncer"}, "BTCPay joins none"
    assert found["shop.components.pgbouncer"].startswith("needs a local database")


def test_what_two_would_share_is_refused():
    other = changed(WEB, domain="auth.example.com", port=17000)
    found = wrong(beside(**{**ALL, "s3": {"domain": "s3.example.com"}}), web=other)
    assert found["web.domain"] == "auth.example.com is already the domain of apps.shop.components.keycloak"
    assert found["web.processes.web.port"].startswith("port 17000 on vps is already taken by apps.shop.components.s3")
    assert "has the name that apps.shop-s3 has already" in wrong(beside(s3={}), **{"shop-s3": WEB})["shop.components.s3"]


def test_two_names_of_one_place_are_refused_among_components_too():
    one = {"domain": "auth.example.com"}
    assert wrong(beside(keycloak=one, btcpay=one))["shop.components.btcpay.domain"] == "auth.example.com is already the domain of apps.shop.components.keycloak"
    taken = {"domain": changed(SHOP)["domain"]}
    assert wrong(beside(keycloak=taken))["shop.components.keycloak.domain"] == f"{taken['domain']} is already the domain of apps.shop"


def test_a_process_of_the_same_name_is_refused():
    app = changed(beside(s3={}), processes={"s3": {"command": ["node", "s3.js"]}})
    assert wrong(app)["shop.components.s3"].startswith("has the name of a process")


def test_a_domain_is_served_by_the_hosts_own_proxy():
    app = changed(beside(keycloak=ALL["keycloak"]), hosts=["a1"])
    assert wrong(app, FLEET)["shop.components"].startswith("with a domain are for an app on the host that is its own proxy")


def test_a_certificate_is_wanted_for_the_domain_of_a_component_alone():
    bot = {"preset": "node", "runtime": "compose", "source": SHOP["source"], "processes": {"bot": {"command": ["node", "b.js"]}}, "redis": {"enabled": True}}
    files = {**bot, "tls": {"mode": "files"}, "components": {"keycloak": ALL["keycloak"]}}
    assert set(wrong(files)) == {"shop.tls.certificate", "shop.tls.key"}


# ---- the data files --------------------------------------------------------------------------------------------------


def test_each_data_file_has_a_place_of_its_own_and_a_pinned_image():
    files = load_components()
    assert sorted(file["place"] for file in files.values()) == list(range(len(files)))
    assert len(files) <= components.PORTS_PER_APP
    for name, file in files.items():
        assert next(iter(file["services"])) == name, "the first service is the component"


def test_no_service_has_a_name_that_means_another_one_on_the_apps_network():
    names = [service for file in load_components().values() for service in file["services"]]
    assert len(set(names)) == len(names)
    assert not {"postgres", "redis-jobs", "redis-cache", "server", "worker"} & set(names), "keycloak would find the shop's database under that name"


def test_a_placeholder_keeps_the_type_and_an_unknown_one_is_an_error():
    assert components.substitute({"a": ["{n}", "x{n}y"]}, {"n": 5}) == {"a": [5, "x5y"]}
    assert components.substitute('{"json": {"a": 1}}', {}) == '{"json": {"a": 1}}'
    with pytest.raises(AnchorageError, match=r"\{odd\}, which has no value"):
        components.substitute("{odd}", {})


def test_a_secret_in_a_definition_is_refused(contract):
    app = contract["apps"]["shop"]
    file = {**app["components"]["s3"]["file"], "services": {"s3": {"command": ["{secret.secret_key}"]}}}
    spoilt = {**app, "components": {"s3": {**app["components"]["s3"], "file": file}}}
    with pytest.raises(AnchorageError, match="in its services, where everybody sees it"):
        components.project(spoilt, "s3", lambda key: key, {})


# ---- projects --------------------------------------------------------------------------------------------------------


def test_each_is_a_project_of_its_own_that_nothing_depends_on(contract):
    found = projects(contract)
    assert list(found) == ["shop-base", *(f"shop-{name}" for name in ALL)], "after the base project"
    for name in ALL:
        project = found[f"shop-{name}"]
        assert project["required"] is False and project["wait_timeout_seconds"] >= 180
        networks = project["definition"]["networks"]
        assert networks["default"] == {"name": f"shop-{name}"}
        assert ("base" in networks) is (name != "btcpay"), "what is payment shares no network with the shop"
        for service in project["definition"]["services"].values():
            assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"] and service["restart"] == "unless-stopped"
            assert service["mem_limit"] == service["memswap_limit"] and service["pids_limit"] and service["image"]
    assert found["shop-base"].get("required", True) is True


def test_only_the_component_joins_the_apps_network_and_is_found_by_its_name(contract):
    for name in ALL:
        services = projects(contract)[f"shop-{name}"]["definition"]["services"]
        joined = {service: told["networks"].get("base") for service, told in services.items() if "networks" in told}
        assert joined == {name: None if name == "btcpay" else {"aliases": [name]}}


def test_ports_are_published_on_loopback_and_only_for_the_proxy(contract):
    found = {
        name: [port for service in projects(contract)[f"shop-{name}"]["definition"]["services"].values() for port in service.get("ports", [])] for name in ALL
    }
    assert {name: [(port["host_ip"], port["published"], port["target"]) for port in ports] for name, ports in found.items() if ports} == {
        "keycloak": [("127.0.0.1", "17001", 8080)],
        "btcpay": [("127.0.0.1", "17003", 49392)],
    }, "the management port of Keycloak is not among them"


def test_no_secret_is_in_a_definition_and_every_generated_one_is_somewhere(contract):
    secrets = secrets_for(contract)["shop"]
    found = projects(contract)
    told = json.dumps([project["definition"] for project in found.values()])
    files = json.dumps([project["files"] for project in found.values()])
    assert [name for name, value in secrets.items() if value in told] == []
    assert [name for name, value in secrets.items() if name.partition("_")[0] in ALL and value not in files] == []
    assert {file["mode"] for project in found.values() for file in project["files"]} == {"0644"}
    plain = [file["content"] for project in found.values() for file in project["files"] if file.get("secret") is False]
    assert len(plain) == 5 and not any(value in text for value in secrets.values() for text in plain), "only such a file is in a diff"


def test_keycloak_runs_as_in_production_with_a_database_of_its_own(contract):
    project = projects(contract)["shop-keycloak"]
    keycloak = project["definition"]["services"]["keycloak"]
    assert keycloak["command"] == ["start", "--import-realm"]
    assert keycloak["environment"].items() >= {
        "KC_HOSTNAME": "https://auth.example.com", "KC_PROXY_HEADERS": "xforwarded", "KC_HTTP_ENABLED": "true", "KC_HEALTH_ENABLED": "true",
        "KC_DB_URL": "jdbc:postgresql://keycloak-db:5432/keycloak",
    }.items()  # fmt: skip
    assert keycloak["depends_on"] == {"keycloak-db": {"condition": "service_healthy"}}
    assert "/health/ready" in keycloak["healthcheck"]["test"][-1] and "[[ $$line ==" in keycloak["healthcheck"]["test"][-1]
    env = next(file["content"] for file in project["files"] if file["path"] == "keycloak.env")
    assert env.splitlines()[1].startswith("KC_BOOTSTRAP_ADMIN_PASSWORD='<keycloak_admin_password>")


def test_the_realm_has_the_three_clients_and_the_five_roles(contract):
    text = next(file["content"] for file in projects(contract)["shop-keycloak"]["files"] if file["path"] == "realm.json")
    realm = json.loads(text)
    assert realm["realm"] == "cityos"
    assert [role["name"] for role in realm["roles"]["realm"]] == ["super_admin", "tenant_admin", "store_admin", "vendor_admin", "vendor_user"]
    clients = {client["clientId"]: client for client in realm["clients"]}
    assert {name: client["publicClient"] for name, client in clients.items()} == {"medusa-backend": False, "payload-cms": False, "medusa-admin": True}
    assert "secret" not in clients["medusa-admin"] and clients["medusa-admin"]["attributes"] == {"pkce.code.challenge.method": "S256"}
    assert clients["payload-cms"]["secret"].startswith("<keycloak_client_payload_cms>")
    assert clients["medusa-admin"]["redirectUris"] == ["https://api.example.com/*"] and clients["medusa-admin"]["webOrigins"] == ["https://api.example.com"]
    assert "*" not in [url for client in clients.values() for url in client["redirectUris"] + client["webOrigins"]]


def test_clients_may_be_others():
    clients = [{"id": "shop"}, {"id": "spa", "public": True, "urls": ["https://shop.example.com/login", "https://shop.example.com/x*"]}]
    contract = contract_of(keycloak={**ALL["keycloak"], "realm": {"clients": clients}})
    realm = json.loads(next(file["content"] for file in projects(contract)["shop-keycloak"]["files"] if file["path"] == "realm.json"))
    assert realm["realm"] == "shop" and [client["clientId"] for client in realm["clients"]] == ["shop", "spa"]
    assert realm["clients"][1]["webOrigins"] == ["https://shop.example.com"]
    assert document_of(contract)["env"]["KEYCLOAK_CLIENT_ID"] == "shop"
    assert [key for key in secrets_for(contract)["shop"] if key.startswith("keycloak_client")] == ["keycloak_client_shop"]


def test_policies_are_compiled_in_the_image_that_serves_them(contract):
    project = projects(contract)["shop-cerbos"]
    (cerbos,) = project["definition"]["services"].values()
    assert "ports" not in cerbos and cerbos["read_only"] is True and "./policies:/policies:ro" in cerbos["volumes"]
    assert project["exclusive"] == ["policies"]
    assert project["proofs"] == [
        {"name": "cerbos compile /policies", "image": cerbos["image"], "command": ["compile", "/policies"], "path": "policies", "target": "/policies"}
    ]
    files = {file["path"]: file["content"] for file in project["files"]}
    assert set(files) == {"cerbos.yaml", "policies/order.yaml", "policies/tests/order_test.yaml"}
    assert "adminAPI:\n    enabled: false" in files["cerbos.yaml"] and "watchForChanges: false" in files["cerbos.yaml"]


def test_the_wallet_and_the_stores_of_btcpay_are_volumes_to_be_saved_apart(contract):
    definition = projects(contract)["shop-btcpay"]["definition"]
    kept = [name for name, volume in definition["volumes"].items() if volume.get("labels") == {"vps.anchorage.backup": "apart"}]
    assert kept == ["database", "datadir", "wallet"]
    assert "prune=25000" in definition["services"]["bitcoind"]["environment"]["BITCOIN_EXTRA_ARGS"]
    assert [name for name, service in definition["services"].items() if "ports" in service] == ["btcpay"]


def test_the_key_of_the_app_opens_one_bucket(contract):
    files = {file["path"]: file["content"] for file in projects(contract)["shop-s3"]["files"]}
    identities = {identity["name"]: identity for identity in json.loads(files["s3.json"])["identities"]}
    assert identities["app"]["actions"] == ["Read:shop-files", "Write:shop-files", "List:shop-files", "Tagging:shop-files"]
    told = json.loads(files["keeper.json"])
    assert identities["app"]["credentials"] == [{"accessKey": told["app"]["id"], "secretKey": told["app"]["secret"]}]
    assert len(identities) == 2, "who has no key is nobody"
    command = projects(contract)["shop-s3"]["definition"]["services"]["s3"]["command"]
    assert "-ip.bind=127.0.0.1" in command and "-s3.ip.bind=0.0.0.0" in command, "the filer asks nobody for a key"
    assert "createHmac" in files["keeper.mjs"]


def test_a_component_takes_another_image_more_memory_and_variables():
    env = {"KC_LOG_LEVEL": "debug $x", "KC_DB": "other", "SMTP_PASSWORD": RANDOM}
    contract = contract_of(
        keycloak={**ALL["keycloak"], "image": "registry.example.com/kc:1", "images": {"keycloak-db": "pg:1"}, "memory_mb": 2048, "port": 17500, "env": env}
    )
    project = projects(contract)["shop-keycloak"]
    service = project["definition"]["services"]["keycloak"]
    assert project["definition"]["services"]["keycloak-db"]["image"] == "pg:1"
    assert (service["image"], service["mem_limit"], service["ports"][0]["published"]) == ("registry.example.com/kc:1", "2048m", "17500")
    assert service["environment"]["KC_LOG_LEVEL"] == "debug $$x" and service["environment"]["KC_DB"] == "other"
    assert RANDOM not in json.dumps(project["definition"])
    assert f"SMTP_PASSWORD='{RANDOM}'\n" in next(file["content"] for file in project["files"] if file["path"] == "keycloak.env")


# ---- what the app, the proxy and the host are told -------------------------------------------------------------------


def test_the_app_is_told_where_they_are_and_secrets_stay_secrets(contract):
    document = document_of(contract)
    assert document["env"].items() >= {
        "S3_ENDPOINT": "http://s3:8333", "S3_BUCKET": "shop-files", "KEYCLOAK_URL": "https://auth.example.com", "KEYCLOAK_REALM": "cityos",
        "KEYCLOAK_CLIENT_ID": "medusa-backend", "CERBOS_URL": "http://cerbos:3592", "BTCPAY_URL": "https://pay.example.com",
    }.items()  # fmt: skip
    hidden = {"S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY", "KEYCLOAK_CLIENT_SECRET"}
    assert hidden <= set(document["secrets_env"]) and not hidden & set(document["env"])
    assert {document["secrets_env"][key] for key in hidden} <= secrets_of(document), "so that no log shows them"
    assert "S3_FILE_URL" not in document["env"]
    assert document_of(contract_of(s3={"domain": "files.example.com"}))["env"]["S3_FILE_URL"] == "https://files.example.com/shop-files"


def test_what_the_app_says_itself_holds():
    app = changed(beside(s3={}), env={"S3_ENDPOINT": "https://s3.example.com", "S3_SECRET_ACCESS_KEY": RANDOM})
    (document,) = views.release_documents(resolved({"shop": app}), {"shop": {}}, "vps")
    assert document["env"]["S3_ENDPOINT"] == "https://s3.example.com" and document["secrets_env"]["S3_SECRET_ACCESS_KEY"] == RANDOM
    assert document["env"]["S3_BUCKET"] == "shop-files"


def test_a_new_component_is_a_new_release_and_none_is_the_same_as_ever():
    plain = document_of(resolved({"shop": DOCKED}))
    names = {release_plan.release_id(document_of(contract_of(**wanted)), "s") for wanted in ({}, {"s3": {}}, {"pgbouncer": {}})}
    assert len(names) == 3
    assert release_plan.release_id({key: value for key, value in plain.items() if key != "components"}, "s") in names


def test_processes_go_through_the_pool_and_a_migration_past_it(contract):
    document = document_of(contract)
    (server,) = release_plan.instances(document, "blue", public=True)
    seen = release_plan.process_environment(document, server, "r1")["DATABASE_URL"]
    assert seen.rpartition("@")[2] == "pgbouncer:6432/shop?sslmode=disable"
    assert release_plan.common_environment(document)["DATABASE_URL"].rpartition("@")[2] == "postgres:5432/shop?sslmode=disable", "migrations, the admin user"
    assert document["database_url"].rpartition("@")[2] == "127.0.0.1:15432/shop", "restore points, probes"
    without = document_of(contract_of(s3={}))
    assert "pooled" not in without
    assert release_plan.process_environment(without, server, "r1")["DATABASE_URL"].rpartition("@")[2] == "postgres:5432/shop?sslmode=disable"


def test_the_pool_is_a_session_unless_somebody_wants_otherwise(contract):
    def settings(contract):
        return next(file["content"] for file in projects(contract)["shop-pgbouncer"]["files"] if file["path"] == "pgbouncer.ini")

    assert "pool_mode = session\n" in settings(contract) and "auth_type = scram-sha-256\n" in settings(contract)
    other = settings(contract_of(pgbouncer={"pool_mode": "transaction", "pool_size": 7}))
    assert "pool_mode = transaction\n" in other and "default_pool_size = 7\n" in other
    password = secrets_for(contract)["shop"]["database_password"]
    files = {file["path"]: file["content"] for file in projects(contract)["shop-pgbouncer"]["files"]}
    assert files["userlist.txt"] == f'"shop" "{password}"\n' and password not in files["pgbouncer.ini"]


def test_a_component_with_a_domain_is_a_site_with_one_upstream_and_a_certificate(contract):
    found = {site["name"]: site for site in views.nginx_sites(contract, "vps")}
    assert list(found) == ["shop", "shop-keycloak", "shop-btcpay"]
    assert found["shop-keycloak"]["upstreams"] == {"blue": [{"address": "127.0.0.1", "port": 17001}]}
    assert found["shop-keycloak"]["domains"] == ["auth.example.com"] and found["shop-keycloak"]["tls"]["mode"] == "acme"
    certificates = {certificate["name"]: certificate for certificate in views.certbot_certificates(contract, "vps")}
    assert certificates["shop-btcpay"] == {"name": "shop-btcpay", "domains": ["pay.example.com"], "method": "webroot", "required": False}
    assert "required" not in certificates["shop"]


def test_a_proxy_is_wanted_for_a_component_alone():
    bot = {"preset": "node", "runtime": "compose", "source": SHOP["source"], "processes": {"bot": {"command": ["node", "b.js"]}}, "redis": {"enabled": True}}
    contract = resolved({"bot": {**bot, "components": {"keycloak": ALL["keycloak"]}}})
    assert views.host_roles(contract, "vps") == ["base", "docker_compose", "nginx", "certbot", "backup"]


def test_the_host_is_told_what_to_ask_and_no_secret(contract):
    told = {component["name"]: component for component in document_of(contract)["components"]}
    assert told["keycloak"] == {
        "name": "keycloak", "project": "shop-keycloak", "services": {"keycloak": True, "keycloak-db": True}, "severity": "warn",
        "domain": "auth.example.com", "tls_mode": "acme", "health_path": "/realms/cityos/.well-known/openid-configuration",
    }  # fmt: skip
    assert {name: component["severity"] for name, component in told.items() if component["severity"] != "warn"} == {"pgbouncer": "fail"}
    assert not any(secret in json.dumps(document_of(contract)["components"]) for secret in secrets_for(contract)["shop"].values())


def test_each_role_takes_what_it_is_given(contract):
    given = {
        "docker_compose_projects": list(projects(contract).values()),
        "nginx_sites": views.nginx_sites(contract, "vps"),
        "certbot_certificates": views.certbot_certificates(contract, "vps"),
    }
    for variable, value in given.items():
        role = variable.rpartition("_")[0]
        specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        result = ArgumentSpecValidator({variable: specs["main"]["options"][variable]}).validate({variable: value})
        assert result.error_messages == [], variable


def test_an_app_without_components_is_told_of_none():
    assert document_of(resolved({"shop": DOCKED}))["components"] == []


def test_what_holds_money_is_saved_apart(contract):
    assert views.backup_apart(contract, "vps") == [{"name": "shop-btcpay", "directory": "/etc/anchorage/compose/shop-btcpay"}]
    assert views.backup_apart(contract_of(s3={}), "vps") == [] and views.backup_apart(contract, "elsewhere") == []
