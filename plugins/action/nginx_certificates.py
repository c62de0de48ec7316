# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of nginx_certificates: read the pairs that are given as files, vaulted ones too."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Hands PEM texts to the module in place of the paths of files on the controller."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["sites"] = [self._with_texts(dict(site)) for site in arguments.get("sites") or []]
        return self._execute_module(module_args=arguments, task_vars=task_vars)

    def _with_texts(self, site: dict[str, t.Any]) -> dict[str, t.Any]:
        for part in ("certificate", "key"):
            value = site.get(part)
            if value and "-----BEGIN " not in value:
                site[part] = self._read(value, f"nginx_sites[{site.get('site')}].tls.{part}")
        return site

    def _read(self, path: str, key: str) -> str:
        try:
            real = self._loader.get_real_file(self._find_needle("files", path), decrypt=True)
            with open(real, encoding="ascii") as stream:
                return stream.read()
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            raise AnsibleActionFail(f"{key} names {path}, which cannot be read on the controller: {error}") from error
