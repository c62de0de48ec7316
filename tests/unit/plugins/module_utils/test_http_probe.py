# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import os
import socket
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import http_probe
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import Expectation, Expression, Identity, Target
from ansible_collections.anchorage.vps.plugins.module_utils.processes import environment
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils import health_fakes as stubs
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Authority, Stub, has_ipv6, within

OK_BODY = Expectation(body="OK")


@pytest.fixture
def serve():
    """Start stubs that end with the test."""
    started = []

    def start(behaviour, **options):
        started.append(Stub(behaviour, **options))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")), "good")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")), "stranger")


def ask(stub, wanted=OK_BODY, *, seconds=8.0, timeout=5.0, deadline=6.0, interval=6.0, successes=1, **target):
    """Ask a stub once (a second probe would not fit into the deadline); the whole must end in time whatever it does."""
    target = {"url": stub.url(), **target} if stub else target
    with within(seconds):
        return http_probe.check(
            Target(timeout_seconds=timeout, **target),
            wanted,
            world=World(),
            deadline_seconds=deadline,
            interval_seconds=interval,
            successes=successes,
        )


def failed(found):
    return [check.name for check in found.checks if not check.healthy]


HANGS = {"timeout": 0.4, "seconds": 2.5}
AGAIN = {"deadline": 0.8, "interval": 0.1, "seconds": 3.0}

# Each behaviour, what is asked of it, the check that must fail, and the words that must name the cause.
MISBEHAVIOURS = [
    ("flapping", OK_BODY, {**AGAIN, "successes": 3}, "steadiness", "in a row"),
    ("slow_headers", OK_BODY, HANGS, "answer", "did not begin within"),
    ("slow_body", OK_BODY, HANGS, "answer", "the body did not end within"),
    ("slow_chunks", OK_BODY, HANGS, "answer", "the body did not end within"),
    ("hang_after_headers", OK_BODY, HANGS, "answer", "the body did not end within"),
    ("hang_at_once", OK_BODY, HANGS, "answer", "did not begin within"),
    ("endless_body", OK_BODY, {}, "body", "only the first 65536 bytes"),
    ("huge_body", OK_BODY, {}, "body", "only the first 65536 bytes"),
    ("huge_body", Expectation(json=[Expression("status")]), {}, "json", "longer than 65536 bytes"),
    ("json_error", Expectation(json=[Expression("database", "connected")]), {}, "json", 'database is "error", wanted "connected"'),
    ("json_error", Expectation(json=[Expression("database == 'connected'")]), {}, "json", "is false, wanted true"),
    ("json_truncated", Expectation(json=[Expression("status")]), {}, "answer", "ended its answer too early"),
    ("default_site", Expectation(json=[Expression("status")]), {}, "json", "is not JSON"),
    ("default_site", OK_BODY, {}, "body", "default site"),
    ("redirect_loop", OK_BODY, {"follow_redirects": "same_host"}, "answer", "redirects in a circle"),
    ("redirect_to_itself", OK_BODY, {"follow_redirects": "same_host"}, "answer", "redirects in a circle"),
    ("redirect_away", OK_BODY, {"follow_redirects": "same_host"}, "answer", "off the host, to http://evil.example.net/health"),
    ("redirect_away", OK_BODY, {}, "status", "it points to http://evil.example.net/health"),
    ("unavailable", OK_BODY, {}, "status", "status 503 came, wanted 200 (it says 'down for repair')"),
    ("close_without_answer", OK_BODY, {}, "answer", "closed the connection without an answer"),
    ("reset", OK_BODY, {}, "answer", "reset the connection"),
    ("not_http", OK_BODY, {}, "answer", "does not answer in HTTP"),
    ("many_headers", OK_BODY, {}, "answer", "does not answer in HTTP"),
]


