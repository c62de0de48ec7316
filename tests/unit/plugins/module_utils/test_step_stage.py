# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage on a real file system, as root where owners are given; commands are only written down."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import tarfile

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import room, step_stage, tree_build
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import COMMAND
from ansible_collections.anchorage.vps.plugins.module_utils.step_stage import MANIFEST, stage
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .engine_fakes import PASSWORD, document, place

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a release belongs to root")
SOURCE = "s" * 64


class BuildWorld(World):
    """Real files; systemd-run is played by a function of the test, and node by its version."""

    def __init__(self, play):
        self.play = play
        self.commands = []
        self.environments = []
        self.ran = []

    def run(self, argv, **options):
        if argv[0] == "node":
            return Completed(0, "v20.19.2\n", "")
        if argv[0] == "npm":
            return Completed(0, "10.9.4\n", "")
        self.ran.append(argv[0])
        return super().run(argv, **options)

    def stream(self, argv, on_line, *, timeout=None):
        self.commands.append(argv)
        assert argv[-3:-1] == [COMMAND, "exec"]
        process = json.loads(pathlib.Path(argv[-1]).read_text())
        self.environments.append(process["env"])
        return self.play(process["argv"], pathlib.Path(process["cwd"]), on_line) or 0


@pytest.fixture
def shop(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)

    def start(files, play=lambda argv, directory, on_line: 0, **changes):
        world = BuildWorld(play)
        app = App("shop", world, document(str(tmp_path / "home"), **changes))
        monkeypatch.setattr(type(app.layout), "cache", property(lambda self: str(tmp_path / "cache")))
        for name in ("builds", "deps", "releases", "work", "incoming", "shared"):
            os.makedirs(f"{app.layout.home}/{name}", exist_ok=True)
        for name, text in files.items():
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with tarfile.open(app.layout.source(SOURCE), "w:gz") as bundle:
            bundle.add(tmp_path / "source", ".")
        return app, world

    return start


def put(app, log=None):
    """Stage release r1 of tree t1."""
    return stage(app, log or Log(lambda line: None), source_id=SOURCE, tree="t1", release="r1")


PLAIN = {"package.json": "{}", "server.js": "1"}


def test_a_plain_source_becomes_a_release_that_the_app_cannot_write(shop):
    app, _world = shop(PLAIN)
    assert put(app) is True
    running = pathlib.Path(app.layout.release("r1"), "app")
    assert (running / "server.js").read_text() == "1" and running.resolve() == pathlib.Path(app.layout.build("t1")).resolve()
    for path in [*pathlib.Path(app.layout.release("r1")).rglob("*"), *pathlib.Path(app.layout.build("t1")).rglob("*")]:
        facts = path.lstat()
        assert facts.st_uid == 0 and (path.is_symlink() or not facts.st_mode & (stat.S_IWGRP | stat.S_IRWXO)), path
    assert app.journal.release("r1")["tree"] == "t1" and app.journal.says("r1", "staged")
    assert os.listdir(f"{app.layout.home}/work") == []
    assert put(app) is False


def test_nothing_is_staged_for_tls_before_provisioning_has_made_it_possible(shop, tmp_path, monkeypatch):
    authority = tmp_path / "ca.pem"
    monkeypatch.setattr(step_stage, "AUTHORITY", str(authority))
    app, _world = shop(PLAIN, trusted_file="/etc/anchorage/tls/trusted.pem")
    with pytest.raises(AnchorageError, match="does not know the fleet's authority yet") as caught:
        put(app)
    assert "site.yml" in caught.value.next_step and not app.journal.says("r1", "staged")
    authority.write_text("")
    assert put(app) is True
    process = json.loads(pathlib.Path(app.layout.release("r1"), "run", "shop-worker-blue.json").read_text())
    assert process["env"]["NODE_EXTRA_CA_CERTS"] == "/etc/anchorage/tls/trusted.pem"


