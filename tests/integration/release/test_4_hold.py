# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of which there is room for one: visitors wait, and none of them is lost."""

from __future__ import annotations

import contextlib
import time

import pytest

from ...load.client import Kind, Site, Visitors
from .conftest import Shop, until

#: Seconds that a visitor may wait: as many visitors come as keep the rate all the while.
PATIENCE = 25.0


def name() -> bytes:
    """Return the name of an item that nobody has made before."""
    return str(time.time_ns()).encode()


def seen(answer) -> str:
    """The release that an answer is of."""
    return answer.json()["release"]


@contextlib.contextmanager
def visited(shop: Shop, rate: float = 40.0):
    """Let a crowd ask all the time, each by a connection of its own; afterwards every one was answered. Gives the releases that they saw."""
    releases: set[str] = set()
    kinds = [
        Kind("GET", rate, "/info", visitors=int(rate * PATIENCE), kept=False, check=lambda answer: releases.add(seen(answer))),
        Kind("POST", 2, "/items", "POST", name, status=201, visitors=int(2 * PATIENCE), kept=False),
    ]
    visitors = Visitors(Site(shop.host.facts["lab_ports"]["80"], "alpha.localhost"), kinds)
    visitors.start()
    time.sleep(2)
    try:
        yield releases
    finally:
        time.sleep(2)
        visitors.stop()
    count = visitors.count.take()
    print(count)
    assert not count["failed"] and count["requests"] > 5 * rate, count


def waiting(shop: Shop) -> bool:
    """Whether requests wait now."""
    return "hold" in shop.host.shell("ls /var/lib/anchorage/slots/alpha").split()


def test_visitors_wait_for_a_release_that_has_no_room_beside_the_one_before(shop):
    before = shop.host.serving()
    shop.apps.app("alpha")
    shop.apps.hold("alpha", 30)
    assert "expected: held: requests wait while the release before stops" in shop.apps.run("deploy", "--tags", "plan").output
    with visited(shop) as releases:
        ended = shop.apps.deploy()
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and releases == {before.live, after.live}
    first, then = f"stop alpha-server-{before.slot} first (strategy: hold)", f"start alpha-server-{after.slot} of release {after.live}"
    assert 0 < ended.output.index("requests wait now") < ended.output.index(first) < ended.output.index(then) < ended.output.index("requests wait no more")
    assert not waiting(shop)
    assert shop.apps.run("site").changed == 0


def test_visitors_of_a_release_that_never_listens_are_served_by_the_one_before(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", server="deaf")
    shop.apps.hold("alpha", 15)
    with visited(shop) as releases:
        ended = shop.apps.deploy(rc=None)
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot) == (before.live, before.slot) and releases == {before.live}
    assert "nobody listens on port" in ended.output and "raise apps.alpha.hold_seconds" in ended.output
    assert not waiting(shop)


@pytest.mark.fault
def test_visitors_who_wait_when_the_step_is_killed_are_served_all_the_same(shop):
    """What makes good a dead step is part of its own unit."""
    before = shop.host.serving()
    shop.apps.app("alpha", server="deaf")
    shop.apps.hold("alpha", 40)
    with visited(shop):
        run = shop.apps.start("deploy")
        until(lambda: waiting(shop) and f"alpha-server-{before.slot}" not in shop.host.processes(), "the old server's end")
        shop.host.shell("systemctl kill --signal=KILL anchorage-alpha.service")
        assert shop.apps.end(run).rc > 0
        until(lambda: not waiting(shop), "the way back")
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot) == (before.live, before.slot) and not waiting(shop)
