# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn the pools of databases into PgBouncer's configuration."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_pool_configuration
short_description: Compute PgBouncer's configuration
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Computes what PgBouncer is told, parted by what a change costs, and refuses what cannot be, such as pools that are larger than PostgreSQL.
  - There is no secret in it.
positional: _input
options:
  _input:
    description: The option O(anchorage.vps.postgresql#role:main:postgresql_pool) of the role P(anchorage.vps.postgresql#role).
    type: dict
    required: true
  configuration:
    description: PostgreSQL's own configuration, as P(anchorage.vps.postgresql_configuration#filter) returns it.
    type: dict
    required: true
  databases:
    description: Names of the databases that PostgreSQL has.
    type: list
    elements: str
    required: true
  version:
    description: Version of PgBouncer, such as V(1.18).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show what PgBouncer is told
  ansible.builtin.debug:
    msg: "{{ pool | anchorage.vps.postgresql_pool_configuration(configuration={} | anchorage.vps.postgresql_configuration(memory_mb=4096),
      databases=['shop'], version='1.24') }}"
  vars:
    pool: {port: 6432, databases: [{name: shop, mode: transaction, size: 20}]}
"""

RETURN = r"""
_value:
  description: The parted configuration.
  type: dict
  contains:
    restart:
      description: Settings whose change needs a restart.
      type: dict
    reload:
      description: Settings whose change needs a reload.
      type: dict
    databases:
      description: Name of each database to where it is.
      type: dict
    clients:
      description: Client networks in canonical form.
      type: list
      elements: str
    stop_signal:
      description: The signal that ends it at once.
      type: str
    document:
      description: What health and a promotion have to know.
      type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_pool import configuration as pool_configuration

CERTIFICATE = "/etc/ssl/certs/ssl-cert-snakeoil.pem"
KEY = "/etc/ssl/private/ssl-cert-snakeoil.key"


def postgresql_pool_configuration(
    pool: t.Mapping[str, t.Any], *, configuration: t.Mapping[str, t.Any], databases: t.Sequence[str], version: str
) -> dict[str, t.Any]:
    """Return the parted configuration."""
    told = {**configuration["restart"], **configuration["reload"]}
    numbers = str(version).split(".")
    try:
        return pool_configuration(
            {"port": 6432, **pool},
            port=int(_bare(told["port"])),
            max_connections=int(_bare(told["max_connections"])),
            databases=[str(name) for name in databases],
            client_addresses=configuration["clients"],
            # The same certificate as PostgreSQL's, which is Debian's own unless a setting says otherwise.
            certificate=_bare(told.get("ssl_cert_file", CERTIFICATE)),
            key=_bare(told.get("ssl_key_file", KEY)),
            version=(int(numbers[0]), int(numbers[1])),
        )
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


def _bare(text: t.Any) -> str:
    return str(text).strip("'")


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"postgresql_pool_configuration": postgresql_pool_configuration}
