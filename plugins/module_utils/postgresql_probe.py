# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL asked through psql, as the application would: one session that reads facts, measures and writes.

No Python driver is needed, and the password travels in the environment of psql, never in its arguments. The session is made of
plain transactions with local settings only, so that it may also pass through a connection pooler.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing as t
import urllib.parse

from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, joined, judge, judge_limit, poll, verdict
from .world import Completed, World

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
LATENCY_SAMPLES = 5
MARK = "@anchorage:"

FACTS = """
SELECT json_build_object(
  'version', current_setting('server_version'),
  'version_number', current_setting('server_version_num')::int,
  'database', current_database(),
  'user', current_user,
  'owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()),
  'standby', pg_is_in_recovery(),
  'read_only', current_setting('transaction_read_only') = 'on',
  'receiving', EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
  'lag_seconds', CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
      AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0
    ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
  'size_bytes', pg_database_size(current_database()),
  'encrypted', (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
  'connections', (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database),
  'max_connections', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
  'role_connections', (SELECT count(*) FROM pg_stat_activity WHERE usename = session_user),
  'role_limit', (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user),
  'pending_restart', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'archive_mode', current_setting('archive_mode'),
  'archive_failing', (SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_stat_archiver),
  'archive_failed_file', (SELECT last_failed_wal FROM pg_stat_archiver),
  'oldest_transaction_seconds', (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'),
  'waiting_locks', (SELECT count(*) FROM pg_locks WHERE NOT granted),
  'longest_lock_wait_seconds', (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - (to_jsonb(l)->>'waitstart')::timestamptz)), 0)
    FROM pg_locks l WHERE NOT granted),
  'invalid_indexes', (SELECT coalesce(json_agg(indexrelid::regclass::text), '[]') FROM pg_index WHERE NOT indisvalid)
);
"""

WRITE = """
BEGIN;
SET LOCAL statement_timeout = '{milliseconds}ms';
CREATE TEMPORARY TABLE anchorage_probe (line text) ON COMMIT DROP;
INSERT INTO anchorage_probe VALUES ('written');
SELECT line FROM anchorage_probe;
COMMIT;
"""


@dataclasses.dataclass(frozen=True)
class Login:
    """How to reach the database, in libpq's words; what is None is left to libpq."""

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    database: str | None = None
    ssl_mode: str | None = None
    ca_cert: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Return the first words of the verdict."""
        where = f" at {self.host}:{self.port or 5432}" if self.host else ""
        return f"PostgreSQL database {self.database or '(default)'}{where}{f' as {self.user}' if self.user else ''}"

    def environment(self, timeout_seconds: float, home: str | None = None) -> dict[str, str]:
        """Return the whole environment for psql."""
        values = {
            "PGHOST": self.host,
            "PGPORT": str(self.port) if self.port else None,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
            "PGSSLMODE": self.ssl_mode,
            "PGSSLROOTCERT": self.ca_cert,
            "PGCONNECT_TIMEOUT": str(max(2, math.ceil(timeout_seconds))),
            "PGAPPNAME": "anchorage-health",
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": home,
        }
        return {key: value for key, value in values.items() if value is not None}


def parse_url(url: str) -> Login:
    """Take a database URL apart, as applications write it; what libpq does not know is left out and named."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError as error:
        raise AnchorageError("The url of the database is not valid (a password with / ? # or @ must be percent-encoded).") from error
    if parts.scheme not in ("postgres", "postgresql"):
        raise AnchorageError("The url of the database must begin with postgresql:// or postgres://.")
    query = {key: values[-1] for key, values in urllib.parse.parse_qs(parts.query).items()}
    mode = query.pop("sslmode", query.pop("ssl_mode", None))
    switch = query.pop("ssl", None)
    if mode is None and switch in ("true", "1"):
        mode = "require"
    if mode == "no-verify":
        mode = "require"
    if mode is not None and mode not in SSL_MODES:
        raise AnchorageError(f"The url of the database has sslmode={mode}, which is none of {', '.join(SSL_MODES)}.")
    unquote = urllib.parse.unquote
    return Login(
        host=query.pop("host", None) or (unquote(host) if host else None),
        port=port or (int(query.pop("port")) if query.get("port", "").isdigit() else None),
        user=query.pop("user", None) or (unquote(parts.username) if parts.username else None),
        password=query.pop("password", None) or (unquote(parts.password) if parts.password else None),
        database=query.pop("dbname", None) or unquote(parts.path.lstrip("/")) or None,
        ssl_mode=mode,
        ca_cert=query.pop("sslrootcert", None),
        ignored=tuple(sorted(query)),
    )


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a healthy database looks like."""

    role: str = "any"
    write_probe: bool = True
    owner: str | None = None
    min_version: str | None = None
    connections_warn_percent: float = 80
    connections_fail_percent: float = 95
    max_lag_seconds: float = 60
    max_database_mb: float | None = None
    max_latency_milliseconds: float | None = None
    max_transaction_seconds: float | None = None
    max_lock_wait_seconds: float | None = 30
    disk_path: str | None = None
    min_free_mb: float = 512
    pending_restart: str = WARN
    archiving: str = FAIL
    invalid_indexes: str = WARN
    require_encryption: bool = False


def script(wanted: Expectation, timeout_seconds: float) -> str:
    """Return the session: facts, latency, then the write, each behind a mark."""
    milliseconds = max(100, int(timeout_seconds * 1000))
    lines = [
        "\\set VERBOSITY verbose",
        f"\\echo {MARK}facts",
        "BEGIN;",
        f"SET LOCAL statement_timeout = '{milliseconds}ms';",
        # What it logged in as, whomever it acts as: other sessions of that login are seen whole.
        "SET LOCAL ROLE NONE;",
        " ".join(FACTS.split()),
        "COMMIT;",
        f"\\echo {MARK}latency",
        "\\timing on",
        *["SELECT 1;"] * LATENCY_SAMPLES,
        "\\timing off",
    ]
    if wanted.write_probe:
        # A standby cannot write; what its state is was asked above.
        lines += [
            "SELECT pg_is_in_recovery() AS anchorage_standby \\gset",
            "\\if :anchorage_standby",
            "\\else",
            f"\\echo {MARK}write",
            WRITE.format(milliseconds=milliseconds).strip(),
            "\\endif",
        ]
    return "\n".join([*lines, f"\\echo {MARK}end", ""])


def sections(text: str) -> dict[str, list[str]]:
    """Cut what psql printed at the marks."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(MARK):
            lines = found.setdefault(line[len(MARK) :], [])
        elif line.strip():
            lines.append(line)
    return found


