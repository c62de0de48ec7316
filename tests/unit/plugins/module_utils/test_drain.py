# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import threading

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import drain
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.step_activate import activate
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

from .engine_fakes import ME, document, place
from .test_step_activate import Pm2Host, begun

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class BusyHost(Pm2Host):
    """A host on which connections stand until a moment of its clock."""

    def __init__(self):
        super().__init__()
        self.open: list[tuple[int, str, float, float]] = []
        self.stopped_at: dict[str, float] = {}

    def connect(self, port, *, until, since=0.0, state="01"):
        """Let a connection from another host to a port stand from one moment to another."""
        self.open.append((port, state, since, until))

    def read(self, path):
        if path != "/proc/net/tcp":
            return super().read(path)
        stand = [(port, state) for port, state, since, until in self.open if since <= self.clock < until]
        lines = [f"   1: 0A00000A:{port:04X} 0B00000A:C350 {state} 00000000:00000000 00:00000000 00000000  1000        0 7 1 0\n" for port, state in stand]
        return (self.files.get(path, HEAD) + "".join(lines)).encode()

    def _pm2(self, argv, call):
        if argv[1] == "delete":
            self.stopped_at[argv[2]] = self.clock
        return super()._pm2(argv, call)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app whose release r1 lives in slot blue, whose r2 is ready; its host; and what the step says."""
    place(tmp_path, monkeypatch)
    world = BusyHost()
    world.units.add(f"pm2-{ME.pw_name}.service")
    app = App("shop", world, document(str(tmp_path / "home")))
    app.document["processes"][0]["drain_seconds"] = 20
    said = []
    begun(app)
    return app, world, Log(said.append), said


def test_the_old_server_is_stopped_only_after_its_last_request_has_ended(shop):
    app, world, log, said = shop
    last = world.clock + 12
    world.connect(9000, until=last)
    world.connect(9000, until=last - 7)
    activate(app, log, release="r2")
    assert last + drain.QUIET <= world.stopped_at["shop-server-blue"] <= last + drain.QUIET + 2 * drain.PAUSE
    assert "shop: 2 connections open on port 9000; waiting for them before the old processes stop" in said


def test_a_request_that_arrives_right_after_the_switch_is_waited_for(shop):
    app, world, log, _said = shop
    began = world.clock

    def late():
        if app.journal.live == "r2" and not world.open:
            world.connect(9000, since=world.clock + 0.5, until=world.clock + 4)

    world.on_sleep = late
    activate(app, log, release="r2")
    assert world.open and world.open[0][2] > began, "the request came"
    assert world.stopped_at["shop-server-blue"] >= world.open[0][3] + drain.QUIET


def test_a_connection_that_never_ends_keeps_a_release_from_nothing(shop):
    app, world, log, said = shop
    world.connect(9000, until=world.clock + 10_000)
    began = world.clock
    activate(app, log, release="r2")
    assert 20 <= world.stopped_at["shop-server-blue"] - began < 30
    assert any(line.endswith("(drain_seconds); the stop ends them") for line in said)
    assert app.journal.live == "r2" and not app.journal.unsettled


def test_without_requests_in_hand_the_wait_is_short(shop):
    app, world, log, said = shop
    world.connect(9002, until=world.clock + 10_000)
    world.connect(9000, until=world.clock + 10_000, state="06")
    began = world.clock
    activate(app, log, release="r2")
    assert world.stopped_at["shop-server-blue"] - began < 10, "neither the new server's requests nor connections that have ended count"
    assert not [line for line in said if "connection" in line]


def test_a_release_that_had_traffic_and_failed_finishes_its_requests_too(shop):
    app, world, log, _said = shop
    world.dead.add("shop-worker-green")
    world.connect(9002, until=(until := world.clock + 22))
    with pytest.raises(AnchorageError):
        activate(app, log, release="r2")
    assert world.stopped_at["shop-server-green"] >= until
    assert app.journal.live == "r1" and set(world.table) == {"shop-server-blue", "shop-worker-blue"}
    (armed,) = [call["argv"] for call in world.ran if call["argv"][0] == "systemd-run"][-1:]
    assert "--on-active=101" in armed, "the timer knows of the wait: 21 for requests in hand, 10 for stops, 10 for a proof, and its own minute"


def test_a_wait_may_be_cut_short(shop):
    app, world, log, _said = shop
    world.connect(9000, until=world.clock + 100)
    began = world.clock
    drain.drain(app, log, {"shop-server-blue"}, at_most=7)
    assert 7 <= world.clock - began < 8


def test_zero_seconds_means_no_wait(shop):
    app, world, log, _said = shop
    app.document["processes"][0]["drain_seconds"] = 0
    world.connect(9000, until=world.clock + 10_000)
    began = world.clock
    assert drain.drain(app, log, {"shop-server-blue"}) == {9000: 1}
    assert world.clock == began


def test_a_document_from_before_there_was_such_a_key_has_the_default(shop):
    app, world, _log, _said = shop
    del app.document["processes"][0]["drain_seconds"]
    assert drain.limits(app, {"shop-server-blue", "shop-worker-blue"}) == {9000: drain.DEFAULT_SECONDS}
    assert drain.longest(app.document) == drain.DEFAULT_SECONDS + drain.QUIET


def test_processes_that_are_dead_or_not_public_are_not_waited_for(shop):
    app, world, log, _said = shop
    began = world.clock
    assert drain.drain(app, log, {"shop-server-green", "shop-worker-blue"}) == {}
    assert world.clock == began


def test_connections_of_this_machine_are_seen_even_before_they_are_accepted():
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert drain.connections(World(), {port}) == {}
        threading.Thread(target=client.connect, args=(("127.0.0.1", port),)).run()
        assert drain.connections(World(), {port}) == {port: 1}
        accepted, _address = server.accept()
        assert drain.connections(World(), {port}) == {port: 1}
        client.close()
        accepted.close()
        assert drain.connections(World(), {port}) == {}
