# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pinned packages: exact, hashed, and from nowhere in particular."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
WANTED = [line for line in (ROOT / "requirements.in").read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture(params=["requirements-py311.txt", "requirements-py312.txt"])
def pins(request):
    return (ROOT / request.param).read_text()


def test_every_package_is_exact_and_hashed(pins):
    blocks = re.split(r"\n(?=[A-Za-z0-9])", pins)[1:]
    assert len(blocks) > len(WANTED)
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+==[0-9][^ ]*( ;.*)? \\\n", block), block
        assert "--hash=sha256:" in block, block


def test_all_that_is_wanted_is_pinned(pins):
    assert [name for name in WANTED if f"\n{name}==" not in pins] == []


def test_no_index_and_no_address_is_named(pins):
    assert "://" not in pins
    assert "--index" not in pins
    assert "--find-links" not in pins


def test_each_generation_gets_its_own_core():
    cores = [
        re.search(r"^ansible-core==(\d+\.\d+)", (ROOT / name).read_text(), re.MULTILINE)[1] for name in ("requirements-py311.txt", "requirements-py312.txt")
    ]
    assert cores == ["2.19", "2.21"]
