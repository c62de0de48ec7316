# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the READMEs say what the specs say."""

from __future__ import annotations

from ansible_collections.anchorage.vps.tests.tools import docs

SPEC = {
    "main": {
        "short_description": "A cache",
        "description": ["Runs C(redis)."],
        "options": {
            "cache_ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "description": ["Ports; see O(cache_ports.number)."],
                "options": {"number": {"type": "int", "required": True, "description": "One of V(1) | V(2)."}},
            },
            "cache_mode": {"choices": ["a", "b"], "description": "Mode."},
        },
    }
}


def test_every_option_has_a_row_with_type_default_and_meaning():
    table = docs.role_tables(SPEC)
    assert "| `cache_ports` | list of dict | `[]` | Ports; see `cache_ports.number`. |" in table
    assert "| `cache_ports.number` | int | required | One of `1` \\| `2`. |" in table
    assert "| `cache_mode` | str |  | Mode. One of `a`, `b`. |" in table
    assert "- Runs `redis`." in table


def test_only_what_is_between_the_markers_changes():
    page = "before\n<!-- spec:start -->\nold\n<!-- spec:end -->\nafter\n"
    once = docs.put(page, "spec", "new")
    assert once == "before\n<!-- spec:start -->\n\nnew\n\n<!-- spec:end -->\nafter\n"
    assert docs.put(once, "spec", "new") == once
    assert docs.put(page, "roles", "new") == page


def test_a_stale_page_is_named_and_not_touched_by_the_check(tmp_path, monkeypatch, capsys):
    role = tmp_path / "roles" / "cache"
    (role / "meta").mkdir(parents=True)
    (role / "meta" / "argument_specs.yml").write_text("argument_specs: {main: {short_description: A cache, options: {}}}")
    (role / "README.md").write_text("<!-- spec:start -->\n<!-- spec:end -->\n")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert docs.main(["--check"]) == 1
    assert "roles/cache/README.md: out of date" in capsys.readouterr().out
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
