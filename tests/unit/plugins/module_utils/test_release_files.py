# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets, sources, the command's archive: what the engine writes and reads, on a real file system."""

from __future__ import annotations

import ast
import importlib.resources
import io
import json
import os
import pathlib
import stat
import subprocess
import sys
import tarfile

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.lookup import engine as engine_lookup
from ansible_collections.anchorage.vps.plugins.lookup.engine import PACKAGE, read_member
from ansible_collections.anchorage.vps.plugins.module_utils import database, secret_store, source_tree, tree_build, zipapp
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import World


@pytest.fixture
def secrets_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(secret_store, "SECRETS", str(tmp_path))
    monkeypatch.setattr(World, "write_atomic", lambda self, path, data, mode, uid=None, gid=None: _write(path, data, mode))
    return tmp_path


def _write(path, data, mode):
    with open(path, "wb") as stream:
        stream.write(data)
    os.chmod(path, mode)


def test_secrets_are_made_once(secrets_directory):
    first, made = secret_store.ensure(World(), "shop", {"JWT_SECRET": 128, "database_password": 48}, check=False)
    assert made == ["JWT_SECRET", "database_password"] and len(first["JWT_SECRET"]) == 128
    again, made = secret_store.ensure(World(), "shop", {"JWT_SECRET": 128, "database_password": 48, "new": 32}, check=False)
    assert made == ["new"] and again["JWT_SECRET"] == first["JWT_SECRET"]
    assert stat.S_IMODE(os.stat(secrets_directory / "shop.json").st_mode) == 0o600


