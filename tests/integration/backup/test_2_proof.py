# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proof beside a server that works hard, a proof that is killed, and what a throw-away server can and cannot do."""

from __future__ import annotations

import json

from .ground import Ground, ground_fixture, host_fixture  # noqa: F401  # pylint: disable=unused-import

#: Rows that come, go, change and change back; a table that is emptied again and again.
WORK = """
\\set id random(1, 20000)
BEGIN;
INSERT INTO busy (name) VALUES (repeat('x', 100));
DELETE FROM busy WHERE id = (SELECT min(id) FROM busy);
UPDATE item SET name = 'n' || :id WHERE id = :id;
UPDATE flag SET up = NOT up;
COMMIT;
TRUNCATE emptied;
INSERT INTO emptied SELECT generate_series(1, 100);
"""

ON_SCRATCH = """
import json, sys
sys.path.insert(0, "/root/engine")
from module_utils import backup_settings, scratch_cluster
from module_utils.world import World
world = World(); settings = backup_settings.load(world); target = settings.target("local", "database")
answers = []
with scratch_cluster.Scratch(world, settings.archive.version) as scratch:
    scratch.restore(settings, target)
    scratch.start(60, tcp_port=5999)
    exec(sys.argv[1])
print(json.dumps(answers))
"""


def on_scratch(host: Ground, script: str) -> list:
    """Run statements beside a restored server and return what they left in answers."""
    return json.loads(host.run("python3", "-c", ON_SCRATCH, script))


def test_a_server_that_works_hard_raises_no_alarm(host):
    host.sql(
        "CREATE TABLE IF NOT EXISTS busy (id bigserial PRIMARY KEY, name text); CREATE TABLE IF NOT EXISTS flag AS SELECT true AS up;"
        " CREATE TABLE IF NOT EXISTS emptied (id int); INSERT INTO busy (name) SELECT 'x' FROM generate_series(1, 5000)"
    )
    bench = "systemd-run -q --unit=work -p User=postgres -- /usr/lib/postgresql/*/bin/pgbench -n -f /tmp/work.sql -c 2 -R 40 -T 900 shop"
    host.shell(f"cat > /tmp/work.sql <<'Q'\n{WORK}\nQ\nchmod a+r /tmp/work.sql; {bench}")
    try:
        for _round in range(3):
            found = host.prove("database")
            assert found["ok"], found["cause"]
            shop = found["what"]["databases"]["shop"]
            assert "public.item" in shop["moving"] and "public.busy" in shop["moving"]
            assert shop["equal"] >= 4 and not shop["skipped"]
        assert host.shell("systemctl is-active work").strip() == "active"
    finally:
        host.shell("systemctl stop work; systemctl reset-failed work", check=False)


def test_what_a_killed_proof_leaves_goes_with_the_next(host):
    host.shell(
        "cat > /run/systemd/system/anchorage-backup-proof.service <<'U'\n[Service]\nType=oneshot\nExecStart=/usr/bin/python3 /root/hang.py\nU\n"
        "cat > /root/hang.py <<'P'\nimport sys, time\nsys.path.insert(0, '/root/engine')\n"
        "from module_utils import backup_proof, backup_settings, scratch_cluster\nfrom module_utils.app import Log\nfrom module_utils.world import World\n"
        "start = scratch_cluster.Scratch.start\n"
        "def hang(self, *a, **k):\n    start(self, *a, **k)\n    open('/run/hangs', 'w')\n    time.sleep(600)\n"
        "scratch_cluster.Scratch.start = hang\nw = World()\n"
        "backup_proof.prove(backup_settings.load(w), w, Log(print), job='database', target='local')\nP\n"
        "rm -f /run/hangs; systemctl daemon-reload; systemctl start --no-block anchorage-backup-proof"
    )
    host.shell("for i in $(seq 1200); do [ -e /run/hangs ] && exit 0; sleep 0.1; done; exit 1")
    host.shell("systemctl is-active anchorage-scratch-postgresql")
    host.shell("systemctl kill -s KILL anchorage-backup-proof")
    # The server ends with its caller; the files stay until somebody comes.
    host.shell("for i in $(seq 300); do systemctl is-active -q anchorage-scratch-postgresql || exit 0; sleep 0.1; done; exit 1")
    host.shell("systemctl reset-failed anchorage-backup-proof; rm /run/systemd/system/anchorage-backup-proof.service; systemctl daemon-reload")
    host.shell("test -d /var/lib/anchorage/backup/scratch/data/base")
    found = host.prove("database")
    assert found["ok"], found["cause"]


