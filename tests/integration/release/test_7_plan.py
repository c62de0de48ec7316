# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said before and after a deploy, and the migrations that are stopped before they meet the database."""

from __future__ import annotations

import json
import re
import time

import pytest

FILES = {"files": ["migrations/*"]}
NOTE = "ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS note text;"


def plan_of(ended):
    """The id of a plan that was printed."""
    return re.search(r"plan ([0-9a-f]{12}); to do exactly this", ended.output)[1]


def unchanged(shop, before):
    """The same processes serve, of the same release, and the journal knows of nothing else."""
    assert shop.host.serving() == before


def test_a_plan_says_what_is_going_to_happen_and_a_changed_one_is_refused(shop, tmp_path):
    before = shop.host.serving()
    name = f"migrations/{time.time_ns()}.sql"
    shop.apps.app("alpha", env={"GREETING": "secret-greeting"}, files={name: "CREATE TABLE IF NOT EXISTS stub_notes (id int);"})
    shop.apps.migrate("alpha", **FILES)
    told = shop.apps.deploy("--tags", "plan", "-e", f"deploy_plan_path={tmp_path}/plan.json")
    unchanged(shop, before)
    assert told.changed == 0 and f"alpha: {before.live} -> " in told.output
    assert "environment: +GREETING" in told.output and "secret-greeting" not in told.output
    assert "migrations: 1 of the project's own pending, expand" in told.output and f"{name} (1 statements)" in told.output
    assert "expected: no gap" in told.output and "stops before its successor starts: worker" in told.output
    assert re.search(r"memory: needs \d+ MiB, free \d+ MiB", told.output) and re.search(r"disk in /srv/alpha: needs \d+ MiB, free \d+ MiB", told.output)
    agreed = plan_of(told)
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["plan"] == agreed and written["hosts"]["vps"]["alpha"]["class"] == "no gap"
    assert plan_of(shop.apps.deploy("--check")) == agreed
    shop.apps.deploy("-e", f"plan={agreed}", "-e", f"deploy_report_path={tmp_path}/done.json")
    after = shop.host.serving()
    after.check()
    assert after.live == written["hosts"]["vps"]["alpha"]["release"]
    (done,) = [app for app in json.loads((tmp_path / "done.json").read_text())["apps"] if app["app"] == "alpha"]
    assert (
        done["live"] == after.live
        and set(done["seconds"]) == {"stage", "migrate", "activate"}
        and {"build", "migration", "prove", "soak"} <= set(done["phases"])
    )
    assert done["prober"]["requests"] > 10 and done["prober"]["failed"] == 0

    # What was agreed to is done, so it is no plan any more; nothing happens to the next release under its name.
    shop.apps.app("alpha")
    refused = shop.apps.deploy("-e", f"plan={agreed}", rc=None)
    assert f"This is not the plan {agreed} any more" in re.sub(r"\s+", " ", refused.output)
    unchanged(shop, after)
    assert "expected: no gap" in refused.output, "the new plan is told"


def test_the_host_itself_plans(shop):
    said = shop.host.shell("anchorage plan alpha")
    assert "alpha: nothing to do" in said
    assert json.loads(shop.host.shell("anchorage plan alpha --json"))["class"] == "nothing"


def test_a_migration_that_takes_away_stops_before_the_database_until_the_contract_says_so(shop):
    stamp = time.time_ns()
    first, second = (f"migrations/{number}.sql" for number in (stamp, stamp + 1))
    shop.apps.app("alpha", files={first: NOTE})
    shop.apps.migrate("alpha", **FILES)
    shop.apps.deploy()
    before, runs = shop.host.serving(), shop.host.runs()
    shop.apps.app("alpha", files={first: NOTE, second: "ALTER TABLE stub_items DROP COLUMN note;"})
    shop.apps.migrate("alpha", **FILES)
    assert "STOPS: The migration of alpha" in shop.apps.deploy("--check").output
    refused = re.sub(r"\s+", " ", shop.apps.deploy(rc=None).output)
    assert f"(contract), so it was not run: {second}: ALTER TABLE stub_items DROP COLUMN note" in refused
    assert "Broke: gate (verdict)." in refused and f"Live now: alpha release {before.live}" in refused
    assert "set apps.alpha.migrate.allow: [contract] and run deploy.yml again" in refused
    unchanged(shop, before)
    assert shop.host.runs() == runs and "note" in shop.host.sql(
        "SELECT string_agg(column_name, ',') FROM information_schema.columns WHERE table_name = 'stub_items'"
    )

    shop.apps.migrate("alpha", **FILES, allow=["contract"])
    said = shop.apps.deploy().output
    assert f"contract: {second}" in said and "column public.stub_items.note is gone" in said
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and shop.host.runs(after.live) == 1


@pytest.mark.fault
def test_a_rehearsal_tells_what_a_migration_does_and_leaves_no_copy(shop):
    shop.apps.app("alpha")
    shop.apps.migrate("alpha", rehearsal={"enabled": True})
    shop.apps.run("site")
    shop.host.sql("INSERT INTO stub_items (name) SELECT 'item ' || n FROM generate_series(1, 20000) AS n")
    rows = shop.host.sql("SELECT count(*) FROM stub_items")
    name = f"shade{time.time_ns()}"
    sql = f"ALTER TABLE stub_items ADD COLUMN {name} text DEFAULT 'grey'; CREATE INDEX stub_{name} ON stub_items ({name});"
    shop.apps.app("alpha", migrations=[{"id": name, "sql": f"{sql} SELECT pg_sleep(1)"}])
    shop.apps.migrate("alpha", rehearsal={"enabled": True})
    said = shop.apps.deploy().output
    assert re.search(r"rehearsed in [\d.]+ s; the tables: expand; growth: [\d.]+ MiB", said)
    assert re.search(r"writers were kept out of public\.stub_items for [\d.]+ s \(AccessExclusiveLock", said)
    live = shop.host.serving()
    live.check()
    assert shop.host.runs(live.live) == 1 and shop.host.sql("SELECT count(*) FROM stub_items") == rows
    assert shop.host.sql("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')", "alpha_rehearsal") == "0"

    # What takes away is found although the contract names no files; what fails never meets the database.
    for migration, words in (
        ({"id": "Gone", "sql": f"ALTER TABLE stub_items DROP COLUMN {name}"}, f"(contract), so it was not run: column public.stub_items.{name} is gone"),
        ({"id": "Broken", "sql": "CREATE TABLE stub_half (id int); SELECT 1/0"}, "The rehearsal on alpha_rehearsal on 127.0.0.1:5432 failed"),
        ({"id": "Slow", "sql": "LOCK TABLE stub_items; SELECT pg_sleep(3)"}, "(lock-heavy), so it was not run: public.stub_items for"),
    ):
        shop.apps.app("alpha", migrations=[migration])
        shop.apps.migrate("alpha", rehearsal={"enabled": True})
        refused = re.sub(r"\s+", " ", shop.apps.deploy(rc=None).output)
        assert words in refused, refused[-3000:]
        assert shop.host.serving() == live
        assert shop.host.sql(f"SELECT count(*) FROM stub_migrations WHERE id = '{migration['id']}'") == "0"
    assert shop.host.sql("SELECT to_regclass('stub_half') IS NULL") == "t"
