# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab: a network, its hosts, the way in by SSH, the inventory."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import shutil
import socket
import subprocess
import time

from . import cache, engine, images, inventory, options, world
from .errors import LabError

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOOT_SECONDS = 120


ADMIT = """
case $1 in
root) home=/root ;;
*) id "$1" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$1"
   home=/home/$1
   printf '%s ALL=(ALL) NOPASSWD: ALL\\n' "$1" > "/etc/sudoers.d/$1" ;;
esac
install -d -m 0700 -o "$1" -g "$1" "$home/.ssh"
cat > "$home/.ssh/authorized_keys"
chown "$1:$1" "$home/.ssh/authorized_keys"
chmod 0600 "$home/.ssh/authorized_keys"
"""


def labels(record: dict) -> dict[str, str]:
    """Return what a container's labels say about it."""
    return {key[len("anchorage.") :]: value for key, value in record["Config"]["Labels"].items() if key.startswith("anchorage.")}


def container(record: dict) -> str:
    """Return a container's name."""
    return record["Name"].lstrip("/")


def free_ports(wanted: dict[int, int]) -> dict[int, int]:
    """Fix a loopback port for each port inside, so that it outlives a restart: the wanted one, or another where that is taken."""
    held = []
    chosen = {}
    for inside, outside in wanted.items():
        try:
            held.append(socket.create_server(("127.0.0.1", outside)))
        except OSError:
            held.append(socket.create_server(("127.0.0.1", 0)))
        chosen[inside] = held[-1].getsockname()[1]
    for listener in held:
        listener.close()
    return chosen


