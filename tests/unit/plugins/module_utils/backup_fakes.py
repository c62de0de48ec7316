# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with real files below a temporary directory, and tools that answer as pgBackRest 2.55, restic 0.18 and PostgreSQL 17 do."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils import backup_dump, backup_results, backup_run
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .engine_fakes import Conversation

OK = Completed(0, "", "")
NOW = 1_796_000_000.0
SNAPSHOT = "3f2a9c51d07e3f2a9c51d07e3f2a9c51d07e3f2a9c51d07e3f2a9c51d07e3f2a"


def backup(label: str, *, at: float = NOW - 3600, kind: str = "full", error: bool = False) -> dict[str, t.Any]:
    """Return one backup as pgBackRest lists it."""
    return {"label": label, "type": kind, "error": error, "timestamp": {"start": at, "stop": at + 1}, "info": {"size": 30 << 20}}


class Host(World):
    """Answers commands from what a test has put into its attributes."""

    def __init__(self, tmp_path: pathlib.Path) -> None:
        self.tmp_path = tmp_path
        self.clock = NOW
        self.ran: list[dict[str, t.Any]] = []
        self.stanza = True
        self.backups: list[dict[str, t.Any]] = []
        self.broken: dict[str, Completed] = {}
        self.repositories: set[str] = set()
        self.summary: dict[str, t.Any] = {"message_type": "summary", "total_bytes_processed": 5 << 20, "data_added": 1 << 20, "snapshot_id": SNAPSHOT}
        self.session = ["00000003-0000001B-1", json.dumps([{"name": "public.item", "quoted": "public.item"}]), "42"]
        self.free = 1 << 40
        self.saved: list[str] = []

    # -- clock

    def now(self) -> float:
        return self.clock

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def free_bytes(self, path: str) -> int:
        return self.free

    # -- commands

    def run(self, argv, *, input=None, env=None, timeout=None, cwd=None, user=None) -> Completed:
        call = {"argv": list(argv), "input": input, "env": env, "timeout": timeout, "cwd": cwd, "user": user}
        self.ran.append(call)
        line = " ".join(argv)
        for words, done in self.broken.items():
            if all(word in line for word in words.split(" & ")):
                return done
        handler = getattr(self, f"_{pathlib.PurePath(argv[0]).name.replace('-', '_')}", None)
        return handler(list(argv), call) if handler else OK

    def _pgbackrest(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if "info" in argv:
            code, message = (0, "ok") if self.backups else (2, "no valid backups") if self.stanza else (1, "missing stanza path")
            known = [{"id": 1}] if self.stanza else []
            return Completed(0, json.dumps([{"backup": self.backups, "db": known, "archive": [], "status": {"code": code, "message": message}}]), "")
        if "stanza-create" in argv:
            self.stanza = True
        if "backup" in argv:
            kind = next(word for word in argv if word.startswith("--type=")).removeprefix("--type=")
            self.backups = [*self.backups, backup(f"new-{kind}-{len(self.backups)}", at=self.clock, kind=kind)]
        return OK

    def _restic(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        place = argv[1]
        if "cat" in argv and place not in self.repositories:
            return Completed(10, "", "Fatal: repository does not exist: unable to open config file\n")
        if "init" in argv:
            self.repositories.add(place)
        if "backup" in argv:
            self.saved = argv[argv.index("--") + 1 :]
            return Completed(0, f'{{"message_type":"status"}}\n{json.dumps(self.summary)}\n', "")
        return OK

    def _pg_dump(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        if "--version" in argv:
            return Completed(0, "pg_dump (PostgreSQL) 17.5\n", "")
        path = next(word for word in argv if word.startswith("--file=")).removeprefix("--file=")
        pathlib.Path(path).write_text("PGDMP")
        return OK

    def _redis_instance(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        pathlib.Path(argv[-1]).write_text("REDIS0012")
        return OK

    def _redis_check_rdb(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        return Completed(0, "[offset 27] \\o/ RDB looks OK! \\o/\n[info] 7 keys read\n", "")

    def _psql(self, argv: list[str], call: dict[str, t.Any]) -> Completed:
        return Completed(0, "170005\n" if "server_version_num" in call["input"] else "1048576\n", "")

    def converse(self, argv: t.Sequence[str], *, env: t.Mapping[str, str]) -> t.Any:
        first = not any(call.get("converse") for call in self.ran)
        self.ran.append({"argv": list(argv), "converse": True, "env": env})
        return Conversation(["t"] if first else self.session)

    def words(self, program: str) -> list[list[str]]:
        """Return what a program was called with."""
        return [call["argv"] for call in self.ran if call["argv"][0] == program]


def place(tmp_path: pathlib.Path, monkeypatch: t.Any) -> Host:
    """Let what the jobs leave lie below a temporary directory, and return a host."""
    directory = tmp_path / "backup"
    for module, name, value in (
        (backup_results, "DIRECTORY", directory),
        (backup_run, "DIRECTORY", directory),
        (backup_run, "STAGE", directory / "stage"),
        (backup_run, "GAP", tmp_path / "gap"),
        (backup_dump, "REDIS_CLI", "redis-instance"),
    ):
        monkeypatch.setattr(module, name, str(value))
    directory.mkdir()
    return Host(tmp_path)