# What PostgreSQL says, in words that lead to the repair. The first that matches wins.
REASONS = (
    (r"password authentication failed|SCRAM|SASL|no such user|no password supplied", "the password is refused", "the role's password and the application's"),
    (r"too many (clients|connections)|remaining connection slots", "all connections are taken", "pg_stat_activity and the pools' sizes"),
    (r"starting up|shutting down|in recovery mode", "the server starts, stops or recovers", "the server's log"),
    (r"no pg_hba\.conf entry", "pg_hba.conf lets nobody in from here with that role", "pg_hba.conf of the server"),
    (r'database ".*" does not exist', "the database does not exist", "whether it was created on that server"),
    (r'role ".*" is not permitted to log in', "the role may not log in", "whether this is the login that is in use; rotate_secrets.yml uses two in turn"),
    (r'role ".*" does not exist', "the role does not exist", "whether it was created on that server"),
    (r"Peer authentication failed", "peer authentication refuses this user", "login_host with a password, or become_user"),
    (r"refused|No such file or directory", "nothing listens there", "whether the server runs: systemctl status 'postgresql@*'"),
    (r"could not translate host name", "its name cannot be resolved", "DNS of this host"),
    (r"timeout expired|timed out", "it does not answer in time", "firewall, routes and load"),
    (r"certificate|SSL", "TLS is refused", "ssl_mode, ca_cert and the server's certificate"),
    (r"permission denied", "a right is missing", "the grants of the role"),
)


def explain(completed: Completed) -> tuple[str, str, str]:
    """Return cause, what the server said, and where to look."""
    said = [line.strip() for line in completed.stderr.splitlines() if line.strip()]
    text = " ".join(line for line in said if not line.startswith(("LOCATION:", "LINE ")))
    text = re.sub(r"^psql:\s*(<stdin>:\d+:\s*)?(error:\s*)?", "", text)[:400]
    if completed.rc == 124:
        return "it did not answer in time", text, "load, locks and the server's log"
    for pattern, cause, advice in REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return cause, text, advice
    return text or f"psql ended with code {completed.rc}", text, "the server's log"


