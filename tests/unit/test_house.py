# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the house that no linter knows: every role looks like every other, and every new one has to."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path.parents[1] for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
MAX_TASK_LINES = 90


def load(path: pathlib.Path):
    return yaml.safe_load(path.read_text()) if path.exists() else None


def tasks_of(role: pathlib.Path) -> dict[pathlib.Path, list]:
    return {path: load(path) or [] for path in sorted(role.glob("tasks/*.yml"))}


@pytest.fixture(params=ROLES, ids=[path.name for path in ROLES])
def role(request):
    return request.param


def test_defaults_are_the_options_of_the_spec_in_its_order(role):
    entries = load(role / "meta" / "argument_specs.yml")["argument_specs"].values()
    options = {name: option for entry in entries for name, option in (entry.get("options") or {}).items() if name.startswith(f"{role.name}_")}
    optional = {name: option["default"] for name, option in options.items() if "default" in option}
    given = load(role / "defaults" / "main.yml") or {}
    assert given == optional
    assert list(given) == list(optional)


def test_every_public_variable_carries_the_name_of_its_role(role):
    names = [*(load(role / "defaults" / "main.yml") or {}), *(load(role / "vars" / "main.yml") or {})]
    assert [name for name in names if not re.match(rf"(__)?{role.name}_", name)] == []


def test_constants_are_internal(role):
    assert [name for name in load(role / "vars" / "main.yml") or {} if not name.startswith("__")] == []


def test_main_is_a_table_of_contents(role):
    contents = load(role / "tasks" / "main.yml") or []
    surplus = [task for task in contents if not ({"ansible.builtin.import_tasks", "ansible.builtin.include_tasks", "ansible.builtin.fail"} & set(task))]
    assert surplus == []


def test_a_task_file_can_be_read_at_once(role):
    assert [str(path) for path in role.glob("tasks/*.yml") if len(path.read_text().splitlines()) > MAX_TASK_LINES] == []


def test_no_role_reaches_for_another_or_for_a_group(role):
    text = "\n".join(path.read_text() for path in role.rglob("*") if path.suffix in (".yml", ".j2"))
    assert not re.search(r"(include|import)_role:", text)
    assert not re.search(r"\bgroups\[|\bgroup_names\b|\bhostvars\[", text)


def test_an_entry_point_is_named_without_its_suffix(role):
    assert not re.search(r"tasks_from:.*\.ya?ml", "\n".join(path.read_text() for path in ROOT.glob("playbooks/*.yml")))


def test_facts_are_read_from_their_dictionary(role):
    facts = re.compile(r"(?<![\w'\".])ansible_(distribution|os_family|memtotal_mb|processor|default_ipv4|hostname|fqdn|architecture|date_time)\w*\b")
    assert [str(path) for path in role.rglob("*") if path.suffix in (".yml", ".j2") and facts.search(path.read_text())] == []


def test_the_readme_has_room_for_the_generated_table(role):
    text = (role / "README.md").read_text()
    assert "<!-- spec:start -->" in text
    assert "<!-- spec:end -->" in text


def test_the_role_is_proven_on_real_hosts(role):
    scenario = "default" if role.name == "release" else role.name
    assert (ROOT / "molecule" / scenario / "verify.yml").is_file()


def test_provisioning_brings_what_the_release_needs_in_the_one_transaction():
    wiring = load(ROOT / "playbooks" / "group_vars" / "all" / "wiring.yml")
    assert wiring["anchorage_release_packages"] == load(ROOT / "roles" / "release" / "vars" / "main.yml")["__release_packages"]
