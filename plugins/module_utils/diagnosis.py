# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong, what most likely causes the rest of it, and the command that mends that: gathered in one go, without a secret in it.

A full disk stops the database, a stopped database fails the app, and a failed app fails the site: four red lines with one cause. Causes stand below
their effects, so what is red is put in order from the machine upwards, and the first one is the likely cause.
"""

from __future__ import annotations

import json
import re
import typing as t

from . import app_health, compose_project, engine, swarm
from .app import App
from .app_health import AMBER, GREEN, LOOPBACK, RED
from .compose_probe import PROJECT
from .database import AS_LOGIN
from .errors import AnchorageError
from .health import FAIL, OK
from .layout import SECRETS, SLOTS
from .masking import Masker, secrets_of
from .runtime import COMPOSE, SWARM, name_of
from .world import World

Data = dict[str, t.Any]

LOG_LINES = 25
LOG_BYTES = 64 * 1024
LINE = 500
COMMAND_SECONDS = 8.0

#: From the machine upwards: kind of the question, and how the names of its checks begin.
CAUSES: tuple[tuple[str, str], ...] = (
    ("host", "disk:"),
    ("host", "inodes:"),
    ("host", "memory"),
    ("host", "clock"),
    ("processes", "engine"),
    ("database", ""),
    ("redis", ""),
    ("release", ""),
    ("processes", "daemon"),
    ("processes", "boot_unit"),
    ("processes", "port:"),
    ("processes", ""),
    ("answer", ""),
    ("site", ""),
    ("tls", ""),
    ("worker", ""),
    ("drift", ""),
    ("backup", ""),
    ("host", "units"),
    ("host", "ports"),
    ("host", "backup"),
    ("host", ""),
)


class Finding(t.NamedTuple):
    """One thing that is not well, with what mends it."""

    rank: int
    grade: str
    app: str
    kind: str
    name: str
    check: str
    cause: str
    command: str


# ---- the order -------------------------------------------------------------------------------------------------------


def rank(kind: str, check: str) -> int:
    """Return how far down a failing check stands: what may be the cause of others comes first."""
    return next((number for number, (of, begins) in enumerate(CAUSES) if of == kind and check.startswith(begins)), len(CAUSES))


def findings(parts: t.Iterable[Data], remedy: t.Callable[[Data, Data], str]) -> list[Finding]:
    """Return what is not well, likely causes first: what fails before what warns, and of each the lowest.

    :arg remedy: says for a part and its check which command mends it.
    """
    found = []
    for part in parts:
        if part["grade"] == GREEN:
            continue
        wrong = [check for check in part["checks"] if check["verdict"] != OK and check["name"] != "steadiness"]
        for check in wrong or [{"name": part["kind"], "verdict": FAIL, "cause": part["summary"], "evidence": {}}]:
            grade = RED if check["verdict"] == FAIL and part["grade"] == RED else AMBER
            place = (rank(part["kind"], check["name"]), grade, part["app"], part["kind"], part["name"])
            found.append(Finding(*place, check["name"], check["cause"], remedy(part, check)))
    return sorted(found, key=lambda item: (item.grade != RED, item.rank))


# ---- the remedies ----------------------------------------------------------------------------------------------------


def _unit_of_redis(app: App, name: str) -> str:
    return f"redis-server@{app.name}-{'cache' if name.endswith('(cache)') else 'jobs'}"


def remedy_of(apps: t.Mapping[str, App]) -> t.Callable[[Data, Data], str]:
    """Return what says for a part and its check which command mends it, knowing the apps of this host."""

    def remedy(part: Data, check: Data) -> str:
        app = apps.get(part["app"])
        cause, name = check.get("cause") or "", check["name"]
        by_kind = {
            "host": _mend_host,
            "backup": _mend_backup,
            "drift": _mend_drift,
            "database": _mend_database,
            "redis": _mend_redis,
            "release": _mend_release,
            "processes": _mend_processes,
            "answer": _mend_answer,
            "worker": _mend_answer,
            "site": _mend_site,
            "tls": _mend_tls,
        }
        return by_kind[part["kind"]](app, part, name, cause, check.get("evidence") or {})

    return remedy


def _mend_backup(_app: App | None, _part: Data, name: str, _cause: str, _evidence: Data) -> str:
    kind, _colon, job = name.partition(":")
    if kind == "backup_proof":
        return f"anchorage backup prove {job}, which says what is broken; then anchorage backup run {job}"
    if kind == "archive":
        return "anchorage backup list, which asks each target; journalctl -u 'postgresql@*'; PostgreSQL catches up by itself"
    return f"anchorage backup status; once the cause is mended: anchorage backup run {job}".rstrip()


def _mend_drift(_app: App | None, _part: Data, _name: str, _cause: str, _evidence: Data) -> str:
    return "provision.yml --check --diff, on the controller, shows it; without --check it is put back"


def _mend_host(_app: App | None, _part: Data, name: str, cause: str, evidence: Data) -> str:
    if name.startswith("disk:"):
        path = name.partition(":")[2]
        return f"du -xh --max-depth=3 {path} 2>/dev/null | sort -h | tail -20; then journalctl --vacuum-size=100M, apt-get clean, or a larger disk"
    if name.startswith("inodes:"):
        return f"du -x --inodes --max-depth=3 {name.partition(':')[2]} 2>/dev/null | sort -n | tail -20"
    if name == "memory":
        return "ps -eo rss,pid,user,args --sort=-rss | head; then fewer instances or more memory (memory_mb of the process caps it)"
    if name.startswith("clock"):
        return "timedatectl set-ntp true; timedatectl"
    failed = evidence.get("failed") or []
    if name == "units" and failed:
        return f"journalctl -u {failed[0]} -n 50; systemctl restart {failed[0]}"
    if name == "reboot":
        return "systemctl reboot, at a good moment"
    if name == "ports":
        return "ss -ltnp; stop what nobody needs, or add its port to monitoring_allowed_ports"
    return "anchorage health"


def _mend_database(app: App | None, part: Data, name: str, cause: str, _evidence: Data) -> str:
    local = app is not None and app.document.get("database_address") == LOOPBACK
    if app and (app.document.get("database") or {}).get("image") and name == "connect":
        return _mend_containers(app, {"name": f"{app.name} services"}, name, cause)
    if part["name"] == "pool" or (app and part["name"] == f"{app.name} pool"):
        return _mend_pool(part, name)
    if app and part["name"] == f"{app.name} database to read from":
        return "anchorage health on the replica; if it stays away: out of group database with it, and deploy.yml"
    if name == "connect" and local:
        if "nothing listens" in cause:
            return "systemctl restart 'postgresql@*'; journalctl -u 'postgresql@*' -n 50"
        if "password" in cause or "does not exist" in cause or "pg_hba" in cause:
            return "provision.yml, on the controller: it gives role, database and rules what the contract says"
        if "all connections" in cause:
            return "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle' ORDER BY state_change LIMIT 5; then smaller pools"
        return "journalctl -u 'postgresql@*' -n 50"
    if part["name"] == "replication":
        if name == "promotion":
            return "promote.yml, on the controller: it goes on where it was cut off"
        gone = f"; where WAL is gone: provision.yml -e postgresql_rebuild_replica={name.partition(':')[2] or 'THIS_HOST'}"
        return "systemctl start 'postgresql@*' on the replica; journalctl -u 'postgresql@*' -n 50 on both" + gone
    if name == "connect":
        return "whoever keeps that server: is it up, does it let this host in, is the url right"
    if name == "write" and "read-only" in cause:
        return "ALTER DATABASE … RESET default_transaction_read_only; or it is a standby: which server is the primary"
    if name in ("write", "disk", "archiving"):
        return "df -h /var/lib/postgresql; journalctl -u 'postgresql@*' -n 50"
    if name in ("locks", "transactions"):
        return "SELECT pg_terminate_backend(pid) of the one that blocks (it stands below, under sessions)"
    return "journalctl -u 'postgresql@*' -n 50"


def _mend_pool(part: Data, name: str) -> str:
    if part["app"]:
        return "anchorage health on the hosts of the database, which asks PgBouncer itself"
    if name == "promotion":
        return "promote.yml, on the controller: it goes on where it was cut off"
    if name.startswith("open:"):
        console = "runuser -u postgres -- psql -h /var/run/postgresql -p 6432 -U pgbouncer pgbouncer"
        return f"{console} -c 'RESUME {name.partition(':')[2]}', with the port of /etc/anchorage/pool.json; or provision.yml, on the controller"
    if name.startswith("waiting:"):
        return "SELECT pid, state, xact_start, query FROM pg_stat_activity ORDER BY xact_start; then shorter transactions, or a larger database.pool.size"
    if name == "clients":
        return "smaller pools in the apps, or a larger postgresql_pool.max_clients"
    return "systemctl restart pgbouncer; journalctl -u pgbouncer -n 50"


def _mend_redis(app: App | None, part: Data, name: str, cause: str, _evidence: Data) -> str:
    if app and (app.document.get("redis") or {}).get("image"):
        return _mend_containers(app, {"name": f"{app.name} services"}, name, cause)
    if app is None or (app.document.get("redis") or {}).get("external"):
        return "whoever keeps that instance: is it up, is the url right"
    unit = _unit_of_redis(app, part["name"])
    if "refused the connection" in cause or "did not answer" in cause or "closed the connection" in cause:
        return f"systemctl restart {unit}; journalctl -u {unit} -n 50"
    if name in ("policy", "append_only", "role") or "password" in cause or "refused (" in cause or "lacks a right" in cause:
        return "provision.yml, on the controller: it gives the instance what the contract says"
    return f"journalctl -u {unit} -n 50; df -h /var/lib/redis"


def _mend_release(app: App | None, part: Data, name: str, _cause: str, _evidence: Data) -> str:
    shop = app.name if app else part["name"]
    commands = {"settled": f"anchorage recover {shop}", "slot": f"anchorage recover {shop}", "last_step": f"anchorage logs {shop}"}
    return commands.get(name, "deploy.yml, on the controller")


def _mend_processes(app: App | None, part: Data, name: str, cause: str, _evidence: Data) -> str:
    if app and name_of(app.document) == SWARM:
        return f"docker stack ps --no-trunc {app.name}, on {app.document['hosts'][0]}; then deploy.yml, on the controller, or anchorage rollback {app.name}"
    if app and name_of(app.document) == COMPOSE:
        return _mend_containers(app, part, name, cause)
    user = app.user if app else part["name"].partition(" ")[0]
    stranger = re.search(r"port (\d+) of .* belongs to pid ([\d, ]+)", cause)
    if stranger:
        return f"ss -ltnp 'sport = :{stranger.group(1)}'; end that process (pid {stranger.group(2).strip()}), then systemctl restart pm2-{user}"
    if name == "boot_unit" and ("disabled" in cause or "not enabled" in cause):
        return f"systemctl enable --now pm2-{user}"
    if name == "boot_unit" and "runs as" in cause:
        return f"systemctl cat pm2-{user}: who changed it; provision.yml, on the controller, puts it back"
    # Of a crash loop either the count of its restarts is seen, or the moment in which it runs and does not listen yet.
    ending = re.match(r"(\S+) (?:is (?:errored|launching|waiting restart) after [1-9]\d* restarts|does not listen on port)", cause)
    if ending and app:
        return f"tail -50 /var/log/pm2/{user}/{ending.group(1)}.log says why; then anchorage rollback {app.name}, or systemctl restart pm2-{user}"
    return f"systemctl restart pm2-{user}"


def _mend_containers(app: App, part: Data, name: str, cause: str) -> str:
    if name == "engine":
        return "systemctl restart docker; journalctl -u docker -n 50"
    if part["name"].endswith(" services"):
        project = compose_project.base_name(app.name)
        return f"cd /etc/anchorage/compose/{project} && docker compose up --detach; docker compose logs --tail 50"
    ending = re.search(rf"({re.escape(app.name)}-\S+) (?:ended|is|runs|was|has)", cause)
    look = f"docker logs --tail 50 {ending.group(1)} says why; then " if ending else ""
    return f"{look}anchorage rollback {app.name}, or docker start {ending.group(1) if ending else '…'}; deploy.yml, on the controller, makes what is missing"


def _mend_answer(app: App | None, part: Data, _name: str, _cause: str, _evidence: Data) -> str:
    if app and name_of(app.document) == COMPOSE:
        return f"docker logs --tail 50 {part['name']}; docker restart {part['name']}; or anchorage rollback {app.name}"
    user = app.user if app else "…"
    return f"tail -50 /var/log/pm2/{user}/{part['name']}.log; systemctl restart pm2-{user}; or anchorage rollback {app.name if app else '…'}"


def _mend_site(_app: App | None, _part: Data, _name: str, cause: str, _evidence: Data) -> str:
    if "refused the connection" in cause:
        return "nginx -t && systemctl restart nginx"
    if "certificate" in cause:
        return "anchorage health: the line of the certificate"
    return "nginx -t && systemctl reload nginx; tail -50 /var/log/nginx/error.log"


def _mend_tls(app: App | None, part: Data, name: str, cause: str, _evidence: Data) -> str:
    site = app.name if app else part["name"].rpartition(" ")[0]
    if name == "served":
        return "nginx -t && systemctl reload nginx"
    if "refused the connection" in cause:
        return "nginx -t && systemctl restart nginx"
    if name == "renewal":
        return "systemctl enable --now certbot.timer; systemctl start certbot.service; journalctl -u certbot.service -n 50"
    return f"certbot renew --force-renewal --cert-name {site}; tail -50 /var/log/letsencrypt/letsencrypt.log"


# ---- what is gathered ------------------------------------------------------------------------------------------------

#: Sessions that others wait for, and statements that take long; what a statement says is masked like all else.
SESSIONS = (
    "SELECT pid, usename AS role, application_name AS name, state, wait_event_type = 'Lock' AS waits, pg_blocking_pids(pid) AS blocked_by,"
    " round(extract(epoch FROM clock_timestamp() - xact_start)) AS transaction_seconds,"
    " round(extract(epoch FROM clock_timestamp() - query_start)) AS statement_seconds, left(query, 2000) AS statement"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND (wait_event_type = 'Lock' OR pid IN (SELECT unnest(pg_blocking_pids(a.pid)) FROM pg_stat_activity a)"
    " OR (state <> 'idle' AND query_start < clock_timestamp() - interval '5 seconds'))"
    " ORDER BY xact_start NULLS LAST LIMIT 20"
)


def tail(world: World, path: str) -> list[str]:
    """Return the last lines of a log; none where there is none. A line of which only the end was read is left out."""
    begin = max(0, world.size(path) - LOG_BYTES)
    text = world.read_part(path, begin, LOG_BYTES).decode("utf-8", "replace")
    return [line for line in text.splitlines()[1 if begin else 0 :] if line.strip()][-LOG_LINES:]


def journal_of(world: World, unit: str) -> list[str]:
    """Return the last lines that a unit left in systemd's journal."""
    argv = ["journalctl", "--no-pager", "--quiet", "--output=short-iso", f"--lines={LOG_LINES}", f"--unit={unit}"]
    done = world.run(argv, timeout=COMMAND_SECONDS)
    return [line for line in done.stdout.splitlines() if line.strip()]


