# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app as a stack of a Docker Swarm: what the contract refuses, what hosts are told, what the stack is, and what is thought of what is seen of it."""

from __future__ import annotations

import copy
import json
import shlex
import subprocess
import sys
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils import edges, swarm
from ansible_collections.anchorage.vps.plugins.module_utils.compose_project import EXTRA_CA, authorities
from ansible_collections.anchorage.vps.plugins.module_utils.contract import ContractError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import AUTHORITY, TRUSTED

from .contract_samples import FLEET, WEB, changed, resolved

DIGEST = f"sha256:{'ab' * 32}"
IMAGE = {"image": "registry.example.com/acme/web", "digest": DIGEST}
APP = changed(WEB, runtime="swarm", source=IMAGE)
NODES = {**FLEET, "app": [{"name": f"a{number}", "address": f"192.0.2.1{number}"} for number in range(1, 5)]}


def refused(app, topology=NODES, **more):
    with pytest.raises(ContractError) as caught:
        resolved({"web": app, **more}, topology)
    return {problem.path: problem.rule for problem in caught.value.problems}


def process(document, name):
    return next(found for found in document["processes"] if found["name"] == name)


# ---- the contract


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"source": {"path": "."}}, "image.build_on", "must be controller, so that every node has the same image"),
        ({"source": {"path": "."}, "image": {"build_on": "host"}}, "image.build_on", "must be controller"),
        ({"strategy": "hold"}, "strategy", "hold is not for runtime swarm"),
        ({"processes": {"web": {"instances": 5}}}, "processes.web.instances", "must not be more than the 4 hosts of the app"),
        ({"shared": ["static"], "processes": {"web": {"instances": 2}}}, "processes.web.instances", "must not be more than 1 where the app has shared"),
        ({"database": {"image": "postgres:17"}}, "database.image", "belongs to runtime compose, not to swarm"),
        ({"components": {"s3": {}}}, "components", "belongs to runtime compose, not to swarm"),
    ],
)
def test_what_a_swarm_cannot_do_is_refused_by_key(changes, key, words):
    app = copy.deepcopy(APP)
    for name, value in changes.items():
        app[name] = {"web": {**app["processes"]["web"], **value["web"]}} if name == "processes" else value
    assert words in refused(app)[f"apps.web.{key}"]


def test_the_host_that_tells_the_swarm_must_manage_it():
    far = changed(APP, domain="far.example.com", hosts=["a4"])
    found = refused(changed(APP, hosts=["a1", "a2", "a3"]), far=far)
    assert "must begin with a host that manages the Swarm (a1, a2, a3)" in found["apps.far.hosts"] and "apps.web.hosts" not in found
    assert "(a1)" in refused(changed(APP, hosts=["a1"]), far=changed(far, hosts=["a2"]))["apps.far.hosts"], "of two nodes the first one manages alone"
    assert resolved({"far": far}, NODES), "alone it is the one that manages"


def test_a_service_on_a_node_is_refused_and_one_elsewhere_or_managed_is_not():
    near = {**NODES, "database": NODES["app"][1:2], "cache": NODES["app"][:1]}
    found = refused(changed(APP, database={"enabled": True}, redis={"enabled": True}), near)
    assert "would live on a2, a node of the Swarm" in found["apps.web.database"] and "would live on a1" in found["apps.web.redis"]
    managed = changed(APP, database={"url": "postgres://web:kQ7rT2vX9mB4@db.example.com:5432/web"})
    assert resolved({"web": managed}, near)["apps"]["web"]["database"]["external"]
    assert resolved({"web": changed(APP, database={"enabled": True}, hosts=["a1", "a3"])}, near)


def test_compose_names_the_way_to_several_hosts():
    assert "or use runtime swarm" in refused(changed(APP, runtime="compose"))["apps.web.runtime"]


