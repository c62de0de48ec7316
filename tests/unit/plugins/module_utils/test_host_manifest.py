# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.host_manifest import REMOVED, forget, judge_files, known, remember, was_removed
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_tree import Tree
from ansible_collections.anchorage.vps.plugins.module_utils.world import World

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def host(tmp_path):
    """A host with two files and a link, all of them known."""
    (tmp_path / "etc").mkdir()
    entries = []
    for name in ("a", "b"):
        (tmp_path / "etc" / name).write_text(name)
        (tmp_path / "etc" / name).chmod(0o644)
        digest = hashlib.sha256(name.encode()).hexdigest()
        entries.append({"kind": "file", "path": f"/etc/{name}", "owner": ME, "group": MINE, "mode": "0644", "sha256": digest, "secret": True, "src": "x"})
    (tmp_path / "etc" / "l").symlink_to("a")
    entries.append({"kind": "link", "path": "/etc/l", "target": "a", "owner": ME, "group": MINE, "secret": False})
    entries.append({"kind": "directory", "path": "/etc", "owner": ME, "group": MINE, "mode": "0755", "secret": False})
    place = str(tmp_path / "var" / "files.json")
    remember(World(), entries, path=place)
    return tmp_path, entries, place


def judged(host):
    return judge_files(World(), Tree(str(host[0])), path=host[2])


def test_a_host_that_nobody_touched(host):
    check = judged(host)
    assert (check.verdict, check.evidence) == ("ok", {"known": 3, "changed": {}})
    assert stat.S_IMODE(os.stat(host[2]).st_mode) == 0o600 and not any("src" in entry for entry in known(World(), host[2]).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda etc: (etc / "a").write_text("edited"), "/etc/a has other content"),
        (lambda etc: (etc / "a").chmod(0o600), "/etc/a has mode 0600"),
        (lambda etc: [(etc / "a").write_text("x"), (etc / "a").chmod(0o666)], "/etc/a has mode 0666 and other content"),
        (lambda etc: (etc / "a").unlink(), "/etc/a is gone"),
        (lambda etc: [(etc / "l").unlink(), (etc / "l").symlink_to("b")], "/etc/l is something else"),
        (lambda etc: [(etc / "a").unlink(), (etc / "a").symlink_to("b")], "/etc/a is something else"),
        (lambda etc: [(etc / "a").unlink(), (etc / "a").mkdir()], "/etc/a is a directory, and a file is wanted there"),
    ],
    ids=["content", "mode", "both", "gone", "link", "kind", "directory"],
)
def test_what_somebody_did(host, change, words):
    change(host[0] / "etc")
    check = judged(host)
    assert check.verdict == "warn" and check.cause == f"changed since provisioning: {words}" and "provision.yml --check --diff" in check.advice


def test_many_changes_are_told_in_short(tmp_path):
    entries = [{"kind": "file", "path": f"/{number}", "owner": ME, "group": MINE, "mode": "0644", "sha256": "", "secret": False} for number in range(7)]
    place = str(tmp_path / "files.json")
    remember(World(), entries, path=place)
    check = judge_files(World(), Tree(str(tmp_path)), path=place)
    assert check.cause.endswith("/4 is gone, and 2 more") and len(check.evidence["changed"]) == 7


def kinds(place):
    return {name: entry["kind"] for name, entry in known(World(), place).items()}


def test_what_is_to_be_absent_is_known_as_removed_with_all_below_it(host):
    _root, entries, place = host
    remember(World(), [{"kind": "absent", "path": "/etc/a"}], path=place)
    assert kinds(place) == {"/etc/a": REMOVED, "/etc/b": "file", "/etc/l": "link"}
    assert was_removed(World(), "/etc/a", path=place) and not was_removed(World(), "/etc/b", path=place) and not was_removed(World(), "/x", path=place)
    remember(World(), [{"kind": "absent", "path": "/etc"}], path=place)
    assert kinds(place) == dict.fromkeys(("/etc", "/etc/a", "/etc/b", "/etc/l"), REMOVED) and judged(host).evidence == {"known": 0, "changed": {}}
    remember(World(), entries[:1], path=place)
    assert kinds(place)["/etc/a"] == "file" and judged(host).evidence["known"] == 1


def test_what_is_to_be_absent_and_is_gone_already_is_no_difference(host):
    root, _entries, place = host

    def gone(path):
        return not os.path.lexists(root / path.lstrip("/"))

    (root / "etc" / "a").unlink()
    forget(World(), ["/etc/*"], ["/etc/b"], gone, path=place)
    assert kinds(place) == {"/etc/a": REMOVED, "/etc/b": "file", "/etc/l": "link"}, "what is wanted or still there is kept"
    forget(World(), ["/other/*"], [], lambda path: True, path=place)
    assert kinds(place)["/etc/l"] == "link"


def test_nothing_is_written_where_nothing_is_new(host, monkeypatch):
    monkeypatch.setattr(World, "write_atomic", lambda *_arguments, **_options: pytest.fail("written"))
    remember(World(), host[1], path=host[2])
    forget(World(), ["/etc/*"], [], lambda path: False, path=host[2])


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_host_without_a_record_is_said_so_and_gets_one(tmp_path, text):
    place = tmp_path / "files.json"
    if text is not None:
        place.write_text(text)
    assert "was not provisioned since" in judge_files(World(), path=str(place)).cause
    entry = {"kind": "link", "path": "/x", "target": "y", "secret": False}
    remember(World(), [entry], path=str(place))
    assert json.loads(place.read_text()) == {"/x": entry}
