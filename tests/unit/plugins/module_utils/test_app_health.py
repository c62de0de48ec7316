# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import json
import threading
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import (
    app_health,
    command,
    compose_probe,
    engine,
    host_drain,
    host_manifest,
    host_probe,
    pm2,
    postgresql_objects,
    postgresql_probe,
    postgresql_replication,
    redis_probe,
    restart,
    tls_probe,
    worker_probe,
)
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.app_health import Part, Place, examine, lines, look, parts, parts_of_app, summarise
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.health import FAIL, OK, WARN, Check, Verdict
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import within

from .engine_fakes import ME, PASSWORD, make, place

HEALTH = {"path": "/health", "status": 200, "body": "OK"}
PROCESS = {"instances": 1, "memory_mb": 256, "stop_seconds": 5}
PROCESSES = [
    {"name": "server", "public": True, **PROCESS, "instances": 2, "slots": {"blue": [9000, 9001], "green": [9003, 9004]}, "health": HEALTH},
    {"name": "worker", "public": False, **PROCESS, "slots": {"blue": [9002], "green": [9005]}, "health": HEALTH},
    {"name": "bot", "public": False, **PROCESS, "slots": None, "health": None},
]
SITE = {"domains": ["shop.test", "*.shop.test"], "proxy_address": "127.0.0.1", "tls": {"mode": "acme"}}
DATABASE = {"database": {"external": False, "user": "shop"}, "database_address": "127.0.0.1"}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Make an app whose release r1 is live in the green slot, unless a test wants it otherwise."""
    place(tmp_path, monkeypatch)

    def build(*, live=True, **changes):
        app, world, _log = make(tmp_path, **{"processes": PROCESSES, **SITE, **DATABASE, **changes})
        if live:
            app.journal.mark("r1", "staged", tree="t1", source="s1")
            app.journal.go_live("r1", "green", "t1")
            app.journal.settled()
        return app, world

    return build


@pytest.fixture
def asked(monkeypatch):
    """Let no question leave: tell which was asked."""
    seen = []
    fine = Verdict(True, (), "fine", "fine")
    monkeypatch.setattr(app_health, "ask_http", lambda target, wanted, **more: seen.append(("http", target, wanted)) or fine)
    for name, module in (("pg", postgresql_probe), ("redis", redis_probe), ("tls", tls_probe), ("pm2", pm2)):
        monkeypatch.setattr(module, "check", lambda target, wanted, name=name, **more: seen.append((name, target, wanted)) or fine)
    return seen


def names(found, kinds=app_health.KINDS):
    return [(part.name, part.kind) for part in found if part.kind in kinds]


def test_the_document_and_the_journal_say_what_is_asked(shop):
    app, _world = shop(redis_url="redis://shop:x@127.0.0.1:6379/0", redis_cache_url="redis://shop:x@127.0.0.1:6380/0")
    assert names(parts_of_app(app)) == [
        ("shop", "release"),
        ("shop database", "database"),
        ("shop Redis (jobs)", "redis"),
        ("shop Redis (cache)", "redis"),
        ("shop processes", "processes"),
        ("shop-server-1-green", "answer"),
        ("shop-server-2-green", "answer"),
        ("shop-worker-green", "worker"),
        ("shop (public)", "site"),
        ("shop certificate", "tls"),
    ]


def test_a_process_that_leaves_signs_of_life_is_asked_by_them(shop, monkeypatch):
    beat = {"sql": "SELECT at FROM beats WHERE release = '{release}'", "redis_key": None, "file": None, "max_age_seconds": 90}
    processes = [{**process, "heartbeat": beat} if process["name"] == "bot" else process for process in PROCESSES]
    app, _world = shop(processes=processes)
    (found,) = [part for part in parts_of_app(app) if part.name == "shop bot heartbeat"]
    seen = []
    monkeypatch.setattr(worker_probe, "check", lambda question, **more: seen.append((question, more["deadline_seconds"])))
    found.ask(60.0)
    ((question, seconds),) = seen
    assert found.kind == "worker" and seconds == 5.0 and question.max_age_seconds == 90
    assert question.sql[1] == f"SELECT at FROM beats WHERE release = '{app.journal.live}'"


def test_what_is_asked_on_request_only(shop, monkeypatch):
    app, world = shop()
    monkeypatch.setattr(app_health, "App", lambda name, world: app)
    assert "negative" not in {item.kind for item in parts(["shop"], world)} and "golive" not in {item.kind for item in parts(["shop"], world)}
    found = parts(["shop"], world, kinds=app_health.ON_REQUEST)
    assert [name for name, _kind in names(found, app_health.ON_REQUEST)] == [
        "shop refusals",
        *(f"shop: {box}" for box in ("https only", "security headers", "no versions told", "rate limit", "real keys", "no secrets in code")),
        "shop: secrets are private",
        "host files",
        *(f"host: {box}" for box in ("updates", "ssh", "firewall", "monitoring", "boot")),
    ]
    assert len(found) == 14 and names(parts(["shop"], world, kinds=["tls"])) == [("shop certificate", "tls")]
    assert names(parts(["shop"], world, kinds=["negative"], host=False), app_health.ON_REQUEST) == [("shop refusals", "negative")]


def test_what_cannot_be_read_is_told_whatever_is_asked(shop, monkeypatch):
    _app, world = shop()
    monkeypatch.setattr(app_health, "App", App)
    world.files[app_health.SETTINGS] = "{"
    assert names(parts(["blog"], world, kinds=["tls"], host=False)) == [("settings", "host"), ("blog", "release")]


def test_the_ways_of_the_processes_to_their_data_are_asked_after(shop, asked):
    pool, read = "postgres://shop:pw@10.0.0.5:6432/shop", "postgres://shop:pw@10.0.0.6:6432/shop"
    app, _world = shop(database_url="postgres://shop:pw@10.0.0.5:5432/shop", database_pool_url=pool, database_read_url=read)
    found = {part.name: part for part in parts_of_app(app) if part.kind == "database"}
    assert list(found) == ["shop database", "shop pool", "shop database to read from"]
    for part in found.values():
        part.ask(1.0)
    logins = [(target.host, target.port, wanted.write_probe) for kind, target, wanted in asked if kind == "pg"]
    assert logins == [("10.0.0.5", 5432, True), ("10.0.0.5", 6432, True), ("10.0.0.6", 6432, False)]


def test_a_pool_is_asked_after_where_provisioning_made_one(shop):
    _app, world = shop()
    assert ("pool", "database") not in names(parts([], world))
    world.files[postgresql_objects.POOL] = "{}"
    assert ("pool", "database") in names(parts([], world, kinds=["database"]))


def test_a_database_host_is_asked_how_it_stands_to_the_others_with_the_host_itself(shop):
    _app, world = shop()
    assert ("replication", "database") not in names(parts([], world))
    world.files[postgresql_replication.SETTINGS] = "{}"
    assert ("replication", "database") in names(parts([], world, kinds=["database"]))
    assert names(parts([], world, kinds=["database"], host=False)) == []


def test_an_app_that_is_not_live_has_nothing_to_refuse(shop):
    app, _world = shop(live=False)
    assert names(parts_of_app(app), app_health.ON_REQUEST) == []


def test_a_box_and_refusals_are_verdicts_like_all_others(shop, monkeypatch):
    app, _world = shop()
    monkeypatch.setattr(app_health.refusals, "ask", lambda app, document, *, seconds: [Check("plain_http"), Check("origins:/", FAIL, {}, "all may in", "CORS")])
    found = {item.name: item for item in parts_of_app(app)}
    refused = found["shop refusals"].ask(5)
    assert not refused.healthy and "shop refusals is not healthy: all may in" in refused.message and "Look next at: CORS" in refused.message
    box = found["shop: real keys"].ask(5)
    assert box.healthy and [check.name for check in box.checks] == ["test_keys"]


def test_the_command_asks_what_it_is_told_to(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        app_health, "look", lambda names, world, **more: seen.append(more["kinds"]) or {"healthy": True, "parts": [], "grade": "green", "seconds": 0}
    )
    assert command.main(["health", "shop", "--kinds", "golive, negative"]) == 0 and command.main(["health"]) == 0
    assert seen == [["golive", "negative"], app_health.KINDS]
    with pytest.raises(SystemExit):
        command.main(["health", "--kinds", "tls,luck"])
    assert "there is no kind 'luck'; there are release, database" in capsys.readouterr().err


def test_an_app_without_services_site_and_release(shop):
    app, _world = shop(live=False, database_url=None, domains=[])
    assert names(parts_of_app(app)) == [("shop", "release")]


def test_what_is_asked_is_what_the_contract_wants(shop, asked):
    app, _world = shop(redis_url="redis://shop:x@127.0.0.1:6379/0")
    for part in parts_of_app(app):
        part.ask(1)
    found = {kind: (target, wanted) for kind, target, wanted in asked if kind != "http"}
    assert (found["pg"][0].password, found["pg"][1].owner) == (PASSWORD, "shop")
    assert (found["redis"][1].purpose, found["redis"][1].wants_append_only) == ("jobs", True)
    assert found["pm2"][0].pm2_home == app.layout.pm2_home and found["pm2"][1].unit == f"pm2-{ME.pw_name}.service"
    wanted = {item.name: item for item in found["pm2"][1].processes}
    assert wanted["shop-server-2-green"].ports == [9004] and wanted["shop-bot-green"].ports == []
    assert {item.cwd for item in wanted.values()} == {f"{app.layout.release('r1')}/app"} and all(item.loopback_only for item in wanted.values())
    answers = {target.url: (target, expected) for kind, target, expected in asked if kind == "http"}
    assert answers["http://127.0.0.1:9005/health"][1].identity.environment == {"ANCHORAGE_RELEASE": "r1", "ANCHORAGE_PROCESS": "shop-worker-green"}
    assert answers["https://shop.test/health"][0].connect_to == "127.0.0.1:443"
    target, expected = found["tls"]
    assert list(target.names) == ["shop.test", "*.shop.test"] and target.address == "127.0.0.1:443"
    assert (expected.certificate_path, expected.renewal_timer, expected.untrusted) == ("/etc/nginx/tls/shop/fullchain.pem", "certbot.timer", FAIL)
    assert answers["https://shop.test/health"][0].validate_certs is False, "whether the certificate is good is a question of its own"


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"tls": {"mode": "off"}}, ["site"]),
        ({"domains": ["*.shop.test"]}, ["tls"]),
        ({"proxy_address": None}, []),
        ({"tls": {"mode": "files"}}, ["site", "tls"]),
    ],
)
def test_a_site_is_asked_as_far_as_it_has_names_and_certificates(shop, asked, changes, kinds):
    app, _world = shop(**changes)
    found = [part for part in parts_of_app(app) if part.kind in ("site", "tls")]
    assert [part.kind for part in found] == kinds
    for part in found:
        part.ask(1)
    if changes.get("tls") == {"mode": "off"}:
        assert (asked[0][1].url, asked[0][1].connect_to) == ("http://shop.test/health", "127.0.0.1:80")
    if changes.get("tls") == {"mode": "files"}:
        assert (asked[1][2].renewal_timer, asked[1][2].untrusted) == (None, WARN)


def test_a_test_authority_s_certificates_are_no_alarm(shop, asked):
    app, world = shop()
    for server, untrusted in ((app_health.LETSENCRYPT, FAIL), ("https://ca.test/dir", WARN)):
        world.files[app_health.CERTBOT] = json.dumps({"settings": {"server": server}})
        next(part for part in parts_of_app(app) if part.kind == "tls").ask(1)
        assert asked.pop()[2].untrusted == untrusted


def test_an_app_that_was_taken_out_of_the_inventory_wakes_nobody_up(shop):
    app, world = shop()
    everything = [("shop (public)", "site"), ("shop certificate", "tls")]
    sites = [(part.name, part.kind) for part in parts_of_app(app) if part.kind in ("site", "tls")]
    assert sites == everything, "nothing is known of what provisioning left"
    world.files[host_manifest.FILES] = json.dumps({app.layout.site: {"kind": "file"}})
    assert names([part for part in parts_of_app(app) if part.kind in ("site", "tls")]) == everything, "somebody else has removed the file"
    world.files[host_manifest.FILES] = "{}"
    assert names([part for part in parts_of_app(app) if part.kind in ("site", "tls")]) == everything, "it was never there"
    removed = json.dumps({app.layout.site: {"kind": host_manifest.REMOVED}})
    world.files[host_manifest.FILES] = removed
    (site,) = [part for part in parts_of_app(app) if part.kind in ("site", "tls")]
    assert site.ask(1).grade == WARN and "shop is no longer in the inventory" in site.ask(1).message
    assert not [part for part in parts_of_app(app) if part.name == "shop: https only"]
    world.files[app.layout.site] = "server {}"
    assert names([part for part in parts_of_app(app) if part.kind in ("site", "tls")]) == everything
    elsewhere, _world = shop(proxy_address="10.0.0.5")
    elsewhere.world.files[host_manifest.FILES] = removed
    assert names([part for part in parts_of_app(elsewhere) if part.kind in ("site", "tls")]) == everything


def test_an_address_of_ipv6_stands_in_brackets(shop, asked):
    app, _world = shop(listen_address="2001:db8::1")
    for part in parts_of_app(app):
        if part.kind == "answer":
            part.ask(1)
    assert asked[0][1].url == "http://[2001:db8::1]:9003/health"


def test_a_site_that_shows_nothing_yet_is_not_asked(shop):
    app, _world = shop(live=False)
    assert names(parts_of_app(app)) == [("shop", "release"), ("shop database", "database")]


def test_the_health_that_the_contract_wants_is_the_one_of_the_site_too(shop, asked):
    processes = [{**PROCESSES[0], "health": {"path": "/up", "status": 204, "body": ""}}]
    app, _world = shop(processes=processes)
    for part in parts_of_app(app):
        if part.kind == "site":
            part.ask(1)
    assert (asked[0][1].url, asked[0][2].status) == ("https://shop.test/up", (204,))


def test_processes_of_the_other_slot_are_strangers_unless_a_step_runs(shop, asked, monkeypatch):
    app, _world = shop()
    for running, severity in ((True, "ignore"), (False, WARN)):
        monkeypatch.setattr(engine, "unit_active", lambda _app, running=running: running)
        next(part for part in parts_of_app(app) if part.kind == "processes").ask(1)
        assert asked.pop()[2].unexpected == severity


def test_a_proxy_elsewhere_is_asked_where_it_is_and_its_files_are_not(shop, asked):
    app, _world = shop(proxy_address="fd00::7")
    for part in parts_of_app(app):
        if part.kind in ("site", "tls"):
            part.ask(1)
    assert asked[0][1].connect_to == "[fd00::7]:443"
    assert (asked[1][1].address, asked[1][2].certificate_path, asked[1][2].renewal_timer) == ("[fd00::7]:443", None, None)


def test_of_a_database_elsewhere_neither_owner_nor_disk_is_asked(shop, asked):
    app, _world = shop(database={"external": True, "user": None}, database_address=None, redis={"external": True}, redis_url="redis://far.example.com/0")
    for part in parts_of_app(app):
        if part.kind in ("database", "redis"):
            part.ask(1)
    assert (asked[0][2].owner, asked[0][2].disk_path) == (None, None) and asked[1][2].wants_append_only is False


# ---- the journal


def test_a_release_that_lives_is_well(shop, monkeypatch):
    monkeypatch.setattr(engine, "running", lambda app: True)
    app, world = shop()
    world.files[app.layout.slot_flag] = ""
    found = app_health.judge_release(app)
    assert found.grade == OK and "release r1 is live in slot green" in found.summary and found.extra == {"release": "r1"}


def test_a_proxy_that_uses_the_other_slot_is_red(shop):
    app, _world = shop()
    found = app_health.judge_release(app)
    assert found.grade == FAIL and "the proxy uses slot blue, and the live release is in green" in found.message and "anchorage recover shop" in found.message
    elsewhere, _world = shop(proxy_address="10.0.0.7")
    assert app_health.judge_release(elsewhere).grade == OK


@pytest.mark.parametrize(
    ("state", "grade", "words"),
    [
        ({"live": None, "slot": None}, FAIL, "no release is live on this host"),
        ({"last_step": {"step": "stage", "release": "r2", "ok": False, "finished_at": 5}}, WARN, "the last step (stage of r2) failed"),
        ({"last_step": {"step": "stage", "release": "r2", "ok": None, "finished_at": None}}, OK, "stage of r2 runs"),
        (
            {"live": None, "slot": None, "last_step": {"step": "stage", "release": "r1", "ok": None, "finished_at": None}},
            WARN,
            "the first release is being made",
        ),
    ],
)
def test_what_the_journal_says_is_judged(shop, monkeypatch, state, grade, words):
    app, world = shop()
    world.files[app.layout.slot_flag] = ""
    known = engine.status(app)
    monkeypatch.setattr(engine, "status", lambda _app: {**known, **state})
    found = app_health.judge_release(app)
    assert found.grade == grade and words in found.message


def test_a_step_that_died_between_two_releases_is_red_unless_one_works_on_it(shop, monkeypatch):
    app, _world = shop()
    known = engine.status(app)
    monkeypatch.setattr(App, "unsettled", property(lambda _app: True))
    assert "anchorage recover shop" in app_health.judge_release(app).message
    monkeypatch.setattr(engine, "status", lambda _app: {**known, "last_step": {"step": "activate", "release": "r2", "finished_at": None}})
    assert app_health.judge_release(app).grade == OK


# ---- asking


def part(name, verdict=OK, *, kind="x", cause="it hurts", app=""):
    checks = (Check("c", verdict, {}, cause if verdict != OK else ""),)
    words = f"{name} is fine" if verdict == OK else f"{name}: {cause}"
    return Part(name, kind, lambda seconds: Verdict(verdict != FAIL, checks, words, f"{words}. Look next at: here.", {"extra": seconds}), app)


def test_all_are_asked_side_by_side():
    barrier = threading.Barrier(8)

    def ask(_seconds):
        barrier.wait(5)
        return Verdict(True, (), "fine", "fine")

    with within(4):
        found = examine([Part(str(index), "x", ask) for index in range(8)], deadline_seconds=5, world=World())
    assert [item["grade"] for item in found] == ["green"] * 8 and [item["name"] for item in found] == [str(index) for index in range(8)]


def test_one_that_breaks_is_red_and_takes_nobody_along():
    def advised(_seconds):
        raise AnchorageError("psql is missing.", next_step="Install it.")

    def broken(_seconds):
        raise KeyError("x")

    found = examine([part("a"), Part("b", "x", advised), Part("c", "x", broken)], deadline_seconds=1, world=World())
    assert [item["grade"] for item in found] == ["green", "red", "red"]
    assert found[1]["message"] == "psql is missing. Next: Install it." and "c could not be asked: KeyError" in found[2]["message"]
    assert found[0]["extra"] == 1 and "changed" not in found[0]


def test_one_that_hangs_costs_the_deadline_and_no_more(monkeypatch):
    monkeypatch.setattr(app_health, "GRACE", 0.2)
    hang = Part("hangs", "x", lambda _seconds: time.sleep(20))
    with within(3):
        found = examine([part("a"), hang], deadline_seconds=0.5, world=World())
    assert [item["grade"] for item in found] == ["green", "red"] and "gave no answer within 0.5 s" in found[1]["message"]


@pytest.mark.parametrize(
    ("verdicts", "grade", "healthy", "words"),
    [
        ([OK, OK], "green", True, "All 2 are well."),
        ([OK, WARN], "amber", True, "1: it hurts"),
        ([WARN, FAIL], "red", False, "1: it hurts 0: it hurts"),
        ([], "green", True, "nothing to ask"),
    ],
)
def test_the_whole_is_as_bad_as_its_worst_part(verdicts, grade, healthy, words):
    found = summarise(examine([part(str(index), verdict) for index, verdict in enumerate(verdicts)], deadline_seconds=1, world=World()))
    assert (found["grade"], found["healthy"]) == (grade, healthy) and words in found["summary"]


# ---- the host


def test_an_app_that_was_never_deployed_here_is_red(shop, monkeypatch):
    _app, world = shop()
    monkeypatch.setattr(app_health, "App", App)
    (found,) = examine(parts(["blog"], world, host=False), deadline_seconds=1, world=World())
    assert found["grade"] == "red" and "There is no app 'blog' on this host" in found["message"]


def test_what_provisioning_left_is_asked_of_the_host(shop, monkeypatch, asked):
    _app, world = shop()
    seen = []
    monkeypatch.setattr(host_probe, "check", lambda wanted, **more: seen.append(wanted) or Verdict(True, (), "fine", "fine"))
    backup = {"name": "database", "path": "/b.json"}
    site = {"name": "blog", "domains": ["blog.test"], "tls_mode": "acme", "health_path": "/"}
    world.files[app_health.SETTINGS] = json.dumps({"host": {"allowed_ports": [22], "backups": [backup]}, "sites": [site]})
    found = parts([], world, controller_time=5.0)
    assert names(found) == [("blog (public)", "site"), ("blog certificate", "tls"), ("host", "host")]
    found[-1].ask(60)
    assert seen[0].allowed_ports == [22] and seen[0].controller_time == 5.0 and seen[0].backups[0].name == "database"
    assert names(parts([], world, sites=[], host=False)) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [("{", "is no JSON"), ('{"host": {"disk": 1}}', "unexpected keyword argument 'disk'"), ('{"host": {"allowed_ports": ["ssh"]}}', "invalid literal")],
)
def test_settings_that_cannot_be_read_are_a_red_line_and_the_rest_is_asked(shop, monkeypatch, settings, words):
    app, world = shop()
    monkeypatch.setattr(app_health, "App", lambda name, world: app)
    world.files[app_health.SETTINGS] = settings
    asked_for = parts(["shop"], world)
    assert "shop database" in [item.name for item in asked_for]
    found = examine([item for item in asked_for if item.kind == "host"], deadline_seconds=2, world=World())
    assert any(item["grade"] == "red" and words in item["message"] for item in found)


def test_a_damaged_document_is_a_red_line_and_the_other_apps_are_asked(shop, monkeypatch):
    app, world = shop()

    def load(name, world):
        if name == "blog":
            raise ValueError("Expecting value")
        return app

    monkeypatch.setattr(app_health, "App", load)
    found = parts(["blog", "shop"], world, host=False)
    assert names(found)[:2] == [("blog", "release"), ("shop", "release")]
    assert "blog could not be asked: ValueError" in examine(found[:1], deadline_seconds=1, world=World())[0]["message"]
    assert set(app_health._state(["blog", "shop"], world)) == {"shop"}


def test_figures_that_came_as_text_are_figures(monkeypatch):
    seen = []
    monkeypatch.setattr(host_probe, "check", lambda wanted, **more: seen.append(wanted) or Verdict(True, (), "fine", "fine"))
    app_health.host_part({"allowed_ports": ["22"], "backups": [{"name": "b", "path": "/b", "max_age_hours": "30"}]}).ask(5)
    assert seen[0].allowed_ports == [22] and seen[0].backups[0].max_age_hours == 30.0 and seen[0].failed_units == "warn"


# ---- the command


@pytest.fixture
def told(monkeypatch):
    """Let the command find verdicts that a test has made."""
    answers = []
    monkeypatch.setattr(app_health, "parts", lambda names, world, **more: answers)
    return answers


def test_the_command_tells_what_is_well_in_short_and_what_is_not_with_advice(told, capsys):
    told += [part("shop"), part("shop database", FAIL)]
    assert command.main(["health"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "green  shop           shop is fine"
    assert out[1] == "red    shop database  shop database: it hurts. Look next at: here." and out[2].startswith("red: 2 questions in ")


def test_the_command_speaks_json_and_amber_is_no_failure(told, capsys):
    told += [part("shop", WARN)]
    assert command.main(["health", "shop", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["grade"] == "amber" and found["parts"][0]["checks"][0]["verdict"] == "warn"


def test_the_command_looks_again_until_it_is_interrupted(told, capsys, monkeypatch):
    told += [part("shop")]
    naps = []
    monkeypatch.setattr(engine, "apps", lambda world: [])

    def nap(_world, seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(World, "sleep", nap)
    assert command.main(["health", "--watch", "--interval", "7"]) == 130
    assert naps == [7.0] * 3 and capsys.readouterr().out.count("shop is fine") == 3


def test_a_look_that_a_switch_ran_through_is_repeated(told, monkeypatch):
    places = iter([Place("r1", "blue"), Place("r2", "green"), Place("r2", "green"), Place("r2", "green")])
    monkeypatch.setattr(app_health, "_state", lambda names, world: {"shop": next(places)})
    verdicts = iter([FAIL, OK])
    told += [Part("shop processes", "processes", lambda seconds: part("shop processes", next(verdicts)).ask(seconds))]
    assert look(["shop"], World(), deadline_seconds=9)["grade"] == "green"


def test_a_look_ends_although_releases_follow_each_other(told, monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr(app_health, "_state", lambda names, world: {"shop": Place(f"r{next(numbers)}", "blue")})
    told += [part("shop")]
    with within(6):
        look(["shop"], World(), deadline_seconds=1.5)


@pytest.mark.parametrize(
    ("name", "kind", "running", "grade"),
    [
        ("shop processes", "processes", "activate of r2", "amber"),
        ("shop-worker-green", "worker", "activate of r2", "amber"),
        ("shop-worker-green", "worker", None, "red"),
        ("shop-server-green", "answer", "activate of r2", "red"),
        ("shop (public)", "site", "activate of r2", "red"),
        ("shop-admin processes", "processes", "activate of r2", "red"),
    ],
)
def test_a_worker_between_its_two_releases_is_no_alarm_and_a_dead_site_is(told, monkeypatch, name, kind, running, grade):
    monkeypatch.setattr(app_health, "_state", lambda names, world: {"shop": Place("r1", "blue", running)})
    told += [part(name, FAIL, kind=kind, app="shop-admin" if "admin" in name else "shop")]
    found = look(["shop"], World(), deadline_seconds=1)
    assert found["grade"] == grade and found["healthy"] == (grade == "amber")
    assert found["parts"][0]["summary"].startswith("While activate of r2 runs: ") == (grade == "amber")


@pytest.mark.parametrize(
    ("before", "after", "kind", "grade"),
    [
        (Place("r1", "blue", "activate of r2"), Place("r1", "blue"), "worker", "amber"),
        (Place("r1", "blue"), Place("r1", "blue", "activate of r2"), "worker", "amber"),
        (Place("r1", "blue", "activate of r2", held=True), Place("r1", "blue", "activate of r2"), "site", "amber"),
        (Place("r1", "blue", "activate of r2"), Place("r1", "blue", "activate of r2", held=True), "site", "amber"),
        (Place("r1", "blue", "activate of r2", held=True), Place("r1", "blue"), "site", "amber"),
        (Place("r1", "blue", held=True), Place("r1", "blue", held=True), "site", "red"),
    ],
    ids=["it ended meanwhile", "it began meanwhile", "held at first", "held at last", "both ended", "held and nobody works"],
)
def test_a_step_counts_that_ran_at_either_end_of_the_look(told, monkeypatch, before, after, kind, grade):
    places = iter([before, after])
    monkeypatch.setattr(app_health, "_state", lambda names, world: {"shop": next(places)})
    told += [part("shop x", FAIL, kind=kind, app="shop")]
    assert look(["shop"], World(), deadline_seconds=9)["grade"] == grade


def test_the_state_that_a_look_takes_for_granted(shop, monkeypatch):
    app, world = shop()
    monkeypatch.setattr(app_health, "App", lambda name, world: app)
    assert app_health._state(["shop"], world) == {"shop": Place("r1", "green")}
    monkeypatch.setattr(engine, "read_step", lambda _app: {"step": "stage", "release": "r2", "finished_at": None})
    assert app_health._state(["shop"], world) == {"shop": Place("r1", "green")}, "it died: nobody runs it any more"
    monkeypatch.setattr(engine, "unit_active", lambda _app: True)
    assert app_health._state(["shop"], world) == {"shop": Place("r1", "green", "stage of r2")}


def test_a_look_tells_when_and_how_long(told):
    told += [part("shop")]
    found = look(None, World(), deadline_seconds=1)
    assert found["at"] == pytest.approx(time.time(), abs=5) and found["seconds"] < 1 and len(lines(found)) == 2


# ---- components ------------------------------------------------------------------------------------------------------

KEYCLOAK = {
    "name": "keycloak", "project": "shop-keycloak", "services": {"keycloak": True, "keycloak-db": True}, "severity": "warn",
    "domain": "auth.shop.test", "tls_mode": "acme", "health_path": "/realms/shop/.well-known/openid-configuration",
}  # fmt: skip
POOL = {**KEYCLOAK, "name": "pgbouncer", "project": "shop-pgbouncer", "services": {"pgbouncer": False}, "severity": "fail", "domain": None, "health_path": None}


def test_components_are_asked_by_their_projects_and_their_sites(shop, asked):
    app, _world = shop(components=[KEYCLOAK, POOL])
    assert [name for name in names(parts_of_app(app)) if name[0].startswith(("shop keycloak", "shop-keycloak", "shop pgbouncer", "shop-pgbouncer"))] == [
        ("shop keycloak", "processes"),
        ("shop-keycloak (public)", "site"),
        ("shop-keycloak certificate", "tls"),
        ("shop pgbouncer", "processes"),
    ]
    (site,) = [part for part in parts_of_app(app) if part.name == "shop-keycloak (public)"]
    site.ask(1.0)
    assert asked[-1][1].url == "https://auth.shop.test/realms/shop/.well-known/openid-configuration"


def test_they_are_those_that_provisioning_was_told_last(shop):
    app, _world = shop(live=False, components=[KEYCLOAK])
    assert ("shop keycloak", "processes") in names(parts_of_app(app)), "also before the first release"
    old, _world = shop()
    assert not [name for name, _kind in names(parts_of_app(old)) if "keycloak" in name], "a document of before has none"


@pytest.mark.parametrize(("component", "grade"), [(KEYCLOAK, "amber"), (POOL, "red")])
def test_a_component_that_is_down_is_amber_unless_the_way_to_the_data_leads_through_it(shop, monkeypatch, component, grade):
    seen = []

    def down(project, wanted, **_more):
        seen.append((project, [(item.name, item.require_health) for item in wanted.services], wanted.published))
        return Verdict(False, (Check("engine", OK), Check("service:x", FAIL, cause="ended with code 1", advice="docker logs x")), "down", "x ended with code 1")

    monkeypatch.setattr(compose_probe, "check", down)
    app, world = shop(components=[component])
    (part,) = [part for part in parts_of_app(app) if part.name == f"shop {component['name']}"]
    (told,) = examine([part], deadline_seconds=1.0, world=world)
    assert (told["grade"], told["healthy"], told["message"]) == (grade, grade == "amber", "x ended with code 1")
    assert seen == [(component["project"], list(component["services"].items()), [])]


def test_a_host_out_of_the_balance_and_processes_of_yesterday_are_warnings(shop, monkeypatch):
    app, world = shop()
    monkeypatch.setattr(engine, "status", lambda _app: {"live": "r1", "slot": "green", "since": 1, "unconfirmed": None, "last_step": None})
    world.files[app.layout.slot_flag] = ""
    assert app_health.judge_release(app).grade == OK
    world.files[host_drain.RECORD] = json.dumps({"shop": {"since": world.now() - 90, "port": 9019, "new": False}})
    found = app_health.judge_release(app)
    assert found.grade == WARN and "out of the balance of its proxies for 90 s" in found.message
    assert "anchorage undrain shop" in [check.advice for check in found.checks]
    del world.files[host_drain.RECORD]
    monkeypatch.setattr(restart, "outdated", lambda _app: ["PM2 7.0.4 runs, and 7.1.0 is installed"])
    found = app_health.judge_release(app)
    assert found.grade == WARN and "PM2 7.0.4 runs" in found.message
