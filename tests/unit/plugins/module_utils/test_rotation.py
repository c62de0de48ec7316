# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be rotated, and what is wanted of services and releases in each state of a rotation."""

from __future__ import annotations

import copy
import itertools

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils import rotation
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .contract_samples import FLEET, RANDOM, SHOP, changed, resolved

KEYS = {"ENCRYPTION_KEY_CURRENT": 64}
CLINIC = changed(
    SHOP,
    secrets={"generate": KEYS, "rotating": {"ENCRYPTION_KEY_CURRENT": "ENCRYPTION_KEY_OLD"}},
    redis={"cache": {}},
    admin={"email": "a@example.com"},
)
CONTRACT = resolved({"shop": CLINIC})
APP = CONTRACT["apps"]["shop"]
KEPT = {"database_password": "d1", "redis_password": "r1", "JWT_SECRET": "j1", "COOKIE_SECRET": "c1", "ENCRYPTION_KEY_CURRENT": "e1", "admin_password": "a1"}


def offered(app=APP):
    return {choice["name"]: choice for choice in rotation.choices(app)}


def names(chosen):
    return [choice["name"] for choice in chosen]


# ---------------------------------------------------------------------------------------------- what can be chosen


def test_without_a_name_all_is_rotated_that_ends_no_session():
    assert names(rotation.select("shop", rotation.choices(APP), [])) == ["database", "redis", "encryption"]


def test_what_signs_sessions_is_rotated_in_one_go_and_only_when_it_is_named():
    (choice,) = rotation.select("shop", rotation.choices(APP), ["sessions"])
    assert choice["ends_sessions"] and choice["keys"] == {"JWT_SECRET": 128, "COOKIE_SECRET": 128}
    assert "LOGGED OUT" in " ".join(rotation.story("shop", [choice], rotation.choices(APP)))
    for key in ("JWT_SECRET", "COOKIE_SECRET"):
        with pytest.raises(AnchorageError, match=f"{key}: goes together with all of its kind: write sessions"):
            rotation.select("shop", rotation.choices(APP), [key])


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        ({"database": {"url": f"postgres://u:{RANDOM}@db.example.com/shop"}}, "database", "managed elsewhere"),
        ({"redis": {"url": f"redis://u:{RANDOM}@r.example.com/0"}}, "redis", "managed elsewhere"),
        ({"env__JWT_SECRET": RANDOM}, "sessions", "JWT_SECRET comes from env; change JWT_SECRET and COOKIE_SECRET there"),
        ({"env__ENCRYPTION_KEY_CURRENT": RANDOM}, "encryption", "ENCRYPTION_KEY_CURRENT comes from env"),
        ({"secrets__generate__HOOK_SECRET": 64}, "HOOK_SECRET", "nothing says what hangs on it"),
        ({}, "admin", "change it there"),
        ({}, "ENCRYPTION_KEY_CURRENT", "write encryption"),
        ({"secrets__rotating": ...}, "encryption", "secrets.rotating names none"),
        ({"runtime": "compose"}, "database", "in a container"),
        ({"runtime": "compose"}, "redis", "in a container"),
        ({"runtime": "compose", "components": {"s3": {}}}, "s3", "is a component"),
        ({}, "datbase", "is no secret of shop; there are database, redis, sessions, encryption"),
    ],
)
def test_what_cannot_be_rotated_is_refused_by_its_name_with_the_reason(change, name, why):
    app = resolved({"shop": changed(CLINIC, **change)})["apps"]["shop"]
    with pytest.raises(AnchorageError, match=name) as caught:
        rotation.select("shop", rotation.choices(app), ["sessions", name] if name != "sessions" else [name])
    assert why in caught.value.message and "Nothing was done" in caught.value.message and RANDOM not in caught.value.text()


def test_in_containers_what_only_a_release_needs_is_rotated_all_the_same():
    app = resolved({"shop": changed(CLINIC, runtime="compose")})["apps"]["shop"]
    assert names(rotation.select("shop", rotation.choices(app), [])) == ["encryption"]


def test_where_nothing_can_be_rotated_each_reason_is_told():
    app = resolved({"shop": changed(SHOP, runtime="compose")})["apps"]["shop"]
    with pytest.raises(AnchorageError, match=r"Nothing of shop can be rotated.*database: a database in a container.*sessions: would end sessions"):
        rotation.select("shop", rotation.choices(app), [])


# ---------------------------------------------------------------------------------------------- the row of states


def begun(*wanted, values=None, state=None):
    numbers = itertools.count(2)
    chosen = rotation.select("shop", rotation.choices(APP), wanted)
    return rotation.begin(KEPT if values is None else values, state or {}, chosen, now=100.0, name="one", make=lambda length: f"new{next(numbers)}-{length}")


