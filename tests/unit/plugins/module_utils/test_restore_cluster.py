# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib
import types

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_settings, restore_cluster, restore_compare, restore_plan
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.postgresql_scram import matches, verifier
from ansible_collections.anchorage.vps.plugins.module_utils.restore_cluster import ClusterRestore, passwords
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import LATEST, TIME, Wish
from ansible_collections.anchorage.vps.plugins.module_utils.room import Full
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, document
from .health_fakes import FakeWorld
from .test_restore_database import Journal, Killed

INFO = {"backup": [{"label": "20231114-013000F", "timestamp": {"stop": 1_699_999_000}, "info": {"size": 1000}}]}


class Host(World):
    """Real directories; pgBackRest fills one, and systemd starts and stops a server that answers when its data are there."""

    def __init__(self, data):
        self.data, self.running, self.ran, self.dies_at, self.clock = data, False, [], 0, 0.0
        self.restore = Completed(0, "", "")

    def sleep(self, seconds):
        self.clock += seconds

    def monotonic(self):
        return self.clock

    def _act(self):
        if len(self.ran) == self.dies_at:
            raise Killed

    def run(self, argv, **_options):
        argv = list(argv)
        self.ran.append(argv)
        self._act()
        if "restore" in argv and self.restore.rc == 0:
            (path,) = [word.partition("=")[2] for word in argv if word.startswith("--pg1-path=")]
            (pathlib.Path(path) / "global").mkdir()
            (pathlib.Path(path) / "global" / "pg_control").write_text("restored")
        if "restore" in argv:
            return self.restore
        if argv[0] == "systemctl" and argv[1] in ("start", "stop"):
            self.running = argv[1] == "start"
            return Completed(0, "", "")
        if argv[0] in ("rm", "mv", "install"):
            return super().run([word for word in argv if not word.startswith(("--owner", "--group"))])
        return Completed(0, "failed\n" if "ActiveState" in str(argv) else "", "")


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(backup_settings.Archive, "data", property(lambda self: str(tmp_path / "17" / "main")))
    monkeypatch.setattr(restore_cluster, "archives", lambda *_args: {"local": INFO})
    monkeypatch.setattr(restore_compare, "count", lambda database, **_more: {"public.orders": (5, "x")})
    monkeypatch.setattr(ClusterRestore, "_settle_passwords", lambda self: None)
    data = tmp_path / "17" / "main"
    (data / "global").mkdir(parents=True)
    (data / "global" / "pg_control").write_text("live")
    host, journal, lines = Host(data), Journal(Wish("cluster", None, LATEST)), []

    def again():
        what = ClusterRestore(Settings.parse(document(), KEY), host, Log(lines.append), journal)
        control = data / "global" / "pg_control"
        what.cluster.answers = lambda: host.running and control.exists()
        what.cluster.databases = lambda: ["postgres", "shop"]
        what.cluster.database = lambda name="postgres": types.SimpleNamespace(name=name)
        return what

    return types.SimpleNamespace(again=again, host=host, journal=journal, lines=lines, data=data, aside=data.with_name(f"main.before-{journal.id}"))


def whole(made):
    what = made.again()
    what.check()
    what.make_ready(lambda: None)
    what.exchange()
    what.verify()


def control(path):
    return (path / "global" / "pg_control").read_text() if path.exists() else None


def test_the_restored_directory_takes_the_place_and_the_former_one_is_moved_aside(made):
    whole(made)
    assert control(made.data) == "restored" and control(made.aside) == "live" and not made.data.with_name("main.restored").exists()
    assert [entry["name"] for entry in made.journal.aside] == [str(made.aside)] and made.host.running
    (words,) = [argv for argv in made.host.ran if "restore" in argv]
    assert "--type=default" in words and '--recovery-option=restore_command=pgbackrest --stanza=main --repo=1 archive-get %f "%p"' in words


def test_a_cluster_that_holds_data_costs_data_and_one_that_is_gone_does_not(made):
    assert made.again().costs_data == [str(made.data)]
    made.data.joinpath("global", "pg_control").unlink()
    made.data.joinpath("global").rmdir()
    assert made.again().costs_data == []
    made.data.rmdir()
    assert made.again().costs_data == []
    whole(made)
    assert control(made.data) == "restored" and made.journal.aside == []


@pytest.mark.parametrize("dies_at", range(1, 12))
def test_killed_between_any_two_acts_the_next_run_finishes_it(made, dies_at):
    made.host.dies_at = dies_at
    died = True
    try:
        whole(made)
        died = False
    except Killed:
        pass
    assert "live" in (control(made.data), control(made.aside))
    made.host.dies_at = 0
    whole(made)
    assert control(made.data) == "restored" and control(made.aside) == "live"
    assert died or dies_at > 9


def test_the_plan_is_told_before_anything_is_filled(made):
    def refused():
        raise AnchorageError("no word")

    with pytest.raises(AnchorageError, match="no word"):
        made.again().make_ready(refused)
    assert control(made.data) == "live" and made.host.ran == [] and "what is there now stays in" in " ".join(made.lines)
    assert made.journal.data["plan"][0]["bytes"] == 1000


