# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plain shell script that does at once what provision.yml does: made of a provisioned host, by comparing it with a fresh one."""

from __future__ import annotations

import dataclasses
import shlex

MARKER = "/root/.bench"
#: Where roles leave files. Only what is newer than the marker is taken, so a package's own files stay out.
PLACES = (
    "/etc", "/opt", "/srv", "/usr/etc", "/usr/local", "/var/www", "/var/cache/anchorage", "/var/lib/anchorage", "/var/lib/pm2", "/var/lib/redis",
    "/var/log/pm2", "/var/log/redis",
)  # fmt: skip
#: What no package brings: taken whole, since unpacked archives keep the times of their files.
OWN = ("/opt/nodejs",)
#: What the script makes by commands (accounts, PM2), and what belongs to one host or to a running process.
LEFT_OUT = (
    "/etc/passwd*", "/etc/group*", "/etc/shadow*", "/etc/gshadow*", "/etc/subuid*", "/etc/subgid*", "/etc/machine-id", "/etc/hostname", "/etc/hosts",
    "/etc/resolv.conf", "/etc/mtab", "/etc/ld.so.cache", "/etc/ssh/ssh_host_*", "/opt/pm2/*/node_modules*", "*.sock", "*.pid", "*.log", "/var/lib/redis/*/*",
)  # fmt: skip

#: Where a package leaves what a role takes away: its default site, the unit that it enables.
SWEPT = "find /etc/nginx /etc/systemd/system -type f -o -type l"
UNITS = "systemctl list-units --type=service,timer --state=active --plain --no-legend | cut --delimiter=' ' --fields=1"
PASSING = ("systemd-", "ldconfig", "user@", "user-runtime-dir@", "apt-daily", "anchorage-confirm")

#: What is asked of a host before and after; the answers are told apart by their headings.
QUESTIONS = {
    "packages": "dpkg-query --show --showformat='${db:Status-Abbrev}${Package}\\n' | sed -n 's/^ii *//p'",
    "accounts": "getent passwd",
    "groups": "getent group",
    "units": UNITS,
    "paths": f"{SWEPT} 2>/dev/null || true",
    "releases": "ls -d /opt/pm2/*/package-lock.json 2>/dev/null || true",
}

#: Databases with their roles and rights; those of databases that every cluster has are not in the dump.
DUMP = "cd /; runuser --user postgres -- pg_dumpall; runuser --user postgres -- psql --no-psqlrc --tuples-only --no-align --quiet --command=" + shlex.quote(
    "SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC;', datname) FROM pg_database"
    " WHERE NOT EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)"
)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a host has: for each question its lines."""

    packages: tuple[str, ...]
    accounts: tuple[str, ...]
    groups: tuple[str, ...]
    units: tuple[str, ...]
    paths: tuple[str, ...]
    releases: tuple[str, ...]


def question() -> str:
    """Return the one shell script that asks everything."""
    return "\n".join(f"echo '## {name}'; {command}" for name, command in QUESTIONS.items())


def answer(text: str) -> Seen:
    """Read what that script printed."""
    found: dict[str, list[str]] = {name: [] for name in QUESTIONS}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.strip():
            found[heading].append(line.strip())
    return Seen(**{name: tuple(lines) for name, lines in found.items()})


def collect_files() -> str:
    """Return the command that writes an archive of the changed files to its output."""
    left_out = " ".join(f"-not -path {shlex.quote(pattern)}" for pattern in LEFT_OUT)
    return (
        f"{{ find {' '.join(PLACES)} -newer {MARKER} -not -type s {left_out} -print0; find {' '.join(OWN)} -print0; }} 2>/dev/null"
        " | tar --create --gzip --null --no-recursion --files-from=- --file=- 2>/dev/null"
    )


def new(before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    """Return what was not there before, in order."""
    known = set(before)
    return [line for line in after if line not in known]


def accounts(before: Seen, after: Seen) -> list[str]:
    """Return commands that make groups, accounts and memberships which packages did not make already."""
    known = {line.split(":")[0] for line in before.groups}
    names = {line.split(":")[2]: line.split(":")[0] for line in after.groups}
    commands = [f"getent group {name} >/dev/null || groupadd --system {name}" for name in (line.split(":")[0] for line in after.groups) if name not in known]
    for line in new(before.accounts, after.accounts):
        name, _password, _uid, gid, _comment, home, shell = line.split(":")
        commands.append(
            f"getent passwd {name} >/dev/null || useradd --system --no-create-home --gid {names[gid]} --home-dir {shlex.quote(home)} --shell {shell} {name}"
        )
    for line in new(before.groups, after.groups):
        group, _password, _gid, members = line.split(":")
        commands += [f"usermod --append --groups {group} {member}" for member in members.split(",") if member]
    return commands


def lists(before: Seen, after: Seen) -> dict[str, str]:
    """Return what the script compares with, by file name: all that may stay. Sorted by bytes, as comm wants it."""
    kept = {"paths.list": set(after.paths), "units.list": {*before.units, *after.units}}
    return {name: "".join(f"{line}\n" for line in sorted(lines, key=str.encode)) for name, lines in kept.items()}


def script(before: Seen, after: Seen) -> str:
    """Return the script. It expects files.tar.gz, databases.sql and the lists beside it."""
    packages = new(before.packages, after.packages)
    units = [unit for unit in new(before.units, after.units) if not unit.startswith(PASSING)]
    passing = "|".join(f"^{word}" for word in PASSING)
    lines = [
        "set -eu",
        "export DEBIAN_FRONTEND=noninteractive LC_ALL=C",
        'cd "$(dirname "$0")"',
        "apt-get update --quiet",
        f"apt-get install --quiet --yes --no-install-recommends {' '.join(packages)}",
        *accounts(before, after),
        "tar --extract --gzip --file=files.tar.gz --directory=/",
        f"{UNITS} | sort | comm -23 - units.list | grep --invert-match --extended-regexp '{passing}' | xargs --no-run-if-empty systemctl stop",
        f"{SWEPT} | sort | comm -23 - paths.list | xargs --no-run-if-empty rm",
        *[f"(cd {shlex.quote(path.rpartition('/')[0])} && npm ci --omit=dev --ignore-scripts --no-audit --no-fund)" for path in after.releases],
        "systemctl daemon-reload",
        "systemctl try-reload-or-restart ssh.service systemd-journald.service",
        f"systemctl restart {' '.join(units)}",
        "runuser --user postgres -- psql --no-psqlrc --quiet --dbname=postgres < databases.sql",
    ]
    return "\n".join(lines) + "\n"
