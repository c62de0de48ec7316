# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a former key has saved goes when its time has come, and nothing else does."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_former, backup_keys, backup_settings, secret_store
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_keys import Former, Ring
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import DATABASE, FILES, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_fakes import NOW
from .backup_samples import KEY, LOCAL, OFFSITE, VAULT, document

NEW = "n" * 40
RING = Ring(NEW, "abcd0123", 2, (Former(1, "", ("local", "offsite", "vault"), NOW - 1, key=KEY),))


class Place:
    """A host, its keys, and what is told."""

    def __init__(self, host, targets):
        self.host, self.ring, self.told, self.rewritten, self.targets = host, RING, [], [], targets

    def remove(self, job):
        data = document(targets=self.targets, keys=self.ring.told)
        backup_former.remove(Settings.parse(data, self.ring), self.host, Log(self.told.append), job)


@pytest.fixture
def place(tmp_path, monkeypatch):
    local = {**LOCAL, "path": str(tmp_path / "disk")}
    for name in ("postgresql", "files", "postgresql-abcd0123", "files-abcd0123"):
        (tmp_path / "disk" / name).mkdir(parents=True)
    found = Place(backup_fakes.place(tmp_path, monkeypatch), [local])
    found.disk = tmp_path / "disk"
    monkeypatch.setattr(secret_store, "alone", contextlib.nullcontext)
    monkeypatch.setattr(backup_keys, "read", lambda world: found.ring)
    monkeypatch.setattr(backup_keys, "write", lambda world, ring: setattr(found, "ring", ring))
    monkeypatch.setattr(backup_settings, "rewrite", lambda world, ring: found.rewritten.append(ring))

    def removed(argv, call):
        backup_fakes.pathlib.Path(argv[-1]).rmdir()
        return Completed(0, "", "")

    monkeypatch.setattr(found.host, "_rm", removed, raising=False)
    return found


def names(place):
    return sorted(path.name for path in place.disk.iterdir())


def test_each_job_removes_its_own_and_the_last_one_forgets_the_key(place):
    place.remove(DATABASE)
    assert names(place) == ["files", "files-abcd0123", "postgresql-abcd0123"] and place.ring.former[0].gone == ("database@local",)
    place.remove(FILES)
    assert names(place) == ["files-abcd0123", "postgresql-abcd0123"] and place.ring == dataclasses.replace(RING, former=())
    assert place.rewritten == [place.ring] and place.told[-1] == "The key before the 2. is forgotten"
    place.remove(FILES)
    assert len(place.rewritten) == 1


@pytest.mark.parametrize("until", [None, NOW + 1])
def test_before_its_time_nothing_goes(place, until):
    place.ring = dataclasses.replace(RING, former=(dataclasses.replace(RING.former[0], until=until),))
    before = place.ring
    place.remove(DATABASE)
    assert len(names(place)) == 4 and place.ring == before and not place.host.ran


def test_what_could_not_be_removed_stays_with_its_key(place):
    place.host.broken["rm -rf"] = Completed(1, "", "rm: cannot remove: Read-only file system\n")
    place.remove(DATABASE)
    place.remove(FILES)
    assert place.ring == RING and "Read-only file system" in place.told[0]


def test_a_store_is_emptied_by_its_tools(place):
    place.targets = [OFFSITE]
    place.host.broken["snapshots"] = Completed(0, json.dumps([{"id": "a1"}, {"id": "b2"}]), "")
    place.remove(DATABASE)
    place.remove(FILES)
    stop, delete = place.host.words("pgbackrest")
    assert stop == ["pgbackrest", "--stanza=main", f"--lock-path={backup_former.LOCKS}", "stop"]
    assert delete == ["pgbackrest", "--stanza=main", f"--lock-path={backup_former.LOCKS}", "--repo=2", "--force", "stanza-delete"]
    forget = place.host.words("restic")[-1]
    assert forget[1].endswith("/shop/files") and forget[-4:] == ["forget", "--prune", "a1", "b2"] and place.ring.former == ()


def test_a_store_that_is_away_is_tried_again(place):
    place.targets = [OFFSITE]
    place.host.broken["stanza-delete"] = Completed(1, "", "ERROR: [103]: away\n")
    place.host.broken["snapshots"] = Completed(1, "", "Fatal: dial tcp: connection refused\n")
    place.remove(DATABASE)
    place.remove(FILES)
    assert place.ring == RING and len(place.told) == 2


def test_where_this_host_may_not_remove_somebody_is_told_who_may(place):
    place.targets = [VAULT]
    place.remove(FILES)
    assert (
        place.told[0].endswith("on vault.example.com, below what its forced command serves, remove shop/files")
        and place.ring.former == ()
        and not place.host.words("restic")
    )
