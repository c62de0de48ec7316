#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certbot_certificates
short_description: Get certificates through certbot and prove that they are served
version_added: 0.1.0
description:
  - One execution looks at all certificates. Only what is absent, names other domains, came from another authority or is
    overdue for renewal is issued.
  - Each certificate is copied to O(tls_directory), Nginx is reloaded after C(nginx -t), and the certificate that it then
    presents for every name is compared with the one on the disk.
  - When an authority refuses, what was served before is served on, and the module fails with certbot's reason.
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Tells which certificates would be issued or deployed; the authority is not asked.
  diff_mode:
    support: none
    details: What would be issued is named in RV(certificates[].action).
  idempotent:
    support: full
options:
  certificates:
    description: The certificates that must exist.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate and of the site that it is deployed for.
        type: str
        required: true
      domains:
        description: Names that it covers.
        type: list
        elements: str
        required: true
      method:
        description: How the names are proven.
        type: str
        choices: [webroot, dns]
        default: webroot
      required:
        description: Whether to fail where the authority gives none; otherwise it is a warning.
        type: bool
        default: true
  server:
    description: Directory URL of the authority.
    type: str
    default: https://acme-v02.api.letsencrypt.org/directory
  email:
    description: Address for the authority's account.
    type: str
    default: ""
  ca_file:
    description: File on the host with the roots that certbot trusts when it talks to a private authority.
    type: str
    default: ""
  webroot:
    description: Directory whose C(.well-known/acme-challenge) Nginx serves.
    type: path
    default: /var/www/acme
  key_type:
    description: Kind of the private keys.
    type: str
    choices: [ecdsa, rsa]
    default: ecdsa
  dns_auth_hook:
    description: Command that publishes a DNS record.
    type: str
    default: ""
  dns_cleanup_hook:
    description: Command that removes it.
    type: str
    default: ""
  tls_directory:
    description: Directory with one directory per site, which holds C(fullchain.pem) and C(privkey.pem).
    type: path
    default: /etc/nginx/tls
  port:
    description: Port on 127.0.0.1 where Nginx is asked for each certificate.
    type: int
    default: 443
"""

EXAMPLES = r"""
- name: Get a certificate for a site
  anchorage.vps.certbot_certificates:
    email: ops@example.com
    certificates:
      - name: shop
        domains: [api.example.com]
"""

RETURN = r"""
certificates:
  description: What is on the host now, and what was done (or would be done) for each certificate.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "shop", "domains": ["api.example.com"], "serial": "04A1", "issuer": "CN = R12", "days_left": 89.9, "action": "issue: there is none yet"}]
  contains:
    name:
      description: Name of the certificate.
      type: str
    domains:
      description: Names that it covers.
      type: list
      elements: str
    serial:
      description: Serial number.
      type: str
    issuer:
      description: Who issued it.
      type: str
    days_left:
      description: Days until it expires.
      type: float
    action:
      description: What was or would be done and why; none where nothing was.
      type: str
notes:
  description: What could not be predicted, and why.
  returned: success
  type: list
  elements: str
error:
  description: What broke, what is served now and what to do next.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils.certbot import Settings, converge, wanted_from
from ansible_collections.anchorage.vps.plugins.module_utils.certificates import TlsWorld
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError


def main() -> None:
    """Introduce the options to the engine."""
    certificate = {
        "name": {"type": "str", "required": True},
        "domains": {"type": "list", "elements": "str", "required": True},
        "method": {"type": "str", "choices": ["webroot", "dns"], "default": "webroot"},
        "required": {"type": "bool", "default": True},
    }
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "dict", "required": True, "options": certificate},
            "server": {"type": "str", "default": "https://acme-v02.api.letsencrypt.org/directory"},
            "email": {"type": "str", "default": ""},
            "ca_file": {"type": "str", "default": ""},
            "webroot": {"type": "path", "default": "/var/www/acme"},
            "key_type": {"type": "str", "choices": ["ecdsa", "rsa"], "default": "ecdsa", "no_log": False},
            "dns_auth_hook": {"type": "str", "default": ""},
            "dns_cleanup_hook": {"type": "str", "default": ""},
            "tls_directory": {"type": "path", "default": "/etc/nginx/tls"},
            "port": {"type": "int", "default": 443},
        },
        supports_check_mode=True,
    )
    settings = Settings(**{key: value for key, value in module.params.items() if key in Settings._fields})
    wanted = wanted_from(module.params["certificates"])
    try:
        result = converge(TlsWorld(), wanted, settings, check=module.check_mode)
        for text in result.pop("warned", []):
            module.warn(text)
        module.exit_json(**result)
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
