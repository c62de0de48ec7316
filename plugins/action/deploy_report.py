# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print one table of what a deploy has done."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

HEAD = ("host", "app", "live", "slot", "stage", "migrate", "activate", "requests", "failed", "longest")
STEPS = ("stage", "migrate", "activate")

display = Display()

Data = dict[str, t.Any]


def entry(host: str, status: Data, steps: t.Iterable[Data]) -> Data:
    """Return what a run has done for one app on one host."""
    outcomes = [outcome for result in steps if (outcome := ((result or {}).get("apps") or {}).get(status["app"], {}).get("outcome"))]
    probers = [outcome["prober"] for outcome in outcomes if outcome.get("prober")]
    seconds: Data = {}
    phases: Data = {}
    for outcome in outcomes:
        seconds["activate" if outcome["step"] == "rollback" else outcome["step"]] = outcome["seconds"]
        phases.update(outcome.get("phases") or {})
    return {
        "host": host,
        "app": status["app"],
        "live": status["live"],
        "previous": status["previous"],
        "slot": status["slot"],
        "running": status["running"],
        "changed": bool(outcomes),
        "seconds": seconds,
        "phases": phases,
        "prober": {
            "requests": sum(prober["requests"] for prober in probers),
            "failed": sum(prober["failed"] for prober in probers),
            "longest_seconds": max((prober["longest_seconds"] for prober in probers), default=0.0),
            "first_failure": next((prober["first_failure"] for prober in probers if prober["first_failure"]), None),
        },
    }


#: What is said of an app on a host that does not say it.
UNKNOWN = {"live": "unknown", "previous": None, "slot": None, "running": False}


def entries(host: str, found: Data) -> list[Data]:
    """Return what a run has done on one host. One that failed and does not answer any more is among them: what is live there is not known."""
    steps, failure = found.get("steps") or [], found.get("failure")
    known = found.get("status") or ([{"app": "-", **UNKNOWN}] if failure else [])
    return [{**entry(host, status, steps), **({"failure": failure} if failure else {})} for status in known]


def cells(found: Data) -> list[str]:
    """Return a line of the table."""
    prober = found["prober"]
    asked = [str(prober["requests"]), str(prober["failed"]), f"{prober['longest_seconds']:.2f} s"] if prober["requests"] else ["-", "-", "-"]
    times = [f"{found['seconds'][step]:.1f} s" if step in found["seconds"] else "-" for step in STEPS]
    return [found["host"], found["app"], found["live"] or "nothing", found["slot"] or "-", *times, *asked]


def lines(apps: list[Data]) -> list[tuple[str, str | None]]:
    """Return the table, each line with its colour, and below it where the time went."""
    table = [list(HEAD), *map(cells, apps)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    said: list[tuple[str, str | None]] = []
    for number, row in enumerate(table):
        bad = number > 0 and (apps[number - 1]["prober"]["failed"] or not apps[number - 1]["running"])
        said.append(("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), "red" if bad else None))
    for found in apps:
        if found["phases"]:
            said.append((f"{found['host']} {found['app']}: " + ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in found["phases"].items()), None))
        if found.get("failure"):
            said.append((f"{found['host']} {found['app']}: {found['failure']}", "red"))
        if found["prober"]["first_failure"]:
            said.append((f"{found['host']} {found['app']}: first failed request: {found['prober']['first_failure']}", "red"))
    return said


class ActionModule(ActionBase):
    """Runs on the controller only."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Print."""
        result = super().run(tmp, task_vars)
        del tmp
        args = self._task.args
        apps = [one for host, found in args["hosts"].items() for one in entries(host, found)]
        for line, colour in [] if self._task.check_mode or not apps else lines(apps):
            display.display(f"  {line}", color=colour)
        if args.get("path") and not self._task.check_mode:
            pathlib.Path(args["path"]).expanduser().write_text(json.dumps({"apps": apps}, indent=1) + "\n", encoding="utf-8")
        result.update(changed=False, apps=apps)
        return result
