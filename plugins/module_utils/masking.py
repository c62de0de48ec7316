# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text without the secrets that this host knows, in whatever form they were written into it.

A log does not hold a password as it is: it stands in a URL, in a JSON string, in an SQL literal, or in the base64 of an Authorization header.
"""

from __future__ import annotations

import base64
import html
import json
import re
import typing as t
import urllib.parse

MASK = "••••••"

#: What is shorter is no secret worth the name, and would take half a log with it.
SHORTEST = 6
LONG_LINE = 16


def forms(secret: str) -> set[str]:
    """Return the ways in which a secret is written down."""
    raw = secret.encode("utf-8", "surrogateescape")
    found = {
        secret,
        urllib.parse.quote(secret, safe="", errors="surrogateescape"),
        urllib.parse.quote(secret, errors="surrogateescape"),
        urllib.parse.quote_plus(secret, errors="surrogateescape"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        secret.replace("'", "''"),
        secret.replace("'", "'\\''"),
        secret.replace("\\", "\\\\"),
        html.escape(secret),
        *_base64(raw),
    }
    return {form for form in found if len(form) >= SHORTEST}


def _base64(raw: bytes) -> set[str]:
    """Return what the base64 of any text that holds these bytes has in common, for each of the three places where they can begin."""
    found = set()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode()
        first = -(-before * 8 // 6)  # characters that also hold bits of what stands before
        last = (before + len(raw)) * 8 // 6
        common = text[first:last]
        if len(common) >= SHORTEST:
            found |= {common, common.replace("+", "-").replace("/", "_")}
    return found


class Masker:
    """Replaces secrets in text.

    :arg secrets: their values; what is too short to be one is left out.
    """

    def __init__(self, secrets: t.Iterable[str]) -> None:
        known = {form for secret in secrets if len(secret) >= SHORTEST for part in (secret, *_long_lines(secret)) for form in forms(part)}
        # The longest first: a URL that holds a password is gone as a whole where it is a secret itself.
        ordered = sorted(known, key=lambda form: (-len(form), form))
        # Percent-encoding is written in capitals and in small letters.
        self.pattern = re.compile("|".join(_loose(form) for form in ordered)) if ordered else None

    def text(self, text: str) -> str:
        """Return a text without them."""
        return text if self.pattern is None else self.pattern.sub(MASK, text)

    def data(self, value: t.Any) -> t.Any:
        """Return plain data without them, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.data(key): self.data(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(item) for item in value]
        return value


def _long_lines(secret: str) -> list[str]:
    """Return the lines of a secret that has several, such as a private key, since logs are masked line by line; a common first line is none."""
    return [line for line in secret.splitlines() if len(line) >= LONG_LINE and not line.startswith("-----")] if "\n" in secret else []


def _loose(form: str) -> str:
    """Return a pattern for a form that takes its percent-encoded characters in either case."""
    return re.sub(r"%([0-9A-F])([0-9A-F])", lambda found: f"%{_either(found[1])}{_either(found[2])}", re.escape(form))


def _either(digit: str) -> str:
    return f"[{digit}{digit.lower()}]" if digit.isalpha() else digit


def secrets_of(document: t.Mapping[str, t.Any]) -> set[str]:
    """Return the values of an app's document that are secrets: what was generated or given as such, and the passwords of its services."""
    found = {str(value) for value in (document.get("secrets_env") or {}).values()}
    places = [document.get("env"), (document.get("build") or {}).get("env"), *(process.get("env") for process in document.get("processes") or [])]
    found |= {str(place[key]) for place in places for key in document.get("secret_keys") or [] if place and key in place}
    found |= {str(document[key]) for key in ("database_password", "admin_password") if document.get(key)}
    for key in ("database_url", "database_pool_url", "database_read_url", "redis_url", "redis_cache_url", "rehearsal_url"):
        password = _password(document.get(key))
        found |= {password} if password else set()
    # Earlier keys stand in one value, joined by commas.
    found |= {key for old in (document.get("rotating") or {}).values() for key in str((document.get("secrets_env") or {}).get(old) or "").split(",")}
    return {value for value in found if value}


def _password(url: t.Any) -> str | None:
    try:
        parts = urllib.parse.urlsplit(str(url or ""))
        password = parts.password
    except ValueError:
        return None
    given = urllib.parse.parse_qs(parts.query).get("password", [None])[-1]
    return given or (urllib.parse.unquote(password) if password else None)
