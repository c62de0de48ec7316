# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a restore: what is wanted, how far it came, what was set aside. It is whole at any moment, so whoever finds it goes on.

Only one restore is under way on a host. The newest stays written down, and with it everything that earlier ones set aside and nobody removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import typing as t

from .errors import AnchorageError
from .layout import STATE
from .restore_plan import Wish, stamp
from .world import World

SCHEMA = 1
DIRECTORY = f"{STATE}/backup"
PATH = f"{DIRECTORY}/restore.json"
LOCK = f"{DIRECTORY}/lock-restore"
LOGS = f"{DIRECTORY}/log"
UNIT = "anchorage-restore.service"

Data = dict[str, t.Any]


class RestoreJournal:
    """What is known of the newest restore of this host.

    :raises AnchorageError: when it is damaged, or of a newer engine.
    """

    def __init__(self, world: World, path: str = PATH) -> None:
        self.world = world
        self.path = path
        raw = world.read(path)
        try:
            self.data: Data = json.loads(raw) if raw else {"schema": SCHEMA, "aside": []}
            schema = self.data["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise AnchorageError(
                f"The journal of the restore ({path}) is damaged: {error}.",
                next_step=f"Move it away; what was set aside is found by its name (*_before_*, *.before-*). Then run the restore again: {path}",
            ) from error
        if schema > SCHEMA:
            raise AnchorageError(f"{path} has schema {schema}, this engine knows {SCHEMA}.", next_step="Run provision.yml with the newer collection.")

    def save(self) -> None:
        """Write it so that it survives a power cut."""
        self.world.make_directory(DIRECTORY, mode=0o711)
        self.world.write_atomic(self.path, (json.dumps(self.data, indent=1, sort_keys=True) + "\n").encode(), mode=0o600)

    def begin(self, wish: Wish, mode: str, *, log: str, owner: str = "") -> None:
        """Write down a new restore, or that the one which is unfinished goes on."""
        if not self.unfinished:
            now = self.world.now()
            self.data = {"schema": SCHEMA, "step": "restore", "id": stamp(now), "wish": wish.as_dict(), "begun_at": now, "done": [], "aside": self.aside}
        self.data.update(mode=mode, log=log, owner=owner, started_at=self.world.now(), finished_at=None, ok=None, text=None, error=None)
        self.save()

    def end(self, **outcome: t.Any) -> None:
        """Write down how it ended."""
        self.data.update(outcome, finished_at=self.world.now())
        self.save()

    @property
    def id(self) -> str:
        """Names this restore in everything that it sets aside."""
        return t.cast(str, self.data.get("id", ""))

    @property
    def wish(self) -> Wish | None:
        """What is wanted; None where there was no restore yet."""
        found = self.data.get("wish")
        return Wish(**found) if found else None

    @property
    def unfinished(self) -> bool:
        """Whether data are between two states: something was stopped or exchanged, and it did not end."""
        return bool(self.data.get("under_way"))

    def under_way(self, value: bool) -> None:
        """Say that from here on, or not any more, somebody must finish what was begun."""
        self.data["under_way"] = value
        self.save()

    def has(self, step: str) -> bool:
        """Tell whether a step is done."""
        return step in self.data.get("done", [])

    def mark(self, step: str, **facts: t.Any) -> None:
        """Say that a step is done, and what was found in it."""
        if not self.has(step):
            self.data.setdefault("done", []).append(step)
        self.data.update(facts)
        self.save()

    def note(self, **facts: t.Any) -> None:
        """Write down what is known."""
        self.data.update(facts)
        self.save()

    @property
    def aside(self) -> list[Data]:
        """What was set aside and is still there, the oldest first: C(kind), C(name), C(of), C(at)."""
        return t.cast("list[Data]", self.data.setdefault("aside", []))

    def set_aside(self, kind: str, name: str, of: str) -> None:
        """Write down what is about to be set aside: before it is done, so that it is never forgotten."""
        if not any(entry["kind"] == kind and entry["name"] == name for entry in self.aside):
            self.aside.append({"kind": kind, "name": name, "of": of, "at": self.world.now(), "restore": self.id})
        self.save()

    def forget_aside(self, name: str) -> None:
        """Say that something is not aside any more."""
        self.data["aside"] = [entry for entry in self.aside if entry["name"] != name]
        self.save()


@contextlib.contextmanager
def lock(world: World) -> t.Iterator[None]:
    """Hold the lock of the host's restores. The kernel frees it with its owner.

    :raises AnchorageError: when another restore holds it.
    """
    world.make_directory(DIRECTORY, mode=0o711)
    with open(LOCK, "a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AnchorageError("Another restore runs on this host.", next_step="Follow it: anchorage restore --follow.") from error
        yield