def look(state, values=None, contract=None, host="vps"):
    """Return what services and releases are told in a state."""
    secrets, contract = {"shop": rotation.in_force(values or KEPT, state)}, contract or CONTRACT
    document = views.release_documents(contract, secrets, host)[0]
    (database,) = views.postgresql_databases(contract, secrets, contract["apps"]["shop"]["database"]["host"])
    redis = views.redis_instances(contract, secrets, contract["apps"]["shop"]["redis"]["host"])
    assert redis[0]["users"] == redis[1]["users"], "jobs and cache have the same users"
    return document, {key: database.get(key) for key in ("password", "logins")}, redis[0]["users"][0]


def on(state, phase, now=200.0):
    return rotation.advance(state, phase, now=now, name="one")


def test_an_app_that_was_never_rotated_has_what_it_always_had():
    document, database, user = look({})
    assert rotation.in_force(KEPT, {}) == KEPT
    assert database == {"password": "d1", "logins": None} and user == {"name": "shop", "password": "r1"}
    assert document["database_url"] == "postgres://shop:d1@127.0.0.1:5432/shop" and "ENCRYPTION_KEY_OLD" not in document["secrets_env"]


def test_a_database_password_goes_from_one_login_to_the_other_and_back():
    state = begun("database")
    document, database, _user = look(state)
    assert document["database_url"].startswith("postgres://shop:d1@"), "while services learn, the old one is used"
    assert database == {"password": "d1", "logins": [{"name": "shop-b", "password": "new2-48"}]}

    document, database, _user = look(on(state, "use"))
    assert document["database_url"].startswith("postgres://shop-b:new2-48@")
    assert database == {"password": "d1", "logins": [{"name": "shop-b", "password": "new2-48"}]}, "both, for the processes that still run"

    retired = on(on(state, "use"), "retire")
    document, database, _user = look(retired)
    assert document["database_url"].startswith("postgres://shop-b:new2-48@")
    assert database == {"password": None, "logins": [{"name": "shop-b", "password": "new2-48"}]}, "the owner may not log in"

    values, state = rotation.finish(KEPT, retired, now=300.0, name="one")
    assert values == {**KEPT, "database_password": "new2-48"} and state == {"login": "b", "rotated": {"database": 300.0}}
    assert look(state, values)[:2] == (document, database), "the end of it changes nothing more"

    back = begun("database", values=values, state=state)
    document, database, _user = look(back, values)
    assert document["database_url"].startswith("postgres://shop-b:new2-48@")
    assert database["password"] == "new2-48"[:-2] + "48" and database["logins"] == [{"name": "shop-b", "password": "new2-48"}]
    document, database, _user = look(on(on(back, "use"), "retire"), values)
    assert document["database_url"].startswith("postgres://shop:new2-48@")
    assert database == {"password": "new2-48", "logins": [{"name": "shop-b"}]}, "the second login may not log in any more"


def test_a_user_of_redis_has_two_passwords_meanwhile():
    state = begun("redis")
    document, database, user = look(state)
    assert database == {"password": "d1", "logins": None}
    assert user == {"name": "shop", "password": "r1", "other_passwords": ["new2-48"]} and "shop:r1@" in document["redis_url"]
    document, _database, user = look(on(state, "use"))
    assert user == {"name": "shop", "password": "new2-48", "other_passwords": ["r1"]}
    assert "shop:new2-48@" in document["redis_url"] and "shop:new2-48@" in document["redis_cache_url"]
    document, _database, user = look(on(on(state, "use"), "retire"))
    assert user == {"name": "shop", "password": "new2-48"}


def test_all_processes_can_read_with_a_new_key_before_any_writes_with_it():
    values = {**KEPT, "ENCRYPTION_KEY_OLD": "e0"}
    state = begun("encryption", values=values)
    assert state["pending"]["teach"]
    learning = look(state, values)[0]["secrets_env"]
    assert (learning["ENCRYPTION_KEY_CURRENT"], learning["ENCRYPTION_KEY_OLD"]) == ("e1", "new2-64,e0")
    using = look(on(state, "use"), values)[0]["secrets_env"]
    assert (using["ENCRYPTION_KEY_CURRENT"], using["ENCRYPTION_KEY_OLD"]) == ("new2-64", "e1,e0")
    values, state = rotation.finish(values, on(on(state, "use"), "retire"), now=300.0, name="one")
    assert look(state, values)[0]["secrets_env"] == using


def test_a_key_that_the_user_gives_as_an_earlier_one_stays_among_them():
    contract = resolved({"shop": changed(CLINIC, env__ENCRYPTION_KEY_OLD=RANDOM)})
    assert look({}, contract=contract)[0]["secrets_env"]["ENCRYPTION_KEY_OLD"] == RANDOM
    learning = look(begun("encryption"), contract=contract)[0]
    assert learning["secrets_env"]["ENCRYPTION_KEY_OLD"] == f"new2-64,{RANDOM}" and "ENCRYPTION_KEY_OLD" not in learning["env"]


