# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts, directories, files and units of PM2's users."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.pm2_host import model

OPTIONS = {"home_directory": "/var/lib/pm2", "log_directory": "/var/log/pm2", "command": "/usr/local/bin/pm2", "restart": True}


def test_the_release_tree_is_roots_and_only_shared_is_the_apps():
    modes = {item["path"]: (item.get("owner", "root"), item.get("mode")) for item in model([{"name": "shop"}], **OPTIONS)["directories"]}
    assert modes["/srv/shop"] == ("root", "0750")
    assert modes["/srv/shop/shared"] == ("shop", "0750")
    assert modes["/var/lib/pm2/shop"] == ("shop", "0700")
    assert modes["/var/log/pm2/shop"] == ("shop", "0750")


def test_an_app_user_cannot_log_in():
    account = model([{"name": "shop"}], **OPTIONS)["users"][0]
    assert (account["shell"], account["password_lock"], account["system"]) == ("/usr/sbin/nologin", True, True)


def test_two_users_share_nothing():
    made = model([{"name": "shop"}, {"name": "blog", "home": "/opt/blog"}], **OPTIONS)
    paths = [item["path"] for item in [*made["directories"], *made["files"]]]
    assert len(paths) == len(set(paths))
    assert [unit["name"] for unit in made["units"]] == ["pm2-shop.service", "pm2-blog.service"]
    assert "/opt/blog/shared" in paths


def test_no_user_needs_nothing():
    assert not any(model([], **OPTIONS).values())


def test_a_restart_is_asked_for_by_what_the_daemon_loaded_or_not_at_all():
    assert model([{"name": "shop"}], **OPTIONS)["units"][0]["restart_on"] == [
        "/etc/systemd/system/pm2-shop.service",
        "/etc/systemd/system/pm2-shop.service.d/",
        "/usr/local/bin/pm2",
    ]
    assert model([{"name": "shop"}], **{**OPTIONS, "restart": False})["units"][0]["restart_on"] == []


@pytest.mark.parametrize("name", ["root", "www-data", "postgres", "Shop", "shop user", "a/b", "", "-x", "x" * 32, "shop%i"])
def test_a_name_that_is_no_app_users_is_refused(name):
    with pytest.raises(AnchorageError, match="pm2_users"):
        model([{"name": name}], **OPTIONS)


@pytest.mark.parametrize("home", ["srv/shop", "/srv", "/srv/my shop", "/srv/%i", '/srv/"x'])
def test_a_home_that_a_unit_cannot_name_is_refused(home):
    with pytest.raises(AnchorageError, match="home"):
        model([{"name": "shop", "home": home}], **OPTIONS)


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(AnchorageError, match="twice"):
        model([{"name": "shop"}, {"name": "shop"}], **OPTIONS)
