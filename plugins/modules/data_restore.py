#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_restore
short_description: Bring a database, a cluster, or uploads and Redis back from the backup
description:
  - The restore runs on the host as one transient systemd unit, so it ends by itself when the controller dies or the connection breaks. The next run
    attaches to it, or goes on with what it left.
  - What the backup holds is made ready beside the present data and counted against them, row by row. Only then the app is stopped and the two
    change places. The present data are set aside, never removed.
  - Where there are data now, nothing is restored over them without O(confirm). It then fails, and says what it would cost.
  - It fails with what broke, which data are live and what to do next.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: The backup is restored into a server that is thrown away, and what would be lost is counted.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Whoever asks for a restore twice gets it twice; what is unfinished is finished once.
options:
  operation:
    description:
      - With V(restore) the action plugin starts the restore and follows it. The others are what it asks the host for.
      - V(stop_apps) and V(start_apps) stop O(apps) on a host whose database is restored on another one, and start them again.
    type: str
    choices: [restore, start, follow, stop_apps, start_apps]
    default: restore
  what:
    description: One database of a cluster that lives, the whole cluster, or uploads and Redis.
    type: str
    choices: [database, cluster, files]
    default: database
  app:
    description: Whose data. Needed for a database; without it, V(files) are those of all apps.
    type: str
  time:
    description: The moment to go back to, such as V(2026-11-20 19:12:27+01:00). Without a zone it is in the host's time.
    type: str
  point:
    description: The release before whose migration the data were saved.
    type: str
  backup:
    description: One backup, as C(anchorage backup list) names it.
    type: str
  target:
    description: The target that is asked; the first that has it where none is named.
    type: str
  confirm:
    description: Whether to go on although there are data now. They are set aside.
    type: bool
    default: false
  plan:
    description: Whether to say only what would be lost. Check mode does the same.
    type: bool
    default: false
  resume:
    description: Whether to go on with what is unfinished, whatever it is.
    type: bool
    default: false
  owner:
    description: With O(operation=start), who asks.
    type: str
    default: ""
  apps:
    description: With O(operation=stop_apps) and O(operation=start_apps), which apps.
    type: list
    elements: str
    default: []
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
- name: Say what would be lost if the shop went back to a quarter past seven
  anchorage.vps.data_restore:
    app: shop
    time: "2026-11-20 19:15:00+01:00"
    plan: true

- name: Go back
  anchorage.vps.data_restore:
    app: shop
    time: "2026-11-20 19:15:00+01:00"
    confirm: true
"""

RETURN = r"""
plan:
  description: What was chosen and what it costs, by database.
  type: list
  elements: dict
  returned: success
  sample: [{"database": "shop", "lost_rows": 7, "losses": [{"table": "public.orders", "only_live": 7}]}]
aside:
  description: What restores have set aside and nobody has removed.
  type: list
  elements: dict
  returned: success
  sample: [{"kind": "database", "name": "shop_before_20261120t191227z", "of": "shop"}]
text:
  description: How it ended, in a sentence.
  type: str
  returned: success
  sample: "Restored: the database of shop, as it was at 2026-11-20T18:15:00+00:00. The former data of shop are kept in shop_before_20261120t191227z."
error:
  description: What broke, which data are live, what to run next.
  type: dict
  returned: when it failed
  sample: {"message": "shop holds data now …", "live": "the data that were there before …", "next_step": "…"}
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import engine, restore, restore_apps, restore_plan
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import Wish
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


def _wish(params: dict[str, t.Any], now: float) -> Wish:
    if params["what"] == restore_plan.DATABASE and not params["app"]:
        raise AnchorageError("Say whose database comes back.", next_step="Give app.")
    for how in (restore_plan.TIME, restore_plan.POINT, restore_plan.BACKUP):
        if params[how]:
            value = restore_plan.read_time(params[how], now) if how == restore_plan.TIME else params[how]
            return Wish(params["what"], params["app"], how, value, params["target"])
    return Wish(params["what"], params["app"], restore_plan.LATEST, None, params["target"])


def _start(module: AnsibleModule) -> dict[str, t.Any]:
    world, params = World(), module.params
    mode = restore_plan.PLAN if params["plan"] else restore_plan.GO if params["confirm"] else restore_plan.ASK
    started = restore.start(world, None if params["resume"] else _wish(params, world.now()), mode, owner=params["owner"])
    return {**started, **restore.follow(world, log=started["log"], offset=0, wait_seconds=params["wait_seconds"])}


def _follow(module: AnsibleModule) -> dict[str, t.Any]:
    return restore.follow(World(), log=module.params["log"], offset=module.params["offset"], wait_seconds=module.params["wait_seconds"])


def _apps(module: AnsibleModule) -> dict[str, t.Any]:
    """Stop or start apps of this host."""
    world, lines = World(), []
    act = restore_apps.stop if module.params["operation"] == "stop_apps" else restore_apps.start
    apps = restore_apps.here(world, module.params["apps"])
    with contextlib.ExitStack() as stack:
        for app in [] if module.check_mode else apps:
            stack.enter_context(engine.lock(app, seconds=restore_apps.PATIENCE))
            act(app, Log(lines.append))
    return {"changed": bool(apps), "lines": lines}


OPERATIONS = {"start": _start, "follow": _follow, "stop_apps": _apps, "start_apps": _apps}


def main() -> None:
    """Do one short operation; the restore itself is the host's own."""
    moments = ("time", "point", "backup")
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "choices": ["restore", *OPERATIONS], "default": "restore"},
            "what": {"type": "str", "choices": list(restore_plan.KINDS), "default": restore_plan.DATABASE},
            **{name: {"type": "str"} for name in ("app", *moments, "target")},
            **{name: {"type": "bool", "default": False} for name in ("confirm", "plan", "resume")},
            "owner": {"type": "str", "default": ""},
            "apps": {"type": "list", "elements": "str", "default": []},
            "log": {"type": "path"},
            "offset": {"type": "int", "default": 0},
            "wait_seconds": {"type": "float", "default": 10},
        },
        mutually_exclusive=[moments],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**{"changed": False, **OPERATIONS.get(module.params["operation"], _start)(module)})
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
