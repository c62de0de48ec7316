# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of an app, built by the controller's own Docker for the platform of the host that needs it. Never runs on a host.

The client is the user's own, with his environment: his context, his logins, his builder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import typing as t
import zlib

from . import source_tree
from .app import Log
from .compose_project import delivered, delivered_repository
from .encoders import shell_word
from .errors import AnchorageError
from .image_context import Context, failed
from .release_plan import tree_id, version_tuple
from .tree_build import unpack
from .world import World

Data = dict[str, t.Any]

PLATFORM = re.compile(r"linux/[a-z0-9_]+(?:/v[0-9]+)?")

#: Without attestations an image is one manifest, which every Engine loads. A client before 23 has a BuildKit of its own, which makes none.
BUILDX = ("docker", "buildx", "build", "--load", "--provenance=false")
BUILTIN = ("env", "DOCKER_BUILDKIT=1", "docker", "build")
OWN_BUILDKIT_BEFORE = (23,)

#: Bytes of the compressed image that are sent at once, and so held in memory.
PIECE = 8 << 20

#: Images of an app that the controller keeps, so that what failed on its way, or a host that lost it, does not cost a build.
KEEP = 3

#: Minutes after which what nobody goes on to send is what a killed run left.
STALE_MINUTES = 10

#: Takes one piece of a file from standard input. What is cut off meanwhile, or is not what was sent, goes; the last piece brings the file its name.
TAKE = (
    "umask 077; mkdir -p {directory} && cd {directory} || exit 1; trap 'rm -f {part}' EXIT; trap 'exit 1' HUP INT TERM; "
    '{first}cat >> {part} && [ "$(stat -c %s {part})" = {size} ]{last} && trap - EXIT'
)
FIRST = (
    "find . -maxdepth 1 -name '{pattern}' -mmin +{stale} -delete; have=$(df --output=avail -B1 . | tail -n 1); "
    '[ "$have" -ge {room} ] || {{ echo "No space left on device for it: {room} bytes, and $have are free" >&2; exit 1; }}; '
)
LAST = ' && echo "{sha256}  {part}" | sha256sum --check --status && sync {part} && mv -f {part} {name}'


def take(path: str, part: str, *, size: int, room: int | None = None, sha256: str | None = None) -> str:
    """Return the shell command that takes the next piece of a file.

    :arg part: what the file is called until it is whole.
    :arg size: what it has with this piece.
    :arg room: with the first piece, what the whole takes at most.
    :arg sha256: with the last piece, that of the whole.
    """
    directory, name = os.path.split(path)
    pattern = f"{part.rpartition('.')[0]}.*"
    first = "" if room is None else FIRST.format(pattern=pattern, stale=STALE_MINUTES, room=room)
    last = "" if sha256 is None else LAST.format(sha256=sha256, part=part, name=shell_word(name))
    return TAKE.format(directory=shell_word(directory), part=part, size=size, first=first, last=last)


