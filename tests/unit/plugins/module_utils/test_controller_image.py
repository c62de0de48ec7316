# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import hashlib
import os
import stat
import subprocess
import tarfile
import threading

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import controller_image, dockerfile, source_tree
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.controller_image import KEEP, ControllerImage, take
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

from .controller_fakes import ControllerDocker
from .engine_fakes import document
from .test_compose_runtime import DOCKED

HOST_ONLY = "or set apps.shop.image.build_on: host"


@pytest.fixture
def docker(tmp_path, monkeypatch):
    found = ControllerDocker(tmp_path)
    monkeypatch.setenv("PATH", found.path())
    return found


@pytest.fixture
def make(tmp_path):
    """An image of a source on the controller; the lines that it said are in C(said)."""

    def image(platform="linux/amd64", **changes):
        source = tmp_path / "source"
        if not source.exists():
            (source / "sub").mkdir(parents=True)
            for file, text in {"package.json": "{}", "server.js": "1", ".env": "SECRET=1", "sub/a.js": "2"}.items():
                (source / file).write_text(text)
        wanted = document(str(tmp_path / "home"), **{**DOCKED, "source": {"kind": "path", "path": str(source)}, **changes})
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        said = []
        found = ControllerImage(wanted, source_tree.checksum(str(source)), platform, World(), Log(said.append), shared=str(tmp_path), scratch=str(scratch))
        found.said, found.source = said, str(source)
        return found

    return image


def test_it_is_built_from_what_a_host_would_build_for_the_hosts_platform(docker, make, tmp_path):
    image = make()
    image.make(image.source)
    (command,) = [line for line in docker.asked() if line.startswith("buildx build")]
    for word in ("--load", "--platform=linux/amd64", f"--tag={image.name}", "--label=vps.anchorage.app=shop", "--progress=plain"):
        assert word in command.split()
    text = dockerfile.render(image.document, manager=None, version="4.", names=["package.json", "server.js", "sub"], extra_ca=False)
    assert (docker.state / "Dockerfile").read_text() == text
    listed = (docker.state / "context").read_text()
    assert ".anchorage.Dockerfile.dockerignore" in listed and not any(line.endswith(" .env") for line in listed.splitlines())
    assert "drwxr-x---" in listed, "whatever the umask of whoever deploys"
    assert os.listdir(tmp_path / "scratch") == [] and "shop:   | #7 0.1 building" not in image.said and "  | #7 0.1 building" in image.said


