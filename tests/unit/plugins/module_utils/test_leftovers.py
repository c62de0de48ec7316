# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kill or a power cut leaves in the middle of something, and how the next run makes it good."""

from __future__ import annotations

import os
import pathlib
import shutil
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, pruning, step_stage
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.layout import ARRIVING
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

from .engine_fakes import document, make, place

DAY = 86400


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app on real files whose release r0 is live, and which keeps no other."""
    place(tmp_path, monkeypatch)
    monkeypatch.setattr(pruning, "DOCUMENTS", str(tmp_path / "documents"))
    (tmp_path / "documents").mkdir()
    app = App("shop", World(), document(str(tmp_path / "home"), keep_releases=1))
    for number in (0, 1):
        for path in (app.layout.release(f"r{number}"), app.layout.build(f"t{number}")):
            os.makedirs(path)
        app.journal.mark(f"r{number}", "staged", tree=f"t{number}", source=f"s{number}")
    app.journal.go_live("r0", "blue", "t0")
    return app


def left(path, *, age=0):
    """Let a file lie there that was written a while ago."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_a_prune_that_died_before_the_journal_knew_is_finished_by_the_next(shop):
    shutil.rmtree(shop.layout.release("r1"))
    engine.prune(shop)
    assert set(shop.journal.data["releases"]) == {"r0"} and engine.prune(shop) == []


def test_a_source_that_another_run_sends_just_now_is_left_alone(shop):
    """Two deploys at once: the one that lost is still sending, and learns of the other when it asks for its own step."""
    arriving, dead = (left(f"{shop.layout.incoming}/{ARRIVING}{name}", age=age) for name, age in (("1a2b3c4d", 0), ("4d3c2b1a", DAY)))
    whole = left(f"{shop.layout.incoming}/s7.tar")
    assert set(engine.prune(shop)) >= {dead, whole} and os.listdir(shop.layout.incoming) == [os.path.basename(arriving)]


def test_a_build_that_was_cut_off_is_cleared_away(shop):
    left(f"{shop.layout.work('t9')}/package.json")
    engine.prune(shop)
    assert os.listdir(f"{shop.layout.home}/work") == []


def test_what_a_write_left_goes_as_soon_as_nobody_can_be_at_it(shop):
    places = (shop.layout.state, shop.layout.pm2_home, f"{shop.layout.release('r0')}/run")
    old = [left(f"{path}/.journal.json.ab_d3f9h", age=DAY) for path in places]
    old += [left(f"{pruning.DOCUMENTS}/.shop.json.ab_d3f9h", age=DAY), left(f"{shop.layout.pm2_home}/starting.json", age=DAY)]
    kept = [left(f"{pruning.DOCUMENTS}/.blog.json.ab_d3f9h", age=DAY), left(f"{shop.layout.state}/.step.json.ab_d3f9h")]
    kept += [left(f"{shop.layout.pm2_home}/live.json", age=DAY), left(f"{shop.layout.pm2_home}/.pm2.json", age=DAY)]
    assert set(old) <= set(engine.prune(shop))
    assert not any(map(os.path.exists, old)) and all(map(os.path.exists, kept))


def test_what_is_older_than_this_boot_needs_no_other_age(shop, monkeypatch):
    old = left(f"{shop.layout.state}/.step.json.ab_d3f9h", age=60)
    assert old not in engine.prune(shop, check=True)
    monkeypatch.setattr(World, "monotonic", lambda self: 30.0)
    assert old in engine.prune(shop, check=True)


def test_a_dump_that_was_cut_off_is_removed_and_one_of_a_lost_journal_is_not(shop):
    restore = shop.layout.restore_points
    known = left(f"{restore}/29990101T000000Z-r0.dump")
    shop.journal.add_restore_point({"path": known, "release": "r0"})
    part, forgotten = left(f"{restore}/29990102T000000Z-r0.dump.part"), left(f"{restore}/29990102T000000Z-r0.dump")
    kept = [left(f"{restore}/20200101T000000Z-r0.dump"), left(f"{restore}/29990102T000000Z-r7.dump"), known]
    assert {part, forgotten} <= set(engine.prune(shop))
    assert sorted(os.listdir(restore)) == sorted(map(os.path.basename, kept))