def test_all_tasks_of_a_process_have_one_port_for_each_slot_and_there_is_no_edge():
    app = resolved({"web": changed(APP, processes__web__instances=3)}, NODES)["apps"]["web"]
    assert app["processes"][0]["slots"] == {"blue": [9000], "green": [9001]} and app["processes"][0]["instances"] == 3
    assert app["edge_port"] is None and not edges.wanted(app, NODES)
    assert not edges.chooses_here({"runtime": "swarm", "proxy_address": "127.0.0.1"})


# ---- what hosts are told


@pytest.fixture
def told():
    apps = {"web": changed(APP, hosts=["a1", "a2", "a3"], shared=["static"]), "other": changed(APP, domain="other.example.com", hosts=["a2", "a4"])}
    return resolved({**apps, "plain": changed(WEB, domain="plain.example.com", hosts=["a1"])}, NODES)


def test_the_first_three_nodes_manage_and_labels_say_which_app_may_run_where(told):
    nodes = views.docker_compose_swarm_nodes(told, "a4")
    assert [(node["name"], node["manager"]) for node in nodes] == [("a1", True), ("a2", True), ("a3", True), ("a4", False)]
    assert nodes[0]["labels"] == {"vps.anchorage.app.web": "true", "vps.anchorage.app.web.shared": "true"}
    assert nodes[1]["labels"] == {"vps.anchorage.app.web": "true", "vps.anchorage.app.other": "true"}
    assert views.docker_compose_swarm_nodes(told, "d1") == []
    assert swarm.managers(["a", "b"]) == ["a"] and swarm.managers(["a", "b", "c", "d"]) == ["a", "b", "c"]


def test_nodes_let_nodes_in_and_proxies_reach_public_ports_only(told):
    ports = {(rule["port"], rule["protocol"]): rule["from"] for rule in views.base_firewall_allow(told, "a1")}
    others = ["192.0.2.12/32", "192.0.2.13/32", "192.0.2.14/32"]
    assert [ports[key] for key in ((2377, "tcp"), (7946, "tcp"), (7946, "udp"), (4789, "udp"))] == [others] * 4
    assert 2377 not in [rule["port"] for rule in views.base_firewall_allow(told, "a4")], "a worker answers no manager"
    assert views.base_firewall_allow(told, "p1") == []
    opened = views.docker_compose_swarm_ports(told, "a1")
    assert [ports[rule["port"], "tcp"] for rule in opened] == [rule["from"] for rule in opened], "where no task is they are refused, not left waiting"
    assert [(rule["port"], rule["from"]) for rule in opened] == [(port, ["192.0.2.12/32", "192.0.2.13/32", "192.0.2.31/32"]) for port in (9000, 9001)]


def test_proxies_know_both_slots_of_every_node_and_ask_again(told):
    site = next(site for site in views.nginx_sites(told, "p1") if site["name"] == "web")
    assert site["again"] and "slot_directory" not in site
    assert site["upstreams"] == {"blue": [{"address": f"192.0.2.1{node}", "port": port} for port in (9000, 9001) for node in (1, 2, 3)]}
    assert [site["name"] for site in views.nginx_sites(told, "a2")] == []


def test_roles_of_a_node(told):
    assert {"docker_compose", "nginx"} & {*views.host_roles(told, "a4")} == {"docker_compose"}
    assert {"nodejs", "pm2"} & {*views.host_roles(told, "a4")} == set()


# ---- the stack

SECRET = "it's $ecret {{.Node.ID}}\nin two lines"


@pytest.fixture
def document():
    processes = {
        "web": {"command": ["node", "web.js", "--port={port}"], "public": True, "instances": 2, "memory_mb": 300},
        "worker": {"command": ["node", "worker.js"], "overlap": False},
    }
    app = changed(APP, processes=processes, env={"NOTE": "a$b"}, secrets={"generate": {"JWT_SECRET": 64}}, database={"enabled": True})
    contract = resolved({"web": app}, NODES)
    return views.release_documents(contract, {"web": {"JWT_SECRET": SECRET, "database_password": "pw-of-the-database"}}, "a2")[0]