def test_it_is_built_once_also_by_runs_at_once(docker, make):
    images = [make() for _number in range(3)]
    threads = [threading.Thread(target=image.make, args=(image.source,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert docker.builds() == 1 and sum("has anchorage-controller" in " ".join(image.said) for image in images) == 2


def test_the_last_ones_are_kept(docker, make):
    names = []
    for number in range(KEEP + 2):
        image = make(build={**document("/x")["build"], "env": {"A": str(number)}})
        image.make(image.source)
        os.utime(docker.state / "images" / image.name, (number, number))
        names.append(image.name)
    assert docker.images() == set(names[2:])
    image = make()
    image.make(image.source)
    os.utime(docker.state / "images" / image.name, (0, 0))
    image._forget_old()
    assert image.name in docker.images(), "one out of the cache is as old as the first of its kind"


def test_an_archive_is_laid_out_without_its_top(docker, make, tmp_path):
    image = make()
    archive = tmp_path / "shop.tgz"
    with tarfile.open(archive, "w:gz") as bundle:
        bundle.add(image.source, "shop-1.0")
    image.source_id = source_tree.file_checksum(str(archive))
    image.make(str(archive))
    assert "package.json" in (docker.state / "context").read_text()


def test_an_own_dockerfile_and_authorities_that_are_here(docker, make, tmp_path):
    authorities = tmp_path / "ca.pem"
    authorities.write_text("x")
    build = {**DOCKED["image"], "dockerfile": "server.js", "build_args": {"VERSION": "1"}}
    image = make(image=build, extra_ca_file=str(authorities))
    image.make(image.source)
    command = next(line for line in docker.asked() if line.startswith("buildx build"))
    assert "--build-arg=VERSION=1" in command and f"--secret=id=extra_ca,src={authorities}" in command and (docker.state / "Dockerfile").read_text() == "1"
    image = make(extra_ca_file="/nowhere/ca.pem")
    image.make(image.source)
    assert "--secret" not in docker.asked()[-2] and "extra_ca" not in (docker.state / "Dockerfile").read_text(), "those of a host may not be here"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("down", "its Docker does not answer: Cannot connect to the Docker daemon at unix:///var/run/docker.sock"),
        ("no-buildx", "its Docker has no BuildKit ('docker buildx version' fails)"),
    ],
)
def test_an_engine_that_cannot_build_is_told(docker, make, name, words):
    docker.say(name)
    image = make()
    with pytest.raises(AnchorageError) as caught:
        image.make(image.source)
    assert words in caught.value.message and HOST_ONLY in caught.value.next_step and docker.builds() == 0
    assert caught.value.what == "the image of shop, on the controller"


def test_an_old_client_has_a_buildkit_of_its_own(docker, make):
    docker.say("no-buildx")
    docker.say("client", "20.10.24+dfsg1")
    image = make()
    image.make(image.source)
    (command,) = [line for line in docker.asked() if line.startswith("build ")]
    assert "--platform=linux/amd64" in command and not {"--load", "--provenance=false"} & set(command.split()) and docker.images() == {image.name}


def test_a_controller_without_docker_is_told(make, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    image = make()
    with pytest.raises(AnchorageError, match="there is no docker .nothing of that name in PATH") as caught:
        image.make(image.source)
    assert HOST_ONLY in caught.value.next_step


FAILED = '#9 error TS2322\nERROR: failed to solve: process "/bin/sh -c node build.js" did not complete successfully: exit code: 3\n'


def test_a_build_that_fails_is_told_as_a_host_tells_it(docker, make, tmp_path):
    docker.say("fails", FAILED)
    image = make()
    with pytest.raises(AnchorageError, match="'node build.js' of shop failed after . s with code 3") as caught:
        image.make(image.source)
    assert "#9 error TS2322" in " ".join(caught.value.details["output"]) and "  | #9 error TS2322" in image.said
    assert "deploy.yml again; nothing that runs was touched" in caught.value.next_step and docker.images() == set()
    assert os.listdir(tmp_path / "scratch") == []


def test_a_platform_that_cannot_be_built_is_named(docker, make):
    docker.say("fails", '#5 exec /bin/sh: exec format error\nERROR: process "/bin/sh -c corepack enable" did not complete successfully: exit code: 255\n')
    image = make(platform="linux/arm64")
    with pytest.raises(AnchorageError, match="The controller's Docker is linux/amd64, and the host needs linux/arm64") as caught:
        image.make(image.source)
    assert "emulate linux/arm64" in caught.value.next_step and HOST_ONLY in caught.value.next_step


def test_a_build_that_takes_too_long_is_stopped(docker, make):
    image = make(build={**document("/x")["build"], "timeout_seconds": 0.1})
    with pytest.raises(AnchorageError, match="it was stopped after 0.1 s"):
        image.make(image.source)


def test_a_source_that_changes_meanwhile_is_not_built_under_the_name_of_what_it_was(docker, make, tmp_path):
    image = make()
    (tmp_path / "source" / "server.js").write_text("2")
    with pytest.raises(AnchorageError, match="was changed while it was read"):
        image.make(image.source)
    assert docker.builds() == 0


def test_pieces_make_the_archive_and_none_is_big(docker, make, monkeypatch):
    monkeypatch.setattr(controller_image, "PIECE", 1000)
    archive = os.urandom(4321)
    (docker.state / "archive").write_bytes(archive)
    image = make()
    assert image.make(image.source) == len(archive)
    pieces = list(image.packed())
    whole = b"".join(piece for piece, _sha in pieces)
    assert gzip.decompress(whole) == archive and len(pieces) == 5 and all(0 < len(piece) <= 1000 for piece, _sha in pieces)
    assert [sha for _piece, sha in pieces] == [None] * 4 + [hashlib.sha256(whole).hexdigest()]


def test_an_image_that_cannot_be_read_to_its_end_has_no_last_piece(docker, make):
    image = make()
    image.make(image.source)
    docker.say("save-fails")
    with pytest.raises(AnchorageError, match="'docker save .*' failed on the controller with code 1"):
        list(image.packed())


# -- the host's side


def host(command, data=b""):
    return subprocess.run(["sh", "-c", command], input=data, capture_output=True, check=False)


def test_pieces_become_a_file_when_they_are_whole(tmp_path):
    path, part, sha256 = str(tmp_path / "in" / "t1.tar.gz"), ".incoming.image.1a", hashlib.sha256(b"12345").hexdigest()
    assert host(take(path, part, size=3, room=5), b"123").returncode == 0
    assert os.listdir(tmp_path / "in") == [part]
    assert host(take(path, part, size=5, sha256=sha256), b"45").returncode == 0
    assert os.listdir(tmp_path / "in") == ["t1.tar.gz"] and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert (tmp_path / "in" / "t1.tar.gz").read_bytes() == b"12345"


@pytest.mark.parametrize(
    ("data", "options"),
    [(b"4", {"size": 5}), (b"", {"size": 5}), (b"4x", {"size": 5, "sha256": hashlib.sha256(b"12345").hexdigest()})],
    ids=["cut off", "nothing came", "something else came"],
)
def test_what_is_cut_off_or_wrong_leaves_nothing(tmp_path, data, options):
    path, part = str(tmp_path / "in" / "t1.tar.gz"), ".incoming.image.1a"
    host(take(path, part, size=3, room=5), b"123")
    assert host(take(path, part, **options), data).returncode != 0 and os.listdir(tmp_path / "in") == []


def test_without_room_for_the_whole_nothing_is_sent(tmp_path):
    done = host(take(str(tmp_path / "in" / "t1.tar.gz"), ".incoming.image.1a", size=3, room=1 << 60), b"123")
    assert done.returncode != 0 and b"No space left on device" in done.stderr and os.listdir(tmp_path / "in") == []


def test_what_a_killed_run_left_goes_and_what_another_sends_stays(tmp_path):
    (tmp_path / ".incoming.image.dead").write_text("1")
    os.utime(tmp_path / ".incoming.image.dead", (1, 1))
    (tmp_path / ".incoming.image.live").write_text("1")
    (tmp_path / ".incoming.x").write_text("1")
    os.utime(tmp_path / ".incoming.x", (1, 1))
    host(take(str(tmp_path / "t1.tar.gz"), ".incoming.image.1a", size=1, room=1), b"1")
    assert sorted(os.listdir(tmp_path)) == [".incoming.image.1a", ".incoming.image.live", ".incoming.x"]
