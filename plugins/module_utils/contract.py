# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract: what users write about their apps becomes one resolved, complete description, or one list of everything that is wrong."""

from __future__ import annotations

import fnmatch
import typing as t

from . import components, contract_together
from . import contract_rules as rules
from .contract_spec import fill, look_up, merge, plain, sound
from .contract_together import POSTGRESQL_PORT, REDIS_PORT, endpoint
from .errors import AnchorageError
from .runtime import COMPOSE, CONTAINED, CONTROLLER, SWARM

Data = dict[str, t.Any]
Report = t.Callable[[str, str], None]

GROUPS = ("app", "database", "cache", "proxy")
FIRST_PORT, PORTS_PER_APP = 9000, 20
FIRST_REDIS_PORT, REDIS_PORTS_PER_APP = REDIS_PORT, 2
#: Where other hosts reach Redis, over TLS: one port cannot be both, and on the way from one to the other both are open.
FIRST_REDIS_TLS_PORT = 7379
#: Of apps in containers: ports of loopback, so that they never meet a PostgreSQL of the host.
FIRST_CONTAINER_PORT = 15432
POSTGRESQL_IMAGE, REDIS_IMAGE = "postgres:17", "redis:7"

# Bounds of plain numbers, by their path in an app.
BOUNDS = {
    "secrets.min_length": (16, 512),
    "build.memory_mb": (256, 65536),
    "build.timeout_seconds": (10, 86400),
    "migrate.timeout_seconds": (1, 86400),
    "migrate.lock_timeout_seconds": (1, 3600),
    "migrate.statement_timeout_seconds": (1, 86400),
    "migrate.memory_mb": (64, 65536),
    "migrate.restore_point.timeout_seconds": (1, 86400),
    "migrate.restore_point.keep": (1, 1000),
    "migrate.large_table_mb": (0, 1048576),
    "migrate.rehearsal.max_lock_seconds": (0, 3600),
    "database.pool.size": (1, 10000),
    "redis.jobs.maxmemory_mb": (16, 1048576),
    "redis.cache.maxmemory_mb": (16, 1048576),
    "rate_limit.requests_per_second": (1, 100000),
    "rate_limit.burst": (0, 100000),
    "max_body_mb": (1, 10240),
    "timeout_seconds": (1, 3600),
    "keep_releases": (2, 50),
    "hold_seconds": (5, 600),
    "soak.seconds": (0, 3600),
    "soak.max_error_percent": (0, 100),
    "soak.max_slowdown": (1, 1000),
    "keep_mb": (0, 1 << 30),
}
PROCESS_BOUNDS: dict[str, tuple[float, float]] = {
    "instances": (0, 64),
    "memory_mb": (64, 1048576),
    "drain_seconds": (0, 3600),
    "stop_seconds": (1, 3600),
    "health.status": (100, 599),
    "health.deadline_seconds": (1, 3600),
    "health.interval_seconds": (0.1, 60),
    "health.successes": (1, 100),
    "heartbeat.max_age_seconds": (1, 86400),
}


class Problem(t.NamedTuple):
    """One broken rule."""

    path: str
    rule: str

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}"


