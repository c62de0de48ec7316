# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, migrations and releases that are bad: the old release serves without a failed request, the message is right, and the re-run after repair works."""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
import time
import urllib.request

import pytest

from .conftest import RUNTIME, until
from .fault import made_good, refused, runs_of


def new(sql):
    """Return a migration that no release had before."""
    return {"id": f"fault{time.time_ns()}", "sql": sql}


def migrate(shop, **changes):
    """Change what the contract says of the migration."""
    shop.apps.apps["alpha"]["migrate"] = {**shop.apps.apps["alpha"]["migrate"], **changes}
    shop.apps.write()


def sessions(shop):
    """How many sessions a migration has in the database."""
    return int(shop.host.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'anchorage-migrate-alpha'"))


@contextlib.contextmanager
def running(shop, name, command):
    """Have a command run on the host in a unit of its own."""
    shop.host.shell(f"systemd-run --quiet --collect --unit={name} --working-directory=/ {command}")
    try:
        yield
    finally:
        shop.host.shell(f"systemctl stop {name}.service || true")


# -- memory


@pytest.mark.fault
@pytest.mark.parametrize("how", ["hog", "hog-child"])
def test_a_build_that_takes_too_much_memory(shop, how):
    before = runs_of(shop)
    shop.apps.app("alpha", build=how)
    shop.apps.apps["alpha"]["build"] = {**shop.apps.apps["alpha"]["build"], "memory_mb": 256}
    shop.apps.write()
    said = ("it ran out of memory (build.memory_mb is 256", "the whole unit may take 512", "anchorage: out of memory: 1 processes of this unit were killed")
    refused(shop, *said, broke="step stage of alpha", next_step="Raise apps.alpha.build.memory_mb")
    assert runs_of(shop) == before and shop.host.shell("ls /srv/alpha/work").strip() == ""
    shop.apps.app("alpha")
    made_good(shop)


@pytest.mark.fault
def test_a_migration_that_takes_too_much_memory(shop):
    before = runs_of(shop)
    shop.apps.app("alpha", migrate="hog")
    migrate(shop, memory_mb=64)
    said = ("it ran out of memory (migrate.memory_mb is 64", "the whole unit may take 128", "The tables are what they were")
    refused(shop, *said, broke="gate (migrate)", next_step="Raise apps.alpha.migrate.memory_mb")
    assert runs_of(shop) == before
    shop.apps.app("alpha")
    made_good(shop)


# -- migrations


@pytest.mark.fault
def test_a_set_of_migrations_whose_second_one_fails_in_its_second_statement(shop):
    first, name = new("ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS taste text"), f"second{time.time_ns()}"
    broken = {"id": name, "sql": f"CREATE TABLE {name} (id int); INSERT INTO {name} VALUES ('not a number')"}
    shop.apps.app("alpha", migrations=[first, broken])
    refused(shop, "invalid input syntax for type integer", broke="gate (migrate)", next_step="Mend the migration")
    applied = shop.host.sql(f"SELECT string_agg(id, ',') FROM stub_migrations WHERE id IN ('{first['id']}', '{name}')")
    assert applied == first["id"] and shop.host.sql(f"SELECT to_regclass('{name}') IS NULL") == "t", "what was committed stands, what failed left nothing"
    shop.apps.app("alpha", migrations=[first, {"id": name, "sql": f"CREATE TABLE {name} (id int)"}])
    made_good(shop)
    assert shop.host.sql(f"SELECT count(*) FROM stub_migrations WHERE id IN ('{first['id']}', '{name}')") == "2"


class Customers:
    """Ask a page at fixed times, whether the last answer came or not, and measure each from the time it was due."""

    def __init__(self, shop, path, rate=8):
        self.url, self.rate, self.taken, self.failures = f"http://127.0.0.1:{shop.host.facts['lab_ports']['80']}{path}", rate, [], []
        self.enough, self.asked = threading.Event(), []

    def _ask(self, due):
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, headers={"Host": "alpha.localhost"}), timeout=30) as answer:
                answer.read()
        except Exception as error:
            self.failures.append(repr(error))
        self.taken.append(time.monotonic() - due)

    def _come(self):
        due = time.monotonic()
        while not self.enough.wait(max(0, due - time.monotonic())):
            self.asked.append(threading.Thread(target=self._ask, args=(due,), daemon=True))
            self.asked[-1].start()
            due += 1 / self.rate

    def __enter__(self):
        self.door = threading.Thread(target=self._come, daemon=True)
        self.door.start()
        return self

    def __exit__(self, *_error):
        self.enough.set()
        for thread in (self.door, *self.asked):
            thread.join(30)

    @property
    def p99(self):
        """What 99 of 100 requests took at most."""
        return sorted(self.taken)[math.ceil(len(self.taken) * 0.99) - 1]


