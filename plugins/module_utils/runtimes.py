# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which runtime keeps an app's processes alive."""

from __future__ import annotations

from .app import App
from .compose_runtime import Compose
from .pm2_runtime import Pm2
from .runtime import COMPOSE, SWARM, Runtime, name_of
from .swarm_runtime import Swarm


def of(app: App) -> Runtime:
    """Return the runtime that an app's document names."""
    kinds: dict[str, type[Runtime]] = {COMPOSE: Compose, SWARM: Swarm}
    return kinds.get(name_of(app.document), Pm2)(app)
