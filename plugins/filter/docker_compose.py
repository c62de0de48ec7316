# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role docker_compose."""

from __future__ import annotations

import functools
import typing as t

import yaml
from ansible.errors import AnsibleFilterError

from ..module_utils.docker_compose import credentials, model
from ..module_utils.errors import AnchorageError

dump = functools.partial(yaml.safe_dump, sort_keys=False, default_flow_style=False, allow_unicode=True, width=160)


def docker_compose_model(projects: t.Any, *, directory: str, prover: str) -> dict[str, list[t.Any]]:
    """Resolve projects for host_state."""
    try:
        return model(projects, directory=directory, prover=prover, dump=dump)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


def docker_credentials(registries: t.Any) -> dict[str, t.Any]:
    """Return what Docker keeps of its registries."""
    try:
        return credentials(registries)
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


class FilterModule:
    """Filters that turn people's input into what the role needs."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"docker_compose_model": docker_compose_model, "docker_credentials": docker_credentials}