@pytest.mark.fault
def test_a_migration_that_waits_for_a_lock_does_not_make_customers_wait(shop, record_property):
    locked = shlex.quote("BEGIN; LOCK TABLE stub_items IN ACCESS SHARE MODE; SELECT pg_sleep(120)")
    migration = new("ALTER TABLE stub_items ADD COLUMN IF NOT EXISTS length integer")
    shop.apps.app("alpha", migrations=[migration])
    with running(shop, "reader", f"runuser -u postgres -- env PGAPPNAME=reader psql -XAtq -c {locked} alpha"):
        until(lambda: shop.host.sql("SELECT count(*) FROM pg_locks WHERE relation = 'stub_items'::regclass AND mode = 'AccessShareLock'") != "0", "the reader")
        with Customers(shop, "/items") as customers:
            refused(shop, "canceling statement due to lock timeout", "for a lock, 3 times", broke="gate (migrate)", next_step="See who holds it")
    # PostgreSQL goes on with a statement whose client was killed.
    shop.host.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'reader'")
    assert not customers.failures and len(customers.taken) > 50
    record_property("p99_seconds", round(customers.p99, 2))
    assert customers.p99 < 2, (customers.p99, max(customers.taken), len(customers.taken))
    assert sessions(shop) == 0 and shop.host.sql(f"SELECT count(*) FROM stub_migrations WHERE id = '{migration['id']}'") == "0"
    made_good(shop)
    assert shop.host.sql(f"SELECT count(*) FROM stub_migrations WHERE id = '{migration['id']}'") == "1"


def test_a_migration_that_hangs_is_ended_and_so_is_its_session(shop):
    name = f"hang{time.time_ns()}"
    shop.apps.app("alpha", migrations=[{"id": name, "sql": f"CREATE TABLE {name} (id int); SELECT pg_sleep(600)"}])
    migrate(shop, timeout_seconds=8)
    told = refused(
        shop,
        "it was stopped after 8 s",
        "ended 1 database session that a migration had left behind",
        "The tables are what they were",
        broke="gate (migrate)",
        next_step="Mend the migration",
    )
    assert sessions(shop) == 0 and "out of memory" not in told.message
    assert shop.host.sql(f"SELECT to_regclass('{name}') IS NULL") == "t" and not shop.host.unit_active("alpha-migrate")
    shop.apps.app("alpha", migrations=[{"id": name, "sql": f"CREATE TABLE {name} (id int)"}])
    made_good(shop)


@pytest.mark.fault
def test_what_a_killed_step_left_in_the_database_is_ended_before_the_next_migration(shop):
    name = f"killed{time.time_ns()}"
    shop.apps.app("alpha", migrations=[{"id": name, "sql": f"SELECT pg_sleep(25); CREATE TABLE {name} (id int)"}])
    migrate(shop, timeout_seconds=60)

    def killed():
        until(lambda: sessions(shop) == 1 and "pg_sleep(25)" in shop.host.sql("SELECT string_agg(query, '') FROM pg_stat_activity"), "the migration")
        units = "anchorage-alpha.service" + (" anchorage-alpha-migrate.service" if RUNTIME == "pm2" else "")
        shop.host.shell(f"systemctl kill --signal=SIGKILL {units}")

    before, deploy = shop.host.serving(), shop.apps.start("deploy")
    killed()
    assert shop.apps.end(deploy).rc > 0
    assert sessions(shop) == 1, "PostgreSQL goes on without its client"
    shop.apps.app("alpha", migrations=[{"id": name, "sql": f"CREATE TABLE {name} (id int)"}])
    assert "ended 1 database session" in shop.apps.deploy().output
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and shop.host.sql(f"SELECT count(*) FROM stub_migrations WHERE id = '{name}'") == "1"


