# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components as the contract renders them: taken by the real Compose, and wired together with stand-ins on this machine's own Engine.

The real images cannot be had without a registry. PgBouncer, PostgreSQL and Redis are the real programs, of Debian; the others are stand-ins that obey
the words, variables, files, ports and answers that the data files count on.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import pathlib
import random
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest

from ansible_collections.anchorage.vps.plugins.filter.docker_compose import docker_compose_model
from ansible_collections.anchorage.vps.plugins.module_utils import compose_probe, compose_views, release_plan
from ansible_collections.anchorage.vps.plugins.module_utils import contract_views as views
from ansible_collections.anchorage.vps.plugins.module_utils.secret_store import make
from ansible_collections.anchorage.vps.plugins.module_utils.world import World
from ansible_collections.anchorage.vps.tests.lab import engine, images
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.contract_samples import SHOP, changed, resolved

PROVE = pathlib.Path(__file__).parents[3] / "roles/docker_compose/templates/docker-prove.sh.j2"
POLICY = "apiVersion: api.cerbos.dev/v1\n"
REAL = {
    "s3": {"domain": "files.example.com"},
    "keycloak": {"domain": "auth.example.com", "realm": {"name": "cityos"}, "env": {"KC_LOG_LEVEL": "debug $HOME"}},
    "cerbos": {"policies": "policies"},
    "btcpay": {"domain": "pay.example.com"},
    "pgbouncer": {"pool_mode": "transaction"},
}
NAMES = [*REAL]


