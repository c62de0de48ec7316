#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module that is entirely implemented as an action plugin and runs on the controller

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnosis_report
short_description: Print the diagnoses of all hosts as one text, the worst first
description:
  - Prints what M(anchorage.vps.app_diagnosis) said of each host, and writes it to a file where one is named.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes
attributes:
  check_mode:
    support: full
    details: Writes no file there.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  hosts:
    description: For each host what M(anchorage.vps.app_diagnosis) returned; a host without an answer is said to have none.
    type: dict
    required: true
  path:
    description: File on the controller that gets the whole text. It is written so that only its owner can read it.
    type: path
"""

EXAMPLES = r"""
- name: Report
  anchorage.vps.diagnosis_report:
    hosts:
      web1: {grade: green, text: ["green: All 8 are well."]}
  run_once: true
"""

RETURN = r"""
grade:
  description: The worst verdict.
  type: str
  returned: always
  choices: [green, amber, red]
"""
