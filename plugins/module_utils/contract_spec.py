# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of a contract: plain data, merged with a preset, checked against the argument spec, defaults filled in."""

from __future__ import annotations

import copy
import difflib
import re
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import RequiredError

Data = dict[str, t.Any]
Report = t.Callable[[str, str], None]
Options = t.Mapping[str, t.Any]

# Keys whose mappings users name themselves; their nulls are judged as values.
FREE = frozenset(("env", "processes", "generate", "rotating", "components"))


def plain(value: t.Any) -> t.Any:
    """Return a deep copy in the builtin types, whatever a template engine wrapped around them; what is to be omitted is left out."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, t.Mapping):
        return {plain(key): plain(item) for key, item in value.items() if not _is_omitted(item)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value if not _is_omitted(item)]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)


def _is_omitted(value: t.Any) -> bool:
    """Tell whether this is what Ansible's C(omit) stands for; its type is not public."""
    return type(value).__name__ == "_OmitType"


def merge(under: t.Any, over: t.Any) -> t.Any:
    """Lay one value over another: mappings key by key, everything else replaces; null over something removes it."""
    if isinstance(under, dict) and isinstance(over, dict):
        merged = dict(under)
        for key, value in over.items():
            merged[key] = merge(under[key], value) if key in under else value
        return merged
    return copy.deepcopy(over)


def look_up(data: t.Any, dotted: str) -> t.Any:
    """Return the value at a dotted path, or None where the path ends early."""
    for key in dotted.split("."):
        if not isinstance(data, dict):
            return None
        data = data.get(key)
    return data


def sound(options: Options, given: Data, path: str, report: Report) -> Data:
    """Check a mapping against its options and return the sound part of it; what breaks a rule is reported and left out."""
    result: Data = {}
    for key, value in given.items():
        here = f"{path}.{key}"
        if key not in options:
            report(here, unknown(str(key), options))
            continue
        kept = None if value is None else _sound_value(options[key], value, here, report)
        if value is None or kept is not None:
            result[key] = kept
    return result


def fill(options: Options, given: Data, path: str, report: Report) -> Data:
    """Return a sound mapping with every default at every depth; a key that must be there and is not is reported."""
    _require(options, given, path, report)
    # The validator fills the spec's own default mappings, so it gets a spec of its own.
    result = ArgumentSpecValidator(copy.deepcopy(dict(options))).validate(_without_null(given))
    if any(not isinstance(error, RequiredError) for error in result.errors):
        report(path, "does not fit its argument spec")  # Cannot happen; its own words could hold values.
    return t.cast("Data", copy.deepcopy(result.validated_parameters))


def _require(options: Options, given: Data, path: str, report: Report) -> None:
    for name, option in options.items():
        value = given.get(name)
        if value is None and option.get("required"):
            report(f"{path}.{name}", f"is required: {_sentence(option)}")
        if "options" in option:
            inner = {f"{path}.{name}": value} if isinstance(value, dict) else {f"{path}.{name}[{i}]": item for i, item in enumerate(value or [])}
            for here, item in inner.items():
                _require(option["options"], item, here, report)


def _without_null(given: Data) -> Data:
    return {key: _without_null(value) if isinstance(value, dict) and key not in FREE else value for key, value in given.items() if value is not None}


def _sound_value(option: Options, value: t.Any, path: str, report: Report) -> t.Any:
    kind = option.get("type", "str")
    if value is False and "off" in option.get("choices", ()):
        value = "off"  # YAML reads the bare word as a boolean.
    wrong = WRONG[kind](value)
    if wrong:
        report(path, wrong)
        return None
    if kind != "list" and "choices" in option and value not in option["choices"]:
        report(path, f"must be one of {', '.join(option['choices'])}")
        return None
    if kind == "dict" and option.get("options"):
        return sound(option["options"], value, path, report)
    if kind == "list":
        element = {"type": option["elements"], **{key: option[key] for key in ("options", "choices") if key in option}}
        kept = [_sound_value(element, item, f"{path}[{index}]", report) for index, item in enumerate(value)]
        return [item for item in kept if item is not None]
    return value


def unknown(key: str, options: t.Collection[str]) -> str:
    """Say that a key is unknown, and which one may have been meant."""
    close = difflib.get_close_matches(key, options, n=1)
    return f"is unknown; did you mean {close[0]}?" if close else f"is unknown; known here: {', '.join(options)}"


#: Markup of documentation, which is not for messages: O(name), V(value), C(code).
_MARKUP = re.compile(r"\b[A-Z]+\(([^)]*)\)")


def _sentence(option: Options) -> str:
    text = option["description"]
    return _MARKUP.sub(r"\1", str(text if isinstance(text, str) else text[0]))


def _name(value: t.Any) -> str:
    names = {bool: "a boolean", int: "a whole number", float: "a number with a fraction", str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), "null")


def _wrong_str(value: t.Any) -> str | None:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return None
    hint = "; write it in quotes" if isinstance(value, (bool, float)) else ""
    return f"must be text, is {_name(value)}{hint}"


def _wrong_int(value: t.Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    if isinstance(value, str) and value.lstrip("-").isascii() and value.lstrip("-").isdigit():
        return None
    return f"must be a whole number, is {_name(value)}"


def _wrong_float(value: t.Any) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None
    return f"must be a number, is {_name(value)}"


def _wrong_bool(value: t.Any) -> str | None:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false", "yes", "no")):
        return None
    return f"must be true or false, is {_name(value)}"


def _wrong_list(value: t.Any) -> str | None:
    return None if isinstance(value, list) else f"must be a list, is {_name(value)}; write [one, two]"


def _wrong_dict(value: t.Any) -> str | None:
    return None if isinstance(value, dict) else f"must be a mapping of keys, is {_name(value)}"


# The validator of ansible-core converts almost anything into anything (a comma list, 1.10 to "1.1"); the contract does not.
WRONG: dict[str, t.Callable[[t.Any], str | None]] = {
    "str": _wrong_str,
    "int": _wrong_int,
    "float": _wrong_float,
    "bool": _wrong_bool,
    "list": _wrong_list,
    "dict": _wrong_dict,
}
