# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site must refuse: foreign origins, sessions over plain http, unsigned webhooks, and any way to a process that is not public.

These questions send requests that no visitor sends, so they are asked on request only. None of them signs in or carries a secret.
"""

from __future__ import annotations

import re
import typing as t

from .app import App
from .health import FAIL, WARN, Check, judge
from .http_probe import REDIRECTS, Answer, ProbeError, Target, bracketed, fetch
from .processes import listeners
from .release_plan import instances, listen_address
from .runtime import SWARM, name_of
from .world import World

Data = dict[str, t.Any]

LOOPBACK = "127.0.0.1"
NGINX = "/etc/nginx"
NGINX_DEPTH = 4
NGINX_BYTES = 256 * 1024

#: An origin that nobody can have: the domain is reserved, RFC 2606.
FOREIGN = "https://anchorage-foreign.invalid"

#: Where Medusa's middleware applies the origins of its three settings.
#: Measured with Medusa 2.21: a preflight is answered only for a method that the path has.
ORIGINS = {"STORE_CORS": "/store/products", "ADMIN_CORS": "/admin/products", "AUTH_CORS": "/auth/session"}
METHODS = {"/auth/session": "POST"}

#: What Nginx writes into the pages of errors that are its own.
PAGE_OF_NGINX = "<center>nginx"


class Site(t.NamedTuple):
    """Where the site of an app is asked."""

    domain: str
    address: str
    secure: bool

    def target(self, path: str, *, plain: bool = False, **more: t.Any) -> Target:
        """Return the way to a path. Whether the certificate is good is asked elsewhere."""
        secure = self.secure and not plain
        url = f"{'https' if secure else 'http'}://{self.domain}{path}"
        return Target(url, connect_to=f"{bracketed(self.address)}:{443 if secure else 80}", validate_certs=False, **more)


def site_of(document: Data) -> Site | None:
    """Return the site of an app, or None where it has none with a name that can be asked for."""
    plain = [domain for domain in document.get("domains") or [] if not domain.startswith("*.")]
    if not plain or not document.get("proxy_address"):
        return None
    return Site(plain[0], document["proxy_address"], document["tls"]["mode"] != "off")


def environment_of(document: Data) -> dict[str, str]:
    """Return what the public process is told by its environment, without secrets."""
    process = next((process for process in document["processes"] if process["public"]), {})
    return {**(document.get("env") or {}), **(process.get("env") or {})}


def origins_of(text: str) -> list[str]:
    """Return the origins of a list that are no expressions, as browsers send them: without a path, and without a slash at the end."""
    return ["/".join(origin.split("/")[:3]) for origin in (part.strip() for part in text.split(",")) if origin.startswith(("http://", "https://"))]


class Asker:
    """Asks and remembers how many seconds are left."""

    def __init__(self, world: World, seconds: float) -> None:
        self.world = world
        self.end = world.monotonic() + seconds

    def fetch(self, target: Target) -> Answer:
        """Ask once.

        :raises ProbeError: when no answer came, or the time is over.
        """
        left = self.end - self.world.monotonic()
        if left <= 0:
            raise ProbeError("timeout", f"there was no time left to ask for {target.url}", "the load of this host")
        return fetch(target, seconds=left)


def judged(name: str, ask: t.Callable[[], Check]) -> Check:
    """Return a check; one that could not be asked does not hold, since nothing is known then."""
    try:
        return ask()
    except ProbeError as error:
        return Check(name, FAIL, {}, f"it could not be asked: {error}", error.advice)
    except Exception as error:  # one that breaks takes none of the others along
        return Check(name, FAIL, {}, f"it could not be asked: {type(error).__name__}: {error}")


# ---- origins ---------------------------------------------------------------------------------------------------------


def judge_origins(asker: Asker, site: Site, path: str, setting: str, allowed: t.Sequence[str]) -> Check:
    """Judge that a foreign origin gets no permission, and the first one of the setting does."""
    wrong, loose = [], []
    seen = {}
    preflight = {"Access-Control-Request-Method": METHODS.get(path, "GET")}
    for method, more in (("GET", {}), ("OPTIONS", preflight)):
        answer = asker.fetch(site.target(path, method=method, headers={"Origin": FOREIGN, **more}))
        given = answer.header("Access-Control-Allow-Origin")
        seen[f"{method} {FOREIGN}"] = {"status": answer.status, "allowed": given}
        if answer.status >= 500:
            wrong.append(f"{method} {path} answered {answer.status}, so nothing is known")
        elif given == "*" and not setting and (answer.header("Access-Control-Allow-Credentials") or "").lower() != "true":
            loose.append(f"{method} {path} may be read by any site (Access-Control-Allow-Origin: *), though with nobody's session")
        elif given in (FOREIGN, "*"):
            wrong.append(f"{method} {path} lets any origin in (Access-Control-Allow-Origin: {given})")
    for origin in allowed[:1]:
        answer = asker.fetch(site.target(path, method="OPTIONS", headers={"Origin": origin, **preflight}))
        given = answer.header("Access-Control-Allow-Origin")
        seen[f"OPTIONS {origin}"] = {"status": answer.status, "allowed": given}
        if given != origin:
            wrong.append(f"{path} does not let {origin} in, which {setting} names")
    told = {"evidence": {"setting": setting, "seen": seen}, "cause": "; ".join(wrong or loose), "advice": f"{setting or 'CORS'} of the app"}
    return judge(f"origins:{path}", not wrong and not loose, severity=FAIL if wrong else WARN, **told)


def ask_origins(asker: Asker, site: Site, document: Data) -> list[Check]:
    """Ask the paths where the app's own settings apply; where it has none, its first page."""
    env = environment_of(document)
    wanted = [(path, key, origins_of(str(env[key]))) for key, path in ORIGINS.items() if env.get(key)] or [("/", "", [])]
    return [judged(f"origins:{path}", lambda path=path, key=key, known=known: judge_origins(asker, site, path, key, known)) for path, key, known in wanted]


