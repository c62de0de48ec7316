# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true on the host itself. Runs there, as root."""

import glob
import json
import os
import pathlib
import pwd
import re
import subprocess
import urllib.error
import urllib.request

from canary import Canaries

LOOPBACK = ("127.0.0.1", "::1")


def run(*argv, **options):
    return subprocess.run(argv, capture_output=True, text=True, **options)


def read(path):
    return pathlib.Path(path).read_text(errors="replace")


def sql(query, database="shop"):
    if DOCKED:
        done = run("docker", "exec", "shop-base-postgres-1", "psql", "-XAtU", "postgres", "-d", database, "-c", query)
    else:
        done = run("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "psql", "-XAtd", database, "-c", query, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


DOCKED = json.loads(read("/etc/anchorage/apps/shop.json")).get("runtime") == "compose"
STATE = json.loads(run("/usr/local/bin/anchorage", "status", "--json").stdout)[0]
SECRETS = json.loads(read("/etc/anchorage/secrets/shop.json"))
ENVIRONMENTS = {}
for directory in glob.glob("/proc/[0-9]*"):
    try:
        pairs = read(f"{directory}/environ").split("\0")
    except OSError:
        continue
    environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if environment.get("ANCHORAGE_PROCESS", "").startswith("shop-") and "cli.js" in read(f"{directory}/cmdline"):
        ENVIRONMENTS[environment["MEDUSA_WORKER_MODE"]] = (directory, environment)

EXPECTED = {
    "server": {"MEDUSA_WORKER_MODE": "server", "DISABLE_MEDUSA_ADMIN": "false", "PORT": "9000"},
    "worker": {"MEDUSA_WORKER_MODE": "worker", "DISABLE_MEDUSA_ADMIN": "true", "PORT": "9001"},
}
PLACE = "postgres:5432/shop?sslmode=disable" if DOCKED else "127.0.0.1:5432/shop"
COMMON = {
    "NODE_ENV": "production",
    "HOST": "0.0.0.0" if DOCKED else "127.0.0.1",
    "STORE_CORS": "https://shop.localhost",
    "ADMIN_CORS": "https://shop.localhost",
    "AUTH_CORS": "https://shop.localhost",
    "MEDUSA_BACKEND_URL": "https://shop.localhost",
    "JWT_SECRET": SECRETS["JWT_SECRET"],
    "COOKIE_SECRET": SECRETS["COOKIE_SECRET"],
    "DATABASE_URL": f"postgres://shop:{SECRETS['database_password']}@{PLACE}",
    "REDIS_URL": f"redis://shop:{SECRETS['redis_password']}@{'redis-jobs' if DOCKED else '127.0.0.1'}:6379/0",
    "RELEASE_ID": STATE["live"],
}
OWN = {"ANCHORAGE_PROCESS", "ANCHORAGE_RELEASE", "HOME", "LANG", "MEDUSA_DISABLE_TELEMETRY", "NODE_EXTRA_CA_CERTS", "PATH"} | (
    {"HOSTNAME"} if DOCKED else set()
)
UNIT = "docker.service" if DOCKED else "pm2-shop.service"
PORT = "15432" if DOCKED else "5432"


def two_processes_of_one_user_in_one_unit():
    assert sorted(ENVIRONMENTS) == ["server", "worker"], sorted(ENVIRONMENTS)
    for directory, _environment in ENVIRONMENTS.values():
        owner = pwd.getpwuid(int(re.search(r"^Uid:\s+(\d+)", read(f"{directory}/status"), re.M).group(1)))
        assert owner.pw_name == "shop" and owner.pw_shell.endswith("nologin"), owner
        assert ("/docker/" if DOCKED else UNIT) in read(f"{directory}/cgroup"), read(f"{directory}/cgroup")
    assert run("systemctl", "is-enabled", UNIT).stdout.strip() == "enabled"


def exactly_their_environment():
    for mode, (_directory, environment) in ENVIRONMENTS.items():
        wanted = {**COMMON, **EXPECTED[mode]}
        wrong = sorted(key for key in wanted if environment.get(key) != wanted[key])
        assert not wrong, f"{mode}: {wrong}"
        surplus = sorted(set(environment) - set(wanted) - OWN)
        assert not surplus, f"{mode}: {surplus}"


def on_loopback_only():
    lines = [line.split() for line in run("ss", "-Hltn").stdout.splitlines()]
    inside = [line[3] for line in lines if line[3].rsplit(":", 1)[1] not in ("22", "80", "443")]
    assert "127.0.0.1:9000" in inside and "127.0.0.1:9001" in inside, inside
    outside = [address for address in inside if not address.rsplit(":", 1)[0].strip("[]").startswith(("127.", "::1"))]
    assert not outside, outside


def answers_where_it_should():
    for port in (9000, 9001):
        assert status_of(f"http://127.0.0.1:{port}/health") == 200, port
    assert status_of("http://127.0.0.1:9000/app") == 200
    assert status_of("http://127.0.0.1:9001/app") == 404


def backend_url_is_in_the_admin():
    if DOCKED:
        bundle = [run("docker", "exec", f"shop-server-{STATE['slot']}", "sh", "-c", "cat public/admin/assets/*.js").stdout]
    else:
        bundle = [read(path) for path in glob.glob(f"/srv/shop/releases/{STATE['live']}/app/public/admin/assets/*.js")]
    assert any("https://shop.localhost" in text for text in bundle), f"not in {len(bundle)} files"


def migrated_once_before_the_first_start():
    assert sql("SELECT count(*) FROM anchorage.release") == "1"
    history = [entry["event"] for entry in json.loads(read("/var/lib/anchorage/shop/journal.json"))["history"]]
    assert history.count("migrated") == 1 and history.index("migrated") < history.index("switched"), history


def the_app_owns_its_database_and_enters_no_other():
    assert sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'") == "shop"
    assert sql("SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = 'shop'") == "f"
    for database in ("postgres", "template1"):
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": SECRETS["database_password"]}
        done = run("psql", "-XAt", f"host=127.0.0.1 port={PORT} user=shop dbname={database}", "-c", "SELECT 1", env=environment)
        assert done.returncode != 0, f"shop may enter {database}"


def redis_keeps_jobs():
    tool = ("/usr/local/lib/anchorage/redis-instance", "shop-jobs", "cli")
    if DOCKED:
        login = f"REDISCLI_AUTH={SECRETS['redis_password']}"
        tool = ("docker", "exec", "--env", login, "shop-base-redis-jobs-1", "redis-cli", "--user", "shop", "--no-auth-warning")
    assert "yes" in run(*tool, "CONFIG", "GET", "appendonly").stdout
    assert "noeviction" in run(*tool, "CONFIG", "GET", "maxmemory-policy").stdout


def renewal_is_armed():
    assert run("systemctl", "is-active", "certbot.timer").stdout.strip() == "active"


def secrets_lie_nowhere_else():
    canaries = Canaries(SECRETS)
    # What the Engine runs a container by is for root alone, as the container's environment is.
    allowed = ("/etc/anchorage/", "/srv/shop/releases/", "/run/containerd/", "/run/docker/")
    trees = ("/var/lib/pm2", "/var/log", "/var/tmp", "/tmp", "/dev/shm", "/root", "/srv/shop/builds", "/var/lib/anchorage", "/run", "/etc")
    holders = canaries.files(lambda script, given: subprocess.run(["sh", "-c", script], input=given, capture_output=True, text=True).stdout, trees)
    assert "/etc/anchorage/secrets/shop.json" in holders, "the search finds them where they are"
    strays = {path: names for path, names in holders.items() if not path.startswith(allowed)}
    assert not strays, strays
    for path in glob.glob("/srv/shop/releases/*/run/*") + glob.glob("/etc/anchorage/*/*.json"):
        assert not os.stat(path).st_mode & 0o007, path
    listed = run("ps", "-ewwo", "args").stdout
    told = canaries.texts({"command lines": listed, "the journal": run("journalctl", "--no-pager", "-o", "export", errors="replace").stdout})
    assert not told, told


CHECKS = (
    two_processes_of_one_user_in_one_unit,
    exactly_their_environment,
    on_loopback_only,
    answers_where_it_should,
    backend_url_is_in_the_admin,
    migrated_once_before_the_first_start,
    the_app_owns_its_database_and_enters_no_other,
    redis_keeps_jobs,
    renewal_is_armed,
    secrets_lie_nowhere_else,
)
failures = []
for check in CHECKS:
    try:
        check()
        print(f"{check.__name__}: ok")
    except AssertionError as error:
        failures.append(check.__name__)
        print(f"{check.__name__}: FAILED: {error}")
raise SystemExit(1 if failures else 0)
