# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore is to bring back, and from where: a wish, and the backup that fulfils it. Nothing here touches anything."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

from .errors import AnchorageError

#: What is restored: one database of a cluster that lives, the cluster itself, or uploads and Redis.
DATABASE, CLUSTER, FILES = "database", "cluster", "files"
KINDS = (DATABASE, CLUSTER, FILES)

#: How the moment is named.
LATEST, TIME, POINT, BACKUP = "latest", "time", "point", "backup"
MANNERS = (LATEST, TIME, POINT, BACKUP)

#: How far a restore goes: say what would be done, refuse what would cost data, or do it.
PLAN, ASK, GO = "plan", "ask", "go"

#: Of a recovery whose time lies behind everything that was archived.
NOT_REACHED = "recovery ended before configured recovery target was reached"

#: The longest name that PostgreSQL keeps whole, in bytes.
LONGEST_NAME = 63

Data = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Wish:
    """What somebody wants back.

    :arg what: one of KINDS.
    :arg app: the app, or the name of one of the databases; None for everything of its kind.
    :arg how: one of MANNERS.
    :arg value: the time (ISO 8601, UTC), the release, or the backup.
    :arg target: the place that keeps the backup; the first that has it where none is named.
    """

    what: str
    app: str | None = None
    how: str = LATEST
    value: str | None = None
    target: str | None = None

    def as_dict(self) -> Data:
        """Return it as plain data."""
        return dataclasses.asdict(self)

    @property
    def moment(self) -> datetime.datetime | None:
        """The time that is wanted."""
        return datetime.datetime.fromisoformat(t.cast(str, self.value)) if self.how == TIME else None

    def __str__(self) -> str:
        subject = {DATABASE: f"the database of {self.app}", CLUSTER: "the whole cluster", FILES: f"uploads and Redis of {self.app or 'all apps'}"}[self.what]
        when = {
            LATEST: "as new as the backup has it",
            TIME: f"as it was at {self.value}",
            POINT: f"as it was before the migration to release {self.value}",
            BACKUP: f"from the backup {self.value}",
        }[self.how]
        return f"{subject}, {when}"

    def command(self) -> str:
        """Return how it is said on the host."""
        words = ["anchorage", "restore", *([self.app] if self.app else [])]
        words += [f"--{self.what}"] if self.what != DATABASE else []
        words += [f"--{self.how}"] if self.how == LATEST else [f"--{self.how}", f"'{self.value}'" if self.how == TIME else str(self.value)]
        return " ".join([*words, *(["--target", self.target] if self.target else [])])


class Chosen(t.NamedTuple):
    """The backup that fulfils a wish.

    :arg source: C(archive) (pgBackRest), C(snapshot) (restic), or C(point) (a dump on this host).
    :arg target: the place that keeps it; empty for a dump on this host.
    :arg backup: label, id of the snapshot, or path.
    :arg at: which moment it holds, in seconds since the epoch; None where only the recovery will tell.
    """

    source: str
    target: str
    backup: str
    at: float | None
    bytes: int = 0

    def __str__(self) -> str:
        return {
            "archive": f"pgBackRest's backup {self.backup} at {self.target}",
            "snapshot": f"restic's snapshot {self.backup[:8]} at {self.target}",
            "point": f"the restore point {self.backup}",
        }[self.source]


def read_time(text: str, now: float, local: datetime.tzinfo | None = None) -> str:
    """Return a time that a person wrote, in UTC.

    :arg now: seconds since the epoch.
    :arg local: the time zone of a time that names none; without it that of this machine.
    :raises AnchorageError: when nobody can tell which moment is meant, or it has not come yet.
    """
    tidy = re.sub(r"([+-]\d\d)$", r"\1:00", re.sub(r"\s*(?:Z|UTC)$", "+00:00", text.strip()))
    tidy = re.sub(r"\s+([+-]\d\d:)", r"\1", tidy)
    # Python before 3.11 wants three digits behind the point, or six.
    tidy = re.sub(r"\.(\d+)", lambda found: f".{found[1][:6]:0<6}", tidy)
    try:
        moment = datetime.datetime.fromisoformat(tidy)
    except ValueError as error:
        raise AnchorageError(
            f"'{text}' is no time that could be understood.",
            next_step="Write it as 2026-11-20 19:12:27, with +01:00 or Z where it is not this host's own time.",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=local) if local else moment.astimezone()
    if moment.timestamp() > now:
        raise AnchorageError(f"{text} has not come yet.", next_step="Name a time that is over, or take --latest.")
    return moment.astimezone(datetime.timezone.utc).isoformat()


