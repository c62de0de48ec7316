# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import socket
import struct

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import processes
from ansible_collections.anchorage.vps.plugins.module_utils.processes import Listener
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld, has_ipv6


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("0100007F:2328", "127.0.0.1", 9000),
        ("00000000:0050", "0.0.0.0", 80),
        ("00000000000000000000000001000000:1F90", "::1", 8080),
        ("B80D0120000000000000000001000000:01BB", "2001:db8::1", 443),
    ],
)
def test_addresses_of_proc(text, address, port):
    assert processes.decode_address(text) == (address, port)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)],
)
def test_loopback(address, loopback):
    assert Listener(address, 9000, "1").loopback is loopback


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback"))],
)
def test_the_own_listening_socket_is_found_on_this_machine(family, host):
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
        assert not [item for item in processes.listeners(World()) if item.port == port]
        sock.listen()
        assert [(item.address, item.pids) for item in processes.listeners(World()) if item.port == port] == [(host, (os.getpid(),))]


def test_processes_that_vanish_or_are_forbidden_are_passed_over():
    class Closed(FakeWorld):
        def listdir(self, path):
            if path == "/proc/7/fd":
                raise PermissionError(13, "Permission denied")
            if path == "/proc/8/fd":
                raise ProcessLookupError(3, "No such process")
            return super().listdir(path)

        def read(self, path):
            if path.startswith("/proc/8/"):
                raise ProcessLookupError(3, "No such process")
            return super().read(path)

    world = Closed()
    for pid in (7, 8, 9):
        world.process(pid, sockets=[77])
    world.listen(("127.0.0.1", 9000, 77))
    assert processes.listeners(world)[0].pids == (9,)
    assert processes.parents(world) == {7: 1, 9: 1} and processes.environment(world, 8) is None


def test_what_proc_says_of_this_process():
    world = World()
    assert processes.directory(world, os.getpid()) == os.getcwd()
    assert processes.owner(world, os.getpid()) == os.geteuid()
    assert "python" in processes.command_line(world, os.getpid())
    assert os.getpid() in processes.family(os.getppid(), processes.parents(world))


def test_a_family_goes_down_all_generations():
    assert processes.family(2, {3: 2, 4: 3, 5: 4, 6: 1}) == {2, 3, 4, 5}


def test_an_environment_keeps_equal_signs_and_newlines():
    world = FakeWorld()
    world.process(5, environ={"A": "1=2", "B": "x\ny", "EMPTY": ""})
    assert processes.environment(world, 5) == {"A": "1=2", "B": "x\ny", "EMPTY": ""}


def test_real_paths_are_as_the_kernel_has_them(tmp_path):
    (tmp_path / "releases" / "7").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/7")
    (tmp_path / "abs").symlink_to(tmp_path / "current")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("current", "abs", "abs/../7", "releases/./7/", "missing/x"):
        path = f"{tmp_path}/{name}"
        assert processes.real_path(World(), path) == os.path.realpath(path)
    processes.real_path(World(), f"{tmp_path}/loop")


def judge_port(world, **wanted):
    return processes.judge_port(world, 9000, **wanted)


def test_a_port_of_another_user_is_unhealthy_and_says_so():
    world = FakeWorld()
    world.process(5)
    world.listen(("127.0.0.1", 9000, 77))
    check = judge_port(world)
    assert not check.healthy and "belongs to another user" in check.cause


def test_every_process_on_the_port_must_be_the_wanted_one():
    world = FakeWorld()
    world.process(5, cwd="/srv/new", sockets=[77])
    world.process(6, cwd="/srv/old (deleted)", sockets=[77])
    world.listen(("127.0.0.1", 9000, 77))
    check = judge_port(world, cwd="/srv/new")
    assert check.cause == "pid 6 runs in /srv/old (deleted), not in /srv/new"


def test_an_identity_that_cannot_be_read_fails_closed():
    world = FakeWorld()
    world.process(5, sockets=[77])
    world.listen(("127.0.0.1", 9000, 77))
    del world.files["/proc/5/environ"], world.links["/proc/5/cwd"]
    check = judge_port(world, cwd="/srv/new", variables={"A": "1"})
    assert "working directory of pid 5 cannot be read" in check.cause and "environment of pid 5 cannot be read" in check.cause


def test_secrets_are_not_shown():
    assert processes.shown("DATABASE_URL", "postgres://u:p@h") == "(hidden)"
    assert processes.shown("ANCHORAGE_RELEASE", "7") == "'7'"


def test_the_stand_in_for_proc_is_like_the_real_one():
    world = FakeWorld()
    world.listen(("10.1.2.3", 80, 5), ("2001:db8::1", 443, 6))
    assert [(item.address, item.port) for item in processes.listeners(world)] == [("10.1.2.3", 80), ("2001:db8::1", 443)]
    assert struct.pack("=I", 1) == struct.pack("<I", 1), "these tests are written for little-endian machines"


def test_the_age_of_a_process_is_reckoned_from_the_boot():
    world = FakeWorld()
    ticks = os.sysconf("SC_CLK_TCK")
    world.files["/proc/uptime"] = "1000.50 1900.00\n"
    world.files["/proc/7/stat"] = f"7 (a (b) c) S {' '.join(['0'] * 18)} {900 * ticks} 0"
    assert processes.age(world, 7) == 100.5
    assert processes.age(world, 8) == 0.0
