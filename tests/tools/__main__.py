# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run parts of the tests in order: `python -m tests.tools lint unit`."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import signal
import sys
import time
import typing

from . import cases, parts

TAIL_LINES = 60
#: How many cases may run at once: a case waits for hosts about as long as it computes.
LANES = int(os.environ.get("LANES") or 2)


def tail(path, lines: int) -> str:
    """Return the last lines of a log."""
    with path.open(errors="replace") as log:
        return "".join(collections.deque(log, lines))


Batch = list[list[tuple[str, cases.Case]]]


def batches(names: list[str], of: typing.Callable[[str], list[cases.Case]]) -> typing.Iterator[Batch]:
    """Yield the lanes that run side by side, batch after batch, in the order of the parts. What a part needs is installed when its turn comes."""
    lanes: dict[str, list[tuple[str, cases.Case]]] = {}
    for name in names:
        for case in of(name):
            if case.lane:
                lanes.setdefault(case.lane, []).append((name, case))
                continue
            if lanes:
                yield list(lanes.values())
                lanes = {}
            yield [[(name, case)]]
    if lanes:
        yield list(lanes.values())


def run_case(part: str, case: cases.Case, running: cases.Running) -> cases.Tally:
    """Run one case and tell how it went, with the end of its log where something failed."""
    log_path = cases.OUTPUT / (f"{part}.log" if case.lane in ("", part) else f"{part}-{case.lane}.log")
    started = time.monotonic()
    with log_path.open("ab") as log:
        tally = cases.run(case, log, running)
    seconds = time.monotonic() - started
    counts = ", ".join(f"{count} {word}" for word, count in tally._asdict().items() if count) or "nothing ran"
    lines = [f"{part:<12} {case.name:<28} {seconds:6.0f} s  {counts}"]
    if tally.failed:
        lines.append(tail(log_path, TAIL_LINES))
    if tally.failed and case.report and case.report.exists():
        lines += [f"failed: {name}" for name in cases.failed_tests(case.report.read_text())]
    print("\n".join(lines), flush=True)
    return tally


def run_lanes(lanes: Batch, running: cases.Running) -> cases.Tally:
    """Run lanes side by side, as many as the machine bears."""

    def lane(row: list[tuple[str, cases.Case]]) -> cases.Tally:
        return sum((run_case(part, case, running) for part, case in row), cases.Tally())

    with concurrent.futures.ThreadPoolExecutor(max_workers=LANES) as pool:
        try:
            return sum(pool.map(lane, lanes), cases.Tally())
        except BaseException:
            running.stop()
            raise


def main(names: list[str]) -> int:
    """Run the named parts; 0 only where something ran and nothing failed."""
    unknown = [name for name in names if name not in parts.PARTS]
    if unknown or not names:
        print(f"unknown part {', '.join(unknown)}: there are {', '.join(parts.PARTS)}", file=sys.stderr)
        return 2
    # Whoever stops us stops the running cases too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.chdir(cases.ROOT)
    cases.OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        for log in cases.OUTPUT.glob(f"{name}*.log"):
            log.unlink()
    started, running, total = time.monotonic(), cases.Running(), cases.Tally()
    for lanes in batches(names, lambda name: parts.PARTS[name]()):
        total += run_lanes(lanes, running)
    print(f"{'all':<12} {'logs in tests/output':<28} {time.monotonic() - started:6.0f} s")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
