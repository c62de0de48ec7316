# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_keys, backup_run, backup_settings, restore_host, restore_source
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.restore_plan import Chosen
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .backup_samples import KEY, LOCAL, OFFSITE, VAULT, document

SETTINGS = Settings.parse(document())


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, path in {
        "PATH": "state/recovery.json",
        "DIRECTORY": "state",
        "STAGE": "state/recovered",
        "SECRETS": "etc/secrets",
        "KEY": "etc/secrets/backup.json",
        "DOCUMENTS": "etc/apps",
        "CLUSTERS": "clusters",
    }.items():
        monkeypatch.setattr(restore_host, name, str(tmp_path / path))
    (tmp_path / "etc" / "secrets").mkdir(parents=True)
    monkeypatch.setattr(restore_source, "choose_snapshot", lambda *_args: Chosen("snapshot", "local", "c" * 64, 1.0))

    def restic(_settings, _world, _target, *words, timeout):
        target = words[words.index("--target") + 1]
        for name, text in snapshot.items():
            path = pathlib.Path(f"{target}{tmp_path}/etc/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("->"):
                path.symlink_to(text[2:])
            else:
                path.write_text(text)
                path.chmod(0o600)
        return Completed(0, "", "")

    snapshot = {"secrets/shop.json": '{"a": 1}', "tls/live/key.pem": "->../archive/key1.pem", "tls/archive/key1.pem": "KEY"}
    monkeypatch.setattr(backup_run, "restic", restic)
    return tmp_path


def fetch():
    return restore_host.fetch(SETTINGS, World(), Log(lambda line: None), restore_host.wish(None, None, 0.0))


def test_an_empty_host_is_begun_and_an_interrupted_one_goes_on(place):
    assert restore_host.begin(World())["done"] == []
    assert restore_host.mark(World(), "secrets") and not restore_host.mark(World(), "secrets")
    (place / "etc" / "secrets" / "shop.json").write_text("{}")
    assert restore_host.begin(World())["done"] == ["secrets"]


@pytest.mark.parametrize("what", ["etc/apps/shop.json", "etc/secrets/shop.json", "clusters/17/main/PG_VERSION"])
def test_a_host_that_has_data_is_refused_and_nothing_is_written(place, what):
    (place / what).parent.mkdir(parents=True, exist_ok=True)
    (place / what).write_text("x")
    with pytest.raises(AnchorageError, match="This host has data or secrets"):
        restore_host.begin(World())
    assert not (place / "state").exists()


def test_the_key_alone_does_not_make_a_host_one_that_has_data(place):
    (place / "etc" / "secrets" / "backup.json").write_text("{}")
    assert restore_host.begin(World(), check=True) == {"done": []} and not (place / "state").exists()


def test_a_wrong_key_is_forgotten_as_long_as_it_opened_nothing(place):
    key = place / "etc" / "secrets" / "backup.json"
    restore_host.begin(World())
    key.write_text('{"key": "wrong"}')
    restore_host.begin(World(), key="wrong")
    assert key.exists()
    restore_host.begin(World(), key="right", check=True)
    assert key.exists()
    restore_host.begin(World(), key="right")
    assert not key.exists()
    key.write_text('{"key": "right"}')
    restore_host.mark(World(), "secrets")
    restore_host.begin(World(), key="wrong")
    assert key.exists()


def test_a_host_that_was_recovered_is_not_recovered_again(place):
    restore_host.begin(World())
    assert restore_host.finish(World())["seconds"] >= 0
    (place / "etc" / "secrets" / "shop.json").write_text("{}")
    with pytest.raises(AnchorageError, match="It was recovered at"):
        restore_host.begin(World())
    assert not restore_host.mark(World(), "files")


def test_secrets_and_keys_come_with_their_modes_and_links_and_only_once(place):
    came = fetch()
    assert (place / "etc/secrets/shop.json").read_text() == '{"a": 1}' and (place / "etc/secrets/shop.json").stat().st_mode & 0o777 == 0o600
    assert os.readlink(place / "etc/tls/live/key.pem") == "../archive/key1.pem" and (place / "etc/tls/live/key.pem").read_text() == "KEY"
    assert f"{place}/etc/secrets/shop.json" in came and not (place / "state" / "recovered").exists()
    assert fetch() == []


def test_nothing_is_put_over_a_file_that_differs(place):
    (place / "etc/secrets/shop.json").write_text('{"a": 2}')
    with pytest.raises(AnchorageError, match="another .*shop.json than the backup"):
        fetch()
    assert (place / "etc/secrets/shop.json").read_text() == '{"a": 2}' and not (place / "etc/tls").exists()


def test_what_came_before_a_kill_is_found_to_be_the_same(place, monkeypatch):
    real, calls = World.write_atomic, []

    def dies(self, path, data, **more):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, path, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(World, "write_atomic", dies)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    fetch()
    assert (place / "etc/secrets/shop.json").exists() and (place / "etc/tls/live/key.pem").read_text() == "KEY"


def test_a_snapshot_without_secrets_and_one_that_cannot_be_read_are_refused(place, monkeypatch):
    monkeypatch.setattr(backup_run, "restic", lambda *_args, **_more: Completed(0, "", ""))
    with pytest.raises(AnchorageError, match="holds no secrets"):
        fetch()
    monkeypatch.setattr(backup_run, "restic", lambda *_args, **_more: Completed(1, "", "Fatal: wrong password or no key found"))
    with pytest.raises(AnchorageError, match="could not be had"):
        fetch()


def test_what_provisioning_makes_is_not_taken_from_the_backup():
    settings = Settings.parse(document(paths=["/etc/anchorage", "/etc/letsencrypt", "/var/lib/anchorage", "/srv/shop/shared"]))
    assert restore_host.early(settings) == ["/etc/anchorage/secrets", "/etc/letsencrypt"]


def test_databases_come_from_the_archive_and_where_it_is_gone_from_dumps(monkeypatch):
    monkeypatch.setattr(restore_source, "choose_snapshot", lambda *_args: None)
    wish = restore_host.wish(None, None, 0.0)
    good = {"local": {"backup": [{"label": "a", "timestamp": {"stop": 1}}]}}
    monkeypatch.setattr(restore_source, "archives", lambda *_args: good)
    assert restore_host.sources(SETTINGS, World(), wish) == "cluster"
    monkeypatch.setattr(restore_source, "archives", lambda *_args: {"local": AnchorageError("gone")})
    with pytest.raises(AnchorageError, match="gone"):
        restore_host.sources(SETTINGS, World(), wish)
    both = Settings.parse(document(targets=[LOCAL, VAULT]))
    assert restore_host.sources(both, World(), wish) == "dumps"
    assert restore_host.sources(both, World(), restore_host.wish(None, "vault", 0.0)) == "dumps"
    elsewhere = Settings.parse(document(databases=[{"name": "shop", "method": "dump", "url": "postgres://u:p@db/shop"}]))
    assert restore_host.sources(elsewhere, World(), wish) == "none"


def test_a_time_is_wanted_where_one_is_named():
    assert restore_host.wish("2023-11-14 00:00:00Z", "local", 1_700_000_000.0).value == "2023-11-14T00:00:00+00:00"


def test_a_damaged_record_is_told(place):
    (place / "state").mkdir()
    (place / "state" / "recovery.json").write_text("{")
    with pytest.raises(AnchorageError, match="is damaged"):
        restore_host.read(World())


@pytest.mark.parametrize("opened", ["", "offsite"])
def test_the_key_says_where_its_repositories_are(tmp_path, monkeypatch, opened):
    files = {backup_settings.SETTINGS: json.dumps(document(targets=[LOCAL, OFFSITE])).encode(), backup_keys.KEY: json.dumps({"key": KEY}).encode()}
    world, where = World(), backup_keys.place_of(KEY)
    monkeypatch.setattr(world, "read", files.get)
    monkeypatch.setattr(world, "exists", files.__contains__)
    monkeypatch.setattr(world, "write_atomic", lambda path, data, **_owner: files.__setitem__(path, data))
    asked = []

    def restic(_settings, _world, target, *words, timeout):
        asked.append((target.name, target.place, words))
        return Completed(0 if target.name == opened else 10, "", "")

    monkeypatch.setattr(backup_run, "restic", restic)
    settings = restore_host.place(world, Log(lambda line: None))
    assert asked == [(name, where, ("cat", "config")) for name in ("local", "offsite")]
    assert [target.place for target in settings.targets] == [where if opened else ""] * 2
    assert json.loads(files[backup_keys.KEY]).get("place", "") == (where if opened else "")
    asked.clear()
    restore_host.place(world, Log(lambda line: None))
    assert bool(asked) == (not opened), "what was found is not looked for again"
