# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boxes of a checklist for going live that a program can tick, by what the host shows: its services, its files, and the answers of its site.

That a backup is watched and that somebody is told is what provisioning left there; whether a backup is good is the question about the host itself.
Not among them is what only people know: whether input is validated, who may enter, what the law wants, and whether a restore was rehearsed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
import typing as t

from . import backup_probe, backup_settings
from .app import App
from .health import FAIL, WARN, Check, judge
from .layout import DOCUMENTS, SECRETS
from .masking import secrets_of
from .processes import environment, pids
from .refusals import LOOPBACK, ORIGINS, Asker, Site, configuration, environment_of, judge_plain_http, judged, origins_of, site_of
from .runtime import contained
from .world import World

Data = dict[str, t.Any]

#: What is shorter may stand in code by chance.
LONG_SECRET = 8

SERVICES = ("nftables.service", "nginx.service", "postgresql.service", "postgresql@*.service", "pgbouncer.service", "redis-server@*.service",
            "pm2-*.service", "docker.service", "anchorage-recover.service", "anchorage-health.timer", "apt-daily.timer", "apt-daily-upgrade.timer",
            "certbot.timer", "ssh.service", "systemd-timesyncd.service")  # fmt: skip

#: Where what must not be lost lies on a host that has any.
DATABASES = ("/var/lib/postgresql", "/etc/anchorage/compose")
SSHD = ("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d")
IPV6 = "/proc/net/if_inet6"

#: Keys of Stripe's test mode, https://docs.stripe.com/keys
TEST_KEY = re.compile(r"(?:sk|pk|rk)_test_")


class Box(t.NamedTuple):
    """One box: what it is called, and how it is looked at in the seconds that it has."""

    name: str
    ask: t.Callable[[float], Check]


# ---- boxes of an app -------------------------------------------------------------------------------------------------


def https(asker: Asker, site: Site) -> Check:
    """Nobody is served over plain http."""
    if not site.secure:
        return Check("https", FAIL, {"domain": site.domain}, f"{site.domain} is served over plain http", "tls in the app's contract")
    return judge_plain_http(asker, site)


def headers(asker: Asker, site: Site, path: str) -> Check:
    """The answers carry the headers that keep browsers from harm."""
    answer = asker.fetch(site.target(path))
    policy = answer.header("Content-Security-Policy") or ""
    missing = []
    if site.secure and "max-age=" not in (answer.header("Strict-Transport-Security") or ""):
        missing.append("Strict-Transport-Security")
    if (answer.header("X-Content-Type-Options") or "").lower() != "nosniff":
        missing.append("X-Content-Type-Options: nosniff")
    if not answer.header("X-Frame-Options") and "frame-ancestors" not in policy:
        missing.append("X-Frame-Options")
    if not answer.header("Referrer-Policy"):
        missing.append("Referrer-Policy")
    evidence = {"status": answer.status, "path": path, "missing": missing}
    return judge("headers", not missing, evidence=evidence, cause=f"{site.domain}{path} is sent without {', '.join(missing)}", advice="nginx_headers")


def versions(asker: Asker, site: Site, path: str) -> Check:
    """Nobody is told which versions run."""
    answer = asker.fetch(site.target(path))
    told = {key: answer.header(key) for key in ("Server", "X-Powered-By") if answer.header(key)}
    loud = [f"{key}: {value}" for key, value in told.items() if key == "X-Powered-By" or re.search(r"\d", value or "")]
    return judge("versions", not loud, evidence=told, cause=f"answers tell {', '.join(loud)}", advice="server_tokens, proxy_hide_header", severity=WARN)


def rate_limit(world: World, document: Data, site_file: str) -> Check:
    """Somebody who tries passwords is slowed down."""
    if document.get("proxy_address") == LOOPBACK and not document.get("edge"):
        text = dict(configuration(world, os.path.dirname(site_file), 0)).get(site_file, "")
        limited = re.search(r"(?m)^\s*limit_req\s", text) is not None
    else:  # the site that visitors reach is another one, or elsewhere; what it was given is known
        limited = bool(document.get("rate_limit"))
    evidence = {"site": site_file, "wanted": document.get("rate_limit")}
    return judge("rate_limit", limited, evidence=evidence, cause="requests to this site are not limited", advice="rate_limit in the app's contract")


