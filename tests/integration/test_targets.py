# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each directory in targets/ is a module's test against the real thing, in the form ansible-test knows (tasks/main.yml)."""

from __future__ import annotations

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent
TARGETS = sorted(path.parents[1].name for path in HERE.glob("targets/*/tasks/main.yml"))


@pytest.mark.parametrize("host", ["trixie", "bookworm"])
@pytest.mark.parametrize("target", TARGETS)
def test_target(lab, target, host):
    lab.playbook(HERE / "target.yml", f"--limit={host}", f"--extra-vars=target={target}", ANSIBLE_ROLES_PATH=str(HERE / "targets"))
