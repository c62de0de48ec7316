# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A search that finds nothing proves nothing, unless it finds what was put there."""

from __future__ import annotations

import base64
import html
import json
import subprocess
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.tests.canary import Canaries, environments, forms

SECRET = "kQ7rT2 v'X\"9m\\B4n$C6%pL1s:D8@f/G3äh"
PLANTED = {
    "raw": f"said {SECRET}.",
    "URL": f"postgres://shop:{urllib.parse.quote(SECRET, safe='')}@db/shop",
    "form": urllib.parse.urlencode({"password": SECRET}),
    "JSON": json.dumps({"msg": f"x {SECRET} y"}),
    "JSON with letters": json.dumps({"msg": SECRET}, ensure_ascii=False),
    "JSON in JSON": json.dumps({"stdout": json.dumps({"password": SECRET})}),
    "SQL": "ALTER ROLE shop PASSWORD '" + SECRET.replace("'", "''") + "'",
    "HTML": html.escape(f"<td>{SECRET}"),
    "basic": base64.b64encode(f"shop:{SECRET}".encode()).decode(),
    "hexadecimal": f"x{SECRET.encode().hex()}y",
    "Python": repr(["x", SECRET]),
}


def run(script, given=""):
    return subprocess.run(["sh", "-c", script], input=given, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("written", PLANTED.values(), ids=PLANTED)
def test_a_planted_secret_is_found(written):
    found = Canaries({"KEY": SECRET}).text(f"before\n{written}\nafter")
    assert found and all(label.startswith("KEY (") for label in found)
    assert not Canaries({"KEY": SECRET[::-1]}).text(written)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), min_size=20, max_size=60), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_is_found_wherever_the_secret_begins_in_it(secret, before, after):
    assert Canaries({"KEY": secret}).text(base64.b64encode(before + secret.encode() + after).decode())


def test_a_piece_of_letters_and_digits_is_found_whatever_was_done_to_the_rest():
    assert Canaries({"KEY": "$'x kQ7rT2vX9mB4nC6pL"}).text("…\\u0024\\x27x\\040kQ7rT2vX9mB4nC6pL…") == ["KEY (piece 1)"]


def test_files_are_searched_and_named(tmp_path):
    for name, written in PLANTED.items():
        (tmp_path / name).write_text(written)
    (tmp_path / "binary").write_bytes(b"\0\xff" + SECRET.encode() + b"\0")
    (tmp_path / "harmless").write_text("nothing")
    (tmp_path / "left out").mkdir()
    (tmp_path / "left out" / "raw").write_text(SECRET)
    found = Canaries({"KEY": SECRET}).files(run, [str(tmp_path)], excluded=["left out"])
    assert {path.removeprefix(f"{tmp_path}/") for path in found} == {*PLANTED, "binary"}
    assert all(labels and all(label.startswith("KEY (") for label in labels) for labels in found.values())


def test_what_is_no_canary_is_none():
    with pytest.raises(AssertionError, match="KEY is no canary"):
        Canaries({"KEY": "short"})
    assert all(len(text) >= 10 for text in forms("x" * 20).values())


def test_environments_are_told_apart_by_their_owner():
    assert environments("uid 0\nA=1\nB=uid 5\n\nuid 33\nC=3\n\nuid 0\nD=4\n") == {0: "A=1\nB=uid 5\n\n\nD=4\n", 33: "C=3\n\n"}