@contextlib.contextmanager
def alone(path: str) -> t.Iterator[None]:
    """Let one process at a time build, whichever host it builds for: the others find what it has built. The kernel frees the lock with its owner."""
    with open(path, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class ControllerImage:
    """One image of one app.

    :arg source_id: the checksum of the source that it is made from.
    :arg platform: what the host says of itself, which is all that is taken from it.
    :arg shared: a directory that all runs of this user have in common.
    :arg scratch: a directory for what goes with this run.
    """

    def __init__(self, document: Data, source_id: str, platform: str, world: World, log: Log, *, shared: str, scratch: str) -> None:
        if not PLATFORM.fullmatch(platform):
            raise AnchorageError(f"The host calls its platform {platform!r}, which is none.", what=f"the image of {document['name']}, on the controller")
        self.app = str(document["name"])
        self.document = document
        self.name = delivered(self.app, tree_id(document, source_id, ""), platform)
        self.platform = platform
        self.source_id = source_id
        self.world = world
        self.log = log
        self.shared = shared
        self.scratch = scratch

    def make(self, source: str) -> int:
        """Build it, unless it is here already.

        :arg source: the directory or archive.
        :returns: its size in bytes.
        :raises AnchorageError: when it cannot be built. No host was touched.
        """
        own, build = self._engine()
        with alone(f"{self.shared}/anchorage-{self.app}.lock"):
            size = self._size()
            if size is None:
                try:
                    with tempfile.TemporaryDirectory(prefix="anchorage-", dir=self.scratch) as place:
                        self._build(build, self._unpack(source, place), own)
                except OSError as error:
                    raise self._error(
                        f"The source of {self.app} cannot be laid out on the controller: {error}.", f"See {self.scratch} and {source}."
                    ) from error
                self._forget_old()
                size = self._size()
            else:
                self.log.say(f"{self.app}: the controller has {self.name} already")
        if size is None:
            raise self._error(f"The controller has built {self.name}, and its Docker does not know it.", "docker image ls; docker buildx ls")
        return size

    def _error(self, message: str, next_step: str) -> AnchorageError:
        return AnchorageError(message, what=f"the image of {self.app}, on the controller", next_step=next_step)

    def _engine(self) -> tuple[str, tuple[str, ...]]:
        """Return the platform of the controller's Engine, and the command that builds with BuildKit."""
        otherwise = f"or set apps.{self.app}.image.build_on: host, and run deploy.yml again"
        done = self.world.run(["docker", "version", "--format={{.Client.Version}} {{.Server.Os}}/{{.Server.Arch}}"], timeout=60)
        if done.rc == 127:
            raise self._error(
                f"The image of {self.app} is to be built on the controller, and there is no docker (nothing of that name in PATH).",
                f"Install Docker with buildx on the controller, {otherwise}.",
            )
        if done.rc != 0:
            said = (done.stderr.strip() or done.stdout.strip() or f"code {done.rc}").splitlines()[-1][:300].rstrip(".")
            raise self._error(
                f"The image of {self.app} is to be built on the controller, and its Docker does not answer: {said}",
                f"Start it and see that this user may talk to it (docker version), {otherwise}.",
            )
        version, _blank, own = done.stdout.strip().partition(" ")
        if self.world.run(["docker", "buildx", "version"], timeout=60).rc == 0:
            return own, BUILDX
        if version_tuple(version) >= OWN_BUILDKIT_BEFORE:
            raise self._error(
                f"The image of {self.app} is to be built on the controller, and its Docker has no BuildKit ('docker buildx version' fails).",
                f"Install the plugin buildx on the controller (package docker-buildx, or docker-buildx-plugin of Docker's own), {otherwise}.",
            )
        return own, BUILTIN

    def _size(self) -> int | None:
        done = self.world.run(["docker", "image", "inspect", "--format={{.Size}}", self.name], timeout=60)
        return int(done.stdout) if done.rc == 0 else None

    def _unpack(self, source: str, place: str) -> str:
        """Lay the source out as a host would."""
        archive, work = source, f"{place}/source"
        os.mkdir(work)
        if os.path.isdir(source):
            archive = f"{place}/source.tar"
            with open(archive, "wb") as stream:
                source_tree.pack(source, stream)
        unpack(archive, work)
        # The image is known by the source's checksum, so it must be of that source.
        if self.source_id != (source_tree.checksum(source) if os.path.isdir(source) else source_tree.file_checksum(source)):
            raise self._error(f"The source of {self.app} ({source}) was changed while it was read.", "Run deploy.yml again.")
        # The modes of directories are whoever unpacks them's.
        for directory, _names, _files in os.walk(work):
            os.chmod(directory, 0o750)
        return work

    def _build(self, build: tuple[str, ...], work: str, own: str) -> None:
        authorities = self.document.get("extra_ca_file") or ""
        context = Context(self.document, self.world, work, extra_ca_file=authorities if os.path.isfile(authorities) else "")
        words, _key = context.prepare()
        seconds, began = self.document["build"]["timeout_seconds"], self.world.monotonic()
        self.log.say(f"{self.app}: build {self.name} for {self.platform} on the controller")
        argv = [*build, f"--platform={self.platform}", f"--tag={self.name}", *words, context.root]
        rc = self.world.stream(argv, self.log.command, timeout=seconds)
        took = self.world.monotonic() - began
        if rc == 0:
            self.log.say(f"{self.app}: the controller has built {self.name} in {took:.0f} s")
            return
        error = failed(self.document, self.log.tail, rc, what="build", seconds=seconds, took=took)
        error.what = f"the image of {self.app}, on the controller"
        if not self.platform.startswith(own):
            error.add(f"The controller's Docker is {own}, and the host needs {self.platform}.")
            error.next_step = (
                f"Mend what the last lines above say, or let the controller's Docker emulate {self.platform} (QEMU by binfmt_misc), "
                f"or set apps.{self.app}.image.build_on: host; then run deploy.yml again. Nothing that runs was touched."
            )
        raise error

    def _forget_old(self) -> None:
        """Remove the names of all images but the last ones. What BuildKit has cached stays its own business."""
        repository, tag = delivered_repository(self.app), self.name.rpartition(":")[2]
        # The newest comes first; one that came out of the cache has the age of the first of its kind.
        others = [word for word in self.world.run(["docker", "image", "ls", "--format={{.Tag}}", repository]).stdout.split() if word not in (tag, "<none>")]
        for old in others[KEEP - 1 :]:
            self.world.run(["docker", "image", "rm", f"{repository}:{old}"], timeout=120)

    def packed(self) -> t.Iterator[tuple[bytes, str | None]]:
        """Return it as a compressed archive in pieces, never empty; with the last one comes the SHA-256 of the whole.

        :raises AnchorageError: when it cannot be read to its end.
        """
        # As good as the best for layers, in a third of the time.
        packer, total, held = zlib.compressobj(4, zlib.DEFLATED, 16 + zlib.MAX_WBITS), hashlib.sha256(), bytearray()

        def pieces() -> t.Iterator[bytes]:
            while len(held) > PIECE:
                piece = bytes(held[:PIECE])
                del held[:PIECE]
                total.update(piece)
                yield piece

        with self.world.output(["docker", "save", self.name]) as saved:
            for block in iter(lambda: t.cast("t.IO[bytes]", saved.stdout).read(1 << 20), b""):
                held += packer.compress(block)
                for piece in pieces():
                    yield piece, None
        if saved.returncode != 0:
            raise self._error(
                f"'docker save {self.name}' failed on the controller with code {saved.returncode}.", "Run deploy.yml again; docker info says more."
            )
        held += packer.flush()
        for piece in pieces():
            yield piece, None
        total.update(held)
        yield bytes(held), total.hexdigest()
