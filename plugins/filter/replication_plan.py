# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether database hosts may be provisioned in their order, and what a promotion has to do; the documentation stands in the files beside this one."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils import postgresql_replication as replication
from ansible_collections.anchorage.vps.plugins.module_utils.contract_spec import plain
from ansible_collections.anchorage.vps.plugins.module_utils.encoders import pgpass_line
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError


def _states(order: t.Sequence[str], hostvars: t.Any, register: str) -> dict[str, t.Any]:
    """Return how those hosts stand that answered."""
    answers = {str(name): hostvars[name].get(register) for name in order if name in hostvars}
    return {name: plain(answer["state"]) for name, answer in answers.items() if answer and answer.get("state")}


def replication_refusal(order: t.Sequence[str], hostvars: t.Any, register: str, rebuild: str = "", promoting: bool = False) -> str:
    """Return why the hosts may not be provisioned; nothing where they may."""
    return replication.refusal([str(name) for name in order], _states(order, hostvars, register), str(rebuild or ""), bool(promoting))


def replication_plan(order: t.Sequence[str], hostvars: t.Any, register: str, max_lag_mb: float = 16) -> dict[str, t.Any]:
    """Return what a promotion has to do."""
    return replication.plan([str(name) for name in order], _states(order, hostvars, register), float(max_lag_mb))


def replication_passfile(password: str, address: str, port: int = 5432) -> str:
    """Return the file from which a replica reads its password."""
    try:
        return pgpass_line(str(address), int(port), "replication", replication.ROLE, str(password))
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None


def replication_slot(name: str) -> str:
    """Return the slot that a host follows its primary by."""
    return replication.slot_name(str(name))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {function.__name__: function for function in (replication_refusal, replication_plan, replication_passfile, replication_slot)}
