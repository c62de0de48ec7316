# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for single values: what must pass. What must not stands in the table of bad contracts."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.plugins.module_utils import contract_rules as rules


@pytest.mark.parametrize("text", ["a", "shop", "shop-2", "s" * 31])
def test_good_names(text):
    assert rules.name(text) is None


@pytest.mark.parametrize("text", ["health", "recover", "swap"])
def test_a_name_that_a_unit_of_ours_has_is_taken(text):
    assert f"anchorage-{text}.service" in rules.name(text)


@pytest.mark.parametrize(
    "text", ["shop.example.com", "a.b", "xn--lden-moa.example.com", "1.example.com", "*.example.com", ".".join(["a" * 63] * 3) + ".example"]
)
def test_good_domains(text):
    assert rules.domain(text) is None


@pytest.mark.parametrize(
    "text", ["", ".example.com", "example.com.", "-a.example.com", "a-.example.com", "a..example.com", "*.*.example.com", "a b.example.com", "a.example.com\n"]
)
def test_bad_domains(text):
    assert rules.domain(text)


@pytest.mark.parametrize("text", ["/", "/health", "/health?full=1", "/api/v1/~x", "/a%20b"])
def test_good_paths(text):
    assert rules.web_path(text) is None


@pytest.mark.parametrize("text", ["/a b", "/a;", "/a{", "/a}", '/a"', "/a'", "/a\n", "/a$uri", "/../x", "/a\\b", "/a#b"])
def test_paths_that_nginx_would_take_apart(text):
    assert rules.web_path(text)


@pytest.mark.parametrize("text", ["static", "apps/backend", ".medusa/server", "a..b"])
def test_good_directories(text):
    assert rules.relative(text) is None


@pytest.mark.parametrize("text", ["", "~/x", "a b", "$HOME", "a/..", "a\nb"])
def test_bad_directories(text):
    assert rules.relative(text)


@pytest.mark.parametrize("number", [1024, 9000, 32767, 61000, 65535])
def test_good_ports(number):
    assert rules.port(number) is None


@pytest.mark.parametrize("number", [0, -1, 80, 443, 1023, 5432, 6379, 32768, 60999, 65536])
def test_bad_ports(number):
    assert rules.port(number)


def test_redis_may_have_its_own_port():
    assert rules.port(6379, besides="Redis") is None
    assert rules.port(5432, besides="Redis")


@given(st.binary(min_size=32, max_size=64).filter(lambda raw: len(set(raw)) > 16))
def test_random_secrets_pass_in_the_usual_forms(raw):
    for text in (raw.hex(), base64.b64encode(raw).decode()):
        rule = rules.secret("JWT_SECRET", text, min_length=32, foreign=False)
        assert rule is None or rules.is_placeholder(text, anywhere=True) or "neighbouring" in rule or "repeats" in rule


@given(st.text(alphabet="kQ7rT2vX9mB4", min_size=1, max_size=80))
def test_no_rule_shows_a_secret(text):
    rule = rules.secret("COOKIE_SECRET", text, min_length=32, foreign=False) or ""
    assert len(text) < 3 or text not in rule


@pytest.mark.parametrize(
    "key",
    ["JWT_SECRET", "COOKIE_SECRET", "PAYLOAD_SECRET", "MAIL_PASSWORD", "PASSWORD", "ENCRYPTION_KEY", "ENCRYPTION_KEY_CURRENT", "AWS_SECRET_ACCESS_KEY",
     "S3_SECRET_KEY", "STRIPE_API_KEY", "SENTRY_DSN", "GITHUB_TOKEN", "jwt_secret", "SECRET_KEY_2"],
)  # fmt: skip
def test_names_of_secrets(key):
    assert rules.looks_secret(key)


@pytest.mark.parametrize(
    "key", ["NODE_ENV", "SECRETARY", "PASSWORD_MIN_LENGTH", "JWT_SECRET_EXPIRES_IN", "STRIPE_PUBLISHABLE_KEY", "VITE_MAP_KEY", "KEYCLOAK_URL", "MONKEY"]
)
def test_names_of_other_things(key):
    assert not rules.looks_secret(key)


@pytest.mark.parametrize(
    "text", ["https://shop.example.com", "http://localhost:8000", "https://[2001:db8::1]:8443", r"/^https:\/\/[a-z]+\.example\.com$/", r"/^https:\/\/x$/i"]
)
def test_good_origins(text):
    assert rules.origin(text) is None


def test_the_expression_that_is_offered_for_a_wildcard_is_accepted_and_exact():
    pattern = rules.wildcard_regex("https://*.example.com:8443")
    assert rules.origin(pattern) is None
    body = pattern[1:-1].replace(r"\/", "/")
    assert re.match(body, "https://shop-1.example.com:8443")
    assert not re.match(body, "https://evil.com/.example.com:8443")
    assert not re.match(body, "https://shopXexample.com:8443")
    assert pattern in rules.origin("https://*.example.com:8443")


@pytest.mark.parametrize("url", ["postgres://u:p%2Fw9@h:5432/db", "postgresql://h/db", "postgres://u:p9w@[2001:db8::1]/db?sslmode=require"])
def test_good_databases(url):
    assert rules.service_url(url, ("postgres", "postgresql"), needs_path=True) is None


@given(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(st.text())))
def test_a_value_of_the_environment_is_one_line_of_text_or_refused(value):
    text, wrong = rules.env_text(value)
    assert isinstance(text, str)
    assert wrong or not set("\x00\r\n") & set(text)


@pytest.mark.parametrize("text", ["https://git.example.com/a.git", "ssh://git@git.example.com/a", "git@git.example.com:acme/a.git", "file:///srv/git/a.git"])
def test_good_repositories(text):
    assert rules.repository(text) is None


@pytest.mark.parametrize("text", ["main", "v1.2.3", "feature/x", "0123456789abcdef", "2026.11.21", "pkg@1.0.0"])
def test_good_versions(text):
    assert rules.version(text) is None


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "10.0.0.1"])
def test_good_addresses(text):
    assert rules.private_address(text) is None
