# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may be provisioned in which order, what a promotion has to do, and what of a replication is red."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_replication as replication
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .health_fakes import FakeWorld

MB = replication.MB
FRESH = {
    "installed": False, "data": False, "running": False, "in_recovery": False, "standby": False, "empty": False, "receiving": False, "entered": False,
    "senders": [], "slots": [], "answer": "PostgreSQL is not installed yet", "fenced": False, "forwarding": False,
}  # fmt: skip
PRIMARY = {**FRESH, "installed": True, "data": True, "running": True, "answer": ""}
EMPTY = {**PRIMARY, "empty": True}
REPLICA = {**PRIMARY, "in_recovery": True, "standby": True, "receiving": True, "behind_bytes": 0, "behind_seconds": 0}
DOWN = {**PRIMARY, "running": False, "answer": "connection refused"}
FENCED = {**DOWN, "standby": True, "fenced": True}
FORWARDING = {**FENCED, "forwarding": True}
ORDER = ["db1", "db2"]


def sender(name="db2", state="streaming", size=0, seconds=0):
    return {"slot": replication.slot_name(name), "state": state, "bytes": size, "seconds": seconds}


class TestSlots:
    @pytest.mark.parametrize(("host", "slot"), [("db2", "anchorage_db2"), ("db_2", "anchorage_db_2")])
    def test_a_plain_name_is_the_slot_s(self, host, slot):
        assert replication.slot_name(host) == slot

    def test_hosts_that_look_alike_to_postgresql_share_no_slot(self):
        names = ["db-2", "db_2", "db.2", "DB_2", "d" * 70, "d" * 71]
        slots = [replication.slot_name(name) for name in names]
        assert len(set(slots)) == len(names)
        assert all(len(slot) <= 63 and slot == slot.lower() and slot.replace("_", "").isalnum() for slot in slots)


class TestRefusal:
    @pytest.mark.parametrize(
        "states",
        [
            {},
            {"db1": FRESH, "db2": FRESH},
            {"db1": EMPTY, "db2": EMPTY},
            {"db1": PRIMARY, "db2": FRESH},
            {"db1": PRIMARY, "db2": EMPTY},
            {"db1": PRIMARY, "db2": REPLICA},
            {"db1": PRIMARY, "db2": {**DOWN, "standby": True}},
            {"db1": DOWN, "db2": REPLICA},
        ],
    )
    def test_what_runs_as_the_inventory_says_may_be_provisioned(self, states):
        assert replication.refusal(ORDER, states) == ""

    @pytest.mark.parametrize(
        ("states", "words"),
        [
            ({"db1": REPLICA, "db2": PRIMARY}, ("db2 is the primary", "run promote.yml", "put db2 first again")),
            ({"db1": {**DOWN, "standby": True}, "db2": PRIMARY}, ("is to be the primary, but it is a replica",)),
            ({"db1": REPLICA}, ("which of the others is the primary is not known",)),
            ({"db1": FRESH, "db2": PRIMARY}, ("db2 has the data and db1 has none", "Put db2 first")),
            ({"db1": EMPTY, "db2": PRIMARY}, ("db2 has the data and db1 has none",)),
            ({"db1": PRIMARY, "db2": PRIMARY}, ("has data of its own", "-e postgresql_rebuild_replica=db2")),
            ({"db1": PRIMARY, "db2": DOWN}, ("did not tell that it has none: connection refused",)),
            ({"db1": FENCED, "db2": REPLICA}, ("was cut off: db1 was stopped", "Run promote.yml")),
            ({"db1": PRIMARY, "db2": FORWARDING}, ("was cut off: db2 was stopped",)),
        ],
    )
    def test_what_does_not_is_refused_with_what_to_do(self, states, words):
        said = replication.refusal(ORDER, states)
        assert all(word in said for word in words), said
        assert "Nothing was changed" in said

    def test_data_may_be_replaced_where_that_was_asked_for_by_name(self):
        states = {"db1": PRIMARY, "db2": PRIMARY, "db3": PRIMARY}
        assert replication.refusal(ORDER, states, "db2") == ""
        assert "db3 is to be a replica of db1" in replication.refusal([*ORDER, "db3"], states, "db2")

    def test_the_promotion_itself_is_not_kept_from_going_on(self):
        assert replication.refusal(["db2", "db1"], {"db2": PRIMARY, "db1": FORWARDING}, promoting=True) == ""


