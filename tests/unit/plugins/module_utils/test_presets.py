# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the presets make of a few lines, and what they refuse; and the places that a process' words may hold."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.module_utils import catalog, compose_project, dockerfile, forecast, migrations
from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils import release_plan as plan
from ansible_collections.anchorage.vps.plugins.module_utils.contract import ContractError

from .contract_samples import FLEET, GIT, PRESETS, RANDOM, ROLE, SPEC, WEB, changed, resolved

ROOT = ROLE.parents[1]
SITE = {"preset": "nextjs", "source": GIT, "domain": "www.example.com"}
CLUB = {"preset": "prisma_bot", "source": GIT, "domain": "club.example.com", "processes": {"bot": {"env": {"TELEGRAM_BOT_TOKEN": f"1:{RANDOM}"}}}}
CMS = {"preset": "payload", "source": GIT, "domain": "cms.example.com"}
SAMPLES = {"nextjs": SITE, "prisma_bot": CLUB, "payload": CMS}
NEXT = ["node", "node_modules/next/dist/bin/next", "start", "--hostname"]


def app_of(app, topology=None, **changes):
    return resolved({"club": changed(app, **changes)}, topology)["apps"]["club"]


def document(app, topology=None, host="vps", **changes):
    return views.release_documents(resolved({"club": changed(app, **changes)}, topology), {}, host)[0]


def refused(app, topology=None, **changes):
    with pytest.raises(ContractError) as caught:
        app_of(app, topology, **changes)
    return [str(problem) for problem in caught.value.problems]


def commands(found, slot="blue"):
    """Return what PM2 starts, by process."""
    return {
        instance.process["name"]: plan.process_command(instance, plan.process_environment(found, instance, "r1")) for instance in plan.instances(found, slot)
    }


def test_every_preset_is_explained():
    text = SPEC["contract"]["options"]["preset"]["description"][0]
    assert [name for name in PRESETS if f"V({name})" not in text] == []


@pytest.mark.parametrize("name", SAMPLES)
def test_a_few_lines_are_enough(name):
    found = app_of(SAMPLES[name])
    (web, *others) = found["processes"]
    assert web["public"] and web["health"]["path"].startswith("/") and not any(process["public"] for process in others)
    assert found["env"]["NODE_ENV"] == "production" and found["env"]["NEXT_TELEMETRY_DISABLED"] == "1"
    assert found["build"]["output"] == "." and ".next/cache" in found["shared"]


@pytest.mark.parametrize("name", SAMPLES)
def test_nobody_else_says_that_it_is_production(name):
    assert any("a release always runs as production" in problem for problem in refused(SAMPLES[name], env={"NODE_ENV": "development"}))


@pytest.mark.parametrize("name", SAMPLES)
def test_what_browsers_get_is_known_to_the_build(name):
    found = app_of(SAMPLES[name], env={"NEXT_PUBLIC_MAP": "osm", "MAP_SERVER": "internal"})
    assert found["build"]["env"]["NEXT_PUBLIC_MAP"] == "osm" and "MAP_SERVER" not in found["build"]["env"]


# ---- where a process listens


@pytest.mark.parametrize("name", SAMPLES)
def test_next_is_told_where_to_listen_by_both_runtimes(name):
    native, contained = document(SAMPLES[name]), document(SAMPLES[name], runtime="compose")
    assert commands(native)["web"] == [*NEXT, "127.0.0.1", "--port", "9000"]
    service = next(iter(compose_project.slot_project(contained, release="r1", slot="green", image="i", user="1:1")["services"].values()))
    port = str(contained["processes"][0]["slots"]["green"][0])
    assert service["entrypoint"] == [*NEXT, "0.0.0.0", "--port", port] and service["environment"]["PORT"] == port


def test_behind_a_proxy_elsewhere_it_is_the_edge_that_listens_where_that_one_finds_it():
    assert commands(document(SITE, FLEET, host="a2"))["web"] == [*NEXT, "127.0.0.1", "--port", "9000"]


def test_an_image_says_how_it_is_started_without_a_braced_word():
    found = document(SITE, runtime="compose")
    text = dockerfile.render(found, manager="npm", version="", names=("package.json", "package-lock.json"), extra_ca=False)
    assert f"CMD {json.dumps([*NEXT, '0.0.0.0', '--port', '9000'])}" in text
    assert "RUN rm -rf /app/.next/cache && mkdir -p /app/.next/cache" in text.partition("FROM dependencies AS production")[0]


