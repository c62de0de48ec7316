# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with Debian's PostgreSQL, pgBackRest, restic and Redis, and a good backup of some data, for tests that break it and look who notices.

Nothing is provisioned: the engine's modules are copied there and called as they are, so that a test takes seconds.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
LAB = os.environ.get("ANCHORAGE_PROOF_LAB", "proof")
HOSTS = {"db": "trixie", "old": "bookworm"}

KEY = "0123456789abcdef" * 4
REPOSITORIES = "/var/backups/anchorage"

SETTINGS = """
set -e
export DEBIAN_FRONTEND=noninteractive
if ! command -v redis-check-rdb restic pgbackrest >/dev/null || ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
  apt-get update -qq >/dev/null && apt-get install -y -qq postgresql pgbackrest restic redis-server >/dev/null 2>&1
fi
V=$(ls /usr/lib/postgresql)
mkdir -p /etc/anchorage/secrets /var/spool/pgbackrest /srv/shop/shared
chmod 0700 /etc/anchorage/secrets
install -d -m 0711 %(repositories)s
install -d -o postgres -g postgres -m 0750 /var/spool/pgbackrest
cat > /etc/anchorage/backup.json <<J
{"schema": 1, "targets": [{"name": "local", "type": "local", "path": "%(repositories)s", "jobs": ["database", "files"]},
  {"name": "vault", "type": "local", "path": "%(repositories)s", "jobs": ["files"]}],
 "archive": {"version": "$V", "cluster": "main", "port": 5432, "stanza": "main"},
 "databases": [{"name": "shop", "app": "shop", "owner": "shop", "method": "archive", "url": null}], "redis": [{"name": "shop-jobs", "app": "shop"}],
 "paths": ["/etc/anchorage", "/srv/shop/shared"], "retention_days": 30, "proof": {"max_age_days": 8, "deploys": "warn", "boot": []},
 "timeouts": {"database_seconds": 600, "files_seconds": 600, "proof_seconds": 300}}
J
echo '{"key": "%(key)s"}' > /etc/anchorage/secrets/backup.json
cd /root/engine
python3 -c "
from module_utils import backup_settings
from module_utils.world import World
print(backup_settings.pgbackrest_configuration(backup_settings.load(World())))" > /etc/pgbackrest.conf
chgrp postgres /etc/pgbackrest.conf; chmod 0640 /etc/pgbackrest.conf
cat > /etc/postgresql/$V/main/conf.d/archive.conf <<P
archive_mode = on
archive_command = 'pgbackrest --stanza=main archive-push %%p'
shared_preload_libraries = 'pg_stat_statements'
P
rm -f /etc/postgresql/$V/main/conf.d/a.conf
printf 'anchorage postgres postgres\\nanchorage root postgres\\n' > /etc/postgresql/$V/main/pg_ident.conf
sed -i 's/^local *all *postgres.*/local all postgres peer map=anchorage/' /etc/postgresql/$V/main/pg_hba.conf
systemctl restart postgresql@$V-main
systemctl start redis-server
"""

