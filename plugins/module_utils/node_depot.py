# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world of the Node.js installer: the engine's world, plus downloads, archives and trees of files."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import tarfile
import tempfile
import typing as t
import urllib.error
import urllib.request

from .errors import AnchorageError
from .node_runtime import link_stays_inside, member_mode, member_target, public_address
from .world import World, fsync_directory

CHUNK = 1 << 20
LARGEST_DOWNLOAD = 512 << 20
LARGEST_DOCUMENT = 64 << 20


class Depot(World):
    """Downloads, archives and trees of files of the machine this runs on."""

    def __init__(self, *, ca_file: str = "") -> None:
        self._ca_file = ca_file

    def machine(self) -> str:
        """Return the name of the processor's architecture."""
        return os.uname().machine

    def realpath(self, path: str) -> str:
        """Return a path without links in it."""
        return os.path.realpath(path)

    def environment(self) -> dict[str, str]:
        """Return what a command needs to reach the network, and nothing else of this process."""
        wanted = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
        return {name: os.environ[name] for name in wanted if name in os.environ}

    def _open(self, url: str, accept: str) -> t.Any:
        try:
            context = ssl.create_default_context()
            if self._ca_file:
                context.load_verify_locations(self._ca_file)
            request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "anchorage.vps"})
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
            return opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            raise AnchorageError(f"{public_address(url)} answered {error.code}.") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AnchorageError(
                f"{public_address(url)} cannot be read: {reason}.",
                next_step="Check the address, the proxy, and nodejs_extra_ca_file where a private authority signs.",
            ) from error

    def document(self, url: str) -> dict[str, t.Any]:
        """Return a JSON document of a registry."""
        with self._open(url, "application/vnd.npm.install-v1+json, application/json;q=0.9") as answer:
            data = answer.read(LARGEST_DOCUMENT + 1)
        try:
            found = json.loads(data)
        except ValueError as error:
            raise AnchorageError(f"{public_address(url)} is no JSON document.") from error
        if not isinstance(found, dict):
            raise AnchorageError(f"{public_address(url)} is no registry document.")
        return found

    def download(self, url: str, path: str) -> None:
        """Write what an address holds to a file."""
        size = 0
        with self._open(url, "*/*") as answer, open(path, "wb") as stream:
            while True:
                try:
                    chunk = answer.read(CHUNK)
                except OSError as error:
                    raise AnchorageError(f"{public_address(url)} broke off after {size} bytes: {error}.") from error
                if not chunk:
                    break
                size += len(chunk)
                if size > LARGEST_DOWNLOAD:
                    raise AnchorageError(f"{public_address(url)} is larger than {LARGEST_DOWNLOAD >> 20} MiB.")
                stream.write(chunk)

    def chunks(self, path: str) -> t.Iterator[bytes]:
        """Return a file piece by piece."""
        with open(path, "rb") as stream:
            while True:
                chunk = stream.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def unpack(self, archive: str, directory: str, *, strip: int) -> None:
        """Unpack a tar archive below a directory; a member that would leave it refuses the whole archive."""
        inside: set[str] = set()
        try:
            with tarfile.open(archive, "r:*") as tar:
                for member in tar:
                    self._unpack_member(tar, member, directory, strip, inside)
        except (tarfile.TarError, EOFError) as error:
            raise AnchorageError(f"{os.path.basename(archive)} cannot be unpacked: {error}.") from error

    def _unpack_member(self, tar: tarfile.TarFile, member: tarfile.TarInfo, directory: str, strip: int, inside: set[str]) -> None:
        """Unpack one member.

        :arg inside: directories that were seen to lie inside; what exists is never replaced by a link, so once is enough.
        """
        target = member_target(member.name, strip)
        if target is None:
            return
        path = os.path.join(directory, target)
        above = os.path.dirname(path)
        if above not in inside:
            os.makedirs(above, mode=0o755, exist_ok=True)
            if not (os.path.realpath(above) + "/").startswith(os.path.realpath(directory) + "/"):
                raise AnchorageError(f"The archive has a member outside of itself: {member.name!r}.")
            inside.add(above)
        if member.isdir():
            os.makedirs(path, mode=0o755, exist_ok=True)
        elif member.issym():
            if not link_stays_inside(target, member.linkname):
                raise AnchorageError(f"The archive has a link out of itself: {member.name!r}.")
            os.symlink(member.linkname, path)
        elif member.isfile() or member.islnk():
            source = tar.extractfile(member)
            if source is None:
                raise AnchorageError(f"The archive's member {member.name!r} has no content.")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with source, os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
                shutil.copyfileobj(source, stream, CHUNK)
                os.fchmod(stream.fileno(), member_mode(member.mode))
        else:
            raise AnchorageError(f"The archive has a special file: {member.name!r}.")

    def staging(self, above: str) -> str:
        """Return a new empty directory in a directory that is made if need be."""
        os.makedirs(above, mode=0o755, exist_ok=True)
        path = tempfile.mkdtemp(prefix=".staging-", dir=above)
        os.chmod(path, 0o755)
        return path

    def mkdir(self, path: str) -> None:
        """Make a directory and those above it."""
        os.makedirs(path, mode=0o755, exist_ok=True)

    def executable(self, path: str) -> None:
        """Let everybody run a file."""
        os.chmod(path, 0o755)

    def commit(self, staging: str, path: str) -> None:
        """Give a finished tree its name, so that a power cut leaves all of it or nothing."""
        done = self.run(["sync", "-f", staging])
        if done.rc != 0:
            os.sync()
        above = os.path.dirname(path)
        os.makedirs(above, mode=0o755, exist_ok=True)
        broken = None
        if os.path.lexists(path):
            broken = tempfile.mkdtemp(prefix=".broken-", dir=above)
            os.rename(path, os.path.join(broken, "tree"))
        os.rename(staging, path)
        fsync_directory(above)
        if broken is not None:
            shutil.rmtree(broken, ignore_errors=True)

    def move(self, source: str, target: str) -> None:
        """Give a tree another name on the same file system."""
        os.rename(source, target)

    def remove(self, path: str) -> None:
        """Remove a tree, a file or a link."""
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)

    def link(self, path: str, target: str) -> None:
        """Point a link at a target; whoever reads it sees the old target or the new one."""
        above = os.path.dirname(path)
        temporary = os.path.join(above, f".{os.path.basename(path)}.new")
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(target, temporary)
        os.replace(temporary, path)
        fsync_directory(above)
