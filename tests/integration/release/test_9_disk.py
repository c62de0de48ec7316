# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full, of bytes and of inodes, before and in each phase of a release: the old one serves on, and there is no half of the new one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import pathlib
import tarfile
import time

import pytest

from .conftest import until
from .disk import Disk
from .fault import made_good, refused, runs_of

HOME, STATE = "/srv/alpha", "/var/lib/anchorage"


@pytest.fixture(scope="module")
def small(vps, tmp_path_factory):
    """The app's home and the engine's state on small file systems of their own."""
    directory = tmp_path_factory.mktemp("disks")
    disks = {
        "home": Disk(vps.host, HOME, directory / "home.img", mib=96, inodes=4096),
        "state": Disk(vps.host, STATE, directory / "state.img", mib=128, inodes=2048),
    }

    def restart():
        """Units have mounts of their own, made when they start."""
        vps.host.shell("systemctl restart pm2-alpha.service nginx.service")
        until(lambda: vps.host.state()["running"], "the live release")

    with contextlib.ExitStack() as stack:
        for disk in disks.values():
            disk.mount()
            stack.callback(disk.unmount)
        restart()
        yield disks
    restart()


@pytest.fixture
def disks(shop, small):
    """The same, with room at the begin and at the end."""
    yield small
    for disk in small.values():
        disk.free()


def leftovers(shop):
    """What a step that failed must not leave."""
    names = f"{HOME}/work/* {HOME}/builds/*.new {HOME}/deps/*.new {HOME}/releases/*.new {HOME}/incoming/*.part {STATE}/alpha/restore/*.part"
    return shop.host.shell(f"ls -d {names} 2>/dev/null || true").split()


def full(shop, disk, *words, broke, database=None, **options):
    """Deploy onto a disk that is or gets full, free it, and deploy again."""
    before, releases = runs_of(shop), set(shop.host.journal()["releases"])
    told = refused(shop, *words, broke=broke, next_step=f"Make room in {disk.place}", **options)
    assert runs_of(shop) == before, "the database is what it was"
    assert leftovers(shop) == []
    assert broke != "step stage of alpha" or set(shop.host.journal()["releases"]) <= releases, "what is not staged is no release"
    disk.free()
    after = made_good(shop)
    assert shop.host.runs(after.live) == 1
    return told


@pytest.mark.fault
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_without_room_is_refused_before_anything_is_written(shop, disks, what):
    disk = disks["home"]
    shop.apps.app("alpha")
    disk.fill(what, leave={"bytes": 8 << 20, "inodes": 300}[what])
    builds = shop.host.shell(f"ls {HOME}/builds")
    told = full(shop, disk, "Staging release", "of alpha needs", f" in {HOME}, and ", f" are free on {HOME}", broke="room on the disk")
    assert "fetch path" not in told.message and shop.host.shell(f"ls {HOME}/builds") != builds


@pytest.mark.fault
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_without_room_for_the_source(shop, disks, what):
    disk = disks["home"]
    shop.apps.app("alpha")
    disk.fill(what)
    words = ("did not reach this host whole", f" bytes for {HOME}/incoming", "No space left on device")
    refused(shop, *words, broke="the way of the source to the host", next_step="Make room there if it is full")
    assert not [name for name in shop.host.shell(f"ls -A {HOME}/incoming").split() if not name.endswith(".tar")]
    disk.free()
    made_good(shop)


@pytest.mark.fault
def test_a_release_that_is_larger_than_the_room_is_refused_before_it_is_unpacked(shop, disks):
    shop.apps.app("alpha")
    source = pathlib.Path(shop.apps.apps["alpha"]["source"]["path"])
    (source / "large").write_bytes(bytes(90 << 20))
    told = refused(shop, "Staging release", f" in {HOME}, and ", broke="room on the disk", next_step=f"Make room in {HOME}")
    assert "fetch path" not in told.message and leftovers(shop) == []
    (source / "large").unlink()
    made_good(shop)


@pytest.mark.fault
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_that_fills_up_while_the_source_is_unpacked(shop, disks, what):
    shop.apps.app("alpha")
    source = pathlib.Path(shop.apps.apps["alpha"]["source"]["path"])
    (source / "z").mkdir()
    for number in range(200):
        (source / "z" / f"{number}.js").write_text(f"// {number}\n" * 2000)
    disk = disks["home"]
    with disk.filled_at(f"{HOME}/work/*/package.json", what=what):
        full(shop, disk, f"The file system {HOME} is full", broke="step stage of alpha")


