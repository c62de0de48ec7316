#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_health
short_description: Prove by evidence that a PostgreSQL database is healthy for its application
description:
  - Logs in as the application does, asks the server about itself, measures the latency of statements and writes.
  - The write goes to a temporary table that ends with its transaction. It is committed, so a full disk or a read-only server shows.
    On a standby nothing is written; how far it is behind is judged instead.
  - Works through C(psql) and needs no Python driver, no superuser and no table of its own. It may pass through a connection pooler.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

requirements:
  - psql (Debian's postgresql-client) on the host that runs the module
options:
  url:
    description:
      - The database's URL as applications write it, such as V(postgresql://shop:password@127.0.0.1:5432/shop?sslmode=require).
      - Query parameters that only applications know are left out and named in the evidence of the check C(connect).
    type: str
  login_host:
    description: Name or address of the server, or the directory of its socket. Without it the local socket is used.
    type: str
  login_port:
    description: Port of the server; without it the client's default, 5432.
    type: int
  login_user:
    description: The role to log in as, best the application's own. Without it the name of the system user.
    type: str
  login_password:
    description: Its password. It is handed to C(psql) in the environment, never as an argument.
    type: str
  login_db:
    description: The database; without it the one named like the role.
    type: str
  ssl_mode:
    description: How much TLS is wanted, in the words of libpq.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: File with the certificate of the authority that signed the server's, for O(ssl_mode=verify-ca) and O(ssl_mode=verify-full).
    type: path
  psql:
    description: The program, or its path.
    type: str
    default: psql
  role:
    description: Which kind of server it must be.
    type: str
    choices: [any, primary, standby]
    default: any
  write_probe:
    description: Whether to write on a primary. Without it a full disk may go unnoticed.
    type: bool
    default: true
  owner:
    description: The role that must own the database.
    type: str
  min_version:
    description: The server must have this version or a later one, such as V(15) or V(15.4).
    type: str
  require_encryption:
    description: Whether the connection must be encrypted.
    type: bool
    default: false
  connections_warn_percent:
    description:
      - Warn when more than this share of the connections is taken.
      - Counted are those of the server without the reserved ones, or those of the role when it has a limit of its own, whichever is fuller.
    type: float
    default: 80
  connections_fail_percent:
    description: Fail when more than this share of the connections is taken.
    type: float
    default: 95
  max_lag_seconds:
    description: How far a standby may be behind.
    type: float
    default: 60
  max_database_mb:
    description: The limit for the size of the database.
    type: float
  max_latency_milliseconds:
    description: The limit for the median time of five trivial statements.
    type: float
  max_transaction_seconds:
    description: Warn when an open transaction is older. Only transactions that the role may see count, so at least its own.
    type: float
  max_lock_wait_seconds:
    description: Warn when anybody on the server has waited longer than this for a lock. Not known before PostgreSQL 14.
    type: float
    default: 30
  disk_path:
    description:
      - Where the server keeps its data, such as V(/var/lib/postgresql), when it runs on the host that runs the module.
      - Without it the room that is left is not judged.
    type: path
  min_free_mb:
    description: Fail when fewer MB are free at O(disk_path).
    type: float
    default: 512
  pending_restart:
    description: What it means when changed settings wait for a restart of the server.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  archiving:
    description: What it means when WAL archiving is on and its last attempt failed. The disk fills up when nobody acts.
    type: str
    choices: [ignore, warn, fail]
    default: fail
  invalid_indexes:
    description: What it means when the database has indexes that are not valid.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 10
  timeout_seconds:
    description: Time for a single probe, from the connection to the last answer.
    type: float
    default: 5
seealso:
  - module: community.postgresql.postgresql_ping
  - module: community.postgresql.postgresql_query
"""

EXAMPLES = r"""
- name: The shop's database can be used by the shop
  anchorage.vps.postgresql_health:
    login_host: 127.0.0.1
    login_user: shop
    login_password: "{{ shop_database_password }}"
    login_db: shop
    owner: shop
    min_version: "15"

- name: A managed database answers with the very URL that the application gets
  anchorage.vps.postgresql_health:
    url: "{{ shop_database_url }}"
    require_encryption: true
    max_latency_milliseconds: 20

- name: The server itself, asked over the local socket
  anchorage.vps.postgresql_health:
    login_db: postgres
    max_transaction_seconds: 3600
  become: true
  become_user: postgres

- name: The standby is close behind
  anchorage.vps.postgresql_health:
    login_db: postgres
    role: standby
    max_lag_seconds: 10
  become: true
  become_user: postgres
"""

RETURN = r"""
healthy:
  description: Whether every check holds. A check that only warns does not count against it.
  type: bool
  returned: always
  sample: true
checks:
  description: What was asked, one entry per question, as it was seen last. Empty when the question itself made no sense.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: >-
        C(connect), C(role), C(lag) (on a standby), C(version), C(owner), C(encrypted), C(connections), C(size),
        C(pending_restart), C(archiving), C(indexes), C(transactions), C(locks), C(disk) (with O(disk_path)), C(latency), C(write),
        C(session) (the session broke half-way), C(steadiness) (with O(successes) above 1).
      type: str
      sample: connections
    healthy:
      description: V(true) for the verdicts V(ok) and V(warn).
      type: bool
      sample: true
    verdict:
      description: V(ok), V(warn) or V(fail).
      type: str
      sample: ok
    evidence:
      description: What the verdict rests on; its keys depend on the check. It never holds a password.
      type: dict
      sample: {"used": 4, "limit": 97, "of": "the server", "value": 4.1, "unit": "%", "warn": 80, "fail": 95}
    cause:
      description: What is wrong, in words; empty when nothing is.
      type: str
      sample: ""
    attempts:
      description: In how many probes this was asked.
      type: int
      sample: 3
    seconds:
      description: For how long it was watched.
      type: float
      sample: 2.041
summary:
  description: The verdict in one sentence.
  type: str
  returned: always
  sample: "PostgreSQL database shop at 127.0.0.1:5432 as shop is healthy (version 17.11, 0.2 ms a statement, 1 probe in 0.1 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    PostgreSQL database shop at 127.0.0.1:5432 as shop is not healthy: it cannot be asked: nothing listens there (connection to
    server at "127.0.0.1", port 5432 failed: Connection refused). This was seen last and in 10 of 10 probes in 9.2 s. Look next at:
    whether the server runs.
