# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import configparser
import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_settings
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import DATABASE, FILES, Settings, load, pgbackrest_configuration, repository
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .backup_samples import KEY, LOCAL, NEW_KEY, OFFSITE, PLACE, VAULT, document, ring


def parse(**changes):
    return Settings.parse(document(**changes), KEY)


def section(settings, name="global"):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(pgbackrest_configuration(settings))
    return dict(parser[name])


def test_the_key_is_in_no_picture_of_the_settings():
    assert KEY not in repr(parse())


def test_a_host_without_an_archive_has_no_job_for_it():
    assert parse().jobs() == [DATABASE, FILES]
    assert parse(archive=None).jobs() == [FILES]
    assert parse(targets=[VAULT]).jobs() == [FILES]


def test_repositories_are_numbered_among_the_targets_that_take_the_archive():
    settings = parse(targets=[VAULT, LOCAL, OFFSITE])
    assert [settings.pgbackrest_repo(target) for target in settings.for_job(DATABASE)] == [1, 2]
    assert settings.pgbackrest(settings.targets[2], "info") == ["pgbackrest", "--stanza=main", "--repo=2", "info"]


def test_pgbackrest_is_told_the_same_numbers_and_encrypts_everywhere():
    told = section(parse(targets=[VAULT, LOCAL, OFFSITE]))
    assert (told["repo1-path"], told["repo2-path"]) == ("/var/backups/anchorage/postgresql", "/shop/postgresql")
    assert told["repo1-cipher-pass"] == told["repo2-cipher-pass"] == KEY and told["repo1-cipher-type"] == told["repo2-cipher-type"] == "aes-256-cbc"
    assert (told["repo2-type"], told["repo2-s3-endpoint"], told["repo2-storage-port"]) == ("s3", "s3.example.com", "9000")
    assert told["repo1-retention-full"] == "30" and told["repo1-retention-full-type"] == "time"
    assert section(parse(), "main") == {"pg1-path": "/var/lib/postgresql/17/main", "pg1-port": "5432"}


@pytest.mark.parametrize(("endpoint", "port"), [("https://s3.example.com", "443"), ("https://s3.example.com/", "443"), ("https://[::1]:9000", "9000")])
def test_the_port_of_an_endpoint_is_that_of_https_or_is_named(endpoint, port):
    assert section(parse(targets=[{**OFFSITE, "endpoint": endpoint}]))["repo1-storage-port"] == port


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (LOCAL, "/var/backups/anchorage/files"),
        (OFFSITE, "s3:https://s3.example.com:9000/backups/shop/files"),
        ({**OFFSITE, "path": "/"}, "s3:https://s3.example.com:9000/backups/files"),
        (VAULT, "rclone:shop/files"),
        ({**VAULT, "path": ""}, "rclone:files"),
    ],
)
def test_where_restic_finds_its_repository(target, words):
    assert repository(parse(targets=[target]).targets[0]) == words


def test_restic_gets_secrets_by_its_environment_alone():
    settings = parse(targets=[OFFSITE])
    argv, environment = settings.restic(settings.targets[0])
    assert environment["RESTIC_PASSWORD"] == KEY and environment["AWS_SECRET_ACCESS_KEY"] == "s3-secret"
    assert not any(secret in " ".join(argv) for secret in (KEY, "s3-secret")) and "--cacert=/etc/ssl/certs/ca-certificates.crt" in argv


def test_over_ssh_the_other_side_says_what_is_run_and_is_known_by_its_key():
    settings = parse(targets=[VAULT])
    argv, environment = settings.restic(settings.targets[0])
    (option,) = [word for word in argv if word.startswith("--option=rclone.program=")]
    assert "StrictHostKeyChecking=yes" in option and option.endswith(" backup@vault.example.com") and "-p 2222" in option
    assert "AWS_SECRET_ACCESS_KEY" not in environment and settings.targets[0].append_only and settings.targets[0].away


def test_dumps_go_where_the_archive_does_not():
    settings = parse(targets=[LOCAL, VAULT])
    assert [settings.dumped(target) for target in settings.targets] == [False, True]


def test_a_target_is_found_by_its_name_and_a_wrong_one_is_told_with_the_right_ones():
    settings = parse(targets=[LOCAL, OFFSITE, VAULT])
    assert settings.target(None, DATABASE).name == "local" and settings.target("vault", FILES).name == "vault"
    with pytest.raises(AnchorageError, match="no target 'vault' for the job database; there is: local, offsite"):
        settings.target("vault", DATABASE)


class Disk:
    """Files in memory."""

    def __init__(self, **files):
        self.files = files

    def read(self, path):
        return self.files.get(path)


