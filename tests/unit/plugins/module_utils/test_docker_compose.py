# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Compose project becomes on a host, and what cannot be one."""

from __future__ import annotations

import base64
import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.docker_compose import HEADER, LABEL, credentials, digest, model
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

PLACE = "/etc/anchorage/compose/shop"
WEB = {"image": "web:1", "volumes": ["data:/data", "./www:/www:ro"]}
SHOP = {"name": "shop", "definition": {"services": {"web": WEB, "job": {"image": "job:1"}}, "volumes": {"data": {}}}}
PAGE = {"path": "www/index.html", "content": "hello\n", "mode": "0644", "secret": False}
LOGIN = {"registry": "registry.example.com:5000", "username": "shop", "password": "se:cret"}


def told(*projects):
    return model(projects, directory="/etc/anchorage/compose", prover="/prove", dump=json.dumps)


def files(*projects):
    return {entry["path"]: entry for entry in told(*projects)["files"]}


def marks(service, *, top=None, entries=(PAGE,)):
    definition = {"services": {"web": {"image": "web:1", **service}}, **(top or {})}
    found = files({"name": "shop", "definition": definition, "files": list(entries)}).get(f"{PLACE}/compose.override.yml")
    return json.loads(found["content"].removeprefix(HEADER))["services"] if found else {}


def test_a_project_has_a_directory_that_only_root_enters():
    assert told(SHOP)["directories"] == [{"path": "/etc/anchorage/compose", "mode": "0750"}, {"path": PLACE, "mode": "0750"}]
    assert told()["directories"] == []


def test_its_definition_is_written_as_it_is_given():
    entry = files(SHOP)[f"{PLACE}/compose.yml"]
    assert json.loads(entry["content"].removeprefix(HEADER)) == SHOP["definition"]
    assert (entry["mode"], entry["secret"]) == ("0640", False)


def test_a_file_is_a_secret_unless_it_says_otherwise():
    found = files({**SHOP, "files": [{"path": "web.env", "content": "KEY=1\n"}, PAGE]})
    assert (found[f"{PLACE}/web.env"]["mode"], found[f"{PLACE}/web.env"]["secret"]) == ("0640", True)
    assert (found[f"{PLACE}/www/index.html"]["mode"], found[f"{PLACE}/www/index.html"]["secret"]) == ("0644", False)


def test_what_is_not_said_is_filled_in():
    assert told(SHOP)["projects"] == [
        {
            "name": "shop", "directory": PLACE, "state": "present", "pull": "missing", "wait": True, "wait_timeout_seconds": 120, "remove_orphans": False,
        }
    ]  # fmt: skip
    assert told({**SHOP, "state": "stopped", "wait": False})["projects"][0]["state"] == "stopped"


def test_each_definition_is_judged_under_the_name_of_its_project():
    alone, mounting = told(SHOP)["validate"][0], told({**SHOP, "files": [PAGE]})["validate"][0]
    assert alone["name"] == "Compose project shop"
    assert alone["when_changed"] == [f"{PLACE}/"]
    assert alone["command"][:2] == ["docker", "compose"] and alone["command"][-2:] == ["config", "--quiet"]
    assert f"{PLACE}/compose.override.yml" not in alone["command"]
    assert f"{PLACE}/compose.override.yml" in mounting["command"]


@pytest.mark.parametrize(
    ("service", "top"),
    [
        ({"volumes": ["./www:/www:ro"]}, {}),
        ({"volumes": ["./www/index.html:/index.html"]}, {}),
        ({"volumes": [".:/all"]}, {}),
        ({"volumes": [{"type": "bind", "source": "./www/", "target": "/www"}]}, {}),
        ({"configs": ["page"]}, {"configs": {"page": {"file": "www/index.html"}}}),
        ({"secrets": [{"source": "page", "target": "/p"}]}, {"secrets": {"page": {"file": "./www/index.html"}}}),
    ],
)
def test_a_service_that_mounts_a_file_of_its_project_changes_with_it(service, top):
    before = marks(service, top=top)["web"]["labels"][LABEL]
    assert before == marks(service, top=top)["web"]["labels"][LABEL]
    assert before != marks(service, top=top, entries=[{**PAGE, "content": "bye\n"}])["web"]["labels"][LABEL]


