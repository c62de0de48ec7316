# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import re
import socket

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, rollback
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .engine_fakes import make, place


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app that served r1, then r2, and serves r3; r4 was staged and never proven."""
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path)
    for number in (1, 2, 3, 4):
        app.journal.mark(f"r{number}", "staged", tree=f"t{number}", source=f"s{number}")
        world.files[f"{app.layout.release(f'r{number}')}/release.json"] = "{}"
    for number in (1, 2, 3):
        world.clock += 60
        app.journal.go_live(f"r{number}", "blue", f"t{number}")
    return app, world


def mark(release, verdict, *findings):
    return {"id": release, "verdict": verdict, "findings": list(findings), "at": 1700000000.0}


def test_the_way_back_leads_to_the_release_that_was_proven_last(shop):
    app, _world = shop
    assert rollback.plan(app) == {"app": "shop", "release": "r2", "needed": True, "tree": "t2", "source": "s2", "live": "r3", "migrations": []}


def test_a_release_that_was_gone_back_from_is_not_gone_back_to_unless_it_is_named(shop):
    app, world = shop
    world.clock += 60
    app.journal.go_live("r2", "green", "t2", leaving="r3")
    assert rollback.target(app, "r1") == "r1" and rollback.target(app, "r3") == "r3"
    assert rollback.already_back(app) == "shop: release r2 is live already, gone back to from r3; to go further back, name r1"
    world.clock += 60
    app.journal.go_live("r3", "blue", "t3")
    assert rollback.target(app, None) == "r2", "deployed again, it is a good one"


def test_a_way_back_that_was_cut_off_and_is_asked_for_again_is_not_gone_twice(shop):
    app, world = shop
    world.clock += 60
    app.journal.go_live("r2", "green", "t2", leaving="r3")
    assert app.journal.unsettled and rollback.plan(app)["release"] == "r2"
    assert rollback.plan(app)["needed"] is True, "what it replaced may not be away yet"
    app.journal.settled()
    assert rollback.plan(app)["needed"] is False
    world.clock += 60
    app.journal.go_live("r2", "blue", "t2")
    assert rollback.plan(app)["release"] == "r2", "started again in the other slot, it is still the one that was gone back to"
    world.clock += 60
    app.journal.go_live("r3", "green", "t3")
    assert rollback.target(app, None) == "r2"


@pytest.mark.parametrize(
    ("wanted", "cause"),
    [("r4", "was never proven"), ("r9", "is not on this host")],
)
def test_a_release_that_there_is_no_way_back_to_is_refused_with_those_there_are(shop, wanted, cause):
    app, _world = shop
    with pytest.raises(AnchorageError, match=cause) as error:
        rollback.plan(app, wanted)
    assert error.value.live == "shop release r3 in slot blue"
    assert "r1, r2" in error.value.next_step


def test_what_is_live_already_needs_no_way_back(shop):
    app, _world = shop
    app.journal.settled()
    plan = rollback.plan(app, "r3")
    assert plan["needed"] is False and plan["note"] == "shop: release r3 is live already"


def test_a_release_on_other_ports_than_the_proxy_knows_is_refused(shop):
    app, world = shop
    for number, port in ((2, 9100), (3, 9000)):
        document = json.loads(json.dumps(app.document))
        document["processes"][0]["slots"]["blue"] = [port]
        world.files[app.layout.document(f"r{number}")] = json.dumps(document)
    with pytest.raises(AnchorageError, match="Release r2 of shop listens elsewhere than the proxy was told since") as error:
        rollback.plan(app, code_only=True)
    assert "site.yml" in error.value.next_step


def test_what_was_pruned_is_no_way_back(shop):
    app, world = shop
    for number in (1, 2):
        del world.files[f"{app.layout.release(f'r{number}')}/release.json"]
    with pytest.raises(AnchorageError, match="There is no earlier release of shop to go back to"):
        rollback.plan(app)


@pytest.mark.parametrize("verdict", ["none", "expand"])
def test_additions_to_the_tables_do_not_stand_in_the_way(shop, verdict):
    app, world = shop
    world.since = [mark("r3", verdict, "column public.items.note is new")]
    assert rollback.plan(app)["release"] == "r2"


@pytest.mark.parametrize("verdict", ["contract", "unknown"])
def test_a_migration_that_the_old_code_may_not_live_with_is_refused_with_three_ways_out(shop, verdict):
    app, world = shop
    world.since = [mark("r3", verdict, "column public.items.price is gone")]
    app.journal.add_restore_point({"path": "/x/r3.dump", "at": world.now() - 600, "release": "r3a", "migrated": "r3"})
    with pytest.raises(AnchorageError, match=re.escape("Release r2 of shop cannot be trusted with the tables as they are")) as error:
        rollback.plan(app)
    assert "column public.items.price is gone" in error.value.message
    (code, down, data) = error.value.details["ways"]
    assert code.endswith("anchorage rollback shop --to r2 --code-only") and "deployed as a new release" in down
    assert "/x/r3.dump" in data and "10 minutes" in data
    assert error.value.live == "shop release r3 in slot blue"
    assert rollback.plan(app, code_only=True)["migrations"] == world.since


def test_without_a_restore_point_the_loss_counts_from_the_migration(shop):
    app, world = shop
    world.since = [{**mark("r3", "contract", "table public.items is gone"), "at": world.now() - 120}]
    with pytest.raises(AnchorageError) as error:
        rollback.plan(app)
    assert "from a backup taken before, which loses all that was written in the 2 minutes since" in error.value.details["ways"][2]


def test_an_app_without_a_database_always_has_a_way_back(shop):
    app, world = shop
    app.document["migrate"] = None
    world.database_up = False
    assert rollback.plan(app)["release"] == "r2"


def test_the_step_goes_back_and_remembers_what_it_left(shop, monkeypatch):
    app, _world = shop
    monkeypatch.setattr(engine, "activate", lambda app, log, release, leaving: app.journal.go_live(release, "green", "t2", leaving=leaving) or True)
    monkeypatch.setattr(engine, "keep_document", lambda app: True)
    ended = engine.run_step(app, engine.ROLLBACK, {"release": "r2", "tree": "t2", "source": "s2"}, engine.Log(lambda line: None))
    assert ended["ok"] and app.journal.live == "r2" and "left_at" in app.journal.release("r3")


LOCAL = {"database": {"external": False}, "redis": {"external": False}}
ROTATED = {
    "database_url": ("postgres://shop:one@127.0.0.1/shop", "postgres://shop-b:two@127.0.0.1/shop"),
    "redis_url": ("redis://shop:one@127.0.0.1:6379/0", "redis://shop:two@127.0.0.1:6379/0"),
    "JWT_SECRET": ("one-secret", "two-secret"),
    "KEYS_OLD": ("key0", "key1,key0"),
}


def made_with(shop, which, **held):
    """Let a release have been made with secrets, or with C(None) the live one."""
    app, world = shop
    document = {**app.document, **LOCAL, "generated": {"JWT_SECRET": 128}, "rotating": {"KEYS": "KEYS_OLD"}, "secrets_env": {}}
    for key, value in held.items():
        (document if key.endswith("_url") else document["secrets_env"])[key] = value
    if which is None:
        app.document = document
    else:
        world.files[app.layout.document(which)] = json.dumps(document)


@pytest.mark.parametrize("key", ROTATED)
def test_a_release_from_before_a_rotation_is_no_way_back(shop, key):
    old, new = ROTATED[key]
    made_with(shop, None, **{key: new})
    made_with(shop, "r2", **{key: old})
    with pytest.raises(AnchorageError, match=f"Release r2 of shop was made before its secrets were rotated: it has another {key}") as caught:
        rollback.plan(shop[0])
    assert "source.version" in caught.value.next_step and old not in caught.value.text() and new not in caught.value.text()
    made_with(shop, "r2", **{key: new})
    assert rollback.plan(shop[0])["release"] == "r2"


def test_a_release_from_before_there_was_such_a_secret_is_one(shop):
    made_with(shop, None, JWT_SECRET="two-secret", KEYS_OLD="key0")
    made_with(shop, "r2")
    assert rollback.plan(shop[0])["release"] == "r2"


def test_the_password_of_a_managed_service_is_not_ours_to_judge(shop):
    made_with(shop, None, database_url=ROTATED["database_url"][1])
    shop[0].document["database"] = {"external": True}
    made_with(shop, "r2", database_url=ROTATED["database_url"][0])
    assert rollback.plan(shop[0])["release"] == "r2"


@pytest.mark.parametrize("key", ["redis_url", "redis_cache_url"])
def test_a_release_that_speaks_plain_is_a_way_back_as_long_as_it_is_heard(shop, key):
    # Whether it is, only Redis knows: both ports are open while a fleet goes over to TLS.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        plain = f"redis://shop:sesame@127.0.0.1:{listener.getsockname()[1]}/0"
        made_with(shop, None, **{key: "rediss://shop:sesame@127.0.0.1:7379/0"})
        made_with(shop, "r2", **{key: plain})
        assert rollback.plan(shop[0])["release"] == "r2"
    with pytest.raises(AnchorageError, match="Release r2 of shop reaches Redis in plain text") as caught:
        rollback.plan(shop[0])
    assert "source.version" in caught.value.next_step and "sesame" not in caught.value.text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("redis://shop:x@127.0.0.1:9/0", "redis://shop:x@127.0.0.1:9/0"),
        ("rediss://shop:x@127.0.0.1:9/0", "redis://shop:x@127.0.0.1:9/0"),
        ("rediss://shop:x@127.0.0.1:9/0", "rediss://shop:x@127.0.0.1:9/0"),
    ],
)
def test_other_ways_to_redis_are_not_asked_about(shop, old, new):
    made_with(shop, None, redis_url=new)
    made_with(shop, "r2", redis_url=old)
    assert rollback.plan(shop[0])["release"] == "r2"
