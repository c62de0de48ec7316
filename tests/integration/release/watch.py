# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others can see of processes while something runs: on a host, and on this machine."""

from __future__ import annotations

import contextlib
import pathlib
import shlex
import threading
import time
import typing as t

from ansible_collections.anchorage.vps.tests.canary import SAMPLER, environments

SAMPLES = "/root/samples"
UNIT = "watch-processes.service"
UNITS = "'anchorage-*' 'pm2-*' 'redis-*' 'docker*'"


class Controller(threading.Thread):
    """Reads the command lines of this machine until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop, self.lines = threading.Event(), set()

    def run(self) -> None:
        """Read."""
        while not self.stop.wait(0.02):
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.lines.add(path.read_bytes())

    @property
    def text(self) -> str:
        """What was seen."""
        return b"\n".join(sorted(self.lines)).replace(b"\0", b"\n").decode(errors="replace")


class Watch:
    """Watches processes from its beginning to its end; then C(texts) holds what was seen, by where.

    :arg host: a host of the lab.
    """

    def __init__(self, host: t.Any) -> None:
        self.host, self.controller, self.texts = host, Controller(), {}

    def __enter__(self) -> Watch:
        self.host.shell(f"systemctl stop {UNIT} 2>/dev/null || true; rm -rf {SAMPLES}")
        self.host.shell(f"systemd-run --collect --quiet --unit={UNIT} python3 -c {shlex.quote(SAMPLER)} {SAMPLES} {UNITS}")
        end = time.monotonic() + 30
        while not self.host.shell(f"ls {SAMPLES}/ready 2>/dev/null || true"):
            assert time.monotonic() < end, "the sampler does not start"
            time.sleep(0.1)
        self.controller.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.controller.stop.set()
        self.controller.join()
        self.host.shell(f"systemctl stop {UNIT}")
        seen = {kind: self.host.shell(f"cat {SAMPLES}/{kind}") for kind in ("commands", "environments", "units")}
        owners = environments(seen["environments"])
        spared = {0, int(self.host.shell("id -u alpha").strip())}
        self.texts = {
            "command lines": seen["commands"],
            "what systemd tells everybody": seen["units"],
            "command lines of the controller": self.controller.text,
            # Of root and of the app itself, environments may hold secrets.
            **{f"the environment of processes of uid {owner}": text for owner, text in owners.items() if owner not in spared},
        }
        self.host.shell(f"rm -r {SAMPLES}")
        assert spared <= {*owners} and len(seen["commands"]) > 1000, "the sampler saw root and the app"
