# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words that every module of the collection says alike about its attributes."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of a module; each module states its own support."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
"""

    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: This action does not modify state.
  diff_mode:
    support: N/A
    description: This action does not modify state.
  idempotent:
    support: full
    description: This action does not modify state.
"""
