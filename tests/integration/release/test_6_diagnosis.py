# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One fault after another on a host that serves: the diagnosis names it first, with the command that mends it, and holds no secret."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.anchorage.vps.tests.canary import Canaries

from .conftest import until

PM2 = "runuser -u alpha -- env PM2_HOME=/var/lib/pm2/alpha pm2"
SQL = "runuser -u postgres -- psql -q -c"
REDIS = "/etc/redis/redis-alpha-jobs.conf"
HEALTH = "/etc/anchorage/health.json"


class Fault(t.NamedTuple):
    """What is broken, how it is mended, and what the diagnosis must say first. C({slot}), C({port}), C({password}) are the host's."""

    do: str
    undo: str
    name: str
    check: str
    command: str


FAULTS = {
    "redis is stopped": Fault(
        "systemctl stop redis-server@alpha-jobs",
        "systemctl start redis-server@alpha-jobs",
        "alpha Redis (jobs)",
        "connect",
        "systemctl restart redis-server@alpha-jobs",
    ),
    "redis throws jobs away": Fault(
        f"cp -a {REDIS} /root/redis.conf; sed -i 's/^maxmemory-policy .*/maxmemory-policy allkeys-lru/' {REDIS}; systemctl restart redis-server@alpha-jobs",
        f"cp -a /root/redis.conf {REDIS}; systemctl restart redis-server@alpha-jobs",
        "alpha Redis (jobs)",
        "policy",
        "provision.yml",
    ),
    "postgresql is stopped": Fault(
        "systemctl stop postgresql@17-main", "systemctl start postgresql@17-main", "alpha database", "connect", "systemctl restart 'postgresql@*'"
    ),
    "the password was changed": Fault(
        f"{SQL} \"ALTER ROLE alpha PASSWORD 'another-one'\"",
        f"{SQL} \"ALTER ROLE alpha PASSWORD '{{password}}'\"",
        "alpha database",
        "connect",
        "provision.yml",
    ),
    "no connection is left": Fault(
        f'{SQL} "ALTER ROLE alpha CONNECTION LIMIT 0"', f'{SQL} "ALTER ROLE alpha CONNECTION LIMIT -1"', "alpha database", "connect", "smaller pools"
    ),
    "the database is read-only": Fault(
        f'{SQL} "ALTER DATABASE alpha SET default_transaction_read_only = on"',
        f'{SQL} "ALTER DATABASE alpha RESET default_transaction_read_only"',
        "alpha database",
        "write",
        "RESET default_transaction_read_only",
    ),
    "a right was taken": Fault(
        f'{SQL} "REVOKE CONNECT ON DATABASE alpha FROM PUBLIC" -c "ALTER DATABASE alpha OWNER TO postgres"',
        f'{SQL} "ALTER DATABASE alpha OWNER TO alpha" -c "GRANT CONNECT ON DATABASE alpha TO PUBLIC"',
        "alpha database",
        "connect",
        "postgresql@*",
    ),
    "pm2 is stopped": Fault("systemctl stop pm2-alpha", "systemctl start pm2-alpha", "alpha processes", "daemon", "systemctl restart pm2-alpha"),
    "pm2 does not come back after a boot": Fault(
        "systemctl disable -q pm2-alpha", "systemctl enable -q pm2-alpha", "alpha processes", "boot_unit", "systemctl enable --now pm2-alpha"
    ),
    "the server is stopped": Fault(
        f"{PM2} stop alpha-server-{{slot}}",
        f"{PM2} start alpha-server-{{slot}}",
        "alpha processes",
        "process:alpha-server-{slot}",
        "systemctl restart pm2-alpha",
    ),
    "the worker is stopped": Fault(
        f"{PM2} stop alpha-worker-{{slot}}",
        f"{PM2} start alpha-worker-{{slot}}",
        "alpha processes",
        "process:alpha-worker-{slot}",
        "systemctl restart pm2-alpha",
    ),
    "another process has the port": Fault(
        f"{PM2} stop alpha-server-{{slot}}; systemd-run -q --collect --unit=verify-thief python3 -m http.server --bind 127.0.0.1 {{port}}; sleep 2; "
        f"{PM2} start alpha-server-{{slot}}; sleep 2",
        f"systemctl stop verify-thief; {PM2} restart alpha-server-{{slot}}",
        "alpha processes",
        "port:alpha-server-{slot}",
        "ss -ltnp 'sport = :{port}'",
    ),
    "the server crashes again and again": Fault(
        f"mv {{app}}/server.js {{app}}/server.away; {PM2} restart alpha-server-{{slot}}; sleep 15",
        "mv {app}/server.away {app}/server.js; systemctl restart pm2-alpha",
        "alpha processes",
        "process:alpha-server-{slot} or port:alpha-server-{slot}",  # as the moment is
        "tail -50 /var/log/pm2/alpha/alpha-server-{slot}.log",
    ),
    "the boot unit is another user's": Fault(
        "mkdir -p {drop}; printf '[Service]\\nUser=root\\n' > {drop}/verify.conf; systemctl daemon-reload",
        "rm -r {drop}/verify.conf; systemctl daemon-reload",
        "alpha processes",
        "boot_unit",
        "systemctl cat pm2-alpha",
    ),
    "somebody edited a file": Fault(
        "cp -p /etc/nginx/nginx.conf /root/nginx.conf; echo '# by hand' >> /etc/nginx/nginx.conf",
        "cp -p /root/nginx.conf /etc/nginx/nginx.conf",
        "host files",
        "files",
        "provision.yml --check --diff",
    ),
    "nginx is stopped": Fault("systemctl stop nginx", "systemctl start nginx", "alpha (public)", "answer", "nginx -t && systemctl restart nginx"),
    "the proxy uses the other slot": Fault(
        "cd /var/lib/anchorage/slots/alpha; if [ -e green ]; then rm green; else touch green; fi",
        "cd /var/lib/anchorage/slots/alpha; if [ {slot} = green ]; then touch green; else rm -f green; fi",
        "alpha",
        "slot",
        "anchorage recover alpha",
    ),
    "visitors were left waiting": Fault(
        "touch /var/lib/anchorage/slots/alpha/hold", "rm -f /var/lib/anchorage/slots/alpha/hold", "alpha", "settled", "anchorage recover alpha"
    ),
    "a unit has failed": Fault(
        "systemd-run --quiet --unit=verify-broken false; sleep 1",
        "systemctl reset-failed verify-broken.service",
        "host",
        "units",
        "systemctl restart verify-broken.service",
    ),
    "a disk is full": Fault(
        "mkdir -p /srv/full; mount -t tmpfs -o size=8m tmpfs /srv/full; head -c 8M /dev/zero > /srv/full/x; "
        f'echo \'{{"host": {{"paths": ["/", "/srv/full"]}}}}\' > {HEALTH}',
        f"umount /srv/full; rmdir /srv/full; rm -f {HEALTH}",
        "host",
        "disk:/srv/full",
        "du -xh --max-depth=3 /srv/full",
    ),
    "a port is open to the world": Fault(
        f'echo \'{{"host": {{"allowed_ports": [22, 80, 443]}}}}\' > {HEALTH}; '
        "systemd-run -q --collect --unit=verify-stranger python3 -m http.server 8999; sleep 2",
        f"systemctl stop verify-stranger; rm -f {HEALTH}",
        "host",
        "ports",
        "ss -ltnp",
    ),
}


