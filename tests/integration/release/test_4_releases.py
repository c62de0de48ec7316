# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Good releases: what is built anew and what is not, requests while the slot is switched, several apps, a reboot."""

from __future__ import annotations

import pytest

from .conftest import Visitor, kill, until


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
