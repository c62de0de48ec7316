# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on a disk, with /dev/full as the disk that is."""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import tarfile

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, room
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.room import MIB, Amount, Full
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

from .engine_fakes import document, make, place


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An app on a real file system."""
    place(tmp_path, monkeypatch)
    return App("shop", World(), document(str(tmp_path / "home")))


def fill():
    """Write to a disk that is full."""
    with open("/dev/full", "w", encoding="utf-8") as stream:
        stream.write("x")


@pytest.mark.parametrize(
    ("have", "need", "enough"),
    [
        (Amount(10, 10), Amount(10, 10), True),
        (Amount(9, 10), Amount(10, 10), False),
        (Amount(10, 9), Amount(10, 10), False),
        (Amount(10, None), Amount(10, 10), True),
    ],
    ids=["just", "bytes", "inodes", "inodes-do-not-count"],
)
def test_bytes_and_inodes_are_both_asked_for(have, need, enough):
    assert have.holds(need) is enough


def test_an_error_that_was_made_from_itself_is_looked_at_once():
    error = AnchorageError("It failed.")
    error.__cause__ = error
    assert room.is_full(error) is False


@pytest.mark.parametrize("have", [Amount(MIB, 10_000), Amount(1 << 40, 3)], ids=["bytes", "inodes"])
def test_what_has_too_little_room_is_refused_with_path_need_and_supply(tmp_path, monkeypatch, have):
    monkeypatch.setattr(room, "supply", lambda path: have)
    with pytest.raises(Full, match=f"Staging needs 100 MiB and 500 inodes in {tmp_path}, and {have} are free") as error:
        room.require(str(tmp_path), Amount(100 * MIB, 500), "Staging")
    assert f"df -i {tmp_path}" in error.value.next_step and "run deploy.yml again" in error.value.next_step


def test_what_has_room_is_not_refused(tmp_path):
    room.require(str(tmp_path / "not" / "there" / "yet"), Amount(4096, 1), "Staging")


def test_a_full_disk_becomes_an_error_that_names_the_file_system(tmp_path):
    with pytest.raises(Full, match=f"The file system .* is full .* left for {tmp_path}.*No space left on device") as error, room.guarded(str(tmp_path)):
        fill()
    assert "Make room" in error.value.next_step


def test_a_command_that_found_the_disk_full_says_so_too(tmp_path):
    with pytest.raises(Full, match="'npm ci' failed with code 228"), room.guarded(str(tmp_path)):
        raise AnchorageError("'npm ci' failed with code 228.", output=["npm error code ENOSPC"])
    with pytest.raises(AnchorageError) as error, room.guarded(str(tmp_path)):
        raise AnchorageError("'npm ci' failed with code 1.", output=["npm error code ENOENT"])
    assert not isinstance(error.value, Full)


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), room.guarded(str(tmp_path)):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert "Input/output error" in room.named(OSError(errno.EIO, "Input/output error"), str(tmp_path)).message


def test_the_file_system_with_the_least_left_is_named(monkeypatch):
    left = {"/a": Amount(1 << 30, 1 << 20), "/b": Amount(1 << 30, 0), "/c": Amount(1 << 20, None)}
    monkeypatch.setattr(room, "supply", left.__getitem__)
    assert room.fullest(["/a", "/b", "/c"]) == "/b" and room.fullest(["/a", "/c"]) == "/c"


def test_linked_files_are_measured_once(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    once = room.measure(str(tmp_path))
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to("/")
    twice = room.measure(str(tmp_path), str(tmp_path / "b"), "/does/not/exist")
    assert 100_000 <= once.bytes == twice.bytes < 120_000 and (once.inodes, twice.inodes) == (2, 3)


def archive(app, files, source="s1"):
    os.makedirs(app.layout.incoming, exist_ok=True)
    with tarfile.open(app.layout.source(source), "w:gz") as bundle:
        for name, size in files.items():
            info = tarfile.TarInfo(name)
            info.size = size
            bundle.addfile(info, io.BytesIO(b"\0" * size))


def test_an_archive_needs_what_it_takes_unpacked(home):
    archive(home, {"a": 50 * MIB, "b": 1})
    packed = os.stat(home.layout.source("s1")).st_size
    assert room.unpacked(home.layout.source("s1")) == (50 * MIB + 4096, 2) and packed < MIB
    pathlib.Path(home.layout.source("s2")).write_bytes(b"x" * 1000)
    assert room.unpacked(home.layout.source("s2")) == (4000, 0), "one that cannot be read is reported by whoever unpacks it"
    assert room.unpacked(home.layout.source("s3")) == (0, 0)


def test_a_build_needs_its_source_and_twice_what_lives(home):
    assert room.to_stage(home, "s1", built=True) == room.SPARE == room.to_stage(home, "s1", built=False)
    archive(home, {"a": MIB})
    assert room.to_stage(home, "s1", built=False).bytes == room.SPARE.bytes + MIB
    os.makedirs(home.layout.build("t0"))
    pathlib.Path(home.layout.build("t0"), "big").write_bytes(b"x" * MIB)
    home.journal.go_live("r0", "blue", "t0")
    need = room.to_stage(home, "s1", built=False)
    assert room.SPARE.bytes + 3 * MIB <= need.bytes < room.SPARE.bytes + 3 * MIB + 64 * 1024 and need.inodes == room.SPARE.inodes + 1 + 2 * 2


def test_dependencies_need_what_those_of_the_live_release_take_or_a_guess(home, tmp_path):
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": {"": {}, "a": {}, "b": {}}}))
    assert room.to_install(home, str(tmp_path)) == room.SPARE.plus(room.PACKAGE, times=3)
    assert room.to_install(home, "/nowhere") == room.SPARE
    for path in (home.layout.build("t0"), home.layout.dependencies("d0")):
        os.makedirs(path)
    pathlib.Path(home.layout.build("t0"), room.MANIFEST).write_text(json.dumps({"dependencies": "d0"}))
    pathlib.Path(home.layout.dependencies("d0"), "big").write_bytes(b"x" * 5 * MIB)
    home.journal.go_live("r0", "blue", "t0")
    assert 5 * MIB <= room.to_install(home, str(tmp_path)).bytes - room.SPARE.bytes < 6 * MIB


def test_a_log_that_cannot_be_written_stops_nothing():
    room.tolerant(lambda text: fill())("a line")


def test_a_reserve_is_kept_once_and_given_up(home, monkeypatch):
    reserve = room.Reserve(home)
    reserve.keep()
    number, size = room.RESERVE
    taken = room.measure(reserve.directory)
    assert taken.bytes >= number * size and taken.inodes == number + 1
    reserve.keep()
    reserve.give_up()
    assert not os.path.exists(reserve.directory)
    reserve.keep()
    os.unlink(f"{reserve.directory}/0")
    reserve.keep()
    assert len(os.listdir(reserve.directory)) == number, "a power cut may have left fewer"
    reserve.give_up()
    monkeypatch.setattr(os, "posix_fallocate", lambda *arguments: fill())
    with pytest.raises(Full):
        reserve.keep()
    assert os.listdir(home.layout.state) == [], "half a reserve is none"


# -- a step


WISH = {"release": "r1", "tree": "t1", "source": "s1", "owner": "me", "log": None}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    return make(tmp_path)


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded", "/srv/shop")])
def test_no_step_calls_a_full_disk_a_fault_of_the_engine(shop, monkeypatch, problem):
    app, _world, _log = shop

    def broken(*arguments, **options):
        raise problem

    monkeypatch.setattr(engine, "stage", broken)
    app.journal.go_live("r0", "blue", "t0")
    ended = engine.run_step(app, "stage", WISH, Log(lambda line: None))
    assert ended["ok"] is False and "The engine itself" not in ended["text"]
    for word in ("The file system /", "is full", "Broke: step stage of shop", "Live now: shop release r0 in slot blue", "Next: Make room in /"):
        assert word in ended["text"], ended["text"]
    assert not os.path.exists(room.Reserve(app).directory), "it was given up so that this can be written down"


def test_a_fault_of_the_engine_is_still_called_one(shop, monkeypatch):
    app, _world, _log = shop
    monkeypatch.setattr(engine, "stage", lambda *arguments, **options: {}["x"])
    ended = engine.run_step(app, "stage", WISH, Log(lambda line: None))
    assert "The engine itself failed in step stage of shop: KeyError: 'x'. Live now: shop has no live release" in ended["text"]


def test_a_step_does_not_begin_where_its_end_could_not_be_written_down(shop, monkeypatch):
    app, _world, _log = shop
    monkeypatch.setattr(room, "supply", lambda path: Amount(MIB, 50))
    ended = engine.run_step(app, "stage", WISH, Log(lambda line: None))
    assert "A step needs 4.0 MiB and 100 inodes in" in ended["text"] and "1.0 MiB and 50 inodes are free" in ended["text"]


def test_a_failed_activation_ends_and_says_so(shop, monkeypatch):
    app, world, _log = shop
    tree, release = app.wanted("s1")
    app.journal.mark(release, "staged", tree=tree, source="s1")
    world.marks.add(release)

    def broken(*arguments, **options):
        raise AnchorageError("It does not listen.", what="proof of shop-server-blue")

    monkeypatch.setattr("ansible_collections.anchorage.vps.plugins.module_utils.slots.Slots.start", broken)
    ended = engine.run_step(app, "activate", {**WISH, "release": release, "tree": tree}, Log(lambda line: None))
    assert ended["ok"] is False and ended["text"].startswith("It does not listen. Broke: proof of shop-server-blue. Live now: shop has no live release")
