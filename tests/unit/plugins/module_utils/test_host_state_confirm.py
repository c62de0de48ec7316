# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import host_state_confirm as confirm
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World


class RecordingWorld(World):
    """Writes for real, but lets no command of systemd run."""

    def __init__(self):
        self.commands = []

    def run(self, argv, **options):
        if argv[0] in ("systemctl", "systemd-run"):
            self.commands.append(list(argv))
            return Completed(0, "", "")
        return super().run(argv, **options)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(confirm, "_BASE", str(tmp_path / "confirm"))
    monkeypatch.setattr(confirm, "_UNITS", str(tmp_path / "units"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "units").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("systemctl", "nft"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\nexit 1\n')
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def document(seconds=120):
    return {"name": "base", "undo": [["nft", "-f", "/etc/x y.nft"]], "seconds": seconds}


def go_back(place):
    environment = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", str(place / "confirm/base/restore")], env=environment, check=True)


def test_the_script_puts_back_what_was_and_removes_what_was_not(place):
    changed, new = place / "etc/it's $HOME", place / "etc/new"
    changed.write_text("old")
    changed.chmod(0o640)
    confirm.arm(document(), [str(changed), str(new)], RecordingWorld())
    changed.write_text("bad")
    changed.chmod(0o600)
    new.write_text("bad")
    go_back(place)
    assert (changed.read_text(), changed.stat().st_mode & 0o777, new.exists()) == ("old", 0o640, False)
    assert (place / "calls").read_text().splitlines() == ["systemctl daemon-reload", "nft -f /etc/x y.nft"]
    assert confirm.state("base", World()) == "restored"


def test_the_timer_is_exact_and_the_boot_has_the_same_service(place):
    world = RecordingWorld()
    confirm.arm(document(90), [str(place / "etc/x")], world)
    started = [command for command in world.commands if command[0] == "systemd-run"]
    expected = ["systemd-run", "--quiet", "--unit=anchorage-confirm-base.service", "--on-active=90", "--timer-property=AccuracySec=1s"]
    assert started == [expected]
    assert os.path.exists(place / "units/multi-user.target.wants/anchorage-confirm-base.service")


def test_a_second_change_in_an_open_window_keeps_the_oldest_way_back(place):
    first, second = place / "etc/first", place / "etc/second"
    first.write_text("old")
    second.write_text("old")
    confirm.arm(document(), [str(first)], RecordingWorld())
    first.write_text("unconfirmed")
    confirm.arm(document(), [str(first), str(second)], RecordingWorld())
    second.write_text("unconfirmed")
    go_back(place)
    assert (first.read_text(), second.read_text()) == ("old", "old")


def test_confirming_forgets_the_way_back(place):
    confirm.arm(document(), [str(place / "etc/x")], RecordingWorld())
    confirm.disarm("base", RecordingWorld())
    assert not os.path.exists(place / "confirm/base")
    assert os.listdir(place / "units/multi-user.target.wants") == []
    assert not os.path.exists(place / "units/anchorage-confirm-base.service")


def test_confirming_too_late_is_an_error(place):
    confirm.arm(document(), [str(place / "etc/x")], RecordingWorld())
    go_back(place)
    with pytest.raises(AnchorageError) as raised:
        confirm.disarm("base", RecordingWorld())
    assert "the previous files are back" in raised.value.message
