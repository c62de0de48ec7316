# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Good releases: what is built anew and what is not, requests while the slot is switched, secrets, several apps, a reboot."""

from __future__ import annotations

import json
import shlex

import pytest

from .conftest import RUNTIME, Visitor, kill, until


def test_a_change_of_the_environment_is_a_release_of_the_same_tree(shop):
    before, journal = shop.host.serving(), shop.host.journal()
    shop.apps.apps["alpha"] = {**shop.apps.apps["alpha"], "env": {"GREETING": "hello $HOME 'x' \"y\" #z"}}
    shop.apps.write()
    with Visitor(shop.host) as visitor:
        ended = shop.apps.deploy()
    after, now = shop.host.serving(), shop.host.journal()
    after.check()
    assert after.live != before.live and after.slot != before.slot
    assert now["releases"][after.live]["tree"] == journal["tree"], "the tree is the same"
    assert "is built already" in ended.output and "node build.js" not in ended.output
    assert shop.host.public()["greeting"] == "hello $HOME 'x' \"y\" #z"
    visitor.check()
    assert set(visitor.releases) == {before.live, after.live}, "every request was answered, by the one or the other"
    assert visitor.releases == sorted(visitor.releases, key=[before.live, after.live].index), "nobody was sent back to the old one"


@pytest.mark.fault
def test_a_source_that_is_put_back_is_not_built_again_and_old_releases_go(shop):
    old, first = dict(shop.apps.apps["alpha"]), shop.host.serving()
    shop.apps.app("alpha")
    shop.apps.deploy()
    assert shop.host.serving().live != first.live
    runs = shop.host.runs()
    shop.apps.apps["alpha"] = old
    shop.apps.write()
    ended = shop.apps.deploy()
    assert shop.host.serving().live == first.live and shop.host.runs() == runs and "node build.js" not in ended.output
    shop.apps.app("alpha")
    shop.apps.deploy()
    journal = shop.host.journal()
    kept = set(shop.host.shell("ls /srv/alpha/releases").split())
    assert kept == set(journal["releases"]) and len(kept) <= 3
    assert {journal["live"], journal["previous"]} <= kept
    assert set(shop.host.shell("ls -A /srv/alpha/builds").split()) == {entry["tree"] for entry in journal["releases"].values()}


CANARY = "kQ7rT2vX9mB4nC6pL1sD8fG3hJ5wZ0yA"
WATCH = "systemd-run --collect --quiet --unit=watch-commands python3 -c "
WATCHER = """
import glob, pathlib, time
while True:
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try: text = pathlib.Path(path).read_text(errors='replace')
        except OSError: continue
        open('/root/commands', 'a').write(text + chr(10))
    time.sleep(0.05)
"""


def of_pm2(host):
    """Return what PM2 tells and keeps."""
    return {
        "PM2's own list": host.shell("runuser -u alpha -- env -i PATH=/usr/local/bin:/usr/bin:/bin pm2 jlist"),
        "PM2's files and logs": host.shell("cat $(find /var/lib/pm2/alpha /var/log/pm2/alpha -type f)"),
    }


def of_containers(host):
    """Return what the containers printed, and what the images are made of."""
    return {
        "the containers' logs": host.shell("for name in $(docker ps -a --format '{{.Names}}'); do docker logs $name 2>&1; done"),
        "the images": host.shell("docker image inspect $(docker image ls -q); docker history --no-trunc $(docker image ls -q anchorage/alpha | head -1)"),
    }


