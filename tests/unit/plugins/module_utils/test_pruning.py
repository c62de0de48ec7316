# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may go from a host, on a real file system."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import pruning
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.room import MANIFEST, MIB
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

from .engine_fakes import document, place

STAGED = pruning.Wanted("r9", "t9", "s9")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Releases r0 to r5 with 1 MiB of tree and 1 MiB of dependencies each; r4 was live before r5."""
    place(tmp_path, monkeypatch)

    def start(**changes):
        app = App("shop", World(), document(str(tmp_path / "home"), **changes))
        for number in range(6):
            release, tree, key = f"r{number}", f"t{number}", f"d{number}"
            for path in (app.layout.release(release), app.layout.build(tree), f"{app.layout.dependencies(key)}/full", app.layout.incoming):
                os.makedirs(path, exist_ok=True)
            pathlib.Path(app.layout.build(tree), MANIFEST).write_text(json.dumps({"dependencies": key}))
            for path in (app.layout.build(tree), app.layout.dependencies(key)):
                pathlib.Path(path, "big").write_bytes(b"x" * MIB)
            pathlib.Path(app.layout.source(f"s{number}")).write_text("tar")
            app.journal.mark(release, "staged", tree=tree, source=f"s{number}")
        app.journal.go_live("r4", "blue", "t4")
        app.journal.go_live("r5", "green", "t5")
        return app

    return start


def kept(app):
    return sorted(app.journal.data["releases"])


@pytest.mark.parametrize(
    ("limit", "rest"),
    [
        (None, ["r0", "r1", "r2", "r3", "r4", "r5"]),
        (9, ["r0", "r1", "r2", "r3", "r4", "r5"]),
        (5, ["r2", "r3", "r4", "r5"]),
        (3, ["r3", "r4", "r5"]),
        (0, ["r4", "r5"]),
    ],
)
def test_the_oldest_go_beyond_the_bytes_to_keep(shop, limit, rest):
    app = shop(keep_releases=50, keep_mb=limit)
    planned = pruning.sweep(app, check=True)
    assert len(kept(app)) == 6 and all(os.path.exists(path) for path in planned)
    assert pruning.sweep(app) == planned
    assert kept(app) == rest == sorted(os.listdir(f"{app.layout.home}/releases"))
    assert sorted(os.listdir(f"{app.layout.home}/deps")) == [name.replace("r", "d") for name in rest]
    assert pruning.sweep(app) == []


def test_what_the_live_release_stands_on_is_nobody_elses_bytes(shop):
    app = shop(keep_releases=50, keep_mb=1)
    for number in range(4):
        app.journal.data["releases"][f"r{number}"]["tree"] = "t5"
    pruning.sweep(app)
    assert len(kept(app)) == 6


def test_what_is_being_staged_stays(shop):
    app = shop(keep_releases=2, keep_mb=0)
    for path in (app.layout.release("r9"), app.layout.build("t9")):
        os.makedirs(path)
    for path in (app.layout.source("s9"), app.layout.wish("r9")):
        pathlib.Path(path).write_text("x")
    pruning.sweep(app, STAGED)
    assert kept(app) == ["r4", "r5"]
    assert sorted(os.listdir(f"{app.layout.home}/releases")) == ["r4", "r5", "r9"] and sorted(os.listdir(f"{app.layout.home}/builds")) == ["t4", "t5", "t9"]
    assert sorted(os.listdir(app.layout.incoming)) == ["s4.tar", "s5.tar", "s9.tar"] and os.path.exists(app.layout.wish("r9"))


def test_an_image_that_the_controller_sent_stays_until_it_is_loaded(shop):
    app = shop()
    sent = [pathlib.Path(app.layout.image(tree)) for tree in ("t9", "t8")]
    for path in sent:
        path.write_text("x")
    pruning.sweep(app, STAGED)
    assert [path.exists() for path in sent] == [True, False]
    assert str(sent[0]) in pruning.sweep(app) and not sent[0].exists(), "a run that died before it"


def test_a_release_that_is_staged_again_stays_although_it_is_the_oldest(shop):
    app = shop(keep_releases=2, keep_mb=0)
    pruning.sweep(app, pruning.Wanted("r0", "t0", "s0"))
    assert kept(app) == ["r0", "r4", "r5"]


def test_the_one_that_is_staged_counts_only_where_room_is_short(shop):
    app = shop(keep_releases=4)
    pruning.sweep(app, STAGED)
    assert kept(app) == ["r2", "r3", "r4", "r5"], "what a failed deploy would be missed for stays"
    pruning.sweep(app, STAGED, counting=True)
    assert kept(app) == ["r3", "r4", "r5"]


def test_what_a_switch_goes_back_to_stays(shop):
    app = shop(keep_releases=2)
    app.journal.begin_switch("r0", "blue", from_release="r1", from_slot="green")
    pruning.sweep(app)
    assert {"r0", "r1"} <= set(kept(app))


def test_what_killed_steps_left_goes(shop):
    app = shop(keep_releases=50)
    left = [f"{app.layout.home}/{name}" for name in ("builds/t7.new", "deps/d7.new", "releases/r7.new", "work/t7", "incoming/s7.tar.part")]
    for path in left:
        os.makedirs(path)
    dump = pathlib.Path(app.layout.restore_points, "x.dump.part")
    dump.parent.mkdir(parents=True)
    dump.write_text("half")
    (dump.parent / "x.dump").write_text("whole")
    assert sorted(pruning.sweep(app)) == sorted([*left, str(dump)])
    assert os.listdir(dump.parent) == ["x.dump"]


def test_a_failed_attempt_takes_its_parts_along(shop):
    app = shop()
    for name in ("builds/t7.new", "deps/d7.new", "releases/r7.new", "work/t7", "work/t8"):
        os.makedirs(f"{app.layout.home}/{name}")
    pruning.remove_partial(app, "t7")
    assert os.listdir(f"{app.layout.home}/work") == ["t8"] and len(os.listdir(f"{app.layout.home}/builds")) == 6
