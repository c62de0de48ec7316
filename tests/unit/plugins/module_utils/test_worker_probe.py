# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_probe, redis_probe
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import Expression, Target
from ansible_collections.anchorage.vps.plugins.module_utils.worker_probe import Heartbeat, RoundTrip, check, parse_time
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeRedis, FakeWorld, Stub, within

DONE = (Expression("count", 1), Expression("beats[0].worker_mode", "worker"))


class Shop:
    """A server that takes jobs and says that a worker did them, after so many questions."""

    def __init__(self, *, asked_before=2, taken="202 Accepted", token="a b/1", mode="worker", refuse_first=0) -> None:
        self.asked_before, self.taken, self.token, self.mode, self.refuse_first = asked_before, taken, token, mode, refuse_first
        self.submitted, self.asked = 0, 0
        self.stub = Stub(self.behave)

    def behave(self, call):
        if call.request.startswith("POST"):
            self.submitted += 1
            refused = self.submitted <= self.refuse_first
            call.answer("503 Service Unavailable" if refused else self.taken, json.dumps({"token": self.token}), kind="application/json")
            return
        self.asked += 1
        assert call.path == "/pulses?token=a%20b%2F1"
        beats = [{"worker_mode": self.mode}] if self.asked > self.asked_before else []
        call.answer(body=json.dumps({"count": len(beats), "beats": beats}), kind="application/json")

    def trip(self, **changes):
        url = self.stub.url("/pulses")
        return RoundTrip(**{"submit": Target(url, method="POST"), "poll": Target(f"{url}?token={{token}}"), "token": "token", "done": DONE, **changes})


@pytest.fixture
def shop():
    made = []

    def make(**options):
        made.append(Shop(**options))
        return made[-1]

    yield make
    for one in made:
        one.stub.close()


def ask(question, *, world=None, deadline=2.0, interval=0.05):
    with within(deadline + 2):
        return check(question, world=world or World(), deadline_seconds=deadline, interval_seconds=interval, timeout_seconds=1)


def test_a_job_that_is_done_after_a_while_proves_the_worker(shop):
    place = shop()
    found = ask(place.trip())
    assert found.healthy and place.submitted == 1 and place.asked == 3
    assert found.extra["job_seconds"] > 0.05 and "the job was done after" in found.summary
    assert [item.name for item in found.checks] == ["submit", "done"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"asked_before": 999}, "no worker has done the job: count is 0, wanted 1"),
        ({"mode": "server", "asked_before": 0}, 'beats[0].worker_mode is "server", wanted "worker"'),
        ({"taken": "500 Oops"}, "the job was not taken: status 500 came"),
        ({"token": None}, "has no token (token is null)"),
        ({"token": {"a": 1}}, "has no token"),
    ],
)
def test_a_job_that_is_not_done_is_told(shop, options, words):
    found = ask(shop(**options).trip(), deadline=0.5)
    assert not found.healthy and words in found.message and found.extra["job_seconds"] is None


def test_a_job_is_handed_in_again_only_as_long_as_that_fails(shop):
    place = shop(refuse_first=2, asked_before=0)
    assert ask(place.trip()).healthy and place.submitted == 3


def test_a_server_that_is_gone_or_speaks_html(shop):
    dead = "http://127.0.0.1:1/"
    gone = ask(RoundTrip(Target(dead, method="POST"), Target(dead), done=DONE), deadline=0.2)
    assert "the job could not be handed in" in gone.message and "refused" in gone.message
    stub = Stub(lambda call: call.answer(body="<html>"))
    found = ask(RoundTrip(Target(stub.url(), method="POST"), Target(stub.url()), done=DONE), deadline=0.2)
    named = ask(RoundTrip(Target(stub.url(), method="POST"), Target(stub.url("/{token}")), token="id", done=DONE), deadline=0.2)
    stub.close()
    assert "no worker has done the job" in found.message and "is not JSON" in found.message
    assert "the job could not be handed in" in named.message


