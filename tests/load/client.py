# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Visitors of a site: requests at a steady rate over kept and fresh connections. Each is counted once, and none is repeated."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import random
import ssl
import threading
import time
import typing as t

#: Seconds after which a visitor gives up.
PATIENCE = 30.0

#: Failures of which the circumstances are kept.
EVIDENCE = 50


class Failure(Exception):
    """A request that did not get what it should; the first argument names the kind of failure."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> t.Any:
        """Return the body as data."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Failure("wrong answer", f"no JSON: {self.body[:80]!r}") from error


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of request and how often it is sent."""

    name: str
    per_second: float
    path: str | t.Callable[[], str]
    method: str = "GET"
    body: bytes | t.Callable[[], bytes] = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    status: int = 200
    #: Judges an answer of the right status; raises Failure.
    check: t.Callable[[Answer], None] | None = None
    #: Whether a connection serves many requests, or each has its own.
    kept: bool = True
    #: Visitors who share the rate.
    visitors: int = 1
    #: Seconds over which the body is sent.
    dripping: float = 0.0
    #: Seconds that the server takes because it was asked to.
    asked: float = 0.0


@dataclasses.dataclass(frozen=True)
class Site:
    """Where the visitors go."""

    port: int
    name: str
    authority: str | None = None
    address: str = "127.0.0.1"

    def context(self) -> ssl.SSLContext | None:
        """Return what TLS needs; without an authority the site is asked in the clear."""
        return ssl.create_default_context(cadata=self.authority) if self.authority else None


class Connection:
    """One connection of one visitor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.usable = True

    @classmethod
    async def open(cls, site: Site, context: ssl.SSLContext | None) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection(site.address, site.port, ssl=context, server_hostname=site.name if context else None))

    async def ask(self, site: Site, kind: Kind) -> Answer:
        """Send one request and read its answer."""
        body = kind.body() if callable(kind.body) else kind.body
        path = kind.path() if callable(kind.path) else kind.path
        fields = {"Host": site.name, "User-Agent": "load", "Connection": "keep-alive" if kind.kept else "close", **kind.headers}
        if body or kind.method != "GET":
            fields["Content-Length"] = str(len(body))
        head = "".join([f"{kind.method} {path} HTTP/1.1\r\n", *(f"{key}: {value}\r\n" for key, value in fields.items()), "\r\n"]).encode()
        if kind.dripping:
            self.writer.write(head)
            pieces = [body[start : start + max(1, len(body) // 8)] for start in range(0, len(body), max(1, len(body) // 8))]
            for piece in pieces:
                await self.writer.drain()
                await asyncio.sleep(kind.dripping / len(pieces))
                self.writer.write(piece)
        else:
            self.writer.write(head + body)
        await self.writer.drain()
        return await self._read(kind)

    async def _read(self, kind: Kind) -> Answer:
        line = await self.reader.readline()
        if not line:
            raise Failure("closed without an answer")
        words = line.decode("latin-1").split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Failure("not HTTP", repr(line[:80]))
        headers = {}
        while True:
            line = await self.reader.readline()
            if not line.endswith(b"\n"):
                raise Failure("cut off", "in the headers")
            if line in (b"\r\n", b"\n"):
                break
            key, _colon, value = line.decode("latin-1").partition(":")
            headers[key.strip().lower()] = value.strip()
        status = int(words[1])
        body = b"" if status in (204, 304) else await self._body(headers)
        self.usable = kind.kept and headers.get("connection", "").lower() != "close"
        return Answer(status, headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while True:
                line = await self.reader.readline()
                if not line.endswith(b"\n"):
                    raise Failure("cut off", "between chunks")
                size = int(line.split(b";")[0], 16)
                parts.append((await self.reader.readexactly(size + 2))[:-2])
                if not size:
                    return b"".join(parts)
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        self.usable = False
        return await self.reader.read()

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


def named(error: Exception) -> tuple[str, str]:
    """Return the kind of a failure, and its circumstances."""
    if isinstance(error, Failure):
        return str(error.args[0]), str(error.args[1]) if len(error.args) > 1 else ""
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (asyncio.TimeoutError, "no answer in time"),
        (asyncio.IncompleteReadError, "cut off"),
        (ConnectionRefusedError, "connection refused"),
        (ConnectionResetError, "connection reset"),
        (BrokenPipeError, "connection reset"),
        (ssl.SSLError, "TLS"),
        (OSError, "connection failed"),
    )
    return next((name for kind, name in kinds if isinstance(error, kind)), "the visitor itself failed"), f"{type(error).__name__}: {error}"


class Count:
    """What the visitors saw, by kind of request. It only grows; what one stretch of time saw is the difference of two looks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: collections.Counter[str] = collections.Counter()
        self.failures: collections.Counter[str] = collections.Counter()
        self.evidence: list[dict[str, t.Any]] = []
        self.longest: tuple[float, str] = (0.0, "")

    def add(self, kind: Kind, seconds: float, error: Exception | None) -> None:
        """Count one request that has ended. What it took is told without the time that it asked for."""
        beyond = seconds - kind.asked - kind.dripping
        with self.lock:
            self.requests[kind.name] += 1
            if beyond > self.longest[0]:
                self.longest = (beyond, kind.name)
            if error is not None:
                name, detail = named(error)
                self.failures[name] += 1
                if len(self.evidence) < EVIDENCE:
                    at = time.strftime("%H:%M:%S", time.gmtime())
                    self.evidence.append({"at": at, "request": kind.name, "failure": name, "detail": detail[:200], "seconds": round(seconds, 2)})

    def take(self) -> dict[str, t.Any]:
        """Return what came since the last look, and begin anew."""
        with self.lock:
            taken = {
                "requests": sum(self.requests.values()),
                "failed": sum(self.failures.values()),
                "by_request": dict(sorted(self.requests.items())),
                "failures": dict(sorted(self.failures.items())),
                "evidence": list(self.evidence),
                "longest_seconds": round(self.longest[0], 2),
                "longest_request": self.longest[1],
            }
            self.requests.clear()
            self.failures.clear()
            self.evidence.clear()
            self.longest = (0.0, "")
        return taken


class Visitors(threading.Thread):
    """All visitors of a site, until they are sent away. Requests in hand are then waited for, so that each is counted."""

    def __init__(self, site: Site, kinds: t.Sequence[Kind]) -> None:
        super().__init__(daemon=True)
        self.site, self.kinds = site, kinds
        self.count = Count()
        self.leave = threading.Event()
        self.context = site.context()
        self.trouble: BaseException | None = None

    def run(self) -> None:
        """Visit."""
        try:
            asyncio.run(self._visit())
        except BaseException as error:
            self.trouble = error

    def stop(self) -> None:
        """Send them away."""
        self.leave.set()
        self.join()
        if self.trouble is not None:
            raise self.trouble

    async def _visit(self) -> None:
        await asyncio.gather(*(self._visitor(kind) for kind in self.kinds for _number in range(kind.visitors)))

    async def _visitor(self, kind: Kind) -> None:
        """Send requests of one kind, one after the other, at a steady pace; one that comes late is not made up for."""
        period = kind.visitors / kind.per_second
        connection: Connection | None = None
        due = time.monotonic() + random.uniform(0, period)
        while not self.leave.is_set():
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(min(wait, 0.5))
                continue
            due = max(due + period, time.monotonic() - period)
            connection = await self.one(kind, connection)
        if connection is not None:
            connection.close()

    async def one(self, kind: Kind, connection: Connection | None) -> Connection | None:
        """Send one request, count it, and return the connection where it may be used again."""
        began = time.monotonic()
        problem: Exception | None = None
        try:
            connection = await asyncio.wait_for(self._exchange(kind, connection), PATIENCE + kind.dripping + kind.asked)
        except Exception as error:
            problem = error
        self.count.add(kind, time.monotonic() - began, problem)
        return None if problem is not None else connection

    async def _exchange(self, kind: Kind, connection: Connection | None) -> Connection | None:
        connection = connection or await Connection.open(self.site, self.context)
        done = False
        try:
            answer = await connection.ask(self.site, kind)
            if answer.status != kind.status:
                raise Failure(f"status {answer.status}", answer.body[:160].decode("utf-8", "replace"))
            if kind.check is not None:
                kind.check(answer)
            done = connection.usable
        finally:
            if not done:
                connection.close()
        return connection if done else None