def together(function, items) -> list:
    """Call a function on all items at once; the first failure is raised."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(function, items))


@dataclasses.dataclass(frozen=True)
class Lab:
    """Name and place of a lab; all else is read from the engine's labels."""

    name: str
    root: pathlib.Path = ROOT

    @property
    def directory(self) -> pathlib.Path:
        """Where the key, the known_hosts and the inventory lie."""
        return self.root / ".cache" / "lab" / self.name

    def records(self, kind: str | None = None) -> list[dict]:
        """Return the engine's records of this lab's containers, in order of name."""
        wanted = [f"--filter=label=anchorage.lab={self.name}"]
        if kind:
            wanted.append(f"--filter=label=anchorage.kind={kind}")
        return engine.inspect("container", *sorted(engine.docker("ps", "--all", *wanted, "--format={{.Names}}").split()))

    def check_owner(self) -> None:
        """Refuse to touch a lab of the same name that another clone made."""
        for record in self.records():
            owner = labels(record)["root"]
            if owner != str(self.root):
                raise LabError(f"Lab {self.name} belongs to the clone in {owner}: take it down there first.")

    @engine.one_at_a_time()
    def up(self, hosts: list[options.Host]) -> None:
        """Bring up the hosts that are missing, wait until SSH answers on all, write the inventory."""
        self.check_owner()
        there = {labels(record)["host"] for record in self.records()}
        missing = [host for host in hosts if host.name not in there]
        built = {host.name: images.ensure_world() if host.kind == "world" else images.ensure(host.suite) for host in missing}
        self.make_key()
        self.make_network()
        version = engine.cgroup_version() if missing else ""
        for host in missing:
            ready = dataclasses.replace(host, ports=free_ports(host.ports))
            engine.docker("create", *options.host_arguments(
                ready, lab=self.name, image=built[host.name], cgroup_version=version, root=str(self.root)
            ))  # fmt: skip
        together(self.boot, self.records())
        self.write()

    def make_key(self) -> None:
        """Make the key pair of this lab."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = self.directory / "id_ed25519"
        if not key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {self.name}", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def make_network(self) -> None:
        """Make the network on which the hosts know each other by name, with the package cache on it."""
        name = options.network(self.name)
        if not engine.answers("network", "inspect", name):
            engine.docker("network", "create", f"--label=anchorage.lab={self.name}", name)
        cache.ensure()
        if name not in engine.inspect("container", options.CACHE)[0]["NetworkSettings"]["Networks"]:
            engine.docker("network", "connect", name, options.CACHE)

    def boot(self, record: dict) -> None:
        """Start one host and come back when systemd is up and our key is let in."""
        name = container(record)
        engine.docker("start", name)
        wait_for_systemd(name)
        if labels(record)["kind"] != "host":
            return
        public = (self.directory / "id_ed25519.pub").read_text()
        engine.docker("exec", "--interactive", name, "sh", "-euc", ADMIT, "admit", labels(record)["user"], text=public)

    def hosts(self) -> list[dict]:
        """Describe the running hosts, as the engine and the hosts themselves tell it."""
        return together(self.describe, [record for record in self.records("host") if record["State"]["Running"]])

    def describe(self, record: dict) -> dict:
        """Describe one running host."""
        own = labels(record)
        bindings = record["HostConfig"]["PortBindings"]
        keys = engine.docker("exec", container(record), "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub")
        return {
            "name": own["host"],
            "suite": own["suite"],
            "user": own["user"],
            "groups": [group for group in own["groups"].split(",") if group],
            "container": container(record),
            "address": record["NetworkSettings"]["Networks"][options.network(self.name)]["IPAddress"],
            "ports": {inside.partition("/")[0]: int(bound[0]["HostPort"]) for inside, bound in bindings.items()},
            "keys": [" ".join(line.split()[:2]) for line in keys.strip().splitlines()],
        }

    def write(self) -> None:
        """Write known_hosts and the inventory of what is up now, and come back when SSH answers everywhere."""
        hosts = self.hosts()
        (self.directory / "known_hosts").write_text(inventory.known_hosts(hosts))
        text = inventory.inventory(self.name, hosts, self.variables(hosts), str(self.directory))
        (self.directory / "hosts.yml").write_text(text)
        together(self.wait_for_ssh, hosts)

    def variables(self, hosts: list[dict]) -> dict:
        """Return what the hosts may know of their surroundings."""
        variables = {"lab_ca_file": str(images.MACHINE_CA)}
        addresses = {host["name"]: host["address"] for host in hosts}
        for record in self.records("world"):
            if record["State"]["Running"]:
                records = dict(world.parse_record(pair) for pair in labels(record)["dns"].split(",") if pair)
                variables |= world.prepare(container(record), records, addresses, self.directory)
        return variables

    def ssh(self, host: dict, *command: str) -> list[str]:
        """Build the command line that runs something on a host the way Ansible does."""
        return [
            "ssh", "-i", str(self.directory / "id_ed25519"), "-p", str(host["ports"]["22"]),
            *inventory.ssh_options(str(self.directory)), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5",
            f"{host['user']}@127.0.0.1", *command,
        ]  # fmt: skip

    def wait_for_ssh(self, host: dict) -> None:
        """Come back when the host lets us in over SSH."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            done = subprocess.run(self.ssh(host, "true"), stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise LabError(f"{host['name']} lets nobody in over SSH: {done.stderr.decode(errors='replace').strip()}")
            time.sleep(0.3)

    def restart(self, host: str, *, power_cut: bool = False) -> None:
        """Restart a host, in order or as a power cut does, and wait for it."""
        name = options.container(self.name, host)
        if power_cut:
            engine.docker("kill", name)
            engine.docker("start", name)
        else:
            engine.docker("restart", "--time=30", name)
        wait_for_systemd(name)
        self.write()

    def down(self) -> None:
        """Remove everything this lab made: hosts with their volumes, the network, the key and the inventory."""
        self.check_owner()
        names = [container(record) for record in self.records()]
        if names:
            engine.docker("rm", "--force", "--volumes", *names)
        network = options.network(self.name)
        if engine.answers("network", "inspect", network):
            for record in engine.inspect("network", network)[0]["Containers"].values():
                engine.docker("network", "disconnect", "--force", network, record["Name"])
            engine.docker("network", "rm", network)
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_for_systemd(name: str) -> None:
    """Come back when systemd says it runs; name the units where it says it does not."""
    deadline = time.monotonic() + BOOT_SECONDS
    state = ""
    while state != "running":
        if time.monotonic() > deadline:
            failed = engine.docker("exec", name, "sh", "-c", "systemctl --failed --plain --no-legend || true").strip()
            raise LabError(f"{name} is {state or 'not up'} after {BOOT_SECONDS} s; failed units: {failed or 'none'}")
        command = "systemctl is-system-running --wait 2>/dev/null || true"
        state = engine.docker("exec", name, "sh", "-c", command, timeout=BOOT_SECONDS).strip()
        if state != "running":
            time.sleep(0.2)
