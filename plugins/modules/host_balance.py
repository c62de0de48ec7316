#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_balance
short_description: Take a host out of the balance of its proxies, and put it back
description:
  - Where an app has several hosts, or a proxy elsewhere, its proxies reach it at a port of each host, its edge. This module lets nobody new in there, or lets
    them in again. The kernel answers a new connection with a reset, so a proxy that is not let in has sent nothing and asks another host.
  - It holds across a reboot, by a rule in C(/etc/nftables.d), and needs nothing of the proxies.
  - C(anchorage drain) and C(anchorage undrain) on the host do the same without a controller.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Says whether something would be done, and waits for nobody.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  state:
    description:
      - With V(out) nobody new is let in, and the task comes back when nobody is connected any more.
      - With V(in) they are let in again.
      - With V(new) nobody is let in to those of O(edges) of which no release was ever live on this host. Their first release ends that. An app that has one is
        left as it is.
    type: str
    choices: [out, in, new]
    required: true
  apps:
    description: Names of the apps, each deployed to the host. Without it all that have an edge, or all that are out.
    type: list
    elements: str
  edges:
    description: With O(state=new), the port of each app's edge by the app's name.
    type: dict
    default: {}
  seconds:
    description: With O(state=out), how long those who are connected may take at most. Without it the C(drain_seconds) of the contract.
    type: float
"""

EXAMPLES = r"""
- name: Take the host out of the balance
  anchorage.vps.host_balance:
    state: out

- name: Put it back
  anchorage.vps.host_balance:
    state: in
"""

RETURN = r"""
apps:
  description: Names of the apps that are out of the balance now.
  type: list
  elements: str
  returned: success
  sample: [shop]
connected:
  description: How many were still connected when the time was over.
  type: int
  returned: with O(state=out)
  sample: 0
log:
  description: What was done, line by line.
  type: list
  elements: str
  returned: success
  sample: ["shop: nobody new is let in; the proxies ask other hosts"]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import engine, host_drain
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


def balance(world: World, wanted: dict[str, t.Any], log: Log, *, check: bool) -> dict[str, t.Any]:
    """Do what is wanted. Returns the answer of the task."""
    before = sorted(host_drain.drained(world))
    if wanted["state"] == "new":
        ports = {str(name): int(port) for name, port in wanted["edges"].items()}
        return host_drain.keep_out_new(world, ports, check=check)
    if wanted["state"] == "in":
        gone = [name for name in before if not wanted["apps"] or name in wanted["apps"]]
        rest = [name for name in before if name not in gone]
        return {"changed": bool(gone), "apps": rest} if check else host_drain.back(world, log, wanted["apps"])
    apps = [app for app in (App(name, world) for name in wanted["apps"] or engine.apps(world)) if wanted["apps"] or app.document.get("edge")]
    if check:
        return {"changed": any(app.name not in before for app in apps), "apps": sorted({*before, *(app.name for app in apps)}), "connected": 0}
    return host_drain.out(world, log, apps, seconds=wanted["seconds"])


def main() -> None:
    """Take it out, or put it back."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["out", "in", "new"], "required": True},
            "apps": {"type": "list", "elements": "str"},
            "edges": {"type": "dict", "default": {}},
            "seconds": {"type": "float"},
        },
        supports_check_mode=True,
    )
    lines: list[str] = []
    try:
        module.exit_json(**balance(World(), module.params, Log(lines.append), check=module.check_mode), log=lines)
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
