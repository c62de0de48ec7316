# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's own certificate authority, and the certificates of the hosts that serve PostgreSQL or Redis to others.

The authority's key stays on the host that keeps the apps' secrets. A server makes its own key and asks with a signing request, so no private key
travels. What a certificate is good for, the contract says and never the request.
"""

from __future__ import annotations

import grp
import ipaddress
import json
import re
import typing as t

from . import secret_store
from .app import App
from .certificates import DAY, Certificate, TlsWorld, read_certificate
from .errors import AnchorageError
from .health import FAIL, WARN, Check, Verdict, judge, poll, verdict
from .layout import AUTHORITY, DOCUMENTS, TLS, TRUSTED
from .world import World

Data = dict[str, t.Any]

#: Under this name the authority is kept beside the apps' secrets; no app's name holds a dot.
KEPT = "fleet.ca"
KEY, CERTIFICATE = f"{TLS}/server.key", f"{TLS}/server.pem"
#: Who reads key and certificate, in one file each, so that no crash leaves a key beside the certificate of another.
READERS = {"postgresql": ("postgres", f"{TLS}/postgresql.pem"), "redis": ("redis", f"{TLS}/redis.pem")}
AUTHORITY_DAYS, SERVER_DAYS, WARN_DAYS = 3650, 730, 60
SUBJECT = "/CN=anchorage"
AUTHORITY_CONFIGURATION = """[req]
distinguished_name = dn
x509_extensions = v3
prompt = no
[dn]
CN = Anchorage fleet authority
[v3]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
"""
CURVE = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class Wanted(t.NamedTuple):
    """What a server's certificate is good for."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]

    @classmethod
    def of(cls, names: t.Iterable[str], addresses: t.Iterable[str]) -> Wanted:
        """Take apart what is an address and what a name.

        :raises AnchorageError: when something is neither.
        """
        found: set[str] = set(names)
        places: set[str] = set()
        for text in addresses:
            try:
                places.add(str(ipaddress.ip_address(text)))
            except ValueError:
                found.add(text)
        for name in found:
            if not _NAME.fullmatch(name):
                raise AnchorageError(
                    f"'{name}' is no name that a certificate can hold.", next_step="Rename the host in the inventory: letters, digits, dots and dashes."
                )
        return cls(tuple(sorted(found)), tuple(sorted(places)))

    @property
    def extension(self) -> str:
        """Return it as openssl writes subjectAltName. An address stands there as a name too: libpq before 15 compares names only."""
        return ",".join([*(f"DNS:{name}" for name in (*self.names, *self.addresses)), *(f"IP:{address}" for address in self.addresses)])


# ---- openssl ---------------------------------------------------------------------------------------------------------


def _openssl(world: World, argv: t.Sequence[str], what: str, *, input: str | None = None) -> str:
    """Run openssl and return what it printed.

    :raises AnchorageError: when it fails; nothing secret is in the message.
    """
    done = world.run(["openssl", *argv], input=input, timeout=60)
    if done.rc != 0:
        raise AnchorageError(f"openssl could not {what}: {done.stderr.strip()[-300:] or done.rc}.", next_step="See that openssl is installed on this host.")
    return done.stdout


def new_key(world: World) -> str:
    """Return a new private key as PEM."""
    return _openssl(world, ["genpkey", *CURVE], "make a private key")


def request_of(world: World, key_path: str) -> str:
    """Return a signing request. It says nothing but the public key: what it is for, the signer knows."""
    return _openssl(world, ["req", "-new", "-key", key_path, "-subj", SUBJECT], "make a signing request")


def fits(world: World, pem: bytes | None, key: bytes | None, authority: str, wanted: Wanted) -> str:
    """Return why a server's certificate cannot stay; nothing where it can."""
    found = read_certificate(world, pem)
    if found is None or not key:
        return "there is none yet"
    shown = _openssl(world, ["x509", "-noout", "-ext", "subjectAltName"], "read a certificate", input=(pem or b"").decode("ascii", "replace"))
    if said(shown) != set(wanted.extension.split(",")):
        return "it is for other names or addresses"
    if half_over(found, world.now()):
        return OLD
    public = _openssl(world, ["x509", "-noout", "-pubkey"], "read a certificate", input=(pem or b"").decode("ascii", "replace"))
    own = world.run(["openssl", "pkey", "-pubout"], input=key.decode("ascii", "replace"), timeout=20)
    if own.rc != 0 or own.stdout.split() != public.split():
        return "it belongs to another key"
    chain = world.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", AUTHORITY], input=(pem or b"").decode("ascii", "replace"), timeout=20
    )
    return "" if authority and chain.rc == 0 else "the fleet's authority did not sign it"


def said(text: str) -> set[str]:
    """Return the names and addresses that openssl prints of a certificate, as they are written for one."""
    words = {word.strip() for line in text.splitlines() if "DNS:" in line or "IP Address:" in line for word in line.split(",")}
    return {f"IP:{ipaddress.ip_address(word[len('IP Address:') :])}" if word.startswith("IP Address:") else word for word in words if word}


