#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_certificates
short_description: Give every TLS site of Nginx a certificate to start with
version_added: 0.1.0
description:
  - Nginx does not start when one certificate is absent, and an authority issues none before Nginx answers. This module
    breaks the circle with a self-signed certificate for each site that has none yet.
  - A certificate that somebody else issued is never touched, unless the site's own pair is given.
  - Chain and key change together. Where Nginx runs and presents another certificate than the disk holds, it is
    reloaded after C(nginx -t).
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Keys are secret, and certificates say nothing to a reader.
  idempotent:
    support: full
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
options:
  sites:
    description: The sites that are served over TLS.
    type: list
    elements: dict
    required: true
    suboptions:
      site:
        description: Name of the site; its pair lies in a directory of that name.
        type: str
        required: true
      domains:
        description: Names that a self-signed certificate must cover.
        type: list
        elements: str
        required: true
      mode:
        description:
          - V(acme) makes a self-signed certificate where there is none; another program replaces it later.
          - V(files) installs O(sites[].certificate) and O(sites[].key).
        type: str
        choices: [acme, files]
        default: acme
      certificate:
        description: The chain as PEM text or as the path of a file on the controller, the site's own certificate first.
        type: str
      key:
        description: The private key as PEM text or as the path of a file on the controller, vaulted or not.
        type: str
  directory:
    description: Directory with one directory per site, which holds C(fullchain.pem) and C(privkey.pem).
    type: path
    default: /etc/nginx/tls
  sites_directory:
    description: Directory of the sites' configuration; a site without a file there is not served yet.
    type: path
    default: /etc/nginx/anchorage/sites
  port:
    description: Port on 127.0.0.1 where the served certificate is looked at.
    type: int
    default: 443
"""

EXAMPLES = r"""
- name: Let Nginx start before a certificate was issued
  anchorage.vps.nginx_certificates:
    sites:
      - site: shop
        domains: [api.example.com]
"""

RETURN = r"""
changes:
  description: What was done, or would be done, for which site.
  returned: always
  type: list
  elements: dict
  sample: [{"site": "shop", "change": "no certificate yet"}]
missing:
  description: Whether nothing could be done because openssl is not installed.
  returned: always
  type: bool
absent:
  description: Sites that still have no certificate, which only check mode or a missing openssl leave so.
  returned: always
  type: list
  elements: str
notes:
  description: What could not be predicted, and why.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils.certificates import TlsWorld
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.site_certificates import converge


def main() -> None:
    """Introduce the options to the engine."""
    site = {
        "site": {"type": "str", "required": True},
        "domains": {"type": "list", "elements": "str", "required": True},
        "mode": {"type": "str", "choices": ["acme", "files"], "default": "acme"},
        "certificate": {"type": "str"},
        "key": {"type": "str", "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "sites": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": site,
                "required_if": [("mode", "files", ("certificate", "key"))],
            },
            "directory": {"type": "path", "default": "/etc/nginx/tls"},
            "sites_directory": {"type": "path", "default": "/etc/nginx/anchorage/sites"},
            "port": {"type": "int", "default": 443},
        },
        supports_check_mode=True,
    )
    places = {key: module.params[key] for key in ("directory", "sites_directory", "port")}
    try:
        module.exit_json(**converge(TlsWorld(), module.params["sites"], check=module.check_mode, **places))
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict())


if __name__ == "__main__":
    main()
