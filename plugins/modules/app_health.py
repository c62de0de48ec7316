#!/usr/bin/python
# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_health
short_description: Prove by evidence that all apps of a host, and the host, are healthy
description:
  - Asks everything that the contract implies for the apps of a host, at once and in one remote execution.
  - That is for each app what its journal says, its database, its Redis instances, its processes under PM2, each process's own answer,
    the site as visitors see it, and its certificate; and for the host its disks, memory, clock, units and ports.
  - An app that is named and was never deployed to the host is red.
  - What is asked follows from the documents that the last deploy left in C(/etc/anchorage/apps), from the journals, and from
    C(/etc/anchorage/health.json), which provisioning leaves. So there is no list of checks to keep.
  - While a release is started, a process that is not public may be between its two releases. That is V(amber) and says so; what visitors see
    stays V(red), unless the app's strategy lets visitors wait.
  - C(anchorage health) on the host asks the same without a controller.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
extends_documentation_fragment:
  - anchorage.vps.attributes.read_only

options:
  apps:
    description: The apps to ask about; without it all that were deployed to the host.
    type: list
    elements: str
  sites:
    description:
      - Sites that this host is proxy of although their app runs elsewhere, as the filter P(anchorage.vps.monitoring_sites#filter) returns them.
      - Without it those that provisioning left in C(/etc/anchorage/health.json).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the site, and of the directory of its certificate.
        type: str
        required: true
      domains:
        description: Its names.
        type: list
        elements: str
        required: true
      tls_mode:
        description: Where its certificate comes from.
        type: str
        choices: [acme, files, "off"]
        required: true
      health_path:
        description: The path that is asked; without it only the certificate is judged.
        type: str
      health_status:
        description: The status that must be answered.
        type: int
        default: 200
  host:
    description: Whether to ask about the host itself too.
    type: bool
    default: true
  kinds:
    description:
      - Which kinds of questions are asked. V(release) is what the journal says, V(answer) a public process at its own port, V(worker) another one,
        V(site) and V(tls) what visitors see, V(backup) the last backups and proofs. What cannot be read at all is told in any case.
      - V(negative) asks what must be refused, as in C(verify.yml --tags negative). A foreign origin gets no permission and the app's own one does, plain
        http leads to https and sets no cookie, an unsigned C(POST) to each webhook of the contract reaches the app and is refused by it, and nothing leads
        from outside to a process that is not public. It sends requests that no visitor sends, none of which signs in.
      - V(golive) ticks the boxes of a checklist for going live. For an app https, security headers, versions told, rate limit, origins, test keys,
        secrets in the code of the release, and who may read files with secrets. For the host security updates, SSH, firewall, a backup that is watched,
        somebody who is told, and services that come back after a boot.
      - V(drift) holds the files that M(anchorage.vps.host_state) manages on this host against what it left.
    type: list
    elements: str
    choices: [release, database, redis, processes, answer, worker, site, tls, host, backup, negative, golive, drift]
    default: [release, database, redis, processes, answer, worker, site, tls, host, backup]
  controller_time:
    description: The time of the controller in seconds since the epoch, to be held against this host's. Without it the two are not compared.
    type: float
  deadline_seconds:
    description:
      - Time for everything together, since all questions run side by side.
      - A question that is not answered well is asked again until this time is over. The first answer is always waited for, at most
        two seconds longer.
    type: float
    default: 30
  fail:
    description:
      - Whether the task fails when anything is red.
      - With V(false) the task is ok and the verdict is in RV(healthy) and RV(grade), for a report or a rescue of your own.
    type: bool
    default: true
notes:
  - The module only looks. It never reports a change and does in check mode exactly what it does outside of it.
  - It must run as root, which alone may read the apps' documents.
seealso:
  - module: anchorage.vps.http_health
  - module: anchorage.vps.postgresql_health
  - module: anchorage.vps.redis_health
  - module: anchorage.vps.pm2_health
  - module: anchorage.vps.tls_health
  - module: anchorage.vps.host_health
"""

EXAMPLES = r"""
- name: Everything on this host is well
  anchorage.vps.app_health:
    controller_time: "{{ now().timestamp() }}"
  become: true

- name: The shop is well, whatever the host's disks say
  anchorage.vps.app_health:
    apps: [shop]
    host: false
    deadline_seconds: 60
  become: true

- name: What must be refused is refused
  anchorage.vps.app_health:
    kinds: [negative]
  become: true

- name: Look, and decide later
  anchorage.vps.app_health:
    deadline_seconds: 5
    fail: false
  become: true
  register: this_host
"""

RETURN = r"""
healthy:
  description: Whether nothing is red.
  type: bool
  returned: always
  sample: true
grade:
  description: The worst of all verdicts.
  type: str
  returned: always
  choices: [green, amber, red]
  sample: green
parts:
  description: The questions with their verdicts, in the order of the apps, the host last.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: What was asked about.
      type: str
      sample: shop database
    app:
      description: The app that it belongs to; empty for the host and for sites of other hosts' apps.
      type: str
      sample: shop
    kind:
      description: C(release), C(database), C(redis), C(processes), C(answer) (of a public process), C(worker) (of another), C(site), C(tls) or C(host).
      type: str
      sample: database
    grade:
      description: V(green), V(amber) (something warns) or V(red).
      type: str
      sample: green
    healthy:
      description: Whether nothing of it failed.
      type: bool
      sample: true
    summary:
      description: The verdict in one sentence.
      type: str
      sample: "PostgreSQL database shop at 127.0.0.1:5432 as shop is healthy (version 17.6, 0.21 ms a statement, 1 probe in 0.1 s)."
    message:
      description: The cause, what was seen last, how often and for how long, and where to look next; the summary where nothing is wrong.
      type: str
      sample: "PostgreSQL database shop at 127.0.0.1:5432 as shop is healthy (version 17.6, 0.21 ms a statement, 1 probe in 0.1 s)."
    checks:
      description: The evidence, in the shape that every health module of the collection has. It never holds a password.
      type: list
      elements: dict
      sample: []
checks:
  description: The evidence of all parts, each name preceded by that of its part.
  type: list
  elements: dict
  returned: always
  sample: []
summary:
  description: The verdict in a sentence; with something amiss, one for each part that is not green.
  type: str
  returned: always
  sample: All 8 are well.
msg:
  description: For each red part its cause and where to look next.
  type: str
  returned: failure
at:
  description: When it was asked, in seconds since the epoch by the host's clock.
  type: float
  returned: always
  sample: 1764000000.123
seconds:
  description: How long it took.
  type: float
  returned: always
  sample: 0.712
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.anchorage.vps.plugins.module_utils import app_health
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

SPEC = {
    "apps": {"type": "list", "elements": "str"},
    "sites": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "tls_mode": {"type": "str", "choices": ["acme", "files", "off"], "required": True},
            "health_path": {"type": "str"},
            "health_status": {"type": "int", "default": 200},
        },
    },
    "host": {"type": "bool", "default": True},
    "kinds": {"type": "list", "elements": "str", "choices": [*app_health.KINDS, *app_health.ON_REQUEST], "default": [*app_health.KINDS]},
    "controller_time": {"type": "float"},
    "deadline_seconds": {"type": "float", "default": 30},
    "fail": {"type": "bool", "default": True},
}


def result(found: dict) -> dict:
    """Return what the module hands to Ansible: the parts, and the checks of all of them in the one shape."""
    checks = [{**check, "name": f"{part['name']}: {check['name']}"} for part in found["parts"] for check in part["checks"]]
    return {**found, "checks": checks, "changed": False}


def main() -> None:
    """Ask and answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    given = module.params
    try:
        if given["deadline_seconds"] <= 0:
            raise AnchorageError(f"deadline_seconds must be more than 0, not {given['deadline_seconds']}.")
        asked = {key: given[key] for key in ("sites", "host", "controller_time", "kinds")}
        found = app_health.look(given["apps"], World(), deadline_seconds=given["deadline_seconds"], **asked)
    except AnchorageError as error:
        module.fail_json(msg=error.text(), healthy=False, grade="red", parts=[], checks=[], summary=error.message)
    if found["healthy"] or not given["fail"]:
        module.exit_json(**result(found))
    red = [part["message"] for part in found["parts"] if part["grade"] == "red"]
    module.fail_json(msg=" ".join(red), **result(found))


if __name__ == "__main__":
    main()
