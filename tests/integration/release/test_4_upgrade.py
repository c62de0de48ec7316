# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rolling upgrade of a host that is everything: nobody stands in for it, so somebody has to agree to the break."""

from __future__ import annotations


def test_one_host_is_upgraded_only_where_a_break_was_agreed_to(shop):
    before = shop.host.serving()
    refused = shop.apps.run("rolling_upgrade", rc=None)
    assert "Visitors would notice the upgrade of each of these hosts: vps." in " ".join(refused.output.split())
    assert shop.host.serving() == before

    ended = shop.apps.run(
        "rolling_upgrade", *(word for name in ("upgrade_break=true", "upgrade_restart=true", "upgrade_soak_seconds=1") for word in ("-e", name))
    )
    after = shop.host.serving()
    after.check()
    assert (after.live, after.slot) == (before.live, before.slot) and set(after.online.values()).isdisjoint(before.online.values())
    assert "VISITORS NOTICE IT" in ended.output
