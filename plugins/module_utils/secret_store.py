# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that nobody was asked for: made once on a host, kept there, never made twice."""

from __future__ import annotations

import json
import secrets
import typing as t

from .errors import AnchorageError
from .layout import SECRETS
from .world import World


def missing(kept: t.Mapping[str, str], wanted: t.Mapping[str, int]) -> list[str]:
    """Return the names that still have to be made."""
    return sorted(name for name in wanted if not kept.get(name))


def make(length: int) -> str:
    """Return a new secret: hexadecimal, so that it needs no quoting in a URL, a shell, an env file or SQL.

    :arg length: number of characters; two of them carry a byte of randomness.
    """
    return secrets.token_hex((length + 1) // 2)[:length]


def ensure(world: World, app: str, wanted: t.Mapping[str, int], *, check: bool, given: t.Mapping[str, str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Return an app's secrets and the names of those that were (or in check mode would be) made.

    :arg wanted: length of each secret by its name.
    :arg given: secrets that somebody chose; they are kept where there is none yet.
    :raises AnchorageError: when the file is damaged, or keeps another secret than was given: a new one would lock the app out of its data.
    """
    path = f"{SECRETS}/{app}.json"
    raw = world.read(path)
    try:
        kept: dict[str, str] = {} if raw is None else json.loads(raw)
        new = missing(kept, wanted)
    except (ValueError, AttributeError) as error:
        raise AnchorageError(
            f"The secrets file {path} is damaged: {error}. New secrets would lock {app} out of its own data, so none were made.",
            next_step=f"Restore {path} from the backup.",
        ) from error
    for name, value in (given or {}).items():
        if kept.get(name) not in (None, "", value):
            raise AnchorageError(
                f"{path} keeps another {name} than the one that was given; what was made with the former could not be read any more.",
                next_step=f"Leave the given {name} out of the inventory, or give the one that is kept.",
            )
    new = [*new, *(name for name in sorted(given or {}) if name not in kept and name not in new)]
    if new and not check:
        kept.update({name: (given or {}).get(name) or make(wanted[name]) for name in new})
        world.write_atomic(path, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode(), mode=0o600, uid=0, gid=0)
    return kept, new