# ---- plain http ------------------------------------------------------------------------------------------------------


def judge_plain_http(asker: Asker, site: Site) -> Check:
    """Judge that plain http leads to https and sets nothing that could be read on its way."""
    try:
        answer = asker.fetch(site.target("/", plain=True))
    except ProbeError as error:
        if error.kind in ("refused", "unreachable", "timeout"):  # where nobody listens, nothing is told
            return Check("plain_http", evidence={"answer": str(error)})
        raise
    location, cookies = answer.header("Location") or "", answer.header("Set-Cookie")
    wrong = []
    if answer.status not in REDIRECTS or not location.startswith("https://"):
        wrong.append(f"http://{site.domain}/ answers {answer.status} instead of leading to https")
    if cookies:
        names = sorted({part.partition("=")[0].strip() for key, part in answer.headers if key.lower() == "set-cookie"})
        wrong.append(f"http://{site.domain}/ sets the cookie {', '.join(names)}")
    evidence = {"status": answer.status, "location": location, "sets_cookies": bool(cookies)}
    return judge("plain_http", not wrong, evidence=evidence, cause="; ".join(wrong), advice="the site's tls mode, and site.yml")


# ---- webhooks --------------------------------------------------------------------------------------------------------


def judge_webhook(asker: Asker, site: Site, path: str, direct: Target) -> Check:
    """Judge that a POST without a signature reaches the app, and that the app itself refuses it."""
    given = {"method": "POST", "body": "{}", "headers": {"Content-Type": "application/json"}}
    answer = asker.fetch(site.target(path, **given))
    evidence: Data = {"path": path, "status": answer.status}
    name, advice = f"webhook:{path}", "the app's route, and webhooks in its contract"
    if PAGE_OF_NGINX in answer.text:
        return Check(
            name, FAIL, evidence, f"the proxy itself answers an unsigned POST to {path} with {answer.status}, so webhooks do not reach the app", advice
        )
    if answer.status < 300:
        return Check(name, WARN, evidence, f"{path} takes an unsigned POST ({answer.status}); see that the app looks at the signature later", advice)
    own = asker.fetch(direct)
    evidence["status_of_the_app"] = own.status
    if answer.status >= 500 or answer.status < 400:
        return Check(name, FAIL, evidence, f"{path} answers an unsigned POST with {answer.status} instead of refusing it", advice)
    cause = f"{path} answers {answer.status} to an unsigned POST and the app itself {own.status}, so the proxy refuses it first"
    return judge(name, own.status == answer.status, evidence=evidence, cause=cause, advice=advice)