DATA = """
set -e
cd /
psql -qU postgres -c 'DROP DATABASE IF EXISTS shop' -c 'DROP ROLE IF EXISTS shop'
psql -qU postgres -c "CREATE ROLE shop LOGIN PASSWORD 'sesame'" -c 'CREATE DATABASE shop OWNER shop'
psql -qU postgres shop <<'Q'
CREATE TABLE item (id bigserial PRIMARY KEY, name text, price numeric, at timestamptz DEFAULT now());
INSERT INTO item (name, price) SELECT md5(i::text), i / 7.0 FROM generate_series(1, 20000) AS i;
CREATE TABLE "Od""d 'Name" (a int, t text, anchorage jsonb);
INSERT INTO "Od""d 'Name" VALUES (1, 'x', '{"a": 1}');
ALTER TABLE item OWNER TO shop;
CREATE TABLE empty (id int);
CREATE UNLOGGED TABLE gone (id int); INSERT INTO gone VALUES (1);
CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
INSERT INTO parted SELECT i, 'v' || i FROM generate_series(1, 50) AS i;
CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM item;
CREATE EXTENSION pg_stat_statements;
SELECT lo_from_bytea(0, 'a large object');
CREATE SCHEMA anchorage;
CREATE TABLE anchorage.release (app text, id text, source text, host text, migrated_at timestamptz DEFAULT now(), PRIMARY KEY (app, id));
INSERT INTO anchorage.release VALUES ('shop', 'r1', 's1', 'h');
Q
redis-cli -n 0 FLUSHALL >/dev/null
for i in $(seq 1 40); do echo "SET key:$i value-$i"; done | redis-cli >/dev/null
for i in $(seq 1 30); do head -c $((i * 1000)) /dev/urandom > "/srv/shop/shared/upload [$i]*?.bin"; done
rm -rf %(repositories)s/postgresql %(repositories)s/files
install -d -o postgres -g postgres -m 0750 %(repositories)s/postgresql
P='setpriv --reuid=postgres --regid=postgres --init-groups -- pgbackrest --stanza=main'
$P stanza-create
$P --type=full backup
psql -qU postgres shop -c "INSERT INTO item (name) SELECT 'later' FROM generate_series(1, 100)"
psql -qAtU postgres -c 'SELECT pg_switch_wal()' >/dev/null
sleep 1
psql -qU postgres shop -c "INSERT INTO item (name) SELECT 'latest' FROM generate_series(1, 100)"
psql -qAtU postgres -c 'SELECT pg_switch_wal()' >/dev/null
sleep 1
"""

#: Saves files as the job does: dumps and Redis data beside them, with a manifest.
FILES = """
import hashlib, json, os, shutil, subprocess, sys, time
sys.path.insert(0, "/root/engine")
from module_utils import backup_settings
from module_utils.world import World

stage = "/var/lib/anchorage/backup/stage"
settings = backup_settings.load(World())
argv, environment = settings.restic(settings.target("vault", "files"))
run = lambda *words: subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
shutil.rmtree(stage, ignore_errors=True)
os.makedirs(stage + "/databases"); os.makedirs(stage + "/redis")
run("pg_dump", "--format=custom", "--compress=0", "-U", "postgres", "-f", stage + "/databases/shop.dump", "shop")
run("redis-cli", "--rdb", stage + "/redis/shop-jobs.rdb")
names = run("psql", "-qAtU", "postgres", "shop", "-c",
  "SELECT n.nspname || '.' || c.relname || chr(9) || format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
  " WHERE relkind = 'r' AND relpersistence = 'p' AND n.nspname IN ('public', 'anchorage')").splitlines()
tables = {}
for line in names:
    name, quoted = line.split(chr(9))
    tables[name] = int(run("psql", "-qAtU", "postgres", "shop", "-c", "SELECT count(*) FROM " + quoted))
def weigh(path):
    raw = open(path, "rb").read()
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
manifest = {"at": time.time(), "databases": {"shop": {"tables": tables}}, "redis": {"shop-jobs": {"keys": 40}}}
exec(sys.argv[1])
manifest["databases"].get("shop", {}).update(weigh(stage + "/databases/shop.dump"))
manifest["redis"].get("shop-jobs", {}).update(weigh(stage + "/redis/shop-jobs.rdb"))
exec(sys.argv[2])
json.dump(manifest, open(stage + "/manifest.json", "w"))
exec(sys.argv[3])
if not os.path.exists(settings.target("vault", "files").path + "/files"):
    subprocess.run([*argv, "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
paths = [stage, "/etc/anchorage", "/srv/shop/shared"]
subprocess.run([*argv, "backup", "--quiet", "--tag=files", "--host=" + os.uname().nodename, *paths], env=environment, check=True)
shutil.rmtree(stage)
"""

PROVE = """
import json, sys
sys.path.insert(0, "/root/engine")
from module_utils import backup_proof, backup_settings, scratch_cluster
from module_utils.app import Log
from module_utils.world import World
world = World()
exec(sys.argv[3])
found = backup_proof.prove(backup_settings.load(world), world, Log(lambda line: print(line, file=sys.stderr)), job=sys.argv[1], target=sys.argv[2])
print(json.dumps(found))
"""


