# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.anchorage.vps.plugins.module_utils.host_state_dpkg import broken, missing, parse_status, present

STATUS = """Package: nginx
Status: install ok installed
Architecture: amd64
Version: 1.26.3-3
Provides: httpd, httpd-cgi (= 1.26)
Description: web server
 Package: not a field
 Status: neither

Package: tree
Status: install ok unpacked
Architecture: amd64
Version: 2.2.1-1

Package: ed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.21-1

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.41-12
"""


def test_what_is_installed_is_not_missing():
    assert missing(parse_status(STATUS), ["nginx", "libc6"]) == {}


def test_a_virtual_package_counts_where_something_installed_provides_it():
    assert missing(parse_status(STATUS), ["httpd-cgi", "httpd"]) == {}
    assert missing(parse_status(STATUS), ["mail-transport-agent"]) == {"mail-transport-agent": None}


def test_what_is_half_installed_or_removed_is_missing():
    assert missing(parse_status(STATUS), ["tree", "ed"]) == {"tree": None, "ed": None}


def test_a_pinned_version_may_hold_wildcards_and_the_wrong_one_is_told():
    assert missing(parse_status(STATUS), ["nginx=1.26.*"]) == {}
    assert missing(parse_status(STATUS), ["nginx=1.22*"]) == {"nginx=1.22*": "1.26.3-3"}


def test_an_architecture_can_be_asked_for():
    assert missing(parse_status(STATUS), ["libc6:i386"]) == {}
    assert missing(parse_status(STATUS), ["libc6:amd64"]) == {"libc6:amd64": None}


def test_left_configuration_is_no_presence_but_half_an_installation_is():
    assert present(parse_status(STATUS), ["ed", "tree", "nginx", "nothing"]) == {"tree": "2.2.1-1", "nginx": "1.26.3-3"}


def test_an_interrupted_dpkg_is_seen():
    assert broken(parse_status(STATUS)) == ["tree"]
