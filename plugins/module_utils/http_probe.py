# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request by hand, bounded in time and bytes, and the judgement of its answer.

Made of sockets and http.client: no proxy from the environment, no redirect off the host, no answer longer than the read limit,
and no server that can hold the probe longer than its time, however slowly it drips.
"""

from __future__ import annotations

import dataclasses
import http.client
import io
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import typing as t
import urllib.parse

from .errors import AnchorageError
from .health import FAIL, Check, Verdict, Watch, judge, judge_limit, poll, verdict
from .processes import judge_port
from .world import World

READ_LIMIT = 64 * 1024
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
EXCERPT = 200
DEFAULT_PORTS = {"http": 80, "https": 443}
TIMEOUTS = (TimeoutError, socket.timeout)  # two classes before Python 3.10
FOLLOW_NONE = "none"
FOLLOW_SAME_HOST = "same_host"


class ProbeError(Exception):
    """No complete answer came; ``kind`` is one word for programs."""

    def __init__(self, kind: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.advice = advice


@dataclasses.dataclass(frozen=True)
class Target:
    """Where and how to ask."""

    url: str
    method: str = "GET"
    headers: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: str | None = None
    timeout_seconds: float = 5.0
    connect_to: str | None = None
    unix_socket: str | None = None
    ca_path: str | None = None
    further_ca_path: str | None = None
    validate_certs: bool = True
    follow_redirects: str = FOLLOW_NONE


@dataclasses.dataclass(frozen=True)
class Identity:
    """What the process that listens must be."""

    port: int | None = None
    cwd: str | None = None
    environment: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Expression:
    """A JMESPath expression on the JSON body, and what it must give; without ``equals`` anything that JMESPath calls true."""

    expression: str
    equals: t.Any = None


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a healthy answer looks like."""

    status: t.Sequence[int] = (200,)
    body: str | None = None
    body_contains: str | None = None
    body_regex: str | None = None
    headers: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    absent_headers: t.Sequence[str] = ()
    json: t.Sequence[Expression] = ()
    identity: Identity | None = None
    p95_milliseconds: float | None = None
    p95_probes: int = 20


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    seconds: float
    url: str
    address: str
    redirects: tuple[str, ...] = ()
    tls: t.Mapping[str, t.Any] | None = None

    def header(self, name: str) -> str | None:
        """Return the values of a header joined by commas, or None where it is absent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def text(self) -> str:
        """Return the body that was read as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def excerpt(self) -> str:
        """Return the beginning of the body on one line."""
        text = re.sub(r"\s+", " ", "".join(char if char.isprintable() else " " for char in self.text[: EXCERPT * 4])).strip()
        return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


# ---- the address -----------------------------------------------------------------------------------------------------


class Place(t.NamedTuple):
    """A URL taken apart."""

    scheme: str
    host: str
    port: int
    path: str


def parse_url(url: str) -> Place:
    """Take an http(s) URL apart; refuse what could not be probed or would leak."""
    try:
        parts = urllib.parse.urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise AnchorageError(f"The url {url!r} is not valid: {error}.") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise AnchorageError(f"The url {url!r} must begin with http:// or https:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise AnchorageError("The url must not carry a user or password.", next_step="Send an Authorization header through secret_request_headers.")
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        path += "?" + urllib.parse.quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
    try:
        host = parts.hostname.encode("idna").decode("ascii") if not parts.hostname.isascii() else parts.hostname
    except UnicodeError as error:
        raise AnchorageError(f"The url {url!r} names a host that is not valid: {error}.") from error
    return Place(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path)


def parse_endpoint(text: str, default_port: int) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:443``, ``[::1]:443``, or either without the port."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", text.strip())
    if not found or int(found.group(3) or default_port) > 65535:
        raise AnchorageError(f"connect_to must look like 127.0.0.1:443 or [2001:db8::1]:443, not {text!r}.")
    return found.group(1) or found.group(2), int(found.group(3) or default_port)


def host_header(place: Place) -> str:
    """Return the Host header for a place."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    return host if place.port == DEFAULT_PORTS[place.scheme] else f"{host}:{place.port}"


def bracketed(address: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def is_literal(host: str) -> bool:
    """Tell whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


