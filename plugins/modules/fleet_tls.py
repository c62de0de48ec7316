#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_tls
short_description: Certificates with which hosts of a fleet serve PostgreSQL and Redis to each other
description:
  - One host keeps an authority of the fleet's own, beside the secrets of the apps (C(/etc/anchorage/secrets/fleet.ca.json)). It is made once.
  - A host that serves others makes its own key, and asks with a signing request. So no private key leaves its host, and none is in an answer.
  - Every host that has to do with it trusts the authority (C(/etc/anchorage/tls/ca.pem)). Node.js processes read C(/etc/anchorage/tls/trusted.pem), which holds
    O(extra_ca_file) too.
  - A certificate is good for 2 years, and made anew in the first run after half of them, or when the host has other names or addresses.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Without O(certificate), which nobody has before the first run, it says only that there will be one.
  diff_mode:
    support: none
    details: Certificates are no text for people.
  idempotent:
    support: full
options:
  operation:
    description:
      - V(authority) returns the authority's certificate, and makes the authority where there is none.
      - V(host) lets the host trust it, and returns a signing request where the host needs a certificate.
      - V(join) joins it and O(extra_ca_file) in the one file that Node.js processes take.
      - V(sign) signs O(requests), on the host that keeps the authority.
      - V(install) takes the certificate that was signed.
    type: str
    choices: [authority, host, join, sign, install]
    required: true
  certificate:
    description: With O(operation=host), the authority's certificate; empty for the one that the host has already. With O(operation=install), the host's own.
    type: str
    default: ""
  names:
    description: Names of the host in its certificate.
    type: list
    elements: str
    default: []
  addresses:
    description: Addresses at which the host is reached.
    type: list
    elements: str
    default: []
  services:
    description: What the host serves to others, of V(postgresql) and V(redis). Each gets key and certificate in one file that only it may read.
    type: list
    elements: str
    default: []
  extra_ca_file:
    description: With O(operation=join), a PEM file on the host with further authorities that Node.js processes trust.
    type: str
    default: ""
  apps:
    description: Apps of the host that reach Redis elsewhere.
    type: list
    elements: str
    default: []
  instances:
    description: Redis instances of the host that others reach.
    type: list
    elements: str
    default: []
  requests:
    description: With O(operation=sign), by host a C(request), and the C(names) and C(addresses) that its certificate is good for, whatever the request says.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Trust the fleet's authority, and ask for a certificate
  anchorage.vps.fleet_tls:
    operation: host
    certificate: "{{ hostvars['db1']['authority']['certificate'] }}"
    names: [cache1]
    addresses: [10.0.0.22]
    services: [redis]
"""

RETURN = r"""
certificate:
  description: The authority's certificate; empty in check mode where there is none yet.
  type: str
  returned: with O(operation=authority)
request:
  description: A signing request; empty where none is needed.
  type: str
  returned: with O(operation=host)
why:
  description: Why a certificate is needed.
  type: str
  returned: with O(operation=host)
  sample: more than half of its life is over
open:
  description: Those of O(instances) that take plain connections.
  type: list
  elements: str
  returned: with O(operation=host)
plain:
  description: Those of O(apps) that run a release that reaches Redis in plain text.
  type: list
  elements: str
  returned: with O(operation=host)
certificates:
  description: What was signed, by host.
  type: dict
  returned: with O(operation=sign)
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import fleet_tls
from ansible_collections.anchorage.vps.plugins.module_utils.certificates import TlsWorld
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import AUTHORITY, SECRETS

Data = dict[str, t.Any]


def of_host(world: TlsWorld, params: Data, *, check: bool) -> Data:
    """Let the host trust the authority, and say what it lacks."""
    found: Data = {"request": "", "why": "", "open": fleet_tls.open_instances(world, params["instances"]), "plain": fleet_tls.plain_apps(world, params["apps"])}
    certificate = params["certificate"] or (world.read(AUTHORITY) or b"").decode()
    if not certificate:
        if not check:
            raise AnchorageError(
                "This host does not know the fleet's authority yet, and the host that keeps it gave no answer in this run.",
                next_step="Run site.yml without --limit.",
            )
        return {**found, "changed": True}
    changed = fleet_tls.trust(world, certificate, check=check)
    if params["services"]:
        wanted = fleet_tls.Wanted.of(params["names"], params["addresses"])
        found["request"], found["why"], written = fleet_tls.ask(world, certificate, wanted, params["services"], check=check)
        changed = changed or written
        if found["request"] and not params["certificate"] and not fleet_tls.serves(world, found["why"]):
            raise AnchorageError(
                f"This host needs a certificate, since {found['why']}, and the host that keeps the fleet's authority gave no answer in this run.",
                next_step="Run site.yml without --limit.",
            )
    return {**found, "changed": changed}


def run(world: TlsWorld, params: Data, *, check: bool) -> Data:
    """Do what is wanted. Returns the answer of the task."""
    if params["operation"] == "authority":
        if not check:
            os.makedirs(SECRETS, mode=0o700, exist_ok=True)
        certificate, made = fleet_tls.authority(world, check=check)
        return {"changed": made, "certificate": certificate}
    if params["operation"] == "host":
        return of_host(world, params, check=check)
    if params["operation"] == "join":
        return {"changed": fleet_tls.join(world, params["extra_ca_file"], check=check)}
    if params["operation"] == "sign":
        signed = (
            {}
            if check
            else {host: fleet_tls.sign(world, one["request"], fleet_tls.Wanted.of(one["names"], one["addresses"])) for host, one in params["requests"].items()}
        )
        return {"changed": bool(params["requests"]), "certificates": signed}
    if not check:
        fleet_tls.install(world, params["certificate"], fleet_tls.Wanted.of(params["names"], params["addresses"]), params["services"])
    return {"changed": True}


def main() -> None:
    """Do one part of it."""
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "choices": ["authority", "host", "join", "sign", "install"], "required": True},
            "certificate": {"type": "str", "default": ""},
            "names": {"type": "list", "elements": "str", "default": []},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "list", "elements": "str", "default": []},
            "extra_ca_file": {"type": "str", "default": ""},
            "apps": {"type": "list", "elements": "str", "default": []},
            "instances": {"type": "list", "elements": "str", "default": []},
            "requests": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(TlsWorld(), module.params, check=module.check_mode))
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())
    except KeyError as error:
        module.fail_json(msg=f"There is no group {error} on this host. Run provision.yml for it.")


if __name__ == "__main__":
    main()
