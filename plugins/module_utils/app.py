# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One app on this host, as the steps of a release see it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import typing as t

from .database import Database, Marks
from .encoders import process_file, systemd_run_argument
from .errors import AnchorageError
from .journal import Journal
from .layout import COMMAND, DOCUMENTS, PATH, Layout
from .release_plan import release_id, tree_id
from .runtime import contained
from .world import World

#: Names the unit of the step in its environment, so that what it runs in units of its own ends with it.
UNIT = "ANCHORAGE_UNIT"


class App:
    """Document, journal and paths of one app.

    :arg name: the app.
    :arg world: clock, processes, files.
    :arg document: what the contract says of it; without it, the document that the last deploy left on the host.
    :raises AnchorageError: when there is no such app on this host.
    """

    def __init__(self, name: str, world: World, document: dict[str, t.Any] | None = None) -> None:
        self.name = name
        self.world = world
        self.document = document or self._read_document()
        self.layout = Layout(name, self.document["home"])
        self.journal = Journal(self.layout.journal, name, world)
        self.phases: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, phase: str) -> t.Iterator[None]:
        """Remember how long a part of a step took, in seconds, also where it failed."""
        began = self.world.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = round(self.phases.get(phase, 0.0) + self.world.monotonic() - began, 2)

    def _read_document(self) -> dict[str, t.Any]:
        path = f"{DOCUMENTS}/{self.name}.json"
        raw = self.world.read(path)
        if raw is None:
            known = [entry[: -len(".json")] for entry in self.world.listdir(DOCUMENTS) if entry.endswith(".json")]
            raise AnchorageError(
                f"There is no app '{self.name}' on this host ({path} is missing); there is: {', '.join(known) or 'none'}.",
                next_step="Run deploy.yml for this host.",
            )
        return t.cast("dict[str, t.Any]", json.loads(raw))

    def at(self, release: str | None) -> App:
        """Return the app as a release was made: with the document that lies beside that release, unless the present one describes the same."""
        source = self.journal.release(release).get("source") if release else None
        if release is None or (source and release_id(self.document, source) == release):
            return self
        raw = self.world.read(self.layout.document(release))
        if raw is None:
            return self
        other = App(self.name, self.world, json.loads(raw))
        other.journal, other.phases = self.journal, self.phases
        return other

    @property
    def user(self) -> str:
        return t.cast(str, self.document["user"])

    @property
    def extra_ca_file(self) -> str:
        return t.cast(str, self.document.get("trusted_file") or self.document.get("extra_ca_file") or "")

    @property
    def database(self) -> Database | None:
        """Its database, where it has one."""
        url = self.document.get("database_url")
        return Database(self.world, url) if url else None

    @property
    def gated(self) -> bool:
        """Whether a release must be migrated before it may start."""
        return bool(self.document.get("migrate")) and self.database is not None

    @property
    def unsettled(self) -> bool:
        """Whether a step died before proxy, boot and processes were what the journal says, or while visitors waited."""
        return self.journal.unsettled or self.world.exists(self.layout.hold_flag)

    def node_version(self) -> str:
        """Return the version of Node on this host.

        :raises AnchorageError: when there is none.
        """
        done = self.world.run(["node", "--version"], env={"PATH": PATH}, timeout=20)
        if done.rc != 0:
            raise AnchorageError(
                "Node is not installed on this host (no 'node' in /usr/local/bin and /usr/bin).",
                next_step="Run provision.yml for this host.",
            )
        return done.stdout.strip().lstrip("v")

    def wanted(self, source_id: str) -> tuple[str, str]:
        """Return the tree and the release that the document asks for, given its source."""
        # An image brings its own Node, and which one is among what it is made from.
        node = "" if contained(self.document) else self.node_version()
        return tree_id(self.document, source_id, node), release_id(self.document, source_id)

    def migrated(self, release: str) -> bool:
        """Tell whether a release may start: by the mark in its database, where it has one."""
        if not self.gated:
            return True
        if t.cast(Database, self.database).psql("SELECT 1", timeout=10).rc != 0:
            return False
        return Marks(t.cast(Database, self.database)).has(self.name, release)

    def living(self) -> str:
        """Say in a few words what serves now."""
        if self.journal.live is None:
            return f"{self.name} has no live release on this host"
        return f"{self.name} release {self.journal.live} in slot {self.journal.slot}"

    def sandboxed(
        self,
        path: str,
        *,
        argv: t.Sequence[str],
        cwd: str,
        env: t.Mapping[str, str],
        writable: t.Sequence[str],
        memory_mb: int | None,
        timeout_seconds: int,
        name: str,
    ) -> list[str]:
        """Return the command line that runs something as the app's user in a cgroup and a sandbox of its own.

        Command and environment are in a file, since everybody on a host may read command lines and what systemd tells of units.

        :arg path: the file, in a directory that is root's alone to write; whoever asked for it removes it.
        """
        self.write_exec(path, argv=argv, cwd=cwd, env=env, gid=pwd.getpwnam(self.user).pw_gid)
        command = [
            "systemd-run",
            "--pipe",
            "--wait",
            "--collect",
            "--quiet",
            "--service-type=exec",
            f"--unit=anchorage-{self.name}-{name}",
            f"--property=User={self.user}",
            "--property=WorkingDirectory=/",
            f"--property=RuntimeMaxSec={timeout_seconds}",
            "--property=TimeoutStopSec=45",
            "--property=UMask=0027",
            "--property=NoNewPrivileges=yes",
            "--property=PrivateTmp=yes",
            "--property=ProtectSystem=strict",
            "--property=ProtectHome=yes",
            "--property=OOMPolicy=continue",
            *[f"--property=ReadWritePaths={path}" for path in writable],
        ]
        if os.environ.get(UNIT):
            command += [f"--property=BindsTo={os.environ[UNIT]}", f"--property=After={os.environ[UNIT]}"]
        if memory_mb:
            command += [f"--property=MemoryMax={memory_mb}M", f"--property=ExecStopPost=-{COMMAND} out-of-memory"]
        return [*command, "--", self.command, "exec", systemd_run_argument(path)]

    def write_exec(self, path: str, *, argv: t.Sequence[str], cwd: str, env: t.Mapping[str, str], gid: int) -> None:
        """Write what C(anchorage exec) reads: command, directory and environment of one process, for the app's group only."""
        self.world.write_atomic(path, process_file(argv, cwd, env), mode=0o640, uid=0, gid=gid)

    @property
    def command(self) -> str:
        return COMMAND


class Log:
    """What a step tells people, and the end of it for a failure's evidence."""

    KEEP = 40

    def __init__(self, write: t.Callable[[str], None]) -> None:
        self.write = write
        self.tail: list[str] = []

    def say(self, text: str) -> None:
        """Tell one line."""
        self.tail.append(text)
        del self.tail[: -self.KEEP]
        self.write(text)

    def command(self, line: str) -> None:
        """Tell a line that a command printed."""
        self.say(f"  | {line}")
