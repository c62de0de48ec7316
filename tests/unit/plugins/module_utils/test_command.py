# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import command, engine, host_drain, restart
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .engine_fakes import make, place


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app that served r1 and serves r2, reached by the command."""
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path)
    for number in (1, 2):
        app.journal.mark(f"r{number}", "staged", tree=f"t{number}", source=f"s{number}")
        app.journal.go_live(f"r{number}", "blue", f"t{number}")
        world.files[f"{app.layout.release(f'r{number}')}/release.json"] = "{}"
    monkeypatch.setattr(command, "World", lambda: world)
    monkeypatch.setattr(command, "App", lambda name, world, document=None: App(name, world, document or app.document))
    return app, world


def test_a_rollback_is_started_as_a_step_and_followed_to_its_end(shop, monkeypatch, capsys):
    app, _world = shop
    asked = []
    answers = [
        {"running": True, "offset": 3, "lines": ["one"], "outcome": None},
        {"running": False, "offset": 6, "lines": ["two"], "outcome": {"ok": True}},
    ]
    monkeypatch.setattr(engine, "start", lambda app, step, wish: asked.append((step, wish)) or {"log": "/l"})
    monkeypatch.setattr(engine, "follow", lambda app, log, offset, wait_seconds: asked.append((log, offset)) or answers.pop(0))
    monkeypatch.setenv("SUDO_USER", "ada")
    assert command.main(["rollback", "shop"]) == 0
    assert asked == [("rollback", {"release": "r1", "tree": "t1", "source": "s1", "owner": "ada"}), ("/l", 0), ("/l", 3)]
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_plan_of_a_rollback_starts_nothing(shop, monkeypatch, capsys):
    monkeypatch.setattr(engine, "start", lambda *_args: pytest.fail("started"))
    assert command.main(["rollback", "shop", "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["release"] == "r1"


def test_a_plan_of_a_rollback_that_is_done_already_says_so(shop, capsys):
    assert command.main(["rollback", "shop", "--to", "r2", "--plan"]) == 0
    assert capsys.readouterr().out.startswith("shop: release r2 is live already")


def test_a_rollback_that_is_refused_says_why_and_ends_with_1(shop, capsys):
    assert command.main(["rollback", "shop", "--to", "r9"]) == 1
    assert "Release r9 of shop is not on this host" in capsys.readouterr().err


def test_one_app_that_cannot_be_recovered_does_not_keep_the_others(shop, monkeypatch, capsys):
    seen = []

    def recover(app, log, boot, overdue):
        seen.append((app.name, boot, overdue))
        if app.name == "blog":
            raise AnchorageError("The journal is damaged")

    monkeypatch.setattr(engine, "apps", lambda world: ["blog", "shop"])
    monkeypatch.setattr(engine, "recover", recover)
    assert command.main(["recover", "--boot"]) == 1
    assert seen == [("blog", True, False), ("shop", True, False)] and "The journal is damaged" in capsys.readouterr().err


def test_a_step_works_with_the_document_that_it_was_given_and_takes_it_away(shop, monkeypatch, tmp_path):
    app, world = shop
    given = tmp_path / "wish.json"
    given.write_text("{}")
    world.files[str(given)] = json.dumps({**app.document, "env": {"GIVEN": "yes"}})
    seen = []
    monkeypatch.setattr(engine, "run_step", lambda app, step, wish, log: seen.append((step, app.document["env"], wish["owner"])) or {"ok": True})
    words = ["step", "stage", "shop", "--release=r3", "--tree=t3", "--source=s3", "--owner=ada@laptop", f"--document={given}"]
    assert command.main(words) == 0
    assert seen == [("stage", {"GIVEN": "yes"}, "ada@laptop")] and not given.exists()


def test_a_free_lock_is_called_free(shop, capsys):
    shop[1].answers["pg_stat_activity"] = "[]"
    assert command.main(["unlock-info", "shop"]) == 0
    assert capsys.readouterr().out == "shop: no step runs, and the lock is free\n"


def test_who_holds_a_lock_is_named_with_the_way_to_end_it(shop, capsys):
    app, world = shop
    world.units.add(app.layout.unit)
    world.files[app.layout.step] = json.dumps({"step": "migrate", "release": "r3", "owner": "ada@laptop", "started_at": world.now() - 42, "log": "/l"})
    session = {"pid": 77, "name": "anchorage-migrate-shop", "client": "127.0.0.1", "state": "active", "waits": True, "seconds": 40, "query": "ALTER TABLE x"}
    world.answers["pg_stat_activity"] = json.dumps([session])
    assert command.main(["unlock-info", "shop"]) == 0
    said = capsys.readouterr().out
    assert "migrate of release r3 runs, started by ada@laptop 42 s ago" in said and "systemctl stop anchorage-shop.service 'anchorage-shop-*'" in said
    assert "session 77 (anchorage-migrate-shop, 40 s, waits for a lock): ALTER TABLE x" in said and "pg_terminate_backend(77)" in said
    assert command.main(["unlock-info", "shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"]["seconds"] == 42.0


def test_a_database_that_does_not_answer_is_said(shop, capsys):
    _app, world = shop
    world.database_up = False
    assert command.main(["unlock-info", "shop"]) == 0
    assert "the database does not answer" in capsys.readouterr().out


def test_a_step_whose_document_is_gone_takes_no_other(shop, monkeypatch, capsys):
    monkeypatch.setattr(engine, "run_step", lambda *_args: pytest.fail("ran"))
    assert command.main(["step", "stage", "shop", "--release=r3", "--tree=t3", "--source=s3", "--document=/gone.json"]) == 1
    assert "/gone.json, which says what this step is for, is gone" in capsys.readouterr().err


def test_a_restart_is_asked_for_by_hand_and_only_on_demand_where_nothing_is_old(shop, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(restart, "restart", lambda app, log, force: asked.append(force) or {"changed": force, "reasons": []})
    assert command.main(["restart", "shop"]) == command.main(["restart", "shop", "--if-outdated"]) == 0
    assert asked == [True, False] and capsys.readouterr().out == "Nothing to do: no process uses what was replaced.\n"


def test_whoever_serves_alone_is_not_drained_and_an_app_that_is_not_there_is_named(shop, monkeypatch, capsys):
    monkeypatch.setattr(engine, "apps", lambda _world: ["shop"])
    monkeypatch.setattr(host_drain, "out", lambda *_args, **_more: pytest.fail("drained"))
    assert command.main(["drain"]) == 1 and "No app of this host has other hosts" in capsys.readouterr().err
    assert command.main(["drain", "blog"]) == 1 and "There is no app 'blog' on this host; there is: shop" in capsys.readouterr().err
    assert command.main(["undrain"]) == 0 and "Nothing to do; out of the balance: none." in capsys.readouterr().out
