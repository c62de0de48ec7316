# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the diagnoses of all hosts as one text, the worst first."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

GRADES = ("red", "amber", "green")
COLOURS = {"green": "green", "amber": "yellow", "red": "red"}

display = Display()


def told(host: str, answer: t.Any) -> tuple[str, list[str]]:
    """Return grade and text of a host; one that gave no answer is red."""
    answer = answer or {}
    if answer.get("text"):
        return str(answer["grade"]), [str(line) for line in answer["text"]]
    return "red", [f"{host} gave no answer: {answer.get('msg') or 'it was not reached'}"]


def report(hosts: dict[str, t.Any]) -> list[tuple[str, str]]:
    """Return grade and line of the whole text."""
    found = [(host, *told(host, answer)) for host, answer in hosts.items()]
    lines: list[tuple[str, str]] = []
    for host, grade, text in sorted(found, key=lambda item: GRADES.index(item[1])):
        lines += [("", ""), (grade, f"{host}: {grade}"), *[("", f"  {line}" if line else "") for line in text]]
    return lines


class ActionModule(ActionBase):
    """Runs on the controller only."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Print, and write."""
        result = super().run(tmp, task_vars)
        del tmp
        hosts = self._task.args["hosts"]
        lines = report(hosts)
        for grade, line in lines:
            display.display(line, color=COLOURS.get(grade))
        display.display("")
        if self._task.args.get("path") and not self._task.check_mode:
            self._write(pathlib.Path(self._task.args["path"]).expanduser(), "".join(f"{line}\n" for _grade, line in lines))
        result["grade"] = min((told(host, answer)[0] for host, answer in hosts.items()), key=GRADES.index, default="green")
        result["changed"] = False
        return result

    @staticmethod
    def _write(path: pathlib.Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, path)
