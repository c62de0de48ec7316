# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host_state document may say, and its one normal form."""

from __future__ import annotations

import posixpath
import re
import typing as t

from .errors import AnchorageError

Spec = dict[str, dict[str, t.Any]]

_OWNED: Spec = {
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}

ARGUMENT_SPEC: Spec = {
    "repositories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "uris": {"type": "list", "elements": "str", "required": True},
            "suites": {"type": "list", "elements": "str", "required": True},
            "components": {"type": "list", "elements": "str", "default": []},
            "types": {"type": "list", "elements": "str", "default": ["deb"], "choices": ["deb", "deb-src"]},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "signed_by": {"type": "str", "no_log": False},
            "fingerprint": {"type": "str"},
            "enabled": {"type": "bool", "default": True},
        },
    },
    "packages": {"type": "list", "elements": "str", "default": []},
    "packages_absent": {"type": "list", "elements": "str", "default": []},
    "groups": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "gid": {"type": "int"},
            "system": {"type": "bool", "default": False},
        },
    },
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "group": {"type": "str"},
            "groups": {"type": "list", "elements": "str", "default": []},
            "home": {"type": "str"},
            "create_home": {"type": "bool", "default": True},
            "shell": {"type": "str"},
            "system": {"type": "bool", "default": False},
            "password_lock": {"type": "bool", "no_log": False},
            "authorized_keys": {"type": "list", "elements": "str", "no_log": False},
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "str", "required": True}, **_OWNED, "mode": {"type": "str", "default": "0755"}},
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "template": {"type": "str"},
            "content": {"type": "str", "no_log": False},
            "src": {"type": "str"},
            **_OWNED,
            "mode": {"type": "str", "default": "0644"},
            "secret": {"type": "bool", "default": False, "no_log": False},
            "vars": {"type": "dict", "default": {}},
        },
    },
    "links": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "str", "required": True}, "target": {"type": "str", "required": True}},
    },
    "absent": {"type": "list", "elements": "str", "default": []},
    "validate": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "when_changed": {"type": "list", "elements": "str", "required": True},
        },
    },
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "enabled": {"type": "bool"},
            "state": {"type": "str", "choices": ["started", "stopped"]},
            "masked": {"type": "bool"},
            "restart_on": {"type": "list", "elements": "str", "default": []},
            "reload_on": {"type": "list", "elements": "str", "default": []},
        },
    },
    "confirm": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "undo": {"type": "list", "elements": "list", "default": []},
            "seconds": {"type": "int", "default": 120},
        },
    },
}

_MODE = re.compile(r"0?[0-7]{3,4}")
_NAME = re.compile(r"[a-z_][a-z0-9_.-]*\$?")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~*?-]+)?")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONFIRM = re.compile(r"[a-z0-9][a-z0-9-]*")
_UNIT_TYPES = ("service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope")


def unknown_keys(document: t.Any, spec: Spec | None = None, where: str = "") -> list[str]:
    """Return one sentence for each key that no spec knows, at any depth."""
    spec = ARGUMENT_SPEC if spec is None else spec
    found: list[str] = []
    if not isinstance(document, dict):
        return found
    for key, value in document.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in spec:
            found.append(f"{path} is not a key of host_state; it may be one of {', '.join(sorted(spec))}")
            continue
        options = spec[key].get("options")
        if options is None:
            continue
        if spec[key]["type"] == "dict":
            found += unknown_keys(value, options, path)
        elif isinstance(value, (list, tuple)):
            for index, element in enumerate(value):
                found += unknown_keys(element, options, f"{path}[{index}]")
    return found


def unquoted_modes(document: t.Mapping[str, t.Any]) -> list[str]:
    """Return one sentence for each mode that YAML turned into a number (0644 unquoted is 420)."""
    found = []
    for kind in ("directories", "files"):
        elements = document.get(kind)
        for index, element in enumerate(elements if isinstance(elements, (list, tuple)) else []):
            mode = element.get("mode") if isinstance(element, dict) else None
            if mode is not None and not isinstance(mode, str):
                found.append(f'{kind}[{index}].mode must be a quoted string such as "0644"')
    return found


def unit_name(name: str) -> str:
    """Return a unit's full name; a bare name means a service."""
    return name if name.rpartition(".")[2] in _UNIT_TYPES and "." in name else f"{name}.service"


