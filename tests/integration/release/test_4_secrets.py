# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Canaries for secrets: looked for in all that provisioning and releases say and leave, also where they were killed, on both sides."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time

from ansible_collections.anchorage.vps.tests.canary import Canaries

from .conftest import ROOT, RUNTIME, Host, kill, until
from .watch import Watch

#: A password for the app and a token for its build, with a bit of everything that is special to somebody between pieces of random letters.
#: New ones each time, since a constant stands in every copy of this file.
GIVEN = {
    "SMTP_PASSWORD": "'\"p$L1{s:D8@f/G3%h J5w\\Z0".join(secrets.token_hex(10) for _piece in range(2)),
    "NPM_TOKEN": "`H1x#E8&M3=vP6;oN0|jB7<iD4!".join(secrets.token_hex(10) for _piece in range(2)),
}

#: Where a secret may lie on a host, and why.
PLACES = {
    "/etc/anchorage/secrets/": "they are made and kept here, for root alone",
    "/etc/anchorage/apps/": "the app's document, from which root's steps make environments",
    "/srv/alpha/releases/": "the environment of each process and the document of each release, for root and the app",
    "/srv/alpha/work/": "the environment of a build while it runs, for root and the app",
    "/var/lib/anchorage/alpha/wish-": "what a step works with that runs, or was killed, for root alone",
    "/etc/pgbackrest.conf": "pgBackRest's configuration, for root and postgres",
    "/etc/pgbackrest/": "the same for each target by itself, as WAL is given to it",
}
if RUNTIME == "compose":
    PLACES |= dict.fromkeys(
        ["/var/lib/docker/containers/", "/var/lib/docker/volumes/", "/var/lib/containerd/", "/run/containerd/", "/run/docker/"],
        "what the Engine runs a container by is for root alone, as the container's environment is",
    )
    PLACES |= {"/srv/compose/": "files of the project that holds the services, for root and who runs in them"}

TREES = ["/etc", "/var", "/srv", "/opt", "/usr/local", "/root", "/home", "/run", "/tmp", "/dev/shm"]
#: What the watch has seen so far is searched when it has ended.
SAMPLED = ["samples"]
STRANGER = "setpriv --reuid=nobody --regid=nogroup --clear-groups"


def services(host: Host) -> dict[str, str]:
    """Return what services and their keepers tell."""
    if RUNTIME == "compose":
        return {
            "the containers' logs": host.shell("for name in $(docker ps -a --format '{{.Names}}'); do docker logs $name 2>&1; done"),
            "the images": host.shell("docker image inspect $(docker image ls -q); docker history --no-trunc $(docker image ls -q anchorage/alpha | head -1)"),
        }
    redis = "/usr/local/lib/anchorage/redis-instance alpha-jobs cli"
    return {
        "PM2's own list": host.shell("runuser -u alpha -- env -i PATH=/usr/local/bin:/usr/bin:/bin pm2 jlist"),
        "what PostgreSQL remembers of statements": host.sql("SELECT query FROM pg_stat_activity UNION ALL SELECT query FROM pg_stat_statements"),
        "PostgreSQL's roles and settings": host.sql("SELECT rolname || rolpassword FROM pg_authid UNION ALL SELECT setting FROM pg_settings"),
        "what Redis tells": host.shell(f"for ask in 'SLOWLOG GET 128' 'ACL LIST' 'ACL LOG' 'CLIENT LIST' 'CONFIG GET *' INFO; do {redis} $ask; done"),
    }


def told(host: Host) -> dict[str, str]:
    """Return what a host tells those who ask."""
    words = ("status alpha --json", "health alpha --json", "diagnose --deadline 3", "logs alpha --lines 200", "history alpha")
    return {
        "the journal": host.shell("journalctl --no-pager -o export"),
        "compressed logs": host.shell("find /var/log -name '*.gz' -exec zcat {} + 2>/dev/null || true"),
        **{f"anchorage {line}": host.shell(f"anchorage {line} 2>&1 || true") for line in words},
        **services(host),
    }


def here(since: float, left_out: pathlib.Path) -> dict[str, str]:
    """Return the files of this machine that are newer, where runs of Ansible leave some; not the inventory itself, where the user wrote a secret."""
    places = [pathlib.Path.home() / ".ansible", ROOT / ".ansible", ROOT / ".cache" / "lab", tempfile.gettempdir(), "/var/tmp", "/dev/shm"]
    found = {}
    for place in places:
        for directory, names, files in os.walk(place):
            names[:] = [name for name in names if pathlib.Path(directory, name) != left_out]
            for path in (pathlib.Path(directory, name) for name in files):
                with contextlib.suppress(OSError):
                    if path.is_file() and path.stat().st_mtime >= since and path.stat().st_size < 50_000_000:
                        found[str(path)] = path.read_text(errors="replace")
    return found


def strays(canaries: Canaries, host: Host) -> dict[str, list[str]]:
    """Return the files on a host that hold a secret and are none of its places."""
    found = canaries.files(host.shell, TREES, excluded=SAMPLED)
    # They are where they must be, or the search would prove nothing.
    assert {"/etc/anchorage/secrets/alpha.json", "/etc/anchorage/apps/alpha.json"} <= {*found}
    return {path: labels for path, labels in found.items() if not path.startswith(tuple(PLACES))}


