# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New releases of one small app: by deploy.yml with proof and gate, and by hand with what no way of deploying can do without."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time

import yaml

from .host import HERE, ROOT, Bench, Ended

APP = "bench"
STUB = ROOT / "tests" / "apps" / "stub"

#: A lock file, so that there are dependencies to be found again, although none has to be fetched.
LOCK = {"name": "stub", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": {"": {"name": "stub", "version": "1.0.0"}}}

#: What one ssh does by hand: links, the switch, and the reload that a plain deployment makes.
BY_HAND = "ln -sfn /srv/by-hand/{number} /srv/by-hand/current && touch /srv/by-hand/switch && nginx -s reload"


class Source:
    """The stub in a directory of its own, whose code changes from release to release while its lock file stays."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="anchorage-bench-"))
        self.tree = self.place / "stub"
        self.number = 0

    def __enter__(self) -> Source:
        shutil.copytree(STUB, self.tree)
        (self.tree / "package-lock.json").write_text(json.dumps(LOCK, indent=1) + "\n")
        contract = yaml.safe_load((HERE / "contract.yml").read_text())["all"]["vars"]["apps"]
        contract[APP] |= {"source": {"path": str(self.tree)}, "build": {}}
        (self.place / "apps.json").write_text(json.dumps({"apps": contract}))
        self.bench.ssh("apt-get update -q && apt-get install -qy rsync && mkdir -p /srv/by-hand")
        self.change()
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self.place)

    def change(self) -> None:
        """Change the code."""
        self.number += 1
        (self.tree / "switches.json").write_text(json.dumps({"version": f"{self.number} {time.time_ns()}"}))

    def deploy(self) -> Ended:
        """Release it by deploy.yml."""
        return self.bench.play(ROOT / "playbooks" / "deploy.yml", "--extra-vars", f"@{self.place / 'apps.json'}")

    def by_hand(self) -> float:
        """Release it by rsync and one ssh, without any proof; return the seconds."""
        host = self.bench.lab.hosts()[0]
        *login, address = self.bench.lab.ssh(host)
        commands = (
            ["rsync", "--archive", "--delete", f"--rsh={shlex.join(login)}", f"{self.tree}/", f"{address}:/srv/by-hand/{self.number}/"],
            [*login, address, BY_HAND.format(number=self.number)],
        )
        began = time.monotonic()
        for argv in commands:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"bench: {argv[0]} by hand ended with {done.returncode}: {done.stderr[-1000:]}")
        return round(time.monotonic() - began, 2)


def phases(output: str) -> dict[str, float]:
    """Return the seconds that a deployment says of its steps, and of the dependencies among them.

    A release whose lock file was seen before must not install anything.
    """
    already = re.search(r"dependencies [0-9a-f]+ are here already \(([0-9.]+) s\)", output)
    if not already:
        raise SystemExit("bench: a release of code alone installed dependencies")
    found = {"dependencies": float(already.group(1))}
    found.update({step: float(seconds) for step, seconds in re.findall(r"\b(stage|migrate|activate) done in ([0-9.]+) s", output)})
    return found


def median(seen: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each step."""
    return {name: round(statistics.median(entry[name] for entry in seen), 2) for name in seen[0]}
