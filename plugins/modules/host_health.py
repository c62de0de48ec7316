#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_health
short_description: Prove by evidence that the machine itself is healthy
description:
  - Judges disks and inodes, memory and swap, load, the clock, failed units, a reboot that is due, open ports, and the results
    that backups left behind.
  - Reads C(/proc), the file systems and systemd, and runs nothing but C(systemctl) and C(timedatectl).
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only
  - anchorage.vps.health

options:
  paths:
    description: Paths whose file systems are judged, each file system once.
    type: list
    elements: path
    default: [/]
  disk_warn_percent:
    description: Warn when more than this share of a file system is used. What only root may use counts as used, as C(df) shows it.
    type: float
    default: 80
  disk_fail_percent:
    description: Fail when more than this share of a file system is used.
    type: float
    default: 92
  inodes_warn_percent:
    description: Warn when more than this share of a file system's inodes is used. Not judged where there is no table of inodes.
    type: float
    default: 80
  inodes_fail_percent:
    description: Fail when more than this share of a file system's inodes is used.
    type: float
    default: 92
  memory_warn_percent:
    description: Warn when more than this share of the memory is in use, by what the kernel calls available (C(MemAvailable)).
    type: float
    default: 90
  memory_fail_percent:
    description: Fail when more than this share of the memory is in use.
    type: float
    default: 97
  swap_warn_percent:
    description: Warn when more than this share of the swap is in use.
    type: float
    default: 60
  load_warn_per_core:
    description: Warn when the load of the last five minutes is more than this for each core.
    type: float
    default: 3
  controller_time:
    description:
      - The time of another clock in seconds since the epoch, to be held against this host's, best the controller's.
      - The seconds until the module begins count as skew, so O(max_clock_skew_seconds) should not be below V(10).
      - Without it the two are not compared.
    type: float
  max_clock_skew_seconds:
    description: How far the two clocks may be apart.
    type: float
    default: 60
  clock_synchronised:
    description:
      - What it means when nothing keeps the clock right.
      - Not judged in a container, which has the clock of its machine.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  failed_units:
    description: What it means when systemd counts a unit as failed.
    type: str
    choices: [ignore, warn, fail]
    default: fail
  ignored_units:
    description: Units that may be failed.
    type: list
    elements: str
    default: []
  reboot:
    description:
      - What it means when an update waits for a reboot.
      - It does when C(/run/reboot-required) is there, or when a newer kernel of the same flavour is installed than the one that runs.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  allowed_ports:
    description:
      - The TCP ports that may be listened on beyond the loopback addresses, whether or not a firewall closes them.
      - Without it open ports are not judged.
    type: list
    elements: int
  unexpected_ports:
    description: What it means when another port is listened on.
    type: str
    choices: [ignore, warn, fail]
    default: fail
  backups:
    description:
      - Backups whose result is judged.
      - >-
        The result file is JSON with C(finished) (seconds since the epoch), C(ok) (V(true) or V(false)), C(cause) (in words, when it failed), and
        C(proof) with the same keys for the last proof that it can be restored.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called here.
        type: str
        required: true
      path:
        description: Its result file.
        type: path
        required: true
      max_age_hours:
        description: Fail when the last good one is older than this.
        type: float
        default: 26
      max_proof_age_days:
        description: Fail when the last good proof is older than this. Without it the proof is not judged.
        type: float
  deadline_seconds:
    description:
      - Time for everything together. The module ends within it, however slowly it is answered.
      - As long as a probe is not healthy, it is repeated until this time is over. The first probe is always made.
    type: float
    default: 10
  timeout_seconds:
    description: Time for each question to systemd in a single probe.
    type: float
    default: 10
notes:
  - Run it as root, since others may not see which process holds a port.
"""

EXAMPLES = r"""
- name: The host has room, memory, a right clock, and nothing that failed
  anchorage.vps.host_health:
    controller_time: "{{ now().timestamp() }}"
    allowed_ports: [22, 80, 443]
  become: true

- name: Last night's backup is there and was proven this month
  anchorage.vps.host_health:
    paths: [/, /var/lib/postgresql]
    backups:
      - name: database
        path: /var/lib/anchorage/backup/database.json
        max_proof_age_days: 31
  become: true

