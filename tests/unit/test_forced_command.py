# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a keeper of backups is told to run for a host that may be in somebody else's hands: whatever that asks for, it only adds, and only there."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACES = ["roles/backup/README.md", "roles/backup/tasks/configure.yml"]


def forced(path):
    """Return the forced command of a guide, as sshd gives it to the shell."""
    (found,) = re.findall(r'restrict,command="((?:[^"\\]|\\.)*)"', (ROOT / path).read_text(encoding="utf-8"))
    return found.replace('\\"', '"')


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("rclone serve restic --stdio files", "at-files"),
        ("rclone serve restic --stdio a/files-3f2a9c51", "at-files-3f2a9c51"),
        ("x/../../etc", "at-etc"),
        ("x/..", "at-.."),
        ("x/y\t--append-only=false", "at-y\t--append-only=false"),
        ("x/y\n--append-only=false", "at-y\n--append-only=false"),
        ("x/*", "at-*"),
        ("$(reboot)`reboot`;reboot", "at-$(reboot)`reboot`;reboot"),
        ('"; reboot; "', 'at-"'),
    ],
)
def test_whatever_is_asked_for_is_one_name_below_the_place_and_no_option(path, asked, name):
    script = f"rclone() {{ printf '%s\\0' \"$@\"; }}; {forced(path)}"
    done = subprocess.run(["/bin/sh", "-c", script], env={"SSH_ORIGINAL_COMMAND": asked, "PATH": "/nowhere"}, capture_output=True, text=True, check=True)
    *options, place = done.stdout.rstrip("\0").split("\0")
    assert options == ["serve", "restic", "--stdio", "--append-only"]
    assert place.rpartition("/")[2] == name and ".." not in place.split("/")
