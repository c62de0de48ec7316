# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run validators on a tree that holds the new files, before anything of the host's own tree is touched.

A child process gets a private mount namespace, lays an overlay over each top-level directory that changes, installs
the new files there and runs the commands. The overlay lives in a tmpfs that only the child sees and ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import typing as t

from .errors import AnchorageError
from .host_state_tree import Entry, Transaction, Tree
from .world import World

_CLONE_NEWNS = 0x00020000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_STAGE = "/run/anchorage/stage"
_OUTPUT_LIMIT = 4000


class Unstageable(Exception):
    """No overlay can be had here."""


def _call(name: str, *arguments: t.Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise Unstageable(f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if part is None else part.encode() for part in (source, target, kind)]
    _call("mount", *encoded, ctypes.c_ulong(flags), None if data is None else data.encode())


def overlay_roots(paths: t.Iterable[str]) -> list[str]:
    """Return the top-level directories that hold these paths once links on the way are followed."""
    tops = set()
    for path in paths:
        real = os.path.realpath(os.path.dirname(path))
        if real == "/":
            raise Unstageable("a path lies in / itself")
        tops.add("/" + real.split("/")[1])
    return sorted(tops)


def submounts(mountinfo: str, top: str) -> list[str]:
    """Return the mount points below a directory, outermost first (an overlay on the directory would hide them)."""
    points = [line.split(" ")[4] for line in mountinfo.splitlines() if line.count(" ") > 4]
    decoded = [point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\") for point in points]
    return sorted({point for point in decoded if point.startswith(top + "/")})


def _lay_over(top: str, index: int, mountinfo: str) -> None:
    base = f"{_STAGE}/{index}"
    os.makedirs(f"{base}/upper")
    os.makedirs(f"{base}/work")
    status = os.stat(top)
    os.chown(f"{base}/upper", status.st_uid, status.st_gid)
    os.chmod(f"{base}/upper", status.st_mode & 0o7777)
    kept = []
    for number, point in enumerate(submounts(mountinfo, top)):
        if point.startswith(_STAGE):
            continue
        keep = f"{base}/keep{number}"
        if os.path.isdir(point):
            os.mkdir(keep)
        else:
            os.close(os.open(keep, os.O_CREAT | os.O_WRONLY, 0o600))
        _mount(point, keep, None, _MS_BIND | _MS_REC)
        kept.append((keep, point))
    _mount("overlay", top, "overlay", 0, f"lowerdir={top},upperdir={base}/upper,workdir={base}/work")
    for keep, point in kept:
        _mount(keep, point, None, _MS_BIND | _MS_REC)


def _child(entries: t.Sequence[Entry], contents: t.Mapping[str, bytes], validators: t.Sequence[dict[str, t.Any]]) -> dict[str, t.Any]:
    try:
        tops = overlay_roots(entry["path"] for entry in entries)
        os.makedirs(_STAGE, mode=0o700, exist_ok=True)
        _call("unshare", _CLONE_NEWNS)
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", _STAGE, "tmpfs", 0, "mode=0700")
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            mountinfo = stream.read()
        for index, top in enumerate(tops):
            _lay_over(top, index, mountinfo)
    except (Unstageable, OSError) as error:
        return {"unstageable": str(error)}
    transaction = Transaction(Tree(), lenient=True)
    transaction.prepare(entries, contents)
    transaction.install(entries)
    return {"verdicts": run_validators(validators, World())}


def run_validators(validators: t.Sequence[dict[str, t.Any]], world: World) -> list[dict[str, t.Any]]:
    """Run validators in the tree that is visible now and return those that failed."""
    failed = []
    for validator in validators:
        done = world.run(validator["command"], timeout=120)
        if done.rc != 0:
            output = "\n".join(part.strip() for part in (done.stdout, done.stderr) if part.strip())
            failed.append({"name": validator["name"], "command": validator["command"], "rc": done.rc, "output": output[-_OUTPUT_LIMIT:]})
    return failed


def validate_staged(entries: t.Sequence[Entry], contents: t.Mapping[str, bytes], validators: t.Sequence[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return the validators that fail on the staged tree; raise ``Unstageable`` where there can be none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            try:
                answer = _child(entries, contents, validators)
            except (AnchorageError, OSError) as error:
                answer = {"error": str(error)}
            with os.fdopen(writer, "w", encoding="utf-8") as stream:
                json.dump(answer, stream)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise AnchorageError("the process that validates the staged files died", live="nothing was changed")
    answer = json.loads(text)
    if "unstageable" in answer:
        raise Unstageable(answer["unstageable"])
    if "error" in answer:
        raise AnchorageError(f"the staged files could not be laid out: {answer['error']}", live="every file is as it was")
    return answer["verdicts"]
