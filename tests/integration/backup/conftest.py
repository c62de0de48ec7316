# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run when: those that take long only with ANCHORAGE_FAULTS, as those of releases."""

from __future__ import annotations

import os

import pytest

from . import restoring


def pytest_configure(config):
    """Name the marker of the slow tests."""
    config.addinivalue_line("markers", "fault: takes long or another host; runs with 'make faults' only")


def pytest_collection_modifyitems(config, items):
    """Leave the slow tests to 'make faults'."""
    if os.environ.get("ANCHORAGE_FAULTS"):
        return
    left_out = [item for item in items if item.get_closest_marker("fault")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """One host with the app alpha, backed up, for all tests of restores."""
    with restoring.provisioned(tmp_path_factory.mktemp("contract")) as found:
        yield found


@pytest.fixture
def host(ground):
    """The host, with nothing left of the test before."""
    ground.settle()
    yield ground
    ground.settle()
