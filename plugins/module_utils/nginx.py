# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sites of a web server mean: input as people write it in, data as templates need it out."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .encoders import nginx_string
from .errors import AnchorageError

TLS_DIRECTORY = "/etc/nginx/tls"
SITES_DIRECTORY = "/etc/nginx/anchorage/sites"
HEADERS_FILE = "/etc/nginx/anchorage/headers.conf"
HEADERS_DIRECTORY = "/etc/nginx/anchorage/headers"
OWN_DIRECTORIES = ("/etc/nginx/anchorage", HEADERS_DIRECTORY, SITES_DIRECTORY, "/var/www/acme")
LOG_DIRECTORY = "/var/log/nginx"

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = re.compile(rf"(\*\.)?{LABEL}(\.{LABEL})+")
URL_PATH = re.compile(r"/[A-Za-z0-9._~/@%+-]*")
FILE_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._@+-]+)+")
HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
HEADER_VALUE = re.compile(r"""[ -~]*""")

#: Seconds that a connection to an application may take. On this machine it waits only where more of them arrive at once than the application takes
#: (the kernel tries again after 1, 3 and 7 s); a host elsewhere may be gone, and another one is to be asked then.
CONNECT_SECONDS, CONNECT_SECONDS_AWAY = 8, 3

#: The same for servers that come and go by themselves: each host is named with several ports, so one that is gone may be met several times by one request.
CONNECT_SECONDS_AGAIN = 2

#: Servers that a request is offered to at most. Of more than these all are asked: while there are to be more, those that are new do not listen yet.
TRIES = 3

Data = dict[str, t.Any]

SITE_DEFAULTS: Data = {
    "tls": {},
    "upstreams": {},
    "slot_directory": None,
    "hops": False,
    "again": False,
    "listen": None,
    "rate_limit": None,
    "unlimited_paths": [],
    "health_path": None,
    "webhook_paths": [],
    "webhook_max_body_mb": 25,
    "max_body_mb": 10,
    "timeout_seconds": 60,
    "root": None,
    "spa": False,
    "immutable_paths": ["/assets/", "/_next/static/"],
    "headers": {},
}
SITE_KEYS = {"name", "domains", *SITE_DEFAULTS}


def refuse(key: str, rule: str) -> t.NoReturn:
    """Refuse one input by the name of its key and the rule it breaks."""
    raise AnchorageError(f"{key} {rule}", what="the role's input", live="unchanged: nothing was touched yet", next_step=f"Correct {key}.")


def matched(key: str, value: t.Any, pattern: re.Pattern[str], rule: str) -> str:
    """Return a text that matches as a whole, or refuse its key."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        refuse(key, rule)
    return value


def whole_number(key: str, value: t.Any, low: int, high: int) -> int:
    """Return a number within its bounds, or refuse its key."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        refuse(key, f"must be a whole number from {low} to {high}")
    return value


def header_value(key: str, value: t.Any) -> str:
    """Return a header's value as the string of the configuration that means it."""
    text = matched(key, value, HEADER_VALUE, "must be printable ASCII text on one line")
    if "$" in text:
        refuse(key, "must not contain a dollar sign")
    return nginx_string(text, key)


def headers(key: str, wanted: t.Mapping[str, t.Any]) -> list[Data]:
    """Return headers in a stable order; an empty value leaves a header out."""
    result = []
    for name in sorted(wanted):
        matched(f"{key}[{name!r}]", name, HEADER_NAME, "is not the name of a header")
        value = header_value(f"{key}[{name!r}]", wanted[name])
        if wanted[name]:
            result.append({"name": name, "variable": name.lower().replace("-", "_"), "value": value})
    return result


def address(key: str, value: t.Any) -> str:
    """Return an upstream's address as it stands in a `server` line.

    Names are resolved when Nginx starts: `localhost` may become `::1`, where nothing listens, and a resolver that is
    down at boot would keep every site from starting.
    """
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        refuse(key, "must be an IP address such as 127.0.0.1, not a name")
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)


def is_local(value: str) -> bool:
    """Tell whether an address is this machine's own loopback."""
    return ipaddress.ip_address(value.strip("[]")).is_loopback


