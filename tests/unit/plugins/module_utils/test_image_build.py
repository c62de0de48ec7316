# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of releases on a real file system, as root where owners are given; the Engine's client is a program of the test."""

from __future__ import annotations

import io
import json
import os
import pathlib
import stat
import tarfile
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import image_build, image_context, room
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.step_stage import MANIFEST, stage
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .engine_fakes import PASSWORD, document, place
from .test_compose_runtime import DOCKED, IMAGE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a release belongs to root")
SOURCE = "s" * 64
SCHEMA = {"migrations/001.sql": "CREATE TABLE a ();", "src/other.js": "1", "node_modules/x/migrations/9.sql": "no"}


class EngineWorld(World):
    """Real files; the Engine has what the test says."""

    def __init__(self, tmp_path, lines, rc):
        self.tmp_path, self.lines, self.rc = tmp_path, lines, rc
        self.asked, self.followed, self.context = [], [], {}
        self.images = set()

    def run(self, argv, **options):
        if argv[0] == "systemctl":
            return Completed(0, "", "")
        if argv[0] != "docker":
            return super().run(argv, **options)
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.asked.append(words)
        if words[0] == "info":
            return Completed(0, f"{self.tmp_path}\n", "")
        if words[:2] == ["image", "inspect"]:
            known = words[2] in self.images
            told = str(64 << 20) if any("Size" in word for word in argv) else IMAGE
            return Completed(0, told, "") if known else Completed(1, "", f"Error: No such image: {words[2]}")
        return Completed(0, "", "")

    def stream(self, argv, on_line, *, timeout=None):
        self.followed.append(argv)
        for line in self.lines:
            on_line(line)
        if self.rc == 0:
            self.images |= {IMAGE, argv[-1]}
            for word in argv:
                if word.startswith("--iidfile="):
                    pathlib.Path(word.partition("=")[2]).write_text(IMAGE)
                    self.context = {path.name: path.read_text() for path in pathlib.Path(argv[-1]).iterdir() if path.is_file()}
        return self.rc


@pytest.fixture
def shop(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)

    def start(files, lines=(), rc=0, **changes):
        world = EngineWorld(tmp_path, lines, rc)
        given = {**DOCKED, **changes}
        app = App("shop", world, document(str(tmp_path / "home"), **given))
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
    return stage(app, log or Log(lambda line: None), source_id=SOURCE, tree="t1", release="r1")


PLAIN = {"package.json": "{}", "server.js": "1", ".env": "SECRET=1"}


def test_a_source_becomes_an_image_and_a_release_that_names_it(shop):
    app, world = shop(PLAIN)
    assert put(app) is True
    manifest = json.loads(pathlib.Path(app.layout.build("t1"), MANIFEST).read_text())
    assert manifest["image"] == IMAGE and manifest["source"] == SOURCE and app.journal.says("r1", "staged")
    (command,) = world.followed
    assert command[:2] == ["env", "-i"] and command[-1].startswith(app.layout.work("t1")), "built in a directory of its own"
    assert not any(secret in " ".join(command) for secret in (PASSWORD, "j" * 32))
    assert "FROM node:22 AS base" in world.context[image_context.DOCKERFILE] and ".env\n" in world.context[f"{image_context.DOCKERFILE}.dockerignore"]
    files = list(pathlib.Path(app.layout.release("r1"), "run").iterdir())
    assert sorted(path.name for path in files) == ["compose-blue.json", "compose-green.json"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_uid == 0 for path in files)
    assert os.listdir(f"{app.layout.home}/work") == [] and ["tag", IMAGE, "anchorage/shop:t1"] in world.asked
    assert put(app) is False
    world.images.clear()
    assert put(app) is True, "an image that is gone is made again"


def test_the_command_that_failed_is_named_and_nothing_is_left(shop):
    failed = 'ERROR: failed to solve: process "/bin/sh -c node build.js" did not complete successfully: exit code: 3'
    app, _world = shop(PLAIN, ["#7 error TS2322", failed], 1)
    with pytest.raises(AnchorageError, match="'node build.js' of shop failed after 0 s with code 3") as error:
        put(app)
    assert error.value.live == "shop has no live release on this host" and "#7 error TS2322" in " ".join(error.value.details["output"])
    assert not app.journal.says("r1", "staged")
    assert [os.listdir(f"{app.layout.home}/{name}") for name in ("work", "builds", "releases")] == [[], [], []]