def containers_of(world: World, app: str) -> list[str]:
    """Return the last lines of every container of an app, those of its services among them."""
    found = []
    for project in (compose_project.base_name(app), *(compose_project.project_name(app, slot) for slot in SLOTS)):
        listed = world.run(["docker", "ps", "--all", f"--filter=label={PROJECT}={project}", "--format={{.Names}}"], timeout=COMMAND_SECONDS)
        for name in listed.stdout.split() if listed.rc == 0 else []:
            done = world.run(["docker", "logs", f"--tail={LOG_LINES}", name], timeout=COMMAND_SECONDS)
            found += [f"{name}: {line}" for line in [*done.stdout.splitlines(), *done.stderr.splitlines()] if line.strip()]
    return found


def services_of(app: App) -> list[str]:
    """Return the last lines of every service of an app on a Swarm, wherever its tasks are; none on a host that does not manage it."""
    found = []
    for process in app.document["processes"]:
        name = swarm.service_name(app.name, process["name"])
        done = app.world.run(["docker", "service", "logs", f"--tail={LOG_LINES}", name], timeout=COMMAND_SECONDS)
        found += [f"{name}: {line}" for line in [*done.stdout.splitlines(), *done.stderr.splitlines()] if line.strip() and done.rc == 0]
    return found


