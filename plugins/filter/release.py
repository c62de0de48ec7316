# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role release makes of the documents that it gets; the documentation of each filter stands beside this file."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils import swarm
from ansible_collections.anchorage.vps.plugins.module_utils.layout import DOCUMENTS, SECRETS, STATE, Layout
from ansible_collections.anchorage.vps.plugins.module_utils.runtime import PM2, SWARM, name_of

Data = dict[str, t.Any]

COMMON = (("/etc/anchorage", "0755"), (DOCUMENTS, "0700"), (SECRETS, "0700"), (STATE, "0755"), (f"{STATE}/slots", "0755"), ("/var/cache/anchorage", "0755"))


def release_directories(documents: list[Data]) -> list[Data]:
    """Return the directories that the engine works in."""
    found = [{"path": path, "mode": mode} for path, mode in COMMON]
    for document in documents:
        layout = Layout(document["name"], document["home"])
        owned = {"group": document["group"], "mode": "0750"}
        found += [{"path": path, "mode": "0755"} for path in (layout.state, layout.slot_directory)]
        found += [{"path": layout.home, **owned}, {"path": layout.shared, "owner": document["user"], **owned}]
        found += [{"path": f"{layout.home}/{name}", "mode": "0755"} for name in ("builds", "deps", "releases", "work")]
        found += [{"path": layout.incoming, "mode": "0700"}, {"path": layout.logs, "mode": "0700"}]
    swarmed = [document["name"] for document in documents if name_of(document) == SWARM]
    if swarmed:
        found += [{"path": path, "mode": "0755"} for path in ("/usr/local/lib/anchorage", swarm.LEAVING)]
    # Whatever user a task has on this node, it may leave a file there, and list none.
    return found + [{"path": f"{swarm.LEAVING}/{name}", "mode": "1733"} for name in swarmed]


def release_leaving(documents: list[Data]) -> list[str]:
    """Return the files by which tasks of a Swarm say on their node that they are about to leave, by app and port."""
    return [f"{document['name']}/{port}" for document in documents if name_of(document) == SWARM for port in swarm.leaving_ports(document)]


def release_accounts(documents: list[Data]) -> Data:
    """Return groups and users of those apps that no other role makes a user for: what runs in containers has files on the host too."""
    own = [document for document in documents if name_of(document) != PM2]
    account = {"create_home": False, "shell": "/usr/sbin/nologin", "system": True, "password_lock": True}
    return {
        "groups": [{"name": document["group"], "system": True} for document in own],
        "users": [{"name": document["user"], "group": document["group"], "home": document["home"], **account} for document in own],
    }


def release_sources(documents: list[Data], base: str) -> dict[str, str]:
    """Return the sources that lie on the controller, by app, of those whose source is to be released."""
    found = {}
    for document in documents:
        source = document["source"]
        if document.get("keep_source") or document.get("at_rest"):
            continue
        if source["kind"] == "path":
            found[document["name"]] = os.path.normpath(os.path.join(base, os.path.expanduser(source["path"])))
        elif source["kind"] == "archive" and "://" not in source["archive"]:
            found[document["name"]] = os.path.normpath(os.path.join(base, os.path.expanduser(source["archive"])))
    return found


#: Where playbooks register what ran steps.
REGISTERS = ("release_staged", "release_migrated", "release_activated", "release_rolled_back")


def deploy_results(variables: t.Any) -> Data:
    """Return what a run planned and did on a host, out of its variables: previews, the state of its apps, the results of the tasks that ran steps.

    A host that was not reached has none of them.
    """
    asked, preview = variables.get("anchorage_status") or {}, variables.get("release_preview") or {}
    status = asked if "status" in asked else variables.get("release_staged") or {}
    steps = [variables[name] for name in REGISTERS if variables.get(name)]
    failures = [str(variables[name]) for name in ("rollout_failure", "rollout_lost") if name in variables]
    return {
        "preview": preview.get("apps") or {},
        "status": status.get("status") or [],
        "steps": steps,
        **({"failure": "; ".join(failures)} if failures else {}),
    }


class FilterModule:
    """Filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {function.__name__: function for function in (release_accounts, release_directories, release_leaving, release_sources, deploy_results)}
