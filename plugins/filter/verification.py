# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What verify.yml asks of each app, out of the documents and the state of the releases; documentation stands beside this file."""

from __future__ import annotations

import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils.layout import Layout
from ansible_collections.anchorage.vps.plugins.module_utils.release_plan import instances, listen_address

Data = dict[str, t.Any]


def verification_http(documents: list[Data], state: list[Data], sites: list[Data], ca_path: str = "") -> list[Data]:
    """Return the addresses that must answer: every listening process of the live slot, and the sites of this host."""
    live = {entry["app"]: entry for entry in state}
    asked = []
    for document in documents:
        entry = live.get(document["name"])
        if entry is None or entry["slot"] is None:
            continue
        for instance in instances(document, entry["slot"]):
            health = instance.process.get("health")
            if instance.port is None or not health or not health.get("path"):
                continue
            asked.append(
                {
                    "name": instance.name,
                    "url": f"http://{listen_address(document, instance.process)}:{instance.port}{health['path']}",
                    "status": [health["status"]],
                    "body": health.get("body") or None,
                    "connect_to": None,
                    "ca_path": None,
                    "identity": {"environment": {"ANCHORAGE_RELEASE": entry["live"], "ANCHORAGE_PROCESS": instance.name}},
                }
            )
    for site in sites:
        if not site.get("health_path"):
            continue
        secure = site["tls"]["mode"] != "off"
        asked.append(
            {
                "name": f"{site['name']} (public)",
                "url": f"{'https' if secure else 'http'}://{site['domains'][0]}{site['health_path']}",
                "status": [200],
                "body": None,
                "connect_to": f"127.0.0.1:{443 if secure else 80}",
                "ca_path": ca_path or None,
                "identity": None,
            }
        )
    return asked


def verification_pm2(documents: list[Data], state: list[Data]) -> list[Data]:
    """Return what PM2 must run for each app: the processes of the live slot, from the live release's tree."""
    live = {entry["app"]: entry for entry in state}
    asked = []
    for document in documents:
        entry = live.get(document["name"]) or {"slot": None, "live": None}
        layout = Layout(document["name"], document["home"])
        wanted = instances(document, entry["slot"]) if entry["slot"] else []
        asked.append(
            {
                "name": document["name"],
                "user": document["user"],
                "pm2_home": layout.pm2_home,
                "processes": [
                    {
                        "name": instance.name,
                        "ports": [instance.port] if instance.port is not None else [],
                        "cwd": f"{layout.release(entry['live'])}/app",
                        "environment": {"ANCHORAGE_RELEASE": entry["live"]},
                        "loopback_only": listen_address(document, instance.process) == "127.0.0.1",
                    }
                    for instance in wanted
                ],
            }
        )
    return asked


#: What verify.yml registers, and what is added to the name of the app there.
REGISTERS = {"anchorage_postgresql": " database", "anchorage_redis": " Redis", "anchorage_pm2": " processes", "anchorage_http": ""}


def verdicts(answers: t.Any, suffix: str = "") -> list[Data]:
    """Return the verdicts in what a looped health task registered; a task that broke is a red one."""
    found = []
    for answer in (answers or {}).get("results", []):
        if answer.get("skipped"):
            continue
        item = answer.get("item")
        name = item["name"] if isinstance(item, dict) else item
        checks = answer.get("checks") or []
        warned = any(check["verdict"] == "warn" for check in checks)
        grade = "red" if not answer.get("healthy") else "amber" if warned else "green"
        summary = answer.get("summary") or answer.get("msg") or "no answer"
        found.append({"name": f"{name}{suffix}", "grade": grade, "summary": summary, "checks": checks})
    return found


def all_verdicts(variables: t.Any) -> list[Data]:
    """Return all verdicts of a host, out of its variables; a host that did not answer is a red one."""
    if not any(name in variables for name in REGISTERS):
        return [{"name": "host", "grade": "red", "summary": "the host was not reached", "checks": []}]
    return [verdict for name, suffix in REGISTERS.items() if name in variables for verdict in verdicts(variables[name], suffix)]


class FilterModule:
    """Filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {function.__name__: function for function in (verification_http, verification_pm2, all_verdicts)}
