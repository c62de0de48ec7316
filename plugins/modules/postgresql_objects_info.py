#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_objects_info
short_description: Read which wanted PostgreSQL roles and databases are off
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Compares owner roles, their passwords, databases, their privileges and extensions with what is wanted, in one C(psql) session of the
    local superuser.
  - A password is checked against the SCRAM verifier that the server keeps, so nothing logs in and no password reaches the server.
  - Works on Debian's cluster layout, and on a host without PostgreSQL too, where it says so.
extends_documentation_fragment:
  - anchorage.vps.attributes
  - anchorage.vps.attributes.read_only
options:
  version:
    description: Major version of the cluster.
    type: str
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    default: main
  extensions:
    description: Extensions that every database has.
    type: list
    elements: str
    default: []
  databases:
    description: What is wanted.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      owner:
        description: Role that owns the database.
        type: str
        required: true
      password:
        description: Password of the owner. Without it the owner may not log in.
        type: str
      logins:
        description: Further roles that act as the owner.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the role.
            type: str
            required: true
          password:
            description: Password of the role. Without it the role may not log in.
            type: str
      extensions:
        description: Further extensions of this database.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Read what of the shop's database is off
  anchorage.vps.postgresql_objects_info:
    version: "17"
    databases:
      - name: shop
        owner: shop
        password: "{{ shop_database_password }}"
        extensions: [citext]
  register: shop_objects

- name: Say whether anything is off
  ansible.builtin.debug:
    msg: "{{ shop_objects.differences }}"
"""

RETURN = r"""
installed:
  description: Whether the cluster is on the host.
  returned: success
  type: bool
  sample: true
clusters:
  description: Every cluster on the host, with the port that its configuration names.
  returned: success
  type: list
  elements: dict
  sample: [{name: 17/main, port: 5432}]
answering:
  description: Whether the server answered.
  returned: success
  type: bool
  sample: true
answer:
  description: Why there is no answer.
  returned: success
  type: str
  sample: PostgreSQL 17 is not installed yet
server_version_num:
  description: Version of the server.
  returned: when the server answered
  type: int
  sample: 170011
in_recovery:
  description: Whether the server is a standby.
  returned: when the server answered
  type: bool
  sample: false
differences:
  description: Names of what is missing or different; empty where the server did not answer.
  returned: success
  type: dict
  contains:
    roles:
      description: Roles that are missing, have another password, a weaker hash, no login or a power that an owner must not have.
      type: list
      elements: str
    members:
      description: Further logins that do not act as their owner yet.
      type: list
      elements: dict
    shut:
      description: Roles that may log in although they have no password here; an owner that is missing too.
      type: list
      elements: str
    sessions:
      description: Roles that may not log in and have sessions all the same.
      type: list
      elements: str
    databases:
      description: Databases that are missing or belong to another role.
      type: list
      elements: str
    schemas:
      description: Databases whose schema C(public) belongs to another role.
      type: list
      elements: str
    public:
      description: Databases that every role may enter, C(postgres) and C(template1) among them.
      type: list
      elements: str
    extensions:
      description: Pairs of database and extension that are missing.
      type: list
      elements: dict
  sample: {roles: [shop], members: [], shut: [], sessions: [], databases: [shop], schemas: [], public: [shop], extensions: [{database: shop, name: citext}]}
pending_restart:
  description: Settings that wait for a restart.
  returned: success
  type: list
  elements: str
  sample: [shared_buffers]
slots:
  description: Slots that were made for replicas.
  returned: success
  type: list
  elements: str
  sample: [anchorage_db2]
pooled:
  description: Whether provisioning put PgBouncer before the cluster.
  returned: success
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_objects import inspect, wanted_databases
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


def main() -> None:
    """Read and report."""
    login = {"name": {"type": "str", "required": True}, "password": {"type": "str", "no_log": True}}
    database = {
        "name": {"type": "str", "required": True},
        "owner": {"type": "str", "required": True},
        "password": {"type": "str", "no_log": True},
        "logins": {"type": "list", "elements": "dict", "default": [], "options": login},
        "extensions": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "cluster": {"type": "str", "default": "main"},
            "extensions": {"type": "list", "elements": "str", "default": []},
            "databases": {"type": "list", "elements": "dict", "default": [], "options": database},
        },
        supports_check_mode=True,
    )
    try:
        databases = wanted_databases(module.params["databases"], module.params["extensions"])
        result = inspect(World(), version=module.params["version"], cluster=module.params["cluster"], databases=databases)
    except AnchorageError as error:
        module.fail_json(msg=error.text(), **error.as_dict())
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
