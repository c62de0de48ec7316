# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back to a release that served before: which one, and whether the tables still suit it."""

from __future__ import annotations

import typing as t
import urllib.parse

from . import catalog, redis_probe
from .app import App
from .database import Database, Marks
from .errors import AnchorageError
from .http_probe import ProbeError
from .release_plan import SERVICES


def target(app: App, wanted: str | None) -> str:
    """Return the release to go back to: the named one, or the one that was proven last before the live one and was not itself gone back from.

    Where the live release is one that was gone back to, that is it: a run that was cut off and is run again does not go back twice.

    :raises AnchorageError: when there is none that was proven and still lies on this host.
    """
    known = app.journal.data["releases"]
    good = _good(app)
    listed = f"Go back to one of: {', '.join(sorted(good)) or 'none is left'} (anchorage releases {app.name})."
    if wanted is not None:
        if wanted == app.journal.live:
            return wanted
        if wanted not in good:
            cause = "was never proven" if wanted in known and "proven_at" not in known[wanted] else "is not on this host"
            raise AnchorageError(f"Release {wanted} of {app.name} {cause}, so there is no way back to it.", live=app.living(), next_step=listed)
        return wanted
    if app.journal.live is not None and app.journal.back_from is not None:
        return app.journal.live
    earlier = _before(app, good)
    if earlier is None:
        raise AnchorageError(f"There is no earlier release of {app.name} to go back to.", live=app.living(), next_step=listed)
    return earlier


def _before(app: App, good: list[str]) -> str | None:
    known = app.journal.data["releases"]
    fresh = [name for name in good if "left_at" not in known[name]]
    return max(fresh, key=lambda name: t.cast(float, known[name]["proven_at"]), default=None)


def _good(app: App) -> list[str]:
    """Return the releases that were proven once, are not live, and still lie on this host."""
    known = app.journal.data["releases"]
    return [
        name
        for name, entry in known.items()
        if "proven_at" in entry and name != app.journal.live and app.world.exists(f"{app.layout.release(name)}/release.json")
    ]


def already_back(app: App) -> str:
    """Say that nothing is to be done because it was done, and how to go further back."""
    said = f"{app.name}: release {app.journal.live} is live already"
    if app.journal.back_from is None:
        return said
    earlier = _before(app, _good(app))
    return f"{said}, gone back to from {app.journal.back_from}; " + (f"to go further back, name {earlier}" if earlier else "there is no earlier one")


def obstacles(app: App, release: str) -> list[dict[str, t.Any]]:
    """Return the migrations since a release that its code may not be able to live with."""
    if not app.gated:
        return []
    since = Marks(t.cast(Database, app.database)).since(app.name, release)
    return [mark for mark in since if mark["verdict"] not in (catalog.NONE, catalog.EXPAND)]


def refuse(app: App, release: str, found: list[dict[str, t.Any]]) -> AnchorageError:
    """Return the refusal, with the three ways out and what each costs."""
    first = found[0]
    what = "; ".join(f"release {mark['id']}: {'; '.join(mark['findings'][:3]) or mark['verdict']}" for mark in found)
    point = next((entry for entry in app.journal.restore_points() if entry.get("migrated") == first["id"]), None)
    minutes = (app.world.now() - (point["at"] if point else first["at"])) / 60
    ways = [
        f"code only, if you know that the old code gets along: anchorage rollback {app.name} --to {release} --code-only",
        "a migration that undoes it, deployed as a new release",
        f"the data back to {point['path']}, which loses all that was written in the {minutes:.0f} minutes since"
        f" (the first way, then anchorage restore {app.name} --point {first['id']} --plan, which counts it)"
        if point
        else f"the data back from a backup taken before, which loses all that was written in the {minutes:.0f} minutes since",
    ]
    return AnchorageError(
        f"Release {release} of {app.name} cannot be trusted with the tables as they are: {what}.",
        what="rollback",
        live=app.living(),
        next_step="One of: " + " ".join(f"({number}) {way};" for number, way in enumerate(ways, start=1)).rstrip(";") + ".",
        ways=ways,
    )


