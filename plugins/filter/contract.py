# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract and its projections as filters; the documentation of each stands in the file of its name beside this one."""

from __future__ import annotations

import functools
import pathlib
import typing as t

import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils import compose_views
from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils.contract import resolve
from ansible_collections.anchorage.vps.plugins.module_utils.contract_spec import plain
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError

RELEASE_ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "release"

Data = dict[str, t.Any]


@functools.cache
def load_spec() -> Data:
    """Return the entry points of the contract's spec."""
    return t.cast("Data", _load(RELEASE_ROLE / "meta" / "argument_specs.yml")["argument_specs"])


@functools.cache
def load_presets() -> dict[str, Data]:
    """Return the presets by name."""
    return {path.stem: _load(path) for path in sorted((RELEASE_ROLE / "presets").glob("*.yml"))}


@functools.cache
def load_components() -> dict[str, Data]:
    """Return the data files of components by name, with the scripts that lie beside them."""
    place = RELEASE_ROLE / "components"
    found = {path.stem: _load(path) for path in sorted(place.glob("*.yml"))}
    for file in found.values():
        file["scripts"] = {path: (place / name).read_text(encoding="utf-8") for path, name in file.get("scripts", {}).items()}
    return found


def _load(path: pathlib.Path) -> Data:
    # Each worker of Ansible reads them anew, and libyaml, where it is there, takes a tenth of the time.
    return t.cast("Data", yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def contract(apps: t.Any, topology: t.Any, scale: t.Any = None) -> Data:
    """Return the resolved contract, or fail with everything that is wrong with it."""
    try:
        return resolve(apps, topology, spec=load_spec(), presets=load_presets(), component_files=load_components(), scale=scale)
    except AnchorageError as error:
        raise AnsibleFilterError(error.message) from None


def component_files(contract: Data, directory: str) -> Data:
    """Return what the components of each app take from the controller, by its path in their own directory."""
    found: Data = {}
    try:
        for name, app in plain(contract)["apps"].items():
            for key, component in app["components"].items():
                if component.get("policies"):
                    found.setdefault(name, {})[key] = _policies(f"apps.{name}.components.{key}.policies", directory, component["policies"])
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from None
    return found


def _policies(key: str, directory: str, given: str) -> dict[str, str]:
    place = pathlib.Path(directory, given).expanduser()
    found = [path for path in sorted(place.rglob("*")) if path.is_file() and not any(part.startswith(".") for part in path.relative_to(place).parts)]
    if not any(path.suffix in (".yaml", ".yml", ".json") for path in found):
        state = "holds no policy (*.yaml, *.yml, *.json)" if place.is_dir() else "is no directory"
        raise AnchorageError(f"{key}: {place} on the controller {state}.", live="unchanged: nothing was touched yet")
    try:
        return {path.relative_to(place).as_posix(): path.read_text(encoding="utf-8") for path in found}
    except UnicodeDecodeError as error:
        raise AnchorageError(f"{key}: a file below {place} on the controller is no text: {error.reason}.", live="unchanged: nothing was touched yet") from None


def app_names(apps: t.Any) -> list[str]:
    """Return the names of the apps in a contract that nobody has checked yet."""
    return [str(name) for name in apps] if isinstance(apps, t.Mapping) else []


def topology(groups: t.Mapping[str, t.Sequence[str]], hostvars: t.Mapping[str, t.Any]) -> Data:
    """Return who runs what, out of the inventory."""

    def address_of(name: str) -> str:
        known = hostvars[name] if name in hostvars else {}  # noqa: SIM401 - hostvars has no get() that templates.
        for key in ("anchorage_address", "ansible_host"):
            if known.get(key):
                return str(known[key])
        return str(name)

    return views.topology({str(group): [str(name) for name in names] for group, names in groups.items()}, address_of)


def _projection(view: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Hand a view plain data."""

    @functools.wraps(view)
    def project(*arguments: t.Any) -> t.Any:
        return view(*(plain(argument) for argument in arguments))

    return project


def _answers(contract: Data, hostvars: t.Any, register: str) -> dict[str, Data]:
    """Return what the hosts of a contract answered to a task, by host; those that did not are not among them."""
    names = {place["name"] for places in contract["topology"].values() for place in places}
    found = {name: hostvars[name].get(register) for name in sorted(names) if name in hostvars}
    return {name: plain(answer) for name, answer in found.items() if answer and not answer.get("skipped")}


def plain_redis(contract: Data, hostvars: t.Any, register: str, host: str) -> list[str]:
    """Return the Redis instances of a host that still take plain connections from elsewhere."""
    return views.plain_redis(plain(contract), _answers(contract, hostvars, register), host)


def tls_requests(contract: Data, hostvars: t.Any, register: str) -> dict[str, Data]:
    """Return what the hosts ask the fleet's authority to sign, and for which names the contract lets them."""
    told = plain(contract)
    found = {}
    for host, answer in _answers(contract, hostvars, register).items():
        links = views.tls_links(told, host)
        if answer.get("request") and links.get("services"):
            found[host] = {"request": answer["request"], "names": links["names"], "addresses": links["addresses"]}
    return found


class FilterModule:
    """Filters of the contract."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        projections = (
            views.app_secrets,
            views.app_urls,
            views.backup_apart,
            views.backup_databases,
            views.backup_paths,
            views.backup_redis,
            views.base_firewall_allow,
            views.base_firewall_visitors,
            views.certbot_certificates,
            views.docker_compose_swarm_nodes,
            compose_views.docker_compose_projects,
            views.docker_compose_swarm_ports,
            views.host_apps,
            views.host_edges,
            views.host_roles,
            views.nginx_challenge_peers,
            views.nginx_sites,
            views.pm2_users,
            views.postgresql_client_addresses,
            views.postgresql_databases,
            views.postgresql_pool,
            views.postgresql_primary,
            views.postgresql_replicas,
            views.postgresql_replication_password,
            views.postgresql_tls_file,
            views.monitoring_sites,
            views.redis_instances,
            views.release_documents,
            views.rotation_choices,
            views.rotation_former,
            views.tls_links,
            views.upgrade_order,
        )
        checked = {
            "app_names": app_names,
            "component_files": component_files,
            "contract": contract,
            "plain_redis": plain_redis,
            "tls_requests": tls_requests,
            "topology": topology,
        }
        return {**checked, **{view.__name__: _projection(view) for view in projections}}
