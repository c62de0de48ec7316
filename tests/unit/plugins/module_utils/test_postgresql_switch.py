# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a promotion: in which order they touch a host, and that each may be done again."""

from __future__ import annotations

import json
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_objects, postgresql_replication, postgresql_switch
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_switch import Switch
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .health_fakes import FakeWorld

CONF, DATA = "/etc/postgresql/17/main", "/var/lib/postgresql/17/main"
RECORD, SIGNAL, START = postgresql_replication.RECORD, f"{DATA}/standby.signal", f"{CONF}/start.conf"
SOCKET = f"/etc/systemd/system/{postgresql_replication.FORWARD}.socket"


class DatabaseHost(FakeWorld):
    """A host whose PostgreSQL is a few facts. C(events) has what was done to it, in order."""

    def __init__(self, **facts):
        super().__init__({f"{CONF}/postgresql.conf": "port = 5432\n", f"{DATA}/PG_VERSION": "17", START: "auto\n"}, commands=self.answer)
        self.facts = {"running": True, "in_recovery": False, "empty": False, "replayed": "0/6000000", "slots": [], "copies": True, **facts}
        self.events: list[str] = []
        self.was = "in production"

    def write_atomic(self, path, data, *, mode, uid=None, gid=None):
        self.files[path] = data.decode()
        self.events.append(f"write {path.rpartition('/')[2]}")

    def remove(self, path):
        self.files.pop(path, None)
        self.events.append(f"remove {path.rpartition('/')[2]}")

    remove_for_good = remove

    def remove_tree(self, path):
        for name in [name for name in self.files if name.startswith(f"{path}/")]:
            del self.files[name]

    def exists(self, path):
        return super().exists(path) or any(name.startswith(f"{path}/") for name in self.files)

    def exchange(self, one, other):
        self.events.append("exchange")
        moved = {name: text for name, text in self.files.items() if name.startswith((f"{one}/", f"{other}/"))}
        for name in moved:
            del self.files[name]
        for name, text in moved.items():
            left, right = (one, other) if name.startswith(f"{one}/") else (other, one)
            self.files[right + name[len(left) :]] = text
        return True

    def answer(self, call):
        program = call["argv"][0].rpartition("/")[2]
        return getattr(self, f"_{program}")(call["argv"], call["input"] or "")

    def _pg_controldata(self, _argv, _input):
        return Completed(0, f"Database cluster state: {self.was}\nLatest checkpoint location: 0/5000028\nLatest checkpoint's TimeLineID: 1\n", "")

    def _pg_basebackup(self, argv, _input):
        if not self.facts["copies"]:
            return Completed(1, "", "password authentication failed")
        self.files[f"{DATA}.anchorage-new/PG_VERSION"] = "17"
        self.files[f"{DATA}.anchorage-new/copy"] = "of the primary"
        self.events.append("copy")
        return Completed(0, "", "")

    def _nft(self, _argv, rules):
        self.events.append("hold" if "drop" in rules else "let in")
        return Completed(0, "", "")

    def _systemctl(self, argv, _input):
        if argv[1] == "is-active":
            return Completed(0 if SOCKET in self.files else 3, "", "")
        self.events.append(" ".join(argv[1:2] + [word.partition(".")[0] for word in argv[-1:]]))
        if argv[-1].startswith("postgresql@"):
            self.facts["running"] = argv[1] == "start"
            self.was = self.was if argv[1] == "start" else "shut down"
            self.facts["in_recovery"] = argv[1] == "start" and SIGNAL in self.files
        return Completed(0, "", "")

    def _psql(self, _argv, sql):
        if not self.facts["running"]:
            return Completed(2, "", "connection refused")
        if "json_build_object" in sql:
            known = {key: self.facts[key] for key in ("in_recovery", "empty", "slots")}
            told = {**known, "receiving": self.facts["in_recovery"], "position": self.facts["replayed"], "senders": [], "verifier": None}
            return Completed(0, json.dumps(told), "")
        self.events.append(sql.split("(")[0].split()[-1])
        if "pg_promote" in sql:
            self.facts["in_recovery"] = False
        return Completed(0, {"pg_last_wal_replay_lsn": self.facts["replayed"], "pg_promote": "t"}.get(self.events[-1], ""), "")


@pytest.fixture(autouse=True)
def postgres(monkeypatch):
    monkeypatch.setattr(postgresql_switch.pwd, "getpwnam", lambda _name: types.SimpleNamespace(pw_uid=1, pw_gid=1))
    monkeypatch.setattr(postgresql_switch, "fsync_directory", lambda _path: None)


