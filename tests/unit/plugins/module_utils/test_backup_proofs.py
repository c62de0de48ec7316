# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_proof, backup_proofs, backup_results
from ansible_collections.anchorage.vps.plugins.module_utils.app import Log
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import FILES, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from . import backup_fakes
from .backup_fakes import NOW
from .backup_samples import KEY, LOCAL, OFFSITE, PLACE, document, ring

BOTH = Settings.parse(document(targets=[LOCAL, OFFSITE]), KEY)


@pytest.fixture
def host(tmp_path, monkeypatch):
    return backup_fakes.place(tmp_path, monkeypatch)


@pytest.fixture
def proofs(monkeypatch, host):
    """What a proof of each target shows."""
    shown = {"local": "", "offsite": ""}

    def prove(settings, world, log, *, job, target):
        if shown[target.name] == "raise":
            raise AnchorageError("there is no room")
        return {"ok": not shown[target.name], "cause": shown[target.name], "finished": world.now(), "seconds": 1}

    monkeypatch.setattr(backup_proof, "prove", prove)
    return shown


def prove(host, **more):
    return backup_proofs.prove(BOTH, host, Log(lambda line: None), FILES, **more)


def test_a_job_is_proven_where_every_target_is(host, proofs):
    assert prove(host)["ok"] and backup_results.read(host, FILES)["proof"]["ok"]
    proofs["offsite"] = "a pack is damaged"
    assert prove(host)["ok"] is False and backup_results.read(host, FILES)["proof"]["cause"] == "offsite: a pack is damaged"


def test_a_proof_that_could_not_be_made_is_none(host, proofs):
    proofs["local"] = "raise"
    assert prove(host)["cause"] == "local: there is no room"


def test_a_proof_of_one_target_keeps_what_is_known_of_the_others_and_their_age(host, proofs):
    proofs["offsite"] = "a pack is damaged"
    prove(host)
    host.clock += 86400
    found = prove(host, only="local")
    assert found["ok"] is False and found["finished"] == NOW
    proofs["offsite"] = ""
    assert prove(host, only="offsite")["ok"] is True


def test_a_target_that_was_taken_away_counts_no_more(host, proofs):
    proofs["offsite"] = "a pack is damaged"
    prove(host)
    assert backup_proofs.prove(Settings.parse(document(), KEY), host, Log(lambda line: None), FILES)["ok"]


def test_a_proof_with_the_former_key_proves_nothing_of_the_new_one(host, proofs):
    rotated = Settings.parse(document(targets=[LOCAL, OFFSITE], keys=ring().told), ring())
    prove(host)
    assert not backup_proofs.lacking(BOTH, host, FILES) and backup_proofs.lacking(rotated, host, FILES)
    found = backup_proofs.prove(rotated, host, Log(lambda line: None), FILES, only="local")
    assert list(found["targets"]) == ["local"] and found["targets"]["local"]["place"] == PLACE and backup_proofs.lacking(rotated, host, FILES)
    backup_proofs.prove(rotated, host, Log(lambda line: None), FILES)
    assert not backup_proofs.lacking(rotated, host, FILES)
    with pytest.raises(AnchorageError, match="Nothing new goes to local-before-2"):
        backup_proofs.prove(rotated, host, Log(lambda line: None), FILES, only="local-before-2")
