# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling people what has become bad on a host: once for each thing, when it has lasted, and once that all is well again.

A thing that was bad once is not told. One that is bad several times in a row is, and so is one that comes and goes for long. What each channel was
told is remembered on the disk and only once it was delivered, so neither a boot nor a broken channel tells anything twice or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from .app_health import AMBER, GREEN, RED, settings
from .errors import AnchorageError
from .http_probe import ProbeError, Target, fetch
from .world import World

Data = dict[str, t.Any]

STATE = "/var/lib/anchorage/health.json"
ORDER = (GREEN, AMBER, RED)

#: Looks that are remembered: a night's, at one each minute.
KEEP = 720
SUBJECT = "{subject}"
TIMEOUT_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Notify:
    """Whom to tell, what, and after how many looks."""

    webhook_url: str = dataclasses.field(default="", repr=False)
    command: t.Sequence[str] = ()
    lowest: str = RED
    looks: int = 2


def notify_of(told: Data) -> Notify:
    """Return what provisioning left of it."""
    given = told.get("notify") or {}
    return Notify(**{**given, "looks": int(given.get("looks", 2))})


def load(world: World) -> Data:
    """Return what is remembered; nothing where nothing is, or nothing that can be read."""
    try:
        known = json.loads(world.read(STATE) or b"{}")
    except ValueError:
        known = {}
    return known if isinstance(known, dict) else {}


def levels(lowest: str) -> tuple[str, ...]:
    """Return the verdicts that people want to hear of."""
    return ORDER[ORDER.index(lowest) :]


def entry(found: Data) -> Data:
    """Return what is remembered of a look: what was not green, in one sentence each."""
    amiss = {item["name"]: item["summary"] for item in found["parts"] if item["grade"] != GREEN}
    return {"at": found["at"], "grade": found["grade"], "seconds": found["seconds"], **({"amiss": amiss} if amiss else {})}


def windows(known: t.Mapping[str, str], found: Data, notify: Notify) -> dict[str, str]:
    """Return for each thing and level whether the last looks found it as bad as that: a 1 for each that did, the latest at the end.

    A thing is named C(red shop database). What was well in all of them is left out.
    """
    now = {f"{level} {item['name']}": ORDER.index(item["grade"]) >= ORDER.index(level) for level in levels(notify.lowest) for item in found["parts"]}
    size = 2 * notify.looks + 1
    grown = {name: (known.get(name, "") + ("1" if now.get(name) else "0"))[-size:] for name in {*known, *(name for name, bad in now.items() if bad)}}
    return {name: bits for name, bits in grown.items() if "1" in bits}


def is_bad(bits: str, looks: int) -> bool:
    """Tell whether a thing is bad for good: in as many looks in a row, or in most of the last ones, which is how something flaps."""
    return bits.endswith("1" * looks) or bits.count("1") > looks


def remember(known: Data, found: Data, notify: Notify) -> tuple[Data, list[str]]:
    """Add a look to what is remembered. Returns that, and what is bad for good."""
    seen = windows(known.get("windows") or {}, found, notify)
    bad = sorted(name for name, bits in seen.items() if is_bad(bits, notify.looks))
    history = [*(known.get("history") or []), entry(found)][-KEEP:]
    since = known.get("since") if known.get("since") and seen else found["at"]
    return {"windows": seen, "told": dict(known.get("told") or {}), "since": since, "history": history}, bad


def news(told: t.Sequence[str], bad: t.Sequence[str], seen: t.Mapping[str, str]) -> tuple[bool, list[str]]:
    """Return whether a channel is to be told, and what it will know then.

    It is told what it does not know, and when nothing is left of all that it knew. What is well again among other bad things is forgotten quietly,
    so that it is told when it comes back.
    """
    left = [name for name in told if name in seen]
    new = [name for name in bad if name not in left]
    return bool(new) or bool(told and not seen), sorted({*left, *bad})


def letter(host: str, bad: t.Sequence[str], found: Data, since: float) -> tuple[str, str]:
    """Return subject and text for people."""
    if not bad:
        return f"{host} is well again", f"{host} is well again. {found['summary']}\n"
    grade = subject_grade(bad)
    names = ", ".join(dict.fromkeys(name.partition(" ")[2] for name in bad if name.startswith(f"{grade} ")))
    lines = [f"{item['grade']}: {item['name']}: {item['message']}" for item in found["parts"] if item["grade"] != GREEN]
    first = f"{host} is not well since {round(found['at'] - since)} s."
    return f"{host} is {grade}: {names}", "\n".join([first, "", *lines, "", "On the host: anchorage diagnose", ""])


def post(notify: Notify, subject: str, text: str, facts: Data, world: World) -> str:
    """Tell the webhook. Returns what went wrong, in words that do not hold its address, which often is a secret."""
    body = json.dumps({"text": f"{subject}\n{text}", "subject": subject, **facts})
    target = Target(notify.webhook_url, method="POST", headers={"Content-Type": "application/json"}, body=body, timeout_seconds=TIMEOUT_SECONDS)
    try:
        answer = fetch(target, monotonic=world.monotonic)
    except ProbeError as error:
        return f"the webhook was not reached: {error.message}"
    except AnchorageError:
        return "the webhook's address is not valid"
    return "" if 200 <= answer.status < 300 else f"the webhook answered with status {answer.status} ({answer.excerpt!r})"


def run(notify: Notify, subject: str, text: str, _facts: Data, world: World) -> str:
    """Tell the command. Returns what went wrong."""
    argv = [word.replace(SUBJECT, subject) for word in notify.command]
    done = world.run(argv, input=text, env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "LC_ALL": "C.UTF-8"}, timeout=TIMEOUT_SECONDS)
    return "" if done.rc == 0 else f"the command {argv[0]} ended with {done.rc} ({done.stderr.strip()[-200:]})"


def channels(notify: Notify) -> dict[str, t.Callable[[Notify, str, str, Data, World], str]]:
    """Return the ways to people that are wanted, by name."""
    return {**({"webhook": post} if notify.webhook_url else {}), **({"command": run} if notify.command else {})}


def look_and_tell(found: Data, world: World, host: str) -> list[str]:
    """Remember a look, and tell each channel what it does not know yet.

    What could not be delivered is tried again with the next look, and by that channel only.

    :returns: what went wrong with telling.
    """
    notify = notify_of(settings(world))
    state, bad = remember(load(world), found, notify)
    wrong = []
    for name, tell in channels(notify).items():
        before = state["told"].get(name) or []
        due, knows = news(before, bad, state["windows"])
        if due:
            subject, text = letter(host, bad, found, state["since"])
            parts = [{key: item[key] for key in ("name", "kind", "grade", "message")} for item in found["parts"] if item["grade"] != GREEN]
            facts = {"host": host, "grade": subject_grade(bad), "at": found["at"], "since": state["since"], "parts": parts}
            failed = tell(notify, subject, text, facts, world)
            if failed:
                wrong.append(failed)
                continue
        state["told"][name] = knows
    world.make_directory(os.path.dirname(STATE), mode=0o755)
    world.write_atomic(STATE, json.dumps(state).encode(), mode=0o600)
    return wrong


def subject_grade(bad: t.Sequence[str]) -> str:
    """Return the worst verdict of what is bad."""
    return max((name.partition(" ")[0] for name in bad), key=ORDER.index, default=GREEN)