class Ground:
    """One host."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.container = f"anchorage-lab-{LAB}-{name}"

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script as root and return what it printed."""
        return self.run("bash", "-c", script, check=check)

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a command as root."""
        done = subprocess.run(["docker", "exec", "-i", self.container, *argv], capture_output=True, text=True, check=False)
        if check and done.returncode:
            pytest.fail(f"{argv[-1][:200]} ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}", pytrace=False)
        self.said = done.stderr
        return done.stdout

    def prepare(self) -> None:
        """Make the host what the module says."""
        self.shell("rm -rf /root/engine; mkdir -p /root/engine")
        subprocess.run(["docker", "cp", "-q", str(ROOT / "plugins/module_utils"), f"{self.container}:/root/engine/module_utils"], check=True)
        names = {"repositories": REPOSITORIES, "key": KEY}
        self.shell(SETTINGS % names)
        self.shell(DATA % names)
        self.files()

    def files(self, weighed: str = "", told: str = "", saved: str = "") -> None:
        """Save files; statements change the stage before it is weighed, before the manifest is written, and before it is saved."""
        self.run("python3", "-c", FILES, weighed, told, saved)

    def keep(self) -> None:
        """Put the good backup aside."""
        self.shell(f"rm -rf /root/good; cp -a {REPOSITORIES} /root/good; cp -a /etc/pgbackrest.conf /root/pgbackrest.conf")

    def mend(self) -> None:
        """Bring the good backup back, and the WAL that has come since."""
        self.shell(
            f"chown -R postgres: {REPOSITORIES}/postgresql; chmod -R u+rwX,g+rX {REPOSITORIES}/postgresql;"
            "cp -a /root/pgbackrest.conf /etc/pgbackrest.conf;"
            f" cp -a --no-clobber {REPOSITORIES}/postgresql/archive/. /root/good/postgresql/archive/ 2>/dev/null;"
            f" rm -rf {REPOSITORIES}/*; cp -a /root/good/. {REPOSITORIES}/;"
            f' echo \'{{"key": "{KEY}"}}\' > /etc/anchorage/secrets/backup.json'
        )

    def prove(self, job: str, target: str = "", plant: str = "") -> dict[str, t.Any]:
        """Prove a job's backup there, and see that nothing is left of it and that the target was not written to."""
        target = target or {"database": "local", "files": "vault"}[job]
        print_of = f"cd {REPOSITORIES}/files 2>/dev/null && find . -type f -printf '%p %s %T@\\n' | sort | sha256sum"
        before = self.shell(print_of, check=False)
        found = json.loads(self.run("python3", "-c", PROVE, job, target, plant))
        assert self.shell(print_of, check=False) == before
        left = self.shell("ls /var/lib/anchorage/backup; systemctl list-units --all --plain --no-legend 'anchorage-*'").split()
        assert left == ["scratch.lock"], left
        assert set(found) == {"finished", "ok", "cause", "seconds", "what"}
        return found

    def sql(self, text: str, database: str = "shop") -> str:
        """Ask the live cluster."""
        return self.run("psql", "-qAtU", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text, database).strip()


@pytest.fixture(scope="session", name="ground", params=list(HOSTS))
def ground_fixture(request) -> t.Iterator[Ground]:
    """A host with a good backup."""
    lab = [sys.executable, "-m", "tests.lab"]
    subprocess.run([*lab, "up", LAB, *[f"--host={name}:{release}" for name, release in HOSTS.items()]], cwd=ROOT, check=True, capture_output=True)
    host = Ground(request.param)
    host.prepare()
    yield host
    if not os.environ.get("KEEP_LAB") and request.param == list(HOSTS)[-1]:
        subprocess.run([*lab, "down", LAB], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(name="host")
def host_fixture(ground) -> t.Iterator[Ground]:
    """A host whose backup may be broken."""
    ground.keep()
    yield ground
    ground.mend()
