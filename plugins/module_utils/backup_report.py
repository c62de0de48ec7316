# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proof of a backup has found so far."""

from __future__ import annotations

import typing as t

from .app import Log

#: Causes that a result names in full; the log has them all.
NAMED = 3


class Report:
    """Gathers facts and what is wrong.

    :arg log: where each is told as it is found.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.facts: dict[str, t.Any] = {}
        self.causes: list[str] = []

    def say(self, text: str) -> None:
        """Tell one line."""
        self.log.say(f"proof: {text}")

    def wrong(self, cause: str) -> None:
        """Note what is wrong with a backup. Bytes that a tool showed of a damaged file stay out."""
        cause = "".join(letter if letter.isprintable() else "?" for letter in cause).strip().rstrip(".")
        self.causes.append(cause)
        self.say(f"WRONG: {cause}")

    def ended(self, *, now: float, seconds: float) -> dict[str, t.Any]:
        """Return the result."""
        more = len(self.causes) - NAMED
        cause = "; ".join(self.causes[:NAMED]) + (f"; and {more} more" if more > 0 else "")
        self.say("good" if not self.causes else "FAILED")
        return {"finished": now, "ok": not self.causes, "cause": cause, "seconds": round(seconds, 1), "what": self.facts}