def diagnosed(host):
    """Return what `anchorage diagnose` says, as data and as text."""
    said = host.shell("anchorage diagnose --json --deadline 3", check=False)  # 1 says that something is red
    return json.loads(said), said + host.shell("anchorage diagnose --deadline 3", check=False)


@pytest.mark.fault
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_diagnosis_names_the_fault_first(shop, fault):
    host = shop.host
    until(lambda: diagnosed(host)[0]["grade"] != "red", "a host that is well", 90)
    secrets = json.loads(host.shell("cat /etc/anchorage/secrets/alpha.json"))
    slot = host.state()["slot"]
    port = json.loads(host.shell("cat /etc/anchorage/apps/alpha.json"))["processes"][0]["slots"][slot][0]

    places = {
        "slot": slot,
        "port": str(port),
        "password": secrets["database_password"],
        "app": f"/srv/alpha/releases/{host.state()['live']}/app",
        "drop": "/etc/systemd/system/pm2-alpha.service.d",
    }

    def filled(text):
        for key, value in places.items():
            text = text.replace(f"{{{key}}}", value)
        return text

    do, undo, name, check, command = map(filled, fault)
    host.shell(do)
    try:
        told, said = diagnosed(host)
    finally:
        host.shell(undo)
    first = told["findings"][0]
    assert first["name"] == name and first["check"] in check.split(" or "), told["findings"]
    assert command in first["command"], first
    assert Canaries(secrets).text(said) == []


def test_diagnose_tells_it_from_the_controller(shop, tmp_path):
    until(lambda: diagnosed(shop.host)[0]["grade"] != "red", "a host that is well", 90)
    shop.host.shell("systemctl stop redis-server@alpha-jobs")
    try:
        ended = shop.apps.run("diagnose", "-e", f"diagnose_report_path={tmp_path}/diagnosis.txt")
    finally:
        shop.host.shell("systemctl start redis-server@alpha-jobs")
    text = (tmp_path / "diagnosis.txt").read_text()
    assert ended.changed == 0 and "Likely cause: alpha Redis (jobs)" in ended.output and "Likely cause: alpha Redis (jobs)" in text
    assert "To mend it:   systemctl restart redis-server@alpha-jobs" in text and "journal of redis-server@alpha-jobs" in text
