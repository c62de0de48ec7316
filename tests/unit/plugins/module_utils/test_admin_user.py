# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import admin_user
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

from .engine_fakes import PASSWORD, make, place

ADMIN = {"email": "admin@example.com", "command": ["node", "cli.js", "user", "--email", "{email}", "--password", "{password}"]}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path, admin=ADMIN, admin_password=PASSWORD)
    seen = []
    run = pathlib.Path(app.layout.release("r1")) / "run"
    run.mkdir(parents=True)

    def write(path, data, *, mode, uid=None, gid=None):
        world.files[path] = data.decode()
        if path.endswith("admin.json"):
            seen.append(json.loads(data))
            pathlib.Path(path).write_bytes(data)

    world.write_atomic = write
    return app, world, log, seen


def test_an_app_without_admin_wants_none(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    assert not admin_user.wanted(app) and admin_user.ensure(app, log, "r1") is False and world.streamed == []


def test_the_user_is_made_once_and_the_password_is_in_no_command_line(shop):
    app, world, log, seen = shop
    assert admin_user.ensure(app, log, "r1") is True
    (command,) = world.streamed
    assert PASSWORD not in " ".join(command)
    assert PASSWORD not in " ".join(seen[0]["argv"])
    assert json.loads(seen[0]["env"]["ANCHORAGE_ARGV"]) == ["cli.js", "user", "--email", "admin@example.com", "--password", PASSWORD]
    assert not os.listdir(f"{app.layout.release('r1')}/run"), "the file with the password is gone"
    assert PASSWORD not in " ".join(log.tail) and PASSWORD not in world.files[app.layout.journal]
    assert not admin_user.wanted(app) and admin_user.ensure(app, log, "r1") is False


def test_another_address_is_another_user(shop):
    app, _world, log, _seen = shop
    admin_user.ensure(app, log, "r1")
    app.document["admin"] = {**ADMIN, "email": "other@example.com"}
    assert admin_user.wanted(app)


def test_a_user_that_is_there_already_is_no_failure(shop):
    app, world, log, _seen = shop
    world.rc, world.output = 1, ["User with email: admin@example.com, already exists."]
    assert admin_user.ensure(app, log, "r1") is True and not admin_user.wanted(app)


def test_a_failure_hides_the_password_and_is_tried_again(shop):
    app, world, log, _seen = shop
    world.rc, world.output = 1, [f"cannot use {PASSWORD}", ""]
    with pytest.raises(AnchorageError, match=r"could not be made \(code 1\): cannot use \(hidden\)"):
        admin_user.ensure(app, log, "r1")
    assert admin_user.wanted(app) and not os.listdir(f"{app.layout.release('r1')}/run")


def test_only_node_can_be_given_a_hidden_command_line(shop):
    app, world, log, _seen = shop
    app.document["admin"] = {**ADMIN, "command": ["sh", "-c", "x"]}
    with pytest.raises(AnchorageError, match="admin.command must start with the word node"):
        admin_user.ensure(app, log, "r1")
    assert world.streamed == []


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node on this machine")
def test_the_wrapper_hands_a_command_line_that_nobody_sees(tmp_path):
    script = "console.log(JSON.stringify([process.argv.slice(2), process.argv[1], require.main === undefined, process.env.ANCHORAGE_ARGV]))"
    (tmp_path / "cli.js").write_text(script)
    environment = {"PATH": os.environ["PATH"], "ANCHORAGE_ARGV": json.dumps(["cli.js", "user", PASSWORD])}
    done = subprocess.run(["node", "-e", admin_user.WRAPPER], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    words, path, _main, left = json.loads(done.stdout)
    assert words == ["user", PASSWORD] and path == os.path.realpath(tmp_path / "cli.js") and left is None
