# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host image is made anew exactly when something it holds has changed."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.tests.lab import images


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "Dockerfile").write_text("FROM base\n")
    (tmp_path / "files" / "lab.conf").write_text("[Service]\n")
    return tmp_path


def test_the_same_recipe_has_the_same_digest(recipe):
    assert images.recipe_digest(recipe, "base", b"ca") == images.recipe_digest(recipe, "base", b"ca")


def test_every_ingredient_counts(recipe):
    seen = {images.recipe_digest(recipe, "base", b"ca"), images.recipe_digest(recipe, "other", b"ca"), images.recipe_digest(recipe, "base", b"")}
    (recipe / "files" / "lab.conf").write_text("[Service]\nPrivateUsers=no\n")
    seen.add(images.recipe_digest(recipe, "base", b"ca"))
    (recipe / "files" / "lab.conf").rename(recipe / "files" / "other.conf")
    seen.add(images.recipe_digest(recipe, "base", b"ca"))
    assert len(seen) == 5
