# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL cluster and its replicas: how each host stands, whether that is what the inventory says, and who may take over from whom."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t

from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, judge, judge_limit, poll, verdict
from .layout import STATE
from .local_cluster import LocalCluster
from .postgresql_objects import configured_port
from .postgresql_scram import matches
from .world import Completed, World

Data = dict[str, t.Any]

#: What provisioning left of who the primary is, who follows it, and what is too far behind.
SETTINGS = "/etc/anchorage/replication.json"
#: That a promotion has stopped the primary of this host, until it has become a replica.
RECORD = f"{STATE}/promotion.json"
#: systemd's own proxy, which hands on who still comes to a former primary.
FORWARD = "anchorage-database-forward"

ROLE = "anchorage_replication"
PREFIX = "anchorage_"
CLUSTER = "main"
STANDBY = "standby.signal"
MB = 1048576

PRIMARY, REPLICA = "primary", "replica"

LOOK = """
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'empty', NOT EXISTS (SELECT FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')) AND NOT EXISTS (
    SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')),
  'receiving', EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  'position', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
  'behind_bytes', CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END,
  'behind_seconds', CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 0
    ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
  'senders', (SELECT coalesce(json_agg(json_build_object('slot', application_name, 'state', state,
    'bytes', pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, replay_lsn),
    'seconds', coalesce(extract(epoch FROM replay_lag), 0))), '[]') FROM pg_stat_replication),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'active', active, 'lost', wal_status = 'lost',
    'kept_bytes', CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END)), '[]')
    FROM pg_replication_slots WHERE slot_type = 'physical'),
  'verifier', (SELECT CASE WHEN rolcanlogin AND rolreplication AND NOT rolsuper AND NOT rolcreatedb AND NOT rolcreaterole AND NOT rolbypassrls
    THEN rolpassword END FROM pg_authid WHERE rolname = '{role}'),
  'waiting', (SELECT coalesce(json_agg(name), '[]') FROM pg_settings WHERE pending_restart)
);
"""


def slot_name(host: str) -> str:
    """Return the slot that a host follows its primary by. PostgreSQL takes few characters; two hosts never share one."""
    plain = re.sub(r"[^a-z0-9_]", "_", host.lower())
    exact = plain == host and len(PREFIX + plain) <= 63
    return PREFIX + plain if exact else f"{PREFIX}{plain[:40]}_{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def settings(world: World) -> Data:
    """Return what provisioning left; nothing where this host has no replicas and is none.

    :raises AnchorageError: when the file cannot be read as JSON.
    """
    raw = world.read(SETTINGS)
    try:
        return t.cast("Data", json.loads(raw)) if raw else {}
    except ValueError as error:
        raise AnchorageError(f"{SETTINGS} is no JSON: {error}.", next_step="Run provision.yml for the hosts of group database.") from error


def cluster_of(world: World, version: str = "") -> LocalCluster | None:
    """Return the cluster that is replicated; None where there is none yet.

    :arg version: its major version; without it what provisioning left, or the newest one.
    """
    known = [name for name in world.listdir("/etc/postgresql") if world.exists(f"/etc/postgresql/{name}/{CLUSTER}/postgresql.conf")]
    wanted = str(version or settings(world).get("version") or (max(known, key=lambda name: tuple(map(int, name.split(".")))) if known else ""))
    if wanted not in known:
        return None
    place = f"/etc/postgresql/{wanted}/{CLUSTER}"
    files = [f"{place}/postgresql.conf", *(f"{place}/conf.d/{name}" for name in world.listdir(f"{place}/conf.d") if name.endswith(".conf"))]
    return LocalCluster(world, wanted, CLUSTER, configured_port(b"\n".join(world.read(path) or b"" for path in files).decode("utf-8", "replace")))


def control(cluster: LocalCluster) -> Data:
    """Return what the control file says of a cluster, whether it runs or not."""
    done = cluster.world.run([f"{cluster.programs}/pg_controldata", "-D", cluster.data], env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, cwd="/", timeout=30)
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines.items()}
    return {
        "was": found.get("Database cluster state", ""),
        "system": found.get("Database system identifier", ""),
        "timeline": int(found.get("Latest checkpoint's TimeLineID") or 0),
        "checkpoint": found.get("Latest checkpoint location", ""),
    }


def ask(cluster: LocalCluster, sql: str, *, timeout: float = 30) -> Completed:
    """Ask a cluster as its superuser, whose socket nothing that provisioning changes is needed for."""
    argv = [f"{cluster.programs}/psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"]
    return cluster.world.run(argv, input=sql, env=cluster.environment, cwd="/", timeout=timeout, user="postgres")


