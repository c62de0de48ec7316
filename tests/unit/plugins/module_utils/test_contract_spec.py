# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging, checking and filling by an argument spec."""

from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.contract_spec import fill, look_up, merge, plain, sound
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.contract_samples import PRESETS, SPEC, resolved

OPTIONS = {
    "name": {"type": "str", "required": True, "description": "A name."},
    "mode": {"type": "str", "choices": ["on", "off"], "default": "on", "description": "A mode."},
    "inner": {
        "type": "dict",
        "default": {},
        "description": "More.",
        "options": {
            "count": {"type": "int", "default": 3, "description": "A count."},
            "deep": {"type": "dict", "default": {}, "description": "x", "options": {"flag": {"type": "bool", "default": True, "description": "x"}}},
            "must": {"type": "dict", "description": "x", "options": {"word": {"type": "str", "required": True, "description": "A word."}}},
        },
    },
    "items": {"type": "list", "elements": "int", "default": [], "description": "Some."},
}


def run(function, given):
    told = []
    return function(OPTIONS, given, "x", lambda path, rule: told.append((path, rule))), told


def test_defaults_reach_every_depth():
    result, told = run(fill, {"name": "a"})
    assert result == {"name": "a", "mode": "on", "inner": {"count": 3, "deep": {"flag": True}, "must": None}, "items": []}
    assert told == []


def test_null_is_the_default():
    assert run(fill, {"name": "a", "inner": None, "mode": None})[0]["inner"]["count"] == 3


def test_what_is_required_is_asked_for_at_its_path():
    assert run(fill, {"inner": {"must": {}}})[1] == [("x.name", "is required: A name."), ("x.inner.must.word", "is required: A word.")]


def test_what_is_wrong_is_left_out_and_the_rest_stays():
    result, told = run(sound, {"name": ["a"], "mode": "up", "inner": {"count": "many", "deep": {"flag": "yes", "flg": 1}}, "items": [1, "x", 2]})
    assert result == {"inner": {"deep": {"flag": "yes"}}, "items": [1, 2]}
    assert [path for path, _rule in told] == ["x.name", "x.mode", "x.inner.count", "x.inner.deep.flg", "x.items[1]"]


def test_text_that_means_a_number_or_a_boolean_is_converted():
    given, _told = run(sound, {"name": 7, "inner": {"count": "-4", "deep": {"flag": "no"}}, "items": ["5"]})
    result, told = run(fill, given)
    assert (result["name"], result["inner"]["count"], result["inner"]["deep"]["flag"], result["items"]) == ("7", -4, False, [5])
    assert told == []


def test_the_bare_word_off_is_understood():
    assert run(sound, {"mode": False})[0] == {"mode": "off"}


@pytest.mark.parametrize(
    ("under", "over", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({}, {"a": 1}, {"a": 1}),
    ],
)
def test_merge(under, over, merged):
    assert merge(under, over) == merged


def test_plain_sheds_what_a_template_engine_wraps_around_values():
    class Text(str):
        def __repr__(self):
            return "wrapped"

    result = plain({Text("a"): (Text("b"), 1, True, None, 2.5)})
    assert result == {"a": ["b", 1, True, None, 2.5]}
    assert "wrapped" not in repr(result)
    assert result["a"][2] is True


def test_what_is_omitted_is_left_out():
    omit = type("_OmitType", (), {})()
    assert plain({"a": omit, "b": [1, omit]}) == {"b": [1]}


def test_look_up():
    assert look_up({"a": {"b": 1}}, "a.b") == 1
    assert look_up({"a": {"b": 1}}, "a.b.c") is None
    assert look_up(None, "a") is None


def options_of(spec, path=""):
    for name, option in spec.items():
        yield f"{path}{name}", option
        yield from options_of(option.get("options", {}), f"{path}{name}.")


@pytest.mark.parametrize("entry_point", ["contract", "contract_process"])
def test_every_option_has_a_type_and_a_sentence(entry_point):
    for path, option in options_of(SPEC[entry_point]["options"]):
        assert option["type"] in ("str", "int", "float", "bool", "list", "dict"), path
        text = option["description"]
        assert all(sentence.endswith((".", ")")) for sentence in ([text] if isinstance(text, str) else text)), path
        assert option["type"] != "list" or "elements" in option, path
        assert option["type"] != "dict" or option.get("default") in (None, {}), path


def test_every_preset_is_a_choice_and_the_other_way_round():
    assert sorted(SPEC["contract"]["options"]["preset"]["choices"]) == sorted(PRESETS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_itself_is_sound(name):
    told = []
    contract = PRESETS[name]["contract"]
    for mode in PRESETS[name].get("modes", {"": {"contract": {}}}).values():
        whole = merge(contract, mode["contract"])
        sound(SPEC["contract"]["options"], whole, "x", lambda *problem: told.append(problem))
        for process, value in whole.get("processes", {}).items():
            sound(SPEC["contract_process"]["options"], value, process, lambda *problem: told.append(problem))
    assert told == []


def test_every_key_of_a_preset_file_is_used():
    used = {"contract", "modes", "derive", "cors", "reserved_env", "needs", "admin_command", "least", "alone", "aliases"}
    for preset in PRESETS.values():
        assert set(preset) <= used
        for mode in preset.get("modes", {}).values():
            assert set(mode) <= {"contract", "private", "needs"}


def test_every_option_reaches_the_resolved_app():
    source = {"repo": "https://git.example.com/a.git", "version": "1"}
    app = resolved({"web": {"preset": "node", "source": source, "processes": {"a": {"command": ["a"]}}}})["apps"]["web"]
    inputs_only = {"domain", "port", "secrets"}
    assert set(SPEC["contract"]["options"]) - inputs_only <= set(app)
    assert set(SPEC["contract_process"]["options"]) - {"port"} <= set(app["processes"][0])