class TestPlan:
    def test_a_replica_that_streams_takes_over(self):
        states = {"db2": REPLICA, "db1": {**PRIMARY, "senders": [sender(size=2 * MB)]}}
        assert replication.plan(["db2", "db1"], states, 16) == {"action": "switch", "source": "db1", "former": ["db1"], "refusal": ""}

    @pytest.mark.parametrize(
        ("first", "second", "action", "former"),
        [
            ({**REPLICA, "receiving": False}, FENCED, "switch", ["db1"]),
            (PRIMARY, FENCED, "finish", ["db1"]),
            (PRIMARY, FORWARDING, "finish", ["db1"]),
            (PRIMARY, {**DOWN, "standby": True}, "finish", []),
            (PRIMARY, REPLICA, "finish", []),
        ],
    )
    def test_one_that_was_cut_off_goes_on_where_it_was(self, first, second, action, former):
        found = replication.plan(["db2", "db1"], {"db2": first, "db1": second}, 16)
        assert (found["action"], found["former"], found["refusal"]) == (action, former, "")

    def test_one_that_never_came_can_be_called_off(self):
        assert replication.plan(ORDER, {"db1": FENCED, "db2": REPLICA}, 16)["action"] == "back"

    @pytest.mark.parametrize(
        ("first", "second", "words"),
        [
            ({**REPLICA, "receiving": False}, {**PRIMARY, "senders": []}, "db2 does not stream from db1"),
            (REPLICA, {**PRIMARY, "senders": [sender(state="catchup")]}, "db2 does not stream from db1"),
            (REPLICA, {**PRIMARY, "senders": [sender("db3")]}, "db2 does not stream from db1"),
            (REPLICA, {**PRIMARY, "senders": [sender(size=17 * MB)]}, "17 MB behind db1; the limit is 16 MB"),
            (REPLICA, DOWN, "db1, the primary, does not answer"),
            (REPLICA, REPLICA, "no other host of group database is the primary"),
            (PRIMARY, PRIMARY, "both run as primaries"),
            ({**DOWN, "standby": True}, PRIMARY, "db2 does not answer"),
            (FRESH, PRIMARY, "db2 does not answer (PostgreSQL is not installed yet)"),
            (EMPTY, PRIMARY, "db2 is no replica yet"),
        ],
    )
    def test_what_would_lose_something_is_refused(self, first, second, words):
        found = replication.plan(["db2", "db1"], {"db2": first, "db1": second}, 16)
        assert found["action"] == "" and words in found["refusal"]

    def test_a_host_that_others_took_over_from_does_not_come_back_by_itself(self):
        assert "db2 has taken over already" in replication.plan(ORDER, {"db1": FENCED, "db2": EMPTY}, 16)["refusal"]
        assert replication.plan(ORDER, {"db1": FORWARDING, "db2": REPLICA}, 16)["action"] == ""

    def test_each_host_has_to_be_asked_and_there_have_to_be_two(self):
        assert "has no second host" in replication.plan(["db1"], {"db1": PRIMARY}, 16)["refusal"]
        assert "has no second host" in replication.plan([], {}, 16)["refusal"]
        assert "db1 did not answer" in replication.plan(["db2", "db1"], {"db2": REPLICA}, 16)["refusal"]

    def test_of_three_the_third_changes_nothing(self):
        states = {"db2": REPLICA, "db1": {**PRIMARY, "senders": [sender(), sender("db3")]}, "db3": REPLICA}
        assert replication.plan(["db2", "db1", "db3"], states, 16)["source"] == "db1"


TOLD = {"version": "17", "name": "db1", "role": "primary", "primary": "", "replicas": ["db2"], "max_lag_mb": 64, "max_lag_seconds": 30}
TOLD_REPLICA = {**TOLD, "name": "db2", "role": "replica", "primary": "db1", "replicas": []}


def grades(told, state):
    return {check.name: check.verdict for check in replication.judge_state(told, state) if check.verdict != "ok"}


