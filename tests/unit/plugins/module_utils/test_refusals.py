# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be refused, asked of a site that is a function; Nginx and the app are real in tests/integration/release/test_6_health.py."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import refusals
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import Answer, ProbeError
from ansible_collections.anchorage.vps.plugins.module_utils.refusals import FOREIGN, Asker, ask, configuration, judge_worker_route, origins_of, site_of

from .engine_fakes import HostWorld, make, place

OWN = "https://shop.test"
PROCESSES = [
    {"name": "server", "public": True, "instances": 1, "slots": {"blue": [9000], "green": [9002]}, "health": {"path": "/health"}},
    {"name": "worker", "public": False, "instances": 1, "slots": {"blue": [9001], "green": [9003]}, "health": {"path": "/health"}},
    {"name": "bot", "public": False, "instances": 1, "slots": None, "health": None},
]
DOCUMENT = {
    "name": "shop",
    "domains": ["*.shop.test", "shop.test"],
    "proxy_address": "127.0.0.1",
    "tls": {"mode": "acme"},
    "env": {"STORE_CORS": f"{OWN},/shop/", "AUTH_CORS": OWN},
    "webhooks": ["/hooks/pay"],
    "processes": PROCESSES,
}


def strict(method, url, headers):
    """A site that refuses what it must: status, headers, body."""
    if url.startswith("http://shop.test"):
        return 308, [("Location", "https://shop.test/")], ""
    if method == "POST":
        return 401, [], "no signature"
    allowed = [("Access-Control-Allow-Origin", OWN)] if headers.get("Origin") == OWN else []
    return 204 if method == "OPTIONS" else 400, [("Vary", "Origin"), *allowed], ""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Ask everything of a site that answers as a test wants it where it is not strict."""
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path, processes=PROCESSES)
    asked = []

    def build(lax=None, **document):
        def fetch(target, *, seconds):
            assert 0 < seconds <= 5
            asked.append((target.method, target.url, dict(target.headers), target.connect_to))
            given = lax(target.method, target.url, target.headers) if lax else None
            status, headers, body = given or strict(target.method, target.url, target.headers)
            return Answer(status, "", tuple(headers), body.encode(), False, 0.01, target.url, "there")

        monkeypatch.setattr(refusals, "fetch", fetch)
        found = ask(app, {**copy.deepcopy(DOCUMENT), **document}, seconds=5)
        return {check.name: check for check in found}, asked

    build.world = world
    return build


def wrong(found):
    return {name: check.cause for name, check in found.items() if check.verdict != "ok"}


def test_a_site_that_refuses_what_it_must(site):
    found, asked = site()
    assert wrong(found) == {}
    assert [*found] == ["origins:/store/products", "origins:/auth/session", "plain_http", "webhook:/hooks/pay", "worker_route"]
    assert ("OPTIONS", f"{OWN}/auth/session", {"Origin": FOREIGN, "Access-Control-Request-Method": "POST"}, "127.0.0.1:443") in asked
    assert ("GET", "http://shop.test/", {}, "127.0.0.1:80") in asked
    methods = {(url, headers["Access-Control-Request-Method"]) for method, url, headers, _to in asked if method == "OPTIONS"}
    assert methods == {(f"{OWN}/store/products", "GET"), (f"{OWN}/auth/session", "POST")}, "Medusa answers no preflight for a method that a path has not"
    direct = next(call for call in asked if call[1] == "http://127.0.0.1:9000/hooks/pay")
    assert direct[2] == {"Host": "shop.test", "X-Forwarded-Proto": "https", "Content-Type": "application/json"}
    assert not any({"Cookie", "Authorization"} & set(call[2]) for call in asked)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize("given", ["*", FOREIGN])
def test_an_origin_that_is_let_in(site, method, given):
    def lax(asked_method, _url, headers):
        return (200, [("access-control-allow-origin", given)], "") if asked_method == method and headers.get("Origin") == FOREIGN else None

    found, _asked = site(lax)
    assert wrong(found)["origins:/store/products"] == f"{method} /store/products lets any origin in (Access-Control-Allow-Origin: {given})"
    assert found["origins:/store/products"].advice == "STORE_CORS of the app"


def test_the_own_origin_that_is_not_let_in(site):
    found, _asked = site(lambda method, url, headers: (204, [], "") if headers.get("Origin") == OWN else None)
    assert wrong(found)["origins:/auth/session"] == "/auth/session does not let https://shop.test in, which AUTH_CORS names"


def test_an_app_that_is_broken_proves_nothing(site):
    found, _asked = site(lambda method, url, headers: (502, [], "") if method == "GET" and "store" in url else None)
    assert wrong(found) == {"origins:/store/products": "GET /store/products answered 502, so nothing is known"}


def test_an_app_without_settings_is_asked_for_its_first_page(site):
    found, asked = site(env={})
    assert "origins:/" in found and {url for method, url, _headers, _to in asked if method == "OPTIONS"} == {f"{OWN}/"}


def test_a_setting_of_the_public_process_counts(site):
    processes = [{**PROCESSES[0], "env": {"ADMIN_CORS": OWN}}]
    found, _asked = site(env={}, processes=processes)
    assert "origins:/admin/products" in found


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, [], "http://shop.test/ answers 200 instead of leading to https"),
        (302, [("Location", "http://other.test/")], "http://shop.test/ answers 302 instead of leading to https"),
        (308, [("Location", "https://shop.test/"), ("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", "a=b")], "http://shop.test/ sets the cookie a, sid"),
    ],
)
def test_plain_http(site, status, headers, words):
    found, _asked = site(lambda method, url, _headers: (status, headers, "") if url == "http://shop.test/" else None)
    assert wrong(found) == {"plain_http": words}


def test_a_site_without_tls_is_not_asked_for_it(site):
    def lax(method, url, headers):
        return strict(method, "https://", headers)

    found, asked = site(lax, tls={"mode": "off"})
    assert wrong(found) == {} and "plain_http" not in found
    assert {to for _method, _url, _headers, to in asked if to} == {"127.0.0.1:80"}
    assert next(call for call in asked if ":9000" in call[1])[2]["X-Forwarded-Proto"] == "http"


@pytest.mark.parametrize(
    ("outside", "inside", "verdict", "words"),
    [
        ((405, "<center>nginx/1.26</center>"), 401, "fail", "the proxy itself answers an unsigned POST to /hooks/pay with 405"),
        ((403, "no"), 401, "fail", "answers 403 to an unsigned POST and the app itself 401, so the proxy refuses it first"),
        ((200, "ok"), 200, "warn", "takes an unsigned POST (200)"),
        ((500, "oops"), 500, "fail", "with 500 instead of refusing it"),
        ((302, ""), 302, "fail", "with 302 instead of refusing it"),
        ((400, "no"), 400, "ok", ""),
    ],
)
def test_a_webhook(site, outside, inside, verdict, words):
    def lax(method, url, _headers):
        if method != "POST":
            return None
        return (inside, [], "") if ":9000" in url else (outside[0], [], outside[1])

    check = site(lax)[0]["webhook:/hooks/pay"]
    assert check.verdict == verdict and words in check.cause


def test_what_could_not_be_asked_does_not_hold(site):
    def lax(_method, url, _headers):
        if url.startswith("https://"):
            raise ProbeError("refused", "127.0.0.1:443 refused the connection", "nginx")
        return

    found, _asked = site(lax)
    assert wrong(found)["webhook:/hooks/pay"] == "it could not be asked: 127.0.0.1:443 refused the connection"
    assert found["plain_http"].verdict == "ok"


def test_no_question_is_begun_without_time(site):
    with pytest.raises(ProbeError, match="no time left"):
        Asker(site.world, 0).fetch(site_of(DOCUMENT).target("/"))


@pytest.mark.parametrize("changes", [{"domains": ["*.shop.test"]}, {"domains": []}, {"proxy_address": None}])
def test_an_app_without_a_site_that_can_be_asked(site, changes):
    assert [*site(**changes)[0]] == ["worker_route"]


def test_a_proxy_elsewhere_is_asked_where_it_is():
    assert site_of({**DOCUMENT, "proxy_address": "fd00::7"}).target("/x").connect_to == "[fd00::7]:443"


# ---- the way to a worker


@pytest.mark.parametrize("kind", ["refused", "unreachable", "timeout"])
def test_where_nobody_listens_for_plain_http_nothing_is_told(site, kind):
    def lax(_method, url, _headers):
        if url.startswith("http://shop.test"):
            raise ProbeError(kind, "127.0.0.1:80 refused the connection", "nginx")

    assert wrong(site(lax)[0]) == {}


@pytest.mark.parametrize(("credentials", "verdict"), [(None, "warn"), ("false", "warn"), ("true", "fail")])
def test_what_any_site_may_read_without_a_session_is_a_warning(site, credentials, verdict):
    more = [("Access-Control-Allow-Credentials", credentials)] if credentials else []
    found, _asked = site(lambda method, url, headers: (200, [("Access-Control-Allow-Origin", "*"), *more], "") if headers.get("Origin") else None, env={})
    assert found["origins:/"].verdict == verdict


def test_an_origin_is_asked_for_as_browsers_send_it(site):
    _found, asked = site(env={"STORE_CORS": f"{OWN}/shop/"})
    assert {headers["Origin"] for _method, _url, headers, _to in asked if "Origin" in headers} == {FOREIGN, OWN}


def test_one_question_that_breaks_takes_none_along(site):
    def lax(method, _url, _headers):
        if method == "POST":
            raise OSError("too many links")

    found, _asked = site(lax)
    assert wrong(found) == {"webhook:/hooks/pay": "it could not be asked: OSError: too many links"}


def test_an_app_behind_ipv6_is_asked_at_its_port(site):
    processes = [PROCESSES[0]]
    _found, asked = site(processes=processes, listen_address="2001:db8::1")
    assert "http://[2001:db8::1]:9000/hooks/pay" in {url for _method, url, _headers, _to in asked}


def test_a_worker_that_listens_beyond_loopback():
    world = HostWorld()
    world.listen(("0.0.0.0", 9001, 50), ("127.0.0.1", 9003, 51), ("0.0.0.0", 9000, 52))
    assert judge_worker_route(world, DOCUMENT).cause == "shop-worker-blue listens on 0.0.0.0:9001, beyond loopback"


@pytest.mark.parametrize(
    ("line", "leads"),
    [
        ("proxy_pass http://127.0.0.1:9003;", True),
        ("server localhost:9003 max_fails=1;", True),
        ("server [::1]:9003;", True),
        ("# proxy_pass http://127.0.0.1:9003;", False),
        ("proxy_pass http://127.0.0.1:9002; # not :9003", False),
        ("proxy_pass http://127.0.0.1:90031;", False),
        ("listen 9003;", False),
        ("proxy_pass http://10.9.9.9:9003;", False),
    ],
)
def test_a_site_that_leads_to_a_worker(line, leads):
    world = HostWorld()
    path = "/etc/nginx/anchorage/sites/other.conf"
    world.files[path] = f"server {{\n    {line}\n}}\n"
    world.files["/etc/nginx/nginx.conf"] = "http {}"
    check = judge_worker_route(world, DOCUMENT)
    assert check.cause == (f"{path} leads to port 9003 of shop-worker-green" if leads else "")
    assert judge_worker_route(world, {**DOCUMENT, "proxy_address": None}).cause == check.cause, "whoever the app's own proxy is"
    del world.files["/etc/nginx/nginx.conf"]
    assert judge_worker_route(world, DOCUMENT).evidence["configuration_read"] is False


def test_an_app_of_which_all_is_public_has_no_way_to_hide(site):
    assert "worker_route" not in site(processes=[PROCESSES[0], PROCESSES[2]])[0]


def test_the_configuration_is_read_to_a_depth():
    world = HostWorld()
    world.files.update({"/etc/nginx/a.conf": "a # b\n#c\nd#e;# f", "/etc/nginx/1/2/3/4/deep.conf": "x", "/etc/nginx/1/2/3/4/5/deeper.conf": "x"})
    world.files.update({"/etc/nginx/sites-enabled/shop": "y", "/etc/nginx/sites-available/old.conf": "z", "/etc/nginx/a.conf.bak": "z"})
    assert dict(configuration(world)) == {"/etc/nginx/a.conf": "a \n\nd#e;", "/etc/nginx/1/2/3/4/deep.conf": "x", "/etc/nginx/sites-enabled/shop": "y"}


def test_what_cannot_be_read_is_passed_over(monkeypatch):
    world = HostWorld()
    world.files.update({"/etc/nginx/a.conf": "a", "/etc/nginx/b.conf": "b"})
    plain = world.read_part

    def read_part(path, offset, limit):
        if path.endswith("a.conf"):
            raise IsADirectoryError(path)
        return plain(path, offset, limit)

    monkeypatch.setattr(world, "read_part", read_part)
    assert dict(configuration(world)) == {"/etc/nginx/b.conf": "b"}


def test_expressions_are_no_origins():
    assert origins_of("https://a.test, http://b.test,/c/,*,, d.test") == ["https://a.test", "http://b.test"]