def test_a_throw_away_server_archives_nothing_and_sees_no_live_file(host):
    script = """
answers.append(scratch.psql("shop", "SHOW archive_mode"))
answers.append(scratch.psql("shop", "SELECT count(*) FROM item"))
scratch.psql("shop", "INSERT INTO item (name) VALUES ('mine')")
scratch.psql("shop", "SELECT pg_switch_wal()")
read = scratch.database("shop").psql("SELECT pg_ls_dir('/var/lib/postgresql')")
answers.append(read.stderr)
write = scratch.database("shop").psql("COPY item TO '/var/backups/anchorage/postgresql/x'")
answers.append(write.stderr)
answers.append(world.run(["psql", "-Atc", "SELECT current_user", "postgres://shop:sesame@127.0.0.1:5999/shop"]).stdout.strip())
answers.append(world.run(["psql", "-Atc", "SELECT 1", "postgres://shop:wrong@127.0.0.1:5999/shop"]).rc)
answers.append(world.run(["psql", "-Atc", "SELECT 1", scratch.url("shop")], user="nobody").rc)
"""
    segments = host.shell("find /var/backups/anchorage/postgresql/archive -name '0000000[2-9]*'")
    archive_mode, rows, reading, writing, who, wrong, stranger = on_scratch(host, script)
    assert archive_mode == "off" and int(rows) >= 20000
    assert "ermission denied" in reading
    assert "Read-only file system" in writing
    assert who == "shop" and wrong == 2 and stranger == 2
    assert host.shell("find /var/backups/anchorage/postgresql/archive -name '0000000[2-9]*'") == segments
    assert host.sql("SELECT count(*) FROM item WHERE name = 'mine'") == "0"


def test_a_restore_ends_at_the_second_that_was_asked_for(host):
    host.sql("INSERT INTO item (name) VALUES ('kept')")
    moment = host.sql("SELECT pg_sleep(1.1); SELECT clock_timestamp(); SELECT pg_sleep(1.1)").strip()
    host.sql('DROP TABLE "Od""d \'Name"; INSERT INTO item (name) VALUES (\'lost\')')
    host.sql("SELECT pg_switch_wal()")
    host.shell("sleep 2")
    script = f"""
scratch.remove(); scratch._make()
scratch.restore(settings, target, time={moment!r}); scratch.start(60)
answers.append(scratch.psql("shop", "SELECT count(*) FROM item WHERE name = 'kept'"))
answers.append(scratch.psql("shop", "SELECT count(*) FROM item WHERE name = 'lost'"))
answers.append(scratch.psql("shop", "SELECT count(*) FROM pg_class WHERE relname LIKE 'Od%'"))
"""
    assert on_scratch(host, script) == ["1", "0", "1"]
    host.sql("""CREATE TABLE "Od""d 'Name" (a int, t text, anchorage jsonb); INSERT INTO "Od""d 'Name" VALUES (1, 'x', '{"a": 1}')""")


def test_two_at_once_do_not_meet(host):
    script = """
try:
    with scratch_cluster.Scratch(world, settings.archive.version):
        answers.append("entered")
except scratch_cluster.AnchorageError as error:
    answers.append(error.message)
answers.append(scratch.psql("shop", "SELECT 1"))
"""
    said, still = on_scratch(host, script)
    assert "Another proof or restore uses" in said and still == "1"
