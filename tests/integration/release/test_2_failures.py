# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that go wrong by themselves: the old one serves on with the same processes, and the message says what, what lives, what next."""

from __future__ import annotations

import re
import time

import pytest

from .conftest import Visitor, until


def failed(shop, *words, **switches):
    """Deploy a release that must fail with these words; return what was untouched, and what was said."""
    before = shop.host.serving()
    shop.apps.app("alpha", **switches)
    ended = shop.apps.deploy(rc=None)
    assert shop.host.serving() == before, "the same processes serve"
    assert shop.host.state()["live"] == before.live
    message = re.sub(r"\s+", " ", ended.output.replace("\\n", " "))
    for word in (*words, f"Live now: alpha release {before.live} in slot {before.slot}", "Next: "):
        assert word in message, f"{word!r} is not in:\n{ended.output[-4000:]}"
    return before, ended


def test_a_broken_build_touches_nothing(shop):
    runs = shop.host.runs()
    releases = set(shop.host.journal()["releases"])
    failed(shop, "'node build.js' of alpha failed", "error TS2322", build="fail")
    assert shop.host.runs() == runs
    assert set(shop.host.journal()["releases"]) == releases, "what was not built is no release"
    assert shop.host.shell("ls /srv/alpha/work; ls -d /srv/alpha/builds/*.new 2>/dev/null || true").strip() == "", "nothing is left lying about"


def test_a_build_without_output_is_no_build(shop):
    failed(shop, "left no 'dist'", build="empty")


def test_a_failing_migration_stops_the_release_and_is_made_good_by_the_next_run(shop):
    name = f"extra_{time.time_ns()}"
    broken = [{"id": name, "sql": f"CREATE TABLE {name} (id int); INSERT INTO no_such_table VALUES (1)"}]
    _before, ended = failed(shop, "The migration of alpha to release", 'relation "no_such_table" does not exist', migrations=broken)
    assert "TASK [anchorage.vps.release : activate" not in ended.output, "the gate is shut for the second play"
    assert shop.host.sql(f"SELECT to_regclass('{name}') IS NULL") == "t", "its first statement is undone"
    assert shop.host.sql(f"SELECT count(*) FROM stub_migrations WHERE id = '{name}'") == "0"
    shop.apps.app("alpha", migrations=[{"id": name, "sql": f"CREATE TABLE {name} (id int)"}])
    shop.apps.deploy()
    after = shop.host.serving()
    after.check()
    assert shop.host.runs(after.live) == 1 and shop.host.sql(f"SELECT to_regclass('{name}') IS NULL") == "f"


def test_a_migration_that_returns_0_but_logs_an_error_has_failed(shop):
    failed(shop, "Failed to acquire lock for key", migrate="quiet-error")
    release = shop.host.journal()["history"][-1]["release"]
    assert shop.host.runs(release) == 1 and not shop.host.marked(release)


@pytest.mark.parametrize(
    ("switches", "cause"),
    [
        ({"server": "deaf"}, "nobody listens on port"),
        pytest.param({"server": "exit"}, "no process alpha-server", marks=pytest.mark.fault),
        pytest.param({"server": "sick"}, "503", marks=pytest.mark.fault),
    ],
    ids=["deaf", "exit", "sick"],
)
def test_a_release_that_does_not_serve_gets_no_traffic(shop, switches, cause):
    before, _ended = failed(shop, "proof of alpha-server", cause, **switches)
    before.check()
    events = [entry["event"] for entry in shop.host.journal()["history"][-4:]]
    assert "switched" not in events and events[-1] == "failed"


@pytest.mark.fault
def test_a_stranger_on_the_idle_port_is_not_taken_for_the_release(shop):
    before = shop.host.serving()
    ports = {slot: int(port) for slot, port in re.findall(r"alpha_(blue|green) \{[^}]*?server 127\.0\.0\.1:(\d+)", shop.host.shell("nginx -T 2>/dev/null"))}
    idle = "green" if before.slot == "blue" else "blue"
    unit = "systemd-run --collect --unit=stranger --working-directory=/tmp"
    shop.host.shell(f"printf OK > /tmp/health; {unit} python3 -m http.server --bind 127.0.0.1 {ports[idle]}")
    try:
        until(lambda: shop.host.direct(ports[idle], "/health") == "OK", "the stranger")
        failed(shop, f"port {ports[idle]} belongs to another process")
    finally:
        shop.host.shell("systemctl stop stranger.service; rm /tmp/health")


@pytest.mark.parametrize(
    ("switches", "seconds", "cause"),
    [
        ({"server": "dies:8"}, 12, "alpha-server-(blue|green) (died|was restarted)"),
        pytest.param({"server": "dies:20"}, 30, "alpha-server-(blue|green) (died|was restarted)", marks=pytest.mark.fault),
        pytest.param({"worker": "dies:8"}, 12, "alpha-worker-(blue|green) (died|was restarted)", marks=pytest.mark.fault),
    ],
    ids=["server", "server-20s", "worker"],
)
def test_a_release_that_dies_after_the_switch_is_taken_back_without_a_failed_request(shop, switches, seconds, cause):
    before = shop.host.serving()
    shop.apps.app("alpha", **switches)
    shop.apps.soak("alpha", seconds)
    with Visitor(shop.host) as visitor:
        ended = shop.apps.deploy(rc=None)
    visitor.check()
    assert re.search(cause, ended.output) and "Broke: soak." in ended.output
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot, after.pid) == (before.live, before.slot, before.pid), "the old server never stopped"
    assert len(set(visitor.releases)) == 2, "the new release did get the traffic"


def test_a_release_whose_requests_fail_after_the_switch_is_taken_back(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", server="fails:5")
    shop.apps.soak("alpha", 12)
    with Visitor(shop.host) as visitor:
        ended = shop.apps.deploy(rc=None)
    assert re.search(r"requests failed \(5xx\), 0 of \d+ did with the release before", ended.output)
    assert shop.host.serving()[:4] == before[:4]
    assert visitor.failures, "the release did answer with errors, which nobody hides"


def test_a_failed_worker_brings_the_old_one_back_and_the_proxy_too(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", worker="deaf")
    ended = shop.apps.deploy(rc=None)
    assert "proof of alpha-worker" in ended.output
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot, after.pid) == (before.live, before.slot, before.pid), "the old server never stopped"
    assert shop.host.shell("ls /var/lib/anchorage/slots/alpha").split() == (["green"] if before.slot == "green" else [])
    slots = [entry["slot"] for entry in shop.host.journal()["history"] if entry["event"] == "switched"][-2:]
    assert slots[1] == before.slot != slots[0]
