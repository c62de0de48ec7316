# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer before a PostgreSQL cluster: what it is told, and whether it serves.

It keeps no passwords. It asks PostgreSQL for the verifier of a login, as the superuser of the socket, and logs in with the key that SCRAM gave it.
"""

from __future__ import annotations

import json
import re
import typing as t

from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, judge, judge_limit, poll, verdict
from .postgresql_objects import POOL
from .postgresql_replication import RECORD
from .postgresql_settings import networks
from .world import World

Data = dict[str, t.Any]

UNIT = "pgbouncer.service"
SOCKETS = "/var/run/postgresql"

#: Connections that are not for apps: those of the superuser, of migrations, backups and health, and with which PgBouncer asks for logins.
RESERVE = 20
TRANSACTION = "transaction"

#: DISCARD ALL cannot stand beside another statement, and it forgets as whom a second login acts; RESET ROLE brings that back.
RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; RESET ROLE; DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();"
    " DISCARD PLANS; DISCARD SEQUENCES; DISCARD TEMP"
)
#: Whoever may log in and is none of those that are more than an app.
LOGINS = (
    "SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin AND NOT rolsuper AND NOT rolreplication"
    " AND rolpassword LIKE 'SCRAM-SHA-256$%' AND (rolvaliduntil IS NULL OR rolvaliduntil > now())"
)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
_PATH = re.compile(r"/[A-Za-z0-9._/-]+\Z")


def configuration(
    pool: t.Mapping[str, t.Any],
    *,
    port: int,
    max_connections: int,
    databases: t.Collection[str],
    client_addresses: t.Sequence[str],
    certificate: str,
    key: str,
    version: tuple[int, int],
) -> Data:
    """Return what PgBouncer is told, by what a change of it costs.

    :arg pool: C(port), C(max_clients) and C(databases), each with C(name), C(mode), C(size) and C(prepared_statements).
    :arg port: of PostgreSQL, as are C(max_connections) and C(databases), the names that it has.
    :arg client_addresses: networks from which clients come, over TLS.
    :arg version: of PgBouncer; what an old one cannot do is refused.
    :raises AnchorageError: when something cannot be.
    """
    wanted = [dict(one) for one in pool.get("databases") or []]
    for one in wanted:
        name = str(one["name"])
        if not _NAME.match(name) or name == "pgbouncer":
            raise AnchorageError(f"postgresql_pool: '{name}' cannot be the name of a database there.")
        if name not in databases:
            raise AnchorageError(f"postgresql_pool: {name} is none of postgresql_databases.", next_step="Name a database that this host has.")
        if int(one["size"]) < 1:
            raise AnchorageError(f"postgresql_pool: the size of {name} is {one['size']}.", next_step="Give at least 1.")
        if one["mode"] == TRANSACTION and one.get("prepared_statements") and version < (1, 21):
            raise AnchorageError(
                f"postgresql_pool: {name} wants statements that are prepared by name, and PgBouncer {version[0]}.{version[1]} of this host forgets them between"
                " transactions; 1.21 and later do not.",
                next_step="Set its mode to session, or prepared_statements to false where the app prepares none, or take a distribution that has a later one.",
            )
    if not 1024 <= int(pool["port"]) <= 65535 or int(pool["port"]) == port:
        raise AnchorageError(f"postgresql_pool: the port {pool['port']} is none that PgBouncer could have.", next_step="Give one above 1023; 6432 is usual.")
    total = sum(int(one["size"]) for one in wanted)
    if total + RESERVE > max_connections:
        raise AnchorageError(
            f"postgresql_pool: all pools together are {total} connections, and PostgreSQL has {max_connections}, of which {RESERVE} are kept for migrations,"
            " backups and health.",
            next_step=f"Give them {max(0, max_connections - RESERVE)} together, or set postgresql_settings.max_connections to {total + RESERVE} or more.",
        )
    for path in (certificate, key):
        if not _PATH.match(path):
            raise AnchorageError(f"postgresql_pool: '{path}' is no path of a certificate or key.")
    clients = networks(client_addresses)
    restart = {"listen_addr": "*" if clients else "127.0.0.1", "listen_port": int(pool["port"]), "unix_socket_dir": SOCKETS}
    reload = {
        "auth_type": "hba",
        "auth_hba_file": "/etc/pgbouncer/pg_hba.conf",
        "auth_user": "postgres",
        "auth_query": LOGINS,
        "max_client_conn": int(pool.get("max_clients") or 1000),
        "client_tls_sslmode": "allow",
        "client_tls_cert_file": certificate,
        "client_tls_key_file": key,
        "server_reset_query": RESET,
        # PostgreSQL that was restarted is there within a second or two; the default is 15.
        "server_login_retry": 1,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
        "ignore_startup_parameters": "extra_float_digits",
        **({"max_prepared_statements": 200} if version >= (1, 21) else {}),
    }
    # One more, with which it asks for logins.
    places = {
        str(one["name"]): f"host={SOCKETS} port={port} pool_mode={one['mode']} pool_size={one['size']} max_db_connections={int(one['size']) + 1}"
        for one in sorted(wanted, key=lambda one: str(one["name"]))
    }
    told = {"port": int(pool["port"]), "max_clients": reload["max_client_conn"], "databases": {str(one["name"]): int(one["size"]) for one in wanted}}
    # What ends it at once: since 1.23 SIGTERM waits for the clients to go.
    signal = "SIGQUIT" if version >= (1, 23) else "SIGTERM"
    return {"restart": restart, "reload": reload, "databases": places, "clients": clients, "document": told, "stop_signal": signal}


# ---- health ----------------------------------------------------------------------------------------------------------

#: What the console of PgBouncer is asked. It knows no other commands than its own.
ASK = "\\echo @pools\nSHOW POOLS;\n\\echo @databases\nSHOW DATABASES;\n\\echo @lists\nSHOW LISTS;\n"
#: Seconds that somebody may wait for a connection.
WAIT_WARN, WAIT_FAIL = 1.0, 15.0
CLIENTS_WARN_PERCENT = 90


def settings(world: World) -> Data:
    """Return what provisioning left; nothing where there is no pool.

    :raises AnchorageError: when the file cannot be read as JSON.
    """
    raw = world.read(POOL)
    try:
        return t.cast("Data", json.loads(raw)) if raw else {}
    except ValueError as error:
        raise AnchorageError(f"{POOL} is no JSON: {error}.", next_step="Run provision.yml for the hosts of group database.") from error


def parse(text: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each answer by their columns."""
    found: dict[str, list[dict[str, str]]] = {}
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            rows, columns = found.setdefault(line[1:], []), []
        elif not columns:
            columns = line.split("|")
        elif "|" in line:
            rows.append(dict(zip(columns, line.split("|"))))
    return found


