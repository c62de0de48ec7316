# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new key for the backups: made once, gone on with, and left to itself where something stands in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import (
    backup_keys,
    backup_results,
    backup_rotation,
    backup_settings,
    restore_host,
    restore_journal,
)
from ansible_collections.anchorage.vps.plugins.module_utils.backup_keys import Ring
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import DATABASE, FILES, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_fakes import NOW, backup
from .backup_samples import KEY, LOCAL, OFFSITE, VAULT, document

GIVEN = "g" * 40
CRYPTO = json.dumps([{"repo": [{"status": {"code": 99, "message": "[CryptoError] unable to load info file '/x':\nCryptoError: \x01"}}]}])


class Place:
    """A host with its keys and settings, which a test reads and writes."""

    def __init__(self, host, ring):
        self.host, self.ring, self.document = host, ring, document()
        self.rendered = ring

    def begin(self, given="", *, check=False):
        return backup_rotation.begin(self.host, given, check=check)

    def render(self):
        """What the role does between two steps."""
        self.rendered = self.ring

    @property
    def settings(self):
        return Settings.parse({**self.document, **({"keys": self.rendered.told} if self.rendered.told else {})}, self.ring)

    def saved(self, *, proven=True):
        for job in self.settings.jobs():
            targets = {target.name: backup_results.placed(target, {"ok": True, "cause": "", "bytes": 1}) for target in self.settings.for_job(job)}
            backup_results.end(self.host, job, backup_results.judged(job, targets, problem="", began=NOW, now=NOW, before={}))
            backup_results.proven(self.host, job, {"ok": proven, "finished": NOW, "targets": {name: {**one, "ok": proven} for name, one in targets.items()}})


@pytest.fixture
def place(tmp_path, monkeypatch):
    found = Place(backup_fakes.place(tmp_path, monkeypatch), Ring(KEY))
    monkeypatch.setattr(restore_journal, "PATH", str(tmp_path / "restore.json"))
    monkeypatch.setattr(restore_journal.RestoreJournal.__init__, "__defaults__", (str(tmp_path / "restore.json"),))
    monkeypatch.setattr(restore_journal, "lock", lambda world: contextlib.nullcontext())
    monkeypatch.setattr(restore_host, "PATH", str(tmp_path / "recovery.json"))
    monkeypatch.setattr(backup_rotation.secret_store, "SECRETS", str(tmp_path))
    monkeypatch.setattr(backup_keys, "read", lambda world: found.ring)
    monkeypatch.setattr(backup_keys, "write", lambda world, ring: setattr(found, "ring", ring))
    monkeypatch.setattr(backup_settings, "load", lambda world: found.settings)
    found.host.backups = [backup("20261130-052628F")]
    found.host.repositories = {"--repo=/var/backups/anchorage/files"}
    return found


def test_check_mode_says_what_would_be_done_and_keeps_nothing(place):
    found = place.begin(check=True)
    assert found["changed"] and "made here and printed once" in found["lines"][0] and "30 days" in found["lines"][0] and place.ring == Ring(KEY)
    assert [line.partition(";")[0] for line in found["lines"][1:]] == ["database at local: answers", "files at local: answers"]


def test_the_new_key_is_made_once_and_told_nowhere(place):
    first = place.begin()
    ring = place.ring
    second = place.begin()
    assert place.ring == ring and ring.number == 2 and ring.place == backup_keys.place_of(ring.key) and len(ring.key) == 64
    assert (ring.former[0].key, ring.former[0].targets, ring.former[0].until) == (KEY, ("local",), None)
    assert (first["changed"], second["changed"], second["under_way"]) == (True, False, True) and first["id"] == second["id"]
    assert ring.key not in json.dumps([first, second]) and KEY not in json.dumps([first, second])


def test_a_key_that_somebody_chose_is_taken_and_gone_on_with(place):
    place.begin(GIVEN)
    assert place.ring.key == GIVEN and place.begin(GIVEN)["under_way"] and place.begin()["under_way"]
    with pytest.raises(AnchorageError, match="is being rotated to another one"):
        place.begin("h" * 40)