# ---- the wire --------------------------------------------------------------------------------------------------------


class Deadline:
    """One amount of time for everything."""

    def __init__(self, seconds: float, monotonic: t.Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.monotonic = monotonic
        self.start = monotonic()

    @property
    def spent(self) -> float:
        """Return the seconds since the beginning."""
        return self.monotonic() - self.start

    def left(self) -> float:
        """Return the seconds that are left; end the work when there are none."""
        rest = self.seconds - self.spent
        if rest <= 0:
            raise TimeoutError
        return rest


class _Stream(io.RawIOBase):
    """Reading of a socket, where no read outlives the deadline of the whole."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)


class _Wire:
    """What http.client needs of a socket."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self.sock = sock
        self._deadline = deadline

    def makefile(self, mode: str, buffering: int = -1) -> io.BufferedReader:
        """Return a reader that obeys the deadline."""
        return io.BufferedReader(_Stream(self.sock, self._deadline))

    def sendall(self, data: bytes) -> None:
        """Send within what is left of the time."""
        self.sock.settimeout(self._deadline.left())
        self.sock.sendall(data)

    def close(self) -> None:
        """Leave it open: http.client closes before the body was read; whoever opened the socket closes it."""


def _resolve(host: str, port: int, deadline: Deadline) -> list[t.Any]:
    """Look a name up; the resolver knows no deadline, so a thread that may be left behind asks it."""
    if is_literal(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found: list[t.Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    worker = threading.Thread(target=ask, daemon=True)
    worker.start()
    worker.join(deadline.left())
    if not found:
        raise ProbeError("dns", f"the name {host} was not resolved within {deadline.seconds:g} s", "the host's resolver (/etc/resolv.conf)")
    if isinstance(found[0], Exception):
        raise ProbeError("dns", f"the name {host} cannot be resolved ({found[0]})", "DNS, or connect_to with the address")
    return found[0]


def connect(host: str, port: int, unix_socket: str | None, deadline: Deadline) -> tuple[socket.socket, str]:
    """Open the connection and tell to what."""
    if unix_socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.left())
            sock.connect(unix_socket)
        except OSError as error:
            sock.close()
            raise _explained(error, f"unix socket {unix_socket}", deadline) from error
        return sock, f"unix socket {unix_socket}"
    addresses = _resolve(host, port, deadline)
    last: ProbeError | None = None
    for index, (family, kind, protocol, _name, address) in enumerate(addresses):
        where = f"[{address[0]}]:{port}" if ":" in address[0] else f"{address[0]}:{port}"
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left() / (len(addresses) - index))
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = _explained(error, where, deadline)
            continue
        return sock, where
    raise last or ProbeError("dns", f"the name {host} has no address")


def _explained(error: OSError, where: str, deadline: Deadline) -> ProbeError:
    if isinstance(error, ConnectionRefusedError):
        return ProbeError("refused", f"{where} refused the connection", "whether the service runs and listens there")
    if isinstance(error, TIMEOUTS):
        return ProbeError("timeout", f"{where} did not answer the connection within {deadline.seconds:.3g} s", "firewall, routes and load")
    if isinstance(error, FileNotFoundError):
        return ProbeError("refused", f"{where} does not exist", "whether the service runs and listens there")
    return ProbeError("unreachable", f"{where} cannot be reached ({error.strerror or error})", "firewall, routes and permissions")


def tls_context(target: Target) -> ssl.SSLContext:
    """Return the client's TLS settings; only the own CA is trusted where one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not target.validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        if target.ca_path:
            context.load_verify_locations(cafile=target.ca_path)
        else:
            context.load_default_certs()
            if target.further_ca_path:
                context.load_verify_locations(cafile=target.further_ca_path)
    except (OSError, ssl.SSLError) as error:
        raise AnchorageError(f"The CA file {target.ca_path} cannot be used: {error}.") from error
    return context


def secure(sock: socket.socket, target: Target, name: str, where: str, deadline: Deadline) -> tuple[socket.socket, dict[str, t.Any]]:
    """Speak TLS on a connection and tell what was agreed."""
    try:
        sock.settimeout(deadline.left())
        secure = tls_context(target).wrap_socket(sock, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        advice = "the certificate that is served: openssl s_client -connect … -servername " + name
        raise ProbeError("certificate", f"the certificate of {name} at {where} is refused: {error.verify_message}", advice) from error
    except TIMEOUTS as error:
        raise ProbeError("timeout", f"{where} did not finish the TLS handshake within {deadline.seconds:.3g} s", "what listens there") from error
    except (ssl.SSLError, OSError) as error:
        text = getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
        raise ProbeError("tls", f"{where} does not speak TLS as wanted ({text})", "whether that port serves https") from error
    cipher = secure.cipher()
    facts: dict[str, t.Any] = {"protocol": secure.version(), "cipher": cipher[0] if cipher else None}
    certificate = secure.getpeercert()
    if certificate:
        facts["not_after"] = certificate.get("notAfter")
        facts["serial"] = certificate.get("serialNumber")
    return secure, facts


def _read_body(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Read at most the limit; tell whether there was more."""
    length = response.length
    wanted = READ_LIMIT + 1 if length is None else min(length, READ_LIMIT + 1)
    body = b""
    while len(body) < wanted:
        part = response.read1(min(wanted - len(body), 16384))
        if not part:
            break
        body += part
    if length is not None and len(body) < wanted:
        raise http.client.IncompleteRead(body, length - len(body))
    return body[:READ_LIMIT], len(body) > READ_LIMIT


def _ask(target: Target, place: Place, deadline: Deadline) -> Answer:
    """Send one request to one place and read its answer."""
    host, port = parse_endpoint(target.connect_to, place.port) if target.connect_to else (place.host, place.port)
    started = deadline.spent
    sock, where = connect(host, port, target.unix_socket, deadline)
    stage = "the answer did not begin"
    body = b""
    try:
        tls = None
        if place.scheme == "https":
            sock, tls = secure(sock, target, place.host, where, deadline)
        connection = http.client.HTTPConnection(place.host, place.port)
        connection.sock = t.cast(t.Any, _Wire(sock, deadline))
        headers = {"Host": host_header(place), "User-Agent": "anchorage-health", "Accept": "*/*", "Connection": "close"}
        chosen = {key.title(): value for key, value in target.headers.items()}
        connection.putrequest(target.method, place.path, skip_host=True, skip_accept_encoding=True)
        data = None if target.body is None else target.body.encode("utf-8")
        if data is not None:
            headers["Content-Length"] = str(len(data))
        for key, value in {**headers, **chosen}.items():
            connection.putheader(key, value.encode("utf-8"))
        connection.endheaders(data)
        response = connection.getresponse()
        stage = "the body did not end"
        body, truncated = _read_body(response)
        return Answer(
            response.status,
            response.reason,
            tuple(response.getheaders()),
            body,
            truncated,
            deadline.spent - started,
            urllib.parse.urlunsplit((place.scheme, host_header(place), place.path, "", "")),
            where,
            tls=tls,
        )
    except TIMEOUTS as error:
        advice = "what the service waits for: its log, its database, its load"
        raise ProbeError("timeout", f"{where} accepted the request but {stage} within {deadline.seconds:.3g} s", advice) from error
    except http.client.RemoteDisconnected as error:
        raise ProbeError("closed", f"{where} closed the connection without an answer", "the service's log: it may crash on requests") from error
    except ConnectionResetError as error:
        raise ProbeError("reset", f"{where} reset the connection", "the service's log: it may crash on requests") from error
    except http.client.IncompleteRead as error:
        missing = f" ({len(error.partial)} bytes came, {error.expected} are missing)" if error.expected else ""
        raise ProbeError("incomplete", f"{where} ended its answer too early{missing}", "the service's log and the proxy before it") from error
    except (http.client.HTTPException, ValueError) as error:
        raise ProbeError("protocol", f"{where} does not answer in HTTP ({type(error).__name__})", "what listens there") from error
    except OSError as error:
        raise ProbeError("broken", f"the connection to {where} broke ({error.strerror or error})", "the service's log") from error
    finally:
        sock.close()


def _redirected(place: Place, location: str) -> Place:
    """Return where a redirect leads if it stays on the host and does not lose TLS."""
    base = urllib.parse.urlunsplit((place.scheme, host_header(place), place.path, "", ""))
    url = urllib.parse.urljoin(base, location)
    try:
        new = parse_url(url)
    except AnchorageError as error:
        raise ProbeError("redirect", f"it redirects to {location!r}, which is no web address", "the application's or proxy's redirects") from error
    upgraded = place.scheme == "http" and new.scheme == "https" and new.port == DEFAULT_PORTS["https"]
    if new.host.lower() != place.host.lower() or not (upgraded or (new.scheme, new.port) == (place.scheme, place.port)):
        raise ProbeError("redirect", f"it redirects off the host, to {url}", "the application's or proxy's idea of its own address")
    return new


def fetch(target: Target, *, seconds: float | None = None, monotonic: t.Callable[[], float] = time.monotonic) -> Answer:
    """Ask once, redirects included, within the target's timeout and the given seconds."""
    deadline = Deadline(target.timeout_seconds if seconds is None else min(seconds, target.timeout_seconds), monotonic)
    place = parse_url(target.url)
    hops: list[str] = []
    while True:
        try:
            answer = _ask(target, place, deadline)
        except TIMEOUTS as error:
            raise ProbeError("timeout", f"no complete answer within {deadline.seconds:.3g} s", "load of the service") from error
        location = answer.header("Location")
        if target.follow_redirects != FOLLOW_SAME_HOST or answer.status not in REDIRECTS or not location:
            return dataclasses.replace(answer, redirects=tuple(hops), seconds=deadline.spent)
        new = _redirected(place, location)
        if target.connect_to and new.port != place.port:
            host = parse_endpoint(target.connect_to, place.port)[0]
            target = dataclasses.replace(target, connect_to=f"[{host}]:{new.port}" if ":" in host else f"{host}:{new.port}")
        hops.append(f"{answer.status} {location}")
        if new == place or len(hops) > MAX_REDIRECTS:
            raise ProbeError("redirect", f"it redirects in a circle ({' → '.join(hops[:3])} …)", "the application's or proxy's redirects")
        place = new
        if answer.status == 303:
            target = dataclasses.replace(target, method="GET", body=None)


# ---- the judgement ---------------------------------------------------------------------------------------------------


def _jmespath() -> t.Any:
    try:
        import jmespath
    except ImportError as error:
        raise AnchorageError(
            "JSON expressions need the Python library jmespath on the host that is asked from.",
            next_step="Install the package python3-jmespath there.",
        ) from error
    return jmespath


def compiled(expressions: t.Sequence[Expression]) -> list[tuple[Expression, t.Any]]:
    """Compile the JMESPath expressions, so that a wrong one fails before anything is asked."""
    ready = []
    for item in expressions:
        library = _jmespath()
        try:
            ready.append((item, library.compile(item.expression)))
        except library.exceptions.JMESPathError as error:
            raise AnchorageError(f"The JMESPath expression {item.expression!r} is not valid: {error}.") from error
    return ready


def judge_answer(answer: Answer, wanted: Expectation) -> list[Check]:
    """Judge an answer that came in full."""
    evidence: dict[str, t.Any] = {
        "url": answer.url,
        "address": answer.address,
        "status": answer.status,
        "milliseconds": round(answer.seconds * 1000, 1),
        "bytes": len(answer.body),
        "truncated": answer.truncated,
        "content_type": answer.header("Content-Type"),
    }
    evidence.update({"redirects": list(answer.redirects)} if answer.redirects else {})
    evidence.update({"tls": dict(answer.tls)} if answer.tls else {})
    expected = " or ".join(str(status) for status in wanted.status)
    location = answer.header("Location")
    seen = f"status {answer.status} came, wanted {expected}"
    if location:
        seen += f" (it points to {location})"
    elif answer.excerpt:
        seen += f" (it says {answer.excerpt!r})"
    good = answer.status in wanted.status
    if not good:
        evidence["excerpt"] = answer.excerpt
    checks = [Check("answer", evidence=evidence)]
    checks.append(judge("status", good, evidence={"status": answer.status, "wanted": list(wanted.status)}, cause=seen, advice="the service's log"))
    checks.extend(_judge_body(answer, wanted))
    checks.extend(_judge_headers(answer, wanted))
    if wanted.json:
        checks.extend(judge_json(answer, wanted.json))
    return checks


def _judge_body(answer: Answer, wanted: Expectation) -> list[Check]:
    rules: list[tuple[str, bool]] = []
    if wanted.body is not None:
        rules.append((f"is not exactly {wanted.body.strip()!r}", not answer.truncated and answer.text.strip() == wanted.body.strip()))
    if wanted.body_contains is not None:
        rules.append((f"does not contain {wanted.body_contains!r}", wanted.body_contains in answer.text))
    if wanted.body_regex is not None:
        rules.append((f"does not match {wanted.body_regex!r}", re.search(wanted.body_regex, answer.text) is not None))
    if not rules:
        return []
    broken = [text for text, good in rules if not good]
    size = f", of which only the first {READ_LIMIT} bytes were read" if answer.truncated else ""
    kind = f" ({answer.header('Content-Type')})" if answer.header("Content-Type") else ""
    cause = f"the body {answer.excerpt!r}{kind}{size} {' and '.join(broken)}"
    looks_html = "html" in (answer.header("Content-Type") or "") and "<" in answer.excerpt
    advice = "who answered: a proxy's default site looks like this" if looks_html else "the service's log and its own checks"
    return [judge("body", not broken, evidence={"excerpt": answer.excerpt}, cause=cause, advice=advice)]


def _judge_headers(answer: Answer, wanted: Expectation) -> list[Check]:
    wrong, seen = [], {}
    for name, pattern in wanted.headers.items():
        seen[name] = value = answer.header(name)
        if value is None:
            wrong.append(f"the header {name} is missing")
        elif not re.fullmatch(pattern, value):
            wrong.append(f"the header {name} is {value!r} and does not match {pattern!r}")
    for name in wanted.absent_headers:
        seen[name] = value = answer.header(name)
        if value is not None:
            wrong.append(f"the header {name} is there ({value!r}) and must not be")
    if not seen:
        return []
    return [judge("headers", not wrong, evidence=seen, cause="; ".join(wrong), advice="the application and the proxy before it")]


def judge_json(answer: Answer, expressions: t.Sequence[Expression]) -> list[Check]:
    """Judge a JSON body by expressions; whatever is no JSON fails."""
    try:
        if answer.truncated:
            raise ValueError(f"it is longer than {READ_LIMIT} bytes")
        document = json.loads(answer.body)
    except ValueError as error:
        cause = f"the body {answer.excerpt!r} is not JSON ({error})"
        return [Check("json", FAIL, {"excerpt": answer.excerpt}, cause, "who answered: the service itself sends JSON")]
    seen, wrong = [], []
    for item, program in compiled(expressions):
        try:
            value = program.search(document)
        except _jmespath().exceptions.JMESPathError as error:
            value, good = None, False
            wrong.append(f"{item.expression} cannot be judged ({error})")
        else:
            good = bool(value) or value == 0 and value is not False if item.equals is None else _same(value, item.equals)
            if not good:
                wanted = "true" if item.equals is None else json.dumps(item.equals, default=str)
                wrong.append(f"{item.expression} is {json.dumps(value)[:EXCERPT]}, wanted {wanted}")
        seen.append({"expression": item.expression, "value": value, "healthy": good})
    return [judge("json", not wrong, evidence={"expressions": seen}, cause="; ".join(wrong), advice="what the service says of itself")]


def _same(value: t.Any, wanted: t.Any) -> bool:
    """Compare as JSON does: 1 is not true."""
    return json.dumps(value, sort_keys=True) == json.dumps(wanted, sort_keys=True, default=str)


def p95(samples: t.Sequence[float]) -> float:
    """Return the 95th percentile, nearest rank."""
    ordered = sorted(samples)
    return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]


