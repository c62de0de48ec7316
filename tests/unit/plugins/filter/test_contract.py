# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters: their names, their documentation, their errors, and the wiring that uses them."""

from __future__ import annotations

import inspect
import pathlib
import re

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.anchorage.vps.plugins.filter import contract as plugin
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.contract_samples import BOT, FLEET, SHOP, WEB, changed, resolved

ROOT = pathlib.Path(plugin.__file__).resolve().parents[2]
FILTERS = plugin.FilterModule().filters()
WIRING = yaml.safe_load((ROOT / "playbooks" / "group_vars" / "all" / "wiring.yml").read_text(encoding="utf-8"))
APPS = {
    "shop": {"preset": "medusa", "source": {"path": "."}, "domain": "api.example.com"},
}
HOSTVARS = {"vps": {"ansible_host": "192.0.2.1"}}


def documentation(name):
    return yaml.safe_load((ROOT / "plugins" / "filter" / f"{name}.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_each_filter_is_documented_as_it_is_called(name):
    document = documentation(name)["DOCUMENTATION"]
    parameters = list(inspect.signature(FILTERS[name]).parameters)
    assert document["name"] == name
    assert ["_input", *filter(None, document.get("positional", "").split(", "))] == ["_input", *parameters[1:]]
    assert set(document["options"]) == {"_input", *parameters[1:]}
    assert f"anchorage.vps.{name}" in documentation(name)["EXAMPLES"]


def test_a_wrong_contract_is_a_filter_error_with_the_list():
    with pytest.raises(AnsibleFilterError) as caught:
        plugin.contract({"shop": {**APPS["shop"], "portt": 1, "domain": "https://x"}}, plugin.topology({"all": ["vps"]}, HOSTVARS))
    assert "The contract has 2 problems; no host was touched." in str(caught.value)
    assert " 2. apps.shop.domain: must be a bare name" in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"ansible_host": "192.0.2.1", "anchorage_address": "10.0.0.1"}, "10.0.0.1"),
        ({"ansible_host": "192.0.2.1"}, "192.0.2.1"),
        ({}, "vps"),
    ],
)
def test_the_address_of_a_host(variables, address):
    assert plugin.topology({"all": ["vps"]}, {"vps": variables})["app"] == [{"name": "vps", "address": address}]


def test_a_host_without_variables_has_its_name():
    assert plugin.topology({"all": ["vps"]}, {})["app"] == [{"name": "vps", "address": "vps"}]


def test_every_filter_of_the_wiring_exists_and_every_projection_is_wired():
    used = set(re.findall(r"anchorage\.vps\.(\w+)", " ".join(str(value) for value in WIRING.values())))
    playbooks = "".join((ROOT / "playbooks" / f"{name}.yml").read_text(encoding="utf-8") for name in ("rotate_secrets", "rolling_upgrade"))
    assert set(FILTERS) - {"app_names"} <= used | set(re.findall(r"anchorage\.vps\.(\w+)", playbooks))  # that one is in a headline
    assert all((ROOT / "plugins" / "filter" / f"{name}.{kind}").exists() for name in used for kind in (["yml"] if name in FILTERS else ["py"]))


#: What one role is told because of another one, and not because of the contract.
BETWEEN_ROLES = {"backup_kept", "backup_postgresql", "postgresql_archive_command"}


def test_a_role_input_is_named_like_its_filter():
    for variable, expression in WIRING.items():
        if not variable.startswith("anchorage_") and variable not in BETWEEN_ROLES:
            assert f"anchorage.vps.{variable}" in expression


SAMPLE = resolved(
    {
        "shop": changed(SHOP, redis={"cache": {}}, database={"pool": {"enabled": True}, "read_url_env": "DATABASE_READ_URL"}),
        "web": changed(WEB, tls={"mode": "files", "certificate": "c.pem", "key": "k.pem"}),
        "bot": BOT,
        "flock": changed(WEB, runtime="swarm", domain="flock.example.com", source={"path": "."}, image={"build_on": "controller"}),
        "crew": changed(BOT, runtime="compose", hosts=["a1"], database={"enabled": True}, redis={"enabled": True}),
    },
    {**FLEET, "database": [*FLEET["database"], {"name": "d2", "address": "192.0.2.22"}]},
)
HOSTS = ("a1", "d1", "d2", "p1")
INPUTS = [variable for variable in WIRING if not variable.startswith("anchorage_") and variable not in BETWEEN_ROLES]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("variable", [variable for variable in INPUTS if not variable.startswith("release_")])
def test_each_role_takes_what_it_is_given(variable, host):
    role = next(path for path in (ROOT / "roles").iterdir() if variable.startswith(f"{path.name}_"))
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    option = specs["argument_specs"]["main"]["options"][variable]
    result = ArgumentSpecValidator({variable: option}).validate({variable: project(variable, host)})
    assert result.error_messages == []


