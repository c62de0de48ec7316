# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring back one database of a cluster that lives. The other apps are not touched, and the cluster is not restarted.

What the backup gives is made ready beside the live data first, and counted against them. Only then writers stop, and two names change in one
transaction. The former data keep a name of their own until somebody drops them.
"""

from __future__ import annotations

import contextlib
import typing as t

from . import backup_run, restore_compare, restore_plan
from .app import Log
from .backup_settings import DATABASE, Settings
from .database import Database, first_line
from .errors import AnchorageError
from .local_cluster import JOBS, LocalCluster
from .restore_journal import DIRECTORY, RestoreJournal
from .restore_plan import Chosen, Wish, ago, lost_rows, named, told
from .restore_source import choose, fetch_file
from .room import Amount, Full, mount_point, supply
from .scratch_cluster import Recovered, Scratch
from .world import World

#: Where databases are recovered, one beside the other.
SCRATCH = f"{DIRECTORY}/restore-"
WORK = f"{DIRECTORY}/restore-work"

#: Free space that the new database needs, as a share of what was recovered.
ROOM = 1.1

#: Said of a database that was filled, and holds what the backup holds.
COMPLETE = "anchorage restore {id}: complete"

Data = dict[str, t.Any]


class Subject:
    """One database on its way back.

    :arg wanted: what the settings say of it.
    """

    def __init__(self, cluster: LocalCluster, journal: RestoreJournal, wanted: t.Any) -> None:
        self.cluster = cluster
        self.journal = journal
        self.wanted = wanted
        self.name: str = wanted.name
        #: Fingerprints of what was recovered: reading a gigabyte once is enough, since what is filled is compared with it.
        self.recovered: dict[str, tuple[int, str]] = {}

    @property
    def coming(self) -> str:
        """The name under which it is filled."""
        return named(self.name, "restored")

    @property
    def aside(self) -> str:
        """The name that the former data get."""
        return named(self.name, "before", self.journal.id)

    @property
    def is_complete(self) -> bool:
        """Whether what comes was filled by this very restore, to its end."""
        return ((self.cluster.known(self.coming) or {}).get("said") or "") == COMPLETE.format(id=self.journal.id)

    @property
    def is_exchanged(self) -> bool:
        """Whether the name stands for the restored data already."""
        return self.journal.has(f"exchanged {self.name}") or (((self.cluster.known(self.name) or {}).get("said") or "") == COMPLETE.format(id=self.journal.id))


class DatabaseRestore:
    """The restore of an app's databases."""

    def __init__(self, settings: Settings, world: World, log: Log, journal: RestoreJournal, cluster: LocalCluster) -> None:
        self.settings = settings
        self.world = world
        self.log = log
        self.journal = journal
        self.cluster = cluster
        self.wish = t.cast(Wish, journal.wish)
        self.subjects = [Subject(cluster, journal, wanted) for wanted in restore_plan.chosen_databases(self.wish, settings.databases)]

    @property
    def apps(self) -> list[str]:
        """The apps that write to these databases."""
        return [subject.wanted.app for subject in self.subjects if subject.wanted.app]

    @property
    def is_exchanged(self) -> bool:
        """Whether the restored data serve already, all of them."""
        return all(subject.is_exchanged for subject in self.subjects)

    def check(self) -> None:
        """Refuse what cannot be done here, before anything is fetched."""
        for subject in self.subjects:
            if subject.wanted.url:
                raise AnchorageError(
                    f"The database {subject.name} is not one of this host's cluster, so it is not exchanged from here.",
                    what="restore",
                    next_step=f"anchorage restore {self.wish.app} --fetch DIRECTORY gives its dump; docs/operations.md, 'A database elsewhere comes back'.",
                )
        if not self.cluster.answers():
            raise AnchorageError(
                f"PostgreSQL {self.cluster.version}/{self.cluster.cluster} does not answer, so one database of it cannot be restored.",
                what="restore",
                next_step=f"Start it (systemctl start {self.cluster.unit}); where its data are gone: anchorage restore --cluster --latest",
            )

    @property
    def costs_data(self) -> list[str]:
        """The databases that hold anything now."""
        found = []
        for subject in self.subjects:
            if self.cluster.known(subject.name) and not subject.is_exchanged and restore_compare.tables(self.cluster.database(subject.name)):
                found.append(subject.name)
        return found

    # -- the story

    def make_ready(self, go_on: t.Callable[[], None]) -> None:
        """Bring what the backup gives beside the live data.

        :arg go_on: is called once the backup was recovered and counted, before anything is changed; it raises where that is all.
        """
        plans: list[Data] = []
        with contextlib.ExitStack() as stack:
            staged: list[tuple[Subject, Database, str | None]] = []
            for subject in self.subjects:
                if not subject.is_exchanged and not subject.is_complete:
                    staged.append(self._stage(subject, f"{SCRATCH}{len(staged)}", stack, plans))
            if staged:
                self.journal.note(plan=plans)
                self.say_plan(plans)
            go_on()
            for subject, source, dump in staged:
                self._fill(subject, source, dump)

    def say_plan(self, plans: t.Sequence[Data]) -> None:
        """Tell what would be lost."""
        for plan in plans:
            self.log.say(
                f"{plan['database']}: from {plan['from']}; it holds the data as of {told(plan['at'])}, {ago(max(0.0, self.world.now() - plan['at']))} ago"
            )
            for line in restore_plan.losses(plan["losses"]):
                self.log.say(f"{plan['database']}:   {line}")
            self.log.say(
                f"{plan['database']}: {lost_rows(plan['losses'])} rows of the present data would not be as they are now; all of them stay in {plan['aside']}"
            )

    def exchange(self) -> None:
        """Let the restored data take the name of the live ones, which keep a name of their own. Writers have stopped."""
        for subject in self.subjects:
            if not subject.is_exchanged:
                self._exchange(subject)
            self.journal.mark(f"exchanged {subject.name}")

    def verify(self) -> None:
        """See that the name stands for what the backup held, and that others may enter again."""
        for subject in self.subjects:
            found = self.cluster.known(subject.name) or {}
            if (found.get("said") or "") == COMPLETE.format(id=self.journal.id):
                self.cluster.say_of(subject.name, None)
            limit = self.journal.data.get("limits", {}).get(subject.name, -1)
            if found.get("datconnlimit") != limit:
                self.cluster.unfence(subject.name, limit)

    def go_back(self) -> None:
        """Leave the live data as they are: what was made ready goes, and whoever was kept out may enter."""
        for subject in self.subjects:
            if subject.is_exchanged:
                continue
            found = self.cluster.known(subject.name)
            limit = self.journal.data.get("limits", {}).get(subject.name)
            if found and limit is not None and found["datconnlimit"] != limit:
                self.cluster.unfence(subject.name, limit)
            self.cluster.drop(subject.coming)
            self.journal.forget_aside(subject.aside)

    # -- how

    def _stage(self, subject: Subject, directory: str, stack: contextlib.ExitStack, plans: list[Data]) -> tuple[Subject, Database, str | None]:
        chosen = choose(self.settings, self.world, self.wish, subject.wanted)
        self.log.say(f"{subject.name}: {chosen}")
        scratch = stack.enter_context(Scratch(self.world, self.cluster.version, directory, cluster=self.cluster.cluster))
        limit = float(self.settings.timeouts["proof_seconds"])
        began, dump = self.world.monotonic(), None
        if chosen.source == "archive":
            ended = self._recover(scratch, chosen, limit)
            at = chosen.at if chosen.at is not None else ended.newest
        else:
            dump = self._dump_of(subject, chosen, stack)
            scratch.initialise(need_bytes=self.world.size(dump) * 4)
            scratch.start(120)
            scratch.psql("postgres", f'CREATE DATABASE "{subject.name}"')
            self._load(scratch.database(subject.name), dump, limit, roles=False)
            at = chosen.at
        if subject.name not in scratch.databases():
            raise AnchorageError(
                f"{chosen} has no database {subject.name}; it has: {', '.join(scratch.databases())}.",
                what="restore",
                next_step="Take a backup or a time at which it was there.",
            )
        source = scratch.database(subject.name)
        self.log.say(f"{subject.name}: recovered beside the live data in {self.world.monotonic() - began:.0f} s")
        found = self._losses(subject, source)
        plans.append(
            {
                "database": subject.name,
                "from": str(chosen),
                "at": at or self.world.now(),
                "losses": found,
                "lost_rows": lost_rows(found),
                "aside": subject.aside if self.cluster.known(subject.name) else "nothing, since there is no such database now",
            }
        )
        return subject, source, dump

    def _losses(self, subject: Subject, source: Database) -> list[Data]:
        if self.cluster.known(subject.name) is None:
            empty = {name: entry[0] for name, entry in restore_compare.count(source, seconds=3600).items()}
            return [restore_compare.row(name, only_restored=rows, state="gone") for name, rows in sorted(empty.items()) if rows]
        return restore_compare.compare(self.world, self.cluster.database(subject.name), source, then=subject.recovered)

    def _recover(self, scratch: Scratch, chosen: Chosen, limit: float) -> Recovered:
        """Let the throw-away server recover to the wanted moment."""
        target = self.settings.target(chosen.target, DATABASE)
        self._archive_the_present()
        options: Data = {"time": self.wish.moment, "backup": chosen.backup} if self.wish.how == restore_plan.TIME else {}
        if self.wish.how == restore_plan.BACKUP:
            options = {"backup": chosen.backup}
        scratch.restore(self.settings, target, **options, seconds=limit)
        try:
            return scratch.start(limit)
        except AnchorageError as error:
            if restore_plan.NOT_REACHED not in f"{error.message} {error.details.get('log', '')}":
                raise
        self.log.say(f"nothing was written after {self.wish.value} that was archived; everything there is, is as of before that time")
        scratch.remove()
        scratch.__enter__()
        scratch.restore(self.settings, target, seconds=limit)
        return scratch.start(limit)

    def _archive_the_present(self) -> None:
        """Let the archive have everything that was committed until now, and a commit after it: without one no time of now can be reached."""
        if not self.settings.archive:
            return
        segment = self.cluster.execute("SELECT pg_current_xact_id(); SELECT pg_walfile_name(pg_switch_wal())").splitlines()[-1]
        end = self.world.monotonic() + 60
        sql = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver"
        while self.world.monotonic() < end:
            if self.cluster.execute(sql)[8:24] >= segment[8:24]:
                return
            self.world.sleep(0.2)
        self.log.say("the newest WAL has not reached the archive after 60 s; what was written last may be missing from what is restored")

    def _dump_of(self, subject: Subject, chosen: Chosen, stack: contextlib.ExitStack) -> str:
        if chosen.source == "point":
            return chosen.backup
        self.world.make_directory(WORK, mode=0o700)
        stack.callback(self.world.run, ["rm", "-rf", "--", WORK], timeout=600)
        path = f"{WORK}/{subject.name}.dump"
        fetch_file(self.settings, self.world, chosen, f"{backup_run.STAGE}/databases/{subject.name}.dump", path)
        return path

    def _load(self, database: Database, dump: str, seconds: float, *, roles: bool) -> None:
        words = [f"--dbname={database.environment['PGDATABASE']}", f"--jobs={JOBS}", "--exit-on-error", *([] if roles else ["--no-owner", "--no-acl"]), dump]
        done = self.cluster.tool("pg_restore", *words, database=database, seconds=seconds)
        if done.rc != 0:
            cause = "it took too long" if done.rc == 124 else first_line(done.stderr)
            missing = "does not exist" in cause and "role" in cause
            raise AnchorageError(
                f"{dump} could not be loaded: {cause}.",
                what="restore",
                next_step="Create that role (CREATE ROLE name NOLOGIN), then run the restore again."
                if missing
                else "Take another backup: anchorage backup list",
            )

    def _fill(self, subject: Subject, source: Database, dump: str | None) -> None:
        """Make the database that is to take the live one's name, and see that it holds what the backup holds."""
        began, limit = self.world.monotonic(), float(self.settings.timeouts["database_seconds"])
        live = self.cluster.known(subject.name)
        model = live or self._model(source)
        owner = live["owner"] if live else subject.wanted.owner or model["owner"]
        self.cluster.drop(subject.coming)
        self._check_room(subject, source, dump)
        self.cluster.create_like(subject.coming, model, owner)
        self.cluster.copy_rights(subject.name, subject.coming)
        coming = self.cluster.database(subject.coming)
        with contextlib.ExitStack() as stack:
            if dump is None:
                self.world.run(["rm", "-rf", "--", WORK], timeout=600)
                self.world.make_directory(WORK, mode=0o700)
                stack.callback(self.world.run, ["rm", "-rf", "--", WORK], timeout=600)
                dump = f"{WORK}/copy"
                words = ["--format=directory", "--compress=0", f"--jobs={JOBS}", f"--file={dump}"]
                done = self.cluster.tool("pg_dump", *words, database=source, seconds=limit)
                if done.rc != 0:
                    raise AnchorageError(f"What was recovered of {subject.name} could not be read: {first_line(done.stderr)}.", what="restore")
            self._load(coming, dump, limit, roles=True)
        coming.execute("ANALYZE", timeout=3600)
        differing = restore_compare.compare(self.world, coming, source, then=subject.recovered)
        if differing:
            raise AnchorageError(
                f"What was loaded of {subject.name} is not what the backup holds: {'; '.join(restore_plan.losses(differing)[:3])}.",
                what="verifying the restored data",
            )
        counts = subject.recovered
        self.cluster.say_of(subject.coming, COMPLETE.format(id=self.journal.id))
        rows = sum(entry[0] for entry in counts.values())
        self.log.say(
            f"{subject.name}: made ready as {subject.coming} in {self.world.monotonic() - began:.0f} s: {len(counts)} tables, {rows} rows, all as in the backup"
        )

    def _check_room(self, subject: Subject, source: Database, dump: str | None) -> None:
        """What was recovered is written twice more: as a dump, and as the new database. Both stand beside the live one."""
        size = int(source.execute("SELECT pg_database_size(current_database())"))
        needs = {DIRECTORY: 0 if dump else size, self.cluster.data: int(size * ROOM)}
        by_disk: dict[str, int] = {}
        for path, need in needs.items():
            by_disk[mount_point(path)] = by_disk.get(mount_point(path), 0) + need
        for disk, need in by_disk.items():
            if supply(disk).bytes < need:
                raise Full(
                    f"{subject.name} needs {Amount(need, None)} on {disk} beside what is there, and {Amount(supply(disk).bytes, None)} are free.",
                    what="room on the disk",
                    next_step="Make room (what earlier restores set aside: anchorage restore --list-aside), then run the restore again.",
                )

    @staticmethod
    def _model(source: Database) -> Data:
        return t.cast(
            "Data",
            source.rows(
                "SELECT d.*, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS coding FROM pg_database d WHERE datname = current_database()"
            )[0],
        )

    def _exchange(self, subject: Subject) -> None:
        live = self.cluster.known(subject.name)
        if live is not None:
            limits = self.journal.data.setdefault("limits", {})
            # Written once: after a kill the live database says 0, which is this restore's own doing.
            if subject.name not in limits:
                limits[subject.name] = live["datconnlimit"]
            self.journal.set_aside("database", subject.aside, subject.name)
            self.cluster.fence(subject.name)
            found = restore_compare.compare(self.world, self.cluster.database(subject.name), self.cluster.database(subject.coming), then=subject.recovered)
            self.journal.note(lost={**self.journal.data.get("lost", {}), subject.name: found})
            self.log.say(f"{subject.name}: {lost_rows(found)} rows of the former data are not in the restored ones; all of them are kept in {subject.aside}")
        self.cluster.exchange(subject.name, subject.coming, subject.aside if live is not None else None)
        self.log.say(f"{subject.name}: the restored data have its name now")
