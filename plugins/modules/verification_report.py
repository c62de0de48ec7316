#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module that is entirely implemented as an action plugin and runs on the controller

from __future__ import annotations

DOCUMENTATION = r"""
module: verification_report
short_description: Print one table of health verdicts, and fail when one of them is red
description:
  - Prints what the health modules said of all hosts as one table, with the cause of everything that is not green.
  - Fails when something is red; in check mode it only reports.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Never fails there.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  hosts:
    description: The verdicts of each host, as the filter P(anchorage.vps.all_verdicts#filter) returns them.
    type: dict
    required: true
  urls:
    description: Public addresses of the apps, as the filter P(anchorage.vps.app_urls#filter) returns them.
    type: list
    elements: dict
    default: []
  directory:
    description:
      - Directory on the controller for the verdicts as C(verify.json) and as C(verify.html), a page that needs no network, and for the last
        60 runs, C(history.json). It is made where it is missing. Without it nothing is written.
    type: path
  partial:
    description: Whether only a part was asked. Then O(directory) is left as it is, so that nobody takes a part for the whole.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Report
  anchorage.vps.verification_report:
    hosts:
      web1:
        - {name: shop, grade: green, summary: shop is healthy., checks: []}
  run_once: true
"""

RETURN = r"""
grade:
  description: The worst verdict.
  type: str
  returned: always
  choices: [green, amber, red]
verdicts:
  description: All verdicts by host.
  type: dict
  returned: always
"""