# ---- the probe -------------------------------------------------------------------------------------------------------


def probe(target: Target, wanted: Expectation, *, world: World, seconds: float | None = None) -> list[Check]:
    """Ask once and judge: the checks of one try."""
    try:
        answer = fetch(target, seconds=seconds, monotonic=world.monotonic)
    except ProbeError as error:
        evidence = {"url": target.url, "error": error.kind, "message": error.message}
        return [Check("answer", FAIL, evidence, error.message, error.advice)]
    checks = judge_answer(answer, wanted)
    if wanted.identity is not None:
        place = parse_url(target.url)
        port = wanted.identity.port or (parse_endpoint(target.connect_to, place.port)[1] if target.connect_to else place.port)
        checks.append(judge_port(world, port, cwd=wanted.identity.cwd, variables=wanted.identity.environment))
    return checks


def _judge_p95(target: Target, wanted: Expectation, world: World, seconds: float) -> Check:
    """Probe n times without a pause and judge the 95th percentile."""
    end = world.monotonic() + seconds
    samples: list[float] = []
    plain = dataclasses.replace(wanted, identity=None)
    advice = "load of the service, its database and its host"
    while len(samples) < wanted.p95_probes and world.monotonic() < end:
        checks = probe(target, plain, world=world, seconds=max(end - world.monotonic(), 0.05))
        bad = [check.cause for check in checks if not check.healthy]
        if bad:
            cause = f"while its latency was measured, probe {len(samples) + 1} of {wanted.p95_probes} failed: {bad[0]}"
            return Check("latency", FAIL, {"probes": len(samples)}, cause, advice)
        samples.append(checks[0].evidence["milliseconds"])
    facts = {"probes": len(samples), "p95_milliseconds": p95(samples) if samples else None, "wanted_milliseconds": wanted.p95_milliseconds}
    if len(samples) < wanted.p95_probes:
        cause = f"only {len(samples)} of {wanted.p95_probes} probes for its latency fitted into the deadline"
        return Check("latency", FAIL, facts, cause, "a longer deadline_seconds or a faster service")
    facts.update(fastest=min(samples), slowest=max(samples))
    return judge_limit(
        "latency",
        facts["p95_milliseconds"],
        unit="ms",
        subject=f"the 95th percentile of {len(samples)} probes",
        fail=wanted.p95_milliseconds,
        evidence=facts,
        advice=advice,
    )


