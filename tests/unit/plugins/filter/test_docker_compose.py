# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the role docker_compose, and the role's own data as they and its templates make it."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.anchorage.vps.plugins.filter.docker_compose import docker_compose_model, docker_credentials

ROLE = pathlib.Path(__file__).parents[4] / "roles/docker_compose"
HOSTS = {"trixie": "Debian", "bookworm": "Debian", "jammy": "Ubuntu", "noble": "Ubuntu", "resolute": "Ubuntu"}


def trusted(value):
    """Return the same data as Ansible loads it from a role."""
    if isinstance(value, dict):
        return {key: trusted(part) for key, part in value.items()}
    if isinstance(value, list):
        return [trusted(part) for part in value]
    return trust_as_template(value) if isinstance(value, str) else value


def rendered(expression, release="trixie", **settings):
    """Render an expression with the variables of the role on a host of a release."""
    variables = {**yaml.safe_load((ROLE / "defaults/main.yml").read_text()), **yaml.safe_load((ROLE / "vars/main.yml").read_text())}
    facts = {"distribution": HOSTS[release], "distribution_release": release}
    templar = Templar(loader=DataLoader(), variables={**trusted(variables), "ansible_facts": facts, "ansible_check_mode": False, **settings})
    return templar.template(trust_as_template(expression))


def guard(*ports):
    text = rendered((ROLE / "templates/docker-ports.nft.j2").read_text(), docker_compose_published_ports=list(ports))
    return [line.strip() for line in text.splitlines()]


def test_a_definition_survives_the_way_into_yaml():
    definition = {"services": {"web": {"image": "w:1", "ports": ["22:22"], "environment": {"A": "yes", "B": "0644", "C": "é: #", "D": "x" * 300}, "tty": True}}}
    files = docker_compose_model([{"name": "shop", "definition": definition}], directory="/x", prover="/p")["files"]
    assert yaml.safe_load(files[0]["content"]) == definition
    assert files[0]["content"].startswith("# Managed by anchorage.vps.docker_compose\nservices:\n")


def test_what_ansible_has_tagged_can_be_written():
    given = rendered("{{ [{'name': 'shop', 'definition': {'services': {'web': {'image': name, 'cpus': 0.5, 'init': true}}}}] }}", name="web:1")
    assert "image: web:1" in docker_compose_model(given, directory="/x", prover="/p")["files"][0]["content"]


def test_a_refusal_is_one_sentence_for_people():
    with pytest.raises(AnsibleError, match=r"docker_compose_projects\[0\]\.definition of project shop has no services\. Next: "):
        docker_compose_model([{"name": "shop"}], directory="/x", prover="/p")
    with pytest.raises(AnsibleError, match=r"docker_compose_registries\[0\]\.password is empty"):
        docker_credentials([{"registry": "r.example.com", "username": "u", "password": ""}])


def test_the_engine_is_told_what_the_role_promises():
    told = rendered("{{ __docker_compose_daemon }}")
    assert told["ip"] == "127.0.0.1"
    assert told["default-network-opts"] == {"bridge": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}}
    assert (told["log-driver"], told["log-opts"]) == ("local", {"max-size": "10m", "max-file": "5"})
    assert all(told[key] is True for key in ("iptables", "live-restore", "no-new-privileges", "userland-proxy"))
    assert "default-address-pools" not in told and "registry-mirrors" not in told


def test_the_operator_has_the_last_word_but_for_two_keys():
    told = rendered("{{ __docker_compose_daemon }}", docker_compose_swarm=True, docker_compose_daemon_options={"log-opts": {}, "debug": True})
    assert (told["live-restore"], told["log-opts"], told["debug"]) == (False, {}, True)
    assert rendered("{{ __docker_compose_foreign_options }}", docker_compose_daemon_options={"hosts": [], "debug": True}) == ["hosts"]


@pytest.mark.parametrize("release", HOSTS)
def test_each_release_has_compose_2_or_none(release):
    packages = rendered("{{ __docker_compose_origins['distribution'] }}", release)
    assert bool(packages) == (release != "bookworm")
    assert ("docker-compose" in packages) == (release == "trixie")


@pytest.mark.parametrize(("release", "name"), [("bookworm", "debian"), ("noble", "ubuntu")])
def test_dockers_repository_is_that_of_the_host(release, name):
    told = rendered("{{ __docker_compose_repositories }}", release, docker_compose_origin="docker")
    assert [told[0]["uris"], told[0]["suites"], told[0]["components"]] == [[f"https://download.docker.com/linux/{name}"], [release], ["stable"]]
    assert "docker-compose-plugin" in rendered("{{ __docker_compose_packages }}", release, docker_compose_origin="docker")
    assert rendered("{{ __docker_compose_repositories }}", release) == []


def test_a_host_without_docker_gets_no_packages():
    assert rendered("{{ __docker_compose_packages }}", docker_compose_enabled=False) == []


def test_the_guard_lets_nothing_in_by_itself():
    lines = guard()
    assert [line for line in lines if "published" in line and "accept" in line] == []
    assert lines.index('counter drop comment "for a container"') > lines.index("chain published {")
    assert {'oifname "docker*" jump published', 'oifname "br-*" jump published'} <= set(lines)


@pytest.mark.parametrize(
    ("port", "starts"),
    [
        ({"port": 8443}, ["ct status dnat meta l4proto tcp ct original proto-dst 8443 "]),
        ({"port": 53, "protocol": "udp", "from": []}, ["ct status dnat meta l4proto udp ct original proto-dst 53 "]),
        (
            {"port": 80, "from": ["192.0.2.0/24"]},
            ["ip saddr { 192.0.2.0/24 } ct status dnat meta l4proto tcp ct original proto-dst 80 "],
        ),
        ({"port": 80, "from": ["2001:db8::/32", "192.0.2.1"]}, ["ip saddr { 192.0.2.1 } ct status dnat ", "ip6 saddr { 2001:db8::/32 } ct status dnat "]),
    ],
)
def test_a_named_port_is_open_for_those_who_are_named(port, starts):
    lines = [line for line in guard(port) if line.endswith(" accept") and "dnat" in line]
    assert len(lines) == len(starts)
    assert [line for line, start in zip(lines, starts) if not line.startswith(start)] == []


def test_both_firewalls_know_the_same_mark():
    base = (ROLE.parent / "base/templates/firewall.nft.j2").read_text()
    assert "meta mark set meta mark or 0x10000000 accept" in guard({"port": 80})[guard({"port": 80}).index("chain published {") + 1]
    assert "meta mark & 0x10000000 == 0x10000000 accept" in base


def test_settings_are_json_on_the_disk():
    content = rendered("{{ __docker_compose_files }}")[0]["content"]
    assert json.loads(content)["live-restore"] is True


def test_the_program_that_proves_is_there_where_somebody_needs_it():
    paths = [entry["path"] for entry in rendered("{{ __docker_compose_files }}")]
    proved = rendered("{{ __docker_compose_files }}", docker_compose_projects=[{"name": "a"}, {"name": "b", "proofs": [{"name": "x"}]}])
    assert [entry["path"] for entry in proved if entry["path"] not in paths] == ["/usr/local/lib/anchorage/docker-prove"]
