# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure provision.yml, site.yml and deploy.yml against what any tool needs for the same: `make bench`.

All runs of one call alternate on one machine, so that a ratio compares neighbours. Nothing here fails because of time: what noise cannot
touch (remote executions, apt transactions) is a gate elsewhere, in the tests.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from . import releases
from .host import HERE, ROOT, Bench, write
from .report import (
    DEPLOY,
    EMPTY,
    FLOOR,
    FRESH_PROVISION,
    FRESH_SCRIPT,
    NAMES,
    PING,
    PROVISION,
    SITE,
    UNCHANGED_DEPLOY,
    Measurement,
    differences,
    lines,
    ratios,
)

OUTPUT = ROOT / "tests" / "output"


def say(words: str) -> None:
    """Tell the person who waits."""
    print(f"bench: {words}", file=sys.stderr, flush=True)


def make_script(bench: Bench) -> bytes:
    """Provision a host unmeasured (it also fills the package cache), and make the script of what came out."""
    say("provisioning the model, which is not measured")
    bench.fresh()
    before = bench.look()
    bench.mark()
    bench.play(ROOT / "playbooks" / "provision.yml")
    return bench.payload(before)


def measure_fresh(bench: Bench, measured: dict[str, Measurement], payload: bytes, rounds: int) -> int | None:
    """Alternate the two ways on fresh hosts; return what provision.yml would still change where the script ran."""
    difference = None
    for number in range(1, rounds + 1):
        say(f"fresh hosts, round {number} of {rounds}")
        bench.fresh()
        measured[FRESH_SCRIPT].seconds.append(bench.run_script(payload))
        measured[FRESH_SCRIPT].transactions = bench.transactions()
        if difference is None:
            difference = bench.play(ROOT / "playbooks" / "provision.yml", "--check", "--diff", "-v").changed
        bench.fresh()
        ended = bench.play(ROOT / "playbooks" / "provision.yml")
        one = measured[FRESH_PROVISION]
        one.seconds.append(ended.seconds)
        one.executions, one.changed, one.transactions = ended.executions, ended.changed, bench.transactions()
    return difference


def measure_unchanged(bench: Bench, measured: dict[str, Measurement], rounds: int) -> None:
    """Alternate a ping and the unchanged playbooks on the host that stands."""
    say("deploying the stub, then unchanged runs")
    bench.play(ROOT / "site.yml")
    playbooks = {
        EMPTY: HERE / "empty.yml",
        PING: HERE / "ping.yml",
        PROVISION: ROOT / "playbooks" / "provision.yml",
        UNCHANGED_DEPLOY: ROOT / "playbooks" / "deploy.yml",
        SITE: ROOT / "site.yml",
    }
    for _round in range(rounds):
        for name, playbook in playbooks.items():
            ended = bench.play(playbook)
            measured[name].seconds.append(ended.seconds)
            measured[name].executions, measured[name].changed = ended.executions, ended.changed


def measure_releases(bench: Bench, measured: dict[str, Measurement], rounds: int) -> None:
    """Alternate a new release by hand and by deploy.yml, of an app that needs no build; each time only its code has changed."""
    say("new releases of code alone")
    phases = []
    with releases.Source(bench) as source:
        source.deploy()
        for _round in range(rounds):
            source.change()
            measured[FLOOR].seconds.append(source.by_hand())
            ended = source.deploy()
            measured[DEPLOY].seconds.append(ended.seconds)
            measured[DEPLOY].executions, measured[DEPLOY].changed = ended.executions, ended.changed
            phases.append(releases.phases(ended.output))
    measured[DEPLOY].phases = releases.median(phases)


def main(arguments: list[str]) -> int:
    """Measure, print, write tests/output/bench.json."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--fresh-rounds", type=int, default=2, help="pairs of fresh hosts (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="unchanged runs of each kind (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the host standing")
    chosen = parser.parse_args(arguments)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log = OUTPUT / "bench.log"
    log.unlink(missing_ok=True)
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    measured = {name: Measurement() for name in NAMES}
    bench = Bench(log)
    try:
        difference = measure_fresh(bench, measured, make_script(bench), chosen.fresh_rounds)
        measure_unchanged(bench, measured, chosen.rounds)
        measure_releases(bench, measured, chosen.rounds)
    finally:
        if not chosen.keep:
            bench.lab.down()
    print("\n".join(lines(measured, load=load, cores=cores, difference=difference)))
    write(
        OUTPUT / "bench.json",
        {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "load": round(load, 2),
            "cores": cores,
            "measured": {name: one.as_dict() for name, one in measured.items()},
            "ratios": ratios(measured),
            "differences": differences(measured),
            "still_to_change_after_script": difference,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