@pytest.mark.parametrize(
    ("lines", "rc", "words"),
    [
        (["#2 ERROR: node:22: failed to resolve source metadata for docker.io/library/node:22: not found"], 1, "'docker build' of shop failed .* not found"),
        ([], 124, "it was stopped after 60 s"),
        (["write /app/x: no space left on device"], 1, "The file system .* is full"),
    ],
    ids=["no base", "too slow", "full disk"],
)
def test_what_is_wrong_is_told(shop, lines, rc, words):
    app, _world = shop(PLAIN, lines, rc)
    with pytest.raises(AnchorageError, match=words):
        put(app)


def test_an_own_dockerfile_is_used_as_it_is(shop):
    image = {**DOCKED["image"], "dockerfile": "docker/Dockerfile", "build_args": {"VERSION": "1"}}
    app, world = shop({**PLAIN, "docker/Dockerfile": "FROM x"}, image=image)
    put(app)
    (command,) = world.followed
    assert any(word.endswith("/docker/Dockerfile") for word in command) and "--build-arg=VERSION=1" in command
    assert image_context.DOCKERFILE not in world.context


def test_an_own_dockerfile_that_is_not_there_is_named(shop):
    app, world = shop(PLAIN, image={**DOCKED["image"], "dockerfile": "Dockerfile"})
    with pytest.raises(AnchorageError, match="The source of shop has no Dockerfile"):
        put(app)
    assert world.followed == []


def test_an_image_from_elsewhere_is_pulled_by_its_digest(shop):
    digest = f"sha256:{'cd' * 32}"
    app, world = shop(PLAIN, source={"kind": "image", "image": "registry.example.com/acme/shop", "digest": digest})
    put(app)
    assert ["image", "rm", f"registry.example.com/acme/shop@{digest}"] in world.asked, "or it would stay for ever"
    assert world.followed[0][-3:] == ["pull", "--quiet", f"registry.example.com/acme/shop@{digest}"]
    assert json.loads(pathlib.Path(app.layout.build("t1"), MANIFEST).read_text())["image"] == IMAGE


def test_a_registry_that_does_not_answer_touches_nothing(shop):
    said = ["Error response from daemon: Get https://registry.example.com/v2/: dial tcp: connection refused"]
    app, _world = shop(PLAIN, said, 1, source={"kind": "image", "image": "registry.example.com/acme/shop", "digest": f"sha256:{'cd' * 32}"})
    with pytest.raises(AnchorageError, match="'docker pull' of shop failed after 0 s with code 1: Error response from daemon: .*connection refused") as error:
        put(app)
    assert "the registry" in error.value.next_step and os.listdir(f"{app.layout.home}/builds") == []


def test_the_files_of_the_schema_are_read_out_of_the_image(shop, tmp_path, monkeypatch):
    """As the Engine gives them: as a tar archive of the app's directory."""
    for name, text in SCHEMA.items():
        path = tmp_path / "image" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(image_build, "client", lambda *words: ["tar", "-C", str(tmp_path / "image"), "-cf", "-", "."])
    app, world = shop(PLAIN)
    app.document["migrate"]["files"] = ["migrations/*"]
    monkeypatch.setattr(world, "stream", lambda argv, on_line, **_options: world.images.add(IMAGE) or 0)
    monkeypatch.setattr(image_build.ImageBuilder, "_build_image", lambda self: (IMAGE, "k1"))
    put(app)
    tree = pathlib.Path(app.layout.build("t1"))
    assert {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()} == {MANIFEST, "migrations/001.sql"}
    assert set(json.loads((tree / MANIFEST).read_text())["files"]) == {"migrations/001.sql"}


def test_an_image_without_the_apps_directory_is_told(shop, monkeypatch):
    monkeypatch.setattr(image_build, "client", lambda *words: ["false"])
    app, world = shop(PLAIN)
    app.document["migrate"]["files"] = ["migrations/*"]
    monkeypatch.setattr(world, "stream", lambda argv, on_line, **_options: world.images.add(IMAGE) or 0)
    monkeypatch.setattr(image_build.ImageBuilder, "_build_image", lambda self: (IMAGE, "k1"))
    with pytest.raises(AnchorageError, match="has no directory /app that could be read") as error:
        put(app)
    assert "apps.shop.image.directory" in error.value.next_step


def test_a_live_tree_that_lost_its_manifest_does_not_stand_in_the_way(shop):
    app, _world = shop(PLAIN)
    app.journal.data["tree"] = "t0"
    assert put(app) is True


