# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One case of the test run: a command, its log, and what it counts for."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import threading
import typing
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests" / "output"


class Tally(typing.NamedTuple):
    """How many passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        """Sum two tallies field by field."""
        return Tally(*map(sum, zip(self, other)))


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that must end with 0 in time; with a JUnit file it counts for as many tests as that names.

    Cases of one lane run one after the other, beside those of another lane; a case without a lane has the machine for itself.
    """

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    place: pathlib.Path = ROOT
    timeout_seconds: int = 1800
    junit: str | None = None
    lane: str = ""

    @property
    def report(self) -> pathlib.Path | None:
        """Where its JUnit file comes to lie."""
        return OUTPUT / self.junit if self.junit else None


def junit_tally(text: str) -> Tally:
    """Read the counts out of a JUnit report."""
    total = Tally()
    for suite in xml.etree.ElementTree.fromstring(text).iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total += Tally(tests - failed - skipped, failed, skipped)
    return total


def failed_tests(text: str) -> list[str]:
    """Name the tests that a JUnit report holds as failed."""
    found = []
    for test in xml.etree.ElementTree.fromstring(text).iter("testcase"):
        if any(test.find(kind) is not None for kind in ("failure", "error")):
            found.append(f"{test.get('classname')}::{test.get('name')}")
    return found


def verdict(code: int, report: str | None) -> Tally:
    """Judge a finished command: its report counts, but a bad exit code never counts as passed."""
    if report is None:
        return Tally(passed=1) if code == 0 else Tally(failed=1)
    tally = junit_tally(report)
    if code and not tally.failed:
        return tally + Tally(failed=1)
    return tally


def end(process: subprocess.Popen) -> None:
    """End a case with everything that it started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


class Running:
    """The cases that run, so that whoever stops the tests stops them too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False

    def start(self, case: Case, log: typing.BinaryIO) -> subprocess.Popen:
        """Start a case, unless all was stopped."""
        with self._lock:
            if self._stopped:
                raise SystemExit("stopped")
            process = subprocess.Popen(
                case.argv, cwd=case.place, env={**os.environ, **case.environment}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            self._processes.add(process)
            return process

    def forget(self, process: subprocess.Popen) -> None:
        """Take a case that has ended off the list."""
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """Start nothing more, and end what runs."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                end(process)


def run(case: Case, log: typing.BinaryIO, running: Running | None = None) -> Tally:
    """Run one case into the log; its whole process group goes when its time is over."""
    running = running or Running()
    if case.report:
        case.report.unlink(missing_ok=True)
    log.write(f"\n==== {case.name}: {' '.join(case.argv)}\n".encode())
    log.flush()
    process = running.start(case, log)
    try:
        code = process.wait(timeout=case.timeout_seconds)
    except subprocess.TimeoutExpired:
        end(process)
        log.write(f"==== {case.name}: stopped after {case.timeout_seconds} s\n".encode())
        code = 124
    finally:
        running.forget(process)
    if case.report and not case.report.exists():
        return Tally(failed=1)
    return verdict(code, case.report.read_text() if case.report else None)
