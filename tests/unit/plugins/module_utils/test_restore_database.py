# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import restore_compare, restore_database, restore_plan
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_database import COMPLETE, DatabaseRestore
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import GO, TIME, Chosen, Wish
from ansible_collections.anchorage.vps.plugins.module_utils.room import Full
from ansible_collections.anchorage.vps.plugins.module_utils.scratch_cluster import Recovered
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .backup_samples import KEY, document
from .engine_fakes import HostWorld

ROW = {"table": "public.orders", "only_live": 7, "changed": 0, "only_restored": 0, "state": ""}


class Killed(BaseException):
    """The power fails."""


class Cluster:
    """A cluster whose databases are a dictionary: name → what the catalog says, and which rows are in it."""

    version, cluster, unit, data = "17", "main", "postgresql@17-main.service", "/var/lib/postgresql/17/main"

    def __init__(self, **databases):
        self.all, self.calls, self.dies_at, self.up, self.tools = databases, [], 0, True, {}

    def _act(self, *call):
        self.calls.append(call)
        if len(self.calls) == self.dies_at:
            raise Killed

    def answers(self):
        return self.up

    def known(self, name):
        return dict(self.all[name]) if name in self.all else None

    def database(self, name="postgres"):
        return types.SimpleNamespace(name=name, environment={"PGDATABASE": name}, execute=lambda sql, **_more: "", rows=lambda sql: [])

    def execute(self, sql, **_more):
        return "000000010000000000000002\n000000010000000000000002" if "switch" in sql else "000000010000000000000009"

    def drop(self, name):
        self._act("drop", name)
        self.all.pop(name, None)

    def create_like(self, name, model, owner):
        self._act("create", name, owner)
        self.all[name] = {"datconnlimit": -1, "owner": owner, "said": None, "rows": None, **{key: model[key] for key in ("coding",) if key in model}}

    def copy_rights(self, source, name):
        self._act("rights", source, name)

    def tool(self, program, *words, database, seconds):
        self._act(program, database.environment["PGDATABASE"])
        done = self.tools.get(program, Completed(0, "", ""))
        if program == "pg_restore" and done.rc == 0:
            self.all[database.environment["PGDATABASE"]]["rows"] = "restored"
        return done

    def say_of(self, name, words):
        self._act("say", name)
        self.all[name]["said"] = words

    def fence(self, name):
        self._act("fence", name)
        self.all[name]["datconnlimit"] = 0

    def unfence(self, name, limit):
        self._act("unfence", name, limit)
        self.all[name]["datconnlimit"] = limit

    def exchange(self, name, coming, aside):
        self._act("before the exchange")
        if aside:
            self.all[aside] = self.all.pop(name)
        self.all[name] = self.all.pop(coming)
        self._act("after the exchange")


class Scratch:
    """A throw-away server with one database."""

    instances: list = []
    fails = ""

    def __init__(self, world, version, directory, *, cluster):
        self.restored, self.removed = [], 0
        Scratch.instances.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.removed += 1

    def remove(self):
        self.removed += 1

    def restore(self, settings, target, **options):
        self.restored.append(options)

    def start(self, seconds):
        if Scratch.fails and len(self.restored) == 1:
            raise AnchorageError(f"The restored server ended: {Scratch.fails}")
        return Recovered(1.0, None, 1_700_000_500.0, 2)

    def databases(self):
        return ["postgres", "shop"]

    def database(self, name):
        return types.SimpleNamespace(name=name, environment={"PGDATABASE": name}, execute=lambda sql: "1000")

    def initialise(self, *_args, **_more):
        return None

    psql = initialise


class Journal:
    """A journal in memory, which outlives whoever is killed."""

    def __init__(self, wish, mode=GO):
        self.data, self.wish, self.id, self.aside = {"mode": mode, "done": []}, wish, "20261120T191227Z", []

    def has(self, step):
        return step in self.data["done"]

    def mark(self, step, **facts):
        self.data["done"].append(step)

    def note(self, **facts):
        self.data.update(facts)

    def set_aside(self, kind, name, of):
        if not any(entry["name"] == name for entry in self.aside):
            self.aside.append({"kind": kind, "name": name, "of": of})

    def forget_aside(self, name):
        self.aside = [entry for entry in self.aside if entry["name"] != name]


LIVE = {"datconnlimit": 40, "owner": "shop", "said": None, "rows": "live", "coding": "UTF8"}
ASIDE = "shop_before_20261120t191227z"


@pytest.fixture
def made(monkeypatch):
    Scratch.instances, Scratch.fails = [], ""
    monkeypatch.setattr(restore_database, "Scratch", Scratch)
    monkeypatch.setattr(restore_database, "choose", lambda *_args: Chosen("archive", "local", "20261120-013000F", 1_700_000_000.0))
    monkeypatch.setattr(restore_compare, "tables", lambda database: {"public.orders": {}})
    monkeypatch.setattr(restore_compare, "count", lambda database, **_more: {"public.orders": (5, "x")})
    monkeypatch.setattr(restore_compare, "compare", lambda world, live, restored, **_more: [] if live.name == "shop_restored" else [ROW])
    cluster, journal, lines = Cluster(shop=dict(LIVE)), Journal(Wish("database", "shop", TIME, "2023-11-14T22:13:20+00:00")), []
    settings = Settings.parse(document(), KEY)

    def again():
        return DatabaseRestore(settings, HostWorld(), Log(lines.append), journal, cluster)

    return types.SimpleNamespace(again=again, cluster=cluster, journal=journal, lines=lines)


def whole(made):
    what = made.again()
    what.check()
    what.make_ready(lambda: None)
    what.exchange()
    what.verify()