def ask_webhooks(asker: Asker, site: Site, app: App, document: Data) -> list[Check]:
    """Ask each webhook of the contract, at the site and at the app's own port."""
    found = []
    public = [item for item in instances(document, app.journal.slot or "blue", public=True) if item.port is not None]
    # Where the app itself is asked is not known where a Swarm places its tasks.
    for path in document.get("webhooks") or [] if public and name_of(document) != SWARM else []:
        url = f"http://{bracketed(listen_address(document, public[0].process))}:{public[0].port}{path}"
        headers = {"Host": site.domain, "X-Forwarded-Proto": "https" if site.secure else "http", "Content-Type": "application/json"}
        direct = Target(url, method="POST", body="{}", headers=headers)
        found.append(judged(f"webhook:{path}", lambda path=path, direct=direct: judge_webhook(asker, site, path, direct)))
    return found


# ---- processes that are not public -----------------------------------------------------------------------------------


def configuration(world: World, directory: str = NGINX, depth: int = NGINX_DEPTH) -> t.Iterator[tuple[str, str]]:
    """Yield the files that the web server may read with what stands in them, comments left out."""
    for name in world.listdir(directory):
        path = f"{directory}/{name}"
        if world.listdir(path):
            if depth and not name.endswith("-available"):
                yield from configuration(world, path, depth - 1)
            continue
        if not name.endswith(".conf") and not directory.endswith("/sites-enabled"):
            continue
        try:
            text = world.read_part(path, 0, NGINX_BYTES).decode("utf-8", "replace")
        except OSError:  # a directory that is empty, or a link that leads nowhere
            continue
        yield path, re.sub(r"(?m)(?<![^\s;{}])#.*$", "", text)


def judge_worker_route(world: World, document: Data) -> Check:
    """Judge that no way leads from outside to processes that are not public."""
    names: dict[int, str] = {}
    for slot in ("blue", "green"):
        names.update({item.port: item.name for item in instances(document, slot, public=False) if item.port is not None})
    wrong = [
        f"{names[item.port]} listens on {item.address}:{item.port}, beyond loopback" for item in listeners(world) if item.port in names and not item.loopback
    ]
    here = world.exists(f"{NGINX}/nginx.conf")
    if here:
        port = re.compile(r"(?:127\.[0-9.]+|localhost|\[::1\]):(\d{1,5})\b")
        for path, text in configuration(world):
            known = sorted({int(found) for found in port.findall(text)} & names.keys())
            wrong += [f"{path} leads to port {number} of {names[number]}" for number in known]
    evidence = {"ports": sorted(names), "configuration_read": here}
    return judge("worker_route", not wrong, evidence=evidence, cause="; ".join(wrong), advice="the sites in /etc/nginx, and HOST of the app")


# ---- all of them -----------------------------------------------------------------------------------------------------


def ask(app: App, document: Data, *, seconds: float) -> list[Check]:
    """Return everything that must be refused, asked once.

    :arg document: of the live release.
    """
    asker = Asker(app.world, seconds)
    site = site_of(document)
    found: list[Check] = []
    if site:
        found += ask_origins(asker, site, document)
        if site.secure:
            found.append(judged("plain_http", lambda: judge_plain_http(asker, site)))
        found += ask_webhooks(asker, site, app, document)
    if any(item.port is not None for slot in ("blue", "green") for item in instances(document, slot, public=False)):
        found.append(judged("worker_route", lambda: judge_worker_route(app.world, document)))
    return found