def test_the_settings_of_a_host_are_read_with_their_key():
    world = Disk(**{backup_settings.SETTINGS: json.dumps(document()).encode(), backup_settings.KEY: json.dumps({"key": KEY}).encode()})
    assert load(world).key == KEY


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "Nothing is backed up on this host"),
        ({backup_settings.SETTINGS: b"{"}, "is damaged: JSONDecodeError"),
        ({backup_settings.SETTINGS: b"{}"}, "is damaged: KeyError: 'schema'"),
        ({backup_settings.SETTINGS: json.dumps(document(schema=2)).encode()}, "has schema 2, this engine knows 1"),
        ({backup_settings.SETTINGS: json.dumps(document()).encode()}, "The key of the backups .* is missing"),
        ({backup_settings.SETTINGS: json.dumps(document()).encode(), backup_settings.KEY: b"{}"}, "The key of the backups .* is damaged"),
    ],
)
def test_what_cannot_be_read_is_named(files, words):
    with pytest.raises(AnchorageError, match=words) as error:
        load(Disk(**files))
    assert error.value.next_step


def rotated(until=1_900_000_000.0, **changes):
    keys = ring(until)
    return Settings.parse(document(targets=[LOCAL, OFFSITE, VAULT], keys=keys.told, **changes), keys)


def test_what_a_former_key_made_is_a_target_that_nothing_new_goes_to():
    settings = rotated()
    assert [target.name for target in settings.for_job(FILES)] == ["local", "offsite", "vault"]
    assert [target.name for target in settings.readable(FILES)] == ["local", "offsite", "vault", "local-before-2", "offsite-before-2"]
    former = settings.target("local-before-2", DATABASE)
    assert (former.former, former.until, former.path) == ("local", 1_900_000_000.0, "/var/backups/anchorage")
    assert settings.target(None, DATABASE).name == "local"


def test_each_key_has_repositories_of_its_own():
    settings = rotated()
    found = {target.name: (repository(target), settings.restic(target)[1]["RESTIC_PASSWORD"]) for target in settings.readable(FILES)}
    assert found["local"] == (f"/var/backups/anchorage/files-{PLACE}", NEW_KEY) and found["local-before-2"] == ("/var/backups/anchorage/files", KEY)
    assert found["vault"][0] == f"rclone:shop/files-{PLACE}"
    told = section(settings)
    assert [told[f"repo{number}-path"] for number in range(1, 5)] == [
        f"/var/backups/anchorage/postgresql-{PLACE}",
        f"/shop/postgresql-{PLACE}",
        "/var/backups/anchorage/postgresql",
        "/shop/postgresql",
    ]
    assert [told[f"repo{number}-cipher-pass"] for number in range(1, 5)] == [NEW_KEY, NEW_KEY, KEY, KEY]
    assert settings.pgbackrest_repo(settings.target("offsite-before-2", DATABASE)) == 4 and NEW_KEY not in repr(settings)


def test_wal_goes_to_both_until_the_former_key_is_left():
    assert [target.name for target in rotated(None).for_wal()] == ["local", "offsite", "local-before-2", "offsite-before-2"]
    assert [target.name for target in rotated().for_wal()] == ["local", "offsite"] and rotated(archive=None).for_wal() == []


def test_a_key_that_is_forgotten_takes_its_targets_along():
    keys = ring()
    settings = Settings.parse(document(targets=[LOCAL], keys=keys.told), backup_settings.Ring(NEW_KEY, PLACE, 2))
    assert settings.former == () and settings.key == NEW_KEY


def test_until_the_role_has_written_the_new_key_down_the_one_before_is_used():
    assert Settings.parse(document(), ring()).key == KEY


def test_a_document_of_another_key_is_refused():
    with pytest.raises(AnchorageError, match="do not speak of the same key"):
        Settings.parse(document(keys=ring().told), backup_settings.Ring(KEY))


def test_what_the_engine_rewrites_is_what_the_role_would_write(tmp_path, monkeypatch):
    class World(Disk):
        def exists(self, path):
            return path in self.files

        def write_atomic(self, path, data, **_owner):
            self.files[path] = data

    monkeypatch.setattr(backup_settings.grp, "getgrnam", lambda name: type("Group", (), {"gr_gid": 5}))
    world = World(**{backup_settings.SETTINGS: json.dumps(document(keys=ring().told)).encode(), backup_settings.PGBACKREST: b""})
    backup_settings.rewrite(world, backup_settings.Ring(NEW_KEY))
    assert json.loads(world.files[backup_settings.SETTINGS]) == document() and world.files[backup_settings.SETTINGS].startswith(b'{\n    "ages": {')
    assert NEW_KEY.encode() in world.files[backup_settings.PGBACKREST] and KEY.encode() not in world.files[backup_settings.PGBACKREST]
