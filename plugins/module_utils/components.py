# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components: services beside an app, each a Compose project that a data file describes. Pure: data in, data out.

A data file says C({name}) where a value of the contract goes. Secrets are C({secret.name}); they go into files and into the app's environment, and
a definition that would show one is refused.
"""

from __future__ import annotations

import json
import re
import typing as t

from . import contract_rules as rules
from .compose_project import PIDS, base_name
from .contract_spec import fill, sound, unknown
from .encoders import compose_env_fault, compose_env_line, compose_text
from .errors import AnchorageError

Data = dict[str, t.Any]
Report = t.Callable[[str, str], None]

#: Ports of loopback, of which each app has a block.
FIRST_PORT, PORTS_PER_APP = 17000, 10
COMMON = ("image", "images", "domain", "port", "memory_mb", "env")
BOUNDS = {"memory_mb": (32, 1048576), "prune_mb": (550, 10000000), "pool_size": (1, 1000), "max_clients": (1, 100000)}
CLIENT_SECRET_LENGTH = 48
POSTGRESQL_IMAGE = "postgres:17"
LOOPBACK = "127.0.0.1"

_PLACEHOLDER = re.compile(r"\{([a-z][a-z_.]*)\}")
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
_REALM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def project_name(app: str, component: str) -> str:
    """Return the name of a component's project, site and certificate."""
    return f"{app}-{component}"


def substitute(value: t.Any, values: t.Mapping[str, t.Any]) -> t.Any:
    """Put values in place of C({name}), at every depth. A text that is nothing but a placeholder takes the value's own type.

    :raises AnchorageError: for a name that has no value.
    """
    if isinstance(value, dict):
        return {key: substitute(part, values) for key, part in value.items()}
    if isinstance(value, list):
        return [substitute(part, values) for part in value]
    if not isinstance(value, str):
        return value

    def look_up(name: str) -> t.Any:
        if name not in values:
            raise AnchorageError(f"The data file of a component says {{{name}}}, which has no value there.")
        return values[name]

    whole = _PLACEHOLDER.fullmatch(value)
    return look_up(whole[1]) if whole else _PLACEHOLDER.sub(lambda found: str(look_up(found[1])), value)


# ---- what users write ------------------------------------------------------------------------------------------------


