# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts that verify.yml registered for a host; documentation stands beside this file."""

from __future__ import annotations

import typing as t

Data = dict[str, t.Any]

#: What verify.yml registers.
REGISTER = "anchorage_health"


def all_verdicts(variables: t.Any) -> list[Data]:
    """Return all verdicts of a host, out of its variables; a host that did not answer is a red one."""
    answer = variables[REGISTER] if REGISTER in variables else {}  # noqa: SIM401 - hostvars has no get() that templates.
    if answer.get("parts"):
        return [{key: part[key] for key in ("name", "kind", "grade", "summary", "message", "checks")} for part in answer["parts"]]
    if answer.get("grade") == "green":  # it was asked of something that is not here
        said = "There is nothing of this kind on this host."
        return [{"name": "host", "kind": "host", "grade": "green", "summary": said, "message": said, "checks": []}]
    said = answer.get("msg") or "the host was not reached"
    return [{"name": "host", "kind": "host", "grade": "red", "summary": said, "message": said, "checks": []}]


class FilterModule:
    """Filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"all_verdicts": all_verdicts}
