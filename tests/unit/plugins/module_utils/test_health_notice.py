# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import app_health, command, health_notice
from ansible_collections.anchorage.vps.plugins.module_utils.health_notice import KEEP, STATE, Notify, load, look_and_tell, news, post, remember, run
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Stub

from .engine_fakes import HostWorld


def found(*grades, at=1000.0):
    """Return a look at as many things, named a, b, c."""
    parts = [
        {"name": name, "kind": "database", "grade": grade, "summary": f"{name} is {grade}.", "message": f"{name} is {grade}. Look next at: here.", "checks": []}
        for name, grade in zip("abc", grades)
    ]
    worst = max(grades, key=("green", "amber", "red").index)
    return {"grade": worst, "healthy": worst != "red", "summary": "All 3 are well.", "parts": parts, "at": at, "seconds": 0.5}


def told(looks, notify):
    """Return what a channel is told after each of some looks, when all of it is delivered."""
    state, said = {}, []
    for number, grades in enumerate(looks):
        state, bad = remember(state, found(*grades, at=60.0 * number), notify)
        due, knows = news(state["told"].get("x") or [], bad, state["windows"])
        state["told"]["x"] = knows
        said.append(" ".join(bad) or "well" if due else None)
    return said


G, A, R = "green", "amber", "red"


@pytest.mark.parametrize(
    ("looks", "lowest", "times", "said"),
    [
        ([G, G, G], R, 2, [None] * 3),
        ([R, R, R, G, G, G, G, G], R, 2, [None, "red a", None, None, None, None, None, "well"]),
        ([R, G, G, G, G, R, G, G], R, 2, [None] * 8),
        ([R, G, R, G, R, G, R], R, 2, [None, None, None, None, "red a", None, None]),
        ([G, R, G, R, R, R], R, 3, [None, None, None, None, None, "red a"]),
        ([R, G], R, 1, ["red a", None]),
        ([A, A, A], R, 2, [None] * 3),
        ([A, R, A, R], A, 2, [None, "amber a", None, None]),
        ([A, A, R, R, R], A, 2, [None, "amber a", None, "amber a red a", None]),
    ],
    ids=["well", "broken and mended", "bad now and then", "flapping", "three in a row", "at once", "amber is nothing", "amber and red by turns", "worse"],
)
def test_a_thing_is_told_once_it_has_lasted(looks, lowest, times, said):
    assert told([(grade,) for grade in looks], Notify(lowest=lowest, looks=times)) == said


def test_what_breaks_while_something_else_is_broken_is_told_too():
    looks = [(R, G)] * 3 + [(R, R)] * 3 + [(R, G)] * 6 + [(R, R)] * 2 + [(G, G)] * 5
    said = [words for words in told(looks, Notify()) if words]
    assert said == ["red a", "red a red b", "red a red b", "well"]


def test_what_could_not_be_told_is_told_with_the_next_look():
    state, bad = remember({}, found(R), Notify(looks=1))
    assert news([], bad, state["windows"])[0] is True
    state, bad = remember(state, found(R), Notify(looks=1))
    assert news([], bad, state["windows"])[0] is True and news(["red a"], bad, state["windows"])[0] is False


def test_looks_are_remembered_and_not_for_ever():
    state = {}
    for number in range(KEEP + 5):
        state, _bad = remember(state, found(R if number == KEEP else G, at=float(number)), Notify())
    assert len(state["history"]) == KEEP and state["history"][-1]["at"] == KEEP + 4 and "amiss" not in state["history"][-1]
    assert [entry["amiss"] for entry in state["history"] if "amiss" in entry] == [{"a": "a is red."}]
    assert state["windows"] == {"red a": "10000"}


def test_how_long_it_has_lasted_is_counted_from_the_first_look():
    state, _bad = remember({}, found(R, at=100.0), Notify(looks=9))
    state, _bad = remember(state, found(R, at=160.0), Notify(looks=9))
    assert state["since"] == 100.0


# ---- telling


@pytest.fixture
def receiver():
    """A real receiver of webhooks that answers as a test wants."""
    answers = ["200 OK"]
    stub = Stub(lambda call: call.answer(answers[0]))
    yield stub, answers
    stub.close()


def test_a_webhook_gets_the_verdict_with_its_causes(receiver):
    stub, _answers = receiver
    assert post(Notify(webhook_url=stub.url("/hook")), "web1 is red: shop", "words", {"grade": R, "host": "web1"}, World()) == ""
    (call,) = stub.calls
    head, body = call.split("\r\n\r\n")
    assert head.startswith("POST /hook ") and "application/json" in head
    assert json.loads(body) == {"text": "web1 is red: shop\nwords", "subject": "web1 is red: shop", "grade": "red", "host": "web1"}


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        (None, "500 Oops", "answered with status 500"),
        ("http://127.0.0.1:1/T0KEN", None, "the webhook was not reached: 127.0.0.1:1 refused the connection"),
        ("ftp://x/T0KEN", None, "address is not valid"),
        ("http://x:port/T0KEN", None, "address is not valid"),
    ],
)
def test_a_webhook_that_fails_is_told_without_its_address(receiver, url, status, words):
    stub, answers = receiver
    answers[0] = status or answers[0]
    said = post(Notify(webhook_url=url or stub.url("/T0KEN")), "s", "t", {}, World())
    assert words in said and "T0KEN" not in said


