# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run when: a sample on one host in C(make test), whose hour is nearly full, and all of them with C(make backups)."""

from __future__ import annotations

import os

import pytest

from . import restoring

#: What C(make test) runs of them: data come back to a second, with a whole cluster, and as files. That backups are made, proven, and found
#: broken is in molecule/backup.
SAMPLE = (
    "test_one_second_before_a_drop_table",
    "test_a_cluster_that_is_gone_comes_back_and_one_that_lives_needs_the_word",
    "test_uploads_and_redis_come_back",
)


def pytest_configure(config):
    """Name the marker of the slow tests."""
    config.addinivalue_line("markers", "fault: takes long or another host; runs with 'make faults' or 'make backups' only")


def pytest_collection_modifyitems(config, items):
    """Leave all but the sample to 'make backups'."""
    if os.environ.get("ANCHORAGE_FAULTS"):
        return
    left_out = [item for item in items if "integration/backup/" in item.nodeid and item.name not in SAMPLE]
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
