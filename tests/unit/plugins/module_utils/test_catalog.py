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
    "rules": [["public.items", "items_pkey", "PRIMARY KEY (id)"]],
    "unique": [["public.items", "items_name"]],
    "labels": [["public.mood", "fine"]],
}


def changed(change):
    after = copy.deepcopy(BEFORE)
    change(after["columns"]["public.items"], after)
    return compare(BEFORE, after)


@pytest.mark.parametrize(
    ("change", "verdict", "finding"),
    [
        (lambda items, all: None, "none", None),
        (lambda items, all: all["columns"].update({"public.tags": {}}), "expand", "table public.tags is new"),
        (lambda items, all: items.update(note=["text", False, False]), "expand", "column public.items.note is new"),
        (lambda items, all: items.update(note=["text", True, True]), "expand", "column public.items.note is new"),
        (lambda items, all: items.update(note=["text", True, False]), "contract", "column public.items.note is new, must not be null and has no default"),
        (lambda items, all: items.pop("name"), "contract", "column public.items.name is gone"),
        (lambda items, all: all["columns"].pop("public.items"), "contract", "table public.items is gone"),
        (lambda items, all: items.update(name=["integer", False, False]), "contract", "column public.items.name was text and is integer"),
        (lambda items, all: items.update(name=["text", True, False]), "contract", "column public.items.name must not be null any more"),
        (lambda items, all: items.update(id=["integer", False, True]), "expand", "column public.items.id may be null now"),
        (lambda items, all: items.update(id=["integer", True, False]), "contract", "column public.items.id lost its default"),
        (lambda items, all: all["rules"].append(["public.items", "short", "CHECK (length(name) < 9)"]), "contract",
         "table public.items has a new constraint short: CHECK (length(name) < 9)"),
        (lambda items, all: all["rules"].clear(), "expand", "table public.items lost its constraint items_pkey"),
        (lambda items, all: all["unique"].append(["public.items", "one_name"]), "contract", "table public.items has a new unique index one_name"),
        (lambda items, all: all["labels"].append(["public.mood", "sad"]), "expand", "type public.mood has a new value 'sad'"),
        (lambda items, all: all["labels"].clear(), "contract", "type public.mood lost its value 'fine'"),
    ],
)  # fmt: skip
def test_a_difference_and_what_it_means_for_the_code_before(change, verdict, finding):
    found, findings = changed(change)
    assert (found, findings[:1]) == (verdict, [finding] if finding else [])


def test_the_worst_is_said_first_and_decides():
    def change(items, all):
        items["added"] = ["text", False, False]
        del items["name"]

    assert changed(change) == ("contract", ["column public.items.name is gone", "column public.items.added is new"])


def test_rules_of_a_new_table_bind_nobody():
    after = copy.deepcopy(BEFORE)
    after["columns"]["public.tags"] = {"id": ["integer", True, False]}
    after["rules"].append(["public.tags", "tags_pkey", "PRIMARY KEY (id)"])
    assert compare(BEFORE, after) == ("expand", ["table public.tags is new"])
