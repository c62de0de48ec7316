# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.modules import (
    app_health,
    compose_health,
    host_health,
    http_health,
    pm2_health,
    postgresql_health,
    redis_health,
    tls_health,
    worker_health,
)
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

MODULES = {
    "compose_health": compose_health,
    "host_health": host_health,
    "http_health": http_health,
    "pm2_health": pm2_health,
    "postgresql_health": postgresql_health,
    "redis_health": redis_health,
    "tls_health": tls_health,
    "worker_health": worker_health,
}
MINIMAL = {
    "compose_health": {"project": "shop", "executable": "false"},
    "host_health": {"paths": ["/no/such/place"]},
    "http_health": {"url": "http://127.0.0.1:1/"},
    "postgresql_health": {"login_host": "127.0.0.1", "psql": "false"},
    "redis_health": {"login_port": 1},
    "tls_health": {"names": ["shop.test"], "address": "127.0.0.1:1"},
    "worker_health": {"heartbeat": {"file": "/no/such/file"}},
}


@pytest.mark.parametrize("name", MODULES)
def test_the_documented_options_are_those_of_the_module(name):
    """The fragments are merged by hand, as ansible-doc does."""
    module = MODULES[name]
    options = dict(yaml.safe_load(module.DOCUMENTATION)["options"])
    fragment = (pathlib.Path(http_health.__file__).parents[1] / "doc_fragments/health.py").read_text(encoding="utf-8")
    shared = yaml.safe_load(fragment.split('r"""')[1].split('"""')[0])["options"]
    for key, value in shared.items():
        options[key] = {**value, **options.get(key, {})}
    assert set(options) == set(module.SPEC)
    for key, value in module.SPEC.items():
        assert options[key].get("default") == value.get("default"), key
        assert options[key]["type"] == value["type"], key


@pytest.mark.parametrize("name", MINIMAL)
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_dead_service_fails_the_task_and_changes_nothing(name, check_mode):
    code, result = run_module(MODULES[name], check_mode=check_mode, deadline_seconds=0.5, **MINIMAL[name])
    assert code == 1 and result["failed"] and result["changed"] is False and result["healthy"] is False
    assert "is not healthy" in result["msg"] and "Look next at" in result["msg"]


@pytest.mark.parametrize("name", MINIMAL)
def test_a_verdict_may_be_left_to_the_caller(name):
    code, result = run_module(MODULES[name], fail=False, deadline_seconds=0.5, **MINIMAL[name])
    assert code == 0 and result["healthy"] is False and result["changed"] is False and result["checks"]
    assert all(set(check) == {"name", "healthy", "verdict", "evidence", "cause", "attempts", "seconds"} for check in result["checks"])


def test_pm2_without_a_daemon(tmp_path):
    code, result = run_module(pm2_health, pm2_home=str(tmp_path), unit="", deadline_seconds=0.5)
    assert code == 1 and "no PM2 daemon" in result["msg"] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("http_health", {"url": "gopher://x"}, "must begin with"),
        ("http_health", {"url": "http://x", "successes": 99}, "do not fit"),
        ("http_health", {"url": "http://x", "deadline_seconds": -1}, "deadline_seconds must be more than 0"),
        ("http_health", {"url": "http://x", "unix_socket": "/a", "connect_to": "b"}, "mutually exclusive"),
        ("postgresql_health", {"url": "mysql://x"}, "postgresql://"),
        ("postgresql_health", {"url": "postgres://x", "login_db": "y"}, "mutually exclusive"),
        ("redis_health", {"url": "http://x"}, "redis://"),
        ("redis_health", {"url": "redis://x/main"}, "no number of a database"),
        ("pm2_health", {"user": "no-such-user"}, "no-such-user"),
        ("tls_health", {"names": []}, "at least one name"),
        ("host_health", {"disk_fail_percent": 10}, "disk_warn_percent"),
        ("worker_health", {}, "one of the following is required"),
        ("worker_health", {"heartbeat": {}}, "one of the following is required"),
        ("worker_health", {"heartbeat": {"file": "/a", "log": {"path": "/b", "pattern": "c"}}}, "mutually exclusive"),
    ],
)
def test_a_question_without_sense_fails_even_when_the_verdict_is_left_to_the_caller(name, params, words):
    code, result = run_module(MODULES[name], fail=False, **params)
    assert code == 1 and words in result["msg"]


@pytest.mark.parametrize(("name", "scheme"), [("postgresql_health", "postgres"), ("redis_health", "redis")])
def test_the_password_of_a_url_is_never_printed(name, scheme):
    _code, result = run_module(MODULES[name], url=f"{scheme}://shop:hunter2@127.0.0.1:1/0", deadline_seconds=0.5, fail=False)
    result.pop("invocation", None)
    assert "hunter2" not in repr(result)


def test_the_documented_options_of_app_health_are_those_of_the_module():
    options = yaml.safe_load(app_health.DOCUMENTATION)["options"]
    assert set(options) == set(app_health.SPEC)
    for key, value in app_health.SPEC.items():
        assert (options[key]["type"], options[key].get("default")) == (value["type"], value.get("default")), key


@pytest.mark.parametrize("check_mode", [False, True])
def test_app_health_fails_by_what_is_red_and_names_every_check_by_its_part(check_mode, monkeypatch):
    code, result = run_module(app_health, check_mode=check_mode, apps=["no-such-app"], host=False, deadline_seconds=1)
    assert code == 1 and result["changed"] is False and result["grade"] == "red" and "There is no app 'no-such-app' on this host" in result["msg"]
    code, result = run_module(
        app_health, apps=[], sites=[{"name": "x", "domains": ["x.test"], "tls_mode": "off", "health_path": "/"}], host=False, fail=False, deadline_seconds=1
    )
    assert code == 0 and result["healthy"] is False and result["checks"][0]["name"] == "x (public): answer"


def test_app_health_without_time():
    code, result = run_module(app_health, deadline_seconds=0, fail=False)
    assert code == 1 and "deadline_seconds must be more than 0" in result["msg"] and result["parts"] == []
