# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run parts of the tests in order: `python -m tests.tools lint unit`."""

from __future__ import annotations

import collections
import os
import signal
import sys
import time

from . import cases, parts

TAIL_LINES = 60


def tail(path, lines: int) -> str:
    """Return the last lines of a log."""
    with path.open(errors="replace") as log:
        return "".join(collections.deque(log, lines))


def run_part(name: str) -> cases.Tally:
    """Run one part and tell how it went, with the end of the log where something failed."""
    total = cases.Tally()
    log_path = cases.OUTPUT / f"{name}.log"
    log_path.unlink(missing_ok=True)
    for case in parts.PARTS[name]():
        started = time.monotonic()
        with log_path.open("ab") as log:
            tally = cases.run(case, log)
        seconds = time.monotonic() - started
        counts = ", ".join(f"{count} {word}" for word, count in tally._asdict().items() if count) or "nothing ran"
        print(f"{name:<12} {case.name:<28} {seconds:6.0f} s  {counts}", flush=True)
        if tally.failed:
            print(tail(log_path, TAIL_LINES), flush=True)
        total += tally
    return total


def main(names: list[str]) -> int:
    """Run the named parts; 0 only where something ran and nothing failed."""
    unknown = [name for name in names if name not in parts.PARTS]
    if unknown or not names:
        print(f"unknown part {', '.join(unknown)}: there are {', '.join(parts.PARTS)}", file=sys.stderr)
        return 2
    # Whoever stops us stops the running case too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.chdir(cases.ROOT)
    cases.OUTPUT.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    total = sum(map(run_part, names), cases.Tally())
    print(f"{'all':<12} {'logs in tests/output':<28} {time.monotonic() - started:6.0f} s")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
