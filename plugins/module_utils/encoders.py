# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One encoder for each place that a value is written to. Pure: text in, text out.

A value that comes out of an encoder is read by that place's own parser as what went in, byte for byte, and nothing of it is run. What a place has no
notation for is refused by name, before anything is written; the value itself is in no message. Each function names where its grammar is described.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import typing as t
import urllib.parse

from .errors import AnchorageError

#: What YAML takes for a control character or the end of a line although JSON does not.
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

#: Bytes of a name in PostgreSQL (NAMEDATALEN - 1); what is longer it cuts off without an error.
LONGEST_IDENTIFIER = 63

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLANKS = " \t"


def refuse(name: str, fault: str, place: str, next_step: str = "") -> t.NoReturn:
    """Refuse a value by its name."""
    raise AnchorageError(f"{name} {fault}, which {place} cannot carry.", next_step=next_step or "Give another value.")


def _text(text: str, name: str, place: str) -> str:
    """Return a text that is one for every program: C strings end at a NUL, and a lone surrogate has no bytes in UTF-8."""
    if "\0" in text:
        refuse(name, "holds a NUL character", place)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        refuse(name, "is no valid UTF-8", place)
    return text


def _line(text: str, name: str, place: str) -> str:
    """Return a text that stands on one line."""
    if _CONTROL.search(_text(text, name, place)):
        refuse(name, "holds a line break or another control character", place, "Give the value on one line.")
    return text


# ---- processes


def process_file(argv: t.Sequence[str], cwd: str, env: t.Mapping[str, str]) -> bytes:
    """Return what C(anchorage exec) reads: command, directory and environment of one process. PM2 is given the name of this file, and no value.

    JSON (RFC 8259), all in ASCII. A lone surrogate stands for a byte that is no UTF-8 (PEP 383) and becomes that byte again. Of the environment
    execve(2) takes everything but a NUL, and a name without an equals sign.
    """
    for key, value in env.items():
        if not key or "=" in key or "\0" in key:
            refuse(f"the variable {key!r}", "is empty or holds an equals sign or a NUL character", "an environment")
        if "\0" in value:
            refuse(key, "holds a NUL character", "an environment")
    if any("\0" in word for word in argv):
        refuse("a command", "holds a NUL character", "a command line")
    return json.dumps({"argv": list(argv), "cwd": cwd, "env": dict(env)}, sort_keys=True).encode()


def shell_word(text: str, name: str = "a word") -> str:
    """Return a text as one word of a POSIX shell (POSIX.1-2017, Shell Command Language, 2.2.2: nothing but a quote ends single quotes)."""
    if "\0" in text:
        refuse(name, "holds a NUL character", "a shell")
    return shlex.quote(text)


def shell_command(argv: t.Iterable[str], name: str = "a command") -> str:
    """Return words as one command of a POSIX shell."""
    return " ".join(shell_word(word, name) for word in argv)


# ---- systemd


def systemd_word(text: str, name: str = "a word") -> str:
    """Return a text as one word of a unit file, as in C(Environment=) (systemd.syntax(7), Quoting; systemd.unit(5), Specifiers)."""
    _text(text, name, "a unit file")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + '"'


def systemd_argument(text: str, name: str = "an argument") -> str:
    """Return a text as one argument of C(ExecStart=) in a unit file, where systemd puts variables in place, too (systemd.service(5), Command lines)."""
    return systemd_word(text.replace("$", "$$"), name)


def systemd_run_argument(text: str, name: str = "an argument") -> str:
    """Return a text as one argument of a command that C(systemd-run) starts as a service.

    It arrives over D-Bus, without quoting and specifiers; only variables are put in place, as in C(ExecStart=) (systemd-run(1),
    C(--expand-environment), which systemd before 254 does not know how to leave out).
    """
    return _text(text, name, "a unit").replace("$", "$$")


# ---- Compose and Docker


def compose_text(text: str) -> str:
    """Return a text as Compose must find it in a file to take it as it is: it puts variables in place of $NAME (Compose specification, Interpolation)."""
    return text.replace("$", "$$")


def compose_file(project: t.Mapping[str, t.Any]) -> str:
    """Return a project as the file that Compose reads: JSON that is YAML too, which knows no pairs of surrogates and fewer characters as they are.

    YAML 1.2.2, 5.1 (printable characters) and 7.3.1 (double-quoted style).
    """
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(project, indent=1, sort_keys=True, ensure_ascii=False))


def compose_env_fault(text: str) -> str | None:
    """Return what of a text the environment file of a project cannot carry: compose-go loses quotes at both ends, and ends no quotes after a backslash."""
    return "ends with a backslash, or with a double quote after a quote or a backslash" if text[-1:] in ("\\", '"') and _needs_double(text) else None


