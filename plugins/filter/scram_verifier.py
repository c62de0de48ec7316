# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a SCRAM-SHA-256 verifier, so that PostgreSQL never sees the password itself."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scram_verifier
short_description: Make a SCRAM-SHA-256 verifier of a password
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Returns what PostgreSQL stores for a password. Sent in place of the password, it keeps the plain text out of statements, and so out
    of the server's log and of C(pg_stat_statements).
  - The salt is random, so two calls differ; ask M(anchorage.vps.postgresql_objects_info) whether a stored verifier is of this password.
positional: _input
options:
  _input:
    description: Password.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Give the role its password
  community.postgresql.postgresql_user:
    name: shop
    password: "{{ shop_database_password | anchorage.vps.scram_verifier }}"
  no_log: true
"""

RETURN = r"""
_value:
  description: Verifier.
  type: str
"""

import os
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_scram import SALT_BYTES, verifier


def scram_verifier(password: str) -> str:
    """Return a verifier with a new salt."""
    return verifier(password, salt=os.urandom(SALT_BYTES))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"scram_verifier": scram_verifier}
