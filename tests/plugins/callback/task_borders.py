# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down each task and handler as it starts, and hold the run before one of them until somebody has decided on its fate."""

from __future__ import annotations

DOCUMENTATION = r"""
name: task_borders
type: notification
short_description: List tasks as they start, and wait before one
description:
  - Appends a JSON line with the task's key, its action and the time to C(tasks) in the directory of E(TASK_BORDERS), for each task and handler that starts.
  - A key is the name of the task or handler, and how often that name came before in this run, so it means the same task in the next run.
  - Before the task whose key is in E(TASK_BORDERS_STOP) it makes the file C(reached) there, and waits until there is a file C(go).
"""

import collections
import json
import os
import pathlib
import time

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Stands between two tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "task_borders"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.directory = pathlib.Path(os.environ["TASK_BORDERS"])
        self.stop = os.environ.get("TASK_BORDERS_STOP")
        self.seen = collections.Counter()

    def v2_playbook_on_task_start(self, task, is_conditional):
        """Write down a task, and wait where it is the one."""
        name = task.get_name().strip()
        key = f"{name} #{self.seen[name]}" if self.seen[name] else name
        self.seen[name] += 1
        with (self.directory / "tasks").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "action": task.action, "at": time.time()}) + "\n")
        if key != self.stop:
            return
        (self.directory / "reached").touch()
        while not (self.directory / "go").exists():
            time.sleep(0.02)

    def v2_playbook_on_handler_task_start(self, task):
        """Do the same with a handler."""
        self.v2_playbook_on_task_start(task, False)
