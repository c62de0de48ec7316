#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_health
short_description: Prove by evidence that a server's TLS is healthy and stays so
description:
  - Asks a server for each name as a client would, and judges chain, names, the time that is left, and the oldest protocol it agrees on.
  - A renewal whose command returned 0 may have left the old certificate in the server's memory. So the certificate that is served
    can be held against the one on the disk, and the timer that renews it against what systemd knows of it.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

requirements:
  - the program openssl on the host that runs the module
options:
  names:
    description:
      - The names to ask for. Each one must be served with a certificate that is trusted and valid for it.
      - Of a wildcard such as V(*.example.com) one of its members is asked for.
    type: list
    elements: str
    required: true
  address:
    description: Where to connect to, such as V(127.0.0.1:443), V([2001:db8::1]:8443) or V(shop.example.com).
    type: str
    default: 127.0.0.1:443
  ca_path:
    description: A file with the certificates of the authorities to trust, instead of those of the system.
    type: path
  certificate_path:
    description: The PEM file whose first certificate must be the one that is served for every name, such as C(fullchain.pem).
    type: path
  warn_percent:
    description:
      - Warn when less than this share of the lifetime is left. A life of more than 90 days counts as 90.
      - Renewal begins at a third, so the default is a renewal that has failed for a few days.
    type: float
    default: 30
  fail_percent:
    description: Fail when less than this share of the lifetime is left.
    type: float
    default: 10
  min_protocol:
    description: The oldest protocol that the server may agree on.
    type: str
    choices: [TLSv1.2, TLSv1.3]
    default: TLSv1.2
  renewal_timer:
    description:
      - The systemd timer that renews the certificate, such as V(certbot.timer).
      - Warn when it is not enabled and active, or when the last run of its service did not end well. What is served lives on meanwhile, and
        O(fail_percent) fails when nobody has acted.
    type: str
  untrusted:
    description:
      - What it means when nobody who is trusted has signed the certificate, because the authority is a private one, or because it is
        self-signed, as the stand-in is with which a new site starts.
      - A certificate that has expired or is for another name fails in any case.
    type: str
    choices: [ignore, warn, fail]
    default: fail
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 15
  timeout_seconds:
    description: Time for a single handshake.
    type: float
    default: 5
seealso:
  - module: community.crypto.get_certificate
  - module: community.crypto.x509_certificate_info
"""

EXAMPLES = r"""
- name: The site's certificate is trusted, fresh, and the one on the disk
  anchorage.vps.tls_health:
    names: [shop.example.com, www.shop.example.com]
    certificate_path: /etc/nginx/tls/shop/fullchain.pem
    renewal_timer: certbot.timer

- name: Only TLS 1.3 is spoken, and a test authority is trusted
  anchorage.vps.tls_health:
    names: [shop.example.com]
    address: 127.0.0.1:8443
    ca_path: /etc/ssl/certs/test-authority.pem
    min_protocol: TLSv1.3

- name: How long does it live
  anchorage.vps.tls_health:
    names: [shop.example.com]
    fail: false
    deadline_seconds: 5
  register: shop_tls
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
        For each name C(certificate:<name>) (it is served, trusted, and valid for it); for each different certificate C(lifetime:<first name>);
        C(protocol), C(served) (with O(certificate_path)), C(renewal) (with O(renewal_timer)), C(steadiness) (with O(successes) above 1).
      type: str
      sample: "certificate:shop.example.com"
    healthy:
      description: V(true) for the verdicts V(ok) and V(warn).
      type: bool
      sample: true
    verdict:
      description: V(ok), V(warn) or V(fail).
      type: str
      sample: ok
    evidence:
      description: What the verdict rests on; its keys depend on the check.
      type: dict
      sample: {"percent_left": 71.2, "days_left": 64.1, "warn": 30, "fail": 10}
    cause:
      description: What is wrong, in words; empty when nothing is.
      type: str
      sample: ""
    attempts:
      description: In how many probes this was asked.
      type: int
      sample: 1
    seconds:
      description: For how long it was watched.
      type: float
      sample: 0.041
summary:
  description: The verdict in one sentence.
  type: str
  returned: always
  sample: "TLS of shop.example.com at 127.0.0.1:443 is healthy (TLSv1.3, 64.1 days left, 1 probe in 0.0 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    TLS of shop.example.com at 127.0.0.1:443 is not healthy: for shop.example.com another certificate is served than the one in
    /etc/nginx/tls/shop/fullchain.pem. This was seen last and in 14 of 14 probes in 14.2 s. Look next at: nginx -t
    && systemctl reload nginx; the deploy hook of the renewal.
days_left:
  description: Days until the first of the served certificates expires; V(null) when none is served or it has expired.
  type: float
  returned: when asked
  sample: 64.1
protocol:
  description: The protocol that was agreed on for the first name; V(null) when none was.
  type: str
  returned: when asked
  sample: TLSv1.3
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import tls_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import SEVERITIES, Verdict, answer, poll_options, poll_spec
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

WANTED = ("certificate_path", "warn_percent", "fail_percent", "min_protocol", "renewal_timer", "untrusted")

SPEC = {
    "names": {"type": "list", "elements": "str", "required": True},
    "address": {"type": "str", "default": "127.0.0.1:443"},
    "ca_path": {"type": "path"},
    "certificate_path": {"type": "path"},
    "warn_percent": {"type": "float", "default": 30},
    "fail_percent": {"type": "float", "default": 10},
    "min_protocol": {"type": "str", "choices": [*tls_probe.PROTOCOLS], "default": "TLSv1.2"},
    "renewal_timer": {"type": "str"},
    "untrusted": {"type": "str", "choices": [*SEVERITIES], "default": "fail"},
    **poll_spec(deadline_seconds=15, timeout_seconds=5),
}


def ask(params: dict, world: World) -> Verdict:
    """Turn options into a question and ask it."""
    polling = poll_options(params)
    target = tls_probe.Target(params["names"], params["address"], params["ca_path"], polling.pop("timeout_seconds"))
    wanted = tls_probe.Expectation(**{key: params[key] for key in WANTED})
    return tls_probe.check(target, wanted, world=world, **polling)


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    answer(module, lambda: ask(module.params, World()))


if __name__ == "__main__":
    main()
