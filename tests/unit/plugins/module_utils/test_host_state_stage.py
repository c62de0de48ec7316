# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.host_state_stage import Unstageable, overlay_roots, run_validators, submounts
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

MOUNTS = """22 1 0:20 / / rw - overlay overlay rw
23 22 0:21 / /etc/hosts rw - ext4 /dev/vda rw
24 22 0:22 / /etc/ssl/certs/ca\\040bundle.crt ro - ext4 /dev/vda rw
25 22 0:23 / /etcetera rw - tmpfs tmpfs rw
"""


def test_only_the_top_directories_that_change_are_laid_over():
    assert overlay_roots(["/etc/nginx/x", "/etc/y", "/srv/shop/env"]) == ["/etc", "/srv"]


def test_a_path_in_the_root_itself_cannot_be_staged():
    with pytest.raises(Unstageable):
        overlay_roots(["/etc/x", "/swapfile"])


def test_what_is_mounted_below_is_found_outermost_first():
    assert submounts(MOUNTS, "/etc") == ["/etc/hosts", "/etc/ssl/certs/ca bundle.crt"]


def test_only_validators_that_disagree_are_returned_with_what_they_said():
    validators = [
        {"name": "fine", "command": ["true"]},
        {"name": "bad", "command": ["sh", "-c", "echo out; echo err >&2; exit 3"]},
        {"name": "missing", "command": ["/nonexistent/validator"]},
    ]
    failed = run_validators(validators, World())
    assert [(entry["name"], entry["rc"]) for entry in failed] == [("bad", 3), ("missing", 127)]
    assert failed[0]["output"] == "out\nerr"