def origins(document: Data) -> Check:
    """The settings for foreign origins name neither everybody nor somebody's desk."""
    env = environment_of(document)
    wrong = []
    for key in ORIGINS:
        text = str(env.get(key) or "")
        if "*" in [part.strip() for part in text.split(",")]:
            wrong.append(f"{key} lets every origin in")
        wrong += [f"{key} names {origin}" for origin in origins_of(text) if re.match(r"https?://(?:localhost|127\.|\[::1\])|http://", origin)]
    advice = "env in the app's contract: https origins of your own only"
    return judge("origins", not wrong, evidence={"settings": [key for key in ORIGINS if env.get(key)]}, cause="; ".join(wrong), advice=advice)


def test_keys(document: Data) -> Check:
    """The shop takes real money."""
    places = [document.get("env"), document.get("secrets_env"), *(process.get("env") for process in document["processes"])]
    names = sorted({key for place in places for key, value in (place or {}).items() if TEST_KEY.match(str(value))})
    cause = f"{', '.join(names)} hold{'s' if len(names) == 1 else ''} a key of Stripe's test mode"
    return judge("test_keys", not names, evidence={"names": names}, cause=cause, advice="the vault", severity=WARN)


def secrets_in_code(world: World, document: Data, directory: str, seconds: float) -> Check:
    """No secret of the app stands in the files of its release, packages left out. The secrets are handed to grep as its input."""
    known = {line for secret in secrets_of(document) for line in secret.splitlines() if len(line.strip()) >= LONG_SECRET}
    if not known:
        return Check("secrets_in_code", evidence={"secrets": 0})
    argv = ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "--exclude-dir=node_modules", "--file=-", "--", directory]
    done = world.run(argv, input="".join(f"{line}\n" for line in sorted(known)), timeout=max(0.1, seconds), env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    advice = f"remove it from the source, and change the secret: who has the source has it too ({directory})"
    if done.rc not in (0, 1):
        said = done.stderr.strip()[-200:] or f"code {done.rc}"
        return Check("secrets_in_code", FAIL, {}, f"the release could not be searched: {said}", f"ls -l {directory}")
    files = sorted(line[len(directory) :].lstrip("/") for line in done.stdout.splitlines())
    some = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    return judge("secrets_in_code", not files, evidence={"files": files[:20]}, cause=f"a secret of the app stands in {some}", advice=advice)


def code_of(app: App, document: Data, live: str) -> str:
    """Return where the code of the live release is read: in containers it is in their image, which each of their processes shows."""
    if not contained(document):
        return f"{app.layout.release(live)}/app"
    own = (pid for pid in pids(app.world) if _release_of(app, pid) == (app.name, live))
    return f"/proc/{next(own, 'none')}/root{document['image']['directory']}"


def _release_of(app: App, pid: int) -> tuple[str, str]:
    found = environment(app.world, pid) or {}
    return found.get("ANCHORAGE_PROCESS", "")[: len(app.name)], found.get("ANCHORAGE_RELEASE", "")


def private_files(paths: t.Iterable[str], shared: t.Collection[str] = ()) -> Check:
    """Files with secrets belong to root, and nobody else may read them.

    :arg shared: of them those that the app's own group may read.
    """
    wrong, seen = [], []
    for path in paths:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            continue
        seen.append(path)
        if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & (0o037 if path in shared else 0o077):
            wrong.append(f"{path} belongs to {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}")
    return judge("private_files", not wrong, evidence={"files": seen}, cause="; ".join(wrong), advice="deploy.yml")


def boxes_of_app(app: App, document: Data, live: str) -> list[Box]:
    """Return the boxes of an app that is live on this host.

    :arg document: of the live release.
    """
    world, site = app.world, site_of(document)
    process = next((process for process in document["processes"] if process["public"]), {})
    path = (process.get("health") or {}).get("path") or "/"
    found = []
    if site:
        found += [
            Box("https only", lambda seconds: judged("https", lambda: https(Asker(world, seconds), site))),
            Box("security headers", lambda seconds: judged("headers", lambda: headers(Asker(world, seconds), site, path))),
            Box("no versions told", lambda seconds: judged("versions", lambda: versions(Asker(world, seconds), site, path))),
            Box("rate limit", lambda _seconds: rate_limit(world, document, app.layout.site)),
        ]
    if any(environment_of(document).get(key) for key in ORIGINS):
        found.append(Box("origins", lambda _seconds: origins(document)))
    runs = f"{app.layout.release(live)}/run"
    shared = [f"{runs}/{name}" for name in world.listdir(runs)]
    private = [f"{SECRETS}/{app.name}.json", f"{DOCUMENTS}/{app.name}.json", app.layout.document(live), *shared]
    return [
        *found,
        Box("real keys", lambda _seconds: test_keys(document)),
        Box("no secrets in code", lambda seconds: secrets_in_code(world, document, code_of(app, document, live), seconds)),
        Box("secrets are private", lambda _seconds: private_files(private, shared)),
    ]


# ---- boxes of the host -----------------------------------------------------------------------------------------------


def _facts(world: World, argv: t.Sequence[str], seconds: float) -> list[dict[str, str]]:
    """Return what systemctl show prints, one unit after the other."""
    done = world.run(argv, timeout=max(0.1, seconds))
    return [dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line) for block in done.stdout.split("\n\n") if block.strip()]


TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")


def updates(world: World, seconds: float) -> Check:
    """Security updates come by themselves."""
    done = world.run(["apt-config", "dump", "APT::Periodic"], timeout=max(0.1, seconds))
    settings = dict(re.findall(r'APT::Periodic::(\S+) "([^"]*)";', done.stdout))
    wrong = [f"APT::Periodic::{key} is not on" for key in ("Update-Package-Lists", "Unattended-Upgrade") if settings.get(key, "0") in ("", "0")]
    if settings.get("Enable") == "0":
        wrong.append("APT::Periodic::Enable is 0")
    if not world.exists("/usr/bin/unattended-upgrade"):
        wrong.append("unattended-upgrades is not installed")
    timers = _facts(world, ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", *TIMERS], seconds)
    running = {timer.get("Id") for timer in timers if timer.get("ActiveState") == "active"}
    wrong += [f"{timer} does not run" for timer in TIMERS if timer not in running]
    evidence = {"settings": settings, "timers": timers}
    return judge("updates", not wrong, evidence=evidence, cause="; ".join(wrong), advice="base_upgrades_enabled, and provision.yml")


def ssh(world: World, seconds: float) -> Check:
    """Nobody enters with a password, and root at most with a key."""
    done = world.run(["sshd", "-T"], timeout=max(0.1, seconds), env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    if done.rc:
        return Check("ssh", FAIL, {}, f"the settings of sshd cannot be read: {done.stderr.strip()[-200:] or f'code {done.rc}'}", "sshd -T")
    known = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    wanted = {
        "passwordauthentication": ("no",),
        "kbdinteractiveauthentication": ("no",),
        "permitemptypasswords": ("no",),
        "permitrootlogin": ("no", "prohibit-password", "without-password", "forced-commands-only"),
    }
    evidence = {key: known.get(key) for key in wanted}
    wrong = [f"{key} is {evidence[key]}" for key, good in wanted.items() if evidence[key] not in good]
    advice = "base_ssh_settings, and provision.yml"
    lax = [] if wrong else [f"{path} lets some in with {line}" for path in _sshd_files(world) for line in _matched(world, path)]
    if lax:
        return Check("ssh", WARN, evidence, f"{'; '.join(lax)}; sshd -T tells of nobody's Match", advice)
    return judge("ssh", not wrong, evidence=evidence, cause="; ".join(wrong), advice=advice)


def _sshd_files(world: World) -> list[str]:
    main, directory = SSHD
    return [main, *(f"{directory}/{name}" for name in world.listdir(directory) if name.endswith(".conf"))]


def _matched(world: World, path: str) -> list[str]:
    """Return what a file allows under a Match that is refused to everybody else."""
    text = (world.read(path) or b"").decode("utf-8", "replace")
    found, inside = [], False
    for line in text.splitlines():
        words = line.strip().lower().replace("=", " ").split()
        inside = inside or words[:1] == ["match"]
        if inside and words[:1] and words[0] in MATCHED and words[1:2] == ["yes"]:
            found.append(line.strip())
    return found


MATCHED = ("passwordauthentication", "kbdinteractiveauthentication", "permitemptypasswords", "permitrootlogin")


def firewall(world: World, seconds: float) -> Check:
    """What is not allowed to come in does not come in."""
    done = world.run(["nft", "--json", "list", "chains"], timeout=max(0.1, seconds), env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    advice = "base_firewall_enabled, and provision.yml"
    try:
        chains = [item["chain"] for item in json.loads(done.stdout)["nftables"] if "chain" in item]
    except (ValueError, KeyError, TypeError):
        return Check("firewall", FAIL, {}, f"the firewall's rules cannot be read: {done.stderr.strip()[-200:] or f'code {done.rc}'}", advice)
    entry = [chain for chain in chains if chain.get("hook") == "input" and chain.get("family") in ("inet", "ip", "ip6")]
    dropping = {chain["family"] for chain in entry if chain.get("policy") == "drop"}
    evidence = {"chains": [f"{chain.get('family')} {chain.get('table')} {chain.get('name')} {chain.get('policy')}" for chain in entry]}
    speaks_ipv6 = any(not line.endswith(" lo") for line in (world.read(IPV6) or b"").decode().splitlines())
    missing = set() if "inet" in dropping else {"ip", *(["ip6"] if speaks_ipv6 else [])} - dropping
    if missing and any(chain.get("table") == "firewalld" for chain in entry):
        cause = "firewalld refuses by its last rule and not by a policy, which is not judged here"
        return Check("firewall", WARN, evidence, cause, "firewall-cmd --list-all-zones")
    what = {"ip": "IPv4", "ip6": "IPv6"}
    cause = f"no chain drops what comes in unasked by {' and '.join(what[family] for family in sorted(missing))}"
    return judge("firewall", not missing, evidence=evidence, cause=cause, advice=advice)


def backup(world: World, settings: Data) -> Check:
    """There is a backup, and it does not lie on this machine alone. Its age and result are judged by a line of their own."""
    names = [item.get("name") for item in (settings.get("host") or {}).get("backups") or []]
    if not names and backup_probe.exists(world):
        return dataclasses.replace(backup_probe.judge_places(backup_settings.load(world)), name="backup")
    return judge("backup", bool(names), evidence={"backups": names}, cause="no backup of this host is watched", advice="backup_enabled, and provision.yml")


def monitoring(world: World, settings: Data, seconds: float) -> Check:
    """Somebody is told when anything breaks."""
    (timer,) = _facts(world, ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", "anchorage-health.timer"], seconds) or [{}]
    notify = settings.get("notify") or {}
    ways = sorted(key for key in ("webhook_url", "command") if notify.get(key))
    wrong = []
    if timer.get("ActiveState") != "active":
        wrong.append("anchorage-health.timer does not run")
    if not ways:
        wrong.append("nobody is told when the verdict changes")
    evidence = {"timer": timer, "ways": ways}
    return judge("monitoring", not wrong, evidence=evidence, cause="; ".join(wrong), advice="monitoring_webhook_url or monitoring_command, and provision.yml")


def boot(world: World, seconds: float) -> Check:
    """What runs now comes back after a boot."""
    units = _facts(world, ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", *SERVICES], seconds)
    running = [unit for unit in units if unit.get("ActiveState") == "active"]
    lost = [unit["Id"] for unit in running if unit.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "generated", "indirect")]
    evidence = {unit["Id"]: unit.get("UnitFileState") for unit in running}
    return judge("boot", not lost, evidence=evidence, cause=f"{', '.join(lost)} would not come back after a boot", advice="systemctl enable, and provision.yml")


def boxes_of_host(world: World, settings: Data) -> list[Box]:
    """Return the boxes of this host.

    :arg settings: what provisioning left for its health.
    """
    return [
        Box("updates", lambda seconds: updates(world, seconds)),
        Box("ssh", lambda seconds: ssh(world, seconds)),
        Box("firewall", lambda seconds: firewall(world, seconds)),
        *([Box("backup", lambda _seconds: backup(world, settings))] if any(map(world.exists, DATABASES)) else []),
        Box("monitoring", lambda seconds: monitoring(world, settings, seconds)),
        Box("boot", lambda seconds: boot(world, seconds)),
    ]
