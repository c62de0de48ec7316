# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host is lost, and an empty one takes its place: the same data, secrets, uploads and Redis, from the backup and its key alone."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release
from ansible_collections.anchorage.vps.tests.integration.release.trials import Results

from . import restoring
from .restoring import APP, ROOT

LAB = f"{restoring.LAB}-empty"

#: What a recovery may take, in seconds, from the first look at the empty host.
MOST_SECONDS = 900

FACTS = """
SELECT json_build_object('items', (SELECT count(*) FROM stub_items), 'orders', (SELECT count(*) FROM orders),
  'sum', (SELECT sum(hashtext(what)::bigint) FROM orders), 'marks', (SELECT json_agg(id ORDER BY id) FROM anchorage.release),
  'verifier', (SELECT rolpassword FROM pg_authid WHERE rolname = 'alpha'))
"""
#: What a run says at the moment at which its controller is killed.
SIGNS = (
    "TASK [Bring secrets",
    "TASK [anchorage.vps.redis",
    "pgBackRest fills",
    "TASK [Remember that the databases",
    "TASK [Bring them back]",
    "PLAY [Give the traffic",
    "PLAY [Verify",
)

REDIS = "/usr/local/lib/anchorage/redis-instance alpha-jobs cli"


RECOVERIES = Results(ROOT / "tests" / "results" / "recoveries.json", "An empty host takes the place of one that is lost")


def facts(host: release.Host) -> dict:
    """What must be the same before and after."""
    return {
        **json.loads(host.sql(FACTS, APP)),
        "secrets": host.shell("sha256sum < /etc/anchorage/secrets/alpha.json").strip(),
        "upload": host.shell("cat /srv/alpha/shared/static/picture; stat -c %U:%G /srv/alpha/shared/static/picture").split(),
        "redis": host.shell(f"{REDIS} GET cart").strip(),
    }


@pytest.fixture(scope="module")
def lost(ground):
    """What the lost host had, its backup on a disk that is plugged into another one, and its key."""
    ground.settle()
    ground.orders(500)
    ground.host.shell("echo pixels > /srv/alpha/shared/static/picture && chown alpha:alpha /srv/alpha/shared/static/picture")
    ground.host.shell(f"{REDIS} SET cart full")
    ground.backup()
    # What is written after the backup is in the archive all the same.
    ground.orders(50, "late")
    ground.host.shell("cd / && runuser -u postgres -- psql -qc 'SELECT pg_switch_wal()' && sleep 3")
    before = facts(ground.host)
    container = ground.host.facts["lab_container"]
    disk = subprocess.run(["docker", "exec", container, "tar", "-C", "/", "-cf", "-", "var/backups/anchorage"], capture_output=True, check=True).stdout
    yield before, disk, ground.host.shell("anchorage backup key").strip()
    ground.settle()


@pytest.fixture
def empty(ground, lost, tmp_path):
    """A host on which nothing is but the disk with the backups, whose files belong to nobody it knows."""
    _before, disk, _key = lost
    host = release.Host(LAB, restoring.HOST)
    host.command("down", LAB)
    host.command("up", LAB, f"--host={restoring.HOST}:trixie:app,database,cache,proxy")
    subprocess.run(["docker", "exec", "-i", host.facts["lab_container"], "tar", "-C", "/", "--no-same-owner", "-xpf", "-"], input=disk, check=True)
    apps = release.Apps(ROOT / ".cache" / "lab" / LAB / "hosts.yml", tmp_path)
    # The very inventory of the lost host: the same sources, so the same release.
    apps.apps = dict(ground.apps.live or ground.apps.apps)
    apps.write()
    yield host, apps
    if not os.environ.get("KEEP_LAB"):
        host.command("down", LAB)


def recovered(host, apps, before):
    """The app serves with everything that it had."""
    host.serving(APP).check(APP)
    after = facts(host)
    assert {key: value for key, value in after.items() if key != "verifier"} == {key: value for key, value in before.items() if key != "verifier"}
    assert after["verifier"] == before["verifier"], "the role has another password than before"
    status = json.loads(host.shell("anchorage backup status --json"))
    assert status["database"]["ok"] and status["files"]["ok"], status
    assert host.shell("systemctl is-active anchorage-backup-files.timer").strip() == "active"