def test_a_time_is_recovered_to_from_the_backup_before_it(made):
    made.journal.wish = Wish("cluster", None, TIME, "2023-11-14T22:13:20+00:00")
    made.again().make_ready(lambda: None)
    (words,) = [argv for argv in made.host.ran if "restore" in argv]
    assert "--set=20231114-013000F" in words and "--target=2023-11-14 22:13:20.000000+00" in words and "--target-action=promote" in words


def test_what_pgbackrest_says_is_told_and_the_live_cluster_stays(made):
    made.host.restore = Completed(29, "", "P00  ERROR: [029]: cipher header invalid")
    what = made.again()
    with pytest.raises(AnchorageError, match="pgBackRest could not restore the cluster"):
        what.make_ready(lambda: None)
    what.go_back()
    assert control(made.data) == "live" and made.journal.aside == []


def test_a_kill_between_the_two_renames_is_found_and_taken_back(made):
    what = made.again()
    what.make_ready(lambda: None)
    made.data.rename(made.aside)
    what.go_back()
    assert control(made.data) == "live" and made.host.running


def test_a_server_that_does_not_come_up_says_what_its_log_said(made, monkeypatch):
    monkeypatch.setattr(ClusterRestore, "_log", lambda self: "FATAL:  could not find redo location\n")
    what = made.again()
    what.make_ready(lambda: None)
    what.exchange()
    what.cluster.answers = lambda: False
    with pytest.raises(AnchorageError, match="could not find redo location"):
        what.verify()
    assert control(made.aside) == "live"


def test_a_time_that_was_never_reached_is_recovered_to_the_end(made, monkeypatch):
    made.journal.wish = Wish("cluster", None, TIME, "2023-11-14T22:13:20+00:00")
    what = made.again()
    what.make_ready(lambda: None)
    what.exchange()
    (made.data / "postgresql.auto.conf").write_text("restore_command = 'x'\nrecovery_target_time = 'y'\nrecovery_target_action = 'promote'\n")
    monkeypatch.setattr(ClusterRestore, "_log", lambda self: f"FATAL:  {restore_plan.NOT_REACHED}\n")
    answers = iter([False, False, True, True])
    what.cluster.answers = lambda: next(answers)
    what.verify()
    assert (made.data / "postgresql.auto.conf").read_text() == "restore_command = 'x'\n"


def test_a_cluster_without_the_databases_that_it_should_have_is_not_good(made):
    what = made.again()
    what.make_ready(lambda: None)
    what.exchange()
    what.cluster.databases = lambda: ["postgres"]
    with pytest.raises(AnchorageError, match="has no database shop"):
        what.verify()


def test_without_room_nothing_is_begun(made, monkeypatch):
    monkeypatch.setattr(restore_cluster, "supply", lambda path: restore_cluster.Amount(10, None))
    with pytest.raises(Full, match="free on"):
        made.again().make_ready(lambda: None)
    assert made.host.ran == []


def test_a_host_without_an_archive_and_a_release_s_restore_point_are_refused(made):
    with pytest.raises(AnchorageError, match="not archived"):
        ClusterRestore(Settings.parse(document(archive=None)), made.host, Log(lambda line: None), made.journal)
    made.journal.wish = Wish("cluster", None, restore_plan.POINT, "0c2d")
    with pytest.raises(AnchorageError, match="of one app"):
        made.again().check()


def test_the_passwords_of_today_are_those_of_the_documents_or_of_the_kept_secrets():
    settings = Settings.parse(document(databases=[{"name": "shop", "method": "archive", "app": "shop", "owner": "shop"}, {"name": "blog", "method": "archive", "app": "blog", "owner": "writer"}]))
    files = {
        "/etc/anchorage/apps/shop.json": json.dumps({"database_url": "postgres://shop:of-the-document@127.0.0.1/shop"}),
        "/etc/anchorage/secrets/shop.json": json.dumps({"database_password": "another"}),
        "/etc/anchorage/secrets/blog.json": json.dumps({"database_password": "of-the-secrets"}),
    }
    assert passwords(FakeWorld(files), settings) == {"shop": "of-the-document", "writer": "of-the-secrets"}


def test_only_a_password_that_differs_is_set_and_never_in_clear(monkeypatch):
    told, lines = [], []
    stored = [{"rolname": "shop", "rolpassword": verifier("former", salt=b"x" * 16)}, {"rolname": "writer", "rolpassword": verifier("same", salt=b"x" * 16)}]
    monkeypatch.setattr(restore_cluster, "passwords", lambda *_args: {"shop": "present-password", "writer": "same", "missing": "x"})
    what = ClusterRestore(Settings.parse(document()), FakeWorld(), Log(lines.append), Journal(Wish("cluster")))
    what.cluster = types.SimpleNamespace(database=lambda: types.SimpleNamespace(rows=lambda sql: stored), execute=told.append)
    what._settle_passwords()
    (sql,) = told
    assert sql.startswith('ALTER ROLE "shop" PASSWORD \'SCRAM-SHA-256$') and "present-password" not in sql + str(lines)
    assert matches("present-password", sql.split("'")[1])
