# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: what stands on the disk, what a server really serves, and how the first becomes the second."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import tempfile
import typing as t

from .errors import AnchorageError
from .world import World, fsync_directory

DAY = 86400.0
BOOTSTRAP_NAME = "anchorage bootstrap"
BOOTSTRAP_DAYS = 90
LONGEST_NOTICE = 30 * DAY
VERSIONS = ".versions"
PAIR = (("fullchain.pem", 0o644), ("privkey.pem", 0o600))


class Certificate(t.NamedTuple):
    """The parts of a certificate that decisions are made of; times are seconds since the epoch."""

    serial: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: float
    not_after: float

    def days_left(self, now: float) -> float:
        """Return the days until it expires; negative when it has."""
        return round((self.not_after - now) / DAY, 2)

    def is_bootstrap(self) -> bool:
        """Tell whether it is the self-signed stand-in and not a certificate of an authority."""
        return self.subject == self.issuer and BOOTSTRAP_NAME in self.subject

    def is_overdue(self, now: float) -> bool:
        """Tell whether a working renewal would have replaced it already.

        That is at a third of its life, and never earlier than 30 days before the end: certbot before 4.0 waits
        for that day whatever the lifetime.
        """
        return self.not_after - now < min((self.not_after - self.not_before) / 3, LONGEST_NOTICE)

    def covers(self, names: t.Iterable[str]) -> bool:
        """Tell whether it names exactly these names."""
        return set(self.names) == set(names)


class TlsWorld(World):
    """The world, with what certificates need of it besides: links, directories and a TLS handshake."""

    def make_directory(self, path: str, *, mode: int) -> None:
        """Create a directory and its parents where they are absent."""
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)

    def replace_link(self, path: str, target: str) -> None:
        """Let a link point elsewhere; readers see the old target or the new one. A directory in its place moves away."""
        directory = os.path.dirname(path)
        if os.path.isdir(path) and not os.path.islink(path):
            os.rename(path, tempfile.mkdtemp(prefix=f"{os.path.basename(path)}.replaced-", dir=os.path.join(directory, VERSIONS)))
        temporary = os.path.join(directory, f".{os.path.basename(path)}.new")
        if os.path.islink(temporary):
            os.unlink(temporary)
        os.symlink(target, temporary)
        os.replace(temporary, path)
        fsync_directory(directory)

    def remove_tree(self, path: str) -> None:
        """Remove a directory with everything in it."""
        shutil.rmtree(path, ignore_errors=True)

    def private_directory(self, parent: str) -> str:
        """Create a directory that only its owner can enter."""
        return tempfile.mkdtemp(prefix=".private-", dir=parent)

    def served(self, name: str, *, address: str, port: int) -> bytes | None:
        """Return the certificate (DER) that a server presents for a name, or None where none is presented."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with socket.create_connection((address, port), timeout=5) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
                return secure.getpeercert(binary_form=True)
        except OSError:
            return None


def parse_openssl(text: str) -> Certificate:
    """Read what `openssl x509` prints for -serial, -subject, -issuer, -dates and -ext subjectAltName."""
    fields: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and key in ("serial", "subject", "issuer", "notBefore", "notAfter"):
            fields[key] = value.strip()
        elif "DNS:" in line:
            names.extend(entry.strip()[len("DNS:") :] for entry in line.split(",") if entry.strip().startswith("DNS:"))
    return Certificate(
        serial=fields["serial"],
        subject=fields["subject"],
        issuer=fields["issuer"],
        names=tuple(names),
        not_before=ssl.cert_time_to_seconds(fields["notBefore"]),
        not_after=ssl.cert_time_to_seconds(fields["notAfter"]),
    )


def read_certificate(world: World, pem: bytes | None) -> Certificate | None:
    """Return the first certificate of a PEM file, or None where there is none that can be read."""
    if not pem:
        return None
    argv = ["openssl", "x509", "-noout", "-serial", "-subject", "-issuer", "-dates", "-ext", "subjectAltName"]
    result = world.run(argv, input=pem.decode("ascii", "replace"), timeout=20)
    if result.rc != 0:
        return None
    try:
        return parse_openssl(result.stdout)
    except (KeyError, ValueError):
        return None


def first_der(pem: bytes | None) -> bytes | None:
    """Return the first certificate of a PEM file as DER."""
    text = (pem or b"").decode("ascii", "replace")
    begin, end = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    if begin < 0 or end < begin:
        return None
    try:
        return ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")])
    except ValueError:
        return None


def pair_matches(world: World, fullchain: bytes, key: bytes) -> bool:
    """Tell whether a private key belongs to the first certificate of a chain."""
    of_certificate = world.run(["openssl", "x509", "-noout", "-pubkey"], input=fullchain.decode("ascii", "replace"), timeout=20)
    of_key = world.run(["openssl", "pkey", "-pubout"], input=key.decode("ascii", "replace"), timeout=20)
    return of_certificate.rc == 0 and of_key.rc == 0 and of_certificate.stdout.split() == of_key.stdout.split()


def installed_pair(world: World, directory: str, site: str) -> tuple[bytes | None, bytes | None]:
    """Return the chain and the key that a site's server reads."""
    fullchain, key = (world.read(f"{directory}/{site}/{name}") for name, _mode in PAIR)
    return fullchain, key


