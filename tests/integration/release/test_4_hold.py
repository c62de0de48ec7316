# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of which there is room for one: visitors wait, and none of them is lost."""

from __future__ import annotations

import contextlib

import pytest

from .conftest import Shop, Visitor, until

#: Visitors at once. Each waits as long as a browser would.
VISITORS, PATIENCE = 8, 60.0


@contextlib.contextmanager
def visited(shop: Shop):
    """Let visitors ask all the time; afterwards every one of them was answered."""
    with contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(shop.host, PATIENCE)) for _number in range(VISITORS)]
        yield visitors
    for visitor in visitors:
        visitor.check()


def waiting(shop: Shop) -> bool:
    """Whether requests wait now."""
    return shop.host.shell("test -e /var/lib/anchorage/slots/alpha/hold && echo yes || true").strip() == "yes"


def test_visitors_wait_for_a_release_that_has_no_room_beside_the_one_before(shop):
    before = shop.host.serving()
    shop.apps.app("alpha")
    shop.apps.hold("alpha", 30)
    assert "expected: held: requests wait while the release before stops" in shop.apps.run("deploy", "--tags", "plan").output
    with visited(shop) as visitors:
        ended = shop.apps.deploy()
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and {release for visitor in visitors for release in visitor.releases} == {before.live, after.live}
    first, then = f"stop alpha-server-{before.slot} first (strategy: hold)", f"start alpha-server-{after.slot} of release {after.live}"
    assert 0 < ended.output.index("requests wait now") < ended.output.index(first) < ended.output.index(then) < ended.output.index("requests wait no more")
    assert not waiting(shop)
    assert shop.apps.run("site").changed == 0


def test_visitors_of_a_release_that_never_listens_are_served_by_the_one_before(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", server="deaf")
    shop.apps.hold("alpha", 15)
    with visited(shop) as visitors:
        ended = shop.apps.deploy(rc=None)
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot) == (before.live, before.slot) and {release for visitor in visitors for release in visitor.releases} == {before.live}
    assert "nobody listens on port" in ended.output and "raise apps.alpha.hold_seconds" in ended.output
    assert not waiting(shop)


@pytest.mark.fault
def test_visitors_who_wait_when_the_step_is_killed_are_served_by_the_next_run(shop):
    before = shop.host.serving()
    shop.apps.app("alpha", server="deaf")
    shop.apps.hold("alpha", 40)
    with visited(shop):
        run = shop.apps.start("deploy")
        until(lambda: waiting(shop) and f"alpha-server-{before.slot}" not in shop.host.processes(), "the old server's end")
        shop.host.shell("systemctl kill --signal=KILL anchorage-alpha.service")
        assert shop.apps.end(run).rc > 0
        assert waiting(shop)
        shop.host.shell("anchorage recover alpha")
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot) == (before.live, before.slot) and not waiting(shop)
