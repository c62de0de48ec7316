# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example on the page of a health module runs, on a host where a shop runs as the examples want it. Last in order: it adds that shop.

What an operator would put in is put in: ports, release and certificate authority of this host. Nothing else of an example is changed, but for limits
in milliseconds, which on a machine that others use too would test the machine.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import urllib.parse

import pytest
import yaml

from ansible_collections.anchorage.vps.plugins.module_utils.compose_probe import PROJECT, SERVICE
from ansible_collections.anchorage.vps.tests.canary import Canaries
from ansible_collections.anchorage.vps.tests.lab import engine, images
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import Authority

from .conftest import ROOT, until

MODULES = (
    "http_health",
    "postgresql_health",
    "redis_health",
    "pm2_health",
    "tls_health",
    "worker_health",
    "host_health",
    "compose_health",
    "app_health",
    "app_diagnosis",
    "diagnosis_report",
    "verification_report",
)
NAMES = ("shop.example.com", "www.shop.example.com")
RELEASE = "20261121T030000"

#: What does not hold on this host, and the cause that must be named.
NOT_HERE = {"The standby is close behind": "it is a primary, wanted a standby"}


def examples(module, words=()):
    """Return the tasks on a module's page, with the words of a host put in."""
    page = (ROOT / "plugins" / "modules" / f"{module}.py").read_text()
    text = re.search(r'^EXAMPLES = r"""(.*?)^"""', page, re.DOTALL | re.MULTILINE)[1]
    for key in sorted(words, key=len, reverse=True):
        text = text.replace(key, str(words[key]))
    return yaml.safe_load(text)


def pem(path):
    """Return a file's text."""
    return pathlib.Path(path).read_text()


