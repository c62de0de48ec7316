# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever text goes into an encoder, its sink's grammar gives it back, or it is refused.

Each notation is read by somebody else's parser where Python or any Debian has one, and by a reader written from the grammar where not; the programs
themselves are asked in tests/integration/encoders.
"""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import sqlite3
import subprocess
import typing as t
import urllib.parse

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.plugins.module_utils import encoders
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.tests import hostile

ROOT = pathlib.Path(__file__).resolve().parents[4]
CORPUS = hostile.all_values()

#: Any text, and more often than chance would have it what means something to somebody.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40) | st.lists(
    st.sampled_from([*"\\\"'`$%{}#;:@/=&<>!*?[]() \t\n\r\x01\x7f", "a", "n", "x41", "ä", "🚢", "$$", "%%", "\\\\", "''", "${A}", "\u2028", "\x85"]), max_size=12
).map("".join)


# ---- readers of grammars for which there is no parser at hand


def c_string(text: str, escapes: t.Mapping[str, str], quote: str = '"') -> str:
    """Read a quoted string in which a backslash begins an escape, as the grammar at hand knows them."""
    assert len(text) >= 2 and text[0] == text[-1] == quote
    found, place, body = "", 0, text[1:-1]
    while place < len(body):
        letter = body[place]
        assert letter != quote, "the string would end here"
        if letter == "\\":
            assert place + 1 < len(body), "the end would be escaped"
            if body[place + 1] == "x" and "x" in escapes:
                found, place = found + chr(int(body[place + 2 : place + 4], 16)), place + 4
                continue
            found, place = found + escapes[body[place + 1]], place + 2
            continue
        found, place = found + letter, place + 1
    return found


def once(text: str, mark: str) -> str:
    """Read what stands for one mark where it is doubled; a single one would begin something."""
    assert len(re.sub(re.escape(mark * 2), "", text)) == len(text.replace(mark, "")) or mark * 2 not in text and mark not in text
    parts = re.split(f"({re.escape(mark * 2)})", text)
    assert all(mark not in part for part in parts[::2])
    return "".join(mark if part == mark * 2 else part for part in parts)


def unit_word(text: str) -> str:
    assert "\n" not in text
    return once(c_string(text, {"\\": "\\", '"': '"', "x": ""}), "%")


def environment_line(text: str) -> str:
    """Read a line of Compose's environment file: single quotes are the text itself, double ones have escapes and variables."""
    line, end = text[:-1], text[-1]
    key, _equals, value = line.partition("=")
    assert key == "KEY" and end == "\n"
    if value[0] == "'":
        assert "'" not in value[1:-1] and not value.endswith("\\'")
        return value[1:-1]
    # The quotes end at the first one that has no backslash before it, however many there are; quotes at both ends are lost.
    assert not value.endswith(('\\"', '""')) or value == '""'
    return c_string(re.sub(r"\$\$", lambda _two: "\\$", value), {"\\": "\\", '"': '"', "$": "$", "n": "\n", "r": "\r"})


def sql_constant(text: str) -> str:
    if text.startswith("E"):
        assert re.fullmatch(r"E'(?:[^'\\]|''|\\\\)*'", text, re.DOTALL)
        return re.sub(r"''|\\\\", lambda two: two[0][0], text[2:-1])
    assert "\\" not in text
    connection = sqlite3.connect(":memory:")
    (value,) = connection.execute(f"SELECT {text}").fetchone()
    return value


def sql_name(text: str) -> str:
    """SQLite has the same names in quotes."""
    cursor = sqlite3.connect(":memory:").execute(f"SELECT 1 AS {text}")
    return cursor.description[0][0]


def ini_value(text: str) -> str:
    """Read a value as pgBackRest's strTrim leaves it. No parser of Python's: those take more for a blank and for the end of a line."""
    assert "\n" not in text
    return f"key={text}".partition("=")[2].strip(" \t\r\n")