def stack(document, **changes):
    files = {"web": "/r/run/web.env", "worker": "/r/run/worker.env"}
    return swarm.stack(document, **{"release": "r1", "slot": "green", "image": DIGEST, "user": "990:991", "files": files, **changes})


def test_the_stack_starts_first_rolls_back_and_stays_on_the_nodes_of_the_app(document):
    web, worker = (stack(document)["services"][name] for name in ("web", "worker"))
    update = web["deploy"]["update_config"]
    assert (update["order"], update["failure_action"], update["parallelism"], update["max_failure_ratio"]) == ("start-first", "rollback", 1, 0)
    assert web["deploy"]["rollback_config"]["order"] == "start-first"
    assert worker["deploy"]["update_config"]["order"] == "stop-first", "of one that may not overlap there are never two"
    assert (web["deploy"]["replicas"], web["deploy"]["endpoint_mode"], worker["deploy"]["replicas"]) == (2, "dnsrr", 1)
    assert web["deploy"]["placement"]["constraints"] == ["node.labels.vps.anchorage.app.web == true"]
    assert web["ports"] == [{"target": 9001, "published": 9001, "protocol": "tcp", "mode": "host"}] and "ports" not in worker
    assert web["deploy"]["resources"]["limits"] == {"pids": 512, "memory": "300M"}
    assert web["image"] == DIGEST and web["user"] == "990:991" and web["cap_drop"] == ["ALL"] and web["read_only"]
    assert web["healthcheck"]["start_period"] == f"{process(document, 'web')['health']['deadline_seconds']}s"
    labels = {"vps.anchorage.app": "web", "vps.anchorage.release": "r1", "vps.anchorage.slot": "green"}
    assert web["labels"] == labels and web["deploy"]["labels"] == {**labels, "vps.anchorage.lead": "a2"}


def test_what_is_written_on_one_node_keeps_the_app_there(document):
    service = stack({**document, "shared": ["static"]})["services"]["web"]
    assert service["deploy"]["placement"]["constraints"] == ["node.labels.vps.anchorage.app.web.shared == true"]
    assert {"type": "bind", "source": "/srv/web/shared/static", "target": "/app/static"} in service["volumes"]


def test_a_task_trusts_the_fleets_authority_where_its_database_is_on_another_host(document):
    service = stack(document)["services"]["web"]
    binds = {volume["target"]: volume["source"] for volume in service["volumes"] if volume["type"] == "bind" and volume.get("read_only")}
    assert binds == {EXTRA_CA: TRUSTED, AUTHORITY: AUTHORITY} and f"sslrootcert={AUTHORITY}" in document["database_url"]
    assert f"NODE_EXTRA_CA_CERTS={EXTRA_CA}" in swarm.environment_file(document, process(document, "web"), "r1")
    plain = {key: value for key, value in document.items() if key != "trusted_file"}
    assert authorities({**plain, "extra_ca_file": "/own.pem"}) == {"/own.pem": EXTRA_CA} and authorities(plain) == {}


def test_nothing_of_the_environment_is_in_the_stack_but_what_everybody_may_see(document):
    found = stack(document)
    text = json.dumps(found)
    assert all(part not in text for part in ("$ecret", "pw-of-the-database", "a$$b", "NOTE"))
    assert found["services"]["web"]["environment"]["ANCHORAGE_PROCESS"] == "web-web.{{.Task.Slot}}"
    assert found["services"]["web"]["environment"]["PORT"] == "9001" and "PORT" not in found["services"]["worker"]["environment"]
    assert found["services"]["web"]["secrets"] == [{"source": "web", "target": "anchorage.env", "uid": "990", "gid": "991", "mode": 0o400}]


