# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import rehearsal
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.rehearsal import SKIPPED, Held, Watch
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import PASSWORD, Conversation, document, make, place, written_json

COLUMN = ["text", False, False]


def tables(*columns):
    return {"columns": {"public.items": dict.fromkeys(columns, COLUMN)}, "rules": [], "unique": [], "labels": []}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An app with a staged release r1 whose migrations are rehearsed."""
    place(tmp_path, monkeypatch)

    def start(**migrate_options):
        wanted = document(str(tmp_path / "home"))["migrate"]
        options = {**wanted, "rehearsal": {"enabled": True, "url": None, "max_lock_seconds": 2}, **migrate_options}
        app, world, log = make(tmp_path, migrate=options, rehearsal_url=f"postgres://shop:{PASSWORD}@127.0.0.1:5432/shop_rehearsal")
        app.journal.mark("r1", "staged", tree="t1", source="s1")
        world.catalogs = [tables("a"), tables("a", "b"), tables("a"), tables("a", "b")]
        world.answers["to_regnamespace"] = "t"
        held = []
        monkeypatch.setattr(rehearsal.Watch, "__enter__", lambda self: self)
        monkeypatch.setattr(rehearsal.Watch, "__exit__", lambda self, *error: None)
        monkeypatch.setattr(rehearsal.Watch, "held", lambda self, known: held)
        return app, world, log, held

    return start


def test_the_copy_is_migrated_before_the_database_and_emptied_before_and_after(host):
    app, world, log, _held = host()
    assert migrate(app, log, release="r1") is True
    assert [event for event in world.events if event in ("dump", "run", "mark")] == ["dump", "run", "run", "mark"]
    emptied = [call["env"]["PGDATABASE"] for call in world.ran if "DROP SCHEMA %I CASCADE" in (call["input"] or "")]
    assert emptied == ["shop_rehearsal", "shop_rehearsal"]
    assert "tables: expand" in " ".join(log.tail)
    (note,) = [entry for entry in app.journal.data["history"] if entry["event"] == "rehearsed"]
    assert note["verdict"] == "expand" and note["findings"] == ["column public.items.b is new"]


def test_only_the_copy_is_named_to_what_is_rehearsed(host):
    app, world, log, _held = host()
    app.document["redis_url"] = None
    migrate(app, log, release="r1")
    rehearsed, real = (written_json(world, f"{app.layout.release('r1')}/run/{name}.json")["env"] for name in ("rehearse", "migrate"))
    assert rehearsed["DATABASE_URL"].endswith("/shop_rehearsal") and real["DATABASE_URL"].endswith("/shop")
    assert rehearsed["PGAPPNAME"] == "anchorage-rehearse-shop"


def test_another_address_of_the_same_database_is_replaced_too(host):
    app, world, log, _held = host()
    app.document["secrets_env"] = {"DIRECT_URL": f"postgresql://owner:{PASSWORD}@127.0.0.1:6432/shop?schema=public", "OTHER": "postgres://x@10.0.0.1/shop"}
    app.document["redis_url"] = "redis://shop:x@127.0.0.1:6379/0"
    app.document["env"] = {"A": "1"}
    monkey = rehearsal._elsewhere(app, rehearsal.Database(world, app.document["database_url"]), app.document["secrets_env"])
    assert monkey["DIRECT_URL"] == app.document["rehearsal_url"] and monkey["OTHER"] == "postgres://x@10.0.0.1/shop"
    world.answers["PING"] = ""
    found = {}
    rehearsal._migrate(
        app,
        rehearsal.Database(world, app.document["database_url"]),
        rehearsal.Database(world, app.document["rehearsal_url"]),
        lambda copy, given: found.update(given),
    )
    assert found["env"] == {"A": "1", "REDIS_URL": "", "REDIS_CACHE_URL": ""} and found["secrets_env"]["DIRECT_URL"].endswith("shop_rehearsal")


def test_a_copy_that_cannot_be_emptied_is_said(host):
    app, world, log, _held = host()
    real, emptied = world._psql, []

    def psql(argv, call):
        if "DROP SCHEMA %I CASCADE" in (call["input"] or "") and "CREATE SCHEMA" not in call["input"]:
            emptied.append(1)
            return Completed(1, "", "ERROR: in use")
        return real(argv, call)

    world._psql = psql
    assert migrate(app, log, release="r1") is True
    assert emptied and "could not be emptied and holds a copy of the data: ERROR: in use" in " ".join(log.tail)


def test_the_copy_is_filled_by_the_restore_point(host):
    app, world, log, _held = host()
    migrate(app, log, release="r1")
    (filled,) = [call for call in world.ran if call["argv"][0] == "pg_restore" and "--no-owner" in call["argv"]]
    assert filled["argv"][-1] == app.journal.restore_points()[0]["path"] and filled["env"]["PGDATABASE"] == "shop_rehearsal"
    assert not [path for path in world.files if path.endswith(".list")]


def test_without_a_restore_point_a_dump_is_taken_and_removed(host):
    app, world, log, _held = host(restore_point={"enabled": False, "timeout_seconds": 60, "keep": 2})
    assert migrate(app, log, release="r1") is True
    assert not [path for path in world.files if path.endswith(("rehearsal.dump", ".part"))] and app.journal.restore_points() == []


def test_a_migration_that_fails_in_the_rehearsal_never_meets_the_database(host):
    app, world, log, _held = host()
    world.rc = 1
    with pytest.raises(AnchorageError, match=r"rehearsal on shop_rehearsal on 127.0.0.1:5432 failed.*The database itself was not touched") as error:
        migrate(app, log, release="r1")
    assert error.value.what == "gate (rehearsal)" and world.marks == set()
    assert world.events.count("run") == 1
    assert "DROP SCHEMA %I CASCADE" in [call for call in world.ran if call["argv"][0] == "psql"][-1]["input"], "no copy of the data is left"


def test_a_rehearsal_that_took_something_away_stops_the_deploy(host):
    app, world, log, _held = host()
    world.catalogs = [tables("a", "b"), tables("a")]
    with pytest.raises(AnchorageError, match="column public.items.b is gone") as error:
        migrate(app, log, release="r1")
    assert error.value.what == "gate (verdict)" and world.events.count("run") == 1


def test_a_rehearsal_that_held_a_lock_for_long_stops_the_deploy(host):
    app, world, log, held = host()
    held.append(Held("public.items", "ShareLock", 2.5, "CREATE INDEX i\n ON items (a)"))
    with pytest.raises(AnchorageError, match=r"lock-heavy.*public.items for 2.5 s \(ShareLock: CREATE INDEX i ON items"):
        migrate(app, log, release="r1")


def test_a_short_lock_passes_and_a_long_one_where_the_contract_says_so(host):
    for seconds, allow in ((1.5, []), (60.0, ["lock_heavy"])):
        app, world, log, held = host(allow=allow)
        held.append(Held("public.items", "ShareLock", seconds, "CREATE INDEX i ON items (a)"))
        assert migrate(app, log, release="r1") is True


def test_nothing_but_an_empty_database_is_emptied(host):
    app, world, log, _held = host()
    world.answers["to_regnamespace"] = "f"
    with pytest.raises(AnchorageError, match="it holds tables that no rehearsal made"):
        migrate(app, log, release="r1")
    assert not [call for call in world.ran if "DROP SCHEMA" in (call["input"] or "")]


def test_a_copy_without_room_is_not_made(host, monkeypatch):
    app, world, log, _held = host()
    world.files[rehearsal.CLUSTER] = ""
    world.answers["pg_database_size"] = str(100 << 20)
    world.free_bytes = lambda path: (1 << 40) if "restore" in path else 1 << 20
    with pytest.raises(AnchorageError, match=r"it needs 120 MiB in /var/lib/postgresql, and 1 MiB are free"):
        migrate(app, log, release="r1")


def test_redis_is_one_for_the_rehearsal_alone(host):
    app, world, log, _held = host()
    world.files[rehearsal.REDIS] = ""
    app.document["redis_url"] = "redis://shop:x@127.0.0.1:6379/0"
    with rehearsal._redis(app) as url:
        assert url.startswith("redis://127.0.0.1:") and not url.endswith(":6379/0")
    (started,) = [call["argv"] for call in world.ran if call["argv"][0] == "systemd-run"]
    assert "--save" in started and f"--property=User={app.user}" in started
    assert world.ran[-1]["argv"] == ["systemctl", "stop", "anchorage-shop-rehearsal-redis.service"]


def test_a_redis_that_does_not_start_is_said(host):
    app, world, log, _held = host()
    world.files[rehearsal.REDIS] = ""
    app.document["redis_url"] = "redis://shop:x@127.0.0.1:6379/0"
    world._systemd_run = lambda argv, call: Completed(1, "", "no memory")
    with pytest.raises(AnchorageError, match="a Redis for it could not be started: no memory"), rehearsal._redis(app):
        pass


@pytest.mark.parametrize(
    ("line", "skipped"),
    [
        ("2; 3079 16387 EXTENSION - pg_trgm ", True),
        ("3500; 0 0 COMMENT - EXTENSION pg_trgm ", True),
        ("6; 2615 2200 SCHEMA - public shop", True),
        ("7; 2615 16388 SCHEMA - anchorage shop", True),
        ("215; 1259 16389 TABLE anchorage release shop", True),
        ("3400; 0 16389 TABLE DATA anchorage release shop", True),
        ("216; 1259 16390 TABLE public anchorage shop", False),
        ("3401; 0 16390 TABLE DATA public items shop", False),
        ("217; 1259 16391 SEQUENCE OWNED BY public items_id_seq shop", False),
        ("3402; 2606 16400 FK CONSTRAINT public items items_a_fkey shop", False),
    ],
)
def test_what_only_a_superuser_may_make_is_left_out_of_the_copy(line, skipped):
    assert bool(SKIPPED.match(line)) is skipped


def test_a_lock_lasts_from_the_first_look_that_saw_it_to_the_last(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path)
    watch = Watch(app, types.SimpleNamespace(environment={}))

    def row(table, pid, statement):
        return json.dumps({"table": table, "mode": "ShareLock", "pid": pid, "statement": statement})

    looks = [
        [row("public.items", 1, "earlier")],
        [],
        [row("public.items", 1, "A")],
        [row("public.items", 1, "B"), row("public.new", 1, "B")],
        [row("public.items", 2, "C")],
        [],
    ]
    watch.process = Conversation([line for look in looks for line in [*look, "."]])
    for _look in looks:
        assert watch.look()
        world.clock += 1.5
    assert watch.held({"public.items"}) == [Held("public.items", "ShareLock", 1.5, "B")]
    assert watch.look() is False, "the session has ended"


@pytest.mark.parametrize("modes", [("ShareLock", "AccessExclusiveLock"), ("AccessExclusiveLock", "ShareLock")])
def test_of_two_locks_that_were_held_as_long_the_one_that_keeps_out_more_is_told(tmp_path, monkeypatch, modes):
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path)
    watch = Watch(app, types.SimpleNamespace(environment={}))
    rows = [json.dumps({"table": "public.items", "mode": mode, "pid": 1, "statement": "A"}) for mode in modes]
    watch.process = Conversation([*rows, ".", *rows, "."])
    for _look in range(2):
        watch.look()
        world.clock += 1
    assert watch.held({"public.items"}) == [Held("public.items", "AccessExclusiveLock", 1, "A")]
