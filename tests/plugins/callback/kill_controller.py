# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill ansible-playbook with SIGKILL when the task or handler that KILL_CONTROLLER_AT names would start."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kill_controller
type: notification
short_description: Kill the controller at a task
description:
  - Kills the running C(ansible-playbook) with SIGKILL before the task or handler whose name contains E(KILL_CONTROLLER_AT) is given to a worker.
"""

import os
import signal

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Stands for a power cut of the laptop."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "kill_controller"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task, is_conditional):
        """Kill at a task."""
        if os.environ["KILL_CONTROLLER_AT"] in task.get_name():
            os.kill(os.getpid(), signal.SIGKILL)

    def v2_playbook_on_handler_task_start(self, task):
        """Kill at a handler."""
        self.v2_playbook_on_task_start(task, False)
