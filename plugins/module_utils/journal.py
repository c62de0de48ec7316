# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of an app: which releases lie on this host, what was done to them, which one is live.

Lock, plan, history, rollback target and status all read it. It is one JSON document that is replaced
atomically and fsynced, so a reader (and a machine that comes back from a power cut) sees a whole one.
"""

from __future__ import annotations

import json
import typing as t

from .errors import AnchorageError

SCHEMA = 1
HISTORY = 200


class Store(t.Protocol):
    """The part of World that the journal needs."""

    def read(self, path: str) -> bytes | None: ...

    def write_atomic(self, path: str, data: bytes, *, mode: int) -> None: ...

    def now(self) -> float: ...


def empty(app: str) -> dict[str, t.Any]:
    """Return the journal of an app that has no release yet."""
    return {"schema": SCHEMA, "app": app, "live": None, "slot": None, "tree": None, "previous": None, "switch": None, "releases": {}, "history": []}


class Journal:
    """One app's journal on one host.

    :arg path: the file.
    :arg app: the name that a new journal gets.
    :arg store: where files and the time come from.
    :raises AnchorageError: when the file is damaged, or of a newer engine.
    """

    def __init__(self, path: str, app: str, store: Store) -> None:
        self.path = path
        self.store = store
        raw = store.read(path)
        self.data = empty(app) if raw is None else self._parse(raw)
        self._written = self._text()

    def _parse(self, raw: bytes) -> dict[str, t.Any]:
        try:
            data = json.loads(raw)
            schema = data["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise AnchorageError(
                f"The journal {self.path} is damaged: {error}.",
                next_step=f"Move {self.path} away and deploy again; what runs keeps running until then.",
            ) from error
        if schema > SCHEMA:
            raise AnchorageError(
                f"The journal {self.path} has schema {schema}, this engine knows {SCHEMA}.",
                next_step="Install the collection's newer version on the controller and run deploy.yml.",
            )
        return t.cast("dict[str, t.Any]", data)

    def save(self) -> None:
        """Write the journal so that it survives a power cut. What cannot be written was not said."""
        text = self._text()
        try:
            self.store.write_atomic(self.path, text, mode=0o644)
        except Exception:
            self.data = json.loads(self._written)
            raise
        self._written = text

    def _text(self) -> bytes:
        return (json.dumps(self.data, indent=1, sort_keys=True) + "\n").encode()

    @property
    def live(self) -> str | None:
        """The release that serves."""
        return t.cast("str | None", self.data["live"])

    @property
    def slot(self) -> str | None:
        """The slot it serves from."""
        return t.cast("str | None", self.data["slot"])

    def release(self, release: str) -> dict[str, t.Any]:
        """Return what is known of a release; nothing where it is not known."""
        return t.cast("dict[str, t.Any]", self.data["releases"].get(release, {}))

    def says(self, release: str, state: str) -> bool:
        """Tell whether a release has reached a state."""
        return f"{state}_at" in self.release(release)

    def mark(self, release: str, state: str, **facts: t.Any) -> None:
        """Say that a release has reached a state, and write it down."""
        entry = self.data["releases"].setdefault(release, {"id": release})
        entry[f"{state}_at"] = self.store.now()
        entry.update(facts)
        self.note(state, release)

    def note(self, event: str, release: str | None, **facts: t.Any) -> None:
        """Add a line to the history, and write the journal."""
        self.data["history"].append({"at": self.store.now(), "event": event, "release": release, **facts})
        del self.data["history"][:-HISTORY]
        self.save()

    @property
    def switch(self) -> dict[str, t.Any] | None:
        """The switch that has begun and was neither confirmed nor taken back: release, slot, from_release, from_slot, at."""
        return t.cast("dict[str, t.Any] | None", self.data.get("switch"))

    def begin_switch(self, release: str, slot: str, *, from_release: str | None, from_slot: str | None) -> None:
        """Say what is about to change, so that whoever finds it unfinished knows the way back."""
        self.data["switch"] = {"release": release, "slot": slot, "from_release": from_release, "from_slot": from_slot, "at": self.store.now()}
        self.note("began", release, slot=slot)

    def end_switch(self, event: str) -> None:
        """Say that a switch was taken back."""
        release = (self.switch or {}).get("release")
        self.data["switch"] = None
        self.note(event, release)

    def should_live(self) -> tuple[str | None, str | None]:
        """Return release and slot that ought to serve: during a switch the old one, until the new one is confirmed."""
        if self.switch is not None:
            return self.switch["from_release"], self.switch["from_slot"]
        return self.live, self.slot

    @property
    def unsettled(self) -> bool:
        """Whether the host may still differ from what this journal says."""
        return self.switch is not None or bool(self.data.get("unsettled"))

    def unsettle(self) -> None:
        """Say that what runs may not be what this journal says."""
        self.data["unsettled"] = True
        self.save()

    def settled(self) -> None:
        """Say that proxy, boot and processes are what this journal says."""
        self.data["unsettled"] = False
        self.save()

    def go_live(self, release: str, slot: str, tree: str, *, leaving: str | None = None) -> None:
        """Say that a release serves now, from which slot and which tree. This one write is the confirmation.

        :arg leaving: the release that is gone back from, so that the next way back does not lead to it.
        """
        self.data["switch"], self.data["unsettled"] = None, True
        if leaving in self.data["releases"] and leaving != release:
            self.data["releases"][leaving]["left_at"] = self.store.now()
        if self.live != release:
            self.data["previous"] = self.live
            self.data["back_from"] = leaving
        self.release(release).pop("left_at", None)
        self.data["tree"] = tree
        self.data["live"] = release
        self.data["slot"] = slot
        self.mark(release, "proven", slot=slot)

    @property
    def back_from(self) -> str | None:
        """The release that was gone back from to the live one; None where a deploy brought the live one."""
        return t.cast("str | None", self.data.get("back_from"))

    def forget(self, release: str) -> None:
        """Drop a release that was removed from the disk."""
        self.data["releases"].pop(release, None)
        self.note("pruned", release)

    def restore_points(self) -> list[dict[str, t.Any]]:
        """Return the restore points that are kept, the oldest first."""
        return t.cast("list[dict[str, t.Any]]", self.data.setdefault("restore_points", []))

    def add_restore_point(self, point: dict[str, t.Any]) -> None:
        """Write down a restore point, and which release it was taken for."""
        self.data["restore_points"] = [*self.restore_points(), point]
        self.note("restore point", point["release"], path=point["path"])

    def settle_restore_points(self, release: str) -> None:
        """Say that the migration for which these were taken has succeeded, and as which release."""
        for point in self.restore_points():
            if point.get("pending"):
                point.update(pending=False, migrated=release)
        self.save()

    def drop_restore_point(self, path: str) -> None:
        """Forget one that was removed."""
        self.data["restore_points"] = [point for point in self.restore_points() if point["path"] != path]
        self.save()