OLD = "more than half of its life is over"


def serves(world: World, why: str) -> bool:
    """Tell whether a host may go on for now with a certificate that is to be made anew."""
    found = read_certificate(world, world.read(CERTIFICATE))
    return why == OLD and found is not None and found.not_after > world.now()


def half_over(found: Certificate, now: float) -> bool:
    """Tell whether a certificate is to be replaced: at half of its life, so that a site.yml once a year is enough."""
    return now > (found.not_before + found.not_after) / 2


# ---- the authority ---------------------------------------------------------------------------------------------------


def authority(world: TlsWorld, *, check: bool) -> tuple[str, bool]:
    """Return the certificate of the fleet's authority, and whether it was made now. Its key is in no answer.

    :raises AnchorageError: when what is kept is damaged.
    """
    kept = _kept(world)
    if kept:
        return kept["certificate"], False
    if check:
        return "", True
    key = new_key(world)
    private = world.private_directory(secret_store.SECRETS)
    try:
        world.write_atomic(f"{private}/key.pem", key.encode(), mode=0o600)
        world.write_atomic(f"{private}/authority.cnf", AUTHORITY_CONFIGURATION.encode(), mode=0o600)
        argv = ["req", "-x509", "-new", "-sha256", "-config", f"{private}/authority.cnf", "-key", f"{private}/key.pem", "-days", str(AUTHORITY_DAYS)]
        certificate = _openssl(world, argv, "make the fleet's authority")
    finally:
        world.remove_tree(private)
    data = json.dumps({"certificate": certificate, "key": key}, indent=1, sort_keys=True) + "\n"
    world.write_atomic(secret_store.path_of(KEPT), data.encode(), mode=0o600, uid=0, gid=0)
    return certificate, True


def _kept(world: World) -> dict[str, str]:
    kept, _state = secret_store.read(world, KEPT)
    if kept and not (kept.get("key") and kept.get("certificate")):
        raise AnchorageError(
            f"{secret_store.path_of(KEPT)} holds no key or no certificate. A new authority would be one that no process trusts, so none was made.",
            next_step=f"Restore {secret_store.path_of(KEPT)} from the backup.",
        )
    return kept


