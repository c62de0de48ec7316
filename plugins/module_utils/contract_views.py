# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Projections: what one role needs to know of the resolved contract on one host. Roles never see the contract itself."""

from __future__ import annotations

import copy
import typing as t

from . import components, edges, rotation, swarm
from .compose_project import base_name
from .contract_rules import secrets_in
from .contract_together import POSTGRESQL_PORT, REDIS_PORT, swarm_nodes
from .encoders import url_login, url_part
from .layout import AUTHORITY, TLS, TRUSTED
from .runtime import COMPOSE, CONTAINED, PM2, SWARM

Data = dict[str, t.Any]

UNKNOWN = "unknown-until-first-run"
LOOPBACK = "127.0.0.1"
PASSWORD_LENGTH = rotation.PASSWORD_LENGTH
ADMIN_PASSWORD_LENGTH = 24

#: Under this name the password of the replicas is kept; no app's name holds a dot.
REPLICATION = "postgresql.replication"


def topology(groups: t.Mapping[str, t.Sequence[str]], address_of: t.Callable[[str], str]) -> dict[str, list[dict[str, str]]]:
    """Return the hosts of the four groups; what the inventory does not say follows from the rest.

    Without a group C(app) every host is one. Without C(proxy) each app host is its own. Without C(cache) it is where the
    database is. Without C(database) it is the app host where there is one only; of several none is guessed.
    """
    app = list(groups.get("app") or groups.get("all") or [])
    proxy = list(groups.get("proxy") or app)
    database = list(groups.get("database") or (app if len(app) == 1 else []))
    cache = list(groups.get("cache") or database[:1])
    places = {"app": app, "database": database, "cache": cache, "proxy": proxy}
    return {group: [{"name": name, "address": address_of(name)} for name in names] for group, names in places.items()}


def host_roles(contract: Data, host: str) -> list[str]:
    """Return the roles that have something to do on a host, in the order in which they do it."""
    apps = _apps(contract)
    here = [app for app in apps if app["runtime"] == PM2 and host in app["hosts"]]
    sites = [app for app in apps if (app["domains"] or components.sites(app)) and _is_proxy(contract, host)]
    behind = [app for app in apps if edge(contract, app, host)]
    needed = {
        "base": True,
        "docker_compose": any(app["runtime"] in CONTAINED and host in app["hosts"] for app in apps),
        "postgresql": any(_is_kept_on(contract, app, host) for app in apps),
        "redis": any(_lives_on(app["redis"], host) for app in apps),
        "nodejs": bool(here),
        "pm2": bool(here),
        "nginx": bool(sites or behind),
        "certbot": any(app["tls"]["mode"] == "acme" for app in sites),
        "backup": True,
    }
    return [role for role, wanted in needed.items() if wanted]


def app_secrets(contract: Data, host: str) -> list[Data]:
    """Return what must be generated for the apps whose secrets this host keeps."""
    wanted = []
    for app in _apps(contract):
        if app["secrets_host"] != host:
            continue
        lengths = dict(app["generated"])
        if _local(app["database"]):
            lengths["database_password"] = PASSWORD_LENGTH
            if app["database"]["image"]:
                lengths["database_superuser_password"] = PASSWORD_LENGTH
        if _local(app["redis"]):
            lengths["redis_password"] = PASSWORD_LENGTH
        if app["admin"]:
            lengths["admin_password"] = ADMIN_PASSWORD_LENGTH
        lengths.update(components.wanted_secrets(app))
        wanted.append({"name": app["name"], "generate": lengths})
    if postgresql_replicas(contract, host):
        wanted.append({"name": REPLICATION, "generate": {"password": PASSWORD_LENGTH}})
    return wanted


