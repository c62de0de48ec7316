#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module that is entirely implemented as an action plugin and runs on the controller

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_plan
short_description: Print what a deploy is going to do, and refuse when that is not what somebody agreed to
description:
  - Prints the previews of all hosts and gives the whole an id.
  - The id changes with what is live, what is wanted, the pending migrations and their verdict; not with free space or the time of day.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  hosts:
    description: For each host what the filter P(anchorage.vps.deploy_results#filter) makes of its variables.
    type: dict
    required: true
  expect:
    description: The id of the plan that was agreed to. It fails when this one has another.
    type: str
  path:
    description: File on the controller that gets the plan as JSON.
    type: path
"""

EXAMPLES = r"""
- name: Say what a deploy would do
  anchorage.vps.deploy_plan:
    hosts: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars) | map('anchorage.vps.deploy_results'))) }}"
  run_once: true
"""

RETURN = r"""
id:
  description: Names this plan.
  type: str
  returned: always
  sample: 3f2a9c51d07e
hosts:
  description: For each host and app the preview.
  type: dict
  returned: always
"""
