# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS between hosts: who is let in, who is believed, and a certificate that comes to its end under visitors. Three hosts of their own."""

from __future__ import annotations

import json
import os
import typing as t

import pytest

from ansible_collections.anchorage.vps.tests.integration.release import conftest as release
from ansible_collections.anchorage.vps.tests.integration.release.conftest import Visitor, until

pytestmark = pytest.mark.fault

LAB = os.environ.get("ANCHORAGE_LINKS_LAB", "fleet-links")
GROUPS = {"web1": "app,proxy", "web2": "app", "db1": "database,cache"}
PLAIN, TLS, POSTGRESQL = 6379, 7379, 5432

#: Says PING to Redis without TLS, and what came of it.
PING = """
import socket, sys
try:
    wire = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
    wire.sendall(b"PING\\r\\n")
    print(repr(wire.recv(100)))
except OSError as error:
    print(type(error).__name__)
"""

#: Makes a certificate for this host's key that ends soon, signed by the fleet's authority or by another one.
SIGN = """
set -e; umask 077; cd "$(mktemp -d)"
python3 - <<'END'
import json
kept = json.load(open("/etc/anchorage/secrets/fleet.ca.json"))
for name in ("key", "certificate"):
    open(name, "w").write(kept[name])
END
[ "$1" = fleet ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=other -days 30 \\
  -keyout key -out certificate 2>/dev/null
openssl x509 -in /etc/anchorage/tls/server.pem -noout -ext subjectAltName |
  sed -n 's/ *\\(DNS:.*\\)/subjectAltName=\\1/p' | sed 's/IP Address:/IP:/g' > extensions
openssl req -new -key /etc/anchorage/tls/server.key -subj /CN=x |
  openssl x509 -req -CA certificate -CAkey key -set_serial 77 -extfile extensions -out server.pem \\
    -not_before "$(date -ud '-100 days' +%Y%m%d%H%M%SZ)" -not_after "$(date -ud '+481 hours' +%Y%m%d%H%M%SZ)" 2>/dev/null
cat server.pem > /etc/anchorage/tls/server.pem
for file in redis postgresql; do cat /etc/anchorage/tls/server.key server.pem > /etc/anchorage/tls/$file.pem; done
systemctl reload 'postgresql@*' 'redis-server@*'
"""


class Trio:
    """Two hosts of an app, one of them its proxy, and one with its database and its Redis."""

    def __init__(self, apps: release.Apps) -> None:
        self.apps = apps
        self.hosts = {name: release.Host(LAB, name) for name in GROUPS}
        self.web, self.services = self.hosts["web1"], self.hosts["db1"]
        self.said: list[str] = []

    def run(self, playbook: str, *arguments: str, rc: int | None = 0) -> release.Ended:
        """Run a playbook."""
        ended = self.apps.run(playbook, "-vv", "--diff", *arguments, rc=rc, timeout=1500)
        self.said.append(ended.output)
        return ended

    def ready(self) -> dict[str, t.Any]:
        """What the app says of its database and its Redis, each asked anew."""
        return self.web.public(path="/ops/ready")

    def sign(self, authority: str) -> None:
        """Give the services' host another certificate."""
        self.services.shell(f"sh -s {authority}", given=SIGN)

    def serial(self) -> str:
        """Which certificate Redis shows."""
        address = self.services.facts["lab_address"]
        return self.web.shell(f"openssl s_client -connect {address}:{TLS} </dev/null 2>/dev/null | openssl x509 -noout -serial").strip()

    def pids(self) -> str:
        """The processes of the services."""
        return self.services.shell("systemctl show --property=MainPID --value 'postgresql@*' 'redis-server@*'")


