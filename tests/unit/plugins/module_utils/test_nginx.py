# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites: what is filled in, and what is refused by which key."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.nginx import model

BLUE = [{"address": "127.0.0.1", "port": 9000}]
GREEN = [{"address": "127.0.0.1", "port": 9002}]


def site(**more: t.Any) -> dict[str, t.Any]:
    """Return a proxied site, changed as a test wants it."""
    return {"name": "shop", "domains": ["shop.test"], "upstreams": {"blue": BLUE}, **more}


def static(**more: t.Any) -> dict[str, t.Any]:
    """Return a static site, changed as a test wants it."""
    return {"name": "front", "domains": ["front.test"], "root": "/srv/front", **more}


def locations(**more: t.Any) -> dict[str, dict[str, t.Any]]:
    """Return the locations of one site by what they match."""
    return {location["match"]: location for location in model([site(**more)])["sites"][0]["locations"]}


def test_two_slots_make_two_upstreams_and_a_flag_file() -> None:
    resolved = model([site(upstreams={"blue": BLUE, "green": GREEN}, slot_directory="/var/lib/slots/shop")])
    assert [slot["upstream"] for slot in resolved["sites"][0]["slots"]] == ["shop_blue", "shop_green"]
    assert resolved["sites"][0]["tries"] == 3
    assert resolved["sites"][0]["flag_file"] == "/var/lib/slots/shop/green"
    assert resolved["sites"][0]["connect_seconds"] == 8
    assert (resolved["sites"][0]["hold_file"], resolved["sites"][0]["hold_socket"]) == ("/var/lib/slots/shop/hold", "/var/lib/slots/shop/hold.sock")
    assert {"path": "/var/lib/slots/shop"} in resolved["directories"]


def test_workers_can_reach_the_flag_file() -> None:
    resolved = model([site(upstreams={"blue": BLUE, "green": GREEN}, slot_directory="/var/lib/anchorage/slots/shop")])
    paths = [entry["path"] for entry in resolved["directories"]]
    assert [path for path in paths if path.startswith("/var/lib")] == ["/var/lib/anchorage", "/var/lib/anchorage/slots", "/var/lib/anchorage/slots/shop"]


def test_a_short_slot_directory_is_made_too() -> None:
    resolved = model([site(upstreams={"blue": BLUE, "green": GREEN}, slot_directory="/srv/slots"), static()])
    assert {"path": "/srv/slots"} in resolved["directories"]
    assert all(entry["path"].startswith("/") and entry["path"] not in ("/", "/srv") for entry in resolved["directories"])


def test_an_empty_green_slot_needs_no_flag() -> None:
    resolved = model([site(upstreams={"blue": BLUE, "green": []}, slot_directory="/var/lib/slots/shop")])
    assert resolved["sites"][0]["flag_file"] == "" and resolved["sites"][0]["hold_file"] == ""
    assert {"path": "/var/lib/slots/shop"} in resolved["directories"]


def test_a_local_server_is_never_put_aside_and_a_remote_one_is() -> None:
    servers = [{"address": "127.0.0.1", "port": 1}, {"address": "192.0.2.7", "port": 2}, {"address": "2001:db8::7", "port": 3}]
    assert model([site(upstreams={"blue": servers})])["sites"][0]["connect_seconds"] == 3
    resolved = model([site(upstreams={"blue": servers})])["sites"][0]["slots"][0]["servers"]
    assert [server["failures"] for server in resolved] == ["max_fails=0", "max_fails=1 fail_timeout=5s", "max_fails=1 fail_timeout=5s"]
    assert resolved[2]["address"] == "[2001:db8::7]"


def test_limits_hold_only_where_they_were_asked_for() -> None:
    found = locations(rate_limit={"requests_per_second": 5, "burst": 9, "paths": ["/store"]}, unlimited_paths=["/store/assets"], health_path="/health")
    assert {match: location["limited"] for match, location in found.items()} == {"/": False, "/store": True, "/store/assets": False, "= /health": False}
    assert found["= /health"]["log"] == "off"


def test_a_limit_without_paths_is_for_all_that_is_not_exempt() -> None:
    found = locations(rate_limit={"burst": 1}, webhook_paths=["/hooks"])
    assert found["/"]["limited"]
    assert not found["/hooks"]["limited"]


def test_webhooks_have_a_log_and_a_body_of_their_own() -> None:
    found = locations(webhook_paths=["/hooks"], webhook_max_body_mb=40)["/hooks"]
    assert (found["log"], found["body_mb"]) == ("/var/log/nginx/shop-webhooks.log", 40)


def test_a_certificates_key_never_reaches_the_sites_templates() -> None:
    resolved = model([site(tls={"mode": "files", "certificate": "a.pem", "key": "SECRET"})])
    assert resolved["certificates"][0]["key"] == "SECRET"
    assert "SECRET" not in str({**resolved, "certificates": None})


