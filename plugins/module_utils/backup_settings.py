# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is backed up on a host, and where to: the document that the role backup leaves there, and how its two tools are called.

PostgreSQL goes by pgBackRest, everything else by restic. Both encrypt with one key before anything leaves the host.
"""

from __future__ import annotations

import dataclasses
import grp
import json
import typing as t
import urllib.parse

from . import backup_keys
from .backup_keys import KEY, Ring
from .encoders import pgbackrest_value, shell_command
from .errors import AnchorageError
from .layout import STATE
from .world import World

__all__ = ["KEY"]

SETTINGS = "/etc/anchorage/backup.json"
DIRECTORY = f"{STATE}/backup"
SSH_KEY = "/etc/anchorage/backup_ssh"
KNOWN_HOSTS = "/etc/anchorage/backup_known_hosts"
CACHE = "/var/cache/anchorage/restic"
PGBACKREST = "/etc/pgbackrest.conf"
SPOOL = "/var/spool/pgbackrest"
#: Where the archiver writes down a segment that it had to give up.
GAP = f"{SPOOL}/gap"
#: Where copies of segments wait for a target that could not take them, in a directory of its name.
QUEUE = f"{SPOOL}/queue"

DATABASE, FILES, APART = "database", "files", "apart"
JOBS = (DATABASE, FILES, APART)
LOCAL, S3, SSH = "local", "s3", "ssh"
ARCHIVE, DUMP = "archive", "dump"
SCHEMA = 1

#: The directory of each tool's repository at a target.
PLACES = {DATABASE: "postgresql", FILES: "files", APART: "apart"}

Data = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """A place that keeps backups.

    :arg jobs: what goes there.
    :arg place: what stands behind the names of its repositories; each key after a host's first one has its own.
    :arg former: of repositories that a former key made, the target that they lie at. Nothing new goes there.
    :arg until: when those are removed; None while WAL goes there, too.
    :arg left: since when it does not.
    """

    name: str
    type: str
    path: str
    jobs: tuple[str, ...]
    endpoint: str = ""
    bucket: str = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    ca_file: str = ""
    host: str = ""
    port: int = 22
    user: str = ""
    known_hosts: str = ""
    place: str = ""
    former: str = ""
    until: float | None = None
    left: float | None = None

    def directory(self, job: str) -> str:
        """Return what the repository of a job is called here."""
        return f"{PLACES[job]}-{self.place}" if self.place else PLACES[job]

    @property
    def append_only(self) -> bool:
        """Whether this host may add there, and remove nothing."""
        return self.type == SSH

    @property
    def away(self) -> bool:
        """Whether it outlives this machine."""
        return self.type != LOCAL


@dataclasses.dataclass(frozen=True)
class Archive:
    """The PostgreSQL cluster of this host whose WAL is archived."""

    version: str
    cluster: str
    port: int
    stanza: str

    @property
    def data(self) -> str:
        """Its data directory."""
        return f"/var/lib/postgresql/{self.version}/{self.cluster}"

    @property
    def programs(self) -> str:
        """Where the server's programs lie."""
        return f"/usr/lib/postgresql/{self.version}/bin"

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        return f"postgresql@{self.version}-{self.cluster}.service"


@dataclasses.dataclass(frozen=True)
class Database:
    """A database that is backed up.

    :arg url: its address; None for one of the host's own cluster, which root enters as postgres.
    :arg port: where that cluster listens.
    """

    name: str
    method: str
    app: str = ""
    owner: str = ""
    url: str | None = None
    port: int = 5432


@dataclasses.dataclass(frozen=True)
class Redis:
    """A Redis instance of this host whose data are backed up."""

    name: str
    app: str = ""

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        return f"redis-server@{self.name}.service"

    @property
    def directory(self) -> str:
        """Where its data lie."""
        return f"/var/lib/redis/{self.name}"