def password_line(text: str) -> str:
    """Read the fifth field of a line: a backslash takes its meaning from what follows it."""
    assert text.endswith("\n") and "\n" not in text[:-1]
    fields = [re.sub(r"\\(.)", r"\1", field, flags=re.DOTALL) for field in re.findall(r"(?:\A|:)((?:\\.|[^\\:])*)", text[:-1], re.DOTALL)]
    assert fields[:4] == ["127.0.0.1", "5432", "shop", "shop"] and len(fields) == 5
    return fields[4]


def settings_value(text: str) -> str:
    assert re.fullmatch(r"'(?:[^'\\]|''|\\\\)*'", text, re.DOTALL)
    return re.sub(r"''|\\\\", lambda two: two[0][0], text[1:-1])


def compose_yaml(text: str) -> str:
    return once(yaml.safe_load(encoders.compose_file({"value": text}))["value"], "$")


def control(text: str) -> bool:
    return any(ord(letter) < 32 or letter == "\x7f" for letter in text)


#: Encoder, reader, and what it may refuse besides a NUL.
SINKS: dict[str, tuple[t.Callable[[str], str], t.Callable[[str], str], t.Callable[[str], bool]]] = {
    "shell": (encoders.shell_word, lambda text: shlex.split(text)[0], lambda _text: False),
    "unit": (encoders.systemd_word, unit_word, lambda _text: False),
    "ExecStart": (encoders.systemd_argument, lambda text: once(unit_word(text), "$"), lambda _text: False),
    "systemd-run": (encoders.systemd_run_argument, lambda text: once(text, "$"), lambda _text: False),
    "Compose": (encoders.compose_text, compose_yaml, lambda _text: False),
    "env file of Compose": (
        lambda text: encoders.compose_env_line("KEY", text),
        environment_line,
        lambda text: text[-1:] in ("\\", '"') and not {*"'\\\r\n"}.isdisjoint(text),
    ),
    "Dockerfile": (encoders.dockerfile_value, lambda text: c_string(text, {"\\": "\\", '"': '"', "$": "$"}), control),
    "URL": (encoders.url_part, urllib.parse.unquote, lambda _text: False),
    "pgpass": (
        lambda text: encoders.pgpass_line("127.0.0.1", 5432, "shop", "shop", text),
        password_line,
        lambda text: not text or not {*"\r\n"}.isdisjoint(text),
    ),
    "SQL literal": (encoders.sql_literal, sql_constant, lambda _text: False),
    "SQL identifier": (encoders.sql_identifier, sql_name, lambda text: not 0 < len(text.encode()) <= 63),
    "postgresql.conf": (encoders.postgresql_setting, settings_value, control),
    "pgbackrest.conf": (encoders.pgbackrest_value, ini_value, lambda text: not text or text != text.strip(" \t") or control(text)),
    "Nginx": (
        encoders.nginx_string,
        lambda text: c_string(text, {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}),
        lambda text: "$" in text,
    ),
}


@pytest.fixture(params=SINKS.values(), ids=SINKS)
def sink(request):
    return request.param


def check(sink, text: str) -> None:
    encode, read, refusable = sink
    try:
        notation = encode(text)
    except AnchorageError as error:
        assert refusable(text), text
        assert len(text) < 12 or text not in error.text()
    else:
        assert not refusable(text), text
        assert read(notation) == text


@pytest.mark.parametrize("name", SINKS)
def test_any_text_comes_out_as_it_went_in(name):
    @settings(max_examples=300, deadline=None)
    @given(TEXT)
    def property_of_the_sink(text):
        check(SINKS[name], text)

    property_of_the_sink()


def test_the_hostile_values_come_out_as_they_went_in(sink):
    assert len(CORPUS) >= 300
    for value in CORPUS.values():
        check(sink, value)


def test_no_sink_takes_a_nul(sink):
    encode = sink[0]
    if encode is encoders.compose_text:
        pytest.skip("goes into JSON, whose escape of it Compose refuses by itself; the contract refuses it before")
    with pytest.raises(AnchorageError, match="NUL"):
        encode("secret-and\0more")