def base_firewall_allow(contract: Data, host: str, plain: t.Sequence[str] = ()) -> list[Data]:
    """Return the ports that other hosts of the contract must reach on this host, with their addresses.

    :arg plain: the Redis instances that still take plain connections from elsewhere.
    """
    rules: list[Data] = []
    for app in _apps(contract):
        proxies = _others(contract, _names(contract, "proxy"), host)
        if edge(contract, app, host) and proxies:
            rules.append(_allow(app["edge_port"], proxies))
        clients = _others(contract, app["hosts"], host)
        # A replica lets in whom the primary lets in, so that its promotion changes no firewall.
        allowed = sorted({*clients, *_others(contract, database_hosts(contract), host)})
        if _is_kept_on(contract, app, host) and allowed:
            rules.append(_allow(app["database"]["port"], allowed))
            if app["database"]["pool"]:
                rules.append(_allow(app["database"]["pool"]["port"], allowed))
        if _lives_on(app["redis"], host) and clients:
            for kind in ("jobs", "cache"):
                if app["redis"][kind]:
                    rules.append(_allow(app["redis"][kind]["tls_port"], clients))
                    rules += [_allow(app["redis"][kind]["port"], clients)] if f"{app['name']}-{kind}" in plain else []
    # Where the Swarm has placed no task, a proxy must be refused at once: what is dropped is waited for.
    rules += [*_between_nodes(contract, host), *docker_compose_swarm_ports(contract, host)]
    merged: dict[tuple[int, str], Data] = {}
    for rule in rules:
        known = merged.setdefault((rule["port"], rule["protocol"]), rule)
        known["from"] = sorted({*known["from"], *rule["from"]})
    return [merged[key] for key in sorted(merged)]


def docker_compose_swarm_nodes(contract: Data, host: str) -> list[Data]:
    """Return the nodes of the Swarm that a host is one of, in the order of group app; nothing for a host that is none.

    :returns: C(name), C(address), C(manager) and C(labels), by which apps are placed, of each.
    """
    names = swarm_nodes(contract["apps"], contract["topology"])
    leading = swarm.managers(names)
    found = []
    for name in names if host in names else []:
        here = [app for app in _apps(contract) if app["runtime"] == SWARM and name in app["hosts"]]
        labels = {swarm.node_label(app["name"]): "true" for app in here}
        labels.update({swarm.files_label(app["name"]): "true" for app in here if app["shared"] and app["hosts"][0] == name})
        found.append({"name": name, "address": _address(contract, name), "manager": name in leading, "labels": labels})
    return found


def docker_compose_swarm_ports(contract: Data, host: str) -> list[Data]:
    """Return the ports of containers that others may reach on a host: those of public processes on a Swarm, for the proxies and the other nodes."""
    found = []
    for app in _apps(contract):
        if app["runtime"] != SWARM or host not in app["hosts"]:
            continue
        clients = _others(contract, [*_names(contract, "proxy"), *app["hosts"]], host)
        for process in app["processes"]:
            ports = sorted({port for slot in process["slots"].values() for port in slot}) if process["public"] else []
            found += [_allow(port, clients) for port in ports if clients]
    return found


def _between_nodes(contract: Data, host: str) -> list[Data]:
    """Return what the nodes of a Swarm tell each other."""
    names = swarm_nodes(contract["apps"], contract["topology"])
    others = _others(contract, names, host)
    if host not in names or not others:
        return []
    kinds = [(swarm.GOSSIP, "tcp"), (swarm.GOSSIP, "udp"), (swarm.OVERLAY, "udp")]
    if host in swarm.managers(names):
        kinds.append((swarm.MANAGEMENT, "tcp"))
    return [_allow(port, others, protocol) for port, protocol in kinds]


def base_firewall_visitors(contract: Data, host: str) -> bool:
    """Tell whether visitors come to a host: they come to proxies only."""
    return _is_proxy(contract, host)


def postgresql_databases(contract: Data, secrets: Data, host: str) -> list[Data]:
    """Return the databases that live on this host, or are replicated to it: a replica lets the same logins in."""
    return [
        {"name": name, "owner": app["database"]["user"], **_logins(secrets, app), "extensions": app["database"]["extensions"]}
        for app in _apps(contract)
        if _is_kept_on(contract, app, host)
        for name in [app["database"]["name"], *([rehearsal_name(app)] if _rehearses(app) else [])]
    ]


def postgresql_replication_password(contract: Data, secrets: Data, host: str) -> str:
    """Return the password of the replicas, on the hosts of a database that has any."""
    places = database_hosts(contract)
    return str(((secrets or {}).get(REPLICATION) or {}).get("password") or UNKNOWN) if host in places and len(places) > 1 else ""


def _logins(secrets: Data, app: Data) -> Data:
    """Return who may enter an app's databases: its owner, the second login, or both while one takes over. A login without password may not."""
    state, user = _rotation(secrets, app), app["database"]["user"]
    known = {state["login"]: secret(secrets, app, "database_password")}
    if rotation.DATABASE in state["rotated"] and state["also"]:
        known[state["also"]["login"]] = state["also"]["values"]["database_password"]
    found: Data = {"password": known[rotation.FIRST]} if rotation.FIRST in known else {}
    if state["second"]:
        second = {"password": known[rotation.SECOND]} if rotation.SECOND in known else {}
        found["logins"] = [{"name": rotation.login(user, rotation.SECOND), **second}]
    return found