def sign(world: TlsWorld, request: str, wanted: Wanted) -> str:
    """Return a server's certificate.

    :arg request: of its public key nothing else is taken.
    :raises AnchorageError: when this host does not keep the authority.
    """
    kept = _kept(world)
    if not kept:
        raise AnchorageError("This host does not keep the fleet's authority.", next_step="Run site.yml without --limit.")
    of_authority = read_certificate(world, kept["certificate"].encode())
    left = int((of_authority.not_after - world.now()) // DAY) if of_authority else 0
    if left < 1:
        raise AnchorageError("The fleet's authority has expired.", next_step="Make another one, as docs/operations.md says under TLS between hosts.")
    private = world.private_directory(secret_store.SECRETS)
    try:
        extensions = f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName={wanted.extension}\n"
        extensions += "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        parts = {"key.pem": kept["key"], "ca.pem": kept["certificate"], "request.pem": request, "extensions.cnf": extensions}
        for name, text in parts.items():
            world.write_atomic(f"{private}/{name}", text.encode(), mode=0o600)
        argv = ["x509", "-req", "-sha256", "-in", f"{private}/request.pem", "-subj", SUBJECT, "-CA", f"{private}/ca.pem", "-CAkey", f"{private}/key.pem"]
        argv += ["-set_serial", f"0x{secret_store.make(32)}", "-days", str(min(SERVER_DAYS, left)), "-extfile", f"{private}/extensions.cnf"]
        return _openssl(world, argv, "sign a certificate")
    finally:
        world.remove_tree(private)


# ---- a host of the fleet ---------------------------------------------------------------------------------------------


def bundle(certificate: str, further: bytes | None) -> bytes:
    """Return what Node.js processes trust besides its own list: the fleet's authority, and what the operator named."""
    text = certificate.strip() + "\n"
    return text.encode() + ((further.strip() + b"\n") if further and further.strip() else b"")


def trust(world: TlsWorld, certificate: str, *, check: bool) -> bool:
    """Let this host know the fleet's authority. Returns whether that is, or in check mode would be, a change."""
    return _public(world, AUTHORITY, bundle(certificate, None), check=check)


def join(world: TlsWorld, extra_ca_file: str, *, check: bool) -> bool:
    """Join the fleet's authority and what the operator named in one file, as Node.js takes one only. Returns as trust() does.

    :raises AnchorageError: when the operator's file is not there.
    """
    certificate, further = world.read(AUTHORITY), world.read(extra_ca_file) if extra_ca_file else None
    if extra_ca_file and further is None and not check:
        raise AnchorageError(
            f"release_extra_ca_file {extra_ca_file} is not there.", next_step="Put it on the host (base_extra_ca_certificates), or name another."
        )
    return _public(world, TRUSTED, bundle((certificate or b"").decode(), further), check=check)


def _public(world: TlsWorld, path: str, data: bytes, *, check: bool) -> bool:
    if world.read(path) == data:
        return False
    if not check:
        world.make_directory(TLS, mode=0o755)
        world.write_atomic(path, data, mode=0o644, uid=0, gid=0)
    return True


def ask(world: TlsWorld, certificate: str, wanted: Wanted, services: t.Iterable[str], *, check: bool) -> tuple[str, str, bool]:
    """Return a signing request where this server needs a certificate, why it does, and whether something was written."""
    pem, key = world.read(CERTIFICATE), world.read(KEY)
    why = fits(world, pem, key, certificate, wanted)
    if not why:
        return "", "", place(world, services, check=check)
    if check:
        return "", why, True
    if not key or why == "it belongs to another key":
        world.make_directory(TLS, mode=0o755)
        world.write_atomic(KEY, new_key(world).encode(), mode=0o600, uid=0, gid=0)
    return request_of(world, KEY), why, True


def install(world: TlsWorld, certificate: str, wanted: Wanted, services: t.Iterable[str]) -> None:
    """Take a certificate that the authority has signed.

    :raises AnchorageError: when it does not fit; what was there stays.
    """
    why = fits(world, certificate.encode(), world.read(KEY), certificate, wanted)
    if why:
        raise AnchorageError(
            f"The certificate that was signed for this host cannot be used: {why}.", live="what was there before", next_step="Run site.yml again."
        )
    world.write_atomic(CERTIFICATE, certificate.encode(), mode=0o644, uid=0, gid=0)
    place(world, services, check=False)


def place(world: TlsWorld, services: t.Iterable[str], *, check: bool) -> bool:
    """Give key and certificate to the services that serve with them. Returns whether that is, or in check mode would be, a change."""
    both = (world.read(KEY) or b"") + (world.read(CERTIFICATE) or b"")
    changed = False
    for service in sorted(set(services)):
        if service not in READERS:
            raise AnchorageError(f"'{service}' is no service of {', '.join(READERS)}.", next_step="Name one of those.")
        group, path = READERS[service]
        if world.read(path) == both:
            continue
        changed = True
        if not check:
            world.write_atomic(path, both, mode=0o640, uid=0, gid=grp.getgrnam(group).gr_gid)
    return changed


def open_instances(world: World, names: t.Iterable[str]) -> list[str]:
    """Return the Redis instances of this host that take plain connections."""
    return [name for name in names if takes_plain(_text(world, f"redis-{name}.conf"), _text(world, f"redis-{name}-links.conf"))]


def _text(world: World, name: str) -> str:
    return (world.read(f"/etc/redis/{name}") or b"").decode("utf-8", "replace")


def takes_plain(settings: str, links: str) -> bool:
    """Tell from an instance's configuration whether it takes plain connections, and be it from its own host: the app may have been there alone."""
    ports = [line.split()[1:] for line in (*settings.splitlines(), *links.splitlines()) if line.split()[:1] == ["port"]]
    return bool(ports) and ports[-1] != ["0"]


def plain_apps(world: World, names: t.Iterable[str]) -> list[str]:
    """Return the apps of this host that run a release that reaches Redis in plain text, or may still."""
    found = []
    for name in names:
        if not world.exists(f"{DOCUMENTS}/{name}.json"):
            continue
        app = App(name, world)
        live = app.journal.live
        if live and (app.unsettled or any(str(app.at(live).document.get(key) or "").startswith("redis://") for key in ("redis_url", "redis_cache_url"))):
            found.append(name)
    return found


# ---- health ----------------------------------------------------------------------------------------------------------


def judge_certificate(name: str, found: Certificate | None, now: float) -> Check:
    """Judge how long a certificate lives."""
    if found is None:
        return Check(name, FAIL, {}, f"{name} cannot be read", "site.yml, which makes it anew")
    left = found.days_left(now)
    evidence = {"days_left": left, "serial": found.serial}
    cause = f"{name} expired {abs(left):g} days ago" if left <= 0 else f"{name} ends in {left:g} days"
    return judge(name, left >= WARN_DAYS, evidence=evidence, cause=cause, advice="site.yml, which renews it", severity=FAIL if left <= 0 else WARN)


def check(world: World, *, deadline_seconds: float) -> Verdict:
    """Judge the certificates with which this host serves others, and the authority that it trusts."""

    def probe(_seconds: float) -> list[Check]:
        found = [judge_certificate("the fleet's authority", read_certificate(world, world.read(AUTHORITY)), world.now())]
        if world.exists(CERTIFICATE):
            found.append(judge_certificate("the certificate of this host", read_certificate(world, world.read(CERTIFICATE)), world.now()))
        return found

    watch = poll(probe, world=world, deadline_seconds=deadline_seconds, interval_seconds=1.0, successes=1)
    days = min((item.evidence["days_left"] for item in watch.checks if "days_left" in item.evidence), default=None)
    return verdict("TLS between hosts", watch, good=f"good for {days:g} days" if days is not None else "", extra={"days_left": days})
