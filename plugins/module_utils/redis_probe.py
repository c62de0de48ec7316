# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis asked with a few lines of its own protocol: no client library, no right beyond PING and INFO."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
import typing as t
import urllib.parse

from .errors import AnchorageError
from .health import FAIL, IGNORE, OK, WARN, Check, Verdict, joined, judge, judge_limit, poll, verdict
from .http_probe import TIMEOUTS, Deadline, ProbeError, Target, connect, secure
from .layout import AUTHORITY
from .world import World

READ_LIMIT = 1024 * 1024
LATENCY_SAMPLES = 5
POLICIES = {"jobs": ("noeviction",), "cache": ("allkeys-lru", "allkeys-lfu", "allkeys-lrm")}


@dataclasses.dataclass(frozen=True)
class Login:
    """How to reach the instance."""

    host: str = "127.0.0.1"
    port: int = 6379
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    unix_socket: str | None = None
    tls: bool = False
    ca_path: str | None = None
    validate_certs: bool = True
    database: int = 0

    @property
    def subject(self) -> str:
        """Return the first words of the verdict."""
        where = self.unix_socket or f"{self.host}:{self.port}"
        return f"Redis at {where}{f' as {self.user}' if self.user else ''}"


def parse_url(url: str) -> Login:
    """Take a redis://, rediss:// or unix:// URL apart, as applications write it."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AnchorageError("The url of Redis is not valid (a password with / ? # or @ must be percent-encoded).") from error
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise AnchorageError("The url of Redis must begin with redis://, rediss:// or unix://.")
    user, password = (urllib.parse.unquote(text) if text else None for text in (parts.username, parts.password))
    if parts.scheme == "unix":
        return Login(unix_socket=urllib.parse.unquote(parts.path), user=user, password=password)
    number = parts.path.strip("/")
    if number and not number.isdigit():
        raise AnchorageError(f"The url of Redis ends with /{number}, which is no number of a database.")
    return Login(host=host or "127.0.0.1", port=port or 6379, user=user, password=password, tls=parts.scheme == "rediss", database=int(number or 0))


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a healthy instance looks like."""

    purpose: str = "any"
    role: str | None = None
    policy: str | None = None
    append_only: bool | None = None
    persistence: str = FAIL
    memory_warn_percent: float = 80
    memory_fail_percent: float = 95
    max_rejected_connections: int | None = 0
    max_latency_milliseconds: float | None = None

    @property
    def wanted_role(self) -> str:
        """Return the role it must have; jobs and a cache must be written to."""
        return self.role or ("master" if self.purpose in POLICIES else "any")

    @property
    def policies(self) -> tuple[str, ...]:
        """Return the eviction policies that fit; none means that any does."""
        return (self.policy,) if self.policy else POLICIES.get(self.purpose, ())

    @property
    def wants_append_only(self) -> bool:
        """Tell whether a loss of acknowledged writes must be excluded."""
        return self.purpose == "jobs" if self.append_only is None else self.append_only


class Refused(Exception):
    """An error answer; its first word is Redis's code."""

    @property
    def code(self) -> str:
        """Return NOAUTH, WRONGPASS, NOPERM, LOADING and the like."""
        return str(self).split(" ", 1)[0]


