# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The on-host command as a value, for the task that installs it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: engine
short_description: Build the command C(anchorage) that runs on managed hosts
description:
  - Returns the path of a file on the controller that holds the zip archive of the collection's engine. The same version of the collection gives the same bytes.
  - The file lies in Ansible's local temporary directory and goes with the run.
version_added: 0.1.0
author:
  - Anchorage maintainers (@anchorage)
options:
  _terms:
    description: Not used.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Install the command
  anchorage.vps.host_state:
    files:
      - path: /usr/local/bin/anchorage
        src: "{{ lookup('anchorage.vps.engine') }}"
        mode: "0755"
"""

RETURN = r"""
_list:
  description: One path.
  type: list
  elements: path
"""

import hashlib
import importlib.resources
import os
import tempfile
import typing as t

from ansible import constants
from ansible.plugins.lookup import LookupBase

from ansible_collections.anchorage.vps.plugins.module_utils import zipapp

PACKAGE = "ansible_collections.anchorage.vps.plugins.module_utils"

Stamps = t.Iterable[tuple[str, int, int]]


def read_member(name: str) -> bytes:
    """Return the source of one of the engine's modules."""
    return importlib.resources.files(PACKAGE).joinpath(f"{name}.py").read_bytes()


def stamps() -> list[tuple[str, int, int]]:
    """Return name, time and size of each of the engine's modules: what has not changed gives the same archive."""
    with os.scandir(os.path.dirname(zipapp.__file__)) as entries:
        return sorted((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries if entry.name.endswith(".py"))


def built_path(found: Stamps) -> str:
    """Return where a run keeps the archive of these modules."""
    return os.path.join(constants.DEFAULT_LOCAL_TMP, f"anchorage-{hashlib.sha256(repr(list(found)).encode()).hexdigest()[:16]}.pyz")


class LookupModule(LookupBase):
    """Builds the archive, once in a run: each host's worker and each task would do the same again."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        """Return the archive's path."""
        path = built_path(stamps())
        if not os.path.exists(path):
            data = zipapp.build(read_member)
            os.makedirs(constants.DEFAULT_LOCAL_TMP, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.replace(temporary, path)
        return [path]