def test_a_question_that_is_answered_with_an_error(shop):
    place = shop()
    trip = place.trip(poll=Target(f"{place.stub.url('/other')}?token={{token}}"))
    place.stub.behaviour = lambda call: call.answer("202 Accepted" if "POST" in call.request else "404 Not Found", '{"token": "1"}')
    assert "cannot be asked: status 404 came" in ask(trip, deadline=0.2).message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"done": ()}, "done must have"),
        ({"token": None}, "go together"),
        ({"poll": Target("http://127.0.0.1/")}, "go together"),
        ({"token": "a[", "done": DONE}, "is not valid"),
        ({"submit": Target("ftp://x")}, "must begin with"),
    ],
)
def test_a_round_trip_without_sense(shop, changes, words):
    with pytest.raises(AnchorageError, match=words):
        ask(shop().trip(**changes))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1700000000),
        ("1700000000.5", 1700000000.5),
        ("1700000000500", 1700000000.5),
        ('"2023-11-14T22:13:20.500Z"', 1700000000.5),
        ("2023-11-14T22:13:20Z", 1700000000),
        ("2023-11-14 22:13:20", 1700000000),
        ("2023-11-14T22:13:20.123456789+00:00", 1700000000.123456),
        ("2023-11-15T00:13:20+0200", 1700000000),
        ("2023-11-15T00:13:20,5+02", 1700000000.5),
        ("2023-13-15T00:13:20Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_are_read_as_programs_write_them(text, seconds):
    assert parse_time(text) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(("age", "words"), [(10, ""), (100, "is 100 s old, the limit is 60 s"), (-100, "is 100 s in the future")])
def test_a_file_is_judged_by_its_age(tmp_path, age, words):
    path = tmp_path / "alive"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    found = ask(Heartbeat(file=str(path), max_age_seconds=60), deadline=0.1)
    assert found.healthy == (not words) and words in found.message
    assert found.extra["age_seconds"] == pytest.approx(age, abs=2)


def test_a_file_that_is_not_there(tmp_path):
    found = ask(Heartbeat(file=str(tmp_path / "none")), deadline=0.1)
    assert not found.healthy and "is not there" in found.message and found.extra["age_seconds"] is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: f"{time.time():.0f}", ""),
        (lambda: f"{time.time() * 1000:.0f}", ""),
        (lambda: "1700000000", "s old, the limit is 120 s"),
        (lambda: "soon", "holds 'soon', which is no time"),
        (lambda: None, "there is no key worker:alive in Redis"),
    ],
)
def test_a_key_in_redis_is_judged_by_the_time_that_it_holds(value, words):
    text = value()
    reply = "$-1\r\n" if text is None else f"${len(text)}\r\n{text}\r\n"
    server = FakeRedis({"GET": reply})
    login = redis_probe.parse_url(f"redis://shop:hunter2@127.0.0.1:{server.port}/3")
    found = ask(Heartbeat(redis=(login, "worker:alive")), deadline=0.1)
    server.close()
    assert found.healthy == (not words) and words in found.message and "hunter2" not in repr(found)
    assert server.seen[:3] == [["AUTH", "shop", "hunter2"], ["SELECT", "3"], ["GET", "worker:alive"]]


def test_a_redis_that_refuses_or_is_gone():
    server = FakeRedis({"GET": "-NOPERM no right for this key\r\n"})
    found = ask(Heartbeat(redis=(redis_probe.Login(port=server.port), "worker:alive")), deadline=0.1)
    server.close()
    assert "refuses to tell the key" in found.message and "NOPERM" in found.message and server.seen[0] == ["GET", "worker:alive"]
    assert "refused the connection" in ask(Heartbeat(redis=(redis_probe.Login(port=1), "x")), deadline=0.1).message


LOGIN = postgresql_probe.Login(host="db.example.com", user="shop", password="hunter2", database="shop")


@pytest.mark.parametrize(
    ("done", "words", "age"),
    [
        (Completed(0, "12.5\n", ""), "", 12.5),
        (Completed(0, "200\n", ""), "is 200 s old", 200),
        (Completed(0, "\n", ""), "the query found nothing", None),
        (Completed(3, "", 'psql:<stdin>:4: ERROR:  relation "x" does not exist'), 'relation "x" does not exist', None),
        (Completed(124, "", ""), "did not answer in time", None),
    ],
)
def test_a_query_is_judged_by_the_servers_clock(done, words, age):
    world = FakeWorld(commands=lambda _call: done)
    found = check(Heartbeat(sql=(LOGIN, "SELECT max(at) FROM x;")), world=world, deadline_seconds=0.1)
    assert found.healthy == (not words) and words in found.message and found.extra["age_seconds"] == age
    call = world.ran[0]
    assert (
        "clock_timestamp() - (SELECT max(at) FROM x\n)::timestamptz" in call["input"]
        and "timezone = 'UTC'" in call["input"]
        and "BEGIN READ ONLY" in call["input"]
    )
    assert "hunter2" not in " ".join(call["argv"]) + found.message and call["env"]["PGPASSWORD"] == "hunter2"


def test_without_psql_nothing_can_be_asked():
    with pytest.raises(AnchorageError, match="psql cannot be run"):
        check(Heartbeat(sql=(LOGIN, "SELECT now()")), world=FakeWorld(), deadline_seconds=0.1)


PATTERN = r'"timestamp":"(?P<time>[^"]+)".*done'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"timestamp":"%s","message":"job done"}', "other"], ""),
        (['{"timestamp":"2020-01-01T00:00:00Z","message":"job done"}', '{"timestamp":"%s","message":"job done"}'], ""),
        (['{"timestamp":"2020-01-01T00:00:00Z","message":"job done"}'], "s old, the limit is"),
        (['{"timestamp":"%s","message":"hello"}'], "no line of /log matches"),
        (['{"timestamp":"noon","message":"done"}'], "'noon', which is none"),
        (None, "there is no log /log"),
    ],
)
def test_a_log_is_judged_by_its_last_line_that_matches(lines, words):
    world = FakeWorld()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(world.now() - 3))
    if lines is not None:
        world.files["/log"] = "\n".join([*[line.replace("%s", now) for line in lines], ""])
    found = check(Heartbeat(log=("/log", PATTERN)), world=world, deadline_seconds=0.1)
    assert found.healthy == (not words) and words in found.message


def test_only_the_end_of_a_log_is_read():
    world = FakeWorld(files={"/log": "9999999999 done\n" + "x" * 300000})
    assert "no line of /log matches" in check(Heartbeat(log=("/log", r"(?P<time>\d+) done")), world=world, deadline_seconds=0.1).message


@pytest.mark.parametrize(
    ("beat", "words"),
    [
        (Heartbeat(log=("/log", "done")), "needs a group"),
        (Heartbeat(log=("/log", "(")), "is not valid"),
        (Heartbeat(file="/x", max_age_seconds=0), "max_age_seconds"),
    ],
)
def test_a_heartbeat_without_sense(beat, words):
    with pytest.raises(AnchorageError, match=words):
        ask(beat)