class Connection:
    """A connection that speaks RESP2 and has one amount of time for everything."""

    def __init__(self, login: Login, seconds: float, monotonic: t.Callable[[], float] = time.monotonic) -> None:
        self.deadline = Deadline(seconds, monotonic)
        sock, self.where = connect(login.host, login.port, login.unix_socket, self.deadline)
        if login.tls:
            # A host of a fleet trusts the authority of the others, as the processes of its apps do.
            further = AUTHORITY if os.path.exists(AUTHORITY) else None
            target = Target("https://redis", ca_path=login.ca_path, further_ca_path=further, validate_certs=login.validate_certs)
            try:
                sock, _facts = secure(sock, target, login.host, self.where, self.deadline)
            except ProbeError:
                sock.close()
                raise
        self.sock: socket.socket = sock
        self.buffer = b""
        self.received = 0

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def command(self, *words: str) -> t.Any:
        """Send a command and return its answer; raise Refused for an error answer."""
        data = b"".join(b"$%d\r\n%s\r\n" % (len(raw), raw) for raw in (word.encode("utf-8", "surrogateescape") for word in words))
        try:
            self.sock.settimeout(self.deadline.left())
            self.sock.sendall(b"*%d\r\n%s" % (len(words), data))
            return self._answer()
        except TIMEOUTS as error:
            message = f"{self.where} did not answer {words[0]} within {self.deadline.seconds:.3g} s"
            raise ProbeError("timeout", message, "a long command or script (SLOWLOG GET), swapping, a stopped process") from error
        except OSError as error:
            raise ProbeError("broken", f"the connection to {self.where} broke ({error.strerror or error})", "the log of Redis") from error
        except (ValueError, UnicodeError) as error:
            raise ProbeError("protocol", f"{self.where} does not speak the protocol of Redis", "what listens there, and the tls option") from error

    def _more(self) -> None:
        self.sock.settimeout(self.deadline.left())
        part = self.sock.recv(65536)
        if not part:
            raise ProbeError("closed", f"{self.where} closed the connection", "maxclients, protected-mode and the log of Redis")
        self.buffer += part
        self.received += len(part)
        if self.received > READ_LIMIT:
            raise ProbeError("protocol", f"{self.where} sent more than {READ_LIMIT} bytes", "what listens there")

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _answer(self, depth: int = 0) -> t.Any:
        line = self._line()
        kind, rest = line[:1], line[1:].decode("utf-8", "replace")
        if kind == b"+":
            return rest
        if kind == b"-":
            raise Refused(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            while len(self.buffer) < size + 2:
                self._more()
            text, self.buffer = self.buffer[:size], self.buffer[size + 2 :]
            return text.decode("utf-8", "replace")
        if kind == b"*" and depth < 8:
            return [self._answer(depth + 1) for _index in range(int(rest))]
        raise ValueError("not RESP")


# Redis's error codes in words that lead to the repair.
REASONS = {
    "NOAUTH": ("it wants a password and none was given", "login_user and login_password"),
    "WRONGPASS": ("user or password is refused", "the ACL user and the application's password"),
    "NOPERM": ("the user lacks a right, this check needs +ping and +info", "the ACL user's rules"),
    "LOADING": ("it still loads its data", "a longer deadline_seconds; the size of its data"),
    "MASTERDOWN": ("it is a replica without its master", "replicaof and the master"),
    "MISCONF": ("it refuses writes because it cannot save", "free disk and rights of its directory, its log"),
    "DENIED": ("protected mode refuses connections from outside", "bind and a password"),
    "READONLY": ("it is a replica and refuses writes", "replicaof and the master"),
    "BUSY": ("a script blocks it", "SCRIPT KILL or FUNCTION KILL"),
}


# With these it refuses PING and yet says in INFO what ails it.
TELLING = ("LOADING", "MASTERDOWN", "MISCONF")


def _refused(name: str, error: Refused) -> Check:
    cause, advice = REASONS.get(error.code.upper(), ("it answers with an error", "the log of Redis"))
    return Check(name, FAIL, {"error": error.code, "message": str(error)}, f"{cause} ({error})", advice)


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of INFO."""
    return dict(line.partition(":")[::2] for line in text.splitlines() if ":" in line and not line.startswith("#"))


def judge_info(info: t.Mapping[str, str], wanted: Expectation, now: float) -> list[Check]:
    """Judge what Redis says of itself."""
    checks = [_judge_role(info, wanted), _judge_policy(info, wanted), _judge_memory(info, wanted), *_judge_persistence(info, wanted, now)]
    rejected = int(info.get("rejected_connections") or 0)
    checks.append(
        judge_limit(
            "rejected_connections",
            rejected,
            unit="connections",
            subject="the number of connections refused at maxclients since the start or CONFIG RESETSTAT",
            warn=wanted.max_rejected_connections,
            evidence={"connected": int(info.get("connected_clients") or 0), "maxclients": int(info.get("maxclients") or 0)},
            advice="CLIENT LIST, the pools' sizes, maxclients",
        )
    )
    return checks


def _judge_role(info: t.Mapping[str, str], wanted: Expectation) -> Check:
    role = {"slave": "replica"}.get(info.get("role", ""), info.get("role", "unknown"))
    evidence: dict[str, t.Any] = {"role": role, "wanted": wanted.wanted_role}
    refuses = " (it refuses writes)" if role == "replica" else ""
    cause = "" if wanted.wanted_role in ("any", role) else f"it is a {role}{refuses}, wanted a {wanted.wanted_role}"
    if role == "replica":
        evidence["master_link"] = info.get("master_link_status")
        if info.get("master_link_status") != "up":
            cause = joined([cause, "its link to the master is down"])
    return judge("role", not cause, evidence=evidence, cause=cause, advice="replicaof and the master's state")


def _judge_policy(info: t.Mapping[str, str], wanted: Expectation) -> Check:
    policy = info.get("maxmemory_policy", "unknown")
    bounded = int(info.get("maxmemory") or 0) > 0
    evidence = {"policy": policy, "wanted": list(wanted.policies), "purpose": wanted.purpose}
    advice = "maxmemory-policy in its configuration; jobs and cache need an instance each"
    if wanted.policies and policy not in wanted.policies:
        harm = ", so queued jobs can be thrown away" if wanted.purpose == "jobs" else ""
        cause = f"its eviction policy is {policy}, wanted {' or '.join(wanted.policies)}{harm}"
        return Check("policy", FAIL, evidence, cause, advice)
    if wanted.purpose == "cache" and not bounded:
        return Check("policy", WARN, evidence, "it is a cache without a memory limit, so nothing is ever evicted", "maxmemory")
    return Check("policy", OK, evidence)


def _judge_memory(info: t.Mapping[str, str], wanted: Expectation) -> Check:
    used, limit = int(info.get("used_memory") or 0), int(info.get("maxmemory") or 0)
    evidence = {"used_bytes": used, "limit_bytes": limit, "evicted_keys": int(info.get("evicted_keys") or 0)}
    if not limit:
        return Check("memory", OK, evidence)
    evicts = info.get("maxmemory_policy", "noeviction") != "noeviction"
    return judge_limit(
        "memory",
        round(100 * used / limit, 1),
        unit="%",
        subject=f"the share of maxmemory in use ({used // 1048576} of {limit // 1048576} MB)",
        warn=None if evicts else wanted.memory_warn_percent,
        fail=None if evicts else wanted.memory_fail_percent,
        evidence=evidence,
        advice="what fills it (redis-cli --bigkeys), finished jobs that are kept, maxmemory",
    )


def _judge_persistence(info: t.Mapping[str, str], wanted: Expectation, now: float) -> list[Check]:
    advice = "free disk and rights of its directory, its log"
    aof = info.get("aof_enabled") == "1"
    keys = ("aof_enabled", "aof_last_write_status", "aof_last_bgrewrite_status", "loading")
    causes = []
    if info.get("loading") == "1":
        causes.append("it still loads its data")
    if wanted.wants_append_only and not aof:
        causes.append("the append-only file is off, so a crash loses acknowledged writes")
    broken = [name for name in ("aof_last_write_status", "aof_last_bgrewrite_status") if aof and info.get(name) not in ("ok", None)]
    if broken:
        causes.append(f"the append-only file cannot be written ({', '.join(f'{name}:{info[name]}' for name in broken)})")
    if wanted.persistence == IGNORE:
        causes = []
    saved = int(info.get("rdb_last_save_time") or 0)
    state = info.get("rdb_last_bgsave_status", "ok")
    snapshot = {"rdb_last_bgsave_status": state, "changes_since": int(info.get("rdb_changes_since_last_save") or 0)}
    snapshot["seconds_since_save"] = round(now - saved) if saved else None
    return [
        judge(
            "append_only",
            not causes,
            evidence={key: info.get(key) for key in keys},
            cause="; ".join(causes),
            advice="appendonly yes in its configuration" if wanted.wants_append_only and not aof else advice,
        ),
        judge(
            "snapshot",
            state == "ok",
            evidence=snapshot,
            cause="its last snapshot failed, so it may refuse writes",
            advice=advice,
            severity=wanted.persistence,
        ),
    ]


def probe(login: Login, wanted: Expectation, *, world: World, seconds: float) -> list[Check]:
    """Ask once and judge."""
    stage = "connect"
    refused: list[Check] = []
    try:
        connection = Connection(login, seconds, world.monotonic)
        try:
            if login.password is not None:
                connection.command("AUTH", *([login.user] if login.user else []), login.password)
            samples = []
            for _index in range(LATENCY_SAMPLES):
                start = world.monotonic()
                try:
                    connection.command("PING")
                except Refused as error:
                    if error.code not in TELLING:
                        raise
                    refused = [_refused("ping", error)]
                samples.append(round((world.monotonic() - start) * 1000, 3))
            stage = "info"
            info = parse_info(connection.command("INFO") or "")
        finally:
            connection.close()
    except ProbeError as error:
        return [Check("connect", FAIL, {"error": error.kind, "message": error.message}, error.message, error.advice)]
    except Refused as error:
        return [_refused(stage, error)]
    evidence = {"version": info.get("redis_version"), "uptime_seconds": int(info.get("uptime_in_seconds") or 0)}
    latency = judge_limit(
        "latency",
        sorted(samples)[len(samples) // 2],
        unit="ms",
        subject=f"the median of {len(samples)} PINGs",
        fail=wanted.max_latency_milliseconds,
        evidence={"samples": samples},
        advice="SLOWLOG GET, swapping, load of the host",
    )
    return [Check("connect", OK, evidence), *refused, *judge_info(info, wanted, world.now()), latency]


def check(
    login: Login,
    wanted: Expectation,
    *,
    world: World,
    timeout_seconds: float = 3.0,
    deadline_seconds: float = 10.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over."""
    watch = poll(
        lambda seconds: probe(login, wanted, world=world, seconds=min(seconds, timeout_seconds)),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    version = watch.checks[0].evidence.get("version")
    found = {item.name: item.evidence for item in watch.checks}
    words = (f"version {version}" if version else "", found["policy"]["policy"] if "policy" in found else "")
    extra = {"version": version, "role": found.get("role", {}).get("role")}
    return verdict(login.subject, watch, good=joined(words, ", "), extra=extra)
