# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_keys
from ansible_collections.anchorage.vps.plugins.module_utils.backup_keys import Former, Ring, place_of
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .backup_samples import KEY
from .engine_fakes import HostWorld

NEW = "fedcba9876543210" * 4
FORMER = Former(1, "", ("local",), 5.0, key=KEY)
RING = Ring(NEW, place_of(NEW), 2, (FORMER,), {"id": "3f2a", "began_at": 1.0, "phase": "save"})


def test_a_host_whose_key_was_never_rotated_keeps_nothing_but_its_key():
    assert Ring.parse({"key": KEY}) == Ring(KEY) and Ring(KEY).as_dict() == {"key": KEY} and Ring(KEY).told == {}


def test_what_is_written_is_what_is_read_and_for_root_alone():
    world = HostWorld()
    backup_keys.write(world, RING)
    assert backup_keys.read(world) == RING and world.written[backup_keys.KEY] == {"mode": 0o600, "uid": 0, "gid": 0}


def test_each_key_has_a_place_that_follows_from_it_and_says_nothing_of_it():
    assert place_of(KEY) == place_of(KEY) != place_of(NEW) and len(place_of(KEY)) == 8 and place_of(KEY) not in KEY
    assert RING.keys == {"": KEY, place_of(NEW): NEW}


def test_no_key_is_in_a_picture_or_in_what_is_told():
    for shown in (repr(RING), json.dumps(RING.told)):
        assert KEY not in shown and NEW not in shown


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": ""}', '{"key": 5}', '{"key": "x", "former": [{}]}'])
def test_keys_that_cannot_be_read_are_named_and_not_shown(text):
    world = HostWorld()
    world.files[backup_keys.KEY] = text
    with pytest.raises(AnchorageError, match="The key of the backups .* is (damaged|missing)"):
        backup_keys.read(world)
