# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL runs to archive a segment (roles/backup/templates/pgbackrest-archive.sh.j2), with targets that a test takes away."""

from __future__ import annotations

import os
import pathlib
import subprocess

import jinja2
import pytest

TEMPLATE = pathlib.Path(__file__).resolve().parents[4] / "roles" / "backup" / "templates" / "pgbackrest-archive.sh.j2"

PGBACKREST = """#!/bin/sh
target=${1##*anchorage-}; target=${target%.conf}
[ -d "$PLACE/$target" ] && cp "$4" "$PLACE/$target/"
"""


class Server:
    """A data directory, two targets, and the script."""

    def __init__(self, tmp_path, *, max_mb=64):
        self.spool, self.targets, self.data = tmp_path / "spool", tmp_path / "targets", tmp_path / "data"
        for path in (self.spool, self.targets / "local", self.targets / "offsite", self.data / "pg_wal" / "archive_status", tmp_path / "bin"):
            path.mkdir(parents=True)
        names = {"__backup_model": {"wal_targets": ["local", "offsite"]}, "__backup_cluster": "main", "backup_wal_max_mb": max_mb}
        text = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(TEMPLATE.read_text()).render(names)
        self.script = tmp_path / "archive"
        self.script.write_text(text.replace("/var/spool/pgbackrest", str(self.spool)))
        (tmp_path / "bin" / "pgbackrest").write_text(PGBACKREST)
        (tmp_path / "bin" / "pgbackrest").chmod(0o755)
        self.environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PLACE": str(self.targets)}

    def run(self, *words):
        return subprocess.run(["sh", str(self.script), *words], cwd=self.data, env=self.environment, capture_output=True, text=True, check=False)

    def archive(self, name, data=b"wal"):
        (self.data / "pg_wal" / name).write_bytes(data)
        ready = self.data / "pg_wal" / "archive_status" / f"{name}.ready"
        ready.touch()
        done = self.run(f"pg_wal/{name}").returncode
        if done == 0:
            ready.unlink()
        return done

    def away(self, name):
        (self.targets / name).rename(self.targets / f"{name}.away")

    def back(self, name):
        (self.targets / f"{name}.away").rename(self.targets / name)

    def at(self, name):
        return sorted(path.name for path in (self.targets / name).iterdir())

    def queued(self, name):
        place = self.spool / "queue" / name
        return sorted(path.name for path in place.iterdir()) if place.exists() else []

    @property
    def gap(self):
        path = self.spool / "gap"
        return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


def test_a_segment_goes_to_every_target(server):
    assert server.archive("01") == 0 and server.at("local") == server.at("offsite") == ["01"] and server.queued("offsite") == []


def test_a_target_that_is_away_holds_up_no_other_and_catches_up_in_order(server):
    server.away("offsite")
    assert [server.archive(name) for name in ("01", "02")] == [0, 0] and server.at("local") == ["01", "02"]
    assert server.queued("offsite") == ["01", "02"]
    # PostgreSQL writes over what is archived.
    (server.data / "pg_wal" / "01").write_bytes(b"another")
    server.back("offsite")
    assert server.archive("03") == 0 and server.at("offsite") == [] and server.queued("offsite") == ["01", "02", "03"], "what waits goes first"
    assert server.run("--queue").returncode == 0 and server.at("offsite") == ["01", "02", "03"] and server.queued("offsite") == []
    assert (server.targets / "offsite" / "01").read_bytes() == b"wal"
    assert server.archive("04") == 0 and server.at("offsite")[-1] == "04"


def test_what_no_target_takes_stays_with_postgresql(server):
    server.away("local")
    server.away("offsite")
    assert server.archive("01") != 0 and server.queued("local") == [] and server.gap == []


def test_beyond_its_bound_wal_is_given_up_and_marked(tmp_path):
    server = Server(tmp_path, max_mb=48)
    server.away("local")
    server.away("offsite")
    (server.data / "pg_wal" / "kept").write_bytes(os.urandom(64 << 20))
    assert server.archive("01") != 0 and server.archive("02") != 0, "what PostgreSQL keeps for itself does not count"
    assert server.archive("03") == 0 and server.gap == ["03"]


def test_a_queue_has_a_bound_too_and_the_other_target_gets_everything(tmp_path):
    server = Server(tmp_path, max_mb=32)
    server.away("offsite")
    segments = [f"0{number}" for number in range(4)]
    assert [server.archive(name) for name in segments] == [0, 0, 0, 0]
    assert server.at("local") == segments and server.queued("offsite") == segments[:2] and server.gap == segments[2:]


def test_what_waits_for_a_target_that_is_none_any_more_goes(server):
    (server.spool / "queue" / "former").mkdir(parents=True)
    (server.spool / "queue" / "former" / "01").write_bytes(b"wal")
    assert server.run("--queue").returncode == 0 and not (server.spool / "queue" / "former").exists()