def test_a_file_that_nobody_mounts_changes_nothing():
    service = {"volumes": ["./www:/www:ro"]}
    assert marks(service) == marks(service, entries=[PAGE, {"path": "www2/index.html", "content": "x"}])


@pytest.mark.parametrize(
    ("service", "top"),
    [
        ({}, {}),
        ({"env_file": ["www/index.html"]}, {}),
        ({"volumes": ["www:/www", "/data"]}, {}),
        ({"volumes": ["/www:/www", "./ww:/www", "../www:/www"]}, {}),
        ({"volumes": [{"type": "tmpfs", "target": "/www"}]}, {}),
        ({"configs": ["page"]}, {"configs": {"page": {"content": "www/index.html"}}}),
        ({"secrets": ["page"]}, {"secrets": {"page": {"external": True}}}),
    ],
)
def test_no_other_service_gets_a_label(service, top):
    assert marks(service, top=top) == {}


def test_a_label_that_is_no_longer_needed_goes():
    assert told(SHOP)["absent"] == [f"{PLACE}/compose.override.yml"]
    assert told({**SHOP, "files": [PAGE]})["absent"] == []


def test_a_digest_differs_between_projects():
    assert digest("shop", {"a": "x"}) != digest("cms", {"a": "x"})


def test_what_is_to_go_leaves_its_volumes_and_whatever_it_wrote():
    state = told({"name": "shop", "state": "absent", "files": [PAGE]})
    assert state["gone"] == [
        {"name": "shop", "directory": PLACE, "paths": [f"{PLACE}/compose.yml", f"{PLACE}/compose.override.yml", f"{PLACE}/www/index.html"]}
    ]
    assert [state[key] for key in ("directories", "files", "absent", "validate", "projects")] == [[], [], [], [], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Shop"}, r"docker_compose_projects\[0\]\.name"),
        ({"name": "../shop"}, r"docker_compose_projects\[0\]\.name"),
        ({"definition": {}}, r"project shop has no services"),
        ({"definition": {"services": []}}, r"project shop has no services"),
        ({"definition": {"services": {"web": None}}}, r"definition\.services\.web of project shop"),
        ({"definition": {"name": "other", "services": {"web": WEB}}}, r"definition\.name is not shop"),
        ({"files": [{**PAGE, "path": "/etc/passwd"}]}, r"files\[0\]\.path"),
        ({"files": [{**PAGE, "path": "../cms/web.env"}]}, r"files\[0\]\.path"),
        ({"files": [{**PAGE, "path": "www/../../x"}]}, r"files\[0\]\.path"),
        ({"files": [{**PAGE, "path": "compose.yml"}]}, r"files\[0\]\.path"),
        ({"files": [{**PAGE, "path": "docker-compose.override.yaml"}]}, r"files\[0\]\.path"),
        ({"files": [PAGE, PAGE]}, r"files\[1\]\.path"),
        ({"files": [{**PAGE, "mode": "4755"}]}, r"files\[0\]\.mode"),
        ({"files": [{**PAGE, "mode": "u=rw"}]}, r"files\[0\]\.mode"),
    ],
)
def test_what_cannot_be_a_project_is_refused_by_its_key(change, message):
    with pytest.raises(AnchorageError, match=message):
        told({**SHOP, **change})


def test_no_two_projects_share_a_name():
    with pytest.raises(AnchorageError, match=r"docker_compose_projects\[1\]\.name"):
        told(SHOP, SHOP)


