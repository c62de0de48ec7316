# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that is started on restored data: it reads them, has a Redis of its own, and reaches nothing else."""

from __future__ import annotations

import json

import pytest

from .ground import Ground, ground_fixture, host_fixture  # noqa: F401

#: An app in a few lines: it is well where it reaches what it may, and nothing that it may not.
SERVER = """
import http.server, os, socket, subprocess, urllib.parse

def reaches(address):
    try:
        socket.create_connection(address, timeout=2).close()
        return True
    except OSError:
        return False

def ask(sql):
    argv = ["psql", "-XAtc", sql, os.environ["DATABASE_URL"]]
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()

def well():
    redis = urllib.parse.urlsplit(os.environ["REDIS_URL"])
    facts = {
        "rows": ask("SELECT count(*) > 20000 FROM item") == "t",
        "copy": ask("SHOW cluster_name") == "anchorage-scratch",
        "writes": ask("INSERT INTO item (name) VALUES ('booted') RETURNING 'yes'").startswith("yes"),
        "redis": reaches((redis.hostname, redis.port)),
        "empty": b"$-1" in redis_get(redis),
        "alone": not reaches((os.environ["OUTSIDE"], 5432)) and not reaches((os.environ["OUTSIDE"], 22)),
        "shut": not os.path.exists("/run/postgresql/.s.PGSQL.5432"),
        "read_only": not os.access("/srv/booted", os.W_OK),
        "secret": os.environ.get("TOKEN") == "a secret",
    }
    return " ".join(name for name, good in facts.items() if not good) or "OK"

def redis_get(redis):
    with socket.create_connection((redis.hostname, redis.port), timeout=2) as sock:
        sock.sendall(b"GET key:1\\r\\n")
        return sock.recv(100)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = well().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("listening", flush=True)
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

PLACE = """
set -e
id booted >/dev/null 2>&1 || useradd --system --home-dir /srv/booted --create-home booted
install -d -o booted -g booted /srv/booted/releases/r1/run /srv/booted/builds/t1
install -d /etc/anchorage/apps /var/lib/anchorage/booted
cd /root/engine
python3 -c "
from module_utils import zipapp
open('/usr/local/bin/anchorage', 'wb').write(zipapp.build(lambda name: open('module_utils/' + name + '.py', 'rb').read()))"
chmod 0755 /usr/local/bin/anchorage
"""

JOURNAL = {"schema": 1, "app": "booted", "live": "r1", "slot": "blue", "tree": "t1", "previous": None, "switch": None, "history": []}


def document(outside: str) -> dict:
    """Return what a deploy leaves of an app on its host, as far as a proof reads it."""
    health = {"path": "/health", "status": 200, "body": "OK", "deadline_seconds": 60, "interval_seconds": 1, "successes": 2}
    server = {"name": "server", "command": ["/usr/bin/python3", "server.py"], "public": True, "instances": 1, "memory_mb": 256, "env": {}, "stop_seconds": 5}
    return {
        "name": "booted",
        "user": "booted",
        "home": "/srv/booted",
        "build": {"output": "."},
        "env": {"OUTSIDE": outside},
        "secrets_env": {"TOKEN": "a secret"},
        "database_url": "postgres://shop:another@127.0.0.1:5432/shop",
        "redis_url": "redis://shop:secret@127.0.0.1:6379/0",
        "migrate": {},
        "processes": [{**server, "slots": {"blue": [9000], "green": [9001]}, "health": health}],
    }


@pytest.fixture
def app(host):
    """A host with the app, whose live release is to be started by the proof."""
    host.shell(f"{PLACE}\ncat > /srv/booted/builds/t1/server.py <<'P'\n{SERVER}\nP")
    outside = host.shell("hostname -I").split()[0]
    host.shell(f"cat > /etc/anchorage/apps/booted.json <<'J'\n{json.dumps(document(outside))}\nJ")
    journal = {**JOURNAL, "releases": {"r1": {"id": "r1", "tree": "t1"}}}
    host.shell(f"cat > /var/lib/anchorage/booted/journal.json <<'J'\n{json.dumps(journal)}\nJ")
    settings = json.loads(host.shell("cat /etc/anchorage/backup.json"))
    settings["databases"][0]["app"] = "booted"
    settings["proof"]["boot"] = ["booted"]
    host.shell(f"cp /etc/anchorage/backup.json /root/backup.json; cat > /etc/anchorage/backup.json <<'J'\n{json.dumps(settings)}\nJ")
    yield host
    host.shell(
        "mv /root/backup.json /etc/anchorage/backup.json; rm -rf /etc/anchorage/apps/booted.json /var/lib/anchorage/booted; userdel -r booted", check=False
    )


def test_a_release_runs_on_the_restored_data_and_reaches_nothing_else(app: Ground):
    found = app.prove("database")
    assert found["ok"], found["cause"]
    assert found["what"]["booted"]["booted"]["release"] == "r1"
    assert app.sql("SELECT count(*) FROM item WHERE name = 'booted'") == "0"
    assert app.shell("find /srv/booted -name boot.json; ls /tmp | grep boot", check=False) == ""


def test_a_release_that_does_not_run_on_the_restored_data_is_found(app: Ground):
    app.shell("sed -i 's/20000 FROM item/20000000 FROM item/' /srv/booted/builds/t1/server.py; sed -i 's/\"deadline_seconds\": 60/\"deadline_seconds\": 25/'"
              " /etc/anchorage/apps/booted.json")  # fmt: skip
    found = app.prove("database")
    assert found["ok"] is False
    assert "booted does not start on the restored data" in found["cause"] and "the body 'rows'" in found["cause"], found["cause"]


def test_a_release_that_ends_is_found_with_its_last_words(app: Ground):
    app.shell("""echo 'raise SystemExit("relation item_v2 does not exist")' > /srv/booted/builds/t1/server.py""")
    found = app.prove("database")
    assert found["ok"] is False
    assert "its process has ended" in found["cause"] and "relation item_v2 does not exist" in found["cause"], found["cause"]
