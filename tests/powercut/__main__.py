# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts in a deploy: `python -m tests.powercut prepare`, then `cut` as often as it takes; it goes on where it was."""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import time

from ..lab.errors import LabError
from . import campaign
from .guest import Guest


def main() -> int:
    """Run one command."""
    top = argparse.ArgumentParser(prog="powercut", description="Power cuts in deploys to a QEMU guest.")
    top.add_argument("--lab", default="powercut", help="name of the lab whose host becomes the guest; two guests share the cuts of one clone")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="provision a host of the lab by site.yml and make it a guest")
    cut = commands.add_parser("cut", help="cut the power in deploys until all were done or the time is over")
    cut.add_argument("--minutes", type=float, default=600, help="begin no other cut that would end later than this")
    cut.add_argument("--seed", type=int, help="repeat the moments of an earlier campaign")
    commands.add_parser("down", help="remove the guest and its lab")
    arguments = top.parse_args()
    signal.signal(signal.SIGTERM, lambda *_given: sys.exit(143))
    guest = Guest(arguments.lab)
    try:
        if arguments.command == "prepare":
            campaign.prepare(guest)
        elif arguments.command == "cut":
            return campaign.run(guest, deadline=time.monotonic() + arguments.minutes * 60, seed=arguments.seed)
        else:
            guest.down()
    except LabError as error:
        print(f"powercut: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    assert pathlib.Path.cwd() == campaign.ROOT, "run it in the clone's directory"
    sys.exit(main())
