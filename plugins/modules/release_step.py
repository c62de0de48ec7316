#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_step
short_description: Plan a release on a host, run a step of it there, or follow a step that runs
description:
  - The steps of a release (stage, migrate, activate) run on the host, each as a transient systemd unit that holds the app's lock.
    A step so ends by itself when the controller dies or the connection breaks; the next run attaches to it, or reads how it ended.
  - In a playbook this name is an action plugin that plans, starts the step where it is needed and prints what it says as it comes.
  - It fails with what broke, what is live and what to do next.
  - An app for which nothing is to be done costs one remote execution together with all others.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Says what would be done; where the host was never deployed to, it says that it cannot know.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: A release is named by its source, its lock file and its environment; what has the same name is not done twice.
options:
  operation:
    description:
      - What to do.
      - With V(step) the action plugin plans, starts and follows O(step) for each of O(apps). The others are what it asks the host for.
      - With V(plan) it changes nothing and returns for each of O(apps) what a deploy would do (C(preview)), with its pending migrations.
      - With V(rollback) it gives the traffic back to O(release), or to the release before the live one. In check mode it says which that is.
    type: str
    choices: [step, rollback, plan, rollback_plan, start, follow, prune, status]
    default: step
  step:
    description:
      - Which step.
      - V(stage) reports a change as long as the release is not migrated. The handler that migrates is so notified by the state of the host,
        and a run that died before it is made good by the next.
    type: str
    choices: [stage, migrate, activate, rollback]
  release:
    description: With O(operation=rollback), the release to go back to, as C(anchorage releases) lists them.
    type: str
  code_only:
    description: With O(operation=rollback), whether to go back although migrations came since that the older code may not get along with.
    type: bool
    default: false
  apps:
    description: Names of the apps, each with a document in C(/etc/anchorage/apps).
    type: list
    elements: str
    required: true
  documents:
    description:
      - What the contract says of each app, as JSON. Without it, what the host kept from the last deploy counts.
      - The step writes it to C(/etc/anchorage/apps) while it holds the app's lock, so of two deploys at once none can change the other's.
    type: list
    elements: str
    default: []
  sources:
    description:
      - For each app whose source lies on the controller, the directory or archive there.
      - The action plugin turns these into checksums, and sends a source only to a host that needs it; where the contract says so
        (C(image.build_on)), it lets the controller's Docker build the image and sends that.
    type: dict
    default: {}
  migrations:
    description:
      - With O(operation=plan), as JSON, for each app whose source lies on the controller the statements of its migrations by file.
      - The action plugin reads them from O(sources).
    type: str
  detail:
    description: With O(operation=plan), whether everything is told that a person wants to know. The action plugin asks so.
    type: bool
    default: false
  wish:
    description: With O(operation=start), what the plan said of the app (release, tree, source), and in C(owner) who asks.
    type: dict
    default: {}
  log:
    description: With O(operation=follow), the log to follow.
    type: path
  offset:
    description: With O(operation=follow), how many bytes of it are known already.
    type: int
    default: 0
  wait_seconds:
    description: How long the host waits for news before it answers, in seconds.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Give the traffic of the shop back to the release before
  anchorage.vps.release_step:
    operation: rollback
    apps: [shop]

- name: Stage the shop and the blog
  anchorage.vps.release_step:
    step: stage
    apps: [shop, blog]
  notify: Release staged
"""

RETURN = r"""
apps:
  description: For each app what was planned, and how the step ended.
  type: dict
  returned: success
  sample: {"shop": {"release": "0c2d6a7f9b1e", "steps": [], "live": "0c2d6a7f9b1e", "slot": "blue"}}
status:
  description: What C(anchorage status --json) says of the apps, when nothing is to be done for any of them, not even to be tidied up.
  type: list
  elements: dict
  returned: when known
  sample: [{"app": "shop", "live": "0c2d6a7f9b1e", "slot": "blue", "running": true}]
error:
  description: What broke, what is live now, what to run next.
  type: dict
  returned: when a step failed
  sample: {"message": "The migration of shop to release 0c2d6a7f9b1e failed …", "live": "shop release … in slot blue", "next_step": "…"}
