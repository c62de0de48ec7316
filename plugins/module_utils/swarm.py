# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app as a stack of a Docker Swarm: what the stack is, and what is to be thought of what is seen of it. Pure: data in, data out.

One service for each process. Their ports are those of the slot that a release takes, in the mode C(host), so that an old and a new task find room on the same
node. Addresses of a service's own and the ingress mesh are not used: they need IP_VS in the kernel, and the proxies know the nodes.
"""

from __future__ import annotations

import hashlib
import math
import typing as t

from . import compose_project
from .compose_project import APP, PIDS, RELEASE, SLOT
from .encoders import compose_text, shell_word
from .layout import Layout
from .release_plan import Instance, process_command

Data = dict[str, t.Any]

#: Hosts that manage a Swarm where there are as many: Raft needs the majority of them, and of three one may be lost.
MANAGERS = 3

#: What nodes tell each other: the managers' own, who is there (both ways), and the traffic between containers (VXLAN).
MANAGEMENT, GOSSIP, OVERLAY = 2377, 7946, 4789

#: Version of the file's format: the first that knows C(start_interval), as Engine 25 does.
FORMAT = "3.12"

#: Where a process finds what is secret of its environment, and how it takes it: the shell that reads it becomes the process.
SECRETS_FILE = "anchorage.env"
TAKE = f'. /run/secrets/{SECRETS_FILE} && exec "$@"'

#: Where on a node a task says that it is about to leave: the number of its port, in the directory of its app. The node then refuses whoever is new there,
#: and takes the file away.
LEAVING = "/run/anchorage-leaving"

#: Seconds that a task waits for that at most, and those in which who came before is taken in by the process.
HEARD, STRAGGLERS = 5, 1

#: The same for a process that visitors come to. Node closes what it has accepted and not read yet when it stops to listen, and a proxy cannot send a POST
#: again that it has sent; so nobody new may come before the process is told. As long as it lives, the shell waits for it and ends with its code.
LEAVE = f"""\
. /run/secrets/{SECRETS_FILE} || exit 1
"$@" &
child=$!
leave() {{
    trap '' TERM INT QUIT HUP
    # In a shell of its own: one that cannot open a file for a builtin of its kind ends.
    if (: > "{LEAVING}/$PORT") 2>/dev/null; then
        tries={HEARD * 10}
        while [ -e "{LEAVING}/$PORT" ] && [ "$tries" -gt 0 ]; do
            sleep 0.1
            tries=$((tries - 1))
        done
        sleep {STRAGGLERS}
    fi
    kill -TERM "$child"
    # Here, since the wait that was interrupted knows only that it was.
    wait "$child"
    exit "$?"
}}
trap leave TERM INT QUIT HUP
wait "$child"
exit "$?"
"""

#: What of an environment everybody may see who may ask the Engine. All else is a secret of the Swarm's.
PLAIN = ("ANCHORAGE_PROCESS", "ANCHORAGE_RELEASE", "RELEASE_ID", "HOST", "PORT", "LANG", "HOME")

#: Label of a service with the name of the host that has told the Swarm of it.
LEAD = "vps.anchorage.lead"

#: Seconds that a new task is watched by the Swarm before the next one is replaced.
MONITOR = 5

#: Seconds between two tries to start a process that ended.
RESTART_DELAY = 2

#: Checks of a task's health that must fail in a row once its time to start is over, and the seconds between them.
RETRIES, INTERVAL = 3, 5

#: Tasks of a service that may end before a first release is given up, which nothing rolls back.
TRIALS = 3

#: States of a task that ended. What is stopped since it does not get healthy, and ends well then, is complete, and nothing says why.
ENDED = ("failed", "rejected", "complete")
UNSAID = "ended with code 0, as a task does that is stopped since its health check does not pass,"


# ---- the stack -------------------------------------------------------------------------------------------------------


def managers(nodes: t.Sequence[str]) -> list[str]:
    """Return which of the nodes manage the Swarm: the first three, or the first one where there are fewer."""
    return list(nodes[:MANAGERS]) if len(nodes) >= MANAGERS else list(nodes[:1])


def node_label(app: str) -> str:
    """Return the label of the nodes that an app may run on."""
    return f"{APP}.{app}"


def files_label(app: str) -> str:
    """Return the label of the node on which an app's shared directories lie."""
    return f"{APP}.{app}.shared"


def service_name(app: str, process: str) -> str:
    """Return what the Swarm calls a service of the app's stack."""
    return f"{app}_{process}"