def test_a_process_gets_its_environment_as_it_was_given(document, tmp_path):
    file = tmp_path / "anchorage.env"
    file.write_text(swarm.environment_file(document, process(document, "web"), "r1"))
    take = swarm.TAKE.replace(f"/run/secrets/{swarm.SECRETS_FILE}", shlex.quote(str(file)))
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    done = subprocess.run(["/bin/sh", "-c", take, "sh", "python3", "-c", show], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["JWT_SECRET"], found["NOTE"]) == (SECRET, "a$b") and "pw-of-the-database" in found["DATABASE_URL"]
    assert not {*found} & {*swarm.PLAIN}, "its port and its name are those of its slot, which the service says"
    missing = subprocess.run(["/bin/sh", "-c", swarm.TAKE, "sh", "true"], capture_output=True, check=False)
    assert missing.returncode != 0, "nothing is started without it"


def test_the_command_is_run_by_the_shell_that_took_the_environment(document):
    web, worker = (stack(document)["services"][name] for name in ("web", "worker"))
    assert worker["entrypoint"] == ["/bin/sh", "-c", '. /run/secrets/anchorage.env && exec "$$@"', "sh", "node", "worker.js"]
    assert web["entrypoint"][:2] == ["/bin/sh", "-c"] and web["entrypoint"][2] == swarm.LEAVE.replace("$", "$$")
    assert web["entrypoint"][3:] == ["sh", "node", "web.js", "--port=9001"] and web["command"] == worker["command"] == []


def test_only_what_visitors_come_to_says_that_it_leaves_and_has_the_time_for_it(document):
    web, worker = (stack(document)["services"][name] for name in ("web", "worker"))
    places = [[volume["source"] for volume in service["volumes"] if volume.get("target") == swarm.LEAVING] for service in (web, worker)]
    assert places == [["/run/anchorage-leaving/web"], []]
    stops = [process(document, name)["stop_seconds"] for name in ("web", "worker")]
    assert [web["stop_grace_period"], worker["stop_grace_period"]] == [f"{stops[0] + swarm.HEARD + swarm.STRAGGLERS}s", f"{stops[1]}s"]


CHILD = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_a: sys.exit(7)); print('up', flush=True); time.sleep({seconds}); sys.exit(3)"