def install_pair(world: TlsWorld, directory: str, site: str, fullchain: bytes, key: bytes) -> bool:
    """Give a site's server another chain and key, both at once, and tell whether they are others than before.

    The pair is written to a directory of its own, and one link is turned: no crash leaves a chain beside a key of
    another one, with which the server would not start again.
    """
    if installed_pair(world, directory, site) == (fullchain, key):
        return False
    world.make_directory(directory, mode=0o755)
    versions = f"{directory}/{VERSIONS}"
    world.make_directory(versions, mode=0o755)
    version = f"{site}@{hashlib.sha256(fullchain + key).hexdigest()[:16]}"
    world.make_directory(f"{versions}/{version}", mode=0o755)
    for (name, mode), data in zip(PAIR, (fullchain, key)):
        world.write_atomic(f"{versions}/{version}/{name}", data, mode=mode)
    world.replace_link(f"{directory}/{site}", f"{VERSIONS}/{version}")
    for other in world.listdir(versions):
        if other.startswith(f"{site}@") and other != version:
            world.remove_tree(f"{versions}/{other}")
    return True


def make_bootstrap(world: TlsWorld, directory: str, names: t.Sequence[str]) -> tuple[bytes, bytes]:
    """Return a self-signed chain and key with which a server can start before an authority has been asked."""
    world.make_directory(directory, mode=0o755)
    private = world.private_directory(directory)
    try:
        config = "\n".join(
            [
                "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no",
                f"[dn]\nCN = {BOOTSTRAP_NAME}",
                "[v3]\nbasicConstraints = critical,CA:FALSE\nextendedKeyUsage = serverAuth",
                "subjectAltName = " + ",".join(f"DNS:{name}" for name in names),
                "",
            ]
        )
        world.write_atomic(f"{private}/req.cnf", config.encode(), mode=0o600)
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]
        argv += ["-days", str(BOOTSTRAP_DAYS), "-config", f"{private}/req.cnf"]
        argv += ["-keyout", f"{private}/key.pem", "-out", f"{private}/cert.pem"]
        result = world.run(argv, timeout=60)
        fullchain, key = world.read(f"{private}/cert.pem"), world.read(f"{private}/key.pem")
        if result.rc != 0 or not fullchain or not key:
            raise AnchorageError(
                f"openssl made no certificate for {names[0]}: {result.stderr.strip()[-300:]}",
                what="the self-signed certificate that a site starts with",
                live="unchanged",
            )
        return fullchain, key
    finally:
        world.remove_tree(private)


def probe_name(name: str) -> str:
    """Return a name to ask a server for: a wildcard stands for one of its members."""
    return f"anchorage-probe{name[1:]}" if name.startswith("*.") else name


def not_served(world: TlsWorld, wanted: bytes | None, names: t.Iterable[str], *, address: str, port: int) -> dict[str, bytes | None]:
    """Return the names for which something else than the wanted certificate (DER) is presented, with what is."""
    answers = {name: world.served(probe_name(name), address=address, port=port) for name in names}
    return {name: answer for name, answer in answers.items() if answer != wanted}


def is_active(world: World, unit: str) -> bool:
    """Tell whether a unit runs."""
    return world.run(["systemctl", "is-active", "--quiet", unit], timeout=30).rc == 0


def reload_nginx(world: World, *, unit: str = "nginx.service") -> None:
    """Let Nginx read its files again, after it has said that it can."""
    tested = world.run(["nginx", "-t", "-q"], timeout=60)
    if tested.rc != 0:
        raise AnchorageError(
            f"Nginx refuses its configuration: {tested.stderr.strip()[-500:]}",
            what="nginx -t before the reload",
            live="the certificate and the configuration that Nginx loaded last",
            next_step="Repair what nginx -t names, then run: systemctl reload nginx",
        )
    reloaded = world.run(["systemctl", "reload", unit], timeout=90)
    if reloaded.rc != 0:
        raise AnchorageError(
            f"systemctl reload {unit} failed: {reloaded.stderr.strip()[-300:]}",
            what="the reload of Nginx",
            live="the certificate that Nginx loaded last",
            next_step=f"journalctl -u {unit} -n 50",
        )


def await_served(world: TlsWorld, wanted: bytes | None, names: t.Sequence[str], *, address: str, port: int, seconds: float = 15) -> dict[str, bytes | None]:
    """Ask until every name is served with the wanted certificate (a reload takes effect later), and return those that are not."""
    deadline = world.monotonic() + seconds
    while True:
        others = not_served(world, wanted, names, address=address, port=port)
        if not others or world.monotonic() >= deadline:
            return others
        world.sleep(0.2)