def test_secrets_are_nowhere_but_in_their_places(shop):
    """A release that is killed on the controller, one that is killed on the host, and one that ends; at its most talkative."""
    host, since, inventories = shop.host, time.time(), shop.apps.directory.parent
    values = {name: value for name, value in GIVEN.items() if RUNTIME == "pm2" or name != "NPM_TOKEN"}
    kept = json.loads(host.shell("cat /etc/anchorage/secrets/alpha.json"))
    assert set(kept) == {"JWT_SECRET", "database_password", "redis_password"} | ({"database_superuser_password"} if RUNTIME == "compose" else set())
    key = json.loads(host.shell("cat /etc/anchorage/secrets/backup.json"))["key"]
    canaries = Canaries({**kept, **values, "key of the backups": key})
    # Once, and never again, the new key of the backups is printed, for the user to keep.
    assert shop.said.count(key) <= 1
    said = {"provisioning": shop.said.replace(key, "")}

    def wanted(**switches):
        shop.apps.app("alpha", env={"SMTP_PASSWORD": values["SMTP_PASSWORD"]}, **switches)
        if "NPM_TOKEN" in values:
            shop.apps.apps["alpha"]["build"] = {**shop.apps.apps["alpha"]["build"], "env": {"NPM_TOKEN": values["NPM_TOKEN"]}}
            shop.apps.write()

    def output(process):
        process.log.seek(0)
        return process.log.read().decode("utf-8", "replace")

    with Watch(host) as watch:
        wanted(build="slow:3")
        first = shop.apps.start("deploy", "-vvv", "--diff")
        until(lambda: host.unit_active("alpha-build"), "the build")
        kill(first)
        said["the run whose controller was killed"] = output(first)
        left = {"the controller was killed": (strays(canaries, host), canaries.texts(here(since, inventories)))}
        wanted(migrate="slow:8")
        until(lambda: not host.unit_active("alpha"), "the end of the killed run's step")
        second = shop.apps.start("deploy", "-vvv", "--diff")
        until(lambda: host.unit_active("alpha-migrate"), "the migration")
        host.shell("systemctl kill --signal=KILL anchorage-alpha.service")
        said["the run whose step was killed"] = shop.apps.end(second).output
        assert second.returncode > 0
        left["the step was killed"] = (strays(canaries, host), canaries.texts(here(since, inventories)))
        wanted()
        said["the run that ended"] = shop.apps.deploy("-vvv", "--diff").output
        said["a backup"] = host.shell("anchorage backup run 2>&1 || true")
        said["the verification"] = shop.apps.run("verify", "-vvv", "--diff").output
        places = told(host)

    online = host.serving().online
    raw = base64.b64decode(host.shell(f"base64 -w0 /proc/{online[min(online)]}/environ")).decode()
    assert f"SMTP_PASSWORD={values['SMTP_PASSWORD']}" in raw.split("\0"), "the app got it as it is"
    assert len(said["the run that ended"]) > 10_000 and len(places["the journal"]) > 10_000
    assert canaries.texts({**said, **places, **watch.texts}) == []
    assert canaries.texts(shop.provisioning.texts) == [], "while the host was provisioned"
    left["all went well"] = (strays(canaries, host), canaries.texts(here(since, inventories)))
    assert {when: found for when, found in left.items() if any(found)} == {}, "files of the host and of the controller, after"
    assert host.shell("ls -A /srv/alpha/work 2>/dev/null || true").strip() == ""
    assert canaries.files(host.shell, TREES, runner=STRANGER) == {}, "what everybody may read"
    assert host.shell("find /srv/alpha /etc/anchorage /var/lib/anchorage -type f -perm /o+w").strip() == ""


def test_the_search_finds_what_is_planted(shop):
    """In a file and in the journal of the host, in the life of a short process, in what a unit tells everybody, and on the controller."""
    host, since = shop.host, time.time()
    # Another one each time: it stays in the journal.
    secret = f"{secrets.token_hex(12)}'\"$ {secrets.token_hex(12)}"
    canaries = Canaries({"PLANTED": secret})
    given = base64.b64encode(secret.encode()).decode()
    decoded = f'"$(echo {given} | base64 -d)"'
    planted = pathlib.Path(tempfile.gettempdir()) / f"planted-{os.getpid()}"
    with Watch(host) as watch:
        planted.write_text(json.dumps({"password": secret}))
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)", secret], check=True)
        host.shell(f"umask 022; echo 'Basic: {given}' > /var/tmp/planted; logger a password: {decoded}")
        host.shell(f"python3 -c 'import time; time.sleep(0.05)' {decoded}; SECRET={decoded} {STRANGER} sleep 0.05")
        host.shell(f"systemd-run --quiet --collect --unit=anchorage-planted --setenv=SECRET={decoded} sleep 2; sleep 1.5")
    try:
        owner = host.shell("id -u nobody").strip()
        texts = {**watch.texts, **here(since, shop.apps.directory.parent), "journal": host.shell("journalctl -o export")}
        found = {place for place, text in texts.items() if canaries.text(text)}
        wanted = {*watch.texts, "journal", str(planted)} - {text for text in watch.texts if "uid" in text and text.split()[-1] != owner}
        assert found == wanted
        assert {*canaries.files(host.shell, TREES, excluded=["journal"])} == {"/var/tmp/planted"}
        assert {*canaries.files(host.shell, TREES, runner=STRANGER)} == {"/var/tmp/planted"}
    finally:
        planted.unlink()
        host.shell("rm -f /var/tmp/planted")