def _rotation(secrets: Data, app: Data) -> Data:
    """Return what services need to know of a rotation of an app's secrets; where there never was one, that there was none."""
    state = ((secrets or {}).get(app["name"]) or {}).get(rotation.STATE)
    return t.cast("Data", state or {"login": rotation.FIRST, "second": False, "also": {}, "former": {}, "rotated": []})


def rehearsal_name(app: Data) -> str:
    """Return the name of the database that an app's migrations are rehearsed on."""
    return f"{app['database']['name'][:53]}_rehearsal"


def _rehearses(app: Data) -> bool:
    return bool(app["migrate"] and app["migrate"]["rehearsal"]["enabled"])


def rehearsal_url(contract: Data, secrets: Data, app: Data, host: str) -> str | None:
    """Return the address of the database that an app's migrations are rehearsed on."""
    if not _rehearses(app):
        return None
    if app["database"]["external"]:
        return t.cast("str | None", app["migrate"]["rehearsal"]["url"])
    other = {**app, "database": {**app["database"], "name": rehearsal_name(app)}}
    return database_url(contract, secrets, other, host)


def postgresql_client_addresses(contract: Data, host: str) -> list[str]:
    """Return the networks from which other hosts reach PostgreSQL on this host; none means loopback only.

    The other hosts of the database are among them: after a promotion the former primary hands on to the new one who still comes to it.
    """
    names = [name for app in _apps(contract) if _is_kept_on(contract, app, host) for name in app["hosts"]]
    return _others(contract, [*names, *(database_hosts(contract) if names else [])], host)


def database_hosts(contract: Data) -> list[str]:
    """Return the hosts that keep the databases of the contract, the primary first; those after it are its replicas."""
    places = _names(contract, "database")
    return places if any(_lives_on(app["database"], place) for app in _apps(contract) for place in places[:1]) else []


def postgresql_primary(contract: Data, host: str) -> Data:
    """Return where the primary is that a host is a replica of; nothing for a host that is none."""
    places = database_hosts(contract)
    if host not in places[1:]:
        return {}
    port = next(app["database"]["port"] for app in _apps(contract) if _lives_on(app["database"], places[0]))
    return {"name": places[0], "address": _address(contract, places[0]), "port": port, "ca_file": AUTHORITY}


def postgresql_replicas(contract: Data, host: str) -> list[Data]:
    """Return the replicas of a host that is the primary."""
    places = database_hosts(contract)
    return [{"name": name, "address": _address(contract, name)} for name in places[1:]] if host in places[:1] else []


def postgresql_pool(contract: Data, host: str) -> Data:
    """Return the port of PgBouncer on this host and the databases that are reached through it; nothing where there is none. A replica has the same."""
    found = [(app["database"]["name"], app["database"]["pool"]) for app in _apps(contract) if app["database"]["pool"] and _is_kept_on(contract, app, host)]
    if not found:
        return {}
    keys = ("mode", "size", "prepared_statements")
    return {"port": found[0][1]["port"], "databases": [{"name": name, **{key: pool[key] for key in keys}} for name, pool in found]}


def redis_instances(contract: Data, secrets: Data, host: str, plain: t.Sequence[str] = ()) -> list[Data]:
    """Return the Redis instances that live on this host: one for each app and purpose.

    :arg plain: the names of those that still take plain connections from elsewhere.
    """
    instances = []
    for app in _apps(contract):
        if not _lives_on(app["redis"], host):
            continue
        remote = _others(contract, app["hosts"], host)
        for kind, policy in (("jobs", "noeviction"), ("cache", "allkeys-lru")):
            if app["redis"][kind]:
                instances.append(
                    {
                        "name": f"{app['name']}-{kind}",
                        "port": app["redis"][kind]["port"],
                        "bind": [LOOPBACK, _address(contract, host)] if remote else [LOOPBACK],
                        "maxmemory_mb": app["redis"][kind]["maxmemory_mb"],
                        "policy": policy,
                        "appendonly": kind == "jobs",
                        "users": [_redis_user(secrets, app)],
                        **(_redis_tls(app, kind, plain) if app["redis"][kind]["tls_port"] else {}),
                    }
                )
    return instances


def _redis_tls(app: Data, kind: str, plain: t.Sequence[str]) -> Data:
    """Return how other hosts reach an instance."""
    return {"tls_port": app["redis"][kind]["tls_port"], "tls_file": f"{TLS}/redis.pem", "plain": f"{app['name']}-{kind}" in plain}