@pytest.mark.parametrize(("name", "wanted", "options", "check", "words"), MISBEHAVIOURS, ids=[f"{row[0]}-{row[3]}" for row in MISBEHAVIOURS])
def test_a_misbehaving_server_is_unhealthy_in_time_and_the_cause_is_named(serve, name, wanted, options, check, words):
    found = ask(serve(getattr(stubs, name)), wanted, **options)
    assert not found.healthy
    assert check in failed(found)
    assert words in found.message


def test_connection_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = ask(None, url=f"http://127.0.0.1:{port}/health")
    assert f"127.0.0.1:{port} refused the connection" in found.message and found.checks[0].evidence["error"] == "refused"


def test_a_firewall_that_drops_is_a_timeout():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        blockers = [socket.socket() for _index in range(4)]
        for blocker in blockers:
            blocker.setblocking(False)
            blocker.connect_ex(full.getsockname())
        found = ask(None, url=url, **HANGS)
        for blocker in blockers:
            blocker.close()
    assert found.checks[0].evidence["error"] == "timeout"


def test_an_unknown_name_is_a_dns_failure():
    found = ask(None, url="http://no-such-host.invalid/", seconds=20)
    assert found.checks[0].evidence["error"] == "dns"


def test_healthy(serve):
    found = ask(serve(stubs.fine), successes=3, interval=0.1)
    assert found.healthy and found.extra["status"] == 200 and [check.attempts for check in found.checks] == [3, 3, 3, 3]


@pytest.mark.parametrize("name", ["http_1_0", "keeps_alive"])
def test_old_and_lingering_servers_are_healthy(serve, name):
    assert ask(serve(getattr(stubs, name)), seconds=4).healthy


def test_a_large_body_is_no_fault_when_only_a_beginning_is_asked_for(serve):
    found = ask(serve(stubs.huge_body), Expectation(body_contains="zzz"))
    assert found.healthy and found.checks[0].evidence["truncated"] and found.checks[0].evidence["bytes"] == 65536


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6_only(serve):
    stub = serve(stubs.fine, family=socket.AF_INET6)
    assert ask(stub, url=f"http://[::1]:{stub.port}/health").healthy


def test_unix_socket(serve, tmp_path):
    path = str(tmp_path / "web.sock")
    stub = serve(stubs.fine, path=path)
    assert ask(stub, url="http://shop.example.com/health", unix_socket=path).healthy
    assert "Host: shop.example.com\r\n" in stub.calls[0]


def test_an_absent_unix_socket(tmp_path):
    found = ask(None, url="http://localhost/", unix_socket=str(tmp_path / "none.sock"))
    assert "does not exist" in found.message


def test_a_redirect_on_the_host_is_followed_when_asked_for(serve):
    found = ask(serve(stubs.redirect_home), follow_redirects="same_host")
    assert found.healthy and found.checks[0].evidence["redirects"] == ["301 /new"]