def test_each_process_of_each_slot_has_a_file_with_its_whole_environment(shop):
    app, _world = shop(PLAIN)
    put(app)
    run = pathlib.Path(app.layout.release("r1"), "run")
    assert sorted(path.name for path in run.iterdir()) == [f"shop-{name}-{slot}.json" for name in ("server", "worker") for slot in ("blue", "green")]
    green = json.loads((run / "shop-server-green.json").read_text())
    assert green["argv"] == ["node", "server.js"] and green["env"]["PORT"] == "9002" and green["env"]["HOST"] == "127.0.0.1"
    assert green["env"]["JWT_SECRET"] == "j" * 32 and PASSWORD in green["env"]["DATABASE_URL"]
    assert stat.S_IMODE((run / "shop-server-green.json").stat().st_mode) == 0o640


def test_the_manifest_names_every_file(shop):
    app, _world = shop(PLAIN)
    put(app)
    tree = pathlib.Path(app.layout.build("t1"))
    manifest = json.loads((tree / MANIFEST).read_text())
    found = tree_build.checksums(str(tree))
    del found[MANIFEST]
    assert manifest["files"] == found and set(found) == {"package.json", "server.js"} and manifest["source"] == SOURCE


def build(**changes):
    return {"command": ["node", "build.js"], "env": {}, "output": "dist", "directories": [], "memory_mb": 512, "timeout_seconds": 60, **changes}


def test_only_the_output_of_a_build_is_the_release(shop):
    def play(argv, directory, on_line):
        (directory / "dist").mkdir()
        (directory / "dist" / "server.js").write_text("built")

    app, world = shop(PLAIN, play, build=build(env={"NPM_TOKEN": "t" * 32}))
    put(app)
    (command,), (environment,) = world.commands, world.environments
    assert "--property=MemoryMax=1024M" in command and environment["NODE_OPTIONS"] == "--max-old-space-size=512"
    assert environment["NPM_TOKEN"] == "t" * 32 and not any(PASSWORD in value or "j" * 32 in value for value in environment.values()), "no other secret"
    assert not any("t" * 32 in word for word in command), "everybody may read a command line"
    assert os.listdir(f"{app.layout.home}/work") == []
    running = pathlib.Path(app.layout.release("r1"), "app")
    assert sorted(os.listdir(running)) == ["server.js"] and (running / "server.js").read_text() == "built"


@pytest.mark.parametrize(
    ("play", "message"),
    [
        (lambda argv, directory, on_line: 1, "'node build.js' of shop failed after .* with code 1"),
        (lambda argv, directory, on_line: 137, "out of memory"),
        (lambda argv, directory, on_line: 0, "ended well but left no 'dist'"),
    ],
    ids=["code", "memory", "no-output"],
)
def test_a_failed_build_leaves_nothing_behind(shop, play, message):
    app, _world = shop(PLAIN, play, build=build())
    app.journal.mark("r0", "staged", tree="t0")
    app.journal.go_live("r0", "blue", "t0")
    with pytest.raises(AnchorageError, match=message) as error:
        put(app)
    assert error.value.live == "shop release r0 in slot blue"
    assert not app.journal.says("r1", "staged")
    assert [os.listdir(f"{app.layout.home}/{name}") for name in ("work", "builds", "releases")] == [[], [], []]


def test_a_tree_that_is_built_is_not_built_again(shop):
    calls = []

    def play(argv, directory, on_line):
        calls.append(argv)
        (directory / "dist").mkdir()

    app, _world = shop(PLAIN, play, build=build())
    put(app)
    assert stage(app, Log(lambda line: None), source_id=SOURCE, tree="t1", release="r2") is True
    assert calls == [["node", "build.js"]] and os.path.isdir(app.layout.release("r2"))


NPM = {"package.json": '{"dependencies": {"a": "1"}}', "package-lock.json": "{}", "server.js": "1"}


