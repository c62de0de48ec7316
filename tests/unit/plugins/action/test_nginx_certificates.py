# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs that are given as files of the controller reach the module as texts."""

from __future__ import annotations

import pathlib
import types
import typing as t

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.dataloader import DataLoader

from ansible_collections.anchorage.vps.plugins.action.nginx_certificates import ActionModule


class Action(ActionModule):
    """The plugin without a play around it."""

    def __init__(self, directory: pathlib.Path, sites: list[dict[str, t.Any]]) -> None:
        self._directory = directory
        self._loader = DataLoader()
        self._task = types.SimpleNamespace(args={"sites": sites, "port": 443})

    def _find_needle(self, dirname: str, needle: str) -> str:
        path = self._directory / dirname / needle
        if not path.exists():
            raise AnsibleError(f"Could not find or access '{needle}'")
        return str(path)


@pytest.fixture(name="directory")
def _directory(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "shop.pem").write_text("-----BEGIN CERTIFICATE-----\nchain\n")
    return tmp_path


def texts(directory: pathlib.Path, site: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return a site as the module gets it."""
    return Action(directory, [])._with_texts(dict(site))


def test_a_path_becomes_its_text_and_a_text_stays(directory: pathlib.Path) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nkey\n"
    site = texts(directory, {"site": "shop", "certificate": "shop.pem", "key": key})
    assert site == {"site": "shop", "certificate": "-----BEGIN CERTIFICATE-----\nchain\n", "key": key}


def test_a_site_without_a_pair_stays_as_it_is(directory: pathlib.Path) -> None:
    assert texts(directory, {"site": "shop", "certificate": None, "key": None}) == {"site": "shop", "certificate": None, "key": None}


def test_a_file_that_is_not_there_is_named_with_its_key(directory: pathlib.Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"nginx_sites\[shop\].tls.key names absent.pem"):
        texts(directory, {"site": "shop", "key": "absent.pem"})
