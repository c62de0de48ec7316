# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for the crash tests: the engine's own code on a real directory, with stand-ins for node, npm, PostgreSQL, PM2 and systemd."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
import time
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils import app as app_module
from ansible_collections.anchorage.vps.plugins.module_utils import catalog, command, engine, pruning, room
from ansible_collections.anchorage.vps.plugins.module_utils import layout as layout_module
from ansible_collections.anchorage.vps.plugins.module_utils.app import App
from ansible_collections.anchorage.vps.plugins.module_utils.layout import COMMAND
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World
from ansible_collections.anchorage.vps.plugins.modules import release_step

from .crash_disk import Recorder
from .engine_fakes import ME, OK, document
from .test_step_activate import Pm2Host

#: What the host's directory holds before the first deploy: what the roles make.
DIRECTORIES = (
    "home/builds",
    "home/deps",
    "home/releases",
    "home/work",
    "home/incoming",
    "home/shared",
    "state/shop/log",
    "state/slots/shop",
    "pm2/shop",
    "etc",
)


#: The version whose visitors wait, since there is no room for two.
HELD = 4


def contract(root: str, version: int) -> dict[str, t.Any]:
    """Return what the contract says of the app in one of its versions; each brings a migration of its own."""
    made = document(f"{root}/home", keep_releases=2)
    made["build"].update(command=["node", "build.js"], output="dist", directories=["logs"])
    made["migrate"]["verify"] = [{"name": "all is recorded", "sql": "SELECT count(*) FROM migrations", "expect": str(version)}]
    made["shared"] = ["static"]
    made["env"] = {"VERSION": str(version)}
    made["strategy"] = "hold" if version == HELD else "blue_green"
    return made


def source(version: int) -> tuple[str, bytes]:
    """Return the checksum and the archive of a version's source; the second and the third have the same lock file."""
    files = {
        "package.json": '{"dependencies": {"a": "1"}}',
        "package-lock.json": json.dumps({"lockfileVersion": 3, "of": min(version, 2)}),
        "server.js": f"// server {version}\n",
        "worker.js": f"// worker {version}\n",
        "migrations.json": json.dumps([f"Migration{number:03}" for number in range(1, version + 1)]),
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as bundle:
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text.encode())
            bundle.addfile(info, io.BytesIO(text.encode()))
    return hashlib.sha256(stream.getvalue()).hexdigest(), stream.getvalue()


