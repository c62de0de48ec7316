# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two apps on two hosts: the first has database, Redis and proxy, and migrates for both."""

from __future__ import annotations

import json
import os
import typing as t

import pytest

from .conftest import HOST, ROOT, Apps, Host, Shop
from .conftest import LAB as RELEASE_LAB
from .test_9_rotation import SECRETS, check_refused, customers, in_processes, kept, opened, patient, sealed

pytestmark = pytest.mark.fault

LAB = f"{RELEASE_LAB}-fleet"
SECOND = "second"


class Fleet(t.NamedTuple):
    """Both hosts and their contract."""

    first: Host
    second: Host
    apps: Apps

    def live(self, app: str) -> set[str]:
        """The releases that are live on the hosts."""
        return {host.state(app)["live"] for host in (self.first, self.second)}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> t.Iterator[Fleet]:
    """Two fresh hosts."""
    first, second = Host(LAB, HOST), Host(LAB, SECOND)
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)
    first.command("up", LAB, f"--host={HOST}:trixie:app,database,cache,proxy", f"--host={SECOND}:trixie:app")
    directory = tmp_path_factory.mktemp("fleet")
    hosts = directory / "hosts"
    hosts.mkdir()
    (hosts / "lab.yml").symlink_to(ROOT / ".cache" / "lab" / LAB / "hosts.yml")
    addresses = {name: {"anchorage_address": host.facts["lab_address"]} for name, host in ((HOST, first), (SECOND, second))}
    (hosts / "addresses.yml").write_text(json.dumps({"all": {"hosts": addresses}}))
    apps = Apps(hosts, directory)
    apps.app("alpha")
    apps.app("beta")
    apps.run("site")
    yield Fleet(first, second, apps)
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)


def test_each_app_is_migrated_once_for_both_hosts(fleet):
    for app in ("alpha", "beta"):
        (live,) = fleet.live(app)
        assert fleet.first.runs(live, app) == 1
        assert {fleet.first.public(app)["release"] for _number in range(6)} == {live}
        pids = {fleet.first.public(app)["pid"] for _number in range(20)}
        assert len(pids) == 2, "both hosts answer"
    assert fleet.apps.run("site").changed == 0


def test_a_new_release_is_migrated_once_and_served_by_both(fleet):
    old = fleet.live("alpha")
    fleet.apps.app("alpha")
    fleet.apps.deploy()
    (live,) = fleet.live("alpha")
    assert {live} != old and fleet.first.runs(live) == 1


def test_the_second_host_alone_cannot_go_around_the_gate(fleet):
    old = fleet.live("alpha")
    fleet.apps.app("alpha")
    ended = fleet.apps.deploy("--limit", SECOND, rc=None)
    assert "are kept on vps, which gave none in this run" in ended.output
    assert fleet.live("alpha") == old


def test_a_failing_migration_leaves_both_hosts_as_they_were(fleet):
    old, runs = fleet.live("alpha"), fleet.first.runs()
    fleet.apps.app("alpha", migrate="quiet-error")
    fleet.apps.deploy(rc=None)
    assert fleet.live("alpha") == old and fleet.first.runs() == runs + 1


def test_a_release_that_fails_on_the_first_host_never_reaches_the_second(fleet):
    second = Shop(fleet.second, fleet.apps).host.state("alpha")
    fleet.apps.app("alpha", server="deaf")
    fleet.apps.deploy(rc=None)
    after = fleet.second.state("alpha")
    assert (after["live"], after["slot"], after["since"]) == (second["live"], second["slot"], second["since"])
    (live,) = fleet.live("alpha")
    assert live == second["live"]


def test_secrets_are_rotated_on_all_hosts_together(fleet):
    fleet.apps.app("alpha", pulses=True)
    fleet.apps.apps["alpha"] = patient({**fleet.apps.apps["alpha"], "secrets": SECRETS})
    fleet.apps.write()
    fleet.apps.run("site")
    secrets, old = kept(fleet.first), fleet.live("alpha")
    refused = fleet.apps.run("rotate_secrets", "-e", "app=alpha", "--limit", HOST, rc=None)
    assert f"{SECOND} is not in this run. Run it without --limit." in " ".join(refused.output.split())
    assert kept(fleet.first) == secrets and fleet.live("alpha") == old

    record = sealed(fleet.first, "kept for years")
    with customers(fleet.first):
        fleet.apps.run("rotate_secrets", "-e", "app=alpha")
    (live,) = fleet.live("alpha")
    assert {live} != old and fleet.first.runs(live) == 1
    check_refused(fleet.first, secrets[0], login="alpha-b")
    now, _state = kept(fleet.first)
    assert now["database_password"] in in_processes(fleet.second) and secrets[0]["database_password"] not in in_processes(fleet.second)
    address = f"host={fleet.first.facts['lab_address']} sslmode=require dbname=alpha"
    for user, password, says in (("alpha-b", now["database_password"], "alpha"), ("alpha", secrets[0]["database_password"], "is not permitted to log in")):
        said = fleet.second.shell(f"PGPASSWORD={password} psql -XAtq '{address} user={user}' -c 'SELECT current_user' 2>&1 || true")
        assert says in said
    assert {opened(fleet.first, record) for _number in range(10)} == {"kept for years"}
    assert fleet.apps.run("site").changed == 0
