# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_command, backup_former, backup_proofs, backup_results, backup_run, backup_settings
from ansible_collections.anchorage.vps.plugins.module_utils.backup_settings import DATABASE, FILES, Settings
from ansible_collections.anchorage.vps.plugins.module_utils.command import main
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from . import backup_fakes
from .backup_fakes import NOW
from .backup_samples import KEY, document


class Told:
    """What the command did, and what its jobs are to answer."""

    def __init__(self):
        self.jobs, self.proofs, self.bad = [], [], set()


@pytest.fixture
def told(tmp_path, monkeypatch):
    found = Told()
    found.host = backup_fakes.place(tmp_path, monkeypatch)
    monkeypatch.setattr(backup_command, "World", lambda: found.host)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.setattr(backup_settings, "load", lambda world: Settings.parse(document(), KEY))
    monkeypatch.setattr(backup_settings, "read_key", lambda world: KEY)

    def run(settings, world, log, job, **options):
        found.jobs.append((job, options))
        result = {"ok": job not in found.bad, "cause": "it is away" if job in found.bad else "", "finished": world.now(), "seconds": 1}
        backup_results.end(world, job, result)
        return result

    def prove(settings, world, log, job, **options):
        found.proofs.append((job, options))
        proof = {"ok": job not in found.bad, "cause": "", "finished": world.now(), "seconds": 1}
        backup_results.proven(world, job, proof)
        return proof

    monkeypatch.setattr(backup_run, "run", run)
    monkeypatch.setattr(backup_proofs, "prove", prove)
    return found


def test_without_a_name_every_job_is_run(told):
    assert main(["backup", "run"]) == 0 and [job for job, _options in told.jobs] == [DATABASE, FILES] and told.proofs == []
    assert main(["backup", "run", "files"]) == 0 and told.jobs[-1] == (FILES, {"full": False, "anew": False, "patience": 0})
    assert main(["backup", "run", "--full", "--anew", "database"]) == 0 and told.jobs[-1] == (DATABASE, {"full": True, "anew": True, "patience": 0})


def test_what_a_timer_runs_waits_for_a_restore(told, monkeypatch):
    monkeypatch.setenv("INVOCATION_ID", "0123")
    assert main(["backup", "run", "files"]) == 0 and told.jobs == [(FILES, {"full": False, "anew": False, "patience": 3600})]


def test_a_job_that_is_none_is_told_with_those_that_are(told, capsys):
    assert main(["backup", "run", "all"]) == 1
    assert "no backup job 'all'; it has: database, files" in capsys.readouterr().err and told.jobs == []


def test_one_that_fails_is_the_end_of_no_other_and_the_code_says_so(told):
    told.bad.add(DATABASE)
    assert main(["backup", "run"]) == 1 and [job for job, _options in told.jobs] == [DATABASE, FILES]


def test_what_is_due_is_made_and_proven_once(told, capsys):
    assert main(["backup", "run", "--due", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["changed"] and [job for job, _options in told.proofs] == [DATABASE, FILES]
    assert main(["backup", "run", "--due", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": False, "results": {}} and len(told.jobs) == 2 and len(told.proofs) == 2


def test_a_proof_that_was_no_good_is_made_again(told):
    main(["backup", "run", "--due"])
    backup_results.proven(told.host, FILES, {"ok": False, "finished": NOW})
    assert main(["backup", "run", "--due"]) == 0 and [job for job, _options in told.proofs] == [DATABASE, FILES, FILES]


def test_by_its_units_it_goes_on_without_this_command(told, capsys):
    def systemctl(argv, call):
        job = argv[-1].removeprefix("anchorage-backup-").removesuffix(".service")
        if job == "proof":
            for one in (DATABASE, FILES):
                backup_results.proven(told.host, one, {"ok": True, "finished": NOW})
        elif job == FILES:
            backup_results.end(told.host, job, {"ok": True, "cause": "", "finished": NOW, "seconds": 1})
        return Completed(0, "", "") if job != DATABASE else Completed(1, "", "Job for anchorage-backup-database.service failed.\n")

    told.host._systemctl = systemctl
    assert main(["backup", "run", "--due", "--units", "--json"]) == 1 and told.jobs == []
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[FILES]["ok"] and results[f"proof of {FILES}"]["ok"]
    assert results[DATABASE] == {"ok": False, "cause": "its unit left no result: Job for anchorage-backup-database.service failed."}


def test_proofs_of_one_target(told):
    assert main(["backup", "prove", "--target", "local", "files"]) == 0 and told.proofs == [(FILES, {"only": "local"})]
    told.bad.add(FILES)
    assert main(["backup", "prove"]) == 1


def test_the_last_results_are_told(told, capsys):
    main(["backup", "run", "--due"])
    capsys.readouterr()
    assert main(["backup", "status"]) == 0
    assert capsys.readouterr().out.startswith("database: ok 2026-")
    told.bad.add(FILES)
    main(["backup", "run"])
    assert main(["backup", "status"]) == 1 and "files: FAILED" in capsys.readouterr().out


def test_the_key_is_printed_where_it_is_asked_for(told, capsys):
    assert main(["backup", "key"]) == 0 and capsys.readouterr().out == f"{KEY}\n"


def test_the_unit_of_a_killed_run_leaves_its_word(told, monkeypatch):
    backup_results.begin(told.host, FILES)
    monkeypatch.setenv("SERVICE_RESULT", "oom-kill")
    assert main(["backup", "ended", "files"]) == 0
    assert backup_results.read(told.host, FILES)["cause"] == "the run was ended before it was done (oom-kill)"


@pytest.mark.parametrize(("result", "asked"), [({}, True), ({"ok": False}, False), ({"clock_doubted": True}, False)])
def test_what_former_keys_made_may_go_after_a_good_run_by_a_good_clock(told, monkeypatch, result, asked):
    removed = []
    monkeypatch.setattr(backup_run, "run", lambda *_args, **_options: {"ok": True, **result})
    monkeypatch.setattr(backup_former, "remove", lambda settings, world, log, job: removed.append(job))
    main(["backup", "run", "files"])
    assert removed == ([FILES] if asked else [])
