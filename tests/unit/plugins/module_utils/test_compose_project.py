# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The projects of releases: names that never mean two releases, ports that only loopback reaches, values byte by byte."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.anchorage.vps.plugins.module_utils import compose_project, dockerfile, encoders
from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils.release_plan import release_id, tree_id

from .contract_samples import BOT, SHOP, changed, resolved

IMAGE = f"sha256:{'ab' * 32}"
HOSTILE = "a'b\"c\\d $HOME ${HOME} $$ `id` $(id) %s {{7*7}} #x end é"


def document(app=None, **more):
    contract = resolved({"shop": changed(app or SHOP, runtime="compose", **more)})
    return views.release_documents(contract, {}, "vps")[0]


def slot(found, name="blue", release="r1"):
    return compose_project.slot_project(found, release=release, slot=name, image=IMAGE, user="999:998")


def test_each_process_is_a_service_whose_name_holds_its_release():
    project = slot(document())
    assert project["name"] == "shop-blue" and list(project["services"]) == ["server-r1", "worker-r1"]
    server, worker = project["services"].values()
    assert server["container_name"] == "shop-server-blue" and server["image"] == IMAGE and server["pull_policy"] == "never"
    assert server["ports"] == [{"target": 9000, "published": "9000", "host_ip": "127.0.0.1", "protocol": "tcp"}]
    assert server["environment"]["PORT"] == "9000" and server["environment"]["HOST"] == "0.0.0.0"
    assert server["networks"] == {"default": {"aliases": ["server"]}, "base": {}}, "in the shared network only the name with the release"
    assert project["networks"]["base"] == {"name": "shop-base", "external": True}
    assert worker["environment"]["MEDUSA_WORKER_MODE"] == "worker" and "PATH" not in worker["environment"], "where programs are, the image knows"
    assert server["entrypoint"][0] == "node" and server["command"] == [], "no entry point of the image stands before it"
    assert slot(document(), "green")["services"]["server-r1"]["environment"]["PORT"] == "9002"


def test_nothing_may_do_more_than_it_must():
    for service in slot(document())["services"].values():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "999:998" and service["read_only"] is True and service["init"] is True and service["pids_limit"]
        assert service["mem_limit"] == service["memswap_limit"]
    assert slot(document(image={"read_only": False}))["services"]["server-r1"]["read_only"] is False


def test_uploads_outlive_the_release():
    (mount,) = slot(document())["services"]["server-r1"]["volumes"]
    assert (mount["source"], mount["target"], mount["bind"]) == ("/srv/shop/shared/static", "/app/static", {"create_host_path": False})


def test_several_instances_have_names_and_ports_of_their_own():
    services = slot(document(processes={"server": {"instances": 3}}))["services"]
    assert [name for name in services if name.startswith("server")] == ["server-1-r1", "server-2-r1", "server-3-r1"]
    assert [service["ports"][0]["published"] for name, service in services.items() if name.startswith("server")] == ["9000", "9004", "9008"]


def test_an_app_without_services_has_no_shared_network():
    found = document(BOT)
    assert slot(found)["networks"] == {"default": {}} and found["inside"] == {}


def test_a_command_that_is_run_once_is_never_started_again():
    project = compose_project.once_project(
        document(), release="r1", name="migrate", argv=["node", "x.js", "$A"], env={"A": "1"}, image=IMAGE, user="1:1", memory_mb=1024
    )
    (service,) = project["services"].values()
    assert project["name"] == "shop-migrate" and service["restart"] == "no" and service["container_name"] == "anchorage-shop-migrate"
    assert (
        service["entrypoint"] == ["node", "x.js", "$$A"]
        and service["command"] == []
        and service["working_dir"] == "/app"
        and service["mem_limit"] == "1024m"
        and "ports" not in service
    )
    assert compose_project.SLOT not in service["labels"] and project["networks"] == {"base": {"name": "shop-base", "external": True}}


def test_a_value_is_what_it_was_for_compose_itself():
    """Asked of Compose's own reading where this machine has it; the rule is the same everywhere: each dollar sign twice."""
    found = document(env={"HOSTILE": HOSTILE})
    text = slot(found)["services"]["server-r1"]["environment"]["HOSTILE"]
    assert text == HOSTILE.replace("$", "$$")


def test_another_base_is_another_tree_and_another_runtime_another_release():
    one, other = document(), document(image={"base": "node:24-trixie-slim"})
    assert tree_id(one, "s1", "") != tree_id(other, "s1", "")
    native = views.release_documents(resolved({"shop": SHOP}), {}, "vps")[0]
    assert release_id(one, "s1") != release_id(native, "s1")


def render(app=None, *, manager="npm", version="", names=("package.json", "package-lock.json"), extra_ca=False, **more):
    return dockerfile.render(document(app, **more), manager=manager, version=version, names=names, extra_ca=extra_ca)


