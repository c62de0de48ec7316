# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import argparse
import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore, restore_command, restore_journal
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import ASK, GO, PLAN, Chosen, Wish

from .backup_samples import KEY, document

NOW = 1_700_000_000.0


def parse(*words):
    parser = argparse.ArgumentParser()
    restore_command.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(["restore", *words])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["shop", "--latest"], Wish("database", "shop")),
        (["shop", "--time", "2023-11-14 01:00:00Z"], Wish("database", "shop", "time", "2023-11-14T01:00:00+00:00")),
        (["shop", "--point", "0c2d", "--target", "local"], Wish("database", "shop", "point", "0c2d", "local")),
        (["--cluster", "--backup", "20231114-013000F"], Wish("cluster", None, "backup", "20231114-013000F")),
        (["--files", "--latest"], Wish("files")),
        (["shop", "--files", "--latest"], Wish("files", "shop")),
    ],
)
def test_words_become_a_wish(words, wanted):
    assert restore_command.wish_of(parse(*words), NOW) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--latest"], "whose database"),
        (["shop"], "what comes back"),
        (["shop", "--cluster", "--latest"], "all databases"),
        (["--cluster", "--files", "--latest"], "all databases"),
    ],
)
def test_half_a_wish_is_refused(words, message):
    with pytest.raises(AnchorageError, match=message):
        restore_command.wish_of(parse(*words), NOW)


@pytest.fixture
def host(monkeypatch, tmp_path):
    asked = []
    outcome = {"ok": True, "text": "Restored.", "finished_at": NOW}
    answers = [{"running": True, "offset": 5, "lines": ["shop: one"]}, {"running": False, "offset": 9, "lines": ["shop: two"], "outcome": outcome}]
    monkeypatch.setattr(restore, "start", lambda world, wish, mode, owner: asked.append((wish, mode)) or {"log": "/log"})
    monkeypatch.setattr(restore, "follow", lambda world, log, offset, wait_seconds: asked.append((log, offset)) or answers.pop(0))
    monkeypatch.setattr(restore_journal.RestoreJournal, "__init__", lambda self, world: setattr(self, "data", {"log": "/older", "aside": []}))
    return asked, outcome


@pytest.mark.parametrize(("words", "mode"), [([], ASK), (["--plan"], PLAN), (["--yes"], GO)])
def test_it_is_started_and_followed_to_its_end(host, capsys, words, mode):
    asked, _outcome = host
    assert restore_command.run(parse("shop", "--latest", *words)) == 0
    assert asked == [(Wish("database", "shop"), mode), ("/log", 0), ("/log", 5)] and capsys.readouterr().out == "shop: one\nshop: two\n"


def test_how_it_ended_is_the_code_and_json_for_programs(host, capsys):
    _asked, outcome = host
    outcome["ok"] = False
    assert restore_command.run(parse("shop", "--latest", "--json")) == 1
    assert json.loads(capsys.readouterr().out) == outcome


def test_one_that_was_killed_is_told_although_it_could_not_say_so(host, capsys):
    _asked, outcome = host
    outcome.update(ok=False, finished_at=None, text="It was killed. Next: anchorage restore --resume")
    assert restore_command.run(parse("shop", "--latest")) == 1
    assert capsys.readouterr().out.endswith("It was killed. Next: anchorage restore --resume\n")


def test_resuming_names_no_wish_and_following_starts_nothing(host):
    asked, _outcome = host
    assert restore_command.run(parse("--resume")) == 0 and asked[0] == (None, ASK)


def test_following_starts_nothing(host):
    asked, _outcome = host
    assert restore_command.run(parse("--follow")) == 0 and asked == [("/older", 0), ("/older", 5)]


def test_what_is_aside_is_listed_and_dropped(host, capsys, monkeypatch):
    monkeypatch.setattr(restore, "drop_aside", lambda world, log, names: len(names))
    assert restore_command.run(parse("--list-aside")) == 0 and restore_command.run(parse("--drop-aside")) == 0
    assert capsys.readouterr().out == "Nothing was set aside.\nNothing was set aside.\n"
    assert restore_command.run(parse("shop_before", "--drop-aside")) == 0 and capsys.readouterr().out == ""


def test_a_dump_is_fetched_for_a_database_that_is_elsewhere(monkeypatch, tmp_path, capsys):
    database = {"name": "shop_db", "method": "dump", "app": "shop", "url": "postgres://u:secret@db/shop"}
    monkeypatch.setattr(restore_command.backup_settings, "load", lambda world: Settings.parse(document(databases=[database]), KEY))
    monkeypatch.setattr(restore_command.restore_source, "choose_snapshot", lambda *_args: Chosen("snapshot", "local", "a" * 64, NOW))
    asked = []
    monkeypatch.setattr(restore_command.restore_source, "fetch_file", lambda _settings, _world, _chosen, source, path: asked.append((source, path)))
    assert restore_command.run(parse("shop", "--fetch", str(tmp_path / "out"))) == 0
    assert asked == [("/var/lib/anchorage/backup/stage/databases/shop_db.dump", f"{tmp_path}/out/shop_db.dump")]
    assert "secret" not in capsys.readouterr().out


def test_only_one_moment_can_be_named(capsys):
    with pytest.raises(SystemExit):
        parse("shop", "--latest", "--time", "2023-11-14")
