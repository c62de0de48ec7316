#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_replication
short_description: Look at a PostgreSQL cluster and its replicas, make a replica, and let one take over
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Each operation is one step of C(promote.yml) or of the role P(anchorage.vps.postgresql#role), on one host. It looks first whether it was done already.
  - A planned promotion is V(fence) on the primary, V(promote) on the replica with the C(lsn) that V(fence) returned, V(forward) on the former primary, and
    V(release) there when nobody comes to it any more.
  - Works on Debian's cluster layout, on the cluster C(main).
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: V(follow) says whether a replica would be made; the steps of a promotion do nothing and say changed.
  diff_mode:
    support: none
    details: What changes is the state of a server and no text.
  idempotent:
    support: full
    details: V(follow) with O(rebuild=true) copies the primary each time, and V(unfence) starts what may run already.
options:
  operation:
    description:
      - V(look) changes nothing and returns how the host stands.
      - V(follow) makes the host a replica by a copy of the primary, unless it is one. Data of its own are kept, and stop it, without O(rebuild).
      - V(fence) stops the primary cleanly, and keeps it from starting as one again. New connections wait.
      - V(unfence) lets the primary that was stopped serve again. Only for a promotion in which nobody took over.
      - V(promote) waits until the replica has replayed everything, and makes it the primary.
      - V(forward) hands on to the new primary who still comes to the former one.
      - V(release) ends that.
    type: str
    default: look
    choices: [look, follow, fence, unfence, promote, forward, release]
  version:
    description: Major version of the cluster. Without it what the role has left, or the newest one on the host.
    type: str
    default: ""
  password:
    description: Password of the replicas, for V(look) to say whether the server takes it.
    type: str
  address:
    description: Address of the primary, for V(follow) and V(forward).
    type: str
  port:
    description: Port of the primary.
    type: int
    default: 5432
  name:
    description: Inventory name of this host, for V(follow), after which its slot is called.
    type: str
  passfile:
    description: File with the password of the replicas, as libpq reads it, for V(follow).
    type: path
  rebuild:
    description: Whether V(follow) may replace data of this host.
    type: bool
    default: false
  to:
    description: The host that takes over, for V(fence).
    type: str
  peers:
    description: Addresses of the other database hosts, for V(fence), which reach the primary until it has stopped.
    type: list
    elements: str
    default: []
  lsn:
    description: Where the WAL of the former primary ends, for V(promote).
    type: str
  followers:
    description: The hosts that are going to follow, for V(promote), which keeps for them what they need.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look how the database stands
  anchorage.vps.postgresql_replication:
  register: replication

- name: Let db2 take over
  anchorage.vps.postgresql_replication:
    operation: promote
    lsn: "{{ fenced.lsn }}"
    followers: [db1]
"""

RETURN = r"""
state:
  description: How the host stands.
  returned: when O(operation=look)
  type: dict
  sample: {installed: true, data: true, running: true, in_recovery: false, standby: false, empty: false, fenced: false, senders: [], slots: []}
lsn:
  description: Where the WAL of the stopped primary ends.
  returned: when O(operation=fence)
  type: str
  sample: 0/5000028
began_at:
  description: When the primary began to stop, in seconds since the epoch.
  returned: when O(operation=fence)
  type: float
  sample: 1796300000.25
built:
  description: Whether the primary was copied.
  returned: when O(operation=follow)
  type: bool
  sample: true
dropped:
  description: Slots of the time when this host was the primary, which nobody uses.
  returned: when O(operation=follow)
  type: list
  elements: str
  sample: [anchorage_db2]
at:
  description: When the step had ended, in seconds since the epoch.
  returned: success
  type: float
  sample: 1796300000.25
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_replication import look, slot_name
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_switch import Switch
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

OPERATIONS = ("look", "follow", "fence", "unfence", "promote", "forward", "release")


def perform(module: AnsibleModule, world: World) -> dict:
    """Do what is asked for."""
    given = module.params
    if given["operation"] == "look":
        return {"changed": False, "state": look(world, version=given["version"], password=given["password"])}
    # What would be installed is not there yet in check mode.
    if module.check_mode and not look(world, version=given["version"])["installed"]:
        return {"changed": True, "built": True, "dropped": []}
    switch = Switch.here(world, given["version"])
    if given["operation"] == "follow":
        place = {"address": given["address"], "port": given["port"], "slot": slot_name(given["name"]), "passfile": given["passfile"]}
        return switch.follow(**place, name=given["name"], rebuild=given["rebuild"], check=module.check_mode)
    if module.check_mode:
        return {"changed": True}
    if given["operation"] == "fence":
        return switch.fence(to=given["to"], peers=given["peers"])
    if given["operation"] == "promote":
        return switch.promote(lsn=given["lsn"], slots=[slot_name(name) for name in given["followers"]])
    if given["operation"] == "forward":
        return switch.forward(address=given["address"], port=given["port"])
    return switch.unfence() if given["operation"] == "unfence" else switch.release()


def main() -> None:
    """Do one step and report."""
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "default": "look", "choices": list(OPERATIONS)},
            "version": {"type": "str", "default": ""},
            "password": {"type": "str", "no_log": True},
            "address": {"type": "str"},
            "port": {"type": "int", "default": 5432},
            "name": {"type": "str"},
            "passfile": {"type": "path", "no_log": False},
            "rebuild": {"type": "bool", "default": False},
            "to": {"type": "str"},
            "peers": {"type": "list", "elements": "str", "default": []},
            "lsn": {"type": "str"},
            "followers": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[
            ("operation", "follow", ["address", "name", "passfile"]),
            ("operation", "fence", ["to"]),
            ("operation", "promote", ["lsn"]),
            ("operation", "forward", ["address"]),
        ],
        supports_check_mode=True,
    )
    world = World()
    try:
        result = perform(module, world)
    except AnchorageError as error:
        module.fail_json(msg=error.text(), **error.as_dict())
    module.exit_json(at=round(world.now(), 3), **result)


if __name__ == "__main__":
    main()
