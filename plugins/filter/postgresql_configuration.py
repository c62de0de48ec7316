# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn memory, client networks and the user's settings into PostgreSQL's configuration."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_configuration
short_description: Compute PostgreSQL's configuration
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Computes settings from memory, lays the user's settings over them and parts them by what a change costs, a restart or a reload.
  - C(pg_stat_statements) is always among C(shared_preload_libraries).
positional: _input
options:
  _input:
    description: Settings of the user; each wins over what is computed.
    type: dict
    required: true
  memory_mb:
    description: Memory that PostgreSQL may use.
    type: int
    required: true
  client_addresses:
    description: Networks from which clients come over TLS.
    type: list
    elements: str
    default: []
  archive_command:
    description: Command that archives a segment of WAL; empty archives nothing.
    type: str
    default: ""
  archive_timeout_seconds:
    description: Seconds after which what was written is archived.
    type: int
    default: 60
  primary:
    description: Where the primary is that the server follows, with C(address) and C(port); empty for a server that follows none.
    type: dict
    default: {}
  replicas:
    description: The replicas of the server, each with C(name) and C(address).
    type: list
    elements: dict
    default: []
  name:
    description: Name of the host, after which its slot is called.
    type: str
    default: ""
  passfile:
    description: File with the password of a replica.
    type: str
    default: ""
  wal_max_mb:
    description: How much WAL is kept at most for a replica that is away.
    type: int
    default: 4096
  tls_file:
    description: PEM file with the key and the certificate that clients are shown; empty for what is there.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show what a server with 4 GB is told
  ansible.builtin.debug:
    msg: "{{ {'work_mem': '16MB'} | anchorage.vps.postgresql_configuration(memory_mb=4096) }}"
"""

RETURN = r"""
_value:
  description: The parted configuration; every value is as C(postgresql.conf) writes it.
  type: dict
  contains:
    restart:
      description: Settings whose change needs a restart.
      type: dict
    reload:
      description: Settings whose change needs a reload.
      type: dict
    clients:
      description: Client networks in canonical form.
      type: list
      elements: str
    replicas:
      description: Networks of the replicas in canonical form.
      type: list
      elements: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_settings import archived, configuration, replicated, shown


def postgresql_configuration(
    settings: t.Mapping[str, t.Any],
    *,
    memory_mb: int,
    client_addresses: t.Sequence[str] = (),
    archive_command: str = "",
    archive_timeout_seconds: int = 60,
    primary: t.Mapping[str, t.Any] | None = None,
    replicas: t.Sequence[t.Mapping[str, t.Any]] = (),
    name: str = "",
    passfile: str = "",
    wal_max_mb: int = 4096,
    tls_file: str = "",
) -> dict[str, t.Any]:
    """Return the parted configuration."""
    try:
        archive = archived(str(archive_command), int(archive_timeout_seconds))
        names = [str(replica["name"]) for replica in replicas]
        follows = replicated(primary=primary or {}, replicas=names, name=str(name), passfile=str(passfile), wal_max_mb=int(wal_max_mb))
        addresses = [str(replica["address"]) for replica in replicas]
        told = {**archive, **follows, **shown(str(tls_file)), **settings}
        return configuration(told, memory_mb=int(memory_mb), client_addresses=client_addresses, replica_addresses=addresses)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"postgresql_configuration": postgresql_configuration}
