# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is built from and with, and what is said of a build that failed: the same on a host and on the controller."""

from __future__ import annotations

import hashlib
import os
import typing as t

from . import compose_project, dockerfile
from .errors import AnchorageError
from .release_plan import digest, package_manager
from .tree_build import package_json
from .world import World

Data = dict[str, t.Any]

#: Names in the work directory that are ours and no part of the source.
DOCKERFILE, IDFILE = ".anchorage.Dockerfile", ".anchorage.image"

MEND_BUILD = "Mend the source or the registry (the last lines are above)"
MEND = {"load": "See what the Engine says (the last lines are above; journalctl -u docker -n 50)"}


class Context:
    """A source that lies unpacked in a directory.

    :arg work: that directory; the package lies in it where the contract says.
    :arg extra_ca_file: the authorities that its commands trust besides their own, on this machine; empty for none.
    """

    def __init__(self, document: Data, world: World, work: str, *, extra_ca_file: str) -> None:
        self.document = document
        self.world = world
        self.root = os.path.normpath(f"{work}/{document['source'].get('subdir') or '.'}")
        self.idfile = f"{work}/{IDFILE}"
        self.extra_ca_file = extra_ca_file

    def prepare(self) -> tuple[list[str], str | None]:
        """Choose the source's own Dockerfile, or write the one that fits such a source.

        :returns: what the client is told besides the image's name, and the name of the dependencies where we know it.
        :raises AnchorageError: when the source lacks what it takes.
        """
        document, names = self.document, os.listdir(self.root)
        name, own, key = document["name"], document["image"]["dockerfile"], None
        if own:
            if not os.path.isfile(f"{self.root}/{own}"):
                raise AnchorageError(f"The source of {name} has no {own}.", next_step=f"Set apps.{name}.image.dockerfile to its path, or leave it out.")
            path = f"{self.root}/{own}"
        else:
            manifest = package_json(self.world, self.root, document)
            manager = package_manager(document["package_manager"], manifest, names)
            version = str(manifest.get("packageManager") or "").partition("@")[2] or ("1." if manager == "yarn" and ".yarnrc.yml" not in names else "4.")
            text = dockerfile.render(document, manager=manager, version=version, names=names, extra_ca=bool(self.extra_ca_file))
            path = f"{self.root}/{DOCKERFILE}"
            _write(path, text)
            _write(f"{path}.dockerignore", dockerfile.ignored(document))
            files = [file for file in dockerfile.MANIFESTS if file in names]
            key = digest({file: hashlib.sha256(self.world.read(f"{self.root}/{file}") or b"").hexdigest() for file in files})
        _renew_times(self.root)
        secret = [f"--secret=id={dockerfile.SECRET},src={self.extra_ca_file}"] if self.extra_ca_file else []
        arguments = [f"--build-arg={name}={value}" for name, value in sorted(document["image"]["build_args"].items())]
        labels = [f"--label={compose_project.APP}={name}"]
        return ["--progress=plain", f"--file={path}", f"--iidfile={self.idfile}", *labels, *arguments, *secret], key

    def image(self) -> str:
        """Return the id of what was built."""
        return (self.world.read(self.idfile) or b"").decode().strip()


def _renew_times(directory: str) -> None:
    """Give every file the time of now.

    BuildKit takes a file of the same size and the same time as in an earlier build from a directory of that name for the same file, and builds the
    earlier one (seen with two releases that differed in one digit). A source has no times of its own. Layers are found by contents all the same.
    """
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            os.utime(f"{parent}/{name}", follow_symlinks=False)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def failed(document: Data, lines: t.Sequence[str], rc: int, *, what: str, seconds: int, took: float) -> AnchorageError:
    """Return why a command of the client failed.

    :arg lines: the end of what it printed.
    :arg seconds: after which it was stopped, where rc is 124.
    """
    name = document["name"]
    found = dockerfile.failure(lines)
    if found and found.no_output:
        output = document["build"]["output"]
        return AnchorageError(
            f"The build of {name} ended well but left no '{output}'.", next_step=f"Set apps.{name}.build.output to the directory that the build writes."
        )
    command, code = (found.command, found.code) if found else (f"docker {what}", rc)
    why = f": it was stopped after {seconds} s" if rc == 124 else "" if found else _last_error(lines)
    return AnchorageError(
        f"'{command}' of {name} failed after {took:.0f} s with code {code}{why}.",
        what=f"step stage of {name}",
        next_step=f"{MEND.get(what, MEND_BUILD)} and run deploy.yml again; nothing that runs was touched.",
        output=list(lines[-15:]),
    )


def _last_error(lines: t.Sequence[str]) -> str:
    found = next((line.strip(" |") for line in reversed(lines) if "error" in line.lower()), "")
    return f": {found[:300].rstrip('.')}" if found else ""
