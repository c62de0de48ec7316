# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key that encrypts the backups of a host, and those before it whose backups are still kept.

Neither tool can change the key of what is saved already, so each key has repositories of its own, beside those of the key before. Their place follows from
the key: whoever has nothing but the key and the target finds them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing as t

from .errors import AnchorageError
from .layout import SECRETS
from .world import World

KEY = f"{SECRETS}/backup.json"

#: How a rotation proceeds: both keys are used; then nothing new goes to the former one.
SAVE, LEAVE = PHASES = ("save", "leave")

Data = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Former:
    """A key that was replaced, and what is kept under it.

    :arg number: the how manieth key of this host it is; it names its targets for people.
    :arg place: what stands behind the names of its repositories.
    :arg targets: the targets that have such repositories.
    :arg until: when they are removed, in seconds since the epoch; None while a rotation is under way and WAL goes there, too.
    :arg left: since when nothing new goes there, WAL neither.
    :arg gone: what is removed already, each as job@target.
    """

    number: int
    place: str
    targets: tuple[str, ...]
    until: float | None
    left: float | None = None
    gone: tuple[str, ...] = ()
    key: str = dataclasses.field(default="", repr=False)

    def name(self, target: str) -> str:
        """Return what its repositories at a target are called."""
        return f"{target}-before-{self.number + 1}"

    def as_dict(self) -> Data:
        """Return it as plain data, without the key."""
        return {"number": self.number, "place": self.place, "targets": list(self.targets), "until": self.until, "left": self.left}


@dataclasses.dataclass(frozen=True)
class Ring:
    """The keys of a host.

    :arg former: the newest first.
    :arg rotation: C(id), C(began_at) and C(phase) while one is under way.
    """

    key: str = dataclasses.field(repr=False)
    place: str = ""
    number: int = 1
    former: tuple[Former, ...] = ()
    rotation: Data | None = None

    @classmethod
    def parse(cls, data: Data) -> Ring:
        """Return what a file, or the answer of a host, holds."""
        former = tuple(
            Former(
                number=int(one["number"]),
                place=one["place"],
                targets=tuple(one["targets"]),
                until=one["until"],
                left=one.get("left"),
                gone=tuple(one.get("gone") or ()),
                key=one["key"],
            )
            for one in data.get("former") or ()
        )
        key = data["key"]
        if not isinstance(key, str) or not key:
            raise ValueError("it holds no key")
        return cls(key, data.get("place") or "", int(data.get("number") or 1), former, data.get("rotation") or None)

    def as_dict(self) -> Data:
        """Return it as it is kept: a host whose key was never rotated has nothing but its key."""
        found: Data = {"key": self.key}
        if self.place:
            found["place"] = self.place
        if self.number > 1:
            found["number"] = self.number
        if self.former:
            found["former"] = [{**one.as_dict(), "gone": list(one.gone), "key": one.key} for one in self.former]
        if self.rotation:
            found["rotation"] = self.rotation
        return found

    @property
    def keys(self) -> dict[str, str]:
        """The keys by the place of what they encrypt."""
        return {**{one.place: one.key for one in self.former}, self.place: self.key}

    @property
    def told(self) -> Data:
        """What the document of the backups says of the keys: no key, and nothing where there was only one."""
        if not self.place and not self.former:
            return {}
        return {"place": self.place, "former": [one.as_dict() for one in self.former]}


def is_acceptable(key: str) -> bool:
    """Tell whether a key that somebody chose may be one: at least 32 printable characters without blanks."""
    return len(key) >= 32 and re.fullmatch(r"[\x21-\x7e]+", key) is not None


def place_of(key: str) -> str:
    """Return the place of what a key encrypts. It says nothing of the key: even for a poor one, a guess costs more than one at the tools' own files."""
    return hashlib.pbkdf2_hmac("sha256", key.encode(), b"anchorage backup place", 200_000).hex()[:8]


def read(world: World) -> Ring:
    """Return the keys of this host.

    :raises AnchorageError: when they are not there.
    """
    raw = world.read(KEY)
    try:
        return Ring.parse(json.loads(raw or b"{}"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnchorageError(
            f"The key of the backups ({KEY}) is {'damaged' if raw else 'missing'}; without it nothing can be saved or read back.",
            next_step="Give the key that was printed when it was made, as backup_key, and run provision.yml.",
        ) from error


def write(world: World, ring: Ring) -> None:
    """Keep the keys of this host."""
    world.write_atomic(KEY, (json.dumps(ring.as_dict(), indent=1, sort_keys=True) + "\n").encode(), mode=0o600, uid=0, gid=0)