def instance(document: Data, process: Data, slot: str) -> Instance:
    """Return what stands for all tasks of a process; the Swarm puts in which of them one is."""
    ports = (process.get("slots") or {}).get(slot) or []
    return Instance(f"{document['name']}-{process['name']}.{{{{.Task.Slot}}}}", process, 0, slot, ports[0] if ports else None)


def environment_file(document: Data, process: Data, release: str) -> str:
    """Return what is secret of a process' environment, as a shell reads it. It is the same in both slots."""
    found = compose_project.environment(document, instance(document, process, "blue"), release)
    return "".join(f"export {key}={shell_word(value, key)}\n" for key, value in sorted(found.items()) if key not in PLAIN)


def secret_name(app: str, process: str, content: str) -> str:
    """Return what the Swarm calls it: what is in it cannot be changed there, so that another content has another name."""
    return f"{app}-{hashlib.sha256(f'{process}/{content}'.encode()).hexdigest()[:24]}"


def stack(document: Data, *, release: str, slot: str, image: str, user: str, files: t.Mapping[str, str], public_only: bool = False) -> Data:
    """Return the stack of a release.

    :arg image: the id of the image, which every node has already.
    :arg user: uid and gid, as C(1000:1000).
    :arg files: by process, the path of its environment_file().
    :arg public_only: leave out what is not public, which takes work as soon as it lives.
    """
    chosen = [process for process in document["processes"] if process["public"] or not public_only]
    return {
        "version": FORMAT,
        "services": {process["name"]: _service(document, process, release, slot, image, user) for process in chosen},
        "networks": {"default": {"driver": "overlay"}},
        "secrets": {
            process["name"]: {
                "name": secret_name(document["name"], process["name"], environment_file(document, process, release)),
                "file": files[process["name"]],
            }
            for process in chosen
        },
    }


def _service(document: Data, process: Data, release: str, slot: str, image: str, user: str) -> Data:
    uid, _colon, gid = user.partition(":")
    task = instance(document, process, slot)
    environ = compose_project.environment(document, task, release)
    labels = {APP: document["name"], RELEASE: release, SLOT: slot}
    leaves = bool(process["public"] and task.port is not None)
    found: Data = {
        "image": image,
        "user": user,
        "init": True,
        "working_dir": document["image"]["directory"],
        "read_only": document["image"]["read_only"],
        "cap_drop": ["ALL"],
        "volumes": [{"type": "tmpfs", "target": "/tmp"}, *_mounts(document), *([_leaving(document)] if leaves else [])],
        "labels": labels,
        "entrypoint": [compose_text(word) for word in ["/bin/sh", "-c", LEAVE if leaves else TAKE, "sh", *process_command(task, environ)]],
        "command": [],
        "environment": {key: compose_text(value) for key, value in environ.items() if key in PLAIN},
        "networks": {"default": {"aliases": [process["name"]]}},
        "stop_grace_period": f"{max(1, math.ceil(process['stop_seconds'])) + (HEARD + STRAGGLERS if leaves else 0)}s",
        "secrets": [{"source": process["name"], "target": SECRETS_FILE, "uid": uid, "gid": gid, "mode": 0o400}],
        "deploy": _deploy(document, process, {**labels, LEAD: document["host"]}),
    }
    if task.port is not None and process["public"]:
        found["ports"] = [{"target": task.port, "published": task.port, "protocol": "tcp", "mode": "host"}]
    health = process.get("health")
    if health and health.get("path") and task.port is not None:
        ask = compose_project.ASK.format(port=task.port, path=health["path"], status=health["status"])
        times = {"interval": f"{INTERVAL}s", "timeout": "5s", "retries": RETRIES, "start_period": f"{health['deadline_seconds']}s", "start_interval": "1s"}
        found["healthcheck"] = {"test": ["CMD", "node", "-e", compose_text(ask)], **times}
    return found


def _deploy(document: Data, process: Data, labels: t.Mapping[str, str]) -> Data:
    order = "start-first" if process["overlap"] else "stop-first"
    constraints = [f"node.labels.{node_label(document['name'])} == true"]
    if document["shared"]:
        # What is written there lies on one node.
        constraints = [f"node.labels.{files_label(document['name'])} == true"]
    limits: Data = {"pids": PIDS, **({"memory": f"{process['memory_mb']}M"} if process.get("memory_mb") else {})}
    return {
        "mode": "replicated",
        "replicas": process["instances"],
        "endpoint_mode": "dnsrr",
        "labels": dict(labels),
        "update_config": {"parallelism": 1, "order": order, "failure_action": "rollback", "monitor": f"{MONITOR}s", "max_failure_ratio": 0},
        "rollback_config": {"parallelism": 1, "order": order, "failure_action": "pause", "monitor": f"{MONITOR}s"},
        "restart_policy": {"condition": "any", "delay": f"{RESTART_DELAY}s"},
        "resources": {"limits": limits},
        "placement": {"constraints": constraints},
    }


