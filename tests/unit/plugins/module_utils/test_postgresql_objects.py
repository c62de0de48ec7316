# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of roles and databases is off, told from what a server printed."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_objects import (
    clusters,
    configured_port,
    differences,
    facts,
    inspect,
    inspection,
    wanted_databases,
)
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_scram import verifier
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

PASSWORD = "correct horse battery"
SHOP = {"name": "shop", "owner": "shop", "password": PASSWORD, "extensions": ["citext"]}
ROLE = {"name": "shop", "login": True, "powers": False, "verifier": verifier(PASSWORD, salt=bytes(16))}
DATABASE = {"name": "shop", "owner": "shop", "public": False}
INSIDE = {"name": "shop", "schema_owner": "pg_database_owner", "extensions": ["plpgsql", "pg_stat_statements", "citext"]}
NOTHING_OFF = {"roles": [], "members": [], "shut": [], "sessions": [], "databases": [], "schemas": [], "public": [], "extensions": []}


def seen(*, version=170012, role=None, database=None, inside=None, others=()):
    return {
        "server": [{"version": version, "in_recovery": False}],
        "role": [] if role is None else [{**ROLE, **role}],
        "database": ([] if database is None else [{**DATABASE, **database}]) + list(others),
        "inside": [] if inside is None else [{**INSIDE, **inside}],
    }


def off(**facts_seen):
    return differences(wanted_databases([SHOP], ["pg_stat_statements"]), seen(**facts_seen))


def test_nothing_is_off_when_all_is_as_wanted():
    assert off(role={}, database={}, inside={}) == NOTHING_OFF


def test_all_is_off_on_an_empty_server():
    assert off() == {
        "roles": ["shop"],
        "members": [],
        "shut": [],
        "sessions": [],
        "databases": ["shop"],
        "schemas": [],
        "public": ["shop"],
        "extensions": [{"database": "shop", "name": "pg_stat_statements"}, {"database": "shop", "name": "citext"}],
    }


@pytest.mark.parametrize(
    "role",
    [
        {"verifier": verifier("another password", salt=bytes(16))},
        {"verifier": None},
        {"verifier": "md5a3556571e93b0d20722ba62be61e8c2d"},
        {"login": False},
        {"powers": True},
    ],
)
def test_a_role_with_another_password_or_more_power_is_off(role):
    assert off(role=role, database={}, inside={}) == {**NOTHING_OFF, "roles": ["shop"]}


@pytest.mark.parametrize(
    ("version", "owner", "right"),
    [
        (170012, "pg_database_owner", True),
        (170012, "shop", True),
        (170012, "postgres", False),
        (150010, "pg_database_owner", True),
        (140012, "postgres", False),
        (140012, "shop", True),
    ],
)
def test_the_schema_belongs_to_whoever_owns_the_database(version, owner, right):
    assert off(version=version, role={}, database={}, inside={"schema_owner": owner})["schemas"] == ([] if right else ["shop"])


def test_before_15_a_new_database_needs_its_schema_handed_over():
    assert off(version=140012, role={})["schemas"] == ["shop"]


def test_a_database_of_another_owner_or_open_to_all_is_off():
    result = off(role={}, database={"owner": "postgres", "public": True}, inside={})
    assert (result["databases"], result["public"]) == (["shop"], ["shop"])


def test_the_common_databases_are_closed_too():
    others = [{"name": name, "owner": "postgres", "public": True} for name in ("postgres", "template1")]
    assert off(role={}, database={}, inside={}, others=others)["public"] == ["postgres", "template1"]


