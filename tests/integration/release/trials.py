# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trials that take hours: their results are kept case by case, so the next run goes on where this one stopped."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import time
import typing as t

from .conftest import ROOT

#: What is measured. A result counts as long as nothing of it has changed.
MEASURED = ("playbooks", "plugins", "roles", "tests/apps/stub")

#: Seconds after which no further case is begun; the next run takes the rest. Without it all are run.
BUDGET = "ANCHORAGE_TRIAL_SECONDS"


def engine_digest() -> str:
    """Name the state of what is measured, by its contents: committing results, or other tests, does not change it."""
    sha = hashlib.sha256()
    for directory in MEASURED:
        for path in sorted((ROOT / directory).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                sha.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:12]


def commit() -> str:
    """Name the commit that is measured, with a plus where what is measured differs from it."""

    def git(*argv: str) -> str:
        return subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("log", "-1", "--format=%h", "--", *MEASURED) + ("+" if git("status", "--porcelain", "--", *MEASURED) else "")


class Results:
    """A file of results, one entry for each case.

    :arg path: where it is kept; each case is written as it ends.
    :arg title: what was tried, for whoever reads the file.
    """

    def __init__(self, path: pathlib.Path, title: str) -> None:
        self.path = path
        self.digest, self.commit = engine_digest(), commit()
        self.ends = time.monotonic() + float(os.environ.get(BUDGET) or "inf")
        self.data: dict[str, t.Any] = {"title": title, "cases": {}}
        if path.exists():
            self.data = {**json.loads(path.read_text(encoding="utf-8")), "title": title}

    def has_passed(self, name: str) -> bool:
        """Tell whether a case has passed with this very engine."""
        entry = self.data["cases"].get(name, {})
        return entry.get("result") == "passed" and entry.get("engine") == self.digest

    def out_of_time(self) -> bool:
        """Tell whether this run has had its time."""
        return time.monotonic() >= self.ends

    def add(self, name: str, causes: t.Sequence[str], **facts: t.Any) -> None:
        """Write down how a case ended; it passed where there is no cause to the contrary."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"result": "failed" if causes else "passed", "at": stamp, "commit": self.commit, "engine": self.digest, **facts}
        self.data["cases"][name] = {**entry, "causes": list(causes)} if causes else entry
        self.save()

    def save(self) -> None:
        """Write the file, with counts at its top."""
        cases = self.data["cases"].values()
        of_this_engine = [entry for entry in cases if entry["engine"] == self.digest]
        counts = {"cases": len(cases), "passed": sum(entry["result"] == "passed" for entry in cases), "of_the_last_engine": len(of_this_engine)}
        data = {**{key: value for key, value in self.data.items() if key != "cases"}, "counts": counts, "cases": dict(sorted(self.data["cases"].items()))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)

    def failures(self, names: t.Iterable[str]) -> list[str]:
        """Return the cases among these that failed, with their first cause."""
        found = ((name, self.data["cases"].get(name, {})) for name in names)
        return [f"{name}: {entry['causes'][0]}" for name, entry in found if entry.get("result") == "failed"]
