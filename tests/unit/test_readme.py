# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the README is executed: here, or by a part of the tests that this file names."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.lookup.engine import read_member
from ansible_collections.anchorage.vps.plugins.module_utils import zipapp
from ansible_collections.anchorage.vps.plugins.module_utils.layout import Layout

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.executable).parent
PASSWORD = "--ask-vault-pass"
LINK = re.compile(r"\[[^]]*\]\(([^)#]+)")


def commands(text: str) -> list[str]:
    """Return the lines of all blocks of commands."""
    blocks = re.findall(r"^```(?:console|shell|bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip() and not line.strip().startswith("#")]


COMMANDS = list(dict.fromkeys(commands((ROOT / "README.md").read_text())))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory that looks like a clone in which somebody followed the README up to here."""
    clone = tmp_path_factory.mktemp("clone")
    for name in (".collections", "ansible.cfg", "playbooks", "site.yml"):
        (clone / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "inventories/single_vps", clone / "inventories/single_vps")
    (clone / "password").write_text("correct horse\n")
    run("cp -r inventories/single_vps inventories/mine", clone)
    vault = clone / "inventories/mine/group_vars/all/vault.yml"
    vault.write_text(f"vault_shop_stripe_api_key: sk_live_{'7' * 40}\n")
    run(f"ansible-vault encrypt {vault.relative_to(clone)}", clone)
    assert vault.read_text().startswith("$ANSIBLE_VAULT")
    return clone


def run(command: str, directory: pathlib.Path, *surplus: str) -> str:
    """Run a command of the README; the vault's password comes from a file in place of a terminal."""
    argv = [word for word in shlex.split(command) if word != PASSWORD] + list(surplus)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MAKE", "MFLAGS", "PARTS", "SCENARIO"))}
    environment = {**clean, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_VAULT_PASSWORD_FILE": str(directory / "password"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def make_is_what_ci_runs(command: str, place: pathlib.Path) -> None:
    """A target that exists; the two commands themselves, or a part of the second."""
    target = shlex.split(command)[1]
    assert re.search(rf"^\.?(?:[a-z.-]+ )*{re.escape(target)}(?: [a-z. -]+)?:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    told = run("make --dry-run --always-make test", ROOT) if target not in ("demo", "demo-down", "test") else ""
    elsewhere = {".venv": "every target stands on it", "bench": "measures, and proves nothing", "docs": "lint runs it with --check"}
    assert f"run: make {target}" in workflow or f" {target}" in told or target in elsewhere


def make_scenario(command: str, place: pathlib.Path) -> None:
    """A scenario of molecule, which `make test` runs with all others."""
    assert (ROOT / "molecule" / command.partition("SCENARIO=")[2] / "molecule.yml").is_file()


def activates(command: str, place: pathlib.Path) -> None:
    """The environment that this test runs in has the script as well."""
    assert (BIN / "activate").is_file()


def copied(command: str, place: pathlib.Path) -> None:
    """The copy was made by the fixture, and is whole."""
    assert (place / "inventories/mine/hosts.yml").is_file()


def encrypted(command: str, place: pathlib.Path) -> None:
    """The vault was encrypted by the fixture; its secret reaches the app."""
    told = run("ansible vps -i inventories/mine --playbook-dir playbooks -m debug -a 'msg={{ anchorage_contract.apps.shop.env.STRIPE_API_KEY }}'", place)
    assert "sk_live_7777" in told


def playbook(command: str, place: pathlib.Path) -> None:
    """Everything before the first task is done for real: inventory, vault, names of playbooks and roles, syntax."""
    told = run(command, place, "--list-hosts", "--list-tasks")
    assert re.search(r"^ +vps$", told, re.MULTILINE)
    assert re.search(r"TAGS: \[", told)


def built(command: str, place: pathlib.Path) -> None:
    """The part `build` of `make test` runs it, on a copy of its own."""
    words = ", ".join(f'"{word}"' for word in shlex.split(command)[:3])
    assert f"run({words}" in (ROOT / "tests/tools/artefact.py").read_text()
    archive = re.search(r"\S+-vps-(\S+)\.tar\.gz", command)
    assert archive is None or archive[1] == yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]


def documented(command: str, place: pathlib.Path) -> None:
    """Ansible knows the role and the entry point, and prints options."""
    told = run(command, place)
    assert "OPTIONS" in told or "Options" in told


def on_the_host(command: str, place: pathlib.Path) -> None:
    """The command as it is installed on hosts takes these words; here it finds no app, and says so."""
    archive = place / "anchorage"
    archive.write_bytes(zipapp.build(read_member))
    done = subprocess.run([sys.executable, "-I", str(archive), *shlex.split(command)[1:]], capture_output=True, text=True, timeout=60, check=False)
    known = (
        done.returncode == 0
        or "There is no app" in done.stderr
        or "run it as root" in done.stderr
        or " questions in " in done.stdout
        or "Likely cause: " in done.stdout
    )
    assert known, done.stdout + done.stderr


#: What each command of the README is, and how it is proven.
RULES = (
    (r"make molecule SCENARIO=\w+", make_scenario),
    (r"make [.a-z-]+", make_is_what_ci_runs),
    (r"source \.venv/bin/activate", activates),
    (r"cp -r inventories/single_vps inventories/mine", copied),
    (r"ansible-vault encrypt inventories/mine/group_vars/all/vault\.yml", encrypted),
    (r"ansible-playbook \S+ -i inventories/mine .*", playbook),
    (r"ansible-galaxy collection (build|install \S+)", built),
    (r"ansible-doc .*", documented),
    (r"anchorage [a-z]+( shop)?", on_the_host),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command, place):
    rule = next((proof for pattern, proof in RULES if re.fullmatch(pattern, command)), None)
    assert rule, f"nothing runs '{command}': add it to RULES with a proof, or take it out of the README"
    rule(command, place)


def test_the_two_commands_come_first():
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("page", ["README.md", "docs/decisions.md", "docs/operations.md"])
def test_what_a_page_points_to_exists(page):
    place = (ROOT / page).parent
    pointers = [pointer for pointer in LINK.findall((ROOT / page).read_text()) if "://" not in pointer]
    assert [pointer for pointer in pointers if not (place / pointer).exists()] == []


def test_nothing_of_the_copied_inventory_is_left_to_guess():
    told = yaml.safe_load((ROOT / "inventories/single_vps/hosts.yml").read_text())["all"]
    assert list(told["children"]) == ["app", "database", "cache", "proxy"]
    used = set(re.findall(r"\bvault_\w+", "\n".join(path.read_text() for path in (ROOT / "inventories/single_vps").rglob("*.yml") if path.stem != "vault")))
    explained = set(re.findall(r"\bvault_\w+", (ROOT / "inventories/single_vps/group_vars/all/vault.yml").read_text()))
    assert used == explained


def test_every_message_that_the_night_page_explains_is_one_that_is_said():
    table = (ROOT / "docs/operations.md").read_text().rpartition("| Message |")[2].splitlines()[2:]
    explained = [piece.strip() for row in table for message in re.findall(r"`([^`]+)`", row.split(" | ")[0]) for piece in message.split("…")]
    sources = [*(ROOT / "plugins").rglob("*.py"), *(ROOT / "playbooks").glob("*.yml")]
    said = "\n".join(path.read_text() for path in sources)
    assert len(explained) > 20
    assert [piece for piece in explained if len(piece) > 9 and piece not in said] == []


def test_the_night_page_knows_where_things_lie():
    page = (ROOT / "docs/operations.md").read_text()
    layout = Layout("shop", "/srv/shop")
    places = [layout.journal, layout.step, layout.logs, layout.shared, layout.slot_flag, layout.live_file, layout.unit.removesuffix(".service")]
    assert [place for place in places if place not in page] == []