def _check_ports(app: App, release: str) -> None:
    """Refuse where proxy and firewall were provisioned for other ports than the older release listens on."""

    def reached(found: App) -> list[t.Any]:
        public = [[process["name"], process["slots"]] for process in found.document["processes"] if process["public"]]
        return [found.document.get("listen_address"), public]

    if reached(app.at(release)) != reached(app.at(app.journal.live)):
        raise AnchorageError(
            f"Release {release} of {app.name} listens elsewhere than the proxy was told since.",
            what="rollback",
            live=app.living(),
            next_step="Set source.version to the older one and run site.yml: it brings that code on the present ports.",
        )


def _check_secrets(app: App, release: str) -> None:
    """Refuse a release whose credentials were taken away since, or that cannot read what was encrypted since."""
    old, now = app.at(release).document, app.document
    known = [*now.get("generated", {}), *(now.get("rotating") or {}).values()]
    # The login of a service that is managed elsewhere is not ours to know.
    services = [key for key in SERVICES.values() if not (now.get("database" if key == "database_url" else "redis") or {}).get("external")]

    def held(document: dict[str, t.Any]) -> dict[str, t.Any]:
        logins = {key: urllib.parse.urlsplit(document.get(key) or "").netloc.rpartition("@")[0] or None for key in services}
        return {**logins, **{key: (document.get("secrets_env") or {}).get(key) for key in known}}

    before, today = held(old), held(now)
    other = sorted(key for key, value in today.items() if before[key] not in (None, value))
    if other:
        raise AnchorageError(
            f"Release {release} of {app.name} was made before its secrets were rotated: it has another {' and '.join(other)} than is accepted now.",
            what="rollback",
            live=app.living(),
            next_step="Set source.version to the older one and run site.yml: it brings that code with today's secrets.",
        )


def _check_links(app: App, release: str) -> None:
    """Refuse a release that reaches Redis in plain text where it is not taken any more. Whether it is, Redis is asked."""
    old, now = app.at(release).document, app.document
    for key in ("redis_url", "redis_cache_url"):
        before = str(old.get(key) or "")
        if before.startswith("redis://") and str(now.get(key) or "").startswith("rediss://") and not _answers(before):
            raise AnchorageError(
                f"Release {release} of {app.name} reaches Redis in plain text, which Redis does not take from other hosts any more.",
                what="rollback",
                live=app.living(),
                next_step="Set source.version to the older one and run site.yml: it brings that code with TLS.",
            )


def _answers(url: str) -> bool:
    """Tell whether anybody listens at an address of Redis."""
    try:
        redis_probe.Connection(redis_probe.parse_url(url), 3.0).close()
    except ProbeError:
        return False
    return True


def plan(app: App, wanted: str | None = None, *, code_only: bool = False) -> dict[str, t.Any]:
    """Return what a rollback would do: C(release), C(needed), C(tree), C(source), C(live), C(migrations); C(note) where nothing is to be done.

    :raises AnchorageError: when there is nothing to go back to, or the tables stand in the way.
    """
    release = target(app, wanted)
    entry = app.journal.release(release)
    if release == app.journal.live:
        # Confirmed, but what it replaced may not be away yet: the step that does so is attached to, or done again where it died.
        same = {"app": app.name, "release": release, "tree": entry["tree"], "source": entry["source"], "live": release, "migrations": []}
        return {**same, "needed": app.unsettled, "note": already_back(app)}
    _check_ports(app, release)
    _check_secrets(app, release)
    _check_links(app, release)
    found = obstacles(app, release)
    if found and not code_only:
        raise refuse(app, release, found)
    return {
        "app": app.name,
        "release": release,
        "needed": True,
        "tree": entry["tree"],
        "source": entry["source"],
        "live": app.journal.live,
        "migrations": found,
    }
