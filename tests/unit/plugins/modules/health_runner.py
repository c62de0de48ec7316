# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module in this process, as Ansible would, and return what it printed."""

from __future__ import annotations

import contextlib
import io
import json
import typing as t

from ansible.module_utils.testing import patch_module_args


def run_module(module: t.Any, *, check_mode: bool = False, **params: t.Any) -> tuple[int, dict[str, t.Any]]:
    """Return exit code and result of a module's main."""
    stdout, code = io.StringIO(), None
    with patch_module_args({**params, "_ansible_check_mode": check_mode}), contextlib.redirect_stdout(stdout):
        try:
            module.main()
        except SystemExit as stop:
            code = stop.code
    return int(code or 0), json.loads(stdout.getvalue())
