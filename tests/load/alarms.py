# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a healthy host while visitors use its real shop: `python -m tests.load.alarms`. Whatever is red is a false alarm."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import subprocess
import sys
import time
import typing as t

from .__main__ import commit, say
from .client import Visitors
from .ground import ROOT
from .subjects import SUBJECTS, Subject

RESULTS = ROOT / "tests" / "results" / "alarms.json"
LOOKS = 200


def look(subject: Subject) -> dict[str, t.Any]:
    """Ask the host once how it is, as its timer does."""
    argv = ["docker", "exec", subject.ground.container, "anchorage", "health", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return t.cast("dict[str, t.Any]", json.loads(done.stdout))


def causes(found: dict[str, t.Any]) -> list[str]:
    """Return what is not green, in the words that a person gets."""
    return [f"{part['grade']}: {part['message']}" for part in found["parts"] if part["grade"] != "green"]


def stand(subject: Subject) -> None:
    """Bring the shop up, where it is not."""
    if not subject.ground.stand() or not subject.ground.inventory.exists():
        say("no release yet: the first one")
        subject.ground.want(subject.built(0))
    first = subject.ground.play("site")
    if first.rc:
        raise SystemExit(f"load: site.yml ended with {first.rc}:\n{first.output[-4000:]}")


def watch(looks: int, share: float) -> dict[str, t.Any]:
    """Let visitors in, and look again and again.

    :arg share: of the rate at which releases are tried.
    """
    subject = SUBJECTS["shop"]()
    stand(subject)
    site = subject.ground.site()
    subject.prepare(site)
    visitors = Visitors(site, [dataclasses.replace(kind, per_second=kind.per_second * share) for kind in subject.kinds()])
    visitors.start()
    time.sleep(10)
    grades: collections.Counter[str] = collections.Counter()
    told: collections.Counter[str] = collections.Counter()
    seconds = []
    busy, had = subject.ground.busy()
    began = time.monotonic()
    for number in range(looks):
        found = look(subject)
        grades[found["grade"]] += 1
        told.update({cause.partition(" (")[0][:160] for cause in causes(found)})
        seconds.append(found["seconds"])
        if found["grade"] == "red" or (number + 1) % 20 == 0:
            say(f"{number + 1} of {looks}: {dict(grades)} {causes(found)}")
        time.sleep(0.5)
    lasted = time.monotonic() - began
    busy_now, had_now = subject.ground.busy()
    visitors.stop()
    seen = visitors.count.take()
    return {
        "what": "looks at a healthy host (anchorage health) while visitors use its real shop; whatever is red is a false alarm",
        "commit": commit(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "looks": looks,
        "grades": dict(sorted(grades.items())),
        "causes": dict(told.most_common(10)),
        "median_seconds": sorted(seconds)[len(seconds) // 2],
        "longest_seconds": max(seconds),
        "watched_seconds": round(lasted),
        "requests": seen["requests"],
        "failed_requests": seen["failed"],
        "by_request": seen["by_request"],
        "cores_busy": round((busy_now - busy) / (had_now - had), 2),
    }


def main(arguments: list[str]) -> int:
    """Read the command line; the number of looks that were red is the code, and 1 where visitors were none or were failed."""
    parser = argparse.ArgumentParser(prog="alarms", description=__doc__.partition(":")[0])
    parser.add_argument("--looks", type=int, default=LOOKS)
    parser.add_argument("--share", type=float, default=1.0, help="of the rate at which releases are tried (%(default)s)")
    chosen = parser.parse_args(arguments)
    result = watch(chosen.looks, chosen.share)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return min(100, result["grades"].get("red", 0)) or int(not result["requests"] or bool(result["failed_requests"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
