# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import pm2
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.pm2 import Account, Expectation, Wanted, parse_jlist
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld

WHO = Account("shop", 1000, "/srv/shop", "/srv/shop/.pm2")
RELEASE = "/srv/shop/releases/7"
BANNER = """
                        -------------
__/\\\\\\\\\\\\\\\\\\\\\\\\\\____/\\\\\\\\____________/\\\\\\\\____/\\\\\\\\\\\\\\\\\\_____
        Start and Daemonize any application: [see docs]
[PM2] Spawning PM2 daemon with pm2_home=/srv/shop/.pm2
[PM2] PM2 Successfully daemonized
[]
"""


def entry(name="shop-server", pm_id=0, pid=500, status="online", restarts=0, unstable=0, up=100, memory=300, **env):
    return {
        "name": name,
        "pm_id": pm_id,
        "pid": pid,
        "monit": {"memory": memory * 1048576, "cpu": 0.3},
        "pm2_env": {
            "status": status,
            "restart_time": restarts,
            "unstable_restarts": unstable,
            "pm_uptime": int((1_700_001_000 - up) * 1000),
            "exec_mode": "fork_mode",
            "pm_cwd": RELEASE,
            "JWT_SECRET": "sesame",
            **env,
        },
    }


SERVER, WORKER = entry(), entry("shop-worker", 1, 600)
UNIT = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "User": "shop", "ControlGroup": "/system.slice/pm2-shop.service"}


class Host:
    """A host with PM2, two processes and a boot unit; tests break one thing of it."""

    def __init__(self, entries=(SERVER, WORKER), unit=None):
        self.entries = list(entries)
        self.unit = {**UNIT, **(unit or {})}
        self.before = "[PM2][WARN] something to say\n"
        self.world = FakeWorld(commands=self.command)
        self.world.files["/srv/shop/.pm2/pm2.pid"] = "400\n"
        self.world.files["/proc/net/unix"] = (
            "Num       RefCount Protocol Flags    Type St Inode Path\n"
            "0000: 00000002 00000000 00010000 0001 01 11 /srv/shop/.pm2/rpc.sock\n"
            "0000: 00000003 00000000 00000000 0001 03 12 /run/systemd/journal/stdout\n"
        )
        self.world.process(400, command="PM2 v7.0.4: God Daemon (/srv/shop/.pm2)")
        environ = {"ANCHORAGE_RELEASE": "7", "JWT_SECRET": "sesame"}
        self.world.process(500, parent=400, cwd=RELEASE, environ=environ, sockets=[50])
        self.world.process(600, parent=400, cwd=RELEASE, environ=environ, sockets=[60])
        self.world.listen(("127.0.0.1", 9000, 50), ("127.0.0.1", 9001, 60))
        self.world.links["/srv/shop/current"] = "releases/7"

    def command(self, call):
        if call["argv"][0] == "systemctl":
            return Completed(0, "".join(f"{key}={value}\n" for key, value in self.unit.items()), "")
        assert call["argv"] == ["pm2", "jlist"] and call["user"] == "shop" and call["env"]["PM2_HOME"] == "/srv/shop/.pm2"
        entries = self.entries.pop(0) if self.entries and isinstance(self.entries[0], list) else self.entries
        return Completed(0, self.before + json.dumps(entries), "")

    def ask(self, deadline=2, successes=1, **wanted):
        server = {"name": "shop-server", "ports": [9000], "cwd": "/srv/shop/current", "environment": {"ANCHORAGE_RELEASE": "7"}}
        processes = [Wanted(**{**server, **wanted}), Wanted("shop-worker", ports=[9001], cwd=RELEASE)]
        expectation = Expectation(processes, unit="pm2-shop.service")
        return pm2.check(WHO, expectation, world=self.world, deadline_seconds=deadline, interval_seconds=1, successes=successes)

    @property
    def pm2_calls(self):
        return [call for call in self.world.ran if call["argv"][0] == "pm2"]


def verdicts(found):
    return {check.name: check.verdict for check in found.checks if check.verdict != "ok"}


def test_a_healthy_host():
    found = Host().ask()
    assert found.healthy and verdicts(found) == {}
    assert [item["name"] for item in found.extra["processes"]] == ["shop-server", "shop-worker"]


def test_no_secret_of_the_processes_is_in_the_result():
    assert "sesame" not in json.dumps(Host().ask(environment={"JWT_SECRET": "other"}).as_result()).replace("other", "")


@pytest.mark.parametrize("missing", ["/srv/shop/.pm2/pm2.pid", "/proc/net/unix", "/proc/400/cmdline"])
def test_without_a_daemon_no_pm2_command_is_ever_run(missing):
    host = Host()
    del host.world.files[missing]
    found = host.ask()
    assert verdicts(found)["daemon"] == "fail" and host.pm2_calls == []
    assert "no PM2 daemon of user shop" in found.message