def test_secrets_are_nowhere_but_in_their_places(shop):
    """One canary for each generated secret, looked for in all that a run says and leaves, at its most talkative."""
    host = shop.host
    host.shell(f"rm -f /root/commands; {WATCH}{shlex.quote(WATCHER)}")
    try:
        shop.apps.app("alpha", env={"SMTP_PASSWORD": CANARY})
        said = shop.apps.deploy("-vvv", "--diff").output
    finally:
        host.shell("systemctl stop watch-commands.service")
    kept = json.loads(host.shell("cat /etc/anchorage/secrets/alpha.json"))
    assert set(kept) == {"JWT_SECRET", "database_password", "redis_password"} | ({"database_superuser_password"} if RUNTIME == "compose" else set())
    canaries = {**kept, "SMTP_PASSWORD": CANARY}
    patterns = "\n".join(canaries.values())
    places = {
        "the output at -vvv --diff": said,
        "host's journal": host.shell("journalctl --no-pager -o cat"),
        "command lines": host.shell("cat /root/commands"),
        "the engine's state": host.shell("cat /var/lib/anchorage/alpha/journal.json /var/lib/anchorage/alpha/step.json"),
        **(of_containers(host) if RUNTIME == "compose" else of_pm2(host)),
        "the steps' logs": host.shell("cat /var/lib/anchorage/alpha/log/*"),
    }
    assert len(places["command lines"]) > 1000, "the watcher watched"
    found = [f"{name} in {place}" for place, text in places.items() for name, value in canaries.items() if value in text]
    assert not found
    trees = "/etc /var /srv /opt /usr/local /root /home /run /tmp"
    stranger = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    assert host.shell(f"cd / && {stranger} grep -rlF -f - --devices=skip {trees} 2>/dev/null || true", given=patterns) == "", "what everybody may read"
    # They are where they must be, or the search above would prove nothing.
    holders = set(host.shell(f"grep -rlF -f - --devices=skip {trees} 2>/dev/null || true", given=patterns).split())
    assert {"/etc/anchorage/secrets/alpha.json", "/etc/anchorage/apps/alpha.json"} <= holders
    places = ["/etc/anchorage/", "/srv/alpha/releases/", "/etc/redis/", "/var/lib/redis", "/var/lib/postgresql"]
    # What the Engine runs a container by is for root alone, as the container's environment is.
    places += (
        ["/var/lib/docker/containers/", "/var/lib/docker/volumes/", "/var/lib/containerd/", "/run/containerd/", "/run/docker/"] if RUNTIME == "compose" else []
    )
    strays = {path for path in holders if not path.startswith(tuple(places))}
    assert not strays
    assert host.shell("find /srv/alpha /etc/anchorage /var/lib/anchorage -type f -perm /o+w").strip() == ""


def test_a_second_app_comes_beside_the_first(shop):
    alpha = shop.host.serving()
    shop.apps.app("beta")
    shop.apps.run("site")
    beta = shop.host.serving("beta")
    beta.check("beta")
    assert shop.host.runs(beta.live, "beta") == 1 and shop.host.marked(beta.live, "beta")
    assert shop.host.serving() == alpha, "the first is left alone"

    # Both at once: each is migrated once, and by its own release.
    shop.apps.app("alpha")
    shop.apps.app("beta")
    shop.apps.deploy()
    for name, before in (("alpha", alpha), ("beta", beta)):
        after = shop.host.serving(name)
        after.check(name)
        assert after.live != before.live and shop.host.runs(after.live, name) == 1

    # One broken app stops the release of both: the batch is one story.
    alpha, beta = shop.host.serving(), shop.host.serving("beta")
    shop.apps.app("alpha")
    shop.apps.app("beta", migrate="quiet-error")
    shop.apps.deploy(rc=None)
    assert (shop.host.serving(), shop.host.serving("beta")) == (alpha, beta)


@pytest.mark.fault
def test_a_host_comes_back_with_the_live_release(shop):
    shop.apps.deploy()  # puts away what the failed release of another test left
    before = shop.host.serving()
    for how in ("reboot", "power-cut"):
        shop.host.command(how, shop.host.lab, shop.host.name)
        until(lambda: shop.host.state()["running"], "the release", 90)
        after = until(shop.host.serving, "the site")
        after.check()
        assert (after.live, after.slot) == (before.live, before.slot)
        assert shop.host.shell("systemctl is-system-running --wait || true").strip() == "running"
    shop.apps.run("verify")
    assert shop.apps.run("site").changed == 0


@pytest.mark.fault
def test_a_power_cut_in_a_migration_is_made_good_by_the_next_run(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", migrate="slow:15")
    first = shop.apps.start("deploy")
    until(lambda: shop.host.unit_active("alpha-migrate"), "the migration")
    shop.host.command("power-cut", shop.host.lab, shop.host.name)
    kill(first)
    until(lambda: shop.host.state()["running"], "the old release", 90)
    assert shop.host.serving().live == before.live
    shop.apps.deploy()
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and shop.host.marked(after.live)