def test_the_script_holds_no_password_and_one_connection_for_each_database():
    script = inspection(wanted_databases([SHOP, {**SHOP, "name": "second-one", "owner": "b"}]))
    assert PASSWORD not in script
    assert script.count("\\connect") == 2
    assert "rolname IN ('b', 'shop')" in script


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "Shop"}, r"postgresql_databases\[0\]\.name: 'Shop'"),
        ({"name": "shop'; DROP"}, r"\[0\]\.name"),
        ({"name": "postgres"}, r"\[0\]\.name: 'postgres'"),
        ({"owner": "postgres"}, r"\[0\]\.owner: 'postgres'"),
        ({"name": "a" * 64}, r"\[0\]\.name"),
        ({"extensions": ["citext; DROP"]}, r"\[0\]\.extensions"),
        ({"password": "short"}, r"\[0\]\.password is shorter than 12"),
    ],
)
def test_a_wrong_entry_is_named_and_its_password_is_not(entry, message):
    with pytest.raises(AnchorageError, match=message) as caught:
        wanted_databases([{**SHOP, **entry}])
    assert PASSWORD not in caught.value.text()
    assert "short" not in caught.value.text().replace("shorter", "")


def test_one_role_has_one_password_and_one_name_stands_once():
    with pytest.raises(AnchorageError, match="two passwords"):
        wanted_databases([SHOP, {**SHOP, "name": "b", "password": "another password"}])
    with pytest.raises(AnchorageError, match="there twice"):
        wanted_databases([SHOP, SHOP])


SECOND = {"name": "shop-b", "password": "a second long password"}
MEMBER = {**ROLE, "name": "shop-b", "member_of": ["shop"], "settings": ["role=shop"], "verifier": verifier(SECOND["password"], salt=bytes(16))}
CLOSED = {**ROLE, "login": False}


def logins_off(entry, *roles):
    """Return what of the logins is off, where the rest of the database is as wanted."""
    found = {**seen(database={}, inside={}), "role": list(roles)}
    result = differences(wanted_databases([{**SHOP, **entry}], ["pg_stat_statements"]), found)
    return {key: result[key] for key in ("roles", "members", "shut", "sessions") if result[key]}


def test_two_logins_are_wanted_for_as_long_as_one_takes_over_from_the_other():
    both = {"logins": [SECOND]}
    assert logins_off(both, ROLE, MEMBER) == {}
    assert logins_off(both, ROLE) == {"roles": ["shop-b"], "members": [{"role": "shop-b", "owner": "shop"}]}
    assert logins_off(both, ROLE, {**MEMBER, "verifier": ROLE["verifier"]}) == {"roles": ["shop-b"]}


@pytest.mark.parametrize("change", [{"member_of": None}, {"member_of": ["other"]}, {"settings": None}, {"settings": ["role=other"]}])
def test_a_login_that_does_not_act_as_the_owner_is_off(change):
    assert logins_off({"logins": [SECOND]}, ROLE, {**MEMBER, **change}) == {"members": [{"role": "shop-b", "owner": "shop"}]}


def test_a_role_without_password_may_not_log_in_and_has_no_session():
    second_only = {"password": None, "logins": [SECOND]}
    assert logins_off(second_only, CLOSED, MEMBER) == {}
    assert logins_off(second_only, ROLE, MEMBER) == {"shut": ["shop"]}
    assert logins_off(second_only, {**CLOSED, "sessions": 2}, MEMBER) == {"sessions": ["shop"]}
    assert logins_off(second_only, MEMBER) == {"shut": ["shop"]}, "somebody must own the database"
    first_only = {"logins": [{"name": "shop-b"}]}
    assert logins_off(first_only, ROLE) == {}, "a second login that never was is not missed"
    assert logins_off(first_only, ROLE, MEMBER) == {"shut": ["shop-b"]}
    assert logins_off(first_only, ROLE, {**MEMBER, "login": False}) == {}


def test_somebody_must_be_able_to_log_in():
    with pytest.raises(AnchorageError, match="nobody may log in"):
        wanted_databases([{**SHOP, "password": None, "logins": [{"name": "shop-b"}]}])
    with pytest.raises(AnchorageError, match=r"\[0\]\.logins: 'x;y'"):
        wanted_databases([{**SHOP, "logins": [{"name": "x;y"}]}])
    with pytest.raises(AnchorageError, match="two owners"):
        wanted_databases([{**SHOP, "logins": [SECOND]}, {**SHOP, "name": "blog", "owner": "blog", "logins": [SECOND]}])


