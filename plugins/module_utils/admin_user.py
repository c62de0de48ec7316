# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an app's first admin user once, without its password in a command line."""

from __future__ import annotations

import json
import typing as t

from . import runtimes
from .app import App, Log
from .errors import AnchorageError
from .release_plan import common_environment

#: Runs a script of Node with a command line that nobody else sees: it comes by the environment, which is its owner's.
WRAPPER = (
    "const w = JSON.parse(process.env.ANCHORAGE_ARGV); delete process.env.ANCHORAGE_ARGV;"
    "w[0] = require('path').resolve(w[0]); process.argv = [process.execPath, ...w]; require(w[0]);"
)

#: What is printed of a user that is there already (Medusa then returns 1).
KNOWN = "already exists"


def wanted(app: App) -> bool:
    """Tell whether the user still has to be made."""
    admin = app.document.get("admin")
    return bool(admin and admin.get("command")) and app.journal.data.get("admin") != admin["email"]


def ensure(app: App, log: Log, release: str) -> bool:
    """Make the user if it was not made yet. Returns whether anything was done.

    :raises AnchorageError: when it cannot be made; the release serves all the same.
    """
    if not wanted(app):
        return False
    admin, password = app.document["admin"], app.document["admin_password"]
    words = [word.replace("{email}", admin["email"]).replace("{password}", password) for word in admin["command"]]
    if words[0] != "node":
        raise AnchorageError(f"apps.{app.name}.admin.command must start with the word node.", live=app.living())
    environment = {**common_environment(app.document), "ANCHORAGE_ARGV": json.dumps(words[1:])}
    output: list[str] = []
    rc = runtimes.of(app).once(release, "admin", ["node", "-e", WRAPPER], environment, output.append, memory_mb=None, seconds=120, forget=True)
    if rc != 0 and not any(KNOWN in line for line in output):
        last = t.cast(str, next((line for line in reversed(output) if line.strip()), "no output")).replace(password, "(hidden)")
        raise AnchorageError(
            f"The admin user {admin['email']} of {app.name} could not be made (code {rc}): {last[:300]}",
            what="admin user",
            live=app.living(),
            next_step="Run deploy.yml again; the release itself is live.",
        )
    app.journal.data["admin"] = admin["email"]
    app.journal.note("admin", release, email=admin["email"])
    log.say(f"{app.name}: admin user {admin['email']} is there; its password is admin_password in /etc/anchorage/secrets/{app.name}.json")
    return True
