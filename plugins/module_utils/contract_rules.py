# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules for single values of a contract. Each function returns what is wrong as the rest of a sentence, or None; never the value of a secret."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from urllib.parse import unquote, urlsplit

Wrong = t.Optional[str]

SYSTEM_NAMES = frozenset((
    "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "backup", "list", "irc", "nobody", "sshd", "messagebus",
    "postgres", "redis", "nginx", "www-data", "certbot", "docker", "sudo", "adm", "anchorage", "default", "localhost", "systemd-network", "systemd-timesync",
))  # fmt: skip
# Ports that other parts of a host listen on, whether or not this host has them today.
TAKEN_PORTS = {22: "SSH", 80: "Nginx", 443: "Nginx", 5432: "PostgreSQL", 6379: "Redis"}
# The kernel hands these out to outgoing connections (net.ipv4.ip_local_port_range).
EPHEMERAL = range(32768, 61000)
RESERVED_ENV = {
    "PORT": "is set per process; write `port` instead",
    "HOST": "is set by the release, so that nothing listens in public",
    "HOME": "is set by the release",
    "PATH": "is set by the release",
    "PM2_HOME": "is set by the release",
    "USER": "is set by the release",
    "RELEASE_ID": "is set by the release",
}
FLOATING = frozenset(("latest", "head", "newest", "stable", "*", "any"))
PACKAGE_MANAGERS = frozenset(("npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx", "bun", "bunx", "corepack"))

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,29}[a-z0-9])?\Z")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: An app's steps run in anchorage-<app>.service, and these have that form already.
OWN_UNITS = frozenset(("health", "recover", "swap"))
_SQL_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_EXTENSION = re.compile(r"[a-z_][a-z0-9_-]{0,62}\Z")
_EMAIL = re.compile(r"[^@\s,;:<>()\"']+@[^@\s]+\Z")
_STRICT_SECRET = re.compile(
    r"(?:^|_)(?:SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|ENCRYPTION_KEY|SIGNING_KEY|SECRET_KEY)(?:_(?:CURRENT|OLD|PREVIOUS|NEW|\d+))?\Z", re.IGNORECASE
)
_LOOSE_SECRET = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_KEY|PRIVATE_KEY|TOKEN|KEY|DSN|CREDENTIALS|PASS|PWD)(?:_(?:CURRENT|OLD|PREVIOUS|NEW|\d+))?\Z", re.IGNORECASE
)
_PUBLIC_KEY = re.compile(r"(?:^|_)(?:PUBLIC|PUBLISHABLE|VITE)(?:_|\Z)", re.IGNORECASE)
_RETIRED = re.compile(r"_(?:OLD|PREVIOUS)\Z", re.IGNORECASE)
_PLACEHOLDERS = ("supersecret", "changeme", "changethis", "changeit", "placeholder", "replaceme", "replacethis", "yoursecret", "yourpassword", "yourkey",
                 "example", "secret", "password", "passw0rd", "letmein", "defaultkey")  # fmt: skip
_ALONE = frozenset(("medusa", "admin", "todo", "test", "default", "insert", "postgres", "redis", "root"))
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>\d{1,5}))?\Z")
_IMAGE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?\Z"
)
#: What words of a process' command may hold in braces. Only a whole word, or what an option is set to, is taken for a mistake: JSON has braces too.
PLACES = ("host", "port")
_PLACEHOLDER = re.compile(r"(?:--?[\w-]+=)?\{([a-z_]+)\}\Z")
_REGEX = re.compile(r"/(?P<body>.*)/[a-z]*\Z", re.DOTALL)


def name(text: str) -> Wrong:
    """Judge the name of an app: it becomes a user, a directory and a part of unit names."""
    if not _NAME.match(text):
        return "the name must be 1 to 31 small letters, digits and hyphens, with a letter first and no hyphen at the end"
    if text in SYSTEM_NAMES:
        return "the name belongs to the system; choose another, since the app's system user gets it"
    if text in OWN_UNITS:
        return f"the name is taken by anchorage-{text}.service, a unit of this collection; choose another"
    return None


def process_name(text: str) -> Wrong:
    """Judge the name of a process."""
    if not _NAME.match(text):
        return "the name must be 1 to 31 small letters, digits and hyphens, with a letter first and no hyphen at the end"
    return None


