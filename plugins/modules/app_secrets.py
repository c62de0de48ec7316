#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_secrets
short_description: Make the secrets of apps once, and keep them on the host
description:
  - Makes the secrets that an app needs and nobody gave it, such as its database password, and returns all of them.
  - They are kept in C(/etc/anchorage/secrets/<app>.json), owned by root, mode V(0600). What is kept there is never changed, so a second run returns the same.
  - A replica of the database keeps a copy, so that it can take over (O(whole), O(take)).
  - While C(rotate_secrets.yml) makes some of them anew, those are returned that are in force, with what services accept besides them.
  - The answer contains the secrets, so the task must say C(no_log=true).
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Secrets that would be made are not in the answer.
  diff_mode:
    support: none
    details: Secrets are not shown.
  idempotent:
    support: full
options:
  apps:
    description: The apps whose secrets this host keeps. The filter P(anchorage.vps.app_secrets#filter) makes this from a contract.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the app.
        type: str
        required: true
      generate:
        description: How many hexadecimal characters each secret has, by its name.
        type: dict
        required: true
      keep:
        description: Secrets that somebody chose, by name. They are kept where there is none yet; a host that keeps another one is refused.
        type: dict
        default: {}
  whole:
    description: Names among O(apps) of which all that is kept is returned, for the hosts that have to be able to take over.
    type: list
    elements: str
    default: []
  take:
    description: What RV(whole) was on the host that this one may have to take over from. It replaces what is kept here.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Make what the shop needs
  anchorage.vps.app_secrets:
    apps:
      - name: shop
        generate: {database_password: 48, JWT_SECRET: 128}
  register: shop_secrets
  no_log: true
"""

RETURN = r"""
secrets:
  description:
    - The secrets by app and name.
    - Where a secret of an app was ever rotated, C(@rotation) says which login of the database is used, and what else is accepted or was before.
  type: dict
  returned: success
  sample: {"shop": {"database_password": "…"}}
made:
  description: Names of the secrets that were made now, by app.
  type: dict
  returned: success
  sample: {"shop": ["database_password"]}
whole:
  description: All that is kept, by app.
  type: dict
  returned: when O(whole) names any
  sample: {"shop": {"values": {"database_password": "…"}, "state": {}}}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import SECRETS
from ansible_collections.anchorage.vps.plugins.module_utils.secret_store import ensure, take, whole
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


def main() -> None:
    """Read or make the secrets of each app."""
    options = {
        "name": {"type": "str", "required": True},
        "generate": {"type": "dict", "required": True, "no_log": False},
        "keep": {"type": "dict", "default": {}, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "apps": {"type": "list", "elements": "dict", "required": True, "options": options},
            "whole": {"type": "list", "elements": "str", "default": []},
            "take": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    taken: list[str] = []
    more: dict[str, t.Any] = {}
    kept: dict[str, dict[str, t.Any]] = {}
    made: dict[str, list[str]] = {}
    try:
        if not module.check_mode:
            os.makedirs(SECRETS, mode=0o700, exist_ok=True)
        for app in module.params["apps"]:
            kept[app["name"]], new = ensure(World(), app["name"], app["generate"], check=module.check_mode, given=app["keep"])
            if new:
                made[app["name"]] = new
        taken = [name for name, given in module.params["take"].items() if take(World(), name, given, check=module.check_mode)]
        if module.params["whole"]:
            more = {"whole": {name: whole(World(), name) for name in module.params["whole"]}}
    except (AnchorageError, PermissionError) as error:
        module.fail_json(msg=error.text() if isinstance(error, AnchorageError) else f"{SECRETS} cannot be used: {error}. Use become: true.")
    module.exit_json(changed=bool(made or taken), secrets=kept, made=made, **more)


if __name__ == "__main__":
    main()
