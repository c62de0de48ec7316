# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Good apps and topologies that the tests of the contract start from."""

from __future__ import annotations

import copy
import pathlib

import yaml

from ansible_collections.anchorage.vps.plugins.filter.contract import load_components
from ansible_collections.anchorage.vps.plugins.module_utils import contract as contract_module
from ansible_collections.anchorage.vps.plugins.module_utils.contract import resolve

ROLE = pathlib.Path(contract_module.__file__).resolve().parents[2] / "roles" / "release"
SPEC = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
PRESETS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROLE / "presets").glob("*.yml")}

VPS = [{"name": "vps", "address": "192.0.2.10"}]
ONE_HOST = {"app": VPS, "database": VPS, "cache": VPS, "proxy": VPS}
FLEET = {
    "app": [{"name": "a1", "address": "192.0.2.11"}, {"name": "a2", "address": "192.0.2.12"}],
    "database": [{"name": "d1", "address": "192.0.2.21"}],
    "cache": [{"name": "d1", "address": "192.0.2.21"}],
    "proxy": [{"name": "p1", "address": "192.0.2.31"}],
}
GIT = {"repo": "https://git.example.com/acme/shop.git", "version": "v1.2.0"}
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
RANDOM = "kQ7rT2vX9mB4nC6pL1sD8fG3hJ5wZ0yA"
SHOP = {"preset": "medusa", "source": GIT, "domain": "api.example.com", "env": {"STORE_CORS": ["https://shop.example.com"]}}
BOT = {"preset": "node", "source": GIT, "processes": {"bot": {"command": ["node", "bot.js"]}}}
WEB = {"preset": "node", "source": GIT, "domain": "www.example.com", "processes": {"web": {"command": ["node", "web.js"], "public": True}}}


def changed(app, **changes):
    """Return an app with keys replaced, C(a__b) meaning b inside a; ... removes a key."""
    app = copy.deepcopy(app)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = app
        for parent in parents:
            inner = inner.setdefault(parent, {})
        if value is ...:
            del inner[last]
        else:
            inner[last] = copy.deepcopy(value)
    return app


def resolved(apps, topology=None, scale=None):
    """Resolve with the real spec and presets, on one host unless told otherwise."""
    return resolve(apps, topology or ONE_HOST, spec=SPEC, presets=PRESETS, component_files=load_components(), scale=scale)
