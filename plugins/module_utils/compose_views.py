# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Projection of the contract onto Compose: the project of an app's stateful services, which a release never touches, and those of its components."""

from __future__ import annotations

import typing as t

from . import components
from . import contract_views as views
from .compose_project import base_name
from .encoders import compose_text
from .redis_instances import users

Data = dict[str, t.Any]

#: What the official images need of what the Engine takes away: to become the service's own user, and to own its files.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]

#: Makes the app's own role and databases, since what the image makes by itself belongs to a superuser. The image runs it once, on an empty
#: volume; run again by hand it makes what is missing.
INITDB = """#!/bin/sh
# Managed by anchorage.vps
set -eu
psql -X -v ON_ERROR_STOP=1 -v owner="$APP_USER" -d postgres <<'SQL'
\\set password `cat /run/secrets/app_password`
SELECT format('CREATE ROLE %I', :'owner') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \\gexec
ALTER ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
SQL
psql -X -v ON_ERROR_STOP=1 -d postgres -c 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'
for name in $APP_DATABASES; do
    psql -X -v ON_ERROR_STOP=1 -v owner="$APP_USER" -v name="$name" -d postgres <<'SQL'
SELECT format($$CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'$$, :'name', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
    psql -X -v ON_ERROR_STOP=1 -v owner="$APP_USER" -d "$name" <<'SQL'
ALTER SCHEMA public OWNER TO :"owner";
SQL
    for extension in $APP_EXTENSIONS; do
        psql -X -v ON_ERROR_STOP=1 -v extension="$extension" -d "$name" <<'SQL'
CREATE EXTENSION IF NOT EXISTS :"extension";
SQL
    done
done
"""


#: Whether the app gets into each of its databases.
LOGIN = (
    'for name in $APP_DATABASES; do PGPASSWORD=$(cat /run/secrets/app_password) psql -XAtq -h 127.0.0.1 -U "$APP_USER" -d "$name" -c "SELECT 1"'
    " >/dev/null || exit 1; done"
)


def docker_compose_projects(contract: Data, secrets: Data, host: str, component_files: Data | None = None) -> list[Data]:
    """Return the Compose projects that provisioning keeps on a host, the components' last. They hold secrets.

    :arg component_files: for each app and component, what comes from the controller.
    """
    apps = [app for app in contract["apps"].values() if app["runtime"] == "compose" and host in app["hosts"]]
    projects = [_project(app, secrets) for app in apps]
    beside = [_component(app, name, secrets, component_files or {}) for app in apps for name in app["components"]]
    return [project for project in projects if project["definition"]["services"]] + beside


def _component(app: Data, name: str, secrets: Data, files: Data) -> Data:
    return components.project(app, name, lambda key: views.secret(secrets, app, key), (files.get(app["name"]) or {}).get(name) or {})


def _project(app: Data, secrets: Data) -> Data:
    name = base_name(app["name"])
    services: Data = {}
    files: list[Data] = []
    volumes: Data = {}
    if app["database"]["image"]:
        services["postgres"] = _postgres(app)
        volumes["postgres"] = {}
        files += [
            _file("initdb.sh", INITDB, "0644"),
            _file("superuser_password", views.secret(secrets, app, "database_superuser_password"), "0644"),
            _file("app_password", views.secret(secrets, app, "database_password"), "0644"),
        ]
    for kind, policy in (("jobs", "noeviction"), ("cache", "allkeys-lru")):
        if app["redis"]["image"] and app["redis"][kind]:
            services[f"redis-{kind}"] = _redis(app, kind)
            volumes[f"redis-{kind}"] = {}
            files += [
                _file(f"redis-{kind}.conf", _redis_settings(app, kind, policy), "0644"),
                _file(f"redis-{kind}.acl", _redis_users(app, secrets), "0644"),
            ]
    definition: Data = {"name": name, "services": services, "networks": {"default": {"name": name}}, "volumes": volumes}
    if app["database"]["image"]:
        definition["secrets"] = {key: {"file": f"./{key}"} for key in ("superuser_password", "app_password")}
    return {"name": name, "definition": definition, "files": files}


def _file(path: str, content: str, mode: str) -> Data:
    # Each is read by a user of its container; on the host, the directory is for root alone.
    return {"path": path, "content": content, "mode": mode}


def _service(image: str, port: int, inside: int) -> Data:
    return {
        "image": image,
        "restart": "unless-stopped",
        "ports": [{"target": inside, "published": str(port), "host_ip": views.LOOPBACK, "protocol": "tcp"}],
        "cap_drop": ["ALL"],
        "cap_add": CAPABILITIES,
        "security_opt": ["no-new-privileges:true"],
    }


def _postgres(app: Data) -> Data:
    database = app["database"]
    return {
        **_service(database["image"], database["port"], views.POSTGRESQL_PORT),
        "environment": {
            "PGDATA": "/var/lib/postgresql/data",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/superuser_password",
            "POSTGRES_INITDB_ARGS": "--data-checksums --auth-host=scram-sha-256",
            "APP_USER": database["user"],
            "APP_DATABASES": f"{database['name']} {views.rehearsal_name(app)}",
            "APP_EXTENSIONS": " ".join(database["extensions"]),
        },
        "secrets": ["superuser_password", "app_password"],
        "volumes": ["postgres:/var/lib/postgresql/data", "./initdb.sh:/docker-entrypoint-initdb.d/10-app.sh:ro"],
        "shm_size": "256m",
        "stop_signal": "SIGINT",
        "stop_grace_period": "60s",
        # Over TCP: while an empty volume is being filled, the image's own server answers on its socket only. As the app itself: a volume whose
        # filling was cut off has a server that is ready, and none of this.
        "healthcheck": {
            "test": ["CMD-SHELL", compose_text(LOGIN)],
            "interval": "10s",
            "start_interval": "2s",
            "timeout": "5s",
            "retries": 12,
            "start_period": "60s",
        },
    }


def _redis(app: Data, kind: str) -> Data:
    name, instance = f"redis-{kind}", app["redis"][kind]
    return {
        **_service(app["redis"]["image"], instance["port"], views.REDIS_PORT),
        "command": ["redis-server", "/etc/anchorage/redis.conf"],
        "volumes": [f"{name}:/data", f"./{name}.conf:/etc/anchorage/redis.conf:ro", f"./{name}.acl:/etc/anchorage/users.acl:ro"],
        "stop_grace_period": "60s",
        # Nobody may do anything without a login, so an answer that says so is an answer.
        "healthcheck": {"test": ["CMD-SHELL", "redis-cli ping | grep -Eq 'PONG|NOAUTH'"], "interval": "5s", "timeout": "5s", "retries": 12},
    }


def _redis_settings(app: Data, kind: str, policy: str) -> str:
    settings = {
        "port": views.REDIS_PORT,
        "protected-mode": "no",
        "aclfile": "/etc/anchorage/users.acl",
        "dir": "/data",
        "maxmemory": f"{app['redis'][kind]['maxmemory_mb']}mb",
        "maxmemory-policy": policy,
        "appendonly": "yes" if kind == "jobs" else "no",
        "appendfsync": "everysec",
        "lazyfree-lazy-eviction": "yes",
        "lazyfree-lazy-expire": "yes",
    }
    return "\n".join(["# Managed by anchorage.vps", *[f"{key} {value}" for key, value in settings.items()], ""])


def _redis_users(app: Data, secrets: Data) -> str:
    where = f"apps.{app['name']}.redis"
    return "\n".join([*users(where, [{"name": app["user"], "password": views.secret(secrets, app, "redis_password")}]), ""])
