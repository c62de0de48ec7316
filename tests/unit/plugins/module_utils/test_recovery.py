# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A switch that dies anywhere, and a host that goes down anywhere in it: afterwards one release is live, wholly."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, recovery
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.slots import Slots, running
from ansible_collections.anchorage.vps.plugins.module_utils.step_activate import activate
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import ME, document, place
from .test_step_activate import Pm2Host

SILENT = Log(lambda line: None)


class Died(BaseException):
    """The process is gone: no handler of the engine may take it for an error."""


class MortalHost(Pm2Host):
    """A host on which the process dies right before its nth act that anybody could notice."""

    def __init__(self):
        super().__init__()
        self.left = None
        self.acts = 0

    def _act(self):
        self.acts += 1
        if self.left is not None:
            if self.left == 0:
                raise Died
            self.left -= 1

    def write_atomic(self, path, data, **options):
        self._act()
        super().write_atomic(path, data, **options)

    def run(self, argv, **options):
        if argv[0] in ("pm2", "systemd-run") or argv[:2] == ["systemctl", "stop"]:
            self._act()
        return super().run(argv, **options)

    def power_cut(self):
        """End all processes."""
        for pid in self.table.values():
            for store in (self.files, self.links):
                for path in [path for path in store if path.startswith(f"/proc/{pid}/")]:
                    del store[path]
        self.table.clear()


def shop(directory, monkeypatch):
    """Return an app whose release r1 lives in blue, and whose r2 is staged and migrated; a function that reads it anew; and its host."""
    directory.mkdir(parents=True, exist_ok=True)
    place(directory, monkeypatch)
    world = MortalHost()
    world.units.add(f"pm2-{ME.pw_name}.service")

    def fresh():
        return App("shop", world, document(str(directory / "home")))

    app = fresh()
    for number in (1, 2):
        app.journal.mark(f"r{number}", "staged", tree=f"t{number}")
        world.marks.add(f"r{number}")
    activate(app, SILENT, release="r1")
    world.acts = 0
    return fresh, world


def died(fresh, world, at, release="r2"):
    """Let a switch die right before an act. Returns whether it came that far."""
    world.left = at
    try:
        activate(fresh(), SILENT, release=release)
    except Died:
        return True
    finally:
        world.left = None
    return False


def whole(app, world):
    """Return what is live, having seen that proxy, boot file and processes are of it and of nothing else."""
    slot = app.journal.slot
    assert app.journal.switch is None and not app.journal.unsettled
    assert ("green" if os.path.exists(app.layout.slot_flag) else "blue") == slot
    wanted = {f"shop-server-{slot}", f"shop-worker-{slot}"}
    boot = json.loads(world.files[app.layout.live_file])["apps"]
    assert {entry["name"] for entry in boot} == wanted
    assert all(f"/{app.journal.live}/" in entry["cwd"] for entry in boot)
    assert set(world.table) == wanted and running(app)
    return app.journal.live


def test_wherever_a_switch_dies_one_release_is_live_afterwards(tmp_path, monkeypatch):
    seen = []
    for at in range(200):
        fresh, world = shop(tmp_path / str(at), monkeypatch)
        if not died(fresh, world, at):
            break
        engine.recover(fresh(), SILENT)
        seen.append(fresh().journal.live)
        assert engine.recover(fresh(), SILENT) is False
        if world.history:
            assert whole(fresh(), world) == seen[-1]
        activate(fresh(), SILENT, release="r2")
        assert whole(fresh(), world) == "r2"
    assert len(seen) >= 15 and seen == sorted(seen) and set(seen) == {"r1", "r2"}, "first the old one, from the confirmation on the new one"


@pytest.mark.parametrize("flag", ["blue", "green"], ids="flag {}".format)
@pytest.mark.parametrize("boot_file", ["r1", "r2"], ids="boot file of {}".format)
def test_wherever_the_host_goes_down_the_boot_brings_one_release(tmp_path, monkeypatch, flag, boot_file):
    """What was not fsynced may be lost or kept, so flag and boot file are tried in both forms."""
    seen = []
    for at in range(200):
        fresh, world = shop(tmp_path / str(at), monkeypatch)
        if not died(fresh, world, at):
            break
        app = fresh()
        world.power_cut()
        Slots(app, SILENT)._set_flag(app.layout.slot_flag, flag == "green")
        Slots(app, SILENT).keep_for_boot(boot_file, {"r1": "blue", "r2": "green"}[boot_file])
        engine.recover(fresh(), SILENT, boot=True)
        for entry in json.loads(world.files[app.layout.live_file])["apps"]:
            world._begin(entry)
        world._sockets()
        seen.append(whole(fresh(), world))
    assert seen == sorted(seen) and set(seen) == {"r1", "r2"}


