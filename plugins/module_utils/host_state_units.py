# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd: what they are, what they have loaded, and what must be done to them."""

from __future__ import annotations

import typing as t

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "InvocationID",
    "ActiveEnterTimestampMonotonic",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "Result",
)
_ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias", "transient")
Files = dict[str, list[t.Any]]


def parse_show(text: str, names: t.Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the properties of each unit from one ``systemctl show`` of them all; blocks come in the order of the names."""
    blocks = [block for block in text.strip("\n").split("\n\n") if block.strip()]
    units = {}
    for name, block in zip(names, blocks):
        units[name] = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
    return units


def stale(files: Files, loaded: t.Mapping[str, str] | None, active_since: float) -> list[str]:
    """Return the files that are not what a running unit has loaded.

    :arg files: path to ``[digest, mtime]`` of what lies on disk now.
    :arg loaded: path to digest as recorded for this very invocation of the unit; without it the times decide.
    :arg active_since: when the unit became active, in seconds since the epoch.
    """
    if loaded is None:
        return sorted(path for path, (_digest, mtime) in files.items() if mtime > active_since)
    changed = {path for path, (digest, _mtime) in files.items() if loaded.get(path) != digest}
    return sorted(changed | (set(loaded) - set(files)))


def loaded_by(record: t.Mapping[str, t.Any] | None, properties: t.Mapping[str, str], key: str) -> t.Mapping[str, str] | None:
    """Return what a record says that a unit has loaded, if it speaks of the invocation that runs now."""
    if record is None or not properties.get("InvocationID") or record.get("invocation") != properties["InvocationID"]:
        return None
    return record.get(key)


def skipped(properties: t.Mapping[str, str]) -> bool:
    """Tell whether the last start of a unit was skipped by its own conditions (time synchronisation in a container, say)."""
    return (
        properties.get("ConditionResult") == "no"
        and properties.get("ConditionTimestampMonotonic", "0") not in ("", "0")
        and properties.get("ActiveState") == "inactive"
    )


def plan(unit: t.Mapping[str, t.Any], properties: t.Mapping[str, str], restart: t.Sequence[str], reload: t.Sequence[str]) -> dict[str, t.Any] | None:
    """Return what to do to a unit as ``{before, after, because}``, or None.

    :arg restart: files that only a restart loads and that are not loaded.
    :arg reload: files that a reload loads and that are not loaded.
    """
    before: dict[str, t.Any] = {}
    after: dict[str, t.Any] = {}
    because: list[str] = []
    file_state = properties.get("UnitFileState", "")
    masked = properties.get("LoadState") == "masked" or file_state.startswith("masked")
    if unit["masked"] is not None and unit["masked"] != masked:
        before["masked"], after["masked"] = masked, unit["masked"]
    enabled = file_state in _ENABLED
    if unit["enabled"] is True and not enabled:
        before["enabled"], after["enabled"] = False, True
    if unit["enabled"] is False and file_state == "enabled":
        before["enabled"], after["enabled"] = True, False
    state = properties.get("ActiveState", "inactive")
    if unit["state"] == "stopped":
        if state not in ("inactive", "failed"):
            before["state"], after["state"] = state, "stopped"
    elif unit["state"] == "started" and not skipped(properties) and state not in ("active", "reloading", "refreshing"):
        before["state"], after["state"] = state, "started"
    elif state in ("active", "reloading", "refreshing") and (restart or reload):
        because = list(restart or reload)
        before["state"], after["state"] = state, "restarted" if restart else "reloaded"
    if not after:
        return None
    return {"before": before, "after": after, "because": because}


_VERBS = {"started": "start", "stopped": "stop", "restarted": "restart", "reloaded": "reload"}


def commands(name: str, after: t.Mapping[str, t.Any]) -> list[list[str]]:
    """Return the calls of systemctl that bring a unit where plan() wants it, in their order.

    :arg after: that answer of plan().
    """
    verbs = []
    if "masked" in after:
        verbs.append("mask" if after["masked"] else "unmask")
    if "enabled" in after:
        verbs.append("enable" if after["enabled"] else "disable")
    if "state" in after:
        verbs.append(_VERBS[after["state"]])
    return [["systemctl", "--quiet", "--no-ask-password", verb, "--", name] for verb in verbs]
