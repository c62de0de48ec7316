#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_rotation
short_description: Make an app's secrets anew, state by state
description:
  - Keeps how far a rotation is in C(/etc/anchorage/secrets/<app>.rotation.json), owned by root, mode V(0600), on the host that keeps the app's secrets.
    New values are made once, there, so a run that was cut off is gone on with by the next.
  - With O(app=backup) it is the key that encrypts the backups of the host, whose state lies with it in C(/etc/anchorage/secrets/backup.json).
    C(rotate_backup_key.yml) calls it then.
  - C(rotate_secrets.yml) calls it between the tasks that bring services and releases to what M(anchorage.vps.app_secrets) says in each state.
  - No answer of it holds a secret.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Secrets are not shown.
  idempotent:
    support: full
    details: A state that was reached already is left alone.
options:
  operation:
    description:
      - With V(begin), services are to accept new credentials besides the old ones. A rotation that is under way is found and gone on with.
      - With V(use), releases are to be made with the new ones.
      - With V(retire), services are to refuse the old ones.
      - With V(disconnect), on the host of Redis, connections are ended that were made before the rotation began.
      - With V(prove), on a host of the app, it is proven that the new credentials get in and the old ones do not. Nothing is changed.
      - With V(finish), the new ones are the ones that are kept, and the old ones are forgotten.
      - >-
        With O(app=backup), V(begin) makes the new key, V(prove) sees that every job is saved and proven with it and that the former one opens none of that,
        V(retire) lets nothing new go to the repositories of the former one and says until when they stay, and V(finish) ends the rotation.
    type: str
    choices: [begin, use, retire, disconnect, prove, finish]
    required: true
  app:
    description: Name of the app; V(backup), which is the name of no app, for the key of the backups.
    type: str
    required: true
  key:
    description: With O(app=backup) and O(operation=begin), the new key, where somebody chose one; without it the host makes one.
    type: str
  offered:
    description: With O(operation=begin), every secret of the app. The filter P(anchorage.vps.rotation_choices#filter) makes this from a contract.
    type: list
    elements: dict
    default: []
  wanted:
    description: With O(operation=begin), the names of what is to be rotated; without any, all that can be without ending sessions.
    type: list
    elements: str
    default: []
  id:
    description: The rotation, as O(operation=begin) called it.
    type: str
  instances:
    description: With O(operation=disconnect), the Redis instances of the app.
    type: list
    elements: str
    default: []
  user:
    description: With O(operation=disconnect), the app's user in them.
    type: str
  older_seconds:
    description: With O(operation=disconnect), how old a connection must be to be ended.
    type: float
  document:
    description: With O(operation=prove) of an app, what the contract says of the app, as JSON.
    type: str
  former:
    description:
      - With O(operation=prove) of an app, what was used before, as JSON. The filter P(anchorage.vps.rotation_former#filter) makes this from a contract.
    type: str
"""

EXAMPLES = r"""
- name: Begin, or find what was begun
  anchorage.vps.secret_rotation:
    operation: begin
    app: shop
    offered: "{{ anchorage_contract | anchorage.vps.rotation_choices('shop') }}"
    wanted: [database, redis]
  register: shop_rotation

- name: Begin with a new key of the backups
  anchorage.vps.secret_rotation:
    operation: begin
    app: backup
    key: "{{ backup_key | default('') }}"
  register: backup_rotation
"""

RETURN = r"""
id:
  description: The rotation.
  type: str
  returned: with begin, unless in check mode nothing is under way
  sample: 3f2a9c51d07e
under_way:
  description: Whether it had begun before.
  type: bool
  returned: with begin
phase:
  description: The state that was reached; of the key of the backups V(save) (both are used) or V(leave) (nothing new goes to the former one).
  type: str
  returned: with begin
  sample: accept
secrets:
  description: Names of what is rotated.
  type: list
  elements: str
  returned: with begin of an app
  sample: [database, redis]
teaches:
  description: Whether processes must learn new keys in a release of its own, before they use them.
  type: bool
  returned: with begin of an app
age_seconds:
  description: Seconds since it began.
  type: float
  returned: with begin of an app
lines:
  description: For people, what is going to be done, or what was proven.
  type: list
  elements: str
  returned: success
"""

import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import backup_rotation, rotation, rotation_proof, secret_store
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import SECRETS
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

#: Under this name a host keeps the key of its backups. Debian has a user of that name, so no app has it.
BACKUP = "backup"

REDIS_HELPER = "/usr/local/lib/anchorage/redis-instance"


def _begin(module: AnsibleModule) -> dict[str, t.Any]:
    world, app, wanted = World(), module.params["app"], module.params["wanted"]
    if not os.path.isdir(SECRETS):
        raise AnchorageError(f"This host keeps no secrets of {app} yet.", next_step="Run site.yml first, which makes them.")
    with secret_store.alone():
        _values, state = secret_store.read(world, app)
        pending = state.get("pending")
        if pending:
            others = [name for name in wanted if name not in pending["secrets"]]
            if others:
                raise AnchorageError(
                    f"{rotation.describe(app, state, world.now())}; {', '.join(others)} can be rotated after it.",
                    next_step="Run rotate_secrets.yml without -e secrets=… to go on with that one, then run this again.",
                )
            return _told(state, world.now(), [f"{rotation.describe(app, state, world.now())}. This run goes on with it."], under_way=True)
        chosen = rotation.select(app, module.params["offered"], wanted)
        lines = rotation.story(app, chosen, module.params["offered"])
        if module.check_mode:
            secret_store.check(world, app, chosen)
            return {
                "changed": True,
                "under_way": False,
                "phase": "",
                "secrets": [choice["name"] for choice in chosen],
                "teaches": any(choice["old"] for choice in chosen),
                "age_seconds": 0.0,
                "lines": lines,
            }
        return {**_told(secret_store.begin(world, app, chosen), world.now(), lines, under_way=False), "changed": True}


def _told(state: rotation.Data, now: float, lines: list[str], *, under_way: bool) -> dict[str, t.Any]:
    pending = state["pending"]
    known = {key: pending[key] for key in ("id", "phase", "secrets")}
    return {**known, "teaches": bool(pending["teach"]), "under_way": under_way, "age_seconds": now - pending["began_at"], "lines": lines}


def _advance(module: AnsibleModule) -> dict[str, t.Any]:
    if module.check_mode:
        return {"changed": True, "lines": []}
    with secret_store.alone():
        return {"changed": secret_store.advance(World(), module.params["app"], module.params["operation"], module.params["id"]), "lines": []}


def _finish(module: AnsibleModule) -> dict[str, t.Any]:
    if not module.check_mode:
        with secret_store.alone():
            secret_store.finish(World(), module.params["app"], module.params["id"])
    return {"changed": True, "lines": []}


def _disconnect(module: AnsibleModule) -> dict[str, t.Any]:
    if module.check_mode:
        return {"lines": []}
    user, age = module.params["user"], module.params["older_seconds"]
    ended = {name: rotation_proof.end_connections(World(), [REDIS_HELPER, name, "cli"], user, age) for name in module.params["instances"]}
    app = module.params["app"]
    lines = [f"{app}: ended {count} connection{'s' if count > 1 else ''} to {name} from before the rotation" for name, count in ended.items() if count]
    return {"changed": bool(lines), "lines": lines}


def _prove(module: AnsibleModule) -> dict[str, t.Any]:
    world, document = World(), json.loads(module.params["document"])
    live = App(module.params["app"], world, document).journal.live
    return {"lines": rotation_proof.prove(world, document, json.loads(module.params["former"]), live)}


def _backup(module: AnsibleModule) -> dict[str, t.Any]:
    """Do an operation on the key of the backups."""
    world, operation, name = World(), module.params["operation"], module.params["id"] or ""
    if not os.path.isdir(SECRETS):
        raise AnchorageError("This host has no backups yet.", next_step="Run site.yml first, which makes them.")
    with secret_store.alone():
        if operation == "begin":
            return backup_rotation.begin(world, module.params["key"] or "", check=module.check_mode)
        if module.check_mode:
            return {"changed": operation != "prove", "lines": []}
        if operation == "prove":
            return {"lines": backup_rotation.prove(world, name)}
        if operation in ("retire", "finish"):
            return backup_rotation.leave(world, name) if operation == "retire" else backup_rotation.finish(world, name)
    raise AnchorageError(f"The key of the backups knows no operation {operation}.")


OPERATIONS = {"begin": _begin, "use": _advance, "retire": _advance, "disconnect": _disconnect, "prove": _prove, "finish": _finish}


def main() -> None:
    """Do one of them."""
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "choices": [*OPERATIONS], "required": True},
            "app": {"type": "str", "required": True},
            "key": {"type": "str", "no_log": True},
            "offered": {"type": "list", "elements": "dict", "default": []},
            "wanted": {"type": "list", "elements": "str", "default": []},
            "id": {"type": "str"},
            "instances": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str"},
            "older_seconds": {"type": "float"},
            "document": {"type": "str", "no_log": True},
            "former": {"type": "str", "no_log": True},
        },
        required_if=[
            ("operation", "use", ["id"]),
            ("operation", "retire", ["id"]),
            ("operation", "finish", ["id"]),
            ("operation", "disconnect", ["user", "older_seconds"]),
        ],
        supports_check_mode=True,
    )
    operation = _backup if module.params["app"] == BACKUP else OPERATIONS[module.params["operation"]]
    if operation is _prove and not (module.params["document"] and module.params["former"]):
        module.fail_json(msg="operation is prove but all of the following are missing: document, former")
    try:
        module.exit_json(**{"changed": False, **operation(module)})
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
