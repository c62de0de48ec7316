# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import release_plan as plan
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.journal import empty
from ansible_collections.anchorage.vps.plugins.module_utils.layout import Layout

PROCESS = {
    "name": "server",
    "command": ["node", "server.js"],
    "public": True,
    "instances": 1,
    "slots": {"blue": [9000], "green": [9002]},
    "memory_mb": 512,
    "env": {"MODE": "server"},
    "overlap": True,
    "stop_seconds": 30,
    "health": {"path": "/health"},
}
WORKER = {**PROCESS, "name": "worker", "public": False, "slots": {"blue": [9001], "green": [9003]}, "env": {"MODE": "worker"}}
DOCUMENT = {
    "name": "shop",
    "home": "/srv/shop",
    "source": {"kind": "git", "subdir": ""},
    "package_manager": "auto",
    "build": {"command": ["npm", "run", "build"], "env": {"URL": "https://a"}, "output": "dist", "memory_mb": 1536},
    "shared": ["static"],
    "env": {"LOG_LEVEL": "info"},
    "secrets_env": {"JWT_SECRET": "s" * 40},
    "database_url": "postgres://shop:pw@127.0.0.1:5432/shop",
    "redis_url": "redis://shop:pw@127.0.0.1:6379/0",
    "migrate": {"command": ["node", "migrate.js"]},
    "processes": [PROCESS, WORKER],
    "listen_address": "127.0.0.1",
}


def changed(**parts):
    document = copy.deepcopy(DOCUMENT)
    document.update(parts)
    return document


def test_the_same_inputs_have_the_same_name():
    assert plan.release_id(DOCUMENT, "abc") == plan.release_id(copy.deepcopy(DOCUMENT), "abc")


@pytest.mark.parametrize(
    "parts",
    [
        {"env": {"LOG_LEVEL": "debug"}},
        {"secrets_env": {"JWT_SECRET": "t" * 40}},
        {"database_url": "postgres://shop:other@127.0.0.1:5432/shop"},
        {"redis_url": "redis://shop:pw@127.0.0.1:6380/0"},
        {"migrate": {"command": ["node", "other.js"]}},
        {"build": {**DOCUMENT["build"], "env": {"URL": "https://b"}}},
        {"processes": [{**PROCESS, "command": ["node", "other.js"]}, WORKER]},
        {"processes": [{**PROCESS, "slots": {"blue": [9100], "green": [9102]}}, WORKER]},
    ],
)
def test_what_a_release_depends_on_changes_its_name(parts):
    assert plan.release_id(changed(**parts), "abc") != plan.release_id(DOCUMENT, "abc")


@pytest.mark.parametrize(
    "parts",
    [
        {"database_url": "postgres://shop:pw@10.0.0.5:5432/shop?sslmode=verify-full&sslrootcert=/etc/anchorage/tls/ca.pem"},
        {"redis_url": "redis://shop:pw@10.0.0.6:6379/0"},
        {"host": "web2", "host_address": "10.0.0.2", "migrator": False},
        {"processes": [{**PROCESS, "health": {"path": "/other"}}, WORKER]},
        {"build": {**DOCUMENT["build"], "memory_mb": 4096}},
    ],
)
def test_what_differs_between_hosts_or_only_concerns_the_deploy_does_not(parts):
    assert plan.release_id(changed(**parts), "abc") == plan.release_id(DOCUMENT, "abc")


POOL = "postgres://shop:pw@10.0.0.5:6432/shop?sslmode=no-verify"
READ = "postgres://shop:pw@10.0.0.6:6432/shop?sslmode=no-verify"
READS = {"database": {"read_url_env": "DATABASE_READ_URL"}}


