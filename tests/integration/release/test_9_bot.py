# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site of Next.js and Prisma with a worker and a Telegram bot, in containers (examples/subscriptions): ten upgrades, and never two pollers."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import ssl
import time

import pytest
import yaml

from ansible_collections.anchorage.vps.tests.lab import images

from .conftest import ROOT, RUNTIME, Apps, Host, Visitor, until

pytestmark = [pytest.mark.fault, pytest.mark.skipif(RUNTIME != "compose", reason="the example runs in containers")]

LAB, NAME, TOKEN = "release-bot", "club.localhost", "7000001:lab-T0kenForTheClubsB0t_xQ3vN8rT5wZ"
EXAMPLE = ROOT / "examples" / "subscriptions"
TELEGRAM = ROOT / "tests" / "apps" / "telegram" / "fake.py"
UPGRADES = 10
WATCH = "exec docker events --filter type=container --filter event=start --filter event=die --format '{{json .}}' > /run/bots.json"

#: What the lab has in place of the internet's authorities.
SETTINGS = yaml.safe_load((ROOT / "molecule/compose/inventory/group_vars/all/lab.yml").read_text())


class Club:
    """The host, its contract, and what its customers and Telegram see."""

    def __init__(self, host: Host, apps: Apps, source: pathlib.Path) -> None:
        self.host, self.apps, self.source = host, apps, source
        self.env: dict[str, str] = {}
        self.write()

    def write(self, **processes: dict) -> None:
        """Write the contract."""
        app = {
            "preset": "prisma_bot",
            "runtime": "compose",
            "source": {"path": str(self.source)},
            "image": {"base": images.STAND_INS["node"]},
            "database": {"image": images.STAND_INS["postgres"]},
            "domain": NAME,
            "soak": {"seconds": 5},
            "env": {"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_API": "http://telegram:8081", "TELEGRAM_POLL_SECONDS": "2", **self.env},
            "secrets": {"foreign": ["TELEGRAM_BOT_TOKEN"]},
            "processes": processes,
        }
        self.apps.inventory.write_text(json.dumps({"all": {"vars": {**SETTINGS, "base_swap_mb": 0, "apps": {"club": app}}}}, indent=1))

    def ask(self, path: str) -> dict:
        """Ask the site as a customer does, over https."""
        context = ssl.create_default_context(cafile=yaml.safe_load(self.apps.hosts.read_text())["all"]["children"]["lab"]["vars"]["lab_acme_root_file"])
        connection = http.client.HTTPSConnection("127.0.0.1", int(self.host.facts["lab_ports"]["443"]), timeout=10, context=context)
        connection.sock = context.wrap_socket(socket.create_connection((connection.host, connection.port), timeout=10), server_hostname=NAME)
        connection.request("GET", path, headers={"Host": NAME})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, (path, answer.status, body[:200])
        return json.loads(body)

    def visitor(self) -> Visitor:
        """Somebody who looks at the plans again and again, which come from the database."""
        return Visitor(self.host, lambda: self.ask("/api/plans")["plans"][0]["slug"])

    def ids(self) -> dict[str, str]:
        """The containers, by name."""
        told = self.host.shell("docker ps --no-trunc --format '{{.Names}} {{.ID}}'")
        return dict(line.split() for line in told.splitlines() if line.startswith("club-"))

    def images(self) -> set[str]:
        """The images that the app's containers stand on."""
        return set(self.host.shell("docker inspect --format '{{.Image}}' $(docker ps -q --filter label=vps.anchorage.slot)").split())

    def nginx(self) -> str:
        """The master process of the proxy, and when it was started."""
        return self.host.shell("systemctl show --property=MainPID,ExecMainStartTimestamp nginx.service")

    def sql(self, query: str) -> str:
        """Ask the database."""
        return self.host.sql(query, "club")

    def telegram(self, path: str = "status", **words: object) -> dict:
        """Ask Telegram what it has seen, or write to the bot."""
        data = json.dumps(words).encode() if words else None
        request = f"u.Request('http://127.0.0.1:8081/control/{path}', {data!r}, {{'Content-Type': 'application/json'}})"
        script = f"import urllib.request as u; print(u.urlopen({request}).read().decode())"
        return json.loads(self.host.shell("docker exec -i telegram python3 -", given=script))

    def stored(self, name: str) -> str:
        """The release whose sign of life is the last."""
        return self.sql(f"SELECT release FROM heartbeat WHERE name = '{name}' AND at > now() - interval '15 seconds' ORDER BY at DESC LIMIT 1")