class ContractError(AnchorageError):
    """Everything that is wrong with a contract."""

    def __init__(self, problems: list[Problem]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{number:2}. {problem}" for number, problem in enumerate(problems, 1)]
        super().__init__("\n".join([f"The contract has {count}; no host was touched.", *lines]), problems=[str(problem) for problem in problems])
        self.problems = problems


def resolve(apps: t.Any, topology: t.Any, *, spec: Data, presets: dict[str, Data], component_files: dict[str, Data] | None = None, scale: t.Any = None) -> Data:
    """Return the resolved contract.

    :arg apps: app name to what the user wrote.
    :arg topology: group to list of C({name, address}).
    :arg scale: app to process to the number of instances that holds in place of what the user wrote. Those apps keep the source that is live.
    :arg spec: the entry points of the argument spec that describe an app, a process and a component.
    :arg presets: preset name to its data file.
    :arg component_files: component name to its data file.
    :raises ContractError: with every broken rule at once.
    """
    problems: list[Problem] = []

    def report(path: str, rule: str) -> None:
        if path not in [problem.path for problem in problems]:
            problems.append(Problem(path, rule))

    places = check_topology(plain(topology), report)
    given, scale = plain(apps), plain(scale) or {}
    if not isinstance(given, dict):
        report("apps", "must be a mapping of app names to apps")
        raise ContractError(problems)
    for name in scale:
        if name not in given:
            report(f"apps.{name}", f"is no app that could be scaled; there are {', '.join(map(str, given)) or 'none'}")
    resolved = {}
    for index, (name, app) in enumerate(given.items()):
        path = f"apps.{name}"
        wrong = rules.name(str(name))
        if wrong:
            report(path, wrong)
        if not isinstance(app, dict):
            report(path, "must be a mapping of keys")
            continue
        resolved[str(name)] = _App(str(name), index, app, places, spec, presets, component_files or {}, report, scale.get(name)).resolve()
    contract_together.check(resolved, places, report)
    if problems:
        raise ContractError(problems)
    return {"topology": places, "apps": resolved, **({"scaled": list(scale)} if scale else {})}


def check_topology(topology: t.Any, report: Report) -> dict[str, list[dict[str, str]]]:
    """Return the four groups with their hosts; a group that is missing is empty."""
    places: dict[str, list[dict[str, str]]] = {}
    for group in GROUPS:
        hosts = topology.get(group) if isinstance(topology, dict) else None
        places[group] = []
        for host in hosts if isinstance(hosts, list) else [hosts] if hosts else []:
            if not isinstance(host, dict) or not host.get("name") or not host.get("address"):
                report(f"topology.{group}", "must be a list of {name, address}")
                continue
            places[group].append({"name": str(host["name"]), "address": str(host["address"])})
    if not places["app"]:
        report("topology.app", "holds no host; put the host into group app of the inventory")
    if len({host["name"] for hosts in places.values() for host in hosts}) > 1:
        for group, hosts in places.items():
            for host in hosts:
                wrong = rules.private_address(host["address"])
                if wrong:
                    report(f"topology.{group}", f"{host['name']} {wrong}; set anchorage_address to the address at which the other hosts reach it")
    return places


class _App:
    """One app on its way from what the user wrote to its resolved form."""

    def __init__(
        self,
        name: str,
        index: int,
        given: Data,
        places: Data,
        spec: Data,
        presets: dict[str, Data],
        component_files: dict[str, Data],
        report: Report,
        scale: Data | None,
    ) -> None:
        self.name = name
        self.index = index
        self.given = given
        self.places = places
        self.path = f"apps.{name}"
        self.spec = spec
        self.component_files = component_files
        self.report = report
        self.scale = scale or {}
        preset = given.get("preset")
        self.preset: Data = presets.get(preset, {}) if isinstance(preset, str) else {}

    def wrong(self, key: str, rule: str | None) -> None:
        """Report a broken rule of a key of this app, if there is one."""
        if rule:
            self.report(f"{self.path}.{key}", rule)

    def resolve(self) -> Data:
        app = self._filled()
        self._check_numbers(app)
        domains = self._domains(app)
        url = self._url(app, domains)
        processes = self._processes(app)
        env = self._env("env", self.given.get("env") or {}, app["env"], app, reserved=True)
        derived = self._derived(env, url)
        self._check_cors(env, derived)
        env = {**derived, **env}
        self._check_needs(app)
        self._check_alone(app)
        for process in processes:
            for key in self.preset.get("cors", []):
                if key in process["env"]:
                    self.wrong(f"processes.{process['name']}.env.{key}", rules.origins(process["env"][key]))
        public = [process["name"] for process in processes if process["public"]]
        if public and not domains:
            self.wrong("domain", f"is required, since the process {public[0]} is public")
        if domains and processes and not public:
            self.wrong("processes", "none is public although the app has a domain; set public: true on the one that serves it")
        hosts = self._hosts(app)
        self._check_strategy(app, hosts, public)
        build = self._build(app, env)
        image = self._image(app, hosts)
        database, redis = self._database(app), self._redis(app, hosts)
        if redis["jobs"] and redis["jobs"]["tls_port"] or database["host"] and not database["image"] and any(name != database["host"] for name in hosts):
            self._check_trust({"env": env, **{f"processes.{process['name']}.env": process["env"] for process in processes}})
        beside = self._components(app, hosts, bool(database["image"]), bool(redis["image"]))
        return {
            "name": self.name,
            "preset": app["preset"],
            "runtime": app["runtime"],
            "mode": app["mode"],
            "user": self.name,
            "group": self.name,
            "home": f"/srv/{self.name}",
            "hosts": hosts,
            "secrets_host": self._secrets_host(app, hosts) if app["runtime"] != COMPOSE else next(iter(hosts), None),
            "source": self._source(app),
            "image": image,
            "package_manager": app["package_manager"],
            "domains": domains,
            "edge_port": self._edge_port(app) if domains and public and app["runtime"] != SWARM else None,
            "url": url,
            "tls": self._tls(app, [*domains, *(component["domain"] for _name, component in components.sites({"components": beside}))]),
            "env": env,
            "secret_keys": sorted({key for part in (env, build["env"], *(process["env"] for process in processes)) for key in rules.secrets_in(part)}),
            "generated": self._generated(app, env),
            **self._rotation(app, env),
            "aliases": dict(self.preset.get("aliases", {})),
            "build": build,
            "migrate": self._migrate(app),
            "database": database,
            "redis": redis,
            "components": beside,
            "processes": processes,
            "shared": self._each("shared", app["shared"], rules.relative),
            "admin": self._admin(app),
            "rate_limit": self._rate_limit(app),
            "webhooks": self._each("webhooks", app["webhooks"], rules.prefix),
            "max_body_mb": app["max_body_mb"],
            "timeout_seconds": app["timeout_seconds"],
            "keep_releases": app["keep_releases"],
            "strategy": app["strategy"],
            "hold_seconds": app["hold_seconds"],
            "soak": app["soak"],
            "keep_mb": app["keep_mb"],
        }

    def _check_trust(self, environments: dict[str, dict[str, str]]) -> None:
        """Refuse what would hide the fleet's authority from a process that reaches other hosts over TLS."""
        for path, env in environments.items():
            if "NODE_EXTRA_CA_CERTS" in env:
                self.wrong(f"{path}.NODE_EXTRA_CA_CERTS", "is set by the release, for TLS between hosts; name your own authorities in release_extra_ca_file")

    def _check_strategy(self, app: Data, hosts: t.Sequence[str], public: t.Sequence[str]) -> None:
        if app["strategy"] != "hold":
            return
        proxies = {place["name"] for place in self.places["proxy"]}
        if app["runtime"] == SWARM:
            self.wrong("strategy", f"hold is not for runtime {SWARM}, which starts the new before it stops the old")
        elif not public:
            self.wrong("strategy", "hold is for an app that answers requests; for this one set overlap: false on its processes")
        elif len(hosts) > 1 or set(hosts) != proxies:
            self.wrong("strategy", "hold is for an app on one host, which is its own proxy; leave it out, or let the app's hosts name that one")
        if isinstance(app["hold_seconds"], int) and isinstance(app["timeout_seconds"], int) and app["hold_seconds"] >= app["timeout_seconds"]:
            self.wrong("hold_seconds", "must be less than timeout_seconds, after which the proxy gives up on those who wait")

    def _image(self, app: Data, hosts: t.Sequence[str]) -> Data | None:
        """Return how the app's image is made; None where it runs without one."""
        image, given = app["image"], self.given.get("image") or {}
        if app["runtime"] != COMPOSE:
            for service, keys in (("database", ("image", "port")), ("redis", ("image",))):
                for key in keys:
                    if app[service][key] is not None:
                        self.wrong(f"{service}.{key}", f"belongs to runtime {COMPOSE}, not to {app['runtime']}")
        if app["runtime"] not in CONTAINED:
            for key in given:
                self.wrong(f"image.{key}", f"belongs to runtime {' and '.join(CONTAINED)}, not to {app['runtime']}")
            return None
        proxies = {place["name"] for place in self.places["proxy"]}
        if app["runtime"] == COMPOSE and (len(hosts) > 1 or (app["domain"] or app["domains"]) and set(hosts) != proxies):
            wider = f"let the app's hosts name that one, or use runtime {SWARM}"
            self.wrong("runtime", f"{COMPOSE} is for an app on one host, which is its own proxy; {wider}")
        if app["runtime"] == SWARM:
            self._check_swarm(app, hosts)
        for key, text in (("image.base", image["base"]), ("database.image", app["database"]["image"]), ("redis.image", app["redis"]["image"])):
            if text is not None:
                self.wrong(key, rules.image(text))
        if image["dockerfile"] is not None:
            self.wrong("image.dockerfile", rules.relative(image["dockerfile"]))
        elif given.get("build_args"):
            self.wrong("image.build_args", "belongs to image.dockerfile; what the build of this app needs goes into build.env")
        image["build_args"] = self._env("image.build_args", given.get("build_args") or {}, image["build_args"], app, reserved=False)
        for key in rules.secrets_in(image["build_args"]):
            self.wrong(f"image.build_args.{key}", "would stay in the image's history, where everybody who has the image reads it")
        for key in rules.secrets_in(app["build"]["env"]):
            self.wrong(f"build.env.{key}", "is a secret, and a build in containers prints its lines where it fails; bring an image that was built elsewhere")
        brought = image["dockerfile"] is not None or (app["source"] or {}).get("image") is not None
        if image["build_on"] == CONTROLLER:
            self.wrong("image.build_on", rules.built_on_controller(app["source"] or {}, or_host=app["runtime"] == COMPOSE))
        self.wrong("image.directory", rules.image_directory(image["directory"]))
        if given.get("directory") is not None and not brought:
            self.wrong("image.directory", "belongs to image.dockerfile or source.image; where nothing is brought, the app lies in /app")
        if given.get("base") is not None and brought:
            self.wrong("image.base", "is for an app that brings neither a Dockerfile nor an image")
        for index, pattern in enumerate(app["build"]["directories"]):
            self.wrong(f"build.directories[{index}]", rules.shell_pattern(pattern))
        self.wrong("database.image", rules.postgres_image(app["database"]["image"]))
        return t.cast("Data", image)

    def _check_swarm(self, app: Data, hosts: t.Sequence[str]) -> None:
        """Judge what a Swarm cannot do, or not well."""
        if (app["source"] or {}).get("image") is None and app["image"]["build_on"] != CONTROLLER:
            rule = "must be controller, so that every node has the same image; or bring one that your CI has built, by source.image"
            self.wrong("image.build_on", f"{rule} (runtime {SWARM})")
        pinned = bool(app["shared"])
        for name, process in app["processes"].items():
            if process["public"] and process["instances"] > (1 if pinned else len(hosts)):
                why = "1 where the app has shared directories, which lie on one host; set shared: [] and keep files in an object store"
                rule = why if pinned else f"the {len(hosts)} hosts of the app, since its port is to be had once on each"
                self.wrong(f"processes.{name}.instances", f"must not be more than {rule} (runtime {SWARM})")
        for service, group in (("database", "database"), ("redis", "cache")):
            place = next((place["name"] for place in self.places[group]), None)
            if app[service]["enabled"] and not app[service]["url"] and place in hosts:
                rule = f"would live on {place}, a node of the Swarm, where containers do not reach it"
                self.wrong(service, f"{rule}; put another host into group {group}, or give {service}.url")

    # -- shape

    def _filled(self) -> Data:
        """Return the app with preset and defaults; C(given) becomes what is sound of it."""
        options, process_options = self.spec["contract"]["options"], self.spec["contract_process"]["options"]
        self.given = sound(options, self.given, self.path, self.report)
        self.given["processes"] = self._sound_processes(process_options)
        contract, modes = self.preset.get("contract", {}), self.preset.get("modes", {})
        mode = self.given.get("mode") or contract.get("mode")
        if mode and not modes and self.preset:
            self.wrong("mode", f"the preset {self.given['preset']} has no modes; leave the key out")
        contract = merge(contract, look_up(modes, f"{mode}.contract") or {})
        self._scale(contract.get("processes", {}), process_options)
        app = fill(options, merge(contract, self.given), self.path, self.report)
        for name, process in list(app["processes"].items()):
            path = f"processes.{name}"
            if name not in contract.get("processes", {}) and any(name in look_up(modes, f"{other}.contract.processes") for other in modes):
                self.wrong(path, f"mode {mode} has no process {name}; leave it out, or choose another mode")
                del app["processes"][name]
                continue
            filled = fill(process_options, process, f"{self.path}.{path}", self.report)
            if filled["health"] is None and filled["public"]:
                filled["health"] = fill(process_options["health"]["options"], {}, f"{self.path}.{path}.health", self.report)
            app["processes"][name] = filled
        return app

    def _sound_processes(self, options: Data) -> Data:
        processes = {}
        for name, process in (self.given.get("processes") or {}).items():
            path = f"processes.{name}"
            self.wrong(path, rules.process_name(str(name)))
            if isinstance(process, dict):
                processes[str(name)] = sound(options, process, f"{self.path}.{path}", self.report)
            else:
                self.wrong(path, "must be a mapping of keys")
        return processes

    def _scale(self, presets: Data, options: Data) -> None:
        processes = self.given["processes"]
        for name, count in self.scale.items():
            if name not in {**presets, **processes}:
                self.wrong(f"processes.{name}", f"is no process of this app; there are {', '.join({**presets, **processes})}")
                continue
            processes[name] = {**processes.get(name, {}), **sound(options, {"instances": count}, f"{self.path}.processes.{name}", self.report)}

    def _check_numbers(self, app: Data) -> None:
        least = self.preset.get("least", {})
        for key, (low, high) in BOUNDS.items():
            value = look_up(app, key)
            if value is not None:
                self.wrong(key, rules.between(max(low, least.get(key, low)), high)(value))

    def _check_needs(self, app: Data) -> None:
        needs = {**self.preset.get("needs", {}), **(look_up(self.preset, f"modes.{app['mode']}.needs") or {})}
        for key, reason in needs.items():
            if not look_up(app, key):
                self.wrong(key, f"cannot be switched off: {reason}")

    def _check_alone(self, app: Data) -> None:
        """Judge the processes of which there may never be two at once, on whatever host."""
        for name, reason in self.preset.get("alone", {}).items():
            process = app["processes"].get(name) or {"instances": 0, "overlap": False}
            if process["instances"] > 1:
                self.wrong(f"processes.{name}.instances", f"must be 1, or 0 to stop it: {reason}")
            if process["overlap"]:
                self.wrong(f"processes.{name}.overlap", f"must stay false: {reason}")
            if process["instances"] and len(self._hosts(app)) > 1 and app["runtime"] != SWARM:
                self.wrong("hosts", f"must name one host, since {name} runs on each of them: {reason}")

    def _each(self, key: str, values: list[str], rule: t.Callable[[str], str | None]) -> list[str]:
        for index, value in enumerate(values):
            self.wrong(f"{key}[{index}]", rule(value))
            if value in values[:index]:
                self.wrong(f"{key}[{index}]", "stands there twice")
        return values

    # -- where it comes from and where it runs

    def _source(self, app: Data) -> Data:
        source = app["source"] or {}
        kinds = [kind for kind in ("repo", "path", "archive", "image") if source.get(kind) is not None]
        if source and len(kinds) != 1:
            self.wrong("source", f"must hold exactly one of repo, path, archive and image, holds {' and '.join(kinds) or 'none'}")
        if "repo" in kinds:
            self.wrong("source.repo", rules.repository(source["repo"]))
            if source["version"] is None:
                self.wrong("source.version", "is required with repo; name a branch, a tag or a commit")
            else:
                self.wrong("source.version", rules.version(source["version"]))
        elif source.get("version") is not None and kinds:
            self.wrong("source.version", f"belongs to repo; a {kinds[0]} is its own version")
        if "archive" in kinds:
            self.wrong("source.archive", None if source["archive"].strip() else "is empty")
            if source["sha256"] is None:
                self.wrong("source.sha256", "is required with archive; sha256sum prints it")
            elif len(source["sha256"]) != 64 or set(source["sha256"].lower()) - set("0123456789abcdef"):
                self.wrong("source.sha256", "must be 64 hexadecimal digits")
        elif source.get("sha256") is not None and kinds:
            self.wrong("source.sha256", f"belongs to archive, not to {kinds[0]}")
        if "image" in kinds:
            if app["runtime"] not in CONTAINED:
                self.wrong("source.image", f"belongs to runtime {' and '.join(CONTAINED)}, not to {app['runtime']}")
            self.wrong("source.image", rules.image(source["image"], tagged=False))
            self.wrong("source.digest", rules.image_digest(source["digest"]))
        elif source.get("digest") is not None and kinds:
            self.wrong("source.digest", f"belongs to image, not to {kinds[0]}")
        if "path" in kinds:
            self.wrong("source.path", None if source["path"].strip() else "is empty")
        if source.get("subdir"):
            self.wrong("source.subdir", rules.relative(source["subdir"]))
        return {"kind": {"repo": "git"}.get(*kinds, *kinds) if len(kinds) == 1 else None, **source}

    def _hosts(self, app: Data) -> list[str]:
        known = [host["name"] for host in self.places["app"]]
        for index, name in enumerate(app["hosts"] or []):
            if name not in known:
                self.wrong(f"hosts[{index}]", f"{name} is no host of group app; there are {', '.join(known) or 'none'}")
            elif name in app["hosts"][:index]:
                self.wrong(f"hosts[{index}]", "stands there twice")
        if app["hosts"] == []:
            self.wrong("hosts", "is an empty list; leave it out to run on every host of group app")
        return [name for name in known if app["hosts"] is None or name in app["hosts"]]

    def _secrets_host(self, app: Data, hosts: list[str]) -> str | None:
        local = app["database"]["enabled"] and not app["database"]["url"] and self.places["database"]
        return self.places["database"][0]["name"] if local else (hosts[0] if hosts else None)

    # -- the web

    def _domains(self, app: Data) -> list[str]:
        if app["domain"] is not None and app["domains"] is not None:
            self.wrong("domains", "excludes domain; write all names into domains")
        keys = {"domain": app["domain"]} if app["domain"] is not None else {f"domains[{i}]": name for i, name in enumerate(app["domains"] or [])}
        for key, name in keys.items():
            wrong = rules.domain(name)
            self.wrong(key, wrong)
            if not wrong and name.startswith("*.") and app["tls"]["mode"] == "acme" and app["tls"]["challenge"] != "dns":
                self.wrong(key, "is a wildcard, for which certificates are only given by tls.challenge: dns (or tls.mode: files)")
        names = list(keys.values())
        if len(set(names)) < len(names):
            self.wrong("domains", "holds a name twice")
        return names

    def _url(self, app: Data, domains: list[str]) -> str | None:
        plain_http = app["tls"]["mode"] == "off"
        if app["url"] is None:
            if domains and domains[0].startswith("*."):
                self.wrong("domains[0]", "is the main name and cannot be a wildcard; put a full name first or write `url`")
            return f"{'http' if plain_http else 'https'}://{domains[0]}" if domains else None
        wrong = rules.url(app["url"], plain_http=plain_http)
        self.wrong("url", wrong)
        if not wrong:
            host = app["url"].split("://", 1)[1].rsplit(":", 1)[0]
            if host not in domains and f"*.{host.split('.', 1)[-1]}" not in domains:
                self.wrong("url", "its host is none of the app's domains")
        return str(app["url"])

    def _tls(self, app: Data, domains: list[str]) -> Data:
        tls = app["tls"]
        for key in ("certificate", "key"):
            if tls["mode"] == "files" and domains and not tls[key]:
                self.wrong(f"tls.{key}", "is required with tls.mode files")
            if tls["mode"] != "files" and tls[key] is not None:
                self.wrong(f"tls.{key}", f"belongs to tls.mode files, not to {tls['mode']}")
        return dict(tls)

    def _rate_limit(self, app: Data) -> Data | None:
        if app["rate_limit"]:
            self._each("rate_limit.paths", app["rate_limit"]["paths"] or [], rules.prefix)
            if app["rate_limit"]["paths"] == []:
                self.wrong("rate_limit.paths", "is an empty list; write rate_limit: null to limit nothing")
        return t.cast("Data | None", app["rate_limit"])

    def _admin(self, app: Data) -> Data | None:
        admin = app["admin"]
        if admin is None:
            return None
        if admin["email"]:
            self.wrong("admin.email", rules.email(admin["email"]))
        if admin["command"] is None:
            admin["command"] = self.preset.get("admin_command")
        if admin["command"] is not None:
            self.wrong("admin.command", rules.admin_command(admin["command"]))
        elif self.preset:
            self.wrong("admin.command", f"is required, since the preset {app['preset']} brings none")
        return t.cast("Data", admin)

    # -- environment

    def _env(self, path: str, given: Data, merged: Data, app: Data, *, reserved: bool) -> dict[str, str]:
        """Return an environment as text, after judging the user's part of it."""
        taken = dict(rules.RESERVED_ENV)
        for service, key in (("database", "DATABASE_URL"), ("redis", "REDIS_URL")):
            if app[service]["enabled"] or app[service]["url"]:
                taken[key] = f"is set by the release; a managed one goes into {service}.url"
        if app["database"]["read_url_env"]:
            taken[app["database"]["read_url_env"]] = "is set by the release, since database.read_url_env names it"
        if reserved:
            taken.update(self.preset.get("reserved_env", {}))
        env = {}
        for key, value in merged.items():
            here = f"{path}.{key}"
            wrong = rules.env_key(str(key))
            self.wrong(here, wrong)
            if key in given and str(key) in taken:
                self.wrong(here, taken[str(key)])
            text, wrong = rules.env_text(value)
            self.wrong(here, wrong)
            if wrong:
                continue
            self.wrong(here, self._secret(str(key), text, app))
            env[str(key)] = text
        return env

    def _secret(self, key: str, text: str, app: Data) -> str | None:
        return rules.secret(key, text, min_length=app["secrets"]["min_length"], foreign=key in app["secrets"]["foreign"])

    def _derived(self, env: dict[str, str], url: str | None) -> dict[str, str]:
        """Return what the preset derives from the address and from other variables."""
        if url is None:
            return {}
        known = {**env, "url": url}
        derived = {}
        for key, texts in (look_up(self.preset, "derive.env") or {}).items():
            parts = [part for text in texts for part in known.get(text.strip("{}"), "").split(",") if part]
            derived[key] = ",".join(dict.fromkeys(parts))
            known.setdefault(key, derived[key])
        return derived

    def _check_cors(self, env: dict[str, str], derived: dict[str, str]) -> None:
        """Judge the lists of origins that the user gave; the last key's list must hold those of all others."""
        keys = self.preset.get("cors", [])
        wrong = {key: rules.origins(env[key]) for key in keys if key in env}
        for key, rule in wrong.items():
            self.wrong(f"env.{key}", rule)
        if not keys or keys[-1] not in env or any(wrong.values()):
            return
        union = env[keys[-1]].split(",")
        whole = {**derived, **env}
        missing = [part for key in keys[:-1] if key in whole for part in whole[key].split(",") if part not in union]
        if missing:
            lacks = ", ".join(dict.fromkeys(missing))
            self.wrong(f"env.{keys[-1]}", f"must hold the origins of {' and '.join(keys[:-1])} too, lacks {lacks}; leave it out to have it derived")

    def _generated(self, app: Data, env: dict[str, str]) -> dict[str, int]:
        generated = {}
        for key, length in app["secrets"]["generate"].items():
            here = f"secrets.generate.{key}"
            self.wrong(here, rules.env_key(str(key)))
            if isinstance(length, bool) or not isinstance(length, int):
                self.wrong(here, "must be a whole number of characters")
                continue
            self.wrong(here, rules.between(app["secrets"]["min_length"], 512)(length))
            if str(key) not in env:
                generated[str(key)] = length
        return generated

    def _rotation(self, app: Data, env: dict[str, str]) -> Data:
        """Return what may be made anew of the secrets that stand in the environment, and how."""
        secrets, known = app["secrets"], {*map(str, app["secrets"]["generate"]), *env}
        lacks = "is no secret of this app; generate it, or give it in env"
        sessions = self._each("secrets.sessions", secrets["sessions"], lambda key: None if key in known else lacks)
        kept: dict[str, str] = {}
        for key, old in secrets["rotating"].items():
            here = f"secrets.rotating.{key}"
            if not isinstance(old, str):
                self.wrong(here, "must name the variable that holds the earlier keys")
                continue
            self.wrong(here, None if key in known else lacks)
            self.wrong(here, rules.env_key(old))
            if key in sessions:
                self.wrong(here, "stands in secrets.sessions too; a key that encrypts what is kept does not belong there")
            if old in {*map(str, secrets["generate"]), *secrets["rotating"], *sessions, *kept.values()}:
                self.wrong(here, f"names {old}, which is another secret of this app already")
            kept[str(key)] = old
        return {"sessions": sessions, "rotating": kept}

    # -- build, migrate, services

    def _build(self, app: Data, env: dict[str, str]) -> Data:
        build = app["build"]
        if build["command"] is not None:
            self.wrong("build.command", rules.command(build["command"]))
        if build["output"] != ".":
            self.wrong("build.output", rules.relative(build["output"]))
        self._each("build.directories", build["directories"], rules.relative_pattern)
        given = look_up(self.given, "build.env") or {}
        build["env"] = self._env("build.env", given, build["env"], app, reserved=False)
        for pattern in look_up(self.preset, "derive.build") or []:
            for key in fnmatch.filter(env, pattern):
                build["env"].setdefault(key, env[key])
        return t.cast("Data", build)

    def _migrate(self, app: Data) -> Data | None:
        migrate = app["migrate"]
        if migrate is None or migrate["command"] is None:
            return None
        self.wrong("migrate.command", rules.command(migrate["command"]))
        for key in ("error_patterns", "changed_patterns"):
            for index, pattern in enumerate(migrate[key]):
                self.wrong(f"migrate.{key}[{index}]", rules.regex(pattern))
        if not app["database"]["enabled"]:
            self.wrong("migrate", "needs database.enabled: the mark of a migration lives in the app's own database")
        self._check_rehearsal(app, migrate["rehearsal"])
        if migrate["lock_timeout_seconds"] >= migrate["timeout_seconds"]:
            self.wrong("migrate.lock_timeout_seconds", "must be smaller than migrate.timeout_seconds")
        return t.cast("Data", migrate)

    def _check_rehearsal(self, app: Data, rehearsal: Data) -> None:
        url, managed = rehearsal["url"], app["database"]["url"]
        if url is not None:
            self.wrong("migrate.rehearsal.url", rules.service_url(url, ("postgres", "postgresql"), needs_path=True))
            if managed is None:
                self.wrong("migrate.rehearsal.url", "is only for a managed database; for a local one provision.yml makes the copy")
            elif endpoint(url, POSTGRESQL_PORT) == endpoint(managed, POSTGRESQL_PORT):
                self.wrong("migrate.rehearsal.url", "must not be database.url: the rehearsal empties what it names")
        elif rehearsal["enabled"] and managed is not None:
            self.wrong("migrate.rehearsal.url", "is required, since database.url names a managed database")

    def _managed(self, service: str, schemes: tuple[str, ...], app: Data, local: tuple[str, ...]) -> bool:
        """Judge the address of a managed service; tell whether the service is managed."""
        url = app[service]["url"]
        if url is None:
            return False
        self.wrong(f"{service}.url", rules.service_url(url, schemes, needs_path=service == "database"))
        if app["runtime"] in CONTAINED and rules.is_loopback(url):
            self.wrong(f"{service}.url", "names loopback, which inside a container is the container itself; write an address that the containers reach")
        given = self.given.get(service) or {}
        both = [key for key in local if given.get(key) is not None]
        if both:
            self.wrong(f"{service}.url", f"excludes the local settings {' and '.join(both)}; keep one of the two")
        if given.get("enabled") is not None and not app[service]["enabled"]:
            self.wrong(f"{service}.url", f"excludes {service}.enabled: false; keep one of the two")
        return True

    def _place(self, service: str, group: str) -> str | None:
        hosts = self.places[group]
        if not hosts:
            self.wrong(service, f"needs a host: put one into group {group} of the inventory, or give {service}.url")
        return hosts[0]["name"] if hosts else None

    def _service_host(self, service: str, group: str, app: Data) -> str | None:
        """Return where a local service lives: in containers it is where the app is."""
        return next(iter(self._hosts(app)), None) if app["runtime"] == COMPOSE else self._place(service, group)

    def _database_port(self, app: Data) -> int:
        if app["runtime"] != COMPOSE:
            return POSTGRESQL_PORT
        number = app["database"]["port"] or FIRST_CONTAINER_PORT + self.index
        self.wrong("database.port", rules.port(number))
        return int(number)

    def _database(self, app: Data) -> Data:
        database = app["database"]
        external = self._managed("database", ("postgres", "postgresql"), app, ("name", "user", "extensions"))
        name = database["name"] or self.name.replace("-", "_")
        user = database["user"] or name
        local = database["enabled"] and not external
        if local:
            if database["name"] or not rules.name(self.name):
                self.wrong("database.name", rules.sql_name(name))
            if database["user"]:
                self.wrong("database.user", rules.sql_name(user))
            self._each("database.extensions", database["extensions"], rules.extension)
        elif not external and not database["enabled"] and any(database[key] for key in ("name", "user", "extensions")):
            self.wrong("database.enabled", "is false although the database is described; set it to true")
        return {
            "enabled": bool(database["enabled"] or external),
            "external": external,
            "url": database["url"],
            "name": name if local else None,
            "user": user if local else None,
            "host": self._service_host("database", "database", app) if local else None,
            "port": self._database_port(app) if local else None,
            "extensions": database["extensions"],
            "image": (database["image"] or POSTGRESQL_IMAGE) if local and app["runtime"] == COMPOSE else None,
            "pool": self._pool(app, local),
            "read_url_env": self._read_url_env(app, local),
        }

    def _pool(self, app: Data, local: bool) -> Data | None:
        """Return how the processes share connections to the database; None where each has its own."""
        pool = app["database"]["pool"]
        if not pool["enabled"]:
            given = [key for key in look_up(self.given, "database.pool") or {} if key != "enabled"]
            if given:
                self.wrong("database.pool.enabled", f"is false although {given[0]} is given; set it to true")
            return None
        if app["runtime"] == COMPOSE:
            self.wrong("database.pool", "is for PostgreSQL on a host; before one in a container stands the component pgbouncer, so write components.pgbouncer")
        elif not local:
            self.wrong(
                "database.pool",
                "is for a PostgreSQL of this inventory; what database.url names is managed, and PgBouncer cannot ask it for the logins: use the provider's pool"
                if app["database"]["url"]
                else "needs database.enabled",
            )
        self.wrong("database.pool.port", rules.port(pool["port"]))
        return {key: pool[key] for key in ("mode", "size", "port", "prepared_statements")}

    def _read_url_env(self, app: Data, local: bool) -> str | None:
        name = app["database"]["read_url_env"]
        if name is None:
            return None
        key = "database.read_url_env"
        self.wrong(key, rules.env_key(name))
        taken = {**rules.RESERVED_ENV, **dict.fromkeys(("DATABASE_URL", "REDIS_URL", "REDIS_CACHE_URL", *self.preset.get("aliases", {})), "is set already")}
        if name in taken:
            self.wrong(key, f"names {name}, which {taken[name]}")
        if name in app["secrets"]["generate"]:
            self.wrong(key, f"names {name}, which is one of secrets.generate")
        if not local:
            managed = "of a managed database only you know its replica: write that address into env under this name"
            self.wrong(key, managed if app["database"]["url"] else "needs database.enabled")
        return str(name)

    def _redis(self, app: Data, hosts: t.Sequence[str]) -> Data:
        redis = app["redis"]
        external = self._managed("redis", ("redis", "rediss"), app, ("jobs", "cache"))
        local = redis["enabled"] and not external
        if not local and not external and any((self.given.get("redis") or {}).get(key) for key in ("jobs", "cache")):
            self.wrong("redis.enabled", "is false although an instance is described; set it to true")
        jobs, cache = redis["jobs"], redis["cache"]
        if jobs["port"] is None:
            jobs["port"] = FIRST_REDIS_PORT + REDIS_PORTS_PER_APP * self.index
        if cache and cache["port"] is None:
            cache["port"] = jobs["port"] + 1
        host = self._service_host("redis", "cache", app) if local else None
        linked = local and app["runtime"] != COMPOSE and any(name != host for name in hosts)
        for number, (key, instance) in enumerate((("jobs", jobs), ("cache", cache))):
            if instance and local:
                self.wrong(f"redis.{key}.port", rules.port(instance["port"], besides="Redis"))
            if instance and linked:
                instance["tls_port"] = instance["tls_port"] or FIRST_REDIS_TLS_PORT + REDIS_PORTS_PER_APP * self.index + number
                self.wrong(f"redis.{key}.tls_port", rules.port(instance["tls_port"], besides="Redis"))
            elif instance:
                # The same contract may be meant for one host and for many: where nobody comes from elsewhere there is no such port.
                instance["tls_port"] = None
        return {
            "enabled": bool(redis["enabled"] or external),
            "external": external,
            "url": redis["url"],
            "host": host,
            "image": (redis["image"] or REDIS_IMAGE) if local and app["runtime"] == COMPOSE else None,
            "jobs": jobs if local else None,
            "cache": cache if local else None,
        }

    def _components(self, app: Data, hosts: t.Sequence[str], database: bool, redis: bool) -> dict[str, Data]:
        given = app["components"]
        if given and app["runtime"] != COMPOSE:
            self.wrong("components", f"belongs to runtime {COMPOSE}, not to {app['runtime']}")
            return {}
        found = components.Resolver(
            app=self.name,
            path=f"{self.path}.components",
            index=self.index,
            tls_mode=app["tls"]["mode"],
            min_length=app["secrets"]["min_length"],
            network=database or redis,
            database=database,
            files=self.component_files,
            options=self.spec["contract_component"]["options"],
            report=self.report,
        ).resolve(given)
        for name in found:
            if name in app["processes"]:
                self.wrong(f"components.{name}", "has the name of a process, and both would be found by it inside; give the process another name")
        if any(component["domain"] for component in found.values()) and set(hosts) != {place["name"] for place in self.places["proxy"]}:
            self.wrong("components", "with a domain are for an app on the host that is its own proxy; let the app's hosts name that one")
        return found

    # -- processes

    def _first_port(self, app: Data) -> int:
        return FIRST_PORT + PORTS_PER_APP * self.index if app["port"] is None else t.cast(int, app["port"])

    def _edge_port(self, app: Data) -> int:
        """Return where proxies find the app on its hosts: behind the ports of its processes, so that those stay where they are."""
        if app["edge_port"] is None:
            return self._first_port(app) + PORTS_PER_APP - 1
        self.wrong("edge_port", rules.port(app["edge_port"]))
        return t.cast(int, app["edge_port"])

    def _processes(self, app: Data) -> list[Data]:
        if not app["processes"] and self.preset:
            self.wrong("processes", "holds none; describe at least one process with its command")
        public = [name for name, process in app["processes"].items() if process["public"]]
        for name in public:
            if name in (look_up(self.preset, f"modes.{app['mode']}.private") or []):
                self.wrong(f"processes.{name}.public", f"must stay false: the {name} answers nothing but its health path")
        for name in public[1:]:
            self.wrong(f"processes.{name}.public", f"only one process can be public, and {public[0]} is")
        first = self._first_port(app)
        most = int(PROCESS_BOUNDS["instances"][1])
        # A process that nobody asks listens nowhere, and no port is kept for it.
        placed = [name for name, process in app["processes"].items() if process["port"] is None and process["health"]]
        result = []
        for name, process in app["processes"].items():
            path, count = f"processes.{name}", min(process["instances"], most)
            # Each further instance lies behind all of the ones before it, so that no port of what serves moves when there are to be more or fewer.
            if process["port"] is None and not process["health"]:
                blue = green = stride = 0
            elif process["port"] is None:
                blue, green = first + placed.index(name), first + placed.index(name) + len(placed)
                stride = 2 * len(placed)
            else:
                blue, green, stride = process["port"], process["port"] + 1, 2
            for key, (low, high) in PROCESS_BOUNDS.items():
                value = look_up(process, key)
                if value is not None:
                    self.wrong(f"{path}.{key}", rules.between(1 if key == "instances" and process["public"] else low, high)(value))
            if process["command"] is not None:
                self.wrong(f"{path}.command", rules.process_command(process["command"], listens=bool(process["port"] is not None or process["health"])))
            health = process["health"]
            if health:
                self.wrong(f"{path}.health.path", rules.web_path(health["path"]))
                if health["interval_seconds"] * health["successes"] > health["deadline_seconds"]:
                    self.wrong(f"{path}.health.deadline_seconds", "is too short for that many successes at that interval")
            given = look_up(self.given, f"{path}.env") or {}
            # On a Swarm each instance has the port of a node of its own.
            ports = min(count, 1) if app["runtime"] == SWARM else count
            slots = {slot: [port + stride * number for number in range(ports if stride else 0)] for slot, port in (("blue", blue), ("green", green))}
            result.append(
                {
                    "name": name,
                    "command": process["command"],
                    "public": process["public"],
                    "instances": count,
                    "slots": slots,
                    "memory_mb": process["memory_mb"],
                    "env": self._env(f"{path}.env", given, process["env"], app, reserved=False),
                    "overlap": process["overlap"],
                    "drain_seconds": process["drain_seconds"],
                    "stop_seconds": process["stop_seconds"],
                    "health": health,
                    "heartbeat": self._heartbeat(path, app, process["heartbeat"]),
                }
            )
        for port in sorted({port for process in result for slot in process["slots"].values() for port in slot}):
            owner = next(process for process in result if port in process["slots"]["blue"] + process["slots"]["green"])
            pinned = app["processes"][owner["name"]]["port"] is not None
            self.wrong(f"processes.{owner['name']}.port" if pinned else "port", rules.port(port))
        return result

    def _heartbeat(self, path: str, app: Data, beat: Data | None) -> Data | None:
        if beat is None:
            return None
        kinds = [kind for kind in ("sql", "redis_key", "file") if beat[kind] is not None]
        if len(kinds) != 1:
            self.wrong(f"{path}.heartbeat", f"must hold exactly one of sql, redis_key and file, holds {' and '.join(kinds) or 'none'}")
        for kind, service in (("sql", "database"), ("redis_key", "redis")):
            if kind in kinds and not app[service]["enabled"] and not app[service]["url"]:
                self.wrong(f"{path}.heartbeat.{kind}", f"needs {service}.enabled: it is read there")
        if "file" in kinds:
            self.wrong(f"{path}.heartbeat.file", rules.relative(beat["file"]))
            if not any(beat["file"].startswith(f"{name.strip('/')}/") for name in app["shared"]):
                self.wrong(f"{path}.heartbeat.file", "must lie in one of shared, the only directories of a release that the app can write to")
        return beat
