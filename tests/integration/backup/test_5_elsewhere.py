# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that leave the machine: to an S3 store, and to a host where only adding is possible. Both are real ones, on another host of the lab."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
LAB = os.environ.get("ANCHORAGE_AWAY_LAB", "backup-away")

#: A server that speaks S3 and checks signatures, from npm; its one user is built in.
SERVER, VERSION, USER = "s3rver", "3.7.1", "S3RVER"

PLAY = """
- hosts: web
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: anchorage.vps.postgresql}
    - ansible.builtin.include_role: {name: anchorage.vps.redis}
    - ansible.builtin.include_role: {name: anchorage.vps.backup}
"""


class Place:
    """The two hosts."""

    def __init__(self, directory):
        self.directory = directory
        self.lab("up", LAB, "--host=web:trixie", "--host=vault:trixie")
        self.hosts = ROOT / ".cache" / "lab" / LAB / "hosts.yml"
        self.facts = yaml.safe_load(self.hosts.read_text())["all"]

    @staticmethod
    def lab(*argv):
        return subprocess.run([sys.executable, "-m", "tests.lab", *argv], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    def shell(self, host, script, *, check=True, given=None):
        done = subprocess.run(
            ["docker", "exec", "-i", f"anchorage-lab-{LAB}-{host}", "sh", "-c", script], input=given, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def play(self, *, play=PLAY, **variables):
        (self.directory / "play.yml").write_text(play)
        (self.directory / "variables.json").write_text(json.dumps(variables))
        argv = ["ansible-playbook", "-i", str(self.hosts), str(self.directory / "play.yml"), "-e", f"@{self.directory / 'variables.json'}"]
        done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def address(self, host):
        return self.shell(host, "hostname -I").split()[0]


def store(place):
    """Let the vault serve S3 over TLS, with a certificate of an authority that the web host knows."""
    work = place.directory / "s3"
    work.mkdir()
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("this machine has no npm to bring an S3 server by")
    subprocess.run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", f"{SERVER}@{VERSION}"], cwd=work, check=True, capture_output=True)
    subprocess.run(["docker", "cp", str(work / "node_modules"), f"anchorage-lab-{LAB}-vault:/opt/node_modules"], check=True, capture_output=True)
    address = place.address("vault")
    place.shell("vault", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs openssl restic rclone >/dev/null 2>&1")
    place.shell(
        "vault",
        "mkdir -p /srv/s3 && cd /srv/s3 && openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout key.pem -out cert.pem -subj /CN=vault"
        f" -addext subjectAltName=DNS:vault,IP:{address} 2>/dev/null && mkdir -p data/backups"
        " && systemd-run --quiet --unit=verify-s3 --working-directory=/srv/s3 node /opt/node_modules/s3rver/bin/s3rver.js -d data -a 0.0.0.0 -p 9000"
        " --key key.pem --cert cert.pem"
        " --no-vhost-buckets --configure-bucket backups",
    )
    certificate = place.shell("vault", "cat /srv/s3/cert.pem")
    place.shell("web", "cat > /etc/ssl/certs/vault.pem", given=certificate)
    return {
        "name": "offsite", "type": "s3", "endpoint": f"https://{address}:9000", "bucket": "backups", "path": "web1", "access_key": USER,
        "secret_key": USER, "ca_file": "/etc/ssl/certs/vault.pem",
    }  # fmt: skip


def keeper(place):
    """Let the vault take what the web host adds, and nothing else."""
    place.shell("vault", "useradd --create-home --shell /bin/sh keeper && install -d -o keeper -g keeper -m 0700 /srv/keeper /home/keeper/.ssh")
    key = place.shell("vault", "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()
    return {"name": "vault", "type": "ssh", "host": place.address("vault"), "user": "keeper", "known_hosts": f"{place.address('vault')} {key}"}


def let_in(place):
    """Do what the role says is to be done there."""
    public = place.shell("web", "cat /etc/anchorage/backup_ssh.pub").strip()
    forced = r"rclone serve restic --stdio --append-only \"/srv/keeper/at-${SSH_ORIGINAL_COMMAND##*[ /]}\""
    line = f'restrict,command="{forced}" {public}\n'
    place.shell("vault", "cat > /home/keeper/.ssh/authorized_keys && chown keeper: /home/keeper/.ssh/authorized_keys", given=line)


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    """A host that backs up to itself, to a store and to a keeper."""
    if not os.environ.get("KEEP_LAB"):
        Place.lab("down", LAB)
    place = Place(tmp_path_factory.mktemp("away"))
    users = [{"name": "shop", "password": "sesame-open-sesame"}]
    place.variables = {
        "postgresql_databases": [{"name": "shop", "owner": "shop", "password": "sesame-open-sesame"}],
        "postgresql_archive_command": "/usr/local/lib/anchorage/pgbackrest-archive %p",
        "redis_instances": [{"name": "shop-jobs", "port": 6379, "maxmemory_mb": 64, "users": users}],
        "backup_postgresql": {"version": "17"},
        "backup_databases": [{"name": "shop", "app": "shop", "owner": "shop"}],
        "backup_redis": [{"name": "shop-jobs", "app": "shop"}],
        "backup_targets": [{"name": "local", "type": "local", "path": "/var/backups/anchorage"}, store(place), keeper(place)],
    }
    place.said = place.play(**place.variables)
    let_in(place)
    place.shell("web", "psql -qU postgres shop -c 'CREATE TABLE item AS SELECT generate_series(1, 5000) AS id' -c 'ALTER TABLE item OWNER TO shop'")
    yield place
    if not os.environ.get("KEEP_LAB"):
        Place.lab("down", LAB)


def run(place, *words, good=True):
    output = place.shell("web", f"anchorage backup {' '.join(words)} 2>&1; echo code $?", check=False)
    assert ("code 0" in output) == good, output[-3000:]
    return output


def results(place, job):
    return json.loads(place.shell("web", f"cat /var/lib/anchorage/backup/{job}.json"))


@pytest.mark.fault
def test_a_host_that_nobody_is_let_in_to_yet_is_told_and_holds_up_nothing(away):
    assert "rclone serve restic --stdio --append-only" in away.said and "WARNING: not everything of web is backed up" in away.said
    assert "A new key encrypts the backups of web: " in away.said


@pytest.mark.fault
def test_every_target_gets_what_is_its_own_and_each_is_proven(away):
    # Who was not let in some times is kept out for a while by OpenSSH's penalties.
    away.shell("web", "until anchorage backup run >/dev/null 2>&1; do sleep 10; test $((tries=tries+1)) -lt 20; done")
    proof = run(away, "prove")
    assert results(away, "database")["targets"].keys() == {"local", "offsite"} and results(away, "files")["targets"].keys() == {"local", "offsite", "vault"}
    assert all(results(away, job)["ok"] and results(away, job)["proof"]["ok"] for job in ("database", "files")), proof
    # Where no WAL goes there is a dump, and its rows are those that were there.
    assert "shop" in proof and "5000 rows" in proof
    (found,) = json.loads(away.shell("web", "anchorage health --kinds backup --json"))["parts"]
    assert found["grade"] == "green", found


@pytest.mark.fault
def test_nothing_of_it_is_readable_there_and_the_key_is_not_there(away):
    key = away.shell("web", "anchorage backup key").strip()
    away.shell("web", "echo a-line-that-is-searched-for > /etc/anchorage/canary")
    run(away, "run", "files")
    for words in ("a-line-that-is-searched-for", key):
        assert away.shell("vault", f"grep -rlaF '{words}' /srv /home; true") == ""


@pytest.mark.fault
def test_the_keeper_takes_and_gives_nothing_back_up(away):
    """Whoever has this host's key and its SSH key can add, and remove nothing."""
    program = "ssh -p 22 -i /etc/anchorage/backup_ssh -o BatchMode=yes -o UserKnownHostsFile=/etc/anchorage/backup_known_hosts"
    restic = f"RESTIC_PASSWORD=$(anchorage backup key) restic --no-cache -r rclone:files -o rclone.program='{program} keeper@{away.address('vault')}'"
    run(away, "run", "files")
    before = away.shell("vault", "find /srv/keeper -type f -path '*snapshots*' | sort")
    assert len(before.splitlines()) > 1
    removed = away.shell("web", f"{restic} forget --keep-last 1 --group-by host --prune; true")
    assert "403" in removed or "not allowed" in removed.lower() or "blocked" in removed.lower() or "removal failed" in removed.lower(), removed
    assert set(before.splitlines()) <= set(away.shell("vault", "find /srv/keeper -type f -path '*snapshots*' | sort").splitlines())
    shell = away.shell("web", f"{program} keeper@{away.address('vault')} rm -rf /srv/keeper; true")
    assert "rm" not in shell and away.shell("vault", "ls /srv/keeper").strip() == "at-files"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("stop", "start", "target"), [("systemctl stop verify-s3", None, "offsite"), ("chmod 0 /srv/keeper", "chmod 0700 /srv/keeper", "vault")]
)
def test_a_target_that_is_away_is_named_the_others_are_served_and_it_catches_up(away, stop, start, target):
    before = {name: found["backup"] for name, found in results(away, "files")["targets"].items()}
    away.shell("vault", stop)
    try:
        run(away, "run", "files", good=False)
        found = results(away, "files")
        assert found["cause"].startswith(f"{target}: ") and [name for name, one in found["targets"].items() if not one["ok"]] == [target]
        assert all(one["backup"] != before[name] for name, one in found["targets"].items() if one["ok"])
        (health,) = json.loads(away.shell("web", "anchorage health --kinds backup --json; true"))["parts"]
        assert health["grade"] == "red" and target in health["message"]
    finally:
        address = away.address("vault")
        again = (
            "cd /srv/s3 && systemctl reset-failed verify-s3 2>/dev/null; systemd-run --quiet --unit=verify-s3 --working-directory=/srv/s3"
            " node /opt/node_modules/s3rver/bin/s3rver.js -d data -a 0.0.0.0 -p 9000 --key key.pem --cert cert.pem --no-vhost-buckets"
        )
        away.shell("vault", start or again)
        assert address
    away.shell("web", "until anchorage backup run files >/dev/null 2>&1; do sleep 1; test $((tries=tries+1)) -lt 20; done")
    assert results(away, "files")["ok"]


@pytest.mark.fault
def test_a_second_run_changes_nothing(away):
    assert "changed=0 " in away.play(**away.variables)


#: What rotate_backup_key.yml does, for a host that no contract speaks of.
ROTATION = """
- hosts: web
  gather_facts: false
  tasks:
    - anchorage.vps.secret_rotation: {operation: begin, app: backup}
      register: begun
    - ansible.builtin.include_role: {name: anchorage.vps.backup}
    # Who was not let in some times is kept out for a while by OpenSSH's penalties.
    - ansible.builtin.command: {argv: [anchorage, backup, run, --due, --json]}
      register: saved
      until: saved.rc == 0
      retries: 20
      delay: 10
    - anchorage.vps.secret_rotation: {operation: prove, app: backup, id: "{{ begun.id }}"}
      register: proof
    - ansible.builtin.debug: {var: proof.lines}
    - anchorage.vps.secret_rotation: {operation: retire, app: backup, id: "{{ begun.id }}"}
    - ansible.builtin.include_role: {name: anchorage.vps.backup}
    - anchorage.vps.secret_rotation: {operation: finish, app: backup, id: "{{ begun.id }}"}
"""

AGE = """
import json
for path in ("/etc/anchorage/secrets/backup.json", "/etc/anchorage/backup.json"):
    data = json.load(open(path))
    (data.get("keys") or data)["former"][0]["until"] = 1.0
    json.dump(data, open(path, "w"), indent=4, sort_keys=True)
"""


@pytest.mark.fault
def test_a_new_key_opens_new_repositories_at_each_of_them_and_the_former_ones_go(away):
    old = away.shell("web", "anchorage backup key").strip()
    away.shell("web", "until anchorage backup run --due >/dev/null 2>&1; do sleep 10; test $((tries=tries+1)) -lt 20; done")
    said = away.play(**away.variables, play=ROTATION)
    assert said.count("saved and proven with the new key; the former one is refused") == 5
    kept = json.loads(away.shell("web", "cat /etc/anchorage/secrets/backup.json"))
    place = kept["place"]
    assert set(away.shell("vault", "ls /srv/keeper").split()) == {"at-files", f"at-files-{place}"}
    listed = json.loads(away.shell("web", "anchorage backup list --json"))
    assert len(listed) == 10 and all(one["backups"] and not one["problem"] for one in listed), listed
    assert "changed=0 " in away.play(**away.variables)

    before = away.shell(
        "vault", "find /srv/s3/data/backups/web1 -type f -path '*/postgresql/*' | wc -l; find /srv/s3/data/backups/web1/files/data -type f | wc -l"
    )
    assert "0" not in before.split()
    away.shell("web", "python3 -", given=AGE)
    said = run(away, "run", "database") + run(away, "run", "files")
    assert "offsite-before-2: what the former key has saved of database is removed" in said and "is forgotten" in said, said
    assert f"on {away.address('vault')}, below what its forced command serves, remove files" in said
    found = away.shell("vault", "find /srv/s3/data/backups/web1/postgresql /srv/s3/data/backups/web1/files/data -type f 2>/dev/null; true")
    assert found == "", found
    assert sorted(away.shell("web", "ls /var/backups/anchorage").split()) == [f"files-{place}", f"postgresql-{place}"]
    assert old not in away.shell("web", "cat /etc/anchorage/secrets/* /etc/anchorage/*.json /etc/pgbackrest.conf /etc/pgbackrest/*")
    assert "changed=0 " in away.play(**away.variables)
    run(away, "prove")
