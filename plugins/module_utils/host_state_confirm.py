# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dead man's switch: risky files go back by themselves unless a new connection confirms that the host can be reached.

Before such a file is installed, what it replaces is kept and a timer is armed that puts it back. The same service also
runs at boot, so that a power cut inside the window ends with the old files too.
"""

from __future__ import annotations

import json
import os
import shutil
import typing as t

from .encoders import shell_command, shell_word
from .errors import AnchorageError
from .world import World, fsync_directory

_BASE = "/var/lib/anchorage/confirm"
_UNITS = "/etc/systemd/system"


def directory(name: str) -> str:
    """Return where the way back is kept."""
    return f"{_BASE}/{name}"


def unit(name: str) -> str:
    """Return the unit's name without its type."""
    return f"anchorage-confirm-{name}"


def restore_script(name: str, kept: t.Mapping[str, str | None], undo: t.Sequence[t.Sequence[str]]) -> str:
    """Return the shell script that goes back; it needs neither Python nor a controller.

    :arg kept: path to the name of its copy; None where there was nothing before.
    :arg undo: commands that make services load what was put back; the failure of one does not stop the next.
    """
    home = shell_word(directory(name))
    lines = ["#!/bin/sh", "# Made by anchorage.vps.host_state; puts back what no new connection has confirmed.", f"cd {home} || exit 1"]
    for path, copy in sorted(kept.items()):
        quoted = shell_word(path)
        if copy is None:
            lines.append(f"rm -rf -- {quoted}")
        else:
            beside = shell_word(f"{path}.anchorage-back")
            lines.append(f"rm -rf -- {beside}; cp -a -- {shell_word(copy)} {beside} && mv -fT -- {beside} {quoted}")
    installed = f"{_UNITS}/multi-user.target.wants/{unit(name)}.service {_UNITS}/{unit(name)}.service"
    # Whole-disk syncs take long on a busy host; reach it again first.
    lines += [f"rm -f {installed}", "systemctl daemon-reload"]
    lines += [shell_command(command) for command in undo]
    lines += ["sync", "mv -f pending restored", "exit 0"]
    return "\n".join(lines) + "\n"


def unit_text(name: str) -> str:
    """Return the service that the timer starts, and the boot where the timer was lost."""
    return (
        "# Made by anchorage.vps.host_state; removed as soon as a new connection has confirmed.\n"
        "[Unit]\n"
        f"Description=Put back what no new connection has confirmed ({name})\n"
        "After=nftables.service ssh.service\n"
        f"ConditionPathExists={directory(name)}/pending\n\n"
        "[Service]\n"
        "Type=oneshot\n"
        f"ExecStart=/bin/sh {directory(name)}/restore\n\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def state(name: str, world: World) -> str | None:
    """Return ``pending``, ``restored`` or None."""
    for word in ("pending", "restored"):
        if world.exists(f"{directory(name)}/{word}"):
            return word
    return None


def _checked(world: World, *argv: str) -> None:
    done = world.run(argv, timeout=60)
    if done.rc != 0:
        raise AnchorageError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()}", what="arming the timer that puts risky files back")


def _flush(copy: str) -> None:
    """Make a kept copy survive a power cut."""
    if os.path.islink(copy) or not os.path.isfile(copy):
        return
    with open(copy, "rb") as stream:
        os.fsync(stream.fileno())


def arm(confirm: t.Mapping[str, t.Any], paths: t.Sequence[str], world: World) -> None:
    """Keep what lies at ``paths`` and start the timer. A window that is still open keeps its older way back and is widened."""
    name = confirm["name"]
    home = directory(name)
    kept: dict[str, str | None] = {}
    if state(name, world) == "pending":
        kept = json.loads(world.read(f"{home}/kept.json") or b"{}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    os.makedirs(home, mode=0o700, exist_ok=True)
    for path in sorted(set(paths) - set(kept)):
        kept[path] = f"./{len(kept)}" if os.path.lexists(path) else None
        if kept[path]:
            _checked(world, "cp", "-a", "--", path, f"{home}/{kept[path]}")
            _flush(f"{home}/{kept[path]}")
    world.write_atomic(f"{home}/kept.json", json.dumps(kept).encode(), mode=0o600)
    world.write_atomic(f"{home}/restore", restore_script(name, kept, confirm["undo"]).encode(), mode=0o700)
    world.write_atomic(f"{_UNITS}/{unit(name)}.service", unit_text(name).encode(), mode=0o644)
    wants = f"{_UNITS}/multi-user.target.wants"
    os.makedirs(wants, exist_ok=True)
    _checked(world, "ln", "-sfn", f"{_UNITS}/{unit(name)}.service", f"{wants}/{unit(name)}.service")
    world.write_atomic(f"{home}/pending", b"", mode=0o600)
    for parent in (wants, home, os.path.dirname(home)):
        fsync_directory(parent)
    _checked(world, "systemctl", "daemon-reload")
    world.run(["systemctl", "stop", f"{unit(name)}.timer"], timeout=60)
    world.run(["systemctl", "reset-failed", f"{unit(name)}.timer", f"{unit(name)}.service"], timeout=60)
    _checked(
        world,
        "systemd-run",
        "--quiet",
        f"--unit={unit(name)}.service",
        f"--on-active={confirm['seconds']}",
        "--timer-property=AccuracySec=1s",
    )


def go_back(name: str, world: World) -> None:
    """Put everything back now instead of waiting for the timer."""
    world.run(["systemctl", "stop", f"{unit(name)}.timer"], timeout=60)
    _checked(world, "systemctl", "start", f"{unit(name)}.service")


def disarm(name: str, world: World) -> None:
    """Forget the way back: what is live stays."""
    world.run(["systemctl", "stop", f"{unit(name)}.timer"], timeout=60)
    home = directory(name)
    if not world.exists(f"{home}/pending"):
        raise AnchorageError(
            f"the window of {name} had already ended, and the previous files are back",
            live="what was there before this run",
            next_step="look at why the host could not be reached anew, then run it again",
        )
    os.unlink(f"{home}/pending")
    fsync_directory(home)
    for path in (f"{_UNITS}/multi-user.target.wants/{unit(name)}.service", f"{_UNITS}/{unit(name)}.service"):
        if os.path.lexists(path):
            os.unlink(path)
    world.run(["systemctl", "daemon-reload"], timeout=60)
    shutil.rmtree(home, ignore_errors=True)