def test_a_migration_that_died_right_after_its_mark_is_settled_by_the_next_run(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    app.journal.add_restore_point({"path": "/x.dump", "release": "r1", "pending": True})
    world.files[app.layout.catalog] = "{}"
    world.marks.add("r1")
    assert migrate(app, log, release="r1") is False
    assert app.journal.restore_points() == [{"path": "/x.dump", "release": "r1", "pending": False, "migrated": "r1"}]
    assert app.layout.catalog not in world.files, "the next migration would be charged with what this one did"


def test_a_migration_that_is_known_already_settles_nothing_of_another(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path)
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    app.journal.mark("r1", "migrated")
    world.marks.add("r1")
    world.files[app.layout.catalog] = "{}"
    migrate(app, Log(lambda line: None), release="r1")
    assert app.layout.catalog in world.files, "a failed attempt of a later release left it, and its tables with it"


def test_a_new_directory_is_on_the_disk_before_anything_in_it_is_believed(tmp_path, monkeypatch):
    """The journal would otherwise name a dump whose directory a power cut has taken."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    World().make_directory(str(tmp_path / "restore"), mode=0o700)
    World().make_directory(str(tmp_path / "restore"), mode=0o700)
    assert synced == [os.stat(tmp_path).st_ino]


@pytest.fixture
def rebuilt(shop, monkeypatch):
    """An app whose release r0 is laid out on its tree t0, and for which a tree t2 was built since, as after an upgrade of Node."""
    for tree in ("t0", "t2"):
        os.makedirs(shop.layout.build(tree), exist_ok=True)
        pathlib.Path(shop.layout.build(tree), step_stage.MANIFEST).write_text("{}")
    monkeypatch.setattr(step_stage, "sync_tree", lambda app, path: None)
    step_stage._lay_out(shop, "t0", "r0")
    return shop


def stage(app, tree):
    return step_stage.stage(app, Log(lambda line: None), source_id="s0", tree=tree, release="r0")


def running_from(app):
    return os.path.realpath(f"{app.layout.release('r0')}/app")


@pytest.mark.skipif(os.geteuid() != 0, reason="a release belongs to root")
def test_a_tree_that_was_built_and_not_laid_out_is_not_taken_for_staged(rebuilt):
    """A step that died in between would otherwise leave every later run with nothing to do and something missing."""
    assert stage(rebuilt, "t0") is False
    assert stage(rebuilt, "t2") is True and running_from(rebuilt) == rebuilt.layout.build("t2")
    assert rebuilt.journal.release("r0")["tree"] == "t2" and stage(rebuilt, "t2") is False


@pytest.mark.skipif(os.geteuid() != 0, reason="a release belongs to root")
@pytest.mark.parametrize("able", [True, False], ids=["exchange", "two-renames"])
def test_what_is_live_is_laid_out_anew_without_being_away(rebuilt, monkeypatch, able):
    seen, release = [], rebuilt.layout.release("r0")
    rename = os.rename

    def watched(*paths):
        rename(*paths)
        seen.append(os.path.isdir(release))

    monkeypatch.setattr(os, "rename", watched)
    if not able:
        monkeypatch.setattr(World, "exchange", lambda self, one, other: False)
    stage(rebuilt, "t2")
    assert running_from(rebuilt) == rebuilt.layout.build("t2") and os.listdir(os.path.dirname(release)).count("r0") == 1
    assert [name for name in os.listdir(os.path.dirname(release)) if name.startswith("r0.")] == []
    assert seen == ([] if able else [False, True]), "only a file system that cannot do better leaves a gap"


def test_two_directories_change_their_names_at_once(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / name).mkdir(parents=True)
    assert World().exchange(str(tmp_path / "one"), str(tmp_path / "other")) is True
    assert os.listdir(tmp_path / "one") == ["other"] and os.listdir(tmp_path / "other") == ["one"]
    with pytest.raises(FileNotFoundError):
        World().exchange(str(tmp_path / "one"), str(tmp_path / "missing"))
