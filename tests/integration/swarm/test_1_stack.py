# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app on a Docker Swarm of three nodes: what is made of the contract, releases under visitors, one that is no good, and a node that goes."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.tests.integration.release.conftest import SECRETS, Visitor, until

pytestmark = pytest.mark.fault


def settled(swarm):
    """All nodes say that the same release is live, and the Swarm runs it and nothing else."""
    (live,) = set(swarm.live().values())
    tasks = swarm.tasks()
    assert {release for places in tasks.values() for _node, release in places} == {live}
    assert {process: len(places) for process, places in tasks.items()} == {"alpha-server": 2, "alpha-worker": 1}
    return live


def test_the_contract_becomes_a_stack_and_a_second_run_changes_nothing(swarm):
    live = settled(swarm)
    assert swarm.proxy.public()["release"] == live
    assert swarm.database.runs(live) == 1
    nodes = {node["Hostname"]: node["ManagerStatus"] for node in map(json.loads, swarm.lead.shell("docker node ls --format '{{json .}}'").splitlines())}
    assert sorted(nodes.values()) == ["Leader", "Reachable", "Reachable"]
    ended = swarm.run("site")
    assert ended.changed == 0, ended.output[-3000:]
    assert swarm.run("site", "--check").changed == 0
    assert settled(swarm) == live


def test_secrets_are_the_swarms_and_nowhere_else(swarm):
    secrets = json.loads(swarm.database.shell("cat /etc/anchorage/secrets/alpha.json"))
    told = swarm.lead.shell("docker service inspect alpha_server alpha_worker; for id in $(docker stack ps -q alpha); do docker inspect $id; done")
    there = [name for name in (*SECRETS, "database_password", "redis_password") if secrets[name] in told]
    assert there == [], "docker inspect shows nothing of them"


def test_only_the_proxy_and_the_nodes_reach_the_tasks(swarm):
    document = json.loads(swarm.lead.shell("cat /etc/anchorage/apps/alpha.json"))
    (server,) = [process for process in document["processes"] if process["public"]]
    slot = swarm.lead.state()["slot"]
    (port,) = server["slots"][slot]
    busy = {node for node, _release in swarm.tasks()["alpha-server"]}
    target = next(host for host in swarm.nodes if host.name in busy)
    probe = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{target.facts['lab_address']}/{port}' && echo in || echo out"
    answers = {host.name: host.shell(probe).strip().splitlines()[-1] for host in (swarm.proxy, swarm.database, *swarm.nodes) if host is not target}
    assert answers == {host.name: "out" if host is swarm.database else "in" for host in (swarm.proxy, swarm.database, *swarm.nodes) if host is not target}


def test_a_release_under_visitors(swarm):
    old = settled(swarm)
    swarm.apps.app("alpha")
    with Visitor(swarm.proxy) as visitor:
        ended = swarm.deploy()
    visitor.check()
    new = settled(swarm)
    assert new != old and swarm.database.runs(new) == 1
    assert visitor.releases[-1] == new
    assert all(any(line.split()[:3] == [name, "alpha", new] for line in ended.output.splitlines()) for name in ("node1", "node2", "node3"))


BAD = [({"server": "crash"}, "non-zero exit"), ({"server": "sick"}, "its health check does not pass"), ({"worker": "crash"}, "non-zero exit")]


@pytest.mark.parametrize(("switch", "said"), BAD)
def test_a_bad_release_is_rolled_back_by_the_swarm_and_the_run_says_so(swarm, switch, said):
    old = settled(swarm)
    swarm.apps.app("alpha", **switch)
    with Visitor(swarm.proxy) as visitor:
        ended = swarm.deploy(rc=None)
    visitor.check()
    assert settled(swarm) == old
    words = " ".join(ended.output.split())
    assert "the Swarm has rolled" in words and said in words and "node1 did not take the release" in words, ended.output[-4000:]
    swarm.apps.app("alpha")
    swarm.deploy()
    assert settled(swarm) != old


def test_a_rollback_of_all_nodes(swarm):
    first = settled(swarm)
    swarm.apps.app("alpha")
    swarm.deploy()
    second = settled(swarm)
    with Visitor(swarm.proxy) as visitor:
        swarm.run("rollback", "-e", "app=alpha")
    visitor.check()
    assert settled(swarm) == first != second


def test_a_node_is_drained_and_its_tasks_move(swarm):
    live = settled(swarm)
    busy = {node for node, _release in swarm.tasks()["alpha-server"]}
    leaving = next(host for host in swarm.nodes if host.name in busy and host is not swarm.lead)
    with Visitor(swarm.proxy) as visitor:
        swarm.lead.shell(f"docker node update --availability drain {leaving.name}")
        until(lambda: len(swarm.tasks()["alpha-server"]) == 2 and leaving.name not in dict(swarm.tasks()["alpha-server"]), "the tasks to move", 120)
    visitor.check()
    health = json.loads(swarm.lead.shell("anchorage health --json", check=False))
    assert f"{leaving.name} takes no tasks" in json.dumps(health)
    swarm.lead.shell(f"docker node update --availability active {leaving.name}")
    assert settled(swarm) == live


def test_a_node_loses_its_power_and_its_tasks_move(swarm):
    # What is live is what the contract asks for, so that the last run has no release to make.
    swarm.deploy()
    live = settled(swarm)
    busy = {node for node, _release in swarm.tasks()["alpha-server"]}
    leaving = next(host for host in swarm.nodes if host.name in busy and host is not swarm.lead)
    swarm.off(leaving.name)
    until(lambda: len([node for node, _release in swarm.tasks()["alpha-server"] if node != leaving.name]) == 2, "the tasks to move", 180)
    with Visitor(swarm.proxy) as visitor:
        until(lambda: len(visitor.releases) > 100, "a hundred answers", 120)
    visitor.check()
    ended = swarm.run("verify", rc=None)
    assert leaving.name in ended.output
    swarm.on(leaving.name)
    until(lambda: leaving.name in swarm.lead.shell("docker node ls --filter node.label=vps.anchorage.app.alpha | grep Ready"), "the node to be back", 180)
    swarm.run("site")
    assert settled(swarm) == live
