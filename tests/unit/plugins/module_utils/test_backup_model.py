# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.module_utils.backup_model import EXCLUDES, model
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import KEY, SETTINGS, SSH_KEY, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .backup_samples import KEY as SECRET
from .backup_samples import LOCAL, NEW_KEY, OFFSITE, PLACE, VAULT, ring

ROLE = pathlib.Path(__file__).resolve().parents[4] / "roles" / "backup"
CLUSTER = {"version": "17", "cluster": "main", "port": 5432}
SHOP = {"name": "shop", "app": "shop", "owner": "shop"}


def options(**changes):
    """The role's defaults, as its filter gets them."""
    defaults = {key.removeprefix("backup_"): value for key, value in yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()).items()}
    return {**defaults, "kept_key": SECRET, **changes}


def refused(**changes):
    with pytest.raises(AnchorageError) as error:
        model(options(**changes))
    assert error.value.live == "unchanged: nothing was touched"
    return error.value.message


def test_with_its_defaults_a_host_saves_its_cluster_and_its_files_on_itself():
    found = model(options(postgresql=CLUSTER, databases=[SHOP]))
    assert found["jobs"] == ["database", "files"] and not found["away"] and not found["ssh"]
    assert found["document"]["archive"] == {"version": "17", "cluster": "main", "port": 5432, "stanza": "main"}
    assert found["document"]["databases"] == [{**SHOP, "method": "archive", "url": None, "port": 5432}]
    assert [entry["path"] for entry in found["directories"]] == [f"/var/backups/anchorage{part}" for part in ("", "/files", "/postgresql")]
    assert {entry["path"]: entry["mode"] for entry in found["directories"]}["/var/backups/anchorage/files"] == "0700"


def test_what_it_writes_is_what_the_host_reads():
    found = model(options(postgresql=CLUSTER, databases=[SHOP], targets=[LOCAL, OFFSITE, VAULT]))
    read = Settings.parse(found["document"], SECRET)
    assert [target.name for target in read.targets] == ["local", "offsite", "vault"] and read.proof == {"max_age_days": 9.0, "deploys": "warn", "boot": []}
    assert found["away"] and found["ssh"] and found["known_hosts"] == "x\n"


def test_a_host_without_a_cluster_has_no_archive_and_no_place_for_it():
    found = model(options())
    assert found["jobs"] == ["files"] and found["pgbackrest"] == "" and found["document"]["archive"] is None
    assert "/var/backups/anchorage/postgresql" not in [entry["path"] for entry in found["directories"]]


@pytest.mark.parametrize("changes", [{"method": "dump"}, {"targets": [VAULT]}, {"targets": [{**LOCAL, "jobs": ["files"]}]}])
def test_without_an_archive_databases_are_dumped(changes):
    found = model(options(postgresql=CLUSTER, databases=[SHOP], **changes))
    assert found["jobs"] == ["files"] and found["document"]["databases"][0]["method"] == "dump"


def test_a_database_with_an_address_is_dumped():
    found = model(options(postgresql=CLUSTER, databases=[{"name": "shop", "url": "postgres://shop:pw@db.example.com/shop"}]))
    assert found["document"]["databases"][0]["method"] == "dump" and found["jobs"] == ["database", "files"]


def test_wal_is_given_to_each_target_by_itself():
    found = model(options(postgresql=CLUSTER, databases=[SHOP], targets=[LOCAL, OFFSITE, VAULT]))
    assert found["wal_targets"] == ["local", "offsite"]
    local, offsite = found["wal_files"]
    assert offsite["path"] == "/etc/pgbackrest/anchorage-offsite.conf" and offsite["secret"] and offsite["mode"] == "0640"
    assert "repo1-s3-bucket=backups" in offsite["content"] and "repo2-" not in offsite["content"] and "s3" not in local["content"]
    assert model(options())["wal_files"] == []


def test_the_key_is_in_no_backup():
    assert {KEY, SETTINGS, SSH_KEY} <= set(EXCLUDES)


def test_a_given_key_beats_the_kept_one_in_check_mode():
    assert "k" * 40 in model(options(key="k" * 40, postgresql=CLUSTER))["pgbackrest"]
    assert "unknown-until-first-run" in model(options(kept_key="", postgresql=CLUSTER))["pgbackrest"]


def test_what_holds_money_has_a_place_of_its_own():
    found = model(options(apart=[{"name": "shop-btcpay", "directory": "/etc/anchorage/compose/shop-btcpay"}]))
    assert found["jobs"] == ["files", "apart"] and {"path": "/var/backups/anchorage/apart", "mode": "0700"} in found["directories"]
    assert "no target of backup_targets has the job apart, which saves shop-btcpay" in refused(
        apart=[{"name": "shop-btcpay", "directory": "/x"}], targets=[{**LOCAL, "jobs": ["files"]}]
    )


