# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.catalog import compare

ITEMS = {"id": ["integer", True, True], "name": ["text", False, False]}
BEFORE = {
    "columns": {"public.items": ITEMS},
    "rules": [["public.items", "items_pkey", "PRIMARY KEY (id)"], ["public.items", "items_check", "CHECK (id > 0)"]],
    "unique": [["public.items", "items_name", "(name)"]],
    "labels": [["public.mood", "fine"]],
}


def changed(change):
    after = copy.deepcopy(BEFORE)
    change(after["columns"]["public.items"], after)
    return compare(BEFORE, after)


@pytest.mark.parametrize(
    ("change", "verdict", "finding"),
    [
        (lambda items, now: None, "none", None),
        (lambda items, now: now["columns"].update({"public.tags": {}}), "expand", "table public.tags is new"),
        (lambda items, now: items.update(note=["text", False, False]), "expand", "column public.items.note is new"),
        (lambda items, now: items.update(note=["text", True, True]), "expand", "column public.items.note is new"),
        (lambda items, now: items.update(note=["text", True, False]), "contract", "column public.items.note is new, must not be null and has no default"),
        (lambda items, now: items.pop("name"), "contract", "column public.items.name is gone"),
        (lambda items, now: now["columns"].pop("public.items"), "contract", "table public.items is gone"),
        (lambda items, now: items.update(name=["integer", False, False]), "contract", "column public.items.name was text and is integer"),
        (lambda items, now: items.update(name=["text", True, False]), "contract", "column public.items.name must not be null any more"),
        (lambda items, now: items.update(id=["integer", False, True]), "expand", "column public.items.id may be null now"),
        (lambda items, now: items.update(id=["integer", True, False]), "contract", "column public.items.id lost its default"),
        (
            lambda items, now: now["rules"].append(["public.items", "short", "CHECK (length(name) < 9)"]),
            "contract",
            "table public.items has a new constraint short: CHECK (length(name) < 9)",
        ),
        (lambda items, now: now["rules"].clear(), "contract", "table public.items lost its constraint items_pkey"),
        (lambda items, now: now["rules"].pop(1), "expand", "table public.items lost its constraint items_check"),
        (lambda items, now: now["unique"].clear(), "contract", "table public.items lost its unique index items_name"),
        (
            lambda items, now: now["unique"][0].__setitem__(2, "(lower(name))"),
            "contract",
            "table public.items has a new unique index items_name: (lower(name))",
        ),
        (
            lambda items, now: now["unique"].append(["public.items", "one_name", "(name)"]),
            "contract",
            "table public.items has a new unique index one_name: (name)",
        ),
        (lambda items, now: now["labels"].append(["public.mood", "sad"]), "expand", "type public.mood has a new value 'sad'"),
        (lambda items, now: now["labels"].clear(), "contract", "type public.mood lost its value 'fine'"),
    ],
)
def test_a_difference_and_what_it_means_for_the_code_before(change, verdict, finding):
    found, findings = changed(change)
    assert (found, findings[:1]) == (verdict, [finding] if finding else [])


def test_the_worst_is_said_first_and_decides():
    def change(items, now):
        items["added"] = ["text", False, False]
        del items["name"]

    assert changed(change) == ("contract", ["column public.items.name is gone", "column public.items.added is new"])


def test_rules_of_a_new_table_bind_nobody():
    after = copy.deepcopy(BEFORE)
    after["columns"]["public.tags"] = {"id": ["integer", True, False]}
    after["rules"].append(["public.tags", "tags_pkey", "PRIMARY KEY (id)"])
    assert compare(BEFORE, after) == ("expand", ["table public.tags is new"])
