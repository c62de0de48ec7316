# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the tests of the engine: a host whose psql, PM2 and systemd are a few dictionaries."""

from __future__ import annotations

import io
import json
import os
import pwd
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils import catalog
from ansible_collections.anchorage.vps.plugins.module_utils import layout as layout_module
from ansible_collections.anchorage.vps.plugins.module_utils.app import App, Log
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .health_fakes import FakeWorld

ME = pwd.getpwuid(os.getuid())
PASSWORD = "sesame-open-sesame"
OK = Completed(0, "", "")


class Conversation:
    """A psql session whose answers were written down before."""

    def __init__(self, answers: t.Iterable[str]) -> None:
        self.stdin, self.stdout, self.killed = io.StringIO(), io.StringIO("".join(f"{answer}\n" for answer in answers)), False

    def wait(self, timeout: float | None = None) -> int:
        return 0

    def kill(self) -> None:
        self.killed = True


class HostWorld(FakeWorld):
    """A host with one app: files in memory, a database that answers by what stands in a query, units, PM2, commands that print."""

    def __init__(self) -> None:
        super().__init__(commands=self.answer)
        self.written: dict[str, dict[str, t.Any]] = {}
        self.units: set[str] = set()
        self.marks: set[str] = set()
        self.database_up = True
        self.answers: dict[str, str] = {}
        self.lock_answers = ["t"]
        self.events: list[str] = []
        self.streamed: list[list[str]] = []
        self.output: list[str] = []
        self.rc = 0
        self.free = 1 << 40
        self.schema = ""
        self.catalogs: list[dict[str, t.Any]] = [{"columns": {}, "rules": [], "unique": [], "labels": []}]
        self.since: list[dict[str, t.Any]] = []
        self.dump = OK
        self.listing = Completed(0, "; Archive created\n1; 0 1 TABLE public items shop\n2; 0 1 TABLE DATA public items shop\n", "")
        self.on_sleep: t.Callable[[], None] | None = None

    # -- files

    def write_atomic(self, path: str, data: bytes, *, mode: int, uid: int | None = None, gid: int | None = None) -> None:
        self.files[path] = data.decode()
        self.written[path] = {"mode": mode, "uid": uid, "gid": gid}

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.on_sleep:
            self.on_sleep()

    def commit_file(self, temporary: str, path: str, *, mode: int) -> int:
        self.files[path] = self.files.pop(temporary)
        self.written[path] = {"mode": mode}
        return len(self.files[path])

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    remove_for_good = remove

    def make_directory(self, path: str, *, mode: int) -> None:
        self.written[path] = {"mode": mode}

    def free_bytes(self, path: str) -> int:
        return self.free

    # -- commands

    def _pg_dump(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if argv[1] == "--version":
            return Completed(0, "pg_dump (PostgreSQL) 17.2 (Debian 17.2-1)\n", "")
        self.events.append("dump")
        (path,) = [word.partition("=")[2] for word in argv if word.startswith("--file=")]
        self.files[path] = "PGDMP"
        return self.dump

    def _pg_restore(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        return self.listing

    def answer(self, call: dict[str, t.Any]) -> Completed:
        argv = call["argv"]
        handler = getattr(self, f"_{argv[0].replace('-', '_')}", None)
        return handler(argv, call) if handler else OK

    def _node(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        return Completed(0, "v20.19.2\n", "")

    def _systemctl(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if argv[1] == "is-active":
            return Completed(0 if argv[-1] in self.units else 3, "", "")
        return OK

    def _psql(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if not self.database_up:
            return Completed(2, "", "psql: error: connection refused\n")
        variables = dict(word.split("=", 1) for word in argv if "=" in word)
        sql = call["input"]
        if "INSERT INTO anchorage.release" in sql:
            self.events.append("mark")
            self.marks.add(variables["release"])
            return OK
        if sql == catalog.QUERY:
            return Completed(0, json.dumps(self.catalogs.pop(0) if len(self.catalogs) > 1 else self.catalogs[0]) + "\n", "")
        if "SELECT id FROM anchorage.release" in sql:
            return Completed(0, json.dumps([{"id": mark} for mark in sorted(self.marks)]) + "\n", "")
        if "AS findings" in sql:
            return Completed(0, json.dumps(self.since) + "\n", "")
        if "to_regclass" in sql:
            return Completed(0, "t\n", "")
        if "EXISTS (SELECT 1 FROM information_schema.columns" in sql:
            return Completed(0, "t\n", "")
        if "schema_id" in sql:
            return Completed(0, f"{self.schema}\n", "")
        if "FROM anchorage.release" in sql:
            return Completed(0, f"{int(variables['release'] in self.marks)}\n", "")
        if "SHOW server_version_num" in sql and "SHOW server_version_num" not in self.answers:
            return Completed(0, "170002\n", "")
        if "pg_terminate_backend" in sql and not any(words in sql for words in self.answers):
            return Completed(0, "0\n", "")
        for words, text in self.answers.items():
            if words in sql:
                self.events.append(words)
                return Completed(0, f"{text}\n", "")
        return Completed(0, "1\n", "")

    def converse(self, argv: t.Sequence[str], *, env: t.Mapping[str, str]) -> Conversation:
        self.events.append("lock")
        return Conversation(self.lock_answers)

    def stream(self, argv: t.Sequence[str], on_line: t.Callable[[str], None], *, timeout: float | None = None) -> int:
        self.events.append("run")
        self.streamed.append(list(argv))
        for line in self.output:
            on_line(line)
        return self.rc


def document(home: str, **changes: t.Any) -> dict[str, t.Any]:
    """Return the document of a gated app with a server and a worker that may not overlap."""
    process = {"instances": 1, "memory_mb": 256, "env": {}, "stop_seconds": 5, "health": None}
    steady = {"path": None, "status": 200, "body": None, "deadline_seconds": 10, "interval_seconds": 1, "successes": 2}
    server = {
        "name": "server",
        "command": ["node", "server.js"],
        "public": True,
        "overlap": True,
        "slots": {"blue": [9000], "green": [9002]},
        **process,
        "health": steady,
    }
    worker = {"name": "worker", "command": ["node", "worker.js"], "public": False, "overlap": False, "slots": None, **process, "health": steady}
    return {
        "name": "shop",
        "user": ME.pw_name,
        "home": home,
        "source": {"kind": "path", "path": "/src/shop", "repo": None, "version": None, "archive": None, "sha256": None, "subdir": ""},
        "package_manager": "auto",
        "build": {"command": None, "env": {}, "output": ".", "directories": [], "memory_mb": 512, "timeout_seconds": 60},
        "env": {"A": "1"},
        "secrets_env": {"JWT_SECRET": "j" * 32},
        "database_url": f"postgres://shop:{PASSWORD}@127.0.0.1:5432/shop",
        "redis_url": None,
        "redis_cache_url": None,
        "listen_address": "127.0.0.1",
        "migrate": {
            "command": ["node", "migrate.js"],
            "timeout_seconds": 60,
            "lock_timeout_seconds": 5,
            "statement_timeout_seconds": 30,
            "error_patterns": ['"level":"error"'],
            "changed_patterns": ["● Migrating "],
            "files": [],
            "allow": [],
            "large_table_mb": 64,
            "rehearsal": {"enabled": False, "url": None, "max_lock_seconds": 2},
            "restore_point": {"enabled": True, "timeout_seconds": 60, "keep": 2},
            "verify": [{"name": "all is recorded", "sql": "SELECT count(*) FROM migrations", "expect": "3"}],
        },
        "migrator": True,
        "processes": [server, worker],
        "shared": [],
        "admin": None,
        "admin_password": None,
        "keep_releases": 3,
        **changes,
    }


def place(tmp_path: t.Any, monkeypatch: t.Any) -> None:
    """Let the engine's paths lie below a temporary directory."""
    monkeypatch.setattr(layout_module, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(layout_module.Layout, "pm2_home", property(lambda self: f"{tmp_path}/pm2/{self.app}"))
    for path in (tmp_path / "state" / "shop", tmp_path / "pm2" / "shop", tmp_path / "home"):
        path.mkdir(parents=True)


def make(tmp_path: t.Any, **changes: t.Any) -> tuple[App, HostWorld, Log]:
    """Return an app on a fake host, that host, and a log that nobody reads."""
    world = HostWorld()
    world.answers["FROM migrations"] = "3"
    app = App("shop", t.cast(t.Any, world), document(str(tmp_path / "home"), **changes))
    return app, world, Log(lambda line: None)


def written_json(world: HostWorld, path: str) -> dict[str, t.Any]:
    """Return a file that was written, as data."""
    return t.cast("dict[str, t.Any]", json.loads(world.files[path]))
