# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.health import (
    FAIL,
    OK,
    WARN,
    Check,
    Watch,
    answer,
    judge,
    judge_limit,
    poll,
    poll_options,
    poll_spec,
    verdict,
)
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld

GOOD = Check("answer")
BAD = Check("answer", FAIL, {"status": 503}, "status 503 came", "the log")


def script(*answers, cost=0.0, world=None):
    """Return a probe that gives these answers in turn, the last for ever; each costs time."""
    stream = itertools.chain(answers, itertools.repeat(answers[-1]))

    def probe(seconds):
        probe.budgets.append(seconds)
        if world is not None:
            world.clock += min(cost, seconds)
        return [next(stream)]

    probe.budgets = []
    return probe


def watch(*answers, deadline=10, interval=1, successes=1, cost=0.0):
    world = FakeWorld()
    probe = script(*answers, cost=cost, world=world)
    seen = poll(probe, world=world, deadline_seconds=deadline, interval_seconds=interval, successes=successes)
    return seen, world, probe


def test_a_healthy_first_probe_ends_the_watch_without_sleeping():
    seen, world, _probe = watch(GOOD)
    assert seen.healthy and seen.attempts == 1 and world.slept == []


def test_it_waits_until_the_service_becomes_healthy():
    seen, world, _probe = watch(BAD, BAD, GOOD)
    assert seen.healthy and seen.attempts == 3 and world.slept == [1, 1]


def test_it_gives_up_before_the_deadline_passes():
    seen, world, _probe = watch(BAD, deadline=10, interval=3)
    assert not seen.healthy
    assert world.clock - 1000 <= 10
    assert seen.attempts == 4


def test_a_slow_probe_is_told_how_much_time_is_left():
    _seen, _world, probe = watch(BAD, deadline=10, interval=1, cost=4)
    assert probe.budgets == [10, 5]


def test_a_probe_that_the_deadline_would_cut_short_is_not_begun():
    seen, world, probe = watch(BAD, deadline=10, interval=1, cost=3.5)
    assert probe.budgets == [10, 5.5] and seen.attempts == 2 and world.clock - 1000 <= 10


def test_a_row_that_never_began_is_no_further_cause():
    seen, _world, _probe = watch(BAD, successes=3)
    assert "in a row" not in verdict("The shop", seen, good="").message and not seen.checks[-1].healthy


def test_flapping_never_counts_as_a_row():
    seen, _world, _probe = watch(GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD, successes=2, deadline=9.5)
    steadiness = seen.checks[-1]
    assert not seen.healthy and steadiness.name == "steadiness"
    assert steadiness.evidence == {"wanted_in_a_row": 2, "longest_run": 1, "healthy_probes": 5, "probes": 10}


def test_a_failure_starts_the_row_anew():
    seen, _world, _probe = watch(GOOD, GOOD, BAD, GOOD, GOOD, GOOD, successes=3)
    assert seen.healthy and seen.attempts == 6


def test_a_deadline_in_the_middle_of_a_healthy_row_is_unhealthy():
    seen, _world, _probe = watch(BAD, BAD, BAD, GOOD, successes=3, deadline=4.5)
    assert seen.checks[0].healthy and not seen.healthy


def test_a_warning_is_healthy():
    seen, _world, _probe = watch(Check("memory", WARN, cause="memory is at 85 %"))
    found = verdict("Redis", seen, good="noeviction")
    assert found.healthy and found.grade == WARN and "memory is at 85 %" in found.summary


def test_the_message_says_what_was_seen_last_how_often_and_for_how_long():
    refused = Check("answer", FAIL, {}, "it refused the connection", "whether it runs")
    seen, _world, _probe = watch(refused, refused, BAD, deadline=6)
    found = verdict("The shop", seen, good="")
    assert "The shop is not healthy: status 503 came." in found.message
    assert "seen last and in 4 of 6 probes in 5.0 s" in found.message
    assert "before: it refused the connection (2 of 6 probes)" in found.message
    assert found.message.endswith("Look next at: the log.")


def test_the_message_of_flapping_names_the_last_failure():
    seen, _world, _probe = watch(BAD, GOOD, BAD, GOOD, successes=2, deadline=3.5)
    found = verdict("The shop", seen, good="")
    assert "only 1 of the wanted 2" in found.message and "status 503 came (2 of 4 probes)" in found.message


def test_each_check_says_how_often_it_was_asked():
    probes = iter([[BAD], [GOOD, Check("body")]])
    world = FakeWorld()
    seen = poll(lambda seconds: next(probes), world=world, deadline_seconds=10, interval_seconds=1, successes=1)
    assert [(check.name, check.attempts) for check in seen.checks] == [("answer", 2), ("body", 1)]


def test_the_result_is_plain_data():
    seen, _world, _probe = watch(BAD, deadline=0.5)
    result = verdict("The shop", seen, good="").as_result()
    assert result["changed"] is False and result["healthy"] is False
    assert set(result["checks"][0]) == {"name", "healthy", "verdict", "evidence", "cause", "attempts", "seconds"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(10, OK), (80, OK), (81, WARN), (95, WARN), (95.5, FAIL)],
)
def test_limits(value, wanted):
    assert judge_limit("memory", value, unit="%", subject="memory", warn=80, fail=95).verdict == wanted


def test_an_ignored_condition_is_ok_and_has_no_cause():
    check = judge("pending", False, cause="x", advice="y", severity="ignore")
    assert check.verdict == OK and check.cause == ""


@pytest.mark.parametrize("name", ["deadline_seconds", "interval_seconds", "successes", "timeout_seconds"])
def test_times_must_be_positive(name):
    params = {key: value["default"] for key, value in poll_spec(10, 5).items()}
    with pytest.raises(AnchorageError, match=name):
        poll_options({**params, name: 0})


def test_a_row_that_cannot_fit_into_the_deadline_is_refused():
    params = {key: value["default"] for key, value in poll_spec(10, 5).items()}
    with pytest.raises(AnchorageError, match="do not fit"):
        poll_options({**params, "successes": 12})


class Module:
    def __init__(self, fail):
        self.params = {"fail": fail}

    def exit_json(self, **result):
        raise SystemExit(("exit", result))

    def fail_json(self, msg, **result):
        raise SystemExit(("fail", {"msg": msg, **result}))


def ended(fail, ask):
    with pytest.raises(SystemExit) as stop:
        answer(Module(fail), ask)
    return stop.value.code


@pytest.mark.parametrize(("fail", "how"), [(True, "fail"), (False, "exit")])
def test_the_module_ends_by_the_verdict(fail, how):
    unhealthy = verdict("The shop", Watch((BAD,), 1, 0, 0, 1, 0.1, (("status 503 came", 1),)), good="")
    end, result = ended(fail, lambda: unhealthy)
    assert end == how and result["healthy"] is False and ("status 503" in result.get("msg", "")) == (how == "fail")


def test_a_question_without_sense_fails_even_when_verdicts_do_not():
    def ask():
        raise AnchorageError("The url is not valid.")

    end, result = ended(False, ask)
    assert end == "fail" and result == {"msg": "The url is not valid.", "healthy": False, "checks": [], "summary": "The url is not valid."}