def test_facts_are_gathered_by_kind_and_noise_is_left_out():
    output = '{"kind" : "role", "name" : "a"}\nSET\n{"kind" : "role", "name" : "b"}\n'
    assert facts(output) == {"role": [{"name": "a"}, {"name": "b"}]}


@pytest.mark.parametrize(("text", "port"), [("", 5432), ("port = 5433 # x", 5433), ("#port = 1\nport=5432\nport '5434'", 5434), ("support = 7", 5432)])
def test_the_last_port_wins(text, port):
    assert configured_port(text) == port


class Host:
    """A host with files and one psql."""

    def __init__(self, files, answer=None):
        self.files = files
        self.answer = answer
        self.runs = []

    def listdir(self, path):
        return sorted({name[len(path) + 1 :].split("/")[0] for name in self.files if name.startswith(f"{path}/")})

    def exists(self, path):
        return path in self.files

    def read(self, path):
        return self.files.get(path)

    def run(self, argv, **options):
        self.runs.append((argv, options))
        return self.answer


FILES = {
    "/etc/postgresql/15/old/postgresql.conf": b"port = 5433\n",
    "/etc/postgresql/17/main/postgresql.conf": b"port = 5432\n",
    "/etc/postgresql/17/main/conf.d/anchorage-restart.conf": b"port = 6000\n",
    "/etc/postgresql/17/main/conf.d/left.dpkg-old": b"port = 1\n",
    "/usr/lib/postgresql/17/bin/postgres": b"",
}


def test_each_cluster_is_known_with_its_port():
    assert clusters(Host(FILES)) == [{"name": "15/old", "port": 5433}, {"name": "17/main", "port": 6000}]


def look(host, version="17"):
    return inspect(host, version=version, cluster="main", databases=wanted_databases([SHOP]))


def test_a_host_without_the_server_is_no_failure_and_asks_nobody():
    host = Host(FILES)
    result = look(host, version="16")
    assert (result["installed"], result["answering"], host.runs) == (False, False, [])
    assert "16 is not installed yet" in result["answer"]


def test_a_silent_server_is_told_with_its_words():
    result = look(Host(FILES, Completed(2, "", "psql: error: connection refused\n")))
    assert (result["installed"], result["answering"], result["answer"]) == (True, False, "psql: error: connection refused")


def test_one_session_of_the_superuser_tells_everything():
    lines = [{"kind": kind, **fact} for kind, some in seen(role={}, database={}, inside={}).items() for fact in some]
    lines += [{"kind": "pending", "name": "huge_pages"}, {"kind": "slot", "name": "anchorage_db2"}]
    host = Host(FILES, Completed(0, "\n".join(json.dumps(line) for line in lines), ""))
    result = look(host)
    assert (result["answering"], result["differences"], result["pending_restart"], result["slots"]) == (True, NOTHING_OFF, ["huge_pages"], ["anchorage_db2"])
    assert len(host.runs) == 1
    argv, options = host.runs[0]
    assert options["user"] == "postgres"
    assert PASSWORD not in "".join(argv) + options["input"]


def test_a_configuration_that_the_server_refuses_is_a_failure_that_names_the_line():
    broken = {"kind": "broken", "file": "/etc/x.conf", "line": 3, "name": "work_mem", "error": "setting could not be applied"}
    lines = [{"kind": "server", "version": 170012, "in_recovery": False}, broken]
    with pytest.raises(AnchorageError, match="/etc/x.conf:3 work_mem setting could not be applied"):
        look(Host(FILES, Completed(0, "\n".join(json.dumps(line) for line in lines), "")))
