# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of an ACME authority: which are missing, how certbot is asked for them, and whether they are really served."""

from __future__ import annotations

import json
import os
import posixpath
import typing as t

from .certificates import (
    Certificate,
    TlsWorld,
    await_served,
    first_der,
    install_pair,
    installed_pair,
    not_served,
    pair_matches,
    read_certificate,
    reload_nginx,
)
from .errors import AnchorageError
from .nginx import DOMAIN, SITE_NAME, matched, refuse
from .world import World

LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETSENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
AUTHENTICATORS = {"webroot": "webroot", "dns": "manual"}
SETTINGS_FILE = "/etc/letsencrypt/anchorage.json"
ISSUE_SECONDS = 600

Data = dict[str, t.Any]


class Settings(t.NamedTuple):
    """How certificates are asked for and where they are served."""

    server: str = LETSENCRYPT
    email: str = ""
    ca_file: str = ""
    webroot: str = "/var/www/acme"
    key_type: str = "ecdsa"
    dns_auth_hook: str = ""
    dns_cleanup_hook: str = ""
    config_directory: str = "/etc/letsencrypt"
    tls_directory: str = "/etc/nginx/tls"
    address: str = "127.0.0.1"
    port: int = 443


class Wanted(t.NamedTuple):
    """One certificate that must exist."""

    name: str
    domains: tuple[str, ...]
    method: str = "webroot"
    required: bool = True


class Found(t.NamedTuple):
    """What lies on the host for one certificate."""

    certificate: Certificate | None
    server: str = ""
    authenticator: str = ""


def resolve_certificates(certificates: t.Sequence[t.Mapping[str, t.Any]], *, dns_auth_hook: str = "") -> list[Data]:
    """Return the wanted certificates with defaults filled in, or refuse one by key and rule."""
    resolved: list[Data] = []
    for index, given in enumerate(certificates):
        name = matched(f"certbot_certificates[{index}].name", given.get("name"), SITE_NAME, "must be lower-case letters, digits, - and _")
        key = f"certbot_certificates[{name}]"
        unknown = sorted(set(given) - {"name", "domains", "method", "required"})
        if unknown:
            refuse(f"{key}.{unknown[0]}", "is unknown")
        if name in [other["name"] for other in resolved]:
            refuse(f"{key}.name", "is used by two certificates")
        domains = list(dict.fromkeys(given.get("domains") or []))
        if not domains:
            refuse(f"{key}.domains", "must name at least one domain")
        for position, domain in enumerate(domains):
            matched(f"{key}.domains[{position}]", domain, DOMAIN, "must be a lower-case domain name")
        method = given.get("method") or "webroot"
        if method not in AUTHENTICATORS:
            refuse(f"{key}.method", "must be one of dns, webroot")
        wildcards = [domain for domain in domains if domain.startswith("*.")]
        if wildcards and method != "dns":
            refuse(f"{key}.method", f"must be dns, because authorities issue a wildcard ({wildcards[0]}) only over DNS")
        if method == "dns" and not dns_auth_hook:
            refuse("certbot_dns_auth_hook", f"is required by {key}, whose method is dns")
        required = given.get("required", True)
        if not isinstance(required, bool):
            refuse(f"{key}.required", "must be true or false")
        resolved.append({"name": name, "domains": domains, "method": method, **({} if required else {"required": False})})
    return resolved


def wanted_from(data: t.Iterable[t.Mapping[str, t.Any]]) -> list[Wanted]:
    """Return wanted certificates from plain data."""
    return [Wanted(item["name"], tuple(item["domains"]), item.get("method") or "webroot", item.get("required") is not False) for item in data]


