# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that somebody chose, as the key of the backups: kept once, and never put over another one."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import secret_store
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .engine_fakes import HostWorld

GIVEN = {"key": "k" * 40}


def ensure(world, given):
    return secret_store.ensure(world, "backup", {"key": 64}, check=False, given=given)


def kept(world):
    return json.loads(world.files[secret_store.path_of("backup")])


def test_a_given_secret_is_kept_and_none_is_made():
    world = HostWorld()
    found, made = ensure(world, GIVEN)
    assert found["key"] == kept(world)["key"] == GIVEN["key"] and made == ["key"]
    assert ensure(world, GIVEN)[1] == [] and ensure(world, None)[0]["key"] == GIVEN["key"]


def test_another_one_than_the_kept_is_refused_by_its_name_and_nothing_is_lost():
    world = HostWorld()
    made = ensure(world, None)[0]["key"]
    with pytest.raises(AnchorageError, match="keeps another key than the one that was given") as error:
        ensure(world, GIVEN)
    assert kept(world)["key"] == made and made not in error.value.text() and GIVEN["key"] not in error.value.text()
