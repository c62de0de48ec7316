# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.filter.release import release_directories, release_leaving, release_sources

SHOP = {
    "name": "shop",
    "user": "shop",
    "group": "shop",
    "home": "/srv/shop",
    "source": {"kind": "path", "path": "../shop", "archive": None},
    "database_url": "postgres://shop:sesame@db/shop",
}
BLOG = {"name": "blog", "user": "blog", "group": "blog", "home": "/srv/blog", "source": {"kind": "git", "path": None, "archive": None}}


def test_directories_come_before_what_lies_in_them_and_each_once():
    paths = [entry["path"] for entry in release_directories([SHOP, BLOG])]
    assert len(paths) == len(set(paths))
    for index, path in enumerate(paths):
        parent = path.rpartition("/")[0]
        assert parent not in paths or paths.index(parent) < index


def test_tasks_of_a_swarm_may_say_that_they_leave_and_others_have_no_place_for_it():
    server = {"name": "server", "public": True, "slots": {"blue": [9000], "green": [9002]}}
    worker = {"name": "worker", "public": False, "slots": {"blue": [9001], "green": [9003]}}
    flock = {**BLOG, "name": "flock", "home": "/srv/flock", "runtime": "swarm", "processes": [server, worker]}
    other = {**flock, "name": "other", "home": "/srv/other", "processes": [worker]}
    modes = {entry["path"]: entry["mode"] for entry in release_directories([SHOP, flock, other])}
    assert {path: mode for path, mode in modes.items() if path.startswith("/run/")} == {
        "/run/anchorage-leaving": "0755",
        "/run/anchorage-leaving/flock": "1733",
        "/run/anchorage-leaving/other": "1733",
    }
    assert len(modes) == len(release_directories([SHOP, flock, other]))
    assert release_leaving([SHOP, flock, other]) == ["flock/9000", "flock/9002"]


def test_what_may_hold_a_secret_is_closed():
    modes = {entry["path"]: entry["mode"] for entry in release_directories([SHOP])}
    assert modes["/etc/anchorage/apps"] == modes["/etc/anchorage/secrets"] == modes["/var/lib/anchorage/shop/log"] == modes["/srv/shop/incoming"] == "0700"


def test_an_app_writes_nothing_of_its_home_but_what_is_shared():
    owners = {entry["path"]: entry.get("owner", "root") for entry in release_directories([SHOP]) if entry["path"].startswith("/srv/shop")}
    assert [path for path, owner in owners.items() if owner != "root"] == ["/srv/shop/shared"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ({"kind": "path", "path": "../shop", "archive": None}, "/inventories/shop"),
        ({"kind": "path", "path": "/abs/shop/", "archive": None}, "/abs/shop"),
        ({"kind": "archive", "archive": "shop.tar.gz"}, "/inventories/demo/shop.tar.gz"),
        ({"kind": "archive", "archive": "https://example.com/shop.tar.gz"}, None),
        ({"kind": "git", "repo": "https://example.com/shop.git"}, None),
    ],
)
def test_only_what_lies_on_the_controller_is_a_source_there(source, found):
    assert release_sources([{"name": "shop", "source": source}], "/inventories/demo") == ({"shop": found} if found else {})


@pytest.mark.parametrize("key", ["keep_source", "at_rest"])
def test_a_source_that_is_not_to_be_released_is_not_read(key):
    assert release_sources([{**SHOP, key: True}], "/inventories/demo") == {}