def parse_renewal(text: str) -> dict[str, str]:
    """Return the plain settings of a renewal configuration, whatever section they stand in."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith(("#", "[")))
    return {key.strip(): value.strip() for key, _separator, value in pairs}


def lineage_paths(settings: Settings, name: str) -> tuple[str, str]:
    """Return chain and key of a lineage."""
    live = posixpath.join(settings.config_directory, "live", name)
    return f"{live}/fullchain.pem", f"{live}/privkey.pem"


def find(world: World, settings: Settings, name: str) -> Found:
    """Return what lies on the host for one certificate."""
    renewal = world.read(posixpath.join(settings.config_directory, "renewal", f"{name}.conf"))
    if renewal is None:
        return Found(None)
    known = parse_renewal(renewal.decode("utf-8", "replace"))
    certificate = read_certificate(world, world.read(lineage_paths(settings, name)[0]))
    return Found(certificate, known.get("server", ""), known.get("authenticator", ""))


def reason_to_issue(wanted: Wanted, found: Found, settings: Settings, now: float) -> str | None:
    """Return why a certificate must be issued, or None where the present one is right."""
    if found.certificate is None:
        return "there is none yet"
    if not found.certificate.covers(wanted.domains):
        return "its names differ"
    if found.server != settings.server:
        return "another authority issued it"
    if found.authenticator != AUTHENTICATORS[wanted.method]:
        return "the method of its renewal differs"
    if found.certificate.is_overdue(now):
        return "its renewal is overdue"
    return None


def certonly(wanted: Wanted, settings: Settings, *, rehearse: bool = False, force: bool = False) -> list[str]:
    """Return the command that asks for a certificate."""
    argv = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--config-dir", settings.config_directory]
    argv += ["-m", settings.email] if settings.email else ["--register-unsafely-without-email"]
    argv += ["--server", settings.server, "--cert-name", wanted.name, "--key-type", settings.key_type]
    argv += ["--renew-with-new-domains", "--force-renewal" if force else "--keep-until-expiring"]
    if rehearse:
        argv.append("--dry-run")
    if wanted.method == "webroot":
        argv += ["--webroot", "--webroot-path", settings.webroot]
    else:
        argv += ["--manual", "--preferred-challenges", "dns", "--manual-auth-hook", settings.dns_auth_hook]
        argv += ["--manual-cleanup-hook", settings.dns_cleanup_hook] if settings.dns_cleanup_hook else []
    for domain in wanted.domains:
        argv += ["-d", domain]
    return argv


def cause(output: str) -> str:
    """Return the sentences in which certbot says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = []
    domain = ""
    for line in lines:
        if line.startswith(("Domain:", "Identifier:")):
            domain = line.partition(":")[2].strip()
        elif line.startswith("Detail:"):
            found.append(f"{domain}: {line.partition(':')[2].strip()}")
    if found:
        return "; ".join(found)
    for index, line in enumerate(lines):
        if line.startswith("An unexpected error occurred"):
            return " ".join(lines[index + 1 : index + 3])[:600]
    noise = ("Ask for help", "Saving debug log", "Some challenges have failed")
    kept = [line for line in lines if not line.startswith(noise)]
    return " ".join(kept[-3:])[:600] or "certbot gave no reason"


def environment(settings: Settings, base: t.Mapping[str, str]) -> dict[str, str]:
    """Return the environment for certbot; a private authority is trusted there and nowhere else."""
    own = {"REQUESTS_CA_BUNDLE": settings.ca_file} if settings.ca_file else {}
    return {**base, "LC_ALL": "C.UTF-8", **own}


def what_is_live(world: TlsWorld, settings: Settings, name: str) -> str:
    """Return one sentence about the certificate that a site's server has."""
    certificate = read_certificate(world, installed_pair(world, settings.tls_directory, name)[0])
    if certificate is None:
        return f"no certificate for {name}"
    if certificate.is_bootstrap():
        return f"the self-signed bootstrap certificate of {name}"
    return f"the certificate {certificate.serial} of {name}, {certificate.days_left(world.now()):g} days left"


#: An authority may refuse a nonce for no fault of the client, which should ask again (RFC 8555, 6.5); certbot does so once only.
STALE_NONCE = "anti-replay nonce"


