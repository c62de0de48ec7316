# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling people that the verdict on a host has changed: once, when it has lasted, and again only when that could not be delivered.

A verdict that changes from look to look is not told at all: it has to be seen several times in a row. What was told is remembered on the disk, so
neither a boot nor a missed minute tells it twice.
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

    @property
    def wanted(self) -> bool:
        """Tell whether anybody is to be told."""
        return bool(self.webhook_url or self.command)


def notify_of(told: Data) -> Notify:
    """Return what provisioning left of it."""
    return Notify(**(told.get("notify") or {}))


def load(world: World) -> Data:
    """Return what is remembered; nothing where nothing is, or nothing that can be read."""
    try:
        known = json.loads(world.read(STATE) or b"{}")
    except ValueError:
        known = {}
    return known if isinstance(known, dict) else {}


def counted(grade: str, lowest: str) -> str:
    """Return a verdict as it counts: what is less bad than the lowest that people want to hear of is green."""
    return grade if ORDER.index(grade) >= ORDER.index(lowest) else GREEN


def entry(found: Data) -> Data:
    """Return what is remembered of a look: what was not green, in one sentence each."""
    amiss = {item["name"]: item["summary"] for item in found["parts"] if item["grade"] != GREEN}
    return {"at": found["at"], "grade": found["grade"], "seconds": found["seconds"], **({"amiss": amiss} if amiss else {})}


def remember(known: Data, found: Data, notify: Notify) -> tuple[Data, str | None]:
    """Add a look to what is remembered. Returns that, and the verdict that is to be told now, if any is.

    Nobody is told that a host is well that was never told to be otherwise.
    """
    grade = counted(found["grade"], notify.lowest)
    same = known.get("seen") == grade
    count = known.get("count", 0) + 1 if same else 1
    since = known.get("since") if same and known.get("since") else found["at"]
    history = [*known.get("history", []), entry(found)][-KEEP:]
    before = known.get("told", GREEN)
    state = {"told": before, "seen": grade, "count": count, "since": since, "history": history}
    return state, grade if grade != before and count >= notify.looks else None


def letter(host: str, before: str, grade: str, found: Data, since: float) -> tuple[str, str]:
    """Return subject and text for people."""
    amiss = [item for item in found["parts"] if item["grade"] != GREEN]
    if grade == GREEN:
        return f"{host} is well again", f"{host} is well again; it was {before} before. {found['summary']}\n"
    names = ", ".join(item["name"] for item in amiss if item["grade"] == found["grade"])
    lines = [f"{item['grade']}: {item['name']}: {item['message']}" for item in amiss]
    first = f"{host} is {grade} since {round(found['at'] - since)} s; it was {before} before."
    return f"{host} is {grade}: {names}", "\n".join([first, "", *lines, "", "On the host: anchorage health", ""])


def deliver(notify: Notify, subject: str, text: str, facts: Data, world: World) -> list[str]:
    """Tell it. Returns what went wrong, in words that hold no address."""
    wrong = []
    if notify.webhook_url:
        body = json.dumps({"text": f"{subject}\n{text}", "subject": subject, **facts})
        target = Target(notify.webhook_url, method="POST", headers={"Content-Type": "application/json"}, body=body, timeout_seconds=TIMEOUT_SECONDS)
        try:
            answer = fetch(target, monotonic=world.monotonic)
            if not 200 <= answer.status < 300:
                wrong.append(f"the webhook answered with status {answer.status} ({answer.excerpt!r})")
        except ProbeError as error:
            wrong.append(f"the webhook was not reached: {error.message}")
        except AnchorageError as error:
            wrong.append(f"the webhook's address is not valid: {error.message}")
    if notify.command:
        argv = [word.replace(SUBJECT, subject) for word in notify.command]
        done = world.run(argv, input=text, env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "LC_ALL": "C.UTF-8"}, timeout=TIMEOUT_SECONDS)
        if done.rc != 0:
            wrong.append(f"the command {argv[0]} ended with {done.rc} ({done.stderr.strip()[-200:]})")
    return wrong


def look_and_tell(found: Data, world: World, host: str) -> list[str]:
    """Remember a look, and tell whoever wants to know when the verdict has changed for good.

    What could not be delivered is tried again with the next look.

    :returns: what went wrong with telling.
    """
    notify = notify_of(settings(world))
    known = load(world)
    state, grade = remember(known, found, notify)
    wrong: list[str] = []
    if grade is not None:
        if notify.wanted:
            subject, text = letter(host, state["told"], grade, found, state["since"])
            parts = [{key: item[key] for key in ("name", "kind", "grade", "message")} for item in found["parts"] if item["grade"] != GREEN]
            facts = {"host": host, "grade": grade, "before": state["told"], "at": found["at"], "since": state["since"], "parts": parts}
            wrong = deliver(notify, subject, text, facts, world)
        if not wrong:
            state["told"] = grade
    world.make_directory(os.path.dirname(STATE), mode=0o755)
    world.write_atomic(STATE, json.dumps(state).encode(), mode=0o600)
    return wrong
