# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of an app on a Docker Swarm, as one of its nodes sees it."""

from __future__ import annotations

import typing as t

from . import swarm
from .app import App
from .errors import AnchorageError
from .health import FAIL, WARN, Check, judge
from .swarm_runtime import Swarm

Data = dict[str, t.Any]


def ask(app: App, document: Data, live: str) -> list[Check]:
    """Ask once: is this host a node, do the app's tasks on it run; on the host that leads, are all nodes there, and does each service have its tasks."""
    runtime = Swarm(app.at(live))
    told = runtime.node()
    state = told.get("LocalNodeState") or "inactive"
    cause = f"this host is no node of the Swarm (it is {': '.join(filter(None, [state, told.get('Error')]))})"
    checks = [judge("node", state == "active", evidence={"state": state, "manager": bool(told.get("ControlAvailable"))}, cause=cause, advice="provision.yml")]
    if state != "active":
        return checks
    checks += [_judge_container(container, live, leads=runtime.leads) for container in runtime.here()]
    if not runtime.leads:
        return checks
    try:
        return [*checks, _judge_nodes(runtime.nodes()), *_judge_services(runtime, document, live)]
    except AnchorageError as error:
        return [*checks, Check("manager", FAIL, {}, error.message, "docker node ls; most of the managers must be there")]


def _judge_container(container: Data, live: str, *, leads: bool) -> Check:
    name = container["name"]
    if container["release"] != live:
        # While a release comes, the other nodes have its tasks before it is live; that something is wrong says the host that leads.
        cause = f"{name} is of release {container['release']}, and {live} is live"
        return judge("task", False, evidence=container, cause=cause, advice="deploy.yml", severity=FAIL if leads else WARN)
    good = container["alive"] and container["health"] in (None, "healthy", "starting")
    cause = f"{name} is {container['health'] if container['alive'] else 'not running'}"
    return judge("task", good, evidence=container, cause=cause, advice=f"docker logs --tail 50 {name}")


def _judge_nodes(nodes: t.Sequence[Data]) -> Check:
    """Judge the nodes: one that is away is a warning, since its tasks are started elsewhere; without most managers nobody starts any."""
    away = [node for node in nodes if node["state"] != "ready"]
    drained = [node["name"] for node in nodes if node["availability"] != "active"]
    managers = [node for node in nodes if node["manager"]]
    lost = [node for node in managers if not node["reachable"]]
    words = [f"{node['name']} is {node['state']}" for node in away] + [f"{name} takes no tasks" for name in drained]
    if lost:
        words.append(f"{len(managers) - len(lost)} of {len(managers)} managers are reachable, and {len(managers) // 2 + 1} are needed")
    return judge("nodes", not words, evidence={"nodes": list(nodes)}, cause="; ".join(words), advice="docker node ls", severity=WARN)


def _judge_services(runtime: Swarm, document: Data, live: str) -> list[Check]:
    found, seen = [], runtime.look()
    for process in document["processes"]:
        service = seen.get(process["name"])
        verdict = swarm.judge(service, process, live)
        facts = {"service": process["name"], "wanted": process["instances"], "running": len(service.running(live)) if service else 0}
        # Some of its tasks serve: that is less than was asked for, and no outage.
        severity = WARN if facts["running"] and service and service.release == live else FAIL
        advice = f"docker service ps --no-trunc {swarm.service_name(runtime.app.name, process['name'])}"
        found.append(judge("service", verdict.state == swarm.DONE, evidence=facts, cause=verdict.cause, advice=advice, severity=severity))
    return found
