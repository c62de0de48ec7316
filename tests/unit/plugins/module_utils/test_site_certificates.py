# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates to start with: made once, never in place of a real one."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import certificates
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.site_certificates import converge

from .certificate_fakes import FakeWorld, fields_of, key_of, pem

SHOP = {"site": "shop", "domains": ["shop.test"], "mode": "acme", "certificate": None, "key": None}


@pytest.fixture(name="world")
def _world() -> FakeWorld:
    return FakeWorld()


def run(world: FakeWorld, *sites: dict[str, t.Any], check: bool = False) -> dict[str, t.Any]:
    """Converge sites on a fake host."""
    return converge(world, sites, directory="/tls", sites_directory="/sites", port=443, check=check)


def files_site(chain: bytes, key: bytes) -> dict[str, t.Any]:
    """Return a site with a given pair."""
    return {**SHOP, "mode": "files", "certificate": chain.decode(), "key": key.decode()}


def test_a_site_without_a_certificate_gets_one_once(world: FakeWorld) -> None:
    assert run(world, SHOP)["changes"] == [{"site": "shop", "change": "no certificate yet"}]
    assert not run(world, SHOP)["changed"]
    assert fields_of(world.read("/tls/shop/fullchain.pem") or b"")["names"] == ["shop.test"]


def test_check_mode_makes_nothing_and_says_that_nginx_cannot_be_tested(world: FakeWorld) -> None:
    predicted = run(world, SHOP, check=True)
    assert (predicted["changed"], predicted["absent"]) == (True, ["shop"])
    assert world.files == {}


def test_without_openssl_it_says_so(world: FakeWorld) -> None:
    world.missing.add("openssl")
    assert run(world, SHOP)["missing"]


def test_other_names_make_another_bootstrap_certificate(world: FakeWorld) -> None:
    run(world, SHOP)
    assert run(world, {**SHOP, "domains": ["shop.test", "new.test"]})["changes"] == [{"site": "shop", "change": "other names"}]


def test_a_real_certificate_is_never_touched(world: FakeWorld) -> None:
    chain = pem("1", ["old.test"], left=1)
    certificates.install_pair(world, "/tls", "shop", chain, key_of(chain))
    assert not run(world, SHOP)["changed"]
    assert world.read("/tls/shop/fullchain.pem") == chain


def test_a_given_pair_is_installed_and_replaces_what_was_there(world: FakeWorld) -> None:
    run(world, SHOP)
    chain = pem("7", ["shop.test"])
    assert run(world, files_site(chain, key_of(chain)))["changes"] == [{"site": "shop", "change": "given pair"}]
    assert not run(world, files_site(chain, key_of(chain)))["changed"]


def test_a_key_of_another_certificate_is_refused_by_its_key(world: FakeWorld) -> None:
    run(world, SHOP)
    before = dict(world.files)
    with pytest.raises(AnchorageError, match=r"nginx_sites\[shop\].tls.key"):
        run(world, files_site(pem("7", ["shop.test"]), key_of(b"another")))
    assert world.files == before


def test_a_running_nginx_with_another_certificate_is_reloaded(world: FakeWorld) -> None:
    run(world, SHOP)
    world.files["/sites/shop.conf"] = b""
    world.presented["shop.test"] = b"old"
    assert run(world, SHOP)["changes"] == [{"site": "shop", "change": "served another certificate"}]
    assert not run(world, SHOP)["changed"]


def test_a_site_that_is_not_served_yet_causes_no_reload(world: FakeWorld) -> None:
    world.presented["shop.test"] = b"somebody else's default"
    run(world, SHOP)
    assert ["systemctl", "reload", "nginx.service"] not in world.commands


openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@openssl
def test_the_real_openssl_makes_a_pair_that_can_be_read_and_swapped(tmp_path: pathlib.Path) -> None:
    world = certificates.TlsWorld()
    directory = str(tmp_path / "tls")
    chain, key = certificates.make_bootstrap(world, directory, ["shop.test", "*.shop.test"])
    assert certificates.pair_matches(world, chain, key)
    found = certificates.read_certificate(world, chain)
    assert found is not None
    assert found.is_bootstrap()
    assert found.covers(["*.shop.test", "shop.test"])
    assert 89 < found.days_left(world.now()) <= 90
    assert certificates.install_pair(world, directory, "shop", chain, key)
    assert not certificates.install_pair(world, directory, "shop", chain, key)
    other = certificates.make_bootstrap(world, directory, ["other.test"])
    assert not certificates.pair_matches(world, other[0], key)
    assert certificates.install_pair(world, directory, "shop", *other)
    assert certificates.installed_pair(world, directory, "shop") == other
    assert os.stat(f"{directory}/shop/privkey.pem").st_mode & 0o777 == 0o600
    assert len(os.listdir(f"{directory}/.versions")) == 1
    assert sorted(os.listdir(directory)) == [".versions", "shop"]


@openssl
def test_a_directory_in_the_links_place_moves_away(tmp_path: pathlib.Path) -> None:
    world = certificates.TlsWorld()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "fullchain.pem").write_text("by hand")
    certificates.install_pair(world, str(tmp_path), "shop", b"chain", b"key")
    assert (tmp_path / "shop").is_symlink()
    assert [path.read_text() for path in tmp_path.glob(".versions/shop.replaced-*/fullchain.pem")] == ["by hand"]


@pytest.mark.parametrize(
    ("life", "left", "overdue"),
    [(90, 29.9, True), (90, 30.1, False), (6, 1.9, True), (6, 2.1, False), (1825, 40, False), (1825, 29, True)],
)
def test_overdue_is_a_third_of_the_life_and_at_most_thirty_days(world: FakeWorld, life: float, left: float, overdue: bool) -> None:
    found = certificates.read_certificate(world, pem("1", ["a.test"], life=life, left=left))
    assert found is not None
    assert found.is_overdue(world.now()) is overdue


def test_a_wildcard_is_asked_for_by_a_member() -> None:
    assert certificates.probe_name("*.shop.test") == "anchorage-probe.shop.test"
