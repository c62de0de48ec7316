# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""These tests build ten images and start as many containers, which is more than 'make test' has time for: 'make components' runs them."""

from __future__ import annotations

import os
import pathlib

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """Leave them out unless they were asked for."""
    left_out = [] if os.environ.get("ANCHORAGE_COMPONENTS") else [item for item in items if HERE in item.path.parents]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