def test_a_command_gets_the_text_and_the_subject(tmp_path):
    script = tmp_path / "mail"
    script.write_text('#!/bin/sh\n{ echo "$@"; cat; } > "$0.out"\n')
    script.chmod(0o755)
    assert run(Notify(command=[str(script), "-s", "{subject}", "ops@example.com"]), "web1 is red", "the text\n", {}, World()) == ""
    assert (tmp_path / "mail.out").read_text() == "-s web1 is red ops@example.com\nthe text\n"


def test_a_command_that_fails_is_told():
    assert run(Notify(command=["false"]), "s", "t", {}, World()).startswith("the command false ended with 1")
    assert "ended with 127" in run(Notify(command=["/no/such/program"]), "s", "t", {}, World())


# ---- all together


@pytest.fixture
def host(monkeypatch, receiver):
    """A host whose notify hook is the receiver, and what the state on its disk says."""
    stub, answers = receiver
    world = HostWorld()
    world.files[app_health.SETTINGS] = json.dumps({"notify": {"webhook_url": stub.url(), "lowest": "red", "looks": 2}})
    return world, stub, answers


def test_a_broken_host_is_told_once_and_again_when_it_is_well(host):
    world, stub, _answers = host
    for number, grade in enumerate([G, R, R, R, G, G, G, G, G]):
        assert look_and_tell(found(grade, at=60.0 * number), world, "web1") == []
    letters = [json.loads(call.split("\r\n\r\n")[1]) for call in stub.calls]
    assert [letter["subject"] for letter in letters] == ["web1 is red: a", "web1 is well again"]
    assert load(world)["told"] == {"webhook": []} and world.written[STATE]["mode"] == 0o600
    first = letters[0]
    assert first["grade"] == "red" and first["since"] == 60.0 and [item["name"] for item in first["parts"]] == ["a"]
    assert "Look next at: here." in first["text"] and "anchorage diagnose" in first["text"] and letters[1]["grade"] == "green"


def test_a_receiver_that_is_down_gets_it_later(host):
    world, stub, answers = host
    answers[0] = "503 Busy"
    look_and_tell(found(R), world, "web1")
    assert look_and_tell(found(R), world, "web1") != [] and load(world)["told"] == {"webhook": []}
    answers[0] = "204 No Content"
    assert look_and_tell(found(R), world, "web1") == [] and load(world)["told"] == {"webhook": ["red a"]}
    assert look_and_tell(found(R), world, "web1") == [] and len(stub.calls) == 2


def test_a_channel_that_is_broken_does_not_repeat_the_other(host):
    world, stub, _answers = host
    world.files[app_health.SETTINGS] = json.dumps({"notify": {"webhook_url": stub.url(), "command": ["mail"], "lowest": "red", "looks": "1"}})
    world._mail = lambda argv, call: Completed(127, "", "mail: No such file or directory")
    for _look in range(3):
        assert [words for words in look_and_tell(found(R), world, "web1") if "the command mail ended with 127" in words]
    assert len(stub.calls) == 1 and load(world)["told"] == {"webhook": ["red a"]}


@pytest.mark.parametrize("state", ["", "{", "[]"], ids=["empty", "cut off", "something else"])
def test_a_memory_that_cannot_be_read_is_begun_anew(host, state):
    world, _stub, _answers = host
    world.files[STATE] = state
    look_and_tell(found(G), world, "web1")
    assert len(load(world)["history"]) == 1


def test_without_anybody_to_tell_looks_are_remembered_all_the_same():
    world = HostWorld()
    for _look in range(3):
        assert look_and_tell(found(R), world, "web1") == []
    assert load(world)["told"] == {} and len(load(world)["history"]) == 3


def test_the_command_remembers_and_tells(monkeypatch, capsys):
    monkeypatch.setattr(app_health, "look", lambda *_args, **_more: found(R))
    told_to = []
    monkeypatch.setattr(health_notice, "look_and_tell", lambda found, world, host: told_to.append((found["grade"], host)) or ["the webhook was not reached"])
    assert command.main(["health", "--notify"]) == 1
    printed = capsys.readouterr()
    assert told_to == [("red", os.uname().nodename)] and "the webhook was not reached" in printed.err
    monkeypatch.setattr(health_notice, "look_and_tell", lambda *_args: [])
    assert command.main(["health", "--notify"]) == 0
