# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A replica of the database: it streams, is watched, and takes over while customers write, without a lost write. Three hosts of their own."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
import typing as t
import urllib.request

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release
from ansible_collections.anchorage.vps.tests.integration.release.conftest import kill, until
from ansible_collections.anchorage.vps.tests.integration.release.trials import Results

pytestmark = pytest.mark.fault

LAB = os.environ.get("ANCHORAGE_REPLICA_LAB", "fleet-replica")
DATABASES = ("db1", "db2")
SWITCHOVERS = 10
RESULTS = Results(
    release.ROOT / "tests" / "results" / "switchovers.json",
    "Planned promotions back and forth by promote.yml, while customers write: every write that was acknowledged has to be there afterwards",
)


class Pair:
    """Two database hosts, and a host with the app, its proxy and its cache."""

    def __init__(self, apps: release.Apps) -> None:
        self.apps = apps
        self.hosts = {name: release.Host(LAB, name) for name in ("web", *DATABASES)}
        self.web = self.hosts["web"]

    def order(self, first: str) -> None:
        """Say in the inventory which host is to be the primary, before another file of it says anything of the group."""
        names = {name: {} for name in (first, *(name for name in DATABASES if name != first))}
        (self.apps.hosts / "0_order.yml").write_text(json.dumps({"all": {"children": {"database": {"hosts": names}}}}))

    def recovers(self, name: str) -> str:
        """Ask a host whether it is a replica; nothing where it does not answer."""
        return self.hosts[name].shell("cd / && runuser -u postgres -- psql -XAtqc 'SELECT pg_is_in_recovery()' 2>/dev/null || true").strip()

    @property
    def primary(self) -> str:
        """The host that takes writes: there is exactly one."""
        (found,) = [name for name in DATABASES if self.recovers(name) == "f"]
        return found

    @property
    def replica(self) -> str:
        """The other one."""
        (found,) = [name for name in DATABASES if name != self.primary]
        return found

    def health(self, name: str) -> dict[str, t.Any]:
        """What a host says of its replication."""
        told = json.loads(self.hosts[name].shell("anchorage health --kinds database --json || true"))
        (part,) = [part for part in told["parts"] if part["name"] == "replication"]
        return part

    def well(self) -> bool:
        """Tell whether both hosts are."""
        return all(self.health(name)["grade"] == "green" for name in DATABASES)

    def run(self, playbook: str, *arguments: str, rc: int | None = 0) -> release.Ended:
        """Run a playbook."""
        return self.apps.run(playbook, *arguments, rc=rc, timeout=1200)

    def sql(self, name: str, query: str) -> str:
        """Ask a host."""
        return self.hosts[name].sql(query)


class Customer(threading.Thread):
    """Writes rows with names of their own through the site, and remembers which were acknowledged."""

    def __init__(self, host: release.Host, name: str) -> None:
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{host.facts['lab_ports']['80']}/items"
        self.prefix, self.stop = f"{name}-{time.time_ns()}", threading.Event()
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self.longest = 0.0

    def run(self) -> None:
        """Write until it is enough."""
        number, last = 0, time.monotonic()
        while not self.stop.is_set():
            number += 1
            name = f"{self.prefix}-{number}"
            request = urllib.request.Request(self.url, data=name.encode(), method="POST", headers={"Host": "alpha.localhost"})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    good = answer.status == 201
            except Exception as error:
                good = False
                self.failures.append(f"{error!r}")
            if good:
                self.acknowledged.append(name)
                self.longest, last = max(self.longest, time.monotonic() - last), time.monotonic()
            time.sleep(0.05)


class Customers:
    """Several of them at once."""

    def __init__(self, host: release.Host, number: int = 2) -> None:
        self.all = [Customer(host, f"customer{index}") for index in range(number)]

    def __enter__(self) -> Customers:
        for one in self.all:
            one.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for one in self.all:
            one.stop.set()
        for one in self.all:
            one.join()

    def lost(self, pair: Pair) -> list[str]:
        """Return the acknowledged writes that the primary does not have."""
        there = set(pair.sql(pair.primary, "SELECT name FROM stub_items").split())
        return [name for one in self.all for name in one.acknowledged if name not in there]

    def figures(self) -> dict[str, t.Any]:
        """Return what they met with."""
        return {
            "acknowledged": sum(len(one.acknowledged) for one in self.all),
            "failed": sum(len(one.failures) for one in self.all),
            "longest_gap_seconds": round(max(one.longest for one in self.all), 1),
        }


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> t.Iterator[Pair]:
    """Three fresh hosts; kept ones are taken as they are."""
    directory = tmp_path_factory.mktemp("replica")
    hosts = directory / "hosts"
    hosts.mkdir()
    found = Pair(release.Apps(hosts, directory))
    if not os.environ.get("KEEP_LAB"):
        found.web.command("down", LAB)
    found.web.command("up", LAB, "--host=web:trixie:app,proxy,cache", *[f"--host={name}:trixie" for name in DATABASES])
    (hosts / "lab.yml").symlink_to(release.ROOT / ".cache" / "lab" / LAB / "hosts.yml")
    addresses = {name: {"anchorage_address": host.facts["lab_address"]} for name, host in found.hosts.items()}
    (hosts / "addresses.yml").write_text(json.dumps({"all": {"hosts": addresses}}))
    found.order(next((name for name in DATABASES if found.recovers(name) == "f"), "db1"))
    found.apps.app("alpha")
    if any(found.hosts[name].shell("test -e /var/lib/anchorage/promotion.json && echo cut off || true").strip() for name in DATABASES):
        found.run("promote")  # what a session before left, where it was killed
    found.run("site")
    yield found
    if not os.environ.get("KEEP_LAB"):
        found.web.command("down", LAB)


