# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import app_health, command, health_notice
from ansible_collections.anchorage.vps.plugins.module_utils.health_notice import KEEP, STATE, Notify, deliver, load, look_and_tell, remember
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Stub

from .engine_fakes import HostWorld


def found(grade, at=1000.0, name="shop database"):
    said = f"{name} is {grade}."
    item = {"name": name, "kind": "database", "grade": grade, "summary": said, "message": f"{said} Look next at: here.", "checks": []}
    parts = [item, {**item, "name": "host", "grade": "green"}]
    return {"grade": grade, "healthy": grade != "red", "summary": said, "parts": parts, "at": at, "seconds": 0.5}


def told(grades, notify):
    """Return what is told after each of some looks, a minute apart, when all of it is delivered."""
    state, said = {}, []
    for number, grade in enumerate(grades):
        state, news = remember(state, found(grade, 60.0 * number), notify)
        if news:
            state["told"] = news
        said.append(news)
    return said


G, A, R = "green", "amber", "red"


@pytest.mark.parametrize(
    ("grades", "lowest", "looks", "news"),
    [
        ([G, G, G], R, 2, [None] * 3),
        ([R, R, R, G, G], R, 2, [None, R, None, None, G]),
        ([R, G, R, G, R, G], R, 2, [None] * 6),
        ([G, R, G, R, R, R], R, 3, [None, None, None, None, None, R]),
        ([R, G, G], R, 1, [R, G, None]),
        ([A, A, A], R, 2, [None] * 3),
        ([A, A, R, R, A, A, G, G], A, 2, [None, A, None, R, None, A, None, G]),
        ([R, R, A, A], R, 2, [None, R, None, G]),
    ],
    ids=["well", "broken and mended", "flapping", "three in a row", "at once", "amber is nothing", "amber counts", "amber after red is well"],
)
def test_a_verdict_is_told_once_it_has_lasted(grades, lowest, looks, news):
    assert told(grades, Notify(lowest=lowest, looks=looks)) == news


def test_what_could_not_be_told_is_told_with_the_next_look():
    state, first = remember({}, found(R), Notify(looks=1))
    _state, again = remember(state, found(R), Notify(looks=1))
    assert first == again == R


def test_looks_are_remembered_and_not_for_ever():
    state = {}
    for number in range(KEEP + 5):
        state, _news = remember(state, found(R if number == KEEP else G, float(number)), Notify())
    assert len(state["history"]) == KEEP and state["history"][-1]["at"] == KEEP + 4 and "amiss" not in state["history"][-1]
    assert [entry["amiss"] for entry in state["history"] if "amiss" in entry] == [{"shop database": "shop database is red."}]


def test_how_long_it_has_lasted_is_counted_from_the_first_look():
    state, _news = remember({}, found(R, 100.0), Notify(looks=9))
    state, _news = remember(state, found(R, 160.0), Notify(looks=9))
    assert state["since"] == 100.0 and state["count"] == 2


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
    assert deliver(Notify(webhook_url=stub.url("/hook")), "web1 is red: shop", "words", {"grade": R, "host": "web1"}, World()) == []
    (call,) = stub.calls
    head, body = call.split("\r\n\r\n")
    assert head.startswith("POST /hook ") and "application/json" in head
    assert json.loads(body) == {"text": "web1 is red: shop\nwords", "subject": "web1 is red: shop", "grade": "red", "host": "web1"}


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        (None, "500 Oops", "answered with status 500"),
        ("http://127.0.0.1:1/T0KEN", None, "the webhook was not reached: 127.0.0.1:1 refused the connection"),
        ("ftp://x", None, "address is not valid"),
    ],
)
def test_a_webhook_that_fails_is_told_without_its_address(receiver, url, status, words):
    stub, answers = receiver
    answers[0] = status or answers[0]
    (said,) = deliver(Notify(webhook_url=url or stub.url("/T0KEN")), "s", "t", {}, World())
    assert words in said and "T0KEN" not in said


def test_a_command_gets_the_text_and_the_subject(tmp_path):
    script = tmp_path / "mail"
    script.write_text('#!/bin/sh\n{ echo "$@"; cat; } > "$0.out"\n')
    script.chmod(0o755)
    assert deliver(Notify(command=[str(script), "-s", "{subject}", "ops@example.com"]), "web1 is red", "the text\n", {}, World()) == []
    assert (tmp_path / "mail.out").read_text() == "-s web1 is red ops@example.com\nthe text\n"


def test_a_command_that_fails_is_told():
    (said,) = deliver(Notify(command=["false"]), "s", "t", {}, World())
    assert said.startswith("the command false ended with 1")
    assert "ended with 127" in deliver(Notify(command=["/no/such/program"]), "s", "t", {}, World())[0]


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
    for number, grade in enumerate([G, R, R, R, G, G, G]):
        assert look_and_tell(found(grade, 60.0 * number), world, "web1") == []
    subjects = [json.loads(call.split("\r\n\r\n")[1])["subject"] for call in stub.calls]
    assert subjects == ["web1 is red: shop database", "web1 is well again"]
    assert load(world)["told"] == "green" and world.written[STATE]["mode"] == 0o600
    first = json.loads(stub.calls[0].split("\r\n\r\n")[1])
    assert first["before"] == "green" and first["since"] == 60.0 and [item["name"] for item in first["parts"]] == ["shop database"]
    assert "Look next at: here." in first["text"] and "anchorage health" in first["text"]


def test_a_receiver_that_is_down_gets_it_later(host):
    world, stub, answers = host
    answers[0] = "503 Busy"
    look_and_tell(found(R), world, "web1")
    assert look_and_tell(found(R), world, "web1") != [] and load(world)["told"] == "green"
    answers[0] = "204 No Content"
    assert look_and_tell(found(R), world, "web1") == [] and load(world)["told"] == "red"
    assert look_and_tell(found(R), world, "web1") == [] and len(stub.calls) == 2


@pytest.mark.parametrize("state", ["", "{", "[]"], ids=["empty", "cut off", "something else"])
def test_a_memory_that_cannot_be_read_is_begun_anew(host, state):
    world, _stub, _answers = host
    world.files[STATE] = state
    look_and_tell(found(G), world, "web1")
    assert load(world)["count"] == 1


def test_without_anybody_to_tell_looks_are_remembered_all_the_same():
    world = HostWorld()
    for _look in range(3):
        assert look_and_tell(found(R), world, "web1") == []
    assert load(world)["told"] == "red" and len(load(world)["history"]) == 3


def test_the_command_remembers_and_tells(monkeypatch, capsys):
    monkeypatch.setattr(app_health, "look", lambda *_args, **_more: found(R))
    told_to = []
    monkeypatch.setattr(health_notice, "look_and_tell", lambda found, world, host: told_to.append((found["grade"], host)) or ["the webhook was not reached"])
    assert command.main(["health", "--notify"]) == 1
    printed = capsys.readouterr()
    assert told_to == [("red", os.uname().nodename)] and "the webhook was not reached" in printed.err
    monkeypatch.setattr(health_notice, "look_and_tell", lambda *_args: [])
    assert command.main(["health", "--notify"]) == 0
