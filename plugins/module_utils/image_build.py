# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the image that a release of a Compose app stands on: built on this host from the source or sent by the controller, which has
built it there, or pulled by its digest.

The image is known by its id from then on. Beside it lie, as the tree of the release, its manifest and the files that the schema is made from.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tarfile
import typing as t

from . import compose_project, forecast, room
from .compose_runtime import Compose, client
from .errors import AnchorageError
from .image_context import Context, failed
from .release_plan import built_elsewhere, image_platform
from .room import MANIFEST, Amount
from .tree_build import Builder, checksums, make_shared, replace_directory, sync_tree
from .world import fsync_directory

#: What the Engine's disk needs at least for a build whose size nobody knows yet.
FIRST_BUILD = Amount(512 * room.MIB, 20_000)


class ImageBuilder(Builder):
    """Builds, loads or pulls one image."""

    def build(self) -> None:
        """Do it."""
        runtime = Compose(self.app)
        runtime.require()
        place = self.place = runtime.docker("info", "--format={{.DockerRootDir}}").stdout.strip() or "/var/lib/docker"
        room.require(place, self._need(runtime), f"The image of {self.app.name}")
        try:
            with room.guarded(place, self.work):
                image: str
                key: str | None = None
                if self.app.document["source"]["kind"] == "image":
                    with self.app.timed("pull"):
                        image = self._pull(runtime)
                elif built_elsewhere(self.app.document):
                    with self.app.timed("load"):
                        image = self._load(runtime)
                else:
                    self._fresh_work_directory()
                    with self.app.timed("fetch"):
                        self._fetch()
                    with self.app.timed("build"):
                        image, key = self._build_image()
                with self.app.timed("keep"):
                    self._keep(runtime, image, key)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)
            # Also what could not be loaded: the next run sends it again, and until then its room is free.
            self.app.world.remove(self.app.layout.image(self.tree))

    def _need(self, runtime: Compose) -> Amount:
        """Return what the Engine's disk needs: for what the build writes on the way, and for the image."""
        if built_elsewhere(self.app.document):
            return Amount(2 * room.unpacked(self._arrived()).bytes, 20_000)
        live = self.app.journal.data.get("tree")
        known = live and self.app.world.exists(f"{self.app.layout.build(live)}/{MANIFEST}")
        done = runtime.docker("image", "inspect", "--format={{.Size}}", runtime.image(live), check=False) if known else None
        return Amount(2 * int(done.stdout), 20_000) if done is not None and done.rc == 0 else FIRST_BUILD

    def _arrived(self) -> str:
        """Return the file with the image that the controller has sent.

        :raises AnchorageError: when there is none.
        """
        path = self.app.layout.image(self.tree)
        if not self.app.world.exists(path):
            raise AnchorageError(
                f"The image of {self.app.name} (tree {self.tree}) did not reach this host ({path} is missing).",
                next_step=f"Run deploy.yml, which builds it on the controller and sends it, or set apps.{self.app.name}.image.build_on: host.",
            )
        return path

    def _pull(self, runtime: Compose) -> str:
        source = self.app.document["source"]
        reference = f"{source['image']}@{source['digest']}"
        self.log.say(f"{self.app.name}: pull {reference}")
        self._client("pull", "--quiet", reference, what="pull", seconds=1800)
        image = runtime.docker("image", "inspect", "--format={{.Id}}", reference).stdout.strip()
        # From here on it has a name of ours; that of the registry would keep it for ever.
        self._tag(runtime, image)
        runtime.docker("image", "rm", reference, check=False)
        return image

    def _tag(self, runtime: Compose, image: str) -> None:
        runtime.docker("tag", image, f"{compose_project.repository(self.app.name)}:{self.tree}")

    def _build_image(self) -> tuple[str, str | None]:
        """Build from the source. Returns the image's id and the dependencies' name."""
        context = Context(self.app.document, self.app.world, self.work, extra_ca_file=self.app.extra_ca_file)
        words, key = context.prepare()
        tag = f"{compose_project.repository(self.app.name)}:{self.tree}"
        self._client("build", *words, f"--tag={tag}", context.root, what="build", seconds=self.app.document["build"]["timeout_seconds"])
        return context.image(), key

    def _load(self, runtime: Compose) -> str:
        """Take the image that the controller has built and sent."""
        name = compose_project.delivered(self.app.name, self.tree, image_platform(self.app.world.machine()))
        self.log.say(f"{self.app.name}: load {name}")
        self._client("load", "--quiet", f"--input={self.app.layout.image(self.tree)}", what="load", seconds=1800)
        done = runtime.docker("image", "inspect", "--format={{.Id}}", name, check=False)
        if done.rc != 0:
            raise AnchorageError(f"What the controller sent of {self.app.name} holds no {name}.", next_step="Run deploy.yml again, which sends the image anew.")
        image = done.stdout.strip()
        self._tag(runtime, image)
        runtime.docker("image", "rm", name, check=False)
        return image

    def _client(self, *argv: str, what: str, seconds: int) -> None:
        """Follow a command of the Engine's client. What it builds ends with it.

        :raises AnchorageError: when it fails.
        """
        began = self.app.world.monotonic()
        rc = self.app.world.stream(client(*argv), self.log.command, timeout=seconds)
        if rc == 0:
            return
        took = self.app.world.monotonic() - began
        raise failed(self.app.document, self.log.tail, rc, what=what, seconds=seconds, took=took)

    def _keep(self, runtime: Compose, image: str, key: str | None) -> None:
        """Give the tree its name: a directory with the manifest, and with those files of the image that the schema is made from."""
        user, layout = pwd.getpwnam(self.app.user), self.app.layout
        built = layout.build(self.tree)
        staging = f"{built}.new"
        shutil.rmtree(staging, ignore_errors=True)
        output = os.path.normpath(f"{staging}/{self.app.document['build']['output']}")
        os.makedirs(output)
        self._tag(runtime, image)
        # The Engine's files may be on a disk of their own: layers must be there before a manifest says so.
        sync_tree(self.app, self.place)
        if (self.app.document.get("migrate") or {}).get("files"):
            self._extract(runtime, image, output)
        make_shared(self.app)
        self._own(staging, user.pw_gid)
        manifest = {"tree": self.tree, "source": self.source_id, "dependencies": key, "image": image, "files": checksums(staging)}
        self.app.world.write_atomic(f"{staging}/{MANIFEST}", json.dumps(manifest, sort_keys=True).encode(), mode=0o640, uid=0, gid=user.pw_gid)
        sync_tree(self.app, staging)
        replace_directory(self.app.world, staging, built)
        fsync_directory(os.path.dirname(built))
        self.log.say(f"{self.app.name}: tree {self.tree} is image {image[:19]}")

    def _extract(self, runtime: Compose, image: str, target: str) -> None:
        """Copy those files out of the image that the contract names, without starting anything of it."""
        container = f"anchorage-{self.app.name}-look"
        runtime.docker("rm", "--force", container, check=False)
        runtime.docker("create", f"--name={container}", "--network=none", image, "none")
        source = f"{container}:{self.app.document['image']['directory']}/."
        try:
            with self.app.world.output(client("cp", source, "-")) as copy, tarfile.open(fileobj=copy.stdout, mode="r|") as bundle:
                for member in bundle:
                    path = os.path.normpath(member.name)
                    if member.isreg() and not path.startswith(("..", "/")) and forecast.wanted(self.app.document, path):
                        self._copy(bundle, member, f"{target}/{path}")
            good = copy.returncode == 0
        except tarfile.TarError:
            good = False
        finally:
            runtime.docker("rm", "--force", container, check=False)
        if not good:
            raise AnchorageError(
                f"The image {image[:19]} of {self.app.name} has no directory {self.app.document['image']['directory']} that could be read.",
                next_step=f"Set apps.{self.app.name}.image.directory to where the app lies in it (WORKDIR of its Dockerfile).",
            )

    def _copy(self, bundle: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            shutil.copyfileobj(t.cast("t.IO[bytes]", bundle.extractfile(member)), stream)