def domain(text: str) -> Wrong:
    """Judge a public name after RFC 1123; the wildcard's own conditions are judged elsewhere."""
    bare = text[2:] if text.startswith("*.") else text
    if not text:
        return "is empty"
    if "://" in text:
        return "must be a bare name without a scheme, such as api.example.com"
    if "/" in text:
        return "must be a bare name without a path"
    if re.search(r":\d+\Z", text):
        return "must be a bare name without a port; the address with a port goes into `url`"
    if not text.isascii():
        return "must be written in its ASCII form (xn--…)"
    if text != text.lower():
        return "must be written in small letters"
    if re.fullmatch(r"[0-9.]+|[0-9a-f:]*:[0-9a-f:.]*", text):
        return "must be a name, not an address, since certificates are made out to names"
    if "*" in bare:
        return "has a wildcard elsewhere than as the whole first label"
    if len(bare) > 253 or "." not in bare or not all(_LABEL.match(label) for label in bare.split(".")):
        return "is no host name after RFC 1123 (labels of 1 to 63 small letters, digits and hyphens, at least two of them)"
    return None


def port(number: int, *, besides: str = "") -> Wrong:
    """Judge a port that an app or an instance may listen on; C(besides) names the service that may have its own."""
    owner = TAKEN_PORTS.get(number, besides)
    if owner != besides:
        return f"port {number} belongs to {owner}"
    if not 1024 <= number <= 65535:
        return "a port must lie between 1024 and 65535"
    if number in EPHEMERAL:
        return f"port {number} lies between {EPHEMERAL[0]} and {EPHEMERAL[-1]}, which the kernel hands out to outgoing connections"
    return None


def image(text: str, *, tagged: bool = True) -> Wrong:
    """Judge the name of a container image; with C(tagged), one that says which version it means."""
    match = _IMAGE.match(text)
    if match is None:
        return "is no name of an image, such as registry.example.com/acme/shop" + (":1.2" if tagged else "")
    if not tagged:
        return "must have no tag and no digest in it; the digest goes into source.digest" if match["tag"] or match["digest"] else None
    if not match["digest"] and (match["tag"] or "latest") in FLOATING:
        return "must name a version (a tag other than latest, or a digest)"
    return None


def image_directory(text: str) -> Wrong:
    """Judge where an app lies in its image: it becomes a mount's target and a part of commands."""
    if not re.fullmatch(r"(?:/[A-Za-z0-9._-]+)+", text) or ".." in text.split("/"):
        return "must be an absolute path below / of letters, digits, dots, dashes and underscores"
    return None


def shell_pattern(text: str) -> Wrong:
    """Judge a pattern that a shell expands while an image is built."""
    return None if re.fullmatch(r"[A-Za-z0-9@._*?/-]+", text) else "holds characters that a shell would take for more than a pattern"


def postgres_image(text: str | None) -> Wrong:
    """Judge the version of an official image of PostgreSQL: from 18 on it keeps its data in another place."""
    found = re.fullmatch(r"(?:docker\.io/)?(?:library/)?postgres:(\d+)\b.*", text or "")
    return f"postgres:{found[1]} keeps its data elsewhere than this collection knows; choose 17 or older" if found and int(found[1]) >= 18 else None


def is_loopback(text: str) -> bool:
    """Tell whether the address of a service is this machine's own."""
    parts = split_url(text)
    host = (parts.hostname or "") if parts else ""
    return host in ("localhost", "::1") or host.startswith("127.")


def image_digest(text: str | None) -> Wrong:
    """Judge the digest of an image."""
    if text is None:
        return "is required with image; docker buildx imagetools inspect prints it"
    return None if re.fullmatch(r"sha256:[0-9a-f]{64}", text) else "must be sha256: and 64 hexadecimal digits"


def built_on_controller(source: t.Mapping[str, t.Any], *, or_host: bool = True) -> Wrong:
    """Judge a source whose image the controller is to build: it must lie there.

    :arg or_host: whether the host could build it, too.
    """
    if source.get("image") is not None:
        return "controller has nothing to build, since source.image is built already; leave it out"
    mend = f"build in your CI and bring the image by source.image{', or set image.build_on: host' if or_host else ''}"
    if source.get("repo") is not None:
        return f"controller needs the source there, and of source.repo the controller has no checkout; {mend}"
    if "://" in (source.get("archive") or ""):
        return f"controller needs the source there, and source.archive is an address that the host fetches; {mend}"
    return None