def test_credentials_are_what_docker_login_writes():
    auths = credentials([LOGIN, {**LOGIN, "registry": "docker.io"}])["auths"]
    assert list(auths) == ["registry.example.com:5000", "https://index.docker.io/v1/"]
    assert base64.b64decode(auths["registry.example.com:5000"]["auth"]) == b"shop:se:cret"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registry": "https://registry.example.com"}, "registry"),
        ({"registry": "registry.example.com/team"}, "registry"),
        ({"username": "a:b"}, "username"),
        ({"username": ""}, "username"),
        ({"password": ""}, "password"),
    ],
)
def test_credentials_that_cannot_be_are_refused_without_the_secret(change, message):
    with pytest.raises(AnchorageError, match=rf"docker_compose_registries\[0\]\.{message}") as refused:
        credentials([{**LOGIN, **change}])
    assert "se:cret" not in refused.value.text()


def test_a_registry_has_one_user():
    with pytest.raises(AnchorageError, match=r"docker_compose_registries\[1\]"):
        credentials([LOGIN, LOGIN])


# ---- projects without which the run goes on --------------------------------------------------------------------------

PROOF = {"name": "compile", "image": "box:1", "command": ["compile", "/policies"], "path": "policies", "target": "/policies"}
BESIDE = {
    **SHOP,
    "name": "shop-box",
    "required": False,
    "exclusive": ["policies"],
    "proofs": [PROOF],
    "files": [{"path": "policies/a/b/one.yaml", "content": "x", "mode": "0644"}, {"path": "box.env", "content": "y"}],
}


def test_what_is_not_required_is_told_apart_with_its_own_part_of_the_host():
    found = told(SHOP, BESIDE)
    place = "/etc/anchorage/compose/shop-box"
    assert [project["name"] for project in found["projects"]] == ["shop"]
    (project,) = found["optional"]
    assert not any(place in json.dumps(found[key]) for key in ("files", "directories", "absent", "validate")), "nothing of it can fail with the others"
    assert {entry["path"] for entry in project["files"]} == {f"{place}/compose.yml", f"{place}/box.env", f"{place}/policies/a/b/one.yaml"}
    assert (project["state"], project["wait"], project["wait_timeout_seconds"], project["images"]) == ("present", True, 120, ["box:1"])
    assert told(BESIDE)["directories"] == [{"path": "/etc/anchorage/compose", "mode": "0750"}]


def test_what_was_taken_out_of_a_directory_of_its_own_goes():
    (project,) = told(BESIDE)["optional"]
    place = "/etc/anchorage/compose/shop-box"
    inner = [f"{place}/policies", f"{place}/policies/a", f"{place}/policies/a/b"]
    assert project["directories"] == [{"path": place, "mode": "0750"}, *({"path": path, "mode": "0755"} for path in inner)], "a container's user reads them"
    assert [path for path in project["absent"] if path.endswith("*")] == [f"{path}/*" for path in inner]
    assert not [path for path in told({**BESIDE, "exclusive": []})["optional"][0]["absent"] if path.endswith("*")]


def test_its_files_are_judged_in_a_container_that_gets_a_copy():
    (proof,) = told(BESIDE)["optional"][0]["proofs"]
    assert proof["name"] == "compile" and proof["when_changed"] == ["/etc/anchorage/compose/shop-box/"]
    words = ["anchorage-proof-shop-box", "box:1", "/etc/anchorage/compose/shop-box/policies", "/policies", "compile", "/policies"]
    assert proof["command"] == ["/prove", *words]


@pytest.mark.parametrize(
    ("project", "says"),
    [
        ({**BESIDE, "required": True}, r"docker_compose_projects\[0\]\.proofs needs an engine that runs already"),
        ({**BESIDE, "proofs": [{**PROOF, "path": "../x"}]}, r"proofs\[0\]\.path '\.\./x' does not lie"),
    ],
)
def test_a_proof_that_cannot_be_is_refused(project, says):
    with pytest.raises(AnchorageError, match=says):
        told(project)


def test_one_that_is_to_go_goes_like_the_others():
    assert told({**BESIDE, "state": "absent"})["gone"][0]["name"] == "shop-box"