def package(source, size):
    """Give a source a dependency that lies beside it and unpacks to that many bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, data in {"package/package.json": b'{"name": "large", "version": "1.0.0"}', "package/data": bytes(size)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    (source / "large.tgz").write_bytes(buffer.getvalue())
    manifest = {**json.loads((source / "package.json").read_text()), "dependencies": {"large": "file:large.tgz"}}
    (source / "package.json").write_text(json.dumps(manifest))
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()
    root = {key: manifest[key] for key in ("name", "version", "dependencies", "engines")}
    entry = {"version": "1.0.0", "resolved": "file:large.tgz", "integrity": integrity}
    lock = {"name": "stub", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": {"": root, "node_modules/large": entry}}
    (source / "package-lock.json").write_text(json.dumps(lock))


@pytest.mark.fault
def test_dependencies_that_do_not_fit(shop, disks):
    shop.apps.app("alpha")
    package(pathlib.Path(shop.apps.apps["alpha"]["source"]["path"]), 50 << 20)
    disk = disks["home"]
    disk.fill(leave=34 << 20)
    full(shop, disk, "npm ci", f"The file system {HOME} is full", "ENOSPC", broke="step stage of alpha")


@pytest.mark.fault
def test_a_build_that_fills_the_disk(shop, disks):
    shop.apps.app("alpha", build="fill")
    told = refused(shop, "node build.js", f"The file system {HOME} is full", "ENOSPC", broke="step stage of alpha", next_step=f"Make room in {HOME}")
    assert leftovers(shop) == [] and "this is how running out of memory looks" not in told.message
    shop.apps.app("alpha")
    made_good(shop)


@pytest.mark.fault
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_that_fills_up_while_the_release_is_laid_out(shop, disks, what):
    shop.apps.app("alpha")
    disk = disks["home"]
    with disk.filled_at(f"{HOME}/releases/*.new/run", what=what):
        full(shop, disk, f"The file system {HOME} is full", broke="step stage of alpha")


@pytest.mark.fault
def test_a_disk_that_fills_up_while_the_restore_point_is_taken(shop, disks):
    disk = disks["state"]
    rows = "CREATE TABLE IF NOT EXISTS large AS SELECT n, md5(random()::text) || md5(random()::text) AS text FROM generate_series(1, 250000) AS n"
    shop.host.sql(f"SET ROLE alpha; {rows}")
    try:
        shop.apps.app("alpha", migrations=[{"id": f"disk{time.time_ns()}", "sql": "ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS size integer"}])
        dumps, before = shop.host.shell(f"ls {STATE}/alpha/restore"), runs_of(shop)
        words = ("There is no restore point, so alpha is not migrated", f"The file system {STATE} is full")
        with disk.filled_at(f"{STATE}/alpha/restore/*.part"):
            refused(shop, *words, broke="gate (restore point)", next_step=f"Make room in {STATE}")
        assert shop.host.shell(f"ls {STATE}/alpha/restore") == dumps and leftovers(shop) == [], "a dump has its name when it is whole, or never"
        assert runs_of(shop) == before
        disk.free()
        assert shop.host.runs(made_good(shop).live) == 1
    finally:
        shop.host.sql("DROP TABLE large")


@pytest.mark.parametrize("what", ["bytes", pytest.param("inodes", marks=pytest.mark.fault)])
def test_a_disk_that_fills_up_before_the_switch(shop, disks, what):
    disk = disks["state"]
    shop.apps.app("alpha", server="slow:3")
    with disk.filled_at(f"{STATE}/alpha/journal.json", '"switch": {', what=what):
        before = shop.host.serving()
        refused(shop, f"The file system {STATE} is full", broke="activate", next_step=f"Make room in {STATE}", switched=True)
    flag = shop.host.shell(f"ls {STATE}/slots/alpha").split()
    assert flag == (["green"] if before.slot == "green" else []) and shop.host.journal()["switch"] is None
    disk.free()
    after = made_good(shop)
    assert shop.host.runs(after.live) == 1


@pytest.mark.fault
def test_a_disk_on_which_the_log_cannot_be_written(shop, disks):
    disk = disks["state"]
    shop.apps.app("alpha", build="slow:3")
    with disk.filled_at(f"{HOME}/work/*/package.json"):
        full(shop, disk, f"The file system {STATE} is full", broke="step stage of alpha")


@pytest.mark.fault
def test_a_state_directory_without_room_lets_no_step_begin(shop, disks):
    disk = disks["state"]
    shop.apps.app("alpha")
    shop.host.shell(f"rm -rf {STATE}/alpha/reserve")
    disk.fill(leave=1 << 20)
    full(shop, disk, f"A step needs 4.0 MiB and 100 inodes in {STATE}/alpha, and ", broke="room on the disk")


@pytest.mark.fault
def test_releases_beyond_their_bytes_go_before_the_build(shop, disks):
    for _number in range(2):
        shop.apps.app("alpha")
        shop.apps.deploy()
    journal = shop.host.journal()
    shop.apps.app("alpha", build="fail")
    shop.apps.apps["alpha"]["keep_mb"] = 0
    shop.apps.write()
    shop.apps.deploy(rc=None)
    assert set(shop.host.journal()["releases"]) == {journal["live"], journal["previous"]} == set(shop.host.shell(f"ls {HOME}/releases").split())
