# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256 verifiers against what a server made, and against what nobody should take for one."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_scram import matches, normalized, verifier

SALT = bytes(range(16))
# Made by PostgreSQL 17.12 with CREATE ROLE ... PASSWORD.
FROM_THE_SERVER = [
    ("pencil", "SCRAM-SHA-256$4096:FlooHkpVO5DKJPR65qEgEA==$vQI2XqNjcB14x7/Xaw1141GxsVPcXLGEBs04GSXfMr4=:MHhjpHPFVAcC+iza0QNdYcyfgD2+HJfqsRaJ/7FVhD4="),
    (
        "Sh0p/pass+word'x\"$\\y",
        "SCRAM-SHA-256$4096:T3Ptl5zcxt+4Wcv8ygGqCw==$0u8fXd0suuC09Q1RISzbWn7WOQUBDO1pT8xR7umzods=:Gq5i7lISnEIu/8VvTvz8m4GZr7uehMvwjqTxZ8vuHco=",
    ),
    (
        "pässwörd ½ № long",
        "SCRAM-SHA-256$4096:zMnQcekm762Xo6TCyhh0xA==$1IrzW8x/ZxQrO+Ip9oqpeK9GV/GX3TrPsDOtkNIpiuA=:GS76Xjgn1NyTttfcrMQzxErzZR5CI5MCTE72YmYejQg=",
    ),
    (
        "a\u00adb\u00a0c soft hyphen",
        "SCRAM-SHA-256$4096:aTdsXauWDhnxSZYuLAQgow==$yXtVRynQud3mq7B1V0A9WsGZedMKis7RTWqGPBL0dUA=:FSgUrl1aR0c5qdrOVzKuPe++mNQltnM4yWNGyOsvtJI=",
    ),
    (
        "tab\u0007bell",
        "SCRAM-SHA-256$4096:6vzx5cw2gs8POLqXtGUmYQ==$vdFLoNcmXLnK11KEJcEmWvOVV6l0KpXqFlkhaEXnTKo=:QoUMBJARuepBymtpOrsqFFTnwXd0I7l5v+dY/ElrlAE=",
    ),
    ("עברית", "SCRAM-SHA-256$4096:4QK+nUrX+XwwYXkfS2Y1Tg==$wjkqS+daYMdNGZHMF1WdpuHhlAQjlDXHsltfLkO8Ruc=:tE0rEaYJk7qw7ra5ByvQEspMEUmAGdOiPivBMK9db3U="),
    ("mix א a", "SCRAM-SHA-256$4096:TVv07ulxIcqICMrzZcL0LQ==$UTlK5EOZq1PEPatalJkZqjU7PQ0Dfo23tArEOTMnbrU=:J5tuTC9RJeAa/tIWKXYFRlpo2rZgFmexGLrWiceIPPA="),
]


@pytest.mark.parametrize(("password", "stored"), FROM_THE_SERVER)
def test_a_verifier_of_the_server_is_recognised(password, stored):
    assert matches(password, stored)


@pytest.mark.parametrize(("password", "stored"), FROM_THE_SERVER)
def test_another_password_is_not_taken_for_it(password, stored):
    assert not matches(f"{password}.", stored)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "md5a3556571e93b0d20722ba62be61e8c2d",
        "pencil",
        FROM_THE_SERVER[0][1] + "x",
        FROM_THE_SERVER[0][1].replace("$4096:", "$4097:"),
        "SCRAM-SHA-256$4096:FlooHkpVO5DKJPR65qEgEA=$vQI2=:MHhj=",
    ],
)
def test_what_is_no_verifier_of_it_never_matches(stored):
    assert not matches("pencil", stored)


def test_only_the_stored_key_being_right_is_not_enough():
    left, right = FROM_THE_SERVER[0][1].rsplit(":", 1)
    assert not matches("pencil", f"{left}:{'A' * (len(right) - 1)}=")


def test_a_verifier_matches_its_password_and_depends_on_its_salt():
    made = verifier("correct horse", salt=SALT)
    assert made.startswith("SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$")
    assert matches("correct horse", made)
    assert made != verifier("correct horse", salt=bytes(16))


@pytest.mark.parametrize(
    ("password", "bytes_"),
    [
        ("ascii stays", b"ascii stays"),
        ("\u2168", b"IX"),
        ("I\u00adX\u00aa", b"IXa"),
        ("\u00a0\u00e9", b" \xc3\xa9"),
        ("é\u0007", "é\u0007".encode()),
        ("\u0627\u0031", "\u0627\u0031".encode()),
    ],
)
def test_text_is_prepared_as_libpq_does(password, bytes_):
    assert normalized(password) == bytes_
