# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of faults have in common: a deploy that must fail while customers are served, and the one that makes it good."""

from __future__ import annotations

import re
import typing as t

from .conftest import Serving, Shop, Visitor


class Refused(t.NamedTuple):
    """What serves on, and what was said."""

    before: Serving
    message: str


def runs_of(shop: Shop) -> dict[str, str]:
    """What a migration leaves in the database: its own record, and the marks."""
    return {name: shop.host.sql(f"SELECT string_agg(id::text, ',' ORDER BY id) FROM {name}") for name in ("stub_migrations", "anchorage.release")}


def refused(shop: Shop, *words: str, broke: str, next_step: str = "", switched: bool = False, during: t.Callable[[], object] = lambda: None) -> Refused:
    """Deploy what must fail: nobody's request fails, the same processes serve, and the message has phase, cause, what lives and what to do next.

    :arg switched: whether the new release had the traffic for a moment.
    :arg during: called while the deploy runs.
    """
    before = shop.host.serving()
    with Visitor(shop.host) as visitor:
        deploy = shop.apps.start("deploy")
        during()
        ended = shop.apps.end(deploy)
    message = re.sub(r"\s+", " ", ended.output.replace("\\n", " ").replace('\\"', '"'))
    assert ended.rc > 0, message[-3000:]
    for word in (*words, f"Broke: {broke}", f"Live now: alpha release {before.live} in slot {before.slot}", f"Next: {next_step}"):
        assert word in message, f"{word!r} is not in:\n{ended.output[-4000:]}"
    assert "The engine itself failed" not in message and "Traceback" not in message
    visitor.check()
    assert switched or set(visitor.releases) == {before.live}, "nobody saw the new release"
    after = shop.host.serving()
    after.check()
    server = f"alpha-server-{before.slot}"
    assert (after.live, after.slot, after.pid, after.online[server]) == (before.live, before.slot, before.pid, before.online[server]), "the same process serves"
    return Refused(before, message)


def made_good(shop: Shop) -> Serving:
    """Deploy again, after what was wrong was put right: the release lives, migrated once more at most, and the run after that has nothing to do."""
    before = shop.host.serving()
    with Visitor(shop.host) as visitor:
        shop.apps.deploy()
    visitor.check()
    after = shop.host.serving()
    after.check()
    assert after.live != before.live and shop.host.marked(after.live)
    ids = shop.host.sql("SELECT count(*), count(DISTINCT id) FROM stub_migrations").split("|")
    assert ids[0] == ids[1], "each migration is applied once"
    return after