@dataclasses.dataclass(frozen=True)
class Project:
    """A Compose project of this host with volumes that are saved apart."""

    name: str
    directory: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is backed up on this host."""

    targets: tuple[Target, ...]
    archive: Archive | None
    databases: tuple[Database, ...]
    redis: tuple[Redis, ...]
    apart: tuple[Project, ...]
    paths: tuple[str, ...]
    excludes: tuple[str, ...]
    retention_days: int
    full_days: int
    proof: Data
    ages: Data
    timeouts: Data
    key: str = dataclasses.field(repr=False)
    former: tuple[Target, ...] = ()
    keys: t.Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    told: Data = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, data: Data, key: str | Ring = "") -> Settings:
        """Return the settings that a document holds.

        What a former key made is a target like any other, to which nothing new goes. One whose key is forgotten is none any more.

        :raises AnchorageError: when the key that the document speaks of is not there.
        """
        known = data.get("keys") or {}
        place = known.get("place") or ""
        keys = key.keys if isinstance(key, Ring) else {place: key}
        if place not in keys:
            raise AnchorageError(
                f"{SETTINGS} and {KEY} do not speak of the same key.", next_step="Run provision.yml for this host, which writes the one from the other."
            )
        targets = tuple(
            Target(**{**target, "jobs": tuple(target["jobs"]), "port": int(target.get("port") or 22), "place": place}) for target in data["targets"]
        )
        former = tuple(
            dataclasses.replace(
                target,
                name=backup_keys.Former(one["number"], one["place"], (), None).name(target.name),
                place=one["place"],
                former=target.name,
                until=one["until"],
                left=one.get("left"),
            )
            for one in known.get("former") or ()
            for target in targets
            if target.name in one["targets"] and one["place"] in keys
        )
        archive = data.get("archive")
        return cls(
            targets=targets,
            archive=Archive(**archive) if archive else None,
            databases=tuple(Database(**database) for database in data["databases"]),
            redis=tuple(Redis(**redis) for redis in data["redis"]),
            apart=tuple(Project(**project) for project in data.get("apart") or ()),
            paths=tuple(data["paths"]),
            excludes=tuple(data.get("excludes") or ()),
            retention_days=int(data["retention_days"]),
            full_days=int(data.get("full_days", 7)),
            proof=dict(data["proof"]),
            ages=dict(data.get("ages") or {}),
            timeouts=dict(data["timeouts"]),
            key=keys[place],
            former=former,
            keys=keys,
            told=dict(known),
        )

    @property
    def cluster(self) -> Archive:
        """The cluster whose WAL is archived.

        :raises AnchorageError: when there is none.
        """
        if self.archive is None:
            raise AnchorageError("No WAL is archived on this host.", next_step="Set backup_method: archive, and run provision.yml.")
        return self.archive

    def jobs(self) -> list[str]:
        """Return the jobs that this host has, in the order in which they are run."""
        wanted = {DATABASE: self.archive is not None, FILES: True, APART: bool(self.apart)}
        return [job for job in JOBS if wanted[job] and self.for_job(job)]

    def for_job(self, job: str) -> list[Target]:
        """Return the targets that a job goes to."""
        return [target for target in self.targets if job in target.jobs]

    def readable(self, job: str) -> list[Target]:
        """Return the targets that a job's backups can be read from: first those that it goes to, then what former keys made."""
        return self.for_job(job) + [target for target in self.former if job in target.jobs]

    def for_wal(self) -> list[Target]:
        """Return the targets that WAL goes to: until a rotation of the key has come to its end, those of the former one as well."""
        return [target for target in self.readable(DATABASE) if not target.former or target.until is None] if DATABASE in self.jobs() else []

    def target(self, name: str | None, job: str) -> Target:
        """Return a target that a job's backups can be read from; the first where none is named.

        :raises AnchorageError: when there is none.
        """
        known = self.readable(job)
        found = next((target for target in known if name in (None, target.name)), None)
        if found is None:
            names = ", ".join(target.name for target in known) or "none"
            raise AnchorageError(
                f"There is no target{f' {name!r}' if name else ''} for the job {job}; there is: {names}.",
                next_step="Name one of these, or set backup_targets and run provision.yml.",
            )
        return found

    def pgbackrest_repo(self, target: Target) -> int:
        """Return the number that pgBackRest's configuration gives a target."""
        return [known.name for known in self.readable(DATABASE)].index(target.name) + 1

    def pgbackrest(self, target: Target, *words: str) -> list[str]:
        """Return a command line of pgBackRest about one target. It runs as postgres."""
        return ["pgbackrest", f"--stanza={self.cluster.stanza}", f"--repo={self.pgbackrest_repo(target)}", *words]

    def restic(self, target: Target, job: str = FILES) -> tuple[list[str], dict[str, str]]:
        """Return how restic is called for a target: the first words of the command line, and its whole environment."""
        words = ["restic", f"--repo={repository(target, job)}", f"--cache-dir={CACHE}"]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "RESTIC_PASSWORD": self.keys[target.place],
            "RESTIC_PROGRESS_FPS": "0.016",
        }
        if target.type == S3:
            environment.update(AWS_ACCESS_KEY_ID=target.access_key, AWS_SECRET_ACCESS_KEY=target.secret_key, AWS_DEFAULT_REGION=target.region)
            if target.ca_file:
                words.append(f"--cacert={target.ca_file}")
        if target.type == SSH:
            words.append(f"--option=rclone.program={shell_command(ssh(target))}")
        return words, environment

    def dumped(self, target: Target) -> bool:
        """Tell whether a target gets dumps of databases whose WAL is archived too: where the archive itself does not go."""
        return DATABASE not in target.jobs


