# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the host is asked, and when the archive is brought to it."""

from __future__ import annotations

import types

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.anchorage.vps.plugins.action.node_runtime import ActionModule


class Display:
    def __init__(self):
        self.lines = []

    def display(self, line):
        self.lines.append(line)


class Action(ActionModule):
    """The action between a host that answers from a list and a controller that has one file."""

    def __init__(self, answers, **arguments):
        self._task = types.SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False, environment=[], action="node_runtime")
        self._supports_check_mode, self._supports_async = True, False
        self._connection = types.SimpleNamespace(_shell=types.SimpleNamespace(join_path=lambda *parts: "/".join(parts), tmpdir="/tmp/x"))
        self._loader = types.SimpleNamespace(get_real_file=lambda path: path)
        self._display = Display()
        self.answers, self.asked, self.brought, self.removed = list(answers), [], [], []

    def _execute_module(self, module_name=None, module_args=None, **_options):
        self.asked.append(dict(module_args))
        return self.answers.pop(0)

    def _find_needle(self, _directory, needle):
        if needle == "absent.tgz":
            raise AnsibleError("absent")
        return f"/controller/{needle}"

    def _make_tmp_path(self, remote_user=None):
        return "/tmp/x"

    def _transfer_file(self, local_path, remote_path):
        self.brought.append((local_path, remote_path))

    def _fixup_perms2(self, remote_paths, **_options):
        pass

    def _remove_tmp_path(self, tmp_path, force=False):
        self.removed.append(tmp_path)


def test_what_is_installed_is_asked_for_once():
    action = Action([{"changed": False, "notes": []}], url="node.tgz")
    assert action.run(task_vars={})["changed"] is False
    assert len(action.asked) == 1
    assert action.brought == []


def test_an_archive_that_is_needed_is_brought_once_and_removed():
    action = Action([{"needs_archive": True}, {"changed": True}], url="node.tgz", staged="/forged")
    result = action.run(task_vars={})
    assert result["changed"] is True
    assert "needs_archive" not in result
    assert action.brought == [("/controller/node.tgz", "/tmp/x/archive")]
    assert ["staged" in arguments for arguments in action.asked] == [False, True]
    assert action.asked[1]["staged"] == "/tmp/x/archive"
    assert "/tmp/x" in action.removed


def test_an_archive_that_the_controller_lacks_is_named():
    action = Action([{"needs_archive": True}], url="absent.tgz")
    with pytest.raises(AnsibleActionFail, match="absent.tgz"):
        action.run(task_vars={})
    assert action.brought == []


def test_what_could_not_be_predicted_is_shown():
    action = Action([{"changed": True, "notes": ["not predicted: Node.js is not installed yet"]}])
    action.run(task_vars={"inventory_hostname": "web1"})
    assert action._display.lines == ["web1: not predicted: Node.js is not installed yet"]
