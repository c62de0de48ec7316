# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore points that really restore, and the way back to an earlier release: at once, proven, and refused where the tables stand in the way."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import time

from .conftest import ROOT, RUNTIME, Visitor

NUMBERS = itertools.count(100)


def migration(sql):
    """Return a migration that no release had before."""
    return [{"id": f"Migration{next(NUMBERS)}x{time.time_ns()}", "sql": sql}]


def documented_restore():
    """Return the commands that the operations guide gives for the way back of the data."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    marker = "The third way back in containers," if RUNTIME == "compose" else "For the third,"
    lines = text.partition(marker)[2].partition("```console\n")[2].partition("```")[0].splitlines()
    assert len(lines) == (6 if RUNTIME == "compose" else 3), lines
    return lines


def restore_points(shop):
    """Return the restore points that the journal knows."""
    return shop.host.journal().get("restore_points", [])


def test_back_to_the_release_before_and_forward_again_without_a_failed_request(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", migrations=migration("ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS note text"))
    shop.apps.deploy()
    newer = shop.host.serving()
    said = shop.host.shell("anchorage rollback alpha --plan --json")
    assert json.loads(said)["release"] == before.live
    with Visitor(shop.host) as visitor:
        started = time.monotonic()
        said = shop.host.shell("anchorage rollback alpha")
        seconds = time.monotonic() - started
    visitor.check()
    back = shop.host.serving()
    back.check()
    assert (back.live, back.slot) == (before.live, before.slot) and seconds < 30
    assert f"release {before.live} is live in slot" in said

    # By the playbook, to a release by name; a wrong name is refused with those there are.
    ended = shop.apps.run("rollback", "-e", "app=alpha", "-e", "release=0123456789ab", rc=None)
    assert "Release 0123456789ab of alpha is not on this host" in ended.output and newer.live in ended.output
    assert shop.host.serving() == back
    with Visitor(shop.host) as visitor:
        shop.apps.run("rollback", "-e", "app=alpha", "-e", f"release={newer.live}")
    visitor.check()
    forward = shop.host.serving()
    forward.check()
    assert forward.live == newer.live and shop.host.runs(newer.live) == 1
    assert shop.apps.deploy().changed == 0, "it is what the contract asks for"


def test_a_migration_that_takes_away_has_a_restore_point_that_restores_and_the_way_back_is_refused(shop):
    shop.apps.app("alpha", migrations=migration("ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS price integer DEFAULT 7"))
    shop.apps.deploy()
    before = shop.host.serving()
    shop.host.sql("INSERT INTO stub_items (name, price) SELECT 'item ' || n, n FROM generate_series(1, 500) AS n")
    wanted = shop.host.sql("SELECT count(*), sum(price), md5(string_agg(name || coalesce(price, 0), ',' ORDER BY id)) FROM stub_items")

    shop.apps.app("alpha", migrations=migration("ALTER TABLE stub_items DROP COLUMN price"))
    said = shop.apps.deploy().output
    assert "what it did to the tables: contract" in said and "column public.stub_items.price is gone" in said
    after = shop.host.serving()
    (point,) = [entry for entry in restore_points(shop) if entry["release"] == after.live]
    assert point["before"] == before.live and point["path"] in said

    # The dump restores into a database of its own, whole.
    owner = "docker exec -i -u postgres alpha-base-postgres-1" if RUNTIME == "compose" else "cd / && runuser -u postgres --"
    shop.host.shell(f"{owner} createdb restored && {owner} pg_restore --no-owner --exit-on-error --dbname=restored < {point['path']}")
    query = "SELECT count(*), sum(price), md5(string_agg(name || coalesce(price, 0), ',' ORDER BY id)) FROM stub_items"
    assert shop.host.shell(f"{owner} psql -XAtq restored", given=query).strip() == wanted
    assert shop.host.shell(f"stat -c '%a %U' {point['path']}").strip() == "600 root"
    shop.host.shell(f"{owner} dropdb restored")

    # Back: refused, with three ways, of which the data's says what it costs.
    refused = shop.host.shell("anchorage rollback alpha || echo code $?")
    assert "cannot be trusted with the tables as they are" in refused and "code 1" in refused
    assert "(1) code only" in refused and "(2) a migration that undoes it" in refused and f"(3) the data back to {point['path']}, which loses" in refused
    assert shop.host.serving() == after
    shop.host.shell(f"anchorage rollback alpha --to {before.live} --code-only")
    shop.host.serving().check()
    assert shop.host.serving().live == before.live
    shop.apps.deploy()

    # The third way, as docs/operations.md has it word for word.
    words = {"shop": "alpha", "FILE.dump": pathlib.PurePath(point["path"]).name, "RELEASE": before.live, "MIGRATED": after.live}
    for line in documented_restore():
        shop.host.shell(f"cd / && {re.sub('|'.join(words), lambda found: words[found.group()], line)}")
    back = shop.host.serving()
    back.check()
    assert back.live == before.live and shop.host.sql(query) == wanted
    assert shop.host.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'anchorage')") == "alpha"
    shop.host.shell(f"{owner} dropdb alpha_before" if RUNTIME == "compose" else "anchorage restore --drop-aside")


def test_a_release_that_changes_nothing_the_schema_is_made_from_takes_no_restore_point(shop):
    shop.apps.app("alpha")
    shop.apps.apps["alpha"]["migrate"] = {**shop.apps.apps["alpha"]["migrate"], "files": ["migrate.js"]}
    shop.apps.write()
    shop.apps.deploy()
    known = restore_points(shop)
    shop.apps.app("alpha")
    shop.apps.apps["alpha"]["migrate"] = {**shop.apps.apps["alpha"]["migrate"], "files": ["migrate.js"]}
    shop.apps.write()
    said = shop.apps.deploy().output
    assert "no restore point, since nothing that makes the schema has changed" in said
    assert restore_points(shop) == known


def test_without_room_for_a_restore_point_nothing_is_migrated(shop):
    before = shop.host.serving()
    place = "/var/lib/anchorage/alpha/restore"
    shop.host.shell(f"mkdir -p {place} && mount -t tmpfs -o size=64k,mode=0700 tmpfs {place}")
    try:
        shop.apps.app("alpha", migrations=migration("ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS weight integer"))
        said = shop.apps.deploy(rc=None).output
    finally:
        shop.host.shell(f"umount {place}")
    assert "There is no restore point, so alpha is not migrated: it needs" in said
    assert shop.host.serving() == before
    shop.apps.deploy()
    shop.host.serving().check()
    assert shop.host.serving().live != before.live


def test_a_failed_migration_says_what_it_left_of_the_tables(shop):
    before = shop.host.serving()
    good, bad = migration("ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS colour text"), migration("ALTER TABLE no_such_table ADD COLUMN x text")
    shop.apps.app("alpha", migrations=[*good, *bad])
    said = shop.apps.deploy(rc=None).output
    assert "It left changed tables (expand): column public.stub_items.colour is new" in said
    assert shop.host.serving() == before
    shop.apps.app("alpha", migrations=good)
    shop.apps.deploy()
    shop.host.serving().check()
