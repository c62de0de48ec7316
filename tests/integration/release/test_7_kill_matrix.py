# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill matrix: the controller is lost before each task and inside each long step, in three ways, and the plain re-run makes it good.

The tasks are those that a whole run starts, so a new one joins by itself. A sample runs with every test; 'make faults FAULT=kill' runs the rest.
"""

from __future__ import annotations

import itertools
import os
import random

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine

from .conftest import ROOT, results_of
from .controller_faults import MOMENTS, WAYS, Case, Trial, random_cases, steps_of
from .trials import Results

MATRIX = results_of("kill-matrix")
SAMPLE = ROOT / "tests" / "output" / "kill-sample.json"
TITLE = "Controller lost before each task and inside each long step; then a plain re-run, and a run that must change nothing"
PLAYBOOKS = ("deploy", "rollback")

#: Chooses the random points again: it is printed with each run.
SEED = "ANCHORAGE_SEED"
POINTS = {"deploy": 8, "rollback": 2}

#: How much of a whole deploy's time the random points are spread over: what was done is not done again, so a re-run is shorter than a run.
SHARE = {"deploy": 0.8, "rollback": 0.6}


@pytest.fixture(scope="module")
def trial(vps, tmp_path_factory):
    """The host, with a contract of these tests' own."""
    return Trial(vps.host, vps.apps.copy(), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole_run(trial):
    """Tells what a whole run of a playbook does. It is done once for each state of the engine, and kept with the results."""

    def tell(playbook, results):
        known = results.data.setdefault("whole_runs", {})
        if known.get(playbook, {}).get("engine") != results.digest:
            known[playbook] = {"engine": results.digest, **trial.whole_run(playbook)}
            results.save()
        return known[playbook]

    return tell


def run_all(trial, cases, results):
    """Run cases that have not passed yet, as long as there is time; fail with all that failed, skip where some are left."""
    left = []
    for case in cases:
        if results.has_passed(case.name):
            continue
        if results.out_of_time():
            left.append(case.name)
            continue
        causes, facts = trial.run(case)
        results.add(case.name, causes, **facts)
        print(f"{'failed' if causes else 'passed'}: {case.name} {facts} {causes}", flush=True)
    failed = results.failures(case.name for case in cases)
    assert not failed, "\n".join(failed)
    if left:
        pytest.skip(f"{len(left)} of {len(cases)} cases are left for the next run, the first: {left[0]}")


def long_steps():
    """Return each long step with the playbook that runs it."""
    return [(playbook, step) for playbook in PLAYBOOKS for step in steps_of(playbook)]


def test_each_long_step_of_the_engine_has_its_moments():
    assert set(MOMENTS) == {*engine.STEPS, engine.ROLLBACK} == {step for _playbook, step in long_steps()}


def run_row(trial, name, cases, results):
    """Lose the runs of one release one after the other; the last re-run makes all of it good."""
    causes, facts = trial.run(*cases)
    results.add(name, causes, lost_at=[case.name for case in cases], **facts)
    print(f"{name}: {facts}", *(case.name for case in cases), *causes, sep="\n  ", flush=True)
    assert not causes, "\n".join(causes)


def test_a_release_whose_run_is_lost_at_each_border_between_phases_is_made_good(trial, whole_run):
    """A phase begins with a task that starts a step, or tidies up after all."""
    results = Results(SAMPLE, TITLE)
    borders = whole_run("deploy", results)["steps"]
    assert len(borders) > len(engine.STEPS)
    run_row(trial, "borders", [Case("deploy", way, before=key) for key, way in zip(borders, itertools.cycle(WAYS), strict=False)], results)


def test_a_release_whose_run_is_lost_inside_each_long_step_is_made_good(trial):
    ways = itertools.cycle(("kill", "interrupt"))
    inside = [Case("deploy", way, inside=(step, "amidst")) for step, way in zip(steps_of("deploy"), ways, strict=False)]
    run_row(trial, "inside", inside, Results(SAMPLE, TITLE))


@pytest.mark.parametrize(("playbook", "points"), POINTS.items())
def test_a_run_that_is_lost_at_random_points_is_made_good(trial, whole_run, capsys, playbook, points):
    results, seed = Results(SAMPLE, TITLE), int(os.environ.get(SEED) or random.randrange(10**6))
    with capsys.disabled():
        print(f"\n{SEED}={seed} gives these points of {playbook}.yml again")
    seconds = whole_run("deploy", results)["seconds"] * SHARE[playbook]
    run_row(trial, f"random points of {playbook}.yml, seed {seed}", random_cases(playbook, seed, seconds, points), results)


@pytest.mark.fault
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("playbook", "step"), long_steps())
def test_a_run_that_is_lost_inside_a_long_step_is_made_good(trial, playbook, step, way):
    run_all(trial, [Case(playbook, way, inside=(step, moment)) for moment in MOMENTS[step]], Results(MATRIX, TITLE))


@pytest.mark.fault
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_run_that_is_lost_before_any_task_is_made_good(trial, whole_run, playbook, way):
    results = Results(MATRIX, TITLE)
    keys = whole_run(playbook, results)["tasks"]
    assert keys
    run_all(trial, [Case(playbook, way, before=key) for key in keys], results)
