# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import json
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_run, restore_plan, restore_source, scratch_cluster
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import Chosen, Wish
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, LOCAL, OFFSITE, VAULT, document, ring

ARCHIVE = {"backup": [{"label": "20231114-013000F", "timestamp": {"stop": 1}, "info": {"size": 1}}]}
SNAPSHOT = {"id": "a" * 64, "time": "2023-11-14T01:30:00Z", "hostname": "vps"}


def settings(*targets, method="archive"):
    return Settings.parse(document(targets=list(targets or [LOCAL]), databases=[{"name": "shop", "method": method, "app": "shop"}]), KEY)


@pytest.fixture
def backups(monkeypatch):
    """What each target has: an archive and a snapshot at all of them, unless a test takes one away."""
    had = types.SimpleNamespace(archives={}, snapshots={}, asked=[])

    def archive(_world, _settings, target):
        had.asked.append(("archive", target.name))
        found = had.archives.get(target.name, ARCHIVE)
        if isinstance(found, AnchorageError):
            raise found
        return found

    def restic(_settings, _world, target, *words, timeout):
        had.asked.append(("snapshots", target.name))
        return had.snapshots.get(target.name, Completed(0, json.dumps([SNAPSHOT]), ""))

    monkeypatch.setattr(scratch_cluster, "backups", archive)
    monkeypatch.setattr(backup_run, "restic", restic)
    monkeypatch.setattr(restore_source.socket, "gethostname", lambda: "vps")
    return had


def choose(settings_, wish):
    return restore_source.choose(settings_, World(), wish, settings_.databases[0])


def test_a_database_whose_wal_is_archived_comes_from_the_archive_and_others_from_a_snapshot(backups):
    assert choose(settings(), Wish("database", "shop")).source == "archive"
    assert choose(settings(method="dump"), Wish("database", "shop")).source == "snapshot"
    assert choose(settings(), Wish("database", "shop", "backup", "20231114-013000F")).source == "archive"
    assert choose(settings(), Wish("database", "shop", "backup", "aaaaaaaa")).source == "snapshot"


def test_only_the_named_target_is_asked(backups):
    assert choose(settings(LOCAL, OFFSITE), Wish("database", "shop", target="offsite")).target == "offsite"
    assert backups.asked == [("archive", "offsite")]
    assert choose(settings(LOCAL, VAULT), Wish("database", "shop", target="vault")).source == "snapshot"


def test_where_the_archive_is_gone_dumps_that_went_elsewhere_serve(backups):
    backups.archives["local"] = AnchorageError("the disk is gone")
    assert choose(settings(LOCAL, VAULT), Wish("database", "shop")).source == "snapshot"
    with pytest.raises(AnchorageError, match="the disk is gone"):
        choose(settings(LOCAL, VAULT), Wish("database", "shop", "backup", "20231114-013000F"))
    with pytest.raises(AnchorageError, match="the disk is gone"):
        choose(settings(LOCAL), Wish("database", "shop"))


def test_a_release_s_restore_point_is_of_this_host(backups, monkeypatch):
    points = [{"release": "0c2d", "path": "/a.dump", "at": 1.0}]
    monkeypatch.setattr(restore_source, "App", lambda name, world: types.SimpleNamespace(journal=types.SimpleNamespace(restore_points=lambda: points)))
    assert choose(settings(), Wish("database", "shop", "point", "0c2d")).backup == "/a.dump" and backups.asked == []


def test_a_target_that_does_not_answer_is_told(backups):
    backups.snapshots["local"] = Completed(1, "", "Fatal: wrong password or no key found")
    with pytest.raises(AnchorageError, match="local: it cannot be read: .*wrong password"):
        choose(settings(method="dump"), Wish("database", "shop"))
    backups.snapshots["local"] = Completed(0, "[", "")
    with pytest.raises(AnchorageError, match="local: it cannot be read"):
        choose(settings(method="dump"), Wish("database", "shop"))
    backups.snapshots["local"] = Completed(0, "null", "")
    with pytest.raises(AnchorageError, match="local has: none"):
        choose(settings(method="dump"), Wish("database", "shop"))


def test_a_file_comes_whole_or_not_at_all(tmp_path, monkeypatch):
    fake = tmp_path / "restic"
    fake.write_text(
        '#!/bin/sh\nfor last in "$@"; do :; done\n[ "$last" = /stage/good ] && printf PGDMP && exit 0\nprintf half\necho "Fatal: not found" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(Settings, "restic", lambda self, target: ([str(fake)], {"PATH": "/usr/bin:/bin"}))
    path = tmp_path / "it's.dump"
    chosen = Chosen("snapshot", "local", "a" * 64, 1.0)
    restore_source.fetch_file(settings(), World(), chosen, "/stage/good", str(path))
    assert path.read_text() == "PGDMP"
    with pytest.raises(AnchorageError, match="/stage/bad could not be had from restic's snapshot aaaaaaaa at local"):
        restore_source.fetch_file(settings(), World(), chosen, "/stage/bad", str(path))
    assert not path.exists()


def test_the_label_of_a_backup_is_told_from_the_id_of_a_snapshot():
    good = ("20231114-013000F", "20231114-013000F_20231115-013000I", "20231114-013000F_20231115-013000D")
    assert all(restore_source.LABEL.fullmatch(label) for label in good)
    assert not any(restore_source.LABEL.fullmatch(name) for name in ("aaaaaaaa", "20231114", "12345678"))
    assert restore_plan.BACKUP == "backup"


LEFT = datetime.datetime.fromtimestamp(ring().former[0].left, datetime.timezone.utc)
ROTATED = Settings.parse(document(targets=[LOCAL], databases=[{"name": "shop", "method": "archive", "app": "shop"}], keys=ring().told), ring())


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        (Wish("database", "shop"), None),
        (Wish("database", "shop", "time", (LEFT + datetime.timedelta(seconds=1)).isoformat()), None),
        (Wish("database", "shop", "time", LEFT.isoformat()), "local-before-2"),
        (Wish("database", "shop", "backup", "20231114-013000F"), "local-before-2"),
        (Wish("database", "shop", target="local-before-2"), "local-before-2"),
        (Wish("files", "shop", "time", LEFT.isoformat(), None), "local-before-2"),
        (Wish("files", "shop"), None),
    ],
)
def test_what_a_former_key_made_is_never_taken_for_the_newest(backups, wish, wanted):
    """Here the repository of the key of now is away."""
    backups.archives["local"] = AnchorageError("it is away")
    backups.snapshots["local"] = Completed(1, "", "Fatal: it is away")
    take = restore_source.choose_snapshot if wish.what == "files" else choose_of_rotated
    if wanted:
        assert take(ROTATED, World(), wish).target == wanted
    else:
        with pytest.raises(AnchorageError, match="it is away"):
            take(ROTATED, World(), wish)
    backups.archives.clear()
    backups.snapshots.clear()
    assert take(ROTATED, World(), wish).target == (wish.target or "local")


def choose_of_rotated(settings_, _world, wish):
    return choose(settings_, wish)


def test_while_a_rotation_is_under_way_both_have_the_newest(backups):
    backups.archives["local"] = AnchorageError("it is empty yet")
    under_way = Settings.parse(document(targets=[LOCAL], databases=[{"name": "shop", "method": "archive", "app": "shop"}], keys=ring(None).told), ring(None))
    assert choose(under_way, Wish("database", "shop")).target == "local-before-2"
