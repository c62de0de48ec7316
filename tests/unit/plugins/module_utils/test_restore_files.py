# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore_files, restore_plan
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_files import FilesRestore, differences
from ansible_collections.anchorage.vps.plugins.module_utils.restore_journal import RestoreJournal
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import GO, Chosen, Wish
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, document


class Host(World):
    """Real directories; restic lays out a snapshot, and Redis answers how many keys it has."""

    def __init__(self, snapshot):
        self.snapshot, self.ran, self.rc, self.keys = snapshot, [], 0, "db0:keys=2,expires=0\n"

    def run(self, argv, **_options):
        self.ran.append(list(argv))
        if argv[0] == "restic" and "restore" in argv:
            target, path = argv[argv.index("--target") + 1], argv[argv.index("--include") + 1]
            for name, text in self.snapshot.get(path, {}).items():
                place = pathlib.Path(f"{target}{path}/{name}")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)
            return Completed(self.rc, "", "Fatal: no such luck")
        if argv[0] == restore_files.REDIS:
            return Completed(0 if self.keys else 1, self.keys, "")
        if argv[0] in ("rm", "install"):
            return super().run([word for word in argv if not word.startswith(("--owner", "--group"))])
        return Completed(0, "", "")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A restore of one directory and one instance of Redis, whose snapshot has other contents."""
    for module in ("DIRECTORY", "LOCK"):
        monkeypatch.setattr(f"ansible_collections.anchorage.vps.plugins.module_utils.restore_journal.{module}", str(tmp_path / "state"))
    monkeypatch.setattr(restore_files, "WORK", str(tmp_path / "state" / "redis"))
    shared, redis = tmp_path / "srv" / "shop" / "shared", tmp_path / "redis" / "shop-jobs"
    for path, name, text in ((shared, "a", "new"), (shared, "late", "x"), (redis, "dump.rdb", "REDIS new")):
        path.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    monkeypatch.setattr("ansible_collections.anchorage.vps.plugins.module_utils.backup_settings.Redis.directory", property(lambda self: f"{tmp_path}/redis/{self.name}"))
    host = Host({str(shared): {"a": "old!", "gone": "y"}})
    monkeypatch.setattr(restore_files, "choose_snapshot", lambda *_args: Chosen("snapshot", "local", "c" * 64, 1.0))

    def fetched(_settings, _world, _chosen, _source, path, **_more):
        pathlib.Path(path).write_text("REDIS old")

    monkeypatch.setattr(restore_files, "fetch_file", fetched)
    settings = Settings.parse(document(paths=["/etc/anchorage", "/srv/shop/releases", str(shared)]), KEY)
    journal = RestoreJournal(host, str(tmp_path / "state" / "restore.json"))
    journal.begin(Wish(restore_plan.FILES, "shop"), GO, log="/log")
    lines = []

    def again():
        return FilesRestore(settings, host, Log(lines.append), RestoreJournal(host, journal.path))

    return types.SimpleNamespace(again=again, host=host, shared=shared, redis=redis, lines=lines, top=tmp_path, journal=lambda: json.loads(pathlib.Path(journal.path).read_text()))


def go():
    """The word is given."""


def test_only_the_app_s_own_directories_come_back(made):
    what = made.again()
    assert what.paths == [str(made.shared)] and [redis.name for redis in what.redis] == ["shop-jobs"] and what.apps[0] == "shop"
    assert what.costs_data == [str(made.shared), "shop-jobs"]


def test_what_is_fetched_lies_beside_until_the_word_is_given_and_is_counted(made):
    def refused():
        raise AnchorageError("no word")

    what = made.again()
    with pytest.raises(AnchorageError, match="no word"):
        what.make_ready(refused)
    assert (made.shared / "a").read_text() == "new" and "1 files that only the present has, 1 that go back to what they were, 1 that come back" in " ".join(made.lines)
    assert [path.name for path in made.shared.parent.iterdir()] == ["shared"]


def test_both_change_places_and_what_was_there_is_kept(made):
    what = made.again()
    what.make_ready(go)
    what.exchange()
    what.verify()
    aside = made.shared.with_name(f"shared.before-{what.journal.id}")
    assert (made.shared / "a").read_text() == "old!" and (aside / "late").read_text() == "x"
    assert (made.redis / "dump.rdb").read_text() == "REDIS old" and (made.redis.with_name(f"shop-jobs.before-{what.journal.id}") / "dump.rdb").read_text() == "REDIS new"
    assert {entry["of"] for entry in made.journal()["aside"]} == {str(made.shared), str(made.redis)}
    assert what.is_exchanged and ["systemctl", "stop", "redis-server@shop-jobs.service"] in made.host.ran


@pytest.mark.parametrize("dies_at", range(1, 12))
def test_killed_anywhere_in_the_exchange_the_next_run_finishes_it(made, monkeypatch, dies_at):
    """Each rename, each mark and each command is a point at which the power may fail."""
    made.again().make_ready(go)
    steps = [0]

    class Killed(BaseException):
        pass

    def counted(real):
        def act(*args, **more):
            steps[0] += 1
            if steps[0] == dies_at:
                raise Killed
            return real(*args, **more)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(restore_files.os, "rename", counted(restore_files.os.rename))
        patch.setattr(RestoreJournal, "save", counted(RestoreJournal.save))
        patch.setattr(Host, "run", counted(Host.run))
        try:
            made.again().exchange()
        except Killed:
            pass
    what = made.again()
    what.exchange()
    assert (made.shared / "a").read_text() == "old!" and (made.shared / "gone").exists() and not (made.shared / "late").exists()
    assert (made.shared.with_name(f"shared.before-{what.journal.id}") / "late").read_text() == "x"
    assert (made.redis / "dump.rdb").read_text() == "REDIS old" and (made.redis.with_name(f"shop-jobs.before-{what.journal.id}") / "dump.rdb").read_text() == "REDIS new"


def test_going_back_leaves_what_was_there(made):
    what = made.again()
    what.make_ready(go)
    made.shared.rename(made.shared.with_name(f"shared.before-{what.journal.id}"))
    what.go_back()
    assert (made.shared / "late").exists() and [path.name for path in made.shared.parent.iterdir()] == ["shared"]


def test_what_the_snapshot_does_not_have_stays_as_it_is(made):
    made.host.snapshot.clear()
    what = made.again()
    what.make_ready(go)
    what.exchange()
    assert (made.shared / "late").exists() and "is not in the snapshot, and stays as it is" in " ".join(made.lines)


def test_a_snapshot_that_cannot_be_read_changes_nothing(made):
    made.host.rc = 1
    with pytest.raises(AnchorageError, match="no such luck"):
        made.again().make_ready(go)
    assert (made.shared / "a").read_text() == "new"


def test_a_file_that_is_no_snapshot_of_redis_is_refused(made, monkeypatch):
    monkeypatch.setattr(restore_files, "fetch_file", lambda *args, **_more: pathlib.Path(args[4]).write_text("<html>"))
    with pytest.raises(AnchorageError, match="is no snapshot of Redis"):
        made.again().make_ready(go)


def test_a_redis_that_does_not_answer_afterwards_is_told(made, monkeypatch):
    made.host.keys = ""
    monkeypatch.setattr(Host, "sleep", lambda self, seconds: None)
    clock = iter(range(0, 10000, 20))
    monkeypatch.setattr(Host, "monotonic", lambda self: next(clock))
    with pytest.raises(AnchorageError, match="Redis shop-jobs does not answer"):
        made.again().verify()


def test_an_app_without_files_and_a_restore_point_are_refused(made):
    what = made.again()
    what.wish = Wish(restore_plan.FILES, "shop", restore_plan.POINT, "0c2d")
    with pytest.raises(AnchorageError, match="holds a database, and no files"):
        what.check()
    what.wish, what.redis = Wish(restore_plan.FILES, "blog"), []
    with pytest.raises(AnchorageError, match="Nothing of blog"):
        what.check()


def test_differences_are_told_by_size_and_time(tmp_path):
    for side, names in (("here", {"a": "1", "b": "22"}), ("there", {"a": "1", "b": "333", "c": "1"})):
        (tmp_path / side / "deep").mkdir(parents=True)
        for name, text in names.items():
            (tmp_path / side / "deep" / name).write_text(text)
    import os

    for side in ("here", "there"):
        os.utime(tmp_path / side / "deep" / "a", (5, 5))
    assert differences(str(tmp_path / "here"), str(tmp_path / "there")) == (0, 1, 1)