class TestHealth:
    def test_all_is_well(self):
        assert grades(TOLD, {**PRIMARY, "senders": [sender(size=MB, seconds=1)]}) == {}
        assert grades(TOLD_REPLICA, REPLICA) == {}

    @pytest.mark.parametrize(
        ("told", "state", "found"),
        [
            (TOLD, PRIMARY, {"streaming:db2": "fail"}),
            (TOLD, {**PRIMARY, "senders": [sender(state="catchup")]}, {"streaming:db2": "fail"}),
            (TOLD, {**PRIMARY, "senders": [sender(size=65 * MB)]}, {"lag_bytes:db2": "warn"}),
            (TOLD, {**PRIMARY, "senders": [sender(seconds=31)]}, {"lag_seconds:db2": "warn"}),
            (TOLD, REPLICA, {"role": "fail"}),
            (TOLD, DOWN, {"connect": "fail"}),
            (TOLD, FENCED, {"promotion": "fail"}),
            (TOLD, FORWARDING, {"promotion": "warn"}),
            (TOLD_REPLICA, PRIMARY, {"role": "fail"}),
            (TOLD_REPLICA, {**REPLICA, "receiving": False}, {"streaming": "fail"}),
            (TOLD_REPLICA, {**REPLICA, "behind_bytes": 65 * MB, "behind_seconds": 40}, {"lag_bytes": "warn", "lag_seconds": "warn"}),
            (TOLD_REPLICA, {**REPLICA, "behind_bytes": None, "behind_seconds": None}, {}),
        ],
    )
    def test_what_is_not_is_told(self, told, state, found):
        assert grades(told, state) == found

    def test_a_replica_whose_wal_is_gone_is_told_with_what_makes_it_anew(self):
        slot = {"name": "anchorage_db2", "active": False, "lost": True, "kept_bytes": None}
        (check,) = [check for check in replication.judge_state(TOLD, {**PRIMARY, "slots": [slot]}) if not check.healthy]
        assert "WAL that it lacks is gone" in check.cause and check.advice == "provision.yml -e postgresql_rebuild_replica=db2"


PLACE = "/etc/postgresql/17/main/postgresql.conf"
CONTROL = "Database cluster state:               in production\nLatest checkpoint location:           0/5000028\nLatest checkpoint's TimeLineID:       2\n"


def host(answer, **files):
    def commands(call):
        if call["argv"][0].endswith("pg_controldata"):
            return Completed(0, CONTROL, "")
        return answer

    known = {PLACE: "port = 5433\n", "/var/lib/postgresql/17/main/PG_VERSION": "17"}
    return FakeWorld({**known, **files}, commands=commands)


class TestLook:
    def test_a_host_without_postgresql_says_so(self):
        assert replication.look(FakeWorld()) == FRESH

    def test_a_server_is_asked_as_its_superuser_and_shows_no_secret(self):
        told = {"in_recovery": False, "empty": False, "receiving": False, "verifier": "SCRAM-SHA-256$secret", "senders": [], "slots": []}
        world = host(Completed(0, json.dumps(told), ""))
        state = replication.look(world, password="another")
        assert (state["running"], state["port"], state["timeline"], state["checkpoint"], state["entered"]) == (True, 5433, 2, "0/5000028", False)
        assert world.ran[-1]["user"] == "postgres" and "secret" not in json.dumps(state)

    def test_one_that_does_not_answer_says_why_and_what_it_was(self):
        state = replication.look(host(Completed(2, "", "connection refused")))
        assert (state["running"], state["data"], state["was"], state["answer"]) == (False, True, "in production", "connection refused")
        assert replication.is_primary(state)

    def test_a_place_in_the_wal_is_a_number(self):
        assert replication.bytes_of("1/10") - replication.bytes_of("0/FFFFFFFF") == 17

    def test_a_damaged_document_is_named(self):
        with pytest.raises(AnchorageError, match="replication.json is no JSON"):
            replication.settings(FakeWorld({replication.SETTINGS: "{"}))

    def test_a_verdict_says_how_far_behind(self):
        told = {"in_recovery": False, "empty": False, "receiving": False, "verifier": None, "senders": [sender(size=2 * MB, seconds=1)], "slots": []}
        world = host(Completed(0, json.dumps(told), ""), **{replication.SETTINGS: json.dumps(TOLD)})
        found = replication.check(world, deadline_seconds=5)
        assert found.healthy and "1 replica, 2 MB / 1 s behind" in found.summary