def private_address(text: str) -> Wrong:
    """Judge the address at which hosts reach each other."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"has the address {text}, which is no IP address"
    if address.is_loopback or address.is_unspecified:
        return f"has the address {text}, which no other host can reach"
    return None


def between(low: float, high: float) -> t.Callable[[float], Wrong]:
    """Return a rule that a number lies between two bounds, both allowed."""
    return lambda number: None if low <= number <= high else f"must lie between {low} and {high}"


def url(text: str, *, plain_http: bool) -> Wrong:
    """Judge the public address of an app."""
    parts = split_url(text)
    if parts is None or not parts.hostname or parts.scheme not in ("http", "https"):
        return "must be an address such as https://api.example.com"
    if parts.username is not None or parts.password is not None:
        return "must not carry credentials"
    if parts.path or parts.query or parts.fragment:
        return "must have no path and no trailing slash"
    if parts.scheme == "http" and not plain_http:
        return "must begin with https:// unless tls.mode is off; the admin's session cookie is refused over plain http"
    return domain_of_url(parts.hostname)


def domain_of_url(host: str) -> Wrong:
    """Judge the host of a public address."""
    wrong = domain(host)
    return f"its host {wrong}" if wrong else None


def service_url(text: str, schemes: tuple[str, ...], *, needs_path: bool) -> Wrong:
    """Judge the address of a managed database or Redis, without ever showing it."""
    parts = split_url(text)
    if parts is None:
        return "is no valid address; percent-encode what is special in the password (: / ? # [ ] @)"
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(scheme + '://' for scheme in schemes)}"
    if not parts.hostname:
        return "names no host; percent-encode what is special in the password (: / ? # [ ] @)"
    if needs_path and not re.fullmatch(r"/[^/]+", parts.path):
        return "must end in the name of the database, such as …:5432/shop"
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        return "holds a blank or control character"
    if parts.password is not None and is_placeholder(unquote(parts.password), anywhere=False):
        return "holds a placeholder as password"
    return None


def split_url(text: str) -> t.Any:
    """Return the parts of an address, or None where it is none."""
    try:
        parts = urlsplit(text)
        _port_is_number = parts.port
    except ValueError:
        return None
    return parts


def repository(text: str) -> Wrong:
    """Judge the address of a Git repository."""
    if re.match(r"[a-z_][a-z0-9_-]*@[A-Za-z0-9.-]+:[^\s]+\Z", text):
        return None
    parts = split_url(text)
    if parts is None or parts.scheme not in ("https", "ssh", "git", "http", "file") or (parts.scheme != "file" and not parts.hostname):
        return "must be https://…, ssh://… or git@host:path"
    if parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https")):
        return "must not carry credentials; give the host a deploy key or a credential helper"
    if parts.scheme in ("http", "git"):
        return f"is fetched over {parts.scheme}://, which proves nothing about its origin; use https:// or ssh://"
    return None


def version(text: str) -> Wrong:
    """Judge a branch, tag or commit."""
    if text.strip().lower() in FLOATING or not text.strip():
        return "is a floating word; name a branch, a tag or a commit"
    if not re.fullmatch(r"[A-Za-z0-9._/+@-]+", text) or text.startswith("-") or ".." in text:
        return "is no name of a branch, tag or commit"
    return None


def relative(text: str) -> Wrong:
    """Judge a directory inside a release."""
    if text.startswith(("/", "~")):
        return "must be relative; an absolute path leaves the release"
    if ".." in text.split("/"):
        return "must not climb out of the release with .."
    if not text.strip() or re.search(r"[\s\x00-\x1f'\"\\$`*?]", text):
        return "must be a plain relative path without blanks and special characters"
    return None


def relative_pattern(text: str) -> Wrong:
    """Judge a directory inside a release whose parents may be patterns."""
    return relative(text.replace("*", "x").replace("?", "x"))


def web_path(text: str) -> Wrong:
    """Judge a path of a request, which ends up in Nginx's configuration."""
    if not text.startswith("/"):
        return "must begin with /"
    if not re.fullmatch(r"/[A-Za-z0-9._~!&()*+,=:@%/-]*(?:\?[A-Za-z0-9._~&+,=:@%/-]*)?", text) or ".." in text.split("/"):
        return "holds characters that a path of an address cannot hold"
    return None