def test_a_lock_file_that_names_no_package_is_installed_from(shop, monkeypatch):
    owned = []
    monkeypatch.setattr(tree_build.os, "chown", lambda path, *_ids, **_options: owned.append(os.path.basename(path)))

    def play(argv, directory, _on_line):
        if argv[1] == "prune":
            assert (directory / "node_modules").is_dir() and "node_modules" in owned, "npm has to read it"
            (directory / "node_modules").rmdir()

    app, _world = shop({**PLAIN, "package-lock.json": "{}"}, play)
    assert put(app) is True
    assert pathlib.Path(app.layout.release("r1"), "app", "node_modules").is_dir()


def npm(calls):
    """Play npm: install two packages, prune one."""

    def play(argv, directory, on_line):
        calls.append(argv[1])
        if argv[1] == "ci":
            for name in ("a", "dev"):
                (directory / "node_modules" / name).mkdir(parents=True)
                (directory / "node_modules" / name / "index.js").write_text(name)
        if argv[1] == "prune":
            (directory / "node_modules" / "dev" / "index.js").unlink()
            (directory / "node_modules" / "dev").rmdir()

    return play


def test_dependencies_are_installed_once_for_a_lock_file(shop):
    calls = []
    app, _world = shop(NPM, npm(calls))
    put(app)
    assert calls == ["ci", "prune"]
    modules = pathlib.Path(app.layout.release("r1"), "app", "node_modules")
    assert modules.is_symlink() and os.listdir(modules) == ["a"]
    (key,) = os.listdir(f"{app.layout.home}/deps")
    assert sorted(os.listdir(f"{app.layout.dependencies(key)}/full/node_modules")) == ["a", "dev"], "the next build needs them all"
    stage(app, Log(lambda line: None), source_id=SOURCE, tree="t2", release="r2")
    assert calls == ["ci", "prune"]


def test_a_release_that_is_built_already_spends_no_time_on_dependencies(shop):
    calls = []
    app, world = shop(NPM, npm(calls))
    put(app)
    world.ran.clear()
    stage(app, Log(lambda line: None), source_id=SOURCE, tree="t2", release="r2")
    assert "cp" not in world.ran and calls == ["ci", "prune"]
    assert os.listdir(pathlib.Path(app.layout.release("r2"), "app", "node_modules")) == ["a"]


def test_a_build_finds_all_dependencies_that_an_earlier_release_installed(shop):
    calls, found = [], []

    def play(argv, directory, on_line):
        if argv[0] != "npm":
            found.append(sorted(os.listdir(directory / "node_modules")))
            (directory / "dist").mkdir()
        return npm(calls)(argv, directory, on_line)

    app, world = shop(NPM, play, build=build())
    put(app)
    said = []
    stage(app, Log(said.append), source_id=SOURCE, tree="t2", release="r2")
    assert found == [["a", "dev"], ["a", "dev"]] and calls.count("ci") == 1
    assert [line for line in said if "are here already (" in line]


def test_what_an_app_keeps_outlives_its_releases(shop):
    app, _world = shop({**PLAIN, "static/shipped.txt": "x"}, shared=["static"])
    put(app)
    inside = pathlib.Path(app.layout.release("r1"), "app", "static")
    assert os.readlink(inside) == f"{app.layout.shared}/static"
    (inside / "upload.png").write_text("kept")
    stage(app, Log(lambda line: None), source_id=SOURCE, tree="t2", release="r2")
    assert pathlib.Path(app.layout.release("r2"), "app", "static", "upload.png").read_text() == "kept"


def test_the_app_gets_to_what_it_keeps_however_deep_it_lies(shop):
    app, _world = shop(PLAIN, shared=[".next/cache", "public/media"])
    before = os.umask(0o077)
    try:
        put(app)
    finally:
        os.umask(before)
    for name in (".next", ".next/cache", "public", "public/media"):
        kept = os.stat(f"{app.layout.shared}/{name}")
        assert (kept.st_mode & 0o777, kept.st_uid) == (0o750, os.getuid())
    assert os.readlink(pathlib.Path(app.layout.release("r1"), "app", "public/media")) == f"{app.layout.shared}/public/media"