def test_an_empty_host_serves_with_the_data_of_the_lost_one(lost, empty):
    before, _disk, key = lost
    host, apps = empty
    told = apps.run("recover", rc=None)
    assert "Give the key of the backups" in told.output and "Nothing was done" in told.output
    began = time.monotonic()
    apps.run("recover", "-e", f"backup_key={key}")
    seconds = time.monotonic() - began
    recovered(host, apps, before)
    assert seconds < MOST_SECONDS, f"it took {seconds:.0f} s"
    # A host that has data is not recovered over, nor is one that has been recovered.
    told = apps.run("recover", "-e", f"backup_key={key}", rc=None)
    assert "This host has data or secrets" in told.output and "It was recovered at" in told.output
    recovered(host, apps, before)


@pytest.mark.fault
def test_a_recovery_that_is_interrupted_goes_on(lost, empty):
    before, _disk, key = lost
    host, apps = empty
    for sign in SIGNS:
        process = apps.start("recover", "-e", f"backup_key={key}")
        release.until(lambda process=process, sign=sign: process.poll() is not None or sign in _said(process), f"'{sign}'", 900)
        release.kill(process)
    apps.run("recover", "-e", f"backup_key={key}")
    recovered(host, apps, before)


def _said(process) -> str:
    process.log.flush()
    with open(process.log.name, encoding="utf-8", errors="replace") as stream:
        return stream.read()


SHOP = {
    "preset": "medusa",
    "source": {"path": str(ROOT / "examples" / "medusa-shop")},
    "domain": "shop.localhost",
    "tls": {"mode": "off"},
    "admin": {"email": "admin@example.com"},
}
LOOK = (pathlib.Path(__file__).parent / "inside_shop.py").read_text()


@pytest.mark.fault
def test_a_real_shop_is_back_within_a_quarter_of_an_hour(tmp_path):
    """Checked by a login, by what the store shows, and by the rows of every table."""
    hosts = [release.Host(f"{restoring.LAB}-shop-{which}", restoring.HOST) for which in ("lost", "new")]
    for host in hosts:
        if not os.environ.get("KEEP_LAB"):
            host.command("down", host.lab)
        host.command("up", host.lab, f"--host={host.name}:trixie:app,database,cache,proxy")
    shops = [release.Apps(ROOT / ".cache" / "lab" / host.lab / "hosts.yml", tmp_path) for host in hosts]
    for shop in shops:
        shop.apps = {"shop": SHOP}
        shop.write()
    # How long it takes is judged by its figure, and not by a limit of this test.
    shops[0].run("site", timeout=1800)
    hosts[0].shell("python3 - fill", given=LOOK)
    hosts[0].shell("anchorage backup run")
    hosts[0].shell("cd / && runuser -u postgres -- psql -qc 'SELECT pg_switch_wal()' && sleep 3")
    before, key = json.loads(hosts[0].shell("python3 -", given=LOOK)), hosts[0].shell("anchorage backup key").strip()
    taken = ["docker", "exec", hosts[0].facts["lab_container"], "tar", "-C", "/", "-cf", "-", "var/backups/anchorage"]
    disk = subprocess.run(taken, capture_output=True, check=True).stdout
    subprocess.run(["docker", "exec", "-i", hosts[1].facts["lab_container"], "tar", "-C", "/", "--no-same-owner", "-xpf", "-"], input=disk, check=True)
    began = time.monotonic()
    shops[1].run("recover", "-e", f"backup_key={key}", timeout=1800)
    seconds = round(time.monotonic() - began, 1)
    after = json.loads(hosts[1].shell("python3 -", given=LOOK))
    causes = [] if after == before and before["products"] >= 15 else ["it has other data"]
    causes += [f"it took {seconds} s"] if seconds > MOST_SECONDS else []
    RECOVERIES.add("a real shop", causes, seconds=seconds, tables=len(after["rows"]), rows=sum(after["rows"].values()), products=after["products"])
    assert not causes, causes
    for host in hosts:
        if not os.environ.get("KEEP_LAB"):
            host.command("down", host.lab)


def test_with_a_wrong_key_nothing_is_made_that_would_not_fit(lost, empty):
    _before, _disk, _key = lost
    host, apps = empty
    told = apps.run("recover", "-e", f"backup_key={'0' * 64}", rc=None)
    assert "local: it cannot be read" in told.output
    assert host.shell("ls /etc/anchorage/secrets").split() == ["backup.json"]
    # The wrong key is not held against whoever finds the right one.
    told = apps.run("recover", "-e", f"backup_key={'1' * 64}", rc=None)
    assert "local: it cannot be read" in told.output
