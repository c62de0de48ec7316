# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore_apps
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .engine_fakes import make, place


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app that is live, whose processes are a list of names."""
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    app.journal.data.update(live="0c2d", slot="blue")
    said, events = [], []
    log.write = said.append
    runtime = types.SimpleNamespace(
        require=lambda: events.append("require"), names=lambda: {"shop-server-blue", "shop-worker-blue"}, delete=lambda names: events.append(("delete", names))
    )
    slots = types.SimpleNamespace(runtime=runtime, settle=lambda: events.append("settle") or [])
    monkeypatch.setattr(restore_apps, "Slots", lambda app, log: slots)
    monkeypatch.setattr(restore_apps, "running", lambda app: True)
    monkeypatch.setattr(restore_apps, "migrate", lambda app, log, release: events.append(("migrate", release)))
    return types.SimpleNamespace(app=app, world=world, log=log, said=said, events=events, slots=slots)


def test_all_processes_stop_and_the_journal_says_that_they_are_to_come_back(shop):
    restore_apps.stop(shop.app, shop.log)
    assert shop.events == ["require", ("delete", ["shop-worker-blue", "shop-server-blue"])]
    assert shop.app.unsettled and shop.app.journal.live == "0c2d" and "answers 502" in shop.said[0]


def test_what_is_live_comes_back(shop):
    shop.world.marks.add("0c2d")
    shop.app.journal.unsettle()
    restore_apps.start(shop.app, shop.log)
    assert shop.events == ["require", "settle"] and not shop.app.unsettled


def test_data_that_do_not_know_the_release_are_migrated_before_it_starts(shop):
    restore_apps.start(shop.app, shop.log)
    assert shop.events == [("migrate", "0c2d"), "require", "settle"]


def test_a_process_that_does_not_come_back_is_told(shop, monkeypatch):
    shop.world.marks.add("0c2d")
    shop.slots.settle = lambda: ["shop-worker-blue"]
    with pytest.raises(AnchorageError, match="shop-worker-blue did not come back") as caught:
        restore_apps.start(shop.app, shop.log)
    assert "anchorage restore --resume" in caught.value.next_step
    shop.slots.settle = list
    monkeypatch.setattr(restore_apps, "running", lambda app: False)
    with pytest.raises(AnchorageError, match="a process of it is missing"):
        restore_apps.start(shop.app, shop.log)


def test_an_app_without_a_release_is_not_started(shop):
    shop.app.journal.data.update(live=None)
    restore_apps.start(shop.app, shop.log)
    assert shop.events == [] and "nothing is started" in shop.said[0]


def test_only_apps_of_this_host_and_each_once(shop, monkeypatch):
    monkeypatch.setattr(restore_apps.engine, "apps", lambda world: ["shop"])
    monkeypatch.setattr(restore_apps, "App", lambda name, world: name)
    assert restore_apps.here(shop.world, ["blog", "shop", "shop"]) == ["shop"]
