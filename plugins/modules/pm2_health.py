#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_health
short_description: Prove by evidence that processes under PM2 are healthy
description:
  - PM2 calls a process online that listens nowhere, that serves an old release, or that crashes again and again.
    So what PM2 says is held against what the kernel and systemd know of the same processes.
  - PM2's daemon is looked for before anything is asked, because any C(pm2) command would start one. This module never does.
  - Of PM2's list only harmless fields are read; it also holds the whole environment of every process.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

options:
  user:
    description:
      - The user whose PM2 is asked; without it the one who runs the task.
      - As root, C(pm2) itself runs as that user. As that user, the sockets and environments of its own processes can be seen as well.
    type: str
  pm2_home:
    description: PM2's directory. Without it the E(PM2_HOME) that O(unit) sets, else C(.pm2) in the home of O(user).
    type: path
  executable:
    description: The program C(pm2), or its path.
    type: str
    default: pm2
  unit:
    description:
      - The systemd unit that starts PM2 at boot. It must be enabled and active, run as O(user), and hold the daemon and every process
        in its control group.
      - Without it C(pm2-<user>.service); an empty string leaves it out.
    type: str
  unexpected:
    description: What it means when PM2 has processes that O(processes) does not name.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  processes:
    description: The processes that must be there. Without them only the daemon and the unit are judged.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in PM2.
        type: str
        required: true
      instances:
        description: How many processes of this name there must be, no more and no fewer.
        type: int
        default: 1
      ports:
        description: The TCP ports that these processes, or processes started by them, must listen on, and nobody else.
        type: list
        elements: int
        default: []
      cwd:
        description: The directory they must run in, best the release's; symbolic links in this path are followed first.
        type: path
      environment:
        description:
          - Values of their environment variables, as the processes were started.
          - The message shows them, except for names that look like secrets.
        type: dict
        default: {}
      loopback_only:
        description: Whether they may listen on the loopback addresses only.
        type: bool
        default: true
      max_restarts:
        description: Fail when PM2 counts more restarts than this. To judge the restarts since a moment, give the count of that moment.
        type: int
      min_uptime_seconds:
        description: How long they must have been up.
        type: float
        default: 0
      max_memory_mb:
        description: The limit for the memory of each of them.
        type: float
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 20
  timeout_seconds:
    description: Time for a single probe, so for one call of C(pm2).
    type: float
    default: 10
notes:
  - A process that is restarted between two probes breaks the row of healthy ones, so O(successes) above V(1) catches crash loops.
"""

EXAMPLES = r"""
- name: Server and worker of the shop run the new release
  anchorage.vps.pm2_health:
    user: shop
    successes: 3
    processes:
      - name: shop-server
        ports: [9000]
        cwd: /srv/shop/releases/20261121T030000/app
        environment:
          ANCHORAGE_RELEASE: 20261121T030000
        max_memory_mb: 1000
      - name: shop-worker
        ports: [9001]
        cwd: /srv/shop/releases/20261121T030000/app
  become: true

- name: PM2 comes back after a boot
  anchorage.vps.pm2_health:
    user: shop
  become: true

- name: How often was the worker restarted
  anchorage.vps.pm2_health:
    user: shop
    unit: ""
    fail: false
    deadline_seconds: 5
    processes:
      - name: shop-worker
        max_restarts: 3
  become: true
  register: shop_pm2
"""

RETURN = r"""
healthy:
  description: Whether every check holds. A check that only warns does not count against it.
  type: bool
  returned: always
  sample: true
checks:
  description: What was asked, one entry per question, as it was seen last. Empty when the question itself made no sense.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: >-
        C(daemon), C(boot_unit), C(list) (PM2 gave none), for each process C(process:<name>), C(port:<name>),
        C(loopback:<name>), C(identity:<name>); C(unexpected), C(restarts) (between two probes), C(steadiness) (with
        O(successes) above 1).
      type: str
      sample: "port:shop-server"
    healthy:
      description: V(true) for the verdicts V(ok) and V(warn).
      type: bool
      sample: true
    verdict:
      description: V(ok), V(warn) or V(fail).
      type: str
      sample: ok
    evidence:
      description: What the verdict rests on; its keys depend on the check. It never holds a password.
      type: dict
      sample: {"ports": [9000], "listening": ["127.0.0.1:9000"]}
    cause:
      description: What is wrong, in words; empty when nothing is.
      type: str
      sample: ""
    attempts:
      description: In how many probes this was asked.
      type: int
      sample: 3
    seconds:
      description: For how long it was watched.
      type: float
      sample: 2.041
summary:
  description: The verdict in one sentence.
  type: str
  returned: always
  sample: "PM2 of user shop is healthy (shop-server online, shop-worker online, 3 probes in 3.6 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    PM2 of user shop is not healthy: port 9000 of shop-server belongs to pid 812, which is another process. This was seen last and
    in 18 of 18 probes in 19.4 s. Look next at: pm2 logs shop-server (EADDRINUSE?), ss -ltnp, and whether this task runs as root.
processes:
  description: What PM2 said last of its processes.
  type: list
  elements: dict
  returned: when asked
  sample: [{"name": "shop-server", "pm_id": 0, "pid": 731, "status": "online", "restarts": 0, "memory_mb": 312.4}]
"""

import os
import pwd

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import pm2
from ansible_collections.anchorage.vps.plugins.module_utils.health import SEVERITIES, Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

SPEC = {
    "user": {"type": "str"},
    "pm2_home": {"type": "path"},
    "executable": {"type": "str", "default": "pm2"},
    "unit": {"type": "str"},
    "unexpected": {"type": "str", "choices": [*SEVERITIES], "default": "warn"},
    "processes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "instances": {"type": "int", "default": 1},
            "ports": {"type": "list", "elements": "int", "default": []},
            "cwd": {"type": "path"},
            "environment": {"type": "dict", "default": {}},
            "loopback_only": {"type": "bool", "default": True},
            "max_restarts": {"type": "int"},
            "min_uptime_seconds": {"type": "float", "default": 0},
            "max_memory_mb": {"type": "float"},
        },
    },
    **poll_spec(deadline_seconds=20, timeout_seconds=10),
}


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    user = params["user"] or pwd.getpwuid(os.geteuid()).pw_name
    unit = f"pm2-{user}.service" if params["unit"] is None else params["unit"]
    home = params["pm2_home"] or pm2.home_of_unit(world, unit or f"pm2-{user}.service", min(2.0, params["timeout_seconds"]))
    who = pm2.account(user, home, params["executable"])
    processes = [pm2.Wanted(**{**item, "environment": {key: str(value) for key, value in (item["environment"] or {}).items()}}) for item in params["processes"]]
    wanted = pm2.Expectation(processes, params["unexpected"], unit or None)
    return pm2.check(who, wanted, world=world, **poll_options(params))


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
