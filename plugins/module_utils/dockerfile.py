# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Dockerfile of a Node app that brings none: several stages, what runs without what builds, nobody is root. Pure: data in, text out.

Each line answers a mistake that Dockerfiles of such apps make: dependencies that are not those of the lock file, development packages in what
runs, Yarn's settings that are not copied before it installs, an output directory without a lock file of its own, secrets in layers, a process
that runs as root, and a package manager as the first process, which passes no signal on.
"""

from __future__ import annotations

import json
import re
import typing as t

from .encoders import dockerfile_value, shell_word
from .memory import limit_heap
from .release_plan import install_command, instances, placed, prune_command

Data = dict[str, t.Any]

#: Where the app lies in the image.
DIRECTORY = "/app"

#: What is copied before the rest of the source, so that dependencies are installed anew only where one of these files changed.
MANIFESTS = (
    "package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc", ".yarnrc.yml",
)  # fmt: skip

#: Directories of package managers' own files that an installation reads.
MANIFEST_DIRECTORIES = (".yarn", "patches", "prisma")

#: What must not reach the Engine with the source: secrets, what other builds left, what only developers need.
IGNORED = (
    ".git", ".env", ".env.*", "!.env.template", "!.env.example", "**/node_modules", "*.log", ".DS_Store",
    "Dockerfile*", "docker-compose*", "compose*.yml", "compose*.yaml", ".anchorage*",
)  # fmt: skip

CACHES = {"npm": "/root/.npm", "yarn": "/root/.yarn/berry/cache", "pnpm": "/root/.local/share/pnpm/store"}

#: What a build prints that ended well and left nothing.
NO_OUTPUT = "anchorage: the build left no output"

#: What the Engine's client says of a command that failed (an Engine before 23 in other words), and the variables that stand before its words.
PROCESS = re.compile(
    r'(?:process "/bin/sh -c (?P<command>.*)" did not complete successfully|executor failed running \[/bin/sh -c (?P<older>.*)\]): exit code: (?P<code>\d+)'
)
VARIABLE = re.compile(r"(?:NODE_EXTRA_CA_CERTS|npm_config_cafile)=")

#: Certificates of the host's own authority, for one command only: in no layer.
SECRET = "extra_ca"


def render(document: Data, *, manager: str | None, version: str, names: t.Collection[str], extra_ca: bool) -> str:
    """Return the Dockerfile.

    :arg manager: npm, yarn or pnpm; None where there is nothing to install.
    :arg version: the package manager's version, as far as it is known.
    :arg names: the names of the files beside package.json.
    :arg extra_ca: whether commands must trust an authority of the host's own.
    """
    build = document["build"]
    output = build["output"].strip("/")
    source = DIRECTORY if output in ("", ".") else f"{DIRECTORY}/{output}"
    base, patterns = document["image"]["base"], build.get("directories") or []
    lines = [f"FROM {base} AS base", f"WORKDIR {DIRECTORY}", "ENV CI=true LANG=C.UTF-8 NPM_CONFIG_UPDATE_NOTIFIER=false"]
    if manager in ("yarn", "pnpm"):
        lines += ["ENV COREPACK_ENABLE_DOWNLOAD_PROMPT=0", "RUN corepack enable"]
    lines += ["", "FROM base AS dependencies"]
    if manager:
        files = [name for name in MANIFESTS if name in names]
        lines.append(f"COPY {' '.join(files)} ./")
        lines += [f"COPY {name} ./{name}" for name in MANIFEST_DIRECTORIES if name in names]
        lines.append(_run(install_command(manager, version), manager, extra_ca))
    lines += ["", "FROM dependencies AS build", "COPY . ."]
    if build.get("command"):
        environment = dict(build.get("env") or {})
        limit_heap(environment, build.get("memory_mb"))
        lines += [f"ENV {key}={dockerfile_value(value, key)}" for key, value in sorted(environment.items())]
        lines.append(_run(build["command"], None, extra_ca))
        lines.append(f"RUN test -d {shell_word(source)} || {{ echo '{NO_OUTPUT}'; exit 1; }}")
    # What a build has left there (Next.js its cache) is nothing that runs: in its place comes what outlives releases.
    lines += [f"RUN rm -rf {path} && mkdir -p {path}" for path in (shell_word(f"{source}/{name}") for name in document["shared"])]
    lines += [f"RUN cd {shell_word(source)} && {_directories(pattern)}" for pattern in patterns if not _of_packages(pattern)]
    # A source of a strict umask would be for root alone. What runs is read by the app's user, and changed by nobody.
    clean = "rm -rf node_modules && " if manager and source == DIRECTORY else ""
    lines.append(f"RUN {clean}chmod -R a+rX,go-w {shell_word(source)}")
    if manager:
        lines += ["", "FROM dependencies AS production", _run(prune_command(manager, version), manager, extra_ca), "RUN mkdir -p node_modules"]
        lines += [f"RUN {_directories(pattern)}" for pattern in patterns if _of_packages(pattern)]
    # From the image itself, since what the stages above set is for building alone.
    lines += ["", f"FROM {base}", f"WORKDIR {DIRECTORY}", "ENV NODE_ENV=production"]
    lines.append(f"COPY --from=build {source}/ ./")
    if manager:
        lines.append(f"COPY --from=production {DIRECTORY}/node_modules ./node_modules")
    lines += ["USER 65534:65534", f"CMD {json.dumps(_first_command(document))}", ""]
    return "\n".join(lines)


class Failure(t.NamedTuple):
    """Why a build ended, as far as the Engine's client says it."""

    command: str
    code: int | None
    no_output: bool