def plain_redis(contract: Data, answers: t.Mapping[str, Data], host: str) -> list[str]:
    """Return the Redis instances of a host that go on taking plain connections, beside those over TLS: nobody is shut out who still needs it.

    An app that was alone with its Redis until now came over loopback. An instance that takes no plain connections, and a new one, is never opened for
    them. One that does is closed when every host of its app has said that what is live there uses TLS; a host that said nothing may need it.

    :arg answers: what M(anchorage.vps.fleet_tls) found on each host.
    """
    found = []
    for app in _apps(contract):
        for kind in ("jobs", "cache"):
            name = f"{app['name']}-{kind}"
            is_open = _lives_on(app["redis"], host) and name in answers.get(host, {}).get("open", [])
            if is_open and any(app["name"] in answers.get(place, {}).get("plain", [app["name"]]) for place in app["hosts"]):
                found.append(name)
    return found


def tls_links(contract: Data, host: str) -> Data:
    """Return what a host has to do with TLS between hosts; nothing where no host serves PostgreSQL or Redis to another.

    :returns: C(authority), the host that keeps the authority; C(names), C(addresses) and C(services), what a host that serves is called, where it is
        reached and what it serves; C(apps), those here that reach Redis elsewhere; C(instances), the Redis instances here that others reach; C(follow),
        whether it may have to take over from the host that keeps the authority.
    """
    linked = [app for app in _apps(contract) if verified(contract, app)]
    places = database_hosts(contract)
    if not linked and len(places) < 2:
        return {}
    found: Data = {
        "authority": places[0] if places else linked[0]["secrets_host"],
        "names": [],
        "addresses": [],
        "services": [],
        "apps": [app["name"] for app in linked if host in app["hosts"]],
        "instances": [
            f"{app['name']}-{kind}"
            for app in linked
            if _lives_on(app["redis"], host)
            for kind in ("jobs", "cache")
            if app["redis"][kind] and app["redis"][kind]["tls_port"]
        ],
        "follow": host in places[1:],
    }
    serves_database = host in places and (len(places) > 1 or any(_database_linked(app) for app in linked))
    found["services"] = [*(["postgresql"] if serves_database else []), *(["redis"] if found["instances"] else [])]
    if found["services"]:
        # After a promotion the former primary hands on to the new one, so each may answer in the place of another.
        names = sorted({host, *(places if serves_database else [])})
        found["names"] = names
        found["addresses"] = sorted({*(_address(contract, name) for name in names), LOOPBACK})
    return found if found["apps"] or found["services"] or host == found["authority"] else {}


def postgresql_tls_file(contract: Data, host: str) -> str:
    """Return the file with the key and the certificate that PostgreSQL of a host shows to others; nothing where none come."""
    return f"{TLS}/postgresql.pem" if "postgresql" in tls_links(contract, host).get("services", []) else ""


def verified(contract: Data, app: Data) -> bool:
    """Tell whether an app reaches PostgreSQL or Redis of another host, from any of its own."""
    return _database_linked(app) or any(app["redis"][kind] and app["redis"][kind]["tls_port"] for kind in ("jobs", "cache"))


def _database_linked(app: Data) -> bool:
    database = app["database"]
    return _local(database) and not database["image"] and any(name != database["host"] for name in app["hosts"])


def _redis_user(secrets: Data, app: Data) -> Data:
    other = (_rotation(secrets, app)["also"].get("values") or {}).get("redis_password")
    return {"name": app["user"], "password": secret(secrets, app, "redis_password"), **({"other_passwords": [other]} if other else {})}


def backup_databases(contract: Data, secrets: Data, host: str) -> list[Data]:
    """Return the databases that this host saves: those of its own cluster, and those that only an address leads to, from the first host of their app."""
    found = []
    for app in _apps(contract):
        database = app["database"]
        apart = bool(database["external"] or database["image"])
        if not (_lives_on(database, host) or (database["enabled"] and apart and app["hosts"][0] == host)):
            continue
        entry = {"name": database["name"], "app": app["name"], "owner": database["user"]}
        found.append({**entry, "url": database_url(contract, secrets, app, host)} if apart else entry)
    return found


def backup_redis(contract: Data, host: str) -> list[Data]:
    """Return the Redis instances of this host whose data must survive; a cache need not."""
    return [{"name": f"{app['name']}-jobs", "app": app["name"]} for app in _apps(contract) if _lives_on(app["redis"], host) and app["redis"]["jobs"]]


