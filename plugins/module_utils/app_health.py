# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the contract says of a healthy app, asked at once on its host: database, Redis, processes, answers, site, certificate, journal.

What is asked follows from the document that the last deploy left and from the journal, so nobody keeps a list of checks. All questions run side
by side within one deadline; one that breaks is a red verdict of its own and takes none of the others along.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import typing as t

from . import (
    backup_probe,
    compose_probe,
    compose_project,
    edges,
    engine,
    fleet_tls,
    golive,
    host_drain,
    host_manifest,
    host_probe,
    pm2,
    postgresql_objects,
    postgresql_pool,
    postgresql_probe,
    postgresql_replication,
    redis_probe,
    refusals,
    restart,
    swarm_probe,
    tls_probe,
    worker_probe,
)
from .app import App
from .compose_runtime import Compose
from .errors import AnchorageError
from .health import FAIL, IGNORE, OK, WARN, Check, Verdict, Watch, joined, judge, verdict
from .http_probe import Expectation, Identity, Target, bracketed
from .http_probe import check as ask_http
from .layout import AUTHORITY
from .release_plan import Instance, instances, listen_address
from .runtime import COMPOSE, SWARM, name_of
from .slots import heartbeat
from .swarm_runtime import Swarm
from .world import World

Data = dict[str, t.Any]

GREEN, AMBER, RED = "green", "amber", "red"
GRADES = {OK: GREEN, WARN: AMBER, FAIL: RED}

#: What is asked always, and what only when somebody wants it: these send requests that no visitor sends, or read many files.
KINDS = ("release", "database", "redis", "processes", "answer", "worker", "site", "tls", "host", "backup")
ON_REQUEST = ("negative", "golive", "drift")

#: Where provisioning leaves what is healthy for this host.
SETTINGS = "/etc/anchorage/health.json"
CERTIFICATES = "/etc/nginx/tls"
CERTBOT = "/etc/letsencrypt/anchorage.json"
LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
DATABASES = "/var/lib/postgresql"
LOOPBACK = "127.0.0.1"

#: Seconds beyond the deadline that a question gets to come to its own end.
GRACE = 2.0

#: Seconds that a look gets at least that is repeated because a switch of the release ran through it.
LEAST = 1.0


class Part(t.NamedTuple):
    """One question. C(ask) gets the seconds that it has."""

    name: str
    kind: str
    ask: t.Callable[[float], Verdict]
    app: str = ""


# ---- what is asked ---------------------------------------------------------------------------------------------------


def parts_of_app(app: App) -> list[Part]:
    """Return the questions that an app's document and journal imply on this host."""
    return [part._replace(app=app.name) for part in _parts_of_app(app)]


def _parts_of_app(app: App) -> list[Part]:
    live = app.journal.live
    document = app.at(live).document if live else app.document
    found = [Part(app.name, "release", lambda _seconds: judge_release(app))]
    if document.get("inside"):
        found.append(Part(f"{app.name} services", "processes", lambda seconds: _ask_services(app, document, seconds)))
    if document.get("database_url"):
        found.append(Part(f"{app.name} database", "database", lambda seconds: _ask_database(app, document, seconds)))
    for key, name, writes in (("database_pool_url", "pool", True), ("database_read_url", "database to read from", False)):
        if document.get(key):
            found.append(Part(f"{app.name} {name}", "database", _way(app, document[key], writes=writes)))
    for key, purpose in (("redis_url", "jobs"), ("redis_cache_url", "cache")):
        if document.get(key):
            found.append(Part(f"{app.name} Redis ({purpose})", "redis", _redis(app, document, key, purpose)))
    if live and name_of(document) == SWARM:
        found += _swarm_parts(app, document, live)
    elif live and app.journal.slot:
        wanted = instances(document, app.journal.slot)
        ask = _ask_compose if name_of(document) == COMPOSE else _ask_pm2
        found.append(Part(f"{app.name} processes", "processes", lambda seconds: ask(app, document, wanted, live, seconds)))
        for item in wanted:
            if item.port is not None and _path(item.process):
                found.append(Part(item.name, "answer" if item.process["public"] else "worker", _answer(app, document, item, live)))
        for process in document["processes"]:
            if process.get("heartbeat") and process["instances"]:
                found.append(Part(f"{app.name} {process['name']} heartbeat", "worker", _heartbeat(app.at(live), process, live)))
    if _site_was_taken_away(app, document):
        found.append(Part(f"{app.name} (public)", "site", lambda _seconds: _judge_no_site(app)))
        document = {**document, "domains": []}
    # Components are no part of a release, so what provisioning was told last is what holds.
    found += [part for component in app.document.get("components") or [] for part in _component_parts(app, component)]
    # Where nothing was ever live there is nothing that a visitor could be shown, and the line of the release says why.
    if live and document.get("domains") and document.get("proxy_address"):
        site = {"name": app.name, "domains": document["domains"], "tls_mode": document["tls"]["mode"], **_public_health(document)}
        found += _site_parts(site, document["proxy_address"], app.world)
    if live:
        found.append(Part(f"{app.name} refusals", "negative", lambda seconds: _refusals(app, document, seconds)))
        found += [_box(app.name, box) for box in golive.boxes_of_app(app, document, live)]
    return found