def _mounts(document: Data) -> list[Data]:
    shared = Layout(document["name"], document["home"]).shared
    found: list[Data] = [{"type": "bind", "source": f"{shared}/{name}", "target": f"{document['image']['directory']}/{name}"} for name in document["shared"]]
    found += [{"type": "bind", "source": place, "target": target, "read_only": True} for place, target in compose_project.authorities(document).items()]
    return found


def _leaving(document: Data) -> Data:
    return {"type": "bind", "source": f"{LEAVING}/{document['name']}", "target": LEAVING}


def leaving_ports(document: Data) -> list[int]:
    """Return the ports at which tasks of an app say that they leave: those of its public process, in either slot."""
    return sorted({port for process in document["processes"] if process["public"] for ports in (process.get("slots") or {}).values() for port in ports})


def patience(process: Data) -> float:
    """Return how long the Swarm may take to replace all tasks of a process at most, in seconds."""
    health = process.get("health") or {"deadline_seconds": 60}
    start = health["deadline_seconds"] + RETRIES * INTERVAL + MONITOR
    return float(60 + process["instances"] * (start + process["stop_seconds"]))


# ---- what is seen of it ----------------------------------------------------------------------------------------------


class Task(t.NamedTuple):
    """One task of a service.

    C(state) is what it is in, C(wanted) what the Swarm wants of it, C(error) why it ended, C(place) the address of its node and its port.
    """

    release: str
    state: str
    wanted: str
    error: str
    place: tuple[str, int | None]
    node: str

    @property
    def runs(self) -> bool:
        """Whether it runs and is meant to; where there is a health check, it has passed it."""
        return self.state == self.wanted == "running"


class Service(t.NamedTuple):
    """One service as the Swarm tells of it.

    C(update) is the state of its last update, empty where there was none since it was last changed. C(lead) is the host that has told the Swarm of it.
    """

    process: str
    release: str
    slot: str
    update: str
    said: str
    tasks: tuple[Task, ...]
    lead: str = ""

    def running(self, release: str) -> list[Task]:
        """Return the tasks of a release that run."""
        return [task for task in self.tasks if task.release == release and task.runs]

    def ended(self, release: str) -> list[Task]:
        """Return the tasks of a release that ended by themselves, could not be started, or were stopped since they did not get healthy."""
        return [task for task in self.tasks if task.release == release and task.state in ENDED]


#: What an update that went wrong is called.
WENT_BACK = ("rollback_started", "rollback_completed", "rollback_paused", "paused")

DONE, GOING, FAILED = "done", "going", "failed"


class Verdict(t.NamedTuple):
    """What is thought of a service, and why."""

    state: str
    cause: str = ""


def judge(service: Service | None, process: Data, release: str) -> Verdict:
    """Judge whether a service serves a release: by its tasks, not by what the Swarm answered when it was told.

    :arg service: what is seen; None where there is no such service.
    :arg process: as the contract wants it.
    """
    name = process["name"]
    if service is None:
        return Verdict(GOING, f"there is no service {name} yet")
    why = _why(service, release)
    if service.release != release or service.update in WENT_BACK:
        return Verdict(FAILED, f"{name}: {why or service.said or 'the Swarm went back to the release before'}")
    running = len(service.running(release))
    if service.update == "updating":
        return Verdict(GOING, f"{name}: {running} of {process['instances']} tasks run{why and f'; {why}'}")
    if running >= process["instances"]:
        return Verdict(DONE)
    if not service.update and len(service.ended(release)) >= TRIALS:
        return Verdict(FAILED, f"{name}: {why}")
    return Verdict(GOING, f"{name}: {running} of {process['instances']} tasks run{why and f'; {why}'}")


def _why(service: Service, release: str) -> str:
    """Return why tasks of a release do not run, as far as the Swarm says it."""
    waiting = [task.error for task in service.tasks if task.release == release and task.state == "pending" and task.error]
    ended = sorted(service.ended(release), key=lambda task: not task.error)
    return ([f"{task.error or UNSAID} on {task.node}" for task in ended] or waiting or [""])[0]


def settled(service: Service) -> bool:
    """Tell whether the Swarm has come to the end of what it was told, or of the way back."""
    return service.update not in ("updating", "rollback_started")
