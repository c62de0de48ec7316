# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is broken on a host that serves turns its own line red and no other, on the host and from the controller."""

from __future__ import annotations

import contextlib
import json

import pytest

from .conftest import until

PM2 = "runuser -u alpha -- env PM2_HOME=/var/lib/pm2/alpha pm2"


def look(host, deadline=2):
    """Return what `anchorage health` says, by name."""
    found = json.loads(host.shell(f"anchorage health --json --deadline {deadline}", check=False))
    return found, {part["name"]: part for part in found["parts"]}


def red(host):
    """Return the names of what is red."""
    return {name for name, part in look(host)[1].items() if part["grade"] == "red"}


@contextlib.contextmanager
def broken(host, do, undo):
    """Break something, and mend it in any case."""
    host.shell(do)
    try:
        yield
    finally:
        host.shell(undo)
        until(lambda: look(host)[0]["healthy"], "a host that is well again", 90)


@pytest.fixture
def well(shop):
    """The host, which is well."""
    until(lambda: look(shop.host)[0]["healthy"], "a host that is well")
    return shop.host


def test_a_host_that_serves_is_green_line_by_line(well):
    serving = well.serving()
    found, parts = look(well, deadline=10)
    slot = parts["alpha"]["checks"][0]["evidence"]["slot"]
    assert {*parts} >= {
        "alpha",
        "alpha database",
        "alpha Redis (jobs)",
        "alpha processes",
        f"alpha-server-{slot}",
        f"alpha-worker-{slot}",
        "alpha (public)",
        "host",
    }
    assert {name: part["message"] for name, part in parts.items() if part["grade"] == "red"} == {}
    assert parts["alpha"]["release"] == serving.live and found["seconds"] < 10


@pytest.mark.parametrize(
    ("do", "undo", "lines"),
    [
        ("systemctl stop redis-server@alpha-jobs", "systemctl start redis-server@alpha-jobs", {"alpha Redis (jobs)"}),
        ("systemctl stop postgresql@17-main", "systemctl start postgresql@17-main", {"{app} database"}),
        ("systemctl stop nginx", "systemctl start nginx", {"{app} (public)"}),
        (f"{PM2} stop alpha-worker-{{slot}}", f"{PM2} start alpha-worker-{{slot}}", {"alpha processes", "alpha-worker-{slot}"}),
        (
            "systemd-run --quiet --unit=verify-broken false; sleep 1",
            "systemctl reset-failed verify-broken.service",
            set(),  # it warns: what it does for the apps is judged by itself
        ),
    ],
    ids=["redis", "postgresql", "nginx", "worker", "unit"],
)
def test_what_is_broken_turns_its_own_line_red(well, do, undo, lines):
    parts = look(well)[1]
    slot = parts["alpha"]["checks"][0]["evidence"]["slot"]
    apps = {part["app"] for part in parts.values() if part["app"]}  # what they share is red for each
    do, undo, lines = do.replace("{slot}", slot), undo.replace("{slot}", slot), {line.format(slot=slot, app=app) for line in lines for app in apps}
    with broken(well, do, undo):
        assert red(well) == lines


def test_verify_says_it_in_a_table_and_leaves_it_as_json_and_as_a_page(shop, well, tmp_path):
    report = ("-e", f"verify_report_directory={tmp_path}")
    good = shop.apps.run("verify", *report)
    assert good.changed == 0
    with broken(well, "systemctl stop redis-server@alpha-jobs", "systemctl start redis-server@alpha-jobs"):
        bad = shop.apps.run("verify", *report, rc=2)
    assert "checks are red: vps: Redis at 127.0.0.1:6379" in bad.output and "refused the connection" in bad.output
    told = json.loads((tmp_path / "verify.json").read_text())
    assert {part["name"] for part in told["hosts"]["vps"] if part["grade"] == "red"} == {"alpha Redis (jobs)"}
    history = json.loads((tmp_path / "history.json").read_text())
    assert history[0]["grade"] in ("green", "amber") and (history[1]["grade"], history[1]["amiss"][0]) == ("red", "vps: alpha Redis (jobs)")
    assert "Something does not work" in (tmp_path / "verify.html").read_text()
    secrets = well.shell("cat /etc/anchorage/secrets/alpha.json")
    values = [value for value in json.loads(secrets).values() if isinstance(value, str) and len(value) > 12]
    written = "".join(path.read_text() for path in tmp_path.iterdir()) + bad.output + good.output
    assert values and not [value for value in values if value in written]