def test_only_the_two_places_are_replaced():
    words = ["--bind={host}:{port}", '{"host": 1}', "{hosts}", "x=>{port}"]
    assert plan.placed(words, "::1", 9000) == ["--bind=::1:9000", '{"host": 1}', "{hosts}", "x=>9000"]
    assert plan.placed(words, "", None) == words


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["node", "web.js", "--port", "{prot}"], "holds {prot}, which nobody replaces; there are {host} and {port}"),
        (["node", "web.js", "--listen={hostname}"], "holds {hostname}, which nobody replaces"),
        (["node", "web.js", '{"port": 1}'], None),
        (["node", "-e", "({port}) => {port}"], None),
        (["node", "web.js", "--listen={host}:{port}"], None),
    ],
)
def test_a_mistyped_place_is_refused(words, rule):
    app = changed(WEB, processes__web__command=words)
    if rule is None:
        assert app_of(app)["processes"][0]["command"] == words
    else:
        (problem,) = refused(app)
        assert rule in problem and "processes.web.command" in problem


def test_a_process_that_listens_nowhere_has_no_port_and_no_place():
    found = document(CLUB, runtime="compose")
    ports = {process["name"]: process["slots"] for process in found["processes"]}
    assert ports == {"web": {"blue": [9000], "green": [9001]}, "worker": {"blue": [], "green": []}, "bot": {"blue": [], "green": []}}
    services = compose_project.slot_project(found, release="r1", slot="blue", image="i", user="1:1")["services"]
    for name in ("worker-r1", "bot-r1"):
        assert not {"ports", "healthcheck"} & set(services[name]) and not {"PORT", "HOST"} & set(services[name]["environment"])
    (problem,) = refused(CLUB, processes__worker__command=["node", "worker.js", "{port}"])
    assert "processes.worker.command: holds {port}, but the process has no port" in problem


@pytest.mark.parametrize("given", [{"health": {"path": "/alive"}}, {"port": 9100}], ids=["health", "port"])
def test_a_process_that_listens_has_a_port(given):
    found = document(CLUB, processes={**CLUB["processes"], "worker": given})
    worker = plan.instances(found, "blue")[1]
    assert worker.port == (9100 if "port" in given else 9001) and plan.process_environment(found, worker, "r1")["PORT"] == str(worker.port)


# ---- never two


def test_there_is_one_bot_and_it_stops_before_the_next_one_starts():
    found = app_of(CLUB)
    bot = found["processes"][2]
    assert (bot["name"], bot["instances"], bot["overlap"], bot["public"]) == ("bot", 1, False, False)
    assert app_of(CLUB, processes__bot__instances=0)["processes"][2]["instances"] == 0


@pytest.mark.parametrize(
    ("changes", "topology", "key", "rule"),
    [
        ({"processes__bot__instances": 2}, None, "processes.bot.instances", "must be 1, or 0 to stop it"),
        ({"processes__bot__overlap": True}, None, "processes.bot.overlap", "must stay false"),
        ({}, FLEET, "hosts", "must name one host, since bot runs on each of them"),
    ],
    ids=["instances", "overlap", "hosts"],
)
def test_a_second_poller_is_refused_with_the_reason(changes, topology, key, rule):
    (problem,) = refused(CLUB, topology, **changes)
    assert problem.startswith(f"apps.club.{key}: {rule}") and "Telegram lets one poller in for each token" in problem


def test_on_one_host_of_several_the_bot_is_alone():
    assert app_of(CLUB, FLEET, hosts=["a1"])["hosts"] == ["a1"]
    assert app_of(CLUB, FLEET, processes__bot__instances=0)["hosts"] == ["a1", "a2"]


def test_the_token_reaches_the_bot_alone():
    found = document(CLUB, runtime="compose")
    services = compose_project.slot_project(found, release="r1", slot="blue", image="i", user="1:1")["services"]
    assert [name for name, service in services.items() if "TELEGRAM_BOT_TOKEN" in service["environment"]] == ["bot-r1"]
    assert "TELEGRAM_BOT_TOKEN" in found["secret_keys"]


# ---- databases and migrations


