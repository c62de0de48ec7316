# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print one table of health verdicts, and fail when one of them is red."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import time
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.anchorage.vps.plugins.module_utils import health_page

COLOURS = {"green": "green", "amber": "yellow", "red": "red"}
GRADES = tuple(COLOURS)

display = Display()


def rows(hosts: dict[str, t.Any]) -> list[tuple[str, str, str, str]]:
    """Return the table's lines: host, what, verdict, words."""
    found = []
    for host, verdicts in hosts.items():
        for verdict in verdicts:
            good = ", ".join(check["name"] for check in verdict["checks"]) or verdict["summary"]
            words = good if verdict["grade"] == "green" else verdict.get("message", verdict["summary"])
            found.append((str(host), str(verdict["name"]), str(verdict["grade"]), str(words)))
    return found


def replace(path: pathlib.Path, content: str) -> None:
    """Write a file so that whoever reads it meanwhile sees the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(content)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def write(directory: pathlib.Path, hosts: dict[str, t.Any], urls: list[dict[str, t.Any]], at: float) -> None:
    """Write the verdicts as JSON and as a page, and add this run to the history that both stand in."""
    directory.mkdir(parents=True, exist_ok=True)
    known = directory / "history.json"
    try:
        before = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = []
    run = health_page.run_of(hosts, at)
    runs = health_page.history(before, run)
    replace(known, json.dumps(runs, indent=1) + "\n")
    replace(directory / "verify.json", json.dumps({"at": at, "grade": run["grade"], "hosts": hosts}, indent=1, sort_keys=True) + "\n")
    replace(directory / "verify.html", health_page.page(hosts, urls=urls, runs=runs, at=at))


class ActionModule(ActionBase):
    """Runs on the controller only."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Print, and judge."""
        result = super().run(tmp, task_vars)
        del tmp
        hosts = self._task.args["hosts"]
        table = rows(hosts)
        widths = [max([len(row[column]) for row in table], default=0) for column in range(3)]
        display.display("")
        for row in table:
            display.display("  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]), color=COLOURS[row[2]])
        for app in self._task.args.get("urls") or []:
            display.display(f"  {app['name']}: {app['url']}")
            if app.get("admin"):
                secrets = f"/etc/anchorage/secrets/{app['name']}.json"
                display.display(f"  {app['name']}: admin {app['admin']['email']}, password: admin_password in {secrets} on {app['admin']['host']}")
        wanted = self._task.args.get("directory")
        if wanted and boolean(self._task.args.get("partial", False)):
            display.display(f"  {wanted} is left as it is: this run asked for a part only")
        elif wanted and not self._task.check_mode:
            directory = pathlib.Path(wanted).expanduser()
            write(directory, hosts, self._task.args.get("urls") or [], time.time())
            display.display(f"  {directory / 'verify.html'}")
        display.display("")
        red = [row for row in table if row[2] == "red"]
        result["grade"] = max((row[2] for row in table), key=GRADES.index, default="green")
        result["verdicts"] = hosts
        result["changed"] = False
        if red and not self._task.check_mode:
            result["failed"] = True
            result["msg"] = f"{len(red)} of {len(table)} checks are red: " + "; ".join(f"{host}: {words}" for host, _name, _grade, words in red)
        return result
