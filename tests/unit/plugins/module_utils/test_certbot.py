# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of an authority: what is asked for, what a refusal leaves, and what counts as served."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import certbot
from ansible_collections.anchorage.vps.plugins.module_utils.certificates import first_der
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .certificate_fakes import NOW, FakeWorld, key_of, pem

SETTINGS = certbot.Settings(server="https://acme.test/dir", email="ops@shop.test", ca_file="/etc/ca.pem", dns_auth_hook="hook set")
SHOP = certbot.Wanted("shop", ("api.shop.test", "shop.test"))
TENANTS = certbot.Wanted("tenants", ("*.shop.test",), "dns")

REFUSAL = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for api.shop.test

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: api.shop.test
  Type:   unauthorized
  Detail: 192.0.2.1: Invalid response from http://api.shop.test/.well-known/acme-challenge/x: 404

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org.
"""
DOWN = """An unexpected error occurred:
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='acme.test', port=443): Max retries exceeded
Ask for help or search for solutions at https://community.letsencrypt.org.
"""


@pytest.fixture(name="world")
def _world() -> FakeWorld:
    return FakeWorld()


def converge(world: FakeWorld, *wanted: certbot.Wanted, check: bool = False, settings: certbot.Settings = SETTINGS) -> dict[str, t.Any]:
    """Converge certificates on a fake host."""
    return certbot.converge(world, wanted, settings, check=check)


def asked(world: FakeWorld) -> list[list[str]]:
    """Return the requests to the authority."""
    return [command for command in world.commands if command[:2] == ["certbot", "certonly"]]


def test_a_missing_certificate_is_issued_deployed_and_then_left_alone(world: FakeWorld) -> None:
    first = converge(world, SHOP)
    assert first["changed"]
    assert first["certificates"][0]["serial"] == "N1"
    assert world.presented["shop.test"] == first_der(world.read("/etc/letsencrypt/live/shop/fullchain.pem"))
    assert not converge(world, SHOP)["changed"]
    assert len(asked(world)) == 1


def test_check_mode_predicts_and_asks_nobody(world: FakeWorld) -> None:
    assert converge(world, SHOP, check=True)["changed"]
    assert asked(world) == []
    assert world.files == {}


def test_without_certbot_nothing_is_predicted(world: FakeWorld) -> None:
    world.missing.add("certbot")
    assert converge(world, SHOP, check=True) == {"changed": True, "certificates": [], "notes": ["not predicted: certbot is not installed yet"]}


def test_the_private_authority_is_trusted_for_certbot_only(world: FakeWorld) -> None:
    converge(world, SHOP)
    trusting = [command[0] for command, env in zip(world.commands, world.environments) if env and "REQUESTS_CA_BUNDLE" in env]
    assert trusting == ["certbot"]


@pytest.mark.parametrize(
    ("chain", "server", "authenticator", "reason"),
    [
        (pem("1", ["shop.test", "api.shop.test"]), "https://acme.test/dir", "webroot", None),
        (pem("1", ["shop.test"]), "https://acme.test/dir", "webroot", "its names differ"),
        (pem("1", ["shop.test", "api.shop.test"]), "https://staging.test/dir", "webroot", "another authority issued it"),
        (pem("1", ["shop.test", "api.shop.test"]), "https://acme.test/dir", "manual", "the method of its renewal differs"),
        (pem("1", ["shop.test", "api.shop.test"], left=29), "https://acme.test/dir", "webroot", "its renewal is overdue"),
        (pem("1", ["shop.test", "api.shop.test"], left=31), "https://acme.test/dir", "webroot", None),
        (pem("1", ["shop.test", "api.shop.test"], left=-1), "https://acme.test/dir", "webroot", "its renewal is overdue"),
    ],
)
def test_why_a_certificate_is_issued_again(world: FakeWorld, chain: bytes, server: str, authenticator: str, reason: str | None) -> None:
    world.lineage("shop", chain, server=server, authenticator=authenticator)
    assert certbot.reason_to_issue(SHOP, certbot.find(world, SETTINGS, "shop"), SETTINGS, NOW) == reason


def test_an_issue_in_place_of_another_one_is_forced(world: FakeWorld) -> None:
    world.lineage("shop", pem("1", ["shop.test"]))
    converge(world, SHOP)
    assert "--force-renewal" in asked(world)[0]
    assert "--keep-until-expiring" not in asked(world)[0]


def test_lets_encrypt_is_rehearsed_before_the_first_issue_only(world: FakeWorld) -> None:
    converge(world, SHOP, settings=SETTINGS._replace(server=certbot.LETSENCRYPT))
    assert ["--dry-run" in command for command in asked(world)] == [True, False]


def test_a_failed_rehearsal_never_reaches_the_real_authority(world: FakeWorld) -> None:
    world.authority = lambda argv: Completed(1, "", REFUSAL)
    with pytest.raises(AnchorageError):
        converge(world, SHOP, settings=SETTINGS._replace(server=certbot.LETSENCRYPT))
    assert len(asked(world)) == 1


def test_a_wildcard_is_asked_for_over_dns(world: FakeWorld) -> None:
    assert converge(world, TENANTS)["changed"]
    command = asked(world)[0]
    assert command[command.index("--manual-auth-hook") + 1] == "hook set"
    assert "--webroot" not in command
    assert not converge(world, TENANTS)["changed"]


def test_a_refusal_names_the_cause_and_what_is_live(world: FakeWorld) -> None:
    world.authority = lambda argv: Completed(1, "", REFUSAL)
    bootstrap = pem("B", ["shop.test"], issuer="CN=anchorage bootstrap")
    world.files["/etc/nginx/tls/shop/fullchain.pem"] = bootstrap
    with pytest.raises(AnchorageError) as caught:
        converge(world, SHOP)
    assert "api.shop.test: 192.0.2.1: Invalid response" in caught.value.message
    assert caught.value.live == "the self-signed bootstrap certificate of shop"
    assert world.files["/etc/nginx/tls/shop/fullchain.pem"] == bootstrap


@pytest.mark.parametrize(("stale", "good"), [(1, True), (2, False)])
def test_a_refused_nonce_is_asked_for_once_more(world: FakeWorld, stale: int, good: bool) -> None:
    left = [Completed(1, "", "JWS has an invalid anti-replay nonce: abc")] * stale
    world.authority = lambda argv: left.pop() if left else world.issue(argv)
    if good:
        assert converge(world, SHOP)["changed"]
    else:
        with pytest.raises(AnchorageError, match="anti-replay nonce"):
            converge(world, SHOP)
    assert len(asked(world)) == 2


def test_one_refusal_holds_no_other_certificate_back(world: FakeWorld) -> None:
    def authority(argv: list[str]) -> Completed:
        return Completed(1, "", REFUSAL) if "bad" in argv else world.issue(argv)

    world.authority = authority
    with pytest.raises(AnchorageError, match="No certificate for bad"):
        converge(world, certbot.Wanted("bad", ("bad.test",)), SHOP)
    assert "shop.test" in world.presented


def test_what_is_not_required_is_told_and_fails_nothing(world: FakeWorld) -> None:
    world.authority = lambda argv: Completed(1, "", REFUSAL) if "bad" in argv else world.issue(argv)
    told = converge(world, certbot.Wanted("bad", ("bad.test",), required=False), SHOP)
    assert len(told["warned"]) == 1 and told["warned"][0].startswith("No certificate for bad")
    assert told["certificates"][1]["action"] and "shop.test" in world.presented
    assert converge(world, SHOP)["warned"] == []


def test_a_certificate_is_required_unless_it_says_otherwise() -> None:
    given = [{"name": "shop", "domains": ["a.test"]}, {"name": "auth", "domains": ["b.test"], "required": False}]
    resolved = certbot.resolve_certificates(given)
    assert [wanted.required for wanted in certbot.wanted_from(resolved)] == [True, False] and "required" not in resolved[0]
    with pytest.raises(AnchorageError, match=r"certbot_certificates\[shop\]\.required must be true or false"):
        certbot.resolve_certificates([{**given[0], "required": "no"}])


def test_a_certificate_that_is_not_served_is_deployed_again_without_a_new_issue(world: FakeWorld) -> None:
    converge(world, SHOP)
    world.presented["shop.test"] = b"other"
    assert converge(world, SHOP)["certificates"][0]["action"] == "deploy: it was not served"
    assert len(asked(world)) == 1


def test_a_reload_without_effect_is_a_failure(world: FakeWorld) -> None:
    world.nginx_serves = False
    with pytest.raises(AnchorageError, match="is not served: for api.shop.test nothing answers"):
        converge(world, SHOP)


def test_a_broken_configuration_is_not_reloaded(world: FakeWorld) -> None:
    converge(world, SHOP)
    before = dict(world.presented)
    world.nginx_error = "[emerg] unknown directive"
    world.lineage("shop", pem("R", ["api.shop.test", "shop.test"]))
    with pytest.raises(AnchorageError, match="unknown directive"):
        converge(world, SHOP)
    assert world.presented == before


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (REFUSAL, "api.shop.test: 192.0.2.1: Invalid response from http://api.shop.test/.well-known/acme-challenge/x: 404"),
        (DOWN, "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='acme.test', port=443): Max retries exceeded"),
        ("Missing command line flag", "Missing command line flag"),
        ("", "certbot gave no reason"),
    ],
)
def test_the_cause_is_found_in_what_certbot_prints(output: str, expected: str) -> None:
    assert certbot.cause(output).startswith(expected)


SAID: list[str] = []


def host(world: FakeWorld, command: str, **environ: str) -> int:
    """Run the program of the host."""
    data = {"settings": {**SETTINGS._asdict(), "unknown": 1}, "certificates": [{"name": "shop", "domains": list(SHOP.domains)}]}
    world.files[certbot.SETTINGS_FILE] = json.dumps(data).encode()
    SAID.clear()
    return certbot.main([command], environ, world, SAID.append)


def test_the_hook_deploys_the_lineage_that_certbot_names(world: FakeWorld) -> None:
    world.lineage("shop", pem("R", SHOP.domains))
    assert host(world, "deploy", RENEWED_LINEAGE="/etc/letsencrypt/live/shop") == 0
    assert "shop.test" in world.presented


def test_the_hook_leaves_other_peoples_lineages_alone(world: FakeWorld) -> None:
    assert host(world, "deploy", RENEWED_LINEAGE="/etc/letsencrypt/live/mail") == 0
    assert world.commands == []


def test_the_check_says_what_is_wrong(world: FakeWorld) -> None:
    assert host(world, "check") == 1
    assert "has not been issued yet" in "\n".join(SAID)
    world.lineage("shop", pem("R", SHOP.domains, left=10))
    assert host(world, "check") == 1
    shown = "\n".join(SAID)
    assert "10 days left, its renewal is overdue" in shown
    assert "holds another certificate than its lineage" in shown
    assert "nothing answers for shop.test (serial on the disk: R)" in shown


def test_settle_heals_a_hook_that_failed(world: FakeWorld) -> None:
    world.lineage("shop", pem("R", SHOP.domains))
    world.nginx_error = "[emerg] broken"
    assert host(world, "settle") == 1
    assert "[emerg] broken" in "\n".join(SAID)
    world.nginx_error = ""
    assert host(world, "settle") == 0
    assert host(world, "check") == 0


def test_a_chain_beside_another_ones_key_is_not_deployed(world: FakeWorld) -> None:
    world.lineage("shop", pem("R", SHOP.domains))
    world.files["/etc/letsencrypt/live/shop/privkey.pem"] = key_of(b"another")
    assert host(world, "deploy", RENEWED_LINEAGE="/etc/letsencrypt/live/shop") == 1
    assert world.presented == {}


REFUSED: list[tuple[list[dict[str, t.Any]], str]] = [
    ([{"name": "shop", "domains": ["*.shop.test"]}], "certbot_certificates[shop].method must be dns"),
    ([{"name": "shop", "domains": ["*.shop.test"], "method": "dns"}], "certbot_dns_auth_hook is required"),
    ([{"name": "shop", "domains": []}], "certbot_certificates[shop].domains"),
    ([{"name": "shop", "domains": ["-d evil"]}], "certbot_certificates[shop].domains[0]"),
    ([{"name": "-x", "domains": ["shop.test"]}], "certbot_certificates[0].name"),
    ([{"name": "shop", "domains": ["shop.test"], "method": "tls"}], "certbot_certificates[shop].method"),
    ([{"name": "shop", "domains": ["shop.test"], "email": "x"}], "certbot_certificates[shop].email is unknown"),
    ([{"name": "shop", "domains": ["a.test"]}, {"name": "shop", "domains": ["b.test"]}], "is used by two certificates"),
]


@pytest.mark.parametrize(("certificates", "message"), REFUSED, ids=[message for _certificates, message in REFUSED])
def test_what_no_authority_would_issue_is_refused_by_key(certificates: list[dict[str, t.Any]], message: str) -> None:
    with pytest.raises(AnchorageError) as caught:
        certbot.resolve_certificates(certificates)
    assert message in caught.value.message
