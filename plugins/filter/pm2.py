# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role pm2."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import AnchorageError
from ..module_utils.pm2_host import model


def pm2_model(users: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Resolve PM2's users for host_state."""
    try:
        return model(users, **options)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from error


class FilterModule:
    """Filters that turn people's input into what the role needs."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"pm2_model": pm2_model}
