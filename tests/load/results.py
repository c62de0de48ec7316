# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a load test: one for each release or rollback, written as it ends, and what they come to."""

from __future__ import annotations

import collections
import json
import pathlib
import typing as t

#: What is to be done under load: three releases that the host builds, the others prebuilt, and a way back after every fourth.
BUILT, PREBUILT, ROLLBACK, UPGRADE = "release built on the host", "release from a prebuilt archive", "rollback", "rolling upgrade"
RELEASES, BUILT_NUMBERS, ROLLBACK_AFTER = 20, (3, 11, 19), (4, 8, 12, 16, 20)

#: What the test asks for.
LEAST_REQUESTS = 100_000


def plan() -> list[str]:
    """Return what is done, in order."""
    found = []
    for number in range(1, RELEASES + 1):
        found.append(BUILT if number in BUILT_NUMBERS else PREBUILT)
        if number in ROLLBACK_AFTER:
            found.append(ROLLBACK)
    return found


def fleet_plan() -> list[str]:
    """Return what is done with several hosts, in order: ten releases, and three upgrades of all hosts between them."""
    return [what for number in range(1, 11) for what in (PREBUILT, *([UPGRADE] if number % 3 == 0 else []))]


class Results:
    """The file that a load test goes on from."""

    def __init__(self, path: pathlib.Path, test: str, planned: t.Sequence[str]) -> None:
        self.path, self.test, self.planned = path, test, planned
        self.lines: list[dict[str, t.Any]] = json.loads(path.read_text())["lines"] if path.exists() else []

    def next(self) -> tuple[int, str] | None:
        """Return the number and the kind of what is to be done next: the first entry of the plan that has not succeeded yet."""
        done = sum(1 for line in self.lines if line["ok"])
        return (done + 1, self.planned[done]) if done < len(self.planned) else None

    def add(self, line: dict[str, t.Any]) -> None:
        """Write a line down."""
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"test": self.test, **self.totals(), "lines": self.lines}, indent=1) + "\n")

    def totals(self) -> dict[str, t.Any]:
        """Return what all lines come to. Every line counts, those of releases that failed too."""
        failures: collections.Counter[str] = collections.Counter()
        kinds: collections.Counter[str] = collections.Counter()
        for line in self.lines:
            failures.update(line["failures"])
            kinds.update(line["by_request"])
        longest = max(self.lines, key=lambda line: line["longest_seconds"], default={"longest_seconds": 0, "longest_request": ""})
        watched = sum(line["watched_seconds"] for line in self.lines)
        jobs = {key: sum(line["jobs"][key] for line in self.lines if line["jobs"]) for key in ("sent", "done", "lost", "repeated")}
        good = collections.Counter(line["what"] for line in self.lines if line["ok"])
        sums = {"requests": sum(line["requests"] for line in self.lines), "failed": sum(line["failed"] for line in self.lines)}
        return {
            "commits": sorted({line["commit"] for line in self.lines}),
            "began_at": self.lines[0]["at"] if self.lines else None,
            "ended_at": self.lines[-1]["at"] if self.lines else None,
            "done": dict(good),
            "failed_runs": sum(1 for line in self.lines if not line["ok"]),
            **sums,
            "failures": dict(failures),
            "by_request": dict(sorted(kinds.items())),
            "longest_seconds": longest["longest_seconds"],
            "longest_request": longest["longest_request"],
            "share_of_time_in_playbooks": round(sum(line["seconds"] for line in self.lines) / watched, 2) if watched else 0,
            "jobs": jobs if any(line["jobs"] for line in self.lines) else None,
            "complete": self.next() is None,
            "reached": self.next() is None and sums["requests"] >= LEAST_REQUESTS and not sums["failed"] and not jobs["lost"],
        }


def table(results: Results) -> list[str]:
    """Return the lines as people read them."""
    told = [f"{'':<32} {'requests':>9} {'failed':>7} {'longest':>8} {'seconds':>8}  jobs sent/done/lost"]
    for line in results.lines:
        jobs = "/".join(str(line["jobs"][key]) for key in ("sent", "done", "lost")) if line["jobs"] else ""
        what = line["what"] if line["ok"] else f"{line['what']} FAILED"
        told.append(f"{what:<32} {line['requests']:>9} {line['failed']:>7} {line['longest_seconds']:>8.2f} {line['seconds']:>8.1f}  {jobs}")
    totals = results.totals()
    jobs = totals["jobs"]
    told.append(f"{'all':<32} {totals['requests']:>9} {totals['failed']:>7} {totals['longest_seconds']:>8.2f}" + (f"  jobs {jobs}" if jobs else ""))
    if totals["failures"]:
        told.append(f"failures: {totals['failures']}")
    told.append("reached" if totals["reached"] else "complete, but not reached" if totals["complete"] else "not complete yet: run it again to go on")
    return told
