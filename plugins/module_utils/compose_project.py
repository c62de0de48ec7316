# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Compose projects of an app's releases: one for each slot, one for each command that is run once. Pure: data in, data out.

A release never touches the project that holds the stateful services; it only joins that one's network.
"""

from __future__ import annotations

import math
import typing as t

from .encoders import compose_text
from .hold import stop_seconds
from .layout import AUTHORITY, Layout
from .release_plan import Instance, instances, listen_address, process_command, process_environment

Data = dict[str, t.Any]

#: Labels of our own. Whatever carries SLOT is a process of a release; a container that is run once does not.
APP, RELEASE, SLOT = "vps.anchorage.app", "vps.anchorage.release", "vps.anchorage.slot"

#: Where the certificates of an authority of the host's own lie inside a container.
EXTRA_CA = "/run/anchorage/extra-ca.pem"

#: Processes and threads that one container may have: Node has about a dozen, and a fork bomb must not take the host along.
PIDS = 512

#: Asks the process's own health path from inside, with what every Node image has. By address, since localhost may be ::1 first.
ASK = "fetch('http://127.0.0.1:{port}{path}').then(r => process.exit(r.status === {status} ? 0 : 1), () => process.exit(1))"


def base_name(app: str) -> str:
    """Return the name of the project and of the network that an app's stateful services live in."""
    return f"{app}-base"


def project_name(app: str, slot: str) -> str:
    """Return the name of a slot's project."""
    return f"{app}-{slot}"


def repository(app: str) -> str:
    """Return the name under which the Engine knows an app's images."""
    return f"anchorage/{app}"


def delivered_repository(app: str) -> str:
    """Return the name under which the controller's Engine knows an app's images: another one, since it may be a host's Engine, too."""
    return f"anchorage-controller/{app}"


def delivered(app: str, tree: str, platform: str) -> str:
    """Return the name of an image that the controller has built for a platform."""
    return f"{delivered_repository(app)}:{tree}-{platform.partition('/')[2].replace('/', '-')}"


def service_name(instance: Instance, release: str) -> str:
    """Return the name of an instance's service: with the release in it, so that no name ever means two releases."""
    suffix = f"-{instance.number + 1}" if instance.process["instances"] > 1 else ""
    return f"{instance.process['name']}{suffix}-{release}"


def slot_project(document: Data, *, release: str, slot: str, image: str, user: str) -> Data:
    """Return the project of a release in a slot.

    :arg image: the id of the image that the release stands on.
    :arg user: uid and gid, as C(1000:1000).
    """
    services = {service_name(instance, release): _service(document, instance, release, image, user) for instance in instances(document, slot)}
    return {"name": project_name(document["name"], slot), "services": services, "networks": _networks(document)}


def once_project(
    document: Data, *, release: str, name: str, argv: t.Sequence[str], env: t.Mapping[str, str], image: str, user: str, memory_mb: int | None
) -> Data:
    """Return the project of one command that is run once.

    :arg name: what it is called.
    :arg memory_mb: what the container may take, in MiB.
    """
    networks = _networks(document)
    if "base" in networks:
        del networks["default"]
    service = {
        **_common(document, release, image, user),
        "container_name": once_name(document["name"], name),
        **_command(argv),
        "environment": {key: compose_text(value) for key, value in env.items()},
        "networks": {key: {} for key in networks},
        "restart": "no",
        **_memory(memory_mb),
    }
    return {"name": f"{document['name']}-{name}", "services": {name: service}, "networks": networks}


def once_name(app: str, name: str) -> str:
    """Return the name of the container of a command that is run once."""
    return f"anchorage-{app}-{name}"


def _service(document: Data, instance: Instance, release: str, image: str, user: str) -> Data:
    process = instance.process
    common = _common(document, release, image, user)
    alias = {"aliases": [process["name"]]}
    environ = environment(document, instance, release)
    service: Data = {
        **common,
        "container_name": instance.name,
        **_command(process_command(instance, environ)),
        "environment": {key: compose_text(value) for key, value in environ.items()},
        # In the slot's own network a process is found by its name; in the shared one only by the name that holds its release.
        "networks": {key: alias if key == "default" else {} for key in _networks(document)},
        "restart": "unless-stopped",
        "stop_grace_period": f"{max(1, math.ceil(stop_seconds(document, process)))}s",
        "labels": {**common["labels"], SLOT: instance.slot},
        **_memory(process.get("memory_mb")),
    }
    if instance.port is not None:
        address = listen_address(document, process)
        service["ports"] = [{"target": instance.port, "published": str(instance.port), "host_ip": address, "protocol": "tcp"}]
    health = process.get("health")
    if health and health.get("path") and instance.port is not None:
        ask = ASK.format(port=instance.port, path=health["path"], status=health["status"])
        times = {"interval": "10s", "timeout": "5s", "retries": 3, "start_period": "60s", "start_interval": "2s"}
        service["healthcheck"] = {"test": ["CMD", "node", "-e", compose_text(ask)], **times}
    return service


def environment(document: Data, instance: Instance, release: str) -> dict[str, str]:
    """Return the whole environment of one process inside its container."""
    found = process_environment(document, instance, release, EXTRA_CA if authorities(document) else "")
    # Inside, the container's own interface; who gets there is decided by what is published. The path of programs is the image's.
    del found["PATH"]
    return {**found, "HOME": "/tmp", **({"HOST": "0.0.0.0"} if instance.port is not None else {})}


def authorities(document: Data) -> dict[str, str]:
    """Return the files with certificates of authorities that a container must have: where each lies on the host, and where inside."""
    trusted = document.get("trusted_file") or document.get("extra_ca_file")
    # The address of a database on another host names the fleet's own authority by its path.
    return {**({trusted: EXTRA_CA} if trusted else {}), **({AUTHORITY: AUTHORITY} if document.get("trusted_file") else {})}


def _common(document: Data, release: str, image: str, user: str) -> Data:
    layout = Layout(document["name"], document["home"])
    mounts = [_bind(f"{layout.shared}/{name}", f"{document['image']['directory']}/{name}") for name in document["shared"]]
    mounts += [{**_bind(source, target), "read_only": True} for source, target in authorities(document).items()]
    return {
        "image": image,
        "pull_policy": "never",
        "user": user,
        "init": True,
        "working_dir": document["image"]["directory"],
        "read_only": document["image"]["read_only"],
        "tmpfs": ["/tmp:mode=1777"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": PIDS,
        "volumes": mounts,
        "labels": {APP: document["name"], RELEASE: release},
    }


def _command(argv: t.Sequence[str]) -> Data:
    """Return what is run: these words, and no entry point of the image before them, which may migrate, or start something else."""
    return {"entrypoint": [compose_text(word) for word in argv], "command": []}


def _bind(source: str, target: str) -> Data:
    return {"type": "bind", "source": source, "target": target, "bind": {"create_host_path": False}}


def _memory(memory_mb: int | None) -> Data:
    """Return limits of memory; without swap, so that a leak ends one process and does not grind the host down."""
    return {"mem_limit": f"{memory_mb}m", "memswap_limit": f"{memory_mb}m"} if memory_mb else {}


def _networks(document: Data) -> Data:
    """Return the networks of a release: its own, and that of the stateful services where there are any."""
    own: Data = {"default": {}}
    if document.get("inside"):
        own["base"] = {"name": base_name(document["name"]), "external": True}
    return own
