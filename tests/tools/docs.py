# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the tables of the READMEs from the specs; with --check only say which are out of date.

Between `<!-- spec:start -->` and `<!-- spec:end -->` of a role's README stands the table of its options; between `roles` and `modules`
markers of the collection's README the indexes.
"""

from __future__ import annotations

import ast
import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARKUP = re.compile(r"\b(?:O|V|C|RV|E|P|M|B|I)\(((?:[^()\\]|\\.)*)\)")


def plain(text: str | list[str]) -> str:
    """Turn Ansible's semantic markup into Markdown that fits into a table's cell."""
    sentences = " ".join([text] if isinstance(text, str) else text)
    marked = MARKUP.sub(lambda found: f"`{found[1].replace(chr(92), '').partition('#')[0]}`", sentences)
    return " ".join(marked.split()).replace("|", "\\|")


def kind(option: dict) -> str:
    """Describe an option's type."""
    name = option.get("type", "str")
    if name == "list":
        name = f"list of {option.get('elements', 'str')}"
    return name


def default(option: dict) -> str:
    """Describe what holds where nothing is given."""
    if option.get("required"):
        return "required"
    return f"`{json.dumps(option['default'])}`" if "default" in option else ""


def rows(options: dict, prefix: str = "") -> list[str]:
    """One row for each option, nested ones below their parent under their dotted name."""
    table = []
    for name, option in options.items():
        words = plain(option.get("description", ""))
        if option.get("choices"):
            words += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
        table.append(f"| `{prefix}{name}` | {kind(option)} | {default(option)} | {words} |")
        table += rows(option.get("options", {}), f"{prefix}{name}.")
    return table


def role_tables(specs: dict) -> str:
    """The tables of a role, one for each entry point."""
    parts = []
    for entry, spec in specs.items():
        parts.append(f"### `{entry}`: {plain(spec.get('short_description', ''))}" if len(specs) > 1 else f"## {plain(spec.get('short_description', ''))}")
        parts.append("\n".join(f"- {plain(sentence)}" for sentence in as_list(spec.get("description", []))))
        if spec.get("options"):
            parts.append("\n".join(["| Variable | Type | Default | Meaning |", "|---|---|---|---|", *rows(spec["options"])]))
    return "\n\n".join(part for part in parts if part)


def as_list(value: str | list[str]) -> list[str]:
    """Return the sentences of a description."""
    return [value] if isinstance(value, str) else value


def documentation(path: pathlib.Path) -> dict:
    """Read a module's DOCUMENTATION without importing it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "DOCUMENTATION":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise SystemExit(f"{path} has no DOCUMENTATION")


def put(text: str, marker: str, content: str) -> str:
    """Replace what stands between a pair of markers; text without them stays as it is."""
    pattern = re.compile(rf"(<!-- {marker}:start -->\n).*?(<!-- {marker}:end -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text)


def wanted(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """Map every README to the text it ought to have."""
    specs = {path.parents[1].name: yaml.safe_load(path.read_text())["argument_specs"] for path in sorted(root.glob("roles/*/meta/argument_specs.yml"))}
    pages = {}
    for role, spec in specs.items():
        readme = root / "roles" / role / "README.md"
        if readme.exists():
            pages[readme] = put(readme.read_text(), "spec", role_tables(spec))
    readme = root / "README.md"
    if readme.exists():
        index = [f"| [`{role}`](roles/{role}/README.md) | {plain(next(iter(spec.values())).get('short_description', ''))} |" for role, spec in specs.items()]
        text = put(readme.read_text(), "roles", "\n".join(["| Role | |", "|---|---|", *index]))
        told = {path.stem: documentation(path) for path in sorted(root.glob("plugins/modules/*.py")) if path.stem != "__init__"}
        index = [f"| `{name}` | {plain(words['short_description'])} |" for name, words in told.items()]
        pages[readme] = put(text, "modules", "\n".join(["| Module | |", "|---|---|", *index]))
    return pages


def main(arguments: list[str]) -> int:
    """Write or check all pages."""
    stale = {path: text for path, text in wanted(ROOT).items() if path.read_text() != text}
    for path, text in stale.items():
        if "--check" not in arguments:
            path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {'out of date, run make docs' if '--check' in arguments else 'written'}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
