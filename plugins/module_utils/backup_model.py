# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user says of backups to the document that lies on the host, and to pgBackRest's configuration. Wrong input is refused by its key."""

from __future__ import annotations

import ipaddress
import re
import typing as t
import urllib.parse

from .backup_keys import Ring, is_acceptable
from .backup_settings import APART, ARCHIVE, DATABASE, DUMP, FILES, JOBS, LOCAL, S3, SCHEMA, SSH, Settings, pgbackrest_configuration, wal_file
from .errors import AnchorageError

#: Nothing of a run that is under way, no dump of a migration, nothing that is made again, and not the key that all of it is encrypted with.
EXCLUDES = (
    "/etc/anchorage/secrets/backup.json",
    "/etc/anchorage/backup.json",
    "/etc/anchorage/backup_ssh",
    "/var/lib/anchorage/backup/lock-*",
    "/var/lib/anchorage/backup/scratch*",
    "/var/lib/anchorage/backup/restore*",
    "/var/lib/anchorage/*/restore",
    "/var/lib/anchorage/*/reserve*",
)

#: A file with the key, for the user who runs pgBackRest.
PRIVATE = {"group": "postgres", "mode": "0640", "secret": True}

UNKNOWN_KEY = "unknown-until-first-run"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_NEEDED = {LOCAL: ("path",), S3: ("endpoint", "bucket", "access_key", "secret_key"), SSH: ("host", "user", "known_hosts")}

Data = dict[str, t.Any]


def model(options: Data) -> Data:
    """Return C(document), C(pgbackrest) (empty where no cluster is archived), C(wal_targets), C(wal_files), C(jobs), C(directories) and C(away).

    :arg options: the role's inputs without their prefix, and C(kept_key), the key that the host keeps, and C(kept), all that it keeps with it.
    :raises AnchorageError: with every key that is wrong.
    """
    wrong: list[str] = []
    targets = _targets(options.get("targets") or [], wrong)
    archive = _archive(options, wrong)
    databases = _databases(options, archive, wrong)
    for key in ("retention_days", "full_days", "wal_max_mb", "proof_max_age_days"):
        if int(options[key]) < 1:
            wrong.append(f"backup_{key} is {options[key]}, it must be at least 1")
    key = str(options.get("key") or options.get("kept_key") or UNKNOWN_KEY)
    if options.get("key") and not is_acceptable(key):
        wrong.append("backup_key needs at least 32 printable characters without blanks")
    for index, path in enumerate(options.get("paths") or []):
        if not str(path).startswith("/"):
            wrong.append(f"backup_paths[{index}] '{path}' is not absolute")
    if options.get("apart") and not any(APART in target["jobs"] for target in targets):
        wrong.append(f"no target of backup_targets has the job {APART}, which saves {', '.join(entry['name'] for entry in options['apart'])}")
    ring = Ring.parse({**(options.get("kept") or {}), "key": key})
    names = [target["name"] for target in targets]
    wrong += [
        f"the name of a target, '{one.name(name)}', is taken by what a former key made" for one in ring.former for name in names if one.name(name) in names
    ]
    if wrong:
        raise AnchorageError(
            f"{'; '.join(wrong)}.", live="unchanged: nothing was touched", next_step="Correct these variables in the inventory, then run again."
        )
    document: Data = {
        "schema": SCHEMA,
        "targets": targets,
        "archive": archive,
        "databases": databases,
        "apart": [{"name": entry["name"], "directory": entry["directory"]} for entry in options.get("apart") or []],
        "redis": [{"name": entry["name"], "app": entry.get("app") or ""} for entry in options.get("redis") or []],
        "paths": list(options.get("paths") or []),
        "excludes": [*EXCLUDES, *(options.get("excludes") or [])],
        "retention_days": int(options["retention_days"]),
        "full_days": int(options["full_days"]),
        "proof": {"max_age_days": float(options["proof_max_age_days"]), "deploys": options["proof_deploys"], "boot": list(options.get("proof_boot") or [])},
        "ages": {
            **{f"{job}_hours": float(options["database_max_age_hours"]) for job in (DATABASE, APART)},
            f"{FILES}_hours": float(options["files_max_age_hours"]),
        },
        "timeouts": {f"{part}_seconds": int(options["timeout_seconds"]) for part in (DATABASE, FILES, "proof")},
    }
    if ring.told:
        document["keys"] = ring.told
    settings = Settings.parse(document, ring)
    wal = settings.for_wal()
    return {
        "document": document,
        "pgbackrest": pgbackrest_configuration(settings) if DATABASE in settings.jobs() else "",
        "wal_targets": [target.name for target in wal],
        "wal_files": [{"path": wal_file(target), "content": pgbackrest_configuration(settings, target), **PRIVATE} for target in wal],
        "jobs": settings.jobs(),
        "directories": _directories(settings),
        "away": any(target.away for target in settings.targets),
        "ssh": any(target.type == SSH for target in settings.targets),
        "known_hosts": "".join(f"{target.known_hosts.strip()}\n" for target in settings.targets if target.type == SSH),
    }


def _directories(settings: Settings) -> list[Data]:
    """Return the directories of targets that are on this host: only root and postgres get in, and the app's user nowhere."""
    found = []
    for target in settings.targets:
        if target.type == LOCAL:
            found.append({"path": target.path, "mode": "0711"})
            places = [job for job in settings.jobs() if job in target.jobs and job != DATABASE]
            found += [{"path": f"{target.path}/{target.directory(job)}", "mode": "0700"} for job in places]
            if DATABASE in target.jobs and settings.archive is not None:
                found.append({"path": f"{target.path}/{target.directory(DATABASE)}", "owner": "postgres", "group": "postgres", "mode": "0750"})
    return found


