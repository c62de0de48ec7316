# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring back a cluster: its data are gone, or are to be what they were at another time, all databases at once.

pgBackRest fills a directory beside the present one, which is moved aside, never removed. Only when the directory is whole the two change places.
"""

from __future__ import annotations

import json
import secrets
import typing as t

from . import backup_run, restore_compare, restore_plan
from .app import Log
from .backup_settings import DATABASE, Archive, Settings
from .database import environment
from .encoders import sql_identifier
from .errors import AnchorageError
from .layout import DOCUMENTS, SECRETS
from .local_cluster import LocalCluster
from .postgresql_scram import matches, verifier
from .restore_journal import RestoreJournal
from .restore_plan import Wish, ago, told
from .restore_source import archives
from .room import MIB, Amount, Full, mount_point, supply
from .scratch_cluster import complaint, last_words, recovery_options
from .world import World, fsync_directory

USER = "postgres"

#: What the server asks for WAL with once its data lie where they belong: pgBackRest writes down the directory that it filled.
FETCH = 'restore_command=pgbackrest --stanza={stanza} --repo={repo} archive-get %f "%p"'

#: Free space that a restore needs, as a share of the cluster's size.
ROOM = 1.1

#: Files that pgBackRest writes last, or that only a server which has run leaves.
WHOLE = "global/pg_control"

#: Says in a directory that was filled that it is whole, and by which restore.
DONE = "anchorage-restored"

Data = dict[str, t.Any]


def passwords(world: World, settings: Settings) -> dict[str, str]:
    """Return the passwords that the apps have today, by the role that owns the database: from the app's document, or from the secrets that this host keeps."""
    found: dict[str, str] = {}
    for database in settings.databases:
        document = json.loads(world.read(f"{DOCUMENTS}/{database.app}.json") or b"{}")
        kept = json.loads(world.read(f"{SECRETS}/{database.app}.json") or b"{}")
        url = document.get("database_url")
        part = environment(url) if url else {}
        if part.get("PGDATABASE") == database.name and part.get("PGPASSWORD"):
            found[part["PGUSER"]] = part["PGPASSWORD"]
        elif database.owner and kept.get("database_password"):
            found[database.owner] = kept["database_password"]
    return found


