# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, and brings the archive from the controller only when the module says that it needs it."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

MODULE = "anchorage.vps.node_runtime"


class ActionModule(ActionBase):
    """The controller's half of node_runtime."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module once, or twice around the transfer of the archive."""
        result = super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key != "staged"}
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if answer.pop("needs_archive", False):
            answer = self._with_archive(arguments, task_vars)
        for note in answer.get("notes") or []:
            self._display.display(f"{(task_vars or {}).get('inventory_hostname', 'host')}: {note}")
        result.update(answer)
        return result

    def _with_archive(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        try:
            source = self._find_needle("files", arguments["url"])
        except AnsibleError as error:
            raise AnsibleActionFail(f"The archive {arguments['url']} is not on the controller.") from error
        temporary = self._make_tmp_path()
        try:
            staged = self._connection._shell.join_path(temporary, "archive")
            self._transfer_file(self._loader.get_real_file(source), staged)
            self._fixup_perms2((temporary, staged))
            return self._execute_module(module_name=MODULE, module_args={**arguments, "staged": staged}, task_vars=task_vars)
        finally:
            self._remove_tmp_path(temporary)
