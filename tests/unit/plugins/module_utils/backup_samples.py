# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role backup leaves on a host, for the tests of everything that reads it."""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils.backup_keys import Former, Ring

KEY = "0123456789abcdef" * 4

LOCAL = {"name": "local", "type": "local", "path": "/var/backups/anchorage", "jobs": ["database", "files"]}
OFFSITE = {
    "name": "offsite",
    "type": "s3",
    "path": "shop",
    "jobs": ["database", "files"],
    "endpoint": "https://s3.example.com:9000",
    "bucket": "backups",
    "region": "eu-central-1",
    "access_key": "AKIDEXAMPLE",
    "secret_key": "s3-secret",
    "ca_file": "/etc/ssl/certs/ca-certificates.crt",
}
VAULT = {"name": "vault", "type": "ssh", "path": "shop", "jobs": ["files"], "host": "vault.example.com", "port": 2222, "user": "backup", "known_hosts": "x"}

DOCUMENT: dict[str, t.Any] = {
    "schema": 1,
    "targets": [LOCAL],
    "archive": {"version": "17", "cluster": "main", "port": 5432, "stanza": "main"},
    "databases": [{"name": "shop", "method": "archive", "app": "shop", "owner": "shop"}],
    "apart": [],
    "redis": [{"name": "shop-jobs", "app": "shop"}],
    "paths": ["/etc/anchorage", "/srv/shop/shared"],
    "excludes": ["/var/lib/anchorage/backup"],
    "retention_days": 30,
    "full_days": 7,
    "proof": {"max_age_days": 9, "deploys": "warn"},
    "ages": {"database_hours": 26, "files_hours": 3, "apart_hours": 26},
    "timeouts": {"database_seconds": 14400, "files_seconds": 7200, "proof_seconds": 14400},
}


def document(**changes: t.Any) -> dict[str, t.Any]:
    """Return the document with some of its keys replaced."""
    return {**copy.deepcopy(DOCUMENT), **changes}


#: A host whose key was rotated: what the former one has saved is still there, at two targets.
NEW_KEY = "fedcba9876543210" * 4
PLACE = "abcd0123"


def ring(until: float | None = 1_900_000_000.0) -> Ring:
    """Return the keys of such a host; with no C(until), its rotation is under way."""
    return Ring(NEW_KEY, PLACE, 2, (Former(1, "", ("local", "offsite"), until, until and until - 30 * 86400, key=KEY),))