def prefix(text: str) -> Wrong:
    """Judge a path prefix."""
    return web_path(text) or ("must have no query" if "?" in text else None)


def email(text: str) -> Wrong:
    """Judge an e-mail address."""
    if not _EMAIL.match(text) or domain(text.rsplit("@", 1)[1].lower()):
        return "is no e-mail address"
    return None


def sql_name(text: str) -> Wrong:
    """Judge the name of a database or role."""
    if not _SQL_NAME.match(text):
        return "must be 1 to 63 small letters, digits and underscores, not beginning with a digit"
    if text in ("postgres", "template0", "template1", "public") or text.startswith("pg_"):
        return "belongs to PostgreSQL itself"
    return None


def extension(text: str) -> Wrong:
    """Judge the name of an extension."""
    return None if _EXTENSION.match(text) else "is no name of a PostgreSQL extension"


def command(words: list[str]) -> Wrong:
    """Judge a command."""
    if not words:
        return "is an empty list"
    if any(not word or re.search(r"[\x00\r\n]", word) for word in words):
        return "has a word that is empty or holds a line break"
    if len(words) == 1 and re.search(r"\s", words[0]):
        return "is one word with blanks in it; write a list with one word each, since no shell splits it"
    return None


def process_command(words: list[str], *, listens: bool = True) -> Wrong:
    """Judge the command of a process that must receive signals itself.

    :arg listens: whether it has a place that its words can hold.
    """
    wrong = command(words)
    if wrong:
        return wrong
    if words[0].rsplit("/", 1)[-1] in PACKAGE_MANAGERS:
        return "starts a package manager, which does not pass signals on; start the JavaScript file with node"
    if "node_modules/.bin/" in words[0] or (len(words) > 1 and "node_modules/.bin/" in words[1]):
        return "starts from node_modules/.bin, which holds shell scripts with pnpm; start the package's JavaScript file with node"
    held = [found[1] for found in map(_PLACEHOLDER.match, words) if found]
    unknown = next((name for name in held if name not in PLACES), None)
    if unknown:
        return f"holds {{{unknown}}}, which nobody replaces; there are {{host}} and {{port}}"
    return f"holds {{{held[0]}}}, but the process has no port; give it `health`, or `port`" if held and not listens else None


def admin_command(words: list[str]) -> Wrong:
    """Judge the command that makes the first admin user."""
    wrong = command(words)
    if wrong:
        return wrong
    if words[0] != "node":
        return "must begin with node, which gets the password without showing it in the list of processes"
    missing = [word for word in ("{email}", "{password}") if not any(word in part for part in words)]
    return f"lacks {' and '.join(missing)}, which stand for the address and the generated password" if missing else None


def regex(text: str) -> Wrong:
    """Judge a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        return f"is no regular expression: {error}"
    return None if text else "is empty and would match every line"


def env_key(text: str) -> Wrong:
    """Judge the name of an environment variable."""
    if not _ENV_KEY.match(text):
        return "the name of a variable holds letters, digits and underscores only and begins with no digit"
    return None


def env_text(value: t.Any) -> tuple[str, Wrong]:
    """Return a value of the environment as text, and what is wrong with it."""
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if isinstance(value, (int, float)):
        return str(value), None
    if isinstance(value, list):
        parts = []
        for item in value:
            if isinstance(item, (list, dict)) or item is None:
                return "", "must be a list of plain values"
            text, wrong = env_text(item)
            if wrong:
                return "", wrong
            if "," in text:
                return "", "has an item with a comma in it, which would split it"
            parts.append(text.strip())
        return ",".join(parts), None
    if not isinstance(value, str):
        return "", f"must be text, a number, a boolean or a list, is {'a mapping' if isinstance(value, dict) else 'null'}"
    if "\x00" in value:
        return "", "holds a NUL character"
    if "\n" in value or "\r" in value:
        return "", "holds a line break; encode it (base64, or the two characters \\n) and let the app decode it"
    return value, None


def looks_secret(key: str) -> bool:
    """Tell whether a variable of this name holds a secret (and must not be shown)."""
    return bool(_STRICT_SECRET.search(key) or (_LOOSE_SECRET.search(key) and not _PUBLIC_KEY.search(key)))


def carries_password(text: str) -> bool:
    """Tell whether a value is an address with a password in it."""
    parts = split_url(text) if "://" in text else None
    return bool(parts and parts.password)


def secrets_in(env: t.Mapping[str, str]) -> list[str]:
    """Return the variables of an environment that must not be shown."""
    return [key for key, value in env.items() if looks_secret(key) or carries_password(value)]


def is_placeholder(text: str, *, anywhere: bool) -> bool:
    """Tell whether a secret is a word out of an example, alone (with digits perhaps) or anywhere in the text."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    if not letters or len(set(text)) == 1 or (text.startswith("<") and text.endswith(">")):
        return True
    if letters.strip("0123456789") in _PLACEHOLDERS or letters in _PLACEHOLDERS or letters.strip("0123456789") in _ALONE:
        return True
    return anywhere and any(word in letters for word in _PLACEHOLDERS)