class Host(Pm2Host):
    """One host. Its files are real; its database commits at once and for ever; its processes die with the power.

    :arg root: the directory that holds all its files.
    """

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        self.migrations: tuple[str, ...] = ()
        self.runs = 0
        self.recorder: Recorder | None = None
        self.said: list[str] = []
        self.born, self.booted = time.time(), 0.0
        self.node = "20.19.2"
        self.units.add(f"pm2-{ME.pw_name}.service")

    # -- the database

    def database(self) -> tuple[tuple[str, ...], tuple[str, ...], int]:
        """Return what is committed: migrations, marks, and how often the migration command began."""
        return self.migrations, tuple(sorted(self.marks)), self.runs

    def restore_database(self, value: tuple[tuple[str, ...], tuple[str, ...], int]) -> None:
        """Let the database hold what a crash left."""
        self.migrations, marks, self.runs = value
        self.marks = set(marks)

    def _committed(self) -> None:
        if self.recorder:
            self.recorder.committed()

    def _psql(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        sql = call["input"]
        if "FROM migrations" in sql:
            return Completed(0, f"{len(self.migrations)}\n", "")
        if "FROM pg_class" in sql and sql != catalog.QUERY:
            return Completed(0, f"{len(self.migrations)}\n", "")
        if sql == catalog.QUERY:
            columns = {f"public.{name}": {"id": ["text", False, False]} for name in self.migrations}
            return Completed(0, json.dumps({"columns": columns, "rules": [], "unique": [], "labels": []}), "")
        answer = super()._psql(argv, call)
        self._committed()
        return answer

    def _migrate(self, directory: str) -> int:
        """Play the app's migration: a transaction each, and what is recorded is not done again."""
        self.runs += 1
        self._committed()
        with open(f"{directory}/migrations.json", encoding="utf-8") as stream:
            wanted = json.load(stream)
        for name in wanted:
            if name not in self.migrations:
                self.migrations += (name,)
                self._committed()
        return 0

    # -- files

    @staticmethod
    def _is_made_up(path: str) -> bool:
        return path.startswith(("/proc", "/var/log"))

    def read(self, path: str) -> bytes | None:
        if path.startswith("/etc/nginx/"):
            return f"if (-f {self.root}/state/slots/shop/hold) {{".encode()
        return super().read(path) if self._is_made_up(path) else World.read(self, path)

    def listdir(self, path: str) -> list[str]:
        return super().listdir(path) if self._is_made_up(path) else World.listdir(self, path)

    def readlink(self, path: str) -> str | None:
        return super().readlink(path) if self._is_made_up(path) else World.readlink(self, path)

    write_atomic = World.write_atomic  # type: ignore[assignment]
    commit_file = World.commit_file  # type: ignore[assignment]
    remove = World.remove  # type: ignore[assignment]
    remove_for_good = World.remove_for_good  # type: ignore[assignment]
    make_directory = World.make_directory  # type: ignore[assignment]
    exists = World.exists  # type: ignore[assignment]
    modified = World.modified

    def exchange(self, one: str, other: str) -> bool:
        """Do it for real, and have it recorded as the one operation that it is."""
        if self.recorder:
            self.recorder.look()
        done = World.exchange(t.cast(World, self), one, other)
        if self.recorder:
            self.recorder.look()
        return done

    # -- commands

    def _sync(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if self.recorder:
            self.recorder.sync_all()
        return OK

    def _cp(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        assert argv[1] == "-al"
        for directory, _names, files in os.walk(argv[2]):
            target = argv[3] + directory[len(argv[2]) :]
            os.mkdir(target)
            for name in files:
                os.link(f"{directory}/{name}", f"{target}/{name}", follow_symlinks=False)
        return OK

    def _chmod(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        assert argv[1:3] == ["-R", "u=rwX,g=rX,o="]
        for directory, _names, files in os.walk(argv[3]):
            os.chmod(directory, 0o750)
            for name in files:
                path = f"{directory}/{name}"
                if not os.path.islink(path):
                    os.chmod(path, 0o750 if os.stat(path).st_mode & 0o111 else 0o640)
        return OK

    def _node(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        return Completed(0, f"v{self.node}\n", "")

    def _npm(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        return Completed(0, "10.9.4\n", "")

    def _pg_dump(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if argv[1] == "--version":
            return super()._pg_dump(argv, call)
        (path,) = [word.partition("=")[2] for word in argv if word.startswith("--file=")]
        with open(path, "wb") as stream:
            stream.write(b"PGDMP" * 8)
        return OK

    def _systemd_run(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if "--unit=anchorage-shop.service" in argv:
            command.main(argv[argv.index(COMMAND) + 1 :])
        return OK

    def stream(self, argv: t.Sequence[str], on_line: t.Callable[[str], None], *, timeout: float | None = None) -> int:
        assert argv[-3:-1] == [COMMAND, "exec"]
        with open(argv[-1], encoding="utf-8") as stream:
            described = json.load(stream)
        wanted, directory = described["argv"], described["cwd"]
        if "--unit=anchorage-shop-migrate" in argv:
            return self._migrate(directory)
        if wanted == ["node", "build.js"]:
            os.mkdir(f"{directory}/dist")
            for name in ("package.json", "server.js", "worker.js", "migrations.json"):
                with open(f"{directory}/{name}", "rb") as old, open(f"{directory}/dist/{name}", "wb") as new:
                    new.write(old.read())
            return 0
        if wanted[:2] == ["npm", "ci"]:
            for name in ("a", "dev"):
                os.makedirs(f"{directory}/node_modules/{name}")
                with open(f"{directory}/node_modules/{name}/index.js", "w", encoding="utf-8") as stream:
                    stream.write(f"// {name}\n")
            return 0
        assert wanted[:2] == ["npm", "prune"], wanted
        os.unlink(f"{directory}/node_modules/dev/index.js")
        os.rmdir(f"{directory}/node_modules/dev")
        return 0

    # -- processes

    def _pm2(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if argv[1] != "start":
            return super()._pm2(argv, call)
        with open(argv[2], encoding="utf-8") as stream:
            entries = json.load(stream)["apps"]
        for entry in entries:
            self._begin(entry)
        self._sockets()
        return OK

    def _begin(self, entry: dict[str, t.Any]) -> None:
        """Start a process as `anchorage exec` does: from its file, in its directory, with its program; it dies where one is not whole."""
        name = entry["name"]
        self.next_pid += 1
        self.table[name] = self.next_pid
        self.dead.add(name)
        with open(entry["args"][1], encoding="utf-8") as stream:
            described = json.load(stream)
        with open(f"{described['cwd']}/{described['argv'][1]}", encoding="utf-8") as stream:
            assert stream.read().startswith("// "), "an empty program ends at once"
        self.dead.discard(name)
        port = described["env"].get("PORT")
        self.process(self.next_pid, environ=described["env"], sockets=[self.next_pid] if port else [])

    def now(self) -> float:
        """Begin at the real time, so that it goes with that of the files."""
        return self.born + self.clock

    def monotonic(self) -> float:
        """Begin anew with every boot."""
        return self.clock - self.booted

    def power_cut(self) -> None:
        """End all processes, wait a while, and forget what only the tests look at."""
        self.clock += 1000
        self.booted = self.clock
        self.ran.clear()
        self.events.clear()
        self.history.clear()
        self.dead.clear()
        self.table.clear()
        self.files.clear()
        self.links.clear()
        self.listen()

    def boot(self) -> None:
        """Come back: what recovers runs first, then PM2 starts what is written down as live."""
        self.said.clear()
        code = command.main(["recover", "--boot"])
        assert code == 0, f"anchorage recover --boot ended with {code}: {self.said}"
        path = f"{self.root}/pm2/shop/live.json"
        if os.path.exists(path):
            self.answer({"argv": ["pm2", "start", path], "user": ME.pw_name, "env": dict.fromkeys(("PATH", "HOME", "PM2_HOME", "LANG"))})

    # -- what lies there

    def lies(self, *places: str) -> dict[str, tuple[str, int, bytes]]:
        """Return what lies in some places below the root: kind, mode and content, by path."""
        found = {}
        todo = [f"{self.root}/{place}" if place else self.root for place in places or ("",)]
        while todo:
            for entry in os.scandir(todo.pop()):
                path = entry.path[len(self.root) :]
                mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
                if entry.is_symlink():
                    found[path] = ("link", 0, os.readlink(entry.path).encode())
                elif entry.is_dir():
                    found[path] = ("directory", mode, b"")
                    todo.append(entry.path)
                else:
                    with open(entry.path, "rb") as stream:
                        found[path] = ("file", mode, stream.read())
        return found

    # -- what the playbooks ask for

    def ask(self, operation: str, **params: t.Any) -> dict[str, t.Any]:
        """Call the module as the action plugin does."""
        return t.cast("dict[str, t.Any]", release_step.OPERATIONS[operation](t.cast(t.Any, Module(operation, params))))

    def deploy(self, version: int) -> None:
        """Do what deploy.yml does."""
        given, (checksum, archive) = contract(self.root, version), source(version)
        for step in engine.STEPS:
            plan = self.ask("plan", documents=[json.dumps(given)], sources={"shop": checksum})["apps"]["shop"]
            if step not in plan["steps"]:
                continue
            if step == "stage" and plan["source_needed"]:
                self._receive(plan["incoming"], archive)
            self._step(step, plan, documents=[json.dumps(given)])
        self.ask("prune")

    @staticmethod
    def _receive(path: str, archive: bytes) -> None:
        """Take a source as the shell command of the action plugin does."""
        directory, name = os.path.split(path)
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/.incoming.{name[:8]}", "wb") as stream:
            stream.write(archive)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(f"{directory}/.incoming.{name[:8]}", path)

    def roll_back(self, release: str) -> None:
        """Do what rollback.yml does."""
        plan = self.ask("rollback_plan", release=release)["apps"]["shop"]
        if plan["needed"]:
            self._step(engine.ROLLBACK, plan)
        self.ask("status")

    def _step(self, step: str, plan: dict[str, t.Any], **params: t.Any) -> None:
        wish = {**{key: plan[key] for key in ("release", "tree", "source")}, "owner": "somebody"}
        ended = self.ask("start", step=step, wish=wish, **params)
        assert ended["outcome"]["ok"], ended["outcome"].get("text")

    def app(self) -> App:
        """Return the app as the host itself knows it."""
        return App("shop", t.cast(World, self))


class Module:
    """What the module's operations need of Ansible."""

    check_mode = False

    def __init__(self, operation: str, params: dict[str, t.Any]) -> None:
        given = {"apps": ["shop"], "documents": [], "sources": {}, "wish": {}, "release": None, "code_only": False, "wait_seconds": 10}
        self.params = {**given, **params}

    def atomic_move(self, source: str, target: str) -> None:
        """Do what Ansible does first, and where that works only."""
        os.rename(source, target)


def install(root: str, monkeypatch: t.Any) -> Host:
    """Return a host below a directory, with the engine's paths in it."""
    host = Host(root)
    for name in DIRECTORIES:
        os.makedirs(f"{root}/{name}")
    monkeypatch.setattr(layout_module, "STATE", f"{root}/state")
    monkeypatch.setattr(layout_module.Layout, "pm2_home", property(lambda self: f"{root}/pm2/{self.app}"))
    monkeypatch.setattr(layout_module.Layout, "cache", property(lambda self: f"{root}-cache"))
    for module in (app_module, engine, pruning, release_step):
        monkeypatch.setattr(module, "DOCUMENTS", f"{root}/etc")
    for module in (command, release_step):
        monkeypatch.setattr(module, "World", lambda: host)
    monkeypatch.setattr(room, "RESERVE", (1, 64))
    for name in ("say", "complain"):
        monkeypatch.setattr(command, name, host.said.append)
    return host
