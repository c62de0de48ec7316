# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy thinks of the backups of its app: a release may spoil data, and then only a backup that was proven helps."""

from __future__ import annotations

import typing as t

from . import backup_results, backup_settings
from .app import App, Log
from .backup_settings import DATABASE, DUMP, FILES, Settings
from .errors import AnchorageError

DAY = 86400.0
IGNORE, WARN, REFUSE = "ignore", "warn", "refuse"


def doubts(proof: t.Mapping[str, t.Any], now: float, max_age_days: float) -> str:
    """Return what speaks against a proof; nothing where it is good and young enough."""
    if not proof:
        return "no restore of it was ever proven"
    if proof.get("ok") is not True:
        return f"its last proof failed: {proof.get('cause') or 'no cause was told'}"
    days = (now - float(proof["finished"])) / DAY
    return f"its last proof is {days:.1f} days old, the limit is {max_age_days:g}" if days > max_age_days else ""


def job_of(settings: Settings, app: str) -> str | None:
    """Return the job that saves an app's database on this host; None where another host does."""
    methods = {database.method for database in settings.databases if database.app == app}
    return (FILES if DUMP in methods else DATABASE) if methods else None


def check(app: App, log: Log) -> None:
    """Warn of, or refuse, a release whose data no proven backup would bring back. What this host does not save is not its business.

    :raises AnchorageError: when deploys are to be refused then.
    """
    if not app.world.exists(backup_settings.SETTINGS):
        return
    settings = backup_settings.load(app.world)
    what, job = settings.proof.get("deploys", WARN), job_of(settings, app.name)
    # Before the first release there is nothing to lose, and nothing that could have been proven.
    if job is None or what == IGNORE or app.journal.live is None:
        return
    doubt = doubts(backup_results.read(app.world, job).get("proof") or {}, app.world.now(), float(settings.proof["max_age_days"]))
    if not doubt:
        return
    if what == REFUSE:
        raise AnchorageError(
            f"The backup of {app.name}'s database cannot be relied on, so nothing is deployed: {doubt}.",
            what="the proof of the backup",
            next_step=f"On this host: anchorage backup run {job}, then anchorage backup prove {job}; then deploy.yml again. Or set backup_proof_deploys: warn.",
        )
    log.say(f"{app.name}: WARNING: its backup cannot be relied on: {doubt} (anchorage backup prove {job})")