def test_a_second_database_host_is_a_replica_and_nothing_is_left_to_do(pair):
    assert (pair.recovers(pair.primary), pair.recovers(pair.replica)) == ("f", "t")
    assert pair.run("provision").changed == 0
    assert pair.run("provision", "--check").changed == 0
    until(pair.well, "both to be well")
    assert "1 replica" in pair.health(pair.primary)["summary"] and f"a replica of {pair.primary}" in pair.health(pair.replica)["summary"]
    secrets = "cat /etc/anchorage/secrets/alpha.json"
    assert pair.hosts["db1"].shell(secrets) == pair.hosts["db2"].shell(secrets), "a host that may take over has what the apps log in with"
    over_tls = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
    assert pair.sql(pair.primary, over_tls) == "t"
    password = json.loads(pair.hosts[pair.primary].shell("cat /etc/anchorage/secrets/postgresql.replication.json"))["password"]
    assert password not in pair.hosts[pair.replica].shell("cat /etc/postgresql/*/main/conf.d/* /etc/anchorage/replication.json; ps axww")


def test_health_tells_a_replica_that_is_away_or_behind(pair):
    primary, replica = pair.primary, pair.replica
    pair.hosts[replica].shell("systemctl stop 'postgresql@*'")
    try:
        until(lambda: pair.health(primary)["grade"] == "red", "the primary to miss it", 30)
        assert f"{replica} does not stream" in pair.health(primary)["message"]
        assert pair.health(replica)["grade"] == "red"
        pair.sql(primary, "SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1000000))) FROM generate_series(1, 20)")
    finally:
        pair.hosts[replica].shell("systemctl start 'postgresql@17-main' || systemctl start 'postgresql@15-main'")
    until(pair.well, "it to have caught up", 60)
    pair.hosts[replica].sql("SELECT pg_wal_replay_pause()", "postgres")
    try:
        pair.sql(
            primary,
            "SELECT count(pg_logical_emit_message(false, 'test', md5(random()::text) || repeat(md5(random()::text), 31250))) FROM generate_series(1, 80)",
        )
        until(lambda: pair.health(primary)["grade"] == "amber", "the primary to see it lag", 60)
        assert f"what {replica} has still to replay is" in pair.health(primary)["message"]
        pair.order(replica)
        said = " ".join(pair.run("promote", rc=None).output.split())
        assert f"MB behind {primary}" in said and "Nothing was changed" in said
    finally:
        pair.order(primary)
        pair.hosts[replica].sql("SELECT pg_wal_replay_resume()", "postgres")
    until(pair.well, "it to have caught up", 60)


def test_an_order_that_is_not_what_runs_is_refused_before_anything_is_changed(pair):
    primary, replica = pair.primary, pair.replica
    pair.order(replica)
    try:
        for playbook in ("provision", "deploy"):
            ended = pair.run(playbook, rc=None)
            assert f"{primary} is the primary. Nothing was changed. To let {replica} take over, run promote.yml" in " ".join(ended.output.split())
            assert ended.changed == 0
        pair.hosts[replica].shell("systemctl stop 'postgresql@*'")
        assert f"{replica} does not answer" in " ".join(pair.run("promote", rc=None).output.split())
    finally:
        pair.hosts[replica].shell("systemctl start 'postgresql@17-main' || systemctl start 'postgresql@15-main'")
        pair.order(primary)
    until(pair.well, "both to be well", 60)
    assert pair.primary == primary