def test_check_mode_makes_none(secrets_directory):
    kept, made = secret_store.ensure(World(), "shop", {"JWT_SECRET": 128}, check=True)
    assert kept == {} and made == ["JWT_SECRET"] and not (secrets_directory / "shop.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_damaged_secrets_are_never_replaced(secrets_directory, text):
    (secrets_directory / "shop.json").write_text(text)
    with pytest.raises(AnchorageError, match="damaged"):
        secret_store.ensure(World(), "shop", {"JWT_SECRET": 128}, check=False)
    assert (secrets_directory / "shop.json").read_text() == text


def test_the_command_is_reproducible_and_runs_alone(tmp_path):
    data = zipapp.build(read_member)
    assert data == zipapp.build(read_member)
    target = tmp_path / "anchorage"
    target.write_bytes(data)
    done = subprocess.run([sys.executable, "-I", str(target), "status", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "There is no app 'nothing' on this host" in done.stderr


def test_the_hooks_of_certbot_hold_every_module_that_they_import():
    role = pathlib.Path(__file__).resolve().parents[4] / "roles" / "certbot" / "vars" / "main.yml"
    held = {pathlib.PurePath(entry["src"]).stem for entry in yaml.safe_load(role.read_text())["__certbot_files"] if "/module_utils/" in entry.get("src", "")}
    assert held == set(zipapp.members(read_member, first="certbot"))


def test_the_command_holds_every_module_that_its_modules_import():
    held = zipapp.members(read_member)
    imported = {
        name
        for source in held.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level
        for name in ([node.module] if node.module else [alias.name for alias in node.names])
    }
    assert {"command"} | imported == set(held) and len(held) > 60
    assert importlib.resources.files(PACKAGE).joinpath("command.py").is_file()


def test_exec_becomes_the_process_with_the_files_environment_only(tmp_path):
    target = tmp_path / "anchorage"
    target.write_bytes(zipapp.build(read_member))
    wanted = {
        "argv": [sys.executable, "-I", "-c", "import os, json; print(json.dumps(dict(os.environ)))"],
        "cwd": str(tmp_path),
        "env": {"A": "b c$d'\"", "LC_CTYPE": "C.UTF-8"},
    }
    (tmp_path / "run.json").write_text(json.dumps(wanted))
    done = subprocess.run(
        [sys.executable, "-I", str(target), "exec", str(tmp_path / "run.json")], capture_output=True, text=True, check=True, env={"SECRET_OF_THE_CALLER": "x"}
    )
    assert json.loads(done.stdout) == wanted["env"]


def source(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.js").write_text("1")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    os.chmod(tmp_path / "run.sh", 0o755)
    return tmp_path


def test_checksum_follows_content_and_not_time(tmp_path):
    tree = source(tmp_path)
    first = source_tree.checksum(str(tree))
    os.utime(tree / "src" / "a.js", (1, 1))
    assert source_tree.checksum(str(tree)) == first
    (tree / "src" / "a.js").write_text("2")
    assert source_tree.checksum(str(tree)) != first


@pytest.mark.parametrize("name", [".env", ".env.production", "node_modules/x", ".git/config", ".medusa/server/x"])
def test_secrets_and_products_are_no_part_of_a_source(tmp_path, name):
    tree = source(tmp_path)
    first = source_tree.checksum(str(tree))
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert source_tree.checksum(str(tree)) == first


def test_a_packed_source_unpacks_to_itself(tmp_path):
    (tmp_path / "in").mkdir()
    tree = source(tmp_path / "in")
    packed = [io.BytesIO(), io.BytesIO()]
    for target in packed:
        source_tree.pack(str(tree), target)
    assert packed[0].getvalue() == packed[1].getvalue()
    (tmp_path / "x.tar").write_bytes(packed[0].getvalue())
    (tmp_path / "out").mkdir()
    tree_build.unpack(str(tmp_path / "x.tar"), str(tmp_path / "out"))
    assert source_tree.checksum(str(tmp_path / "out")) == source_tree.checksum(str(tree))


def archive(tmp_path, *members):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as bundle:
        for name, link in members:
            info = tarfile.TarInfo(name)
            if link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, link
            bundle.addfile(info, io.BytesIO(b""))
    (tmp_path / "out").mkdir()
    return str(path), str(tmp_path / "out")


@pytest.mark.parametrize("member", [("../evil", None), ("a/../../evil", None), ("a/link", "/etc/passwd"), ("a/link", "../../evil")])
def test_an_archive_cannot_leave_its_release(tmp_path, member):
    path, out = archive(tmp_path, ("a/b", None), member)
    with pytest.raises(AnchorageError, match="would not stay inside"):
        tree_build.unpack(path, out)
    assert not (tmp_path / "evil").exists()


def test_the_only_directory_of_an_archive_is_not_a_level(tmp_path):
    path, out = archive(tmp_path, ("shop-1.0/package.json", None), ("shop-1.0/src/x.js", None))
    tree_build.unpack(path, out)
    assert sorted(os.listdir(out)) == ["package.json", "src"]


def test_a_truncated_archive_is_named(tmp_path):
    path, out = archive(tmp_path, ("a", None))
    with open(path, "wb") as stream:
        stream.write(b"\x1f\x8b\x08")
    with pytest.raises(AnchorageError, match="cannot be unpacked"):
        tree_build.unpack(path, out)


def test_database_address_is_read_byte_for_byte():
    values = database.environment("postgres://sh%40op:p%2Fw%3A%40@db.example:6432/sh%20op?sslmode=no-verify")
    assert values["PGUSER"] == "sh@op" and values["PGPASSWORD"] == "p/w:@" and values["PGDATABASE"] == "sh op"
    assert values["PGHOST"] == "db.example" and values["PGPORT"] == "6432" and values["PGSSLMODE"] == "require"


@pytest.mark.parametrize("url", ["mysql://a@b/c", "postgres://a@b", "nonsense"])
def test_a_wrong_database_address_is_refused_without_showing_it(url):
    with pytest.raises(AnchorageError) as caught:
        database.environment(url)
    assert url not in caught.value.text()


@pytest.mark.parametrize("top", [None, "shop-1.2/"], ids=["directory", "archive"])
def test_the_migrations_of_a_source_are_read_where_it_lies(tmp_path, top):
    files = {"apps/shop/migrations/1.sql": "DROP TABLE a;", "apps/shop/other/2.sql": "DROP TABLE b", "migrations/3.sql": "DROP TABLE c"}
    for name, text in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place = tmp_path / "source"
    if top:
        place = tmp_path / "source.tar.gz"
        with tarfile.open(place, "w:gz") as bundle:
            for name in files:
                bundle.add(tmp_path / "source" / name, f"{top}{name}")
    document = {"source": {"subdir": "apps/shop"}, "migrate": {"files": ["migrations/*"]}}
    assert source_tree.migrations(str(place), document) == {"migrations/1.sql": ["DROP TABLE a"]}
    assert source_tree.migrations(str(place), {**document, "source": {}}) == {"migrations/3.sql": ["DROP TABLE c"]}


def test_the_command_is_built_once_in_a_run_and_anew_when_a_module_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_lookup.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    built = []
    monkeypatch.setattr(engine_lookup.zipapp, "build", lambda read: built.append(1) or b"archive")
    (first,) = engine_lookup.LookupModule().run([])
    (second,) = engine_lookup.LookupModule().run([])
    assert first == second and len(built) == 1 and pathlib.Path(first).read_bytes() == b"archive"
    name, changed_at, size = engine_lookup.stamps()[0]
    others = [(name, changed_at + 1, size), (name, changed_at, size + 1), (f"x{name}", changed_at, size)]
    paths = {engine_lookup.built_path([stamp, *engine_lookup.stamps()[1:]]) for stamp in others}
    assert len(paths) == 3 and first not in paths
    assert {f"{name}.py" for name in zipapp.members(read_member)} <= {stamp[0] for stamp in engine_lookup.stamps()}, "whatever is in it is looked at"