def supervised(tmp_path, *, seconds):
    """Start a process as a task does; the node is a thread."""
    (tmp_path / "leaving").mkdir()
    (tmp_path / "env").write_text("")
    script = swarm.LEAVE.replace(f"/run/secrets/{swarm.SECRETS_FILE}", str(tmp_path / "env")).replace(swarm.LEAVING, str(tmp_path / "leaving"))
    script = script.replace(f"sleep {swarm.STRAGGLERS}\n", "sleep 0.3\n")
    argv = ["/bin/sh", "-c", script, "sh", sys.executable, "-c", CHILD.format(seconds=seconds)]
    task = subprocess.Popen(argv, env={"PORT": "9000", "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True)
    assert task.stdout.readline() == "up\n"
    return task, tmp_path / "leaving" / "9000"


def test_a_task_ends_with_the_code_of_its_process(tmp_path):
    task, _file = supervised(tmp_path, seconds=0.2)
    assert task.wait(10) == 3


def test_a_task_says_that_it_leaves_and_waits_until_it_was_heard(tmp_path):
    task, file = supervised(tmp_path, seconds=60)
    task.terminate()
    began = time.monotonic()
    while not file.exists():
        assert time.monotonic() - began < 5
        time.sleep(0.01)
    time.sleep(0.5)
    assert task.poll() is None, "nobody has heard it yet"
    file.unlink()
    assert task.wait(5) == 7, "the process itself is told, and says how it ended"


def test_a_task_that_nobody_hears_leaves_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(swarm, "LEAVE", swarm.LEAVE.replace(f"tries={swarm.HEARD * 10}", "tries=3"))
    task, file = supervised(tmp_path, seconds=60)
    task.terminate()
    assert task.wait(10) == 7 and file.exists()


def test_a_task_that_cannot_say_it_leaves_all_the_same_and_in_order(tmp_path):
    task, file = supervised(tmp_path, seconds=60)
    file.parent.rmdir()
    task.terminate()
    assert task.wait(5) == 7, "the shell itself must not end over it"


def test_without_its_environment_nothing_is_started():
    assert subprocess.run(["/bin/sh", "-c", swarm.LEAVE, "sh", "true"], capture_output=True, check=False).returncode != 0


def test_another_environment_is_another_secret_and_the_same_one_is_the_same(document):
    def names(found):
        return {key: secret["name"] for key, secret in found["secrets"].items()}

    first = names(stack(document))
    assert first == names(stack(document, slot="blue")), "both slots have one"
    other = {**document, "secrets_env": {**document["secrets_env"], "JWT_SECRET": "another"}}
    assert not {*first.values()} & {*names(stack(other)).values()}
    assert len({*first.values()}) == 2 and all(len(name) <= 64 and name.startswith("web-") for name in first.values())


def test_what_is_public_may_come_alone(document):
    assert set(stack(document, public_only=True)["services"]) == set(stack(document, public_only=True)["secrets"]) == {"web"}


# ---- what is thought of it

WEB_PROCESS = {"name": "web", "instances": 2, "stop_seconds": 5, "health": {"deadline_seconds": 30}}


def task(release="r2", state="running", wanted="running", error="", node="a1"):
    return swarm.Task(release, state, wanted, error, ("192.0.2.11", 9000), node)


def service(*tasks, release="r2", update="", said=""):
    return swarm.Service("web", release, "green", update, said, tasks)


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (None, "going", "no service web yet"),
        (service(task(), task()), "done", ""),
        (service(task(), task(), update="completed"), "done", ""),
        (service(task(), task(), update="updating"), "going", "2 of 2 tasks run"),
        (service(task(), task("r1")), "going", "1 of 2 tasks run"),
        (service(task(), task(state="starting")), "going", "1 of 2"),
        (service(task(), task(wanted="shutdown")), "going", "1 of 2"),
        (service(task(), task(state="pending", error="no suitable node")), "going", "no suitable node"),
        (service(task("r1"), task("r1"), release="r1"), "failed", "went back"),
        (service(task(), task(), update="rollback_completed", said="rolled back"), "failed", "rolled back"),
        (service(task(), task(), update="rollback_started"), "failed", ""),
        (service(task(), task(), update="paused", said="update paused due to failure"), "failed", "paused"),
        (service(task(state="failed", error="exit (1)", node="a3"), update="rollback_completed"), "failed", "exit (1) on a3"),
        (service(*[task(state="failed", error="exit (1)")] * 3), "failed", "exit (1) on a1"),
        (service(task(state="complete"), update="rollback_completed"), "failed", "its health check does not pass, on a1"),
        (service(task(state="complete"), task(state="failed", error="exit (1)"), update="rollback_completed"), "failed", "exit (1) on a1"),
        (service(*[task(state="complete", wanted="shutdown")] * 3), "failed", "health check"),
        (service(*[task(state="rejected", error="No such image")] * 2), "going", "No such image on a1"),
        (service(*[task(state="failed", error="x")] * 3, update="updating"), "going", "x on a1"),
        (service(task(), task(), *[task(state="failed")] * 5), "done", ""),
    ],
)
def test_a_service_is_judged_by_its_tasks(seen, state, words):
    found = swarm.judge(seen, WEB_PROCESS, "r2")
    assert found.state == state and words in found.cause, found


def test_what_is_to_be_none_is_done_with_none():
    assert swarm.judge(service(), {**WEB_PROCESS, "instances": 0}, "r2").state == swarm.DONE


def test_the_way_back_has_an_end_too():
    assert [swarm.settled(service(update=update)) for update in ("", "updating", "completed", "rollback_started", "rollback_completed", "paused")] == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]


def test_patience_is_for_all_tasks_one_after_the_other():
    assert swarm.patience(WEB_PROCESS) == 60 + 2 * (30 + swarm.RETRIES * swarm.INTERVAL + swarm.MONITOR + 5)