def test_a_replica_that_does_not_replay_is_not_promoted_and_the_primary_serves_again(pair):
    primary, replica = pair.primary, pair.replica
    pair.order(replica)
    pair.hosts[replica].sql("SELECT pg_wal_replay_pause()", "postgres")
    try:
        with Customers(pair.web) as customers:
            time.sleep(1)
            ended = pair.run("promote", rc=None)
            time.sleep(5)
            assert pair.primary == primary
    finally:
        pair.order(primary)
        pair.hosts[replica].sql("SELECT pg_wal_replay_resume()", "postgres")
    said = " ".join(ended.output.split())
    assert f"{replica} did not take over: Waited 30 s for the replay" in said and f"{primary} serves again, and nothing was lost" in said
    assert not customers.lost(pair)
    until(pair.well, "both to be well", 60)
    assert pair.run("provision").changed == 0


def hold_seconds(output: str) -> float:
    """Return what the playbook says of how long nobody could write."""
    return float(output.partition("Nobody could write for")[2].split()[0])


def summarise() -> None:
    """Write at the top of the file what all cases together say."""
    cases = RESULTS.data["cases"].values()
    holds = [case["hold_seconds"] for case in cases if "hold_seconds" in case]
    RESULTS.data["summary"] = {
        "promotions": len(cases),
        "lost": sum(case["lost"] for case in cases),
        "acknowledged": sum(case["acknowledged"] for case in cases),
        "failed": sum(case["failed"] for case in cases),
        "hold_seconds": {"median": statistics.median(holds), "longest": max(holds)} if holds else {},
        "longest_gap_seconds": max(case["longest_gap_seconds"] for case in cases),
    }
    RESULTS.save()


@pytest.mark.parametrize("number", range(1, SWITCHOVERS + 1))
def test_a_planned_promotion_loses_no_write(pair, number):
    name = f"switchover {number:02}"
    if RESULTS.has_passed(name):
        pytest.skip("passed with this engine")
    former, new = pair.primary, pair.replica
    pair.order(new)
    began = time.monotonic()
    with Customers(pair.web) as customers:
        time.sleep(2)
        ended = pair.run("promote")
        time.sleep(2)
    seconds = round(time.monotonic() - began, 1)
    lost = customers.lost(pair)
    causes = [f"{len(lost)} acknowledged writes are lost, {lost[0]} first"] if lost else []
    causes += [] if (pair.primary, pair.replica) == (new, former) else [f"{pair.primary} is the primary"]
    causes += [] if pair.well() else ["the hosts are not well afterwards"]
    RESULTS.add(name, causes, to=new, hold_seconds=hold_seconds(ended.output), run_seconds=seconds, lost=len(lost), **customers.figures())
    summarise()
    assert not causes
    assert pair.hosts[former].shell("systemctl list-units --failed --plain --no-legend 'anchorage*' 'postgresql*'").strip() == ""


@pytest.mark.parametrize("moment", ["stopped", "promoted", "released"])
def test_a_promotion_that_was_killed_is_made_good_by_the_next_run(pair, moment):
    former, new = pair.primary, pair.replica
    reached = {
        "stopped": lambda: pair.recovers(former) == "",
        "promoted": lambda: pair.recovers(new) == "f",
        # The record is gone when nobody is handed on any more.
        "released": lambda: pair.recovers(new) == "f" and "No such file" in pair.hosts[former].shell("ls /var/lib/anchorage/promotion.json || true"),
    }
    pair.order(new)
    with Customers(pair.web) as customers:
        run = pair.apps.start("promote")
        until(reached[moment], moment, 300)
        kill(run)
        grade = pair.health(former)["grade"]
        pair.run("promote")
        time.sleep(2)
    lost = customers.lost(pair)
    until(pair.well, "both to be well", 60)
    causes = [f"{len(lost)} acknowledged writes are lost, {lost[0]} first"] if lost else []
    causes += [] if (pair.primary, pair.replica) == (new, former) else [f"{pair.primary} is the primary"]
    causes += [] if grade in ("red", "amber") else [f"health was {grade} after the kill"]
    RESULTS.add(f"killed when the primary was {moment}", causes, to=new, lost=len(lost), **customers.figures())
    summarise()
    assert not causes


def test_a_promotion_that_was_killed_can_be_called_off(pair):
    former, new = pair.primary, pair.replica
    pair.order(new)
    with Customers(pair.web) as customers:
        run = pair.apps.start("promote")
        until(lambda: pair.recovers(former) == "", "the primary to stop", 200)
        kill(run)
        if pair.recovers(new) == "f":
            pair.run("promote")
            pytest.skip("it was promoted before the run could be killed")
        pair.order(former)
        assert "was cut off" in " ".join(pair.run("provision", rc=None).output.split())
        pair.run("promote")
    assert not customers.lost(pair)
    assert (pair.primary, pair.replica) == (former, new)
    until(pair.well, "both to be well", 60)