def _swarm_parts(app: App, document: Data, live: str) -> list[Part]:
    """Return the questions to an app whose processes are where the Swarm has put them. Its signs of life are asked for where it is led."""
    name = f"{app.name} tasks"
    found = [Part(name, "processes", lambda _seconds: _settled(name, swarm_probe.ask(app, document, live), "they run as the Swarm was told"))]
    leads = Swarm(app.at(live)).leads
    for process in document["processes"]:
        if process.get("heartbeat") and process["instances"] and leads:
            found.append(Part(f"{app.name} {process['name']} heartbeat", "worker", _heartbeat(app.at(live), process, live)))
    return found


def _site_was_taken_away(app: App, document: Data) -> bool:
    """Tell whether provisioning itself has removed the site: then the app was taken out of the inventory, and nobody is to be woken up."""
    if not document.get("domains") or not edges.chooses_here(document) or app.world.exists(app.layout.site):
        return False
    return host_manifest.was_removed(app.world, app.layout.site)


def _judge_no_site(app: App) -> Verdict:
    cause = f"provisioning has taken its site away, since {app.name} is no longer in the inventory; its processes were left running"
    advice = "put it back into apps and run site.yml; or let it go: docs/operations.md, An app that is to go"
    return _settled(f"{app.name} (public)", [judge("site", False, evidence={"site": app.layout.site}, cause=cause, advice=advice, severity=WARN)], "")


def _settled(subject: str, checks: t.Sequence[Check], good: str) -> Verdict:
    """Return the verdict of checks that were made once."""
    healthy = int(all(check.healthy for check in checks))
    return verdict(subject, Watch(tuple(checks), 1, healthy, healthy, 1, 0.0), good=good)


def _refusals(app: App, document: Data, seconds: float) -> Verdict:
    checks = refusals.ask(app, document, seconds=seconds)
    return _settled(f"{app.name} refusals", checks, good=joined((check.name for check in checks), ", "))


def _files(world: World) -> Verdict:
    check = host_manifest.judge_files(world)
    return _settled("host files", [check], good=f"{check.evidence['known']} as provisioning left them")


def _box(owner: str, box: golive.Box) -> Part:
    name = f"{owner}: {box.name}"
    return Part(name, "golive", lambda seconds: _settled(name, [box.ask(seconds)], good="seen"))


def _path(process: Data) -> str | None:
    return (process.get("health") or {}).get("path")


def _public_health(document: Data) -> Data:
    """Return path and status of the public process's own health check, as the site of the app must answer it too."""
    process = next((process for process in document["processes"] if process["public"]), {})
    return {"health_path": _path(process), "health_status": (process.get("health") or {}).get("status", 200)}