def _path(value: str, where: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise AnchorageError(f"{where} must be an absolute path, not {value!r}")
    if ".." in value.split("/"):
        raise AnchorageError(f"{where} must not contain '..': {value}")
    return posixpath.normpath(value)


def _mode(value: str, where: str) -> str:
    if not _MODE.fullmatch(value):
        raise AnchorageError(f'{where} must be an octal string such as "0644", not {value!r}')
    return f"{int(value, 8):04o}"


def _matching(pattern: re.Pattern[str], value: str, where: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise AnchorageError(f"{where} is not {what}: {value!r}")
    return value


def _once(elements: t.Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for where, identity in elements:
        if identity in seen:
            raise AnchorageError(f"{where} says {identity} again, which {seen[identity]} already does")
        seen[identity] = where


def _pattern(value: str, where: str) -> str:
    """Return a path pattern; a trailing slash means the whole tree below."""
    return _path(value, where) + ("/" if value.endswith("/") and value != "/" else "")


def normalise(document: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the normal form of a document whose defaults are filled in; raise on what no type can say.

    :arg document: keys and types as ``ARGUMENT_SPEC`` has them.
    """
    result = {key: document.get(key) for key in ARGUMENT_SPEC}
    for key, option in ARGUMENT_SPEC.items():
        if result[key] is None and option["type"] == "list":
            result[key] = []
    result["repositories"] = [_repository(dict(entry), f"repositories[{index}]") for index, entry in enumerate(result["repositories"])]
    for key in ("packages", "packages_absent"):
        names = [_matching(_PACKAGE, name, f"{key}[{index}]", "a package") for index, name in enumerate(result[key])]
        result[key] = list(dict.fromkeys(names))
    both = {name.partition("=")[0] for name in result["packages"]} & set(result["packages_absent"])
    if both:
        raise AnchorageError(f"packages_absent names {', '.join(sorted(both))}, which packages wants installed")
    for key in ("groups", "users"):
        result[key] = [dict(entry) for entry in result[key]]
        for index, entry in enumerate(result[key]):
            _matching(_NAME, entry["name"], f"{key}[{index}].name", "a user or group name")
    for index, entry in enumerate(result["users"]):
        if entry.get("home"):
            entry["home"] = _path(entry["home"], f"users[{index}].home")
        if entry.get("authorized_keys") is not None:
            entry["authorized_keys"] = _keys(entry["authorized_keys"], f"users[{index}].authorized_keys")
    for key in ("directories", "files", "links"):
        result[key] = [{**entry, "path": _path(entry["path"], f"{key}[{index}].path")} for index, entry in enumerate(result[key])]
        for index, entry in enumerate(result[key]):
            if key != "links":
                entry["mode"] = _mode(entry["mode"], f"{key}[{index}].mode")
    for index, entry in enumerate(result["files"]):
        if len([key for key in ("template", "content", "src") if entry.get(key) is not None]) != 1:
            raise AnchorageError(f"files[{index}] ({entry['path']}) needs exactly one of template, content and src")
    result["absent"] = [_path(path, f"absent[{index}]") for index, path in enumerate(result["absent"])]
    for index, path in enumerate(result["absent"]):
        if path.count("/") < 2:
            raise AnchorageError(f"absent[{index}] is too near the root to be removed: {path}")
    result["validate"] = [
        {**entry, "when_changed": [_pattern(p, f"validate[{index}].when_changed") for p in entry["when_changed"]]}
        for index, entry in enumerate(result["validate"])
    ]
    for index, entry in enumerate(result["validate"]):
        if not entry["command"]:
            raise AnchorageError(f"validate[{index}].command is empty")
    result["units"] = [_unit(dict(entry), f"units[{index}]") for index, entry in enumerate(result["units"])]
    if result["confirm"] is not None:
        confirm = dict(result["confirm"])
        _matching(_CONFIRM, confirm["name"], "confirm.name", "a name of a-z, 0-9 and -")
        confirm["paths"] = [_pattern(path, "confirm.paths") for path in confirm["paths"]]
        confirm["undo"] = [[str(word) for word in command] for command in confirm["undo"]]
        if not 30 <= confirm["seconds"] <= 3600:
            raise AnchorageError("confirm.seconds must lie between 30 and 3600")
        result["confirm"] = confirm
    _once(
        (f"{key}[{index}]", entry["name"])
        for key in ("repositories", "groups", "users", "units")
        for index, entry in enumerate([{"name": f"{key[:-1]} {e['name']}"} for e in result[key]])
    )
    _once((f"{key}[{index}].path", entry["path"]) for key in ("directories", "files", "links") for index, entry in enumerate(result[key]))
    return result


def _repository(entry: dict[str, t.Any], where: str) -> dict[str, t.Any]:
    _matching(_REPOSITORY, entry["name"], f"{where}.name", "a file name")
    if entry.get("fingerprint"):
        entry["fingerprint"] = re.sub(r"[\s:]", "", entry["fingerprint"]).upper()
        if not re.fullmatch(r"[0-9A-F]{40}", entry["fingerprint"]):
            raise AnchorageError(f"{where}.fingerprint must be the 40 hexadecimal digits of the key's fingerprint")
    signed_by = (entry.get("signed_by") or "").strip()
    entry["signed_by"] = signed_by or None
    if signed_by and not signed_by.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----"):
        if re.search(r"\s", signed_by) or not (signed_by.startswith("/") or "://" in signed_by):
            raise AnchorageError(f"{where}.signed_by must be an armored public key, its URL, or the absolute path of a key ring on the host")
        if "://" in signed_by and not entry.get("fingerprint"):
            raise AnchorageError(f"{where}.signed_by is a URL, so {where}.fingerprint must pin the key that it may deliver")
        if signed_by.startswith("/") and entry.get("fingerprint"):
            raise AnchorageError(f"{where}.fingerprint cannot be checked against a key ring on the host; give the key itself in signed_by")
    for key in ("uris", "suites", "components", "architectures"):
        for value in entry[key]:
            if not value or re.search(r"\s", value):
                raise AnchorageError(f"{where}.{key} has a blank in {value!r}")
    return entry


def _keys(keys: t.Sequence[str], where: str) -> list[str]:
    cleaned = []
    for index, key in enumerate(keys):
        line = key.strip()
        if "\n" in line or not re.search(r"(^|\s)(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ +[A-Za-z0-9+/=]{20,}", line):
            raise AnchorageError(f"{where}[{index}] is not one line of an OpenSSH public key")
        cleaned.append(line)
    return cleaned


def _unit(entry: dict[str, t.Any], where: str) -> dict[str, t.Any]:
    entry["name"] = unit_name(entry["name"])
    for key in ("restart_on", "reload_on"):
        entry[key] = [_pattern(path, f"{where}.{key}") for path in entry[key]]
    if entry.get("masked") and (entry.get("enabled") or entry.get("state") == "started"):
        raise AnchorageError(f"{where}.masked is true, so {entry['name']} can be neither enabled nor started")
    return entry
