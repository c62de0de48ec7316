# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the outside world is told to answer."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.tests.lab import world


def test_names_point_at_the_addresses_of_hosts_and_the_star_at_the_rest():
    told = world.requests({"*": "web1", "shop.localhost": "web2"}, {"web1": "192.0.2.1", "web2": "192.0.2.2"})
    assert told == [
        ("set-default-ipv4", {"ip": "192.0.2.1"}),
        ("clear-a", {"host": "shop.localhost."}),
        ("add-a", {"host": "shop.localhost.", "addresses": ["192.0.2.2"]}),
    ]


@pytest.mark.parametrize("text", ["shop.localhost", "=web1", "shop.localhost=", ""])
def test_a_record_without_a_name_or_a_host_is_refused(text):
    with pytest.raises(ValueError, match="NAME=HOST"):
        world.parse_record(text)
