# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore_plan as plan
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import Wish

from .backup_samples import document

NOW = datetime.datetime(2026, 11, 20, 20, 0, tzinfo=datetime.timezone.utc).timestamp()
BERLIN = datetime.timezone(datetime.timedelta(hours=1))


def at(hour, minute=0):
    return int(datetime.datetime(2026, 11, 20, hour, minute, tzinfo=datetime.timezone.utc).timestamp())


def backup(label, stop, **more):
    return {"label": label, "timestamp": {"start": stop - 60, "stop": stop}, "info": {"size": 5}, **more}


def wish(how=plan.LATEST, value=None, **more):
    return Wish(plan.DATABASE, "shop", how, value, **more)


# ---- when


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-20 19:12:27", "2026-11-20T18:12:27+00:00"),
        ("2026-11-20T19:12:27Z", "2026-11-20T19:12:27+00:00"),
        ("2026-11-20 19:12:27 UTC", "2026-11-20T19:12:27+00:00"),
        ("2026-11-20 19:12:27+00", "2026-11-20T19:12:27+00:00"),
        ("2026-11-20 19:12:27 +01:00", "2026-11-20T18:12:27+00:00"),
        ("2026-11-20 19:12:27.5+01:00", "2026-11-20T18:12:27.500000+00:00"),
        ("2026-11-20 19:12:27.84436+00", "2026-11-20T19:12:27.844360+00:00"),
        (" 2026-11-20 ", "2026-11-19T23:00:00+00:00"),
    ],
)
def test_a_time_is_understood_as_people_and_postgresql_write_it(text, wanted):
    assert plan.read_time(text, NOW, BERLIN) == wanted


def test_a_time_that_nobody_understands_or_that_has_not_come_is_refused():
    with pytest.raises(AnchorageError, match="'yesterday' is no time"):
        plan.read_time("yesterday", NOW)
    with pytest.raises(AnchorageError, match="has not come yet"):
        plan.read_time("2026-11-21 00:00:00Z", NOW)


def test_without_a_zone_a_time_is_the_host_s():
    assert plan.read_time("2026-11-20 12:00:00", NOW) == datetime.datetime(2026, 11, 20, 12).astimezone(datetime.timezone.utc).isoformat()


# ---- which backup of pgBackRest


ARCHIVE = {"local": {"backup": [backup("a", at(8)), backup("b", at(12)), backup("broken", at(13), error=True)]}}


def test_the_newest_good_backup_that_ended_before_the_wanted_time():
    chosen = plan.from_archive(ARCHIVE, wish(plan.TIME, "2026-11-20T11:59:59+00:00"))
    assert (chosen.backup, chosen.at, chosen.target) == ("a", at(12) - 1, "local")
    assert plan.from_archive(ARCHIVE, wish(plan.TIME, "2026-11-20T12:00:00+00:00")).backup == "b"
    latest = plan.from_archive(ARCHIVE, wish())
    assert latest.backup == "b" and latest.at is None
    assert plan.from_archive(ARCHIVE, wish(plan.BACKUP, "a")).at == at(8)


def test_where_no_backup_is_old_enough_it_says_what_there_is():
    with pytest.raises(AnchorageError) as caught:
        plan.from_archive(ARCHIVE, wish(plan.TIME, "2026-11-20T07:00:00+00:00"))
    assert "local has: a (from 2026-11-20 08:00:00 UTC on), b" in caught.value.message and "broken" not in caught.value.message
    with pytest.raises(AnchorageError, match="No backup gives the database of shop, from the backup broken"):
        plan.from_archive(ARCHIVE, wish(plan.BACKUP, "broken"))


def test_a_target_that_does_not_answer_is_told_where_no_other_has_it():
    found = {"local": AnchorageError("it is full of holes"), **{"offsite": ARCHIVE["local"]}}
    assert plan.from_archive(found, wish()).target == "offsite"
    with pytest.raises(AnchorageError, match="local: it is full of holes"):
        plan.from_archive({"local": found["local"]}, wish())


# ---- which snapshot of restic


def snapshot(name, time, host="vps"):
    return {"id": name * 8, "time": time, "hostname": host}


SNAPSHOTS = [snapshot("a", "2026-11-20T08:00:00.123456789Z"), snapshot("b", "2026-11-20T13:00:00.5+01:00"), snapshot("c", "2026-11-20T14:00:00Z")]


def test_the_newest_snapshot_that_is_not_younger_than_the_wanted_time():
    assert plan.from_snapshots({"local": SNAPSHOTS}, wish(plan.TIME, "2026-11-20T12:30:00+00:00"), "vps").backup == "bbbbbbbb"
    assert plan.from_snapshots({"local": SNAPSHOTS}, wish(), "vps").backup == "cccccccc"
    assert plan.from_snapshots({"local": SNAPSHOTS}, wish(plan.BACKUP, "aaaa"), "vps").at == pytest.approx(at(8) + 0.123, abs=0.01)