@pytest.fixture(scope="module")
def stage(vps, tmp_path_factory):
    """The host with a shop that has all that the examples speak of, and what must be put into them."""
    directory = tmp_path_factory.mktemp("authority")
    authority = Authority(str(directory), "test-authority")
    certificate, key = authority.issue(NAMES[0], 2, NAMES[1])
    host, apps = vps.host, vps.apps.copy()
    host.shell("cat > /usr/local/share/ca-certificates/test-authority.crt && update-ca-certificates", given=pem(authority.certificate))
    apps.app("shop", pulses=True)
    site = {"domain": None, "domains": [*NAMES], "tls": {"mode": "files", "certificate": certificate, "key": key}}
    apps.apps["shop"] = {**apps.apps["shop"], **site, "redis": {"enabled": True, "cache": {}}}
    apps.write()
    apps.run("site")
    state = host.state("shop")
    document = json.loads(host.shell(f"cat /srv/shop/releases/{state['live']}/document.json"))
    ports = {process["name"]: process["slots"][state["slot"]][0] for process in document["processes"]}
    jobs, cache = (urllib.parse.urlsplit(document[key]) for key in ("redis_url", "redis_cache_url"))
    host.shell(
        "systemctl stop --quiet example-tls 2>/dev/null; systemd-run --quiet --unit=example-tls openssl s_server -quiet -www -tls1_3 -accept 127.0.0.1:8443"
        " -cert /etc/nginx/tls/shop/fullchain.pem -key /etc/nginx/tls/shop/privkey.pem"
    )
    host.shell("cat > /etc/systemd/system/certbot.service", given="[Service]\nType=oneshot\nExecStart=true\n")
    host.shell("cat > /etc/systemd/system/certbot.timer", given="[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
    host.shell("systemctl daemon-reload && systemctl start certbot.service && systemctl enable --quiet --now certbot.timer")
    seconds, now = host.shell("date --utc '+%s %Y-%m-%dT%H:%M:%SZ'").split()
    end = {"finished": float(seconds), "ok": True, "cause": ""}
    done = {**end, "bytes": 1000, "seconds": 2, "proof": end}
    host.shell("mkdir -p /var/lib/anchorage/backup && cat > /var/lib/anchorage/backup/database.json", given=json.dumps(done))
    line = json.dumps({"timestamp": now, "message": "job done"}, separators=(",", ":"))
    host.shell("mkdir -p /run/bot /var/log/shop && cat > /var/log/shop/worker.log", given=f"{line}\n")
    host.shell("systemctl stop --quiet example-bot 2>/dev/null; systemd-run --quiet --unit=example-bot sh -c 'while :; do touch /run/bot/alive; sleep 5; done'")
    ask = f'redis-cli -p {jobs.port} --user {jobs.username} --no-auth-warning -a "$(cat)"'
    host.shell(f"{ask} SET worker:alive {now}", given=urllib.parse.unquote(jobs.password))
    words = {
        RELEASE: state["live"],
        "127.0.0.1:9000": f"127.0.0.1:{ports['server']}",
        "[9000]": f"[{ports['server']}]",
        "[9001]": f"[{ports['worker']}]",
        "login_port: 6379": f"login_port: {jobs.port}",
        "login_port: 6380": f"login_port: {cache.port}",
        "shop-server\n": f"shop-server-{state['slot']}\n",
        "shop-worker\n": f"shop-worker-{state['slot']}\n",
        "/etc/ssl/certs/test-authority.pem": "/usr/local/share/ca-certificates/test-authority.crt",
        "max_latency_milliseconds: 10\n": "max_latency_milliseconds: 5000\n",
        "max_latency_milliseconds: 20\n": "max_latency_milliseconds: 5000\n",
        "p95_milliseconds: 200\n": "p95_milliseconds: 5000\n",
    }
    secrets = {
        "shop_database_password": document["database_password"],
        "shop_database_url": document["database_url"],
        "shop_redis_password": urllib.parse.unquote(jobs.password),
        "shop_redis_url": document["redis_url"],
    }
    yield apps, words, secrets, authority
    host.shell(
        "systemctl stop example-tls example-bot; systemctl disable --quiet --now certbot.timer; rm -f /etc/systemd/system/certbot.*; systemctl daemon-reload"
    )


def test_every_health_module_has_examples():
    found = {path.stem for path in (ROOT / "plugins" / "modules").glob("*_health.py")}
    assert found <= {*MODULES} and all(examples(module) for module in MODULES)


@pytest.fixture(scope="module")
def project(this_engine):
    """A Compose project as its examples want it, on this machine's Engine, under a name that nobody else has."""
    name, image = "anchorage-test-examples", images.ensure("trixie")
    found = engine.docker("ps", "--all", "--quiet", f"--filter=label={PROJECT}={name}").split()
    if found:
        engine.docker("rm", "--force", *found)
    health = ["--health-cmd=true", "--health-interval=1s"]
    services = {"web-1": health, "web-2": health, "worker-1": [], "proxy-1": []}
    for container, options in services.items():
        labels = [f"--label={PROJECT}={name}", f"--label={SERVICE}={container[:-2]}", f"--name={name}-{container}"]
        engine.docker("run", "--detach", "--entrypoint=", *labels, *options, image, "sleep", "600")
    labels = [f"--label={PROJECT}={name}", f"--label={SERVICE}=migrate", f"--name={name}-migrate-1"]
    engine.docker("run", "--entrypoint=", *labels, image, "true")
    yield name
    engine.docker("rm", "--force", *engine.docker("ps", "--all", "--quiet", f"--filter=label={PROJECT}={name}").split())


def play(tasks, hosts, secrets):
    """Return a play that runs each example, whatever becomes of the one before, and keeps what it said."""
    kept = []
    for number, task in enumerate(tasks):
        keep = {"content": f"{{{{ example_{number} | to_json }}}}", "dest": f"{{{{ place }}}}/{number}.json"}
        kept.append({**task, "register": f"example_{number}", "ignore_errors": True})
        kept.append({"name": f"keep {number}", "ansible.builtin.copy": keep, "delegate_to": "localhost", "become": False})
    return [{"name": "Run the examples", "hosts": hosts, "gather_facts": False, "vars": secrets, "tasks": kept}]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of(stage, project, module, tmp_path):
    apps, words, secrets, _authority = stage
    tasks = examples(module, {**words, "project: shop\n": f"project: {project}\n"})
    here = module == "compose_health"
    book = tmp_path / "examples.yml"
    book.write_text(json.dumps(play(tasks, "localhost" if here else "all", secrets)))
    # The lab's inventory says that nobody has to become root there; an example that wants to be somebody is to be obeyed.
    command = ["ansible-playbook", str(book), "-e", json.dumps({"place": str(tmp_path), "ansible_become": True})]
    command += [] if here else ["-i", str(apps.hosts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    for number, task in enumerate(tasks):
        said = json.loads((tmp_path / f"{number}.json").read_text())
        cause = NOT_HERE.get(task["name"])
        if cause:
            assert said["failed"] and cause in said["msg"], said
        else:
            assert not said.get("failed") and said.get("healthy", True), (task["name"], said.get("msg") or said.get("summary"))
        assert not said.get("changed")
    told = done.stdout + "".join(path.read_text() for path in tmp_path.glob("[0-9]*.json"))
    assert Canaries(secrets).text(told) == []


def test_the_shop_of_the_examples_works_as_they_say(stage, vps):
    """A round trip that no worker answers is no proof, so here the worker is taken away."""
    apps, words, _secrets, _authority = stage
    state = vps.host.state("shop")
    pm2 = "runuser -u shop -- env PM2_HOME=/var/lib/pm2/shop pm2"
    book = apps.directory / "round-trip.yml"
    task = examples("worker_health", words)[0]
    task["anchorage.vps.worker_health"]["deadline_seconds"] = 4
    book.write_text(json.dumps([{"name": "Ask", "hosts": "all", "gather_facts": False, "tasks": [task]}]))
    command = ["ansible-playbook", "-i", str(apps.hosts), str(book)]
    vps.host.shell(f"{pm2} stop shop-worker-{state['slot']}")
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        vps.host.shell(f"{pm2} start shop-worker-{state['slot']}")
    assert done.returncode == 2 and "count is 0, wanted 1" in done.stdout.replace("\\", ""), done.stdout
    until(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0, "the worker's answer", 30)


# ---- certificates, on the site of that shop

TLS = "/etc/nginx/tls/shop"

#: What openssl on the host is told, so that the certificate has this much of its life left. The test machine's own may be too old for that.
AGED = (
    "cd /run && cat > ca.pem && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout aged.key -out aged.csr -subj /CN=aged 2>/dev/null"
    " && openssl x509 -req -in aged.csr -CA ca.pem -CAkey ca.pem -not_before $(date -u -d '-85 days' +%Y%m%d%H%M%SZ)"
    " -not_after $(date -u -d '+5 days' +%Y%m%d%H%M%SZ)"
    " -extfile aged.ext -out aged.pem 2>/dev/null && cat aged.pem && cat aged.key && rm ca.pem aged.*"
)


def made(host, authority, kind):
    """Return chain and key of a certificate that is no good, as text."""
    if kind == "near expiry":
        host.shell("cat > /run/aged.ext", given=f"subjectAltName={','.join(f'DNS:{name}' for name in NAMES)}\n")
        both = host.shell(AGED, given=pem(authority.certificate) + pem(f"{authority.base}.key"))
        begin = both.index("-----BEGIN PRIVATE KEY")
        return both[:begin], both[begin:]
    names = ("other.example.com",) if kind == "wrong name" else NAMES
    paths = authority.issue(names[0], -1 if kind == "expired" else 1, *names[1:])
    return pem(paths[0]), pem(paths[1])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("expired", "the certificate of shop.example.com expired"),
        pytest.param("near expiry", "its renewal is overdue", marks=pytest.mark.fault),
        ("stale", "another certificate is served than the one in /etc/nginx/tls/shop/fullchain.pem"),
        pytest.param("wrong name", "shop.example.com", marks=pytest.mark.fault),
    ],
)
def test_a_certificate_that_is_no_good_turns_its_own_line_red(stage, vps, kind, words):
    apps, _words, _secrets, authority = stage
    host = vps.host
    chain, key = made(host, authority, kind)
    host.shell(f"cp -aL {TLS} /run/tls-before")
    try:
        host.shell(f"cat > {TLS}/fullchain.pem", given=chain)
        host.shell(f"cat > {TLS}/privkey.pem", given=key)
        host.shell("true" if kind == "stale" else "nginx -s reload; sleep 1")
        found = json.loads(host.shell("anchorage health shop --json --deadline 3", check=False))
        verified = apps.run("verify", rc=2) if kind == "expired" else None
    finally:
        host.shell(f"cp -a /run/tls-before/. {TLS}/ && rm -r /run/tls-before && nginx -s reload; sleep 1")
    red = {part["name"]: part["message"] for part in found["parts"] if part["grade"] == "red"}
    assert {*red} == {"shop certificate"} and words in red["shop certificate"], red
    if verified:
        lines = [line for line in verified.output.splitlines() if line.startswith("  vps")]
        assert [line.split()[1:3] for line in lines if " red " in line] == [["shop", "certificate"]], verified.output[-3000:]
    assert json.loads(host.shell("anchorage health shop --json --deadline 10"))["healthy"]