def test_a_site_without_tls_has_no_certificate() -> None:
    resolved = model([site(tls={"mode": "off"}), static()])
    assert [certificate["site"] for certificate in resolved["certificates"]] == ["front"]


def test_a_sites_header_replaces_the_common_one_and_an_empty_one_removes_it() -> None:
    common = {"X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
    resolved = model([site(headers={"x-frame-options": "DENY", "Referrer-Policy": ""})], security_headers=common)
    file = next(entry for entry in resolved["site_files"] if entry["template"] == "headers.conf.j2")
    assert file["path"] == "/etc/nginx/anchorage/headers/shop.conf"
    assert {header["name"]: header["value"] for header in file["vars"]["__nginx_headers"]} == {
        "X-Content-Type-Options": '"nosniff"',
        "x-frame-options": '"DENY"',
    }


def test_a_header_may_hold_quotes_and_backslashes() -> None:
    """Report-To is JSON. What stands in the configuration is the whole string, quotes and all."""
    resolved = model([], security_headers={"Report-To": '{"group":"csp\\x"}'}, hsts='max-age=1" always; #')
    assert resolved["headers"][0]["value"] == r'"{\"group\":\"csp\\x\"}"'
    assert resolved["hsts"] == r'"max-age=1\" always; #"'
    assert model([])["hsts"] == '""'


def test_values_of_none_mean_the_default() -> None:
    resolved = model([site(rate_limit=None, health_path=None, webhook_paths=None, headers=None, max_body_mb=None)])["sites"][0]
    assert resolved["max_body_mb"] == 10
    assert resolved["rate_limit"] == {}


REFUSED: list[tuple[list[dict[str, t.Any]], str]] = [
    ([site(name="Shop")], "nginx_sites[0].name"),
    ([site(name="../x")], "nginx_sites[0].name"),
    ([site(colour="red")], "nginx_sites[shop].colour is unknown"),
    ([site(domains=[])], "nginx_sites[shop].domains"),
    ([site(domains=["shop.test; return 200"])], "nginx_sites[shop].domains[0]"),
    ([site(domains=["shop.test\n"])], "nginx_sites[shop].domains[0]"),
    ([site(domains=["SHOP.test"])], "nginx_sites[shop].domains[0]"),
    ([site(domains=["a.*.test"])], "nginx_sites[shop].domains[0]"),
    ([site(domains=["localhost"])], "nginx_sites[shop].domains[0]"),
    ([site(), static(domains=["shop.test"])], "nginx_sites[front].domains"),
    ([site(name="a-b"), site(name="a_b", domains=["b.test"])], "nginx_sites[a_b].name"),
    ([site(upstreams={})], "needs either upstreams"),
    ([site(root="/srv")], "needs either upstreams"),
    ([site(upstreams={"red": BLUE})], "nginx_sites[shop].upstreams.red"),
    ([site(upstreams={"green": GREEN})], "nginx_sites[shop].upstreams.blue"),
    ([site(upstreams={"blue": BLUE, "green": GREEN})], "nginx_sites[shop].slot_directory is required"),
    ([site(slot_directory="slots")], "nginx_sites[shop].slot_directory"),
    ([site(slot_directory="/var/x; }")], "nginx_sites[shop].slot_directory"),
    ([site(upstreams={"blue": [{"address": "localhost", "port": 9000}]})], "must be an IP address such as 127.0.0.1"),
    ([site(upstreams={"blue": [{"address": "127.0.0.1;", "port": 9000}]})], "upstreams.blue[0].address"),
    ([site(upstreams={"blue": [{"address": "127.0.0.1", "port": 0}]})], "upstreams.blue[0].port"),
    ([site(upstreams={"blue": [{"address": "127.0.0.1", "port": "9000"}]})], "upstreams.blue[0].port"),
    ([site(health_path="health")], "nginx_sites[shop].health_path"),
    ([site(webhook_paths=["/a b"])], "nginx_sites[shop].webhook_paths[0]"),
    ([site(webhook_paths=["/a{"])], "nginx_sites[shop].webhook_paths[0]"),
    ([site(webhook_paths=["/x"], unlimited_paths=["/x"])], "nginx_sites[shop].webhook_paths names /x"),
    ([site(rate_limit={"requests_per_second": 0})], "rate_limit.requests_per_second"),
    ([site(rate_limit={"burst": True})], "rate_limit.burst"),
    ([site(timeout_seconds=0)], "nginx_sites[shop].timeout_seconds"),
    ([site(max_body_mb=-1)], "nginx_sites[shop].max_body_mb"),
    ([site(headers={"X-A": "a$b"})], "nginx_sites[shop].headers['X-A']"),
    ([site(headers={"X-A": "a\nb"})], "nginx_sites[shop].headers['X-A']"),
    ([site(headers={"X A": "b"})], "nginx_sites[shop].headers['X A']"),
    ([site(tls={"mode": "maybe"})], "nginx_sites[shop].tls.mode"),
    ([site(tls={"mode": "files", "certificate": "a"})], "nginx_sites[shop].tls.key is required"),
    ([site(tls={"certificate": "a"})], "nginx_sites[shop].tls.certificate is used only"),
    ([static(root="srv")], "nginx_sites[front].root"),
    ([static(root="/srv/../etc")], "nginx_sites[front].root"),
]


@pytest.mark.parametrize(("sites", "message"), REFUSED, ids=[message for _sites, message in REFUSED])
def test_what_nginx_could_not_serve_is_refused_by_key(sites: list[dict[str, t.Any]], message: str) -> None:
    with pytest.raises(AnchorageError) as caught:
        model(sites)
    assert message in caught.value.message


@pytest.mark.parametrize("options", [{"hsts": "max-age=$x"}, {"real_ip_from": ["proxy.test"]}, {"security_headers": {"X-A": "\n"}}])
def test_hostile_options_are_refused(options: dict[str, t.Any]) -> None:
    with pytest.raises(AnchorageError):
        model([], **options)


def test_of_many_servers_each_may_be_asked():
    many = [{"address": "127.0.0.1", "port": port} for port in range(9000, 9005)]
    assert model([site(upstreams={"blue": many, "green": GREEN}, slot_directory="/srv/slots")])["sites"][0]["tries"] == 5


def test_a_site_for_other_proxies_listens_for_them_only() -> None:
    resolved = model([site(tls={"mode": "off"}, listen={"address": "10.0.0.2", "port": 9019, "from": ["10.0.0.1"]})])
    assert resolved["sites"][0]["listen"] == {"place": "10.0.0.2:9019", "from": ["10.0.0.1/32"]}
    assert (resolved["proxies"], resolved["visited"], resolved["certificates"]) == (["10.0.0.1/32"], False, [])
    assert model([site(tls={"mode": "off"}, listen={"address": "fd00::2", "port": 9019})])["sites"][0]["listen"]["place"] == "[fd00::2]:9019"


def test_servers_that_come_and_go_are_left_out_for_longer_and_asked_again() -> None:
    places = [{"address": f"10.0.0.{node}", "port": port} for port in (9000, 9001) for node in (2, 3)]
    (one, other) = (model([site(again=again, slot_directory=None, upstreams={"blue": places})])["sites"][0] for again in (True, False))
    assert {server["failures"] for server in one["slots"][0]["servers"]} == {"max_fails=1 fail_timeout=10s"}
    assert {server["failures"] for server in other["slots"][0]["servers"]} == {"max_fails=1 fail_timeout=5s"}
    assert (one["again"], one["tries"], one["connect_seconds"]) == (True, 8, 2)
    assert (other["again"], other["tries"], other["connect_seconds"]) == (False, 4, 3)


def test_what_visitors_reach_and_its_edge_may_have_one_domain() -> None:
    edge = site(tls={"mode": "off"}, listen={"address": "10.0.0.2", "port": 9019})
    resolved = model([site(name="shop-public", hops=True, upstreams={"blue": [{"address": "10.0.0.2", "port": 9019}]}), edge])
    assert [one["hops"] for one in resolved["sites"]] == [True, False]
    assert resolved["visited"] and resolved["sites"][0]["flag_file"] == ""
    with pytest.raises(AnchorageError, match=r"nginx_sites\[two\].domains names shop.test, which site shop names too"):
        model([edge, {**edge, "name": "two"}])


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"listen": {"address": "localhost", "port": 1}}, "listen.address"),
        ({"listen": {"address": "10.0.0.2", "port": 0}}, "listen.port"),
        ({"listen": {"address": "10.0.0.2", "port": 1, "from": ["x"]}}, "listen.from"),
        ({"tls": {}, "listen": {"address": "10.0.0.2", "port": 1}}, "tls.mode"),
    ],
)
def test_a_wrong_place_for_proxies_is_refused_by_its_key(wrong, key) -> None:
    with pytest.raises(AnchorageError, match=rf"nginx_sites\[shop\]\.{key}"):
        model([site(**{"tls": {"mode": "off"}, **wrong})])


def test_a_certificate_may_have_another_name_than_its_site() -> None:
    resolved = model([site(name="shop-public", tls={"name": "shop"})])
    assert resolved["sites"][0]["fullchain"] == "/etc/nginx/tls/shop/fullchain.pem"
    assert resolved["certificates"] == [{"site": "shop", "domains": ["shop.test"], "mode": "acme", "certificate": None, "key": None}]