def compose_env_line(key: str, text: str) -> str:
    """Return one line of a file that C(env_file) names, or of C(.env) (Compose's documentation, Env file syntax; compose-go, dotenv/parser.go).

    Single quotes keep everything but a quote and a backslash; in double quotes backslashes escape and variables are put in place.
    """
    place = "an environment file of Compose"
    if not _KEY.fullmatch(key):
        refuse(f"the variable {key!r}", "has another name than letters, digits and underscores", place)
    _text(text, key, place)
    fault = compose_env_fault(text)
    if fault:
        refuse(key, fault, place)
    if not _needs_double(text):
        return f"{key}='{text}'\n"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("\n", "\\n").replace("\r", "\\r")
    return f'{key}="{escaped}"\n'


def _needs_double(text: str) -> bool:
    return bool(set(text) & set("'\\\n\r"))


def dockerfile_value(text: str, name: str = "a value") -> str:
    """Return a value as the ENV line of a Dockerfile takes it (Dockerfile reference, Environment replacement; BuildKit, dockerfile/shell/lex.go)."""
    _line(text, name, "a Dockerfile")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


# ---- addresses and logins


def url_part(text: str, name: str = "a part of an address") -> str:
    """Return a text as user, password or one segment of the path of a URL (RFC 3986, 2.1 and 2.3: everything but unreserved characters is encoded)."""
    return urllib.parse.quote(_text(text, name, "an address"), safe="")


def url_login(user: str, password: str) -> str:
    """Return user and password as they stand before the @ of a URL (RFC 3986, 3.2.1)."""
    return f"{url_part(user, 'the user')}:{url_part(password, 'the password')}"


def pgpass_line(host: str, port: int | str, database: str, user: str, password: str) -> str:
    """Return one line of a password file of PostgreSQL's clients (PostgreSQL's documentation, The Password File; libpq, passwordFromFile).

    A field that is nothing but an asterisk means any, so here it is written as the character.
    """
    fields = {"host": host, "port": str(port), "database": database, "user": user, "password": password}
    for key, text in fields.items():
        if not text:
            refuse(f"the {key}", "is empty", "a password file")
        if "\n" in _text(text, f"the {key}", "a password file") or "\r" in text:
            refuse(f"the {key}", "holds a line break", "a password file")
    return ":".join(re.sub(r"([\\:])", r"\\\1", text) if text != "*" else "\\*" for text in fields.values()) + "\n"


# ---- PostgreSQL


def sql_literal(text: str, name: str = "a value") -> str:
    """Return a text as a string constant of PostgreSQL (its documentation, 4.1.2.2; the form of libpq's PQescapeLiteral).

    With a backslash in it in the E'' form, which means the same whatever standard_conforming_strings says.
    """
    escaped = _text(text, name, "PostgreSQL").replace("'", "''")
    return "E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in escaped else f"'{escaped}'"


def sql_identifier(text: str, name: str = "a name") -> str:
    """Return a text as a quoted identifier of PostgreSQL (its documentation, 4.1.1; the form of libpq's PQescapeIdentifier)."""
    if not 0 < len(_text(text, name, "PostgreSQL").encode()) <= LONGEST_IDENTIFIER:
        refuse(name, f"is empty or longer than {LONGEST_IDENTIFIER} bytes", "PostgreSQL")
    return '"' + text.replace('"', '""') + '"'


def postgresql_setting(text: str, name: str = "a setting") -> str:
    """Return a text as the value of a setting in postgresql.conf (PostgreSQL's documentation, 19.1.2; guc-file.l, where backslashes escape)."""
    if _CONTROL.search(_text(text, name, "postgresql.conf")):
        raise AnchorageError(f"{name} holds a control character.", next_step="Give the value on one line.")
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def pgbackrest_value(text: str, name: str = "a value") -> str:
    """Return a text as a value of pgbackrest.conf (pgBackRest's common/ini.c: C(key=value), blanks around it are cut off, nothing is an escape)."""
    place = "pgbackrest.conf"
    if not text or _line(text, name, place).strip(_BLANKS) != text:
        refuse(name, "is empty or has a blank at an end", place)
    return text


# ---- Redis and Nginx


def redis_password(password: str, name: str = "the password") -> str:
    """Return a password as a rule of an ACL: its SHA-256, so every password can stand there and none does (Redis's documentation, ACL SETUSER)."""
    return f"#{hashlib.sha256(_text(password, name, 'an ACL').encode()).hexdigest()}"


def nginx_string(text: str, name: str = "a value") -> str:
    """Return a text as a string of Nginx's configuration (ngx_conf_file.c, ngx_conf_read_token).

    A dollar sign begins a variable wherever a directive takes some, and no escape takes that from it.
    """
    if "$" in _text(text, name, "Nginx's configuration"):
        refuse(name, "holds a dollar sign", "Nginx's configuration")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'"{escaped}"'