def failure(lines: t.Sequence[str]) -> Failure | None:
    """Return which command of a Dockerfile failed; None where it was none of them."""
    found = next((match for line in reversed(lines) for match in [PROCESS.search(line)] if match), None)
    if found is None:
        return None
    words = (found["command"] or found["older"]).split()
    while words and VARIABLE.match(words[0]):
        del words[0]
    # By the command and not by what it prints: around the line that failed, the Engine shows the lines of the Dockerfile.
    return Failure(" ".join(words), int(found["code"]), NO_OUTPUT in " ".join(words))


def ignored(document: Data) -> str:
    """Return the file that says what of the source does not reach the Engine."""
    build = document["build"]
    made = [build["output"]] if build.get("command") and build["output"] not in ("", ".") else []
    return "\n".join([*IGNORED, *made, *document["shared"], ""])


def _first_command(document: Data) -> list[str]:
    """Return what a container of the image runs where nobody says what: the public process, or the first one."""
    found = instances(document, "blue", public=True) or instances(document, "blue")
    return placed(found[0].process["command"], "0.0.0.0", found[0].port) if found else ["node"]


def _run(argv: t.Sequence[str], manager: str | None, extra_ca: bool) -> str:
    """Return the line that runs a command without a shell around its words."""
    mounts, variables = [], []
    if manager:
        mounts.append(f"--mount=type=cache,target={CACHES[manager]},sharing=locked")
    if extra_ca:
        mounts.append(f"--mount=type=secret,id={SECRET}")
        variables = [f"NODE_EXTRA_CA_CERTS=/run/secrets/{SECRET}", f"npm_config_cafile=/run/secrets/{SECRET}"]
    return " ".join(["RUN", *mounts, *variables, *[shell_word(word) for word in argv]])


def _directories(pattern: str) -> str:
    """Return the command that makes directories which the app would make, in a tree that it must not write to."""
    parent, _slash, name = pattern.rpartition("/")
    return f'for d in {parent or "."}; do [ ! -d "$d" ] || mkdir -p "$d/{name}"; done'


def _of_packages(pattern: str) -> bool:
    return pattern.startswith("node_modules/")