def backup_apart(contract: Data, host: str) -> list[Data]:
    """Return the projects of this host whose volumes hold money, and are saved apart from the shop."""
    return [
        {"name": components.project_name(app["name"], name), "directory": f"/etc/anchorage/compose/{components.project_name(app['name'], name)}"}
        for app in _apps(contract)
        if host in app["hosts"]
        for name in app["components"]
        if name == "btcpay"
    ]


def backup_paths(contract: Data, host: str) -> list[str]:
    """Return what this host saves of files: secrets, certificates and journals, and of each app what outlives a release and how each release was made."""
    found = ["/etc/anchorage", "/etc/letsencrypt", "/etc/nginx/tls", "/var/lib/anchorage"]
    for app in _apps(contract):
        if host in app["hosts"]:
            found += [f"{app['home']}/shared", f"{app['home']}/releases"]
            if app["runtime"] == COMPOSE and app["redis"]["image"] and app["redis"]["jobs"]:
                # An append-only file may be copied while it is written: what its end lacks is at most the last second.
                found.append(f"/var/lib/docker/volumes/{base_name(app['name'])}_redis-jobs/_data")
    return found


def pm2_users(contract: Data, host: str) -> list[Data]:
    """Return the system users whose processes PM2 keeps alive on this host."""
    return [{"name": app["user"], "home": app["home"]} for app in _apps(contract) if app["runtime"] == PM2 and host in app["hosts"]]


def nginx_sites(contract: Data, host: str) -> list[Data]:
    """Return the sites of this host: those that visitors reach where it is a proxy, and the edges of its apps where proxies come from elsewhere."""
    apps = [app for app in _apps(contract) if _is_proxy(contract, host)]
    beside = [components.site(app, name) for app in apps for name, _component in components.sites(app)]
    return (
        [_site(contract, app) for app in apps if app["domains"]]
        + beside
        + [_edge_site(contract, app, host) for app in _apps(contract) if edge(contract, app, host)]
    )


def nginx_challenge_peers(contract: Data, host: str) -> list[str]:
    """Return the addresses of the other proxies, where this host is one: a certificate authority asks any of them."""
    return [place["address"] for place in contract["topology"]["proxy"] if place["name"] != host] if _is_proxy(contract, host) else []


def certbot_certificates(contract: Data, host: str) -> list[Data]:
    """Return the certificates that this host gets and renews; that of a component is none that a run fails for."""
    apps = [app for app in _apps(contract) if app["tls"]["mode"] == "acme" and _is_proxy(contract, host)]
    own = [{"name": app["name"], "domains": app["domains"], "method": app["tls"]["challenge"]} for app in apps if app["domains"]]
    beside = [
        {"name": components.project_name(app["name"], name), "domains": [component["domain"]], "method": app["tls"]["challenge"], "required": False}
        for app in apps
        for name, component in components.sites(app)
    ]
    return own + beside


def release_documents(contract: Data, secrets: Data, host: str, promoting: bool = False) -> list[Data]:
    """Return, for each app of this host, everything that the engine on the host needs. It holds secrets.

    Where apps are scaled, theirs say C(keep_source), and those of the others C(at_rest), since nothing is to be released of them.

    :arg promoting: whether the primary changes just now. Then nothing is read from a replica: the one that comes is not there yet.
    """
    found = [_document(contract, secrets, app, host, promoting) for app in _apps(contract) if host in app["hosts"]]
    scaled = contract.get("scaled")
    return [{**document, ("keep_source" if document["name"] in scaled else "at_rest"): True} for document in found] if scaled else found


def host_apps(contract: Data, host: str) -> list[str]:
    """Return the names of the apps that run on a host."""
    return [app["name"] for app in _apps(contract) if host in app["hosts"]]


def monitoring_sites(contract: Data, host: str) -> list[Data]:
    """Return the sites that a host is proxy of although their app does not run there, as the health of a host is asked about them."""
    found = []
    for app in _apps(contract):
        if app["domains"] and _is_proxy(contract, host) and host not in app["hosts"]:
            health = (_public(app) or {}).get("health") or {}
            site = {"name": app["name"], "domains": app["domains"], "tls_mode": app["tls"]["mode"]}
            found.append({**site, "health_path": health.get("path"), "health_status": health.get("status", 200)})
    return found