def servers(key: str, wanted: t.Sequence[t.Mapping[str, t.Any]], *, again: bool = False) -> list[Data]:
    """Return the servers of one slot.

    :arg again: whether those that were put aside are asked where all are, so that they may be left out for longer.

    A local process that restarts must be asked again at once, so it is never put aside; a remote host that
    does not answer is left out for some seconds, because each try of it costs a connection timeout.
    """
    result = []
    for index, server in enumerate(wanted):
        here = f"{key}[{index}]"
        host = address(f"{here}.address", server.get("address"))
        port = whole_number(f"{here}.port", server.get("port"), 1, 65535)
        failures = "max_fails=0" if is_local(host) else f"max_fails=1 fail_timeout={10 if again else 5}s"
        result.append({"address": host, "port": port, "failures": failures})
    return result


def slots(key: str, name: str, wanted: t.Mapping[str, t.Any], *, again: bool = False) -> list[Data]:
    """Return the named upstreams of a site, the one that serves without a flag file first."""
    unknown = sorted(set(wanted) - {"blue", "green"})
    if unknown:
        refuse(f"{key}.{unknown[0]}", "is unknown; the slots are blue and green")
    if wanted.get("green") and not wanted.get("blue"):
        refuse(f"{key}.blue", "must not be empty where green has servers")
    return [
        {"slot": slot, "upstream": f"{name}_{slot}", "servers": servers(f"{key}.{slot}", wanted[slot], again=again)}
        for slot in ("blue", "green")
        if wanted.get(slot)
    ]


def listen(key: str, wanted: t.Mapping[str, t.Any] | None) -> Data:
    """Return where a site listens for other proxies only; empty for one that visitors reach."""
    if not wanted:
        return {}
    return {
        "place": f"{address(f'{key}.address', wanted.get('address'))}:{whole_number(f'{key}.port', wanted.get('port'), 1, 65535)}",
        "from": networks(f"{key}.from", wanted.get("from") or []),
    }


def tls(key: str, wanted: t.Mapping[str, t.Any]) -> Data:
    """Return where a site's certificate comes from."""
    mode = wanted.get("mode") or "acme"
    if mode not in ("acme", "files", "off"):
        refuse(f"{key}.mode", "must be one of acme, files, off")
    for part in ("certificate", "key"):
        if mode == "files" and not wanted.get(part):
            refuse(f"{key}.{part}", "is required where mode is files")
        if mode != "files" and wanted.get(part):
            refuse(f"{key}.{part}", "is used only where mode is files")
    name = wanted.get("name")
    if name:
        matched(f"{key}.name", name, SITE_NAME, "must be lower-case letters, digits, - and _")
    return {"mode": mode, "certificate": wanted.get("certificate"), "key": wanted.get("key"), "name": name}


def _pair(key: str, wanted: t.Mapping[str, t.Any]) -> Data:
    return {part: value for part, value in tls(key, wanted).items() if part != "name"}


def paths(key: str, wanted: t.Sequence[str]) -> list[str]:
    """Return URL paths that may stand in a `location` line."""
    return [matched(f"{key}[{index}]", path, URL_PATH, "must start with / and be a plain URL path") for index, path in enumerate(wanted)]


def rate(key: str, wanted: t.Mapping[str, t.Any] | None) -> Data | None:
    """Return a rate limit, or None where there is none."""
    if not wanted:
        return None
    return {
        "requests_per_second": whole_number(f"{key}.requests_per_second", wanted.get("requests_per_second", 10), 1, 100000),
        "burst": whole_number(f"{key}.burst", wanted.get("burst", 20), 0, 100000),
        "paths": paths(f"{key}.paths", wanted.get("paths") or ["/"]),
    }