def look(world: World, *, version: str = "", password: str | None = None) -> Data:
    """Return how the cluster of this host stands. No secret is in it.

    :arg password: that of the replicas; without it nothing is said of theirs.
    """
    cluster = cluster_of(world, version)
    record = world.read(RECORD)
    result: Data = {
        "installed": cluster is not None,
        "data": False,
        "running": False,
        "in_recovery": False,
        "standby": False,
        "empty": False,
        "receiving": False,
        "entered": False,
        "senders": [],
        "slots": [],
        "answer": "",
        "fenced": record is not None,
        "forwarding": world.exists(f"/etc/systemd/system/{FORWARD}.socket"),
    }
    if cluster is None:
        return {**result, "answer": "PostgreSQL is not installed yet"}
    result.update(version=cluster.version, port=cluster.port, data=world.exists(f"{cluster.data}/PG_VERSION"))
    result["standby"] = world.exists(f"{cluster.data}/{STANDBY}")
    if result["data"]:
        result.update(control(cluster))
    done = ask(cluster, LOOK.format(role=ROLE))
    if done.rc != 0:
        return {**result, "answer": done.stderr.strip()[:300] or f"psql ended with {done.rc}"}
    told = json.loads(done.stdout)
    verifier = told.pop("verifier")
    return {**result, **told, "running": True, "entered": bool(password and verifier and matches(password, verifier))}


def is_primary(state: Data) -> bool:
    """Tell whether a host has data that it writes to by itself, or would as soon as it runs."""
    return bool(state["data"] and not state["in_recovery"] and not state["standby"] and not state["fenced"] and not (state["running"] and state["empty"]))


def bytes_of(position: str) -> int:
    """Return a place in the WAL as a number."""
    high, _slash, low = position.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


# ---- what the inventory says against what runs ------------------------------------------------------------------------


def refusal(order: t.Sequence[str], states: t.Mapping[str, Data], rebuild: str = "", promoting: bool = False) -> str:
    """Return why the hosts must not be provisioned in this order; nothing where they may.

    :arg order: the hosts of the group, the one that is to be the primary first.
    :arg states: how those stand that were asked.
    :arg rebuild: the replica whose data may be replaced.
    :arg promoting: whether this is the promotion itself, for which hosts were stopped.
    """
    busy = [name for name in order if name in states and (states[name]["fenced"] or states[name]["forwarding"])]
    if busy and not promoting:
        return f"A promotion of the database was cut off: {busy[0]} was stopped for it. Run promote.yml, which goes on with it. Nothing was changed."
    first = order[0]
    primaries = [name for name in order[1:] if name in states and is_primary(states[name]) and name != rebuild]
    state = states.get(first)
    if state and (state["in_recovery"] or state["standby"]):
        where = f"{primaries[0]} is the primary" if primaries else "which of the others is the primary is not known"
        return (
            f"{first} stands first in group database, and so is to be the primary, but it is a replica; {where}. Nothing was changed."
            f" To let {first} take over, run promote.yml; else put {primaries[0] if primaries else 'the primary'} first again."
        )
    if state and primaries and not is_primary(state):
        return (
            f"{first} stands first in group database, and so is to be the primary, but {primaries[0]} has the data and {first} has none. Nothing was changed."
            f" Put {primaries[0]} first; {first} becomes its replica, and promote.yml lets it take over then."
        )
    if primaries:
        return (
            f"{primaries[0]} is to be a replica of {first}, but has data of its own, or did not tell that it has none"
            f"{': ' + states[primaries[0]]['answer'] if states[primaries[0]]['answer'] else ''}. Nothing was changed. If {primaries[0]} is the primary, put it"
            f" first; if its data may be replaced by those of {first}: -e postgresql_rebuild_replica={primaries[0]}"
        )
    return ""


def plan(order: t.Sequence[str], states: t.Mapping[str, Data], max_lag_mb: float) -> Data:
    """Return what a promotion has to do so that the first host is the primary.

    :returns: C(action), one of C(switch) (stop C(source), promote the first), C(back) (the first was stopped for a promotion that never came), C(finish)
        (the first is the primary already), with C(former), the hosts that hand on to it; or C(refusal).
    """

    def no(words: str) -> Data:
        return {"action": "", "source": "", "former": [], "refusal": words}

    if len(order) < 2:
        return no("Group database of the inventory has no second host, so there is none that could take over.")
    missing = [name for name in order if name not in states]
    if missing:
        return no(f"{' and '.join(missing)} did not answer, and each database host has to be asked.")
    first = order[0]
    state = states[first]
    fenced = [name for name in order if states[name]["fenced"]]
    rivals = [name for name in order[1:] if is_primary(states[name])]
    if state["running"] and is_primary(state):
        if rivals:
            return no(f"{first} and {rivals[0]} both run as primaries. One of them has to go by hand: docs/operations.md, The primary is lost.")
        return {"action": "finish", "source": "", "former": [name for name in fenced if name != first], "refusal": ""}
    if first in fenced and not rivals and not state["forwarding"]:
        promoted = [name for name in order[1:] if states[name]["running"] and not states[name]["in_recovery"]]
        return no(f"{promoted[0]} has taken over already; put it first.") if promoted else {"action": "back", "source": first, "former": [], "refusal": ""}
    if not state["running"]:
        return no(f"{first} does not answer ({state['answer'] or 'PostgreSQL does not run'}), so it cannot take over.")
    if not state["in_recovery"]:
        return no(f"{first} is no replica yet. Put the primary first and run provision.yml, which makes it one.")
    sources = [*rivals, *(name for name in fenced if name != first)]
    if len(sources) != 1:
        words = f"{' and '.join(sources)} both have the data" if sources else "no other host of group database is the primary"
        return no(f"{first} is a replica, but {words}. docs/operations.md, The primary is lost, says what can be done.")
    source = sources[0]
    if source in fenced:
        return {"action": "switch", "source": source, "former": [source], "refusal": ""}
    if not states[source]["running"]:
        return no(f"{source}, the primary, does not answer ({states[source]['answer']}); so nobody knows whether {first} has everything.")
    sender = next((sender for sender in states[source]["senders"] if sender["slot"] == slot_name(first) and sender["state"] == "streaming"), None)
    if sender is None or not state["receiving"]:
        return no(f"{first} does not stream from {source}, so it would lack what was written last. anchorage health on both says why.")
    if (sender["bytes"] or 0) > max_lag_mb * MB:
        return no(f"{first} is {sender['bytes'] / MB:.0f} MB behind {source}; the limit is {max_lag_mb:g} MB. Run it again when it has caught up.")
    return {"action": "switch", "source": source, "former": [source], "refusal": ""}


