# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of which there is room for one: who waits, for whom, and what a step that dies leaves."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import command, drain, hold
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.hold import Hold
from ansible_collections.anchorage.vps.plugins.module_utils.pm2_runtime import Pm2
from ansible_collections.anchorage.vps.plugins.module_utils.recovery import at_boot, recover
from ansible_collections.anchorage.vps.plugins.module_utils.release_plan import instances
from ansible_collections.anchorage.vps.plugins.module_utils.slots import running
from ansible_collections.anchorage.vps.plugins.module_utils.soak import Soak
from ansible_collections.anchorage.vps.plugins.module_utils.step_activate import activate
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import ME, document, place
from .health_fakes import FakeWorld
from .test_step_activate import Pm2Host, begun, flag, soaking


class SystemdHost(Pm2Host):
    """The same host with sockets that systemd holds. What happened is one story, requests that wait included."""

    def __init__(self):
        super().__init__()
        self.sockets: dict[str, str] = {}
        self.broken = ""
        self.timers: list[tuple[list[str], float]] = []
        self.slow_stop = 0.0

    def _pm2(self, argv, call):
        if argv[1] == "delete" and "server" in argv[2]:
            self.clock += self.slow_stop
        return super()._pm2(argv, call)

    def _systemd_run(self, argv, _call):
        if "held" not in argv:
            self.timers += [(list(self.history), float(word.partition("=")[2])) for word in argv if word.startswith("--on-active=")]
            return Completed(0, "", "")
        if self.broken:
            return Completed(1, "", self.broken)
        unit = next(word.partition("=")[2] for word in argv if word.startswith("--unit="))
        assert argv[-1] == "--patience=55"
        self.sockets[f"{unit}.socket"] = argv[-2]
        self.files[next(word.partition("ListenStream=")[2] for word in argv if "ListenStream=" in word)] = ""
        self.history.append("hold")
        return Completed(0, "", "")

    def _systemctl(self, argv, call):
        if argv[1] == "list-units":
            return Completed(0, "".join(f"{name} loaded active listening x\n" for name in self.sockets), "")
        if argv[1] == "stop":
            for name in argv[2:]:
                self.sockets.pop(name, None)
        if argv[1] == "is-active" and argv[-1].endswith(".socket"):
            return Completed(0 if argv[-1] in self.sockets else 3, "", "")
        return super()._systemctl(argv, call)

    def write_atomic(self, path, data, *, mode, uid=None, gid=None):
        super().write_atomic(path, data, mode=mode, uid=uid, gid=gid)
        if "/hold-" in path:
            self.history.append(f"go to {data.decode()}")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app whose releases are started one after the other; r1 lives in slot blue, r2 is ready."""
    place(tmp_path, monkeypatch)
    world = SystemdHost()
    world.clock = 0.0
    world.units.add(f"pm2-{ME.pw_name}.service")
    app = App("shop", world, document(str(tmp_path / "home"), strategy="hold", hold_seconds=40, timeout_seconds=55))
    world.files[app.layout.site] = f"if (-f {app.layout.hold_flag}) {{"
    return begun(app)


def test_nobody_waits_for_the_first_release(shop):
    _app, world, _log = shop
    assert not [call for call in world.ran if "held" in call["argv"]], "nobody served before"


def serves(app, world, release, slot):
    """One release serves alone, and nobody waits."""
    assert (app.journal.live, app.journal.slot, flag(app)) == (release, slot, slot == "green")
    assert set(world.table) == {f"shop-server-{slot}", f"shop-worker-{slot}"} and running(app)
    assert not Hold(app, Log(print)).active


def test_visitors_wait_while_one_release_makes_room_for_the_next(shop):
    app, world, log = shop
    assert activate(app, log, release="r2") is True
    assert world.history == [
        "stop shop-worker-blue",
        "hold",
        "stop shop-server-blue",
        "start shop-server-green r2",
        "go to 127.0.0.1:9002",
        "start shop-worker-green r2",
    ], "there are never two of one kind, and the proxy knows where to before it stops holding"
    serves(app, world, "r2", "green")


def test_the_next_release_finds_a_socket_of_its_own(shop):
    app, world, log = shop
    activate(app, log, release="r2")
    assert not world.sockets and not [path for path in world.files if "/hold" in path]
    activate(app, log, release="r1", leaving="r2")
    assert world.history.count("hold") == 2 and not world.sockets
    serves(app, world, "r1", "blue")


def test_requests_in_hand_have_a_part_of_the_time(shop, monkeypatch):
    app, world, log = shop
    given = []
    monkeypatch.setattr(drain, "drain", lambda app, log, names, at_most=None: given.append((sorted(names), at_most)))
    activate(app, log, release="r2")
    assert given[0] == (["shop-server-blue"], 40 / 3)


def test_a_release_that_is_not_proven_in_time_gives_its_visitors_to_the_one_before(shop):
    app, world, log = shop
    app.document["processes"][0]["health"] = {**app.document["processes"][0]["health"], "deadline_seconds": 300}
    world.deaf.add("shop-server-green")
    began = world.clock
    with pytest.raises(AnchorageError, match="nobody listens on port 9002") as error:
        activate(app, log, release="r2")
    assert "raise apps.shop.hold_seconds" in error.value.next_step and error.value.live == "shop release r1 in slot blue"
    assert world.clock - began < 60, "not its own 300 s"
    assert world.history[-4:] == ["stop shop-server-green", "start shop-server-blue r1", "go to 127.0.0.1:9000", "start shop-worker-blue r1"]
    serves(app, world, "r1", "blue")


def test_a_release_is_proven_even_where_the_one_before_took_all_the_time_to_stop(shop):
    app, world, log = shop
    world.slow_stop = 100.0
    assert activate(app, log, release="r2") is True
    serves(app, world, "r2", "green")


def test_a_timer_stands_behind_all_of_it(shop):
    """It is armed before anything stops, and once more for what is still to come: the proof of the workers, and the way back."""
    app, world, log = shop
    world.timers.clear()
    world.dead.add("shop-worker-green")
    with pytest.raises(AnchorageError):
        activate(app, log, release="r2")
    (before, first), (switched, _second), (_back, third) = world.timers
    assert before == [] and first == 60 + 40 + 5 + 5 + 10 + drain.QUIET, "grace, hold, two stops, one proof"
    assert switched[-1] == "start shop-server-green r2"
    assert third == 60 + drain.longest(app.document) + 5 + 5 + 10 + 10, "grace, requests in hand, two stops, two proofs"


def test_the_release_before_is_no_net_where_it_does_not_run(shop):
    app, world, log = shop
    app.document["soak"] = {"seconds": 10, "max_error_percent": 1, "max_slowdown": 3}
    seen = set()
    world.on_sleep = lambda: seen.add((soaking(app), app.journal.live, flag(app)))
    assert activate(app, log, release="r2") is True
    assert (False, "r1", True) in seen and not any(soaked for soaked, _live, _flag in seen)


def test_the_watch_does_not_judge_the_crowd_that_waited(shop, monkeypatch):
    app, world, log = shop
    app.document["soak"] = {"seconds": 10, "max_error_percent": 1, "max_slowdown": 3}
    world.slow_stop = 7.0
    rush = []
    monkeypatch.setattr(Soak, "watch", lambda self, *_arguments: rush.append(self.rush))
    activate(app, log, release="r2")
    assert 7 < rush[0] < 12


def test_a_failed_worker_makes_the_visitors_wait_once_more(shop):
    app, world, log = shop
    world.dead.add("shop-worker-green")
    with pytest.raises(AnchorageError):
        activate(app, log, release="r2")
    said = [line for line in world.history if line == "hold" or line.startswith("go to")]
    assert said == ["hold", "go to 127.0.0.1:9002", "hold", "go to 127.0.0.1:9000"]
    serves(app, world, "r1", "blue")


def test_where_the_socket_cannot_be_made_nothing_public_is_stopped(shop):
    app, world, log = shop
    world.broken = "Failed to start transient socket unit"
    with pytest.raises(AnchorageError, match="The socket in which requests wait could not be made: Failed to start") as error:
        activate(app, log, release="r2")
    assert error.value.what == "hold"
    assert not any("server" in line for line in world.history)
    serves(app, world, "r1", "blue")


def test_nobody_waits_for_ever_where_nothing_comes_back(shop):
    app, world, log = shop
    world.deaf |= {"shop-server-green", "shop-server-blue"}
    with pytest.raises(AnchorageError) as error:
        activate(app, log, release="r2")
    assert "shop-server-blue did not come back" in error.value.live
    assert not Hold(app, log).active and world.history[-1] == f"go to {hold.NOWHERE}"


def test_nobody_waits_while_the_way_back_is_blocked(shop, monkeypatch):
    app, world, log = shop
    world.deaf.add("shop-server-green")
    monkeypatch.setattr(Pm2, "at_rest", lambda self, seconds: pytest.fail("pm2 does not answer"))
    with pytest.raises(pytest.fail.Exception):
        activate(app, log, release="r2")
    assert not Hold(app, log).active and world.history[-1] == f"go to {hold.NOWHERE}"


def test_a_proxy_that_knows_nothing_of_waiting_stops_nothing(shop):
    app, world, log = shop
    world.files[app.layout.site] = "an older configuration"
    with pytest.raises(AnchorageError, match="The proxy does not know how to let requests of shop wait") as error:
        activate(app, log, release="r2")
    assert "site.yml" in error.value.next_step and world.history == []


@pytest.mark.parametrize("who", ["present", "target", "live"])
def test_the_contract_of_today_says_whether_there_is_room_for_two(shop, who):
    """So a way back to a release from before it was said is made one at a time, and one from a time without room is not."""
    app, world, log = shop
    said = {**app.document}
    app.document = {**said, "strategy": "hold" if who == "present" else "blue_green"}
    for name, release in (("target", "r2"), ("live", "r1")):
        app.journal.data["releases"][release]["source"] = release
        world.files[app.layout.document(release)] = json.dumps({**said, "env": {"A": release}, "strategy": "hold" if who == name else "blue_green"})
    assert activate(app, log, release="r2") is True
    assert ("hold" in world.history) is (who == "present")
    assert (world.history.index("stop shop-server-blue") < world.history.index("start shop-server-green r2")) is (who == "present")


def test_a_socket_that_somebody_waits_in_is_not_removed(shop):
    app, world, log = shop
    Hold(app, log).begin()
    Hold(app, log).tidy()
    assert len(world.sockets) == 1
    Hold(app, log).end("127.0.0.1:9000")
    began = world.clock
    Hold(app, log).tidy()
    assert not world.sockets and world.clock - began == hold.STRAGGLERS
    world.files[f"{app.layout.slot_directory}/hold-1"] = "of a socket that somebody else removed"
    Hold(app, log).tidy()
    began += hold.STRAGGLERS
    Hold(app, log).tidy()
    assert world.clock - began == hold.STRAGGLERS, "who has nothing to remove does not wait"


def no_space(*_arguments, **_options):
    """Do what a full disk does."""
    raise OSError(28, "No space left on device")


def test_a_disk_that_takes_no_target_lets_nobody_wait(shop, monkeypatch):
    app, world, log = shop
    Hold(app, log).begin()
    monkeypatch.setattr(world, "write_atomic", no_space)
    with pytest.raises(OSError, match="No space"):
        Hold(app, log).end("127.0.0.1:9000")
    assert not Hold(app, log).active


def test_a_way_back_does_not_need_a_place_to_wait(shop, monkeypatch):
    app, world, log = shop
    world.dead.add("shop-worker-green")
    begin = Hold.begin
    monkeypatch.setattr(Hold, "begin", lambda self, at_most=None: begin(self, at_most) if at_most else no_space())
    with pytest.raises(AnchorageError, match="shop-worker-green"):
        activate(app, log, release="r2")
    serves(app, world, "r1", "blue")


def test_visitors_who_wait_although_all_is_settled_are_something_to_be_done(shop):
    app, world, log = shop
    Hold(app, log).begin()
    assert not app.journal.unsettled and app.unsettled
    assert recover(app, log) is True
    assert world.history[-1] == "go to 127.0.0.1:9000"
    serves(app, world, "r1", "blue")


def test_the_server_has_a_third_of_the_time_to_stop(shop):
    app, world, log = shop
    app.document["processes"][0].update(stop_seconds=30)
    app.document["processes"][1].update(stop_seconds=30)
    activate(app, log, release="r2")
    told = {entry["name"]: entry["kill_timeout"] for entry in json.loads(world.files[app.layout.live_file])["apps"]}
    assert told == {"shop-server-green": 13333, "shop-worker-green": 30000}
    assert hold.stop_seconds({**app.document, "strategy": "blue_green"}, app.document["processes"][0]) == 30
    assert hold.stop_seconds(app.document, {**app.document["processes"][0], "instances": 2}) == 40 / 6


@pytest.mark.parametrize("moment", ["hold", "stop shop-server-blue", "start shop-server-green r2", "go to 127.0.0.1:9002", "start shop-worker-green r2"])
def test_a_step_that_dies_is_made_good(shop, moment):
    """The next to hold the lock finds visitors who wait, or a release that nobody confirmed."""
    app, world, log = shop

    class Died(BaseException):
        """As a kill ends a process: nothing of it is caught."""

    class Mortal(list):
        """Ends the step at a moment of the story."""

        def append(self, line):
            super().append(line)
            if line == moment:
                world.history = list(self)
                raise Died

    world.history = Mortal()
    with pytest.raises(Died):
        activate(app, log, release="r2")
    world._sockets()
    told = moment.startswith("go to")
    assert recover(app, log) is True
    assert world.history[len(world.history) - world.history[::-1].index(moment) :].count("hold") == (1 if told or "worker" in moment else 0), (
        "who was sent to the release that failed cannot be called back; the others must not lose their place"
    )
    serves(app, world, "r1", "blue")
    world.clock += 1
    assert activate(app, log, release="r2") is True
    serves(app, world, "r2", "green")


def test_those_who_wait_already_go_on_waiting_in_the_same_socket(shop):
    app, world, log = shop
    Hold(app, log).begin()
    world.clock += 5
    waiting = Hold(app, log)
    waiting.begin(10)
    assert world.history == ["hold"] and waiting.until == world.monotonic() + 10


@pytest.mark.parametrize("lost", ["told", "gone"])
def test_who_cannot_be_reached_any_more_is_no_reason_not_to_wait(shop, lost):
    app, world, log = shop
    Hold(app, log).begin()
    (socket,) = world.sockets
    if lost == "told":
        world.files[world.sockets[socket]] = "127.0.0.1:9002"
    else:
        world.sockets.clear()
    world.clock += 5
    Hold(app, log).begin()
    assert world.history == ["hold", "hold"] and set(world.sockets) - {socket} == set(world.sockets)


def test_after_a_restart_of_the_host_nobody_waits(shop):
    app, world, log = shop
    Hold(app, log).begin()
    for name in ("hold-1", "hold.sock", ".hold.half", ".hold-1.half"):
        world.files[f"{app.layout.slot_directory}/{name}"] = ""
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    assert at_boot(app, log) is True
    assert not Hold(app, log).active and not [path for path in world.files if path.startswith(f"{app.layout.slot_directory}/")]


def test_who_waits_is_told_where_to_go():
    world = FakeWorld()
    path = "/var/lib/anchorage/slots/shop/hold-1"
    sleep = world.sleep

    def then(seconds):
        sleep(seconds)
        world.files[path] = "127.0.0.1:9002"

    world.sleep = then
    assert hold.wait(world, path, 60, lambda: pytest.fail("nobody waited for long")) == "127.0.0.1:9002"


def test_who_was_given_up_by_the_proxy_is_sent_away():
    """Else an order that was answered with 504 would be carried out afterwards, and once more when it is repeated."""
    world, away = FakeWorld(), []
    assert hold.wait(world, "/nowhere", 60, lambda: away.append(world.monotonic() - 1000)) is None
    assert world.monotonic() >= hold.FORGOTTEN
    assert len(away) == 120 and all(earlier + 60 <= later < earlier + 61 for earlier, later in zip([0, *away], away[:-1]))


def test_all_who_wait_at_a_socket_are_sent_away(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(tmp_path / "hold.sock"))
        listener.listen(8)
        hold.send_away(listener)
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _number in range(3)]
        for client in clients:
            client.connect(str(tmp_path / "hold.sock"))
            client.sendall(b"POST /order HTTP/1.1\r\n\r\n")
        hold.send_away(listener)
        for client in clients:
            client.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""


def test_the_command_becomes_systemds_proxy(tmp_path, monkeypatch):
    became = []
    monkeypatch.setattr(command.os, "execv", lambda path, argv: became.append((path, argv)))
    path = tmp_path / "hold-1"
    path.write_text("127.0.0.1:9002")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.setattr(hold, "SOCKET", listener.fileno())
        assert command.main(["held", str(path)]) == 0
        assert listener.fileno() >= 0 and os.fstat(listener.fileno()), "it is handed on"
    assert became == [(hold.PROXY, [hold.PROXY, "--connections-max=4096", "--exit-idle-time=30s", "127.0.0.1:9002"])]


@pytest.mark.parametrize(("address", "wanted"), [("127.0.0.1", "127.0.0.1:9000"), ("::1", "::1:9000")])
def test_an_address_of_either_family_is_written_as_systemd_reads_it(shop, monkeypatch, address, wanted):
    app, _world, _log = shop
    monkeypatch.setattr(hold, "listen_address", lambda document, process: address)
    (instance,) = instances(app.document, "blue", public=True)
    assert hold.address(app, instance) == wanted