@pytest.fixture(scope="module")
def trio(tmp_path_factory) -> t.Iterator[Trio]:
    """Three fresh hosts with the app alpha."""
    first = release.Host(LAB, "web1")
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)
    first.command("up", LAB, *[f"--host={name}:trixie:{groups}" for name, groups in GROUPS.items()])
    directory = tmp_path_factory.mktemp("links")
    hosts = directory / "hosts"
    hosts.mkdir()
    (hosts / "lab.yml").symlink_to(release.ROOT / ".cache" / "lab" / LAB / "hosts.yml")
    found = Trio(release.Apps(hosts, directory))
    addresses = {name: {"anchorage_address": host.facts["lab_address"]} for name, host in found.hosts.items()}
    (hosts / "addresses.yml").write_text(json.dumps({"all": {"hosts": addresses}}))
    found.apps.app("alpha", pulses=True)
    found.run("site", "--check")
    found.run("site")
    yield found
    if not os.environ.get("KEEP_LAB"):
        first.command("down", LAB)


def test_the_app_works_over_tls_and_nothing_is_left_to_do(trio):
    assert trio.ready() == {"ready": True, "checks": {"postgres": "ok", "redis": "ok"}}
    encrypted = trio.services.sql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL")
    assert encrypted == "t"
    assert trio.run("site").changed == 0
    assert trio.run("site", "--check").changed == 0
    assert trio.run("verify").rc == 0


def test_plain_text_is_refused(trio):
    address = trio.services.facts["lab_address"]
    said = {port: trio.hosts["web2"].shell(f"python3 - {address} {port}", given=PING).strip() for port in (PLAIN, TLS)}
    assert "PONG" not in said[TLS] and said[PLAIN] in ("ConnectionRefusedError", "TimeoutError")
    refused = trio.hosts["web2"].shell(f"PGSSLMODE=disable psql -h {address} -U alpha -c 'SELECT 1' alpha", check=False)
    assert "no pg_hba.conf entry" in refused and "no encryption" in refused
    assert trio.services.shell(f"ss -Hltn sport = :{PLAIN}").strip() == ""


def test_no_key_leaves_its_host(trio):
    kept = json.loads(trio.services.shell("cat /etc/anchorage/secrets/fleet.ca.json"))["key"]
    keys = [kept, trio.services.shell("cat /etc/anchorage/tls/server.key")]
    for said in trio.said:
        assert not any(line in said for key in keys for line in key.splitlines() if "-----" not in line)
        assert "PRIVATE KEY" not in said
    modes = trio.services.shell("stat -c '%n %a %U:%G' /etc/anchorage/secrets/fleet.ca.json /etc/anchorage/tls/*").splitlines()
    assert {line.rpartition("/")[2] for line in modes} == {
        "fleet.ca.json 600 root:root",
        "ca.pem 644 root:root",
        "server.key 600 root:root",
        "server.pem 644 root:root",
        "redis.pem 640 root:redis",
        "postgresql.pem 640 root:postgres",
    }
    assert trio.web.shell("ls /etc/anchorage/tls").split() == ["ca.pem", "trusted.pem"]
    assert "fleet" not in trio.web.shell("ls /etc/anchorage/secrets")


def test_a_certificate_that_ends_soon_is_told_and_made_anew_under_visitors(trio):
    before = trio.pids()
    with Visitor(trio.web, lambda: str(trio.ready()["ready"])) as visitor:
        trio.sign("fleet")
        until(lambda: trio.serial() == "serial=4D", "the certificate that ends soon")
        assert "ends in 20" in trio.services.shell("anchorage health --kinds tls", check=False)
        told = trio.run("site")
        assert trio.serial() != "serial=4D"
    visitor.check()
    assert trio.pids() == before, "nothing was restarted for it"
    assert told.recap["web1"]["changed"] == told.recap["web2"]["changed"] == 0
    assert trio.run("site").changed == 0


def test_a_server_that_another_authority_vouches_for_is_not_believed_until_it_is_mended(trio):
    trio.sign("other")
    with pytest.raises(release.urllib.error.HTTPError) as caught:
        until(lambda: trio.ready() and None, "the app to refuse it", 30)
    assert json.loads(caught.value.read())["checks"]["redis"] == "failed"
    told = trio.web.shell("anchorage health --kinds redis,database", check=False)
    assert "certificate" in told and "refused" in told
    trio.run("provision")
    until(lambda: trio.ready()["ready"], "the app to believe it again", 30)