def app_urls(contract: Data) -> list[Data]:
    """Return the public address of every app that has one, and where its health answers."""
    urls = []
    for app in _apps(contract):
        if app["url"]:
            process = _public(app)
            health = app["url"] + process["health"]["path"] if process else None
            admin = {"email": app["admin"]["email"], "host": app["secrets_host"]} if app["admin"] else None
            urls.append({"name": app["name"], "url": app["url"], "health_url": health, "admin": admin})
    return urls


def edge(contract: Data, app: Data, host: str) -> Data | None:
    """Return the address and port at which proxies reach an app on one of its hosts; None where they need none."""
    if host not in app["hosts"] or not edges.wanted(app, contract["topology"]):
        return None
    return {"address": _address(contract, host), "port": app["edge_port"]}


def host_edges(contract: Data, host: str) -> dict[str, int]:
    """Return the ports at which proxies reach the apps of a host, by app; those that need none are not among them."""
    return {app["name"]: app["edge_port"] for app in _apps(contract) if edge(contract, app, host)}


def upgrade_order(contract: Data) -> dict[str, list[str]]:
    """Return the hosts by what their upgrade means.

    :returns: C(balanced), which others stand in for while they are out of the balance; C(services), with a database or Redis that others use; C(others),
        which are proxies, or serve an app alone.
    """
    places = {place["name"]: place for group in ("app", "proxy", "cache", "database") for place in contract["topology"][group]}
    found: dict[str, list[str]] = {"balanced": [], "services": [], "others": []}
    for host in places:
        here = [app for app in _apps(contract) if host in app["hosts"]]
        serves = host in database_hosts(contract) or any(_lives_on(app[kind], host) for app in _apps(contract) for kind in ("database", "redis"))
        replaced = bool(here) and all(len(app["hosts"]) > 1 and edge(contract, app, host) for app in here if app["domains"])
        balanced = replaced and not serves and not _is_proxy(contract, host)
        found["services" if serves else "balanced" if balanced else "others"].append(host)
    return found


def database_url(contract: Data, secrets: Data, app: Data, host: str, *, place: str = "", port: int = 0) -> str | None:
    """Return the address of an app's database as seen from one of its hosts, with every special character encoded.

    :arg place: another host of it than the primary.
    :arg port: that of what stands before it.
    """
    database = app["database"]
    if not database["enabled"]:
        return None
    if database["external"]:
        return str(database["url"])
    login = url_login(rotation.login(database["user"], _rotation(secrets, app)["login"]), secret(secrets, app, "database_password"))
    place = place or database["host"]
    here = place == host
    # Read alike by node-postgres and libpq: chain and address are verified, and no other authority is trusted.
    query = "" if here else f"?sslmode=verify-full&sslrootcert={AUTHORITY}"
    return f"postgres://{login}@{_netloc(contract, place, host)}:{port or database['port']}/{url_part(database['name'])}{query}"


def database_pool_url(contract: Data, secrets: Data, app: Data, host: str, *, place: str = "") -> str | None:
    """Return the address at which the processes of an app find its database through PgBouncer; None where there is none."""
    pool = app["database"]["pool"]
    return database_url(contract, secrets, app, host, place=place, port=pool["port"]) if pool else None


def database_read_url(contract: Data, secrets: Data, app: Data, host: str) -> str | None:
    """Return the address of the replica that an app's processes on a host read from; None where they have the primary's for it.

    A host that is a replica reads from itself; the others are spread.
    """
    replicas = database_hosts(contract)[1:] if app["database"]["read_url_env"] and not app["database"]["image"] else []
    if not replicas:
        return None
    place = host if host in replicas else replicas[app["hosts"].index(host) % len(replicas)]
    return database_pool_url(contract, secrets, app, host, place=place) or database_url(contract, secrets, app, host, place=place)


def redis_url(contract: Data, secrets: Data, app: Data, host: str, kind: str = "jobs") -> str | None:
    """Return the address of one of an app's Redis instances as seen from one of its hosts."""
    redis = app["redis"]
    if redis["external"]:
        return str(redis["url"]) if kind == "jobs" else None
    if not redis["enabled"] or not redis[kind]:
        return None
    login = url_login(app["user"], secret(secrets, app, "redis_password"))
    # The same from every host of the app, its own included: a release is one thing, wherever it runs.
    scheme, port = ("rediss", redis[kind]["tls_port"]) if redis[kind]["tls_port"] else ("redis", redis[kind]["port"])
    return f"{scheme}://{login}@{_netloc(contract, redis['host'], host)}:{port}/0"


