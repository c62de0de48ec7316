# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256 verifiers as PostgreSQL keeps them: made and checked without the server."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata

PREFIX = "SCRAM-SHA-256"
ITERATIONS = 4096
SALT_BYTES = 16
_VERIFIER = re.compile(r"SCRAM-SHA-256\$([0-9]+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def normalized(password: str) -> bytes:
    """Return the bytes that PostgreSQL and libpq hash: SASLprep (RFC 4013), or the text as it is where SASLprep refuses it."""
    raw = password.encode("utf-8")
    if password.isascii():
        return raw
    mapped = "".join(" " if stringprep.in_table_c12(character) else character for character in password if not stringprep.in_table_b1(character))
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(test(character) for character in prepared for test in _PROHIBITED):
        return raw
    if any(stringprep.in_table_d1(character) for character in prepared):
        mixed = any(stringprep.in_table_d2(character) for character in prepared)
        framed = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if mixed or not framed:
            return raw
    return prepared.encode("utf-8")


def _keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", normalized(password), salt, iterations)
    client = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    return hashlib.sha256(client).digest(), server


def verifier(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return what PostgreSQL would store for a password."""
    stored, server = _keys(password, salt, iterations)
    parts = [base64.b64encode(part).decode("ascii") for part in (salt, stored, server)]
    return f"{PREFIX}${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def matches(password: str, stored: str | None) -> bool:
    """Tell whether what PostgreSQL stores is a SCRAM verifier of this password. Any other kind of hash is not."""
    found = _VERIFIER.fullmatch(stored or "")
    if found is None:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
        expected = [base64.b64decode(found[index], validate=True) for index in (3, 4)]
    except binascii.Error:
        return False
    keys = _keys(password, salt, int(found[1]))
    return all(hmac.compare_digest(*pair) for pair in zip(keys, expected))