class ClusterRestore:
    """The restore of the host's cluster."""

    def __init__(self, settings: Settings, world: World, log: Log, journal: RestoreJournal) -> None:
        if settings.archive is None:
            raise AnchorageError(
                "The WAL of this host's cluster is not archived, so there is no backup of the whole cluster.",
                what="restore",
                next_step="Restore its databases one by one: anchorage restore APP --latest",
            )
        self.settings = settings
        self.archive: Archive = settings.archive
        self.world = world
        self.log = log
        self.journal = journal
        self.wish = t.cast(Wish, journal.wish)
        self.cluster = LocalCluster(world, self.archive.version, self.archive.cluster, self.archive.port)
        self.data = self.archive.data
        self._said_before = 0

    @property
    def apps(self) -> list[str]:
        """The apps that write to this cluster."""
        return [database.app for database in self.settings.databases if database.app and not database.url]

    @property
    def coming(self) -> str:
        """The directory that is filled."""
        return f"{self.data}.restored"

    @property
    def aside(self) -> str:
        """Where the present directory goes."""
        return f"{self.data}.before-{self.journal.id}"

    def _says_done(self, directory: str) -> bool:
        return (self.world.read(f"{directory}/{DONE}") or b"").decode().strip() == self.journal.id

    @property
    def is_exchanged(self) -> bool:
        """Whether the restored data lie where they belong."""
        return self.journal.has("exchanged cluster") or self._says_done(self.data)

    @property
    def costs_data(self) -> list[str]:
        """What holds anything now: the directory, unless the restored one is there already."""
        return [self.data] if not self.is_exchanged and self.world.listdir(self.data) else []

    def check(self) -> None:
        """Refuse what cannot be done here, before anything is fetched."""
        if self.wish.how == restore_plan.POINT:
            raise AnchorageError("A restore point is of one app, not of a cluster.", what="restore", next_step="anchorage restore APP --point RELEASE")

    def make_ready(self, go_on: t.Callable[[], None]) -> None:
        """Choose the backup, say what would be lost, and fill a directory beside the present one.

        :arg go_on: is called once it is known what would be done; it raises where that is all.
        """
        if self.is_exchanged or self._says_done(self.coming):
            go_on()
            return
        chosen = restore_plan.from_archive(archives(self.settings, self.world, self.wish), self.wish)
        target = self.settings.target(chosen.target, DATABASE)
        self._check_room(chosen.bytes)
        plan = {"cluster": self.cluster.cluster, "from": str(chosen), "at": chosen.at, "bytes": chosen.bytes, "present": self._present()}
        self.journal.note(plan=[plan])
        when = "all that was archived" if chosen.at is None else f"the data as of {told(chosen.at)}, {ago(max(0.0, self.world.now() - chosen.at))} ago"
        self.log.say(f"cluster {self.cluster.version}/{self.cluster.cluster}: from {chosen} ({chosen.bytes / MIB:.0f} MiB); it gives {when}")
        self.log.say(f"cluster: now {plan['present']}")
        if self.costs_data:
            self.log.say(f"cluster: every database of it would go back to that; what is there now stays in {self.aside}")
        go_on()
        self._fill(target, chosen.backup)

    def _present(self) -> str:
        if not self.world.exists(self.data):
            return f"{self.data} is missing"
        if not self.world.listdir(self.data):
            return f"{self.data} is empty"
        if self.cluster.answers():
            names = [name for name in self.cluster.databases() if name != "postgres"]
            return f"it runs, with the databases {', '.join(names) or 'none'}; rows are counted for one app at a time (anchorage restore APP --plan)"
        return f"{self.data} holds data, and the server does not answer"

    def _check_room(self, size: int) -> None:
        need, have = Amount(int(size * ROOM), None), supply(self.data)
        if have.bytes < need.bytes:
            raise Full(
                f"The restored cluster needs {need}, and {Amount(have.bytes, None)} are free on {mount_point(self.data)}.",
                what="room on the disk",
                next_step="Make room; what earlier restores set aside is listed by anchorage restore --list-aside, and goes with --drop-aside.",
            )

    def _fill(self, target: t.Any, backup: str) -> None:
        began = self.world.monotonic()
        above = self.data.rpartition("/")[0]
        self.world.run(["rm", "-rf", "--one-file-system", "--", self.coming], timeout=3600)
        for path in (above, self.coming):
            done = self.world.run(
                ["install", "-d", f"--owner={USER}", f"--group={USER}", f"--mode={'0700' if path == self.coming else '0755'}", path], timeout=30
            )
            if done.rc != 0:
                raise AnchorageError(f"{path} could not be made: {done.stderr.strip()[:300]}", what="restore")
        fetch = FETCH.format(stanza=self.archive.stanza, repo=self.settings.pgbackrest_repo(target))
        options = recovery_options(time=self.wish.moment, backup=None if self.wish.how == restore_plan.LATEST else backup)
        words = [f"--pg1-path={self.coming}", f"--recovery-option={fetch}", *options, "--process-max=2", "restore"]
        limit = float(self.settings.timeouts["database_seconds"])
        self.log.say(f"cluster: pgBackRest fills {self.coming}")
        done = backup_run.postgres(self.settings, self.world, target, *words, timeout=limit)
        if done.rc != 0 or not self.world.exists(f"{self.coming}/{WHOLE}"):
            raise AnchorageError(
                f"pgBackRest could not restore the cluster: {complaint(done)}", what="restore", next_step="Take another backup or target: anchorage backup list"
            )
        self.world.write_atomic(f"{self.coming}/{DONE}", f"{self.journal.id}\n".encode(), mode=0o644)
        fsync_directory(self.coming)
        self.log.say(f"cluster: filled in {self.world.monotonic() - began:.0f} s")

    def exchange(self) -> None:
        """Stop the server, move what is there aside, and let the restored directory take its place."""
        self.stop()
        if not self.is_exchanged:
            if self.world.exists(self.data):
                self.journal.set_aside("directory", self.aside, self.data)
                self._rename(self.data, self.aside)
            self._rename(self.coming, self.data)
            self.log.say(f"cluster: the restored data lie in {self.data}" + (f", the former ones in {self.aside}" if self.world.exists(self.aside) else ""))
        self.journal.mark("exchanged cluster")

    def _rename(self, source: str, destination: str) -> None:
        done = self.world.run(["mv", "-nT", "--", source, destination], timeout=60)
        if done.rc != 0 or self.world.exists(source):
            raise AnchorageError(f"{source} could not be moved to {destination}: {done.stderr.strip()[:300] or 'it is there already'}", what="restore")
        fsync_directory(destination.rpartition("/")[0])

    def stop(self) -> None:
        """Stop the server; one that does not run is no error."""
        self.log.say(f"cluster: stop {self.cluster.unit}")
        done = self.world.run(["systemctl", "stop", self.cluster.unit], timeout=600)
        self.world.run(["systemctl", "reset-failed", self.cluster.unit], timeout=60)
        if done.rc != 0:
            raise AnchorageError(
                f"{self.cluster.unit} does not stop: {done.stderr.strip()[:300]}", what="restore", next_step=f"journalctl -u {self.cluster.unit}"
            )

    def verify(self) -> None:
        """Start it, wait until it has recovered, and read all of it."""
        began = self.world.monotonic()
        if not self.cluster.answers():
            self._said_before = self.world.size(self._log_path)
            self.log.say(f"cluster: start {self.cluster.unit}, which recovers to where it is wanted")
            self.world.run(["systemctl", "start", self.cluster.unit], timeout=float(self.settings.timeouts["database_seconds"]))
            self._wait(began)
        self.log.say(f"cluster: recovered in {self.world.monotonic() - began:.0f} s")
        totals = {}
        for name in self.cluster.databases():
            counts = restore_compare.count(self.cluster.database(name), seconds=float(self.settings.timeouts["database_seconds"]))
            totals[name] = {"tables": len(counts), "rows": sum(entry[0] for entry in counts.values())}
            self.log.say(f"cluster: {name}: {totals[name]['tables']} tables, {totals[name]['rows']} rows, every one of them read")
        missing = [database.name for database in self.settings.databases if database.method == "archive" and database.name not in totals]
        if missing:
            raise AnchorageError(
                f"The restored cluster has no database {', '.join(missing)}.",
                what="verifying the restored data",
                next_step="Take another backup or time: anchorage backup list",
            )
        self.journal.note(restored=totals)
        self._settle_passwords()
        self.world.remove(f"{self.data}/{DONE}")

    def _wait(self, began: float) -> None:
        limit = float(self.settings.timeouts["database_seconds"])
        retried = False
        while not self.cluster.answers():
            # Only what it said since it was started.
            state = self.world.run(["systemctl", "show", "--property=ActiveState", "--value", self.cluster.unit], timeout=30).stdout.strip()
            said = last_words(self._log())
            if restore_plan.NOT_REACHED in self._log() and not retried and self.wish.how == restore_plan.TIME:
                retried = True
                self._recover_to_the_end()
                continue
            if state == "failed" or self.world.monotonic() - began > limit:
                raise AnchorageError(
                    f"The restored cluster does not come up: {said}",
                    what="recovery",
                    next_step="Read /var/log/postgresql, mend the cause, then: anchorage restore --resume",
                )
            self.world.sleep(0.5)

    def _recover_to_the_end(self) -> None:
        """The time lies behind everything that was archived: all there is, is from before it."""
        self.log.say("cluster: nothing was archived from after that time; everything there is, is from before it")
        self.world.run(["systemctl", "stop", self.cluster.unit], timeout=600)
        self.world.run(["systemctl", "reset-failed", self.cluster.unit], timeout=60)
        path = f"{self.data}/postgresql.auto.conf"
        lines = (self.world.read(path) or b"").decode(errors="replace").splitlines()
        kept = [line for line in lines if not line.startswith(("recovery_target_time", "recovery_target_action"))]
        # In place, so that it stays the user's.
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("\n".join([*kept, ""]))
        self.world.run(["systemctl", "start", self.cluster.unit], timeout=float(self.settings.timeouts["database_seconds"]))

    @property
    def _log_path(self) -> str:
        return f"/var/log/postgresql/postgresql-{self.cluster.version}-{self.cluster.cluster}.log"

    def _log(self) -> str:
        size = self.world.size(self._log_path)
        return self.world.read_part(self._log_path, max(self._said_before if self._said_before <= size else 0, size - 20_000), 20_000).decode(errors="replace")

    def _settle_passwords(self) -> None:
        """Roles came back with the passwords of then; the apps have those of today."""
        stored = {row["rolname"]: row["rolpassword"] for row in self.cluster.database().rows("SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin")}
        for owner, password in passwords(self.world, self.settings).items():
            if owner in stored and not matches(password, stored[owner]):
                self.log.say(f"cluster: the role {owner} gets the password that its app has today")
                self.cluster.execute(f"ALTER ROLE {sql_identifier(owner)} PASSWORD '{verifier(password, salt=secrets.token_bytes(16))}'")

    def go_back(self) -> None:
        """Let what was there serve again, as long as the two have not changed places."""
        if self.is_exchanged:
            return
        if not self.world.exists(self.data) and self.world.exists(self.aside):
            self._rename(self.aside, self.data)
        self.journal.forget_aside(self.aside)
        if self.world.exists(f"{self.data}/{WHOLE}"):
            self.world.run(["systemctl", "start", self.cluster.unit], timeout=600)
