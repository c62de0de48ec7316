# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of Telegram does what the real one does to two pollers, and counts it: a test of a release relies on both."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest

from ansible_collections.anchorage.vps.tests.apps.telegram import fake

TOKEN = "123456:AAfake_token-x"


@pytest.fixture
def server():
    found = fake.Server(("127.0.0.1", 0), fake.Telegram())
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def open_call(server, path, words=None, who=""):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    headers = {"Content-Type": "application/json", "User-Agent": who}
    connection.request("POST" if words is not None else "GET", path, body=json.dumps(words) if words is not None else None, headers=headers)
    return connection


def call(server, path, words=None, who=""):
    answer = open_call(server, path, words, who).getresponse()
    return answer.status, json.loads(answer.read())


def poll(server, who, timeout=5, offset=0):
    return open_call(server, f"/bot{TOKEN}/getUpdates", {"timeout": timeout, "offset": offset}, who)


def status(server):
    return call(server, "/control/status")[1]["bots"].get("123456", {})


def until_open(server, who):
    end = time.monotonic() + 5
    while status(server).get("open") != who:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_two_pollers_the_older_is_driven_out(server):
    old = poll(server, "r1")
    until_open(server, "r1")
    new = poll(server, "r2", timeout=0.2)
    driven_out = old.getresponse()
    assert driven_out.status == 409 and json.loads(driven_out.read())["description"].startswith("Conflict: terminated by other getUpdates request")
    assert json.loads(new.getresponse().read()) == {"ok": True, "result": []}
    found = status(server)
    assert (found["conflicts"], found["overlaps"], found["who"]) == (1, 1, ["r1", "r2"])
    assert [entry["end"] for entry in found["seen"]] == ["conflict", "nothing"]


def test_who_has_hung_up_is_no_second_poller(server):
    old = poll(server, "r1")
    until_open(server, "r1")
    old.close()
    assert poll(server, "r2", timeout=0).getresponse().status == 200
    found = status(server)
    assert (found["conflicts"], found["overlaps"]) == (0, 0)


def test_a_message_ends_the_wait_and_stays_until_it_is_confirmed(server):
    waiting = poll(server, "r1")
    until_open(server, "r1")
    assert call(server, "/control/send", {"text": "/start", "chat_id": 5})[1] == {"bots": 1}
    (update,) = json.loads(waiting.getresponse().read())["result"]
    assert (update["update_id"], update["message"]["text"], update["message"]["chat"]["id"]) == (1, "/start", 5)
    assert len(json.loads(poll(server, "r1", timeout=0).getresponse().read())["result"]) == 1
    assert json.loads(poll(server, "r1", timeout=0, offset=2).getresponse().read())["result"] == []


def test_answers_are_kept_with_who_gave_them(server):
    assert call(server, f"/bot{TOKEN}/sendMessage", {"chat_id": 5, "text": "hello"}, who="r1")[1]["result"]["text"] == "hello"
    (sent,) = status(server)["sent"]
    assert (sent["chat_id"], sent["text"], sent["who"]) == (5, "hello", "r1")
    call(server, "/control/reset", {})
    assert status(server)["sent"] == []


def test_what_telegram_does_not_have_it_says(server):
    assert call(server, f"/bot{TOKEN}/getMe")[1]["result"]["is_bot"]
    assert call(server, f"/bot{TOKEN}/flyAway")[0] == 404 and call(server, "/botwrong/getMe")[0] == 404 and call(server, "/control/x")[0] == 404


def test_a_token_is_shown_to_nobody(server):
    call(server, f"/bot{TOKEN}/getMe")
    poll(server, "r1", timeout=0).getresponse()
    assert TOKEN not in json.dumps(call(server, "/control/status")[1])
