#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_state_agent
short_description: The part of host_state that runs on the host
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
description:
  - M(anchorage.vps.host_state) starts it. It is of no use in a playbook.
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - M(anchorage.vps.host_state) makes the diff.
  idempotent:
    support: full
options:
  operation:
    description: What to do.
    type: str
    required: true
    choices: [read, heal, repositories, packages, apply, act, settle, go_back]
  payload:
    description: The document and what the operation needs besides, as JSON in one string, so that nothing of it is ever shown.
    type: str
    required: true
seealso:
  - module: anchorage.vps.host_state
"""

EXAMPLES = r"""
- name: inspect | Ask for what is off, as host_state does
  anchorage.vps.host_state_agent:
    operation: read
    payload: "{{ {'document': document, 'texts': false, 'contents': none} | to_json }}"
"""

RETURN = r"""
answer:
  description: What M(anchorage.vps.host_state) decides on.
  returned: success
  type: dict
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils.errors import AnchorageError
from ..module_utils.host_state import Engine
from ..module_utils.host_state_tree import Tree
from ..module_utils.world import World


def main() -> None:
    """Run one operation of the engine; the action plugin of the same name decides which."""
    module = AnsibleModule(
        argument_spec={
            "operation": {
                "type": "str",
                "required": True,
                "choices": ["read", "heal", "repositories", "packages", "apply", "act", "settle", "go_back"],
            },
            "payload": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    payload = json.loads(module.params["payload"])
    document = payload["document"]
    engine = Engine(World(), Tree(), fetch=open_url)
    operations = {
        "read": lambda: engine.read(document, check=module.check_mode, texts=payload["texts"], offered=payload["contents"]),
        "heal": engine.heal,
        "repositories": lambda: engine.repositories(document),
        "packages": lambda: engine.packages(payload["missing"], payload["unwanted"], refresh=payload["refresh"]),
        "apply": lambda: engine.apply(document, payload["contents"], act=payload["act"], check=module.check_mode),
        "act": lambda: engine.act(document, settle=False),
        "settle": lambda: engine.settle(document, payload["acted"], confirmed=payload["confirmed"]),
        "go_back": lambda: engine.go_back(document),
    }
    try:
        answer = operations[module.params["operation"]]()
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())
    module.exit_json(changed=False, answer=answer)


if __name__ == "__main__":
    main()
