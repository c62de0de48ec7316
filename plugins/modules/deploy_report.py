#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module that is entirely implemented as an action plugin and runs on the controller

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_report
short_description: Print what a deploy has done
description:
  - Prints one table for all hosts and apps, with what is live, the seconds that each step took, and what the host saw of its site meanwhile.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Prints nothing there.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  hosts:
    description: For each host, C(status) as M(anchorage.vps.release_step) returns it, and C(steps), the results of the tasks that ran steps.
    type: dict
    required: true
  path:
    description: File on the controller that gets the report as JSON.
    type: path
"""

EXAMPLES = r"""
- name: Report
  anchorage.vps.deploy_report:
    hosts:
      web1:
        status: "{{ anchorage_status['status'] }}"
        steps: ["{{ release_staged }}", "{{ release_migrated }}", "{{ release_activated }}"]
  run_once: true
"""

RETURN = r"""
apps:
  description: One entry for each host and app.
  type: list
  elements: dict
  returned: always
  sample:
    - host: web1
      app: shop
      live: 0c2d6a7f9b1e
      slot: green
      changed: true
      seconds: {stage: 61.2, migrate: 10.1, activate: 44.9}
      phases: {fetch: 0.4, build: 52.1, migration: 9.0, prove: 7.7, soak: 30.1}
      prober: {requests: 512, failed: 0, longest_seconds: 0.09, first_failure: null}
"""