class Resolver(t.NamedTuple):
    """What the components of one app are judged by."""

    app: str
    path: str
    index: int
    tls_mode: str
    min_length: int
    #: Whether the app has a network that components can join, and whether its database is on it.
    network: bool
    database: bool
    files: t.Mapping[str, Data]
    options: Data
    report: Report

    def resolve(self, given: t.Mapping[str, t.Any]) -> dict[str, Data]:
        """Return each component with all its options, in the order of the data files' places."""
        found: dict[str, Data] = {}
        for name, options in given.items():
            path = f"{self.path}.{name}"
            if name not in self.files:
                self.report(path, unknown(str(name), self.files))
            elif not isinstance(options, dict) and options is not None:
                self.report(path, "must be a mapping of keys")
            else:
                found[str(name)] = self._component(str(name), self.files[name], options or {}, path)
        return dict(sorted(found.items(), key=lambda item: t.cast("int", self.files[item[0]]["place"])))

    def _component(self, name: str, file: Data, given: Data, path: str) -> Data:
        def wrong(key: str, rule: str | None) -> None:
            if rule:
                self.report(f"{path}.{key}", rule)

        own = {*COMMON, *file.get("options", [])}
        for key in given:
            others = [other for other, it in self.files.items() if key in it.get("options", [])]
            if key not in own and key in self.options:
                wrong(key, f"belongs to {' and '.join(others)}, not to {name}")
        known = sound(self.options, {key: value for key, value in given.items() if key in own or key not in self.options}, path, self.report)
        filled = fill({key: option for key, option in self.options.items() if key in own}, known, path, self.report)
        if file.get("needs") == "database" and not self.database:
            self.report(path, "needs a local database of the app, database.enabled without database.url, since that is what it stands before")
        elif not file.get("alone") and not self.network:
            self.report(path, "needs a local database or Redis of the app, whose network it joins")
        image = filled["image"] or file["image"]
        wrong("image", rules.image(image))
        for service, other in filled["images"].items():
            here, others = f"images.{service}", list(file["services"])[1:]
            if service not in others:
                wrong(here, f"is no other container of {name}; there {'are' if len(others) > 1 else 'is'} {', '.join(others) or 'none'}")
            else:
                wrong(here, rules.image(other) if isinstance(other, str) else "must be text")
        for key, (low, high) in BOUNDS.items():
            if filled.get(key) is not None:
                wrong(key, rules.between(low, high)(filled[key]))
        domain = self._domain(name, file, filled["domain"], wrong)
        if filled["port"] is not None and not domain:
            wrong("port", "is for a component with a domain; this one publishes none")
        port = filled["port"] or FIRST_PORT + PORTS_PER_APP * self.index + file["place"]
        if domain:
            wrong("port", rules.port(port))
        result = {
            **filled,
            "image": image,
            "domain": domain,
            "url": f"{'http' if self.tls_mode == 'off' else 'https'}://{domain}" if domain else None,
            "port": port if domain else None,
            "memory_mb": filled["memory_mb"] or file["memory_mb"],
            "env": self._env(file, filled["env"], wrong),
            "file": file,
        }
        if "bucket" in own:
            result["bucket"] = filled["bucket"] or f"{self.app}-files"
            wrong("bucket", None if _BUCKET.fullmatch(result["bucket"]) else "must be 3 to 63 small letters, digits and hyphens, as S3 wants it")
            wrong("region", None if re.fullmatch(r"[a-z0-9-]+", filled["region"]) else "must be small letters, digits and hyphens")
        if "realm" in own:
            result["realm"] = self._realm(filled["realm"], wrong)
        if "policies" in own and not (filled["policies"] or "").strip():
            wrong("policies", "is required: the directory on the controller that holds the policies")
        return result

    def _domain(self, name: str, file: Data, domain: str | None, wrong: Report) -> str | None:
        if domain is None:
            if file["domain"] == "required":
                wrong("domain", f"is required: {name} is used by people's browsers")
            return None
        if file["domain"] == "never":
            wrong("domain", f"is refused: {name} is for the app alone, and answers everybody who reaches it")
        found = rules.domain(domain) or ("is a wildcard; write one name" if domain.startswith("*.") else None)
        if found:
            wrong("domain", found)
        return domain

    def _env(self, file: Data, given: Data, wrong: Report) -> dict[str, str]:
        env = {}
        for key, value in given.items():
            text, fault = rules.env_text(value)
            taken = "is set by the component" if key in file.get("secret_environment", {}) else None
            fault = rules.env_key(str(key)) or taken or fault or rules.secret(str(key), text, min_length=self.min_length, foreign=False)
            uncarried = compose_env_fault(text) if rules.secrets_in({str(key): text}) else None
            if not fault and uncarried:
                fault = f"{uncarried}, which the file that it goes into cannot carry"
            if fault:
                wrong(f"env.{key}", fault)
            env[str(key)] = text
        return env

    def _realm(self, realm: Data, wrong: Report) -> Data:
        name = realm["name"] or self.app
        rule = "must be letters, digits, dashes and underscores"
        if not _REALM.fullmatch(name) or name == "master":
            wrong("realm.name", rule if name != "master" else "must not be master, which is Keycloak's own")
        seen: set[str] = set()
        for index, client in enumerate(realm["clients"]):
            here = f"realm.clients[{index}]"
            if client["id"] is not None and not _REALM.fullmatch(client["id"]):
                wrong(f"{here}.id", rule)
            if secret_of(str(client["id"])) in seen:
                wrong(f"{here}.id", "stands there twice (- and _ count as the same)")
            seen.add(secret_of(str(client["id"])))
            for at, url in enumerate(client["urls"]):
                if not re.fullmatch(r"https?://[^\s*]+\*?", url):
                    wrong(f"{here}.urls[{at}]", "must be an address, with a * at its end at most")
        if not realm["clients"] or realm["clients"][0]["public"]:
            wrong("realm.clients", "must begin with a client that is not public, which is the app's own")
        for index, role in enumerate(realm["roles"]):
            if not _REALM.fullmatch(role):
                wrong(f"realm.roles[{index}]", rule)
        return {**realm, "name": name}


def secret_of(client: str) -> str:
    """Return the name of the secret of a client of the realm."""
    return f"client_{re.sub(r'[^a-z0-9]', '_', client.lower())}"


# ---- what follows from it --------------------------------------------------------------------------------------------


def wanted_secrets(app: Data) -> dict[str, int]:
    """Return the length of each secret that an app's components need, by its name."""
    found = {}
    for name, component in app["components"].items():
        lengths = dict(component["file"].get("secrets", {}))
        if component.get("realm"):
            lengths.update({secret_of(client["id"]): CLIENT_SECRET_LENGTH for client in component["realm"]["clients"] if not client["public"]})
        found.update({f"{name}_{key}": length for key, length in lengths.items()})
    return found


