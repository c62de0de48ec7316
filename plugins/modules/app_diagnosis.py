#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_diagnosis
short_description: Say what is wrong with the apps of a host, its likely cause first
description:
  - Asks what M(anchorage.vps.app_health) asks, puts what is not well in order from the machine upwards, so that causes stand before their
    effects, and says for each the command that mends it.
  - Gathers what belongs to it, which is the logs, the sessions that wait, block or take long in the database, what is live, what came
    before, and which releases wait for their migration.
  - Every secret that the host knows is masked in what it returns, in plain form and as URLs, JSON, SQL and base64 have it.
  - C(anchorage diagnose) on the host says the same without a controller.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only

options:
  apps:
    description: The apps to ask about; without it all that were deployed to the host.
    type: list
    elements: str
  controller_time:
    description: The time of the controller in seconds since the epoch, to be held against this host's. Without it the two are not compared.
    type: float
  deadline_seconds:
    description: Time for asking how everything is. What is gathered after it takes seconds more.
    type: float
    default: 5
notes:
  - It must run as root, which alone may read the apps' documents and all logs.
  - It never fails by what it finds.
seealso:
  - module: anchorage.vps.app_health
"""

EXAMPLES = r"""
- name: What is wrong here
  anchorage.vps.app_diagnosis:
  become: true
  register: this_host

- name: What is wrong with the shop
  anchorage.vps.app_diagnosis:
    apps: [shop]
    controller_time: "{{ now().timestamp() }}"
  become: true
"""

RETURN = r"""
grade:
  description: The worst of all verdicts.
  type: str
  returned: success
  choices: [green, amber, red]
  sample: red
summary:
  description: The likely cause in one sentence, or that all is well.
  type: str
  returned: success
  sample: "shop Redis (jobs): 127.0.0.1:6379 refused the connection"
findings:
  description: What is not well, likely causes first, what fails before what warns.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: What was asked about.
      type: str
      sample: shop Redis (jobs)
    app:
      description: The app that it belongs to; empty for the host.
      type: str
      sample: shop
    kind:
      description: What kind of question it was, as in M(anchorage.vps.app_health).
      type: str
      sample: redis
    check:
      description: The check that did not hold.
      type: str
      sample: connect
    grade:
      description: V(red) or V(amber).
      type: str
      sample: red
    cause:
      description: What is wrong, in words.
      type: str
      sample: 127.0.0.1:6379 refused the connection
    command:
      description: What mends it.
      type: str
      sample: systemctl restart redis-server@shop-jobs; journalctl -u redis-server@shop-jobs -n 50
apps:
  description: For each app what is live, what the last step was, the last events, who waits and blocks in its database.
  type: dict
  returned: success
logs:
  description: The last lines of the logs that belong to what is wrong, by name.
  type: dict
  returned: success
parts:
  description: All verdicts, as M(anchorage.vps.app_health) returns them.
  type: list
  elements: dict
  returned: success
text:
  description: The whole as lines for people.
  type: list
  elements: str
  returned: success
at:
  description: When it was asked, in seconds since the epoch by the host's clock.
  type: float
  returned: success
  sample: 1764000000.123
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import diagnosis
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

SPEC = {
    "apps": {"type": "list", "elements": "str"},
    "controller_time": {"type": "float"},
    "deadline_seconds": {"type": "float", "default": 5},
}


def main() -> None:
    """Look and tell."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    given = module.params
    try:
        if given["deadline_seconds"] <= 0:
            raise AnchorageError(f"deadline_seconds must be more than 0, not {given['deadline_seconds']}.")
        told = diagnosis.diagnose(given["apps"], World(), deadline_seconds=given["deadline_seconds"], controller_time=given["controller_time"])
    except AnchorageError as error:
        module.fail_json(msg=error.text())
    module.exit_json(changed=False, text=diagnosis.lines(told), **told)


if __name__ == "__main__":
    main()
