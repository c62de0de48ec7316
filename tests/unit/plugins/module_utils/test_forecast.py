# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import forecast
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate

from .engine_fakes import document, make, place

OLD = {"dist/migrations/1.sql": "CREATE TABLE orders (id text)"}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An app whose r0 is live and migrated; give it the migrations of r1."""
    place(tmp_path, monkeypatch)

    def start(new, *, allow=(), marks=("r0",), sizes=(("public.orders", 1 << 30),), rehearsal=False):
        changes = {"files": ["migrations/*"], "allow": list(allow), "rehearsal": {"enabled": rehearsal, "url": None, "max_lock_seconds": 2}}
        wanted = document(str(tmp_path / "home"))
        app, world, log = make(tmp_path, build={**wanted["build"], "output": "dist"}, migrate={**wanted["migrate"], **changes})
        for number, files in enumerate((OLD, {**OLD, **new})):
            app.journal.mark(f"r{number}", "staged", tree=f"t{number}", source="s")
            tree = app.layout.build(f"t{number}")
            world.files[f"{tree}/.anchorage.json"] = json.dumps({"files": files, "dependencies": "d"})
            world.files[f"{app.layout.release(f'r{number}')}/release.json"] = "{}"
            world.files.update({f"{tree}/{path}": text for path, text in files.items()})
        app.journal.go_live("r0", "blue", "t0")
        world.marks.update(marks)
        world.answers["pg_total_relation_size"] = json.dumps([{"name": name, "bytes": size} for name, size in sizes])
        return app, world, log

    return start


def test_additions_pass_and_are_told(host):
    app, world, log = host({"dist/migrations/2.sql": "ALTER TABLE orders ADD note text; CREATE TABLE a (id text);"})
    assert migrate(app, log, release="r1") is True
    assert "shop: pending: migrations/2.sql (2 statements)" in log.tail


def test_what_takes_away_stops_before_the_database_is_touched(host):
    app, world, log = host({"dist/migrations/2.sql": "ALTER TABLE orders DROP COLUMN note"})
    with pytest.raises(AnchorageError, match=r"serves meanwhile may need \(contract\), so it was not run: migrations/2.sql: ALTER TABLE orders DROP") as error:
        migrate(app, log, release="r1")
    assert error.value.what == "gate (verdict)" and error.value.live == "shop release r0 in slot blue"
    assert "set apps.shop.migrate.allow: [contract]" in error.value.next_step
    assert "dump" not in world.events and "run" not in world.events and world.marks == {"r0"}


def test_what_locks_a_large_table_stops_too_and_a_small_one_passes(host):
    new = {"dist/migrations/2.sql": "CREATE INDEX i ON orders (note)"}
    app, world, log = host(new)
    with pytest.raises(AnchorageError, match=r"would keep a large table locked while the site serves \(lock-heavy\)") as error:
        migrate(app, log, release="r1")
    assert "migrate.allow: [lock_heavy]" in error.value.next_step


def test_an_index_of_a_small_table_passes(host):
    app, world, log = host({"dist/migrations/2.sql": "CREATE INDEX i ON orders (note)"}, sizes=[("public.orders", 1 << 20)])
    assert migrate(app, log, release="r1") is True


@pytest.mark.parametrize(("allow", "sql"), [("contract", "DROP TABLE orders"), ("lock_heavy", "CREATE INDEX i ON orders (note)")])
def test_the_contract_may_allow_it(host, allow, sql):
    app, world, log = host({"dist/migrations/2.sql": sql}, allow=[allow])
    assert migrate(app, log, release="r1") is True


def test_one_permission_is_not_the_other(host):
    app, world, log = host({"dist/migrations/2.sql": "DROP TABLE orders"}, allow=["lock_heavy"])
    with pytest.raises(AnchorageError, match="contract"):
        migrate(app, log, release="r1")


def test_the_first_migration_of_a_database_is_not_judged(host):
    app, world, log = host({"dist/migrations/2.sql": "DROP TABLE orders"}, marks=())
    assert migrate(app, log, release="r1") is True


def test_what_the_database_has_seen_already_is_not_judged_again(host):
    app, world, log = host({"dist/migrations/2.sql": "DROP TABLE orders"})
    app.journal.mark("r2", "staged", tree="t1", source="s")
    world.files[f"{app.layout.release('r2')}/release.json"] = "{}"
    world.marks.add("r2")
    assert migrate(app, log, release="r1") is True


def test_what_a_failed_attempt_made_does_not_stop_the_next(host):
    sql = "CREATE TABLE IF NOT EXISTS brand (id text); CREATE UNIQUE INDEX i ON brand (id);"
    app, world, log = host({"dist/migrations/2.sql": sql}, sizes=[("public.orders", 1), ("public.brand", 1)])
    with pytest.raises(AnchorageError, match="unique index"):
        migrate(app, log, release="r1")
    world.files[app.layout.catalog] = json.dumps({"columns": {"public.orders": {}}, "rules": [], "unique": [], "labels": []})
    assert migrate(app, log, release="r1") is True


def test_without_any_release_to_compare_with_nothing_is_judged_and_that_is_said(host):
    app, world, log = host({"dist/migrations/2.sql": "DROP TABLE orders"}, marks=("r9",))
    assert migrate(app, log, release="r1") is True
    assert "shop: pending migrations are not judged, since no release that the database was migrated to lies on this host" in log.tail


def test_files_that_the_contract_does_not_name_are_not_read(host):
    app, world, log = host({"dist/other/2.sql": "DROP TABLE orders"})
    assert forecast.of_release(app, "r1") == {"migrations/1.sql": ["CREATE TABLE orders (id text)"]}
