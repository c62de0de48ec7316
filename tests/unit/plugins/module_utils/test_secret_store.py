# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets on a host: made once, kept through every crash, and made anew only when somebody rotates them."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import secret_store
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .engine_fakes import HostWorld

CHOICE = {"name": "redis", "keys": {"redis_password": 48}, "old": {}, "ends_sessions": False, "refused": ""}
PATH, STATE = "/etc/anchorage/secrets/shop.json", "/etc/anchorage/secrets/shop.rotation.json"


@pytest.fixture
def world():
    world = HostWorld()
    world.files[PATH] = json.dumps({"redis_password": "old"})
    return world


def test_what_is_missing_is_made_once_for_root_alone(world):
    kept, new = secret_store.ensure(world, "shop", {"redis_password": 48, "JWT_SECRET": 128}, check=False)
    assert new == ["JWT_SECRET"] and kept["redis_password"] == "old" and len(kept["JWT_SECRET"]) == 128
    assert world.written[PATH] == {"mode": 0o600, "uid": 0, "gid": 0}
    assert secret_store.ensure(world, "shop", {"JWT_SECRET": 128}, check=False) == (kept, [])


def test_check_mode_makes_nothing(world):
    assert secret_store.ensure(world, "blog", {"JWT_SECRET": 128}, check=True) == ({}, ["JWT_SECRET"]) and not world.written


@pytest.mark.parametrize("path", [PATH, STATE])
@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_file_is_named_and_nothing_is_made(world, path, text):
    world.files[path] = text
    with pytest.raises(AnchorageError, match=f"{path} is damaged") as caught:
        secret_store.ensure(world, "shop", {"JWT_SECRET": 128}, check=False)
    assert not world.written and "old" not in caught.value.text()


def test_a_rotation_goes_through_its_states_and_leaves_one_password(world):
    state = secret_store.begin(world, "shop", [CHOICE])
    name, new = state["pending"]["id"], state["pending"]["after"]["values"]["redis_password"]
    assert len(new) == 48 and new != "old"
    assert world.written[STATE] == {"mode": 0o600, "uid": 0, "gid": 0}
    assert json.loads(world.files[PATH]) == {"redis_password": "old"}, "what is kept is what is in use"
    assert secret_store.advance(world, "shop", "use", name) is True
    assert secret_store.advance(world, "shop", "use", name) is False
    assert secret_store.ensure(world, "shop", {}, check=False)[0]["redis_password"] == new
    secret_store.advance(world, "shop", "retire", name)
    secret_store.finish(world, "shop", name)
    assert json.loads(world.files[PATH]) == {"redis_password": new}
    assert "old" not in world.files[STATE] and new not in world.files[STATE], "nothing secret stays in the state"
    with pytest.raises(AnchorageError, match="not under way"):
        secret_store.advance(world, "shop", "use", name)


def test_to_look_whether_it_could_begin_keeps_nothing(world):
    secret_store.check(world, "shop", [CHOICE])
    assert not world.written
    with pytest.raises(AnchorageError, match="no redis_password yet"):
        secret_store.check(world, "blog", [CHOICE])


def test_one_at_a_time(world, tmp_path, monkeypatch):
    monkeypatch.setattr(secret_store, "SECRETS", str(tmp_path))
    with secret_store.alone():
        pass
    with secret_store.alone():
        pass


# ---- secrets that somebody chose, as the key of the backups: kept once, and never put over another one

GIVEN = {"key": "k" * 40}


def given_to(world, given):
    return secret_store.ensure(world, "backup", {"key": 64}, check=False, given=given)


def kept_by(world):
    return json.loads(world.files[secret_store.path_of("backup")])


def test_a_given_secret_is_kept_and_none_is_made():
    world = HostWorld()
    found, made = given_to(world, GIVEN)
    assert found["key"] == kept_by(world)["key"] == GIVEN["key"] and made == ["key"]
    assert given_to(world, GIVEN)[1] == [] and given_to(world, None)[0]["key"] == GIVEN["key"]


def test_another_one_than_the_kept_is_refused_by_its_name_and_nothing_is_lost():
    world = HostWorld()
    made = given_to(world, None)[0]["key"]
    with pytest.raises(AnchorageError, match="keeps another key than the one that was given") as error:
        given_to(world, GIVEN)
    assert kept_by(world)["key"] == made and made not in error.value.text() and GIVEN["key"] not in error.value.text()


def test_a_host_that_may_take_over_keeps_what_the_other_one_keeps(world):
    state = secret_store.begin(world, "shop", [CHOICE])
    other = HostWorld()
    other.files[PATH] = json.dumps({"redis_password": "stale"})
    given = secret_store.whole(world, "shop")
    assert secret_store.take(other, "shop", given, check=True) and json.loads(other.files[PATH]) == {"redis_password": "stale"}
    assert secret_store.take(other, "shop", given, check=False)
    assert other.written[PATH] == other.written[STATE] == {"mode": 0o600, "uid": 0, "gid": 0}
    assert secret_store.read(other, "shop") == ({"redis_password": "old"}, state)
    assert not secret_store.take(other, "shop", given, check=False)


def test_where_nothing_was_ever_rotated_no_state_is_left(world):
    other = HostWorld()
    assert secret_store.take(other, "shop", secret_store.whole(world, "shop"), check=False)
    assert STATE not in other.files
