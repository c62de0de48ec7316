#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_health
short_description: Prove by its work that a worker is healthy
description:
  - A worker that runs and takes no jobs looks like one that has nothing to do. Only work tells them apart.
  - Either hands in a job over HTTP and asks until it was done (O(round_trip)), or judges the age of a sign of life that the worker
    leaves in a file, in Redis, in PostgreSQL or in a log (O(heartbeat)).
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

requirements:
  - jmespath (Debian's python3-jmespath) on the host that runs the module, only with O(round_trip)
  - the program psql on the host that runs the module, only with O(heartbeat.sql)
options:
  round_trip:
    description:
      - A job that is handed in, and how to see that it was done.
      - It is handed in once; again only where that failed.
    type: dict
    suboptions:
      submit:
        description: The request that hands the job in.
        type: dict
        required: true
        suboptions: &request
          url:
            description: What to ask, with V(http://) or V(https://).
            type: str
            required: true
          method:
            description: The HTTP method; without it V(POST) for O(round_trip.submit) and V(GET) for O(round_trip.poll).
            type: str
          request_headers:
            description: Headers to send.
            type: dict
            default: {}
          secret_request_headers:
            description: Headers to send whose values must not be shown or logged.
            type: dict
            default: {}
          request_body:
            description: Text to send as the body of the request.
            type: str
          connect_to:
            description: Address to connect to instead of the one of the URL, such as V(127.0.0.1:443).
            type: str
          unix_socket:
            description: Connect to this socket file instead.
            type: path
          ca_path:
            description: A file with the certificates of the authorities to trust, instead of those of the system.
            type: path
          validate_certs:
            description: Whether the certificate must be valid.
            type: bool
            default: true
      status:
        description: The status codes that mean that the job was taken.
        type: list
        elements: int
        default: [200, 201, 202]
      token:
        description: A JMESPath expression that gives the name of the job out of the answer to O(round_trip.submit).
        type: str
      poll:
        description: The request that tells whether the job was done. C({token}) in its C(url) is replaced by what O(round_trip.token) gave.
        type: dict
        required: true
        suboptions: *request
      done:
        description: What the JSON answer to O(round_trip.poll) must say once the job was done.
        type: list
        elements: dict
        required: true
        suboptions:
          expression:
            description: A JMESPath expression.
            type: str
            required: true
          equals:
            description: The value that it must give. Without it, it must give what JMESPath calls true.
            type: raw
  heartbeat:
    description: A sign of life that the worker leaves. Exactly one of the first four is needed.
    type: dict
    suboptions:
      file:
        description: A file; its time of modification is the sign.
        type: path
      redis:
        description: A key that holds a time, as seconds or milliseconds since the epoch or as ISO 8601.
        type: dict
        suboptions:
          url:
            description: The URL as applications write it.
            type: str
            required: true
          key:
            description: The key.
            type: str
            required: true
      sql:
        description:
          - A query that gives a single time, such as the latest C(created_at). Its age is reckoned by the server's clock.
          - A time without a zone counts as UTC.
        type: dict
        suboptions:
          url:
            description: The URL as applications write it.
            type: str
            required: true
          query:
            description: The query. It runs in a transaction that can only read.
            type: str
            required: true
      log:
        description: A line of a log. The last 256 KiB are read.
        type: dict
        suboptions:
          path:
            description: The log.
            type: path
            required: true
          pattern:
            description: A Python regular expression for the line, with a group C(?P<time>) for its time, written as in O(heartbeat.redis).
            type: str
            required: true
      max_age_seconds:
        description: How old the last sign of life may be.
        type: float
        default: 120
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 30
  timeout_seconds:
    description: Time for a single request.
    type: float
    default: 5
notes:
  - >-
    A round trip leaves what a job of that kind leaves, so let the application have one that does nothing but be done.
seealso:
  - module: anchorage.vps.pm2_health
"""

EXAMPLES = r"""
- name: A job that is handed in is done by a worker, within half a minute
  anchorage.vps.worker_health:
    round_trip:
      submit:
        url: http://127.0.0.1:9000/ops/pulses
      token: token
      poll:
        url: http://127.0.0.1:9000/ops/pulses?token={token}
      done:
        - expression: count
          equals: 1
        - expression: beats[0].worker_mode
          equals: worker

- name: The job that runs each minute ran
  anchorage.vps.worker_health:
    heartbeat:
      sql:
        url: "{{ shop_database_url }}"
        query: SELECT max(created_at) FROM pulse_beat WHERE source = 'job'
      max_age_seconds: 150

- name: The bot has touched its file
  anchorage.vps.worker_health:
    heartbeat:
      file: /run/bot/alive
      max_age_seconds: 60

- name: The queue's watchman wrote to Redis
  anchorage.vps.worker_health:
    heartbeat:
      redis:
        url: "{{ shop_redis_url }}"
        key: worker:alive

- name: The worker's log says that it works
  anchorage.vps.worker_health:
    heartbeat:
      log:
        path: /var/log/shop/worker.log
        pattern: '"timestamp":"(?P<time>[^"]+)".*job done'
      max_age_seconds: 600
    fail: false
  register: shop_worker
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
      description: C(submit) and C(done) (with O(round_trip)), C(heartbeat), C(steadiness) (with O(successes) above 1).
      type: str
      sample: done
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
      sample: {"of": "the file /run/bot/alive", "age_seconds": 3.2, "max_age_seconds": 60}
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
  sample: "The worker is healthy (the job was done after 0.52 s, 2 probes in 0.5 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    The worker is not healthy: no worker has done the job: count is 0, wanted 1. This was seen last and in 29 of 29 probes in 29.1 s.
    Look next at: the worker's log, its queue, and whether it is connected to the same Redis.
job_seconds:
  description: Time from handing the job in until it was seen to be done; V(null) with O(heartbeat) and where it was not done.
  type: float
  returned: when asked
  sample: 0.52
age_seconds:
  description: Age of the last sign of life; V(null) with O(round_trip) and where there is none.
  type: float
  returned: when asked
  sample: 3.2
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_probe, redis_probe, worker_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import Expression, Target
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

REQUEST = {
    "type": "dict",
    "required": True,
    "options": {
        "url": {"type": "str", "required": True},
        "method": {"type": "str"},
        "request_headers": {"type": "dict", "default": {}},
        "secret_request_headers": {"type": "dict", "default": {}, "no_log": True},
        "request_body": {"type": "str"},
        "connect_to": {"type": "str"},
        "unix_socket": {"type": "path"},
        "ca_path": {"type": "path"},
        "validate_certs": {"type": "bool", "default": True},
    },
}

SPEC = {
    "round_trip": {
        "type": "dict",
        "options": {
            "submit": REQUEST,
            "status": {"type": "list", "elements": "int", "default": [200, 201, 202]},
            "token": {"type": "str", "no_log": False},
            "poll": REQUEST,
            "done": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"expression": {"type": "str", "required": True}, "equals": {"type": "raw"}},
            },
        },
    },
    "heartbeat": {
        "type": "dict",
        "mutually_exclusive": [("file", "redis", "sql", "log")],
        "required_one_of": [("file", "redis", "sql", "log")],
        "options": {
            "file": {"type": "path"},
            "redis": {
                "type": "dict",
                "options": {"url": {"type": "str", "required": True, "no_log": True}, "key": {"type": "str", "required": True, "no_log": False}},
            },
            "sql": {
                "type": "dict",
                "options": {"url": {"type": "str", "required": True, "no_log": True}, "query": {"type": "str", "required": True}},
            },
            "log": {"type": "dict", "options": {"path": {"type": "path", "required": True}, "pattern": {"type": "str", "required": True}}},
            "max_age_seconds": {"type": "float", "default": 120},
        },
    },
    **poll_spec(deadline_seconds=30, timeout_seconds=5),
}


