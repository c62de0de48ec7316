# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is taken out of the balance of its proxies."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import drain, host_drain
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import document, place
from .test_drain import BusyHost

EDGE = {"address": "10.0.0.2", "port": 9019}


class Firewall(BusyHost):
    """A host whose firewall says what it was told."""

    def __init__(self):
        super().__init__()
        self.told, self.refuses = [], False
        self.files[host_drain.RULES_DIRECTORY] = ""

    def run(self, argv, **more):
        if argv[0] != "nft":
            return super().run(argv, **more)
        self.told.append(argv[1:])
        return Completed(1, "", "Error: syntax error") if self.refuses else Completed(0, "", "")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An app with an edge, its host, and what is said."""
    place(tmp_path, monkeypatch)
    world = Firewall()
    told = {**document(str(tmp_path / "home")), "edge": EDGE}
    app = App("shop", world, told)
    monkeypatch.setattr(host_drain, "App", lambda name, world: app)
    said = []
    return app, world, Log(said.append), said


def test_nobody_new_is_let_in_and_who_is_connected_is_waited_for(host):
    app, world, log, said = host
    last = world.clock + 3
    world.connect(9019, until=last)
    found = host_drain.out(world, log, [app])
    assert found == {"changed": True, "apps": ["shop"], "connected": 0}
    assert last + drain.QUIET <= world.clock <= last + drain.QUIET + 2 * drain.PAUSE
    rule = world.files[host_drain.RULES]
    assert "tcp dport { 9019 } ct state new reject with tcp reset" in rule and world.told == [["-f", host_drain.RULES]]
    assert list(host_drain.drained(world)) == ["shop"] and said == ["shop: nobody new is let in; the proxies ask other hosts"]
    assert host_drain.out(world, log, [app])["changed"] is False


def test_whoever_does_not_end_is_told_and_not_waited_for_without_end(host):
    app, world, log, said = host
    world.connect(9019, until=world.clock + 1000)
    began = world.clock
    assert host_drain.out(world, log, [app], seconds=7)["connected"] == 1
    assert 7 <= world.clock - began <= 8 and said[-1] == "shop: 1 still connected after 7 s; they are not waited for"


def test_it_is_put_back_with_nothing_left(host):
    app, world, log, _said = host
    host_drain.out(world, log, [app])
    assert host_drain.back(world, log) == {"changed": True, "apps": []}
    assert not world.exists(host_drain.RULES) and host_drain.drained(world) == {}
    assert world.told[-1] == ["table inet anchorage_drained; delete table inet anchorage_drained"]
    assert host_drain.back(world, log)["changed"] is False


def test_a_rule_without_a_record_goes_too(host):
    _app, world, log, said = host
    world.files[host_drain.RULES] = host_drain.rules([9019])
    assert host_drain.back(world, log)["changed"] is True and not world.exists(host_drain.RULES)
    assert said == ["this host: back in the balance"]


def test_a_firewall_that_refuses_changes_nothing(host):
    app, world, log, _said = host
    world.refuses = True
    with pytest.raises(AnchorageError, match="The firewall did not take the rule: Error: syntax error"):
        host_drain.out(world, log, [app])
    assert host_drain.drained(world) == {} and not world.exists(host_drain.RULES)


def test_one_that_serves_alone_is_refused(host):
    app, world, log, _said = host
    del app.document["edge"]
    with pytest.raises(AnchorageError, match="shop can be taken out of no balance"):
        host_drain.out(world, log, [app])
    assert world.told == []


def test_without_a_firewall_that_outlives_a_restart_it_is_refused(host):
    app, world, log, _said = host
    del world.files[host_drain.RULES_DIRECTORY]
    with pytest.raises(AnchorageError, match="a restart would put it back by itself"):
        host_drain.out(world, log, [app])


def test_an_app_that_is_new_here_lets_nobody_in_before_its_first_release(host):
    app, world, log, said = host
    world.files.pop(app.layout.journal, None)
    assert host_drain.keep_out_new(world, {"shop": 9019}, check=True) == {"changed": True, "apps": ["shop"]} and world.told == []
    assert host_drain.keep_out_new(world, {"shop": 9019})["changed"] and "tcp dport { 9019 }" in world.files[host_drain.RULES]
    assert host_drain.keep_out_new(world, {"shop": 9019}) == {"changed": False, "apps": ["shop"]}
    host_drain.first_release(world, log, "shop")
    assert host_drain.drained(world) == {} and not world.exists(host_drain.RULES) and said == ["shop: back in the balance"]


def test_one_that_was_live_here_is_not_new(host):
    app, world, log, _said = host
    app.journal.go_live("r1", "blue", "t1")
    assert host_drain.keep_out_new(world, {"shop": 9019}) == {"changed": False, "apps": []}
    host_drain.first_release(world, log, "shop")
    assert world.told == []


def test_whoever_is_drained_on_purpose_does_not_come_back_with_its_first_release(host):
    app, world, log, _said = host
    world.files.pop(app.layout.journal, None)
    host_drain.keep_out_new(world, {"shop": 9019})
    assert host_drain.out(world, log, [app])["changed"]
    host_drain.first_release(world, log, "shop")
    assert list(host_drain.drained(world)) == ["shop"]


def test_a_damaged_record_says_so(host):
    _app, world, _log, _said = host
    world.files[host_drain.RECORD] = json.dumps(["shop"])
    with pytest.raises(AnchorageError, match="is damaged"):
        host_drain.drained(world)