class TestWaysToTheDatabase:
    def server(self, **parts):
        document = changed(**parts)
        return plan.process_environment(document, plan.instances(document, "blue", public=True)[0], "r1")

    def test_processes_go_through_the_pool_and_a_migration_past_it(self):
        document = changed(database_pool_url=POOL, aliases={"DATABASE_URI": "DATABASE_URL"})
        assert self.server(database_pool_url=POOL, aliases=document["aliases"])["DATABASE_URI"] == POOL
        assert plan.common_environment(document)["DATABASE_URL"] == DOCUMENT["database_url"]
        assert plan.common_environment(document)["DATABASE_URI"] == DOCUMENT["database_url"]

    def test_processes_read_from_the_replica_and_a_migration_from_the_primary(self):
        document = changed(database_pool_url=POOL, database_read_url=READ, **READS)
        found = self.server(database_pool_url=POOL, database_read_url=READ, **READS)
        assert (found["DATABASE_URL"], found["DATABASE_READ_URL"]) == (POOL, READ)
        assert plan.common_environment(document)["DATABASE_READ_URL"] == DOCUMENT["database_url"]

    def test_without_a_replica_it_is_the_address_of_the_primary(self):
        assert self.server(**READS)["DATABASE_READ_URL"] == DOCUMENT["database_url"]
        assert self.server(**READS, database_pool_url=POOL)["DATABASE_READ_URL"] == POOL
        assert self.server(database_read_url=READ).keys() == self.server().keys()

    def test_in_a_container_it_is_what_the_container_reaches(self):
        found = self.server(**READS, inside={"127.0.0.1:5432": "postgres:5432"})
        assert found["DATABASE_READ_URL"] == found["DATABASE_URL"] == "postgres://shop:pw@postgres:5432/shop?sslmode=disable"

    def test_a_pool_and_the_variable_make_another_release_and_the_replica_another_tree(self):
        pooled = changed(database_pool_url=POOL, database_read_url=READ, **READS)
        assert plan.release_id(changed(database_pool_url=POOL), "abc") not in (plan.release_id(DOCUMENT, "abc"), plan.release_id(pooled, "abc"))
        for other in ({"database_read_url": None}, {"database_read_url": READ.replace("0.6", "0.7")}, {"database_pool_url": POOL.replace("0.5", "0.8")}):
            assert plan.release_id({**pooled, **other}, "abc") == plan.release_id(pooled, "abc")
            assert plan.tree_id({**pooled, **other}, "abc", "20") != plan.tree_id(pooled, "abc", "20")
        assert plan.release_id({**pooled, "database_pool_url": POOL.replace("6432", "6433")}, "abc") != plan.release_id(pooled, "abc")

    def test_without_them_everything_has_the_name_it_had(self):
        without = changed(database={"pool": None, "read_url_env": None}, database_pool_url=None, database_read_url=None)
        assert plan.release_id(without, "abc") == plan.release_id(DOCUMENT, "abc")
        assert plan.tree_id(without, "abc", "20") == plan.tree_id(DOCUMENT, "abc", "20")


def test_where_an_image_is_built_is_no_part_of_its_release():
    image = {"base": "node:22", "dockerfile": None, "build_args": {}, "directory": "/app", "read_only": True}
    before = changed(runtime="compose", image=image)
    for place in ("host", "controller"):
        now = changed(runtime="compose", image={**image, "build_on": place})
        assert plan.release_id(now, "abc") == plan.release_id(before, "abc") and plan.tree_id(now, "abc", "") == plan.tree_id(before, "abc", "")
        assert plan.built_elsewhere(now) is (place == "controller")
    assert not plan.built_elsewhere(before) and not plan.built_elsewhere(DOCUMENT)


