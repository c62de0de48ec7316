# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give every site a certificate before its server needs one: a given pair, or a self-signed stand-in."""

from __future__ import annotations

import typing as t

from .certificates import (
    Certificate,
    TlsWorld,
    await_served,
    first_der,
    install_pair,
    installed_pair,
    is_active,
    make_bootstrap,
    not_served,
    pair_matches,
    read_certificate,
    reload_nginx,
)
from .errors import AnchorageError

Site = t.Mapping[str, t.Any]


def bootstrap_reason(certificate: Certificate | None, domains: t.Sequence[str], now: float) -> str | None:
    """Return why a site needs a new stand-in, or None where it does not: a real certificate is never touched."""
    if certificate is None:
        return "no certificate yet"
    if not certificate.is_bootstrap():
        return None
    if not certificate.covers(domains):
        return "other names"
    return "expires soon" if certificate.is_overdue(now) else None


def given_pair(world: TlsWorld, site: Site) -> tuple[bytes, bytes]:
    """Return a given chain and key, which must belong together."""
    fullchain, key = (f"{site[part].strip()}\n".encode() for part in ("certificate", "key"))
    if not pair_matches(world, fullchain, key):
        raise AnchorageError(
            f"nginx_sites[{site['site']}].tls.key is not the key of tls.certificate, or one of them cannot be read",
            what="the given certificate",
            live="the certificate that was there before",
            next_step="Give the chain with the site's own certificate first, and the key made for it.",
        )
    return fullchain, key


def change_of(world: TlsWorld, site: Site, directory: str) -> str | None:
    """Return what is to be done for a site, or None where nothing is."""
    present = installed_pair(world, directory, site["site"])
    if site["mode"] == "files":
        return None if present == given_pair(world, site) else "given pair"
    certificate = read_certificate(world, present[0]) if present[1] else None
    return bootstrap_reason(certificate, site["domains"], world.now())


def install(world: TlsWorld, site: Site, directory: str) -> None:
    """Put a site's certificate where its server reads it."""
    if site["mode"] == "files":
        pair = given_pair(world, site)
    else:
        pair = make_bootstrap(world, directory, site["domains"])
    install_pair(world, directory, site["site"], *pair)


def unloaded(world: TlsWorld, site: Site, directory: str, sites_directory: str, port: int) -> bool:
    """Tell whether a running server of this site still presents another certificate than the one on the disk."""
    if not world.exists(f"{sites_directory}/{site['site']}.conf"):
        return False
    wanted = first_der(installed_pair(world, directory, site["site"])[0])
    others = not_served(world, wanted, site["domains"][:1], address="127.0.0.1", port=port)
    return any(answer is not None for answer in others.values())


def converge(world: TlsWorld, sites: t.Sequence[Site], *, directory: str, sites_directory: str, port: int, check: bool) -> dict[str, t.Any]:
    """Bring the certificates of all sites into their state and return what that took."""
    if world.run(["openssl", "version"], timeout=20).rc != 0:
        note = "not predicted: openssl is not installed yet"
        names = [site["site"] for site in sites]
        return {"changed": bool(sites), "changes": [], "missing": bool(sites), "absent": names, "notes": [note] if sites else []}
    changes = {site["site"]: change_of(world, site, directory) for site in sites}
    due = [site for site in sites if changes[site["site"]]]
    if not check:
        for site in due:
            install(world, site, directory)
    stale = [site for site in sites if unloaded(world, site, directory, sites_directory, port)]
    if stale and not check and is_active(world, "nginx.service"):
        reload_nginx(world)
        for site in stale:
            wanted = first_der(installed_pair(world, directory, site["site"])[0])
            await_served(world, wanted, site["domains"][:1], address="127.0.0.1", port=port)
    listed = [{"site": site["site"], "change": changes[site["site"]]} for site in due]
    listed += [{"site": site["site"], "change": "served another certificate"} for site in stale]
    absent = [site["site"] for site in sites if not all(installed_pair(world, directory, site["site"]))]
    notes = [f"nginx -t is not predicted: check mode makes no certificate for {', '.join(absent)}"] if absent else []
    return {"changed": bool(listed), "changes": listed, "missing": False, "absent": absent, "notes": notes}
