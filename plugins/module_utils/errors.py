# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of the engine: a sentence that names the cause, and what an operator needs next."""

from __future__ import annotations

import typing as t


class AnchorageError(Exception):
    """Something that the operator must know.

    :arg message: one sentence; names the key, file or command that is at fault, never a secret's value.
    :arg what: the step or object that broke.
    :arg live: what serves right now.
    :arg next_step: the command or edit to do next.
    :arg details: evidence, shown as it is.
    """

    def __init__(
        self,
        message: str,
        *,
        what: str | None = None,
        live: str | None = None,
        next_step: str | None = None,
        **details: t.Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.what = what
        self.live = live
        self.next_step = next_step
        self.details = details

    def add(self, sentence: str) -> None:
        """Say one thing more about the cause."""
        self.message = f"{_ended(self.message)} {sentence}"
        self.args = (self.message,)

    def as_dict(self) -> dict[str, t.Any]:
        """Return the error as plain data, without the parts that are not known."""
        known = {"message": self.message, "what": self.what, "live": self.live, "next_step": self.next_step}
        data: dict[str, t.Any] = {key: value for key, value in known.items() if value is not None}
        if self.details:
            data["details"] = self.details
        return data

    def text(self) -> str:
        """Return the whole error as one paragraph for people."""
        parts = [_ended(self.message)]
        if self.what:
            parts.append(f"Broke: {self.what}.")
        if self.live:
            parts.append(f"Live now: {self.live}.")
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return " ".join(parts)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
