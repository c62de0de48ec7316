# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each Redis instance is told: its directives and its users, as state of the host."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .encoders import redis_password
from .errors import AnchorageError

HEADER = "# Managed by anchorage.vps.redis"
SHORTEST_PASSWORD = 12
ADMINISTRATOR = "anchorage"
# Everything with keys, channels and scripts. Of what Redis calls dangerous only what clients ask: ioredis and BullMQ read INFO when they
# connect, BullMQ lists its workers with CLIENT LIST, and its check of the eviction policy may use CONFIG GET.
RULES = ("resetchannels", "~*", "&*", "+@all", "-@dangerous", "+info", "+client|list", "+config|get")
# Off, so nobody is this user; but with every right, since Redis replays its append-only file under it and drops each transaction and each
# script whose commands the user may not run. With "reset off" alone, a restart lost all that BullMQ had written (tried, 8.0.2).
DEFAULT_USER = "user default reset off resetpass ~* &* +@all"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,47}")
_RULE = re.compile(r"[+-][a-z@|_-]+|[~&%][\x21-\x7e]+")
_PATH = re.compile(r"/[A-Za-z0-9._/-]+")
_DIRECTIVE = re.compile(r"[a-z][a-z0-9-]*")
_SAVE = re.compile(r"([1-9][0-9]* [1-9][0-9]*)( [1-9][0-9]* [1-9][0-9]*)*|")
_OURS = frozenset({"aclfile", "requirepass", "user", "include", "dir", "daemonize", "supervised", "unixsocket"})


def _wrong(key: str, problem: str, next_step: str) -> t.NoReturn:
    raise AnchorageError(f"{key} {problem}.", next_step=next_step)


