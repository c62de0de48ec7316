# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two deploys of one app at once: one wins, the other meets its lock, says whose it is and leaves."""

from __future__ import annotations

import getpass
import os
import random
import re
import time

import pytest

from .conftest import ROOT, results_of
from .controller_faults import Run, Trial
from .trials import Results

TRIALS = results_of("two-deploys")
SAMPLE = ROOT / "tests" / "output" / "two-deploys-sample.json"
TITLE = "Two deploys of different releases of one app, the second one started 0 to 500 ms after the first"

#: Seconds from the start of the task that meets the lock to the end of its run, on a machine with nothing else to do.
LEAVES_WITHIN = 5

#: Who works on it since when, as the refusal says.
REFUSAL = re.compile(r"Another step works on alpha: (\w+) of release (\w+), started by (\S+) (\d+) s ago in anchorage-alpha\.service")


@pytest.fixture(scope="module")
def trial(vps, tmp_path_factory):
    """The host, with a contract of these tests' own."""
    return Trial(vps.host, vps.apps.copy(), tmp_path_factory.mktemp("runs"))


def two_at_once(trial, number, offset, seed):
    """Start two deploys; return the causes for which that went wrong, and its figures."""
    host, before, clean = trial.host, trial.host.serving(), trial.look()
    directory = trial.directory / f"at-once-{number}"
    directory.mkdir()
    other = Trial(host, trial.apps.copy(), directory)
    for name, contract in (("one", trial), ("other", other)):
        contract.wish(build="slow:2", version=f"{name}-{number}-{time.time_ns()}")
        contract.apps.apps["alpha"]["env"] = {"GREETING": name}
        contract.apps.write()
    runs = {"one": Run(host, trial.apps, directory / "one", "deploy")}
    time.sleep(offset)
    runs["other"] = Run(host, other.apps, directory / "other", "deploy")
    left, end = {}, time.monotonic() + 300
    while len(left) < len(runs) and time.monotonic() < end:
        left |= {name: time.time() for name, run in runs.items() if name not in left and run.process.poll() is not None}
        time.sleep(0.02)
    stretched = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    ended = {name: run.end() for name, run in runs.items()}
    winners = [name for name, end in ended.items() if end.rc == 0]
    if len(winners) != 1:
        return [f"{len(winners)} of two won: {[end.output[-1500:] for end in ended.values()]}"], {"offset_ms": round(offset * 1000)}
    (winner,) = winners
    (loser,) = set(runs) - {winner}
    met = runs[loser].tasks()[-1]
    facts = {
        "offset_ms": round(offset * 1000),
        "seed": seed,
        "winner": winner,
        "met": met["key"],
        "left_after_seconds": round(left[loser] - met["at"], 2),
        "whole_run_of_the_loser_seconds": round(left[loser] - runs[loser].started, 2),
    }
    causes = judge_loser(host, ended[loser].output, facts["left_after_seconds"], LEAVES_WITHIN * stretched)
    if left[loser] > left[winner]:
        causes.append("the loser waited for the winner")
    after = host.serving()
    try:
        after.check()
    except AssertionError as error:
        causes.append(f"no release is wholly live: {error!r}")
    if host.public()["greeting"] != winner or after.live == before.live:
        causes.append(f"the release of {host.public()['greeting']} is live, the winner is {winner}")
    if host.runs(after.live) != 1 or not host.marked(after.live):
        causes.append(f"the migration of {after.live} was run {host.runs(after.live)} times")
    now = trial.look(ask=True)
    if not (now["free"] and now["settled"]):
        causes.append("the lock is not free, or a switch is open")
    again = {"one": trial, "other": other}[winner]._run("deploy").end()
    if (again.rc, again.changed) != (0, 0):
        causes.append(f"the winner's next run ended with {again.rc} and changed={again.changed}: {again.output[-1500:]}")
    if host.serving() != after:
        causes.append("the winner's next run changed what serves")
    now = trial.look()
    causes += [f"left behind: {path}" for path in now["files"] if path not in clean["files"]]
    causes += [f"left running: {words}" for words in [*now["orphans"], *now["units"]]]
    trial.apps.live.update({"one": trial, "other": other}[winner].apps.apps)
    return causes, facts


def judge_loser(host, output, seconds, at_most):
    """The loser said who works since when on which release, and left soon."""
    causes = []
    found = REFUSAL.search(output)
    if not found:
        return [f"the loser did not say who works: {output[-1500:]}"]
    step, release, owner, age = found.groups()
    if release not in host.journal()["releases"] or not owner.startswith(f"{getpass.getuser()}@") or int(age) > 120:
        causes.append(f"the loser named {step} of {release} by {owner}, {age} s old")
    if seconds > at_most:
        causes.append(f"the loser left {seconds} s after its task began, at most {at_most:.1f} s are enough")
    return causes


def run_trials(trial, number, results, again=False):
    """Run trials that have not passed yet, as long as there is time."""
    names = {f"trial {index:02}": index for index in range(1, number + 1)}
    todo = [name for name in names if again or not results.has_passed(name)]
    for index, name in enumerate(todo):
        if results.out_of_time():
            pytest.skip(f"{len(todo) - index} of {number} trials are left for the next run")
        seed = int(os.environ.get("ANCHORAGE_SEED") or random.randrange(10**6))
        causes, facts = two_at_once(trial, f"{names[name]}-{seed}", random.Random(seed + names[name]).uniform(0, 0.5), seed)
        results.add(name, causes, **facts)
        print(f"{'failed' if causes else 'passed'}: {name} {facts} {causes}", flush=True)
    failed = results.failures(names)
    assert not failed, "\n".join(failed)


def test_of_two_deploys_at_once_one_wins_and_the_other_leaves_soon_and_says_why(trial):
    run_trials(trial, 1, Results(SAMPLE, TITLE), again=True)


@pytest.mark.fault
def test_of_two_deploys_at_once_one_wins_fifty_times(trial):
    run_trials(trial, 50, Results(TRIALS, TITLE))