@pytest.mark.fault
def test_a_migration_that_asks_a_question_gets_the_end_of_its_input(shop):
    shop.apps.app("alpha", migrate="prompt")
    began = time.monotonic()
    refused(shop, "nobody answered the question", broke="gate (migrate)", next_step="Mend the migration")
    assert time.monotonic() - began < 80, "nobody waited for the limit of 90 s"
    shop.apps.app("alpha")
    made_good(shop)


@pytest.mark.fault
def test_a_migration_that_returns_0_although_it_failed(shop):
    shop.apps.app("alpha", migrate="quiet-error")
    refused(shop, "Failed to acquire lock for key", broke="gate (migrate)", next_step="Mend the migration")
    shop.apps.app("alpha")
    made_good(shop)


@pytest.mark.fault
def test_without_redis_nothing_is_migrated(shop):
    before = runs_of(shop)
    shop.apps.app("alpha")
    shop.host.shell("systemctl stop redis-server@alpha-jobs.service")
    try:
        refused(shop, "Redis of alpha does not answer at 127.0.0.1:", broke="gate", next_step="Start it (systemctl status")
    finally:
        shop.host.shell("systemctl start redis-server@alpha-jobs.service")
    assert runs_of(shop) == before
    assert shop.host.runs(made_good(shop).live) == 1


def step(shop):
    """What the last step wrote down of itself."""
    return shop.host.state()["last_step"]


DATABASES = {
    "down": ("systemctl stop postgresql.service 'postgresql@*'", "systemctl start postgresql.service", "Connection refused"),
    "wrong-password": (
        "runuser -u postgres -- psql -qc \"ALTER ROLE alpha PASSWORD 'another'\"",
        "cat /root/verifier | runuser -u postgres -- psql -q",
        "password authentication failed",
    ),
}


@pytest.mark.fault
@pytest.mark.parametrize("how", DATABASES)
def test_a_database_that_cannot_be_used_stops_the_gate_within_15_seconds(shop, how, record_property):
    spoil, mend, said = DATABASES[how]
    shop.host.shell("cd / && umask 077; runuser -u postgres -- psql -XAtqc \"SELECT format('ALTER ROLE alpha PASSWORD %L', rolpassword) FROM pg_authid"
                    " WHERE rolname = 'alpha'\" > /root/verifier")  # fmt: skip
    before = runs_of(shop)
    shop.apps.app("alpha")
    shop.host.shell(f"cd / && {spoil}")
    try:
        refused(shop, "The database alpha on 127.0.0.1:5432 cannot be reached as alpha", said, broke="step migrate of alpha", next_step="Check that PostgreSQL")
        ended = step(shop)
        record_property("stopped_after_seconds", ended["seconds"])
        assert ended["step"] == "migrate" and ended["seconds"] <= 15, ended
    finally:
        shop.host.shell(f"cd / && {mend}; rm /root/verifier")
    until(lambda: shop.host.shell("pg_isready -q -h 127.0.0.1 && echo yes || true").strip() == "yes", "PostgreSQL")
    assert runs_of(shop) == before
    assert shop.host.runs(made_good(shop).live) == 1


