# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the web roles."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.certbot import resolve_certificates
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.nginx import model


def nginx_model(sites: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """Resolve sites for the nginx role's templates."""
    try:
        return model(sites, **options)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from error


def certbot_model(certificates: t.Any, **options: t.Any) -> list[dict[str, t.Any]]:
    """Resolve certificates for the certbot role."""
    try:
        return resolve_certificates(certificates, **options)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from error


class FilterModule:
    """Filters that turn people's input into what the web roles need."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"nginx_model": nginx_model, "certbot_model": certbot_model}
