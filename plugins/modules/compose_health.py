#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_health
short_description: Prove by evidence that the services of a Compose project are healthy
description:
  - C(docker compose up --detach) ends well although a container starts again and again, serves an older image, or opens its database
    to the world. So every container of the project is looked at, with its state, its own health check, its image and its ports.
  - The containers are found by Compose's labels. Only the client C(docker) is needed on the host, no Compose and no file of the project.
  - Nothing of a container's environment, nor of what its health check prints, is taken over.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

options:
  project:
    description: The name of the Compose project.
    type: str
    required: true
  executable:
    description: Docker's client, or its path.
    type: str
    default: docker
  services:
    description:
      - The services that must be there.
      - Without them every service that the project has must be well, and one whose container ended with code 0 counts as a job that is done,
        unless its restart policy is C(always) or C(unless-stopped).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in the project.
        type: str
        required: true
      instances:
        description: How many containers of it there must be, no more and no fewer. Not for a service that is O(services[].completed).
        type: int
        default: 1
      completed:
        description: Whether it is a job, such as a migration, that must have ended with code 0.
        type: bool
        default: false
      require_health:
        description: Fail when it has no health check of its own. One that it has must succeed in any case.
        type: bool
        default: false
      digest:
        description: The digest of the image that it must run, V(sha256:…), as a registry knows it, or the id of the image.
        type: str
      max_restarts:
        description: Fail when the Engine restarted a container more often than this.
        type: int
      min_uptime_seconds:
        description: How long its containers must have been up.
        type: float
        default: 0
  published:
    description:
      - The only ports that may be published beyond the loopback addresses, as V(443), V(443/udp), V(127.0.0.1:5432) or V([::1]:5432).
        One without an address may be published on any. An empty list allows none. Without the option they are not judged.
      - Docker opens a published port before the host's firewall is asked.
      - Before version 28 of the Engine, hosts of the same network could reach even ports that are published on V(127.0.0.1).
    type: list
    elements: str
  unexpected:
    description: What it means when the project has services that O(services) does not name.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 20
  timeout_seconds:
    description: Time for a single probe, so for its calls of C(docker).
    type: float
    default: 10
notes:
  - A container that is restarted or made anew between two probes breaks the row of healthy ones, so O(successes) above V(1) catches crash loops.
"""

EXAMPLES = r"""
- name: Every container of the project is well
  anchorage.vps.compose_health:
    project: shop
  become: true

- name: Web and worker are healthy, the migration is done, and only the proxy can be reached
  anchorage.vps.compose_health:
    project: shop
    successes: 3
    services:
      - name: web
        instances: 2
        require_health: true
      - name: worker
        max_restarts: 0
      - name: migrate
        completed: true
      - name: proxy
    published: ["80", "443", 443/udp]
  become: true

- name: Which images run
  anchorage.vps.compose_health:
    project: shop
    deadline_seconds: 5
    fail: false
  become: true
  register: shop_containers
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
        C(engine), C(project) (without O(services): there is something), for each service C(service:<name>) and C(image:<name>);
        C(published), C(unexpected), C(restarts) (between two probes), C(steadiness) (with O(successes) above 1).
      type: str
      sample: "service:web"
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
      sample: {"allowed": ["443"], "published": ["0.0.0.0:443/tcp"], "host_network": []}
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
  sample: "Compose project shop is healthy (shop-web-1 healthy, shop-worker-1 running, 3 probes in 2.3 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    Compose project shop is not healthy: shop-worker-1 ended with code 1 and is started again and again (7 times). This was seen last
    and in 18 of 18 probes in 19.4 s. Look next at: docker logs --tail 50 shop-worker-1.
containers:
  description: What the Engine said last of the project's containers, without those of C(docker compose run).
  type: list
  elements: dict
  returned: when asked
  contains:
    name:
      description: Its name.
      type: str
      sample: shop-web-1
    service:
      description: Its service.
      type: str
      sample: web
    state:
      description: V(running), V(exited), V(restarting), V(created), V(paused), V(removing) or V(dead).
      type: str
      sample: running
    health:
      description: V(healthy), V(unhealthy), V(starting), or V(none) where it has no health check.
      type: str
      sample: healthy
    restarts:
      description: How often the Engine started it again.
      type: int
      sample: 0
    image:
      description: The image as it was named.
      type: str
      sample: registry.example.com/shop:2026-11-22
    digest:
      description: The image's id; where a digest was wanted, the one that its registry knows it by.
      type: str
      sample: sha256:0c36a59a5b0d9dd1aa3b1b4dfd9a3d4dcf2a9fa5f62fbfdbf1f0bd3fb8a51c9e
    published:
      description: The ports of the host that lead to it.
      type: list
      elements: str
      sample: ["127.0.0.1:9000/tcp"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import compose_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import SEVERITIES, Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

SPEC = {
    "project": {"type": "str", "required": True},
    "executable": {"type": "str", "default": "docker"},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "instances": {"type": "int", "default": 1},
            "completed": {"type": "bool", "default": False},
            "require_health": {"type": "bool", "default": False},
            "digest": {"type": "str"},
            "max_restarts": {"type": "int"},
            "min_uptime_seconds": {"type": "float", "default": 0},
        },
    },
    "published": {"type": "list", "elements": "str"},
    "unexpected": {"type": "str", "choices": [*SEVERITIES], "default": "warn"},
    **poll_spec(deadline_seconds=20, timeout_seconds=10),
}


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    services = [compose_probe.Wanted(**item) for item in params["services"]]
    wanted = compose_probe.Expectation(services, params["published"], params["unexpected"])
    return compose_probe.check(params["project"], wanted, world=world, executable=params["executable"], **poll_options(params))


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