@pytest.mark.parametrize(
    ("machine", "platform"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7"), ("riscv64", "linux/riscv64")]
)
def test_a_machine_has_a_platform(machine, platform):
    assert plan.image_platform(machine) == platform


def test_another_node_is_another_tree_of_the_same_release():
    assert plan.tree_id(DOCUMENT, "abc", "20.19.2") != plan.tree_id(DOCUMENT, "abc", "22.12.0")


def test_each_process_gets_its_whole_environment():
    server = plan.instances(DOCUMENT, "green", public=True)[0]
    environment = plan.process_environment(DOCUMENT, server, "r1", "/etc/ca.crt")
    assert environment["PORT"] == "9002" and environment["HOST"] == "127.0.0.1"
    assert environment["MODE"] == "server" and environment["LOG_LEVEL"] == "info"
    assert environment["DATABASE_URL"] == DOCUMENT["database_url"] and environment["JWT_SECRET"] == "s" * 40
    assert environment["RELEASE_ID"] == "r1" and environment["ANCHORAGE_PROCESS"] == "shop-server-green"
    assert environment["NODE_EXTRA_CA_CERTS"] == "/etc/ca.crt"


def test_whom_processes_trust_they_read_when_they_start():
    assert plan.release_id(changed(trusted_file="/etc/anchorage/tls/trusted.pem"), "abc") != plan.release_id(DOCUMENT, "abc")


@pytest.mark.parametrize(
    "place",
    [
        {"listen_address": "10.0.0.2"},
        {"database_url": "postgres://shop:x@10.0.0.9:5432/shop?sslmode=verify-full&sslrootcert=/etc/anchorage/tls/ca.pem"},
    ],
    ids=["proxy", "database"],
)
def test_a_host_in_another_place_has_the_same_release_laid_out_anew(place):
    here = changed(database_url="postgres://shop:x@127.0.0.1:5432/shop")
    there = {**here, **place}
    assert plan.release_id(here, "abc") == plan.release_id(there, "abc"), "one host's migration counts for all"
    assert plan.tree_id(here, "abc", "20.19.2") != plan.tree_id(there, "abc", "20.19.2"), "its own address is in its environment"


def test_only_public_processes_leave_loopback():
    document = changed(listen_address="10.0.0.2")
    server, worker = plan.instances(document, "blue")
    assert plan.process_environment(document, server, "r1")["HOST"] == "10.0.0.2"
    assert plan.process_environment(document, worker, "r1")["HOST"] == "127.0.0.1"


def test_instances_have_their_own_ports():
    document = changed(processes=[{**PROCESS, "instances": 2, "slots": {"blue": [9000, 9001], "green": [9002, 9003]}}])
    assert [(instance.name, instance.port) for instance in plan.instances(document, "green")] == [
        ("shop-server-1-green", 9002),
        ("shop-server-2-green", 9003),
    ]


def test_pm2_is_told_no_value_of_the_environment():
    (instance, *_rest) = plan.instances(DOCUMENT, "blue")
    entry = plan.ecosystem_entry(Layout("shop", "/srv/shop"), "r1", instance, "/usr/local/bin/anchorage", "/var/log/pm2/shop", 30)
    assert "env" not in entry and "s" * 40 not in str(entry) and "pw" not in str(entry)
    assert entry["kill_timeout"] == 30000 and entry["args"] == ["exec", "/srv/shop/releases/r1/run/shop-server-blue.json"]


NPM = {"dependencies": {"a": "1"}}


@pytest.mark.parametrize(
    ("wanted", "manifest", "names", "manager"),
    [
        ("auto", NPM, ["package-lock.json"], "npm"),
        ("auto", {**NPM, "packageManager": "pnpm@10.1.0"}, ["pnpm-lock.yaml", "package-lock.json"], "pnpm"),
        ("yarn", NPM, ["yarn.lock", "package-lock.json"], "yarn"),
        ("auto", {}, [], None),
        ("auto", {"name": "x"}, ["README.md"], None),
    ],
)
def test_package_manager_is_found(wanted, manifest, names, manager):
    assert plan.package_manager(wanted, manifest, names) == manager


@pytest.mark.parametrize(
    ("wanted", "manifest", "names", "words"),
    [
        ("auto", NPM, [], "no lock file"),
        ("auto", NPM, ["yarn.lock", "package-lock.json"], "npm and yarn"),
        ("pnpm", NPM, ["package-lock.json"], "pnpm-lock.yaml is missing"),
        ("auto", {"packageManager": "bun@1"}, ["bun.lockb"], "'bun' is not known"),
    ],
)
def test_package_manager_that_nobody_can_tell_is_refused(wanted, manifest, names, words):
    with pytest.raises(AnchorageError, match=words):
        plan.package_manager(wanted, manifest, names)


@pytest.mark.parametrize(
    ("version", "wanted", "good"),
    [
        ("20.19.2", "^20.19.0 || >=22.12.0", True),
        ("20.18.0", "^20.19.0 || >=22.12.0", False),
        ("21.0.0", "^20.19.0 || >=22.12.0", False),
        ("24.1.0", "^20.19.0 || >=22.12.0", True),
        ("18.19.0", ">=20", False),
        ("20.0.0", ">=20", True),
        ("22.5.1", "22.x", True),
        ("22.5.1", "20.x", False),
        ("20.19.2", ">=18 <21", True),
        ("21.0.0", ">=18 <21", False),
        ("20.19.2", "~20.19.0", True),
        ("20.20.0", "~20.19.0", False),
        ("20.19.2", "18 - 20", True),
        ("20.19.2", "*", True),
        ("20.19.2", "20", True),
        ("20.19.2", ">20", False),
        ("21.0.0", ">20", True),
        ("20.19.2", "=20.19.2", True),
        ("20.19.2", "> 20.18.0", True),
    ],
)
def test_engines(version, wanted, good):
    assert plan.satisfies(version, wanted) is good


class Pages:
    """A journal without a file."""

    def __init__(self, **releases):
        self.data = empty("shop")
        self.data["releases"] = releases

    live = property(lambda self: self.data["live"])

    def release(self, name):
        return self.data["releases"].get(name, {})

    def says(self, name, state):
        return f"{state}_at" in self.release(name)


def test_a_run_that_died_after_staging_still_migrates():
    journal = Pages(r1={"staged_at": 1, "tree": "t1"})
    assert plan.pending(journal, "r1", "t1", running=False) == ["migrate", "activate"]


def test_nothing_is_pending_for_what_runs():
    journal = Pages(r1={"staged_at": 1, "migrated_at": 2, "tree": "t1"})
    journal.data.update(live="r1", tree="t1")
    assert plan.pending(journal, "r1", "t1", running=True) == []
    assert plan.pending(journal, "r1", "t1", running=False) == ["activate"]
    assert plan.pending(journal, "r1", "t2", running=True) == ["stage", "activate"], "a new Node builds and starts, and migrates nothing"


def test_live_and_previous_are_never_pruned():
    journal = Pages(**{f"r{number}": {"staged_at": number} for number in range(6)})
    journal.data.update(live="r0", previous="r1")
    assert plan.prunable(journal, 3) == ["r2", "r3", "r4"]
    assert plan.prunable(journal, 6) == []
    assert plan.prunable(journal, 1) == ["r2", "r3", "r4", "r5"]


def test_slots_alternate():
    assert plan.other_slot("blue") == "green" and plan.other_slot("green") == "blue" and plan.other_slot(None) == "blue"