def stamp(seconds: float) -> str:
    """Return a moment as it stands in the names of what is set aside."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def told(seconds: float | None) -> str:
    """Return a moment for people."""
    return (
        "a moment that only the recovery tells"
        if seconds is None
        else f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    )


def ago(seconds: float) -> str:
    """Return a span of time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def named(name: str, word: str, when: str = "") -> str:
    """Return the name of a database's relative: what is made beside it, or what is set aside."""
    tail = f"_{word}{f'_{when.lower()}' if when else ''}"
    return name.encode()[: LONGEST_NAME - len(tail)].decode("utf-8", "ignore") + tail


# ---- which backup ----------------------------------------------------------------------------------------------------


def from_archive(found: t.Mapping[str, Data | AnchorageError], wish: Wish) -> Chosen:
    """Return the backup of pgBackRest that fulfils a wish, at the first target that has one.

    :arg found: by target, what C(pgbackrest info) says of the stanza, or why it says nothing.
    :raises AnchorageError: when no target has it, with what each has.
    """
    reasons = []
    for target, info in found.items():
        if isinstance(info, AnchorageError):
            reasons.append(f"{target}: {info.message}")
            continue
        good = [entry for entry in info.get("backup", []) if not entry.get("error")]
        fits = [entry for entry in good if _fits(entry, wish)]
        if fits:
            newest = max(fits, key=lambda entry: entry["timestamp"]["stop"])
            at = {TIME: wish.moment and wish.moment.timestamp(), BACKUP: float(newest["timestamp"]["stop"])}.get(wish.how)
            return Chosen("archive", target, newest["label"], at, int(newest.get("info", {}).get("size", 0)))
        listed = ", ".join(f"{entry['label']} (from {told(entry['timestamp']['stop'])} on)" for entry in good[-5:]) or "none"
        reasons.append(f"{target} has: {listed}")
    raise _nothing(wish, reasons)


def _fits(entry: Data, wish: Wish) -> bool:
    if wish.how == TIME:
        # Before its end a backup is not consistent, so only what came after it can be reached.
        return float(entry["timestamp"]["stop"]) <= t.cast("datetime.datetime", wish.moment).timestamp()
    return wish.how == LATEST or (wish.how == BACKUP and entry["label"] == wish.value)


def from_snapshots(found: t.Mapping[str, list[Data] | AnchorageError], wish: Wish, host: str) -> Chosen:
    """Return the snapshot of restic that fulfils a wish, at the first target that has one.

    :arg found: by target, what C(restic snapshots --json) says, or why it says nothing.
    :arg host: the name of this host; where it has no snapshots of its own, those of the one host that has are taken, which it then stands in for.
    """
    reasons = []
    for target, entries in found.items():
        if isinstance(entries, AnchorageError):
            reasons.append(f"{target}: {entries.message}")
            continue
        mine = _of_one_host(entries, host, target)
        fits = [entry for entry in mine if _is_meant(entry, wish)]
        if fits:
            newest = max(fits, key=lambda entry: read_snapshot_time(entry["time"]))
            return Chosen("snapshot", target, newest["id"], read_snapshot_time(newest["time"]), int(newest.get("summary", {}).get("total_bytes_processed", 0)))
        listed = ", ".join(f"{entry['id'][:8]} of {told(read_snapshot_time(entry['time']))}" for entry in mine[-5:]) or "none"
        reasons.append(f"{target} has: {listed}")
    raise _nothing(wish, reasons)


