# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that the controller builds and sends: built nowhere else, sent once, and nothing happens on the host where they cannot be built or are cut off."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

from .conftest import RUNTIME, kill, until
from .fault import made_good, refused

pytestmark = [pytest.mark.fault, pytest.mark.skipif(RUNTIME != "compose", reason="PM2 has no images")]

REPOSITORY = "anchorage-controller/alpha"
INCOMING = "/srv/alpha/incoming"
#: What a deploy may change on a host.
EVERYTHING = (
    "cd /; ls -lAR srv/alpha/incoming srv/alpha/builds srv/alpha/releases srv/alpha/work var/lib/anchorage/alpha/log; "
    "sha256sum var/lib/anchorage/alpha/journal.json etc/anchorage/apps/alpha.json; docker image ls --no-trunc --quiet | sort -u"
)


@pytest.fixture(scope="module", autouse=True)
def builder():
    """This machine's own Docker, which is left as it was."""
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    if subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode and int(re.search(r"(\d+)\.", version)[1]) >= 23:
        pytest.skip("the Docker of this machine has no buildx")
    yield
    names = subprocess.run(
        ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", REPOSITORY], capture_output=True, text=True, check=True
    ).stdout.split()
    if names:
        subprocess.run(["docker", "image", "rm", *names], capture_output=True, check=True)


def wish(shop, build_on="controller", **switches):
    """Ask for a release that nobody saw before."""
    shop.apps.app("alpha", **switches)
    place(shop, build_on)


def place(shop, build_on):
    """Let the image be built somewhere."""
    app = shop.apps.apps["alpha"]
    shop.apps.apps["alpha"] = {**app, "image": {**app["image"], "build_on": build_on}}
    shop.apps.write()


def staged(host):
    """What the last step that staged a release said."""
    return host.shell('cat "$(ls /var/lib/anchorage/alpha/log/*-stage.log | tail -n 1)"')


def test_an_image_of_the_controller_serves(shop):
    host = shop.host
    wish(shop)
    before = host.shell(EVERYTHING)
    assert shop.apps.deploy("--check").changed > 0 and host.shell(EVERYTHING) == before, "nothing is built to tell what would be"
    serving = made_good(shop)
    said = staged(host)
    assert f"load {REPOSITORY}:" in said and not re.search(r"\| #\d+ ", said), "the host itself built nothing"
    assert host.shell(f"docker image ls --quiet {REPOSITORY}").strip() == ""
    assert all(name.endswith(".tar") for name in host.shell(f"ls -A {INCOMING}").split())
    assert shop.apps.deploy().changed == 0
    place(shop, "host")
    shop.apps.deploy()
    now = host.serving()
    assert (now.live, now.pid) == (serving.live, serving.pid), "where it is built is no part of a release"

    # What somebody removed comes from the controller again, which has it still.
    place(shop, "controller")
    wish(shop)
    last = made_good(shop)
    image = host.shell("docker inspect --format '{{.Image}}' alpha-server-" + last.slot).strip()
    assert len(set(host.shell("docker image ls --no-trunc --format '{{.ID}}' anchorage/alpha").split())) > 1, "each source has an image of its own"
    shop.apps.run("rollback", "-e", "app=alpha")
    until(lambda: last.live != host.serving().live, "the release before")
    host.shell(f"docker image rm --force {image}")
    again = shop.apps.deploy()
    assert "has anchorage-controller/alpha:" in again.output and host.serving().live == last.live


def test_a_build_that_fails_on_the_controller(shop):
    wish(shop, build="fail")
    before = shop.host.shell(EVERYTHING)
    words = ("'node build.js' of alpha failed after", "with code 1", "error TS2322")
    refused(shop, *words, broke="the image of alpha, on the controller", next_step="Mend the source or the registry")
    assert shop.host.shell(EVERYTHING) == before
    wish(shop)
    made_good(shop)


def without_docker(directory: pathlib.Path) -> str:
    """Return a PATH with all that this one has, but for docker."""
    places = []
    for number, path in enumerate(os.environ["PATH"].split(":")):
        if os.path.exists(f"{path}/docker"):
            own = directory / str(number)
            own.mkdir()
            for name in os.listdir(path):
                if name != "docker":
                    (own / name).symlink_to(f"{path}/{name}")
            path = str(own)
        places.append(path)
    return ":".join(places)


def test_a_controller_without_docker(shop, tmp_path):
    host = shop.host
    wish(shop)
    before, serving = host.shell(EVERYTHING), host.serving()
    ended = shop.apps.deploy(rc=None, PATH=without_docker(tmp_path))
    message = re.sub(r"\s+", " ", ended.output.replace("\\n", " "))
    for word in ("there is no docker", "Broke: the image of alpha, on the controller", f"Live now: alpha release {serving.live}", "image.build_on: host"):
        assert word in message, ended.output[-4000:]
    assert host.shell(EVERYTHING) == before and host.serving() == serving
    made_good(shop)


def test_an_image_that_is_cut_off_on_its_way(shop):
    host = shop.host
    wish(shop)
    serving = host.serving()
    deploy = shop.apps.start("deploy")
    until(lambda: host.shell(f"find {INCOMING} -name '.incoming.image.*' -size +8M"), "the image on its way", seconds=300)
    kill(deploy)
    assert host.serving() == serving and not host.shell(f"ls {INCOMING} | grep image || true")
    # One that was cut off between two pieces lies there until it is old.
    host.shell(f"find {INCOMING} -name '.incoming.image.*' -exec touch -d '1 hour ago' {{}} +")
    made_good(shop)
    assert all(name.endswith(".tar") for name in host.shell(f"ls -A {INCOMING}").split())
