# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A timer on the host that goes back by itself when nobody confirms a release that got the traffic."""

from __future__ import annotations

from .app import App
from .errors import AnchorageError
from .layout import COMMAND

#: Seconds on top of the time that the way to the confirmation may take by its own deadlines.
GRACE = 60


class DeadMan:
    """The timer of one app."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.unit = f"anchorage-{app.name}-overdue"

    def arm(self, seconds: float) -> None:
        """Start the timer. systemd's own accuracy is a minute, hence the property.

        :raises AnchorageError: when it cannot be started; then nothing may be switched.
        """
        world = self.app.world
        world.run(["systemctl", "stop", f"{self.unit}.timer"], timeout=60)
        world.run(["systemctl", "reset-failed", f"{self.unit}.timer", f"{self.unit}.service"], timeout=60)
        done = world.run(
            [
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={self.unit}",
                f"--on-active={seconds + GRACE:.0f}",
                "--timer-property=AccuracySec=1s",
                f"--description=Go back if no release of {self.app.name} is confirmed",
                "--setenv=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                COMMAND,
                "recover",
                self.app.name,
                "--overdue",
            ],
            timeout=60,
        )
        if done.rc != 0:
            raise AnchorageError(f"The timer that goes back by itself could not be started: {done.stderr.strip()[:300]}", what="activate")

    def disarm(self) -> None:
        """Stop the timer: a release was confirmed, or the old one is back."""
        self.app.world.run(["systemctl", "stop", f"{self.unit}.timer"], timeout=60)
