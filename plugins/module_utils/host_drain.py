# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take this host out of the balance of its proxies, and put it back.

The edge of an app lets nobody new in: the kernel answers a new connection with a reset, so the proxy has sent nothing and asks another host, a POST as well.
Who is connected stays until the answer is there. No proxy has to be told, whatever their number, and a host that restarts stays out until somebody puts it
back, since the rule lies where the firewall reads its rules at boot.
"""

from __future__ import annotations

import json
import typing as t

from . import drain
from .app import App, Log
from .errors import AnchorageError
from .journal import Journal
from .layout import STATE, Layout
from .runtime import SWARM, name_of
from .world import World

RECORD = f"{STATE}/drained.json"

#: nftables.service of the role base reads what lies there, at boot too.
RULES_DIRECTORY = "/etc/nftables.d"
RULES = f"{RULES_DIRECTORY}/anchorage-drained.nft"
TABLE = "inet anchorage_drained"

PAUSE = 0.25

Data = dict[str, t.Any]


def drained(world: World) -> dict[str, Data]:
    """Return the apps that are out of the balance on this host: C(since) when, at which C(port), and whether only because they are C(new) here."""
    raw = world.read(RECORD)
    try:
        return {
            str(name): {"since": float(told["since"]), "port": int(told["port"]), "new": bool(told["new"])} for name, told in json.loads(raw or b"{}").items()
        }
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise AnchorageError(f"{RECORD} is damaged: {error!r}.", next_step=f"Remove it and {RULES}, then: nft delete table {TABLE}") from error


def rules(ports: t.Iterable[int]) -> str:
    """Return what the firewall is told. It replaces its own table only."""
    named = ", ".join(str(port) for port in sorted(ports))
    return (
        "# Written by anchorage drain: these apps of this host are out of their proxies' balance. anchorage undrain puts them back.\n"
        f"table {TABLE}\ndelete table {TABLE}\n\n"
        f"table {TABLE} {{\n"
        "    chain input {\n"
        "        type filter hook input priority filter - 5; policy accept;\n"
        f"        tcp dport {{ {named} }} ct state new reject with tcp reset\n"
        "    }\n"
        "}\n"
    )


def out(world: World, log: Log, apps: t.Sequence[App], *, seconds: float | None = None) -> Data:
    """Take apps out of the balance, and come back when nobody is connected any more.

    :arg seconds: how long those who are connected may take; what the contract gives their processes where it is None.
    :raises AnchorageError: when an app has no edge here, or the firewall does not take the rule: then nothing is changed.
    """
    moved = [app.name for app in apps if name_of(app.document) == SWARM]
    if moved:
        raise AnchorageError(
            f"The tasks of {' and '.join(moved)} are moved by the Swarm, not by the proxies.",
            what="draining this host",
            next_step=f"On a manager: docker node update --availability drain {apps[0].document['host']}; afterwards --availability active.",
        )
    alone = [app.name for app in apps if not app.document.get("edge")]
    if alone:
        raise AnchorageError(
            f"{' and '.join(alone)} can be taken out of no balance: this host is the only one that serves, and its own proxy.",
            what="draining this host",
            next_step="Announce a break, and stop Nginx for it.",
        )
    before = drained(world)
    wanted = {**{app.name: _told(world, app.document["edge"]["port"]) for app in apps}, **before}
    # Who is drained on purpose does not come back with its first release.
    wanted = {name: {**told, "new": told["new"] and name not in {app.name for app in apps}} for name, told in wanted.items()}
    changed = wanted != before
    _write(world, wanted)
    if changed:
        log.say(f"{', '.join(app.name for app in apps)}: nobody new is let in; the proxies ask other hosts")
    limit = seconds if seconds is not None else max([drain.longest(app.document) for app in apps], default=0.0)
    left = _wait(world, {app.document["edge"]["port"]: app.name for app in apps}, limit)
    for name, count in left.items():
        log.say(f"{name}: {count} still connected after {limit:.0f} s; they are not waited for")
    return {"changed": changed, "apps": sorted(wanted), "connected": sum(left.values())}


def keep_out_new(world: World, edges: t.Mapping[str, int], *, check: bool = False) -> Data:
    """Let nobody in to apps of which no release was ever live here; the first one that is lets them in.

    So proxies may learn of a host before it can serve: a POST that reached its edge and met nobody could not be asked of another host.

    :arg edges: port of the edge of each app.
    :arg check: only say what would be done.
    """
    before = drained(world)
    new = {name: port for name, port in edges.items() if name not in before and Journal(Layout(name, "").journal, name, world).live is None}
    if new and not check:
        _write(world, {**before, **{name: _told(world, port, new=True) for name, port in new.items()}})
    return {"changed": bool(new), "apps": sorted({*before, *new})}


def first_release(world: World, log: Log, name: str) -> None:
    """Let proxies in to an app that was new on this host until now."""
    if drained(world).get(name, {}).get("new"):
        back(world, log, [name])


def _told(world: World, port: int, *, new: bool = False) -> Data:
    return {"since": world.now(), "port": port, "new": new}


def back(world: World, log: Log, names: t.Collection[str] | None = None) -> Data:
    """Put apps back into the balance.

    :arg names: all that are out where it is None.
    """
    before = drained(world)
    rest = {name: told for name, told in before.items() if names is not None and name not in names}
    # A rule without a record is what a kill in the middle has left.
    if rest == before and (rest or not world.exists(RULES)):
        return {"changed": False, "apps": sorted(rest)}
    _write(world, rest)
    log.say(f"{', '.join(sorted(set(before) - set(rest))) or 'this host'}: back in the balance")
    return {"changed": True, "apps": sorted(rest)}


def _write(world: World, wanted: dict[str, Data]) -> None:
    """Bring the firewall and the record to what is wanted; the rule is there before the record says so, and goes after it."""
    ports = sorted({told["port"] for told in wanted.values()})
    if ports and not world.exists(RULES_DIRECTORY):
        raise AnchorageError(
            f"The firewall of this host reads no rules from {RULES_DIRECTORY}, so a restart would put it back by itself.",
            what="draining this host",
            next_step="Set base_firewall_enabled: true, and run provision.yml for this host.",
        )
    if ports:
        kept = world.read(RULES)
        world.write_atomic(RULES, rules(ports).encode(), mode=0o644)
        try:
            _nft(world, "-f", RULES)
        except AnchorageError:
            world.remove(RULES) if kept is None else world.write_atomic(RULES, kept, mode=0o644)
            raise
    world.write_atomic(RECORD, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode(), mode=0o644)
    if not ports:
        world.remove(RULES)
        # Replaced by an empty one first, so that it may be deleted whether it was there or not.
        _nft(world, f"table {TABLE}; delete table {TABLE}")


def _nft(world: World, *words: str) -> None:
    done = world.run(["nft", *words], timeout=20)
    if done.rc != 0:
        raise AnchorageError(
            f"The firewall did not take the rule: {done.stderr.strip()[:300] or done.rc}.",
            what="draining this host",
            next_step=f"nft -f {RULES} says more; then run it again.",
        )


def _wait(world: World, names: dict[int, str], limit: float) -> dict[str, int]:
    """Wait until nobody is connected to edges, for a while without a break. Returns how many are left of each app when the time is over."""
    ends = world.monotonic() + limit
    quiet_since: float | None = None
    while True:
        found = drain.connections(world, names)
        now = world.monotonic()
        if found:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = now
        if quiet_since is not None and now - quiet_since >= drain.QUIET:
            return {}
        if now >= ends:
            return {names[port]: count for port, count in found.items()}
        world.sleep(PAUSE)
