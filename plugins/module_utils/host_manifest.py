# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What provisioning left on this host, so that the host alone can tell which files somebody has changed since.

Only digests are kept, never contents. A file that provisioning does not manage is not known here.
"""

from __future__ import annotations

import json
import os
import typing as t

from .errors import AnchorageError
from .health import WARN, Check, judge
from .host_state_tree import Entry, Tree, matches
from .world import World

FILES = "/var/lib/anchorage/files.json"
#: What is kept of a path that provisioning itself has removed.
REMOVED = "removed"
KEPT = ("kind", "path", "owner", "group", "mode", "sha256", "target", "secret")


def known(world: World, path: str = FILES) -> dict[str, Entry] | None:
    """Return what was left, by path; None where nothing is known, or it cannot be read."""
    raw = world.read(path)
    try:
        data = json.loads(raw) if raw else None
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def remember(world: World, entries: t.Iterable[Entry], *, path: str = FILES) -> None:
    """Keep what the entries are, and of what was to be absent that it was removed. Nothing is written where nothing is new."""
    before = known(world, path)
    after = dict(before or {})
    for entry in entries:
        if entry["kind"] in ("file", "link"):
            after[entry["path"]] = {key: entry[key] for key in KEPT if key in entry}
        elif entry["kind"] == "absent":
            below = [name for name in after if name.startswith(f"{entry['path']}/")]
            after = {name: kept for name, kept in after.items() if name not in below}
            after.update({name: {"kind": REMOVED} for name in (entry["path"], *below)})
    if after != (before or {}):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        world.write_atomic(path, json.dumps(after, sort_keys=True).encode(), mode=0o600)


def forget(world: World, patterns: t.Iterable[str], wanted: t.Iterable[str], gone: t.Callable[[str], bool], *, path: str = FILES) -> None:
    """Keep of files that are to be absent, and are gone already, that they were removed.

    :arg gone: tells whether nothing lies at a path.
    """
    stay = {*wanted}
    listed = [*patterns]
    entries = known(world, path) or {}
    left = [name for name, kept in entries.items() if kept["kind"] != REMOVED and name not in stay and any(matches(pattern, name) for pattern in listed)]
    remember(world, [{"kind": "absent", "path": name} for name in left if gone(name)], path=path)


def was_removed(world: World, name: str, *, path: str = FILES) -> bool:
    """Tell whether provisioning itself has removed a file."""
    return ((known(world, path) or {}).get(name) or {}).get("kind") == REMOVED


def differences(entries: t.Mapping[str, Entry], tree: Tree) -> dict[str, str]:
    """Return what has changed since, by path and in a few words."""
    found = {}
    for path, entry in sorted(entries.items()):
        if entry["kind"] == REMOVED:
            continue
        try:
            off = tree.off(entry)
        except (AnchorageError, OSError) as error:
            found[path] = str(error).replace(f"{path} ", "", 1)
            continue
        if off is None:
            continue
        if off["before"] is None:
            found[path] = "is gone"
        elif isinstance(off["after"], dict) and "kind" not in off["after"]:
            found[path] = "has " + " and ".join("other content" if key == "content" else f"{key} {off['before'][key]}" for key in off["after"])
        else:
            found[path] = "is something else"
    return found


def judge_files(world: World, tree: Tree | None = None, *, path: str = FILES) -> Check:
    """Judge whether the managed files are as provisioning left them."""
    entries = known(world, path)
    if entries is None:
        return Check("files", WARN, {"known": 0}, "this host was not provisioned since it keeps a record of its files", "provision.yml")
    found = differences(entries, tree or Tree())
    some = [f"{name} {words}" for name, words in [*found.items()][:5]] + ([f"and {len(found) - 5} more"] if len(found) > 5 else [])
    advice = (
        "provision.yml --check --diff shows it, and without --check puts it back; what is to stay belongs into the inventory;"
        f" where a file is gone for good, remove {path} and run provision.yml"
    )
    cause = f"changed since provisioning: {', '.join(some)}"
    return judge(
        "files",
        not found,
        evidence={"known": sum(entry["kind"] != REMOVED for entry in entries.values()), "changed": found},
        cause=cause,
        advice=advice,
        severity=WARN,
    )