def secret(key: str, text: str, *, min_length: int, foreign: bool) -> Wrong:
    """Judge the value of a variable by its name; the answer never holds the value."""
    if not looks_secret(key) or (not text and _RETIRED.search(key)):
        return None
    strict = bool(_STRICT_SECRET.search(key)) and not foreign
    if not text:
        return "is empty"
    if is_placeholder(text, anywhere=strict):
        return "is a placeholder; leave it out to have it generated, or take it from the vault"
    if not strict:
        return None
    if len(text) < min_length:
        return f"is too short for a secret: {len(text)} characters, at least {min_length} are needed (a third party's goes into secrets.foreign)"
    if len(set(text)) < 8:
        return "has too little variety for a secret: fewer than 8 different characters"
    if _period(text) <= len(text) // 2:
        return "repeats itself; a secret must be random"
    if _longest_run(text) >= 10:
        return "holds a row of neighbouring characters (0123456789…); a secret must be random"
    return None


def _period(text: str) -> int:
    for length in range(1, len(text)):
        if text == (text[:length] * (len(text) // length + 1))[: len(text)]:
            return length
    return len(text)


def _longest_run(text: str) -> int:
    longest = run = 1
    for before, after in zip(text, text[1:]):
        run = run + 1 if ord(after) - ord(before) == 1 else 1
        longest = max(longest, run)
    return longest


def origins(text: str) -> Wrong:
    """Judge a comma-joined list of CORS origins the way Medusa reads it: literally, or as a regular expression between slashes."""
    if not text.strip():
        return "is empty, so every browser is refused; leave it out to have it derived"
    for part in text.split(","):
        wrong = origin(part)
        if wrong:
            return wrong
    return None


def origin(text: str) -> Wrong:
    """Judge one CORS origin."""
    if not text.strip():
        return "has an empty origin between two commas"
    if text != text.strip() or re.search(r"\s", text):
        return f"has a blank around the origin {text.strip()}, which then never matches; write a list, or commas without blanks"
    pattern = _REGEX.match(text) if text.startswith("/") else None
    if pattern:
        body = pattern.group("body")
        wrong = regex(body)
        if wrong:
            return wrong
        if not body.startswith("^") or not body.endswith("$") or body.endswith("\\$"):
            return f"the expression {text} is not anchored, so it admits foreign origins that contain it; write /^…$/"
        return None
    if text == "*":
        return "* admits every origin (or none, with credentials); name the origins"
    if "*" in text:
        return f"{text} is compared literally and never matches; write the expression {wildcard_regex(text)}"
    match = _ORIGIN.match(text)
    if not match:
        return f"{text} is no origin; write scheme and name in small letters without path or trailing slash, such as https://shop.example.com"
    if (match.group("scheme"), match.group("port")) in (("https", "443"), ("http", "80")):
        return f"{text} names the default port, which browsers leave out, so it never matches"
    return None


def wildcard_regex(text: str) -> str:
    """Return the anchored expression for an origin with wildcards."""
    body = re.escape(text).replace(r"\*", "[a-z0-9-]+").replace("/", r"\/").replace(r"\-", "-").replace(r"\:", ":")
    body = body.replace(r"\[a-z0-9-]\+", "[a-z0-9-]+")
    return f"/^{body}$/"
