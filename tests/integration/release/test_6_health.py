# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is broken on a host that serves turns its own line red and no other, on the host and from the controller."""

from __future__ import annotations

import contextlib
import json

import pytest

from ansible_collections.anchorage.vps.tests.canary import Canaries

from .conftest import until

HEADERS = "/etc/nginx/anchorage/headers.conf"
ANYBODY = "printf 'add_header Access-Control-Allow-%s always;\\n' 'Origin \"*\"' 'Credentials true'"
RELOAD = "nginx -s reload; sleep 1"
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
        # The hourly backup may have met what was broken.
        if "backup" in red(host):
            host.shell("anchorage backup run files")
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
    canaries = Canaries(json.loads(well.shell("cat /etc/anchorage/secrets/alpha.json")))
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert canaries.texts({**written, "the red run": bad.output, "the green run": good.output}) == []


# ---- on request: what must be refused, the checklist, what was edited by hand

#: What a host of this test has not: https, a limit of requests, and somebody who is told. It is backed up, but on the same machine only.
NOT_TICKED = {"alpha: https only", "alpha: rate limit", "host: monitoring"}
HALF_TICKED = {"host: backup"}


def asked(host, *kinds):
    """Return what is asked on request only, of the host and of alpha, by name."""
    found = json.loads(host.shell(f"anchorage health --json --deadline 20 --kinds {','.join(kinds)}", check=False))
    return {part["name"]: part for part in found["parts"] if part["app"] in ("", "alpha") and not part["name"].startswith("beta")}


def not_green(parts):
    return {name: part["grade"] for name, part in parts.items() if part["grade"] != "green"}


def test_the_checklist_is_ticked_but_for_what_is_not_there(well):
    parts = asked(well, "golive", "negative", "drift")
    assert {name for name, part in parts.items() if part["grade"] == "red"} == NOT_TICKED, not_green(parts)
    assert {"alpha refusals", "host files", "host: ssh", "host: firewall", "host: boot", "alpha: no secrets in code"} <= {*parts}
    assert {name for name, grade in not_green(parts).items() if grade == "amber"} == HALF_TICKED, not_green(parts)
    seen = {check["name"] for check in parts["alpha refusals"]["checks"]}
    assert seen >= {"origins:/", "worker_route"} and parts["host files"]["checks"][0]["evidence"]["known"] > 20


FAULTS = {
    "worker": (
        "printf 'server { listen 127.0.0.1:9999; location / { proxy_pass http://127.0.0.1:{worker}; } }' > /etc/nginx/anchorage/sites/leak.conf",
        "rm /etc/nginx/anchorage/sites/leak.conf",
        "alpha refusals",
        "/etc/nginx/anchorage/sites/leak.conf leads to port {worker} of alpha-worker-{slot}",
    ),
    "origin": (
        f"cp {HEADERS} /run/headers; {ANYBODY} >> {HEADERS}; {RELOAD}",
        f"cp /run/headers {HEADERS}; {RELOAD}",
        "alpha refusals",
        "GET / lets any origin in (Access-Control-Allow-Origin: *)",
    ),
    "secret": (
        'python3 -c \'import json; print(json.load(open("/etc/anchorage/secrets/alpha.json"))["JWT_SECRET"])\' > {release}/app/leak.js',
        "rm {release}/app/leak.js",
        "alpha: no secrets in code",
        "a secret of the app stands in leak.js",
    ),
    "private": ("chmod 644 /etc/anchorage/secrets/alpha.json", "chmod 600 /etc/anchorage/secrets/alpha.json", "alpha: secrets are private", "with mode 0644"),
    "ssh": (
        "sed -i.before 's/^PasswordAuthentication no/PasswordAuthentication yes/' /etc/ssh/sshd_config.d/00-anchorage.conf",
        "cd /etc/ssh/sshd_config.d && mv 00-anchorage.conf.before 00-anchorage.conf",
        "host: ssh",
        "passwordauthentication is yes",
    ),
    "firewall": ("systemctl stop nftables", "systemctl start nftables", "host: firewall", "no chain drops what comes in unasked"),
    "updates": ("systemctl stop apt-daily-upgrade.timer", "systemctl start apt-daily-upgrade.timer", "host: updates", "apt-daily-upgrade.timer does not run"),
    "boot": ("systemctl disable --quiet nginx", "systemctl enable --quiet nginx", "host: boot", "nginx.service would not come back after a boot"),
    "drift": (
        "cp -p /etc/nginx/nginx.conf /run/nginx.conf; echo '# by hand' >> /etc/nginx/nginx.conf",
        "cp -p /run/nginx.conf /etc/nginx/nginx.conf",
        "host files",
        "changed since provisioning: /etc/nginx/nginx.conf has other content",
    ),
}

#: Which of them are tried each time; all are by make faults.
EACH_TIME = ("worker", "ssh", "drift")


@pytest.mark.parametrize(
    ("do", "undo", "name", "words"),
    [pytest.param(*case, id=name, marks=() if name in EACH_TIME else pytest.mark.fault) for name, case in FAULTS.items()],
)
def test_what_is_asked_on_request_finds_its_own_fault(well, do, undo, name, words):
    state = well.state()
    document = json.loads(well.shell(f"cat /srv/alpha/releases/{state['live']}/document.json"))
    worker = next(process for process in document["processes"] if process["name"] == "worker")
    places = {"{slot}": state["slot"], "{release}": f"/srv/alpha/releases/{state['live']}", "{worker}": str(worker["slots"][state["slot"]][0])}

    def filled(text):
        for key, value in places.items():
            text = text.replace(key, value)
        return text

    with broken(well, filled(do), filled(undo)):
        parts = asked(well, "golive", "negative", "drift")
    wrong = not_green(parts)
    assert {part for part in wrong if part != "host files"} - {name} == NOT_TICKED | HALF_TICKED, wrong
    assert name in wrong and filled(words) in parts[name]["message"]


def test_verify_asks_by_tags(shop, well):
    told = shop.apps.run("verify", "--tags", "negative,drift")
    lines = [line for line in told.output.splitlines() if line.strip().startswith("vps ")]
    assert any("alpha refusals" in line for line in lines) and any("host files" in line for line in lines)
    assert not any("database" in line for line in lines)
    bad = shop.apps.run("verify", "--tags", "golive", rc=2)
    assert "host: backup" in bad.output and "alpha: https only" in bad.output and "alpha database" in bad.output and told.changed == bad.changed == 0
