# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role nodejs."""

from __future__ import annotations

import typing as t

from ..module_utils.node_runtime import refusals


class FilterModule:
    """Filters that judge people's input before anything is done."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"nodejs_refusals": refusals}
