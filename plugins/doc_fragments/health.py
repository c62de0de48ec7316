# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every health module has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """How long and how often to ask, and what an unhealthy verdict means."""

    DOCUMENTATION = r"""
options:
  interval_seconds:
    description: Pause between two probes.
    type: float
    default: 1
  successes:
    description:
      - How many probes in a row must be healthy.
      - A value above V(1) excludes a service that answers well only now and then.
    type: int
    default: 1
  fail:
    description:
      - Whether the task fails when the verdict is unhealthy.
      - With V(false) the task is ok and the verdict is in RV(ignore:healthy), for a report or a rescue of your own.
      - A question that makes no sense, such as a regular expression that is not valid, fails in both cases.
    type: bool
    default: true
notes:
  - The module only looks. It never reports a change and does in check mode exactly what it does outside of it.
  - A check with verdict V(warn) does not make the whole unhealthy.
"""