def test_a_refusal_names_the_value_and_does_not_show_it():
    for refused in (
        lambda: encoders.nginx_string("hunter2hunter2$", "headers[X-A]"),
        lambda: encoders.pgbackrest_value(" hunter2hunter2", "headers[X-A]"),
        lambda: encoders.postgresql_setting("hunter2hunter2\n", "headers[X-A]"),
        lambda: encoders.shell_word("hunter2hunter2\0", "headers[X-A]"),
        lambda: encoders.sql_identifier("hunter2hunter2" * 9, "headers[X-A]"),
        lambda: encoders.systemd_word("hunter2hunter2\ud800", "headers[X-A]"),
    ):
        with pytest.raises(AnchorageError) as raised:
            refused()
        assert raised.value.message.startswith("headers[X-A] ") and "hunter2" not in raised.value.text()


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=40))
@example([*CORPUS.values()])
def test_a_real_shell_takes_words_as_they_were(words):
    done = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {encoders.shell_command(words)}"], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in words]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("ABC_", min_size=1, max_size=4), TEXT, max_size=5), st.lists(TEXT, max_size=5))
def test_a_process_file_is_what_it_was(env, argv):
    data = encoders.process_file(argv, "/x", env)
    assert data.isascii() and json.loads(data) == {"argv": argv, "cwd": "/x", "env": env}


@pytest.mark.parametrize(("argv", "env"), [(["a\0"], {}), ([], {"A": "a\0"}), ([], {"A\0": "a"}), ([], {"A=": "a"}), ([], {"": "a"})])
def test_a_process_file_refuses_what_no_process_can_be_given(argv, env):
    with pytest.raises(AnchorageError, match="cannot carry"):
        encoders.process_file(argv, "/", env)


def test_bytes_that_are_no_text_reach_a_process():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(encoders.process_file([name], "/", {}))["argv"][0].encode("utf-8", "surrogateescape") == b"caf\xe9"


@settings(deadline=None)
@given(TEXT, TEXT)
def test_a_login_is_read_from_an_address_by_others(user, password):
    assume(user and password)
    parts = urllib.parse.urlsplit(f"postgres://{encoders.url_login(user, password)}@[::1]:5432/shop")
    assert (parts.hostname, parts.port, parts.path) == ("::1", 5432, "/shop")
    assert (urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password)) == (user, password)


@settings(deadline=None)
@given(TEXT)
def test_a_password_is_in_an_acl_as_its_hash_alone(password):
    rule = encoders.redis_password(password)
    assert re.fullmatch("#[0-9a-f]{64}", rule)
    assert rule != encoders.redis_password(password + "x")


def test_an_asterisk_in_a_password_file_is_one():
    assert encoders.pgpass_line("*", 5432, "a:b", "c\\d", "*") == "\\*:5432:a\\:b:c\\\\d:\\*\n"


@pytest.mark.parametrize("field", ["host", "database", "user", "password"])
@pytest.mark.parametrize("value", ["", "a\nb"])
def test_a_password_file_refuses_a_field_by_its_name(field, value):
    with pytest.raises(AnchorageError, match=f"^the {field} "):
        encoders.pgpass_line(**{"host": "h", "port": 1, "database": "d", "user": "u", "password": "p", field: value})


# ---- nobody has an encoder of his own

#: What one would be made of. Probes that encode the path of a request, and what masks logs in every notation there is, do not write a sink.
OWN = re.compile(r"chr\(39\)|shlex\.(quote|join)|parse\.quote|import quote|replace\(\"'\", |replace\('\"', |replace\(\"\\\\\\\\\", |replace\(\"\\$\", ")
ELSEWHERE = {"encoders.py", "masking.py", "http_probe.py", "worker_probe.py"}


def test_every_sink_has_one_encoder():
    found = {path.name: OWN.findall(path.read_text()) for path in ROOT.glob("plugins/**/*.py") if path.name not in ELSEWHERE}
    assert {name: marks for name, marks in found.items() if marks} == {}
    assert all(OWN.search(next(ROOT.glob(f"plugins/module_utils/{name}")).read_text()) for name in ELSEWHERE), "the search finds one where there is one"