def request(given: dict, method: str, timeout_seconds: float) -> Target:
    """Return the request that options describe."""
    headers = {str(key): str(value) for key, value in {**given["request_headers"], **given["secret_request_headers"]}.items()}
    plain = {key: given[key] for key in ("url", "connect_to", "unix_socket", "ca_path", "validate_certs")}
    return Target(**plain, method=given["method"] or method, headers=headers, body=given["request_body"], timeout_seconds=timeout_seconds)


def question(params: dict) -> worker_probe.RoundTrip | worker_probe.Heartbeat:
    """Return the question that options describe."""
    trip, beat = params["round_trip"], params["heartbeat"]
    if trip:
        return worker_probe.RoundTrip(
            submit=request(trip["submit"], "POST", params["timeout_seconds"]),
            poll=request(trip["poll"], "GET", params["timeout_seconds"]),
            status=trip["status"],
            token=trip["token"],
            done=[Expression(item["expression"], item["equals"]) for item in trip["done"]],
        )
    return worker_probe.Heartbeat(
        file=beat["file"],
        redis=beat["redis"] and (redis_probe.parse_url(beat["redis"]["url"]), beat["redis"]["key"]),
        sql=beat["sql"] and (postgresql_probe.parse_url(beat["sql"]["url"]), beat["sql"]["query"]),
        log=beat["log"] and (beat["log"]["path"], beat["log"]["pattern"]),
        max_age_seconds=beat["max_age_seconds"],
    )


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    return worker_probe.check(question(params), world=world, **poll_options(params))


def main() -> None:
    """Ask and answer."""
    one = ("round_trip", "heartbeat")
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, mutually_exclusive=[one], required_one_of=[one])
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
