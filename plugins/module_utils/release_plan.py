# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release is made of, and what is still to be done for it. Pure: data in, data out."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
import urllib.parse

from .errors import AnchorageError
from .layout import SLOTS, Layout
from .runtime import CONTROLLER, PM2, name_of

LOCK_FILES = {
    "npm": ("package-lock.json", "npm-shrinkwrap.json"),
    "yarn": ("yarn.lock",),
    "pnpm": ("pnpm-lock.yaml",),
}

#: What a running process depends on; its health check is not among it, so a new deadline is not a new release.
#: Addresses of services, by the variable that hands them to the app.
SERVICES = {"DATABASE_URL": "database_url", "REDIS_URL": "redis_url", "REDIS_CACHE_URL": "redis_cache_url"}

RUNTIME_KEYS = ("name", "command", "public", "instances", "slots", "memory_mb", "env", "overlap", "stop_seconds")


#: What the kernel calls a machine, and what images say of it where that is another word.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "i686": "386"}


def image_platform(machine: str) -> str:
    """Return the platform of the images that run on a machine."""
    return f"linux/{MACHINES.get(machine, machine)}"


def built_elsewhere(document: dict[str, t.Any]) -> bool:
    """Tell whether the controller builds the image of an app; documents from before there was a choice say nothing."""
    return (document.get("image") or {}).get("build_on") == CONTROLLER


def digest(value: t.Any, *, length: int = 12) -> str:
    """Return a short name for a value: the same value, the same name, on every host."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:length]


def build_inputs(document: dict[str, t.Any], source_id: str) -> dict[str, t.Any]:
    """Return all that goes into a build and is the same on every host."""
    return {
        "source": source_id,
        "subdir": document["source"].get("subdir") or "",
        "package_manager": document["package_manager"],
        "build": {key: document["build"].get(key) for key in ("command", "env", "output", "directories")},
        "shared": document["shared"],
        # Where it is built is no part of what is built.
        **({"image": {key: value for key, value in document["image"].items() if key != "build_on"}} if document.get("image") else {}),
    }


def place_inputs(document: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what differs from host to host: where the app listens, and where it finds its services."""
    # The last two are among them only where there is one, so that the trees of all other apps keep their names.
    keys = [*SERVICES.values(), *(key for key in ("database_pool_url", "database_read_url") if document.get(key))]
    services = [urllib.parse.urlsplit(document.get(key) or "") for key in keys]
    return {"listen": document.get("listen_address") or "127.0.0.1", "services": [[parts.hostname, parts.query] for parts in services]}


def tree_id(document: dict[str, t.Any], source_id: str, node: str) -> str:
    """Name what lies on one host: the build, the host's Node (packages compile against it), and the host's place."""
    return digest({**build_inputs(document, source_id), "node": node, "place": place_inputs(document)})


def portable(url: str | None) -> str | None:
    """Return what is the same from every host in the address of a service: login, port and name."""
    if not url:
        return None
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.username}:{parts.password}@:{parts.port}{parts.path}"


