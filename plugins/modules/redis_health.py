#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_health
short_description: Prove by evidence that a Redis instance is healthy for its purpose
description:
  - Logs in, measures C(PING), and judges what C(INFO) says of role, memory, eviction, persistence and refused connections.
  - An instance for jobs must lose nothing, so it needs the policy C(noeviction) and an append-only file that can be written.
    An instance for a cache must evict.
  - Speaks to Redis by itself and needs no client library. The user needs only the rights C(+ping) and C(+info), and no key.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

options:
  url:
    description: The URL as applications write it, V(redis://), V(rediss://) (with TLS) or V(unix://).
    type: str
  login_host:
    description: Name or address of the instance.
    type: str
    default: 127.0.0.1
  login_port:
    description: Its port.
    type: int
    default: 6379
  login_unix_socket:
    description: Connect to this socket file instead.
    type: path
  login_user:
    description: The ACL user; without it the user C(default).
    type: str
  login_password:
    description: Its password; without it nobody logs in.
    type: str
  tls:
    description: Whether to speak TLS.
    type: bool
    default: false
  ca_path:
    description: A file with the certificates of the authorities to trust, instead of those of the system.
    type: path
  validate_certs:
    description: Whether the certificate must be valid for O(login_host) and issued by a trusted authority.
    type: bool
    default: true
  purpose:
    description:
      - What the instance is for.
      - V(jobs) wants C(noeviction) and an append-only file.
      - V(cache) wants C(allkeys-lru) or a relative of it, and warns when there is no memory limit.
      - V(any) wants nothing in particular.
    type: str
    choices: [any, jobs, cache]
    default: any
  role:
    description:
      - Which kind of instance it must be. A replica refuses writes.
      - Without it V(master) for O(purpose=jobs) and O(purpose=cache), otherwise V(any).
    type: str
    choices: [any, master, replica]
  policy:
    description: The eviction policy, when it is not the one that O(purpose) implies.
    type: str
  append_only:
    description: Whether the append-only file must be on, when that is not what O(purpose) implies.
    type: bool
  persistence:
    description: What it means when the last snapshot failed. With V(ignore) the append-only file is not judged either.
    type: str
    choices: [ignore, warn, fail]
    default: fail
  memory_warn_percent:
    description: Warn when more than this share of C(maxmemory) is used. Not judged where keys are evicted.
    type: float
    default: 80
  memory_fail_percent:
    description: Fail when more than this share of C(maxmemory) is used. Not judged where keys are evicted.
    type: float
    default: 95
  max_rejected_connections:
    description: Warn when more connections than this were refused at C(maxclients) since the start or since C(CONFIG RESETSTAT).
    type: int
    default: 0
  max_latency_milliseconds:
    description: The limit for the median time of five C(PING).
    type: float
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 10
  timeout_seconds:
    description: Time for a single probe, from the connection to the last answer.
    type: float
    default: 3
seealso:
  - module: community.general.redis_info
"""

EXAMPLES = r"""
- name: The instance for jobs loses nothing
  anchorage.vps.redis_health:
    login_port: 6379
    login_user: shop
    login_password: "{{ shop_redis_password }}"
    purpose: jobs

- name: The cache evicts
  anchorage.vps.redis_health:
    login_port: 6380
    login_user: shop
    login_password: "{{ shop_redis_password }}"
    purpose: cache

- name: A managed Redis answers with the very URL that the application gets
  anchorage.vps.redis_health:
    url: "{{ shop_redis_url }}"
    purpose: jobs
    append_only: false
    max_latency_milliseconds: 10
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
        C(connect), C(ping) (it answers with an error), C(info) (the right to ask is missing), C(role), C(policy), C(memory), C(append_only), C(snapshot),
        C(rejected_connections), C(latency), C(steadiness) (with O(successes) above 1).
      type: str
      sample: policy
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
      sample: {"policy": "noeviction", "wanted": ["noeviction"], "purpose": "jobs"}
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
  sample: "Redis at 127.0.0.1:6379 as shop is healthy (version 8.0.2, noeviction, 1 probe in 0.0 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    Redis at 127.0.0.1:6379 as shop is not healthy: its eviction policy is allkeys-lru, wanted noeviction, so queued jobs can be
    thrown away. This was seen last and in 10 of 10 probes in 9.0 s. Look next at: maxmemory-policy in its configuration; jobs and
    cache need an instance each.
version:
  description: Version of the server; V(null) when it could not be asked.
  type: str
  returned: when asked
  sample: 8.0.2
role:
  description: V(master) or V(replica); V(null) when it could not be asked.
  type: str
  returned: when asked
  sample: master
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import redis_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import SEVERITIES, Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

SPEC = {
    "url": {"type": "str", "no_log": True},
    "login_host": {"type": "str", "default": "127.0.0.1"},
    "login_port": {"type": "int", "default": 6379},
    "login_unix_socket": {"type": "path"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "tls": {"type": "bool", "default": False},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "purpose": {"type": "str", "choices": ["any", "jobs", "cache"], "default": "any"},
    "role": {"type": "str", "choices": ["any", "master", "replica"]},
    "policy": {"type": "str"},
    "append_only": {"type": "bool"},
    "persistence": {"type": "str", "choices": [*SEVERITIES], "default": "fail"},
    "memory_warn_percent": {"type": "float", "default": 80},
    "memory_fail_percent": {"type": "float", "default": 95},
    "max_rejected_connections": {"type": "int", "default": 0},
    "max_latency_milliseconds": {"type": "float"},
    **poll_spec(deadline_seconds=10, timeout_seconds=3),
}


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    trust = {"ca_path": params["ca_path"], "validate_certs": params["validate_certs"]}
    if params["url"]:
        login = dataclasses.replace(redis_probe.parse_url(params["url"]), **trust)
    else:
        login = redis_probe.Login(
            host=params["login_host"],
            port=params["login_port"],
            user=params["login_user"],
            password=params["login_password"],
            unix_socket=params["login_unix_socket"],
            tls=params["tls"],
            **trust,
        )
    names = {field.name for field in dataclasses.fields(redis_probe.Expectation)}
    wanted = redis_probe.Expectation(**{name: params[name] for name in names})
    return redis_probe.check(login, wanted, world=world, **poll_options(params))


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        mutually_exclusive=[("url", name) for name in ("login_unix_socket", "login_user", "login_password")],
    )
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
