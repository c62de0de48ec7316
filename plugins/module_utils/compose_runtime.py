# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Compose of one app: each slot is a project of its own, each instance a container that is known by the instance's name.

Containers are started by Compose, and found, stopped and removed by their labels, so that nothing depends on a file that may be gone. The
Engine starts them again after a crash and after a boot (C(unless-stopped)); what of that is not live, anchorage-recover-late.service removes.
"""

from __future__ import annotations

import json
import pwd
import typing as t

from . import compose_project, memory, processes
from .compose_project import APP, SLOT
from .encoders import compose_file
from .errors import AnchorageError
from .health import Check, joined, judge
from .layout import SLOTS
from .release_plan import Instance, instances
from .room import MANIFEST
from .runtime import Runtime

if t.TYPE_CHECKING:
    from .world import Completed, World

#: What the Engine calls a container that is meant to run.
ALIVE = ("running", "restarting", "paused")

#: The process of the Engine that listens for a container on the host, and passes on what loopback sends.
PROXY = "docker-proxy"


def environment() -> dict[str, str]:
    """Return the environment of the client: root's, and nothing of the caller's."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "COMPOSE_IGNORE_ORPHANS": "1"}


def client(*argv: str) -> list[str]:
    """Return the command line of the client with that environment, for what is followed line by line."""
    return ["env", "-i", *[f"{key}={value}" for key, value in environment().items()], "docker", *argv]


