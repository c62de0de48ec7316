# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn Redis instances into directories, files and units."""

from __future__ import annotations

DOCUMENTATION = r"""
name: redis_configuration
short_description: Compute the configuration of Redis instances
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Checks a list of Redis instances and returns their directories, files and units, as M(anchorage.vps.host_state) takes them.
  - Passwords appear in the result as SHA-256 only.
positional: _input
options:
  _input:
    description: Instances, as O(anchorage.vps.redis#role:main:redis_instances) describes them.
    type: list
    elements: dict
    required: true
  restart_on:
    description: Files that every instance loads when it starts.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what a cache is told
  ansible.builtin.debug:
    msg: "{{ [{'name': 'shop-cache', 'port': 6380, 'policy': 'allkeys-lru'}] | anchorage.vps.redis_configuration }}"
"""

RETURN = r"""
_value:
  description: State of the host.
  type: dict
  contains:
    directories:
      description: Data directory of each instance.
      type: list
      elements: dict
    files:
      description: Configuration and users of each instance.
      type: list
      elements: dict
    units:
      description: Unit of each instance.
      type: list
      elements: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.redis_instances import configuration


def redis_configuration(instances: t.Sequence[t.Mapping[str, t.Any]], *, restart_on: t.Sequence[str] = ()) -> dict[str, list[dict[str, t.Any]]]:
    """Return the state of the host."""
    try:
        return configuration(instances, restart_on=restart_on)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"redis_configuration": redis_configuration}