# ---- health ----------------------------------------------------------------------------------------------------------


def judge_state(told: Data, state: Data) -> list[Check]:
    """Judge how a host stands against what provisioning left."""
    if state["fenced"] or state["forwarding"]:
        cause = "a promotion is under way or was cut off: the database of this host was stopped for it"
        return [Check("promotion", WARN if state["forwarding"] else FAIL, {}, cause, "promote.yml, which goes on with it")]
    if not state["running"]:
        return [Check("connect", FAIL, {"said": state["answer"]}, f"the server does not answer: {state['answer']}", "journalctl -u 'postgresql@*'")]
    role = REPLICA if state["in_recovery"] else PRIMARY
    cause = f"it is a {role}, and provisioning made it a {told['role']}"
    checks = [judge("role", role == told["role"], evidence={"role": role, "wanted": told["role"]}, cause=cause, advice="which host is first in group database")]
    if not checks[0].healthy:
        return checks
    return [*checks, *(_judge_replica(told, state) if role == REPLICA else [found for name in told["replicas"] for found in _judge_sender(told, state, name)])]


def _judge_replica(told: Data, state: Data) -> list[Check]:
    primary = told["primary"]
    rebuild = f"provision.yml -e postgresql_rebuild_replica={told['name']}"
    advice = f"the primary, and the log of this host; where it asks for WAL that is gone: {rebuild}"
    checks = [judge("streaming", state["receiving"], cause=f"it does not stream from {primary}", advice=advice)]
    return [*checks, *_lag(told, "it", state["behind_bytes"] or 0, state["behind_seconds"] or 0)]


def _judge_sender(told: Data, state: Data, name: str) -> list[Check]:
    """Judge one replica as its primary sees it."""
    slot = slot_name(name)
    sender = next((sender for sender in state["senders"] if sender["slot"] == slot), None)
    kept = next((kept for kept in state["slots"] if kept["name"] == slot), None)
    rebuild = f"provision.yml -e postgresql_rebuild_replica={name}"
    if kept is not None and kept["lost"]:
        return [Check(f"streaming:{name}", FAIL, {"slot": slot}, f"{name} was away for too long: WAL that it lacks is gone", rebuild)]
    if sender is None or sender["state"] != "streaming":
        doing = f"it is at {sender['state']}" if sender else "it is not connected"
        facts = {"slot": slot, "kept_mb": round((kept or {}).get("kept_bytes") or 0) // MB, "state": (sender or {}).get("state")}
        return [Check(f"streaming:{name}", FAIL, facts, f"{name} does not stream: {doing}", f"anchorage health on {name}")]
    return [Check(f"streaming:{name}"), *_lag(told, name, sender["bytes"] or 0, sender["seconds"] or 0)]


def _lag(told: Data, name: str, size: float, seconds: float) -> list[Check]:
    suffix = "" if name == "it" else f":{name}"
    advice = "load and network of both hosts"
    return [
        judge_limit(
            f"lag_bytes{suffix}", round(size / MB, 2), unit="MB", subject=f"what {name} has still to replay", warn=float(told["max_lag_mb"]), advice=advice
        ),
        judge_limit(
            f"lag_seconds{suffix}", round(seconds, 2), unit="s", subject=f"how far {name} is behind", warn=float(told["max_lag_seconds"]), advice=advice
        ),
    ]


def check(world: World, *, deadline_seconds: float) -> Verdict:
    """Ask until it is well or the deadline is over."""
    told = settings(world)
    watch = poll(lambda _seconds: judge_state(told, look(world)), world=world, deadline_seconds=min(deadline_seconds, 5.0), interval_seconds=1.0, successes=1)
    lags = [f"{item.evidence['value']:g} {item.evidence['unit']}" for item in watch.checks if item.name.startswith("lag_")]
    of = f"{len(told['replicas'])} replica{'s' if len(told['replicas']) != 1 else ''}" if told["role"] == PRIMARY else f"a replica of {told['primary']}"
    return verdict("The replication", watch, good=f"{of}, {' / '.join(lags)} behind" if lags else of)