def test_payload_finds_the_database_by_its_older_name_too():
    found = document(CMS)
    (web,) = plan.instances(found, "blue")
    environment = plan.process_environment(found, web, "r1")
    assert environment["DATABASE_URI"] == environment["DATABASE_URL"] == found["database_url"]
    contained = plan.common_environment(document(CMS, runtime="compose"))
    assert contained["DATABASE_URI"] == contained["DATABASE_URL"] and "@postgres:5432/" in contained["DATABASE_URI"]
    assert found["generated"] == {"PAYLOAD_SECRET": 64} and len(environment["PAYLOAD_SECRET"]) >= 8
    assert plan.common_environment(document(CMS, env={"DATABASE_URI": "file:./x.db"}))["DATABASE_URI"] == "file:./x.db", "the user's word counts"


def test_another_name_of_the_database_is_another_release():
    found = document(CMS)
    assert plan.release_id(found, "s") != plan.release_id({**found, "aliases": {}}, "s")


@pytest.mark.parametrize("name", ["prisma_bot", "payload"])
def test_they_cannot_do_without_a_database(name):
    assert any("cannot be switched off" in problem for problem in refused(SAMPLES[name], database={"enabled": False}, migrate=None))


@pytest.mark.parametrize(
    ("name", "path"), [("prisma_bot", "prisma/migrations/20260901120000_init/migration.sql"), ("payload", "src/migrations/20261122_121105_init.ts")]
)
def test_their_migrations_are_read_before_they_run(name, path):
    assert forecast.wanted(app_of(SAMPLES[name]), path) and migrations.is_migration(path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("prisma_bot", "The following migration(s) have been applied:"),
        ("payload", "[12:11:13] INFO: Migrated:  20261122_121105_init (42ms)"),
    ],
)
def test_it_is_noticed_that_something_was_migrated(name, line):
    assert any(re.search(pattern, line) for pattern in app_of(SAMPLES[name])["migrate"]["changed_patterns"])


def test_a_lock_that_payload_did_not_get_is_noticed():
    line = '      "message": "Failed query: LOCK TABLE users\\nparams: : canceling statement due to lock timeout",'
    assert any(re.search(pattern, line) for pattern in app_of(CMS)["migrate"]["error_patterns"])


# ---- the example and its inventory


def inventory(name):
    return yaml.safe_load((ROOT / "inventories" / name / "group_vars/all/apps.yml").read_text())["apps"]


def test_the_inventory_with_a_bot_is_what_its_example_needs():
    (app,) = inventory("bot").values()
    example = (ROOT / "inventories/bot" / app["source"]["path"]).resolve()
    assert example == ROOT / "examples/subscriptions"
    found = app_of(changed(app, processes__bot__env={"TELEGRAM_BOT_TOKEN": f"1:{RANDOM}"}))
    scripts = [found["build"]["command"][1], found["migrate"]["command"][1], *(process["command"][1] for process in found["processes"])]
    assert [name for name in scripts if not name.startswith("node_modules/") and not (example / name).is_file()] == []
    assert found["runtime"] == "compose" and (example / "app" / f"{found['processes'][0]['health']['path'].strip('/')}/route.js").is_file()


@pytest.mark.parametrize("name", ["bot", "compose", "single_vps"])
def test_every_secret_of_an_inventory_is_named_in_its_vault(name):
    place = ROOT / "inventories" / name
    used = set(re.findall(r"\bvault_\w+", "\n".join(path.read_text() for path in place.rglob("*.yml") if path.stem != "vault")))
    assert used == set(re.findall(r"\bvault_\w+", (place / "group_vars/all/vault.yml").read_text()))


def test_what_the_example_migrates_with_is_no_development_dependency():
    manifest = json.loads((ROOT / "examples/subscriptions/package.json").read_text())
    assert {"prisma", "@prisma/adapter-pg", "next"} <= set(manifest["dependencies"]) and "devDependencies" not in manifest


@pytest.mark.parametrize("name", ["medusa-shop", "subscriptions"])
def test_a_lock_file_names_packages_and_no_place_where_they_lie(name):
    assert '"resolved"' not in (ROOT / "examples" / name / "package-lock.json").read_text()


def test_the_examples_first_migration_only_adds():
    (path,) = pathlib.Path(ROOT / "examples/subscriptions/prisma/migrations").glob("*/migration.sql")
    statements = migrations.statements(path.name, path.read_text())
    assert len(statements) == 3 and migrations.judge({path.name: statements}, migrations.Tables())[0] != catalog.CONTRACT