class Compose(Runtime):
    """Containers, one for each instance."""

    @property
    def services(self) -> str:
        """Return the command that shows the containers."""
        return f"docker compose --project-name {compose_project.base_name(self.app.name)} ps --all"

    def docker(self, *argv: str, timeout: float = 120, check: bool = True) -> Completed:
        """Ask the Engine.

        :raises AnchorageError: when it does not do it.
        """
        done = self.app.world.run(["docker", *argv], env=environment(), timeout=timeout)
        if check and done.rc != 0:
            words = " ".join(word for word in argv[:2] if not word.startswith("-"))
            text = (done.stderr or done.stdout).strip().splitlines()[-4:]
            raise AnchorageError(
                f"'docker {words}' of {self.app.name} failed with code {done.rc}: {' '.join(text)[:500]}", next_step="systemctl status docker; docker info"
            )
        return done

    def require(self) -> None:
        """The Engine's own unit must run."""
        if self.app.world.run(["systemctl", "is-active", "--quiet", "docker.service"]).rc == 0:
            return
        done = self.app.world.run(["systemctl", "start", "docker.service"], timeout=120)
        if done.rc != 0:
            raise AnchorageError(f"docker.service does not start: {done.stderr.strip()[:300]}", next_step="Read: journalctl -u docker -n 50")

    def mend(self, log: t.Callable[[str], None]) -> bool:
        """Let the Engine forget ports that it holds for containers which are gone.

        After a power cut it takes up again the port of a container that was just being started, and does not give it back when that container is
        removed: the port is "already allocated" until the Engine starts anew (seen with 26.1; moby/libnetwork issues 1790 and 2448).
        """
        ports = {port for slot in SLOTS for port in self._ports(slot)}
        if not self._held_for_nobody(ports):
            return False
        # Between a proxy and its container lies a moment.
        self.app.world.sleep(2)
        held = self._held_for_nobody(ports)
        if not held:
            return False
        log(f"{self.app.name}: the Engine holds port {joined(map(str, held), ', ')} for a container that is gone; it is restarted, containers run on")
        done = self.app.world.run(["systemctl", "restart", "docker.service"], timeout=180)
        if done.rc != 0:
            raise AnchorageError(f"docker.service does not restart: {done.stderr.strip()[:300]}", next_step="Read: journalctl -u docker -n 50")
        return True

    def _ports(self, slot: str) -> list[int]:
        live = self.app.journal.live
        apps = [self.app, *([self.app.at(live)] if live else [])]
        return [instance.port for app in apps for instance in instances(app.document, slot) if instance.port is not None]

    def _held_for_nobody(self, ports: t.Collection[int]) -> list[int]:
        """Return those of these ports on which the Engine's proxy listens although no container that runs has them."""
        world = self.app.world
        proxied = {found.port for found in processes.listeners(world) if found.port in ports and any(_is_proxy(world, pid) for pid in found.pids)}
        return sorted(port for port in proxied if not self.docker("ps", "--quiet", f"--filter=publish={port}/tcp").stdout.strip())

    def _explain(self, wanted: t.Sequence[Instance], error: AnchorageError) -> AnchorageError:
        """Return why containers could not be started, where it is a port."""
        world, ports = self.app.world, {instance.port for instance in wanted if instance.port is not None}
        for found in processes.listeners(world):
            strangers = [pid for pid in found.pids if not _is_proxy(world, pid)]
            if found.port in ports and strangers:
                cause = f"port {found.port} belongs to another process ({', '.join(str(pid) for pid in strangers)})"
                return AnchorageError(f"{error.message.split(': ')[0]}: {cause}.", next_step=f"ss -ltnp 'sport = :{found.port}'")
        held = self._held_for_nobody(ports)
        if held:
            return AnchorageError(
                f"The Engine holds port {joined(map(str, held), ', ')} for a container that is gone, as it may after a power cut.",
                next_step="systemctl restart docker (containers run on, visitors miss it for a second or two), then run deploy.yml again.",
            )
        return error

    def _states(self) -> dict[str, str]:
        """Return the state of each container of a slot, by name."""
        done = self.docker("ps", "--all", f"--filter=label={APP}={self.app.name}", f"--filter=label={SLOT}", "--format={{.Names}}\t{{.State}}")
        return dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)

    def names(self) -> set[str]:
        """Return the names of all containers of the app's slots."""
        return set(self._states())

    def at_rest(self, seconds: float) -> dict[str, bool]:
        """Wait until none is being removed. One that is being stopped still runs, and to stop it again does no harm."""
        end = self.app.world.monotonic() + seconds
        while True:
            states = self._states()
            if "removing" not in states.values() or self.app.world.monotonic() >= end:
                return {name: state in ALIVE for name, state in states.items()}
            self.app.world.sleep(1)

    def start(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Start containers, those of a slot at once."""
        stale = {instance.name for instance in wanted} & self.names()
        if stale:
            self.delete(sorted(stale))
        for slot in SLOTS:
            names = [compose_project.service_name(instance, release) for instance in wanted if instance.slot == slot]
            if names:
                file = f"{self.app.layout.release(release)}/run/compose-{slot}.json"
                up = ("up", "--detach", "--no-deps", "--no-build", *names)
                try:
                    self.docker("compose", "--ansi=never", "--progress=quiet", "--file", file, *up, timeout=300)
                except AnchorageError as error:
                    raise self._explain(wanted, error) from error

    def delete(self, names: t.Iterable[str]) -> None:
        """Stop containers, each within the time that it was started with, and remove them. Volumes that have a name stay."""
        found = list(names)
        if not found:
            return
        present = self._states()
        running = [name for name in found if present.get(name) in ALIVE]
        if running:
            self.docker("stop", *running, timeout=3700)
        for name in found:
            done = self.docker("rm", "--force", "--volumes", name, timeout=300, check=False)
            if done.rc != 0 and "no such container" not in done.stderr.lower() and "already in progress" not in done.stderr.lower():
                raise AnchorageError(f"The container {name} cannot be removed: {done.stderr.strip()[:300]}", next_step=f"docker rm --force {name}")

    def restart(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Replace the containers; the Engine itself keeps them alive, and is not restarted for them."""
        self.delete([instance.name for instance in wanted])
        self.start(wanted, release)

    def keep_for_boot(self, release: str, slot: str) -> None:
        """Nothing is to be kept: the Engine starts again what ran, and what of that is not live is removed after a boot."""

    def _container(self, name: str) -> dict[str, t.Any]:
        done = self.docker("inspect", "--type=container", name, check=False)
        found = json.loads(done.stdout) if done.rc == 0 else []
        return t.cast("dict[str, t.Any]", found[0]) if found else {}

    def owns_port(self, instance: Instance, owners: t.Collection[int]) -> Check:
        """Judge who listens for the container on the host: the Engine's proxy, and for this very container."""
        world, port = self.app.world, instance.port
        container = self._container(instance.name)
        networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
        addresses = {network.get("IPAddress") for network in networks.values()} - {None, ""}
        evidence = {"pids": list(owners), "port": port, "container": container.get("Id", "")[:12], "image": container.get("Image")}
        listening = [listener for listener in processes.listeners(world) if listener.port == port]
        advice = self.where_it_logs(instance)
        # The Engine's proxy listens as soon as the container starts, so who listens inside is what counts.
        inside = next((found for found in (processes.sockets_inside(world, pid) for pid in owners) if found is not None), [])
        own = [listener for listener in inside if listener.port == port]
        if not listening or not own:
            return judge("identity", False, evidence=evidence, cause=f"nobody listens on port {port} yet", advice=advice)
        if all(listener.loopback for listener in own):
            cause = f"it listens on loopback of its container only, so nobody else gets to port {port}"
            return judge("identity", False, evidence=evidence, cause=cause, advice="let it listen on the address in HOST")
        strangers = [pid for listener in listening for pid in listener.pids if not _passes_on(processes.command_line(world, pid), addresses, port)]
        cause = f"port {port} belongs to another process ({', '.join(str(pid) for pid in strangers)})"
        return judge("identity", not strangers, evidence=evidence, cause=cause, advice=f"ss -ltnp 'sport = :{port}'")

    def ended(self, instance: Instance) -> str:
        """The Engine knows who was killed for memory, and with which code the others ended."""
        state = self._container(instance.name).get("State") or {}
        if state.get("OOMKilled"):
            process = instance.process
            return f"it was killed at its limit of {process.get('memory_mb')} MiB (processes.{process['name']}.memory_mb)"
        return f"it ended with code {state['ExitCode']}" if state.get("Status") in ("exited", "restarting", "dead") else ""

    def where_it_logs(self, instance: Instance) -> str:
        """Return the command that shows its log."""
        return f"docker logs --tail 50 {instance.name}"

    def last_lines(self, instance: Instance) -> list[str]:
        """Return the end of its log."""
        done = self.docker("logs", "--tail=15", instance.name, check=False)
        return [*done.stdout.splitlines(), *done.stderr.splitlines()][-15:]

    def image(self, tree: str) -> str:
        """Return the id of the image that a tree is.

        :raises AnchorageError: when there is none.
        """
        raw = self.app.world.read(f"{self.app.layout.build(tree)}/{MANIFEST}")
        image = json.loads(raw).get("image") if raw else None
        if not image:
            raise AnchorageError(f"The tree {tree} of {self.app.name} names no image.", next_step="Run deploy.yml, which builds it.")
        return t.cast(str, image)

    def has_image(self, tree: str) -> bool:
        """Tell whether the Engine still has the image that a tree is.

        :raises AnchorageError: when it cannot be asked, which says nothing about the image.
        """
        done = self.docker("image", "inspect", "--format={{.Id}}", self.image(tree), check=False)
        if done.rc and "no such image" not in done.stderr.lower():
            self.docker("image", "inspect", "--format={{.Id}}", self.image(tree))
        return done.rc == 0

    def check(self, release: str) -> None:
        """The image must be there: nothing is pulled when a container starts."""
        if not self.has_image(self.app.journal.release(release)["tree"]):
            raise AnchorageError(
                f"The image of release {release} of {self.app.name} is gone from this host (docker image prune removes those that no container uses).",
                live=self.app.living(),
                next_step="Set its version in the contract and run deploy.yml, which makes the image again.",
            )

    def _user(self) -> str:
        user = pwd.getpwnam(self.app.user)
        return f"{user.pw_uid}:{user.pw_gid}"

    def lay_out(self, place: str, tree: str, release: str, group: int) -> None:
        """Write the project of each slot. It holds the environment, so it is for root alone, who alone may talk to the Engine."""
        image = self.image(tree)
        for slot in SLOTS:
            project = compose_project.slot_project(self.app.document, release=release, slot=slot, image=image, user=self._user())
            self._write(f"{place}/run/compose-{slot}.json", project)

    def _write(self, path: str, project: dict[str, t.Any]) -> None:
        self.app.world.write_atomic(path, compose_file(project).encode(), mode=0o600, uid=0, gid=0)

    def once(
        self,
        release: str,
        name: str,
        argv: t.Sequence[str],
        env: t.Mapping[str, str],
        on_line: t.Callable[[str], None],
        *,
        memory_mb: int | None,
        seconds: int,
        forget: bool = False,
    ) -> int:
        """Run a command in a container of its own, which is removed afterwards, and before where a killed step has left it."""
        app = self.app
        environ = {"HOME": "/tmp", "LANG": "C.UTF-8", **env}
        if app.extra_ca_file:
            environ["NODE_EXTRA_CA_CERTS"] = compose_project.EXTRA_CA
        image, limit = self.image(app.journal.release(release)["tree"]), memory.unit_limit(memory_mb)
        project = compose_project.once_project(
            app.document, release=release, name=name, argv=argv, env=environ, image=image, user=self._user(), memory_mb=limit
        )
        path, container = f"{app.layout.release(release)}/run/{name}.json", compose_project.once_name(app.name, name)
        self._write(path, project)
        self._remove(container)
        compose = ("compose", "--ansi=never", "--progress=quiet", "--file", path)
        try:
            rc = app.world.stream(client(*compose, "run", "--no-TTY", "--no-deps", f"--name={container}", name), on_line, timeout=seconds)
            state = self._container(container).get("State") or {}
            if state.get("OOMKilled"):
                on_line(f"{memory.MARK} {container} was killed at its limit")
            # Of what was stopped or could not be followed to its end the container knows better how it ended.
            return int(state["ExitCode"]) if rc != 124 and state.get("Status") == "exited" else rc
        finally:
            self._remove(container)
            self.docker(*compose, "down", timeout=120, check=False)
            if forget:
                app.world.remove(path)

    def end(self, name: str) -> bool:
        """The container of such a command lives in the Engine's control group, so it outlives the step that started it."""
        container = compose_project.once_name(self.app.name, name)
        there = bool(self.docker("ps", "--quiet", f"--filter=name=^{container}$").stdout.strip())
        if there:
            self._remove(container)
        return there

    def _remove(self, container: str) -> None:
        self.docker("rm", "--force", "--volumes", container, timeout=120, check=False)

    def sweep(self, trees: t.Collection[str]) -> list[str]:
        """Remove the names of images of trees that are gone, and what builds have kept that no build of a week has used.

        The Engine itself removes what no name and no container needs any more.
        """
        self.docker("builder", "prune", "--force", "--filter=until=168h", timeout=300, check=False)
        repository = compose_project.repository(self.app.name)
        listed = self.docker("image", "ls", "--format={{.Tag}}", repository, check=False).stdout.split()
        gone = [f"{repository}:{tag}" for tag in listed if tag not in trees and tag != "<none>"]
        # What the controller has sent is known by that name only while it is loaded.
        repository = compose_project.delivered_repository(self.app.name)
        gone += [f"{repository}:{tag}" for tag in self.docker("image", "ls", "--format={{.Tag}}", repository, check=False).stdout.split() if tag != "<none>"]
        if gone:
            self.docker("image", "rm", *gone, timeout=300, check=False)
        return gone


def _is_proxy(world: World, pid: int) -> bool:
    return (processes.command_line(world, pid) or "").partition(" ")[0].endswith(PROXY)


def _passes_on(command_line: str | None, addresses: t.Collection[str], port: int | None) -> bool:
    """Tell whether a process is the Engine's proxy for a port of a container."""
    words = (command_line or "").split()
    options = dict(zip(words[1::2], words[2::2]))
    return bool(words) and words[0].endswith(PROXY) and options.get("-container-ip") in addresses and options.get("-host-port") == str(port)
