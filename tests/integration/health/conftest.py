# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private PostgreSQL, Redis and nginx of this machine's own packages, on free ports, in a directory that ends with the tests.

They run without root's rights (PostgreSQL refuses them), so that broken rights and full limits are as real as on a host.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import typing as t

import pytest

USER = "nobody" if os.geteuid() == 0 else None


def program(name: str, package: str, *places: str) -> str:
    """Return the path of a program; a missing one is a failure, not a test less."""
    for pattern in places:
        found = sorted(glob.glob(pattern))
        if found:
            return found[-1]
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.fail(f"{name} is needed: install Debian's {package}.", pytrace=False)
    return path


def free_port() -> int:
    """Return a TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def as_user(argv: t.Sequence[str]) -> list[str]:
    """Return a command that drops root."""
    return ["setpriv", f"--reuid={USER}", f"--regid={pwd.getpwnam(USER).pw_gid}", "--clear-groups", "--", *argv] if USER else [*argv]


def own(path: str) -> None:
    """Give a file or directory to the user of the services."""
    if USER:
        os.chown(path, pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid)


def run(*argv: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run a command as the user of the services."""
    return subprocess.run(as_user(argv), env={**os.environ, "HOME": "/", **environment}, cwd="/", capture_output=True, text=True, check=check)


def until(good: t.Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something that comes soon."""
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def workshop() -> t.Iterator[pathlib.Path]:
    """A directory with a short name (sockets need one) that the services may write to."""
    path = tempfile.mkdtemp(prefix="anch-health-", dir="/tmp")
    os.chmod(path, 0o755)
    own(path)
    yield pathlib.Path(path)
    shutil.rmtree(path, ignore_errors=True)


class Postgres:
    """A PostgreSQL server with the database `shop`, its owner `shop`, and a superuser `boss`."""

    password = "sesame'open"

    def __init__(self, data: pathlib.Path, port: int) -> None:
        self.data = data
        self.port = port
        self.ctl = program("pg_ctl", "postgresql", "/usr/lib/postgresql/*/bin/pg_ctl")
        self.bin = os.path.dirname(self.ctl)

    @property
    def url(self) -> str:
        return f"postgresql://shop:sesame%27open@127.0.0.1:{self.port}/shop"

    def create(self) -> None:
        secret = self.data.parent / "boss"
        secret.write_text("boss")
        secret.chmod(0o644)
        run(f"{self.bin}/initdb", "-D", str(self.data), "-U", "boss", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8")
        self.configure("fsync = off", "max_connections = 12", "superuser_reserved_connections = 3", "archive_mode = on", "archive_command = 'true'")
        self.start()
        self.sql("CREATE ROLE shop LOGIN PASSWORD 'sesame''open'")
        self.sql("CREATE DATABASE shop OWNER shop")

    def configure(self, *lines: str) -> None:
        with (self.data / "postgresql.conf").open("a") as stream:
            stream.write("\n".join([*lines, f"port = {self.port}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{self.data}'", ""]))

    def start(self) -> None:
        run(self.ctl, "-D", str(self.data), "-w", "-l", f"{self.data}/log", "start")

    def stop(self, mode: str = "fast") -> None:
        run(self.ctl, "-D", str(self.data), "-w", "-m", mode, "stop", check=False)

    def sql(self, text: str, database: str = "postgres") -> str:
        login = {"PGPASSWORD": "boss", "PGUSER": "boss", "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGDATABASE": database}
        return run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, **login).stdout.strip()

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])


@pytest.fixture(scope="session")
def postgres(workshop) -> t.Iterator[Postgres]:
    """A primary."""
    server = Postgres(workshop / "primary", free_port())
    server.create()
    yield server
    server.stop("immediate")


@pytest.fixture(scope="session")
def standby(postgres, workshop) -> t.Iterator[Postgres]:
    """A streaming standby of the primary."""
    server = Postgres(workshop / "standby", free_port())
    where = f"host=127.0.0.1 port={postgres.port} user=boss password=boss"
    run(f"{server.bin}/pg_basebackup", "-D", str(server.data), "-d", where, "-R", "-X", "stream", "--no-sync", "-c", "fast")
    server.configure("hot_standby = on", "archive_mode = off")
    server.start()
    yield server
    server.stop("immediate")


class Redis:
    """A Redis server of which a test may choose the settings."""

    def __init__(self, directory: pathlib.Path, **settings: str) -> None:
        self.directory = directory
        self.port = free_port()
        directory.mkdir()
        own(str(directory))
        defaults = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(directory), "appendonly": "yes", "maxmemory": "64mb"}
        defaults.update({"maxmemory-policy": "noeviction", "unixsocket": f"{directory}/r.sock", "unixsocketperm": "777", "save": "3600 1"})
        lines = [f"{key.replace('_', '-')} {value}" for key, value in {**defaults, **settings}.items()]
        lines += ["user default on >boss ~* &* +@all", "user shop on >sesame ~shop:* resetchannels -@all +@read +@write +ping +info"]
        lines += ["user blind on >sesame ~* -@all +ping"]
        self.config = directory / "redis.conf"
        self.config.write_text("\n".join([*lines, ""]))
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        argv = as_user([program("redis-server", "redis-server"), str(self.config)])
        self.process = subprocess.Popen(argv, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: "PONG" in self.cli("PING", check=False), "Redis")

    def cli(self, *words: str, check: bool = True) -> str:
        return run("redis-cli", "-p", str(self.port), "--no-auth-warning", *words, check=check, REDISCLI_AUTH="boss").stdout

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def redis(workshop) -> t.Iterator[t.Callable[..., Redis]]:
    """Start Redis servers that end with the test."""
    started: list[Redis] = []

    def start(**settings: str) -> Redis:
        server = Redis(pathlib.Path(tempfile.mkdtemp(dir=workshop)) / "r", **settings)
        os.chmod(server.directory.parent, 0o755)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        with contextlib.suppress(OSError):
            server.directory.chmod(0o755)
        server.stop()


class Nginx:
    """An nginx with a site on http and https."""

    def __init__(self, directory: pathlib.Path, certificate: tuple[str, str]) -> None:
        self.directory = directory
        self.http, self.https, self.app = free_port(), free_port(), free_port()
        directory.mkdir()
        (directory / "html").mkdir()
        (directory / "html" / "index.html").write_text("<!DOCTYPE html><html><title>Welcome to nginx!</title></html>\n")
        (directory / "html" / "health").write_text("OK\n")
        (directory / "nginx.conf").write_text(f"""
pid {directory}/nginx.pid;
error_log {directory}/error.log;
daemon off;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
  limit_req_zone $binary_remote_addr zone=slow:1m rate=1r/m;
  server {{
    listen 127.0.0.1:{self.http};
    root {directory}/html;
    location /app {{ proxy_pass http://127.0.0.1:{self.app}; }}
    location /limited {{ limit_req zone=slow; limit_req_status 429; alias {directory}/html/health; }}
    location /moved {{ return 301 https://shop.example.com/health; }}
  }}
  server {{
    listen 127.0.0.1:{self.https} ssl;
    server_name shop.example.com;
    ssl_certificate {certificate[0]};
    ssl_certificate_key {certificate[1]};
    add_header Strict-Transport-Security "max-age=63072000" always;
    root {directory}/html;
  }}
}}
""")
        self.process = subprocess.Popen([program("nginx", "nginx-light"), "-p", str(directory), "-c", str(directory / "nginx.conf")], cwd=directory)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
