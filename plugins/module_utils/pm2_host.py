# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PM2's users need on a host: accounts, directories, files and units, from one line of input for each. Pure."""

from __future__ import annotations

import re
import typing as t

from .errors import AnchorageError

Data = dict[str, t.Any]

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_RESERVED = ("root", "postgres", "redis", "www-data", "nobody")


def model(users: t.Iterable[Data], *, home_directory: str, log_directory: str, command: str, restart: bool) -> dict[str, list[Data]]:
    """Return groups, users, directories, files and units for PM2's users.

    :arg home_directory: where the PM2_HOMEs lie.
    :arg log_directory: where the logs lie.
    :arg command: path of the command pm2.
    :arg restart: whether a unit is restarted when its file or the command changed.
    """
    resolved = [resolve(user, home_directory=home_directory, log_directory=log_directory) for user in users]
    names = [user["name"] for user in resolved]
    if len(set(names)) != len(names):
        raise AnchorageError(f"pm2_users: a name stands twice: {', '.join(sorted(names))}.", next_step="Name each user once.")
    directories = [{"path": home_directory}, {"path": log_directory}] if resolved else []
    return {
        "groups": [{"name": user["name"], "system": True} for user in resolved],
        "users": [_account(user) for user in resolved],
        "directories": directories + [directory for user in resolved for directory in _directories(user)],
        "files": [file for user in resolved for file in _files(user)],
        "units": [_unit(user, [command] if restart else None) for user in resolved],
    }


def resolve(user: Data, *, home_directory: str, log_directory: str) -> Data:
    """Return a user with every path and name filled in."""
    name = user["name"]
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise AnchorageError(
            f"pm2_users: '{name}' cannot be an app user.",
            next_step="Use lower-case letters, digits, - and _, 31 at most, and no name of the system's own accounts.",
        )
    home = user.get("home") or f"/srv/{name}"
    if not home.startswith("/") or home.count("/") < 2 or re.search(r"[\s%:\"'\\]", home):
        raise AnchorageError(f"pm2_users: the home '{home}' of {name} is no directory for one app.", next_step=f"Use /srv/{name}.")
    return {
        "name": name,
        "home": home,
        "shared": f"{home}/shared",
        "pm2_home": f"{home_directory}/{name}",
        "logs": f"{log_directory}/{name}",
        "unit": f"pm2-{name}.service",
        "unit_path": f"/etc/systemd/system/pm2-{name}.service",
        "writable_paths": list(user.get("writable_paths") or []),
        "memory_max_mb": int(user.get("memory_max_mb") or 0),
        "below_home": home.startswith(("/home/", "/root/")),
    }


def _account(user: Data) -> Data:
    return {
        "name": user["name"],
        "group": user["name"],
        "home": user["home"],
        "create_home": False,
        "shell": "/usr/sbin/nologin",
        "system": True,
        "password_lock": True,
    }


def _directories(user: Data) -> list[Data]:
    name = user["name"]
    return [
        {"path": user["home"], "owner": "root", "group": name, "mode": "0750"},
        {"path": user["shared"], "owner": name, "group": name, "mode": "0750"},
        {"path": user["pm2_home"], "owner": name, "group": name, "mode": "0700"},
        {"path": user["logs"], "owner": name, "group": name, "mode": "0750"},
    ]


def _files(user: Data) -> list[Data]:
    variables = {"__pm2_user": user}
    return [
        {"path": user["unit_path"], "template": "pm2.service.j2", "vars": variables},
        {"path": f"/etc/logrotate.d/pm2-{user['name']}", "template": "pm2.logrotate.j2", "vars": variables},
    ]


def _unit(user: Data, watched: list[str] | None) -> Data:
    restart_on = [] if watched is None else [user["unit_path"], f"{user['unit_path']}.d/", *watched]
    return {"name": user["unit"], "enabled": True, "state": "started", "restart_on": restart_on}
