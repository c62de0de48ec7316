# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host under load: a VPS of the lab with the outside world beside it, and the playbooks that are run on it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import typing

from ..lab import options
from ..lab.lab import Lab
from ..lab.world import NAME as WORLD
from .client import Site

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOK = f"{sysconfig.get_path('scripts')}/ansible-playbook"

#: What differs on a host of the lab from one of the internet's.
LAB_SETTINGS = {
    "base_extra_ca_certificates": [{"name": "load-acme-root", "pem": "{{ lab_acme_root_pem }}"}, {"name": "load-acme", "pem": "{{ lab_acme_ca_pem }}"}],
    "base_swap_mb": 0,
    "certbot_server": "{{ lab_acme_directory }}",
    "certbot_ca_file": "/etc/ssl/certs/ca-certificates.crt",
    "nodejs_source": "distribution",
    "nodejs_version": "20",
    "nodejs_npm_version": "10.9.4",
    "nodejs_extra_ca_file": "/etc/ssl/certs/ca-certificates.crt",
    "release_extra_ca_file": "/etc/ssl/certs/ca-certificates.crt",
}


class Ended(typing.NamedTuple):
    """How a run of a playbook ended."""

    rc: int
    seconds: float
    output: str

    @property
    def steps(self) -> dict[str, float]:
        """Seconds of each step, as the engine says them."""
        return {step: float(seconds) for step, seconds in re.findall(r"\b(stage|migrate|activate|rollback) done in ([0-9.]+) s", self.output)}


