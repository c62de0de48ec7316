# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Swarm of one app, as its nodes see it: the first host of the app tells the Swarm what to run, each host sees the tasks that run there.

Images are made and kept as for Compose, on every node, and commands that run once are containers of Compose on the host that runs them.
"""

from __future__ import annotations

import json
import typing as t

from . import swarm
from .compose_project import APP, RELEASE, SLOT
from .compose_runtime import ALIVE, Compose
from .encoders import compose_file
from .errors import AnchorageError
from .layout import SLOTS
from .release_plan import Instance

Data = dict[str, t.Any]

#: What the Engine says of something that it does not have.
GONE = ("no such", "not found")

#: Label of the Engine's own by which a task's container is known.
TASK = "com.docker.swarm.task.name"


class Swarm(Compose):
    """Services, one for each process."""

    @property
    def leads(self) -> bool:
        """Whether this host tells the Swarm what to run of the app: the first of its hosts does."""
        return bool(self.app.document["hosts"][0] == self.app.document["host"])

    @property
    def services(self) -> str:
        """Return the command that shows the unit of Redis, which is on another host."""
        return f"systemctl status 'redis-server@{self.app.name}-jobs', on its host"

    def _not_by_hand(self, done: str) -> AnchorageError:
        return AnchorageError(f"The processes of {self.app.name} are {done} by the Swarm.", next_step=f"docker stack ps --no-trunc {self.app.name}")

    # -- files

    def lay_out(self, place: str, tree: str, release: str, group: int) -> None:
        """Write the stack for each slot, and the secrets of each process, for root alone."""
        image, document = self.image(tree), self.app.document
        final = f"{self.app.layout.release(release)}/run"
        files = {process["name"]: f"{final}/{process['name']}.env" for process in document["processes"]}
        for process in document["processes"]:
            text = swarm.environment_file(document, process, release)
            self.app.world.write_atomic(f"{place}/run/{process['name']}.env", text.encode("utf-8", "surrogateescape"), mode=0o600, uid=0, gid=0)
        for slot in SLOTS:
            for public_only in (False, True):
                found = swarm.stack(document, release=release, slot=slot, image=image, user=self._user(), files=files, public_only=public_only)
                self.app.world.write_atomic(f"{place}/run/{_file(slot, public_only)}", compose_file(found).encode(), mode=0o600, uid=0, gid=0)

    # -- what a manager does

    def apply(self, release: str, slot: str, *, public_only: bool = False) -> None:
        """Tell the Swarm to run a release from a slot.

        :raises AnchorageError: when it does not take it; then it goes on with what it had.
        """
        path = f"{self.app.layout.release(release)}/run/{_file(slot, public_only)}"
        # Nothing is asked of a registry: each node has the image since it was staged, and an id means one image only.
        words = ["--resolve-image=never", f"--compose-file={path}", *([] if public_only else ["--prune"])]
        self.docker("stack", "deploy", *words, self.app.name, timeout=300)

    def take_down(self) -> None:
        """Remove the stack: nothing serves that would have to go on."""
        self.docker("stack", "rm", self.app.name, timeout=300)

    def look(self) -> dict[str, swarm.Service]:
        """Return the services of the stack, by process.

        :raises AnchorageError: when this node does not manage the Swarm, or the Swarm has lost the majority of its managers.
        """
        ids = self.docker("service", "ls", "--quiet", f"--filter=label={APP}={self.app.name}").stdout.split()
        if not ids:
            return {}
        told = self._inspect("service", ids)
        tasks = self.docker("service", "ps", "--quiet", "--no-trunc", *ids, check=False).stdout.split()
        nodes = {node["ID"]: node for node in self._inspect("node", self.docker("node", "ls", "--quiet").stdout.split())}
        by_service: dict[str, list[swarm.Task]] = {}
        for task in self._inspect("task", tasks):
            by_service.setdefault(task["ServiceID"], []).append(_task(task, nodes))
        found = [_service(service, tuple(by_service.get(service["ID"], ()))) for service in told]
        return {service.process: service for service in found}

    def _inspect(self, kind: str, ids: t.Sequence[str]) -> list[Data]:
        """Return what there is of these; one that has gone meanwhile is left out."""
        if not ids:
            return []
        done = self.docker("inspect", f"--type={kind}", *ids, check=False)
        if done.rc != 0 and not any(words in done.stderr.lower() for words in GONE):
            self.docker("inspect", f"--type={kind}", *ids)
        return t.cast("list[Data]", json.loads(done.stdout or "[]"))

    # -- what every node sees

    def node(self) -> Data:
        """Return what this node says of the Swarm."""
        return t.cast("Data", json.loads(self.docker("info", "--format={{json .Swarm}}").stdout or "{}"))

    def nodes(self) -> list[Data]:
        """Return all nodes: C(name), C(state), C(availability), whether each is a C(manager), and C(reachable) as such."""
        found = []
        for told in self._inspect("node", self.docker("node", "ls", "--quiet").stdout.split()):
            manager = told.get("ManagerStatus") or {}
            facts = {"name": told["Description"]["Hostname"], "state": told["Status"]["State"], "availability": told["Spec"]["Availability"]}
            found.append({**facts, "manager": bool(manager), "reachable": manager.get("Reachability") == "reachable"})
        return found

    def here(self) -> list[Data]:
        """Return the containers of the app's tasks on this node: C(name), C(release), C(slot), C(process), C(alive), and C(health) where it is checked."""
        ids = self.docker("ps", "--all", "--quiet", f"--filter=label={APP}={self.app.name}", f"--filter=label={TASK}").stdout.split()
        found = []
        for told in self._inspect("container", ids):
            labels, state = told["Config"]["Labels"], told["State"]
            # Those that ended are kept by the Swarm for a while, to be looked at.
            if state["Status"] in ALIVE:
                health = (state.get("Health") or {}).get("Status")
                process = labels["com.docker.swarm.service.name"][len(self.app.name) + 1 :]
                facts = {"name": told["Name"].lstrip("/"), "release": labels.get(RELEASE), "slot": labels.get(SLOT), "process": process}
                found.append({**facts, "alive": state["Status"] == "running", "health": health})
        return found

    def serves(self, release: str) -> bool:
        """Tell whether a release runs as it should: on the host that leads all of it, on another what of the app is there."""
        try:
            if not self.leads:
                return all(container["release"] == release for container in self.here())
            seen = self.look()
        except AnchorageError:
            return False
        wanted = self.app.document["processes"]
        return all(swarm.judge(seen.get(process["name"]), process, release).state == swarm.DONE for process in wanted)

    # -- the runtime's own

    def names(self) -> set[str]:
        """Return the names of the containers on this node."""
        return {container["name"] for container in self.here()}

    def mend(self, log: t.Callable[[str], None]) -> bool:
        """Nothing is left to be mended by hand: the Swarm starts tasks anew, with ports of their own."""
        return False

    def start(self, wanted: t.Sequence[Instance], release: str) -> None:
        """No single process is started by hand."""
        raise self._not_by_hand("started")

    def delete(self, names: t.Iterable[str]) -> None:
        """No single process is stopped by hand."""
        raise self._not_by_hand("stopped")

    def restart(self, wanted: t.Sequence[Instance], release: str) -> None:
        """Let the Swarm replace all tasks, one by one."""
        public = [process["name"] for process in self.app.document["processes"] if process["public"]]
        for name in self.look():
            # The port of an old task is the new one's, too; the next release starts first again.
            order = ["--update-order=stop-first"] if name in public else []
            self.docker("service", "update", "--quiet", "--force", "--detach", *order, swarm.service_name(self.app.name, name), timeout=300)

    def last_words(self, process: str) -> list[str]:
        """Return the end of the log of a service, wherever its tasks run or ran."""
        name = swarm.service_name(self.app.name, process)
        done = self.docker("service", "logs", "--raw", "--tail=15", name, check=False, timeout=20)
        return [*done.stdout.splitlines(), *done.stderr.splitlines()][-15:]

    def sweep(self, trees: t.Collection[str]) -> list[str]:
        """Remove images and secrets that no release uses any more."""
        gone = super().sweep(trees)
        if not self.leads:
            return gone
        known = self.docker("secret", "ls", "--format={{.Name}}", check=False).stdout.split()
        used = self._secrets_of_releases()
        spare = [name for name in known if name.startswith(f"{self.app.name}-") and len(name) == len(self.app.name) + 25 and name not in used]
        for name in spare:
            # One that a service still uses is refused by the Swarm.
            self.docker("secret", "rm", name, check=False)
        return gone

    def _secrets_of_releases(self) -> set[str]:
        found = set()
        for release in self.app.journal.data["releases"]:
            for slot in SLOTS:
                raw = self.app.world.read(f"{self.app.layout.release(release)}/run/{_file(slot, False)}")
                found.update(secret["name"] for secret in json.loads(raw or b'{"secrets": {}}')["secrets"].values())
        return found

    def check_node(self) -> None:
        """See that this node is one of the Swarm, and on the host that leads one of its managers.

        :raises AnchorageError: when it is not.
        """
        told = self.node()
        state = told.get("LocalNodeState") or "inactive"
        if state == "active" and (told.get("ControlAvailable") or not self.leads):
            return
        words = "does not manage the Swarm" if state == "active" else f"is no node of the Swarm (it is {': '.join(filter(None, [state, told.get('Error')]))})"
        raise AnchorageError(f"This host {words}.", live=self.app.living(), next_step="Run provision.yml for all hosts of the app; docker node ls says more.")


