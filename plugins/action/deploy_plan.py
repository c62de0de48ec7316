# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the plans of all hosts, and refuse when they are not what somebody agreed to."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.anchorage.vps.plugins.module_utils import preview
from ansible_collections.anchorage.vps.plugins.module_utils.release_plan import digest

display = Display()


def plan_id(hosts: t.Mapping[str, t.Mapping[str, t.Any]]) -> str:
    """Return the id of the plans of all hosts together."""
    return digest({host: {app: found.get("id") for app, found in apps.items()} for host, apps in hosts.items()})


class ActionModule(ActionBase):
    """Runs on the controller only."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Print, and compare."""
        result = super().run(tmp, task_vars)
        del tmp
        args = self._task.args
        hosts = {host: found.get("preview") or {} for host, found in args["hosts"].items()}
        name = plan_id(hosts)
        for host, apps in hosts.items():
            if not apps:
                display.display(f"  {host}: no app, or not asked")
            for found in apps.values():
                for line in preview.lines(found):
                    colour = "red" if "STOPS:" in line or line.endswith("NOT ENOUGH") else None
                    display.display(f"  {host} {line}", color=colour)
        display.display(f"  plan {name}; to do exactly this: -e plan={name}")
        result.update(changed=False, id=name, hosts=hosts)
        if args.get("path"):
            pathlib.Path(args["path"]).expanduser().write_text(json.dumps({"plan": name, "hosts": hosts}, indent=1) + "\n", encoding="utf-8")
        if args.get("expect") and str(args["expect"]) != name:
            result["failed"] = True
            result["msg"] = (
                f"This is not the plan {args['expect']} any more: what is live, what is wanted or what is pending has changed since. "
                f"Nothing was done. Next: read the plan above, and if it is right run the same with -e plan={name}."
            )
        return result
