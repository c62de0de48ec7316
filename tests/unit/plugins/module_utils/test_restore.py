# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import json
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore, restore_journal
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_journal import RestoreJournal
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import ASK, GO, PLAN, Wish
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, document

WISH = Wish("database", "shop", "time", "2023-11-14T22:13:20+00:00")
OTHER = Wish("database", "blog")


class Killed(BaseException):
    """The power fails."""


class What:
    """Something to be restored, which writes down what was asked of it; a step may fail, or kill whoever takes it."""

    apps = ("shop",)

    def __init__(self, events, journal, broken, costs):
        self.events, self.journal, self.broken, self.costs_data = events, journal, broken, costs

    def _act(self, name):
        self.events.append(name)
        if name in self.broken:
            raise self.broken[name]

    @property
    def is_exchanged(self):
        return self.journal.has("exchanged shop")

    def check(self):
        self._act("check")

    def make_ready(self, go_on):
        self._act("recover")
        go_on()
        self._act("fill")

    def exchange(self):
        self._act("exchange")
        self.journal.set_aside("database", "shop_before", "shop")
        self.journal.mark("exchanged shop")

    def verify(self):
        self._act("verify")

    def go_back(self):
        self._act("go back")


@pytest.fixture
def made(tmp_path, monkeypatch):
    for name, path in {"DIRECTORY": "", "LOCK": "/lock"}.items():
        monkeypatch.setattr(restore_journal, name, f"{tmp_path}{path}")
    path = f"{tmp_path}/restore.json"
    monkeypatch.setattr(restore, "PATH", path)
    monkeypatch.setattr(restore, "LOGS", f"{tmp_path}/log")
    monkeypatch.setattr(restore.Follower.Layout, "step", path)
    monkeypatch.setattr(RestoreJournal, "__init__", lambda self, world, where=path, real=RestoreJournal.__init__: real(self, world, where))
    monkeypatch.setattr(restore.backup_settings, "load", lambda world: Settings.parse(document(), KEY))
    made = types.SimpleNamespace(events=[], broken={}, costs=["shop"], lines=[], commands=[], active=False, rc=0)
    monkeypatch.setattr(restore, "subject", lambda settings, world, log, journal: What(made.events, journal, made.broken, made.costs))
    monkeypatch.setattr(restore.restore_apps, "here", lambda world, names: [types.SimpleNamespace(name=name) for name in names])
    for name in ("stop", "start"):
        monkeypatch.setattr(restore.restore_apps, name, lambda app, log, name=name: made.events.append(f"{name} {app.name}"))
    monkeypatch.setattr(restore.engine, "lock", lambda app, seconds: contextlib.nullcontext())
    monkeypatch.setattr(restore.backup_run, "lock", lambda world, job, seconds: contextlib.nullcontext())
    monkeypatch.setattr(restore.engine, "unit_active", lambda app: made.active)

    def ran(self, argv, **_options):
        made.commands.append(list(argv))
        return Completed(made.rc, "", "no such unit")

    monkeypatch.setattr(World, "run", ran)
    made.log = Log(made.lines.append)
    made.journal = lambda: json.loads((tmp_path / "restore.json").read_text())
    return made


def run(made, mode=GO, wish=WISH):
    RestoreJournal(World()).begin(wish, mode, log="/log")
    return restore.run(World(), made.log)


STORY = ["check", "recover", "stop shop", "fill", "exchange", "verify", "start shop"]


def test_the_story(made):
    assert run(made)
    assert made.events == STORY
    record = made.journal()
    assert record["ok"] and not record["under_way"] and record["finished_at"] and "The former data of shop are kept in shop_before" in record["text"]
    assert made.lines[-1] == record["text"]


def test_a_plan_changes_nothing(made):
    assert run(made, PLAN)
    assert made.events == ["check", "recover"] and not made.journal()["changed"] and "Nothing was changed. To do it: anchorage restore shop" in made.lines[-1]


def test_without_the_word_data_are_not_restored_over(made):
    assert not run(made, ASK)
    assert made.events == ["check", "recover"] and made.journal()["error"]["next_step"].endswith("--yes")
    assert "nothing of them was changed" in made.journal()["error"]["live"]
    made.costs = []
    made.events.clear()
    assert run(made, ASK) and made.events == STORY


@pytest.mark.parametrize("step", ["fill", "exchange"])
def test_what_fails_before_the_exchange_goes_back(made, step):
    made.broken[step] = AnchorageError("no room")
    assert not run(made)
    assert made.events[-2:] == ["go back", "start shop"] and not made.journal()["under_way"]
    assert made.journal()["error"]["live"].startswith("the data that were there before")