def test_a_stale_pid_file_is_no_daemon():
    host = Host()
    host.world.process(400, command="sleep 1000")
    assert verdicts(host.ask())["daemon"] == "fail" and host.pm2_calls == []


def test_a_daemon_of_another_user_is_no_daemon():
    host = Host()
    host.world.process(400, uid=0, command="PM2 v7.0.4: God Daemon (/srv/shop/.pm2)")
    assert verdicts(host.ask())["daemon"] == "fail" and host.pm2_calls == []


def test_a_socket_that_nobody_listens_on_is_no_daemon():
    host = Host()
    host.world.files["/proc/net/unix"] = host.world.files["/proc/net/unix"].replace("00010000 0001 01 11", "00000000 0001 03 11")
    assert verdicts(host.ask())["daemon"] == "fail" and host.pm2_calls == []


def broken(change=None, entries=(SERVER, WORKER), unit=None, **wanted):
    host = Host(entries, unit)
    if change:
        change(host.world)
    return host.ask(**wanted)


def without_server(world):
    """The server is gone, and so is its socket."""
    world.listen(("127.0.0.1", 9001, 60))


CASES = {
    "missing": ({"entries": [WORKER], "change": without_server}, {"process:shop-server": "fail"}, "no process shop-server, wanted 1"),
    "stopped": (
        {"entries": [entry(status="stopped", pid=0), WORKER], "change": without_server},
        {"process:shop-server": "fail"},
        "is stopped after 0 restarts",
    ),
    "errored": (
        {"entries": [entry(status="errored", pid=0, restarts=15), WORKER], "change": without_server},
        {"process:shop-server": "fail"},
        "errored after 15 restarts",
    ),
    "crashing": ({"entries": [entry(unstable=3), WORKER]}, {"process:shop-server": "warn"}, "crashed 3 times right after a start"),
    "restarts": ({"entries": [entry(restarts=9), WORKER], "max_restarts": 8}, {"process:shop-server": "fail"}, "restarted 9 times, wanted at most 8"),
    "young": ({"entries": [entry(up=5), WORKER], "min_uptime_seconds": 30}, {"process:shop-server": "fail"}, "up for 6 s only"),
    "memory": ({"entries": [entry(memory=900), WORKER], "max_memory_mb": 600}, {"process:shop-server": "fail"}, "uses 900 MB, the limit is 600 MB"),
    "stranger": ({"entries": [SERVER, WORKER, entry("old-bot", 2, 0)]}, {"unexpected": "warn"}, "PM2 also runs old-bot"),
    "twice": ({"entries": [SERVER, entry(pm_id=3, pid=500), WORKER]}, {"process:shop-server": "fail"}, "2 processes shop-server, wanted 1"),
    "silent": ({"change": lambda world: world.listen(("127.0.0.1", 9001, 60))}, {"port:shop-server": "fail"}, "does not listen on port 9000, nobody does"),
    "public": (
        {"change": lambda world: world.listen(("0.0.0.0", 9000, 50), ("127.0.0.1", 9001, 60))},
        {"loopback:shop-server": "fail"},
        "listens beyond loopback, on 0.0.0.0:9000",
    ),
    "old-release": (
        {"change": lambda world: world.process(500, parent=400, cwd="/srv/shop/releases/6", environ={"ANCHORAGE_RELEASE": "6"}, sockets=[50])},
        {"identity:shop-server": "fail"},
        "runs in /srv/shop/releases/6, not in /srv/shop/releases/7; pid 500 has ANCHORAGE_RELEASE = '6', wanted '7'",
    ),
    "wrong-user": (
        {"change": lambda world: world.process(600, parent=400, uid=0, cwd=RELEASE, sockets=[60])},
        {"identity:shop-worker": "fail"},
        "pid 600 runs as user id 0, not as shop",
    ),
    "outside": (
        {"change": lambda world: world.process(600, parent=400, cwd=RELEASE, sockets=[60], cgroup="/user.slice/session-1.scope")},
        {"boot_unit": "fail"},
        "pid 600 lives outside the control group of pm2-shop.service",
    ),
    "no-unit": ({"unit": {"LoadState": "not-found"}}, {"boot_unit": "fail"}, "there is no unit pm2-shop.service"),
    "disabled": ({"unit": {"UnitFileState": "disabled"}}, {"boot_unit": "fail"}, "is disabled, so nothing comes back after a boot"),
    "undefined": ({"unit": {"User": "undefined"}}, {"boot_unit": "fail"}, "runs as undefined, not as shop"),
    "root-unit": ({"unit": {"User": ""}}, {"boot_unit": "fail"}, "runs as root, not as shop"),
    "inactive": ({"unit": {"ActiveState": "failed"}}, {"boot_unit": "fail"}, "is failed"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_turns_its_own_check(name):
    options, wanted, words = CASES[name]
    found = broken(**options)
    assert verdicts(found) == wanted and words in found.summary
    assert found.healthy is ("fail" not in wanted.values())


def test_a_port_taken_by_a_stranger_names_its_pid():
    def change(world):
        world.process(700, sockets=[70])
        world.listen(("127.0.0.1", 9000, 70), ("127.0.0.1", 9001, 60))

    found = broken(change)
    assert verdicts(found) == {"port:shop-server": "fail"}
    assert "port 9000 of shop-server belongs to pid 700, which is another process" in found.message


def test_a_crashed_process_whose_port_was_taken_names_the_taker():
    host = Host([entry(status="errored", pid=0, restarts=15), WORKER])
    host.world.process(700, sockets=[50])
    del host.world.links["/proc/500/fd/3"]
    found = host.ask()
    assert verdicts(found) == {"process:shop-server": "fail", "port:shop-server": "fail"} and "belongs to pid 700" in found.message


def test_a_process_that_ended_while_it_was_looked_at():
    host = Host()
    del host.world.files["/proc/600/status"]
    assert "pid 600 has ended" in host.ask().message


def test_a_port_held_by_a_descendant_belongs_to_the_process():
    def change(world):
        del world.links["/proc/500/fd/3"]
        world.process(500, parent=400, cwd="/", environ={})
        world.process(501, parent=500, cwd=RELEASE, environ={"ANCHORAGE_RELEASE": "7"}, sockets=[50])

    assert broken(change).healthy


def test_a_port_that_cannot_be_seen_fails_closed():
    def change(world):
        del world.links["/proc/500/fd/3"]

    found = broken(change)
    assert "whose port 9000 is cannot be seen" in found.message and "runs as root" in found.message


def test_a_process_that_is_restarted_between_two_probes_breaks_the_row():
    host = Host([[entry(restarts=count), WORKER] for count in range(40)])
    found = host.ask(deadline=8, successes=3)
    assert verdicts(found)["steadiness"] == "fail" and "shop-server was restarted between two looks" in found.message


def test_a_steady_host_is_healthy_three_times_in_a_row():
    found = Host().ask(deadline=8, successes=3)
    assert found.healthy and len([check for check in found.checks if check.name == "restarts"]) == 1


def test_a_hanging_pm2_is_unhealthy():
    host = Host()
    host.world.commands = lambda call: Completed(124, "", "killed") if call["argv"][0] == "pm2" else host.command(call)
    assert verdicts(host.ask())["list"] == "fail"


@pytest.mark.parametrize("before", ["", BANNER.replace("[]\n", ""), ">>>> In-memory PM2 is out-of-date, do:\n>>>> $ pm2 update\n", "[1, 2]\n"])
def test_what_pm2_prints_before_the_list_is_passed_over(before):
    assert [item.name for item in parse_jlist(before + json.dumps([SERVER]) + "\n")] == ["shop-server"]


def test_an_empty_list_behind_a_banner():
    assert parse_jlist(BANNER) == []


@pytest.mark.parametrize("text", ["", "[PM2] nothing", "{}", '[{"a": 1}]'])
def test_no_list_is_an_error(text):
    with pytest.raises(AnchorageError, match="no list"):
        parse_jlist(text)


def test_a_user_that_does_not_exist_is_named():
    with pytest.raises(AnchorageError, match="no-such-user"):
        pm2.account("no-such-user")


@pytest.mark.parametrize(
    ("said", "home"),
    [
        ("PATH=/usr/bin HOME=/srv/shop PM2_HOME=/var/lib/pm2/shop\n", "/var/lib/pm2/shop"),
        ('PATH=/usr/bin "PM2_HOME=/srv/the shop/.pm2"\n', "/srv/the shop/.pm2"),
        ("PATH=/usr/bin\n", None),
        ("PM2_HOME=\n", None),
        ("\n", None),
        ('"PM2_HOME=/x\n', None),
    ],
)
def test_the_boot_unit_knows_where_pm2_lives(said, home):
    world = FakeWorld(commands=lambda call: Completed(0, said, ""))
    assert pm2.home_of_unit(world, "pm2-shop.service") == home and world.ran[0]["argv"][-1] == "pm2-shop.service"


def test_a_process_that_has_just_ended_lives_nowhere():
    """In a crash loop PM2 names processes that are gone already; that is no fault of the boot unit."""
    found = Host(entries=(entry(pid=999), WORKER)).ask()
    assert "boot_unit" not in verdicts(found) and not found.healthy
