# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a restore on a host and follow it; a lost connection costs one look, not the restore."""

from __future__ import annotations

import typing as t

from ansible_collections.anchorage.vps.plugins.action import release_step

#: What is no long step.
SHORT = ("start", "follow", "stop_apps", "start_apps")


class ActionModule(release_step.ActionModule):
    """Follows a restore as a step of a release is followed."""

    module_name = "anchorage.vps.data_restore"

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do the restore, or in check mode say what it would cost."""
        # Not the step of a release, but what every action does first.
        result = super(release_step.ActionModule, self).run(tmp, task_vars)
        self._vars = task_vars or {}
        args = dict(self._task.args)
        if args.get("operation") in SHORT:
            return {**result, **self._execute_module(module_name=self.module_name, module_args=args, task_vars=self._vars)}
        subject = str(args.get("app") or args.get("what") or "restore")
        try:
            answer = self._ask({**args, "operation": "start", "plan": bool(args.get("plan")) or self._task.check_mode, "owner": release_step.owner()})
            outcome = self._follow(subject, answer, {}, "The restore goes on there; to see how it ended: anchorage restore --follow")
        except release_step.StepFailed as failure:
            return {**result, **failure.result, "failed": True}
        facts = {key: outcome.get(key) for key in ("plan", "lost", "aside", "restored", "text", "seconds") if outcome.get(key) is not None}
        return {**result, "changed": bool(outcome.get("changed")), **facts}
