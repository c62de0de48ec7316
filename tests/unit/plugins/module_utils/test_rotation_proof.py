# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A refusal is only proven where the same question is answered with yes for the new credential."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import rotation_proof
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import ProbeError
from ansible_collections.anchorage.vps.plugins.module_utils.redis_probe import Refused
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .health_fakes import FakeWorld

OLD, NEW = "old-password-1", "new-password-2"
DOCUMENT = {
    "name": "shop",
    "database": {"user": "shop"},
    "database_url": f"postgres://shop-b:{NEW}@127.0.0.1:5432/shop",
    "redis_url": f"redis://shop:{NEW}@127.0.0.1:6379/0",
    "secrets_env": {"JWT_SECRET": NEW},
}
FORMER = {"urls": {"database_url": f"postgres://shop:{OLD}@127.0.0.1:5432/shop"}, "environment": {}, "keys": []}


class Server(FakeWorld):
    """A host whose PostgreSQL lets in who is told, and says this to all others."""

    def __init__(self, lets_in, says='psql: error: FATAL:  role "shop" is not permitted to log in', acts="shop"):
        super().__init__(commands=self.psql)
        self.lets_in, self.says, self.acts = lets_in, says, acts

    def psql(self, call):
        if call["env"]["PGUSER"] in self.lets_in:
            return Completed(0, f"{self.acts}\n" if "current_user" in call["input"] else "1\n", "")
        return Completed(2, "", f"{self.says}\n")


def proven(world, former=None, live="r2"):
    return rotation_proof.prove(world, DOCUMENT, former or FORMER, live)


def wrong(world, former=None, live="r2"):
    with pytest.raises(AnchorageError) as caught:
        proven(world, former, live)
    assert OLD not in caught.value.text() and NEW not in caught.value.text()
    return caught.value.message


@pytest.mark.parametrize("says", ['role "shop" is not permitted to log in', 'password authentication failed for user "shop"'])
def test_the_new_login_gets_in_and_the_old_one_is_refused(says):
    assert proven(Server({"shop-b"}, says)) == ["shop: proven: database_url: the new credential gets in, the old one is refused"]


@pytest.mark.parametrize("says", ["FATAL:  no such user", "FATAL:  SASL authentication failed"])
def test_the_way_of_the_processes_is_proven_too(says):
    document = {**DOCUMENT, "database_pool_url": f"postgres://shop-b:{NEW}@127.0.0.1:6432/shop"}
    former = {**FORMER, "urls": {"database_pool_url": f"postgres://shop:{OLD}@127.0.0.1:6432/shop"}}
    found = rotation_proof.prove(Server({"shop-b"}, says), document, former, "r2")
    assert found == ["shop: proven: database_pool_url: the new credential gets in, the old one is refused"]


def test_nothing_is_proven_where_it_cannot_be_asked():
    assert "the new credential does not get in (psql: error: connection refused)" in wrong(Server(set(), "psql: error: connection refused"))
    assert "is not known (psql: error: connection refused)" in wrong(Server({"shop-b"}, "psql: error: connection refused"))


def test_an_old_login_that_gets_in_is_told():
    assert "the old credential still gets in" in wrong(Server({"shop", "shop-b"}))


def test_a_login_that_does_not_act_as_the_owner_is_told():
    assert "acts as shop-b" in wrong(Server({"shop-b"}, acts="shop-b"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "in"),
        (Refused("WRONGPASS invalid username-password pair"), "out"),
        (Refused("LOADING Redis"), "LOADING"),
        (ProbeError("refused", "no one"), "no one"),
    ],
)
def test_redis_turns_a_login_away_in_one_way_only(error, said):
    assert rotation_proof.judge_redis(error) == said


def test_a_redis_is_asked_over_the_wire():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve():
            for _number in range(2):
                client, _address = server.accept()
                with client:
                    good = NEW.encode() in client.recv(4096)
                    client.sendall(b"+OK\r\n" if good else b"-WRONGPASS invalid\r\n")
                    if good:
                        client.recv(4096)
                        client.sendall(b"+PONG\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        document = {**DOCUMENT, "redis_url": f"redis://shop:{NEW}@127.0.0.1:{port}/0"}
        former = {"urls": {"redis_url": f"redis://shop:{OLD}@127.0.0.1:{port}/0"}, "environment": {}, "keys": []}
        world = FakeWorld()
        assert rotation_proof.prove(world, document, former, "r2") == ["shop: proven: redis_url: the new credential gets in, the old one is refused"]
        thread.join()


def process(world, pid, name, release, **environ):
    world.process(pid, environ={"ANCHORAGE_PROCESS": name, "ANCHORAGE_RELEASE": release, **environ})


SIGNED = {"urls": {}, "environment": {"JWT_SECRET": OLD}, "keys": ["JWT_SECRET"]}


def test_every_process_has_the_new_key_and_none_the_old_one():
    world = FakeWorld()
    process(world, 10, "shop-server-blue", "r2", JWT_SECRET=NEW)
    process(world, 11, "blog-server-blue", "r2", JWT_SECRET=OLD)
    assert proven(world, SIGNED) == ["shop: proven: every process has the new JWT_SECRET"]
    process(world, 12, "shop-worker-green", "r1", JWT_SECRET=OLD)
    assert "shop-worker-green (process 12) still has the old JWT_SECRET" in wrong(world, SIGNED)


def test_a_process_without_the_new_key_and_an_app_without_processes_prove_nothing():
    world = FakeWorld()
    assert "no process of it is there" in wrong(world, SIGNED)
    document = {**DOCUMENT, "runtime": "swarm"}
    assert rotation_proof.prove(world, document, SIGNED, "r2") == ["shop: proven: every process has the new JWT_SECRET"], "they may be on other nodes"
    process(world, 10, "shop-server-blue", "r2")
    assert "does not have the new JWT_SECRET" in wrong(world, SIGNED)


LIST = """id=3 addr=127.0.0.1:1 name= age=500 idle=1 user=shop cmd=get
id=4 addr=127.0.0.1:2 name= age=20 idle=1 user=shop cmd=get
id=5 addr=127.0.0.1:3 name= age=900 idle=1 user=anchorage cmd=client|list
"""


def test_only_connections_of_the_user_from_before_are_ended():
    world = FakeWorld(commands=lambda call: Completed(0, LIST if "LIST" in call["argv"] else "1\n", ""))
    assert rotation_proof.end_connections(world, ["cli"], "shop", 60.0) == 1
    assert world.ran[-1]["argv"] == ["cli", "CLIENT", "KILL", "ID", "3"]
    assert rotation_proof.aged(LIST, "shop", 10.0) == ["3", "4"]


def test_connections_that_cannot_be_listed_are_a_failure():
    with pytest.raises(AnchorageError, match="cannot be listed: no way"):
        rotation_proof.end_connections(FakeWorld(commands=lambda call: Completed(1, "", "no way\n")), ["cli"], "shop", 1.0)


def test_the_proof_is_data_that_json_takes():
    assert json.dumps(proven(Server({"shop-b"})))