def published(app: Data) -> list[tuple[str, int]]:
    """Return the components that take a port of loopback, with that port."""
    return [(name, component["port"]) for name, component in app["components"].items() if component["port"]]


def sites(app: Data) -> list[tuple[str, Data]]:
    """Return the components that the proxy serves."""
    return [(name, component) for name, component in app["components"].items() if component["domain"]]


def site(app: Data, name: str) -> Data:
    """Return the site of a component, as the role nginx takes it. There is one of it at any time, so it has no second slot."""
    component = app["components"][name]
    told = substitute(component["file"].get("site", {}), values(app, name))
    return {
        "name": project_name(app["name"], name),
        "domains": [component["domain"]],
        "tls": {key: app["tls"][key] for key in ("mode", "certificate", "key")},
        "upstreams": {"blue": [{"address": LOOPBACK, "port": component["port"]}]},
        "max_body_mb": told.get("max_body_mb", 25),
        "timeout_seconds": told.get("timeout_seconds", 60),
    }


def values(app: Data, name: str) -> Data:
    """Return what the data file of a component may name besides secrets."""
    component = app["components"][name]
    plain = {key: value for key, value in component.items() if key not in ("file", "env", "images", "realm", "port", "domain", "url")}
    found = {
        **plain,
        "app": app["name"],
        "app_url": app["url"] or "",
        "domain": component["domain"] or "",
        "url": component["url"] or "",
        "port": component["file"]["port"],
        "node_image": (app["image"] or {}).get("base") or "",
        "postgres_image": app["database"]["image"] or POSTGRESQL_IMAGE,
        "database_name": app["database"]["name"] or "",
        "database_user": app["database"]["user"] or "",
    }
    if component.get("realm"):
        found.update(realm_name=component["realm"]["name"], client=component["realm"]["clients"][0]["id"])
    return found


def hidden(app: Data, name: str, secret: t.Callable[[str], str]) -> Data:
    """Return what the data file of a component may name in files and in the app's environment.

    :arg secret: returns a secret of the app by its name.
    """
    component = app["components"][name]
    wanted = [key[len(name) + 1 :] for key in wanted_secrets({"components": {name: component}})]
    found: Data = {f"secret.{key}": secret(f"{name}_{key}") for key in wanted}
    found["database_password"] = secret("database_password")
    if component.get("realm"):
        found["client_secret"] = found[f"secret.{secret_of(component['realm']['clients'][0]['id'])}"]
        found["realm_json"] = json.dumps(realm(app, component["realm"], found), indent=1, sort_keys=True) + "\n"
    return found


def realm(app: Data, wanted: Data, secrets: t.Mapping[str, str]) -> Data:
    """Return what Keycloak imports."""
    home = app["url"] or ""

    def client(told: Data) -> Data:
        urls = told["urls"] or ([f"{home}/*"] if home else [])
        origins = list(dict.fromkeys("/".join(url.split("/", 3)[:3]) for url in urls))
        common = {
            "clientId": told["id"],
            "enabled": True,
            "protocol": "openid-connect",
            "standardFlowEnabled": True,
            "implicitFlowEnabled": False,
            "directAccessGrantsEnabled": False,
            "redirectUris": urls,
            "webOrigins": origins,
        }
        if told["public"]:
            return {**common, "publicClient": True, "attributes": {"pkce.code.challenge.method": "S256"}}
        return {
            **common,
            "publicClient": False,
            "clientAuthenticatorType": "client-secret",
            "secret": secrets[f"secret.{secret_of(told['id'])}"],
            "serviceAccountsEnabled": True,
        }

    return {
        "realm": wanted["name"],
        "enabled": True,
        "sslRequired": "external",
        "registrationAllowed": False,
        "bruteForceProtected": True,
        "roles": {"realm": [{"name": role} for role in wanted["roles"]]},
        "clients": [client(told) for told in wanted["clients"]],
    }


