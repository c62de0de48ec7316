# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that nobody was asked for: made once on a host, kept there, never made twice; and how far it is with making them anew."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import typing as t

from . import rotation
from .errors import AnchorageError
from .layout import SECRETS
from .world import World


def missing(kept: t.Mapping[str, str], wanted: t.Iterable[str]) -> list[str]:
    """Return the names that still have to be made."""
    return sorted({name for name in wanted if not kept.get(name)})


def make(length: int) -> str:
    """Return a new secret: hexadecimal, so that it needs no quoting in a URL, a shell, an env file or SQL.

    :arg length: number of characters; two of them carry a byte of randomness.
    """
    return secrets.token_hex((length + 1) // 2)[:length]


def path_of(app: str) -> str:
    """Return where an app's secrets are kept."""
    return f"{SECRETS}/{app}.json"


def state_path(app: str) -> str:
    """Return where it is kept how far a rotation is, with old and new values; no app's name holds a dot."""
    return f"{SECRETS}/{app}.rotation.json"


@contextlib.contextmanager
def alone() -> t.Iterator[None]:
    """Let one at a time change what is kept on this host."""
    handle = os.open(SECRETS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read(world: World, app: str) -> tuple[dict[str, str], rotation.Data]:
    """Return an app's secrets as they are kept, and the state of its rotations.

    :raises AnchorageError: when one of the files is damaged.
    """
    return _read(world, app, path_of(app)), _read(world, app, state_path(app))


def under_way(world: World) -> dict[str, rotation.Data | None]:
    """Return the apps whose secrets are being rotated on this host, with how far that is; None where its file cannot be read."""
    found: dict[str, rotation.Data | None] = {}
    suffix = state_path("").rpartition("/")[2]
    for name in world.listdir(SECRETS):
        if not name.endswith(suffix):
            continue
        app = name[: -len(suffix)]
        try:
            pending = _read(world, app, state_path(app)).get("pending")
        except AnchorageError:
            found[app] = None
            continue
        if pending:
            found[app] = pending
    return found


def _read(world: World, app: str, path: str) -> dict[str, t.Any]:
    raw = world.read(path)
    try:
        kept = {} if raw is None else json.loads(raw)
        if not isinstance(kept, dict):
            raise ValueError("it is no mapping")
    except ValueError as error:
        raise AnchorageError(
            f"The secrets file {path} is damaged: {error}. New secrets would lock {app} out of its own data, so none were made.",
            next_step=f"Restore {path} from the backup.",
        ) from error
    return kept


def _write(world: World, path: str, data: t.Mapping[str, t.Any]) -> None:
    world.write_atomic(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode(), mode=0o600, uid=0, gid=0)


def ensure(world: World, app: str, wanted: t.Mapping[str, int], *, check: bool, given: t.Mapping[str, str] | None = None) -> tuple[rotation.Data, list[str]]:
    """Return an app's secrets as they are in force, and the names of those that were (or in check mode would be) made.

    :arg wanted: length of each secret by its name.
    :arg given: secrets that somebody chose; they are kept where there is none yet.
    :raises AnchorageError: when a file is damaged, or keeps another secret than was given: a new one would lock the app out of its data.
    """
    kept, state = read(world, app)
    for name, value in (given or {}).items():
        if kept.get(name) not in (None, "", value):
            raise AnchorageError(
                f"{path_of(app)} keeps another {name} than the one that was given; what was made with the former could not be read any more.",
                next_step=f"Leave the given {name} out of the inventory, or give the one that is kept."
                + (" To put the given one in its place: rotate_backup_key.yml." if app == "backup" else ""),
            )
    new = missing(kept, [*wanted, *(given or {})])
    if new and not check:
        kept.update({name: (given or {}).get(name) or make(wanted[name]) for name in new})
        _write(world, path_of(app), kept)
    return rotation.in_force(kept, state), new


def whole(world: World, app: str) -> rotation.Data:
    """Return all that is kept of an app, for a host that may have to take over."""
    values, state = read(world, app)
    return {"values": values, "state": state}


def take(world: World, app: str, given: rotation.Data, *, check: bool) -> bool:
    """Keep of an app what another host keeps, whatever was kept here. Returns whether that is (or in check mode would be) a change."""
    if whole(world, app) == given:
        return False
    if not check:
        _write(world, path_of(app), given["values"])
        if given["state"] or world.exists(state_path(app)):
            _write(world, state_path(app), given["state"])
    return True


def begin(world: World, app: str, chosen: t.Sequence[rotation.Data]) -> rotation.Data:
    """Begin a rotation. Returns its state."""
    values, state = read(world, app)
    state = rotation.begin(values, state, chosen, now=world.now(), name=make(12), make=make)
    _write(world, state_path(app), state)
    return state


def check(world: World, app: str, chosen: t.Sequence[rotation.Data]) -> None:
    """Try to begin a rotation, and keep nothing of it.

    :raises AnchorageError: when it could not begin.
    """
    rotation.begin(*read(world, app), chosen, now=world.now(), name="", make=make)


def advance(world: World, app: str, phase: str, name: str) -> bool:
    """Go on to the next state of a rotation. Returns whether it was not reached already."""
    _values, state = read(world, app)
    further = rotation.advance(state, phase, now=world.now(), name=name)
    if further == state:
        return False
    _write(world, state_path(app), further)
    return True


def finish(world: World, app: str, name: str) -> None:
    """End a rotation whose old credentials are refused."""
    values, state = rotation.finish(*read(world, app), now=world.now(), name=name)
    _write(world, path_of(app), values)
    _write(world, state_path(app), state)
