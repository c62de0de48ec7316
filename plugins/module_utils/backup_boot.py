# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start an app's live release against restored data, and see that it answers as its health check wants.

It runs in a network of its own, which nothing leads out of: what wakes up in a copy of customers' data must not charge cards, send mail, or
talk to the live database and the live Redis. What leads in are two doors, each a small process in that network: one to the throw-away
PostgreSQL's socket, and one from a socket here to the app's port. Redis is a server for this one run. Only the public process is started,
and it can write nothing but its /tmp.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import typing as t
import urllib.parse

from . import health, slots
from .app import App
from .database import Marks, first_line
from .encoders import sql_identifier, sql_literal
from .errors import AnchorageError
from .http_probe import Expectation, Target, probe
from .layout import COMMAND
from .memory import unit_limit
from .release_plan import instances, process_command, process_environment
from .runtime import PM2, name_of
from .scratch_cluster import ENVIRONMENT, LIFETIME_SECONDS, Scratch, caller
from .world import World

REDIS = "/usr/bin/redis-server"

#: Ports inside the network of its own; nobody else is there.
DATABASE_PORT, REDIS_PORT = 5432, 6379

#: Passes on what comes in at one place to another; each is "unix:PATH" or "tcp:HOST:PORT".
DOOR = """
import os, socket, sys, threading

def place(text):
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return socket.AF_UNIX, rest
    host, _, port = rest.rpartition(":")
    return socket.AF_INET, (host, int(port))

def pump(source, sink):
    try:
        while True:
            part = source.recv(65536)
            if not part:
                break
            sink.sendall(part)
    except OSError:
        pass
    for one, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        try:
            one.shutdown(how)
        except OSError:
            pass

def both(client, server):
    other = threading.Thread(target=pump, args=(server, client), daemon=True)
    other.start()
    pump(client, server)
    other.join()
    client.close()
    server.close()

(here, address), (there, target) = place(sys.argv[1]), place(sys.argv[2])
os.umask(0o077)
listener = socket.socket(here)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(address)
listener.listen(64)
while True:
    client, _ = listener.accept()
    server = socket.socket(there)
    try:
        server.connect(target)
    except OSError:
        client.close()
        server.close()
        continue
    threading.Thread(target=both, args=(client, server), daemon=True).start()
"""


def rewritten(environment: t.Mapping[str, str], database: str, *, ssl: str = "disable") -> dict[str, str]:
    """Return variables that lead to the copy: whatever names the app's database, by whatever way, and every Redis."""
    found = {}
    for name, value in environment.items():
        try:
            parts = urllib.parse.urlsplit(value)
            scheme, path = parts.scheme, urllib.parse.unquote(parts.path.lstrip("/"))
            login = parts.netloc.rpartition("@")[0]
        except ValueError:
            scheme, path, login = "", "", ""
        if scheme in ("postgres", "postgresql") and path == database:
            # What is no address but a schema's name or the like stays.
            query = [(key, text) for key, text in urllib.parse.parse_qsl(parts.query) if not key.startswith("ssl") and key not in ("host", "pgbouncer")]
            netloc = f"{login}@127.0.0.1:{DATABASE_PORT}" if login else f"127.0.0.1:{DATABASE_PORT}"
            value = urllib.parse.urlunsplit((scheme, netloc, parts.path, urllib.parse.urlencode([*query, ("sslmode", ssl)]), ""))
        elif scheme in ("redis", "rediss"):
            value = f"redis://127.0.0.1:{REDIS_PORT}/{path}"
        found[name] = value
    return found


def login(url: str) -> tuple[str, str, str]:
    """Return database, role and password of an address."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.unquote(parts.path.lstrip("/")), urllib.parse.unquote(parts.username or ""), urllib.parse.unquote(parts.password or "")


def admit(scratch: Scratch, role: str, password: str) -> None:
    """Let the app's role into the copy: passwords may have changed since, and a dump brings no roles. The password is in no command line."""
    name = sql_identifier(role)
    known = scratch.psql("postgres", f"SELECT count(*) FROM pg_roles WHERE rolname = {sql_literal(role)}") != "0"
    scratch.psql("postgres", f"{'ALTER ROLE' if known else 'CREATE ROLE'} {name} LOGIN {'' if known else 'SUPERUSER '}PASSWORD {sql_literal(password)}")


def boot(world: World, scratch: Scratch, name: str) -> dict[str, t.Any]:
    """Start the live release of an app against the copy and wait until it is well. Nothing of it stays.

    :returns: release and seconds; or C(skipped), why it cannot be done here.
    :raises AnchorageError: when the copy lacks the release's mark, or the release does not get well on it.
    """
    app = App(name, world)
    release, url = app.journal.live, app.document.get("database_url")
    app = app.at(release)
    if release is None or not url:
        return {"skipped": "it has no live release on this host" if release is None else "it has no database"}
    if name_of(app.document) != PM2:
        return {"skipped": f"its runtime is {name_of(app.document)}"}
    public = next((one for one in instances(app.document, "blue", public=True) if one.port is not None), None)
    if public is None:
        return {"skipped": "no process of it has a port"}
    database, role, password = login(url)
    if app.gated and not Marks(scratch.database(database)).has(name, release):
        raise AnchorageError(f"{database} as it was restored was not migrated for {name}'s live release {release}")
    admit(scratch, role, password)
    began = world.monotonic()
    environment = rewritten(process_environment(app.document, public, release, app.extra_ca_file), database)
    environment.update(HOST="127.0.0.1", HOME="/tmp")
    with Cage(app, scratch, environment) as cage:
        cage.start(process_command(public, environment), release, public)
    return {"release": release, "seconds": round(world.monotonic() - began, 1)}


