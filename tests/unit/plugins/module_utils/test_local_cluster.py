# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import local_cluster
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.local_cluster import LocalCluster, rights_sql, settings_sql
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .backup_samples import document
from .health_fakes import FakeWorld

MODEL = {"coding": "UTF8", "datcollate": "C.UTF-8", "datctype": "C.UTF-8", "datlocprovider": "c"}


class Server(FakeWorld):
    """A psql that answers by what stands in a query, and writes down what it was given."""

    def __init__(self, answers=None):
        super().__init__(commands=self.answer)
        self.answers, self.sql = answers or {}, []

    def answer(self, call):
        self.sql.append(call["input"])
        for words, answer in self.answers.items():
            if words in (call["input"] or ""):
                return answer.pop(0) if isinstance(answer, list) else answer if isinstance(answer, Completed) else Completed(0, f"{answer}\n", "")
        return Completed(0, "1\n", "")


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def cluster(server):
    return LocalCluster(server, "17", "main", 5433)


def test_it_is_entered_as_the_superuser_by_who_one_is(server, cluster):
    cluster.database("shop").execute("SELECT 1")
    (call,) = server.ran
    assert call["env"]["PGUSER"] == "postgres" and call["env"]["PGHOST"] == "/var/run/postgresql" and call["env"]["PGPORT"] == "5433"
    assert "PGPASSWORD" not in call["env"] and call["env"]["PGDATABASE"] == "shop"


def test_a_server_that_recovers_does_not_answer_yet(server, cluster):
    server.answers["pg_is_in_recovery"] = "t"
    assert not cluster.answers()
    server.answers["pg_is_in_recovery"] = "f"
    assert cluster.answers()
    server.answers["pg_is_in_recovery"] = Completed(2, "", "no")
    assert not cluster.answers()


def test_the_exchange_is_one_transaction_and_sends_away_whoever_holds_on(server, cluster):
    server.answers["RENAME"] = [Completed(1, "", "ERROR: it is being accessed by other users"), Completed(0, "", "")]
    cluster.exchange("shop", "shop_restored", "shop_before_1")
    renames = [sql for sql in server.sql if "RENAME" in sql]
    both = 'ALTER DATABASE "shop" RENAME TO "shop_before_1"; ALTER DATABASE "shop_restored" RENAME TO "shop"'
    assert len(renames) == 2 and renames[1] == f"BEGIN; {both}; COMMIT;"
    assert sum("pg_terminate_backend" in sql for sql in server.sql) == 4
    server.answers["RENAME"] = Completed(1, "", "ERROR: somebody is in it")
    with pytest.raises(AnchorageError, match="shop could not be exchanged for shop_restored: ERROR: somebody is in it"):
        cluster.exchange("shop", "shop_restored", None)
    assert "BEGIN;  ALTER DATABASE" in server.sql[-1]


def test_a_fence_keeps_others_out_before_their_sessions_end(server, cluster):
    cluster.fence("shop")
    assert "CONNECTION LIMIT 0" in server.sql[0] and "pg_terminate_backend" in server.sql[1]
    cluster.unfence("shop", 40)
    assert server.sql[2] == 'ALTER DATABASE "shop" CONNECTION LIMIT 40'


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, ""),
        ({"datlocprovider": "i", "daticulocale": "de-DE"}, "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"),
        ({"datlocprovider": "i", "datlocale": "de-DE"}, "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"),
        ({"datlocprovider": "b", "datlocale": "C"}, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C'"),
    ],
)
def test_a_database_is_created_with_the_locale_of_another(server, cluster, more, wanted):
    cluster.create_like("shop_restored", {**MODEL, **more}, 'own"er')
    assert server.sql[0].startswith('CREATE DATABASE "shop_restored" TEMPLATE template0 OWNER "own""er" ENCODING \'UTF8\' LC_COLLATE')
    assert server.sql[0].endswith(wanted or "'C.UTF-8'")


def test_rights_and_settings_are_written_as_sql_whatever_their_values_hold():
    rights = [{"right": "CONNECT", "to": None, "pass": False}, {"right": "TEMPORARY", "to": 'rea"der', "pass": True}]
    assert rights_sql("shop", rights) == ('GRANT CONNECT ON DATABASE "shop" TO PUBLIC;\nGRANT TEMPORARY ON DATABASE "shop" TO "rea""der" WITH GRANT OPTION;\n')
    settings = [{"role": None, "values": ["statement_timeout=5s", "search_path=a, b", "app.note=it's"]}, {"role": "r", "values": ["work_mem=1MB"]}]
    assert settings_sql("shop", settings) == (
        'ALTER DATABASE "shop" SET "statement_timeout" TO \'5s\';\nALTER DATABASE "shop" SET "search_path" TO a, b;\n'
        'ALTER DATABASE "shop" SET "app"."note" TO \'it\'\'s\';\nALTER ROLE "r" IN DATABASE "shop" SET "work_mem" TO \'1MB\';\n'
    )


def test_rights_are_copied_and_where_there_are_none_to_copy_nobody_else_enters(server, cluster):
    server.answers["aclexplode"] = json.dumps({"default": True, "rights": [], "settings": []})
    cluster.copy_rights("shop", "shop_restored")
    assert server.sql[-1] == "SELECT 1"
    server.answers["aclexplode"] = ""
    cluster.copy_rights("shop", "shop_restored")
    assert 'REVOKE ALL ON DATABASE "shop_restored" FROM PUBLIC' in server.sql[-1]


def test_remarks_are_attached_and_taken_away(server, cluster):
    cluster.say_of("shop", "it's whole")
    cluster.say_of("shop", None)
    assert server.sql == ["COMMENT ON DATABASE \"shop\" IS 'it''s whole'", 'COMMENT ON DATABASE "shop" IS NULL']


def test_the_cluster_is_the_archived_one_or_the_one_that_debian_knows():
    archive = Settings.parse(document()).archive
    assert local_cluster.local_cluster(FakeWorld(), archive) == ("17", "main", 5432)
    files = {"/etc/postgresql/15/main/postgresql.conf": "port = 5433\n"}
    assert local_cluster.local_cluster(FakeWorld(files), None) == ("15", "main", 5433)
    with pytest.raises(AnchorageError, match="no PostgreSQL cluster"):
        local_cluster.local_cluster(FakeWorld(), None)