def users(where: str, entries: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """Return the lines of an ACL file. Passwords are in it as SHA-256 only, and the default user is off."""
    lines = [DEFAULT_USER]
    seen = {"default", ADMINISTRATOR}
    for index, entry in enumerate(entries):
        key = f"{where}.users[{index}]"
        name, passwords = entry["name"], [entry["password"], *(entry.get("other_passwords") or [])]
        if not _USER.fullmatch(name) or name in seen:
            _wrong(f"{key}.name", f"'{name}' is taken or no name for a user", "Use small letters, digits, - and _, each name once.")
        if any(len(password) < SHORTEST_PASSWORD for password in passwords):
            _wrong(f"{key}.password", f"is shorter than {SHORTEST_PASSWORD} characters", "Give the user a longer password.")
        further = entry.get("rules") or []
        for rule in further:
            if not _RULE.fullmatch(rule):
                _wrong(f"{key}.rules", f"has '{rule}', which is no rule of an ACL", "Write rules such as +keys or -@blocking.")
        seen.add(name)
        digests = [redis_password(password, f"{key}.password") for password in passwords]
        lines.append(" ".join(["user", name, "reset", "on", *digests, *RULES, *further]))
    return lines


def directives(where: str, instance: t.Mapping[str, t.Any]) -> list[str]:
    """Return the lines of an instance's configuration file."""
    name = instance["name"]
    bind = instance.get("bind") or ["127.0.0.1"]
    for address in bind:
        try:
            ipaddress.ip_address(address.lstrip("-"))
        except ValueError:
            _wrong(f"{where}.bind", f"has '{address}', which is no address", "Write addresses of this host, such as 127.0.0.1.")
    save = instance.get("save", "900 1 300 10 60 10000")
    if not _SAVE.fullmatch(save):
        _wrong(f"{where}.save", f"'{save}' is no list of pairs", "Write pairs of seconds and changes, such as 900 1 300 10.")
    linked = bool(instance.get("tls_port"))
    merged: dict[str, t.Any] = {
        "bind": " ".join(bind),
        **({"include": links_path(name)} if linked else {"port": instance["port"]}),
        "protected-mode": True,
        "unixsocket": f"/run/redis-{name}/redis.sock",
        "unixsocketperm": 700,
        "aclfile": f"/run/redis-{name}/users.acl",
        "pidfile": f"/run/redis-{name}/redis-server.pid",
        "dir": f"/var/lib/redis/{name}",
        "logfile": '""',
        "maxmemory": f"{instance.get('maxmemory_mb', 256)}mb",
        "maxmemory-policy": instance.get("policy", "noeviction"),
        "appendonly": instance.get("appendonly", True),
        "appendfsync": "everysec",
        "save": save or '""',
        "lazyfree-lazy-eviction": True,
        "lazyfree-lazy-expire": True,
    }
    for key, value in (instance.get("settings") or {}).items():
        if not _DIRECTIVE.fullmatch(key) or key in _OURS:
            _wrong(f"{where}.settings", f"has '{key}', which is no directive or belongs to the role", "Take it out.")
        merged[key] = value
    lines = []
    for key, value in merged.items():
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        if not text or any(ord(character) < 32 for character in text):
            _wrong(f"{where}.settings.{key}", "is empty or holds a control character", 'Give it on one line; "" (with quotes) is an empty value.')
        lines.append(f"{key} {text}")
    return lines


def links_path(name: str) -> str:
    """Return the file that says how other hosts reach an instance. It is loaded without a restart."""
    return f"/etc/redis/redis-{name}-links.conf"


def links(where: str, instance: t.Mapping[str, t.Any]) -> list[str]:
    """Return the lines of that file. Key and certificate are in one file, so what is loaded anew always belongs together."""
    path = instance.get("tls_file") or ""
    if not _PATH.fullmatch(path):
        _wrong(f"{where}.tls_file", f"'{path}' is no absolute path of plain characters", "Name the PEM file that holds key and certificate.")
    told = {"tls-cert-file": path, "tls-key-file": path, "tls-auth-clients": "no", "tls-protocols": '"TLSv1.2 TLSv1.3"', "tls-port": instance["tls_port"]}
    return [f"{key} {value}" for key, value in {**told, "port": instance["port"] if instance.get("plain") else 0}.items()]


def _file(path: str, lines: t.Iterable[str], *, group: str, secret: bool = False) -> dict[str, t.Any]:
    content = "\n".join([HEADER, *lines, ""])
    return {"path": path, "content": content, "owner": "root", "group": group, "mode": "0640", "secret": secret}


def configuration(instances: t.Iterable[t.Mapping[str, t.Any]], *, restart_on: t.Sequence[str] = ()) -> dict[str, list[dict[str, t.Any]]]:
    """Return the directories, files and units of all instances, as host_state takes them.

    :arg restart_on: files that every instance loads when it starts.
    """
    state: dict[str, list[dict[str, t.Any]]] = {"directories": [], "files": [], "units": []}
    names: set[str] = set()
    ports: dict[int, str] = {}
    for index, instance in enumerate(instances):
        where = f"redis_instances[{index}]"
        name = instance["name"]
        if not _NAME.fullmatch(name) or name in names:
            _wrong(f"{where}.name", f"'{name}' is taken or no name for an instance", "Use small letters, digits and dashes, each name once.")
        for key in ("port", *(["tls_port"] if instance.get("tls_port") else [])):
            port = int(instance[key])
            if not 1024 <= port <= 65535 or port in ports:
                taken = f"is taken by {ports[port]}" if port in ports else "is not between 1024 and 65535"
                _wrong(f"{where}.{key}", f"{port} {taken}", "Give the instance a port of its own.")
            ports[port] = name
        names.add(name)
        settings, acl = f"/etc/redis/redis-{name}.conf", f"/etc/redis/redis-{name}.acl"
        state["directories"].append({"path": f"/var/lib/redis/{name}", "owner": "redis", "group": "redis", "mode": "0750"})
        state["files"] += [
            _file(settings, directives(where, instance), group="redis"),
            _file(acl, users(where, instance.get("users") or []), group="root", secret=True),
        ]
        if instance.get("tls_port"):
            state["files"].append(_file(links_path(name), links(where, instance), group="redis"))
        state["units"].append(
            {
                "name": f"redis-server@{name}.service",
                "enabled": True,
                "state": "started",
                "restart_on": [settings, *restart_on],
                "reload_on": [acl, *([links_path(name), instance["tls_file"]] if instance.get("tls_port") else [])],
            }
        )
    return state