def look(world: World, port: int) -> Data:
    """Return what PgBouncer says of itself: C(answer) where it says nothing."""
    argv = ["psql", "-X", "-q", "-A", "-w", "-P", "footer=off", "-v", "ON_ERROR_STOP=1", "-h", SOCKETS, "-p", str(port), "-U", "pgbouncer", "pgbouncer"]
    # Its console takes whoever is the user that it runs as, through its socket.
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "3"}
    done = world.run(argv, input=ASK, env=env, cwd="/", timeout=5, user="postgres")
    if done.rc != 0:
        return {"answer": done.stderr.strip()[:300] or f"psql ended with {done.rc}"}
    return {"answer": "", **parse(done.stdout)}


def judge_pool(told: Data, state: Data, *, promoting: bool = False) -> list[Check]:
    """Judge what PgBouncer says against what provisioning left.

    :arg promoting: whether a promotion has stopped it.
    """
    if promoting:
        return [Check("promotion", WARN, {}, "a promotion has stopped it, and hands its clients on", "promote.yml, which goes on with it")]
    if state["answer"]:
        return [Check("connect", FAIL, {"said": state["answer"]}, f"it does not answer: {state['answer']}", f"journalctl -u {UNIT}")]
    shut = {row["name"]: row for row in state.get("databases", []) if row.get("paused") == "1" or row.get("disabled") == "1"}
    checks = []
    for name, size in told["databases"].items():
        pools = [row for row in state.get("pools", []) if row.get("database") == name]
        if name in shut:
            advice = f"who paused it; psql -h {SOCKETS} -p {told['port']} -U pgbouncer pgbouncer, as postgres: RESUME; ENABLE {name};"
            checks.append(Check(f"open:{name}", FAIL, {}, f"{name} is paused or disabled in it", advice))
            continue
        if name not in [row.get("name") for row in state.get("databases", [])]:
            checks.append(Check(f"open:{name}", FAIL, {}, f"it does not know {name}", "provision.yml"))
            continue
        waiting = sum(_number(row, "cl_waiting") for row in pools)
        used = sum(_number(row, "sv_active") for row in pools)
        longest = max((_number(row, "maxwait") + _number(row, "maxwait_us") / 1e6 for row in pools if _number(row, "cl_waiting")), default=0.0)
        facts = {"waiting": waiting, "used": used, "size": size, "longest_wait_seconds": round(longest, 1)}
        full = f"all {size} connections to {name} are in use" if used >= size else f"{used} of {size} connections to {name} are in use"
        cause = f"{waiting} clients wait, the first for {longest:.1f} s; {full}"
        advice = f"long transactions in {name} (pg_stat_activity), PostgreSQL itself, and database.pool.size"
        grade = FAIL if longest >= WAIT_FAIL else WARN
        checks.append(judge(f"waiting:{name}", longest < WAIT_WARN, evidence=facts, cause=cause, advice=advice, severity=grade))
    clients = {row.get("list"): _number(row, "items") for row in state.get("lists", [])}.get("used_clients", 0)
    percent = 100.0 * clients / max(1, int(told["max_clients"]))
    checks.append(
        judge_limit(
            "clients",
            round(percent, 1),
            unit="%",
            subject=f"its use of {told['max_clients']} clients",
            warn=float(CLIENTS_WARN_PERCENT),
            evidence={"clients": clients},
            advice="postgresql_pool.max_clients, and the pools of the apps themselves",
        )
    )
    return checks


def _number(row: t.Mapping[str, str], key: str) -> int:
    text = row.get(key, "")
    return int(text) if text.isdigit() else 0


def check(world: World, *, deadline_seconds: float) -> Verdict:
    """Ask until it is well or the deadline is over."""
    told = settings(world)

    def ask(_seconds: float) -> list[Check]:
        promoting = world.read(RECORD) is not None
        return judge_pool(told, {"answer": ""} if promoting else look(world, told["port"]), promoting=promoting)

    watch = poll(ask, world=world, deadline_seconds=min(deadline_seconds, 5.0), interval_seconds=1.0, successes=1)
    sizes = ", ".join(f"{name} {size}" for name, size in told["databases"].items())
    return verdict("PgBouncer", watch, good=f"serves on port {told['port']} ({sizes})")