def runtime_inputs(document: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return all that a running release depends on besides its tree, as far as it is the same on every host."""
    return {
        "env": document["env"],
        "secrets": document.get("secrets_env", {}),
        "services": [portable(document.get(key)) for key in SERVICES.values()],
        "migrate": (document.get("migrate") or {}).get("command"),
        "processes": [{key: process.get(key) for key in RUNTIME_KEYS} for process in document["processes"]],
        **({"aliases": document["aliases"]} if document.get("aliases") else {}),
        **({"runtime": name_of(document)} if name_of(document) != PM2 else {}),
        **({"pooled": document["pooled"]} if document.get("pooled") else {}),
        # A process reads whom it trusts when it starts.
        **({"trusted": document["trusted_file"]} if document.get("trusted_file") else {}),
        **({"pool": portable(document["database_pool_url"])} if document.get("database_pool_url") else {}),
        # Which host it leads to is a matter of the place.
        **({"read": document["database"]["read_url_env"]} if read_variable(document) else {}),
    }


def release_id(document: dict[str, t.Any], source_id: str) -> str:
    """Name a release: source, build and environment.

    Identical source, environment and lock file give the identical name, on every host, so there is nothing to do twice
    and one host's migration counts for all.
    """
    return digest({"build": build_inputs(document, source_id), "runtime": runtime_inputs(document)})


def read_variable(document: dict[str, t.Any]) -> str | None:
    """Return the variable in which processes find where to read from; documents from before there was one say nothing."""
    return (document.get("database") or {}).get("read_url_env")


def services(document: dict[str, t.Any], *, pooled: bool = False) -> dict[str, str]:
    """Return the addresses of an app's services by the variables that hand them to it.

    :arg pooled: whether they are for its processes. A migration goes past what stands before the database, and reads nothing that may be behind.
    """
    found = {variable: document[key] for variable, key in SERVICES.items() if document.get(key)}
    if "DATABASE_URL" in found:
        if pooled and document.get("database_pool_url"):
            found["DATABASE_URL"] = document["database_pool_url"]
        reads = read_variable(document)
        if reads:
            found[reads] = (pooled and document.get("database_read_url")) or found["DATABASE_URL"]
    return found


def common_environment(document: dict[str, t.Any], *, pooled: bool = False) -> dict[str, str]:
    """Return the environment that all processes of an app share.

    :arg pooled: whether the database is reached through what stands before it. A migration goes past it: its locks live in a session.
    """
    if pooled and document.get("pooled"):
        document = {**document, "inside": {**(document.get("inside") or {}), **document["pooled"]}}
    environment = dict(document["env"])
    environment.update(document.get("secrets_env") or {})
    for key, url in services(document, pooled=pooled).items():
        environment.setdefault(key, seen_from_inside(document, url))
    for key, source in (document.get("aliases") or {}).items():
        if source in environment:
            environment.setdefault(key, environment[source])
    return environment


def seen_from_inside(document: dict[str, t.Any], url: str) -> str:
    """Return the address of a service as the app's processes reach it: from inside a container, loopback is somewhere else."""
    parts = urllib.parse.urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    other = (document.get("inside") or {}).get(place)
    if not other:
        return url
    # What stays in the host's own bridge is not encrypted, and Medusa's migration takes every name but localhost for a server that does TLS.
    query = parts.query or ("sslmode=disable" if parts.scheme in ("postgres", "postgresql") else "")
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{login}{at}{other}", query=query))


def listen_address(document: dict[str, t.Any], process: dict[str, t.Any]) -> str:
    """Return where a process listens: loopback, unless proxies on other hosts must reach it."""
    return t.cast(str, document.get("listen_address") or "127.0.0.1") if process["public"] else "127.0.0.1"


class Instance(t.NamedTuple):
    """One operating system process of an app in one slot."""

    name: str
    process: dict[str, t.Any]
    number: int
    slot: str
    port: int | None


def process_environment(document: dict[str, t.Any], instance: Instance, release: str, extra_ca_file: str = "") -> dict[str, str]:
    """Return the whole environment of one process: nothing is inherited."""
    port, name = instance.port, instance.name
    environment = common_environment(document, pooled=True)
    environment.update(instance.process["env"])
    if port is not None:
        environment["PORT"] = str(port)
        environment.setdefault("HOST", listen_address(document, instance.process))
    environment.update({"RELEASE_ID": release, "ANCHORAGE_RELEASE": release, "ANCHORAGE_PROCESS": name})
    environment.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    environment.setdefault("HOME", Layout(document["name"], document["home"]).pm2_home)
    environment.setdefault("LANG", "C.UTF-8")
    if extra_ca_file:
        environment.setdefault("NODE_EXTRA_CA_CERTS", extra_ca_file)
    return environment


def placed(words: t.Sequence[str], host: str, port: int | str | None) -> list[str]:
    """Return a command with the place in it at which its process listens; whatever else stands in braces stays as it is."""
    return [word.replace("{host}", host).replace("{port}", str(port)) if port is not None else word for word in words]


def process_command(instance: Instance, environment: t.Mapping[str, str]) -> list[str]:
    """Return the command of one process; where it listens it is told by its environment as well, and both say the same."""
    return placed(instance.process["command"], environment.get("HOST", ""), environment.get("PORT"))


def instances(document: dict[str, t.Any], slot: str, *, public: bool | None = None) -> list[Instance]:
    """Return the processes that a slot consists of, or only the public or only the other ones."""
    found = []
    for process in document["processes"]:
        if public is not None and bool(process["public"]) is not public:
            continue
        ports = process["slots"][slot] if process.get("slots") else []
        for number in range(process["instances"]):
            suffix = f"-{number + 1}" if process["instances"] > 1 else ""
            name = f"{document['name']}-{process['name']}{suffix}-{slot}"
            # On a Swarm all have the same one, each on a node of its own.
            found.append(Instance(name, process, number, slot, ports[min(number, len(ports) - 1)] if ports else None))
    return found


def other_slot(slot: str | None) -> str:
    """Return the slot that is idle while the given one serves."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


def ecosystem_entry(layout: Layout, release: str, instance: Instance, command: str, log_directory: str, stop_seconds: float) -> dict[str, t.Any]:
    """Return what PM2 is told of a process. No value of the environment is in it (PM2 dumps what it is told).

    :arg stop_seconds: after which a process that was asked to stop is killed.
    """
    process = instance.process
    return {
        "name": instance.name,
        "script": command,
        "args": ["exec", f"{layout.release(release)}/run/{instance.name}.json"],
        "interpreter": "none",
        "exec_mode": "fork",
        "cwd": f"{layout.release(release)}/app",
        "autorestart": True,
        "exp_backoff_restart_delay": 500,
        "kill_timeout": int(stop_seconds * 1000),
        "max_memory_restart": f"{process['memory_mb']}M" if process.get("memory_mb") else None,
        "merge_logs": True,
        "out_file": f"{log_directory}/{instance.name}.log",
        "error_file": f"{log_directory}/{instance.name}.log",
    }


def package_manager(wanted: str, manifest: dict[str, t.Any], names: t.Collection[str]) -> str | None:
    """Tell which package manager installs a source tree.

    :arg wanted: the contract's word; V(auto) asks the tree.
    :arg manifest: the tree's package.json.
    :arg names: the names of the files beside it.
    :returns: npm, yarn, pnpm, or None where the tree has no dependencies.
    :raises AnchorageError: when no lock file says which versions, or two say different things.
    """
    present = [name for name, files in LOCK_FILES.items() if any(file in names for file in files)]
    declared = str(manifest.get("packageManager") or "").partition("@")[0]
    choice = wanted if wanted != "auto" else declared or (present[0] if len(present) == 1 else "")
    if not choice and len(present) > 1:
        raise AnchorageError(
            f"The source has lock files of {' and '.join(present)}, and neither package.json (packageManager) nor the contract says which counts.",
            next_step="Set package_manager in the contract, or remove the lock file that is not used.",
        )
    if not choice:
        if not any(manifest.get(key) for key in ("dependencies", "devDependencies", "optionalDependencies")):
            return None
        raise AnchorageError(
            "The source has dependencies but no lock file, so nobody can say what would be installed.",
            next_step="Run 'npm install --package-lock-only' in the project and commit package-lock.json.",
        )
    if choice not in LOCK_FILES:
        raise AnchorageError(f"The package manager '{choice}' is not known; npm, yarn and pnpm are.")
    if choice not in present:
        raise AnchorageError(
            f"The source is to be installed by {choice}, but its lock file {LOCK_FILES[choice][0]} is missing.",
            next_step=f"Commit {LOCK_FILES[choice][0]}.",
        )
    return choice


def install_command(manager: str, version: str) -> list[str]:
    """Return the command that installs exactly what the lock file says, development dependencies too (a build needs them)."""
    if manager == "yarn":
        return ["yarn", "install", "--immutable"] if not version.startswith("1.") else ["yarn", "install", "--frozen-lockfile"]
    if manager == "pnpm":
        return ["pnpm", "install", "--frozen-lockfile"]
    return ["npm", "ci", "--no-audit", "--no-fund", "--include=dev"]


def prune_command(manager: str, version: str) -> list[str]:
    """Return the command that takes the development dependencies out again."""
    if manager == "yarn":
        return ["yarn", "workspaces", "focus", "--all", "--production"] if not version.startswith("1.") else ["yarn", "install", "--production"]
    if manager == "pnpm":
        return ["pnpm", "prune", "--prod", "--ignore-scripts"]
    return ["npm", "prune", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]


def version_tuple(text: str) -> tuple[int, int, int]:
    """Return the numbers of a version; missing ones are 0."""
    numbers = [int(part) for part in re.findall(r"\d+", text)[:3]]
    return t.cast("tuple[int, int, int]", tuple(numbers + [0] * (3 - len(numbers))))


def satisfies(version: str, wanted: str) -> bool:
    """Tell whether a Node version is in an C(engines) range (the forms in use: ^ ~ >= > <= < = x, blanks for and, || for or)."""
    have = version_tuple(version)
    return any(all(_comparator(have, part) for part in _comparators(clause)) for clause in wanted.split("||"))


def _comparators(clause: str) -> list[str]:
    hyphen = re.fullmatch(r"\s*(\S+)\s+-\s+(\S+)\s*", clause)
    if hyphen:
        return [f">={hyphen.group(1)}", f"<={hyphen.group(2)}"]
    return re.findall(r"(?:[\^~]|[<>]=?|=)?\s*v?[\dxX*][\w.*-]*", clause)


def _comparator(have: tuple[int, int, int], part: str) -> bool:
    match = re.fullmatch(r"([\^~]|[<>]=?|=)?\s*v?(.+)", part)
    if match is None:
        return True
    operator, text = match.group(1) or "", match.group(2)
    parts = [piece for piece in re.split(r"[.\-+]", text)[:3] if piece not in ("x", "X", "*", "")]
    if not parts:
        return True
    base = version_tuple(".".join(parts))
    if operator == ">=":
        return have >= base
    if operator == ">":
        return have[: len(parts)] > base[: len(parts)]
    if operator == "<=":
        return have[: len(parts)] <= base[: len(parts)]
    if operator == "<":
        return have < base
    if operator == "^":
        first = next((index for index, number in enumerate(base) if number), 0)
        return have >= base and have[: first + 1] == base[: first + 1]
    if operator == "~":
        width = min(len(parts), 2)
        return have >= base and have[:width] == base[:width]
    return have[: len(parts)] == base[: len(parts)]


def pending(journal: t.Any, release: str, tree: str, *, running: bool) -> list[str]:
    """Return the steps that a release still needs on this host."""
    steps = []
    if not journal.says(release, "staged") or journal.release(release).get("tree") != tree:
        steps.append("stage")
    if not journal.says(release, "migrated"):
        steps.append("migrate")
    if journal.live != release or journal.data.get("tree") != tree or not running:
        steps.append("activate")
    return steps


def prunable(journal: t.Any, keep: int) -> list[str]:
    """Return releases that may go: the oldest beyond those to keep. The live and the previous one are never among them."""
    held = {journal.live, journal.data["previous"]}
    rest = sorted((entry.get("staged_at", 0), name) for name, entry in journal.data["releases"].items() if name not in held)
    spare = max(0, keep - len(held - {None}))
    return [name for _at, name in rest[: max(0, len(rest) - spare)]]