@pytest.mark.parametrize(
    ("given", "words"), [(KEY, "is the key that is to be replaced"), ("short", "at least 32"), ("k" * 40 + "\n", "printable"), ("f" * 40, "is a former key")]
)
def test_a_key_that_cannot_be_the_new_one_is_refused(place, given, words):
    place.ring = Ring(KEY, former=(backup_keys.Former(1, "", ("local",), 5.0, key="f" * 40),))
    with pytest.raises(AnchorageError, match=words) as error:
        place.begin(given)
    assert place.ring.key == KEY and "nothing was done" in error.value.live and KEY not in error.value.text() and error.value.next_step


def test_whoever_works_with_what_is_saved_is_waited_for(place, tmp_path):
    (tmp_path / "shop.rotation.json").write_text('{"pending": {"phase": "use"}}')
    with pytest.raises(AnchorageError, match="The secrets of shop are being rotated"):
        place.begin()
    (tmp_path / "restore.json").write_text(json.dumps({"schema": 1, "under_way": True}))
    with pytest.raises(AnchorageError, match="A restore is not finished"):
        place.begin()
    (tmp_path / "recovery.json").write_text(json.dumps({"done": [], "finished_at": None}))
    with pytest.raises(AnchorageError, match="is being recovered"):
        place.begin()
    assert place.ring == Ring(KEY)


def test_a_backup_that_runs_is_not_disturbed(place):
    with backup_rotation.backup_run.lock(place.host, FILES), pytest.raises(AnchorageError, match="Another run of the backup job files"):
        place.begin()


def test_every_target_must_answer_and_have_room(place):
    place.document["targets"] = [LOCAL, OFFSITE, VAULT]
    place.host.broken["--repo=2 & info"] = Completed(1, "", "ERROR: [103]: away\n")
    place.host.free = 1 << 20
    with pytest.raises(AnchorageError) as error:
        place.begin()
    told = error.value.message
    assert "The target offsite does not answer" in told and "offsite does not give its repository of files" in told and "vault does not give" in told
    assert "/var/backups/anchorage has 1 MiB free, and up to 30 MiB are needed" in told and place.ring == Ring(KEY)


def test_a_host_that_gives_one_repository_whatever_is_asked_for_has_no_place_for_a_new_key(place):
    place.document["targets"] = [LOCAL, VAULT]
    place.host.repositories |= {"--repo=rclone:shop/files", "--repo=rclone:shop/files-nowhere"}
    with pytest.raises(AnchorageError, match="vault gives the same repository whatever is asked for"):
        place.begin()
    place.host.repositories.remove("--repo=rclone:shop/files-nowhere")
    assert place.begin()["changed"]


def test_without_a_backup_there_is_nothing_to_rotate(place):
    place.host.backups = []
    with pytest.raises(AnchorageError, match="local has no backup of the cluster yet"):
        place.begin()


@pytest.fixture
def begun(place):
    """A rotation whose new key the role has brought to the host."""
    name = place.begin()["id"]
    place.render()
    place.host.broken["repo=1 & info"] = Completed(0, CRYPTO, "")
    place.host.broken["--no-cache & cat config"] = Completed(1, "", "Fatal: wrong password or no key found\n")
    return place, name