def _document(contract: Data, secrets: Data, app: Data, host: str, promoting: bool) -> Data:
    document = copy.deepcopy(app)
    hidden = secrets_in(app["env"])
    given = {key: value for key, value in app["env"].items() if key in hidden}
    generated = {key: secret(secrets, app, key) for key in app["generated"]}
    generated.update(_earlier_keys(secrets, app))
    told, told_secrets = components.environment(app, lambda key: secret(secrets, app, key))
    taken = {**generated, **app["env"]}
    document.update(
        {
            "env": {key: value for key, value in {**told, **app["env"]}.items() if key not in hidden and key not in generated},
            "secrets_env": {**{key: value for key, value in told_secrets.items() if key not in taken}, **given, **generated},
            "components": components.summary(app),
            "database_url": database_url(contract, secrets, app, host),
            "database_pool_url": database_pool_url(contract, secrets, app, host),
            "database_read_url": None if promoting else database_read_url(contract, secrets, app, host),
            "rehearsal_url": rehearsal_url(contract, secrets, app, host),
            "database_password": secret(secrets, app, "database_password") if _local(app["database"]) else None,
            "database_address": _seen_from(contract, app["database"]["host"], host) if _local(app["database"]) else None,
            "redis_url": redis_url(contract, secrets, app, host),
            "redis_cache_url": redis_url(contract, secrets, app, host, "cache"),
            "admin_password": secret(secrets, app, "admin_password") if app["admin"] else None,
            "migrator": bool(app["migrate"]) and app["hosts"][0] == host,
            "host": host,
            "proxy_address": _proxy_address(contract, app, host),
            "host_address": _address(contract, host),
            "listen_address": LOOPBACK,
            **({"trusted_file": TRUSTED} if verified(contract, app) else {}),
            **({"edge": edge(contract, app, host)} if edge(contract, app, host) else {}),
            **({"inside": inside(app)} if app["runtime"] == COMPOSE else {}),
            **({"pooled": components.pooled(app)} if components.pooled(app) else {}),
        }
    )
    return document


def _earlier_keys(secrets: Data, app: Data) -> dict[str, str]:
    """Return the variables with the keys before those that the host made, its own first; a variable without any is not set."""
    kept = (secrets or {}).get(app["name"]) or {}
    found = {old: rotation.joined(kept.get(old), app["env"].get(old)) for key, old in app["rotating"].items() if key in app["generated"]}
    return {old: keys for old, keys in found.items() if keys}


def rotation_choices(contract: Data, app: str) -> list[Data]:
    """Return every secret of an app, with what hangs on it or why it cannot be rotated."""
    return rotation.choices(contract["apps"][app])


def rotation_former(contract: Data, secrets: Data, app: str, host: str) -> Data:
    """Return the credentials of an app that are to be refused from now on, as they were used from one of its hosts, and the keys that its processes must have.

    It holds secrets.
    """
    told, state = contract["apps"][app], _rotation(secrets, contract["apps"][app])
    former = state["former"]
    if not former:
        return {"urls": {}, "environment": {}, "keys": []}
    before = {app: {**secrets[app], **former["values"], rotation.STATE: {**state, "login": former["login"]}}}
    urls: Data = {}
    if rotation.DATABASE in state["rotated"]:
        urls["database_url"] = database_url(contract, before, told, host)
        urls["database_pool_url"] = database_pool_url(contract, before, told, host)
    if rotation.REDIS in state["rotated"]:
        urls.update({f"redis{kind}_url": redis_url(contract, before, told, host, of) for kind, of in (("", "jobs"), ("_cache", "cache"))})
    gone = {key: former["values"][key] for key in told["sessions"] if key in former["values"]}
    keys = [key for key in (*told["sessions"], *told["rotating"], *told["rotating"].values()) if key in former["values"]]
    return {"urls": {key: url for key, url in urls.items() if url}, "environment": gone, "keys": keys}


def inside(app: Data) -> dict[str, str]:
    """Return where containers of an app find what the host finds at an address of loopback."""
    found = {f"{LOOPBACK}:{app['database']['port']}": f"postgres:{POSTGRESQL_PORT}"} if app["database"]["image"] else {}
    if app["redis"]["image"]:
        kinds = [kind for kind in ("jobs", "cache") if app["redis"][kind]]
        found.update({f"{LOOPBACK}:{app['redis'][kind]['port']}": f"redis-{kind}:{REDIS_PORT}" for kind in kinds})
    return found


def _proxy_address(contract: Data, app: Data, host: str) -> str | None:
    """Return where a host finds a proxy of the app's site."""
    if not app["domains"]:
        return None
    return LOOPBACK if _is_proxy(contract, host) else str(contract["topology"]["proxy"][0]["address"])