def test_other_secrets_need_no_release_to_learn_from():
    state = begun("database", "redis", "sessions")
    assert not state["pending"]["teach"] and look(state)[0]["secrets_env"]["JWT_SECRET"] == "j1"
    using = look(on(state, "use"))[0]["secrets_env"]
    assert using["JWT_SECRET"].startswith("new") and using["COOKIE_SECRET"].startswith("new") and using["JWT_SECRET"] != using["COOKIE_SECRET"]


def test_from_other_hosts_the_same_logins_are_used():
    contract = resolved({"shop": CLINIC}, FLEET)
    for host in ("a1", "a2"):
        document = look(on(begun("database"), "use"), contract=contract, host=host)[0]
        assert document["database_url"] == "postgres://shop-b:new2-48@192.0.2.21:5432/shop?sslmode=verify-full&sslrootcert=/etc/anchorage/tls/ca.pem"


def test_states_are_reached_in_their_order_and_a_second_run_goes_on():
    state = begun("redis")
    with pytest.raises(AnchorageError, match="cannot go from accept to retire"):
        on(state, "retire")
    with pytest.raises(AnchorageError, match="cannot go from accept to retire"):
        rotation.finish(KEPT, state, now=1.0, name="one")
    used = on(state, "use")
    assert on(used, "use", now=999.0) == used and on(on(used, "retire"), "use") == on(used, "retire")


def test_a_run_does_not_go_on_with_what_another_one_has_ended():
    for state in ({}, {"pending": {**begun("redis")["pending"], "id": "two"}}):
        with pytest.raises(AnchorageError, match="not under way any more"):
            on(state, "use")


def test_a_crash_between_the_two_last_writes_is_made_good():
    retired = on(on(begun("database", "redis", "encryption"), "use"), "retire")
    values, state = rotation.finish(KEPT, retired, now=300.0, name="one")
    assert rotation.in_force(values, retired) == rotation.in_force(KEPT, retired), "with the secrets written and the state not"
    assert rotation.finish(values, retired, now=300.0, name="one") == (values, state)


def test_a_secret_that_is_not_there_yet_cannot_be_rotated():
    with pytest.raises(AnchorageError, match="no redis_password yet"):
        begun("redis", values={"database_password": "d1"})


def test_what_is_to_be_refused_is_told_when_nobody_uses_it_any_more():
    state = begun("database", "redis", "sessions", "encryption")

    def former(state):
        return views.rotation_former(CONTRACT, {"shop": rotation.in_force(KEPT, state)}, "shop", "vps")

    nothing = {"urls": {}, "environment": {}, "keys": []}
    assert former(state) == former(on(state, "use")) == former({}) == nothing
    found = former(on(on(state, "use"), "retire"))
    assert found["urls"] == {
        "database_url": "postgres://shop:d1@127.0.0.1:5432/shop",
        "redis_url": "redis://shop:r1@127.0.0.1:6379/0",
        "redis_cache_url": "redis://shop:r1@127.0.0.1:6380/0",
    }
    assert found["environment"] == {"JWT_SECRET": "j1", "COOKIE_SECRET": "c1"}, "an earlier encryption key is kept, and none of these"
    assert found["keys"] == ["JWT_SECRET", "COOKIE_SECRET", "ENCRYPTION_KEY_CURRENT", "ENCRYPTION_KEY_OLD"]


def test_what_goes_through_a_pool_is_to_be_refused_there_too():
    contract = copy.deepcopy(CONTRACT)
    contract["apps"]["shop"]["database"]["pool"] = {"mode": "session", "size": 5, "port": 6432, "prepared_statements": False}
    retired = on(on(begun("database"), "use"), "retire")
    found = views.rotation_former(contract, {"shop": rotation.in_force(KEPT, retired)}, "shop", "vps")
    assert found["urls"] == {f"database{way}_url": f"postgres://shop:d1@127.0.0.1:{port}/shop" for way, port in (("", 5432), ("_pool", 6432))}


@pytest.mark.parametrize("user", ["shop", "s" * 63, "s" * 62])
def test_the_second_login_has_a_name_that_no_contract_can_give(user):
    second = rotation.login(user, "b")
    assert rotation.login(user, "a") == user and "-" in second and len(second) <= 63


def test_no_secret_is_in_what_people_are_told():
    chosen = rotation.select("shop", rotation.choices(APP), ["database", "redis", "sessions", "encryption"])
    state = begun("database", "redis", "sessions", "encryption")
    said = "\n".join([*rotation.story("shop", chosen, rotation.choices(APP)), rotation.describe("shop", state, 160.0)])
    pending = state["pending"]
    assert not [value for side in ("before", "after") for value in pending[side]["values"].values() if value and value in said]
    assert "2 releases" in said and "under way for 1 min" in said and rotation.describe("shop", {}, 0.0) == ""
