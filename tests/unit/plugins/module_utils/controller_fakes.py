# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller's Docker that is a shell script, with files for its memory."""

from __future__ import annotations

import os
import pathlib

#: What it is to do lies in its directory: down, no-buildx, fails (the lines it prints then), archive (what it saves), save-fails.
CLIENT = """#!/bin/sh
cd '{state}'
echo "$*" >> asked
case "$1 $2" in
  'version '*) [ ! -e down ] || {{ echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1; }}
    echo "$(cat client) $(cat platform)" ;;
  'buildx version') [ ! -e no-buildx ] || exit 1 ;;
  'buildx build' | 'build '*)
    [ "$1" = buildx ] || [ "$DOCKER_BUILDKIT" = 1 ] || exit 8
    echo x >> builds
    for word; do
      case "$word" in --tag=*) tag=${{word#--tag=}} ;; --file=*) cp "${{word#--file=}}" Dockerfile ;; esac
    done
    ls -lA "$word" > context
    sleep 0.3
    echo '#7 0.1 building'
    [ ! -e fails ] || {{ cat fails; exit 1; }}
    mkdir -p "images/$(dirname "$tag")"; cat archive > "images/$tag" ;;
  'image inspect') for word; do :; done; [ -e "images/$word" ] && wc -c < "images/$word" || {{ echo "Error: No such image: $word" >&2; exit 1; }} ;;
  'image ls') for word; do :; done; ls -t "images/$(dirname "$word")" | sed -n "s/^$(basename "$word")://p" ;;
  'image rm') rm "images/$3" ;;
  'save '*) cat "images/$2"; [ ! -e save-fails ] ;;
  *) exit 9 ;;
esac
"""


class ControllerDocker:
    """The client and what it remembers."""

    def __init__(self, directory: pathlib.Path, archive: bytes = b"an image") -> None:
        self.state, self.bin = directory / "engine", directory / "bin"
        for place in (self.state, self.bin, self.state / "images"):
            place.mkdir(parents=True)
        self.say("client", "28.2.2")
        self.say("platform", "linux/amd64")
        (self.state / "archive").write_bytes(archive)
        client = self.bin / "docker"
        client.write_text(CLIENT.format(state=self.state))
        client.chmod(0o755)

    def path(self) -> str:
        """The PATH with it before all others."""
        return f"{self.bin}:{os.environ['PATH']}"

    def say(self, name: str, text: str = "") -> None:
        """Let it behave in another way."""
        (self.state / name).write_text(text)

    def asked(self) -> list[str]:
        """The commands that it was given."""
        asked = self.state / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    def builds(self) -> int:
        """How often it built."""
        return len([line for line in self.asked() if line.startswith(("buildx build", "build "))])

    def images(self) -> set[str]:
        """The names of its images."""
        return {str(path.relative_to(self.state / "images")) for path in (self.state / "images").rglob("*") if path.is_file()}
