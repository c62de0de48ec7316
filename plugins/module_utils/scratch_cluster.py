# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL that is thrown away: empty, or what pgBackRest brings back. Proofs look at it, and restores copy from it.

It runs as the user C(postgres) in a transient unit of its own, with a bound on its memory and behind everybody else. It sees neither the
files of the live cluster nor may it write outside its own directory. It archives nothing, runs nothing of an extension by itself, and speaks
on a socket in its directory only, unless a port is asked for::

    with Scratch(world, "17") as scratch:
        scratch.restore(settings, target, name="proof-1")
        scratch.start(600)
        scratch.database("shop").execute("SELECT count(*) FROM item")

Nothing is left of it afterwards; what a killed one left goes before the next one begins. One directory serves one caller at a time.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import typing as t

from .app import UNIT
from .database import Database, first_line
from .encoders import postgresql_setting
from .errors import AnchorageError
from .layout import STATE
from .room import MIB, Amount, Full, mount_point, supply
from .world import Completed, World

if t.TYPE_CHECKING:
    from .backup_settings import Settings, Target

DIRECTORY = f"{STATE}/backup/scratch"

#: Says that a directory is one of these, so that nothing else is ever emptied.
MARKER = ".anchorage-scratch"

USER = "postgres"
PROGRAMS = "/usr/lib/postgresql/{version}/bin"
LIVE = "/etc/postgresql/{version}/{cluster}"
CLUSTERS = "/var/lib/postgresql"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

#: What it may take of the memory; its caches come on top, and the kernel takes those back.
MEMORY_MB = 1024

#: Its own WAL while it recovers, what it writes besides the data, and room that stays for the live server.
SPARE_BYTES = 1024 * MIB

#: A unit that everybody forgot ends by itself.
LIFETIME_SECONDS = 86400

#: Without hot_standby the limits of the primary do not bind a server that recovers; prepared transactions must find room nevertheless.
#: No worker processes: an extension's scheduler or a subscription must not begin to work in a copy.
CONFIGURATION = {
    "archive_mode": "off",
    "autovacuum": "off",
    "checkpoint_timeout": "30min",
    "cluster_name": "anchorage-scratch",
    "fsync": "off",
    "full_page_writes": "off",
    "hot_standby": "off",
    "huge_pages": "off",
    "jit": "off",
    "lc_messages": "C",
    "listen_addresses": "",
    "log_destination": "stderr",
    "log_line_prefix": "",
    "log_min_messages": "warning",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "max_connections": "50",
    "max_locks_per_transaction": "256",
    "max_logical_replication_workers": "0",
    "max_prepared_transactions": "100",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "max_worker_processes": "0",
    "password_encryption": "scram-sha-256",
    "recovery_target_action": "promote",
    "shared_buffers": "64MB",
    "ssl": "off",
    "synchronous_commit": "off",
    "unix_socket_permissions": "0700",
    "work_mem": "16MB",
}

#: Settings of one major version and those after it.
SINCE = {17: {"event_triggers": "off"}}

ACCESS = """\
local  all  postgres                peer map=scratch
local  all  all                     scram-sha-256
host   all  all       127.0.0.1/32  scram-sha-256
"""
IDENTITIES = """\
scratch  root      postgres
scratch  postgres  postgres
"""

#: The server's answers to whoever asks while it still recovers.
_EARLY = re.compile(r"the database system is (starting up|not yet accepting connections|not accepting connections|shutting down|in recovery mode)")
_WORSE = re.compile(r"^(?:PANIC|FATAL|ERROR): +(.+)")
_ARCHIVE = re.compile(r"\bERROR: (\[\d+\]: .+)")
_RECOVERY = re.compile(r"(restore_command|recovery_target\w*) *=")


DAMAGED = "its files are damaged, or the key of this host is another one"

Data = dict[str, t.Any]


class Recovered(t.NamedTuple):
    """Where a server's recovery ended. All but the seconds are None for one that was not restored."""

    seconds: float
    #: Place in the WAL up to which it was replayed.
    lsn: str | None
    #: When the newest transaction in it was committed, in seconds since the epoch.
    newest: float | None
    timeline: int | None


