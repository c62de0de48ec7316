# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each Redis instance is told, and what no user may smuggle into it."""

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.redis_instances import configuration, directives, links, users

PASSWORD = "correct horse battery"
USER = {"name": "shop", "password": PASSWORD}
JOBS = {"name": "shop-jobs", "port": 6379, "users": [USER]}
CACHE = {"name": "shop-cache", "port": 6380, "policy": "allkeys-lru", "appendonly": False, "save": "", "users": [USER]}


def told(**changes):
    lines = directives("x", {**JOBS, **changes})
    return dict(line.split(" ", 1) for line in lines)


def test_a_password_is_kept_as_its_hash_only():
    lines = "\n".join(users("x", [USER]))
    assert PASSWORD not in lines
    assert f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()}" in lines


def test_a_user_may_have_several_passwords_while_one_replaces_the_other():
    words = users("x", [{**USER, "other_passwords": ["another long password"]}])[1].split()
    wanted = [f"#{hashlib.sha256(text.encode()).hexdigest()}" for text in (PASSWORD, "another long password")]
    assert [word for word in words if word.startswith("#")] == wanted
    with pytest.raises(AnchorageError, match=r"x\.users\[0\]\.password is shorter"):
        users("x", [{**USER, "other_passwords": ["short"]}])


def test_nobody_is_the_default_user_but_the_append_only_file_is_replayed_with_every_right():
    words = users("x", [])[0].split()
    assert words[:4] == ["user", "default", "reset", "off"]
    assert "nopass" not in words
    assert {"~*", "&*", "+@all"} <= set(words)


def test_a_user_has_what_clients_need_and_nothing_dangerous():
    words = users("x", [USER])[1].split()
    assert words.index("-@dangerous") > words.index("+@all")
    assert [word for word in words[words.index("-@dangerous") :] if word.startswith("+")] == ["+info", "+client|list", "+config|get"]


def test_further_rules_come_last_so_that_they_count():
    assert users("x", [{**USER, "rules": ["+keys", "-@blocking"]}])[1].endswith(" +keys -@blocking")


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"name": "default"}, r"x\.users\[0\]\.name"),
        ({"name": "anchorage"}, r"x\.users\[0\]\.name"),
        ({"name": "a b"}, r"x\.users\[0\]\.name"),
        ({"password": "short"}, r"x\.users\[0\]\.password"),
        ({"rules": ["nopass"]}, r"x\.users\[0\]\.rules"),
        ({"rules": ["+@all >secret"]}, r"x\.users\[0\]\.rules"),
        ({"rules": ["+get\nuser evil on nopass +@all"]}, r"x\.users\[0\]\.rules"),
    ],
)
def test_a_wrong_user_is_named_and_its_password_is_not(user, message):
    with pytest.raises(AnchorageError, match=message) as caught:
        users("x", [{**USER, **user}])
    assert PASSWORD not in caught.value.text()


def test_an_instance_keeps_queues_unless_it_is_told_otherwise():
    assert told()["maxmemory-policy"] == "noeviction"
    assert told()["appendonly"] == "yes"
    assert told()["appendfsync"] == "everysec"
    assert told()["save"] == "900 1 300 10 60 10000"
    assert told()["bind"] == "127.0.0.1"


def test_a_cache_is_one():
    cache = dict(line.split(" ", 1) for line in directives("x", CACHE))
    assert (cache["maxmemory-policy"], cache["appendonly"], cache["save"]) == ("allkeys-lru", "no", '""')