def _of_one_host(entries: list[Data], host: str, target: str) -> list[Data]:
    hosts = sorted({entry.get("hostname", "") for entry in entries})
    if host in hosts or not hosts:
        return [entry for entry in entries if entry.get("hostname") == host]
    if len(hosts) > 1:
        raise AnchorageError(
            f"The target {target} keeps backups of {', '.join(hosts)}, and none of {host}.",
            next_step="Give this host the name of the one that it stands in for (hostnamectl hostname NAME), then run again.",
        )
    return list(entries)


def _is_meant(entry: Data, wish: Wish) -> bool:
    if wish.how == BACKUP:
        return bool(wish.value) and entry["id"].startswith(t.cast(str, wish.value))
    moment = wish.moment
    return moment is None or read_snapshot_time(entry["time"]) <= moment.timestamp()


def read_snapshot_time(text: str) -> float:
    """Return the time of a snapshot, which restic writes with nanoseconds, in seconds since the epoch."""
    found = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if found is None:
        raise AnchorageError(f"restic wrote a time that cannot be read: {text!r}.")
    zone = "+00:00" if found[3] == "Z" else found[3]
    return datetime.datetime.fromisoformat(found[1] + zone).timestamp() + float(f"0.{found[2] or 0}")


def from_points(points: t.Sequence[Data], wish: Wish) -> Chosen:
    """Return the restore point of a release: the newest dump that was taken before its migration."""
    fits = [point for point in points if wish.value and (point["release"].startswith(wish.value) or point["path"] == wish.value)]
    if not fits:
        listed = ", ".join(f"{point['release']} (of {told(point['at'])})" for point in points[-8:]) or "none"
        raise _nothing(wish, [f"this host has: {listed}"])
    newest = max(fits, key=lambda point: point["at"])
    return Chosen("point", "", newest["path"], float(newest["at"]), int(newest.get("bytes", 0)))


def _nothing(wish: Wish, reasons: t.Sequence[str]) -> AnchorageError:
    return AnchorageError(
        f"No backup gives {wish}: {'; '.join(reasons) or 'no target is asked'}.",
        what="choosing the backup",
        next_step="Name one that is there: anchorage backup list says what there is.",
    )


def chosen_databases(wish: Wish, databases: t.Sequence[t.Any]) -> list[t.Any]:
    """Return the databases that a wish is about: those of the app, or the one of that name.

    :arg databases: those of the settings.
    :raises AnchorageError: when there is none.
    """
    fits = [database for database in databases if wish.app in (database.app, database.name)]
    if not fits or not wish.app:
        names = ", ".join(sorted({database.app or database.name for database in databases})) or "none"
        raise AnchorageError(
            f"{f'There is no database of {wish.app!r}' if wish.app else 'It was not said whose database'} in the backup; there is: {names}.",
            next_step="Name one of these.",
        )
    return fits


# ---- what a plan says ------------------------------------------------------------------------------------------------


def losses(found: t.Sequence[Data]) -> list[str]:
    """Return what is lost, table by table, the worst first.

    :arg found: by table, the rows that only the present data has (C(only_live)), that differ (C(changed)) and that come back (C(only_restored)).
    """
    lines = []
    for row in sorted(found, key=lambda row: (-row["only_live"] - row["changed"], row["table"])):
        about = "about " if row.get("approximate") else ""
        parts = [
            f"{about}{row['only_live']} rows that only the present data has are lost" if row["only_live"] else "",
            f"{about}{row['changed']} rows go back to what they were" if row["changed"] else "",
            f"{about}{row['only_restored']} rows come back" if row["only_restored"] else "",
        ]
        table = {"gone": " (a table that is missing now)", "new": " (a table that the backup does not have)"}.get(row.get("state", ""), "")
        lines.append(f"{row['table']}{table}: {', '.join(part for part in parts if part) or 'its columns differ, its rows do not'}")
    return lines


def lost_rows(found: t.Sequence[Data]) -> int:
    """Return how many rows of the present data will not be as they are."""
    return sum(row["only_live"] + row["changed"] for row in found)
