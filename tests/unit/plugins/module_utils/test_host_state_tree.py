# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import grp
import hashlib
import os
import pathlib
import pwd

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import host_state_tree
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.host_state_tree import NEW, OLD, Transaction, Tree, matches, staged_name

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name
OWNED = {"owner": ME, "group": MINE, "secret": False}


def file(path, content, mode="0644"):
    return {"kind": "file", "path": path, "mode": mode, "sha256": hashlib.sha256(content).hexdigest(), **OWNED}


def directory(path, mode="0755"):
    return {"kind": "directory", "path": path, "mode": mode, **OWNED}


def link(path, target):
    return {"kind": "link", "path": path, "target": target, "secret": False}


def absent(path):
    return {"kind": "absent", "path": path, "secret": False}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "etc/nginx").mkdir(parents=True)
    (tmp_path / "etc/nginx/nginx.conf").write_bytes(b"old")
    os.chmod(tmp_path / "etc/nginx/nginx.conf", 0o644)
    (tmp_path / "etc/nginx/current").symlink_to("there")
    (tmp_path / "etc/gone").mkdir()
    (tmp_path / "etc/gone/inside").write_bytes(b"inside")
    known = {"root": os.getuid(), ME: os.getuid()}
    return Tree(str(tmp_path), uid=known.get, gid={"root": os.getgid(), MINE: os.getgid()}.get)


def snapshot(tree):
    seen = {}
    for where, names, files in os.walk(tree.root):
        for name in names + files:
            path = os.path.join(where, name)
            status = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else pathlib.Path(path).read_bytes() if os.path.isfile(path) else None
            seen[path] = (status.st_mode, content)
    return seen


CONTENTS = {"/etc/nginx/nginx.conf": b"new", "/srv/app/env": b"KEY=1"}
ENTRIES = [
    absent("/etc/gone"),
    directory("/srv/app", "0750"),
    directory("/etc/nginx", "0700"),
    file("/etc/nginx/nginx.conf", b"new", "0600"),
    file("/srv/app/env", b"KEY=1"),
    link("/etc/nginx/current", "elsewhere"),
    link("/etc/nginx/fresh", "nginx.conf"),
]


def apply(tree, entries, contents):
    transaction = Transaction(tree)
    transaction.prepare(entries, contents)
    transaction.install(entries)
    return transaction


def test_a_committed_transaction_leaves_nothing_off_and_no_trace(tree):
    apply(tree, ENTRIES, CONTENTS).commit()
    assert [tree.off(entry) for entry in ENTRIES] == [None] * len(ENTRIES)
    assert not [path for path in snapshot(tree) if path.endswith((NEW, OLD))]


def test_an_undone_transaction_leaves_everything_as_it_was(tree):
    before = snapshot(tree)
    apply(tree, ENTRIES, CONTENTS).undo()
    assert snapshot(tree) == before


def test_nothing_is_in_its_place_before_install(tree):
    before = snapshot(tree)
    Transaction(tree).prepare(ENTRIES, CONTENTS)
    after = snapshot(tree)
    assert {path: after[path] for path in before} == before


class Dead(BaseException):
    """A power cut: no code of the transaction runs after it."""


CALLS = ("mkdir", "link", "replace", "rename", "symlink", "fsync", "open", "chown", "chmod")


def count_calls(monkeypatch, limit):
    """Let the process die at the call number ``limit`` that changes the disk."""
    made = []
    for name in CALLS:
        real = getattr(os, name)

        def dying(*arguments, real=real, name=name, **options):
            if name == "open" and not (len(arguments) > 1 and arguments[1] & os.O_CREAT):
                return real(*arguments, **options)
            made.append(name)
            if len(made) == limit:
                raise Dead(name)
            return real(*arguments, **options)

        monkeypatch.setattr(host_state_tree.os, name, dying)
    return made


def test_a_death_at_any_call_is_healed_by_the_next_transaction(tree, tmp_path, monkeypatch):
    deaths = 0
    for limit in range(1, 80):
        root = tmp_path / f"case{limit}"
        (root / "etc/nginx").mkdir(parents=True)
        (root / "etc/nginx/nginx.conf").write_bytes(b"old")
        (root / "etc/gone").mkdir()
        case = Tree(str(root), uid=tree.uid, gid=tree.gid)
        with monkeypatch.context() as patched:
            count_calls(patched, limit)
            try:
                apply(case, ENTRIES, CONTENTS).commit()
            except Dead:
                deaths += 1
        assert (root / "etc/nginx/nginx.conf").read_bytes() in (b"old", b"new")
        still_off = [entry for entry in ENTRIES if case.off(entry) or case.strays([entry])]
        apply(case, still_off, CONTENTS).commit()
        assert [case.off(entry) for entry in ENTRIES] == [None] * len(ENTRIES)
        assert not [path for path in snapshot(case) if path.endswith((NEW, OLD))]
    assert 20 < deaths < 79