def judge_release(app: App) -> Verdict:
    """Judge what the journal says: a release is live, and nothing was left half-way."""
    state = engine.status(app)
    step = state["last_step"] or {}
    working = bool(step) and step.get("finished_at") is None
    where = {"live": state["live"], "slot": state["slot"], "since": state["since"]}
    first = working and not state["live"]
    cause = "the first release is being made" if first else "no release is live on this host"
    checks = [judge("live", bool(state["live"]), evidence=where, cause=cause, advice="deploy.yml", severity=WARN if first else FAIL)]
    unsettled = not working and (app.unsettled or app.journal.switch is not None)
    cause = f"a step ended between two releases{', and ' + state['unconfirmed'] + ' waits to be confirmed' if state['unconfirmed'] else ''}"
    checks.append(judge("settled", not unsettled, evidence={"unconfirmed": state["unconfirmed"]}, cause=cause, advice=f"anchorage recover {app.name}"))
    used = "green" if app.world.exists(app.layout.slot_flag) else "blue"
    astray = not working and bool(state["live"]) and bool(app.document.get("domains")) and edges.chooses_here(app.document) and used != state["slot"]
    cause = f"the proxy uses slot {used}, and the live release is in {state['slot']}"
    checks.append(judge("slot", not astray, evidence={"proxy": used, "live": state["slot"]}, cause=cause, advice=f"anchorage recover {app.name}"))
    out = host_drain.drained(app.world).get(app.name)
    cause = f"this host is out of the balance of its proxies for {app.world.now() - out['since'] if out else 0:.0f} s: other hosts serve"
    checks.append(
        judge("balance", out is None, evidence={"drained_at": out and out["since"]}, cause=cause, advice=f"anchorage undrain {app.name}", severity=WARN)
    )
    reasons = [] if working else restart.outdated(app)
    advice = f"rolling_upgrade.yml; where this is the only host, anchorage restart {app.name}, when few visit"
    checks.append(judge("outdated", not reasons, evidence={"reasons": reasons}, cause=joined(reasons, "; "), advice=advice, severity=WARN))
    failed = bool(step) and not working and step.get("ok") is False
    told = f"the last step ({step.get('step')} of {step.get('release')}) failed, what was live before it is live" if failed else ""
    facts = {key: step.get(key) for key in ("step", "release", "ok", "started_at", "finished_at")}
    checks.append(judge("last_step", not failed, evidence=facts, cause=told, advice=f"anchorage logs {app.name}", severity=WARN))
    good = f"release {state['live']} is live in slot {state['slot']}" + (f", {step['step']} of {step['release']} runs" if working else "")
    return dataclasses.replace(_settled(app.name, checks, good), extra={"release": state["live"]})


def _ask_database(app: App, document: Data, seconds: float) -> Verdict:
    database = document.get("database") or {}
    local = not database.get("external") and document.get("database_address") == LOOPBACK
    wanted = postgresql_probe.Expectation(
        owner=database.get("user") if not database.get("external") else None,
        disk_path=DATABASES if local and app.world.exists(DATABASES) else None,
    )
    login = postgresql_probe.parse_url(document["database_url"])
    return postgresql_probe.check(login, wanted, world=app.world, deadline_seconds=seconds)


def _way(app: App, url: str, *, writes: bool) -> t.Callable[[float], Verdict]:
    """Return the question whether a way of the processes to their data is open. What is to be said of the server is said of the database itself."""
    wanted = postgresql_probe.Expectation(
        write_probe=writes,
        connections_warn_percent=1000,
        connections_fail_percent=1000,
        max_lock_wait_seconds=None,
        pending_restart=IGNORE,
        archiving=IGNORE,
        invalid_indexes=IGNORE,
    )
    return lambda seconds: postgresql_probe.check(postgresql_probe.parse_url(url), wanted, world=app.world, deadline_seconds=seconds)


def _redis(app: App, document: Data, key: str, purpose: str) -> t.Callable[[float], Verdict]:
    # What a provider calls durable is not always an append-only file, so there it is not asked for.
    durable = None if not (document.get("redis") or {}).get("external") else False
    wanted = redis_probe.Expectation(purpose=purpose, append_only=durable)
    return lambda seconds: redis_probe.check(redis_probe.parse_url(document[key]), wanted, world=app.world, deadline_seconds=seconds)


