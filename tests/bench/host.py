# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fresh hosts of the lab, timed runs on them, and what they look like afterwards."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import typing

from ..lab.lab import Lab
from . import script

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).parent
NAME = "vps"
PLAYBOOK = f"{sysconfig.get_path('scripts')}/ansible-playbook"


class Ended(typing.NamedTuple):
    """A run that succeeded."""

    seconds: float
    executions: int
    changed: int
    output: str = ""


class Bench:
    """A lab with one host. The log takes all that the runs say."""

    def __init__(self, log: pathlib.Path) -> None:
        self.lab = Lab("bench")
        self.log = log

    def fresh(self) -> None:
        """Throw the host away and start another."""
        self.command("down", self.lab.name)
        self.command("up", self.lab.name, f"--host={NAME}:trixie:app,database,cache,proxy")

    @staticmethod
    def command(*words: str) -> None:
        """Give the lab a command."""
        subprocess.run([sys.executable, "-m", "tests.lab", *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)

    def ssh(self, command: str, given: bytes | None = None) -> bytes:
        """Run a command on the host as root, over SSH, and return what it printed."""
        argv = self.lab.ssh(self.lab.hosts()[0], command)
        done = subprocess.run(argv, input=given or b"", capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: '{command[:60]}' ended with {done.returncode}: {(done.stdout + done.stderr).decode(errors='replace')[-2000:]}")
        return done.stdout

    def look(self) -> script.Seen:
        """Ask the host what it has."""
        return script.answer(self.ssh(script.question()).decode())

    def transactions(self) -> int:
        """Count what apt did on the host."""
        return int(self.ssh("cat /var/log/apt/history.log* 2>/dev/null | grep --count ^Start-Date || true"))

    def play(self, playbook: pathlib.Path, *arguments: str) -> Ended:
        """Run a playbook with a login of its own, and count what it sends."""
        inventories = [f"--inventory={self.lab.directory / 'hosts.yml'}", f"--inventory={HERE / 'contract.yml'}"]
        with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as place:
            counts = pathlib.Path(place) / "counts"
            counts.touch()
            settings = {
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": place,
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "plugins" / "callback"),
                "ANSIBLE_CALLBACKS_ENABLED": "count_executions",
                "COUNT_EXECUTIONS": str(counts),
            }
            argv = [PLAYBOOK, *inventories, str(playbook), *arguments]
            started = time.monotonic()
            done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - started
            executions = sum(line.startswith("exec ") for line in counts.read_text().splitlines())
        with self.log.open("a") as log:
            log.write(f"==== {playbook.name} {' '.join(arguments)}: {seconds:.2f} s\n{done.stdout}{done.stderr}")
        if done.returncode:
            raise SystemExit(f"bench: {playbook.name} ended with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-1000:]}")
        changed = sum(map(int, re.findall(r"\bchanged=(\d+)", done.stdout.rpartition("PLAY RECAP")[2])))
        return Ended(round(seconds, 2), executions, changed, done.stdout)

    def mark(self) -> None:
        """From now on changed files are the roles'."""
        self.ssh(f"touch {script.MARKER} && sleep 1.1")

    def payload(self, before: script.Seen) -> bytes:
        """Pack the script with what it needs, out of a provisioned host."""
        after = self.look()
        with tempfile.TemporaryDirectory(prefix="anchorage-bench-") as place:
            there = pathlib.Path(place)
            (there / "script.sh").write_text(script.script(before, after))
            for name, text in script.lists(before, after).items():
                (there / name).write_text(text)
            (there / "files.tar.gz").write_bytes(self.ssh(script.collect_files()))
            (there / "databases.sql").write_bytes(self.ssh(script.DUMP))
            return subprocess.run(["tar", "--create", "--directory", place, "."], check=True, capture_output=True).stdout

    def run_script(self, payload: bytes) -> float:
        """Send the script and run it, as one login does; return the seconds."""
        started = time.monotonic()
        said = self.ssh("mkdir /root/bench && tar --extract --directory=/root/bench && sh /root/bench/script.sh 2>&1", payload)
        seconds = time.monotonic() - started
        with self.log.open("ab") as log:
            log.write(f"==== script: {seconds:.2f} s\n".encode() + said)
        return round(seconds, 2)


def write(path: pathlib.Path, data: dict) -> None:
    """Write the figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
