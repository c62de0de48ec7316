# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an app has several hosts, or a proxy elsewhere: each of its hosts has an edge, a small site of its own that the proxies go to. Pure.

The edge knows the slots of its host and nothing of other hosts; the proxies know the edges and nothing of slots. So a release on one host is what it is on
a single VPS, and a host is taken out of the balance at its edge, which then lets nobody new in: a proxy that is not let in has sent nothing and asks the
next one, POSTs as well.
"""

from __future__ import annotations

import typing as t

from .runtime import SWARM, name_of

Data = dict[str, t.Any]

#: What is behind the name of an app in the name of the site that its visitors reach, since its own name is that of its edge.
SUFFIX = "-public"

LOOPBACK = "127.0.0.1"


def wanted(app: Data, places: t.Mapping[str, t.Sequence[Data]]) -> bool:
    """Tell whether an app has edges: it is served, and not by one host that is its one proxy.

    :arg app: resolved.
    :arg places: the topology.
    """
    proxies = [place["name"] for place in places["proxy"]]
    return bool(app["edge_port"] and app["domains"] and proxies and not (len(app["hosts"]) == 1 and proxies == app["hosts"]))


def site_name(app: Data, places: t.Mapping[str, t.Sequence[Data]]) -> str:
    """Return what the site that visitors reach is called on a proxy."""
    return f"{app['name']}{SUFFIX}" if wanted(app, places) else t.cast(str, app["name"])


def chooses_here(document: Data) -> bool:
    """Tell whether the slot of an app is chosen on this host, by its edge or by the proxy itself.

    :arg document: what the engine was given.
    """
    return bool(document.get("edge")) or (document.get("proxy_address") == LOOPBACK and name_of(document) != SWARM)