def timestamp(moment: datetime.datetime | str) -> str:
    """Return a moment as pgBackRest and PostgreSQL read it. One without a time zone is in UTC."""
    if isinstance(moment, str):
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
    return aware.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")


def recovery_options(*, time: datetime.datetime | str | None = None, backup: str | None = None, name: str | None = None) -> list[str]:
    """Return what tells pgBackRest how far to recover: a time, a named restore point, the end of a backup, or all there is."""
    if time is not None and name is not None:
        raise AnchorageError("A restore ends at a time or at a named restore point, not at both.")
    chosen = [f"--set={backup}"] if backup else []
    if time is not None:
        return [*chosen, "--type=time", f"--target={timestamp(time)}", "--target-action=promote"]
    if name is not None:
        return [*chosen, "--type=name", f"--target={name}", "--target-action=promote"]
    if backup:
        return [*chosen, "--type=immediate", "--target-action=promote"]
    return ["--type=default"]


def recovery_settings(text: str) -> str:
    """Return of a restored postgresql.auto.conf what recovery needs. What somebody once set on the live cluster is not for this one."""
    return "".join(f"{line}\n" for line in text.splitlines() if _RECOVERY.match(line))


def configuration(version: str, *, directory: str, port: int | None, preload: str) -> str:
    """Return the text of postgresql.conf."""
    chosen = {**CONFIGURATION}
    for major, settings in SINCE.items():
        if int(version) >= major:
            chosen.update(settings)
    chosen.update(
        unix_socket_directories=f"{directory}/socket",
        hba_file=f"{directory}/data/pg_hba.conf",
        ident_file=f"{directory}/data/pg_ident.conf",
        shared_preload_libraries=preload,
        port=str(port or 5432),
    )
    if port:
        chosen["listen_addresses"] = "127.0.0.1"
    return "".join(f"{name} = {postgresql_setting(value)}\n" for name, value in sorted(chosen.items()))


def caller(world: World) -> str | None:
    """Return the unit of this collection that this runs in; None in a shell."""
    if os.environ.get(UNIT):
        return os.environ[UNIT]
    found = re.search(r"/(anchorage-[^/\s]+\.service)(?:/|$)", (world.read("/proc/self/cgroup") or b"").decode(), re.MULTILINE)
    return found.group(1) if found else None


def last_words(log: str) -> str:
    """Return why a server did not come up, from its log: its own last complaint, and that of pgBackRest where WAL could not be had."""
    own = [found.group(1) for line in log.splitlines() if (found := _WORSE.match(line)) and not _EARLY.search(line)]
    fetched = [reason(log[found.start(1) :]) for found in _ARCHIVE.finditer(log)]
    said = [own[-1]] if own else []
    said += [f"pgBackRest said: {fetched[-1]}"] if fetched else []
    if said:
        return "; ".join(said)
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _EARLY.search(line)]
    return lines[-1] if lines else "its log is empty"


def recovered(log: str, seconds: float) -> Recovered:
    """Return where recovery ended, from a server's log."""
    lsn = re.findall(r"^LOG: +redo done at ([0-9A-F]+/[0-9A-F]+)", log, re.MULTILINE)
    newest = re.findall(r"^LOG: +last completed transaction was at log time (\d+-\d+-\d+ \d+:\d+:\d+)(\.\d+)?", log, re.MULTILINE)
    timeline = re.findall(r"^LOG: +selected new timeline ID: (\d+)", log, re.MULTILINE)
    at = None
    if newest:
        whole, part = newest[-1]
        at = datetime.datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc).timestamp() + float(part or 0)
    return Recovered(seconds, lsn[-1] if lsn else None, at, int(timeline[-1]) if timeline else None)


def complaint(done: Completed) -> str:
    """Return what pgBackRest says was wrong, with its number; what it only warns of is left out."""
    text = f"{done.stdout}\n{done.stderr}"
    found = _ARCHIVE.search(text)
    if found:
        return reason(text[found.start(1) :])
    return "it took too long" if done.rc == 124 else f"{first_line(done.stderr or done.stdout)[:400]} (code {done.rc})"


