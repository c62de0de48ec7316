# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_spec import normalise, unit_name, unknown_keys, unquoted_modes

FILE = {"path": "/etc/x", "content": "x", "owner": "root", "group": "root", "mode": "0644", "secret": False, "vars": {}}
UNIT = {"name": "nginx", "enabled": None, "state": None, "masked": None, "restart_on": [], "reload_on": []}
REPOSITORY = {"name": "r", "uris": ["https://deb.example.com"], "suites": ["x"], "components": [], "types": ["deb"], "architectures": [], "enabled": True}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"filez": []}, "filez"),
        ({"files": [FILE, {"path": "/x", "onwer": "me"}]}, "files[1].onwer"),
        ({"users": [{"name": "a", "key": "b"}]}, "users[0].key"),
        ({"confirm": {"name": "a", "after": 3}}, "confirm.after"),
    ],
)
def test_an_unknown_key_is_named_with_its_path(document, path):
    assert unknown_keys(document)[0].startswith(f"{path} is not a key")


def test_keys_inside_the_variables_of_a_template_are_free():
    assert unknown_keys({"files": [{"path": "/x", "template": "x", "vars": {"anything": {"goes": 1}}}]}) == []


def test_a_mode_that_yaml_made_a_number_is_refused():
    assert unquoted_modes({"files": [{"path": "/x", "mode": 420}]}) == ['files[0].mode must be a quoted string such as "0644"']


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"files": [{**FILE, "path": "etc/x"}]}, "files[0].path must be an absolute path"),
        ({"files": [{**FILE, "path": "/etc/../x"}]}, "must not contain '..'"),
        ({"files": [{**FILE, "mode": "rw"}]}, "files[0].mode must be an octal string"),
        ({"files": [{**FILE, "src": "x"}]}, "files[0] (/etc/x) needs exactly one of"),
        ({"files": [FILE, FILE]}, "files[1].path says /etc/x again"),
        ({"files": [FILE], "links": [{"path": "/etc/x", "target": "y"}]}, "links[0].path says /etc/x again"),
        ({"units": [UNIT, {**UNIT, "name": "nginx.service"}]}, "units[1] says unit nginx.service again"),
        ({"units": [{**UNIT, "masked": True, "state": "started"}]}, "can be neither enabled nor started"),
        ({"packages": ["curl; rm -rf /"]}, "packages[0] is not a package"),
        ({"packages": ["--force-yes"]}, "packages[0] is not a package"),
        ({"packages": ["curl=8.*"], "packages_absent": ["curl"]}, "packages_absent names curl"),
        ({"absent": ["/etc"]}, "too near the root"),
        ({"users": [{"name": "a b"}]}, "users[0].name"),
        ({"users": [{"name": "a", "authorized_keys": ["ssh-ed25519"]}]}, "users[0].authorized_keys[0]"),
        ({"users": [{"name": "a", "authorized_keys": ["ssh-rsa " + "A" * 30 + "\nssh-rsa " + "B" * 30]}]}, "not one line"),
        ({"validate": [{"name": "x", "command": [], "when_changed": ["/etc"]}]}, "validate[0].command is empty"),
        ({"confirm": {"name": "x", "paths": ["/etc"], "undo": [], "seconds": 3}}, "confirm.seconds"),
        ({"repositories": [{**REPOSITORY, "signed_by": "https://example.com/key"}]}, "fingerprint must pin"),
        ({"repositories": [{**REPOSITORY, "signed_by": "hello world"}]}, "signed_by must be an armored"),
        ({"repositories": [{**REPOSITORY, "fingerprint": "abc"}]}, "40 hexadecimal digits"),
        ({"repositories": [{**REPOSITORY, "uris": ["https://a b"]}]}, "uris has a blank"),
    ],
)
def test_a_document_that_cannot_be_meant_is_refused_by_key(document, words):
    with pytest.raises(AnchorageError) as raised:
        normalise(document)
    assert words in raised.value.message


def test_the_normal_form_has_full_modes_clean_paths_and_unit_types():
    document = normalise(
        {
            "files": [{**FILE, "path": "/etc//x/", "mode": "640"}],
            "units": [{**UNIT, "reload_on": ["/etc/nginx/"]}],
            "packages": ["a1", "a1"],
        }
    )
    assert (document["files"][0]["path"], document["files"][0]["mode"]) == ("/etc/x", "0640")
    assert (document["units"][0]["name"], document["units"][0]["reload_on"]) == ("nginx.service", ["/etc/nginx/"])
    assert document["packages"] == ["a1"]
    assert document["links"] == []


@pytest.mark.parametrize(("given", "full"), [("a", "a.service"), ("a.timer", "a.timer"), ("php8.2-fpm", "php8.2-fpm.service"), ("a@b", "a@b.service")])
def test_a_unit_without_a_type_is_a_service(given, full):
    assert unit_name(given) == full