def _ask_pm2(app: App, document: Data, wanted: t.Sequence[Instance], live: str, seconds: float) -> Verdict:
    layout = app.layout
    who = pm2.account(app.user, layout.pm2_home)
    expected = [
        pm2.Wanted(
            item.name,
            ports=[item.port] if item.port is not None else [],
            cwd=f"{layout.release(live)}/app",
            environment={"ANCHORAGE_RELEASE": live},
            loopback_only=listen_address(document, item.process) == LOOPBACK,
            max_memory_mb=item.process.get("memory_mb"),
        )
        for item in wanted
    ]
    # While a step runs, the other slot is in use too.
    strangers = "ignore" if engine.unit_active(app) else WARN
    return pm2.check(who, pm2.Expectation(expected, strangers, f"pm2-{app.user}.service"), world=app.world, deadline_seconds=seconds)


def _ask_compose(app: App, document: Data, wanted: t.Sequence[Instance], live: str, seconds: float) -> Verdict:
    image = Compose(app).image(app.journal.release(live)["tree"])
    services = [
        compose_probe.Wanted(compose_project.service_name(item, live), require_health=bool(_path(item.process) and item.port), digest=image) for item in wanted
    ]
    # While a step runs, the release before may still be there.
    strangers = "ignore" if engine.unit_active(app) else WARN
    expected = compose_probe.Expectation(services, published=_public_ports(document, wanted), unexpected=strangers)
    project = compose_project.project_name(app.name, t.cast(str, app.journal.slot))
    return compose_probe.check(project, expected, world=app.world, deadline_seconds=seconds)


def _public_ports(document: Data, wanted: t.Sequence[Instance]) -> list[str]:
    return [f"{bracketed(listen_address(document, item.process))}:{item.port}" for item in wanted if item.port is not None]


def _ask_services(app: App, document: Data, seconds: float) -> Verdict:
    """Ask after the containers of database and Redis; what they answer is asked elsewhere."""
    names = sorted({place.partition(":")[0] for place in document["inside"].values()})
    expected = compose_probe.Expectation([compose_probe.Wanted(name, require_health=True) for name in names], published=[])
    return compose_probe.check(compose_project.base_name(app.name), expected, world=app.world, deadline_seconds=seconds)


def _component_parts(app: App, component: Data) -> list[Part]:
    """Return the questions to a service beside the app. Where it is down, the app is not, unless the app's way to its data leads through it."""
    wanted = [compose_probe.Wanted(name, require_health=has_check) for name, has_check in component["services"].items()]
    expected = compose_probe.Expectation(wanted, published=[])

    def ask(seconds: float) -> Verdict:
        return compose_probe.check(component["project"], expected, world=app.world, deadline_seconds=seconds)

    found = [Part(f"{app.name} {component['name']}", "processes", ask)]
    if component.get("domain"):
        site = {"name": component["project"], "domains": [component["domain"]], "tls_mode": component["tls_mode"], "health_path": component["health_path"]}
        found += _site_parts(site, LOOPBACK, app.world)
    return found if component["severity"] == FAIL else [part._replace(ask=_lenient(part.ask)) for part in found]


def _lenient(ask: t.Callable[[float], Verdict]) -> t.Callable[[float], Verdict]:
    """Return a question whose worst answer is a warning."""

    def asked(seconds: float) -> Verdict:
        found = ask(seconds)
        checks = tuple(dataclasses.replace(check, verdict=WARN) if check.verdict == FAIL else check for check in found.checks)
        return dataclasses.replace(found, healthy=True, checks=checks)

    return asked


