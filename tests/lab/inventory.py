# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory and the known_hosts of a lab: data in, text out."""

from __future__ import annotations

import json
import shlex


def as_yaml(tree: dict, depth: int = 0) -> str:
    """Write nested dictionaries as YAML; every leaf is a JSON value, which YAML reads as it is."""
    lines = []
    for name, value in tree.items():
        key = name if str(name).isidentifier() else json.dumps(str(name))
        if isinstance(value, dict) and value:
            lines.append(f"{'  ' * depth}{key}:\n{as_yaml(value, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}{key}: {json.dumps(value)}\n")
    return "".join(lines)


def known_hosts(hosts: list[dict]) -> str:
    """One line for each key of each host, under the address at which the controller reaches it."""
    return "".join(f"[127.0.0.1]:{host['ports']['22']} {key}\n" for host in hosts for key in host["keys"])


def ssh_options(directory: str) -> list[str]:
    """Options with which every connection to a host of the lab is made."""
    pairs = {"UserKnownHostsFile": f"{directory}/known_hosts", "StrictHostKeyChecking": "yes", "IdentitiesOnly": "yes"}
    return [part for key, value in pairs.items() for part in ("-o", f"{key}={value}")]


def host_variables(host: dict, directory: str) -> dict:
    """Variables with which Ansible reaches one host, and what its surroundings are called."""
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": host["ports"]["22"],
        "ansible_user": host["user"],
        "ansible_become": host["user"] != "root",
        "ansible_ssh_private_key_file": f"{directory}/id_ed25519",
        "ansible_ssh_common_args": shlex.join(ssh_options(directory)),
        "ansible_python_interpreter": "/usr/bin/python3",
        "lab_container": host["container"],
        "lab_suite": host["suite"],
        "lab_address": host["address"],
        "lab_ports": host["ports"],
    }


def inventory(lab: str, hosts: list[dict], variables: dict, directory: str) -> str:
    """Write the inventory: group `lab` holds the hosts and the lab's variables, other groups name their hosts."""
    groups: dict[str, dict] = {
        "lab": {
            "hosts": {host["name"]: host_variables(host, directory) for host in hosts},
            "vars": {"lab_name": lab, **variables},
        }
    }
    for host in hosts:
        for group in host["groups"]:
            groups.setdefault(group, {"hosts": {}})["hosts"][host["name"]] = {}
    return "---\n" + as_yaml({"all": {"children": groups}})