def pgbackrest(world: World, settings: Settings, target: Target, *words: str, seconds: float = 600, urgent: bool = False) -> Completed:
    """Run pgBackRest for one target, as postgres, and behind everybody else where it is not urgent."""
    return world.run([*([] if urgent else ["nice", "-n", "10"]), *settings.pgbackrest(target, *words)], env=ENVIRONMENT, cwd="/", user=USER, timeout=seconds)


def backups(world: World, settings: Settings, target: Target) -> Data:
    """Return what pgBackRest knows of the stanza at a target: C(backup), C(archive), C(status) and so on; the oldest backup first.

    :raises AnchorageError: when the repository cannot be read, or there is no backup in it.
    """
    done = pgbackrest(world, settings, target, "--output=json", "info", seconds=120)
    if done.rc != 0:
        raise AnchorageError(f"The repository {target.name} cannot be read: pgBackRest said: {complaint(done)}", what="pgbackrest info")
    try:
        # What it quotes of a damaged file is not always JSON.
        told = json.loads(done.stdout, strict=False)
    except ValueError as error:
        raise AnchorageError(f"The repository {target.name} cannot be read: {DAMAGED}.", what="pgbackrest info") from error
    stanza = t.cast("t.Any", settings.archive).stanza
    found = next((entry for entry in told if entry.get("name") == stanza), None)
    if found is None:
        raise AnchorageError(f"The repository {target.name} has no backup of this cluster (no stanza '{stanza}').", what="pgbackrest info")
    broken = [status["message"] for status in [*[repo["status"] for repo in found.get("repo", [])], found["status"]] if status["code"] != 0]
    if broken or not found.get("backup"):
        said = reason(broken[0]) if broken else "no backup"
        raise AnchorageError(f"The repository {target.name} has no backup that could be restored: {said}.", what="pgbackrest info")
    return t.cast("Data", found)