def _answer(app: App, document: Data, item: Instance, live: str) -> t.Callable[[float], Verdict]:
    health = item.process["health"]
    target = Target(f"http://{bracketed(listen_address(document, item.process))}:{item.port}{health['path']}")
    # Of a container the Engine's own proxy listens on the host; whose container it is, is asked with the processes.
    own = {"ANCHORAGE_RELEASE": live, "ANCHORAGE_PROCESS": item.name}
    identity = None if name_of(document) == COMPOSE else Identity(environment=own)
    wanted = Expectation(status=(health["status"],), body=health.get("body") or None, identity=identity)
    return lambda seconds: ask_http(target, wanted, world=app.world, deadline_seconds=seconds)


def _heartbeat(app: App, process: Data, live: str) -> t.Callable[[float], Verdict]:
    beat = heartbeat(app, process, live)
    return lambda seconds: worker_probe.check(beat, world=app.world, deadline_seconds=min(seconds, 5.0))


def _site_parts(site: Data, address: str, world: World) -> list[Part]:
    """Return the questions to a site as its visitors see it, at the proxy that is nearest.

    :arg site: C(name), C(domains), C(tls_mode), C(health_path) and C(health_status).
    """
    name, domains, mode, path = site["name"], site["domains"], site["tls_mode"], site.get("health_path")
    secure = mode != "off"
    host = bracketed(address)
    plain = [domain for domain in domains if not domain.startswith("*.")]
    found = []
    if path and plain:
        url = f"{'https' if secure else 'http'}://{plain[0]}{path}"
        # Whether the certificate is good is the next question, so that one fault is one line.
        target = Target(url, connect_to=f"{host}:{443 if secure else 80}", validate_certs=False)
        wanted = Expectation(status=(int(site.get("health_status") or 200),))
        found.append(Part(f"{name} (public)", "site", lambda seconds: ask_http(target, wanted, world=world, deadline_seconds=seconds)))
    if secure:
        here = address == LOOPBACK
        trusted = tls_probe.Expectation(
            certificate_path=f"{CERTIFICATES}/{name}/fullchain.pem" if here else None,
            renewal_timer="certbot.timer" if here and mode == "acme" else None,
            # Who brings a certificate, or names an authority, has chosen whom its visitors trust.
            untrusted=FAIL if mode == "acme" and not _private_authority(world) else WARN,
        )
        asked = tls_probe.Target(domains, f"{host}:443")
        found.append(Part(f"{name} certificate", "tls", lambda seconds: tls_probe.check(asked, trusted, world=world, deadline_seconds=seconds)))
    return found