def rotated(until, **changes):
    keys = ring(until)
    return model(options(postgresql=CLUSTER, databases=[SHOP], targets=[LOCAL, OFFSITE], kept_key=NEW_KEY, kept=keys.as_dict(), **changes))


def test_while_the_key_is_rotated_wal_goes_to_the_repositories_of_both():
    found = rotated(None)
    assert found["wal_targets"] == ["local", "offsite", "local-before-2", "offsite-before-2"]
    new, _offsite, former, _away = [entry["content"] for entry in found["wal_files"]]
    assert NEW_KEY in new and SECRET not in new and SECRET in former and NEW_KEY not in former
    assert {"path": f"/var/backups/anchorage/postgresql-{PLACE}", "owner": "postgres", "group": "postgres", "mode": "0750"} in found["directories"]
    assert f"/var/backups/anchorage/files-{PLACE}" in [entry["path"] for entry in found["directories"]]


def test_after_a_rotation_wal_goes_to_the_new_one_and_the_former_one_is_still_read():
    found = rotated(5.0)
    assert found["wal_targets"] == ["local", "offsite"] and len(found["wal_files"]) == 2
    assert SECRET in found["pgbackrest"] and SECRET not in str(found["document"]) and NEW_KEY not in str(found["document"])


def test_the_name_of_a_former_target_is_taken():
    with pytest.raises(AnchorageError, match="'local-before-2', is taken by what a former key made"):
        model(options(targets=[LOCAL, {**OFFSITE, "name": "local-before-2"}], kept_key=NEW_KEY, kept=ring().as_dict()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": []}, "backup_targets is empty"),
        ({"targets": [LOCAL, LOCAL]}, "backup_targets[1].name 'local' is taken"),
        ({"targets": [{**LOCAL, "name": "Off Site"}]}, "backup_targets[0].name 'Off Site'"),
        ({"targets": [{"name": "a", "type": "local"}]}, "backup_targets[0].path is needed for type local"),
        ({"targets": [{**LOCAL, "path": "backups"}]}, "backup_targets[0].path 'backups' is no directory of its own"),
        ({"targets": [{**LOCAL, "path": "/tmp/backups"}]}, "that outlives a boot"),
        ({"targets": [{**LOCAL, "path": "/backups"}]}, "is no directory of its own"),
        ({"targets": [{**LOCAL, "path": "/var/../etc"}]}, "goes up"),
        ({"targets": [{"name": "a", "type": "s3"}]}, "backup_targets[0].secret_key is needed for type s3"),
        ({"targets": [{**OFFSITE, "endpoint": "s3.example.com"}]}, "backup_targets[0].endpoint must be https://host"),
        ({"targets": [{**OFFSITE, "endpoint": "http://s3.example.com"}]}, "must be https for the job database"),
        ({"targets": [{**OFFSITE, "endpoint": "https://u:p@s3.example.com"}]}, "must be https://host"),
        ({"targets": [{**OFFSITE, "bucket": "My_Bucket"}]}, "backup_targets[0].bucket 'My_Bucket'"),
        ({"targets": [{**OFFSITE, "secret_key": "a\nrepo1-path=/"}]}, "backup_targets[0].secret_key holds a blank or a control character"),
        ({"targets": [{**VAULT, "jobs": ["database", "files"]}]}, "cannot be appended over SSH"),
        ({"targets": [{**VAULT, "host": "-oProxyCommand=x"}]}, "backup_targets[0].host '-oProxyCommand=x'"),
        ({"targets": [{**VAULT, "user": "-x"}]}, "backup_targets[0].user '-x'"),
        ({"targets": [{**VAULT, "port": 70000}]}, "backup_targets[0].port 70000"),
        ({"key": "short"}, "backup_key needs at least 32"),
        ({"key": "k" * 32 + "\nrepo1-path=/"}, "backup_key needs at least 32"),
        ({"paths": ["etc"]}, "backup_paths[0] 'etc' is not absolute"),
        ({"retention_days": 0}, "backup_retention_days is 0"),
        ({"databases": [SHOP]}, "backup_databases[0] needs url"),
        ({"databases": [{"name": "shop", "url": "mysql://x/y"}]}, "backup_databases[0].url is no address of PostgreSQL"),
        ({"databases": [{"name": "../x", "url": "postgres://x/y"}]}, "backup_databases[0].name '../x'"),
        ({"postgresql": {"version": "17; rm"}}, "is no cluster"),
    ],
)
def test_what_cannot_work_is_refused_by_its_key(changes, words):
    assert words in refused(**changes)


def test_everything_that_is_wrong_is_told_at_once_and_no_secret():
    told = refused(key="tooshortsecret", targets=[{**OFFSITE, "secret_key": "s3 secret", "bucket": "_"}], retention_days=0)
    assert all(key in told for key in ("backup_key", "secret_key", "bucket", "backup_retention_days"))
    assert "tooshortsecret" not in told and "s3 secret" not in told
