# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_apart, backup_proofs, backup_run
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import APART, DATABASE, FILES, Settings, repository
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_samples import KEY, LOCAL, document

WALLET = "/var/lib/docker/volumes/shop-btcpay_wallet/_data"
PROJECT = {"name": "shop-btcpay", "directory": "/etc/anchorage/compose/shop-btcpay"}
SETTINGS = Settings.parse(document(apart=[PROJECT], targets=[{**LOCAL, "jobs": ["database", "files", "apart"]}]), KEY)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with a project that holds money."""
    found = backup_fakes.place(tmp_path, monkeypatch)
    monkeypatch.setattr(backup_apart, "STOPPED", str(tmp_path / "backup" / "apart.stopped"))
    found.broken["volume ls"] = Completed(0, "shop-btcpay_wallet\n", "")
    found.broken["volume inspect"] = Completed(0, json.dumps([{"Mountpoint": WALLET}]), "")
    return found


def run(host, told=None):
    return backup_run.run(SETTINGS, host, Log((told if told is not None else []).append), APART)


def order(host):
    """What was done to the project, and when it was saved."""
    verbs = {"stop", "start", "backup"}
    return [word for call in host.ran for word in call["argv"] if word in verbs and call["argv"][0] in ("docker", "restic")]


def stopped():
    return pathlib.Path(backup_apart.STOPPED)


def test_a_host_without_money_has_no_such_job():
    assert Settings.parse(document(), KEY).jobs() == [DATABASE, FILES] and SETTINGS.jobs() == [DATABASE, FILES, APART]


def test_it_is_saved_at_rest_in_a_repository_of_its_own_and_runs_again(host):
    found = run(host)
    assert found["ok"] and order(host) == ["stop", "backup", "start"] and host.saved == [WALLET] and not stopped().exists()
    assert repository(SETTINGS.targets[0], APART) == "/var/backups/anchorage/apart" and "/var/backups/anchorage/apart" in " ".join(host.words("restic")[0])


def test_it_runs_again_where_saving_failed(host):
    host.broken["backup --json"] = Completed(1, "", "Fatal: no space left on device\n")
    found = run(host)
    assert not found["ok"] and "no space left on device" in found["cause"] and order(host)[-1] == "start" and not stopped().exists()


def test_what_cannot_be_stopped_is_not_saved_and_told(host):
    host.broken["stop"] = Completed(1, "", "Cannot connect to the Docker daemon\n")
    found = run(host)
    assert not found["ok"] and "could not be stopped, so it is not saved: Cannot connect" in found["cause"] and not host.saved


def test_what_does_not_start_again_is_told_and_tried_again_by_whoever_comes_next(host):
    host.broken["start"] = Completed(1, "", "port is already allocated\n")
    found = run(host)
    assert not found["ok"] and "could not be started again: shop-btcpay: port is already allocated" in found["cause"] and stopped().exists()
    del host.broken["start"]
    backup_apart.start_again(SETTINGS, host, Log(lambda line: None))
    assert not stopped().exists()


def test_what_a_killed_run_left_stopped_is_started_before_the_next_one(host):
    stopped().write_text(json.dumps(["shop-btcpay"]))
    assert run(host)["ok"] and order(host) == ["start", "stop", "backup", "start"]


def test_a_project_without_such_volumes_is_told(host):
    host.broken["volume ls"] = Completed(0, "", "")
    assert "has no volume with the label vps.anchorage.backup=apart" in run(host)["cause"]


def test_its_proof_reads_everything_and_starts_nothing(host):
    run(host)
    assert backup_proofs.prove(SETTINGS, host, Log(lambda line: None), APART)["ok"]
    host.broken["check --read-data"] = Completed(1, "", "Fatal: repository contains errors\n")
    found = backup_proofs.prove(SETTINGS, host, Log(lambda line: None), APART)
    assert found["ok"] is False and found["cause"] == "local: repository contains errors"