def test_an_error_at_any_call_is_undone_completely(tree, monkeypatch):
    before = snapshot(tree)
    errors = 0
    for limit in range(1, 80):
        transaction = Transaction(tree)
        with monkeypatch.context() as patched:
            count_calls(patched, limit)
            try:
                transaction.prepare(ENTRIES, CONTENTS)
                transaction.install(ENTRIES)
            except Dead:
                errors += 1
        transaction.undo()
        assert snapshot(tree) == before, limit
    assert 20 < errors < 79


def test_an_owner_that_does_not_exist_stops_it_by_name(tree):
    with pytest.raises(AnchorageError) as raised:
        Transaction(tree).prepare([{**file("/etc/x", b"x"), "owner": "nobody-here"}], {"/etc/x": b"x"})
    assert "the user nobody-here, which does not exist" in raised.value.message


def test_a_tree_that_is_thrown_away_takes_missing_owners(tree):
    entries = [{**file("/etc/x", b"x"), "owner": "nobody-here"}]
    if os.getuid() != 0:
        pytest.skip("only root gives files to root")
    transaction = Transaction(tree, lenient=True)
    transaction.prepare(entries, {"/etc/x": b"x"})
    transaction.install(entries)
    assert tree.text("/etc/x") == "x"


@pytest.mark.parametrize("lenient", [True, False])
def test_a_directory_that_cannot_be_renamed_goes_only_where_all_is_thrown_away(tree, monkeypatch, lenient):
    """An overlay answers so for each directory of the layer below it."""

    def rename(old, new):
        raise OSError(errno.EXDEV, "Invalid cross-device link", old)

    monkeypatch.setattr(os, "rename", rename)
    transaction = Transaction(tree, lenient=lenient)
    entries = [{"kind": "absent", "path": "/etc/nginx", "secret": False}]
    transaction.prepare(entries, {})
    if lenient:
        transaction.install(entries)
        assert not os.path.exists(tree.real("/etc/nginx"))
    else:
        with pytest.raises(OSError, match="cross-device"):
            transaction.install(entries)
        assert os.path.exists(tree.real("/etc/nginx"))


def test_a_link_in_a_home_is_not_followed_as_root(tree):
    os.makedirs(tree.root + "/home/eve")
    os.symlink("/etc", tree.root + "/home/eve/.ssh")
    entry = {**file("/home/eve/.ssh/authorized_keys", b"x"), "home": "/home/eve"}
    with pytest.raises(AnchorageError) as raised:
        Transaction(tree).prepare([entry], {entry["path"]: b"x"})
    assert "is a link in a home directory" in raised.value.message


def test_what_is_off_is_named_without_content(tree):
    assert tree.off(file("/etc/nginx/nginx.conf", b"new", "0600")) == {
        "before": {"mode": "0644", "content": "other content"},
        "after": {"mode": "0600", "content": "as wanted"},
    }


def test_a_directory_in_the_way_of_a_file_is_an_error(tree):
    with pytest.raises(AnchorageError):
        tree.off(file("/etc/nginx", b"x"))


def test_what_is_wanted_is_never_removed_by_a_glob(tree):
    assert tree.removable(["/etc/nginx/*", "/etc/gone"], ["/etc/nginx/nginx.conf", "/etc/gone/inside"]) == ["/etc/nginx/current"]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/etc/nginx/", "/etc/nginx/a/b", True),
        ("/etc/nginx", "/etc/nginx/a", True),
        ("/etc/nginx/", "/etc/nginx.conf", False),
        ("/etc/*.conf", "/etc/a.conf", True),
        ("/etc/a", "/etc/a", True),
        ("/etc/a", "/etc/ab", False),
    ],
)
def test_patterns(pattern, path, expected):
    assert matches(pattern, path) is expected


def test_hidden_names_are_beside_their_place():
    assert staged_name("/etc/sudoers.d/x", NEW) == "/etc/sudoers.d/.x.anchorage-new"