def cut(value: t.Any) -> t.Any:
    """Return logs and statements with their lines cut. It comes after masking: half a secret is not known as one."""
    if isinstance(value, str):
        return value if len(value) <= LINE else f"{value[:LINE]} …"
    if isinstance(value, dict):
        return {key: cut(item) for key, item in value.items()}
    return [cut(item) for item in value] if isinstance(value, list) else value


def logs_for(found: t.Iterable[Finding], apps: t.Mapping[str, App], world: World) -> dict[str, list[str]]:
    """Return the logs that belong to what is wrong."""
    wanted: dict[str, t.Callable[[], list[str]]] = {}

    def file(path: str) -> None:
        wanted[path] = lambda: tail(world, path)

    def unit(name: str) -> None:
        wanted[f"journal of {name}"] = lambda: journal_of(world, name)

    for item in found:
        app, kind = apps.get(item.app), item.kind
        if app and name_of(app.document) == COMPOSE and kind in ("database", "redis", "processes", "answer", "worker"):
            wanted[f"containers of {app.name}"] = lambda app=app: containers_of(world, app.name)
        elif app and name_of(app.document) == SWARM and kind in ("processes", "worker"):
            wanted[f"services of {app.name}"] = lambda app=app: services_of(app)
        elif kind == "database":
            for name in world.listdir("/var/log/postgresql"):
                if name.endswith(".log"):
                    file(f"/var/log/postgresql/{name}")
        elif kind == "redis" and app:
            unit(_unit_of_redis(app, item.name))
        elif kind in ("processes", "answer", "worker") and app:
            unit(f"pm2-{app.user}.service")
            place = f"/var/log/pm2/{app.user}"
            for name in world.listdir(place):
                if name.endswith(".log") and (app.journal.slot is None or name.endswith(f"-{app.journal.slot}.log")):
                    file(f"{place}/{name}")
        elif kind == "site":
            file("/var/log/nginx/error.log")
            unit("nginx.service")
        elif kind == "tls":
            file("/var/log/letsencrypt/letsencrypt.log")
            unit("certbot.service")
        elif item.check == "units":
            for failed in re.findall(r"[\w@:.\\-]+\.(?:service|mount|timer|socket)", item.cause)[:3]:
                unit(failed)
        elif kind == "release" and app:
            path = engine.read_step(app).get("log")
            if path:
                file(path)
    return {name: lines for name, lines in ((name, read()) for name, read in wanted.items()) if lines}