def judge_session(completed: Completed, wanted: Expectation, login: Login) -> list[Check]:
    """Judge what one session brought."""
    parts = sections(completed.stdout)
    cause, said, advice = explain(completed) if completed.rc else ("", "", "")
    facts = _facts(parts.get("facts", []))
    if facts is None:
        evidence = {"said": said, "rc": completed.rc}
        return [Check("connect", FAIL, evidence, f"it cannot be asked: {cause or 'no facts came'}{_quoted(said, cause)}", advice)]
    evidence = {key: facts[key] for key in ("database", "user", "version", "encrypted")}
    if login.ignored:
        evidence["ignored_parameters"] = list(login.ignored)
    checks = [Check("connect", evidence=evidence), *judge_facts(facts, wanted)]
    samples = [float(found.group(1)) for line in parts.get("latency", []) if (found := re.match(r"Time: ([\d.]+)", line))]
    if samples:
        middle = sorted(samples)[len(samples) // 2]
        checks.append(
            judge_limit(
                "latency",
                round(middle, 2),
                unit="ms",
                subject=f"the median latency of {len(samples)} statements",
                fail=wanted.max_latency_milliseconds,
                evidence={"samples": samples},
                advice="load of the server and the network to it",
            )
        )
    if "write" in parts or (completed.rc and wanted.write_probe and not facts["standby"]):
        good = completed.rc == 0 and "written" in parts.get("write", [])
        state = re.search(r"(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}):", completed.stderr)
        facts_of_write = {"said": said, "sqlstate": state.group(1) if state else None}
        where = "free disk of the server, default_transaction_read_only, the TEMPORARY right on the database" if not good else ""
        checks.append(judge("write", good, evidence=facts_of_write, cause=f"it cannot be written to: {said or cause}", advice=where))
    elif completed.rc:
        checks.append(Check("session", FAIL, {"said": said, "rc": completed.rc}, f"the session broke: {cause}{_quoted(said, cause)}", advice))
    return checks


def _quoted(said: str, cause: str) -> str:
    return f" ({said})" if said and said != cause else ""


def _facts(lines: t.Sequence[str]) -> dict[str, t.Any] | None:
    for line in lines:
        if line.lstrip().startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                return None
    return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def judge_facts(facts: t.Mapping[str, t.Any], wanted: Expectation) -> list[Check]:
    """Judge what the server says of itself."""
    standby = facts["standby"]
    real_role = "standby" if standby else "primary"
    checks = [
        judge(
            "role",
            wanted.role in ("any", real_role),
            evidence={"role": real_role, "wanted": wanted.role},
            cause=f"it is a {real_role}, wanted a {wanted.role}",
            advice="which server is the primary",
        )
    ]
    if standby:
        checks.append(_judge_lag(facts, wanted))
    if wanted.min_version:
        checks.append(
            judge(
                "version",
                _version(facts["version"]) >= _version(wanted.min_version),
                evidence={"version": facts["version"], "min_version": wanted.min_version},
                cause=f"the server has version {facts['version']}, wanted at least {wanted.min_version}",
                advice="an upgrade of the server",
            )
        )
    if wanted.owner:
        checks.append(
            judge(
                "owner",
                facts["owner"] == wanted.owner,
                evidence={"owner": facts["owner"], "wanted": wanted.owner},
                cause=f"the database belongs to {facts['owner']}, wanted {wanted.owner}",
                advice="ALTER DATABASE … OWNER TO …",
            )
        )
    if wanted.require_encryption:
        cause = "the connection is not encrypted"
        checks.append(judge("encrypted", facts["encrypted"] is True, cause=cause, advice="ssl_mode, and ssl in postgresql.conf"))
    checks.append(_judge_connections(facts, wanted))
    checks.append(
        judge_limit(
            "size",
            round(facts["size_bytes"] / 1048576, 1),
            unit="MB",
            subject="the size of the database",
            fail=wanted.max_database_mb,
            advice="what grew: pg_total_relation_size of its tables",
        )
    )
    checks.append(
        judge(
            "pending_restart",
            not facts["pending_restart"],
            evidence={"settings": facts["pending_restart"]},
            cause=f"these settings wait for a restart of the server: {', '.join(facts['pending_restart'])}",
            advice="a restart at a good moment",
            severity=wanted.pending_restart,
        )
    )
    failing = facts["archive_mode"] != "off" and facts["archive_failing"] and not standby
    checks.append(
        judge(
            "archiving",
            not failing,
            evidence={"archive_mode": facts["archive_mode"], "failed_file": facts["archive_failed_file"] if failing else None},
            cause=f"WAL archiving fails (at {facts['archive_failed_file']}), so pg_wal grows until the disk is full",
            advice="archive_command in the server's log",
            severity=wanted.archiving,
        )
    )
    checks.append(
        judge(
            "indexes",
            not facts["invalid_indexes"],
            evidence={"invalid": facts["invalid_indexes"]},
            cause=f"these indexes are not valid (being built, or a build that broke): {', '.join(facts['invalid_indexes'])}",
            advice="REINDEX INDEX CONCURRENTLY, or DROP INDEX",
            severity=wanted.invalid_indexes,
        )
    )
    checks.append(
        judge_limit(
            "transactions",
            round(facts["oldest_transaction_seconds"], 1),
            unit="s",
            subject="the age of the oldest open transaction",
            warn=wanted.max_transaction_seconds,
            advice="pg_stat_activity",
        )
    )
    checks.append(
        judge_limit(
            "locks",
            round(facts["longest_lock_wait_seconds"], 1),
            unit="s",
            subject=f"the longest of {facts['waiting_locks']} waits for a lock",
            warn=wanted.max_lock_wait_seconds,
            evidence={"waiting": facts["waiting_locks"]},
            advice="who holds it: SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        )
    )
    return checks


def judge_disk(world: World, path: str, min_free_mb: float) -> Check:
    """Judge the room that is left where the server keeps its data; the server itself says nothing of it."""
    evidence: dict[str, t.Any] = {"path": path, "min_free_mb": min_free_mb}
    try:
        evidence["free_mb"] = world.free_bytes(path) // 1048576
    except OSError as error:
        return Check("disk", FAIL, evidence, f"the room at {path} cannot be asked for: {error.strerror}", "disk_path")
    cause = f"{evidence['free_mb']} MB are free at {path}, wanted {min_free_mb:g} MB"
    return judge("disk", evidence["free_mb"] >= min_free_mb, evidence=evidence, cause=cause, advice=f"what fills it: du -xh --max-depth=2 {path}")


def _judge_lag(facts: t.Mapping[str, t.Any], wanted: Expectation) -> Check:
    lag = facts["lag_seconds"]
    evidence = {"receiving": facts["receiving"], "lag_seconds": lag, "max_lag_seconds": wanted.max_lag_seconds}
    advice = "pg_stat_replication on the primary and the log of the standby"
    receiving = "" if facts["receiving"] else ", and it receives nothing from its primary"
    if lag is None:
        return Check("lag", FAIL, evidence, f"the standby has replayed nothing yet{receiving}", advice)
    cause = f"the standby is {lag:.0f} s behind, the limit is {wanted.max_lag_seconds:g} s{receiving}"
    return judge("lag", lag <= wanted.max_lag_seconds, evidence=evidence, cause=cause, advice=advice)


def _judge_connections(facts: t.Mapping[str, t.Any], wanted: Expectation) -> Check:
    """Judge the fuller one of the server's connections and the role's own limit."""
    pools = [("the server", facts["connections"], facts["max_connections"])]
    if facts["role_limit"] is not None and facts["role_limit"] >= 0:
        pools.append((f"the role {facts['user']}", facts["role_connections"], facts["role_limit"]))
    whose, used, limit = max(pools, key=lambda pool: pool[1] / max(pool[2], 1))
    return judge_limit(
        "connections",
        round(100 * used / max(limit, 1), 1),
        unit="%",
        subject=f"the share of connections in use of {whose} ({used} of {limit})",
        warn=wanted.connections_warn_percent,
        fail=wanted.connections_fail_percent,
        evidence={"used": used, "limit": limit, "of": whose},
        advice="pg_stat_activity, the pools' sizes, max_connections",
    )


def probe(login: Login, wanted: Expectation, *, world: World, seconds: float, psql: str = "psql", home: str | None = None) -> list[Check]:
    """Ask once and judge."""
    completed = world.run(
        [psql, "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"],
        input=script(wanted, seconds),
        env=login.environment(seconds, home),
        timeout=seconds,
    )
    if completed.rc == 127:
        raise AnchorageError(f"The program {psql} cannot be run on the host that is asked from.", next_step="Install the package postgresql-client there.")
    disk = [judge_disk(world, wanted.disk_path, wanted.min_free_mb)] if wanted.disk_path else []
    return [*judge_session(completed, wanted, login), *disk]


def check(
    login: Login,
    wanted: Expectation,
    *,
    world: World,
    psql: str = "psql",
    home: str | None = None,
    timeout_seconds: float = 5.0,
    deadline_seconds: float = 10.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over."""
    watch = poll(
        lambda seconds: probe(login, wanted, world=world, seconds=min(seconds, timeout_seconds), psql=psql, home=home),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    facts = watch.checks[0].evidence
    latency = next((item.evidence["value"] for item in watch.checks if item.name == "latency"), None)
    words = (f"version {facts['version']}" if "version" in facts else "", f"{latency:g} ms a statement" if latency is not None else "")
    extra = {"version": facts.get("version"), "database": facts.get("database") or login.database}
    return verdict(login.subject, watch, good=joined(words, ", "), extra=extra)
