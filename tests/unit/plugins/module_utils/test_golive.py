# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boxes of the checklist; a host where they are ticked is in tests/integration/release/test_6_health.py."""

from __future__ import annotations

import copy
import json
import os

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import backup_settings, golive, refusals
from ansible_collections.anchorage.vps.plugins.module_utils.http_probe import Answer, ProbeError
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.health_fakes import FakeWorld

from .backup_samples import KEY, LOCAL, OFFSITE, document
from .engine_fakes import HostWorld, make, place
from .test_refusals import DOCUMENT, OWN, PROCESSES

GOOD = [
    ("Strict-Transport-Security", "max-age=31536000"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Server", "nginx"),
]
SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The boxes of an app whose site answers with these headers, by name."""
    place(tmp_path, monkeypatch)
    app, world, _log = make(tmp_path, processes=PROCESSES)

    def build(given=None, **document):
        def fetch(target, *, seconds):
            if isinstance(given, Exception):
                raise given
            plain = target.url == "http://shop.test/"
            headers = [("Location", f"{OWN}/")] if plain else GOOD if given is None else given
            return Answer(308 if plain else 200, "", tuple(headers), b"", False, 0.01, target.url, "there")

        monkeypatch.setattr(refusals, "fetch", fetch)
        boxes = golive.boxes_of_app(app, {**copy.deepcopy(DOCUMENT), **document}, "r1")
        return {box.name: (lambda box=box: box.ask(5)) for box in boxes}

    build.app, build.world = app, world
    return build


def without(name, *more):
    return [*[item for item in GOOD if item[0] != name], *more]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (None, []),
        (without("Strict-Transport-Security"), ["Strict-Transport-Security"]),
        (without("Strict-Transport-Security", ("Strict-Transport-Security", "")), ["Strict-Transport-Security"]),
        (without("X-Content-Type-Options"), ["X-Content-Type-Options: nosniff"]),
        (without("X-Frame-Options"), ["X-Frame-Options"]),
        (without("X-Frame-Options", ("Content-Security-Policy", "frame-ancestors 'none'")), []),
        (without("Referrer-Policy"), ["Referrer-Policy"]),
    ],
)
def test_security_headers(shop, given, missing):
    check = shop(given)["security headers"]()
    assert check.evidence["missing"] == missing and check.healthy is not bool(missing)
    assert check.cause == (f"shop.test/health is sent without {', '.join(missing)}" if missing else "")


def test_https_only(shop):
    assert shop()["https only"]().healthy
    assert shop(tls={"mode": "off"})["https only"]().cause == "shop.test is served over plain http"
    refused = shop(ProbeError("reset", "nobody is there", "nginx"))["https only"]()
    assert (refused.cause, refused.advice) == ("it could not be asked: nobody is there", "nginx")


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (None, ""),
        (without("Server"), ""),
        (without("Server", ("Server", "nginx/1.26.3")), "answers tell Server: nginx/1.26.3"),
        (without("Server", ("X-Powered-By", "Express")), "answers tell X-Powered-By: Express"),
    ],
)
def test_versions_are_a_warning(shop, given, cause):
    check = shop(given)["no versions told"]()
    assert (check.cause, check.verdict) == (cause, "warn" if cause else "ok")


def test_keys_of_test_mode_of_a_worker_count(shop):
    processes = [{**PROCESSES[1], "env": {"STRIPE_API_KEY": "sk_test_1"}}]
    assert shop(processes=processes)["real keys"]().verdict == "warn"


@pytest.mark.parametrize(
    ("text", "limited"),
    [("location / {\n limit_req zone=x burst=5;\n}", True), ("# limit_req zone=x;\n", False), ("limit_req_zone $x zone=x;", False), (None, False)],
)
def test_the_rate_limit_is_seen_in_the_site(shop, text, limited):
    if text is not None:
        shop.world.files[shop.app.layout.site] = text
    assert shop(rate_limit={"requests_per_second": 5})["rate limit"]().healthy is limited


def test_the_rate_limit_of_a_proxy_elsewhere_is_what_it_was_given(shop):
    assert shop(proxy_address="10.0.0.5", rate_limit={"burst": 1})["rate limit"]().healthy
    assert shop(proxy_address="10.0.0.5", rate_limit=None)["rate limit"]().cause == "requests to this site are not limited"


@pytest.mark.parametrize(
    ("env", "cause"),
    [
        ({"STORE_CORS": f"{OWN},/x/"}, ""),
        ({"STORE_CORS": "*"}, "STORE_CORS lets every origin in"),
        ({"ADMIN_CORS": f"{OWN}, http://localhost:9000"}, "ADMIN_CORS names http://localhost:9000"),
        ({"AUTH_CORS": "https://127.0.0.1:9000,https://[::1]"}, "AUTH_CORS names https://127.0.0.1:9000; AUTH_CORS names https://[::1]"),
        ({"AUTH_CORS": "http://shop.test"}, "AUTH_CORS names http://shop.test"),
        ({"AUTH_CORS": "https://localhost.shop.test"}, "AUTH_CORS names https://localhost.shop.test"),
    ],
)
def test_origins(shop, env, cause):
    assert shop(env=env)["origins"]().cause == cause


def test_an_app_that_knows_no_origins_has_no_such_box(shop):
    assert "origins" not in shop(env={})


def test_keys_of_test_mode_are_named_and_not_shown(shop):
    check = shop(env={"STRIPE_PUBLISHABLE_KEY": "pk_test_abc"}, secrets_env={"STRIPE_API_KEY": "sk_test_xyz", "JWT_SECRET": "rk_live_1"})["real keys"]()
    assert check.cause == "STRIPE_API_KEY, STRIPE_PUBLISHABLE_KEY hold a key of Stripe's test mode" and check.verdict == "warn"
    assert "abc" not in repr(check) and "xyz" not in repr(check)
    assert shop()["real keys"]().verdict == "ok"


# ---- secrets


def search(directory, **document):
    return golive.secrets_in_code(World(), {"secrets_env": {"JWT_SECRET": SECRET, "PIN": "1234"}, **document}, str(directory), 20)


def test_a_secret_in_the_files_of_a_release_is_found(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "config.ts").write_text(f"const secret = '{SECRET}'; // 1234")
    (tmp_path / "fine.ts").write_text("const pin = '1234'")
    (tmp_path / "picture.png").write_bytes(b"\x89\0" + SECRET.encode())
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "x.js").write_text(SECRET)
    check = search(tmp_path)
    assert check.evidence == {"files": ["picture.png", "src/config.ts"]} and not check.healthy
    assert check.cause == "a secret of the app stands in picture.png, src/config.ts" and SECRET not in repr(check)


def test_many_files_are_named_in_short(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}.js").write_text(SECRET)
    assert search(tmp_path).cause.endswith("stands in 0.js, 1.js, 2.js, 3.js, 4.js and 2 more")


def test_a_release_without_secrets_is_well(tmp_path):
    (tmp_path / "a").write_text("nothing\n\n")
    assert search(tmp_path).healthy and search(tmp_path, secrets_env={"KEY": "\n\n"}).evidence == {"secrets": 0}


def test_a_release_that_cannot_be_searched_does_not_hold(tmp_path):
    assert "could not be searched: grep" in search(tmp_path / "none").cause
    slow = FakeWorld(commands=lambda call: Completed(124, "", ""))
    assert "code 124" in golive.secrets_in_code(slow, {"secrets_env": {"A": SECRET}}, "/x", 1).cause
    assert SECRET not in repr(slow.ran[0]["argv"])


def test_files_with_secrets_are_private(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for path, mode in zip(files, (0o600, 0o640, 0o400)):
        path.write_text("x")
        path.chmod(mode)
    mine = os.getuid() == 0
    check = golive.private_files([*map(str, files), str(tmp_path / "none")])
    assert check.evidence["files"] == [*map(str, files)]
    assert (check.cause == f"{files[1]} belongs to 0 with mode 0640") if mine else not check.healthy
    assert mine is (golive.private_files([str(files[1])], {str(files[1])}).verdict == "ok"), "the app's own group may"
    if mine:
        os.chown(files[0], 1234, 0)
        assert f"{files[0]} belongs to 1234 with mode 0600" in golive.private_files([str(files[0])]).cause


# ---- the host


def host(answers, **files):
    """A host whose commands answer by their first word."""

    def command(call):
        found = answers.get(call["argv"][0], Completed(127, "", "not found"))
        return found(call["argv"]) if callable(found) else found

    return FakeWorld(commands=command, files={path.replace("__", "/"): "x" for path in files})


def shown(*units):
    """What systemctl show prints of units: name and state, and whether it is enabled."""
    return Completed(
        0, "\n\n".join(f"Id={name}\nActiveState={state}\nUnitFileState={file}" for name, state, *file in units for file in file or ["enabled"]) + "\n", ""
    )


def periodic(**settings):
    known = {"Update-Package-Lists": "1", "Unattended-Upgrade": "1", **{key.replace("_", "-"): value for key, value in settings.items()}}
    return Completed(0, 'APT::Periodic "";\n' + "".join(f'APT::Periodic::{key} "{value}";\n' for key, value in known.items() if value is not None), "")


RUN = ("apt-daily.timer", "active"), ("apt-daily-upgrade.timer", "active")


@pytest.mark.parametrize(
    ("settings", "installed", "timers", "cause"),
    [
        ({}, True, RUN, ""),
        ({"Unattended_Upgrade": "0"}, True, RUN, "APT::Periodic::Unattended-Upgrade is not on"),
        ({"Unattended_Upgrade": None}, True, RUN, "APT::Periodic::Unattended-Upgrade is not on"),
        ({"Update_Package_Lists": "0"}, True, RUN, "APT::Periodic::Update-Package-Lists is not on"),
        ({"Enable": "0"}, True, RUN, "APT::Periodic::Enable is 0"),
        ({}, False, RUN, "unattended-upgrades is not installed"),
        ({}, True, (RUN[0], ("apt-daily-upgrade.timer", "inactive")), "apt-daily-upgrade.timer does not run"),
        ({}, True, RUN[1:], "apt-daily.timer does not run"),
    ],
)
def test_updates(settings, installed, timers, cause):
    world = host({"apt-config": periodic(**settings), "systemctl": shown(*timers)})
    if installed:
        world.files["/usr/bin/unattended-upgrade"] = "x"
    assert golive.updates(world, 5).cause == cause


def test_updates_where_systemd_says_nothing():
    assert "apt-daily-upgrade.timer does not run" in golive.updates(host({"apt-config": periodic()}), 5).cause


SSHD = "passwordauthentication no\nkbdinteractiveauthentication no\npermitemptypasswords no\npermitrootlogin without-password\nport 22\n"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (SSHD, ""),
        (SSHD.replace("without-password", "yes"), "permitrootlogin is yes"),
        (SSHD.replace("passwordauthentication no", "passwordauthentication yes"), "passwordauthentication is yes"),
        ("", "passwordauthentication is None; kbdinteractiveauthentication is None; permitemptypasswords is None; permitrootlogin is None"),
    ],
)
def test_ssh(said, cause):
    assert golive.ssh(host({"sshd": Completed(0, said, "")}), 5).cause == cause


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Port 22\nMatch User backup\n  PasswordAuthentication yes\n", "/etc/ssh/sshd_config.d/50-x.conf lets some in with PasswordAuthentication yes"),
        ("match group x\n permitrootlogin=yes\n", "lets some in with permitrootlogin=yes"),
        ("Match User backup\n  PasswordAuthentication no\n#  PasswordAuthentication yes\n  X11Forwarding yes\n", ""),
        ("PasswordAuthentication yes\n", ""),
    ],
)
def test_what_a_match_of_ssh_allows_is_a_warning(text, words):
    world = host({"sshd": Completed(0, SSHD, "")})
    world.files.update(
        {"/etc/ssh/sshd_config": "Include x", "/etc/ssh/sshd_config.d/50-x.conf": text, "/etc/ssh/sshd_config.d/50-x.bak": "Match all\nPermitRootLogin yes"}
    )
    check = golive.ssh(world, 5)
    assert (check.verdict, words in check.cause) == ("warn" if words else "ok", True)


def test_ssh_that_cannot_be_asked():
    assert golive.ssh(host({}), 5).cause == "the settings of sshd cannot be read: not found"


def chain(**changes):
    return {"chain": {"family": "inet", "table": "anchorage", "name": "input", "hook": "input", "policy": "drop", **changes}}


@pytest.mark.parametrize(
    ("chains", "healthy"),
    [
        ([chain()], True),
        ([chain(family="ip"), chain(family="ip6"), chain(hook="forward")], True),
        ([chain(family="ip"), chain(family="ip6", policy="accept")], False),
        ([chain(family="ip")], False),
        ([chain(policy="accept")], False),
        ([chain(hook="forward")], False),
        ([chain(family="bridge")], False),
        ([], False),
    ],
)
def test_the_firewall(chains, healthy):
    said = json.dumps({"nftables": [{"metainfo": {}}, *chains]})
    world = host({"nft": Completed(0, said, "")})
    world.files[golive.IPV6] = f"{'0' * 31}1 01 80 10 80       lo\nfe80 02 40 20 80     eth0\n"
    assert golive.firewall(world, 5).healthy is healthy


def test_a_host_without_ipv6_needs_no_rules_for_it():
    world = host({"nft": Completed(0, json.dumps({"nftables": [chain(family="ip")]}), "")})
    assert golive.firewall(world, 5).healthy
    world.files[golive.IPV6] = f"{'0' * 31}1 01 80 10 80       lo\n"
    assert golive.firewall(world, 5).healthy


def test_firewalld_is_not_judged():
    world = host({"nft": Completed(0, json.dumps({"nftables": [chain(table="firewalld", policy="accept")]}), "")})
    assert golive.firewall(world, 5).verdict == "warn"


@pytest.mark.parametrize("done", [Completed(127, "", "nft: not found"), Completed(0, "[]", ""), Completed(0, "{}", "")])
def test_a_firewall_that_cannot_be_asked_does_not_hold(done):
    assert golive.firewall(host({"nft": done}), 5).cause.startswith("the firewall's rules cannot be read")


def test_a_backup_that_is_watched():
    world = FakeWorld()
    assert golive.backup(world, {"host": {"backups": [{"name": "database", "path": "/b"}]}}).evidence == {"backups": ["database"]}
    assert golive.backup(world, {}).cause == golive.backup(world, {"host": {"backups": []}}).cause == "no backup of this host is watched"
    for targets, words in (([LOCAL], "every backup lies on this machine and goes with it"), ([LOCAL, OFFSITE], "")):
        world.files = {backup_settings.SETTINGS: json.dumps(document(targets=targets)), backup_settings.KEY: json.dumps({"key": KEY})}
        assert (golive.backup(world, {}).name, golive.backup(world, {}).cause) == ("backup", words)


@pytest.mark.parametrize(
    ("state", "notify", "cause"),
    [
        ("active", {"webhook_url": "https://hook.test/secret"}, ""),
        ("active", {"command": ["mail"]}, ""),
        ("active", {"webhook_url": "", "command": []}, "nobody is told when the verdict changes"),
        ("inactive", {"command": ["mail"]}, "anchorage-health.timer does not run"),
    ],
)
def test_monitoring(state, notify, cause):
    check = golive.monitoring(host({"systemctl": shown(("anchorage-health.timer", state))}), {"notify": notify}, 5)
    assert check.cause == cause and "hook.test" not in repr(check)


def test_what_runs_comes_back_after_a_boot():
    units = [("nginx.service", "active"), ("redis-server@a.service", "active", "disabled"), ("anchorage-recover.service", "inactive", "disabled")]
    world = host({"systemctl": shown(*units)})
    check = golive.boot(world, 5)
    assert {"nftables.service", "postgresql.service", "apt-daily-upgrade.timer", "certbot.timer"} <= {*world.ran[0]["argv"]}
    assert check.cause == "redis-server@a.service would not come back after a boot"
    assert check.evidence == {"nginx.service": "enabled", "redis-server@a.service": "disabled"}


def test_the_boxes_of_a_host_are_named():
    assert [box.name for box in golive.boxes_of_host(HostWorld(), {})] == ["updates", "ssh", "firewall", "monitoring", "boot"]
    for place_of_data in golive.DATABASES:
        world = HostWorld()
        world.files[place_of_data] = "data"
        assert [box.name for box in golive.boxes_of_host(world, {})] == ["updates", "ssh", "firewall", "backup", "monitoring", "boot"]


def test_the_code_of_a_container_is_read_in_its_image(shop):
    docked = {"runtime": "compose", "image": {"directory": "/app"}}
    app, world = shop.app, shop.world
    assert golive.code_of(app, {}, "r1") == f"{app.layout.release('r1')}/app"
    assert golive.code_of(app, docked, "r1") == "/proc/none/root/app", "where nothing runs the search fails, and says so"
    world.process(70, environ={"ANCHORAGE_PROCESS": "shop-server-blue", "ANCHORAGE_RELEASE": "r0"})
    world.process(80, environ={"ANCHORAGE_PROCESS": "shop-server-green", "ANCHORAGE_RELEASE": "r1"})
    assert golive.code_of(app, docked, "r1") == "/proc/80/root/app"
