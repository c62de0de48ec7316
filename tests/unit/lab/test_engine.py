# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab says when the engine says no."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ansible_collections.anchorage.vps.tests.lab import engine
from ansible_collections.anchorage.vps.tests.lab.errors import LabError


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Error response from daemon: no such image\nError: failed to start containers: a\n", "Error response from daemon: no such image"),
        ("WARNING: old\nunknown flag: --x\n", "unknown flag: --x"),
        ("", "nothing was said"),
    ],
)
def test_the_line_that_says_why_is_picked(said, expected):
    assert engine.cause(said) == expected


def test_without_a_daemon_and_without_root_one_sentence_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "answers", lambda *arguments, **more: False)
    monkeypatch.setattr(engine, "is_root_debian", lambda: False)
    with pytest.raises(LabError, match=r"^No Docker daemon answers to `docker info`: start Docker"):
        engine.ensure(tmp_path / "dockerd.log")


def test_labs_make_what_they_share_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LOCK", tmp_path / "lock")
    other = f"import fcntl; fcntl.flock(open({str(engine.LOCK)!r}, 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"

    def taken() -> bool:
        return subprocess.run([sys.executable, "-c", other], capture_output=True, check=False).returncode != 0

    assert not taken()
    with engine.one_at_a_time(), engine.one_at_a_time():
        assert taken()
    assert not taken()