class Ground:
    """One host with one app.

    :arg lab: name of the lab, and of its host.
    :arg app: name of the app; its domain is below localhost.
    :arg docker: whether the app is in containers, whose images no registry gives the host here.
    """

    def __init__(self, lab: str, app: str, *, docker: bool = False) -> None:
        self.docker = docker
        self.lab = Lab(lab)
        self.app = app
        self.domain = f"{app}.localhost"
        self.work = ROOT / ".cache" / "load" / lab
        self.inventory = self.work / "contract.yml"
        self.work.mkdir(parents=True, exist_ok=True)
        self.apps: dict[str, typing.Any] = json.loads(self.inventory.read_text())["all"]["vars"]["apps"] if self.inventory.exists() else {}
        self.settings: dict[str, typing.Any] = {}

    @property
    def container(self) -> str:
        """Name of the host's container."""
        return options.container(self.lab.name, self.entrance)

    @property
    def hosts(self) -> dict[str, str]:
        """The hosts by name, with the groups that each is in."""
        return {self.lab.name: "app,database,cache,proxy"}

    @property
    def entrance(self) -> str:
        """Name of the host that visitors reach."""
        return self.lab.name

    def stand(self) -> bool:
        """Bring the hosts up; those that stand are left as they are. Returns whether there is a release already."""
        wanted = [f"--host={name}:trixie:{groups}" for name, groups in self.hosts.items()]
        self._lab("up", self.lab.name, *wanted, "--world", f"--dns=*={self.entrance}", *(["--with-docker"] if self.docker else []))
        if self.docker:
            self._lab("stand-ins", self.lab.name, self.lab.name)
        told = self.shell(f"test -e /var/lib/anchorage/{self.app}/journal.json && anchorage status {self.app} --json || true").strip()
        return bool(told) and json.loads(told)[0]["live"] is not None

    @staticmethod
    def _lab(*command: str) -> None:
        subprocess.run([sys.executable, "-m", "tests.lab", *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)

    @property
    def host(self) -> dict[str, typing.Any]:
        """What the lab says of the host that visitors reach."""
        return typing.cast("dict[str, typing.Any]", next(host for host in self.lab.hosts() if host["name"] == self.entrance))

    def site(self) -> Site:
        """Where visitors go."""
        return Site(int(self.host["ports"]["443"]), self.domain, (self.lab.directory / "acme-root.pem").read_text())

    def shell(self, script: str, *, given: str | None = None, host: str | None = None) -> str:
        """Run a shell script as root on the host, past SSH, and return what it printed.

        :arg host: another one than the app's.
        """
        argv = ["docker", "exec", "-i", options.container(self.lab.name, host) if host else self.container, "sh", "-c", script]
        done = subprocess.run(argv, input=given or "", capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise SystemExit(f"load: '{script[:80]}' ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        return done.stdout

    def sql(self, query: str) -> list[list[str]]:
        """Ask the app's database as its superuser."""
        lines = self.shell(f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 {self.app}", given=query).splitlines()
        return [line.split("|") for line in lines]

    def live(self) -> str:
        """The release that the host says is live."""
        return typing.cast(str, json.loads(self.shell(f"anchorage status {self.app} --json"))[0]["live"])

    def busy(self) -> tuple[float, float]:
        """Return the seconds that this machine's cores worked, and had, since its start."""
        ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), sum(ticks) / os.sysconf("SC_CLK_TCK")

    def want(self, app: dict[str, typing.Any]) -> None:
        """Write the contract."""
        self.apps = {self.app: {"domain": self.domain, **app}}
        self.write()

    def write(self) -> None:
        """Write the contract as it is."""
        self.inventory.write_text(json.dumps({"all": {"vars": {**LAB_SETTINGS, **self.settings, "apps": self.apps}, "hosts": self.variables()}}, indent=1))

    def variables(self) -> dict[str, typing.Any]:
        """What the inventory says of each host: where several reach each other."""
        known = [host for host in self.lab.hosts() if host["name"] in self.hosts] if len(self.hosts) > 1 else []
        return {host["name"]: {"anchorage_address": host["address"]} for host in known}

    def play(self, playbook: str, *arguments: str) -> Ended:
        """Run a playbook as a user does, over SSH; the log keeps what it said."""
        argv = [PLAYBOOK, "-i", str(self.lab.directory / "hosts.yml"), "-i", str(self.inventory), f"playbooks/{playbook}.yml", *arguments]
        settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        began = time.monotonic()
        done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        ended = Ended(done.returncode, round(time.monotonic() - began, 1), done.stdout + done.stderr)
        with (self.work / "playbooks.log").open("a") as log:
            log.write(f"==== {playbook} {' '.join(arguments)}: {ended.rc}, {ended.seconds} s\n{ended.output}")
        return ended

    def offer(self, name: str, members: dict[str, bytes], base: bytes | None = None) -> dict[str, str]:
        """Let the outside world offer an archive for download. Returns what the contract says of it as a source.

        :arg members: files that it holds.
        :arg base: a tar archive that it holds besides.
        """
        packed = io.BytesIO(base or b"")
        with tarfile.open(fileobj=packed, mode="a" if base else "w") as bundle:
            for path, data in members.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), 0o644
                bundle.addfile(member, io.BytesIO(data))
        data = packed.getvalue()
        argv = ["docker", "exec", "-i", options.container(self.lab.name, WORLD), "sh", "-c", f"cat > /srv/archive/{name}"]
        subprocess.run(argv, input=data, check=True)
        return {"archive": f"http://{WORLD}/{name}", "sha256": hashlib.sha256(data).hexdigest()}

    def built(self, output: str) -> bytes:
        """Pack what the live release runs from, as a build server would hand it over: built, without dependencies and uploads."""
        path = self.work / "built.tar"
        if not path.exists():
            place = f"/srv/{self.app}/releases/{self.live()}/app/"
            argv = ["docker", "exec", self.container, "tar", "-C", place, "--exclude=./node_modules", f"--exclude=./{output}"]
            path.write_bytes(subprocess.run([*argv, "-cf", "-", "."], capture_output=True, check=True).stdout)
        return path.read_bytes()

    def copy(self, source: pathlib.Path, name: str) -> pathlib.Path:
        """Return a copy of a source to be changed."""
        place = self.work / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("node_modules", ".medusa"))
        return place


class Fleet(Ground):
    """A proxy, three hosts of the app, a database and a cache."""

    web = ("web1", "web2", "web3")

    #: Packages whose older version the distribution's archives still have, and that processes of the app have in memory.
    older = ("libssl3t64", "openssl", "openssl-provider-legacy")

    @property
    def container(self) -> str:
        """Name of the first app host's container."""
        return options.container(self.lab.name, self.web[0])

    @property
    def hosts(self) -> dict[str, str]:
        """The hosts by name, with the group of each."""
        return {"edge1": "proxy", **dict.fromkeys(self.web, "app"), "db1": "database", "cache1": "cache"}

    @property
    def entrance(self) -> str:
        """Name of the proxy."""
        return "edge1"

    def sql(self, query: str) -> list[list[str]]:
        """Ask the app's database as its superuser."""
        lines = self.shell(f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 {self.app}", given=query, host="db1").splitlines()
        return [line.split("|") for line in lines]

    def live(self) -> str:
        """The release that all hosts say is live; all of them, where they differ."""
        found = {json.loads(self.shell(f"anchorage status {self.app} --json", host=name))[0]["live"] for name in self.web}
        return " and ".join(sorted(found))

    def processes(self) -> dict[str, str]:
        """When what keeps the app alive was started on each host, on which Node and with which library."""
        script = f"systemctl show --value --property=ActiveEnterTimestampMonotonic pm2-{self.app}; node --version; dpkg-query -Wf '${{Version}}' libssl3t64"
        return {name: self.shell(script, host=name) for name in self.web}

    def age(self) -> None:
        """Give every app host older packages, as time does."""
        chosen = " ".join(f"{name}=$(apt-cache madison {name} | awk '{{print $3}}' | sort -V | head -1)" for name in self.older)
        for name in self.web:
            self.shell(f"apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --allow-downgrades {chosen}", host=name)

    def next_node(self, number: int) -> None:
        """Ask for another Node.js than the one before, from where this machine's npm gets its packages."""
        registry = self.shell("npm config get registry").strip()
        version = ("22.12.0", "22.13.0", "22.14.0")[number % 3]
        self.settings = {"nodejs_source": "npm", "nodejs_version": version, "nodejs_registry": registry}
        self.write()