def _targets(given: t.Sequence[Data], wrong: list[str]) -> list[Data]:
    if not given:
        wrong.append("backup_targets is empty: backups need a place")
    found: list[Data] = []
    for index, entry in enumerate(given):
        where = f"backup_targets[{index}]"
        kind = entry["type"]
        target = {**{key: value for key, value in entry.items() if value not in (None, "")}, "path": str(entry.get("path") or "")}
        target["jobs"] = list(entry.get("jobs") or ([FILES, APART] if kind == SSH else JOBS))
        if not _NAME.fullmatch(entry["name"]) or entry["name"] in [known["name"] for known in found]:
            wrong.append(f"{where}.name '{entry['name']}' is taken, or no name of small letters, digits and dashes")
        wrong += [f"{where}.{key} is needed for type {kind}" for key in _NEEDED[kind] if not entry.get(key)]
        wrong += [f"{where}.{key} holds a blank or a control character" for key, value in target.items() if _spoilt(key, value)]
        _target(where, kind, target, wrong)
        found.append(target)
    return found


def _spoilt(key: str, value: t.Any) -> bool:
    if not isinstance(value, str):
        return False
    return bool(re.search(r"[\x00-\x1f\x7f]" if key == "known_hosts" else r"[\x00-\x20\x7f]", value.strip()))


def _target(where: str, kind: str, target: Data, wrong: list[str]) -> None:
    """Judge what only one type of target has."""
    path = target["path"]
    if ".." in path.split("/"):
        wrong.append(f"{where}.path '{path}' goes up")
    if kind == LOCAL:
        target["path"] = path.rstrip("/")
        if path and (not path.startswith("/") or path.count("/") < 2 or path.split("/")[1] in ("tmp", "run", "proc", "sys", "dev")):
            wrong.append(f"{where}.path '{path}' is no directory of its own that outlives a boot")
    if kind == S3 and target.get("endpoint"):
        parts = urllib.parse.urlsplit(target["endpoint"])
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.path.strip("/") or parts.query:
            wrong.append(f"{where}.endpoint must be https://host or https://host:port")
        elif parts.scheme == "http" and DATABASE in target["jobs"]:
            wrong.append(f"{where}.endpoint must be https for the job {DATABASE} (or leave that job out of jobs)")
        if target.get("bucket") and not _BUCKET.fullmatch(target["bucket"]):
            wrong.append(f"{where}.bucket '{target['bucket']}' is no name of a bucket")
    if kind == SSH:
        if DATABASE in target["jobs"]:
            wrong.append(f"{where}.jobs has {DATABASE}, which cannot be appended over SSH; it gets dumps with {FILES}")
        if target.get("host") and not _is_host(target["host"]):
            wrong.append(f"{where}.host '{target['host']}' is neither a name nor an address")
        if target.get("user") and not _USER.fullmatch(target["user"]):
            wrong.append(f"{where}.user '{target['user']}' is no name of a user")
        if not 0 < int(target.get("port") or 22) < 65536:
            wrong.append(f"{where}.port {target['port']} is no port")
        target["port"] = int(target.get("port") or 22)


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
        return True
    except ValueError:
        return bool(_HOST.fullmatch(text.lower()))


def _archive(options: Data, wrong: list[str]) -> Data | None:
    """Return the cluster that is archived: the host's own, where a database of it is not just dumped and some target takes it."""
    cluster = options.get("postgresql") or {}
    if not cluster.get("version") or options["method"] != ARCHIVE:
        return None
    if not re.fullmatch(r"[0-9]{2}", str(cluster["version"])) or not re.fullmatch(r"[A-Za-z0-9_]+", str(cluster.get("cluster") or "main")):
        wrong.append(f"backup_postgresql '{cluster['version']}/{cluster.get('cluster')}' is no cluster")
    if not any(DATABASE in (target.get("jobs") or ([FILES, APART] if target["type"] == SSH else JOBS)) for target in options.get("targets") or []):
        return None
    name = str(cluster.get("cluster") or "main")
    return {
        "version": str(cluster["version"]),
        "cluster": name,
        "port": int(cluster.get("port") or 5432),
        "stanza": name,
    }


def _databases(options: Data, archive: Data | None, wrong: list[str]) -> list[Data]:
    found = []
    for index, entry in enumerate(options.get("databases") or []):
        url = entry.get("url") or None
        if url and urllib.parse.urlsplit(url).scheme not in ("postgres", "postgresql"):
            wrong.append(f"backup_databases[{index}].url is no address of PostgreSQL")
        if not url and not (options.get("postgresql") or {}).get("version"):
            wrong.append(f"backup_databases[{index}] needs url, or backup_postgresql.version for one of this host's own cluster")
        if not re.fullmatch(r"[^\x00-\x1f/]{1,63}", entry["name"]):
            wrong.append(f"backup_databases[{index}].name '{entry['name']}' is no name of a database")
        own = {} if url else {"port": int((options.get("postgresql") or {}).get("port") or 5432)}
        method = ARCHIVE if archive is not None and not url else DUMP
        found.append({"name": entry["name"], "method": method, "app": entry.get("app") or "", "owner": entry.get("owner") or "", "url": url, **own})
    return found