def test_the_restored_data_take_the_name_and_the_former_ones_keep_another(made):
    whole(made)
    assert made.cluster.all["shop"]["rows"] == "restored" and made.cluster.all["shop"]["said"] is None and made.cluster.all["shop"]["datconnlimit"] == 40
    # Whoever still knows the former data by a login of the app's finds nobody home.
    assert made.cluster.all[ASIDE]["rows"] == "live" and made.cluster.all[ASIDE]["datconnlimit"] == 0
    assert set(made.cluster.all) == {"shop", ASIDE} and [entry["name"] for entry in made.journal.aside] == [ASIDE]
    assert all(scratch.removed for scratch in Scratch.instances)


def test_what_would_be_lost_is_told_before_anything_is_changed(made):
    def refused():
        assert made.cluster.calls == []
        raise AnchorageError("no word")

    with pytest.raises(AnchorageError, match="no word"):
        made.again().make_ready(refused)
    assert "public.orders: 7 rows that only the present data has are lost" in " ".join(made.lines)
    assert made.journal.data["plan"][0]["lost_rows"] == 7 and made.journal.data["plan"][0]["aside"] == ASIDE
    assert made.cluster.calls == [] and Scratch.instances[0].removed


@pytest.mark.parametrize("dies_at", range(1, 14))
def test_killed_between_any_two_acts_the_next_run_finishes_it(made, dies_at):
    made.cluster.dies_at = dies_at
    died = True
    try:
        whole(made)
        died = False
    except Killed:
        pass
    held = [name for name, entry in made.cluster.all.items() if entry["rows"] == "live"]
    assert held in (["shop"], [ASIDE])
    made.cluster.dies_at = 0
    whole(made)
    assert made.cluster.all["shop"]["rows"] == "restored" and made.cluster.all["shop"]["datconnlimit"] == 40
    assert made.cluster.all[ASIDE]["rows"] == "live" and set(made.cluster.all) == {"shop", ASIDE}
    assert died or dies_at > 11, "the list of points has become too short"


def test_a_database_that_is_missing_needs_no_word_and_leaves_nothing_aside(made, monkeypatch):
    made.cluster.all.clear()
    what = made.again()
    assert what.costs_data == []
    source = Scratch.database(None, "shop")
    source.rows = lambda sql: [{"owner": "shop", "coding": "UTF8"}]
    monkeypatch.setattr(Scratch, "database", lambda self, name: source)
    whole(made)
    assert made.cluster.all["shop"]["rows"] == "restored" and made.journal.aside == []


def test_what_cannot_be_loaded_says_why_and_going_back_leaves_the_live_data(made):
    made.cluster.tools["pg_restore"] = Completed(1, "", 'pg_restore: error: role "reader" does not exist')
    what = made.again()
    with pytest.raises(AnchorageError) as caught:
        what.make_ready(lambda: None)
    assert "CREATE ROLE name NOLOGIN" in caught.value.next_step
    what.go_back()
    assert made.cluster.all == {"shop": LIVE} and made.journal.aside == []


def test_without_room_for_both_nothing_is_created(made, monkeypatch):
    monkeypatch.setattr(restore_database, "supply", lambda path: restore_database.Amount(2099, None))
    monkeypatch.setattr(restore_database, "mount_point", lambda path: "/")
    with pytest.raises(Full, match="shop needs 0.0 MiB on /"):
        made.again().make_ready(lambda: None)
    assert [call[0] for call in made.cluster.calls] == ["drop"]
    monkeypatch.setattr(restore_database, "supply", lambda path: restore_database.Amount(2100, None))
    made.again().make_ready(lambda: None)


def test_going_back_lets_others_in_again(made):
    what = made.again()
    what.make_ready(lambda: None)
    made.journal.data["limits"] = {"shop": 40}
    made.cluster.fence("shop")
    what.go_back()
    assert made.cluster.all == {"shop": LIVE}


def test_what_was_loaded_must_be_what_the_backup_holds(made, monkeypatch):
    monkeypatch.setattr(restore_compare, "compare", lambda world, live, restored, **_more: [ROW])
    with pytest.raises(AnchorageError, match="is not what the backup holds: public.orders: 7 rows"):
        made.again().make_ready(lambda: None)
    assert made.cluster.all["shop_restored"]["said"] is None


def test_a_time_behind_everything_that_was_archived_gives_everything(made):
    Scratch.fails = restore_plan.NOT_REACHED
    made.again().make_ready(lambda: None)
    assert [set(options) for options in Scratch.instances[0].restored] == [{"time", "backup", "seconds"}, {"seconds"}]
    assert "everything there is" in " ".join(made.lines)
    Scratch.fails, Scratch.instances = "FATAL: something else", []
    made.cluster.all.pop("shop_restored")
    with pytest.raises(AnchorageError, match="something else"):
        made.again().make_ready(lambda: None)


def test_a_server_that_is_down_and_a_database_elsewhere_are_refused(made):
    made.cluster.up = False
    with pytest.raises(AnchorageError) as caught:
        made.again().check()
    assert "anchorage restore --cluster --latest" in caught.value.next_step
    what = made.again()
    what.subjects[0].wanted = types.SimpleNamespace(name="shop", url="postgres://u:secret@db/shop", app="shop")
    with pytest.raises(AnchorageError, match="not one of this host's cluster") as caught:
        what.check()
    assert "secret" not in caught.value.text()


def test_what_another_restore_has_made_ready_is_not_taken_for_its_own(made):
    made.cluster.all["shop_restored"] = {**LIVE, "rows": "older", "said": COMPLETE.format(id="other")}
    whole(made)
    assert made.cluster.all["shop"]["rows"] == "restored"