def test_no_proxy_of_the_environment_is_used(serve, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(serve(stubs.fine)).healthy


def test_method_headers_and_body_are_sent(serve):
    stub = serve(stubs.fine)
    ask(stub, method="POST", headers={"host": "other.example.com", "X-Probe": "ä"}, body="{}")
    assert stub.calls[0].startswith("POST /health HTTP/1.1\r\n") and stub.calls[0].endswith("\r\n\r\n{}")
    assert stub.calls[0].count("Host: ") == 1 and "Host: other.example.com\r\n" in stub.calls[0]
    assert "Content-Length: 2\r\n" in stub.calls[0]


def test_connect_to_keeps_the_name(serve, authority):
    stub = serve(stubs.fine, tls=authority.issue("shop.example.com"))
    found = ask(stub, url="https://shop.example.com/health", connect_to=f"127.0.0.1:{stub.port}", ca_path=authority.certificate)
    assert found.healthy and "Host: shop.example.com\r\n" in stub.calls[0]
    assert found.checks[0].evidence["tls"]["protocol"] == "TLSv1.3"


def test_a_further_authority_is_trusted_besides_the_hosts_own(serve, authority, stranger):
    stub = serve(stubs.fine, tls=authority.issue("localhost"))
    where = {"url": stub.url(host="localhost"), "connect_to": f"127.0.0.1:{stub.port}"}
    assert ask(stub, **where, further_ca_path=authority.certificate).healthy
    assert not ask(stub, **where, further_ca_path=stranger.certificate).healthy
    assert not ask(stub, **where, ca_path=stranger.certificate, further_ca_path=authority.certificate).healthy, "the one that is named is the only one"


TLS_FAULTS = [
    ("localhost", 2, "stranger", "unable to get local issuer certificate"),
    ("localhost", -1, "good", "certificate has expired"),
    ("other.example.com", 2, "good", "mismatch"),
]


@pytest.mark.parametrize(("name", "days", "trusted", "words"), TLS_FAULTS, ids=["wrong-ca", "expired", "wrong-name"])
def test_a_bad_certificate_is_refused_with_its_reason(serve, authority, stranger, name, days, trusted, words):
    stub = serve(stubs.fine, tls=authority.issue(name, days))
    ca_path = {"good": authority, "stranger": stranger}[trusted].certificate
    found = ask(stub, url=stub.url(host="localhost"), ca_path=ca_path, connect_to=f"127.0.0.1:{stub.port}")
    assert found.checks[0].evidence["error"] == "certificate" and words in found.message.lower()


def test_a_certificate_may_be_left_unjudged(serve, authority):
    stub = serve(stubs.fine, tls=authority.issue("other.example.com"))
    assert ask(stub, url=stub.url(host="127.0.0.1"), validate_certs=False).healthy


def test_https_asked_of_a_plain_server(serve):
    stub = serve(stubs.fine)
    found = ask(stub, url=f"https://127.0.0.1:{stub.port}/")
    assert found.checks[0].evidence["error"] == "tls"


def test_a_tls_handshake_that_never_ends():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        found = ask(None, url=f"https://127.0.0.1:{silent.getsockname()[1]}/", **HANGS)
    assert "did not finish the TLS handshake" in found.message


def test_wanted_and_forbidden_headers(serve):
    stub = serve(lambda call: call.answer("200 OK", "OK", "X-Release: 7", "Access-Control-Allow-Origin: *"))
    found = ask(stub, Expectation(headers={"X-Release": "8", "X-None": ".*"}, absent_headers=["access-control-allow-origin"]))
    assert "X-Release is '7' and does not match '8'" in found.message
    assert "X-None is missing" in found.message and "must not be" in found.message
    assert ask(stub, Expectation(headers={"x-release": r"\d"}, absent_headers=["X-None"])).healthy


@pytest.mark.parametrize(
    ("expression", "equals", "good"),
    [
        ("database", "error", True),
        ("database", "ok", False),
        ("workers[?busy].name | [0]", "b", True),
        ("length(workers)", 2, True),
        ("ready", True, True),
        ("ready", 1, False),
        ("count", 0, True),
        ("count", None, True),
        ("missing", None, False),
        ("empty", None, False),
        ("ready", None, True),
    ],
)
def test_json_expressions(serve, expression, equals, good):
    body = '{"database":"error","ready":true,"count":0,"empty":[],"workers":[{"name":"a","busy":false},{"name":"b","busy":true}]}'
    stub = serve(lambda call: call.answer(body=body))
    assert ask(stub, Expectation(json=[Expression(expression, equals)])).healthy is good


def test_the_answer_of_a_wrong_process_is_unhealthy(serve, tmp_path):
    (tmp_path / "old").mkdir()
    found = ask(serve(stubs.fine), Expectation(identity=Identity(cwd=str(tmp_path / "old"), environment={"HOME": os.environ["HOME"]})))
    assert failed(found) == ["identity"]
    assert f"pid {os.getpid()} runs in {os.getcwd()}, not in {tmp_path}/old" in found.message


def test_the_answer_of_a_wrong_release_is_unhealthy(serve):
    found = ask(serve(stubs.fine), Expectation(identity=Identity(environment={"ANCHORAGE_RELEASE": "new", "SHOP_SECRET": "x"})))
    assert "has ANCHORAGE_RELEASE = not set, wanted 'new'" in found.message
    assert "has SHOP_SECRET = not set, wanted (hidden)" in found.message


def test_the_answer_of_the_wanted_process_is_healthy(serve, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(os.getcwd())
    started_with = environment(World(), os.getpid())
    environ = {"PATH": started_with["PATH"]}
    assert ask(serve(stubs.fine), Expectation(identity=Identity(cwd=str(link), environment=environ))).healthy


def test_the_identity_of_another_port(serve):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = ask(serve(stubs.fine), Expectation(identity=Identity(port=free.getsockname()[1])))
    assert "no process of this host listens on port" in found.message


def test_the_percentile_is_judged(serve):
    def slow_sometimes(call):
        time.sleep(0.15 if call.number in (4, 8) else 0)
        call.answer()

    found = ask(serve(slow_sometimes), Expectation(p95_milliseconds=100, p95_probes=10))
    assert failed(found) == ["latency"] and "the 95th percentile of 10 probes is" in found.message
    assert ask(serve(stubs.fine), Expectation(p95_milliseconds=3000, p95_probes=10)).healthy


def test_the_percentile_ends_with_the_deadline(serve):
    def slow(call):
        time.sleep(0.2)
        call.answer()

    found = ask(serve(slow), Expectation(p95_milliseconds=900, p95_probes=100), deadline=1, seconds=3)
    assert failed(found) == ["latency"]


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (10, 10), (19, 19), (20, 19), (100, 95)])
def test_nearest_rank(count, wanted):
    assert http_probe.p95([float(value) for value in range(1, count + 1)]) == wanted