def test_without_room_for_the_image_nothing_is_begun(shop, monkeypatch):
    app, world = shop(PLAIN)
    monkeypatch.setattr(image_build, "FIRST_BUILD", room.Amount(1 << 60, 0))
    with pytest.raises(room.Full, match="The image of shop needs"):
        put(app)
    assert world.followed == []


# -- built by the controller


@pytest.fixture
def sent(shop):
    """An app whose image the controller builds, with the archive that it has sent."""

    def start(lines=(), rc=0, size=3 << 20):
        app, world = shop(PLAIN, lines, rc, image={**DOCKED["image"], "build_on": "controller"})
        world.machine = lambda: "x86_64"
        with tarfile.open(app.layout.image("t1"), "w:gz") as bundle:
            layer = tarfile.TarInfo("layer.tar")
            layer.size = size
            bundle.addfile(layer, io.BytesIO(bytes(size)))
        if rc == 0:
            world.images.add(SENT)
        return app, world

    return start


SENT = "anchorage-controller/shop:t1-amd64"


def test_an_image_that_the_controller_sent_is_loaded_and_becomes_ours(sent):
    app, world = sent()
    assert put(app) is True
    (command,) = world.followed
    assert command[-3:] == ["load", "--quiet", f"--input={app.layout.image('t1')}"], "and nothing is built"
    assert ["tag", IMAGE, "anchorage/shop:t1"] in world.asked and ["image", "rm", SENT] in world.asked
    manifest = json.loads(pathlib.Path(app.layout.build("t1"), MANIFEST).read_text())
    assert manifest["image"] == IMAGE and manifest["source"] == SOURCE and app.journal.says("r1", "staged")
    assert not os.path.exists(app.layout.image("t1")) and put(app) is False


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["open /var/lib/docker/tmp/x/layer.tar: no space left on device"], "The file system .* is full"),
        (["Error processing tar file(exit status 1): unexpected EOF"], "'docker load' of shop failed after 0 s with code 1: Error processing tar file"),
    ],
    ids=["full disk", "broken"],
)
def test_what_cannot_be_loaded_is_told_and_sent_again(sent, lines, words):
    app, _world = sent(lines, 1)
    with pytest.raises(AnchorageError, match=words) as error:
        put(app)
    assert error.value.live == "shop has no live release on this host" and "run deploy.yml again" in error.value.next_step
    assert os.listdir(f"{app.layout.home}/builds") == [] and not os.path.exists(app.layout.image("t1"))


def test_an_archive_without_the_image_is_told(sent):
    app, world = sent()
    world.images.clear()
    with pytest.raises(AnchorageError, match=f"What the controller sent of shop holds no {SENT}"):
        put(app)


def test_an_image_that_did_not_arrive_is_told(sent):
    app, world = sent()
    os.unlink(app.layout.image("t1"))
    with pytest.raises(AnchorageError, match="did not reach this host") as error:
        put(app)
    assert "apps.shop.image.build_on: host" in error.value.next_step and world.followed == []


def test_without_room_for_what_was_sent_it_waits(sent, monkeypatch):
    app, world = sent()
    have = room.supply
    monkeypatch.setattr(room, "supply", lambda path: room.Amount(5 << 20, 30_000) if path == str(world.tmp_path) else have(path))
    with pytest.raises(room.Full, match="The image of shop needs 6.0 MiB"):
        put(app)
    assert world.followed == [] and os.path.exists(app.layout.image("t1")), "for the run after room was made"


def test_no_file_of_a_source_has_the_time_of_another_build(tmp_path):
    """BuildKit would take a file of the same size and time from the build before."""
    document = {
        "name": "shop",
        "source": {"subdir": "app"},
        "package_manager": "auto",
        "build": {"command": None, "output": ".", "env": {}},
        "image": {"base": "node:22", "dockerfile": "Dockerfile", "build_args": {}},
    }
    package = tmp_path / "app"
    (package / "lib").mkdir(parents=True)
    for name in ("Dockerfile", "lib/switches.json"):
        (package / name).write_text("x")
        os.utime(package / name, (0, 0))
    (package / "link").symlink_to("nowhere")
    began = time.time() - 1
    image_context.Context(document, World(), str(tmp_path), extra_ca_file="").prepare()
    assert all(os.lstat(path).st_mtime >= began for path in package.rglob("*"))
