# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_boot
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.backup_boot import admit, boot, login, rewritten
from ansible_collections.anchorage.vps.plugins.module_utils.database import Database
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.health import judge
from ansible_collections.anchorage.vps.plugins.module_utils.layout import DOCUMENTS
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .engine_fakes import PASSWORD, HostWorld, document, place

RELEASE = "r1"


class Copy:
    """A restored server."""

    def __init__(self, world, directory):
        self.world, self.directory = world, directory
        self.environment = {"PGHOST": f"{directory}/socket", "PGPORT": "5432"}
        self.said = []
        self.roles = "1"

    def database(self, name):
        return Database(self.world, f"postgres://postgres@localhost/{name}")

    def psql(self, database, sql):
        self.said.append(sql)
        return self.roles


@pytest.fixture
def host(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    world = HostWorld()
    described = document(str(tmp_path / "home"), redis_url="redis://shop:x@127.0.0.1:6379/0")
    described["processes"][0]["health"] = {**described["processes"][0]["health"], "path": "/health"}
    world.files[f"{DOCUMENTS}/shop.json"] = json.dumps(described)
    world.files[backup_boot.REDIS] = ""
    world.marks.add(RELEASE)
    world.state = "active"
    world._systemctl = lambda argv, call: Completed(0, f"{world.state}\n", "")
    monkeypatch.setattr(backup_boot, "probe", lambda target, wanted, **_options: asked(world, target))
    app = App("shop", world, described)
    app.journal.mark(RELEASE, "staged", tree="t1", source="s1")
    app.journal.go_live(RELEASE, "green", "t1")
    os.makedirs(app.layout.release(RELEASE) + "/run")
    return world, Copy(world, str(tmp_path))


def asked(world, target):
    world.target = target
    return [judge("answer", world.state == "active", cause="nothing")]


def units(world):
    found = {}
    for call in world.ran:
        if call["argv"][0] == "systemd-run":
            (unit,) = [word.partition("=")[2] for word in call["argv"] if word.startswith("--unit=")]
            found[unit] = call["argv"]
    return found


def test_the_live_release_is_started_in_a_network_of_its_own(host):
    world, copy = host
    world.state = "active"
    assert boot(world, copy, "shop")["release"] == RELEASE
    started = units(world)
    assert set(started) == {f"anchorage-boot-shop{part}.service" for part in ("", "-door", "-redis", "-database")}
    for argv in started.values():
        assert "--property=PrivateNetwork=yes" in argv and "--property=ProtectSystem=strict" in argv
    assert not any("JoinsNamespaceOf" in word for word in started["anchorage-boot-shop-database.service"])
    assert "--property=JoinsNamespaceOf=anchorage-boot-shop-database.service" in started["anchorage-boot-shop.service"]
    assert world.target.unix_socket == f"{copy.directory}/boot.sock" and world.target.url == "http://127.0.0.1:9000/health"
    written = next(json.loads(text) for path, text in world.files.items() if path.endswith("/run/boot.json"))
    assert written["env"]["DATABASE_URL"] == f"postgres://shop:{PASSWORD}@127.0.0.1:5432/shop?sslmode=disable"
    assert written["env"]["REDIS_URL"] == "redis://127.0.0.1:6379/0" and written["env"]["HOME"] == "/tmp"
    assert PASSWORD not in str([call["argv"] for call in world.ran])
    stopped = [call["argv"] for call in world.ran if call["argv"][:2] == ["systemctl", "stop"]]
    assert len(stopped) == 2 and set(stopped[-1][2:]) == set(started)


def test_a_release_that_does_not_get_well_is_told_with_its_last_words(host):
    world, copy = host
    world.state = "failed"
    world.files[f"{copy.directory}/boot.log"] = "starting\nError: relation item does not exist\n\n"
    with pytest.raises(AnchorageError, match="its process has ended .failed..*It printed last: Error: relation item does not exist"):
        boot(world, copy, "shop")
    assert [call["argv"] for call in world.ran if call["argv"][:2] == ["systemctl", "stop"]]


def test_a_copy_without_the_releases_mark_is_not_started(host):
    world, copy = host
    world.marks.clear()
    with pytest.raises(AnchorageError, match="was not migrated for shop's live release r1"):
        boot(world, copy, "shop")
    assert not units(world)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"runtime": "compose"}, "its runtime is compose"), ({"database_url": None}, "it has no database"), ({"processes": []}, "no process of it has a port")],
)
def test_what_cannot_be_started_here_is_skipped_and_said(host, changes, why):
    world, copy = host
    path = f"{DOCUMENTS}/shop.json"
    world.files[path] = json.dumps({**json.loads(world.files[path]), **changes})
    assert boot(world, copy, "shop") == {"skipped": why}
    assert not units(world)


def test_every_way_to_the_database_leads_to_the_copy():
    found = rewritten(
        {
            "DATABASE_URL": "postgres://shop:p%40ss@10.0.0.5:6432/shop?sslmode=require&pgbouncer=true&schema=app",
            "DIRECT_URL": "postgresql://owner@db.example.com/shop",
            "OTHER": "postgres://x@10.0.0.1/analytics",
            "REDIS_URL": "rediss://shop:secret@cache.example.com:6380/2",
            "JWT_SECRET": "http://[bad",
            "NAME": "shop",
        },
        "shop",
    )
    assert found["DATABASE_URL"] == "postgres://shop:p%40ss@127.0.0.1:5432/shop?schema=app&sslmode=disable"
    assert found["DIRECT_URL"] == "postgresql://owner@127.0.0.1:5432/shop?sslmode=disable"
    assert found["REDIS_URL"] == "redis://127.0.0.1:6379/2"
    # Another database is not in the copy of this one, and cannot be reached from there.
    assert found["OTHER"] == "postgres://x@10.0.0.1/analytics"
    assert (found["JWT_SECRET"], found["NAME"]) == ("http://[bad", "shop")


def test_the_role_is_let_in_with_the_password_that_the_app_has_now():
    copy = Copy(None, "/x")
    admit(copy, 'o"dd', "it's \\ a secret")
    assert copy.said[-1] == 'ALTER ROLE "o""dd" LOGIN PASSWORD ' + "E'it''s \\\\ a secret'"
    copy.roles = "0"
    admit(copy, "shop", "x")
    assert copy.said[-1] == "CREATE ROLE \"shop\" LOGIN SUPERUSER PASSWORD 'x'"


def test_an_address_says_database_role_and_password():
    assert login("postgres://sh%40p:p%2Fw@h:1/my%20shop?x=1") == ("my shop", "sh@p", "p/w")


def test_a_door_passes_on_what_comes_in(tmp_path):
    behind = socket.create_server(("127.0.0.1", 0))

    def answer():
        client, _address = behind.accept()
        client.sendall(client.recv(100).upper())
        client.close()

    threading.Thread(target=answer, daemon=True).start()
    path = tmp_path / "door"
    argv = [sys.executable, "-I", "-c", backup_boot.DOOR, f"unix:{path}", f"tcp:127.0.0.1:{behind.getsockname()[1]}"]
    with subprocess.Popen(argv) as process:
        try:
            for _try in range(200):
                if path.exists():
                    break
                threading.Event().wait(0.05)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                for _try in range(200):
                    try:
                        client.connect(str(path))
                        break
                    except ConnectionRefusedError:
                        threading.Event().wait(0.05)
                client.sendall(b"hello")
                assert client.recv(100) == b"HELLO" and client.recv(100) == b""
            assert path.stat().st_mode & 0o077 == 0
        finally:
            process.kill()
            behind.close()