def issue(world: TlsWorld, wanted: Wanted, settings: Settings, reason: str, *, first: bool) -> None:
    """Ask the authority for one certificate, or say why it gave none."""
    commands = [certonly(wanted, settings, force=not first)]
    if first and settings.server == LETSENCRYPT:
        # Five failures an hour exhaust the authority's patience: its staging twin is asked first.
        commands.insert(0, certonly(wanted, settings, rehearse=True))
    for argv in commands:
        result = world.run(argv, env=environment(settings, dict(os.environ)), timeout=ISSUE_SECONDS)
        if result.rc != 0 and STALE_NONCE in result.stdout + result.stderr:
            result = world.run(argv, env=environment(settings, dict(os.environ)), timeout=ISSUE_SECONDS)
        if result.rc != 0:
            reply = cause(result.stdout + "\n" + result.stderr)
            raise AnchorageError(
                f"No certificate for {wanted.name} ({', '.join(wanted.domains)}): {reply}",
                what=f"certbot certonly ({reason})",
                live=what_is_live(world, settings, wanted.name),
                next_step="See /var/log/letsencrypt/letsencrypt.log; once the cause is gone, run the play again.",
            )


def is_deployed(world: TlsWorld, wanted: Wanted, settings: Settings) -> bool:
    """Tell whether a lineage is what the server's files hold and what the server presents."""
    fullchain, key = (world.read(path) for path in lineage_paths(settings, wanted.name))
    if installed_pair(world, settings.tls_directory, wanted.name) != (fullchain, key):
        return False
    return not not_served(world, first_der(fullchain), wanted.domains, address=settings.address, port=settings.port)


def deploy(world: TlsWorld, wanted: Wanted, settings: Settings) -> None:
    """Copy a lineage to where Nginx reads it, reload, and prove that it is presented for every name."""
    fullchain, key = (world.read(path) for path in lineage_paths(settings, wanted.name))
    if not fullchain or not key or not pair_matches(world, fullchain, key):
        raise AnchorageError(
            f"The lineage {wanted.name} has no chain and key that belong together",
            what="the deploy hook",
            live=what_is_live(world, settings, wanted.name),
            next_step=f"certbot certificates --cert-name {wanted.name}",
        )
    install_pair(world, settings.tls_directory, wanted.name, fullchain, key)
    reload_nginx(world)
    others = await_served(world, first_der(fullchain), wanted.domains, address=settings.address, port=settings.port)
    if others:
        name, answer = sorted(others.items())[0]
        seen = "nothing answers" if answer is None else "another certificate is presented"
        raise AnchorageError(
            f"The certificate of {wanted.name} lies in {settings.tls_directory} but is not served: for {name} {seen}",
            what="the proof after the reload of Nginx",
            live=what_is_live(world, settings, wanted.name),
            next_step="nginx -T | grep -A3 server_name; systemctl status nginx",
        )


def problems(world: TlsWorld, wanted: Wanted, settings: Settings) -> list[str]:
    """Return what is wrong with one certificate on this host; nothing where all is well."""
    found = find(world, settings, wanted.name)
    if found.certificate is None:
        return [f"{wanted.name}: has not been issued yet; live is {what_is_live(world, settings, wanted.name)}"]
    result = []
    if found.certificate.is_overdue(world.now()):
        left = found.certificate.days_left(world.now())
        result.append(f"{wanted.name}: {left:g} days left, its renewal is overdue")
    fullchain = world.read(lineage_paths(settings, wanted.name)[0])
    if installed_pair(world, settings.tls_directory, wanted.name)[0] != fullchain:
        result.append(f"{wanted.name}: {settings.tls_directory}/{wanted.name} holds another certificate than its lineage")
    others = not_served(world, first_der(fullchain), wanted.domains, address=settings.address, port=settings.port)
    for name, answer in sorted(others.items()):
        seen = "nothing answers" if answer is None else "another certificate than the one on the disk is served"
        result.append(f"{wanted.name}: {seen} for {name} (serial on the disk: {found.certificate.serial})")
    return result