def repository(target: Target, job: str = FILES) -> str:
    """Return what restic calls the repository of a job at a target."""
    place = target.directory(job)
    if target.type == S3:
        return f"s3:{target.endpoint.rstrip('/')}/{'/'.join(part for part in (target.bucket, target.path.strip('/'), place) if part)}"
    if target.type == SSH:
        return f"rclone:{'/'.join(part for part in (target.path.rstrip('/'), place) if part)}"
    return f"{target.path.rstrip('/')}/{place}"


def ssh(target: Target) -> list[str]:
    """Return the command that reaches a host which keeps backups; what is run there is that host's choice (a forced command)."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={KNOWN_HOSTS}", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
    return ["ssh", "-p", str(target.port), "-i", SSH_KEY, *[word for option in options for word in ("-o", option)], f"{target.user}@{target.host}"]


def wal_file(target: Target) -> str:
    """Return the configuration that knows one target alone."""
    return f"/etc/pgbackrest/anchorage-{target.name}.conf"


def pgbackrest_configuration(settings: Settings, only: Target | None = None) -> str:
    """Return pgBackRest's configuration. It holds the key.

    :arg only: the one target that it is to know, as its first; WAL is given to each target by itself.
    """
    lines = ["# Managed by anchorage.vps.backup", "[global]"]
    for number, target in enumerate([only] if only else settings.readable(DATABASE), start=1):
        inside = "/".join(part for part in (target.path.strip("/"), target.directory(DATABASE)) if part)
        values: Data = {"path": f"/{inside}"}
        if target.type == S3:
            endpoint = urllib.parse.urlsplit(target.endpoint)
            values.update(
                {
                    "type": "s3",
                    "s3-endpoint": endpoint.hostname or "",
                    "s3-bucket": target.bucket,
                    "s3-region": target.region,
                    "s3-key": target.access_key,
                    "s3-key-secret": target.secret_key,
                    "s3-uri-style": "path",
                    "storage-port": str(endpoint.port or 443),
                }
            )
            if target.ca_file:
                values["storage-ca-file"] = target.ca_file
        values.update(
            {
                "bundle": "y",
                "cipher-type": "aes-256-cbc",
                "cipher-pass": settings.keys[target.place],
                "retention-full-type": "time",
                "retention-full": str(settings.retention_days),
            }
        )
        lines += [f"repo{number}-{key}={pgbackrest_value(value, f'repo{number}-{key}')}" for key, value in values.items()]
    lines += [
        "start-fast=y",
        "compress-type=zst",
        "process-max=2",
        # A target that is away is given up within a minute, and tried again.
        "io-timeout=20",
        f"spool-path={SPOOL}",
        # The server has a /tmp of its own, where the default would put it.
        f"lock-path={SPOOL}/lock",
        "archive-timeout=120",
        "log-level-console=warn",
        "log-level-file=off",
    ]
    if settings.archive is not None:
        lines += ["", f"[{settings.archive.stanza}]", f"pg1-path={settings.archive.data}", f"pg1-port={settings.archive.port}"]
    return "\n".join([*lines, ""])


def read_key(world: World) -> str:
    """Return the key that encrypts the backups of this host.

    :raises AnchorageError: when it is not there.
    """
    return backup_keys.read(world).key


def load(world: World) -> Settings:
    """Return what is backed up on this host.

    :raises AnchorageError: when nothing is, or the document cannot be read.
    """
    raw = world.read(SETTINGS)
    if raw is None:
        raise AnchorageError(f"Nothing is backed up on this host ({SETTINGS} is missing).", next_step="Run provision.yml for this host.")
    try:
        data = json.loads(raw)
        if data["schema"] > SCHEMA:
            raise AnchorageError(
                f"{SETTINGS} has schema {data['schema']}, this engine knows {SCHEMA}.", next_step="Run provision.yml with the newer collection for this host."
            )
        return Settings.parse(data, backup_keys.read(world))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnchorageError(f"{SETTINGS} is damaged: {type(error).__name__}: {error}.", next_step="Run provision.yml for this host.") from error


def rewrite(world: World, ring: Ring) -> Settings:
    """Let the document and pgBackRest's configuration say what the keys are now, as the role backup would write them. Returns the settings."""
    data = json.loads(world.read(SETTINGS) or b"{}")
    data = {**{key: value for key, value in data.items() if key != "keys"}, **({"keys": ring.told} if ring.told else {})}
    settings = Settings.parse(data, ring)
    world.write_atomic(SETTINGS, (json.dumps(data, indent=4, sort_keys=True) + "\n").encode(), mode=0o600, uid=0, gid=0)
    if DATABASE in settings.jobs() and world.exists(PGBACKREST):
        world.write_atomic(PGBACKREST, pgbackrest_configuration(settings).encode(), mode=0o640, uid=0, gid=grp.getgrnam("postgres").gr_gid)
    return settings