def environment(app: Data, secret: t.Callable[[str], str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the app's processes are told of its components: what may be shown, and what may not."""
    shown: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for name, component in app["components"].items():
        known, private = values(app, name), hidden(app, name, secret)
        texts = {**component["file"].get("app", {}), **(component["file"].get("app_public", {}) if component["domain"] else {})}
        for key, text in texts.items():
            secretive = any(found in private for found in _PLACEHOLDER.findall(text))
            (secrets if secretive else shown)[key] = str(substitute(text, {**known, **private}))
    return shown, secrets


def pooled(app: Data) -> dict[str, str]:
    """Return where the processes of an app find their database, where a component stands before it."""
    return {
        f"{LOOPBACK}:{app['database']['port']}": f"{name}:{component['file']['port']}"
        for name, component in app["components"].items()
        if component["file"].get("pools") == "database" and app["database"]["image"]
    }


def summary(app: Data) -> list[Data]:
    """Return what the host needs to know of an app's components to judge them. No secret is in it."""
    found = []
    for name, component in app["components"].items():
        site = substitute(component["file"].get("site", {}), values(app, name))
        found.append(
            {
                "name": name,
                "project": project_name(app["name"], name),
                "services": {service: "healthcheck" in told for service, told in component["file"]["services"].items()},
                "severity": component["file"].get("severity", "warn"),
                "domain": component["domain"],
                "tls_mode": app["tls"]["mode"],
                "health_path": site.get("health_path"),
            }
        )
    return found


def project(app: Data, name: str, secret: t.Callable[[str], str], files: t.Mapping[str, str]) -> Data:
    """Return the Compose project of a component, as the role docker_compose takes it. Its files hold secrets, its definition none.

    :arg files: what comes from the controller, by its path in the component's own directory.
    """
    component = app["components"][name]
    file, known, private = component["file"], values(app, name), hidden(app, name, secret)
    texts = {path: str(substitute(text, {**known, **private})) for path, text in file.get("files", {}).items()}
    public = {path for path, text in file.get("files", {}).items() if not set(private) & set(_PLACEHOLDER.findall(text))}
    brought = {**file.get("scripts", {}), **({f"{file['directory']}/{path}": text for path, text in files.items()} if file.get("directory") else {})}
    texts.update(brought)
    shown = {key: text for key, text in component["env"].items() if key not in rules.secrets_in(component["env"])}
    kept = {
        **substitute(file.get("secret_environment", {}), {**known, **private}),
        **{key: component["env"][key] for key in component["env"] if key not in shown},
    }
    if kept:
        texts[f"{name}.env"] = "".join(compose_env_line(key, text) for key, text in kept.items())
    services = {}
    for index, (service, told) in enumerate(_shown(file["services"]).items()):
        told = substitute(told, known)
        told = {**told, "image": component["images"].get(service) or told.get("image")}
        services[service] = _literal(_main(app, component, name, told, shown, bool(kept)) if index == 0 else _service(told))
    whole = project_name(app["name"], name)
    networks: Data = {"default": {"name": whole}}
    if not file.get("alone"):
        networks["base"] = {"name": base_name(app["name"]), "external": True}
    proofs = [{"name": f"{name} {' '.join(proof['command'])}", **proof} for proof in substitute(file.get("proofs", []), known)]
    return {
        "name": whole,
        "definition": {"name": whole, "services": services, "networks": networks, "volumes": file["volumes"]},
        # Each is read by a user of its container; on the host, the directory is for root alone.
        "files": [{"path": path, "content": text, "mode": "0644", "secret": path not in {*public, *brought}} for path, text in texts.items()],
        "required": False,
        "wait_timeout_seconds": file.get("wait_seconds", 180),
        "exclusive": [file["directory"]] if file.get("directory") else [],
        "proofs": proofs,
    }


def _shown(services: Data) -> Data:
    """Return services that may be shown: a definition is in diffs and in a file that says nothing of secrets."""
    found = [name for name in _PLACEHOLDER.findall(json.dumps(services)) if name.startswith("secret.") or name.endswith("_password")]
    if found:
        raise AnchorageError(f"The data file of a component has {{{found[0]}}} in its services, where everybody sees it; it belongs into its files.")
    return services


def _literal(value: t.Any) -> t.Any:
    """Return a definition in which no dollar sign is one of Compose's own."""
    if isinstance(value, dict):
        return {key: _literal(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_literal(part) for part in value]
    return compose_text(value) if isinstance(value, str) else value


def _service(told: Data) -> Data:
    return {"restart": "unless-stopped", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "pids_limit": 2 * PIDS, **told}


def _main(app: Data, component: Data, name: str, told: Data, shown: t.Mapping[str, str], kept: bool) -> Data:
    """Return the service that the component is known by: the app and the proxy talk to it."""
    memory = f"{component['memory_mb']}m"
    service = _service({**told, "image": component["image"], "mem_limit": memory, "memswap_limit": memory})
    if shown or told.get("environment"):
        service["environment"] = {**told.get("environment", {}), **shown}
    if kept:
        service["env_file"] = [f"./{name}.env"]
    if component["port"]:
        service["ports"] = [{"target": component["file"]["port"], "published": str(component["port"]), "host_ip": LOOPBACK, "protocol": "tcp"}]
    service["networks"] = {"default": {}, **({} if component["file"].get("alone") else {"base": {"aliases": [name]}})}
    return service