class Shop:
    """The projects of a shop with all components, in a directory of this machine."""

    def __init__(self, directory: pathlib.Path, name: str, components, **changes):
        self.directory = directory
        app = changed(SHOP, runtime="compose", components=components, image__base=images.STAND_INS["node"], **changes)
        self.contract = resolved({name: app})
        (wanted,) = views.app_secrets(self.contract, "vps")
        self.secrets = {name: {key: make(length) for key, length in wanted["generate"].items()}}
        (self.document,) = views.release_documents(self.contract, self.secrets, "vps")
        policies = {name: {"cerbos": {"order.yaml": POLICY, "tests/order_test.yaml": "name: order\n"}}}
        self.projects = compose_views.docker_compose_projects(self.contract, self.secrets, "vps", policies)
        for service in self.projects[0]["definition"]["services"].values():
            service["healthcheck"].pop("start_interval", None)  # which an Engine before 25 does not take
        self.name = name
        self.write()

    def write(self):
        """Leave the files as provisioning would."""
        model = docker_compose_model(self.projects, directory=str(self.directory), prover=str(PROVE))
        for part in (model, *model["optional"]):
            for entry in part["directories"]:
                pathlib.Path(entry["path"]).mkdir(parents=True, exist_ok=True)
            for entry in part["files"]:
                path = pathlib.Path(entry["path"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(entry["content"])
                path.chmod(int(entry["mode"], 8))
        return model

    def compose(self, project, *argv, check=True):
        """Run the real Compose on a project."""
        mounts = [f"--volume={self.directory}:{self.directory}", "--volume=/var/run/docker.sock:/var/run/docker.sock"]
        command = ["docker", "run", "--rm", *mounts, images.COMPOSE, "--project-directory", f"{self.directory}/{project}", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr[-2000:]
        return done

    def inside(self, image, *argv, environment=None):
        """Run a program where the app's processes are."""
        options = [f"--env={key}={value}" for key, value in (environment or {}).items()]
        command = ["docker", "run", "--rm", f"--network={self.name}-base", "--entrypoint=", *options, image, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def environment(self):
        """What the server of the app is given."""
        (server,) = release_plan.instances(self.document, "blue", public=True)
        return release_plan.process_environment(self.document, server, "r1")

    def port(self, component):
        """Where the proxy finds a component."""
        return self.contract["apps"][self.name]["components"][component]["port"]


@pytest.fixture(scope="module")
def stand_ins(this_engine):
    images.ensure_component_stand_ins()


@pytest.fixture(scope="module")
def rendered(stand_ins):
    with tempfile.TemporaryDirectory(prefix="anchorage-components-") as place:
        yield Shop(pathlib.Path(place), "shop", REAL)


@pytest.mark.parametrize("name", ["base", *NAMES])
def test_compose_takes_each_project_with_its_real_images(rendered, name):
    assert rendered.compose(f"shop-{name}", "config", "--quiet").stderr == "", "not even a warning of a variable that is not set"
    told = json.loads(rendered.compose(f"shop-{name}", "config", "--format", "json").stdout)
    given = next(project for project in rendered.projects if project["name"] == f"shop-{name}")
    assert told["name"] == f"shop-{name}" and set(told["services"]) == set(given["definition"]["services"])
    for service in told["services"].values():
        assert service["cap_drop"] == ["ALL"] and all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
    if name == "keycloak":
        environment = told["services"]["keycloak"]["environment"]
        assert environment["KC_LOG_LEVEL"] == "debug $$HOME", "as it was written, and not this machine's"
        assert environment["KC_DB_PASSWORD"] == rendered.secrets["shop"]["keycloak_database_password"], "from the file that nobody sees"


def test_compose_would_refuse_what_is_none(rendered):
    """So that its consent means something."""
    path = rendered.directory / "shop-cerbos" / "compose.yml"
    good = path.read_text()
    path.write_text(good.replace("read_only: true", "read_only: [odd]"))
    assert rendered.compose("shop-cerbos", "config", "--quiet", check=False).returncode != 0
    path.write_text(good)


# ---- wiring, with stand-ins ------------------------------------------------------------------------------------------

LAB = images.COMPONENT_STAND_INS
WIRED = {
    "s3": {"image": LAB["s3"]},
    "keycloak": {**REAL["keycloak"], "image": LAB["keycloak"]},
    "cerbos": {**REAL["cerbos"], "image": LAB["cerbos"]},
    "btcpay": {**REAL["btcpay"], "image": LAB["btcpay"], "images": {"nbxplorer": LAB["nbxplorer"], "bitcoind": LAB["bitcoin"]}},
    "pgbouncer": {"image": LAB["pgbouncer"]},
}


@pytest.fixture(scope="module")
def shop(stand_ins):
    with tempfile.TemporaryDirectory(prefix="anchorage-components-") as place:
        name = f"comp-{uuid.uuid4().hex[:8]}"
        components = {key: {**value, **({"port": free_port()} if "domain" in value else {})} for key, value in WIRED.items()}
        own = {"database__image": images.STAND_INS["postgres"], "database__port": free_port(), "redis__image": images.STAND_INS["redis"]}
        made = Shop(pathlib.Path(place), name, components, **own, redis__jobs={"port": free_port()})
        try:
            base, *beside = [(project["name"], "up", "--detach", "--wait", "--wait-timeout", "150") for project in made.projects]
            made.compose(*base)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(lambda argv: made.compose(*argv), beside))
            yield made
        finally:
            for project in reversed(made.projects):
                made.compose(project["name"], "down", "--volumes", "--timeout", "3", check=False)


def free_port():
    """A port that nobody uses now, and none of those that the contract refuses, which the kernel hands out."""
    return next(port for port in random.sample(range(20000, 32000), 100) if not listens(port))


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
        return True
    return False


def get(url, data=None):
    try:
        with urllib.request.urlopen(url, data=data, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_all_of_them_are_well_and_publish_nothing_but_loopback(shop):
    for component in shop.document["components"]:
        wanted = [compose_probe.Wanted(name, require_health=has_check) for name, has_check in component["services"].items()]
        found = compose_probe.check(component["project"], compose_probe.Expectation(wanted, published=[]), world=World(), deadline_seconds=20)
        assert found.healthy and found.grade == "ok", found.message


def test_keycloak_has_the_realm_and_takes_the_secret_that_the_app_was_given(shop):
    environment = shop.environment()
    place = f"http://127.0.0.1:{shop.port('keycloak')}/realms/cityos"
    assert json.loads(get(f"{place}/.well-known/openid-configuration")[1])["issuer"] == f"{environment['KEYCLOAK_URL']}/realms/{environment['KEYCLOAK_REALM']}"
    login = {"grant_type": "client_credentials", "client_id": environment["KEYCLOAK_CLIENT_ID"]}
    for secret, status in ((environment["KEYCLOAK_CLIENT_SECRET"], 200), ("other", 401)):
        assert get(f"{place}/protocol/openid-connect/token", urllib.parse.urlencode({**login, "client_secret": secret}).encode())[0] == status
    ports = engine.inspect("container", f"{shop.name}-keycloak-keycloak-1")[0]["NetworkSettings"]["Ports"]
    assert [inside for inside, bindings in ports.items() if bindings] == ["8080/tcp"], "9000 is its own affair"


def test_the_app_reaches_s3_and_cerbos_by_the_addresses_that_it_was_given(shop):
    script = """
      const e = process.env;
      const ask = (url) => fetch(url).then((answer) => answer.status, () => "unreachable");
      const places = [`${e.CERBOS_URL}/_cerbos/health`, `${e.S3_ENDPOINT}/${e.S3_BUCKET}/x`, "http://btcpay:49392/"];
      console.log(JSON.stringify(await Promise.all(places.map(ask))));
    """
    done = shop.inside(images.STAND_INS["node"], "node", "--input-type=module", "-e", script, environment=shop.environment())
    assert json.loads(done.stdout) == [200, 403, "unreachable"], "nobody without a key reads; payment is on no network of the app"


def test_the_key_of_the_app_makes_no_bucket_and_opens_no_other(shop):
    told = json.loads((shop.directory / f"{shop.name}-s3" / "keeper.json").read_text())
    script = (shop.directory / f"{shop.name}-s3" / "keeper.mjs").read_text()
    environment = shop.environment()
    assert (told["app"]["id"], told["app"]["secret"]) == (environment["S3_ACCESS_KEY_ID"], environment["S3_SECRET_ACCESS_KEY"])

    def keep(**changes):
        words = ["sh", "-c", 'printf %s "$TOLD" > /tmp/told.json && printf %s "$SCRIPT" > /tmp/k.mjs && exec node /tmp/k.mjs /tmp/told.json']
        return shop.inside(images.STAND_INS["node"], *words, environment={"TOLD": json.dumps({**told, **changes}), "SCRIPT": script})

    assert keep().returncode == 0
    assert "put: answered 403" in keep(bucket="other").stderr
    assert "answered 403" in keep(app={**told["app"], "secret": "x"}).stderr
    assert keep(bucket="third", admin=told["app"]).returncode == 1


def test_processes_go_through_pgbouncer_and_migrations_past_it(shop):
    ask = "SELECT host(inet_client_addr()) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    networks = engine.inspect("container", f"{shop.name}-pgbouncer-pgbouncer-1")[0]["NetworkSettings"]["Networks"]
    pool = networks[f"{shop.name}-base"]["IPAddress"]

    def seen_from(url):
        done = shop.inside(images.STAND_INS["postgres"], "psql", "-XAtc", ask, url)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    pooled, direct = shop.environment()["DATABASE_URL"], release_plan.common_environment(shop.document)["DATABASE_URL"]
    assert "@pgbouncer:6432/" in pooled and seen_from(pooled) == pool
    assert "@postgres:5432/" in direct and seen_from(direct) != pool
    stranger = pooled.replace(shop.secrets[shop.name]["database_password"], "wrong")
    assert "failed" in shop.inside(images.STAND_INS["postgres"], "psql", "-XAtc", "SELECT 1", stranger).stderr


def test_a_session_through_the_pool_keeps_what_is_its_own(shop):
    """Advisory locks and settings live in a session, so a pool by transaction is only for those who asked for it."""
    statements = ("SELECT pg_try_advisory_lock(7)", "SET statement_timeout = '7s'", "SHOW statement_timeout", "SELECT pg_advisory_unlock(7)")
    words = ["-XAtq", *(word for statement in statements for word in ("-c", statement))]
    done = shop.inside(images.STAND_INS["postgres"], "psql", *words, shop.environment()["DATABASE_URL"])
    assert done.stdout.split() == ["t", "7s", "t"], done.stderr


def test_policies_that_do_not_compile_are_refused_before_anybody_reads_them(shop, tmp_path):
    def prove(text):
        (tmp_path / "order.yaml").write_text(text)
        words = ["sh", str(PROVE), f"anchorage-proof-{shop.name}", LAB["cerbos"], str(tmp_path), "/policies", "compile", "/policies"]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert prove(POLICY).returncode == 0
    refused = prove("nonsense\n")
    assert refused.returncode == 3 and "order.yaml: not a valid policy" in refused.stderr
    assert engine.docker("ps", "--all", "--quiet", f"--filter=name=anchorage-proof-{shop.name}") == "", "nothing is left of it"


def test_btcpay_answers_the_proxy_and_stays_when_the_shop_goes(shop):
    place = f"http://127.0.0.1:{shop.port('btcpay')}/api/v1/health"
    assert json.loads(get(place)[1]) == {"synchronized": True}
    for name in ("s3", "keycloak", "cerbos", "pgbouncer", "base"):
        shop.compose(f"{shop.name}-{name}", "down", "--timeout", "3")
    time.sleep(1)
    assert json.loads(get(place)[1]) == {"synchronized": True}
    volumes = engine.docker("volume", "ls", "--quiet", "--filter=label=vps.anchorage.backup=apart", f"--filter=name={shop.name}").split()
    assert volumes == [f"{shop.name}-btcpay_{name}" for name in ("database", "datadir", "wallet")], "what is to be saved apart"
