# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab asks the engine for."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.tests.lab import options


def arguments(version="1", **host):
    return options.host_arguments(options.Host("web1", **host), lab="probe", image="image:1", cgroup_version=version, root="/clone")


def test_cgroup_1_shares_the_tree_of_the_machine():
    asked = arguments("1")
    assert "--cgroupns=host" in asked
    assert "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw" in asked
    assert "--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1" in asked


def test_cgroup_2_gets_a_private_tree_and_no_mount():
    asked = arguments("2")
    assert "--cgroupns=private" in asked
    assert not [argument for argument in asked if "/sys/fs/cgroup" in argument or "LEGACY" in argument]


@pytest.mark.parametrize("version", ["1", "2"])
def test_no_host_is_privileged_and_all_ports_stay_on_loopback(version):
    asked = arguments(version, ports={22: 40022, 443: 8443})
    assert "--privileged" not in asked
    assert [argument for argument in asked if argument.startswith("--publish")] == [
        "--publish=127.0.0.1:40022:22",
        "--publish=127.0.0.1:8443:443",
    ]


def test_the_image_comes_last_and_everything_is_found_by_labels():
    asked = arguments(suite="bookworm", groups=("app", "proxy"), user="admin")
    assert asked[-1] == "image:1"
    assert asked[asked.index("--name") + 1] == "anchorage-lab-probe-web1"
    for label in ("lab=probe", "host=web1", "suite=bookworm", "groups=app,proxy", "user=admin", "root=/clone", "kind=host"):
        assert f"--label=anchorage.{label}" in asked


def test_a_docker_of_its_own_and_a_memory_limit_only_where_asked():
    assert not [argument for argument in arguments() if argument.startswith("--memory") or argument.endswith("/docker")]
    asked = arguments(docker=True, memory_mb=512)
    assert "--volume=/var/lib/docker" in asked
    assert "--memory=512m" in asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web1", options.Host("web1", "trixie")),
        ("db1:bookworm", options.Host("db1", "bookworm")),
        ("db1::database,cache", options.Host("db1", "trixie", ("database", "cache"))),
    ],
)
def test_a_host_is_read_from_one_word(text, expected):
    assert options.parse_host(text) == expected


@pytest.mark.parametrize(("text", "words"), [("Web1", "host name"), ("-a", "host name"), ("web1:sid", "none of trixie, bookworm"), ("", "host name")])
def test_a_bad_host_is_refused_by_name(text, words):
    with pytest.raises(ValueError, match=words):
        options.parse_host(text)