def locations(key: str, site: t.Mapping[str, t.Any], limit: Data | None) -> list[Data]:
    """Return the `location` blocks of a proxied site, each path once.

    The longest prefix wins, so an exempt path inside a limited one stays exempt.
    """
    webhook_log = f"{LOG_DIRECTORY}/{site['name']}-webhooks.log"
    groups: list[tuple[str, t.Sequence[str], Data]] = [
        ("rate_limit.paths", limit["paths"] if limit else [], {"limited": True}),
        ("unlimited_paths", paths(f"{key}.unlimited_paths", site["unlimited_paths"]), {}),
        ("webhook_paths", paths(f"{key}.webhook_paths", site["webhook_paths"]), {"log": webhook_log, "body_mb": site["webhook_max_body_mb"]}),
    ]
    known: dict[str, str] = {}
    result: list[Data] = []
    for group, members, traits in groups:
        for path in dict.fromkeys(members):
            if path in known:
                refuse(f"{key}.{group}", f"names {path}, which {known[path]} names too")
            known[path] = group
            result.append({"match": path, "limited": False, "log": "", "body_mb": 0, **traits})
    if "/" not in known:
        result.append({"match": "/", "limited": False, "log": "", "body_mb": 0})
    if site["health_path"]:
        path = matched(f"{key}.health_path", site["health_path"], URL_PATH, "must start with / and be a plain URL path")
        result.append({"match": f"= {path}", "limited": False, "log": "off", "body_mb": 0})
    return sorted(result, key=lambda location: location["match"])


def resolve_site(site: t.Mapping[str, t.Any], key: str) -> Data:
    """Return one site with every default filled in and every value checked."""
    name = matched(f"{key}.name", site.get("name"), SITE_NAME, "must be lower-case letters, digits, - and _")
    key = f"nginx_sites[{name}]"
    unknown = sorted(set(site) - SITE_KEYS)
    if unknown:
        refuse(f"{key}.{unknown[0]}", "is unknown")
    full = {**SITE_DEFAULTS, **{part: value for part, value in site.items() if value is not None}}
    if not full.get("domains"):
        refuse(f"{key}.domains", "must name at least one domain")
    domains = [matched(f"{key}.domains[{index}]", domain, DOMAIN, "must be a lower-case domain name") for index, domain in enumerate(full["domains"])]
    upstreams = slots(f"{key}.upstreams", name, full["upstreams"], again=bool(full["again"]))
    if bool(full["root"]) == bool(upstreams):
        refuse(key, "needs either upstreams (a proxied site) or root (a static site), and not both")
    if full["slot_directory"]:
        matched(f"{key}.slot_directory", full["slot_directory"], FILE_PATH, "must be an absolute path of plain characters")
    if len(upstreams) == 2 and not full["slot_directory"]:
        refuse(f"{key}.slot_directory", "is required where both slots have servers")
    if full["root"]:
        matched(f"{key}.root", full["root"], FILE_PATH, "must be an absolute path of plain characters")
    limit = rate(f"{key}.rate_limit", full["rate_limit"])
    security = tls(f"{key}.tls", full["tls"])
    behind = listen(f"{key}.listen", full["listen"])
    if behind and security["mode"] != "off":
        refuse(f"{key}.tls.mode", "must be off for a site that only other proxies reach, which end TLS")
    for number in ("max_body_mb", "webhook_max_body_mb"):
        whole_number(f"{key}.{number}", full[number], 1, 102400)
    return {
        "name": name,
        "domains": domains,
        "secure": security["mode"] != "off",
        "certificate": security["name"] or name,
        "fullchain": f"{TLS_DIRECTORY}/{security['name'] or name}/fullchain.pem",
        "private_key": f"{TLS_DIRECTORY}/{security['name'] or name}/privkey.pem",
        "slots": upstreams,
        "slot_directory": full["slot_directory"] or "",
        "flag_file": f"{full['slot_directory']}/green" if len(upstreams) == 2 else "",
        "soak_file": f"{full['slot_directory']}/soak" if len(upstreams) == 2 else "",
        "hold_file": f"{full['slot_directory']}/hold" if len(upstreams) == 2 else "",
        "hold_socket": f"{full['slot_directory']}/hold.sock" if len(upstreams) == 2 else "",
        "rate_limit": limit or {},
        "locations": locations(key, full, limit) if upstreams else [],
        "max_body_mb": full["max_body_mb"],
        "timeout_seconds": whole_number(f"{key}.timeout_seconds", full["timeout_seconds"], 1, 86400),
        "listen": behind,
        "hops": bool(full["hops"]),
        "again": bool(full["again"]),
        "tries": max([TRIES, *(len(slot["servers"]) * (2 if full["again"] else 1) for slot in upstreams)]),
        "connect_seconds": _connect_seconds(upstreams, again=bool(full["again"])),
        "root": full["root"] or "",
        "spa": bool(full["spa"]),
        "immutable_paths": paths(f"{key}.immutable_paths", full["immutable_paths"]),
        "headers": full["headers"],
    }