@pytest.mark.parametrize("name", ["uploads", "uploads/images"])
def test_a_link_among_what_an_app_keeps_is_not_followed_by_root(shop, tmp_path, name):
    app, _world = shop(PLAIN, shared=[name])
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    pathlib.Path(app.layout.shared, "uploads").symlink_to(precious)
    put(app)
    assert precious.stat().st_mode & 0o777 == 0o700 and not list(precious.iterdir())


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({"server.js": "1", "b": "2"}, {}, "has no package.json"),
        ({"package.json": "{"}, {}, "is not JSON"),
        ({"package.json": '{"engines": {"node": ">=22"}}'}, {}, "wants Node '>=22' .*, this host has 20.19.2"),
        ({"package.json": '{"dependencies": {"a": "1"}}'}, {}, "no lock file"),
    ],
    ids=["no-package", "damaged", "engines", "no-lock"],
)
def test_a_source_that_cannot_be_built_is_refused_with_its_reason(shop, files, changes, message):
    app, world = shop(files, **changes)
    with pytest.raises(AnchorageError, match=message):
        put(app)
    assert world.commands == []


def test_a_source_that_did_not_arrive_is_asked_for(shop):
    app, _world = shop(PLAIN)
    os.unlink(app.layout.source(SOURCE))
    with pytest.raises(AnchorageError, match="did not reach this host"):
        put(app)


@pytest.mark.parametrize("have", [room.Amount(8 * room.MIB, 10_000), room.Amount(1 << 40, 20)], ids=["bytes", "inodes"])
def test_without_room_nothing_is_written(shop, monkeypatch, have):
    app, world = shop(PLAIN)
    monkeypatch.setattr(room, "supply", lambda path: have)
    with pytest.raises(room.Full, match=f"Staging release r1 of shop needs .* in {app.layout.home}, and {have} are free"):
        put(app)
    assert world.commands == [] and [os.listdir(f"{app.layout.home}/{name}") for name in ("work", "builds", "releases")] == [[], [], []]


def test_what_may_go_makes_room_before_anything_is_refused(shop, monkeypatch):
    app, _world = shop(PLAIN, keep_releases=3)
    for number in range(3):
        os.makedirs(app.layout.release(f"r0{number}"))
        app.journal.mark(f"r0{number}", "staged", tree=f"t0{number}", source="s")
    app.journal.go_live("r02", "blue", "t02")
    monkeypatch.setattr(room, "supply", lambda path: room.Amount(1 << 40 if not os.path.exists(app.layout.release("r00")) else 0, None))
    assert put(app) is True
    assert sorted(app.journal.data["releases"]) == ["r01", "r02", "r1"]


@pytest.mark.parametrize("name", ["_own", "_lay_out", "sync_tree"])
def test_a_disk_that_fills_up_on_the_way_leaves_no_parts(shop, monkeypatch, name):
    app, _world = shop(NPM, npm([]))

    def fill(*arguments, **options):
        with open("/dev/full", "w", encoding="utf-8") as stream:
            stream.write("x")

    real = step_stage._lay_out
    monkeypatch.setattr(tree_build.Builder if name == "_own" else step_stage, name, fill)
    if name == "_lay_out":
        monkeypatch.setattr(
            step_stage, name, lambda app, *names: [real(app, *names), os.rename(app.layout.release("r1"), app.layout.release("r1.new")), fill()]
        )
    with pytest.raises(room.Full, match="The file system .* is full") as error:
        put(app)
    assert error.value.live == "shop has no live release on this host"
    left = [path for directory in ("work", "builds", "deps", "releases") for path in os.listdir(f"{app.layout.home}/{directory}") if path.endswith(".new")]
    assert left == [] and os.listdir(f"{app.layout.home}/work") == []


def test_dependencies_that_no_release_has_are_asked_for_room(shop, monkeypatch):
    calls = []
    app, _world = shop({**NPM, "package-lock.json": json.dumps({"packages": {str(number): {} for number in range(500)}})}, npm(calls))
    monkeypatch.setattr(room, "supply", lambda path: room.Amount(100 * room.MIB, None))
    with pytest.raises(room.Full, match="Installing the dependencies of shop needs 316 MiB"):
        put(app)
    assert calls == []
