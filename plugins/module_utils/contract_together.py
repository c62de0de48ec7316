# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the apps of one contract may not share: names, databases, queues, ports. Pure."""

from __future__ import annotations

import typing as t

from . import components, edges, swarm
from . import contract_rules as rules
from .runtime import SWARM

Data = dict[str, t.Any]
Report = t.Callable[[str, str], None]

POSTGRESQL_PORT, REDIS_PORT = 5432, 6379


def check(apps: dict[str, Data], places: Data, report: Report) -> None:
    """Judge what apps may not share."""
    domains: dict[str, str] = {}
    databases: dict[tuple[t.Any, ...], str] = {}
    queues: dict[tuple[t.Any, ...], str] = {}
    users: dict[str, str] = {}
    for name, app in apps.items():
        for domain in dict.fromkeys(app["domains"]):
            if domain in domains:
                report(f"apps.{name}.domain", f"{domain} is already the domain of apps.{domains[domain]}")
            domains.setdefault(domain, name)
        for component, options in components.sites(app):
            domain, owner = options["domain"], f"{name}.components.{component}"
            if domain in domains:
                report(f"apps.{owner}.domain", f"{domain} is already the domain of apps.{domains[domain]}")
            domains.setdefault(domain, owner)
        for component in app["components"]:
            if components.project_name(name, component) in apps:
                report(f"apps.{name}.components.{component}", f"has the name that apps.{name}-{component} has already; choose another for that app")
        database = app["database"]
        if database["enabled"] and not database["external"] and not database["image"]:
            if ("local", database["name"]) in databases:
                report(f"apps.{name}.database.name", f"{database['name']} is already the database of apps.{databases['local', database['name']]}")
            if database["user"] in users:
                report(f"apps.{name}.database.user", f"{database['user']} is already the database role of apps.{users[database['user']]}")
            databases.setdefault(("local", database["name"]), name)
            users.setdefault(database["user"], name)
        if database["external"] and app["migrate"]:
            key = endpoint(database["url"], POSTGRESQL_PORT)
            if key in databases:
                report(f"apps.{name}.database.url", f"is the same database as that of apps.{databases[key]}, and both migrate it")
            databases.setdefault(key, name)
        if app["redis"]["external"]:
            key = endpoint(app["redis"]["url"], REDIS_PORT)
            if key in queues:
                report(f"apps.{name}.redis.url", f"is the same Redis database as that of apps.{queues[key]}; they would take each other's jobs")
            queues.setdefault(key, name)
    if domains and not places["proxy"]:
        report("topology.proxy", "holds no host, but there are domains to serve; put one into group proxy of the inventory")
    _check_ports(apps, places, report)
    _check_managers(apps, places, report)


def swarm_nodes(apps: t.Mapping[str, Data], places: Data) -> list[str]:
    """Return the hosts of all apps on the Swarm, in the order of group app."""
    swarmed = [app for app in apps.values() if app["runtime"] == SWARM]
    return [place["name"] for place in places["app"] if any(place["name"] in app["hosts"] for app in swarmed)]


def _check_managers(apps: dict[str, Data], places: Data, report: Report) -> None:
    """Report each app whose first host, which tells the Swarm what to run, does not manage it."""
    managing = swarm.managers(swarm_nodes(apps, places))
    for name, app in apps.items():
        if app["runtime"] == SWARM and app["hosts"] and app["hosts"][0] not in managing:
            report(
                f"apps.{name}.hosts", f"must begin with a host that manages the Swarm ({', '.join(managing)}): put one of them into it, or first into group app"
            )


def endpoint(url: str, port: int) -> tuple[t.Any, ...]:
    """Return what an address of a service leads to: host, port and database.

    :arg port: the one that is meant where the address names none.
    """
    parts = rules.split_url(url)
    if parts is None:
        return (url,)
    return (parts.hostname, parts.port or port, parts.path.strip("/") or "0")


def _check_ports(apps: dict[str, Data], places: Data, report: Report) -> None:
    """Report every port that two things on one host would listen on, once for each pair of things."""
    taken: dict[tuple[str, int], str] = {}
    told: set[tuple[str, str]] = set()

    def claim(host: str, port: int, owner: str, key: str) -> None:
        holder = taken.setdefault((host, port), owner)
        if holder != owner and (holder, owner) not in told:
            told.add((holder, owner))
            report(key, f"port {port} on {host} is already taken by {holder}; pin one of the two to another port")

    pools = {name: app["database"]["pool"]["port"] for name, app in apps.items() if app["database"]["pool"]}
    for name, port in pools.items():
        first = next(iter(pools))
        if port != pools[first]:
            report(f"apps.{name}.database.pool.port", f"is {port}, and that of apps.{first} {pools[first]}; one PgBouncer serves all apps of a database host")
        for place in places["database"]:
            claim(place["name"], port, "PgBouncer", f"apps.{name}.database.pool.port")
    for name, app in apps.items():
        redis, database = app["redis"], app["database"]
        if database["image"]:
            claim(database["host"], database["port"], f"apps.{name}.database", f"apps.{name}.database.port")
        for kind in ("jobs", "cache"):
            if redis[kind]:
                claim(redis["host"], redis[kind]["port"], f"apps.{name}.redis.{kind}", f"apps.{name}.redis.{kind}.port")
                if redis[kind]["tls_port"]:
                    claim(redis["host"], redis[kind]["tls_port"], f"apps.{name}.redis.{kind} (TLS)", f"apps.{name}.redis.{kind}.tls_port")
    for name, app in apps.items():
        for host in app["hosts"]:
            if edges.wanted(app, places):
                claim(host, app["edge_port"], f"apps.{name}.edge_port", f"apps.{name}.edge_port")
            for component, port in components.published(app):
                claim(host, port, f"apps.{name}.components.{component}", f"apps.{name}.components.{component}.port")
            for process in app["processes"]:
                owner = f"apps.{name}.processes.{process['name']}"
                for port in process["slots"]["blue"] + process["slots"]["green"]:
                    claim(host, port, owner, f"{owner}.port")
