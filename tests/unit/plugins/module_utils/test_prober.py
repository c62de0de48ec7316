# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import threading
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import prober as module
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import Target, fetch
from ansible_collections.anchorage.vps.plugins.module_utils.prober import Prober, target


@pytest.fixture
def site():
    """A server that answers with what a test puts into its list, and with 200 after that."""
    answers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield answers, f"http://127.0.0.1:{server.server_port}/health"
    server.shutdown()
    server.server_close()


def shop(**changes):
    process = {"name": "server", "public": True, "health": {"path": "/health"}}
    return {"url": "https://shop.example.com", "proxy_address": "127.0.0.1", "processes": [process], **changes}


def test_the_site_is_asked_at_its_own_address_by_the_proxy():
    asked = target(shop())
    assert (asked.url, asked.connect_to, asked.validate_certs) == ("https://shop.example.com/health", "127.0.0.1:443", False)
    assert target(shop(url="http://shop.example.com:8080", proxy_address="2001:db8::1")).connect_to == "[2001:db8::1]:80"


def test_a_visitor_who_is_made_to_wait_is_no_failure():
    assert target(shop()).timeout_seconds == module.PATIENCE
    assert target(shop(strategy="hold", hold_seconds=40)).timeout_seconds == module.PATIENCE + 40


@pytest.mark.parametrize("changes", [{"url": None}, {"proxy_address": None}, {"processes": [{"name": "bot", "public": False}]}])
def test_an_app_without_a_site_is_not_asked(changes):
    with Prober(target(shop(**changes))) as prober:
        pass
    assert prober.figures() == {"requests": 0, "failed": 0, "longest_seconds": 0.0, "first_failure": None}


def test_every_answer_counts_and_the_first_failure_is_kept(site):
    answers, url = site
    answers += [200, 404, 503, 500]
    prober = Prober(Target(url))
    for _number in range(5):
        prober.ask()
    assert (prober.requests, prober.failed, prober.first_failure) == (5, 2, "status 503")
    assert "asked 5 times meanwhile: 2 failed" in prober.summary() and prober.summary().endswith("first: status 503")


def test_the_answer_that_is_waited_for_at_the_end_counts(site, monkeypatch):
    answers, url = site
    monkeypatch.setattr(module, "LAST_ANSWER", 0)
    monkeypatch.setattr(module, "fetch", lambda asked: (time.sleep(0.3), fetch(asked))[1])
    with Prober(Target(url, timeout_seconds=5)) as prober:
        pass
    assert prober.requests == 1


def test_a_site_that_does_not_answer_has_failed():
    prober = Prober(Target("http://127.0.0.1:9/health", timeout_seconds=2))
    prober.ask()
    assert prober.failed == 1 and prober.first_failure


def test_it_asks_until_the_step_ends_and_no_longer(site, monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    with Prober(Target(site[1])) as prober:
        end = time.monotonic() + 10
        while prober.requests < 3 and time.monotonic() < end:
            time.sleep(0.01)
    seen = prober.requests
    time.sleep(0.1)
    assert seen >= 3 and prober.requests == seen and prober.failed == 0
