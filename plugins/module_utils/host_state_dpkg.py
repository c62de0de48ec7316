# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed packages, read from dpkg's own status file."""

from __future__ import annotations

import fnmatch
import typing as t


class Package(t.NamedTuple):
    """One stanza of the status file."""

    name: str
    architecture: str
    version: str
    want: str
    status: str
    provides: tuple[str, ...]


BROKEN = frozenset({"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"})
_FIELDS = ("Package", "Architecture", "Version", "Status", "Provides")


def parse_status(text: str) -> list[Package]:
    """Return the packages of a dpkg status file; continuation lines carry nothing that is asked here."""
    packages = []
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            name, colon, value = line.partition(":")
            if colon and name in _FIELDS:
                fields[name] = value.strip()
        if "Package" not in fields or "Status" not in fields:
            continue
        want, _flag, status = (fields["Status"].split() + ["", "", ""])[:3]
        provides = tuple(part.split("(")[0].strip().partition(":")[0] for part in fields.get("Provides", "").split(",") if part.strip())
        packages.append(Package(fields["Package"], fields.get("Architecture", ""), fields.get("Version", ""), want, status, provides))
    return packages


def broken(packages: t.Iterable[Package]) -> list[str]:
    """Return the names of packages that an interrupted dpkg left half done."""
    return sorted(package.name for package in packages if package.status in BROKEN)


def _named(packages: t.Iterable[Package], name: str) -> list[Package]:
    bare, _colon, architecture = name.partition(":")
    return [package for package in packages if package.name == bare and (not architecture or package.architecture in (architecture, "all"))]


def missing(packages: t.Sequence[Package], wanted: t.Iterable[str]) -> dict[str, str | None]:
    """Return what of ``wanted`` is not installed, with the installed version where that is the wrong one.

    :arg wanted: names, or ``name=version`` where the version may hold wildcards; a name may be virtual.
    """
    installed = [package for package in packages if package.status == "installed"]
    provided = {name for package in installed for name in package.provides}
    result: dict[str, str | None] = {}
    for wish in wanted:
        name, _equals, version = wish.partition("=")
        versions = [package.version for package in _named(installed, name)]
        if version:
            if not any(fnmatch.fnmatchcase(found, version) for found in versions):
                result[wish] = versions[0] if versions else None
        elif not versions and name.partition(":")[0] not in provided:
            result[wish] = None
    return result


def present(packages: t.Iterable[Package], unwanted: t.Iterable[str]) -> dict[str, str]:
    """Return which of ``unwanted`` are installed, with their versions; what is left of a removed package does not count."""
    known = list(packages)
    gone = ("not-installed", "config-files")
    return {name: found[0].version for name in unwanted if (found := [package for package in _named(known, name) if package.status not in gone])}