def _file(slot: str, public_only: bool) -> str:
    return f"stack-{slot}{'-public' if public_only else ''}.json"


def _service(told: Data, tasks: tuple[swarm.Task, ...]) -> swarm.Service:
    spec, update = told["Spec"], told.get("UpdateStatus") or {}
    labels = spec["Labels"]
    process = spec["Name"][len(labels[APP]) + 1 :]
    return swarm.Service(
        process, labels.get(RELEASE, ""), labels.get(SLOT, ""), update.get("State", ""), update.get("Message", ""), tasks, labels.get(swarm.LEAD, "")
    )


def _task(told: Data, nodes: t.Mapping[str, Data]) -> swarm.Task:
    spec = told["Spec"]["ContainerSpec"]
    node = nodes.get(told.get("NodeID") or "") or {}
    ports = ((told.get("Status") or {}).get("PortStatus") or {}).get("Ports") or []
    address = str((node.get("ManagerStatus") or {}).get("Addr") or "").rpartition(":")[0] or str((node.get("Status") or {}).get("Addr") or "")
    return swarm.Task(
        release=(spec.get("Labels") or {}).get(RELEASE, ""),
        state=told["Status"]["State"],
        wanted=told["DesiredState"],
        error=str(told["Status"].get("Err") or ""),
        place=(address.strip("[]"), ports[0].get("PublishedPort") if ports else None),
        node=str((node.get("Description") or {}).get("Hostname") or "no node"),
    )