def test_it_ends_when_everything_is_proven_and_the_former_key_refused(begun):
    place, name = begun
    place.saved()
    lines = backup_rotation.prove(place.host, name)
    assert lines == [f"{job} at local: saved and proven with the new key; the former one is refused" for job in (DATABASE, FILES)]
    with pytest.raises(AnchorageError, match="not left yet"):
        backup_rotation.finish(place.host, name)
    told = backup_rotation.leave(place.host, name)
    assert told["changed"] and "local-before-2" in told["lines"][0]
    assert (place.ring.former[0].until, place.ring.former[0].left) == (NOW + 30 * 86400, NOW) and place.ring.rotation["phase"] == "leave"
    assert not backup_rotation.leave(place.host, name)["changed"], "cut off there, the next run goes on"
    assert place.begin()["phase"] == "leave"
    with pytest.raises(AnchorageError, match="does not say yet"):
        backup_rotation.finish(place.host, name)
    place.render()
    removed = []
    place.host.remove = removed.append
    backup_rotation.finish(place.host, name)
    assert removed == ["/etc/pgbackrest/anchorage-local-before-2.conf"] and place.ring.rotation is None and place.settings.for_wal()[-1].name == "local"
    with pytest.raises(AnchorageError, match="not under way any more"):
        backup_rotation.prove(place.host, name)


def test_the_former_key_stands_in_no_command_line(begun):
    place, name = begun
    place.saved()
    backup_rotation.prove(place.host, name)
    asked = [call for call in place.host.ran if KEY in (call["env"] or {}).values()]
    assert {call["argv"][0] for call in asked} >= {"pgbackrest", "restic"}
    assert not [call for call in place.host.ran if KEY in " ".join(call["argv"]) or place.ring.key in " ".join(call["argv"])]


def test_what_is_not_saved_or_not_proven_keeps_both_alive(begun):
    place, name = begun
    with pytest.raises(AnchorageError, match="database at local is not saved: no run came to it; files at local is not saved") as error:
        backup_rotation.leave(place.host, name)
    assert "WAL goes to the repositories of both" in error.value.live and "rotate_backup_key.yml" in error.value.next_step
    place.saved(proven=False)
    with pytest.raises(AnchorageError, match="database at local is not proven"):
        backup_rotation.leave(place.host, name)
    assert place.ring.former[0].until is None and [target.name for target in place.settings.for_wal()] == ["local", "local-before-2"]


def test_results_from_before_the_rotation_count_for_nothing(begun):
    place, name = begun
    place.rendered = Ring(KEY)
    place.saved()
    with pytest.raises(AnchorageError, match="does not know the new key yet"):
        backup_rotation.prove(place.host, name)
    place.render()
    with pytest.raises(AnchorageError, match="database at local is not saved"):
        backup_rotation.prove(place.host, name)


def test_a_former_key_that_opens_the_new_ones_or_an_answer_that_is_none_ends_it(begun):
    place, name = begun
    place.saved()
    place.host.broken["repo=1 & info"] = Completed(0, json.dumps([{"repo": [{"status": {"code": 0, "message": "ok"}}]}]), "")
    place.host.broken["--no-cache & cat config"] = Completed(0, "{}", "")
    with pytest.raises(AnchorageError, match="database at local is opened by the former key; files at local is opened by the former key"):
        backup_rotation.prove(place.host, name)
    place.host.broken["--no-cache & cat config"] = Completed(1, "", "Fatal: dial tcp: connection refused\n")
    with pytest.raises(AnchorageError, match="did not answer whether"):
        backup_rotation.opens(place.settings, place.host, FILES, place.settings.targets[0], KEY)
    place.host.broken["repo=1 & info"] = Completed(103, "", "ERROR: [103]: away")
    with pytest.raises(AnchorageError, match="did not answer whether"):
        backup_rotation.opens(place.settings, place.host, DATABASE, place.settings.targets[0], KEY)


def test_a_second_rotation_keeps_what_the_first_one_left(begun):
    place, name = begun
    place.saved()
    backup_rotation.leave(place.host, name)
    place.render()
    backup_rotation.finish(place.host, name)
    second = place.ring.key
    place.ring = backup_rotation.renewed(place.ring, GIVEN, ["local"], now=NOW, name="x")
    place.render()
    assert [one.key for one in place.ring.former] == [second, KEY]
    assert [target.name for target in place.settings.readable(DATABASE)] == ["local", "local-before-3", "local-before-2"]
    assert dataclasses.replace(place.ring, rotation=None).told == place.ring.told, "what lies on the host does not change with the end"
