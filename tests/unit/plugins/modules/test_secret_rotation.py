# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module between the playbook's tasks: it begins once, goes on, refuses what is not its own, and says nothing secret."""

from __future__ import annotations

import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_rotation, secret_store
from ansible_collections.anchorage.vps.plugins.modules import secret_rotation
from ansible_collections.anchorage.vps.tests.unit.plugins.modules.health_runner import run_module

OLD = "0123abcd" * 6
OFFERED = [
    {"name": "redis", "keys": {"redis_password": 48}, "old": {}, "ends_sessions": False, "refused": ""},
    {"name": "sessions", "keys": {"JWT_SECRET": 128}, "old": {}, "ends_sessions": True, "refused": ""},
    {"name": "database", "keys": {}, "old": {}, "ends_sessions": False, "refused": "the app has no database"},
]


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A directory with the secrets of the shop, which nobody owns but who runs this."""
    for module in (secret_store, secret_rotation):
        monkeypatch.setattr(module, "SECRETS", str(tmp_path))
    write = secret_store.World.write_atomic
    monkeypatch.setattr(secret_store.World, "write_atomic", lambda self, path, data, *, mode, uid, gid: write(self, path, data, mode=mode))
    (tmp_path / "shop.json").write_text(json.dumps({"redis_password": OLD, "JWT_SECRET": OLD}))
    return tmp_path


def run(operation, **params):
    code, result = run_module(secret_rotation, operation=operation, app="shop", **params)
    assert OLD not in json.dumps({key: value for key, value in result.items() if key != "invocation"})
    return code, result


def begin(**params):
    return run("begin", offered=OFFERED, **params)


def kept(host):
    state = host / "shop.rotation.json"
    return json.loads((host / "shop.json").read_text()), json.loads(state.read_text()) if state.exists() else {}


def test_a_whole_rotation(host):
    code, begun = begin()
    assert (code, begun["changed"], begun["phase"], begun["secrets"], begun["teaches"], begun["under_way"]) == (0, True, "accept", ["redis"], False, False)
    new = kept(host)[1]["pending"]["after"]["values"]["redis_password"]
    assert new not in json.dumps(begun)
    for operation in ("use", "retire"):
        assert [run(operation, id=begun["id"])[1]["changed"] for _time in range(2)] == [True, False]
    assert run("finish", id=begun["id"])[1]["changed"]
    values, state = kept(host)
    assert values == {"redis_password": new, "JWT_SECRET": OLD} and "pending" not in state


def test_what_is_under_way_is_found_and_nothing_is_made_anew(host):
    _code, first = begin()
    state = kept(host)[1]
    code, second = begin()
    assert (code, second["changed"], second["under_way"], second["id"]) == (0, False, True, first["id"]) and kept(host)[1] == state
    assert "under way" in second["lines"][0] and begin(wanted=["redis"])[1]["id"] == first["id"]
    code, refused = begin(wanted=["sessions"])
    assert code == 1 and "sessions can be rotated after it" in refused["msg"] and kept(host)[1] == state


def test_check_mode_says_what_would_be_and_keeps_nothing(host):
    code, told = begin(check_mode=True, wanted=["sessions"])
    assert (code, told["changed"], told["secrets"]) == (0, True, ["sessions"]) and "LOGGED OUT" in " ".join(told["lines"])
    assert kept(host)[1] == {}
    for operation in ("use", "retire", "finish"):
        assert run(operation, id="x", check_mode=True)[0] == 0
    assert kept(host)[1] == {}


@pytest.mark.parametrize(("wanted", "why"), [(["database"], "the app has no database"), (["sesions"], "is no secret of shop; there are redis, sessions")])
def test_what_cannot_be_is_refused(host, wanted, why):
    code, refused = begin(wanted=wanted)
    assert code == 1 and why in refused["msg"] and kept(host)[1] == {}


def test_states_of_another_rotation_are_not_moved(host):
    begin()
    state = kept(host)[1]
    for operation in ("use", "retire", "finish"):
        code, refused = run(operation, id="another")
        assert code == 1 and "not under way any more" in refused["msg"]
    assert kept(host)[1] == state


def test_a_host_without_secrets_is_told(host, monkeypatch):
    monkeypatch.setattr(secret_rotation, "SECRETS", str(host / "none"))
    code, refused = begin()
    assert code == 1 and "Run site.yml first" in refused["msg"]


def test_the_key_of_the_backups_is_rotated_by_the_same_operations(host, monkeypatch):
    asked = []
    monkeypatch.setattr(backup_rotation, "begin", lambda world, given, *, check: asked.append((given, check)) or {"changed": True, "id": "3f2a", "lines": []})
    for name in ("prove", "leave", "finish"):
        answer = ["proven"] if name == "prove" else {"changed": True, "lines": [name]}
        monkeypatch.setattr(backup_rotation, name, lambda world, id, name=name, answer=answer: asked.append((name, id)) or answer)

    def ask(operation, **params):
        code, result = run_module(secret_rotation, operation=operation, app="backup", **params)
        return code, result["changed"], result["lines"]

    assert ask("begin", key=OLD) == (0, True, []) and ask("begin", check_mode=True) == (0, True, [])
    assert ask("prove", id="3f2a") == (0, False, ["proven"]) and ask("retire", id="3f2a") == (0, True, ["leave"])
    assert ask("finish", id="3f2a") == (0, True, ["finish"]) and ask("finish", id="3f2a", check_mode=True) == (0, True, [])
    assert asked == [(OLD, False), ("", True), ("prove", "3f2a"), ("leave", "3f2a"), ("finish", "3f2a")]


def test_what_the_key_of_the_backups_does_not_know_is_refused(host, monkeypatch):
    code, result = run_module(secret_rotation, operation="use", app="backup", id="3f2a")
    assert code == 1 and "knows no operation use" in result["msg"]
    monkeypatch.setattr(secret_rotation, "SECRETS", str(host / "none"))
    code, result = run_module(secret_rotation, operation="begin", app="backup")
    assert code == 1 and "has no backups yet" in result["msg"]


def test_a_proof_of_an_app_wants_its_documents():
    code, result = run("prove")
    assert code == 1 and "missing: document, former" in result["msg"]
