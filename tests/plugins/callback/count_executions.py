# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count what goes over SSH: one line for each remote execution and each file sent, into the file that COUNT_EXECUTIONS names."""

from __future__ import annotations

DOCUMENTATION = r"""
name: count_executions
type: notification
short_description: Count remote executions
description:
  - Appends C(exec <host>) or C(put <host>) to the file in E(COUNT_EXECUTIONS), for every command and every file that the ssh connection sends.
"""

import functools
import os

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import connection_loader

METHODS = {"exec_command": "exec", "put_file": "put"}


def counted(method, word, path):
    """Return a connection's method that writes down each call; workers are forks, and short appends do not mix."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{word} {self.host}\n")
        return method(self, *args, **kwargs)

    return call


class CallbackModule(CallbackBase):
    """Wraps the connection's class before the first worker is forked."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "count_executions"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook):
        """Begin to count."""
        path = os.environ["COUNT_EXECUTIONS"]
        connection = connection_loader.get("ssh", class_only=True)
        for name, word in METHODS.items():
            setattr(connection, name, counted(getattr(connection, name), word, path))