def _connect_seconds(upstreams: t.Sequence[Data], *, again: bool) -> int:
    if all(is_local(server["address"]) for slot in upstreams for server in slot["servers"]):
        return CONNECT_SECONDS
    return CONNECT_SECONDS_AGAIN if again else CONNECT_SECONDS_AWAY


def merge_headers(site: Data, common: t.Mapping[str, t.Any]) -> Data:
    """Return a site with the headers it adds, changes or leaves out against what all sites send."""
    if not site["headers"]:
        return {**site, "headers": [], "headers_file": HEADERS_FILE}
    key = f"nginx_sites[{site['name']}].headers"
    own = {header["name"].lower(): header for header in headers(key, site["headers"])}
    dropped = {name.lower() for name in site["headers"]}
    ident = site["name"].replace("-", "_")
    kept = [header for header in headers("nginx_security_headers", common) if header["name"].lower() not in dropped]
    changed = [{**header, "upstream": header["variable"], "variable": f"{ident}__{header['variable']}"} for header in own.values()]
    return {**site, "headers": changed, "all_headers": kept + changed, "headers_file": f"{HEADERS_DIRECTORY}/{site['name']}.conf"}


def resolve_sites(sites: t.Sequence[t.Mapping[str, t.Any]]) -> list[Data]:
    """Return every site resolved; names and domains are unique among them."""
    resolved = [resolve_site(site, f"nginx_sites[{index}]") for index, site in enumerate(sites)]
    names: set[str] = set()
    owners: dict[tuple[str, str], str] = {}
    for site in resolved:
        ident = site["name"].replace("-", "_")
        if ident in names:
            refuse(f"nginx_sites[{site['name']}].name", "is used by two sites (- and _ count as the same)")
        names.add(ident)
        for domain in site["domains"]:
            place = (site["listen"].get("place", ""), domain)
            if place in owners:
                refuse(f"nginx_sites[{site['name']}].domains", f"names {domain}, which site {owners[place]} names too")
            owners[place] = site["name"]
    return resolved


def directories(resolved: t.Sequence[Data]) -> list[str]:
    """Return the directories that must exist and let Nginx's workers through: a flag file that they cannot see is no flag."""
    wanted = set(OWN_DIRECTORIES)
    for site in resolved:
        parts = site["slot_directory"].split("/")
        wanted.update("/".join(parts[:depth]) for depth in range(min(4, len(parts)), len(parts) + 1) if site["slot_directory"])
    return sorted(wanted)


def networks(key: str, wanted: t.Sequence[str]) -> list[str]:
    """Return network ranges in one notation."""
    result = []
    for index, text in enumerate(wanted):
        try:
            result.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            refuse(f"{key}[{index}]", "must be an address range such as 192.0.2.0/24")
    return result


def model(
    sites: t.Sequence[t.Mapping[str, t.Any]],
    *,
    security_headers: t.Mapping[str, t.Any] | None = None,
    hsts: str = "",
    real_ip_from: t.Sequence[str] = (),
) -> Data:
    """Return everything that the role's templates and tasks need to know about the sites."""
    common = security_headers or {}
    resolved = [merge_headers(site, common) for site in resolve_sites(sites)]
    own_headers = [
        {"path": site["headers_file"], "template": "headers.conf.j2", "vars": {"__nginx_headers": site["all_headers"]}} for site in resolved if site["headers"]
    ]
    return {
        "sites": resolved,
        "headers": headers("nginx_security_headers", common),
        "hsts": header_value("nginx_hsts", hsts),
        "real_ip_from": networks("nginx_real_ip_from", real_ip_from),
        "proxies": sorted({network for site in resolved for network in site["listen"].get("from", [])}),
        "visited": any(not site["listen"] for site in resolved) or not resolved,
        "certificates": [
            {"site": site["certificate"], "domains": site["domains"], **_pair(f"nginx_sites[{site['name']}].tls", given.get("tls") or {})}
            for site, given in zip(resolved, sites)
            if site["secure"]
        ],
        "directories": [{"path": path} for path in directories(resolved)],
        "site_files": [{"path": f"{SITES_DIRECTORY}/{site['name']}.conf", "template": "site.conf.j2", "vars": {"__nginx_site": site}} for site in resolved]
        + own_headers,
    }
