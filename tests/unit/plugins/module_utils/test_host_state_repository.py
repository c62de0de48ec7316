# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_repository import (
    armor,
    checked_key,
    dearmor,
    embedded_key,
    fingerprints,
    render_sources,
    wanted_sources,
)

# Made for this test with gpg, which also gave the fingerprint.
FINGERPRINT = "93AC98EC47E8473674251AC7A99B84DE8A99DAFE"
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawEO+BYJKwYBBAHaRw8BAQdALgtkn0eOlVlb4eHMtbYpmKwkggmN7/lYCOYW
lQEvs0a0B3ggPHhAeD6IlgQTFgoAPhYhBJOsmOxH6Ec2dCUax6mbhN6Kmdr+BQJr
AQ74AhsDBQkFo5qABQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEKmbhN6Kmdr+
6eEBANc8PEhyCGPAK/wf9NSzNY3RJR+eflzHmohOBq/FhC0EAP9E3UejA4X/gYwD
it6ioJLo18spzs0ih8J8GnzN84kwCw==
=i73j
-----END PGP PUBLIC KEY BLOCK-----
"""
REPOSITORY = {
    "name": "pgdg",
    "uris": ["https://apt.example.com/pgdg"],
    "suites": ["trixie-pgdg"],
    "components": ["main"],
    "types": ["deb"],
    "architectures": ["amd64"],
    "enabled": True,
    "signed_by": KEY,
    "fingerprint": FINGERPRINT,
}


def test_the_fingerprint_is_the_one_that_gpg_says():
    assert fingerprints(dearmor(KEY)) == [FINGERPRINT]


def test_armor_goes_there_and_back():
    assert dearmor(armor(dearmor(KEY))) == dearmor(KEY)


@pytest.mark.parametrize("form", ["armored", "binary"])
def test_a_key_with_the_pinned_fingerprint_is_taken_in_both_forms(form):
    raw = KEY.encode() if form == "armored" else dearmor(KEY)
    assert dearmor(checked_key(raw, FINGERPRINT, "here")) == dearmor(KEY)


def test_another_key_is_refused_with_both_fingerprints_named():
    with pytest.raises(AnchorageError) as raised:
        checked_key(KEY.encode(), "0" * 40, "repository pgdg")
    assert FINGERPRINT in raised.value.message and "0" * 40 in raised.value.message


@pytest.mark.parametrize("raw", [b"", b"<html>not found</html>", b"\x99\x01\x0d\x04", KEY[:200].encode()])
def test_what_is_no_whole_key_is_refused(raw):
    with pytest.raises(AnchorageError):
        checked_key(raw, None, "here")


def test_the_sources_file_carries_the_key_and_gives_it_back():
    text = render_sources(REPOSITORY, KEY)
    assert "\nSuites: trixie-pgdg\nComponents: main\nArchitectures: amd64\nSigned-By:\n -----BEGIN" in text
    assert "\n .\n" in text and "\n\n" not in text
    assert dearmor(embedded_key(text)) == dearmor(KEY)


def test_a_key_from_a_url_is_fetched_once_and_again_only_when_it_is_not_the_pinned_one():
    by_url = {**REPOSITORY, "signed_by": "https://apt.example.com/key"}
    assert wanted_sources(by_url, None) is None
    on_disk = render_sources(REPOSITORY, checked_key(KEY.encode(), FINGERPRINT, "here"))
    assert wanted_sources(by_url, on_disk) == on_disk
    assert wanted_sources({**by_url, "fingerprint": "0" * 40}, on_disk) is None


def test_a_key_ring_on_the_host_is_named():
    assert "\nSigned-By: /usr/share/keyrings/x.gpg\n" in wanted_sources({**REPOSITORY, "signed_by": "/usr/share/keyrings/x.gpg"}, None)