def _site(contract: Data, app: Data) -> Data:
    process = _public(app)
    behind = [edge(contract, app, name) for name in app["hosts"]]
    inner = {"upstreams": {"blue": behind}, "hops": True} if all(behind) else _nodes(contract, app) if app["runtime"] == SWARM else _slots(app)
    name = edges.site_name(app, contract["topology"])
    return {
        "name": name,
        "domains": app["domains"],
        # Whatever the site is called, its certificate has the name of the app.
        "tls": {**{key: app["tls"][key] for key in ("mode", "certificate", "key")}, **({"name": app["name"]} if name != app["name"] else {})},
        **inner,
        "rate_limit": app["rate_limit"],
        "unlimited_paths": [],
        "health_path": process["health"]["path"] if process else None,
        "webhook_paths": app["webhooks"],
        "max_body_mb": app["max_body_mb"],
        "timeout_seconds": app["timeout_seconds"],
    }


def _nodes(contract: Data, app: Data) -> Data:
    """Return where tasks may be that the Swarm places: at the port of either slot on any node. Where none is, another is asked."""
    ports = [port for slot in ((_public(app) or {}).get("slots") or {}).values() for port in slot]
    return {"upstreams": {"blue": [{"address": _address(contract, name), "port": port} for port in ports for name in app["hosts"]]}, "again": True}


def _slots(app: Data) -> Data:
    """Return the slots of an app on its host, as the role nginx takes them."""
    process = _public(app)
    slots: Data = process["slots"] if process else {"blue": [], "green": []}
    return {
        "upstreams": {slot: [{"address": LOOPBACK, "port": port} for port in ports] for slot, ports in slots.items()},
        "slot_directory": f"/var/lib/anchorage/slots/{app['name']}",
    }


def _edge_site(contract: Data, app: Data, host: str) -> Data:
    """Return the site that the proxies go to. Limits and headers are theirs; of what a visitor sends it lets through what they do."""
    found = t.cast(Data, edge(contract, app, host))
    process = _public(app)
    return {
        "name": app["name"],
        "domains": app["domains"],
        "tls": {"mode": "off"},
        **_slots(app),
        "listen": {**found, "from": sorted(_address(contract, name) for name in _names(contract, "proxy"))},
        "health_path": process["health"]["path"] if process else None,
        "webhook_paths": app["webhooks"],
        "max_body_mb": app["max_body_mb"],
        "timeout_seconds": app["timeout_seconds"],
    }


def _names(contract: Data, group: str) -> list[str]:
    return [place["name"] for place in contract["topology"][group]]


def _apps(contract: Data) -> list[Data]:
    return list(contract["apps"].values())


def _public(app: Data) -> Data | None:
    return next((process for process in app["processes"] if process["public"]), None)


def _local(service: Data) -> bool:
    return bool(service["enabled"] and not service["external"])


def _lives_on(service: Data, host: str) -> bool:
    """Tell whether a service is one of the host's own; what lives in a container is none."""
    return bool(service["host"] == host and not service["image"])


def _is_kept_on(contract: Data, app: Data, host: str) -> bool:
    """Tell whether a host has an app's database, as the primary or as a replica."""
    return host in database_hosts(contract) and _lives_on(app["database"], database_hosts(contract)[0])


def _is_proxy(contract: Data, host: str) -> bool:
    return any(place["name"] == host for place in contract["topology"]["proxy"])


def _address(contract: Data, host: str) -> str:
    return next(str(place["address"]) for places in contract["topology"].values() for place in places if place["name"] == host)


def _others(contract: Data, names: t.Iterable[str], host: str) -> list[str]:
    """Return the addresses of other hosts as networks."""
    addresses = {_address(contract, name) for name in names if name != host}
    return sorted(f"{address}/{128 if ':' in address else 32}" for address in addresses)


def _allow(port: int, networks: list[str], protocol: str = "tcp") -> Data:
    return {"port": port, "protocol": protocol, "from": list(networks)}


def secret(secrets: Data, app: Data, key: str) -> str:
    """Return one secret of an app; a stand-in where it is not known yet."""
    return str(((secrets or {}).get(app["name"]) or {}).get(key) or UNKNOWN)


def _seen_from(contract: Data, place: str, host: str) -> str:
    return LOOPBACK if place == host else _address(contract, place)


def _netloc(contract: Data, place: str, host: str) -> str:
    address = _seen_from(contract, place, host)
    return f"[{address}]" if ":" in address else address