def _private_authority(world: World) -> bool:
    """Tell whether this host's certificates come from an authority that not everybody trusts."""
    try:
        server = json.loads(world.read(CERTBOT) or b"{}")["settings"]["server"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return server != LETSENCRYPT


def settings(world: World) -> Data:
    """Return what provisioning left for the health of this host; nothing where it left nothing.

    :raises AnchorageError: when the file is there and cannot be read as JSON.
    """
    raw = world.read(SETTINGS)
    try:
        return json.loads(raw) if raw else {}
    except ValueError as error:
        raise AnchorageError(f"{SETTINGS} is no JSON: {error}.", next_step="Run provision.yml for this host.") from error


def _figures(given: Data, keys: t.Iterable[str]) -> Data:
    """Return options with figures that may have come as text."""
    return {key: float(value) if key in keys and value is not None else value for key, value in given.items()}


def host_part(options: Data, *, controller_time: float | None = None) -> Part:
    """Return the question to the machine itself."""
    given = dict(options)
    backups = [host_probe.Backup(**_figures(backup, ("max_age_hours", "max_proof_age_days"))) for backup in given.pop("backups", [])]
    if given.get("allowed_ports") is not None:
        given["allowed_ports"] = [int(port) for port in given["allowed_ports"]]
    # A unit that failed is told, and what it does for the apps is judged by itself.
    wanted = host_probe.Expectation(**{"failed_units": WARN, **given}, backups=backups, controller_time=controller_time)
    return Part("host", "host", lambda seconds: host_probe.check(wanted, world=host_probe.HostWorld(), deadline_seconds=min(seconds, 5.0)))


def parts(
    names: t.Iterable[str],
    world: World,
    *,
    sites: t.Sequence[Data] | None = None,
    host: bool = True,
    controller_time: float | None = None,
    kinds: t.Collection[str] = KINDS,
) -> list[Part]:
    """Return all questions of this host.

    :arg names: the apps to ask about. One that is not here is a red verdict.
    :arg kinds: what kinds of questions are asked. What cannot be read is told in any case.
    :arg sites: what this host is proxy of although the app is elsewhere; without it what provisioning left.
    """
    found: list[Part] = []
    told: Data = {}

    def add(name: str, kind: str, build: t.Callable[[], list[Part]]) -> None:
        try:
            found.extend(part for part in build() if part.kind in kinds)
        except Exception as error:  # a damaged document is a red line, and the others are asked
            found.append(Part(name, kind, _raising(error), name if kind == "release" else ""))

    def read_settings() -> list[Part]:
        told.update(settings(world))
        return []

    def of_app(name: str) -> t.Callable[[], list[Part]]:
        return lambda: parts_of_app(App(name, world))

    def of_site(site: Data) -> t.Callable[[], list[Part]]:
        return lambda: _site_parts(site, LOOPBACK, world)

    add("settings", "host", read_settings)
    for name in names:
        add(name, "release", of_app(name))
    for site in (told.get("sites") or []) if sites is None else sites:
        add(f"{site.get('name')} (public)", "site", of_site(site))
    if host:
        add("host", "host", lambda: [host_part(told.get("host") or {}, controller_time=controller_time)])
        if world.exists(postgresql_replication.SETTINGS):
            add("replication", "database", lambda: [_replication(world)])
        if world.exists(AUTHORITY):
            add("TLS between hosts", "tls", lambda: [Part("TLS between hosts", "tls", lambda seconds: fleet_tls.check(world, deadline_seconds=seconds))])
        if world.exists(postgresql_objects.POOL):
            add("pool", "database", lambda: [Part("pool", "database", lambda seconds: postgresql_pool.check(world, deadline_seconds=seconds))])
        if backup_probe.exists(world):
            add("backup", "backup", lambda: [Part("backup", "backup", lambda _seconds: backup_probe.check(world))])
        add("host files", "drift", lambda: [Part("host files", "drift", lambda _seconds: _files(world))])
        add("host", "golive", lambda: [_box("host", box) for box in golive.boxes_of_host(world, told)])
    return found


def _replication(world: World) -> Part:
    return Part("replication", "database", lambda seconds: postgresql_replication.check(world, deadline_seconds=seconds))


def _raising(error: Exception) -> t.Callable[[float], Verdict]:
    def ask(_seconds: float) -> Verdict:
        raise error

    return ask


# ---- asking ----------------------------------------------------------------------------------------------------------


def _broken(part: Part, message: str) -> Data:
    return {"name": part.name, "kind": part.kind, "app": part.app, "grade": RED, "healthy": False, "summary": message, "message": message, "checks": []}


def _told(part: Part, found: Verdict) -> Data:
    plain = found.as_result()
    del plain["changed"]
    return {**plain, "name": part.name, "kind": part.kind, "app": part.app, "grade": GRADES[found.grade], "message": found.message}


def _ask(part: Part, seconds: float) -> Data:
    try:
        return _told(part, part.ask(seconds))
    except AnchorageError as error:
        return _broken(part, error.text())
    except Exception as error:  # one question that breaks says so, and all others are answered
        return _broken(part, f"{part.name} could not be asked: {type(error).__name__}: {error}")


def examine(asked: t.Sequence[Part], *, deadline_seconds: float, world: World) -> list[Data]:
    """Ask everything side by side. Whatever has not answered shortly after the deadline is red.

    The threads may be left behind, since nothing can end a read that hangs; they end with the process.
    """
    answers: dict[int, Data] = {}

    def work(index: int, part: Part) -> None:
        answers[index] = _ask(part, deadline_seconds)

    threads = [threading.Thread(target=work, args=(index, part), daemon=True) for index, part in enumerate(asked)]
    end = world.monotonic() + deadline_seconds + GRACE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - world.monotonic()))
    known = dict(answers)
    return [known.get(index) or _broken(part, f"{part.name} gave no answer within {deadline_seconds:g} s.") for index, part in enumerate(asked)]