def test_what_fails_after_the_exchange_goes_forward_when_it_is_run_again(made):
    made.broken["verify"] = AnchorageError("it does not answer")
    assert not run(made)
    record = made.journal()
    assert record["under_way"] and record["error"]["live"].startswith("the restored data; the former ones lie aside in shop_before")
    assert record["error"]["next_step"] == restore.AGAIN
    made.broken.clear()
    made.events.clear()
    restore.start(World(), None, ASK)
    assert restore.run(World(), made.log) and made.events == ["stop shop", "exchange", "verify", "start shop"]


@pytest.mark.parametrize("step", STORY[:-1])
def test_killed_at_any_step_the_same_command_finishes_it(made, step):
    if step not in ("stop shop",):
        made.broken[step] = Killed()
        with pytest.raises(Killed):
            run(made)
    assert not made.events or made.journal().get("finished_at") is None
    made.broken.clear()
    restore.start(World(), WISH, GO)
    assert restore.run(World(), made.log) and made.events[-1] == "start shop" and made.journal()["ok"]


def test_a_bug_is_told_with_what_is_live(made):
    made.broken["recover"] = ZeroDivisionError("oops")
    assert not run(made)
    assert "The engine itself failed in the restore: ZeroDivisionError: oops. Live now: the data that were there before" in made.lines[-1]


# ---- from outside


def test_it_is_started_as_one_unit_and_named_by_nothing_secret(made):
    started = restore.start(World(), WISH, GO, owner="op@laptop")
    (words,) = [argv for argv in made.commands if argv[0] == "systemd-run"]
    assert words[-3:] == ["/usr/local/bin/anchorage", "restore", "--run"] and "--unit=anchorage-restore.service" in words
    assert not started["attached"] and made.journal()["log"] == started["log"] and made.journal()["owner"] == "op@laptop"


def test_a_unit_that_cannot_be_started_is_told(made):
    made.rc = 1
    with pytest.raises(AnchorageError, match="could not be started: no such unit"):
        restore.start(World(), WISH, GO)


def test_who_asks_for_the_same_attaches_and_who_asks_for_another_waits(made):
    restore.start(World(), WISH, GO)
    made.active = True
    assert restore.start(World(), WISH, GO)["attached"] and restore.start(World(), None, ASK)["attached"]
    with pytest.raises(AnchorageError, match="Another restore runs"):
        restore.start(World(), OTHER, GO)


def test_an_unfinished_one_must_end_before_another_begins(made):
    made.broken["verify"] = Killed()
    with pytest.raises(Killed):
        run(made)
    with pytest.raises(AnchorageError, match="A restore is unfinished on this host") as caught:
        restore.start(World(), OTHER, GO)
    assert "--back" in caught.value.next_step
    with pytest.raises(AnchorageError, match="only goes forward"):
        restore.back(World(), made.log)
    with pytest.raises(AnchorageError, match="unfinished, so nothing is removed"):
        restore.drop_aside(World(), made.log)


def test_one_that_was_killed_before_the_exchange_can_be_given_up(made):
    made.broken["fill"] = Killed()
    with pytest.raises(Killed):
        run(made)
    made.events.clear()
    restore.back(World(), made.log)
    assert made.events == ["go back", "start shop"] and not made.journal()["under_way"]
    with pytest.raises(AnchorageError, match="No restore is unfinished"):
        restore.back(World(), made.log)
    with pytest.raises(AnchorageError, match="No restore is unfinished"):
        restore.start(World(), None, ASK)


def test_what_was_set_aside_goes_only_when_somebody_says_so(made, monkeypatch):
    run(made)
    dropped = []
    monkeypatch.setattr(restore.LocalCluster, "drop", lambda self, name: dropped.append(name))
    journal = RestoreJournal(World())
    journal.set_aside("directory", "/srv/shop/shared.before-1", "/srv/shop/shared")
    assert restore.drop_aside(World(), made.log, ["shop_before"]) == 1 and dropped == ["shop_before"]
    assert restore.drop_aside(World(), made.log) == 1 and ["rm", "-rf", "--one-file-system", "--", "/srv/shop/shared.before-1"] in made.commands
    assert restore.drop_aside(World(), made.log) == 0 and made.journal()["aside"] == []


def test_nothing_was_asked_for(made):
    with pytest.raises(AnchorageError, match="Nobody has said"):
        restore.run(World(), made.log)


def test_followers_are_told_how_a_dead_one_goes_on(made):
    RestoreJournal(World()).begin(WISH, GO, log="/log")
    answer = restore.follow(World(), log="/log", offset=0, wait_seconds=0)
    assert not answer["running"] and not answer["outcome"]["ok"] and answer["outcome"]["error"]["next_step"] == restore.Follower.again
