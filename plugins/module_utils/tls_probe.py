# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS as clients meet it: what is served for a name, whether it is trusted, how long it lives, and whether its renewal is alive.

A renewal that returned 0 proves nothing, so the certificate that is served is held against the one on the disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ssl
import typing as t

from .certificates import DAY, LONGEST_NOTICE, Certificate, first_der, probe_name, read_certificate
from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, joined, judge, poll, verdict
from .http_probe import TIMEOUTS, Deadline, ProbeError, connect, parse_endpoint
from .world import World

PORT = 443

#: A lifetime counts as at most this long: whoever renews 30 days before the end is in time, however long the whole was.
LONGEST_LIFE = 3 * LONGEST_NOTICE

PROTOCOLS = ("TLSv1.2", "TLSv1.3")
BELOW = {"TLSv1.2": ssl.TLSVersion.TLSv1_1, "TLSv1.3": ssl.TLSVersion.TLSv1_2}


@dataclasses.dataclass(frozen=True)
class Target:
    """Whom to ask."""

    names: t.Sequence[str]
    address: str = f"127.0.0.1:{PORT}"
    ca_path: str | None = None
    timeout_seconds: float = 5.0


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What healthy TLS looks like."""

    certificate_path: str | None = None
    warn_percent: float = 30
    fail_percent: float = 10
    min_protocol: str = "TLSv1.2"
    renewal_timer: str | None = None
    untrusted: str = FAIL


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server presented for a name; C(refusal) is why a client would not trust it."""

    name: str
    der: bytes
    protocol: str
    refusal: str = ""


# ---- the wire --------------------------------------------------------------------------------------------------------