@pytest.fixture(scope="module")
def club(tmp_path_factory):
    """The host, from nothing to a site that serves. Telegram is there before the app is."""
    host = Host(LAB, "vps")
    if not os.environ.get("KEEP_LAB"):
        host.command("down", LAB)
    host.command("up", LAB, "--with-docker", "--world", "--dns=*=vps", "--host=vps:trixie:app,database,cache,proxy")
    host.command("stand-ins", LAB, "vps")
    source = tmp_path_factory.mktemp("source") / "club"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("node_modules", ".next", "generated"))
    apps = Apps(ROOT / ".cache" / "lab" / LAB / "hosts.yml", tmp_path_factory.mktemp("contract"))
    made = Club(host, apps, source)
    apps.run("provision")
    host.shell("mkdir -p /opt/telegram && cat > /opt/telegram/fake.py", given=TELEGRAM.read_text())
    options = "--detach --name telegram --network club-base --restart unless-stopped --volume /opt/telegram:/opt/telegram:ro --entrypoint ''"
    host.shell(
        f"docker inspect telegram >/dev/null 2>&1 || docker run {options} {images.STAND_INS['node']} python3 /opt/telegram/fake.py --listen 0.0.0.0 --port 8081"
    )
    apps.run("site")
    yield made
    if not os.environ.get("KEEP_LAB"):
        host.command("down", LAB)


def lives_of_bots(events: str) -> list[tuple[float, float, str]]:
    """Return from when to when each bot's container ran, out of the Engine's own record."""
    started: dict[str, float] = {}
    lives = []
    for line in events.splitlines():
        event = json.loads(line)
        if not event["Actor"]["Attributes"].get("name", "").startswith("club-bot-"):
            continue
        at, who = event["timeNano"] / 1e9, event["Actor"]["ID"]
        if event["Action"] == "start":
            started[who] = at
        elif event["Action"] == "die":
            lives.append((started.pop(who, 0.0), at, who[:12]))
    return sorted([*lives, *((at, float("inf"), who[:12]) for who, at in started.items())])


def test_the_site_serves_worker_and_bot_live_and_a_second_run_changes_nothing(club):
    assert club.ask("/api/health")["status"] == "ok" and len(club.ask("/api/plans")["plans"]) == 1
    live = club.host.state("club")["live"]
    assert club.ask("/api/info")["release"] == live
    assert club.stored("worker") == club.stored("bot") == live
    club.telegram("send", text="/start", chat_id=42)
    until(lambda: [said for said in club.telegram()["bots"]["7000001"]["sent"] if said["chat_id"] == 42], "the bot's answer", 20)
    published = club.host.shell("docker ps --filter name=club-bot- --format '{{.Ports}}'").strip()
    assert published == "", "a poller needs no port"
    assert club.apps.run("site").changed == 0
    assert club.sql("SELECT count(*) FROM subscription_plan") == "1"
    assert club.sql("SELECT count(*) FROM _prisma_migrations WHERE finished_at IS NOT NULL") == club.sql("SELECT count(*) FROM _prisma_migrations") != "0"