@pytest.mark.parametrize(
    ("target", "wanted", "words"),
    [
        ({"url": "ftp://example.com"}, {}, "must begin with"),
        ({"url": "http://"}, {}, "name a host"),
        ({"url": "http://user:secret@example.com/"}, {}, "must not carry a user"),
        ({"url": "http://example.com:99999/"}, {}, "not valid"),
        ({"url": "http://example.com", "connect_to": "here:there"}, {}, "connect_to"),
        ({"url": "http://example.com", "method": "GET / HTTP/1.1"}, {}, "method"),
        ({"url": "http://example.com", "headers": {"X": "a\r\nEvil: 1"}}, {}, "request header"),
        ({"url": "https://example.com", "ca_path": "/no/such/ca.pem"}, {}, "CA file"),
        ({"url": "http://example.com"}, {"body_regex": "("}, "regular expression"),
        ({"url": "http://example.com"}, {"json": [Expression("a..b")]}, "JMESPath expression"),
    ],
)
def test_a_question_without_sense_is_refused_before_anything_is_asked(target, wanted, words):
    with pytest.raises(AnchorageError, match=words) as error:
        http_probe.check(Target(**target), Expectation(**wanted), world=World(), deadline_seconds=1)
    assert "secret" not in str(error.value) + str(error.value.next_step).replace("secret_request_headers", "")


def test_a_missing_jmespath_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jmespath", None)
    with pytest.raises(AnchorageError) as error:
        http_probe.compiled([Expression("a")])
    assert "python3-jmespath" in error.value.next_step


def test_no_redirect_loses_tls():
    place = http_probe.parse_url("https://shop.example.com/")
    with pytest.raises(http_probe.ProbeError, match="off the host"):
        http_probe._redirected(place, "http://shop.example.com/")
    assert http_probe._redirected(http_probe.parse_url("http://shop.example.com/a"), "https://shop.example.com/a").port == 443


def test_a_probe_never_outlives_what_is_left_of_the_deadline(serve):
    found = ask(serve(stubs.hang_at_once), timeout=10, deadline=0.7, seconds=2.5)
    assert not found.healthy


def test_the_password_of_a_header_is_in_no_result(serve):
    found = ask(serve(stubs.unavailable), headers={"Authorization": "Bearer hunter2"})
    assert "hunter2" not in repr(dataclasses.asdict(found))