class Cage:
    """The network of its own, with all that lives in it."""

    def __init__(self, app: App, scratch: Scratch, environment: dict[str, str]) -> None:
        self.app = app
        self.world = app.world
        self.scratch = scratch
        self.environment = environment
        self.base = f"anchorage-boot-{app.name}"
        self.door = f"{scratch.directory}/boot.sock"
        self.log = f"{scratch.directory}/boot.log"
        self.units = [f"{self.base}{part}.service" for part in ("", "-door", "-redis", "-database")]

    def __enter__(self) -> Cage:
        self.stop()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
        self.world.remove(self.door)
        self.world.remove(self.log)

    def stop(self) -> None:
        """Stop all of it, the app first."""
        self.world.run(["systemctl", "stop", *self.units], timeout=120)
        self.world.run(["systemctl", "reset-failed", *self.units], timeout=30)

    def _run(self, part: str, user: str, properties: t.Sequence[str], argv: t.Sequence[str]) -> None:
        # The first one makes the network, and the others join it.
        holder = caller(self.world)
        shared = [] if part == "-database" else [f"JoinsNamespaceOf={self.base}-database.service"]
        wanted = [
            f"User={user}",
            "PrivateNetwork=yes",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "Nice=10",
            "CPUWeight=20",
            "OOMScoreAdjust=900",
            "UMask=0077",
            "KillMode=mixed",
            "TimeoutStopSec=10",
            f"RuntimeMaxSec={LIFETIME_SECONDS}",
            *shared,
            *([f"BindsTo={holder}"] if holder else []),
            *properties,
        ]
        path = f"--setenv=PATH={ENVIRONMENT['PATH']}"
        command = ["systemd-run", "--quiet", "--collect", "--service-type=exec", f"--unit={self.base}{part}.service", path]
        done = self.world.run([*command, *[f"--property={one}" for one in wanted], "--", *argv], timeout=60)
        if done.rc != 0:
            raise AnchorageError(f"what {self.app.name} needs to be started could not be started: {first_line(done.stderr)}")

    def start(self, argv: t.Sequence[str], release: str, public: t.Any) -> None:
        """Start the app and wait until it is well.

        :raises AnchorageError: with what was seen last and what it printed.
        """
        python = ["/usr/bin/python3", "-I", "-c", DOOR]
        socket = f"unix:{self.scratch.environment['PGHOST']}/.s.PGSQL.{self.scratch.environment['PGPORT']}"
        self._run("-database", "postgres", [], [*python, f"tcp:127.0.0.1:{DATABASE_PORT}", socket])
        if any(value.startswith("redis://") for value in self.environment.values()):
            if not self.world.exists(REDIS):
                raise AnchorageError(f"{self.app.name} wants a Redis, and this host has no {REDIS} to run one for it")
            redis = [REDIS, "--port", str(REDIS_PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/"]
            self._run("-redis", self.app.user, [], redis)
        self._run("-door", "root", [f"ReadWritePaths={self.scratch.directory}"], [*python, f"unix:{self.door}", f"tcp:127.0.0.1:{public.port}"])
        place = self.app.layout.release(release)
        path = f"{place}/run/boot.json"
        running = os.path.normpath(f"{self.app.layout.build(self._tree(release))}/{self.app.document['build']['output']}")
        self.app.write_exec(path, argv=argv, cwd=running, env=self.environment, gid=pwd.getpwnam(self.app.user).pw_gid)
        try:
            limit = unit_limit(public.process.get("memory_mb"))
            # A socket in the file system leads out of every network.
            hidden = [f"InaccessiblePaths=-{path}" for path in ("/run/postgresql", "/run/redis", "/run/dbus", "/run/docker.sock", "/var/lib/redis")]
            own = [
                "PrivateTmp=yes",
                *hidden,
                f"StandardOutput=append:{self.log}",
                f"StandardError=append:{self.log}",
                *([f"MemoryMax={limit}M"] if limit else []),
            ]
            self._run("", self.app.user, own, [COMMAND, "exec", path])
            self._prove(release, public)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _tree(self, release: str) -> str:
        return t.cast(str, self.app.journal.release(release).get("tree") or self.app.journal.data.get("tree"))

    def _prove(self, release: str, public: t.Any) -> None:
        options = slots.proof(public.process)
        watch = health.poll(
            lambda seconds: self._ask(options, public.port, seconds),
            world=self.world,
            deadline_seconds=options["deadline_seconds"],
            interval_seconds=options["interval_seconds"],
            successes=options["successes"],
        )
        verdict = health.verdict(f"{self.app.name} on the restored data", watch, good=f"release {release} answers")
        if not verdict.healthy:
            lines = (self.world.read(self.log) or b"").decode(errors="replace").splitlines()
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            raise AnchorageError(f"{verdict.message}{f' It printed last: {last[:200]}' if last else ''}")

    def _ask(self, options: t.Mapping[str, t.Any], port: int, seconds: float) -> list[health.Check]:
        state = self.world.run(["systemctl", "show", "--property=ActiveState", "--value", self.units[0]], timeout=30).stdout.strip()
        checks = [health.judge("process", state == "active", evidence={"state": state}, cause=f"its process has ended ({state})", advice=self.log)]
        if options.get("path") and checks[0].healthy:
            wanted = Expectation(status=(options["status"],), body=options.get("body") or None)
            checks += probe(Target(f"http://127.0.0.1:{port}{options['path']}", unix_socket=self.door), wanted, world=self.world, seconds=min(seconds, 10.0))
        return checks