def reason(message: str) -> str:
    """Return what matters of what pgBackRest tells over several lines: the first line, and what follows a colon; no hints and no damaged bytes."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = lines[0] if lines else "no reason given"
    if said.endswith(":") and len(lines) > 1:
        said = f"{said} {lines[1]}"
    said = re.sub(r"at line \d+: `.*", "", said, flags=re.DOTALL).strip()
    if re.search(r"FormatError|CryptoError|ChecksumError", said):
        said = f"{said} ({DAMAGED})"
    return said[:400]


class ScratchDatabase(Database):
    """One database of a throw-away server, spoken to as its superuser."""

    def __init__(self, scratch: Scratch, name: str) -> None:
        # Not by a URL: there is no password, and the socket lies in a directory of its own.
        self.world = scratch.world
        self.environment = {**scratch.environment, "PGDATABASE": name}

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.environment['PGDATABASE']} (restored)"


class Scratch:
    """A throw-away server in one directory. To be used as a context.

    :arg version: major version of PostgreSQL, such as C("17").
    :arg directory: where it lies; its parents must let the user postgres pass.
    :arg cluster: name of the live cluster, of which the libraries to preload are asked.
    :arg memory_mb: what its unit may take.
    :arg patience: seconds to wait for another caller who uses the directory.
    :arg urgent: whether it is as important as everybody else, as where a shop waits for its data.
    """

    def __init__(
        self,
        world: World,
        version: str,
        directory: str = DIRECTORY,
        *,
        cluster: str = "main",
        memory_mb: int = MEMORY_MB,
        patience: float = 0,
        urgent: bool = False,
    ) -> None:
        self.world = world
        self.version = str(version)
        self.directory = directory.rstrip("/")
        self.cluster = cluster
        self.memory_mb = memory_mb
        self.patience = patience
        self.urgent = urgent
        self.port: int | None = None
        self.programs = PROGRAMS.format(version=self.version)
        self.unit = f"anchorage-{os.path.basename(self.directory)}-postgresql.service"
        self.data = f"{self.directory}/data"
        self.log = f"{self.directory}/log"

    def __enter__(self) -> Scratch:
        self._make_above()
        self._lock = self._locked()
        try:
            self.remove()
            self._make()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.remove()
        finally:
            self._lock.close()

    # -- what it is filled with

    def initialise(self, *, need_bytes: int = 0) -> None:
        """Make an empty server.

        :arg need_bytes: what will be loaded into it.
        :raises AnchorageError: when there is no room for it, or initdb fails.
        """
        self._require(need_bytes)
        command = [f"{self.programs}/initdb", f"--pgdata={self.data}", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=reject"]
        done = self.world.run([*command, "--no-sync"], env=ENVIRONMENT, cwd="/", user=USER, timeout=300)
        if done.rc != 0:
            raise AnchorageError(f"initdb of PostgreSQL {self.version} failed: {first_line(done.stderr or done.stdout)}", what="scratch cluster")

    def restore(
        self,
        settings: Settings,
        target: Target,
        *,
        time: datetime.datetime | str | None = None,
        backup: str | None = None,
        name: str | None = None,
        need_bytes: int = 0,
        seconds: float = 14400,
    ) -> Data:
        """Fill it by pgBackRest; how far it recovers is decided here, and happens in start().

        Without a wish: the newest backup and all WAL there is. PostgreSQL takes WAL that cannot be had for the end of it, so a caller who must
        know that nothing is missing names a restore point, or compares Recovered.lsn.

        :arg time: end at this moment.
        :arg backup: from this backup (its label); without C(time) and C(name) end where the backup ended.
        :arg name: end at this named restore point.
        :arg need_bytes: what it takes at its end, where that is known: WAL may make more of it than the backup had.
        :returns: the backup's entry of C(pgbackrest info); of the newest one where pgBackRest chooses itself.
        :raises AnchorageError: with what pgBackRest said.
        """
        options = recovery_options(time=time, backup=backup, name=name)
        known = backups(self.world, settings, target)["backup"]
        chosen = next((entry for entry in known if entry["label"] == backup), known[-1])
        if backup and chosen["label"] != backup:
            labels = ", ".join(entry["label"] for entry in known[-10:])
            raise AnchorageError(f"The repository {target.name} has no backup '{backup}'; there is: {labels}.", what="pgbackrest restore")
        self._require(max(need_bytes, *(entry["info"]["size"] for entry in known)))
        words = [f"--pg1-path={self.data}", "--archive-mode=off", f"--tablespace-map-all={self.directory}/tablespaces", *options, "restore"]
        done = pgbackrest(self.world, settings, target, *words, seconds=seconds, urgent=self.urgent)
        if done.rc != 0:
            raise AnchorageError(f"The backup at {target.name} could not be restored: pgBackRest said: {complaint(done)}", what="pgbackrest restore")
        return t.cast("Data", chosen)

    # -- its life

    def start(self, seconds: float, tcp_port: int | None = None) -> Recovered:
        """Start it and wait until it has recovered and takes writes.

        :arg seconds: how long recovery may take.
        :arg tcp_port: a free port on which it listens on 127.0.0.1 as well, by password.
        :raises AnchorageError: with what its log said last.
        """
        self.port = tcp_port
        self._configure()
        began = self.world.monotonic()
        done = self.world.run([*self._unit(), f"{self.programs}/postgres", "-D", self.data], timeout=60)
        if done.rc != 0:
            raise AnchorageError(f"A throw-away PostgreSQL could not be started: {first_line(done.stderr)}", what="scratch cluster")
        while True:
            if self.database("postgres").psql("SELECT pg_is_in_recovery()", timeout=30).stdout.strip() == "f":
                return recovered(self._log(), round(self.world.monotonic() - began, 1))
            state = self.world.run(["systemctl", "show", "--property=ActiveState", "--value", self.unit], timeout=30).stdout.strip()
            if state not in ("active", "activating", "reloading"):
                raise AnchorageError(f"The restored server ended: {last_words(self._log())}", what="scratch cluster", log=self._log()[-2000:])
            if self.world.monotonic() - began >= seconds:
                raise AnchorageError(f"The restored server was not ready after {seconds:g} s: {last_words(self._log())}", what="scratch cluster")
            self.world.sleep(0.2)

    def stop(self) -> None:
        """Stop it; one that does not run is no error."""
        self.world.run(["systemctl", "stop", self.unit], timeout=120)
        self.world.run(["systemctl", "reset-failed", self.unit], timeout=30)

    def remove(self) -> None:
        """Stop it and remove all of it.

        :raises AnchorageError: when the directory is not one of these; then nothing in it is touched.
        """
        self.stop()
        if not self.world.exists(self.directory):
            return
        if not self.world.exists(f"{self.directory}/{MARKER}") and self.world.listdir(self.directory):
            raise AnchorageError(
                f"{self.directory} holds something that is no throw-away server (it has no {MARKER}).",
                what="scratch cluster",
                next_step="Look at it, and move it away.",
            )
        # The marker goes last: what is left when this is killed must be known for what it is.
        inside = [f"{self.directory}/{name}" for name in self.world.listdir(self.directory) if name != MARKER]
        for paths in (inside, [self.directory]):
            done = self.world.run(["rm", "-rf", "--one-file-system", "--", *paths], timeout=3600)
        if done.rc != 0:
            raise AnchorageError(f"{self.directory} could not be removed: {first_line(done.stderr)}", what="scratch cluster")

    # -- what it is asked

    @property
    def environment(self) -> dict[str, str]:
        """What libpq wants to know to reach it as its superuser, all but the database."""
        return {
            "PATH": f"{self.programs}:{ENVIRONMENT['PATH']}",
            "LANG": ENVIRONMENT["LANG"],
            "PGHOST": f"{self.directory}/socket",
            "PGPORT": str(self.port or 5432),
            "PGUSER": USER,
            "PGAPPNAME": "anchorage",
            "PGCONNECT_TIMEOUT": "10",
        }

    def database(self, name: str) -> ScratchDatabase:
        """Return one of its databases, with all that Database can do."""
        return ScratchDatabase(self, name)

    def psql(self, database: str, sql: str, *, timeout: float = 60, **variables: str) -> str:
        """Run SQL in one of its databases and return what it printed.

        :raises AnchorageError: when it fails.
        """
        return self.database(database).execute(sql, timeout=timeout, **variables)

    def databases(self) -> list[str]:
        """Return the names of its databases, templates apart."""
        text = self.psql("postgres", "SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn AND NOT datistemplate")
        return t.cast("list[str]", json.loads(text))

    def url(self, database: str) -> str:
        """Return the address of one of its databases on the socket, for root and postgres."""
        return f"postgresql://{USER}@/{database}?host={self.directory}/socket&port={self.port or 5432}"

    # -- how

    def _locked(self) -> t.IO[str]:
        """Return a file that is locked; the kernel frees it with its owner."""
        stream = open(f"{self.directory}.lock", "a", encoding="utf-8")  # noqa: SIM115  # it is closed by whoever ends
        end = self.world.monotonic() + self.patience
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return stream
            except OSError as error:
                if self.world.monotonic() >= end:
                    stream.close()
                    raise AnchorageError(
                        "Another proof or restore uses the throw-away PostgreSQL of this host.",
                        what="scratch cluster",
                        next_step="Wait for it, then do it again.",
                    ) from error
            self.world.sleep(1)

    def _make_above(self) -> None:
        above = os.path.dirname(self.directory)
        self.world.make_directory(above, mode=0o711)
        # The user postgres must pass; what lies there is closed to it by its own modes.
        self.world.run(["chmod", "a+x", above], timeout=30)

    def _make(self) -> None:
        for path, owner, mode in (
            (self.directory, "root", "0750"),
            (f"{self.directory}/{MARKER}", "root", "0640"),
            (self.data, USER, "0700"),
            (f"{self.directory}/socket", USER, "0700"),
            (f"{self.directory}/tablespaces", USER, "0700"),
        ):
            kind = ["/dev/null"] if path.endswith(MARKER) else ["-d"]
            done = self.world.run(["install", f"--owner={owner}", f"--group={USER}", f"--mode={mode}", *kind, path], timeout=30)
            if done.rc != 0:
                raise AnchorageError(f"{path} could not be made: {first_line(done.stderr)}", what="scratch cluster")

    def _require(self, need_bytes: int) -> None:
        need, have = Amount(need_bytes + need_bytes // 20 + SPARE_BYTES, None), supply(self.directory)
        if have.bytes < need.bytes:
            raise Full(
                f"A throw-away PostgreSQL needs {need} in {self.directory}, and {Amount(have.bytes, None)} are free on {mount_point(self.directory)}.",
                what="room on the disk",
                next_step=f"Make room on {mount_point(self.directory)}, then do it again.",
            )

    def _configure(self) -> None:
        old = (self.world.read(f"{self.data}/postgresql.auto.conf") or b"").decode(errors="replace")
        files = {
            "postgresql.conf": configuration(self.version, directory=self.directory, port=self.port, preload=self._preload()),
            "postgresql.auto.conf": recovery_settings(old),
            "pg_hba.conf": ACCESS,
            "pg_ident.conf": IDENTITIES,
        }
        for name, text in files.items():
            # Readable by all, in a directory that only postgres enters.
            self.world.write_atomic(f"{self.data}/{name}", text.encode(), mode=0o644)
        self.world.remove(self.log)

    def _preload(self) -> str:
        """Return the libraries that the live cluster preloads; objects in the copy may need them. It is asked by its files: it may not run."""
        where = LIVE.format(version=self.version, cluster=self.cluster)
        command = [f"{self.programs}/postgres", "-D", where, "-C", "shared_preload_libraries"]
        done = self.world.run(command, env=ENVIRONMENT, cwd="/", user=USER, timeout=30)
        return done.stdout.strip() if done.rc == 0 else ""

    def _unit(self) -> list[str]:
        # It ends with its caller. Not After=, for which a caller of type oneshot would have to end first.
        holder = caller(self.world)
        bound = [f"--property=BindsTo={holder}"] if holder else []
        # What pgBackRest is told when the server fetches WAL: it may write nowhere but here.
        told = {"ARCHIVE_ASYNC": "n", "LOCK_PATH": "/tmp", "LOG_LEVEL_CONSOLE": "warn", "LOG_LEVEL_FILE": "off"}
        return [
            "systemd-run",
            "--quiet",
            "--collect",
            "--service-type=exec",
            f"--unit={self.unit}",
            "--description=A PostgreSQL that is thrown away",
            f"--property=User={USER}",
            f"--property=Group={USER}",
            f"--property=StandardOutput=append:{self.log}",
            f"--property=StandardError=append:{self.log}",
            "--property=WorkingDirectory=/",
            "--property=UMask=0077",
            *([] if self.urgent else ["--property=Nice=10", "--property=CPUWeight=20", "--property=IOWeight=20"]),
            f"--property=MemoryMax={self.memory_mb}M",
            "--property=OOMPolicy=stop",
            # Where memory runs out, it is the first to go, and not the live server.
            "--property=OOMScoreAdjust=800",
            "--property=LimitCORE=0",
            f"--property=RuntimeMaxSec={LIFETIME_SECONDS}",
            "--property=KillMode=mixed",
            "--property=KillSignal=SIGINT",
            "--property=TimeoutStopSec=60",
            "--property=NoNewPrivileges=yes",
            "--property=PrivateTmp=yes",
            "--property=ProtectHome=yes",
            "--property=ProtectSystem=strict",
            f"--property=ReadWritePaths={self.directory}",
            f"--property=InaccessiblePaths=-{CLUSTERS}",
            *bound,
            *[f"--setenv={key}={value}" for key, value in ENVIRONMENT.items()],
            *[f"--setenv=PGBACKREST_{key}={value}" for key, value in told.items()],
            "--",
        ]

    def _log(self) -> str:
        """Return the end of its log."""
        size = self.world.size(self.log)
        return self.world.read_part(self.log, max(0, size - 200_000), 200_000).decode(errors="replace")
