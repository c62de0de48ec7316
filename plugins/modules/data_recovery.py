#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_recovery
short_description: Let an empty host take the place of one that is lost
description:
  - What C(recover.yml) asks a host for. It begins the recovery of a host that is empty, brings its secrets and certificates from the backup before
    anything is provisioned, and remembers how far the recovery came, so that an interrupted one goes on.
  - A host that has data or secrets, and whose recovery was not begun, is refused.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Looks whether the host is empty.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  operation:
    description:
      - V(begin) sees that the host is empty, or that its recovery is under way.
      - V(secrets) brings secrets and certificates. Files that are there already stay, and must be the same.
      - V(sources) says where the databases come from. A repository on this host is given to its own postgres.
      - V(mark) remembers that O(step) is done, V(finish) that the host serves.
    type: str
    choices: [begin, secrets, sources, mark, finish]
    required: true
  step:
    description: With O(operation=mark), which step.
    type: str
  key:
    description: With O(operation=begin), the key of the backups. Another one that an interrupted run was given, and that opened nothing, is forgotten.
    type: str
  time:
    description: The moment whose data are wanted; without it the newest.
    type: str
  target:
    description: The target that is asked; the first that has it where none is named.
    type: str
"""

EXAMPLES = r"""
- name: See that the host is empty
  anchorage.vps.data_recovery:
    operation: begin
"""

RETURN = r"""
done:
  description: The steps of the recovery that are done.
  type: list
  elements: str
  returned: success
  sample: [secrets, databases]
came:
  description: With O(operation=secrets), the files that came.
  type: list
  elements: str
  returned: with O(operation=secrets)
  sample: [/etc/anchorage/secrets/shop.json]
source:
  description: With O(operation=sources), C(cluster), C(dumps) or C(none).
  type: str
  returned: with O(operation=sources)
  sample: cluster
seconds:
  description: With O(operation=finish), how long the recovery took from its beginning.
  type: float
  returned: with O(operation=finish)
  sample: 412.3
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import backup_settings, restore_host
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


def _begin(module: AnsibleModule, world: World) -> dict[str, t.Any]:
    before = restore_host.read(world)
    return {"changed": not before and not module.check_mode, **restore_host.begin(world, key=module.params["key"] or "", check=module.check_mode)}


def _secrets(module: AnsibleModule, world: World) -> dict[str, t.Any]:
    lines: list[str] = []
    wish = restore_host.wish(module.params["time"], module.params["target"], world.now())
    log = Log(lines.append)
    came = restore_host.fetch(restore_host.place(world, log), world, log, wish)
    restore_host.mark(world, "secrets")
    return {"changed": bool(came), "came": came, "lines": lines}


def _sources(module: AnsibleModule, world: World) -> dict[str, t.Any]:
    wish = restore_host.wish(module.params["time"], module.params["target"], world.now())
    settings = backup_settings.load(world)
    restore_host.own(settings, world)
    return {"source": restore_host.sources(settings, world, wish)}


def _mark(module: AnsibleModule, world: World) -> dict[str, t.Any]:
    return {"changed": restore_host.mark(world, module.params["step"])}


def _finish(module: AnsibleModule, world: World) -> dict[str, t.Any]:
    return {"changed": not restore_host.read(world).get("finished_at"), **restore_host.finish(world)}


OPERATIONS = {"begin": _begin, "secrets": _secrets, "sources": _sources, "mark": _mark, "finish": _finish}


def main() -> None:
    """Do one operation."""
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "choices": list(OPERATIONS), "required": True},
            "step": {"type": "str"},
            "key": {"type": "str", "no_log": True},
            "time": {"type": "str"},
            "target": {"type": "str"},
        },
        required_if=[("operation", "mark", ("step",))],
        supports_check_mode=True,
    )
    if module.check_mode and module.params["operation"] != "begin":
        module.exit_json(changed=False, note="not predicted: the host is not provisioned yet")
    try:
        module.exit_json(**{"changed": False, **OPERATIONS[module.params["operation"]](module, World())})
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
