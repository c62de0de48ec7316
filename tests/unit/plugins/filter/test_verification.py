# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.filter.verification import all_verdicts, verdicts, verification_http, verification_pm2

HEALTH = {"path": "/health", "status": 200, "body": "OK"}
SERVER = {"name": "server", "public": True, "instances": 2, "slots": {"blue": [9000, 9001], "green": [9002, 9003]}, "health": HEALTH}
WORKER = {"name": "worker", "public": False, "instances": 1, "slots": {"blue": [9004], "green": [9005]}, "health": HEALTH}
BOT = {"name": "bot", "public": False, "instances": 1, "slots": None, "health": None}
SHOP = {"name": "shop", "user": "shop", "home": "/srv/shop", "listen_address": "127.0.0.1", "processes": [SERVER, WORKER, BOT]}
LIVE = [{"app": "shop", "live": "r7", "slot": "green"}]
SITE = {"name": "shop", "domains": ["shop.example.com"], "health_path": "/health", "tls": {"mode": "acme"}}


def test_every_listening_process_of_the_live_slot_is_asked_who_it_is():
    asked = verification_http([SHOP], LIVE, [])
    assert [entry["url"] for entry in asked] == [f"http://127.0.0.1:{port}/health" for port in (9002, 9003, 9005)]
    assert asked[0]["identity"] == {"environment": {"ANCHORAGE_RELEASE": "r7", "ANCHORAGE_PROCESS": "shop-server-1-green"}} and asked[0]["body"] == "OK"


def test_a_public_process_behind_another_hosts_proxy_is_asked_where_it_listens():
    asked = verification_http([{**SHOP, "listen_address": "10.0.0.5"}], LIVE, [])
    assert asked[0]["url"] == "http://10.0.0.5:9002/health" and asked[-1]["url"] == "http://127.0.0.1:9005/health"


@pytest.mark.parametrize(
    ("mode", "url", "to"), [("acme", "https://shop.example.com/health", "127.0.0.1:443"), ("off", "http://shop.example.com/health", "127.0.0.1:80")]
)
def test_the_site_is_asked_by_its_name_on_this_host(mode, url, to):
    (asked,) = verification_http([], [], [{**SITE, "tls": {"mode": mode}}], "/ca.pem")
    assert (asked["url"], asked["connect_to"], asked["ca_path"]) == (url, to, "/ca.pem")


@pytest.mark.parametrize("state", [[], [{"app": "shop", "live": None, "slot": None}]])
def test_an_app_without_live_release_runs_nothing(state):
    assert verification_http([SHOP], state, []) == []
    (asked,) = verification_pm2([SHOP], state)
    assert asked["processes"] == []


def test_pm2_must_run_the_live_slot_from_the_live_release():
    (asked,) = verification_pm2([SHOP], LIVE)
    assert (asked["user"], asked["pm2_home"]) == ("shop", "/var/lib/pm2/shop")
    assert [(process["name"], process["ports"]) for process in asked["processes"]] == [
        ("shop-server-1-green", [9002]),
        ("shop-server-2-green", [9003]),
        ("shop-worker-green", [9005]),
        ("shop-bot-green", []),
    ]
    assert {process["cwd"] for process in asked["processes"]} == {"/srv/shop/releases/r7/app"}
    assert all(process["loopback_only"] for process in asked["processes"])


@pytest.mark.parametrize(
    ("answer", "grade", "summary"),
    [
        ({"healthy": True, "summary": "fine", "checks": [{"verdict": "pass"}]}, "green", "fine"),
        ({"healthy": True, "summary": "soon", "checks": [{"verdict": "pass"}, {"verdict": "warn"}]}, "amber", "soon"),
        ({"healthy": False, "summary": "down", "checks": []}, "red", "down"),
        ({"failed": True, "msg": "psql is missing"}, "red", "psql is missing"),
        ({}, "red", "no answer"),
    ],
    ids=["good", "warning", "bad", "broken", "silent"],
)
def test_an_answer_becomes_a_verdict_and_silence_is_red(answer, grade, summary):
    (found,) = verdicts({"results": [{"item": {"name": "shop"}, **answer}]})
    assert (found["name"], found["grade"], found["summary"]) == ("shop", grade, summary)


def test_what_was_skipped_is_no_verdict():
    assert verdicts({"results": [{"item": "x", "skipped": True}]}) == [] == verdicts(None)


def test_a_host_that_was_not_reached_is_red():
    (found,) = all_verdicts({"inventory_hostname": "web1"})
    assert found["grade"] == "red"


def test_a_hosts_verdicts_are_all_of_its_answers():
    answers = {"anchorage_redis": {"results": [{"item": "r", "healthy": True}]}, "anchorage_http": {"results": [{"item": "h", "healthy": False}]}}
    assert [(found["name"], found["grade"]) for found in all_verdicts(answers)] == [("r Redis", "green"), ("h", "red")]
