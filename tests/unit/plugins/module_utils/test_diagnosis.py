# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import app_health, command, diagnosis, engine
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.diagnosis import CAUSES, diagnose, findings, journal_of, lines, rank, remedy_of, tail
from ansible_collections.anchorage.vps.plugins.module_utils.layout import SECRETS
from ansible_collections.anchorage.vps.plugins.module_utils.masking import MASK
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import ME, PASSWORD, HostWorld, make, place

WORD = "canary-secret-of-the-vault"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app that serves, and its host."""
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path, redis_url="redis://shop:x@127.0.0.1:6379/0", database_address="127.0.0.1", redis={"external": False})
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    app.journal.go_live("r1", "blue", "t1")
    app.journal.settled()
    monkeypatch.setattr(diagnosis, "App", lambda name, world: app if name == "shop" else App(name, world))
    return app, world


def part(kind, name, *checks, grade="red"):
    """Return a part with failing checks: (name, cause) or (name, cause, verdict)."""
    told = [{"name": check[0], "cause": check[1], "verdict": check[2] if len(check) > 2 else "fail", "evidence": {}} for check in checks]
    return {
        "app": "" if kind == "host" else "shop",
        "name": name,
        "kind": kind,
        "grade": grade,
        "summary": f"{name} is {grade}",
        "message": f"{name} is {grade}",
        "checks": told,
    }


FULL = part("host", "host", ("disk:/", "the disk is full"), ("units", "postgresql@17-main.service failed"))
NO_DATABASE = part("database", "shop database", ("connect", "it cannot be asked: nothing listens there"))
NO_REDIS = part("redis", "shop Redis (jobs)", ("connect", "127.0.0.1:6379 refused the connection"))
NO_PM2 = part("processes", "shop processes", ("daemon", "no PM2 daemon runs"), ("process:shop-server-blue", "no process"))
NO_ANSWER = part("answer", "shop-server-blue", ("answer", "127.0.0.1:9000 refused the connection"))
NO_SITE = part("site", "shop (public)", ("status", "status 502 came"))
NO_NGINX = part("site", "shop (public)", ("answer", "127.0.0.1:443 refused the connection"))
EXPIRED = part("tls", "shop certificate", ("certificate:shop.test", "the certificate of shop.test expired 3 days ago"))
STALE = part("tls", "shop certificate", ("served", "another certificate is served"))


def first(*parts, apps=None):
    return findings(parts, remedy_of(apps or {}))[0]


def test_a_replication_is_mended_where_it_broke():
    away = part("database", "replication", ("streaming:db2", "db2 does not stream: it is not connected"))
    assert "provision.yml -e postgresql_rebuild_replica=db2" in first(away).command
    assert "promote.yml" in first(part("database", "replication", ("promotion", "a promotion was cut off"))).command


@pytest.mark.parametrize(
    ("check", "command"),
    [
        ("connect", "systemctl restart pgbouncer"),
        ("open:shop", "RESUME shop"),
        ("waiting:shop", "database.pool.size"),
        ("clients", "max_clients"),
        ("promotion", "promote.yml"),
    ],
)
def test_a_pool_is_mended_where_it_broke(check, command):
    found = part("database", "pool", (check, "x"))
    assert command in first({**found, "app": ""}).command


@pytest.mark.parametrize(
    ("parts", "check"),
    [
        ((NO_SITE, NO_ANSWER, NO_PM2, NO_DATABASE, FULL), "disk:/"),
        ((NO_SITE, NO_ANSWER, NO_DATABASE), "connect"),
        ((NO_SITE, NO_ANSWER, NO_PM2), "daemon"),
        ((NO_SITE, NO_ANSWER), "answer"),
        ((EXPIRED, NO_SITE), "status"),
        ((part("host", "host", ("units", "x.service failed")), NO_REDIS), "connect"),
        ((part("host", "host", ("reboot", "a kernel waits", "warn"), grade="amber"), EXPIRED), "certificate:shop.test"),
        ((part("host", "host", ("disk:/", "the disk fills", "warn"), grade="amber"), NO_SITE), "status"),
    ],
    ids=[
        "a full disk takes all along",
        "the database",
        "PM2",
        "the app",
        "the site",
        "a service before its unit",
        "a warning of the host",
        "a warning of a cause",
    ],
)
def test_the_likely_cause_stands_below_its_effects(parts, check):
    assert first(*parts).check == check


def test_everything_that_is_not_well_is_told_and_nothing_that_is():
    fine = part("redis", "shop Redis (jobs)", ("connect", "", "ok"), grade="green")
    found = findings([fine, NO_PM2, part("worker", "shop-worker-blue", grade="red")], remedy_of({}))
    assert [(item.name, item.check) for item in found] == [
        ("shop processes", "daemon"),
        ("shop processes", "process:shop-server-blue"),
        ("shop-worker-blue", "worker"),
    ]
    steady = part("answer", "shop-server-blue", ("steadiness", "only 1 of 3"), ("answer", "no"))
    assert [item.check for item in findings([steady], remedy_of({}))] == ["answer"]


def test_every_kind_of_question_has_its_place():
    kinds = {*app_health.KINDS, "drift"}
    assert {kind for kind, _begins in CAUSES} == kinds
    assert all(rank(kind, "anything") < len(CAUSES) for kind in kinds)


@pytest.mark.parametrize(
    ("broken", "command_line"),
    [
        (FULL, "du -xh"),
        (part("host", "host", ("inodes:/srv", "x")), "--inodes --max-depth=3 /srv"),
        (part("host", "host", ("clock_source", "x")), "timedatectl set-ntp true"),
        (NO_DATABASE, "systemctl restart 'postgresql@*'"),
        (part("database", "shop database", ("connect", "the password is refused")), "provision.yml"),
        (part("database", "shop database", ("connect", "all connections are taken")), "pg_terminate_backend"),
        (part("database", "shop database", ("write", "it cannot be written to: read-only transaction")), "RESET default_transaction_read_only"),
        (part("database", "shop database", ("locks", "the longest of 2 waits")), "pg_terminate_backend"),
        (part("database", "shop pool", ("connect", "nothing listens there")), "anchorage health on the hosts of the database"),
        (part("database", "shop database to read from", ("connect", "nothing listens there")), "out of group database"),
        (NO_REDIS, "systemctl restart redis-server@shop-jobs"),
        (part("redis", "shop Redis (cache)", ("connect", "refused the connection")), "redis-server@shop-cache"),
        (part("redis", "shop Redis (jobs)", ("policy", "allkeys-lru")), "provision.yml"),
        (part("release", "shop", ("settled", "x")), "anchorage recover shop"),
        (part("release", "shop", ("slot", "x")), "anchorage recover shop"),
        (part("release", "shop", ("last_step", "x")), "anchorage logs shop"),
        (part("release", "shop", ("live", "x")), "deploy.yml"),
        (NO_PM2, f"systemctl restart pm2-{ME.pw_name}"),
        (part("processes", "shop processes", ("boot_unit", "the unit is disabled")), f"systemctl enable --now pm2-{ME.pw_name}"),
        (part("processes", "shop processes", ("port:s", "port 9000 of s belongs to pid 17, which is another process")), "sport = :9000"),
        (part("processes", "shop processes", ("boot_unit", "the unit pm2-shop.service runs as root, not as shop")), f"systemctl cat pm2-{ME.pw_name}"),
        (part("processes", "shop processes", ("process:s", "shop-server-blue is errored after 16 restarts")), "/shop-server-blue.log says why"),
        (part("processes", "shop processes", ("port:s", "shop-server-blue does not listen on port 9000, nobody does")), "/shop-server-blue.log says why"),
        (part("processes", "shop processes", ("process:s", "shop-server-blue is stopped after 2 restarts")), f"systemctl restart pm2-{ME.pw_name}"),
        (part("drift", "host files", ("files", "changed since provisioning: /etc/x is gone", "warn"), grade="amber"), "provision.yml --check --diff"),
        (NO_ANSWER, f"tail -50 /var/log/pm2/{ME.pw_name}/shop-server-blue.log"),
        (NO_SITE, "nginx -t && systemctl reload nginx"),
        (NO_NGINX, "nginx -t && systemctl restart nginx"),
        (EXPIRED, "certbot renew --force-renewal --cert-name shop"),
        (STALE, "nginx -t && systemctl reload nginx"),
        (part("tls", "shop certificate", ("renewal", "certbot.timer is inactive")), "systemctl enable --now certbot.timer"),
    ],
)
def test_each_cause_has_the_command_that_mends_it(shop, broken, command_line):
    assert command_line in first(broken, apps={"shop": shop[0]}).command


def test_services_of_others_are_not_restarted_from_here(shop):
    app, _world = shop
    app.document.update(database_address=None, redis={"external": True})
    for broken in (NO_DATABASE, NO_REDIS):
        assert "whoever keeps" in first(broken, apps={"shop": app}).command


def test_of_apps_whose_names_begin_alike_the_right_one_is_meant(shop):
    app, _world = shop
    other = {**NO_REDIS, "app": "shop-eu", "name": "shop-eu Redis (jobs)"}
    assert first(NO_REDIS, apps={"shop": app}).command.startswith("systemctl restart redis-server@shop-jobs")
    assert first(other, apps={"shop": app}).command.startswith("whoever keeps"), "nothing is known of that app, so nothing is restarted"


# ---- what is gathered


def test_the_end_of_a_log_is_read():
    class Disk:
        def size(self, path):
            return 10**6

        def read_part(self, path, offset, limit):
            assert offset == 10**6 - limit
            return b"half a line\n\n" + b"\n".join(b"line %d" % number for number in range(99)) + b"\n" + b"x" * 900

    found = tail(Disk(), "/log")
    assert len(found) == diagnosis.LOG_LINES and found[-2] == "line 98" and found[-1] == "x" * 900


def test_a_line_of_which_only_the_end_was_read_is_left_out():
    world = HostWorld()
    world.files["/log"] = f"{'x' * diagnosis.LOG_BYTES}\nlast\n"
    assert tail(world, "/log") == ["last"]


def test_a_log_that_is_short_is_read_from_its_first_line():
    world = HostWorld()
    world.files["/log"] = "first\nlast\n"
    assert tail(world, "/log") == ["first", "last"]


def test_a_units_journal_is_read(shop):
    _app, world = shop
    world._journalctl = lambda argv, call: Completed(0, "one\n\ntwo\n", "")
    assert journal_of(world, "x.service") == ["one", "two"] and "--unit=x.service" in world.ran[-1]["argv"]


@pytest.fixture
def look(monkeypatch):
    """Let the host be as a test says."""

    def say(*parts):
        whole = {
            "grade": app_health.summarise(parts)["grade"],
            "summary": "All are well.",
            "parts": list(parts),
            "at": 5.0,
            "seconds": 0.1,
            "healthy": not parts,
        }
        monkeypatch.setattr(app_health, "look", lambda names, world, **more: whole)

    return say


def test_a_diagnosis_has_the_cause_its_remedy_and_the_logs_that_belong_to_it(shop, look):
    _app, world = shop
    world.files["/var/log/postgresql/postgresql-17-main.log"] = "FATAL: could not write\n"
    world.answers["pg_blocking_pids"] = json.dumps(
        [{"pid": 7, "state": "active", "waits": True, "blocked_by": [9], "transaction_seconds": 30, "statement": "ALTER TABLE x"}]
    )
    look(NO_SITE, NO_DATABASE)
    told = diagnose(["shop"], world)
    assert told["findings"][0]["name"] == "shop database" and told["findings"][0]["command"].startswith("systemctl restart")
    assert told["logs"] == {"/var/log/postgresql/postgresql-17-main.log": ["FATAL: could not write"]}
    assert told["apps"]["shop"]["live"] == "r1" and told["apps"]["shop"]["sessions"][0]["pid"] == 7
    text = "\n".join(lines(told))
    assert text.startswith("Likely cause: shop database: it cannot be asked: nothing listens there\nTo mend it:   systemctl restart")
    assert "FATAL: could not write" in text and "session 7 (active, 30 s, waits for [9]): ALTER TABLE x" in text


def test_a_release_that_waits_for_its_migration_is_named(shop, look):
    app, world = shop
    app.journal.mark("r2", "staged", tree="t2", source="s2")
    look(NO_SITE)
    told = diagnose(["shop"], world)
    assert told["apps"]["shop"]["not_migrated"] == ["r1", "r2"] or told["apps"]["shop"]["not_migrated"] == ["r2"]
    assert "not migrated yet: " in "\n".join(lines(told))


def test_no_secret_of_the_host_is_in_it(shop, look):
    app, world = shop
    world.files[f"{SECRETS}/shop.json"] = json.dumps({"admin_password": WORD})
    world.files[f"{SECRETS}/broken.json"] = "{"
    world.files[app_health.SETTINGS] = json.dumps({"notify": {"webhook_url": "https://chat.example.com/hook/t0ken"}})
    world.files["/var/log/nginx/error.log"] = f"{PASSWORD} {WORD} {'j' * 32} https://chat.example.com/hook/t0ken\n"
    look(part("site", "shop (public)", ("status", f"it says {PASSWORD}")))
    told = diagnose(["shop"], world)
    text = json.dumps(told) + "\n".join(lines(told))
    assert MASK in text and not [secret for secret in (PASSWORD, WORD, "j" * 32, "t0ken") if secret in text]
    assert app.document["database_url"] not in text


def test_what_a_rotation_keeps_is_hidden_and_its_own_words_are_not(shop, look):
    app, world = shop
    values = {when: {"login": turn, "values": {"database_password": f"{when}-password"}} for when, turn in (("before", "a"), ("after", "b"))}
    pending = {**values, "phase": "accept", "secrets": ["database"], "teach": {"KEYS": "key-number-2,key-number-1"}}
    world.files[f"{SECRETS}/shop.rotation.json"] = json.dumps({"login": "a", "pending": pending})
    text = diagnosis.masker(world, [app]).text("before-password after-password key-number-1 key-number-2 accept database")
    assert text == f"{MASK} {MASK} {MASK} {MASK} accept database"


def test_a_secret_that_a_line_is_cut_in_is_masked_first(shop, look):
    _app, world = shop
    world.files["/var/log/nginx/error.log"] = f"{'x' * (diagnosis.LINE - 5)}{PASSWORD}\n"
    look(NO_SITE)
    (line,) = diagnose(["shop"], world)["logs"]["/var/log/nginx/error.log"]
    assert line.startswith("x" * (diagnosis.LINE - 5)) and PASSWORD[:5] not in line and len(line) < diagnosis.LINE + 5


def test_a_damaged_document_and_damaged_settings_keep_nothing_back(shop, look, monkeypatch):
    app, world = shop

    def load(name, world):
        if name == "blog":
            raise ValueError("Expecting value")
        return app

    monkeypatch.setattr(diagnosis, "App", load)
    world.files[app_health.SETTINGS] = "{"
    look(NO_REDIS)
    told = diagnose(["blog", "shop"], world)
    assert told["findings"][0]["name"] == "shop Redis (jobs)" and set(told["apps"]) == {"shop"}


def test_a_host_that_is_well_has_nothing_to_mend(shop, look, capsys, monkeypatch):
    _app, world = shop
    look()
    told = diagnose(["shop"], world)
    assert told["findings"] == [] and told["logs"] == {} and lines(told) == ["green: All are well."]
    monkeypatch.setattr(command, "World", lambda: world)
    monkeypatch.setattr(engine, "apps", lambda world: ["shop"])
    assert command.main(["diagnose"]) == 0 and capsys.readouterr().out == "green: All are well.\n"


def test_the_command_ends_with_1_where_anything_is_red(shop, look, capsys, monkeypatch):
    _app, world = shop
    look(NO_REDIS)
    monkeypatch.setattr(command, "World", lambda: world)
    assert command.main(["diagnose", "shop", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["check"] == "connect"


def test_an_app_that_is_not_here_does_not_keep_the_others(shop, look):
    _app, world = shop
    look(part("release", "blog", grade="red"), NO_REDIS)
    assert [item["name"] for item in diagnose(["blog", "shop"], world)["findings"]] == ["shop Redis (jobs)", "blog"]