def test_a_new_host_stands_in_for_the_only_one_that_is_known_and_never_guesses():
    assert plan.from_snapshots({"local": SNAPSHOTS}, wish(), "new").backup == "cccccccc"
    two = [*SNAPSHOTS, snapshot("d", "2026-11-20T15:00:00Z", "other")]
    assert plan.from_snapshots({"local": two}, wish(), "vps").backup == "cccccccc"
    with pytest.raises(AnchorageError, match="keeps backups of other, vps, and none of new"):
        plan.from_snapshots({"local": two}, wish(), "new")


def test_no_snapshot_is_told_with_what_there_is():
    with pytest.raises(AnchorageError, match="local has: none"):
        plan.from_snapshots({"local": []}, wish(), "vps")
    with pytest.raises(AnchorageError, match="aaaaaaaa of 2026-11-20 08:00:00 UTC"):
        plan.from_snapshots({"local": SNAPSHOTS}, wish(plan.BACKUP, "ffff"), "vps")
    with pytest.raises(AnchorageError, match="cannot be read"):
        plan.read_snapshot_time("soon")


# ---- which restore point, which database


def test_the_newest_dump_that_was_taken_for_a_release():
    points = [{"release": "0c2d", "path": "/a", "at": 1.0}, {"release": "0c2d", "path": "/b", "at": 2.0}, {"release": "ffff", "path": "/c", "at": 3.0}]
    assert plan.from_points(points, wish(plan.POINT, "0c")).backup == "/b"
    assert plan.from_points(points, wish(plan.POINT, "/a")).at == 1.0
    with pytest.raises(AnchorageError, match="this host has: 0c2d"):
        plan.from_points(points, wish(plan.POINT, "eeee"))


def test_databases_are_found_by_app_and_by_name():
    databases = Settings.parse(document(databases=[{"name": "shop_db", "method": "archive", "app": "shop"}, {"name": "auth", "method": "dump"}])).databases
    assert [one.name for one in plan.chosen_databases(wish(), databases)] == ["shop_db"]
    assert [one.name for one in plan.chosen_databases(Wish(plan.DATABASE, "auth"), databases)] == ["auth"]
    with pytest.raises(AnchorageError, match="no database of 'blog' in the backup; there is: auth, shop"):
        plan.chosen_databases(Wish(plan.DATABASE, "blog"), databases)
    with pytest.raises(AnchorageError, match="not said whose"):
        plan.chosen_databases(Wish(plan.DATABASE), databases)


# ---- words


def test_a_wish_says_how_it_is_done_on_the_host():
    assert wish(plan.TIME, "2026-11-20T12:00:00+00:00").command() == "anchorage restore shop --time '2026-11-20T12:00:00+00:00'"
    assert Wish(plan.CLUSTER, None, plan.BACKUP, "a", "offsite").command() == "anchorage restore --cluster --backup a --target offsite"
    assert Wish(plan.FILES, "shop").command() == "anchorage restore shop --files --latest"
    assert str(wish(plan.POINT, "0c2d")) == "the database of shop, as it was before the migration to release 0c2d"
    assert Wish(**wish(plan.BACKUP, "a").as_dict()) == wish(plan.BACKUP, "a")


def test_names_of_relatives_stay_whole_and_are_told_apart_however_long_the_database_s_is():
    assert plan.named("shop", "before", "20261120T191227Z") == "shop_before_20261120t191227z"
    long = plan.named("x" * 63, "before", "20261120T191227Z")
    assert len(long) == 63 and long.endswith("_before_20261120t191227z") and plan.named("x" * 63, "restored").endswith("_restored")
    assert len(plan.named("ü" * 31, "restored").encode()) <= 63


def test_losses_are_told_table_by_table_the_worst_first():
    rows = [
        {"table": "public.b", "only_live": 0, "changed": 0, "only_restored": 4, "state": "gone"},
        {"table": "public.a", "only_live": 7, "changed": 1, "only_restored": 0, "state": ""},
        {"table": "public.c", "only_live": 9, "changed": 0, "only_restored": 0, "state": "new", "approximate": True},
        {"table": "public.d", "only_live": 0, "changed": 0, "only_restored": 0, "state": ""},
    ]
    lines = plan.losses(rows)
    assert lines[0] == "public.c (a table that the backup does not have): about 9 rows that only the present data has are lost"
    assert lines[1] == "public.a: 7 rows that only the present data has are lost, 1 rows go back to what they were"
    assert lines[2] == "public.b (a table that is missing now): 4 rows come back" and "its columns differ" in lines[3]
    assert plan.lost_rows(rows) == 17


@pytest.mark.parametrize(("seconds", "wanted"), [(5, "5 s"), (600, "10 min"), (9000, "2.5 h"), (259200, "3.0 days")])
def test_a_span_is_told_for_people(seconds, wanted):
    assert plan.ago(seconds) == wanted


def test_a_moment_is_told_or_said_to_be_unknown():
    assert plan.told(None) == "a moment that only the recovery tells" and plan.told(at(8)) == "2026-11-20 08:00:00 UTC"
    assert plan.stamp(at(8)) == "20261120T080000Z"