def test_the_sample_gives_every_role_something_to_take():
    # A component with a name of its own is for an app on the host that is its own proxy; and there is one proxy here.
    assert [variable for variable in INPUTS if not any(project(variable, host) for host in HOSTS)] == ["nginx_challenge_peers", "backup_apart"]


def project(variable, host):
    arguments = {"secrets": {}, "host": host, "component_files": {}, "plain": ["shop-jobs"], "promoting": False}
    return FILTERS[variable](SAMPLE, *(arguments[key] for key in list(inspect.signature(FILTERS[variable]).parameters)[1:]))


def test_a_contract_is_cheap():
    """It is resolved for every variable of every host, so a second read of the files would be felt."""
    assert plugin.load_spec() is plugin.load_spec()
    assert plugin.load_presets() is plugin.load_presets()
    assert plugin.load_components() is plugin.load_components()


@pytest.mark.parametrize(("apps", "names"), [({"shop": {}, "blog": 1}, ["shop", "blog"]), ({}, []), ("shop", []), (None, [])])
def test_apps_are_named_whatever_their_contract_says(apps, names):
    assert FILTERS["app_names"](apps) == names


def test_the_first_headline_loads_the_filters_where_all_tasks_inherit_them():
    play = yaml.safe_load((ROOT / "playbooks" / "provision.yml").read_text(encoding="utf-8"))[0]
    assert "anchorage.vps.app_names" in play["pre_tasks"][0]["name"]


def test_policies_are_read_from_the_controller_and_what_is_hidden_is_not(tmp_path):
    (tmp_path / "policies" / "tests").mkdir(parents=True)
    (tmp_path / "policies" / ".git").mkdir()
    for path, text in {"order.yaml": "a: 1\n", "tests/order_test.yaml": "b: 2\n", ".git/config": "x", ".order.yaml.swp": "x"}.items():
        (tmp_path / "policies" / path).write_text(text)
    shop = changed(SHOP, runtime="compose", components={"cerbos": {"policies": "policies"}, "s3": {}})
    contract = resolved({"shop": shop, "web": WEB})
    assert FILTERS["component_files"](contract, str(tmp_path)) == {"shop": {"cerbos": {"order.yaml": "a: 1\n", "tests/order_test.yaml": "b: 2\n"}}}


@pytest.mark.parametrize(("made", "words"), [([], "is no directory"), (["policies/readme.md"], "holds no policy"), (["policies/a.yaml"], "is no text")])
def test_policies_that_are_none_are_refused_by_their_key(tmp_path, made, words):
    for path in made:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"\xff\xfe")
    contract = resolved({"shop": changed(SHOP, runtime="compose", components={"cerbos": {"policies": "policies"}})})
    with pytest.raises(AnsibleFilterError, match=f"apps.shop.components.cerbos.policies: .*{words}"):
        FILTERS["component_files"](contract, str(tmp_path))


LINKED = resolved({"shop": SHOP}, FLEET)


def test_what_a_certificate_is_for_comes_from_the_contract_and_not_from_the_host():
    answers = {
        "d1": {"answer": {"request": "CSR", "names": ["evil"], "addresses": ["192.0.2.99"]}},
        "a1": {"answer": {"request": "CSR of a host that serves nobody"}},
        "a2": {"answer": {"request": ""}},
        "p1": {"answer": {"skipped": True}},
    }
    assert FILTERS["tls_requests"](LINKED, answers, "answer") == {"d1": {"request": "CSR", "names": ["d1"], "addresses": ["127.0.0.1", "192.0.2.21"]}}
    assert FILTERS["tls_requests"](LINKED, {}, "answer") == {}


def test_a_task_that_was_skipped_is_no_answer():
    known = {"open": ["shop-jobs"], "plain": []}
    answers = {"d1": {"answer": known}, "a1": {"answer": known}, "a2": {"answer": {"skipped": True, "plain": []}}}
    assert FILTERS["plain_redis"](LINKED, answers, "answer", "d1") == ["shop-jobs"]
    assert FILTERS["plain_redis"](LINKED, {**answers, "a2": {"answer": known}}, "answer", "d1") == []
