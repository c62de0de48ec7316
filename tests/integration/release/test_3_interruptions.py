# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that die, race or are led astray. The host goes on by itself, and the plain re-run ends with one migration and a live release."""

from __future__ import annotations

import getpass

import pytest

from .conftest import Visitor, kill, until

GATE = "Migrate the database"
MIGRATION = [{"id": "Migration002", "sql": "ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS price integer"}]


def newest(shop):
    """Return the release that was staged last."""
    releases = shop.host.journal()["releases"].values()
    return max(releases, key=lambda entry: entry.get("staged_at", 0))["id"]


def killed_before(shop, task):
    """Run a deploy whose controller dies at a task."""
    return shop.apps.deploy(rc=-9, ANSIBLE_CALLBACKS_ENABLED="kill_controller", KILL_CONTROLLER_AT=task)


def test_a_run_that_died_between_staging_and_the_gate_is_made_good_by_the_next(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", migrations=MIGRATION)
    killed_before(shop, GATE)
    release = newest(shop)
    assert release != before.live and shop.host.runs(release) == 0
    assert shop.host.serving() == before

    # There is no way around the gate: not for a person on the host, nor for a run that begins behind it.
    entry = shop.host.journal()["releases"][release]
    told = shop.host.shell(f"anchorage step activate alpha --release={release} --tree={entry['tree']} --source={entry['source']} || true")
    assert f"Release {release} of alpha may not start: its database does not carry the mark" in told
    shop.apps.deploy("--start-at-task", "activate | Start the release, prove it, give it the traffic", rc=None)
    assert shop.host.serving() == before and shop.host.runs(release) == 0

    again = shop.apps.deploy()
    assert f"RUNNING HANDLER [anchorage.vps.release : {GATE}]" in again.output
    after = shop.host.serving()
    after.check()
    assert after.live == release and shop.host.runs(release) == 1 and shop.host.marked(release)
    assert shop.apps.deploy().changed == 0


def test_tags_run_nothing_behind_the_gate_alone(shop):
    """A role's validation runs with any tag, and refuses what lacks the run's first play."""
    before = shop.host.serving()
    shop.apps.app("alpha")
    for tags in ("activate", "release"):
        shop.apps.deploy("--tags", tags, rc=None)
        assert shop.host.serving() == before


def test_a_journal_that_claims_a_migration_is_not_believed(shop):
    before = shop.host.serving()
    shop.apps.app("alpha")
    killed_before(shop, GATE)
    release = newest(shop)
    forged = "import json; p='/var/lib/anchorage/alpha/journal.json'; j=json.load(open(p)); j['releases']['%s']['migrated_at']=1.0; json.dump(j, open(p,'w'))"
    shop.host.shell("python3 -", given=forged % release)
    shop.apps.deploy()
    assert shop.host.runs(release) == 1, "the database's own mark counts, and the journal's does not"
    assert shop.host.serving().live == release != before.live


@pytest.mark.fault
def test_a_run_that_died_inside_the_build_is_attached_to(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", build="slow:25")
    first = shop.apps.start("deploy")
    until(lambda: shop.host.unit_active("alpha-build"), "the build")
    kill(first)
    started = shop.host.shell("systemctl show -p ActiveEnterTimestampMonotonic --value anchorage-alpha-build.service").strip()
    assert shop.host.unit_active("alpha"), "the step goes on without its controller"
    second = shop.apps.start("deploy")
    until(lambda: "backend build" in log_of(second), "the second run's report", 60)
    assert shop.host.shell("systemctl show -p ActiveEnterTimestampMonotonic --value anchorage-alpha-build.service").strip() in (started, "0"), (
        "it is the same build"
    )
    ended = shop.apps.end(second)
    assert ended.rc == 0, ended.output[-3000:]
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and shop.host.runs(after.live) == 1


def log_of(process):
    """Return what a run said so far."""
    process.log.flush()
    with open(process.log.name, encoding="utf-8", errors="replace") as stream:
        return stream.read()


@pytest.mark.fault
def test_a_run_that_died_inside_the_migration_is_attached_to(shop):
    shop.apps.app("alpha", migrate="slow:20", migrations=MIGRATION)
    first = shop.apps.start("deploy")
    until(lambda: shop.host.unit_active("alpha-migrate"), "the migration")
    kill(first)
    assert shop.host.unit_active("alpha-migrate"), "the migration goes on without its controller"
    release = newest(shop)
    ended = shop.apps.deploy()
    after = shop.host.serving()
    after.check()
    assert after.live == release and shop.host.runs(release) == 1, ended.output[-3000:]


def test_a_migration_that_ended_alone_is_believed_by_the_next_run(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", migrate="slow:3")
    first = shop.apps.start("deploy")
    until(lambda: shop.host.unit_active("alpha-migrate"), "the migration")
    kill(first)
    release = newest(shop)
    until(lambda: shop.host.marked(release) and not shop.host.unit_active("alpha"), "the migration's end")
    assert shop.host.serving() == before, "nobody starts the release by himself"
    again = shop.apps.deploy()
    assert f"RUNNING HANDLER [anchorage.vps.release : {GATE}]" not in again.output
    assert shop.host.serving().live == release and shop.host.runs(release) == 1


@pytest.mark.fault
def test_a_run_that_died_inside_the_activation_ends_on_the_host(shop):
    shop.apps.app("alpha", server="slow:8")
    first = shop.apps.start("deploy")
    until(lambda: "start alpha-server" in log_of(first), "the activation", 120)
    kill(first)
    release = newest(shop)
    until(lambda: not shop.host.unit_active("alpha"), "the activation's end", 90)
    after = shop.host.serving()
    after.check()
    assert after.live == release
    shop.apps.deploy()  # tidies up what the killed run did not
    assert shop.apps.deploy().changed == 0 and shop.host.serving() == after


@pytest.mark.fault
def test_a_step_that_was_killed_on_the_host_is_named_and_done_again(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", migrate="slow:10")
    first = shop.apps.start("deploy")
    until(lambda: shop.host.unit_active("alpha-migrate"), "the migration")
    shop.host.shell("systemctl kill --signal=SIGKILL anchorage-alpha.service; systemctl kill --signal=SIGKILL anchorage-alpha-migrate.service || true")
    ended = shop.apps.end(first)
    assert ended.rc > 0 and "ended without a word" in ended.output
    until(lambda: not shop.host.unit_active("alpha-migrate"), "the end of what the step had started")
    assert shop.host.serving() == before
    shop.apps.deploy()
    shop.host.serving().check()
    assert shop.host.serving().live != before.live


def test_of_two_deploys_at_once_one_wins_and_the_other_names_it(shop):
    before, other = shop.host.serving(), shop.apps.copy()
    shop.apps.app("alpha", build="slow:20", env={"GREETING": "ours"})
    other.app("alpha", env={"GREETING": "theirs"})
    first = shop.apps.start("deploy")
    until(lambda: shop.host.unit_active("alpha-build"), "the first deploy's build")
    loser = other.deploy(rc=None)
    assert "Another step works on alpha: stage of release" in loser.output and f"started by {getpass.getuser()}@" in loser.output
    winner = shop.apps.end(first)
    assert winner.rc == 0, winner.output[-3000:]
    after = shop.host.serving()
    after.check()
    assert shop.host.public()["greeting"] == "ours", "the loser's settings did not slip into the winner's release"
    assert after.live != before.live and shop.host.public()["version"].startswith(shop.apps.apps["alpha"]["source"]["path"].rpartition("/")[2])
    assert shop.host.runs(after.live) == 1


def at_the_switch(shop):
    """Start a deploy whose worker is slow, and return it when the site has the new release but nobody has confirmed it."""
    shop.apps.app("alpha", worker="slow:15")
    deploy = shop.apps.start("deploy")
    until(lambda: shop.host.journal()["switch"] and shop.host.journal()["history"][-1]["event"] == "switched", "the switch")
    assert shop.host.state()["unconfirmed"] == newest(shop)
    return deploy


def test_a_step_that_dies_after_the_switch_goes_back_by_itself(shop):
    before = shop.host.serving()
    with Visitor(shop.host) as visitor:
        deploy = at_the_switch(shop)
        assert shop.host.public()["release"] == newest(shop)
        shop.host.shell("systemctl kill --signal=SIGKILL anchorage-alpha.service")
        ended = shop.apps.end(deploy)
        until(lambda: shop.host.journal()["switch"] is None, "the way back", 30)
    visitor.check()
    assert ended.rc > 0 and "ended without a word" in ended.output
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot, after.pid) == (before.live, before.slot, before.pid)
    assert shop.host.shell("systemctl is-active anchorage-alpha-overdue.timer || true").strip() == "inactive"
    shop.apps.deploy()
    assert shop.host.serving().live != before.live


@pytest.mark.fault
@pytest.mark.parametrize("how", ["reboot", "power-cut"])
def test_a_host_that_goes_down_after_the_switch_comes_back_with_the_old_release(shop, how):
    before = shop.host.serving()
    deploy = at_the_switch(shop)
    shop.host.command(how, shop.host.lab, shop.host.name)
    kill(deploy)
    until(lambda: shop.host.state()["running"], "the old release", 90)
    after = until(shop.host.serving, "the site")
    after.check()
    assert (after.live, after.slot) == (before.live, before.slot)
    assert shop.host.journal()["switch"] is None
    shop.apps.deploy()
    assert shop.host.serving().live != before.live
    assert shop.apps.deploy().changed == 0


@pytest.mark.fault
def test_a_step_that_hangs_after_the_switch_is_ended_by_the_timer(shop):
    before = shop.host.serving()
    with Visitor(shop.host) as visitor:
        deploy = at_the_switch(shop)
        shop.host.shell("systemctl kill --kill-whom=main --signal=SIGSTOP anchorage-alpha.service")
        until(lambda: shop.host.journal()["switch"] is None, "the timer", 150)
        ended = shop.apps.end(deploy)
    visitor.check()
    assert ended.rc > 0
    after = shop.host.serving()
    after.check()
    assert (after.live, after.pid) == (before.live, before.pid)


@pytest.mark.fault
def test_after_a_lost_journal_a_broken_release_leaves_what_serves_and_a_good_one_follows(shop):
    before = shop.host.serving()
    shop.host.shell("rm /var/lib/anchorage/alpha/journal.json")
    with Visitor(shop.host) as visitor:
        broken = shop.apps.copy()
        broken.app("alpha", worker="exit")
        broken.deploy(rc=None)
        assert shop.host.public()["pid"] == before.pid
        shop.apps.app("alpha")
        shop.apps.deploy()
    visitor.check()
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and shop.apps.deploy().changed == 0


def test_a_recovery_that_could_not_be_done_at_boot_is_done_later(shop):
    """A machine that boots after a power cut may be so busy that systemd ends what should have put it right."""
    host, place = shop.host, "/run/systemd/system/anchorage-recover.service.d"
    host.shell(f"mkdir -p {place}; printf '[Service]\\nExecStart=\\nExecStart=false\\n' > {place}/broken.conf; systemctl daemon-reload")
    try:
        host.shell("touch /var/lib/anchorage/slots/alpha/hold")
        assert "failed" in host.shell("systemctl start anchorage-recover.service", check=False)
        until(lambda: "hold" not in host.shell("ls /var/lib/anchorage/slots/alpha"), "the late recovery", 60)
    finally:
        host.shell(f"rm -rf {place} /var/lib/anchorage/slots/alpha/hold; systemctl daemon-reload; systemctl reset-failed")
    until(lambda: host.shell("systemctl is-active anchorage-recover-late.service", check=False).strip() == "inactive", "its end", 60)  # and so its code is 3
    host.serving().check()
