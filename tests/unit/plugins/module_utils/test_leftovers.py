# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kill or a power cut leaves in the middle of something, and how the next run makes it good."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import time
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.plugins.modules import release_step

from .engine_fakes import document, make, place

DAY = 86400


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An app on real files whose release r0 is live, and which keeps no other."""
    place(tmp_path, monkeypatch)
    monkeypatch.setattr(engine, "DOCUMENTS", str(tmp_path / "documents"))
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


def test_a_sent_archive_is_on_the_disk_before_it_gets_its_name(shop, tmp_path, monkeypatch):
    """A power cut would otherwise leave an empty one, which every later run believes to be there."""
    sent, target, synced = tmp_path / "source.tar", shop.layout.source("s9"), []
    sent.write_bytes(b"tar")
    fsync, inode = os.fsync, sent.stat().st_ino

    def watched(handle):
        synced.append((os.fstat(handle).st_ino, os.path.exists(target)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(release_step.engine, "start", lambda app, step, wish: {"log": "x"})
    monkeypatch.setattr(release_step.engine, "follow", lambda app, **options: {})
    params = {"apps": ["shop"], "documents": [json.dumps(shop.document)], "wish": {"source": "s9"}, "incoming": str(sent), "step": "stage", "wait_seconds": 1}
    release_step.OPERATIONS["start"](types.SimpleNamespace(params=params, atomic_move=os.rename))
    assert synced == [(inode, False), (os.stat(shop.layout.incoming).st_ino, True)]
    assert os.listdir(shop.layout.incoming) == ["s9.tar"]
