#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: http_health
short_description: Prove by evidence that an HTTP service is healthy
description:
  - Asks a URL until enough answers in a row are right, and says what was seen.
  - An answer counts only when it came in full, in time, with the right status, and when body, headers and JSON are as wanted.
  - It can also prove that the process which listens is the wanted one, so that an answer of an old release does not pass for a new one.
  - The whole probe has one amount of time, which a server that drips bytes cannot stretch. At most 64 KiB of a body are read.
    Redirects are not followed unless asked for, and never off the host. No proxy from the environment is used.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

requirements:
  - jmespath (Debian's python3-jmespath) on the host that runs the module, only when O(json) is given
options:
  url:
    description:
      - What to ask, with V(http://) or V(https://).
      - A user and password in it are refused; send an C(Authorization) header with O(secret_request_headers).
    type: str
    required: true
  method:
    description: The HTTP method.
    type: str
    default: GET
  request_headers:
    description: Headers to send. C(Host) replaces the one from the URL; the name that TLS checks stays the one of the URL.
    type: dict
    default: {}
  secret_request_headers:
    description: Headers to send whose values must not be shown or logged.
    type: dict
    default: {}
  request_body:
    description: Text to send as the body of the request. Give its C(Content-Type) in O(request_headers).
    type: str
  status:
    description: The status codes that are right.
    type: list
    elements: int
    default: [200]
  body:
    description: The whole body must be this text. White space around both is ignored.
    type: str
  body_contains:
    description: The body must contain this text.
    type: str
  body_regex:
    description: The body must match this Python regular expression somewhere.
    type: str
  headers:
    description: For each header of the answer the Python regular expression that its whole value must match.
    type: dict
    default: {}
  absent_headers:
    description: Headers that the answer must not have.
    type: list
    elements: str
    default: []
  json:
    description:
      - What the JSON body must say. The body must be JSON when this is given.
      - A service that answers 200 although it says of itself that its database is in error is caught here.
    type: list
    elements: dict
    default: []
    suboptions:
      expression:
        description: A JMESPath expression, such as V(services.database) or V(checks.postgres == 'ok').
        type: str
        required: true
      equals:
        description:
          - The value that the expression must give. V(1) and V(true) are different values.
          - Without it, the expression must give what JMESPath calls true, so anything but V(false), V(null), and empty values.
        type: raw
  follow_redirects:
    description:
      - With V(none) a redirect is an answer like any other and is judged by its status.
      - With V(same_host) up to five redirects on the same host and port are followed, and the one from http to https.
        A redirect to another host, back to http, or in a circle is a failure.
    type: str
    choices: [none, same_host]
    default: none
  connect_to:
    description:
      - Address to connect to instead of the one of the URL, such as V(127.0.0.1:443) or V([2001:db8::1]:8443).
      - The C(Host) header and the name for TLS remain those of the URL. So a site is proven before its DNS points here.
    type: str
  unix_socket:
    description: Connect to this socket file; the URL then only gives path, C(Host) header and name for TLS.
    type: path
  ca_path:
    description: A file with the certificates of the authorities to trust, instead of those of the system.
    type: path
  validate_certs:
    description: Whether the certificate must be valid for the name in the URL and issued by a trusted authority.
    type: bool
    default: true
  p95_milliseconds:
    description:
      - The limit for the 95th percentile of the time to a complete answer.
      - It is measured with O(p95_probes) further probes without a pause, once all else is proven, and within O(deadline_seconds).
    type: float
  p95_probes:
    description: How many probes the percentile is made of.
    type: int
    default: 20
  identity:
    description:
      - What the process must be that owns the listening port. Needs a service on the host that runs the module.
      - To see processes of other users the task must run as root.
    type: dict
    suboptions:
      port:
        description: The port, when it is not the one that is connected to, such as the application's own port behind a proxy.
        type: int
      cwd:
        description: Its working directory; symbolic links in this path are followed first.
        type: path
      environment:
        description:
          - Values of its environment variables, as the process was started.
          - The message shows them, except for names that look like secrets.
        type: dict
        default: {}
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 30
  timeout_seconds:
    description: Time for a single probe, from the connection to the last byte.
    type: float
    default: 5
seealso:
  - module: ansible.builtin.uri
  - module: ansible.builtin.wait_for
"""

EXAMPLES = r"""
- name: The shop answers, five times in a row
  anchorage.vps.http_health:
    url: http://127.0.0.1:9000/health
    body: OK
    successes: 5
    deadline_seconds: 60

- name: The answer comes from the new release and from no older process
  anchorage.vps.http_health:
    url: http://127.0.0.1:9000/health
    identity:
      cwd: /srv/shop/releases/20261121T030000/app
      environment:
        ANCHORAGE_RELEASE: 20261121T030000

- name: Database and cache work in the eyes of the application
  anchorage.vps.http_health:
    url: http://127.0.0.1:9000/ops/ready
    json:
      - expression: ready
        equals: true
      - expression: checks.postgres == 'ok' && checks.redis == 'ok'

- name: The site is right before DNS points here
  anchorage.vps.http_health:
    url: https://shop.example.com/health
    connect_to: 127.0.0.1:443
    ca_path: /etc/ssl/certs/ca-certificates.crt
    headers:
      Strict-Transport-Security: max-age=\d{8}.*

- name: Plain http leads to https
  anchorage.vps.http_health:
    url: http://shop.example.com/store
    connect_to: 127.0.0.1:80
    status: [301, 308]
    headers:
      Location: https://shop\.example\.com/.*

- name: A foreign origin gets no permission
  anchorage.vps.http_health:
    url: http://127.0.0.1:9000/health
    request_headers:
      Origin: https://evil.example.net
    absent_headers: [Access-Control-Allow-Origin]

- name: Nineteen of twenty answers come within 200 ms
  anchorage.vps.http_health:
    url: http://127.0.0.1:9000/health
    p95_milliseconds: 200

- name: Look, and decide later
  anchorage.vps.http_health:
    url: http://127.0.0.1:9000/health
    deadline_seconds: 5
    fail: false
  register: shop
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
        C(answer) (a complete one came in time), C(status), C(body), C(headers), C(json), C(identity), C(steadiness) (with
        O(successes) above 1), C(latency).
      type: str
      sample: status
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
      sample: {"status": 200, "wanted": [200]}
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
  sample: "http://127.0.0.1:9000/health is healthy (200 in 4.1 ms, 5 probes in 4.1 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    http://127.0.0.1:9000/health is not healthy: 127.0.0.1:9000 refused the connection. This was seen last and in 29 of 29 probes
    in 29.1 s. Look next at: whether the service runs and listens there.
url:
  description: What was asked.
  type: str
  returned: when asked
  sample: http://127.0.0.1:9000/health
status:
  description: Status of the last answer; V(null) when none came.
  type: int
  returned: when asked
  sample: 200
milliseconds:
  description: Time from the connection to the last byte of the last answer; V(null) when none came.
  type: float
  returned: when asked
  sample: 4.1
content_type:
  description: The C(Content-Type) of the last answer.
  type: str
  returned: when asked
  sample: text/html; charset=utf-8
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import http_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

TARGET = ("url", "method", "connect_to", "unix_socket", "ca_path", "validate_certs", "follow_redirects", "timeout_seconds")
WANTED = ("status", "body", "body_contains", "body_regex", "headers", "absent_headers", "p95_milliseconds", "p95_probes")

SPEC = {
    "url": {"type": "str", "required": True},
    "method": {"type": "str", "default": "GET"},
    "request_headers": {"type": "dict", "default": {}},
    "secret_request_headers": {"type": "dict", "default": {}, "no_log": True},
    "request_body": {"type": "str"},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "body": {"type": "str"},
    "body_contains": {"type": "str"},
    "body_regex": {"type": "str"},
    "headers": {"type": "dict", "default": {}},
    "absent_headers": {"type": "list", "elements": "str", "default": []},
    "json": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"expression": {"type": "str", "required": True}, "equals": {"type": "raw"}},
    },
    "follow_redirects": {"type": "str", "choices": ["none", "same_host"], "default": "none"},
    "connect_to": {"type": "str"},
    "unix_socket": {"type": "path"},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "p95_milliseconds": {"type": "float"},
    "p95_probes": {"type": "int", "default": 20},
    "identity": {
        "type": "dict",
        "options": {"port": {"type": "int"}, "cwd": {"type": "path"}, "environment": {"type": "dict", "default": {}}},
    },
    **poll_spec(deadline_seconds=30, timeout_seconds=5),
}


def texts(values: dict) -> dict[str, str]:
    """Return a dictionary whose values are text, as headers and environments have them."""
    return {str(key): str(value) for key, value in (values or {}).items()}


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    polling = poll_options(params)
    del polling["timeout_seconds"]
    headers = {**texts(params["request_headers"]), **texts(params["secret_request_headers"])}
    target = http_probe.Target(**{key: params[key] for key in TARGET}, headers=headers, body=params["request_body"])
    identity = params["identity"]
    wanted = http_probe.Expectation(
        **{key: texts(params[key]) if key == "headers" else params[key] for key in WANTED},
        json=[http_probe.Expression(item["expression"], item["equals"]) for item in params["json"]],
        identity=identity and http_probe.Identity(identity["port"], identity["cwd"], texts(identity["environment"])),
    )
    return http_probe.check(target, wanted, world=world, **polling)


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, mutually_exclusive=[("connect_to", "unix_socket")])
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