class TestFence:
    def test_the_primary_cannot_start_as_one_before_it_is_stopped(self):
        world = DatabaseHost()
        found = Switch.here(world).fence(to="db2", peers=["10.0.0.22"])
        assert found["changed"] and found["lsn"] == "0/5000028"
        assert world.events == ["CHECKPOINT", "write promotion.json", "write start.conf", "write standby.signal", "hold", "stop postgresql@17-main"]
        assert "manual" in world.files[START] and json.loads(world.files[RECORD])["to"] == "db2"

    def test_again_it_only_says_where_the_wal_ends(self):
        world = DatabaseHost()
        first = Switch.here(world).fence(to="db2", peers=[])
        world.events.clear()
        world.clock += 60
        assert Switch.here(world).fence(to="db2", peers=[]) == {**first, "changed": False} and world.events == []

    def test_one_that_was_cut_off_before_the_stop_is_gone_on_with(self):
        world = DatabaseHost()
        world.files[RECORD] = json.dumps({"to": "db2", "at": 5.0})
        found = Switch.here(world).fence(to="db2", peers=[])
        assert found["changed"] and found["began_at"] == 5.0 and not world.facts["running"]

    def test_what_did_not_stop_cleanly_is_nothing_to_promote_after(self):
        world = DatabaseHost(running=False)
        world.files[RECORD] = "{}"
        world.answer = lambda call: Completed(0, "", "") if "systemctl" in call["argv"][0] else DatabaseHost.answer(world, call)
        world.commands = world.answer
        with pytest.raises(AnchorageError, match="did not stop cleanly: its control file says 'in production'"):
            Switch.here(world).fence(to="db2", peers=[])

    def test_a_replica_is_not_stopped_as_a_primary(self):
        world = DatabaseHost(in_recovery=True)
        with pytest.raises(AnchorageError, match="is a replica"):
            Switch.here(world).fence(to="db2", peers=[])
        assert world.facts["running"] and RECORD not in world.files

    def test_it_can_be_taken_back(self):
        world = DatabaseHost()
        Switch.here(world).fence(to="db2", peers=[])
        Switch.here(world).unfence()
        assert world.facts["running"] and not world.facts["in_recovery"]
        assert SIGNAL not in world.files and RECORD not in world.files and "auto" in world.files[START]

    def test_database_hosts_are_let_in_while_others_wait(self):
        rules = postgresql_switch.hold_rules([5432, 6432], ["10.0.0.22", "fd00::22"])
        assert (
            rules.index("ip saddr { 10.0.0.22 } accept")
            < rules.index("ip6 saddr { fd00::22 } accept")
            < rules.index("tcp dport { 5432, 6432 } ct state new drop")
        )


class TestPromote:
    def test_it_waits_for_the_last_record_and_keeps_what_the_others_need(self):
        world = DatabaseHost(in_recovery=True)
        assert Switch.here(world).promote(lsn="0/5000028", slots=["anchorage_db1"])["changed"]
        assert world.events == ["pg_last_wal_replay_lsn", "pg_create_physical_replication_slot", "pg_promote"]

    def test_who_is_the_primary_already_is_left_alone(self):
        world = DatabaseHost()
        assert not Switch.here(world).promote(lsn="0/5000028", slots=[])["changed"] and world.events == []

    @pytest.mark.parametrize("replayed", ["0/5000027", "0/5000028"])
    def test_what_lacks_something_is_not_promoted(self, replayed):
        world = DatabaseHost(in_recovery=True, replayed=replayed)
        with pytest.raises(AnchorageError, match="Waited 30 s for the replay of 0/5000028"):
            Switch.here(world).promote(lsn="0/5000028", slots=[])
        assert world.facts["in_recovery"] and "pg_promote" not in world.events


class TestForward:
    def test_who_waits_is_let_in_when_there_is_somebody_to_hand_on_to(self):
        world = DatabaseHost(running=False)
        assert Switch.here(world).forward(address="fd00::22", port=5432)["changed"]
        assert world.events[-2:] == ["enable anchorage-database-forward", "let in"]
        assert "[fd00::22]:5432" in world.files[SOCKET.replace(".socket", ".service")]
        assert not Switch.here(world).forward(address="fd00::22", port=5432)["changed"]

    def test_it_ends_with_nothing_left(self):
        world = DatabaseHost()
        Switch.here(world).fence(to="db2", peers=[])
        Switch.here(world).forward(address="10.0.0.22", port=5432)
        assert Switch.here(world).release()["changed"]
        assert SOCKET not in world.files and RECORD not in world.files and "auto" in world.files[START]
        assert SIGNAL in world.files, "whoever starts it gets a replica"
        assert not Switch.here(world).release()["changed"]


POOL_SOCKET = SOCKET.replace(".socket", "-pool.socket")