@pytest.mark.fault
def test_a_database_without_a_free_connection_stops_the_gate_within_15_seconds(shop, record_property):
    limit = int(shop.host.sql("SHOW max_connections"))
    before = runs_of(shop)
    shop.apps.app("alpha")
    shop.host.shell("echo 'SELECT pg_sleep(300);' > /run/sleep.sql; chmod 644 /run/sleep.sql")
    bench = "runuser -u postgres -- sh -c 'exec $(ls -d /usr/lib/postgresql/*/bin/pgbench | tail -1) -n -j 1 -T 300 -f /run/sleep.sql -c NUMBER alpha'"
    with contextlib.ExitStack() as stack:
        # PostgreSQL goes on with a statement whose client was killed, and nobody can connect to end that: its own processes are told. Both commands
        # fail where there is nothing left to end, and while there is no free connection yet, which is what they are asked.
        stack.callback(until, lambda: "1 row" in shop.host.shell("cd / && runuser -u postgres -- psql -c 'SELECT 1' alpha", check=False), "a free connection")
        stack.callback(shop.host.shell, "pkill -TERM -f '[p]ostgres: .* postgres alpha '", check=False)
        # One more than there is room for would end all of them, so they come in two lots.
        for name, number in (("crowd", limit - 12), *((f"late{number}", 1) for number in range(12))):
            stack.enter_context(running(shop, name, bench.replace("NUMBER", str(number))))
        until(lambda: "too many clients" in shop.host.shell("cd / && runuser -u postgres -- psql -c 'SELECT 1' alpha || true"), "the server to be full")
        refused(shop, "The database alpha on 127.0.0.1:5432 cannot be reached as alpha", broke="step migrate of alpha", next_step="Check that PostgreSQL")
        ended = step(shop)
        record_property("stopped_after_seconds", ended["seconds"])
        assert ended["step"] == "migrate" and ended["seconds"] <= 15, ended
    assert runs_of(shop) == before
    assert shop.host.runs(made_good(shop).live) == 1


# -- releases

BAD = {
    "never-listens": ({"server": "deaf"}, "nobody listens on port"),
    "crashes-at-start": ({"server": "crash"}, "no process alpha-server"),
    "exits-0": ({"server": "exit"}, "no process alpha-server"),
    "error-status": ({"server": "sick"}, "503"),
    "error-body": ({"server": "lying"}, "body"),
    "flapping": ({"server": "flapping"}, "500"),
    "hangs-after-headers": ({"server": "headers"}, "proof of alpha-server"),
    "endless-body": ({"server": "endless"}, "proof of alpha-server"),
    "redirect-loop": ({"server": "redirect"}, "302"),
    "no-secrets": ({"wants": "STRIPE_API_KEY"}, "STRIPE_API_KEY is not set"),
    "wrong-database": ({"database": "postgres"}, "proof of alpha-server"),
    "memory-hog": (
        {"server": "hog"},
        "MiB, and processes.server.memory_mb is 100, so PM2 would restart it again and again"
        if RUNTIME == "pm2"
        else "it was killed at its limit of 100 MiB (processes.server.memory_mb)",
    ),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind == "endless-body" else pytest.mark.fault) for kind in BAD])
def test_a_bad_release_gets_no_traffic(shop, kind):
    switches, said = BAD[kind]
    shop.apps.app("alpha", **switches)
    server = shop.apps.apps["alpha"]["processes"]["server"]
    change = {"memory_mb": 100} if kind == "memory-hog" else {}
    shop.apps.apps["alpha"]["processes"] = {
        **shop.apps.apps["alpha"]["processes"],
        "server": {**server, **change, "health": {**server["health"], "deadline_seconds": 8}},
    }
    shop.apps.write()
    refused(shop, said, broke="proof of alpha-server", next_step="Read the log above, mend the release and run deploy.yml again.")
    events = [entry["event"] for entry in shop.host.journal()["history"][-4:]]
    assert "switched" not in events and events[-1] == "failed"


STRANGER = """
import http.server
class Old(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'OK')
http.server.ThreadingHTTPServer(('127.0.0.1', PORT), Old).serve_forever()
"""


@pytest.mark.fault
def test_the_answer_of_an_older_release_on_the_idle_port_is_not_taken_for_the_new_ones(shop):
    before = shop.host.serving()
    idle = "green" if before.slot == "blue" else "blue"
    run = f"/srv/alpha/releases/{before.live}/run/alpha-server-{idle}.json"
    port = int(shop.host.shell(f"python3 -c \"import json; print(json.load(open('{run}'))['env']['PORT'])\""))
    name = f"alpha-server-{idle}"
    shop.host.shell("cat > /run/stranger.py", given=STRANGER.replace("PORT", str(port)))
    shop.apps.app("alpha")
    with running(shop, "stranger", f"env ANCHORAGE_RELEASE={before.live} ANCHORAGE_PROCESS={name} python3 /run/stranger.py"):
        until(lambda: shop.host.direct(port, "/health") == "OK", "the older release")
        refused(shop, f"port {port} belongs to another process", broke="proof of alpha-server", next_step="Read the log above")
    made_good(shop)
