# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's command line: `python -m tests.lab up demo --host web1:trixie`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys

from . import cache, engine, images, options, world
from .errors import LabError
from .lab import ROOT, Lab, labels


def parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    top = argparse.ArgumentParser(prog="lab", description="Throw-away hosts: systemd, SSH and nothing else.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("ensure-engine", help="leave with a Docker daemon that answers, or say what is missing")
    image = commands.add_parser("image", help="make the host image of a release and print its name")
    image.add_argument("suite", choices=options.SUITES)
    up = commands.add_parser("up", help="bring up a lab and write .cache/lab/NAME/hosts.yml")
    up.add_argument("lab", type=lab_name)
    up.add_argument("--host", action="append", required=True, type=host, metavar="NAME[:SUITE[:GROUP,GROUP]]")
    up.add_argument("--publish", action="append", default=[], type=publication, metavar="HOST:PORT[=OUTSIDE]")
    up.add_argument("--world", action="store_true", help="add the outside world: an ACME authority, names, archives over http")
    up.add_argument("--dns", action="append", default=[], type=record, metavar="NAME=HOST", help="what the world answers; * is any name")
    up.add_argument("--user", default="root", help="who connects; anybody but root gets sudo without a password")
    up.add_argument("--with-docker", action="store_true", help="give each host a volume for a Docker of its own")
    up.add_argument("--memory-mb", type=int, help="limit each host's memory")
    for name, words in {
        "down": "remove a lab and everything it made",
        "write": "write the lab's inventory again",
        "inventory": "print the path of the lab's inventory",
    }.items():
        commands.add_parser(name, help=words).add_argument("lab", type=lab_name)
    for name, words in {
        "reboot": "restart a host in order and wait for SSH",
        "power-cut": "kill a host, start it again and wait for SSH",
        "stand-ins": "give a host a Docker with the images that no registry gives it here",
        "exec": "run a command on a host as root, past SSH",
        "ssh": "run a command on a host over SSH, or log in",
    }.items():
        command = commands.add_parser(name, help=words)
        command.add_argument("lab", type=lab_name)
        command.add_argument("host")
        if name in ("exec", "ssh"):
            command.add_argument("argv", nargs=argparse.REMAINDER)
    commands.add_parser("status", help="list all labs of this machine")
    commands.add_parser("clean", help="remove every lab of this clone, the package cache and the host images")
    return top


def lab_name(text: str) -> str:
    """Check a lab's name."""
    if not options.LAB_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: lower-case letters, digits, inner dashes and underscores, 40 at most")
    return text


def host(text: str) -> options.Host:
    """Check a host's description."""
    try:
        return options.parse_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def record(text: str) -> tuple[str, str]:
    """Check a name that the world shall answer."""
    try:
        return world.parse_record(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def publication(text: str) -> tuple[str, int, int]:
    """Read HOST:PORT[=OUTSIDE]; without OUTSIDE, or where that is taken, the lab chooses."""
    found = re.fullmatch(r"([a-z0-9-]+):([0-9]+)(?:=([0-9]+))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT[=OUTSIDE]")
    return found[1], int(found[2]), int(found[3] or 0)


def wanted(arguments: argparse.Namespace) -> list[options.Host]:
    """Put the hosts together from the command line."""
    names = {one.name for one in arguments.host}
    for name, target in arguments.dns:
        if target not in names:
            raise LabError(f"--dns {name}={target}: the lab has no host {target}.")
    hosts = [
        dataclasses.replace(
            one,
            user=arguments.user,
            docker=arguments.with_docker,
            memory_mb=arguments.memory_mb,
            ports=dict.fromkeys(options.BASE_PORTS, 0) | {inside: outside for name, inside, outside in arguments.publish if name == one.name},
        )
        for one in arguments.host
    ]
    if arguments.world:
        hosts.append(options.Host(world.NAME, kind="world", dns=tuple(arguments.dns)))
    return hosts


def containers(label: str) -> list[dict]:
    """Return the engine's records of all containers with one of our labels."""
    names = engine.docker("ps", "--all", f"--filter=label=anchorage.{label}", "--format={{.Names}}").split()
    return engine.inspect("container", *sorted(names))


def status() -> None:
    """Print every container of every lab."""
    for record in containers("kind"):
        own = labels(record)
        state = "up" if record["State"]["Running"] else "stopped"
        print(f"{own.get('lab', '-'):<20} {own['kind']:<6} {own.get('host', '-'):<16} {own.get('suite', '-'):<9} {state}")


def clean() -> None:
    """Remove every lab of this clone; with the last lab of the machine go the package cache and the images too."""
    for lab in sorted({labels(record)["lab"] for record in containers("lab") if labels(record)["root"] == str(ROOT)}):
        Lab(lab).down()
    if containers("lab"):
        images.say("another clone's labs still use the package cache and the images: both stay")
        return
    cache.remove()
    made = engine.docker("images", "--filter=reference=anchorage-lab-*", "--format={{.Repository}}:{{.Tag}}").split()
    if made:
        engine.docker("rmi", "--force", *made)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one command."""
    command = arguments.command
    engine.ensure()
    lab = Lab(arguments.lab) if "lab" in arguments else None
    if command == "image":
        print(images.ensure(arguments.suite))
    elif command == "up":
        lab.up(wanted(arguments))
        print(lab.directory / "hosts.yml")
    elif command == "down":
        lab.down()
    elif command == "write":
        lab.write()
    elif command == "inventory":
        print(lab.directory / "hosts.yml")
    elif command in ("reboot", "power-cut"):
        lab.restart(arguments.host, power_cut=command == "power-cut")
    elif command == "stand-ins":
        images.give(options.container(lab.name, arguments.host))
    elif command == "exec":
        os.execvp("docker", ["docker", "exec", "-i", options.container(lab.name, arguments.host), *arguments.argv])
    elif command == "ssh":
        one = next((host for host in lab.hosts() if host["name"] == arguments.host), None)
        if one is None:
            raise LabError(f"Lab {lab.name} has no running host {arguments.host}.")
        os.execvp("ssh", lab.ssh(one, *arguments.argv))
    elif command == "status":
        status()
    elif command == "clean":
        clean()
    return 0


def main() -> int:
    """Run one command; a failure is one sentence and exit code 1."""
    try:
        return run(parser().parse_args())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