version:
  description: Version of the server; V(null) when it could not be asked.
  type: str
  returned: when asked
  sample: "17.11"
database:
  description: The database that was asked.
  type: str
  returned: when asked
  sample: shop
"""

import dataclasses
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import SEVERITIES, Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

LOGIN = {
    "host": "login_host",
    "port": "login_port",
    "user": "login_user",
    "password": "login_password",
    "database": "login_db",
    "ssl_mode": "ssl_mode",
    "ca_cert": "ca_cert",
}

SPEC = {
    "url": {"type": "str", "no_log": True},
    "login_host": {"type": "str"},
    "login_port": {"type": "int"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "login_db": {"type": "str"},
    "ssl_mode": {"type": "str", "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]},
    "ca_cert": {"type": "path"},
    "psql": {"type": "str", "default": "psql"},
    "role": {"type": "str", "choices": ["any", "primary", "standby"], "default": "any"},
    "write_probe": {"type": "bool", "default": True},
    "owner": {"type": "str"},
    "min_version": {"type": "str"},
    "require_encryption": {"type": "bool", "default": False},
    "connections_warn_percent": {"type": "float", "default": 80},
    "connections_fail_percent": {"type": "float", "default": 95},
    "max_lag_seconds": {"type": "float", "default": 60},
    "max_database_mb": {"type": "float"},
    "max_latency_milliseconds": {"type": "float"},
    "max_transaction_seconds": {"type": "float"},
    "max_lock_wait_seconds": {"type": "float", "default": 30},
    "disk_path": {"type": "path"},
    "min_free_mb": {"type": "float", "default": 512},
    "pending_restart": {"type": "str", "choices": [*SEVERITIES], "default": "warn"},
    "archiving": {"type": "str", "choices": [*SEVERITIES], "default": "fail"},
    "invalid_indexes": {"type": "str", "choices": [*SEVERITIES], "default": "warn"},
    **poll_spec(deadline_seconds=10, timeout_seconds=5),
}


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    login = postgresql_probe.parse_url(params["url"]) if params["url"] else postgresql_probe.Login()
    given = {field: params[option] for field, option in LOGIN.items() if params[option] is not None}
    names = {field.name for field in dataclasses.fields(postgresql_probe.Expectation)}
    return postgresql_probe.check(
        dataclasses.replace(login, **given),
        postgresql_probe.Expectation(**{name: params[name] for name in names}),
        world=world,
        psql=params["psql"],
        home=os.environ.get("HOME"),
        **poll_options(params),
    )


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        mutually_exclusive=[("url", name) for name in ("login_host", "login_port", "login_user", "login_password", "login_db")],
    )
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