"""

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import engine, preview, pruning, release_plan, rollback
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import DOCUMENTS
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


def _given(module: AnsibleModule) -> dict[str, dict[str, t.Any]]:
    return {document["name"]: document for document in map(json.loads, module.params["documents"])}


def _plan(module: AnsibleModule) -> dict[str, t.Any]:
    world, given, found, changed = World(), _given(module), {}, False
    for name in module.params["apps"]:
        if module.check_mode and not world.exists(f"{DOCUMENTS}/{name}.json"):
            wanted = release_plan.digest([given.get(name), module.params["sources"].get(name)])
            note = "not predicted: nothing was deployed to this host yet"
            found[name] = {"app": name, "release": None, "steps": list(engine.STEPS), "note": note, "id": wanted}
            continue
        app = App(name, world, given.get(name))
        found[name] = engine.plan(app, module.params["sources"].get(name))
        if module.params.get("detail"):
            found[name] = preview.preview(app, found[name], json.loads(module.params["migrations"] or "{}").get(name))
        elif name in given and not found[name]["steps"] and not module.check_mode:
            changed = engine.keep_document_unless_busy(app) or changed
    answer = {"changed": changed, "apps": found}
    if given and not module.check_mode and not any(plan["steps"] for plan in found.values()):
        answer.update(_at_rest(module))
    return answer


def _at_rest(module: AnsibleModule) -> dict[str, t.Any]:
    """Return the state of apps of which nothing is to be done, not even to be tidied up, so that nobody has to come back and ask."""
    world, given = World(), _given(module)
    apps = [App(name, world, given.get(name)) for name in module.params["apps"]]
    try:
        return {} if any(pruning.sweep(app, check=True) for app in apps) else {"status": [engine.status(app) for app in apps]}
    except Exception:  # whoever tidies up says what is wrong, and how it is mended
        return {}


def _start(module: AnsibleModule) -> dict[str, t.Any]:
    name = module.params["apps"][0]
    app = App(name, World(), _given(module).get(name))
    wish = module.params["wish"]
    started = engine.start(app, module.params["step"], {key: wish.get(key) for key in ("release", "tree", "source", "owner")})
    return {**started, **engine.follow(app, log=started["log"], offset=0, wait_seconds=module.params["wait_seconds"])}


def _follow(module: AnsibleModule) -> dict[str, t.Any]:
    app = App(module.params["apps"][0], World())
    return engine.follow(app, log=module.params["log"], offset=module.params["offset"], wait_seconds=module.params["wait_seconds"])


def _prune(module: AnsibleModule) -> dict[str, t.Any]:
    removed = {name: engine.prune(App(name, World()), check=module.check_mode) for name in module.params["apps"] if World().exists(f"{DOCUMENTS}/{name}.json")}
    return {"changed": any(removed.values()), "removed": removed, "status": [engine.status(App(name, World())) for name in removed]}


def _status(module: AnsibleModule) -> dict[str, t.Any]:
    return {"status": [engine.status(App(name, World())) for name in module.params["apps"] if World().exists(f"{DOCUMENTS}/{name}.json")]}


def _rollback_plan(module: AnsibleModule) -> dict[str, t.Any]:
    world, options = World(), {"code_only": module.params["code_only"]}
    return {"apps": {name: rollback.plan(App(name, world), module.params["release"], **options) for name in module.params["apps"]}}


OPERATIONS = {"plan": _plan, "rollback_plan": _rollback_plan, "start": _start, "follow": _follow, "prune": _prune, "status": _status}


def main() -> None:
    """Do one short operation; long ones are the host's own."""
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "choices": ["step", "rollback", *OPERATIONS], "default": "step"},
            "step": {"type": "str", "choices": [*engine.STEPS, engine.ROLLBACK]},
            "release": {"type": "str"},
            "code_only": {"type": "bool", "default": False},
            "apps": {"type": "list", "elements": "str", "required": True},
            "documents": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "sources": {"type": "dict", "default": {}},
            "migrations": {"type": "str", "no_log": True},
            "detail": {"type": "bool", "default": False},
            "wish": {"type": "dict", "default": {}},
            "log": {"type": "path"},
            "offset": {"type": "int", "default": 0},
            "wait_seconds": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    operation = OPERATIONS.get(module.params["operation"], _plan)
    try:
        module.exit_json(**{"changed": False, **operation(module)})
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