def test_a_way_back_that_dies_too_is_finished_by_the_next(tmp_path, monkeypatch):
    deaths = 0
    for at in range(200):
        fresh, world = shop(tmp_path / str(at), monkeypatch)
        world.dead.add("shop-worker-green")
        try:
            deaths += died(fresh, world, at)
            engine.recover(fresh(), SILENT)
        except AnchorageError:
            assert whole(fresh(), world) == "r1"
            break
        assert whole(fresh(), world) == "r1"
    assert deaths >= 20


def test_a_step_that_has_had_its_time_is_ended_and_its_own_unit_goes_back(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    app = fresh()
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    world.units.add(app.layout.unit)
    world.files[app.layout.step] = json.dumps({"step": "activate", "release": "r2", "started_at": 1.0})
    world.ran.clear()
    assert engine.recover(app, SILENT, overdue=True) is True
    assert ["systemctl", "kill", "--kill-who=main", "--signal=SIGKILL", app.layout.unit] in [call["argv"] for call in world.ran]
    assert app.journal.switch is not None, "the unit's own end does it, as soon as the lock is free"


def test_the_timer_is_armed_before_the_traffic_goes_and_stopped_when_it_is_settled(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    world.ran.clear()
    activate(fresh(), SILENT, release="r2")
    (armed,) = [call["argv"] for call in world.ran if call["argv"][0] == "systemd-run"]
    assert "--on-active=75" in armed and "--timer-property=AccuracySec=1s" in armed and armed[-3:] == ["recover", "shop", "--overdue"]
    assert world.ran[-1]["argv"] != armed and ["systemctl", "stop", "anchorage-shop-overdue.timer"] in [call["argv"] for call in world.ran]


def test_without_the_timer_nothing_is_switched(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    world._systemd_run = lambda argv, call: Completed(1, "", "no bus")
    with pytest.raises(AnchorageError, match="The timer that goes back by itself could not be started: no bus"):
        activate(fresh(), SILENT, release="r2")
    assert whole(fresh(), world) == "r1"


def test_after_a_lost_journal_a_boot_touches_nothing(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    app = fresh()
    before = world.files[app.layout.live_file]
    app.journal.data.update(live=None, slot=None, releases={})
    assert recovery.at_boot(app, SILENT) is False
    assert world.files[app.layout.live_file] == before


@pytest.mark.parametrize("switch", [True, False])
def test_a_timer_that_outlived_its_switch_ends_no_other_step(tmp_path, monkeypatch, switch):
    fresh, world = shop(tmp_path, monkeypatch)
    app = fresh()
    if switch:
        app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    world.units.add(app.layout.unit)
    world.files[app.layout.step] = json.dumps({"step": "migrate", "release": "r3", "started_at": 1.0})
    world.ran.clear()
    engine.recover(app, SILENT, overdue=True)
    assert not [call for call in world.ran if call["argv"][:2] == ["systemctl", "kill"]]
    assert ["systemctl", "stop", "anchorage-shop-overdue.timer"] in [call["argv"] for call in world.ran]


def test_a_worker_that_is_about_to_stop_is_not_taken_for_one_that_runs(tmp_path, monkeypatch):
    """Its daemon ends what a caller began that is dead."""
    fresh, world = shop(tmp_path, monkeypatch)
    app = fresh()
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    world.stopping["shop-worker-blue"] = 9
    engine.recover(app, SILENT)
    assert world.history[-1] == "start shop-worker-blue r1" and whole(fresh(), world) == "r1"


def test_a_process_that_pm2_has_given_up_is_started_again(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    app = fresh()
    app.journal.begin_switch("r2", "green", from_release="r1", from_slot="blue")
    world.given_up.add("shop-worker-blue")
    engine.recover(app, SILENT)
    assert "start shop-worker-blue r1" in world.history and whole(fresh(), world) == "r1"


def test_a_way_back_gets_time_of_its_own(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    world.dead.add("shop-worker-green")
    world.ran.clear()
    with pytest.raises(AnchorageError):
        activate(fresh(), SILENT, release="r2")
    armed = [word for call in world.ran for word in call["argv"] if word.startswith("--on-active=")]
    assert armed == ["--on-active=75", "--on-active=111"]


def test_what_ails_one_file_does_not_reach_the_journal_at_boot(tmp_path, monkeypatch):
    fresh, world = shop(tmp_path, monkeypatch)
    app = fresh()
    world.written.clear()
    assert recovery.at_boot(app, SILENT) is False
    assert app.layout.journal not in world.written, "a full disk must not keep a host from booting"
