# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role backup; the documentation stands in the file of its name beside this one."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.backup_model import model
from ansible_collections.anchorage.vps.plugins.module_utils.contract_spec import plain
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError


def backup_model(options: t.Any) -> dict[str, t.Any]:
    """Return what lies on the host, or fail with every key that is wrong."""
    try:
        return model(plain(options))
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"backup_model": backup_model}
