# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan answers besides: where nothing is to be done it says what is live, so that nobody asks again."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.modules import release_step
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

STATUS = {"app": "shop", "live": "r1"}


@pytest.fixture
def plan(monkeypatch):
    """Ask for the plan of two apps, of which the first has these steps and leaves these paths behind."""
    kept = []
    monkeypatch.setattr(release_step, "App", lambda name, world, document=None: name)
    monkeypatch.setattr(release_step.engine, "keep_document_unless_busy", kept.append)
    monkeypatch.setattr(release_step.engine, "status", lambda app: {**STATUS, "app": app})

    def ask(steps=(), stale=(), documents=("shop", "blog"), **options):
        monkeypatch.setattr(release_step.engine, "plan", lambda app, source: {"app": app, "steps": [*steps] if app == "shop" else []})
        monkeypatch.setattr(release_step.pruning, "sweep", lambda app, *, check: [*stale] if check and app == "shop" else [])
        given = [json.dumps({"name": name}) for name in documents]
        code, result = run_module(release_step, apps=["shop", "blog"], operation="plan", documents=given, **options)
        assert code == 0
        return result

    ask.kept = kept
    return ask


def test_at_rest_the_state_is_told(plan):
    assert plan()["status"] == [{"app": "shop", "live": "r1"}, {"app": "blog", "live": "r1"}]
    assert plan.kept == ["shop", "blog"]


def test_where_anything_is_to_be_done_it_is_not(plan):
    assert "status" not in plan(steps=["activate"])
    assert "status" not in plan(stale=["/srv/shop/releases/r0"])
    assert "status" not in plan(documents=())


def test_what_cannot_be_tidied_up_is_left_to_the_task_that_tidies_up(plan, monkeypatch):
    assert "status" in plan()
    monkeypatch.setattr(release_step.engine, "status", lambda app: 1 / 0)
    assert "status" not in plan()