class TestPool:
    """A cluster that PgBouncer stands before."""

    def host(self):
        world = DatabaseHost()
        world.files[postgresql_objects.POOL] = '{"port": 6432}'
        return world

    def test_it_is_stopped_before_its_server_while_nobody_new_comes(self):
        world = self.host()
        Switch.here(world).fence(to="db2", peers=[])
        assert world.events[-3:] == ["hold", "disable pgbouncer", "stop postgresql@17-main"]
        assert "tcp dport { 5432, 6432 }" in next(call["input"] for call in world.ran if call["argv"][0].endswith("nft"))

    def test_both_ports_are_handed_on_to_the_same_ports(self):
        world = self.host()
        Switch.here(world).fence(to="db2", peers=[])
        Switch.here(world).forward(address="10.0.0.22", port=5432)
        for socket, port in ((SOCKET, 5432), (POOL_SOCKET, 6432)):
            assert f"ListenStream={port}\n" in world.files[socket]
            service = world.files[socket.replace(".socket", ".service")]
            assert f"10.0.0.22:{port}\n" in service and f"Requires={socket.rpartition('/')[2]}\n" in service
        enabled = [call["argv"][3:] for call in world.ran if call["argv"][1:3] == ["enable", "--now"]]
        assert enabled == [[SOCKET.rpartition("/")[2], POOL_SOCKET.rpartition("/")[2]]]
        assert not Switch.here(world).forward(address="10.0.0.22", port=5432)["changed"]

    def test_nothing_is_left_when_it_ends(self):
        world = self.host()
        Switch.here(world).fence(to="db2", peers=[])
        Switch.here(world).forward(address="10.0.0.22", port=5432)
        assert Switch.here(world).release()["changed"]
        assert not [name for name in world.files if "forward" in name]

    def test_it_comes_back_when_the_promotion_is_called_off(self):
        world = self.host()
        Switch.here(world).fence(to="db2", peers=[])
        Switch.here(world).unfence()
        assert world.events[-4:] == ["start postgresql@17-main", "enable pgbouncer", "let in", "remove promotion.json"]

    def test_without_one_nothing_of_it_is_touched(self):
        world = DatabaseHost()
        Switch.here(world).fence(to="db2", peers=[])
        Switch.here(world).forward(address="10.0.0.22", port=5432)
        Switch.here(world).unfence()
        assert POOL_SOCKET not in world.files and not [event for event in world.events if "pgbouncer" in event]


FOLLOW = {"address": "10.0.0.21", "port": 5432, "slot": "anchorage_db2", "passfile": f"{CONF}/pgpass", "name": "db2"}


class TestFollow:
    def test_an_empty_server_becomes_a_copy(self):
        world = DatabaseHost(empty=True)
        assert Switch.here(world).follow(**FOLLOW, rebuild=False, check=False)["built"]
        assert world.events == ["copy", "write standby.signal", "stop postgresql@17-main", "exchange", "start postgresql@17-main"]
        assert world.files[f"{DATA}/copy"] and not [name for name in world.files if "anchorage-new" in name]

    def test_a_replica_is_left_alone_but_for_slots_of_former_times(self):
        slots = [{"name": "anchorage_db1", "active": False}, {"name": "mine", "active": False}, {"name": "anchorage_db3", "active": True}]
        world = DatabaseHost(in_recovery=True, slots=slots)
        assert Switch.here(world).follow(**FOLLOW, rebuild=False, check=True)["dropped"] == ["anchorage_db1"] and world.events == []
        assert Switch.here(world).follow(**FOLLOW, rebuild=False, check=False)["changed"]
        assert world.events == ["pg_drop_replication_slot"]

    @pytest.mark.parametrize("facts", [{}, {"running": False}])
    def test_data_are_kept_unless_their_end_was_asked_for(self, facts):
        world = DatabaseHost(**facts)
        with pytest.raises(AnchorageError, match="nobody allowed to replace") as caught:
            Switch.here(world).follow(**FOLLOW, rebuild=False, check=False)
        assert "-e postgresql_rebuild_replica=db2" in caught.value.text() and world.events == []
        assert Switch.here(world).follow(**FOLLOW, rebuild=True, check=False)["built"]

    def test_check_mode_says_so_and_does_nothing(self):
        world = DatabaseHost(empty=True)
        assert Switch.here(world).follow(**FOLLOW, rebuild=False, check=True)["built"] and world.events == []

    def test_a_copy_that_fails_leaves_everything_as_it_was(self):
        world = DatabaseHost(empty=True, copies=False)
        with pytest.raises(AnchorageError, match="could not be copied: password authentication failed"):
            Switch.here(world).follow(**FOLLOW, rebuild=False, check=False)
        assert world.events == [] and world.facts["running"]


def test_a_host_without_a_cluster_is_told_what_makes_one():
    with pytest.raises(AnchorageError, match="no PostgreSQL cluster"):
        Switch.here(FakeWorld())
