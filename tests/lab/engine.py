# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine: asked through its command line, started where this machine may do that."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import typing

from .errors import LabError

START_SECONDS = 90
#: Held by whoever makes what all labs of this machine share.
LOCK = pathlib.Path(tempfile.gettempdir()) / f"anchorage-lab-{os.geteuid()}.lock"
_held = threading.RLock()
_depth = 0
LOG = pathlib.Path(__file__).resolve().parents[2] / ".cache" / "lab" / "dockerd.log"


@contextlib.contextmanager
def one_at_a_time() -> typing.Iterator[None]:
    """Let no other lab of this machine make the same at once; whoever holds it may enter again."""
    global _depth  # pylint: disable=global-statement  # the lock is the process's own
    with _held, contextlib.ExitStack() as stack:
        if not _depth:
            lock = stack.enter_context(LOCK.open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def docker(*arguments: str, text: str | None = None, data: bytes | None = None, timeout: float | None = None) -> str:
    """Run one docker command and return what it printed; a failure is a LabError that says why."""
    given = data if data is not None else (text.encode() if text is not None else None)
    stdin = subprocess.DEVNULL if given is None else None
    done = subprocess.run(["docker", *arguments], input=given, stdin=stdin, capture_output=True, timeout=timeout, check=False)
    if done.returncode:
        raise LabError(f"docker {' '.join(arguments[:2])} failed ({done.returncode}): {cause((done.stderr or done.stdout).decode(errors='replace'))}")
    return done.stdout.decode(errors="replace")


def cause(said: str) -> str:
    """Pick the line that says why out of what docker printed: the daemon's own answer, else the last line."""
    lines = said.strip().splitlines() or ["nothing was said"]
    return next((line for line in lines if line.startswith("Error response from daemon")), lines[-1])


def answers(*arguments: str, timeout: float = 20) -> bool:
    """Say whether a docker command succeeds in time."""
    try:
        docker(*arguments, timeout=timeout)
    except (LabError, OSError, subprocess.TimeoutExpired):
        return False
    return True


def inspect(kind: str, *names: str) -> list[dict]:
    """Return the engine's records of the named objects."""
    return json.loads(docker(kind, "inspect", *names)) if names else []


def cgroup_version() -> str:
    """Tell which cgroup version the engine's machine runs ("1" or "2")."""
    return docker("info", "--format", "{{.CgroupVersion}}").strip() or "1"


def is_root_debian() -> bool:
    """Say whether this machine may install packages by itself."""
    return os.geteuid() == 0 and pathlib.Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def install(*packages: str) -> None:
    """Install Debian packages on this machine."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", "-o", "DPkg::Lock::Timeout=300", *command], env=environment, capture_output=True, check=False)
        if done.returncode:
            raise LabError(f"apt-get {command[0]} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")


@one_at_a_time()
def ensure(log: pathlib.Path = LOG) -> None:
    """Leave with an engine that answers, or say in one sentence what is missing."""
    if answers("info"):
        return
    if not is_root_debian():
        raise LabError(
            "No Docker daemon answers to `docker info`: start Docker and run this again "
            "(only as root on Debian can the lab install and start docker.io by itself)."
        )
    if not shutil.which("dockerd"):
        install("docker.io", "iptables", *([] if shutil.which("docker") else ["docker-cli"] if has_package("docker-cli") else []))
    start(log)
    deadline = time.monotonic() + START_SECONDS
    while not answers("info"):
        if time.monotonic() > deadline:
            raise LabError(f"dockerd did not answer within {START_SECONDS} s; its own words are in {log}.")
        time.sleep(1)


def has_package(name: str) -> bool:
    """Say whether apt knows a package (docker-cli is one of its own from trixie on)."""
    return bool(subprocess.run(["apt-cache", "show", name], capture_output=True, check=False).stdout)


def start(log: pathlib.Path) -> None:
    """Start dockerd: as a service where there is systemd, else in the background of its own session."""
    if pathlib.Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker.service"], check=False)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    # A daemon that died without its machine leaves its pid behind and would refuse to start.
    for stale in ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"):
        pathlib.Path(stale).unlink(missing_ok=True)
    with log.open("ab") as words:
        subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True)
