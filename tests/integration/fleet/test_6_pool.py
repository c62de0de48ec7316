# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer before a primary and its replica, and an address to read from. Three hosts of their own; ANCHORAGE_POOL_SUITE=bookworm for the older PgBouncer."""

from __future__ import annotations

import json
import os
import time
import typing as t
from urllib.parse import urlsplit

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release
from ansible_collections.anchorage.vps.tests.integration.release.conftest import until

from .test_4_replica import DATABASES, Customers, Pair, hold_seconds

pytestmark = pytest.mark.fault

SUITE = os.environ.get("ANCHORAGE_POOL_SUITE", "trixie")
LAB = os.environ.get("ANCHORAGE_POOL_LAB", f"fleet-pool-{SUITE}")
POOL = {"enabled": True, "size": 10}


class Pooled(Pair):
    """Two database hosts with a pool each, and a host with the app."""

    def __init__(self, apps: release.Apps) -> None:
        super().__init__(apps)
        self.hosts = {name: release.Host(LAB, name) for name in ("web", *DATABASES)}
        self.web = self.hosts["web"]

    def ask_for(self, *, switches: dict[str, t.Any] | None = None, **database: t.Any) -> None:
        """Ask for a release whose database is described so."""
        self.apps.app("alpha", **(switches or {}))
        self.apps.apps["alpha"] = {**self.apps.apps["alpha"], "database": {"enabled": True, **database}}
        self.apps.write()

    def address(self, name: str) -> str:
        """Return where the others reach a host."""
        return self.hosts[name].facts["lab_address"]

    def environments(self) -> list[dict[str, str]]:
        """Return what the processes of the live release were told."""
        found = []
        for entry in self.web.processes().values():
            if entry["pm2_env"]["status"] == "online":
                lines = self.web.shell(f"tr '\\0' '\\n' < /proc/{entry['pid']}/environ").splitlines()
                found.append(dict(line.partition("=")[::2] for line in lines))
        return found

    def parts(self, name: str) -> dict[str, t.Any]:
        """Return what a host says of its databases."""
        told = json.loads(self.hosts[name].shell("anchorage health --kinds database --json", check=False))
        return {part["name"]: part for part in told["parts"]}

    def green(self) -> bool:
        """Tell whether all ways to the data are."""
        return all(part["grade"] == "green" for name in self.hosts for part in self.parts(name).values())

    def console(self, name: str, command: str) -> str:
        """Give PgBouncer a command."""
        return self.hosts[name].shell(f"cd / && runuser -u postgres -- psql -XAtq -h /var/run/postgresql -p 6432 -U pgbouncer pgbouncer -c '{command}'")

    def backends(self, name: str) -> dict[str, int]:
        """Return how many connections of the app PostgreSQL has, by where they come from."""
        query = "SELECT coalesce(host(client_addr), 'socket'), count(*) FROM pg_stat_activity WHERE datname = 'alpha' AND usename LIKE 'alpha%' GROUP BY 1"
        return {line.split("|")[0]: int(line.split("|")[1]) for line in self.hosts[name].sql(query, "postgres").splitlines()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> t.Iterator[Pooled]:
    """Three fresh hosts; kept ones are taken as they are."""
    directory = tmp_path_factory.mktemp("pool")
    hosts = directory / "hosts"
    hosts.mkdir()
    found = Pooled(release.Apps(hosts, directory))
    if not os.environ.get("KEEP_LAB"):
        found.web.command("down", LAB)
    found.web.command("up", LAB, "--host=web:trixie:app,proxy,cache", *[f"--host={name}:{SUITE}" for name in DATABASES])
    (hosts / "lab.yml").symlink_to(release.ROOT / ".cache" / "lab" / LAB / "hosts.yml")
    addresses = {name: {"anchorage_address": host.facts["lab_address"]} for name, host in found.hosts.items()}
    (hosts / "addresses.yml").write_text(json.dumps({"all": {"hosts": addresses}}))
    found.order(next((name for name in DATABASES if found.recovers(name) == "f"), "db1"))
    found.ask_for(pool=POOL, read_url_env="DATABASE_READ_URL")
    if not os.environ.get("KEEP_LAB"):
        assert "PLAY RECAP" in found.run("site", "--check").output, "fresh hosts"
    found.run("site")
    yield found
    if not os.environ.get("KEEP_LAB"):
        found.web.command("down", LAB)


def test_nothing_is_left_to_do_and_processes_go_through_the_pool(pair):
    assert pair.run("provision").changed == 0
    assert pair.run("site", "--check").changed == 0
    until(pair.green, "all ways to be open")
    assert {"alpha database", "alpha pool", "alpha database to read from"} <= set(pair.parts("web"))
    assert all("pool" in pair.parts(name) for name in DATABASES)
    primary, replica = pair.address(pair.primary), pair.address(pair.replica)
    for environment in pair.environments():
        ways = [urlsplit(environment[key]) for key in ("DATABASE_URL", "DATABASE_READ_URL")]
        assert [(way.hostname, way.port) for way in ways] == [(primary, 6432), (replica, 6432)]
        read = pair.web.shell(f"psql -XAtq '{environment['DATABASE_READ_URL']}' -c 'SELECT pg_is_in_recovery()'").strip()
        assert read == "t"


def test_requests_pass_through_the_pool_and_a_migration_beside_it(pair):
    with Customers(pair.web) as customers:
        time.sleep(3)
        before = pair.web.state()["live"]
        came = {"id": "Migration002", "sql": "CREATE TABLE came AS SELECT host(inet_client_addr()) AS address"}
        pair.ask_for(switches={"migrations": [came]}, pool=POOL, read_url_env="DATABASE_READ_URL")
        pair.run("deploy")
        time.sleep(2)
    assert not customers.lost(pair) and not customers.figures()["failed"], customers.figures()
    live = pair.web.state()["live"]
    assert live != before and pair.hosts[pair.primary].marked(live) and pair.hosts[pair.primary].runs(live) == 1
    assert pair.sql(pair.primary, "SELECT address FROM came") == pair.address("web"), "who migrates comes past the pool, over TLS"
    assert pair.backends(pair.primary).get("socket", 0) >= 1, "and who serves through it"


def test_a_change_of_the_pool_is_loaded_and_nobody_notices(pair):
    process = pair.hosts[pair.primary].shell("systemctl show -P MainPID pgbouncer").strip()
    with Customers(pair.web) as customers:
        time.sleep(1)
        pair.ask_for(pool={**POOL, "size": 12}, read_url_env="DATABASE_READ_URL")
        assert pair.run("provision").changed >= 2
        time.sleep(1)
    assert not customers.lost(pair) and not customers.figures()["failed"], customers.figures()
    assert pair.hosts[pair.primary].shell("systemctl show -P MainPID pgbouncer").strip() == process
    assert "|12|" in pair.console(pair.primary, "SHOW DATABASES")


def test_a_pool_that_is_too_large_is_refused_before_anything_is_changed(pair):
    pair.ask_for(pool={**POOL, "size": 90}, read_url_env="DATABASE_READ_URL")
    ended = pair.run("provision", rc=None)
    said = " ".join(ended.output.split())
    assert "all pools together are 90 connections" in said and "max_connections to 110 or more" in said
    pair.ask_for(pool=POOL, read_url_env="DATABASE_READ_URL")
    pair.run("site")


def test_a_pool_that_is_killed_comes_back_and_health_tells_it_meanwhile(pair):
    host = pair.hosts[pair.primary]
    with Customers(pair.web) as customers:
        time.sleep(1)
        host.shell("systemctl kill --signal=SIGKILL pgbouncer")
        time.sleep(5)
    assert not customers.lost(pair)
    assert customers.figures()["longest_gap_seconds"] < 5, customers.figures()
    host.shell("systemctl stop pgbouncer")
    try:
        assert pair.parts(pair.primary)["pool"]["grade"] == pair.parts("web")["alpha pool"]["grade"] == "red"
        assert pair.parts("web")["alpha database"]["grade"] == "green", "the database itself is there"
    finally:
        host.shell("systemctl start pgbouncer")
    pair.console(pair.primary, "PAUSE alpha")
    try:
        assert "is paused or disabled" in pair.parts(pair.primary)["pool"]["message"]
    finally:
        pair.console(pair.primary, "RESUME alpha")
    until(pair.green, "all ways to be open")


def test_a_replica_that_is_away_is_told_where_it_is_read_from(pair):
    pair.hosts[pair.replica].shell("systemctl stop 'postgresql@*'")
    try:
        assert pair.parts("web")["alpha database to read from"]["grade"] == "red"
        assert pair.parts("web")["alpha pool"]["grade"] == "green"
    finally:
        pair.hosts[pair.replica].shell("systemctl start 'postgresql@17-main' || systemctl start 'postgresql@15-main'")
    until(pair.green, "all ways to be open", 60)


def test_a_second_login_is_taken_through_the_pool_and_the_first_is_refused(pair):
    before = urlsplit(pair.environments()[0]["DATABASE_URL"])
    with Customers(pair.web) as customers:
        time.sleep(1)
        pair.run("rotate_secrets", "-e", "app=alpha", "-e", "secrets=database")
        time.sleep(1)
    assert not customers.lost(pair) and not customers.figures()["failed"], customers.figures()
    now = urlsplit(pair.environments()[0]["DATABASE_URL"])
    assert now.username != before.username and now.port == 6432
    for name in DATABASES:
        for login, opens in ((now, True), (before, False)):
            url = f"postgres://{login.username}:{login.password}@{pair.address(name)}:6432/alpha?sslmode=require"
            said = pair.web.shell(f"psql -XAtq '{url}' -c 'SELECT current_user' 2>&1", check=False).strip()
            assert (said == "alpha") is opens, (name, said)


@pytest.mark.parametrize("number", [1, 2])
def test_a_promotion_loses_no_write_and_nobody_reads_from_what_is_gone(pair, number):
    former, new = pair.primary, pair.replica
    pair.order(new)
    with Customers(pair.web) as customers:
        time.sleep(2)
        ended = pair.run("promote")
        time.sleep(2)
    print(number, hold_seconds(ended.output), customers.figures())
    assert not customers.lost(pair), customers.lost(pair)[:3]
    assert (pair.primary, pair.replica) == (new, former)
    for environment in pair.environments():
        ways = [urlsplit(environment[key]) for key in ("DATABASE_URL", "DATABASE_READ_URL")]
        assert [(way.hostname, way.port) for way in ways] == [(pair.address(new), 6432)] * 2, "until the next release nobody reads from the new replica"
    until(pair.green, "all ways to be open", 60)
    assert pair.hosts[former].shell("systemctl list-unit-files --no-legend 'anchorage-database-forward*'", check=False).strip() == ""
    assert pair.run("provision").changed == 0
    pair.run("deploy")
    assert {urlsplit(environment["DATABASE_READ_URL"]).hostname for environment in pair.environments()} == {pair.address(former)}


def test_a_pool_is_taken_away_after_the_release_that_does_without(pair):
    pair.ask_for(read_url_env="DATABASE_READ_URL")
    with Customers(pair.web) as customers:
        pair.run("deploy")
        pair.run("provision")
        time.sleep(1)
    assert not customers.lost(pair) and not customers.figures()["failed"], customers.figures()
    assert pair.hosts[pair.primary].shell("systemctl is-active pgbouncer", check=False).strip() == "inactive"
    assert pair.run("provision").changed == 0
    until(pair.green, "all ways to be open")