def refuse_nonsense(target: Target, wanted: Expectation) -> None:
    """Fail before anything is asked when the question itself is wrong."""
    place = parse_url(target.url)
    if target.connect_to:
        parse_endpoint(target.connect_to, place.port)
    if not re.fullmatch(r"[A-Z]+", target.method):
        raise AnchorageError(f"The method {target.method!r} is not an HTTP method in capital letters.")
    for name, value in target.headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
            raise AnchorageError(f"The request header {name!r} has a name or value that no request can carry.")
    if place.scheme == "https":
        tls_context(target)
    compiled(wanted.json)
    for pattern in filter(None, [wanted.body_regex, *wanted.headers.values()]):
        try:
            re.compile(pattern)
        except re.error as error:
            raise AnchorageError(f"The regular expression {pattern!r} is not valid: {error}.") from error


def check(
    target: Target,
    wanted: Expectation,
    *,
    world: World,
    deadline_seconds: float = 30.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over: what the module and the release engine call."""
    refuse_nonsense(target, wanted)
    start = world.monotonic()
    watch: Watch = poll(
        lambda seconds: probe(target, wanted, world=world, seconds=seconds),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    if watch.healthy and wanted.p95_milliseconds is not None:
        left = deadline_seconds - (world.monotonic() - start)
        latency = _judge_p95(target, wanted, world, left)
        latency = dataclasses.replace(latency, attempts=latency.evidence["probes"], seconds=world.monotonic() - start - watch.seconds)
        watch = dataclasses.replace(watch, checks=(*watch.checks, latency), seconds=world.monotonic() - start)
    first = watch.checks[0].evidence
    good = f"{first['status']} in {first['milliseconds']:g} ms" if "status" in first else ""
    where = f" ({target.unix_socket or target.connect_to})" if target.unix_socket or target.connect_to else ""
    return verdict(f"{target.url}{where}", watch, good=good, extra={"url": target.url, **_last(watch)})


def _last(watch: Watch) -> dict[str, t.Any]:
    """Return the figures of the last answer that callers ask for most."""
    evidence = watch.checks[0].evidence
    return {key: evidence.get(key) for key in ("status", "milliseconds", "content_type")}
