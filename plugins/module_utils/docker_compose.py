# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host of Compose projects is told: their files, the commands that judge these, and the registries' credentials."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
import typing as t

from .errors import AnchorageError

HEADER = "# Managed by anchorage.vps.docker_compose\n"
DEFINITION = "compose.yml"
# Compose reads it with the definition, also when somebody calls it by hand.
OVERRIDE = "compose.override.yml"
LABEL = "anchorage.files"
HUB = "https://index.docker.io/v1/"
ROUNDS = 20_000
SETTINGS: dict[str, t.Any] = {"state": "present", "pull": "missing", "wait": True, "wait_timeout_seconds": 120, "remove_orphans": False}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_MODE = re.compile(r"0?[0-7]{3}")
_COMPOSE_FILE = re.compile(r"(docker-)?compose(\.override)?\.ya?ml")

Project = t.Mapping[str, t.Any]
Dump = t.Callable[[t.Any], str]


def _wrong(key: str, problem: str, next_step: str) -> t.NoReturn:
    raise AnchorageError(f"{key} {problem}.", next_step=next_step)


def plain(value: t.Any) -> t.Any:
    """Return the same data in the types that every serialiser knows."""
    if isinstance(value, t.Mapping):
        return {plain(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def credentials(registries: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """Return the content of Docker's ``config.json`` for these registries."""
    auths: dict[str, dict[str, str]] = {}
    for index, entry in enumerate(registries):
        where = f"docker_compose_registries[{index}]"
        name, username, password = entry["registry"], entry["username"], entry["password"]
        if not _REGISTRY.fullmatch(name):
            _wrong(f"{where}.registry", f"'{name}' is no name of a registry", "Write a host and perhaps a port, such as registry.example.com:5000.")
        key = HUB if name == "docker.io" else name
        if key in auths:
            _wrong(f"{where}.registry", f"names {name} again", "Docker keeps one user for each registry.")
        if not username or ":" in username:
            _wrong(f"{where}.username", "is empty or holds a colon", "Give the user's name alone.")
        if not password:
            _wrong(f"{where}.password", "is empty", "Give the password, or a token that stands for it.")
        auths[key] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    return {"auths": auths}


def _files(where: str, entries: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    files: dict[str, dict[str, t.Any]] = {}
    for index, entry in enumerate(entries):
        key = f"{where}.files[{index}]"
        path, mode = str(entry["path"]), str(entry.get("mode") or "0640")
        if path.startswith("/") or posixpath.normpath(path) != path or path.partition("/")[0] in (".", ".."):
            _wrong(f"{key}.path", f"'{path}' does not lie in the project's directory", "Write a path such as nginx/site.conf.")
        if path in files or _COMPOSE_FILE.fullmatch(path):
            _wrong(f"{key}.path", f"'{path}' is taken", "Give the file another name.")
        if not _MODE.fullmatch(mode):
            _wrong(f"{key}.mode", f"'{mode}' is no mode", 'Write it as a quoted octal string, such as "0640".')
        files[path] = {"content": str(entry["content"]), "mode": mode, "secret": bool(entry.get("secret", True))}
    return files


def _services(where: str, name: str, definition: t.Any) -> dict[str, t.Any]:
    if not isinstance(definition, dict) or not isinstance(definition.get("services"), dict) or not definition["services"]:
        _wrong(f"{where}.definition", f"of project {name} has no services", "Write what stands in a compose.yml, with the key services.")
    if definition.get("name", name) != name:
        _wrong(f"{where}.definition.name", f"is not {name}, the project's name", "Take it out.")
    odd = [service for service, told in definition["services"].items() if not isinstance(told, dict)]
    if odd:
        _wrong(f"{where}.definition.services.{odd[0]}", f"of project {name} is no dictionary", "Write the service's options below it.")
    return definition["services"]


def _source(volume: t.Any) -> str:
    """Return what a volume of a service is mounted from."""
    if isinstance(volume, str):
        return volume.partition(":")[0] if ":" in volume else ""
    return str(volume.get("source") or "") if isinstance(volume, dict) else ""


def _mounted(definition: t.Mapping[str, t.Any], service: t.Mapping[str, t.Any]) -> list[str]:
    """Return the paths, as written, that a service gets from its project's directory."""
    paths = [source for source in map(_source, service.get("volumes") or []) if source.startswith(".")]
    for kind in ("configs", "secrets"):
        known = definition.get(kind) or {}
        for use in service.get(kind) or []:
            told = known.get(use.get("source") if isinstance(use, dict) else use)
            if isinstance(told, dict) and told.get("file"):
                paths.append(str(told["file"]))
    return paths


def _below(path: str, source: str, directory: str) -> bool:
    whole = posixpath.normpath(posixpath.join(directory, source))
    return posixpath.join(directory, path) == whole or posixpath.join(directory, path).startswith(f"{whole}/")


def digest(name: str, files: t.Mapping[str, str]) -> str:
    """Return what changes with the files and tells nothing of them: a label is in many outputs, and a password is soon guessed from a plain hash."""
    text = "".join(f"{path}\0{hashlib.sha256(content.encode()).hexdigest()}\n" for path, content in sorted(files.items()))
    return hashlib.pbkdf2_hmac("sha256", text.encode(), name.encode(), ROUNDS).hex()[:16]


def labels(name: str, directory: str, definition: t.Mapping[str, t.Any], files: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, str]:
    """Map each service that mounts files of its project to a digest of them.

    Compose looks at the definition and at what env_file holds, not into what is mounted. As a label, the digest is part of the definition.
    """
    found = {}
    for service, told in definition["services"].items():
        sources = _mounted(definition, told)
        used = {path: entry["content"] for path, entry in files.items() if any(_below(path, source, directory) for source in sources)}
        if used:
            found[service] = digest(name, used)
    return found


def _file(path: str, content: str, *, mode: str = "0640", secret: bool = False) -> dict[str, t.Any]:
    return {"path": path, "content": content, "owner": "root", "group": "root", "mode": mode, "secret": secret}


def _alone(directories: t.Iterable[str], files: t.Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the directories of a project that lie in, or are, one in which nothing but its files may be, and the patterns of what is in their way."""
    wanted = set()
    for directory in directories:
        wanted.add(directory)
        for path in files:
            while path.startswith(f"{directory}/"):
                path = posixpath.dirname(path)
                wanted.add(path)
    return sorted(wanted), [f"{path}/*" for path in sorted(wanted)]


def _proofs(where: str, name: str, place: str, project: Project, prover: str) -> list[dict[str, t.Any]]:
    """Return the commands that must accept the files of a project, each in a container that gets a copy of them: the Engine sees no staged file."""
    found = []
    for index, proof in enumerate(project.get("proofs") or []):
        path = str(proof["path"])
        if path.startswith("/") or posixpath.normpath(path) != path or path.partition("/")[0] in (".", ".."):
            _wrong(f"{where}.proofs[{index}].path", f"'{path}' does not lie in the project's directory", "Write a path such as policies.")
        command = [prover, f"anchorage-proof-{name}", str(proof["image"]), f"{place}/{path}", str(proof["target"]), *map(str, proof["command"])]
        found.append({"name": str(proof["name"]), "command": command, "when_changed": [f"{place}/"]})
    return found


def _part(where: str, name: str, place: str, project: Project, files: t.Mapping[str, t.Mapping[str, t.Any]], dump: Dump) -> dict[str, list[t.Any]]:
    """Return the part of a host that belongs to one project."""
    main, override = f"{place}/{DEFINITION}", f"{place}/{OVERRIDE}"
    definition = project.get("definition")
    services = _services(where, name, definition)
    marks = labels(name, place, {**t.cast("dict[str, t.Any]", definition), "services": services}, files)
    directories, strangers = _alone(project.get("exclusive") or [], files)
    part: dict[str, list[t.Any]] = {
        "directories": [{"path": place, "mode": "0750"}, *({"path": f"{place}/{path}", "mode": "0755"} for path in directories)],
        "files": [_file(main, HEADER + dump(definition))],
        "absent": [f"{place}/{path}" for path in strangers],
    }
    part["files"] += [_file(f"{place}/{path}", entry["content"], mode=entry["mode"], secret=entry["secret"]) for path, entry in files.items()]
    if marks:
        told = {"services": {service: {"labels": {LABEL: mark}} for service, mark in marks.items()}}
        part["files"].append(_file(override, HEADER + dump(told)))
    else:
        part["absent"].append(override)
    command = ["docker", "compose", "--project-name", name, "--project-directory", place, "--file", main]
    command += ["--file", override] if marks else []
    part["validate"] = [{"name": f"Compose project {name}", "command": [*command, "config", "--quiet"], "when_changed": [f"{place}/"]}]
    return part


def model(projects: t.Iterable[Project], *, directory: str, prover: str, dump: Dump) -> dict[str, list[t.Any]]:
    """Return the part of a host that belongs to its projects, as host_state takes it, and what becomes of each project.

    What is not required is told apart, each project with its own part of the host, so that it can fail alone.

    :arg directory: where each project gets a directory of its own.
    :arg prover: the program that runs a command in a container that gets a copy of files.
    :arg dump: turns a definition into YAML.
    """
    state: dict[str, list[t.Any]] = {"directories": [], "files": [], "absent": [], "validate": [], "projects": [], "optional": [], "gone": []}
    names: set[str] = set()
    for index, given in enumerate(projects):
        where = f"docker_compose_projects[{index}]"
        project = {**SETTINGS, **plain(given)}
        name = project["name"]
        if not _NAME.fullmatch(name) or name in names:
            _wrong(f"{where}.name", f"'{name}' is taken or no name for a project", "Use small letters, digits, dashes and _, each name once.")
        names.add(name)
        place = f"{directory}/{name}"
        files = _files(where, project.get("files") or [])
        if project["state"] == "absent":
            paths = [f"{place}/{path}" for path in (DEFINITION, OVERRIDE, *files)]
            state["gone"].append({"name": name, "directory": place, "paths": paths})
            continue
        part = _part(where, name, place, project, files, dump)
        proofs = _proofs(where, name, place, project, prover)
        entry = {"name": name, "directory": place, **{key: project[key] for key in SETTINGS}}
        if project.get("required", True):
            if proofs:
                _wrong(f"{where}.proofs", "needs an engine that runs already", "Set required to false.")
            for key, entries in part.items():
                state[key] += entries
            state["projects"].append(entry)
        else:
            images = list(dict.fromkeys(str(proof["image"]) for proof in project.get("proofs") or []))
            state["optional"].append({**entry, **part, "proofs": proofs, "images": images})
    if state["directories"] or state["optional"]:
        state["directories"].insert(0, {"path": directory, "mode": "0750"})
    return state