- name: Look, and decide later
  anchorage.vps.host_health:
    deadline_seconds: 1
    fail: false
  register: this_host
"""

RETURN = r"""
healthy:
  description: Whether every check holds. A check that only warns does not count against it.
  type: bool
  returned: always
  sample: true
checks:
  description: What was asked, one entry per question, as it was seen last. Empty when the question itself made no sense.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: >-
        C(disk:<path>) and C(inodes:<path>), C(memory), C(swap), C(load), C(clock) (with O(controller_time)), C(clock_source), C(units), C(reboot),
        C(rotation:<app>) (while secrets are rotated; it warns after an hour), C(ports) (with O(allowed_ports)),
        C(backup:<name>) and C(backup_proof:<name>), C(steadiness) (with O(successes) above 1).
      type: str
      sample: "disk:/"
    healthy:
      description: V(true) for the verdicts V(ok) and V(warn).
      type: bool
      sample: true
    verdict:
      description: V(ok), V(warn) or V(fail).
      type: str
      sample: ok
    evidence:
      description: What the verdict rests on; its keys depend on the check.
      type: dict
      sample: {"value": 41.3, "unit": "%", "warn": 80, "fail": 92, "free_mb": 23114, "size_mb": 39376}
    cause:
      description: What is wrong, in words; empty when nothing is.
      type: str
      sample: ""
    attempts:
      description: In how many probes this was asked.
      type: int
      sample: 1
    seconds:
      description: For how long it was watched.
      type: float
      sample: 0.041
summary:
  description: The verdict in one sentence.
  type: str
  returned: always
  sample: "The host is healthy (disk 41.3 %, memory 52.8 %, load 0.31, 1 probe in 0.0 s)."
msg:
  description: The cause, what was seen last, how often and for how long, and where to look next.
  type: str
  returned: failure
  sample: >-
    The host is not healthy: systemd counts 1 unit as failed: certbot.service. This was seen last and in 10 of 10 probes in 9.2 s. Look
    next at: systemctl status certbot.service; journalctl -u certbot.service.
kernel:
  description: The release of the kernel that runs.
  type: str
  returned: when asked
  sample: 6.12.57+deb13-cloud-amd64
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import host_probe
from ansible_collections.anchorage.vps.plugins.module_utils.health import SEVERITIES, Verdict, answer, poll_options, poll_spec

SEVERITY = {"type": "str", "choices": [*SEVERITIES]}

SPEC = {
    "paths": {"type": "list", "elements": "path", "default": ["/"]},
    "disk_warn_percent": {"type": "float", "default": 80},
    "disk_fail_percent": {"type": "float", "default": 92},
    "inodes_warn_percent": {"type": "float", "default": 80},
    "inodes_fail_percent": {"type": "float", "default": 92},
    "memory_warn_percent": {"type": "float", "default": 90},
    "memory_fail_percent": {"type": "float", "default": 97},
    "swap_warn_percent": {"type": "float", "default": 60},
    "load_warn_per_core": {"type": "float", "default": 3},
    "controller_time": {"type": "float"},
    "max_clock_skew_seconds": {"type": "float", "default": 60},
    "clock_synchronised": {**SEVERITY, "default": "warn"},
    "failed_units": {**SEVERITY, "default": "fail"},
    "ignored_units": {"type": "list", "elements": "str", "default": []},
    "reboot": {**SEVERITY, "default": "warn"},
    "allowed_ports": {"type": "list", "elements": "int"},
    "unexpected_ports": {**SEVERITY, "default": "fail"},
    "backups": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "max_age_hours": {"type": "float", "default": 26},
            "max_proof_age_days": {"type": "float"},
        },
    },
    **poll_spec(deadline_seconds=10, timeout_seconds=10),
}


def ask(params: dict, world: host_probe.HostWorld) -> Verdict:
    """Turn options into a question and ask it."""
    given = {key: params[key] for key in SPEC if key not in poll_spec(1, 1)}
    wanted = host_probe.Expectation(**{**given, "backups": [host_probe.Backup(**backup) for backup in params["backups"]]})
    return host_probe.check(wanted, world=world, **poll_options(params))


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    answer(module, lambda: ask(module.params, host_probe.HostWorld()))


if __name__ == "__main__":
    main()
