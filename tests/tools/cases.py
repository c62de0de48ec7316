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
    """A command that must end with 0 in time; with a JUnit file it counts for as many tests as that names."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    place: pathlib.Path = ROOT
    timeout_seconds: int = 1800
    junit: str | None = None


def junit_tally(text: str) -> Tally:
    """Read the counts out of a JUnit report."""
    total = Tally()
    for suite in xml.etree.ElementTree.fromstring(text).iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total += Tally(tests - failed - skipped, failed, skipped)
    return total


def verdict(code: int, report: str | None) -> Tally:
    """Judge a finished command: its report counts, but a bad exit code never counts as passed."""
    if report is None:
        return Tally(passed=1) if code == 0 else Tally(failed=1)
    tally = junit_tally(report)
    if code and not tally.failed:
        return tally + Tally(failed=1)
    return tally


def run(case: Case, log: typing.BinaryIO) -> Tally:
    """Run one case into the log; its whole process group goes when its time is over."""
    report = OUTPUT / case.junit if case.junit else None
    if report:
        report.unlink(missing_ok=True)
    log.write(f"\n==== {case.name}: {' '.join(case.argv)}\n".encode())
    log.flush()
    process = subprocess.Popen(
        case.argv, cwd=case.place, env={**os.environ, **case.environment}, stdin=subprocess.DEVNULL,
        stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(timeout=case.timeout_seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        log.write(f"==== {case.name}: stopped after {case.timeout_seconds} s\n".encode())
        code = 124
    if report and not report.exists():
        return Tally(failed=1)
    return verdict(code, report.read_text() if report else None)