def summarise(found: t.Sequence[Data]) -> Data:
    """Return the verdict of the whole: its grade is the worst of all."""
    grades = {grade: [item for item in found if item["grade"] == grade] for grade in (GREEN, AMBER, RED)}
    grade = RED if grades[RED] else AMBER if grades[AMBER] else GREEN
    if not found:
        words = "There is nothing to ask on this host."
    elif grade == GREEN:
        words = f"All {len(found)} are well."
    else:
        words = " ".join(item["summary"] for item in (*grades[RED], *grades[AMBER]))
    return {"grade": grade, "healthy": not grades[RED], "summary": words, "parts": list(found)}


class Place(t.NamedTuple):
    """What a look takes for granted of an app: what is live and where. And the step that runs, and whether visitors wait for it."""

    live: str | None
    slot: str | None
    step: str | None = None
    held: bool = False


def _state(names: t.Iterable[str], world: World) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for name in names:
        try:
            app = App(name, world)
            step = engine.read_step(app)
            running = f"{step['step']} of {step['release']}" if step and step.get("finished_at") is None and engine.unit_active(app) else None
            found[name] = Place(app.journal.live, app.journal.slot, running, world.exists(app.layout.hold_flag))
        except (AnchorageError, OSError, ValueError, KeyError):  # its own line says so
            continue
    return found


#: What a handover leaves out for a moment, and what it does where visitors are let wait.
HANDED_OVER = ("processes", "worker")
HELD = (*HANDED_OVER, "answer", "site")


def soften(found: t.Sequence[Data], state: t.Mapping[str, Place]) -> list[Data]:
    """Let what a handover leaves out for a moment be no alarm: while a release is started, a worker may be between its two.

    What visitors see stays as red as it is, unless they are let wait on purpose (strategy C(hold)).
    """
    told = []
    for item in found:
        place = state.get(item["app"])
        if place and place.step and item["grade"] == RED and item["kind"] in (HELD if place.held else HANDED_OVER):
            note = f"While {place.step} runs: "
            item = {**item, "grade": AMBER, "healthy": True, "summary": note + item["summary"], "message": note + item["message"]}
        told.append(item)
    return told


def look(names: t.Iterable[str] | None, world: World, *, deadline_seconds: float = 30.0, **more: t.Any) -> Data:
    """Ask everything of this host, and return the verdict with its parts.

    When a release went live meanwhile, what was asked is not what should have been, so it is asked again in the time that is left.

    :arg more: what C(parts) takes besides.
    """
    began = world.monotonic()
    asked = [*(engine.apps(world) if names is None else names)]
    while True:
        before = _state(asked, world)
        left = max(LEAST, deadline_seconds - (world.monotonic() - began))
        found = examine(parts(asked, world, **more), deadline_seconds=left, world=world)
        after = _state(asked, world)
        same = {name: place[:2] for name, place in after.items()} == {name: place[:2] for name, place in before.items()}
        if same or world.monotonic() - began + LEAST > deadline_seconds:
            break
        world.sleep(0.2)
    busy = {name: before[name] if not place.step and name in before else place for name, place in after.items()}
    held = {name: place._replace(held=place.held or before.get(name, place).held) for name, place in busy.items()}
    return {**summarise(soften(found, held)), "at": round(world.now(), 3), "seconds": round(world.monotonic() - began, 3)}


def lines(found: Data) -> list[str]:
    """Return a verdict as a table for people: what is well in a few words, what is not with its cause and where to look next."""
    width = max([len(item["name"]) for item in found["parts"]], default=0)
    told = [f"{item['grade']:5}  {item['name'].ljust(width)}  {item['summary' if item['grade'] == GREEN else 'message']}" for item in found["parts"]]
    return [*told, f"{found['grade']}: {len(found['parts'])} questions in {found['seconds']:.1f} s"]
