# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is put under load: the real shop, and a plain app that cannot stop gracefully. Each says how it is released and how it is used."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import random
import ssl
import time
import typing as t

from ..lab import images
from .client import Answer, Failure, Kind, Site
from .ground import ROOT, Fleet, Ground
from .results import fleet_plan, plan


class Jobs:
    """Jobs that the site took on, and what became of them."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.taken = 0

    def accepted(self, answer: Answer) -> None:
        """Remember a job by its token."""
        token = answer.json().get("token")
        if not token:
            raise Failure("wrong answer", "no token of a job")
        self.sent.append(token)

    def take(self) -> list[str]:
        """Return the jobs that came since the last look."""
        begin, self.taken = self.taken, len(self.sent)
        return self.sent[begin : self.taken]


def stamp(number: int) -> str:
    """Return what makes a release one that nobody saw before."""
    return f"{number} {time.time_ns()}"


class Subject:
    """One app under load."""

    name = ""
    lab = ""
    docker = False
    kind = Ground

    def __init__(self) -> None:
        self.ground = self.kind(self.lab, "shop" if self.name == "shop" else "plain", docker=self.docker)
        self.jobs: Jobs | None = None

    @property
    def plan(self) -> list[str]:
        """Return what is done, in order."""
        return fleet_plan() if self.kind is Fleet else plan()

    def built(self, number: int) -> dict[str, t.Any]:
        """Return the contract of a release that the host builds."""
        raise NotImplementedError

    def prebuilt(self, number: int) -> dict[str, t.Any]:
        """Return the contract of a release that comes as an archive with everything built."""
        raise NotImplementedError

    def prepare(self, site: Site) -> None:
        """Make what visitors need."""

    def kinds(self) -> list[Kind]:
        """Return what visitors do."""
        raise NotImplementedError

    def finished(self, tokens: t.Collection[str]) -> dict[str, int]:
        """Return how often each of these jobs was done."""
        raise NotImplementedError

    def serving(self, site: Site) -> str:
        """Return the release that answers."""
        raise NotImplementedError


def ask(site: Site, method: str, path: str, body: t.Any = None, headers: t.Mapping[str, str] | None = None) -> tuple[int, t.Any]:
    """Send one request outside the count."""
    context = t.cast(ssl.SSLContext, site.context())

    class Named(http.client.HTTPSConnection):
        """Speaks to the published port, and means the site."""

        def connect(self) -> None:
            http.client.HTTPConnection.connect(self)
            self.sock = context.wrap_socket(self.sock, server_hostname=site.name)

    connection = Named(site.address, site.port, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body), {"Host": site.name, "Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text.decode("utf-8", "replace")


def must(site: Site, method: str, path: str, body: t.Any = None, headers: t.Mapping[str, str] | None = None) -> t.Any:
    """Do the same where only success will do."""
    status, data = ask(site, method, path, body, headers)
    if status >= 400:
        raise SystemExit(f"load: {method} {path} was answered with {status}: {str(data)[:300]}")
    return data


def says(text: bytes) -> t.Callable[[Answer], None]:
    """Return a check of a whole answer."""

    def check(answer: Answer) -> None:
        if answer.body != text:
            raise Failure("wrong answer", repr(answer.body[:80]))

    return check


def has(key: str) -> t.Callable[[Answer], None]:
    """Return a check that an answer has a key, whatever stands there."""

    def check(answer: Answer) -> None:
        if key not in answer.json():
            raise Failure("wrong answer", f"no {key} in {answer.body[:80]!r}")

    return check


def holds(key: str) -> t.Callable[[Answer], None]:
    """Return a check that there is a value under a key of an answer."""

    def check(answer: Answer) -> None:
        if not answer.json().get(key):
            raise Failure("wrong answer", f"no {key} in {answer.body[:80]!r}")

    return check


class Shop(Subject):
    """The real shop with server and worker, as make demo has it."""

    name = "shop"
    lab = "load"
    source = ROOT / "examples" / "medusa-shop"

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.key = ""
        self.password = ""
        self.asset = ""
        self.region = ""

    def _app(self, **more: t.Any) -> dict[str, t.Any]:
        return {"preset": "medusa", "rate_limit": None, "admin": {"email": "admin@example.com"}, **more}

    def built(self, number: int) -> dict[str, t.Any]:
        place = self.ground.copy(self.source, f"source-{number}")
        file = place / "src" / "modules" / "pulse" / "identity.ts"
        file.write_text(f'{file.read_text()}\nexport const loadRelease = "{stamp(number)}"\n')
        return self._app(source={"path": str(place)})

    def prebuilt(self, number: int) -> dict[str, t.Any]:
        source = self.ground.offer(f"shop-{number}.tar", {"./load-release.txt": stamp(number).encode()}, self.ground.built("static"))
        return self._app(source=source, build={"command": None, "output": "."})

    def prepare(self, site: Site) -> None:
        secrets = json.loads(self.ground.shell("cat /etc/anchorage/secrets/shop.json"))
        self.password = secrets["admin_password"]
        token = must(site, "POST", "/auth/user/emailpass", self._login())["token"]
        admin = {"Authorization": f"Bearer {token}"}
        regions = must(site, "GET", "/admin/regions", None, admin)["regions"]
        made = regions or [must(site, "POST", "/admin/regions", {"name": "Everywhere", "currency_code": "eur", "countries": ["de"]}, admin)["region"]]
        self.region = made[0]["id"]
        keys = must(site, "GET", "/admin/api-keys?type=publishable", None, admin)["api_keys"]
        key = keys[0] if keys else must(site, "POST", "/admin/api-keys", {"title": "Load", "type": "publishable"}, admin)["api_key"]
        channels = must(site, "GET", "/admin/sales-channels", None, admin)["sales_channels"]
        channel = channels[0] if channels else must(site, "POST", "/admin/sales-channels", {"name": "Load"}, admin)["sales_channel"]
        must(site, "POST", f"/admin/api-keys/{key['id']}/sales-channels", {"add": [channel["id"]]}, admin)
        self.key = key["token"]
        page = must(site, "GET", "/app")
        self.asset = next(word for word in str(page).split('"') if word.startswith("/app/assets/") and word.endswith(".css"))

    def _login(self) -> dict[str, str]:
        return {"email": "admin@example.com", "password": self.password}

    def kinds(self) -> list[Kind]:
        jobs = t.cast(Jobs, self.jobs)
        plain = {"Content-Type": "application/json"}
        store = {**plain, "x-publishable-api-key": self.key}
        hold = itertools.cycle((0, 0, 200, 0, 1500))
        cart = json.dumps({"region_id": self.region}).encode()
        return [
            Kind("GET health", 110, "/health", visitors=16, check=says(b"OK")),
            Kind("GET health, fresh connection", 10, "/health", visitors=2, kept=False, check=says(b"OK")),
            Kind("GET info", 20, "/ops/info", visitors=3, check=holds("release")),
            Kind("GET ready", 2, "/ops/ready", visitors=1, check=holds("ready")),
            Kind("GET slow", 2, "/ops/slow?ms=1500", visitors=4, asked=1.5, check=holds("release")),
            Kind("GET admin", 1, "/app", visitors=1),
            Kind("GET asset", 1, self.asset, visitors=1),
            Kind("GET products", 3, "/store/products", headers=store, visitors=2, check=has("products")),
            Kind("POST cart", 0.5, "/store/carts", "POST", cart, store, visitors=1, check=holds("cart")),
            Kind("POST cart, fresh connection", 0.3, "/store/carts", "POST", cart, store, visitors=1, kept=False, check=holds("cart")),
            Kind("POST login", 0.2, "/auth/user/emailpass", "POST", json.dumps(self._login()).encode(), plain, check=holds("token")),
            Kind("POST job", 0.7, lambda: f"/ops/pulses?hold_ms={next(hold)}", "POST", b"{}", plain, 202, jobs.accepted, visitors=2),
            Kind("POST job, fresh connection", 0.3, "/ops/pulses", "POST", b"{}", plain, 202, jobs.accepted, kept=False),
            Kind("POST job, slow body", 0.3, "/ops/pulses", "POST", drip, plain, 202, jobs.accepted, visitors=2, dripping=5.0),
        ]

    def finished(self, tokens: t.Collection[str]) -> dict[str, int]:
        rows = self.ground.sql("SELECT token, count(*) FROM pulse_beat WHERE token IS NOT NULL AND created_at > now() - interval '2 hours' GROUP BY token")
        return {token: int(count) for token, count in rows if token in tokens}

    def serving(self, site: Site) -> str:
        return t.cast(str, must(site, "GET", "/ops/info")["release"])


def drip() -> bytes:
    """Return a body that is worth sending slowly."""
    return json.dumps({"note": "".join(random.choices("abcdefgh", k=4000))}).encode()


class Plain(Subject):
    """A server without any handler of signals: it dies at once, with all requests that it has in hand."""

    name = "node"
    lab = "loadnode"
    source = ROOT / "tests" / "apps" / "abrupt"

    def _app(self, **more: t.Any) -> dict[str, t.Any]:
        server = {"command": ["node", "server.js"], "public": True, "stop_seconds": 5, "health": {"path": "/health", "body": "OK", "deadline_seconds": 30}}
        return {"preset": "node", "processes": {"server": server}, **more}

    def _files(self, number: int) -> dict[str, bytes]:
        files = {path.name: path.read_bytes() for path in sorted(self.source.iterdir()) if path.is_file()}
        return {**files, "number.txt": stamp(number).encode()}

    def built(self, number: int) -> dict[str, t.Any]:
        place = self.ground.copy(self.source, f"source-{number}")
        (place / "number.txt").write_text(stamp(number))
        return self._app(source={"path": str(place)}, build={"command": ["node", "build.js"], "output": "built"})

    def prebuilt(self, number: int) -> dict[str, t.Any]:
        return self._app(source=self.ground.offer(f"plain-{number}.tar", {f"./{name}": data for name, data in self._files(number).items()}))

    def kinds(self) -> list[Kind]:
        numbers = itertools.count(1)
        plain = {"Content-Type": "text/plain"}

        def echo() -> bytes:
            return f"note {next(numbers)} {'x' * 500}".encode()

        def noted(answer: Answer) -> None:
            if answer.json().get("bytes", 0) < 500:
                raise Failure("wrong answer", repr(answer.body[:80]))

        return [
            Kind("GET health", 150, "/health", visitors=15, check=says(b"OK")),
            Kind("GET health, fresh connection", 15, "/health", visitors=3, kept=False, check=says(b"OK")),
            Kind("GET page", 60, "/page", visitors=10, check=holds("release")),
            Kind("GET slow", 6, "/slow?ms=1500", visitors=12, asked=1.5, check=holds("release")),
            Kind("GET slow, fresh connection", 2, "/slow?ms=1000", visitors=4, kept=False, asked=1.0, check=holds("release")),
            Kind("GET large answer", 2, "/large", visitors=2, check=lambda answer: None if len(answer.body) == 2_000_000 else says(b"2 MB")(answer)),
            Kind("POST note", 20, "/note", "POST", echo, plain, 201, noted, visitors=4),
            Kind("POST note, fresh connection", 5, "/note", "POST", echo, plain, 201, noted, visitors=2, kept=False),
            Kind("POST slow", 3, "/slow?ms=1200", "POST", echo, plain, 201, noted, visitors=6, asked=1.2),
            Kind("POST note, slow body", 0.6, "/note", "POST", drip, plain, 201, noted, visitors=4, dripping=5.0),
        ]

    def serving(self, site: Site) -> str:
        return t.cast(str, must(site, "GET", "/page")["release"])


class Contained(Plain):
    """The same server in containers, where nothing but the switch and the drain stands between it and its visitors either."""

    name = "containers"
    lab = "loadcontainers"
    docker = True

    def _app(self, **more: t.Any) -> dict[str, t.Any]:
        return super()._app(runtime="compose", image={"base": images.STAND_INS["node"]}, **more)


class Spread(Plain):
    """The same server on three hosts behind a proxy."""

    name = "fleet"
    lab = "loadfleet"
    kind = Fleet

    #: Of the rates of one host: here ten services and their visitors share the cores of one machine.
    share = 0.3

    def kinds(self) -> list[Kind]:
        return [dataclasses.replace(kind, per_second=kind.per_second * self.share) for kind in super().kinds()]


SUBJECTS: dict[str, type[Subject]] = {"shop": Shop, "node": Plain, "containers": Contained, "fleet": Spread}
