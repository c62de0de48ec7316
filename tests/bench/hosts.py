# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure an unchanged site.yml with 1, 2, 4 and 8 hosts, in turns: `make bench-hosts`. Writes tests/results/hosts.json.

All hosts have the plain app; the first one has database, Redis and proxy besides. What is printed is the ratio to one host.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

from ..load.__main__ import commit
from ..load.ground import ROOT, Ground
from ..load.subjects import Plain

NUMBERS = (1, 2, 4, 8)
TARGET = 3.0
RESULTS = ROOT / "tests" / "results" / "hosts.json"


class Row(Ground):
    """Hosts of one app."""

    names = tuple(f"h{number}" for number in range(1, max(NUMBERS) + 1))

    @property
    def hosts(self) -> dict[str, str]:
        """The hosts by name, with the groups that each is in."""
        return {self.names[0]: "app,database,cache,proxy", **dict.fromkeys(self.names[1:], "app")}

    @property
    def entrance(self) -> str:
        """Name of the host that is the proxy."""
        return self.names[0]


class Many(Plain):
    """The plain app on all of them."""

    lab = "benchhosts"
    kind = Row


def main(arguments: list[str]) -> int:
    """Measure, print, write. Time is no gate: it ends with 0 unless a run failed or changed something."""
    parser = argparse.ArgumentParser(prog="bench.hosts", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs with each number of hosts (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts standing")
    chosen = parser.parse_args(arguments)
    subject = Many()
    ground = subject.ground
    seconds: dict[int, list[float]] = {number: [] for number in NUMBERS}
    try:
        ground.stand()
        ground.want(subject.built(1))
        for what in ("first", "second"):
            print(f"bench: the {what} run on {len(ground.hosts)} hosts, which is not measured", file=sys.stderr, flush=True)
            ended = ground.play("site")
            if ended.rc:
                raise SystemExit(f"bench: site.yml ended with {ended.rc}:\n{ended.output[-4000:]}")
        load = os.getloadavg()[0]
        for _round in range(chosen.rounds):
            for number in NUMBERS:
                ended = ground.play("site", "--limit", ",".join(ground.names[:number]))
                changed = [line for line in ended.output.rpartition("PLAY RECAP")[2].splitlines() if "changed=" in line and "changed=0" not in line]
                if ended.rc or changed:
                    raise SystemExit(f"bench: site.yml on {number} hosts ended with {ended.rc}, changed {changed}:\n{ended.output[-4000:]}")
                seconds[number].append(ended.seconds)
                print(f"bench: {number} hosts: {ended.seconds} s", file=sys.stderr, flush=True)
    finally:
        if not chosen.keep:
            ground.lab.down()
    one = statistics.median(seconds[1])
    ratios = {str(number): round(statistics.median(seconds[number]) / one, 2) for number in NUMBERS}
    found = {
        "test": "an unchanged site.yml, ratios of medians to one host",
        "commit": commit(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load, 2),
        "rounds": chosen.rounds,
        "ratios": ratios,
        "target_at_8": TARGET,
        "reached": ratios["8"] <= TARGET,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