def test_ten_upgrades_never_run_two_pollers_and_touch_no_service(club, record_property):
    # The Engine forgets all but its last events, and every health check is some of them.
    club.host.shell(f"rm -f /run/bots.json; systemd-run --quiet --collect --unit=watch-bots sh -c {shlex.quote(WATCH)}")
    services = {name: at for name, at in club.ids().items() if "-base-" in name}
    nginx, releases = club.nginx(), {club.host.state("club")["live"]}
    club.telegram("reset", now=True)
    with club.visitor() as customer:
        for number in range(UPGRADES):
            if number % 4 == 0:
                # A new image; the others are the same image with other settings.
                (club.source / "public").mkdir(exist_ok=True)
                (club.source / "public" / "version.txt").write_text(f"{number}\n")
            club.env = {"UPGRADE": str(number)}
            club.write()
            club.apps.deploy()
            live = club.host.state("club")["live"]
            releases.add(live)
            assert club.ask("/api/info")["release"] == live
            assert club.stored("worker") == club.stored("bot") == live
    assert len(releases) == UPGRADES + 1
    customer.check(least=200)
    assert {name: at for name, at in club.ids().items() if "-base-" in name} == services and services
    assert club.nginx() == nginx
    assert club.sql("SELECT count(*) FROM subscription_plan") == "1", "ten migrations, one plan"
    seen = club.telegram()
    assert seen["conflicts"] == seen["overlaps"] == 0 and len(seen["bots"]["7000001"]["who"]) >= UPGRADES
    club.host.shell("systemctl stop watch-bots.service")
    lives = lives_of_bots(club.host.shell("cat /run/bots.json"))
    assert len(lives) == UPGRADES + 1, "the first was there before"
    gaps = [after[0] - before[1] for before, after in zip(lives, lives[1:], strict=False)]
    assert all(gap > 0 for gap in gaps), "a bot was started before the one before had ended"
    record_property("requests", len(customer.releases))
    record_property("longest_time_without_a_bot_seconds", round(max(gaps), 1))


def test_a_migration_that_fails_leaves_everything_running(club):
    before, live = club.ids(), club.host.state("club")["live"]
    bad = club.source / "prisma" / "migrations" / "20990101000000_bad"
    bad.mkdir()
    (bad / "migration.sql").write_text("ALTER TABLE no_such_table ADD COLUMN x integer;\n")
    try:
        with club.visitor() as customer:
            ended = club.apps.deploy(rc=None)
        assert "The migration of club to release" in ended.output and f"club release {live}" in ended.output
        assert club.ids() == before and club.host.state("club")["live"] == live
        customer.check()
        assert club.stored("worker") == club.stored("bot") == live
    finally:
        shutil.rmtree(bad)
        # As Prisma's own documentation says of a migration that failed and was taken back.
        club.sql("DELETE FROM _prisma_migrations WHERE migration_name = '20990101000000_bad'")


def test_back_to_the_images_before_within_a_minute(club, record_property):
    (club.source / "public" / "version.txt").write_text("the image to go back to\n")
    club.apps.deploy()
    wanted, first = club.images(), club.host.state("club")["live"]
    (club.source / "public" / "version.txt").write_text("the image to go back from\n")
    club.apps.deploy()
    assert len(wanted) == 1 and club.images().isdisjoint(wanted)
    with club.visitor() as customer:
        began = time.monotonic()
        club.apps.run("rollback", "-e", "app=club")
        took = time.monotonic() - began
    assert club.images() == wanted and club.host.state("club")["live"] == first
    assert club.stored("bot") == first
    customer.check()
    assert took < 60
    record_property("rollback_seconds", round(took, 1))


@pytest.mark.parametrize("process", ["worker", "bot"])
def test_a_loop_that_stands_still_is_seen(club, process):
    name = f"club-{process}-{club.host.state('club')['slot']}"
    club.host.shell(f"docker pause {name}")
    try:
        until(lambda: stale(club, process), "its sign of life to be too old", 150)
        ended = club.apps.run("verify", rc=None)
        assert f"club {process} heartbeat" in ended.output and re.search(r"the last sign of life .* is \d+", ended.output)
    finally:
        club.host.shell(f"docker unpause {name}")
    until(lambda: club.stored(process), "the loop to turn again", 30)
    club.apps.run("verify")


def stale(club, process):
    """Whether its sign of life is older than it may be."""
    age = club.sql(f"SELECT extract(epoch FROM now() - max(at)) FROM heartbeat WHERE name = '{process}'")
    document = json.loads(club.host.shell("cat /etc/anchorage/apps/club.json"))
    limit = next(entry["heartbeat"]["max_age_seconds"] for entry in document["processes"] if entry["name"] == process)
    return float(age) > limit + 1


def test_two_pollers_are_refused_before_anything_is_touched(club):
    before = club.ids()
    club.write(bot={"instances": 2})
    try:
        ended = club.apps.deploy(rc=None)
        assert "apps.club.processes.bot.instances" in ended.output and ended.changed == 0
        scaled = club.apps.run("scale", "-e", "process=bot", "-e", "instances=2", rc=None)
        assert "apps.club.processes.bot.instances" in scaled.output and scaled.changed == 0
    finally:
        club.write()
    assert club.ids() == before