def describe(world: TlsWorld, wanted: Wanted, settings: Settings, action: str | None) -> Data:
    """Return the evidence about one certificate."""
    found = find(world, settings, wanted.name)
    if found.certificate is None:
        return {"name": wanted.name, "domains": list(wanted.domains), "action": action}
    return {
        "name": wanted.name,
        "domains": list(found.certificate.names),
        "serial": found.certificate.serial,
        "issuer": found.certificate.issuer,
        "days_left": found.certificate.days_left(world.now()),
        "action": action,
    }


def converge(world: TlsWorld, wanted: t.Sequence[Wanted], settings: Settings, *, check: bool) -> Data:
    """Issue what is missing, deploy what is not served, and return what that took."""
    if world.run(["certbot", "--version"], timeout=60).rc == 127:
        note = "not predicted: certbot is not installed yet"
        return {"changed": bool(wanted), "certificates": [], "notes": [note] if wanted else []}
    actions: dict[str, str | None] = {}
    errors: list[AnchorageError] = []
    warnings: list[str] = []
    for certificate in wanted:
        found = find(world, settings, certificate.name)
        reason = reason_to_issue(certificate, found, settings, world.now())
        try:
            if reason and not check:
                issue(world, certificate, settings, reason, first=found.certificate is None)
            if reason or not is_deployed(world, certificate, settings):
                actions[certificate.name] = f"issue: {reason}" if reason else "deploy: it was not served"
                if not check:
                    deploy(world, certificate, settings)
        except AnchorageError as error:
            if certificate.required:
                errors.append(error)
            else:
                warnings.append(error.text())
    if errors:
        raise AnchorageError(
            " ".join(error.message for error in errors),
            what="; ".join(dict.fromkeys(error.what or "" for error in errors)),
            live="; ".join(dict.fromkeys(error.live or "" for error in errors)),
            next_step=errors[0].next_step,
        )
    return {
        "changed": bool(actions),
        "certificates": [describe(world, certificate, settings, actions.get(certificate.name)) for certificate in wanted],
        "notes": [],
        "warned": warnings,
    }


def settle(world: TlsWorld, wanted: t.Sequence[Wanted], settings: Settings) -> list[str]:
    """Deploy again what is not served (a hook that failed is not reported by certbot), and return what is still wrong."""
    result = []
    for certificate in wanted:
        found = find(world, settings, certificate.name)
        if found.certificate and not is_deployed(world, certificate, settings):
            try:
                deploy(world, certificate, settings)
            except AnchorageError as error:
                result.append(error.text())
        result += problems(world, certificate, settings)
    return result


def load_settings(world: World, path: str) -> tuple[Settings, list[Wanted]]:
    """Return what the role left on the host for hooks and timers."""
    data = json.loads((world.read(path) or b"{}").decode())
    known = {key: value for key, value in data.get("settings", {}).items() if key in Settings._fields}
    return Settings(**known), wanted_from(data.get("certificates", []))


def main(argv: t.Sequence[str], environ: t.Mapping[str, str], world: TlsWorld, say: t.Callable[[str], None]) -> int:
    """Run a hook or a check on the host: `deploy` (certbot names the lineage), `settle` or `check`."""
    settings, wanted = load_settings(world, environ.get("ANCHORAGE_CERTBOT_SETTINGS", SETTINGS_FILE))
    command = argv[0] if len(argv) == 1 else ""
    if command == "deploy":
        name = posixpath.basename(environ.get("RENEWED_LINEAGE", "").rstrip("/"))
        try:
            for certificate in wanted:
                if certificate.name == name:
                    deploy(world, certificate, settings)
        except AnchorageError as error:
            say(error.text())
            return 1
        return 0
    if command not in ("settle", "check"):
        say("usage: certificates deploy|settle|check")
        return 2
    if command == "settle":
        wrong = settle(world, wanted, settings)
    else:
        wrong = [line for certificate in wanted for line in problems(world, certificate, settings)]
    for line in wrong:
        say(line)
    return 1 if wrong else 0
