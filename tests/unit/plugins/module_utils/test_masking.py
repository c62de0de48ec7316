# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import html
import json
import urllib.parse

import pytest
from hypothesis import given, strategies

from ansible_collections.anchorage.vps.plugins.module_utils.masking import MASK, Masker, secrets_of

PASSWORD = 'S3cr\'et/"wörd"+\\x'
SECRETS = strategies.text(strategies.characters(codec="utf-8", exclude_characters="\0"), min_size=12, max_size=60)


@pytest.mark.parametrize(
    "written",
    [
        PASSWORD,
        urllib.parse.quote(PASSWORD, safe=""),
        urllib.parse.quote(PASSWORD, safe="").lower().replace("s3cr", "S3cr"),
        urllib.parse.quote_plus(PASSWORD),
        json.dumps({"url": f"postgres://shop:{PASSWORD}@db/shop"}),
        json.dumps({"p": PASSWORD}, ensure_ascii=False),
        "ALTER ROLE shop PASSWORD '" + PASSWORD.replace("'", "''") + "'",
        "Authorization: Basic " + base64.b64encode(f"shop:{PASSWORD}".encode()).decode(),
        base64.urlsafe_b64encode(f"ab{PASSWORD}?".encode()).decode(),
        f"<td>{html.escape(PASSWORD)}</td>",
    ],
    ids=["raw", "url", "url in small letters", "form", "json", "json with letters", "sql", "basic", "base64 for urls", "html"],
)
def test_a_secret_is_masked_in_whatever_form_it_was_written(written):
    masked = Masker([PASSWORD]).text(f"before {written} after")
    assert MASK in masked and masked.startswith("before ") and masked.endswith(" after")
    for form in (PASSWORD, "S3cr", "wörd", "w%C3%B6rd", "w\\u00f6rd"):
        assert form not in masked


@given(SECRETS, strategies.binary(max_size=7), strategies.binary(max_size=7))
def test_no_form_of_a_secret_survives(secret, before, after):
    """Whatever stands around it, and for base64 wherever it begins."""
    masker = Masker([secret])
    around = base64.b64encode(before + secret.encode() + after).decode()
    middle = base64.b64encode(secret.encode()).decode()[4:-8]
    for written in (secret, urllib.parse.quote(secret, safe=""), json.dumps(secret), json.dumps(secret, ensure_ascii=False), around):
        assert MASK in masker.text(written)
    if len(before) % 3 == 0 and len(middle) >= 8:
        assert middle not in masker.text(around)


def test_data_is_masked_with_its_keys_and_keeps_its_shape():
    masked = Masker(["hunter2222"]).data({"hunter2222": ["x hunter2222 y", 5, None, True, {"a": ("hunter2222",)}]})
    assert masked == {MASK: [f"x {MASK} y", 5, None, True, {"a": [MASK]}]}


def test_a_secret_of_several_lines_is_masked_line_by_line():
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\nshort\n-----END PRIVATE KEY-----\n"
    masker = Masker([key])
    assert masker.text("x MIGHAgEAMBMGByqGSM49AgEG y") == f"x {MASK} y" and masker.text("-----BEGIN PRIVATE KEY-----").startswith("-----BEGIN")
    assert masker.text(key) == MASK


def test_what_is_no_secret_stays():
    text = "the shop serves at 127.0.0.1:9000"
    assert Masker([]).text(text) == text == Masker(["shop", ""]).text(text)


def test_a_secret_that_holds_another_goes_as_a_whole():
    assert Masker(["secret-one", "secret-one-and-more"]).text("a secret-one-and-more b") == f"a {MASK} b"


def test_an_app_s_secrets_are_what_was_generated_given_and_what_stands_in_its_urls():
    document = {
        "secrets_env": {"JWT_SECRET": "j" * 20, "STRIPE_API_KEY": "sk_live_1"},
        "env": {"STORE_CORS": "https://shop.example.com"},
        "database_password": "p%41ss",
        "admin_password": None,
        "database_url": "postgres://shop:p%2541ss@127.0.0.1/shop",
        "redis_url": "redis://shop:red%40is@127.0.0.1:6379/0",
        "redis_cache_url": None,
    }
    assert secrets_of(document) == {"j" * 20, "sk_live_1", "p%41ss", "red@is"}
    worker = {"env": {"STRIPE_API_KEY": "sk_live_2", "MODE": "worker"}}
    more = {"secret_keys": ["NPM_TOKEN", "STRIPE_API_KEY"], "processes": [worker, {}], "build": {"env": {"NPM_TOKEN": "npm_3", "CI": "1"}}, "env": None}
    assert secrets_of(more) == {"sk_live_2", "npm_3"}
    keys = {"rotating": {"KEY": "KEY_OLD"}, "secrets_env": {"KEY": "key-number-3", "KEY_OLD": "key-number-2,key-number-1"}}
    assert {"key-number-1", "key-number-2", "key-number-3"} <= secrets_of(keys), "earlier keys, each by itself"
    assert secrets_of({"database_url": "postgres://[broken"}) == set()
    for key in ("database_pool_url", "database_read_url"):
        assert secrets_of({key: "postgres://shop:pass%2Fword@db:6432/shop"}) == {"pass/word"}
    assert secrets_of({"database_url": "postgres://db/shop?user=a&password=qu%2Fery"}) == {"qu/ery"}
