# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts of http_health on a real nginx."""

from __future__ import annotations

import os
import pathlib
import tempfile

import pytest

from ansible_collections.anchorage.vps.plugins.modules import http_health
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Authority, within
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

from .conftest import Nginx, until


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")), "lab")


@pytest.fixture(scope="module")
def nginx(workshop, authority):
    directory = pathlib.Path(tempfile.mkdtemp(dir=workshop))
    directory.chmod(0o755)
    server = Nginx(directory / "n", authority.issue("shop.example.com"))
    until(lambda: ask(f"http://127.0.0.1:{server.http}/health")[0]["healthy"], "nginx")
    yield server
    server.stop()


def ask(url, **params):
    params = {"fail": False, "deadline_seconds": 8, "interval_seconds": 8, "timeout_seconds": 8, **params}
    with within(10):
        code, result = run_module(http_health, url=url, **params)
    assert code == 0 and result["changed"] is False, result
    return result, [item["name"] for item in result["checks"] if item["verdict"] == "fail"]


def test_healthy_and_fast(nginx):
    result, failed = ask(f"http://127.0.0.1:{nginx.http}/health", body="OK", successes=3, interval_seconds=0.1, p95_milliseconds=2000)
    assert failed == [] and result["status"] == 200


def test_the_default_site_is_not_the_application(nginx):
    result, failed = ask(f"http://127.0.0.1:{nginx.http}/", body="OK")
    assert failed == ["body"] and "Welcome to nginx!" in result["summary"]


def test_a_dead_application_behind_the_proxy(nginx):
    result, failed = ask(f"http://127.0.0.1:{nginx.http}/app")
    assert failed == ["status"] and "status 502 came" in result["summary"]


def test_the_rate_limit_answers_with_its_own_status(nginx):
    url = f"http://127.0.0.1:{nginx.http}/limited"
    result, failed = ask(url, successes=2, deadline_seconds=3, interval_seconds=0.2)
    assert failed == ["status", "steadiness"] and result["status"] == 429


def test_a_redirect_is_judged_and_not_followed(nginx):
    url = f"http://127.0.0.1:{nginx.http}/moved"
    assert ask(url, status=[301], headers={"Location": "https://shop\\.example\\.com/.*"})[1] == []
    result, failed = ask(url, follow_redirects="same_host")
    assert failed == ["answer"] and "off the host" in result["summary"]


def test_tls_by_its_own_name_before_dns(nginx, authority):
    wanted = {"connect_to": f"127.0.0.1:{nginx.https}", "headers": {"Strict-Transport-Security": "max-age=\\d{8}"}, "body": "OK"}
    assert ask("https://shop.example.com/health", ca_path=authority.certificate, **wanted)[1] == []
    result, failed = ask("https://other.example.com/health", ca_path=authority.certificate, **wanted)
    assert failed == ["answer"] and "other.example.com" in result["summary"]
    result, failed = ask("https://shop.example.com/health", **wanted)
    assert failed == ["answer"] and "certificate" in result["summary"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the sockets of other users")
def test_the_process_behind_the_port(nginx):
    url = f"http://127.0.0.1:{nginx.http}/health"
    assert ask(url, identity={"cwd": str(nginx.directory)})[1] == []
    result, failed = ask(url, identity={"cwd": "/", "environment": {"ANCHORAGE_RELEASE": "7"}})
    assert failed == ["identity"] and f"runs in {nginx.directory}, not in /" in result["summary"]