def sessions(app: App) -> list[Data] | str:
    """Return who waits, who blocks and what takes long in an app's database, or why that cannot be asked."""
    if app.database is None:
        return []
    try:
        return app.database.rows(SESSIONS, before=AS_LOGIN)
    except AnchorageError as error:
        return error.message


def state_of(app: App) -> Data:
    """Return what is worth knowing of an app: what is live, what came before, what waits for its migration."""
    known = app.journal.data["releases"]
    waiting = sorted(
        name for name, entry in known.items() if app.gated and entry.get("staged_at") and not entry.get("migrated_at") and not entry.get("proven_at")
    )
    events = [{key: event.get(key) for key in ("at", "event", "release")} for event in app.journal.data.get("history", [])[-10:]]
    return {**engine.status(app), "not_migrated": waiting, "history": events, "sessions": sessions(app)}


def masker(world: World, apps: t.Iterable[App]) -> Masker:
    """Return what takes every secret that this host knows out of a text."""
    secrets = {secret for app in apps for secret in secrets_of(app.document)}
    for name in world.listdir(SECRETS):
        secrets |= {str(value) for value in _values(world.read(f"{SECRETS}/{name}"))}
    try:
        notify = app_health.settings(world).get("notify") or {}
    except AnchorageError:  # a line of its own says so
        notify = {}
    return Masker({*secrets, *filter(None, [notify.get("webhook_url")])})


