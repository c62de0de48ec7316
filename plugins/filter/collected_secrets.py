# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the secrets that hosts keep together for all of them."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.contract_views import REPLICATION, database_hosts

DOCUMENTATION = r"""
name: collected_secrets
short_description: Secrets of all apps, as the hosts that keep them answered
description:
  - Takes the answers of M(anchorage.vps.app_secrets), which each host gives for the apps whose secrets it keeps.
  - Returns them by app.
  - Without an answer the secrets of an app are unknown. In check mode that is all right.
  - Otherwise the run is refused, since what would be written would lock the app out.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
positional: hostvars, register, check_mode
options:
  _input:
    description: The resolved contract.
    type: dict
    required: true
  hostvars:
    description: Variables of all hosts.
    type: dict
    required: true
  register:
    description: Name of the variable in which each host's answer was registered.
    type: str
    required: true
  check_mode:
    description: Whether unknown secrets may be left out.
    type: bool
    default: false
"""

EXAMPLES = r"""
secrets: "{{ contract | anchorage.vps.collected_secrets(hostvars, 'anchorage_app_secrets', ansible_check_mode) }}"
"""

RETURN = r"""
_value:
  description: For each app, its secrets by name.
  type: dict
"""


def collected_secrets(contract: dict[str, t.Any], hostvars: t.Any, register: str, check_mode: bool = False) -> dict[str, t.Any]:
    """Return the secrets by app."""
    found: dict[str, t.Any] = {}
    hosts = {name: app["secrets_host"] for name, app in contract["apps"].items()}
    places = database_hosts(contract)
    if len(places) > 1:
        hosts[REPLICATION] = places[0]
    for name, host in hosts.items():
        answer = hostvars[host].get(register) if host in hostvars else None
        kept = ((answer or {}).get("secrets") or {}).get(name)
        if kept is not None:
            found[name] = kept
        elif not check_mode:
            what = "The secrets of postgresql.replication" if name == REPLICATION else f"The secrets of apps.{name}"
            raise AnsibleFilterError(
                f"{what} are kept on {host}, which gave none in this run; nothing was changed. "
                f"Run without --limit and --tags, or with a limit that includes {host}."
            )
    return found


class FilterModule:
    """Filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter by name."""
        return {"collected_secrets": collected_secrets}
