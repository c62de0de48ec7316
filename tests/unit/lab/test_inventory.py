# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory and the known_hosts that the lab writes."""

from __future__ import annotations

import yaml

from ansible_collections.anchorage.vps.tests.lab import inventory

HOSTS = [
    {
        "name": name,
        "suite": "trixie",
        "user": user,
        "groups": groups,
        "container": f"anchorage-lab-probe-{name}",
        "address": "192.0.2.7",
        "ports": {"22": port, "443": 8443},
        "keys": ["ssh-ed25519 AAAA", "ssh-rsa BBBB"],
    }
    for name, user, groups, port in [("web1", "root", ["app", "proxy"], 40001), ("db1", "admin", ["database"], 40002)]
]
PEM = "-----BEGIN CERTIFICATE-----\nMII: {{ not a template }}\n-----END CERTIFICATE-----\n"


def written():
    text = inventory.inventory("probe", HOSTS, {"lab_acme_ca_pem": PEM}, "/clone dir/.cache/lab/probe")
    return yaml.safe_load(text)["all"]["children"]


def test_each_host_is_reached_on_loopback_by_key_with_its_own_known_hosts():
    web1 = written()["lab"]["hosts"]["web1"]
    assert (web1["ansible_host"], web1["ansible_port"], web1["ansible_user"]) == ("127.0.0.1", 40001, "root")
    assert web1["ansible_ssh_private_key_file"] == "/clone dir/.cache/lab/probe/id_ed25519"
    assert "StrictHostKeyChecking=yes" in web1["ansible_ssh_common_args"]
    assert "'UserKnownHostsFile=/clone dir/.cache/lab/probe/known_hosts'" in web1["ansible_ssh_common_args"]


def test_only_somebody_else_than_root_becomes_root():
    hosts = written()["lab"]["hosts"]
    assert hosts["web1"]["ansible_become"] is False
    assert hosts["db1"]["ansible_become"] is True


def test_groups_name_their_hosts_and_say_nothing_else():
    groups = written()
    assert groups["app"] == {"hosts": {"web1": {}}}
    assert groups["database"] == {"hosts": {"db1": {}}}


def test_variables_of_the_lab_survive_yaml():
    assert written()["lab"]["vars"] == {"lab_name": "probe", "lab_acme_ca_pem": PEM}
    assert written()["lab"]["hosts"]["web1"]["lab_ports"] == {"22": 40001, "443": 8443}


def test_known_hosts_has_every_key_under_the_published_port():
    assert inventory.known_hosts(HOSTS).splitlines() == [
        "[127.0.0.1]:40001 ssh-ed25519 AAAA",
        "[127.0.0.1]:40001 ssh-rsa BBBB",
        "[127.0.0.1]:40002 ssh-ed25519 AAAA",
        "[127.0.0.1]:40002 ssh-rsa BBBB",
    ]
