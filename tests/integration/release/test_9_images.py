# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that cannot be had: a registry that is down or refuses the login, a digest that it does not have, a broken Dockerfile, a full disk of the Engine's."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from ansible_collections.anchorage.vps.tests.lab import images
from ansible_collections.anchorage.vps.tests.lab.registry import DOCKERFILE, serve

from .conftest import ROOT, RUNTIME, STUB_APP, Apps, Host, Shop, Visitor
from .disk import Disk
from .fault import made_good, refused, runs_of

pytestmark = [pytest.mark.fault, pytest.mark.skipif(RUNTIME != "compose", reason="PM2 has no images")]

REGISTRY, NAME, USER, PASSWORD = "127.0.0.1:5005", "acme/alpha", "puller", "oQ3vN8rT5wZ1yB6m"

#: Prints who may come to it.
USERS = f"""perl -e 'print "{USER}:", crypt("@PASSWORD@", "\\$2b\\$05\\$abcdefghijklmnopqrstuu"), "\\n"'"""


class Registry:
    """Debian's docker-registry on the host, which wants a login."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self, password: str = PASSWORD) -> None:
        """Let it answer whoever knows the password."""
        self.host.shell(serve(REGISTRY, users=USERS.replace("@PASSWORD@", password)))

    def stop(self) -> None:
        """Let it be down."""
        self.host.shell("systemctl stop registry.service")

    def publish(self, source: str) -> str:
        """Build an image from a source on the controller, push it, forget it here. Returns its digest."""
        packed = subprocess.run(["tar", "-C", source, "-cf", "-", "."], capture_output=True, check=True).stdout
        container = self.host.facts["lab_container"]
        unpack = "rm -rf /tmp/image && mkdir /tmp/image && tar -C /tmp/image -xf -"
        subprocess.run(["docker", "exec", "-i", container, "sh", "-c", unpack], input=packed, check=True)
        self.host.shell("cat > /tmp/image/Dockerfile", given=DOCKERFILE)
        name = f"{REGISTRY}/{NAME}:next"
        self.host.shell(f"docker build --quiet --tag {name} /tmp/image")
        told = self.host.shell(f"docker push {name}")
        self.host.shell(f"docker image rm {name}")
        return re.search(r"digest: (sha256:[0-9a-f]{64})", told)[1]


@pytest.fixture(scope="module")
def registry(vps, tmp_path_factory):
    """A registry whose login provisioning has given to the host."""
    found = Registry(vps.host)
    found.start()
    login = tmp_path_factory.mktemp("login") / "vars.json"
    login.write_text(json.dumps({"docker_compose_registries": [{"registry": REGISTRY, "username": USER, "password": PASSWORD}]}))
    ended = vps.apps.run("provision", "-e", f"@{login}")
    assert PASSWORD not in ended.output
    yield found
    found.stop()


def wish(shop: Shop, digest: str) -> None:
    """Ask for an image that was built elsewhere."""
    app = {key: value for key, value in STUB_APP.items() if key not in ("build", "image")}
    source = {"image": f"{REGISTRY}/{NAME}", "digest": digest}
    shop.apps.apps["alpha"] = {**app, "source": source, "image": {"directory": "/app/dist"}, "domain": "alpha.localhost", "env": {}}
    shop.apps.write()


def pushed(shop: Shop, registry: Registry) -> str:
    """Publish a release that nobody saw before and ask for it. Returns its digest."""
    shop.apps.app("alpha")
    digest = registry.publish(shop.apps.apps["alpha"]["source"]["path"])
    wish(shop, digest)
    return digest


def test_a_release_is_pulled_by_its_digest_and_its_registry_is_not_needed_again(shop, registry):
    first = pushed(shop, registry)
    one = made_good(shop)
    pushed(shop, registry)
    made_good(shop)
    registry.stop()
    try:
        with Visitor(shop.host) as visitor:
            shop.apps.run("rollback", "-e", "app=alpha")
        visitor.check()
        assert shop.host.serving().live == one.live
        wish(shop, first)
        assert "pull" not in shop.apps.deploy().output and shop.host.serving().live == one.live, "what is here is not asked for again"
        assert shop.apps.deploy().changed == 0
    finally:
        registry.start()


def test_a_registry_that_is_down(shop, registry):
    pushed(shop, registry)
    before = runs_of(shop)
    registry.stop()
    try:
        refused(shop, "'docker pull' of alpha failed", "connection refused", broke="step stage of alpha", next_step="Mend the source or the registry")
    finally:
        registry.start()
    assert runs_of(shop) == before
    made_good(shop)


def test_a_login_that_the_registry_refuses(shop, registry):
    pushed(shop, registry)
    registry.stop()
    registry.start(password="another one")
    try:
        told = refused(shop, "'docker pull' of alpha failed", broke="step stage of alpha", next_step="Mend the source or the registry")
        assert PASSWORD not in told.message
    finally:
        registry.stop()
        registry.start()
    made_good(shop)


def test_a_digest_that_does_not_exist(shop, registry):
    pushed(shop, registry)
    good = shop.apps.apps["alpha"]["source"]["digest"]
    wish(shop, f"sha256:{'0' * 64}")
    refused(shop, "'docker pull' of alpha failed", "not found", broke="step stage of alpha", next_step="Mend the source or the registry")
    wish(shop, good)
    made_good(shop)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DOCKERFILE.replace("RUN node build.js", "RUN node no-such-file.js"), ("no-such-file.js", "failed after", "with code 1")),
        (DOCKERFILE.replace("COPY . .", "COPIE . ."), ("unknown instruction: COPIE",)),
        (DOCKERFILE.replace(images.STAND_INS["node"], "127.0.0.1:5005/acme/nothing:1"), ("acme/nothing",)),
        (None, ("has no Dockerfile.shop",)),
    ],
    ids=["a command fails", "no instruction", "no base", "not there"],
)
def test_a_broken_dockerfile(shop, registry, text, words):
    shop.apps.app("alpha", files={"Dockerfile.shop": text} if text else {})
    app = {key: value for key, value in shop.apps.apps["alpha"].items() if key != "build"}
    shop.apps.apps["alpha"] = {**app, "image": {"dockerfile": "Dockerfile.shop", "directory": "/app/dist"}}
    shop.apps.write()
    refused(shop, *words, broke="" if text is None else "step stage of alpha")
    assert shop.host.shell("docker ps --all --quiet --filter name=^anchorage-alpha").strip() == ""
    source = shop.apps.apps["alpha"]["source"]["path"]
    with open(f"{source}/Dockerfile.shop", "w", encoding="utf-8") as stream:
        stream.write(DOCKERFILE)
    made_good(shop)


# -- the Engine's disk


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Another host, whose Engine has a small disk to itself."""
    lab, name = "release-crowded", "vps"
    host = Host(lab, name)
    host.command("down", lab)
    host.command("up", lab, "--with-docker", f"--host={name}:trixie:app,database,cache,proxy")
    disk = Disk(host, "/var/lib/docker", tmp_path_factory.mktemp("disk") / "docker.img", mib=4096, inodes=262144)
    disk.mount()
    host.command("stand-ins", lab, name)
    apps = Apps(ROOT / ".cache" / "lab" / lab / "hosts.yml", tmp_path_factory.mktemp("contract"))
    apps.app("alpha")
    apps.run("site")
    yield Shop(host, apps), disk
    host.shell("systemctl stop docker.service docker.socket || true")
    host.command("down", lab)


def test_without_room_for_an_image_nothing_is_begun(crowded):
    shop, disk = crowded
    shop.apps.app("alpha")
    disk.fill(leave=100 << 20)
    before = runs_of(shop)
    refused(shop, "The image of alpha", "needs", broke="room on the disk", next_step="Make room in /var/lib/docker")
    disk.free()
    assert runs_of(shop) == before
    made_good(shop)


def test_a_build_that_fills_the_engines_disk(crowded):
    shop, disk = crowded
    shop.apps.app("alpha", build="fill")
    # More than it is known to need, and less than it takes.
    disk.fill(leave=1600 << 20)
    refused(shop, "'node build.js' of alpha failed", broke="step stage of alpha", next_step="Make room in /var/lib/docker")
    disk.free()
    shop.host.shell("docker builder prune --all --force >/dev/null")
    shop.apps.app("alpha")
    made_good(shop)
