# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import preview as module
from ansible_collections.anchorage.vps.plugins.module_utils import room
from ansible_collections.anchorage.vps.plugins.module_utils.preview import lines, preview
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import PASSWORD, document, make, place

PLAN = {"app": "shop", "release": "r2", "tree": "t2", "source": "c2" * 20, "source_needed": True, "live": "r1", "slot": "blue"}
STEPS = ["stage", "migrate", "activate"]


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An app whose r1 is live and migrated."""
    place(tmp_path, monkeypatch)
    monkeypatch.setattr(room, "supply", lambda path: room.Amount(10 << 30, 1_000_000))

    def start(**changes):
        options = {**document(str(tmp_path / "home"))["migrate"], "files": ["migrations/*"], **changes.pop("migrate", {})}
        app, world, _log = make(tmp_path, migrate=options, soak={"seconds": 30}, **changes)
        app.journal.mark("r1", "staged", tree="t1", source="c1" * 20, version="v1")
        app.journal.go_live("r1", "blue", "t1")
        tree = app.layout.build("t1")
        world.files[f"{tree}/.anchorage.json"] = json.dumps({"files": {"migrations/1.sql": "x"}, "dependencies": None})
        world.files[f"{tree}/migrations/1.sql"] = "CREATE TABLE orders (id text)"
        world.files[f"{app.layout.release('r1')}/release.json"] = "{}"
        world.files[app.layout.document("r1")] = json.dumps({**app.document, "env": {"A": "1", "GONE": "x"}, "secrets_env": {"JWT_SECRET": "old" * 20}})
        world.files["/proc/meminfo"] = "MemTotal: 4000000 kB\nMemAvailable:    2097152 kB\n"
        world.marks.add("r1")
        world.answers["pg_total_relation_size"] = json.dumps([{"name": "public.orders", "bytes": 1}])
        world.answers["pg_database_size"] = str(100 << 20)
        return app, world

    return start


def text(app, given=None, **plan):
    return "\n".join(lines(preview(app, {**PLAN, "steps": STEPS, **plan}, given)))


def test_names_of_variables_are_told_and_no_value(host):
    app, _world = host()
    app.document["env"] = {"A": "2", "NEW": "y"}
    said = text(app, {})
    assert "environment: +NEW, -GONE, ~A, ~JWT_SECRET" in said
    assert PASSWORD not in said and "j" * 32 not in said and "old" not in said


def test_another_way_to_the_database_is_told(host):
    app, _world = host()
    app.document["database_pool_url"] = f"postgres://shop:{PASSWORD}@127.0.0.1:6432/shop"
    app.document["database"] = {**(app.document.get("database") or {}), "read_url_env": "DATABASE_READ_URL"}
    said = text(app, {})
    assert "+DATABASE_READ_URL" in said and "~DATABASE_URL" in said and PASSWORD not in said


def test_code_slot_class_and_watch_are_told(host):
    app, _world = host()
    said = text(app, {})
    assert "shop: r1 -> r2 in slot green (stage, migrate, activate)" in said
    assert "code: c1c1c1c1c1c1 -> c2c2c2c2c2c2 (v1 -> /src/shop)" in said
    assert "expected: no gap" in said and "after 30 s of watching" in said
    assert "stops before its successor starts: worker" in said


def test_a_release_that_makes_visitors_wait_says_so(host):
    app, world = host(strategy="hold", hold_seconds=40)
    world.process(100, environ={"ANCHORAGE_RELEASE": "r1", "ANCHORAGE_PROCESS": "shop-server-blue"})
    world.files["/proc/100/status"] += "VmRSS:\t  102400 kB\n"
    said = text(app, {})
    assert (
        "expected: held: requests wait while the release before stops and this one starts (strategy: hold), for 40 s at most, then 30 s of watching\n" in said
    )
    assert "memory: needs 512 MiB, free 2148 MiB" in said, "both processes start anew, and what the old ones hold will be free"


def test_who_waits_for_no_release_does_not_wait(host):
    app, _world = host(strategy="hold", hold_seconds=40)
    assert "expected: no gap" in text(app, {}, steps=["migrate"])


def test_memory_that_is_enough_for_one_release_alone_names_the_way_out(host):
    app, world = host(hosts=["web1"], host="web1", proxy_address="127.0.0.1")
    world.files["/proc/meminfo"] = "MemAvailable:    102400 kB\n"
    assert "memory: needs 256 MiB, free 100 MiB NOT ENOUGH for two releases at once (strategy: hold)" in text(app, {})
    app.document["hosts"] = ["web1", "web2"]
    assert "free 100 MiB NOT ENOUGH\n" in text(app, {}), "there it would be refused"


def test_pending_migrations_are_judged_from_the_source(host):
    app, _world = host()
    said = text(app, {"migrations/1.sql": ["CREATE TABLE orders (id text)"], "migrations/2.sql": ["ALTER TABLE orders DROP COLUMN id"]})
    assert "1 of the project's own pending, contract (restore point)" in said
    assert "contract: migrations/2.sql: ALTER TABLE orders DROP COLUMN id (column id of public.orders is gone)" in said
    assert "STOPS: The migration of shop to release r2 would take away" in said


def test_what_the_contract_allows_does_not_stop(host):
    app, _world = host(migrate={"allow": ["contract"]})
    assert "STOPS" not in text(app, {"migrations/2.sql": ["DROP TABLE orders"]})


def test_a_tree_that_is_built_is_believed_before_the_source(host):
    app, world = host()
    tree = app.layout.build("t2")
    world.files[f"{tree}/.anchorage.json"] = json.dumps({"files": {"migrations/3.sql": "x"}, "dependencies": None})
    world.files[f"{tree}/migrations/3.sql"] = "CREATE TABLE a (id text)"
    assert "migrations/3.sql (1 statements)" in text(app, {"migrations/2.sql": ["DROP TABLE orders"]})


@pytest.mark.parametrize(
    ("change", "given", "why"),
    [
        (lambda app, world: setattr(world, "database_up", False), {"migrations/2.sql": ["SELECT 1"]}, "PostgreSQL refused"),
        (lambda app, world: app.document["migrate"].update(files=[]), {}, "migrate.files names no files"),
        (lambda app, world: None, None, "the source is not on this host yet"),
    ],
    ids=["database-down", "no-files", "not-here"],
)
def test_what_is_not_known_is_said(host, change, given, why):
    app, world = host()
    change(app, world)
    said = text(app, given)
    assert "migrations: not judged, since " in said and why in said


def test_the_migrations_of_a_commit_are_fetched_and_thrown_away(host, tmp_path, monkeypatch):
    app, world = host()
    monkeypatch.setattr(module.os, "makedirs", lambda path, exist_ok: None)
    monkeypatch.setattr(module.tempfile, "mkdtemp", lambda prefix, dir: str(tmp_path))
    monkeypatch.setattr(module.shutil, "rmtree", lambda path, ignore_errors: None)
    app.document["source"] = {"kind": "git", "repo": "https://git.example.com/shop.git", "version": "main", "subdir": "apps/shop"}

    def git(argv, call):
        if argv[1] == "ls-tree":
            return Completed(0, "README.md\0apps/shop/migrations/2.sql\0apps/shop/migrations/down.sql\0apps/other/migrations/9.sql\0", "")
        return Completed(0, "DROP TABLE orders;" if argv[1] == "show" else "", "")

    world._git = git
    assert "contract: migrations/2.sql: DROP TABLE orders" in text(app)
    fetched = [call["argv"] for call in world.ran if call["argv"][:2] == ["git", "fetch"]]
    assert {call["user"] for call in world.ran if call["argv"][0] == "git"} == {app.user}
    assert fetched[0][-2:] == ["https://git.example.com/shop.git", "main"]
    world._git = lambda argv, call: Completed(128, "", "fatal: could not read\n")
    assert "not judged, since git init of https://git.example.com/shop.git failed: fatal: could not read" in text(app)


def test_too_little_room_is_said(host, monkeypatch):
    app, world = host()
    monkeypatch.setattr(room, "supply", lambda path: room.Amount(1 << 20, 10))
    world.files["/proc/meminfo"] = "MemAvailable: 102400 kB\n"
    said = text(app, {})
    assert f"disk in {app.layout.home}: needs 16 MiB, free 1 MiB NOT ENOUGH" in said
    assert f"inodes in {app.layout.home}: needs 500, free 10 NOT ENOUGH" in said
    assert f"disk in {app.layout.restore_points}: needs 120 MiB, free 1 MiB NOT ENOUGH" in said
    assert "memory: needs 256 MiB, free 100 MiB NOT ENOUGH" in said


def test_nothing_to_do_and_the_first_release_are_told(host):
    app, _world = host()
    assert lines(preview(app, {**PLAN, "steps": [], "release": "r1"})) == ["shop: nothing to do; release r1 is live in slot blue"]
    app.journal.data.update(live=None, slot=None)
    said = text(app, {}, live=None, slot=None)
    assert "shop: nothing -> r2 in slot blue" in said and "the first release" in said and "stops before" not in said


def test_the_id_is_of_what_is_wanted_and_what_is(host, monkeypatch):
    app, _world = host()
    first = preview(app, {**PLAN, "steps": STEPS}, {})["id"]
    monkeypatch.setattr(room, "supply", lambda path: room.Amount(1 << 20, 10))
    assert preview(app, {**PLAN, "steps": STEPS}, {})["id"] == first, "free space is no part of it"
    assert preview(app, {**PLAN, "steps": STEPS, "live": "r0"}, {})["id"] != first
    assert preview(app, {**PLAN, "steps": STEPS}, {"migrations/2.sql": ["SELECT 1"]})["id"] != first
    app.document["secrets_env"] = {"JWT_SECRET": "k" * 32}
    assert preview(app, {**PLAN, "steps": STEPS}, {})["id"] != first, "the names that change are the same, a value is not"
