# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package cache that all labs of this machine share: one container, one volume."""

from __future__ import annotations

import pathlib

from . import engine, images, options

PROXY = pathlib.Path(__file__).parent / "aptcache.py"


@engine.one_at_a_time()
def ensure() -> None:
    """Leave with the cache running."""
    if not engine.answers("container", "inspect", options.CACHE):
        engine.docker(
            "create", "--name", options.CACHE, *options.labels({"kind": "cache"}), "--restart=unless-stopped",
            f"--volume={options.CACHE}:/var/cache/anchorage-lab", "--entrypoint=python3",
            images.ensure(options.SUITES[0]), "-I", f"/{PROXY.name}",
        )  # fmt: skip
        engine.docker("cp", str(PROXY), f"{options.CACHE}:/{PROXY.name}")
    engine.docker("start", options.CACHE)


def remove() -> None:
    """Remove the cache and what it keeps."""
    if engine.answers("container", "inspect", options.CACHE):
        engine.docker("rm", "--force", options.CACHE)
    if engine.answers("volume", "inspect", options.CACHE):
        engine.docker("volume", "rm", options.CACHE)
