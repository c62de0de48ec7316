# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load test counts every request once, whatever befalls it, and goes on where it was stopped."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from ansible_collections.anchorage.vps.tests.load import client, results
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils import health_fakes as stubs


def visit(behaviour, kind=None, times=1, patience=2.0):
    """Send some requests, one after the other, as one visitor; return what was counted and what the server saw."""
    stub = stubs.Stub(behaviour)
    kind = kind or client.Kind("GET", 1, "/")
    visitors = client.Visitors(client.Site(stub.port, "site.localhost"), [kind])

    async def go():
        connection = None
        for _number in range(times):
            connection = await visitors.one(kind, connection)

    before, client.PATIENCE = client.PATIENCE, patience
    try:
        asyncio.run(go())
    finally:
        client.PATIENCE = before
        stub.close()
    return visitors.count.take(), stub.calls


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (stubs.unavailable, "status 503"),
        (stubs.close_without_answer, "closed without an answer"),
        (stubs.reset, "connection reset"),
        (stubs.not_http, "not HTTP"),
        (stubs.json_truncated, "cut off"),
        (stubs.hang_at_once, "no answer in time"),
        (stubs.hang_after_headers, "no answer in time"),
        (lambda call: call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), "cut off"),
        (lambda call: call.send("HTTP/1.1 200 OK\r\nContent-Le"), "cut off"),
        (stubs.redirect_home, "status 301"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_way_to_fail_is_counted_once_and_never_repeated(behaviour, failure, method):
    seen, calls = visit(behaviour, client.Kind("one", 1, "/", method, b"body" if method == "POST" else b""))
    assert (seen["requests"], seen["failed"], seen["failures"]) == (1, 1, {failure: 1})
    assert len(calls) == 1 and seen["evidence"][0]["failure"] == failure


def test_a_refused_connection_is_a_failed_request():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        kind = client.Kind("one", 1, "/")
        visitors = client.Visitors(client.Site(unused.getsockname()[1], "site.localhost"), [kind])
        asyncio.run(visitors.one(kind, None))
    assert visitors.count.take()["failures"] == {"connection refused": 1}


def test_good_answers_of_all_forms_are_no_failures():
    answers = iter(
        [
            lambda call: call.answer(),
            lambda call: call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"),
            lambda call: call.send("HTTP/1.0 200 OK\r\n\r\nOK"),
        ]
    )

    def exact(answer):
        if answer.body != b"OK":
            raise client.Failure("wrong answer")

    def answer(call):
        return next(answers)(call)

    seen, _calls = visit(answer, client.Kind("one", 1, "/", kept=False, check=exact), times=3)
    assert (seen["requests"], seen["failed"]) == (3, 0)


def test_a_kept_connection_that_was_closed_meanwhile_is_a_failure_and_not_repeated():
    seen, calls = visit(lambda call: call.answer("200 OK", "OK", "Connection: keep-alive"), times=2)
    assert (seen["requests"], seen["failed"]) == (2, 1) and len(calls) == 1
    assert set(seen["failures"]) <= {"closed without an answer", "connection reset"}


def test_a_server_that_says_that_it_closes_is_left_in_time():
    seen, calls = visit(lambda call: call.answer("200 OK", "OK", "Connection: close"), times=3)
    assert (seen["requests"], seen["failed"], len(calls)) == (3, 0, 3)


def test_a_wrong_answer_of_the_right_status_is_a_failure():
    def check(answer):
        answer.json()

    seen, _calls = visit(stubs.default_site, client.Kind("one", 1, "/", check=check))
    assert seen["failures"] == {"wrong answer": 1}


def test_a_body_that_drips_arrives_whole():
    kind = client.Kind("one", 1, "/", "POST", b"x" * 1003, dripping=0.4)
    began = time.monotonic()
    seen, calls = visit(stubs.fine, kind)
    assert seen["failed"] == 0 and calls[0].endswith("x" * 1003)
    assert time.monotonic() - began >= 0.4 and seen["longest_seconds"] < 0.4, "what it takes on purpose is not told as waiting"


def test_visitors_keep_their_pace_and_leave_nothing_uncounted():
    stub = stubs.Stub(lambda call: (time.sleep(0.05), call.answer("200 OK", "OK", "Connection: close")))
    visitors = client.Visitors(client.Site(stub.port, "site.localhost"), [client.Kind("one", 40, "/", visitors=4)])
    visitors.start()
    time.sleep(1.5)
    visitors.stop()
    stub.close()
    seen = visitors.count.take()
    assert seen["requests"] == len(stub.calls) and not seen["failed"]
    assert 20 <= seen["requests"] <= 64


def line(**changes):
    """Return a line of a result."""
    jobs = {"sent": 5, "done": 5, "lost": 0, "repeated": 0}
    told = {"requests": 5000, "failed": 0, "failures": {}, "by_request": {"GET": 5000}, "longest_seconds": 0.3, "longest_request": "GET"}
    return {"ok": True, "what": results.PREBUILT, "commit": "abc", "at": "now", "seconds": 20, "watched_seconds": 25, "jobs": jobs, **told, **changes}


def test_the_plan_is_what_was_asked_for():
    plan = results.plan()
    assert (plan.count(results.BUILT), plan.count(results.PREBUILT), plan.count(results.ROLLBACK)) == (3, 17, 5)


def test_it_goes_on_where_it_was_stopped_and_forgets_nothing(tmp_path):
    path = tmp_path / "load.json"
    first = results.Results(path, "test", results.plan())
    assert first.next() == (1, results.PREBUILT)
    first.add(line())
    first.add(line(ok=False, failed=2, failures={"status 502": 2}))
    later = results.Results(path, "test", results.plan())
    assert later.next()[0] == 2, "what failed is done again"
    later.add(line())
    told = json.loads(path.read_text())
    assert (told["requests"], told["failed"], told["failures"], told["failed_runs"]) == (15000, 2, {"status 502": 2}, 1)
    assert told["jobs"] == {"sent": 15, "done": 15, "lost": 0, "repeated": 0} and not told["complete"]


@pytest.mark.parametrize(
    ("change", "reached"),
    [
        ({}, True),
        ({"failed": 1, "failures": {"cut off": 1}}, False),
        ({"jobs": {"sent": 5, "done": 4, "lost": 1, "repeated": 0}}, False),
        ({"requests": 10}, True),
    ],
)
def test_it_is_reached_only_without_any_failed_request_and_lost_job(tmp_path, change, reached):
    told = results.Results(tmp_path / "load.json", "test", results.plan())
    for what in results.plan():
        told.lines.append(line(what=what))
    told.lines[7] |= change
    assert told.totals()["complete"] and told.totals()["reached"] is reached
    for entry in told.lines:
        entry["requests"] = 3999
    assert not told.totals()["reached"], "less than a hundred thousand requests prove too little"


def test_a_fleet_is_released_ten_times_and_upgraded_three_times():
    plan = results.fleet_plan()
    assert plan.count(results.PREBUILT) == 10 and plan.count(results.UPGRADE) == 3 and plan[-1] == results.PREBUILT