def trusting(ca_path: str | None) -> ssl.SSLContext:
    """Return a client's settings that verify chain and name.

    :raises AnchorageError: when the file of authorities cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca_path:
            context.load_verify_locations(cafile=ca_path)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise AnchorageError(f"The CA file {ca_path} cannot be used: {error}.") from error
    return context


def credulous(highest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return settings that take any certificate, and with a limit speak no newer protocol than that, however weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if highest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = highest
    return context


def handshake(target: Target, name: str, context: ssl.SSLContext, deadline: Deadline) -> tuple[bytes, str]:
    """Return the certificate (DER) and the protocol of one handshake.

    :raises ProbeError: of kind C(certificate) when it is not trusted, C(tls) when the server refuses, or as connections do.
    """
    host, port = parse_endpoint(target.address, PORT)
    sock, where = connect(host, port, None, deadline)
    try:
        sock.settimeout(deadline.left())
        with context.wrap_socket(sock, server_hostname=name) as secure:
            return secure.getpeercert(binary_form=True) or b"", secure.version() or ""
    except ssl.SSLCertVerificationError as error:
        raise ProbeError("certificate", error.verify_message) from error
    except TIMEOUTS as error:
        raise ProbeError("timeout", f"{where} did not finish the TLS handshake within {deadline.seconds:.3g} s", "what listens there") from error
    except (ssl.SSLError, OSError) as error:
        text = getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
        raise ProbeError("tls", f"{where} does not agree on TLS for {name} ({text})", "whether that port serves https, and for that name") from error
    finally:
        sock.close()


def ask(target: Target, name: str, deadline: Deadline) -> Served:
    """Return what is served for a name, trusted or not.

    :raises ProbeError: when nothing is served.
    """
    asked = probe_name(name)
    try:
        der, protocol = handshake(target, asked, trusting(target.ca_path), deadline)
        return Served(name, der, protocol)
    except ProbeError as refused:
        if refused.kind != "certificate":
            raise
        der, protocol = handshake(target, asked, credulous(), deadline)
        return Served(name, der, protocol, refused.message)


def speaks_older(target: Target, name: str, floor: str, deadline: Deadline) -> str:
    """Return the protocol below the floor that a server agrees on, or nothing."""
    try:
        return handshake(target, probe_name(name), credulous(BELOW[floor]), deadline)[1]
    except ProbeError as refused:
        if refused.kind == "tls":
            return ""
        raise


# ---- the judgement ---------------------------------------------------------------------------------------------------


def facts_of(der: bytes, certificate: Certificate | None, now: float) -> dict[str, t.Any]:
    """Return what is worth showing of a certificate."""
    facts: dict[str, t.Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    if certificate is not None:
        lifetime = certificate.not_after - certificate.not_before
        facts.update(
            serial=certificate.serial,
            issuer=certificate.issuer,
            names=list(certificate.names),
            days_left=certificate.days_left(now),
            percent_left=round(100 * (certificate.not_after - now) / lifetime, 1) if lifetime > 0 else 0.0,
        )
    return facts


def judge_trust(served: Served, certificate: Certificate | None, wanted: Expectation, now: float) -> Check:
    """Judge whether a client that asks for this name trusts what it is shown."""
    evidence = {"name": served.name, "protocol": served.protocol, **facts_of(served.der, certificate, now)}
    name, refusal = f"certificate:{served.name}", served.refusal
    if not refusal:
        return Check(name, evidence=evidence)
    if certificate is None:
        return Check(name, FAIL, evidence, f"what is served for {served.name} is not trusted ({refusal})", "the server's certificate file")
    if certificate.is_bootstrap():
        cause = f"{served.name} is served with the self-signed stand-in: no authority has issued its certificate yet"
        return judge(name, False, evidence=evidence, cause=cause, advice="certbot's log (/var/log/letsencrypt), then provision.yml", severity=wanted.untrusted)
    if certificate.not_after <= now:
        cause = f"the certificate of {served.name} expired {-certificate.days_left(now):g} days ago"
        return Check(name, FAIL, evidence, cause, "certbot renew, and whether the server was reloaded after it")
    if certificate.not_before > now:
        return Check(name, FAIL, evidence, f"the certificate of {served.name} is not valid yet", "the clock of this host")
    if "ostname mismatch" in refusal or "not valid for" in refusal:
        cause = f"the certificate served for {served.name} is for {', '.join(certificate.names) or certificate.subject}"
        return Check(name, FAIL, evidence, cause, "server_name and ssl_certificate of that site")
    if certificate.subject == certificate.issuer:
        cause = f"the certificate of {served.name} is self-signed"
        return judge(name, False, evidence=evidence, cause=cause, advice="a certificate of an authority", severity=wanted.untrusted)
    cause = f"the chain of the certificate of {served.name} ends at nobody that is trusted here ({refusal}; issued by {certificate.issuer})"
    advice = "whether the server sends the intermediate certificates (fullchain.pem), and ca_path"
    return judge(name, False, evidence=evidence, cause=cause, advice=advice, severity=wanted.untrusted)


def judge_age(label: str, certificate: Certificate, wanted: Expectation, now: float) -> Check:
    """Judge the time that is left as a share of the lifetime, where a life of more than 90 days counts as 90."""
    life = min(certificate.not_after - certificate.not_before, LONGEST_LIFE)
    left = certificate.not_after - now
    percent = round(100 * left / life, 1) if life > 0 else 0.0
    evidence = {"percent_left": percent, "days_left": round(left / DAY, 2), "warn": wanted.warn_percent, "fail": wanted.fail_percent}
    limit = wanted.fail_percent if percent < wanted.fail_percent else wanted.warn_percent
    cause = f"{left / DAY:.1f} days are left to {label}, {percent:g} % of {life / DAY:.0f}, the limit is {limit:g} %: its renewal is overdue"
    severity = FAIL if percent < wanted.fail_percent else WARN
    advice = "the renewal's log (/var/log/letsencrypt) and its timer"
    return judge(f"lifetime:{label}", percent >= wanted.warn_percent, evidence=evidence, cause=cause, advice=advice, severity=severity)


def judge_served(world: World, served: t.Sequence[Served], path: str) -> Check:
    """Judge whether the certificate on the disk is the one that is served: a renewal without a reload shows here."""
    try:
        pem = world.read(path)
    except OSError as error:
        return Check("served", FAIL, {"path": path}, f"{path} cannot be read: {error.strerror}", "run this as root")
    on_disk = first_der(pem)
    if on_disk is None:
        return Check("served", FAIL, {"path": path}, f"{path} holds no certificate" if pem else f"there is no certificate at {path}", "certificate_path")
    stale = [item.name for item in served if item.der != on_disk]
    evidence = {"path": path, "sha256": hashlib.sha256(on_disk).hexdigest(), "other": stale}
    cause = f"for {', '.join(stale)} another certificate is served than the one in {path}"
    advice = "nginx -t && systemctl reload nginx; the deploy hook of the renewal"
    return judge("served", not stale, evidence=evidence, cause=cause, advice=advice)


TIMER_FIELDS = ("LoadState", "UnitFileState", "ActiveState", "LastTriggerUSec", "NextElapseUSecRealtime", "Unit")


def judge_timer(world: World, timer: str, seconds: float) -> Check:
    """Judge whether the renewal comes again, and how it ended last."""
    facts = unit_facts(world, timer, TIMER_FIELDS, seconds)
    service = facts.get("Unit") or f"{timer.rpartition('.')[0]}.service"
    last = unit_facts(world, service, ("Result", "ExecMainStatus"), seconds)
    wrong = []
    if facts.get("LoadState") != "loaded":
        wrong.append(f"there is no {timer}, so nothing renews the certificate")
    else:
        if facts.get("ActiveState") != "active":
            wrong.append(f"{timer} is {facts.get('ActiveState') or 'unknown'}, so nothing renews the certificate")
        if facts.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "generated"):
            wrong.append(f"{timer} is {facts.get('UnitFileState') or 'not enabled'}, so it is gone after a boot")
        if last.get("Result", "success") != "success":
            wrong.append(f"the last run of {service} ended with {last['Result']} (code {last.get('ExecMainStatus')})")
    evidence = {"timer": timer, **facts, **{f"last_{key}": value for key, value in last.items()}}
    advice = f"systemctl status {timer}; journalctl -u {service}"
    # What is served lives on: its lifetime fails when nobody has acted.
    return judge("renewal", not wrong, evidence=evidence, cause="; ".join(wrong), advice=advice, severity=WARN)


def unit_facts(world: World, unit: str, fields: t.Sequence[str], seconds: float) -> dict[str, str]:
    """Return what systemd says of a unit."""
    completed = world.run(["systemctl", "show", f"--property={','.join(fields)}", unit], timeout=max(seconds, 0.1))
    return dict(line.partition("=")[::2] for line in completed.stdout.splitlines() if "=" in line)


# ---- the probe -------------------------------------------------------------------------------------------------------


def probe(target: Target, wanted: Expectation, *, world: World, seconds: float) -> list[Check]:
    """Ask once for each name and judge."""
    end = world.monotonic() + seconds

    def in_time() -> Deadline:
        return Deadline(max(0.05, min(end - world.monotonic(), target.timeout_seconds)), world.monotonic)

    checks: list[Check] = []
    served: list[Served] = []
    certificates: dict[bytes, Certificate | None] = {}
    now = world.now()
    for name in target.names:
        try:
            deadline = in_time()
            item = ask(target, name, deadline)
        except (ProbeError, *TIMEOUTS) as error:
            cause = error.message if isinstance(error, ProbeError) else f"no handshake for {name} within {deadline.seconds:.3g} s"
            advice = error.advice if isinstance(error, ProbeError) else "load of the server"
            evidence = {"name": name, "address": target.address, "error": getattr(error, "kind", "timeout")}
            checks.append(Check(f"certificate:{name}", FAIL, evidence, cause, advice))
            continue
        served.append(item)
        if item.der not in certificates:
            certificates[item.der] = read_certificate(world, ssl.DER_cert_to_PEM_cert(item.der).encode())
        checks.append(judge_trust(item, certificates[item.der], wanted, now))
    for der, certificate in certificates.items():
        if certificate is not None and certificate.not_after > now:
            checks.append(judge_age(next(item.name for item in served if item.der == der), certificate, wanted, now))
    if served:
        checks.append(_judge_floor(target, served[0].name, wanted.min_protocol, in_time()))
        if wanted.certificate_path:
            checks.append(judge_served(world, served, wanted.certificate_path))
    if wanted.renewal_timer:
        checks.append(judge_timer(world, wanted.renewal_timer, max(1.0, (end - world.monotonic()) / 2)))
    return checks


def _judge_floor(target: Target, name: str, floor: str, deadline: Deadline) -> Check:
    """Judge whether a client with an old protocol is turned away."""
    evidence = {"min_protocol": floor}
    try:
        older = speaks_older(target, name, floor, deadline)
    except (ProbeError, *TIMEOUTS) as error:
        cause = f"whether it refuses protocols below {floor} could not be asked ({error})"
        return Check("protocol", WARN, evidence, cause, "load of the server")
    cause = f"it agrees on {older}, wanted {floor} at least"
    return judge("protocol", not older, evidence={**evidence, "agreed": older or None}, cause=cause, advice="ssl_protocols of the server")


def refuse_nonsense(target: Target, wanted: Expectation) -> None:
    """Fail before anything is asked when the question itself is wrong."""
    if not target.names:
        raise AnchorageError("names must have at least one name.")
    parse_endpoint(target.address, PORT)
    trusting(target.ca_path)
    if not 0 <= wanted.fail_percent <= wanted.warn_percent <= 100:
        raise AnchorageError(f"0 <= fail_percent <= warn_percent <= 100 must hold, not {wanted.fail_percent:g} and {wanted.warn_percent:g}.")


def check(
    target: Target,
    wanted: Expectation,
    *,
    world: World,
    deadline_seconds: float = 15.0,
    interval_seconds: float = 1.0,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over."""
    refuse_nonsense(target, wanted)
    watch = poll(
        lambda seconds: probe(target, wanted, world=world, seconds=seconds),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    ages = [item.evidence["days_left"] for item in watch.checks if item.name.startswith("lifetime:")]
    protocol = watch.checks[0].evidence.get("protocol")
    words = (protocol or "", f"{min(ages):g} days left" if ages else "")
    extra = {"days_left": min(ages) if ages else None, "protocol": protocol}
    return verdict(f"TLS of {', '.join(target.names)} at {target.address}", watch, good=joined(words, ", "), extra=extra)