def _values(raw: bytes | None) -> list[t.Any]:
    try:
        known = json.loads(raw or b"{}")
    except ValueError:
        return []
    if not isinstance(known, dict):
        return []
    pending = known.get("pending") or {}
    parts = [known, pending.get("teach") or {}, *((pending.get(side) or {}).get("values") or {} for side in ("before", "after"))]
    # Earlier keys stand in one value, joined by commas.
    return [key for part in parts for value in part.values() if isinstance(value, str) for key in (value, *value.split(","))]


def diagnose(names: t.Iterable[str] | None, world: World, *, deadline_seconds: float = 10.0, **more: t.Any) -> Data:
    """Look at everything, and gather what belongs to what is wrong. No secret that this host knows is in what it returns.

    :returns: C(grade), C(summary), C(findings) (likely cause first, each with the command that mends it), C(apps), C(logs), C(parts).
    """
    wanted = [*(engine.apps(world) if names is None else names)]
    apps: dict[str, App] = {}
    for name in wanted:
        try:
            apps[name] = App(name, world)
        except (AnchorageError, ValueError):  # its own line says what is damaged
            continue
    look = app_health.look(wanted, world, deadline_seconds=deadline_seconds, kinds=(*app_health.KINDS, "drift"), **more)
    found = findings(look["parts"], remedy_of(apps))
    told = {
        "grade": look["grade"],
        "at": look["at"],
        "summary": f"{found[0].name}: {found[0].cause}" if found else look["summary"],
        "findings": [{key: value for key, value in item._asdict().items() if key != "rank"} for item in found],
        "parts": look["parts"],
    }
    hide = masker(world, apps.values()).data
    gathered = {"apps": {name: state_of(app) for name, app in apps.items()}, "logs": logs_for(found, apps, world)}
    return {**hide(told), **cut(hide(gathered))}


def lines(told: Data) -> list[str]:
    """Return a diagnosis as text for people: the likely cause and its remedy first, then all else."""
    found = told["findings"]
    if not found:
        return [f"{told['grade']}: {told['summary']}"]
    first = found[0]
    text = [f"Likely cause: {first['name']}: {first['cause']}", f"To mend it:   {first['command']}", ""]
    for item in found[1:]:
        text += [f"{item['grade']}: {item['name']}: {item['cause']}", f"  {item['command']}"]
    for name, state in told["apps"].items():
        text += ["", f"{name}: release {state['live'] or '-'} in slot {state['slot'] or '-'}, before it {state['previous'] or '-'}"]
        if state["not_migrated"]:
            text.append(f"  not migrated yet: {', '.join(state['not_migrated'])}")
        for session in state["sessions"] if isinstance(state["sessions"], list) else []:
            waits = f", waits for {session['blocked_by']}" if session["waits"] else ""
            text.append(f"  session {session['pid']} ({session['state']}, {session['transaction_seconds'] or 0:.0f} s{waits}): {session['statement']}")
    for name, tail_lines in told["logs"].items():
        text += ["", f"{name}:", *[f"  {line}" for line in tail_lines]]
    return text
