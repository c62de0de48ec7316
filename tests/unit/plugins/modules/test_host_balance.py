# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task says of a host in and out of the balance, and that check mode tells the same and touches nothing."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, host_drain
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.modules import host_balance
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.engine_fakes import document, place
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.test_host_drain import EDGE, Firewall

WANTED = {"apps": None, "edges": {}, "seconds": None}


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Run the module's work on a host with one app, which has an edge."""
    place(tmp_path, monkeypatch)
    world = Firewall()
    app = App("shop", world, {**document(str(tmp_path / "home")), "edge": EDGE})
    for module in (host_balance, host_drain):
        monkeypatch.setattr(module, "App", lambda name, world: app)
    monkeypatch.setattr(engine, "apps", lambda world: ["shop"])

    def run(check=False, **wanted):
        return host_balance.balance(world, {**WANTED, **wanted}, Log(lambda line: None), check=check)

    run.world, run.app = world, app
    return run


def test_out_and_in_again(ask):
    assert ask(state="out", check=True) == {"changed": True, "apps": ["shop"], "connected": 0} and ask.world.told == []
    assert ask(state="out") == {"changed": True, "apps": ["shop"], "connected": 0}
    assert ask(state="out")["changed"] is ask(state="out", check=True)["changed"] is False
    assert ask(state="in", check=True) == {"changed": True, "apps": []} and list(host_drain.drained(ask.world)) == ["shop"]
    assert ask(state="in") == {"changed": True, "apps": []}
    assert ask(state="in")["changed"] is ask(state="in", check=True)["changed"] is False


def test_new_ones_wait_for_their_first_release(ask):
    ask.world.files.pop(ask.app.layout.journal, None)
    assert ask(state="new", edges={"shop": 9019}, check=True)["changed"] and ask.world.told == []
    assert ask(state="new", edges={"shop": 9019}) == {"changed": True, "apps": ["shop"]}
    assert ask(state="new", edges={"shop": 9019})["changed"] is False


def test_an_app_without_an_edge_is_refused_only_where_it_is_named(ask):
    del ask.app.document["edge"]
    assert ask(state="out") == {"changed": False, "apps": [], "connected": 0}
    with pytest.raises(AnchorageError, match="shop can be taken out of no balance"):
        ask(state="out", apps=["shop"])