def test_a_setting_of_the_user_wins():
    assert told(settings={"appendfsync": "always", "notify-keyspace-events": "Ex"})["appendfsync"] == "always"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bind": ["localhost"]}, r"x\.bind has 'localhost'"),
        ({"bind": ["127.0.0.1 0.0.0.0"]}, r"x\.bind"),
        ({"save": "hourly"}, r"x\.save"),
        ({"save": "900"}, r"x\.save"),
        ({"settings": {"requirepass": "x"}}, r"x\.settings has 'requirepass'"),
        ({"settings": {"include": "/tmp/x"}}, r"x\.settings has 'include'"),
        ({"settings": {"loglevel": "notice\nrequirepass x"}}, r"x\.settings\.loglevel"),
        ({"settings": {"loglevel": ""}}, r"x\.settings\.loglevel"),
    ],
)
def test_a_wrong_instance_is_named_by_its_key(change, message):
    with pytest.raises(AnchorageError, match=message):
        directives("x", {**JOBS, **change})


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"port": 6379}, r"redis_instances\[1\]\.port 6379 is taken by shop-jobs"),
        ({"port": 80}, r"redis_instances\[1\]\.port 80 is not between"),
        ({"name": "shop-jobs"}, r"redis_instances\[1\]\.name"),
        ({"name": "../x"}, r"redis_instances\[1\]\.name"),
    ],
)
def test_instances_do_not_get_into_each_others_way(second, message):
    with pytest.raises(AnchorageError, match=message):
        configuration([JOBS, {**CACHE, **second}])


def test_users_are_reloaded_settings_restart_and_each_instance_minds_its_own_files():
    jobs, cache = configuration([JOBS, CACHE], restart_on=["/etc/common"])["units"]
    assert jobs["reload_on"] == ["/etc/redis/redis-shop-jobs.acl"]
    assert jobs["restart_on"] == ["/etc/redis/redis-shop-jobs.conf", "/etc/common"]
    assert not set(jobs["restart_on"]) & set(cache["reload_on"] + cache["restart_on"]) - {"/etc/common"}


def test_files_with_users_are_secret_and_not_for_everybody():
    files = configuration([JOBS, CACHE])["files"]
    assert [file["secret"] for file in files] == [False, True, False, True]
    assert {file["mode"] for file in files} == {"0640"}
    assert {file["owner"] for file in files} == {"root"}


LINKED = {**JOBS, "bind": ["127.0.0.1", "10.0.0.22"], "tls_port": 7379, "tls_file": "/etc/anchorage/tls/redis.pem"}


def test_others_come_over_tls_alone_unless_some_cannot_yet():
    lines = dict(line.split(" ", 1) for line in links("x", LINKED))
    assert (lines["tls-port"], lines["port"], lines["tls-auth-clients"]) == ("7379", "0", "no")
    assert lines["tls-cert-file"] == lines["tls-key-file"] == "/etc/anchorage/tls/redis.pem"
    assert links("x", {**LINKED, "plain": True})[-1] == "port 6379"


def test_how_others_come_in_is_changed_without_a_restart():
    state = configuration([LINKED, CACHE])
    unit, other = state["units"]
    assert unit["reload_on"] == ["/etc/redis/redis-shop-jobs.acl", "/etc/redis/redis-shop-jobs-links.conf", "/etc/anchorage/tls/redis.pem"]
    assert other["reload_on"] == ["/etc/redis/redis-shop-cache.acl"]
    files = {file["path"]: file["content"] for file in state["files"]}
    assert "include /etc/redis/redis-shop-jobs-links.conf\n" in files["/etc/redis/redis-shop-jobs.conf"]
    assert "\nport" not in files["/etc/redis/redis-shop-jobs.conf"] and "include" not in files["/etc/redis/redis-shop-cache.conf"]
    assert (
        files["/etc/redis/redis-shop-jobs.conf"]
        == {f["path"]: f["content"] for f in configuration([{**LINKED, "plain": True}])["files"]}["/etc/redis/redis-shop-jobs.conf"]
    ), "nothing that a restart loads hangs on it"


@pytest.mark.parametrize("path", ["", "redis.pem", "/a b", "/a\nport 1"])
def test_the_file_of_key_and_certificate_has_a_plain_path(path):
    with pytest.raises(AnchorageError, match="no absolute path of plain characters"):
        links("x", {**LINKED, "tls_file": path})


@pytest.mark.parametrize(("changes", "key"), [({"tls_port": 6379}, "tls_port"), ({"tls_port": 6380}, "port"), ({"tls_port": 80}, "tls_port")])
def test_ports_over_tls_are_nobody_elses(changes, key):
    with pytest.raises(AnchorageError, match=rf"\.{key} {changes['tls_port']} is "):
        configuration([{**LINKED, **changes}, CACHE])