def test_the_shops_dockerfile_builds_with_all_packages_and_runs_with_few():
    lines = render().splitlines()
    stages = [line for line in lines if line.startswith("FROM")]
    assert stages == [
        "FROM node:22-trixie-slim AS base", "FROM base AS dependencies", "FROM dependencies AS build", "FROM dependencies AS production",
        "FROM node:22-trixie-slim",
    ]  # fmt: skip
    last = lines[lines.index("FROM node:22-trixie-slim") :]
    assert not any("CI=" in line for line in last), "what builds it is not what runs"
    assert "ENV NODE_ENV=production" in last and "COPY --from=build /app/.medusa/server/ ./" in last
    assert "COPY --from=production /app/node_modules ./node_modules" in last and any(line.startswith("USER ") for line in last)
    assert not any("migrate" in line for line in lines), "no container migrates when it starts"
    assert 'ENV MEDUSA_BACKEND_URL="https://api.example.com"' in lines
    install, build = lines.index(next(line for line in lines if "npm ci" in line)), lines.index("COPY . .")
    assert install < build, "the packages are not installed anew for each change of the source"


@pytest.mark.parametrize(
    ("manager", "version", "lock", "wanted"),
    [
        ("yarn", "4.9.1", "yarn.lock", ["COPY package.json yarn.lock .yarnrc.yml ./", "yarn install --immutable", "yarn workspaces focus --all --production"]),
        ("yarn", "1.22.22", "yarn.lock", ["yarn install --frozen-lockfile", "yarn install --production"]),
        ("pnpm", "10.1.0", "pnpm-lock.yaml", ["pnpm install --frozen-lockfile", "pnpm prune --prod"]),
    ],
    ids=["yarn4", "yarn1", "pnpm"],
)
def test_other_package_managers(manager, version, lock, wanted):
    text = render(manager=manager, version=version, names=("package.json", lock, ".yarnrc.yml"))
    assert all(word in text for word in wanted) and "RUN corepack enable" in text


def test_an_app_that_builds_nothing_is_copied_without_development_packages():
    text = render(BOT)
    assert "RUN rm -rf node_modules && chmod -R a+rX,go-w /app\n" in text and "COPY --from=build /app/ ./\nCOPY --from=production" in text
    assert "node_modules" not in render(BOT, manager=None, names=("package.json",))


def test_directories_are_made_where_they_are_wanted():
    text = render(build={"directories": [".next/cache", "node_modules/@medusajs/*/dist/migrations"]})
    assert 'RUN cd /app/.medusa/server && for d in .next; do [ ! -d "$d" ] || mkdir -p "$d/cache"; done\n' in text
    packages = text.partition("FROM dependencies AS production")[2]
    assert 'for d in node_modules/@medusajs/*/dist; do [ ! -d "$d" ] || mkdir -p "$d/migrations"; done' in packages


def test_what_is_for_root_alone_in_the_source_is_not_so_in_the_image():
    assert "RUN chmod -R a+rX,go-w /app/.medusa/server\n" in render()


def test_a_certificate_is_there_for_one_command_and_in_no_layer():
    text = render(extra_ca=True)
    assert "--mount=type=secret,id=extra_ca" in text and "COPY" in text and "/run/secrets/extra_ca" in text
    assert not any("extra_ca" in line for line in text.splitlines() if not line.startswith("RUN"))


def test_secrets_of_the_source_do_not_reach_the_engine():
    ignored = dockerfile.ignored(document()).splitlines()
    assert {".env", ".env.*", ".git", "**/node_modules", ".medusa/server", "static"} <= set(ignored)


def test_a_value_of_the_build_is_what_it_was(tmp_path):
    text = render(build={"env": {"ODD": 'a"b$c\\d'}})
    assert 'ENV ODD="a\\"b\\$c\\\\d"' in text
    assert pathlib.PurePath(dockerfile.DIRECTORY).is_absolute()


ENDED = 'ERROR: failed to solve: process "/bin/sh -c NODE_EXTRA_CA_CERTS=/run/secrets/extra_ca {}" did not complete successfully: exit code: {}'


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (
            ["#7 0.2 error TS2322", f"  12 |     RUN test -d /app/dist || {{ echo '{dockerfile.NO_OUTPUT}'; exit 1; }}", ENDED.format("node build.js", 2)],
            dockerfile.Failure("node build.js", 2, False),
        ),
        (
            [ENDED.format(f"test -d x || {{ echo '{dockerfile.NO_OUTPUT}'; }}", 1)],
            dockerfile.Failure(f"test -d x || {{ echo '{dockerfile.NO_OUTPUT}'; }}", 1, True),
        ),
        (
            ["failed to solve: executor failed running [/bin/sh -c npm_config_cafile=/run/secrets/extra_ca node build.js]: exit code: 1"],
            dockerfile.Failure("node build.js", 1, False),
        ),
        (["ERROR: failed to solve: node:22: failed to resolve source metadata"], None),
        ([], None),
    ],
    ids=["a command", "no output", "an old Engine", "no base", "silence"],
)
def test_it_is_said_which_command_of_a_build_failed(lines, wanted):
    assert dockerfile.failure(lines) == wanted


def test_the_heap_of_the_build_is_limited_and_that_of_the_app_is_not():
    lines = render().splitlines()
    assert lines.index('ENV NODE_OPTIONS="--max-old-space-size=1536"') < lines.index("FROM dependencies AS production")


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
@example({"A": "🚢 \u2028\u0085\ufeff\x7f\x01\\ud83d \ud7ff\ue000"})
def test_what_is_written_is_json_and_yaml_that_say_the_same(values):
    told = encoders.compose_file({"name": "shop", "services": {"web": {"environment": values}}})
    assert json.loads(told) == yaml.safe_load(told) == {"name": "shop", "services": {"web": {"environment": values}}}
    assert "\\ud83d\\udea2" not in told, "which Compose refuses"
