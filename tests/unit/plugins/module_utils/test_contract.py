# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a contract may not say, each with the key and the rule that the message names; and what a good one resolves to."""

from __future__ import annotations

import copy
import json

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.contract import ContractError
from ansible_collections.anchorage.vps.tests.unit.plugins.module_utils.contract_samples import (
    BOT,
    FLEET,
    GIT,
    ONE_HOST,
    PRESETS,
    RANDOM,
    SHA256,
    SHOP,
    SPEC,
    WEB,
    changed,
    resolved,
)


def problems(apps, topology=None):
    with pytest.raises(ContractError) as caught:
        resolved(apps, topology)
    return caught.value


def shop(**changes):
    return {"shop": changed(SHOP, **changes)}


def web(**changes):
    return {"web": changed(WEB, **changes)}


def docked(**image):
    return shop(runtime="compose", image={"dockerfile": "Dockerfile", **image})


MANAGED = f"postgres://u:{RANDOM}@db.example.com/shop"
POOLED = {"enabled": True}


def env(**values):
    return {"shop": changed(SHOP, env={**SHOP["env"], **values})}


def rotating(**keys):
    return shop(secrets={"generate": {"MY_KEY": 64}, "rotating": keys})


BAD = [
    # the shape: unknown keys at any depth, wrong types, missing and impossible values
    ("no mapping", ["shop"], "apps", "must be a mapping of app names"),
    ("app is text", {"shop": "https://git.example.com/shop.git"}, "apps.shop", "must be a mapping of keys"),
    ("unknown key", shop(portt=9000), "apps.shop.portt", "is unknown; did you mean port?"),
    ("unknown key, nothing close", shop(quux=1), "apps.shop.quux", "is unknown; known here: preset, runtime"),
    ("unknown key in source", shop(source__branch="main"), "apps.shop.source.branch", "is unknown"),
    ("unknown key in a process", shop(processes={"server": {"memory": 1}}), "apps.shop.processes.server.memory", "did you mean memory_mb?"),
    ("unknown key in health", shop(processes={"server": {"health": {"url": "/"}}}), "apps.shop.processes.server.health.url", "is unknown"),
    ("unknown key four levels deep", shop(redis={"jobs": {"policy": "x"}}), "apps.shop.redis.jobs.policy", "is unknown"),
    ("preset missing", shop(preset=...), "apps.shop.preset", "is required"),
    ("preset unknown", shop(preset="rails"), "apps.shop.preset", "must be one of medusa, nextjs, prisma_bot, payload, node"),
    ("preset is a list", shop(preset=["medusa"]), "apps.shop.preset", "must be text, is a list"),
    ("runtime unknown", shop(runtime="podman"), "apps.shop.runtime", "must be one of pm2, compose"),
    ("image without containers", shop(image={"read_only": False}), "apps.shop.image.read_only", "belongs to runtime compose and swarm, not to pm2"),
    ("database image without containers", shop(database={"image": "postgres:17"}), "apps.shop.database.image", "belongs to runtime compose"),
    ("source image without containers", shop(source={"image": "acme/shop", "digest": f"sha256:{SHA256}"}), "apps.shop.source.image", "belongs to runtime"),
    ("base without a version", shop(runtime="compose", image={"base": "node"}), "apps.shop.image.base", "must name a version"),
    ("floating base", shop(runtime="compose", image={"base": "node:latest"}), "apps.shop.image.base", "must name a version"),
    ("base that is none", shop(runtime="compose", image={"base": "Node 22"}), "apps.shop.image.base", "is no name of an image"),
    ("tag in the source", shop(runtime="compose", source={"image": "acme/shop:1", "digest": "x"}), "apps.shop.source.image", "must have no tag"),
    ("image without digest", shop(runtime="compose", source={"image": "acme/shop"}), "apps.shop.source.digest", "is required with image"),
    ("digest of another form", shop(runtime="compose", source={"image": "acme/shop", "digest": "abc"}), "apps.shop.source.digest", "64 hexadecimal"),
    ("digest of no image", shop(source__digest="abc"), "apps.shop.source.digest", "belongs to image, not to repo"),
    ("arguments without a Dockerfile", shop(runtime="compose", image={"build_args": {"A": "b"}}), "apps.shop.image.build_args", "goes into build.env"),
    (
        "secret in the arguments",
        shop(runtime="compose", image={"dockerfile": "Dockerfile", "build_args": {"NPM_TOKEN": RANDOM}}),
        "apps.shop.image.build_args.NPM_TOKEN",
        "would stay in the image's history",
    ),
    ("controller without containers", shop(image={"build_on": "controller"}), "apps.shop.image.build_on", "belongs to runtime compose and swarm, not to pm2"),
    ("controller without a checkout", docked(build_on="controller"), "apps.shop.image.build_on", "of source.repo the controller has no checkout; build in"),
    (
        "controller for what is built",
        shop(runtime="compose", source={"image": "acme/shop", "digest": f"sha256:{SHA256}"}, image={"build_on": "controller"}),
        "apps.shop.image.build_on",
        "controller has nothing to build, since source.image is built already",
    ),
    (
        "controller for an archive that the host fetches",
        shop(runtime="compose", source={"archive": "https://x.example.com/a.tgz", "sha256": SHA256}, image={"build_on": "controller"}),
        "apps.shop.image.build_on",
        "source.archive is an address that the host fetches; build in your CI",
    ),
    ("built by nobody", docked(build_on="laptop"), "apps.shop.image.build_on", "must be one of host, controller"),
    ("Dockerfile outside", shop(runtime="compose", image={"dockerfile": "../Dockerfile"}), "apps.shop.image.dockerfile", ""),
    ("no directory of its own", docked(directory="/"), "apps.shop.image.directory", "must be an absolute path below /"),
    ("directory that Compose would read", docked(directory="/srv/$HOME"), "apps.shop.image.directory", "must be an absolute path below /"),
    ("directory of nothing that was brought", shop(runtime="compose", image={"directory": "/srv"}), "apps.shop.image.directory", "the app lies in /app"),
    ("base beside a Dockerfile", docked(base="node:22"), "apps.shop.image.base", "brings neither a Dockerfile nor an image"),
    ("PostgreSQL 18", shop(runtime="compose", database={"image": "postgres:18-trixie"}), "apps.shop.database.image", "keeps its data elsewhere"),
    ("secret of a build", shop(runtime="compose", build={"env": {"SENTRY_AUTH_TOKEN": RANDOM}}), "apps.shop.build.env.SENTRY_AUTH_TOKEN", "is a secret"),
    ("pattern that is a command", shop(runtime="compose", build={"directories": ["a/x;id"]}), "apps.shop.build.directories[0]", "more than a pattern"),
    (
        "database on loopback",
        shop(runtime="compose", database={"url": f"postgres://u:{RANDOM}@127.0.0.1:5432/shop"}),
        "apps.shop.database.url",
        "inside a container is the container itself",
    ),
    ("Redis on loopback", shop(runtime="compose", redis={"url": f"redis://:{RANDOM}@localhost:6379/0"}), "apps.shop.redis.url", "names loopback"),
    ("port of a system service", shop(runtime="compose", database={"port": 80}), "apps.shop.database.port", "belongs to Nginx"),
    ("mode unknown", shop(mode="cluster"), "apps.shop.mode", "must be one of split, shared"),
    ("mode of a preset without modes", web(mode="split"), "apps.web.mode", "the preset node has no modes"),
    ("package manager unknown", shop(package_manager="bun"), "apps.shop.package_manager", "must be one of auto, npm, yarn, pnpm"),
    ("env is a list", shop(env=["A=b"]), "apps.shop.env", "must be a mapping of keys, is a list"),
    ("number with a fraction", shop(keep_releases=2.5), "apps.shop.keep_releases", "must be a whole number"),
    (
        "number that is text",
        web(processes__web__health={"interval_seconds": "often"}),
        "apps.web.processes.web.health.interval_seconds",
        "must be a number, is text",
    ),
    ("interval of nothing", web(processes__web__health={"interval_seconds": 0}), "apps.web.processes.web.health.interval_seconds", "between 0.1 and 60"),
    ("port is text", shop(port="nine thousand"), "apps.shop.port", "must be a whole number, is text"),
    ("boolean as number", shop(max_body_mb=True), "apps.shop.max_body_mb", "must be a whole number, is a boolean"),
    ("number as boolean", shop(database={"enabled": 1}), "apps.shop.database.enabled", "must be true or false, is a whole number"),
    ("list as text", shop(shared="static"), "apps.shop.shared", "must be a list, is text"),
    ("command as text", web(processes__web__command="node web.js"), "apps.web.processes.web.command", "must be a list, is text"),
    ("version read as a number", shop(source__version=1.10), "apps.shop.source.version", "is a number with a fraction; write it in quotes"),
    # names
    ("name with capital", {"Shop": SHOP}, "apps.Shop", "small letters, digits and hyphens"),
    ("name with underscore", {"my_shop": SHOP}, "apps.my_shop", "small letters, digits and hyphens"),
    ("name too long", {"s" * 32: SHOP}, "apps." + "s" * 32, "1 to 31"),
    ("name of a system user", {"postgres": SHOP}, "apps.postgres", "belongs to the system"),
    ("process name", web(processes={"Web": WEB["processes"]["web"]}), "apps.web.processes.Web", "small letters"),
    # source
    ("source missing", shop(source=...), "apps.shop.source", "is required"),
    ("source empty", shop(source={}), "apps.shop.source", "must hold exactly one of repo, path, archive and image, holds none"),
    ("two sources", shop(source__path="/src"), "apps.shop.source", "holds repo and path"),
    ("repo without version", shop(source__version=...), "apps.shop.source.version", "is required with repo"),
    ("floating version", shop(source__version="latest"), "apps.shop.source.version", "is a floating word"),
    ("floating HEAD", shop(source__version="HEAD"), "apps.shop.source.version", "is a floating word"),
    ("version that is an option", shop(source__version="--upload-pack=x"), "apps.shop.source.version", "is no name of a branch"),
    ("version of a path", shop(source={"path": "src", "version": "1"}), "apps.shop.source.version", "belongs to repo"),
    ("repo with credentials", shop(source__repo="https://me:hunter2@git.example.com/a.git"), "apps.shop.source.repo", "must not carry credentials"),
    ("repo over http", shop(source__repo="http://git.example.com/a.git"), "apps.shop.source.repo", "use https:// or ssh://"),
    ("repo is a name", shop(source__repo="acme/shop"), "apps.shop.source.repo", "must be https://"),
    ("archive without checksum", shop(source={"archive": "https://example.com/a.tgz"}), "apps.shop.source.sha256", "is required with archive"),
    ("checksum too short", shop(source={"archive": "a.tgz", "sha256": "abc"}), "apps.shop.source.sha256", "64 hexadecimal digits"),
    ("checksum without archive", shop(source__sha256=SHA256), "apps.shop.source.sha256", "belongs to archive"),
    ("subdir absolute", shop(source__subdir="/apps/backend"), "apps.shop.source.subdir", "must be relative"),
    ("subdir climbs", shop(source__subdir="apps/../../etc"), "apps.shop.source.subdir", "must not climb"),
    # domains, address, TLS
    ("domain missing", shop(domain=...), "apps.shop.domain", "is required, since the process server is public"),
    ("domain with scheme", shop(domain="https://api.example.com"), "apps.shop.domain", "without a scheme"),
    ("domain with port", shop(domain="api.example.com:8443"), "apps.shop.domain", "without a port"),
    ("domain with path", shop(domain="api.example.com/app"), "apps.shop.domain", "without a path"),
    ("domain with underscore", shop(domain="my_api.example.com"), "apps.shop.domain", "RFC 1123"),
    ("domain of one label", shop(domain="shop"), "apps.shop.domain", "RFC 1123"),
    ("domain with capital", shop(domain="API.example.com"), "apps.shop.domain", "small letters"),
    ("domain with umlaut", shop(domain="läden.example.com"), "apps.shop.domain", "ASCII"),
    ("domain is an address", shop(domain="192.0.2.10"), "apps.shop.domain", "not an address"),
    ("label too long", shop(domain="a" * 64 + ".example.com"), "apps.shop.domain", "RFC 1123"),
    ("wildcard over http", shop(domain=..., domains=["example.com", "*.example.com"]), "apps.shop.domains[1]", "tls.challenge: dns"),
    ("wildcard as main name", shop(domain="*.example.com", tls={"challenge": "dns"}), "apps.shop.domains[0]", "cannot be a wildcard"),
    ("wildcard inside", shop(domain="api.*.example.com"), "apps.shop.domain", "wildcard elsewhere"),
    ("domain and domains", shop(domains=["www.example.com"]), "apps.shop.domains", "excludes domain"),
    ("domain twice in one app", shop(domain=..., domains=["a.example.com", "a.example.com"]), "apps.shop.domains", "holds a name twice"),
    ("domain but nothing public", {"bot": changed(BOT, domain="bot.example.com")}, "apps.bot.processes", "none is public"),
    ("url over http", shop(url="http://api.example.com"), "apps.shop.url", "must begin with https:// unless tls.mode is off"),
    ("url with path", shop(url="https://api.example.com/"), "apps.shop.url", "no trailing slash"),
    ("url with another host", shop(url="https://www.example.com"), "apps.shop.url", "none of the app's domains"),
    ("url with credentials", shop(url="https://me:hunter2@api.example.com"), "apps.shop.url", "must not carry credentials"),
    (
        "url whose host is no name",
        shop(domain=..., domains=["example.com", "*.example.com"], tls={"challenge": "dns"}, url="https://a_b.example.com"),
        "apps.shop.url",
        "its host is no host name",
    ),
    ("url with port that is none", shop(url="https://api.example.com:port"), "apps.shop.url", "must be an address"),
    ("TLS mode unknown", shop(tls={"mode": "selfsigned"}), "apps.shop.tls.mode", "must be one of acme, files, off"),
    ("TLS files without key", shop(tls={"mode": "files", "certificate": "a.pem"}), "apps.shop.tls.key", "is required with tls.mode files"),
    ("TLS certificate with acme", shop(tls={"certificate": "a.pem"}), "apps.shop.tls.certificate", "belongs to tls.mode files"),
    # two apps
    ("one domain, two apps", {"shop": SHOP, "web": changed(WEB, domain="api.example.com")}, "apps.web.domain", "already the domain of apps.shop"),
    ("one port, two apps", {"shop": SHOP, "web": changed(WEB, port=9000)}, "apps.web.processes.web.port", "port 9000 on vps is already taken by apps.shop"),
    ("green port of another", {"shop": SHOP, "web": changed(WEB, port=9003)}, "apps.web.processes.web.port", "taken by apps.shop.processes.worker"),
    (
        "block overflows into the next",
        {"web": changed(WEB, processes__web__instances=11), "shop": SHOP},
        "apps.shop.processes.server.port",
        "taken by apps.web.processes.web; pin one",
    ),
    ("one database, two apps", {"shop": SHOP, "b2b": changed(SHOP, domain="b.example.com", database={"name": "shop"})}, "apps.b2b.database.name", "already"),
    ("one role, two apps", {"shop": SHOP, "b2b": changed(SHOP, domain="b.example.com", database={"user": "shop"})}, "apps.b2b.database.user", "already"),
    ("names that meet as database", {"a-b": SHOP, "c": changed(SHOP, domain="c.example.com", database={"name": "a_b"})}, "apps.c.database.name", "apps.a-b"),
    (
        "one managed database, two migrations",
        {name: changed(SHOP, domain=f"{name}.example.com", database={"url": f"postgres://u:{RANDOM}@db.example.com/shop"}) for name in ("one", "two")},
        "apps.two.database.url",
        "both migrate it",
    ),
    (
        "one managed Redis, two apps",
        {name: changed(SHOP, domain=f"{name}.example.com", redis={"url": f"rediss://u:{RANDOM}@r.example.com:6379/0"}) for name in ("one", "two")},
        "apps.two.redis.url",
        "take each other's jobs",
    ),
    # ports
    ("port of PostgreSQL", shop(port=5432), "apps.shop.port", "port 5432 belongs to PostgreSQL"),
    ("port of SSH", web(processes__web__port=22), "apps.web.processes.web.port", "port 22 belongs to SSH"),
    ("block runs into Redis", shop(port=6376), "apps.shop.port", "port 6379 belongs to Redis"),
    ("privileged port", shop(port=1000), "apps.shop.port", "between 1024 and 65535"),
    ("port beyond the end", shop(port=65534), "apps.shop.port", "between 1024 and 65535"),
    ("ephemeral port", shop(port=40000), "apps.shop.port", "outgoing connections"),
    ("process on the port of Redis", shop(redis={"jobs": {"port": 9001}}), "apps.shop.processes.worker.port", "already taken by apps.shop.redis.jobs"),
    ("cache on the port of jobs", shop(redis={"cache": {"port": 6379}}), "apps.shop.redis.cache.port", "already taken by apps.shop.redis.jobs"),
    ("Redis on the port of PostgreSQL", shop(redis={"jobs": {"port": 5432}}), "apps.shop.redis.jobs.port", "belongs to PostgreSQL"),
    # environment
    ("PORT in env", env(PORT=9000), "apps.shop.env.PORT", "write `port` instead"),
    ("HOST in env", env(HOST="0.0.0.0"), "apps.shop.env.HOST", "is set by the release"),
    ("DATABASE_URL beside a database", env(DATABASE_URL=f"postgres://u:{RANDOM}@h/x"), "apps.shop.env.DATABASE_URL", "goes into database.url"),
    ("REDIS_URL beside a Redis", env(REDIS_URL="redis://h"), "apps.shop.env.REDIS_URL", "goes into redis.url"),
    ("worker mode by hand", env(MEDUSA_WORKER_MODE="shared"), "apps.shop.env.MEDUSA_WORKER_MODE", "write `mode` instead"),
    ("development", env(NODE_ENV="development"), "apps.shop.env.NODE_ENV", "always runs as production"),
    ("PORT of a process", shop(processes={"server": {"env": {"PORT": 1}}}), "apps.shop.processes.server.env.PORT", "write `port` instead"),
    ("PATH of the build", shop(build={"env": {"PATH": "/x"}}), "apps.shop.build.env.PATH", "is set by the release"),
    ("key with a hyphen", env(**{"MY-KEY": "x"}), "apps.shop.env.MY-KEY", "letters, digits and underscores"),
    ("value with NUL", env(NOTE="a\x00b"), "apps.shop.env.NOTE", "NUL"),
    ("value with line break", env(NOTE="a\nb"), "apps.shop.env.NOTE", "line break"),
    ("value is a mapping", env(NOTE={"from": "x"}), "apps.shop.env.NOTE", "is a mapping"),
    ("value is null", env(NOTE=None), "apps.shop.env.NOTE", "is null"),
    ("list item with comma", env(NAMES=["a,b"]), "apps.shop.env.NAMES", "an item with a comma"),
    # secrets
    ("placeholder supersecret", env(JWT_SECRET="supersecret"), "apps.shop.env.JWT_SECRET", "is a placeholder"),
    ("placeholder changeme", env(COOKIE_SECRET="ChangeMe-ChangeMe-ChangeMe-ChangeMe"), "apps.shop.env.COOKIE_SECRET", "is a placeholder"),
    ("placeholder in a sentence", env(JWT_SECRET="this-is-my-very-long-jwt-secret-for-2026"), "apps.shop.env.JWT_SECRET", "is a placeholder"),
    ("placeholder in brackets", env(API_KEY="<your key here>"), "apps.shop.env.API_KEY", "is a placeholder"),
    ("placeholder as key of another", env(STRIPE_API_KEY="changeme"), "apps.shop.env.STRIPE_API_KEY", "is a placeholder"),
    ("empty secret", env(JWT_SECRET=""), "apps.shop.env.JWT_SECRET", "is empty"),
    ("short secret", env(JWT_SECRET=RANDOM[:31]), "apps.shop.env.JWT_SECRET", "too short for a secret: 31 characters, at least 32"),
    (
        "short for this app",
        {"shop": changed(SHOP, env={"JWT_SECRET": RANDOM}, secrets={"min_length": 64})},
        "apps.shop.env.JWT_SECRET",
        "at least 64",
    ),
    ("short secret of a process", shop(processes={"server": {"env": {"MAIL_PASSWORD": "kQ7r"}}}), "apps.shop.processes.server.env.MAIL_PASSWORD", "too short"),
    ("one character", env(JWT_SECRET="x" * 40), "apps.shop.env.JWT_SECRET", "is a placeholder"),
    ("little variety", env(JWT_SECRET="aabbabcabcbabacbabcabacbabacabcabacbaa"), "apps.shop.env.JWT_SECRET", "too little variety"),
    ("repetition", env(ENCRYPTION_KEY="k3Xw9Qz1Lp" * 4), "apps.shop.env.ENCRYPTION_KEY", "repeats itself"),
    ("digits in a row", env(ENCRYPTION_KEY_CURRENT="0123456789abcdefXw9Qz1Lp7Tr5Vn2Kc"), "apps.shop.env.ENCRYPTION_KEY_CURRENT", "neighbouring characters"),
    ("minimum too small", shop(secrets={"min_length": 8}), "apps.shop.secrets.min_length", "between 16 and 512"),
    ("generated too short", shop(secrets={"generate": {"MY_KEY": 16}}), "apps.shop.secrets.generate.MY_KEY", "between 32 and 512"),
    ("session key unknown", shop(secrets={"sessions": ["NO_SECRET"]}), "apps.shop.secrets.sessions[0]", "is no secret of this app"),
    ("session key twice", shop(secrets={"sessions": ["JWT_SECRET", "JWT_SECRET"]}), "apps.shop.secrets.sessions[1]", "twice"),
    ("rotating key unknown", shop(secrets={"rotating": {"KEY": "KEY_OLD"}}), "apps.shop.secrets.rotating.KEY", "is no secret of this app"),
    ("rotating without a place", rotating(MY_KEY=3), "apps.shop.secrets.rotating.MY_KEY", "must name the variable"),
    ("rotating into no variable", rotating(MY_KEY="MY-KEY"), "apps.shop.secrets.rotating.MY_KEY", "the name of a variable"),
    ("rotating into another secret", rotating(MY_KEY="JWT_SECRET"), "apps.shop.secrets.rotating.MY_KEY", "names JWT_SECRET, which is another secret"),
    ("rotating a session key", rotating(JWT_SECRET="JWT_OLD"), "apps.shop.secrets.rotating.JWT_SECRET", "stands in secrets.sessions too"),
    ("generated without length", shop(secrets={"generate": {"MY_KEY": "long"}}), "apps.shop.secrets.generate.MY_KEY", "whole number"),
    # CORS
    ("blank STORE_CORS", shop(env={"STORE_CORS": ""}), "apps.shop.env.STORE_CORS", "every browser is refused"),
    ("wildcard STORE_CORS", shop(env={"STORE_CORS": "*"}), "apps.shop.env.STORE_CORS", "name the origins"),
    ("wildcard host", shop(env={"STORE_CORS": ["https://*.example.com"]}), "apps.shop.env.STORE_CORS", r"/^https:\/\/[a-z0-9-]+\.example\.com$/"),
    ("expression not anchored", shop(env={"STORE_CORS": ["/.*example.com/"]}), "apps.shop.env.STORE_CORS", "is not anchored"),
    ("blank after a comma", shop(env={"STORE_CORS": "https://a.example.com, https://b.example.com"}), "apps.shop.env.STORE_CORS", "has a blank around"),
    ("empty origin", shop(env={"STORE_CORS": "https://a.example.com,"}), "apps.shop.env.STORE_CORS", "empty origin"),
    ("origin with slash", shop(env={"STORE_CORS": ["https://a.example.com/"]}), "apps.shop.env.STORE_CORS", "without path or trailing slash"),
    ("origin without scheme", shop(env={"ADMIN_CORS": ["a.example.com"]}), "apps.shop.env.ADMIN_CORS", "is no origin"),
    ("origin with default port", shop(env={"ADMIN_CORS": ["https://a.example.com:443"]}), "apps.shop.env.ADMIN_CORS", "default port"),
    ("AUTH_CORS lacks the admin", env(AUTH_CORS=["https://shop.example.com"]), "apps.shop.env.AUTH_CORS", "lacks https://api.example.com"),
    ("origins of a process", shop(processes={"server": {"env": {"STORE_CORS": "*"}}}), "apps.shop.processes.server.env.STORE_CORS", "name the origins"),
    ("AUTH_CORS lacks the store", env(AUTH_CORS=["https://api.example.com"]), "apps.shop.env.AUTH_CORS", "lacks https://shop.example.com"),
    # database and Redis
    ("database off", shop(database={"enabled": False}), "apps.shop.database.enabled", "cannot be switched off: Medusa keeps"),
    ("Redis off with a worker", shop(redis={"enabled": False}), "apps.shop.redis.enabled", "cannot be switched off"),
    ("managed and local database", shop(database={"url": f"postgres://u:{RANDOM}@h/shop", "name": "shop"}), "apps.shop.database.url", "local settings name"),
    ("managed and local Redis", shop(redis={"url": f"redis://:{RANDOM}@h", "jobs": {"port": 6390}}), "apps.shop.redis.url", "local settings jobs"),
    ("scheme of the database", shop(database={"url": "mysql://u:p@h/shop"}), "apps.shop.database.url", "must begin with postgres://"),
    ("database without name", shop(database={"url": f"postgres://u:{RANDOM}@h"}), "apps.shop.database.url", "name of the database"),
    ("slash in the password", shop(database={"url": "postgres://u:a/b@h/shop"}), "apps.shop.database.url", "percent-encode"),
    ("bracket in the password", shop(database={"url": "postgres://u:a[b@h/shop"}), "apps.shop.database.url", "percent-encode"),
    ("placeholder in the database's address", shop(database={"url": "postgres://u:changeme@h/shop"}), "apps.shop.database.url", "placeholder"),
    ("scheme of Redis", shop(redis={"url": "http://h:6379"}), "apps.shop.redis.url", "must begin with redis://"),
    ("database name", shop(database={"name": "My-Shop"}), "apps.shop.database.name", "small letters, digits and underscores"),
    ("database of PostgreSQL", shop(database={"name": "postgres", "user": "shop"}), "apps.shop.database.name", "belongs to PostgreSQL"),
    ("extension", shop(database={"extensions": ["pg;drop"]}), "apps.shop.database.extensions[0]", "no name of a PostgreSQL extension"),
    ("database described but off", web(database={"name": "web"}), "apps.web.database.enabled", "set it to true"),
    ("Redis described but off", web(redis={"jobs": {"maxmemory_mb": 64}}), "apps.web.redis.enabled", "set it to true"),
    ("pool before a managed database", shop(database={"url": MANAGED, "pool": POOLED}), "apps.shop.database.pool", "use the provider's pool"),
    ("pool before a container", shop(runtime="compose", database={"pool": POOLED}), "apps.shop.database.pool", "write components.pgbouncer"),
    ("pool without a database", web(database={"pool": POOLED}), "apps.web.database.pool", "needs database.enabled"),
    ("pool described but off", shop(database={"pool": {"size": 5}}), "apps.shop.database.pool.enabled", "is false although size is given"),
    ("pool on the port of Redis", shop(database={"pool": {**POOLED, "port": 6379}}), "apps.shop.database.pool.port", "belongs to Redis"),
    ("pool on the port of a process", shop(database={"pool": {**POOLED, "port": 9001}}), "apps.shop.processes.worker.port", "already taken by PgBouncer"),
    ("pool without connections", shop(database={"pool": {**POOLED, "size": 0}}), "apps.shop.database.pool.size", "between 1 and 10000"),
    ("mode of a pool", shop(database={"pool": {**POOLED, "mode": "statement"}}), "apps.shop.database.pool.mode", "must be one of transaction, session"),
    (
        "two ports of one pool",
        {
            "shop": changed(SHOP, database={"pool": POOLED}),
            "b2b": changed(SHOP, domain="b.example.com", database={"pool": {**POOLED, "port": 6433}}),
        },
        "apps.b2b.database.pool.port",
        "is 6433, and that of apps.shop 6432",
    ),
    ("read address of a managed database", shop(database={"url": MANAGED, "read_url_env": "READ"}), "apps.shop.database.read_url_env", "into env under this"),
    ("read address without a database", web(database={"read_url_env": "READ"}), "apps.web.database.read_url_env", "needs database.enabled"),
    ("read address as no variable", shop(database={"read_url_env": "a-b"}), "apps.shop.database.read_url_env", "letters, digits and underscores"),
    ("read address as DATABASE_URL", shop(database={"read_url_env": "DATABASE_URL"}), "apps.shop.database.read_url_env", "is set already"),
    ("read address as PORT", shop(database={"read_url_env": "PORT"}), "apps.shop.database.read_url_env", "write `port` instead"),
    ("read address as a secret", shop(database={"read_url_env": "JWT_SECRET"}), "apps.shop.database.read_url_env", "one of secrets.generate"),
    ("variable of the read address", shop(database={"read_url_env": "READ"}, env={"READ": "x"}), "apps.shop.env.READ", "database.read_url_env names it"),
    ("migration without database", web(migrate={"command": ["node", "m.js"]}), "apps.web.migrate", "needs database.enabled"),
    # numbers
    ("build memory", shop(build={"memory_mb": 1024}), "apps.shop.build.memory_mb", "between 1536 and"),
    ("Redis memory", shop(redis={"jobs": {"maxmemory_mb": 4}}), "apps.shop.redis.jobs.maxmemory_mb", "between 16 and"),
    ("migration timeout", shop(migrate={"timeout_seconds": 0}), "apps.shop.migrate.timeout_seconds", "between 1 and"),
    (
        "lock timeout beyond the whole",
        shop(migrate={"timeout_seconds": 5, "lock_timeout_seconds": 5}),
        "apps.shop.migrate.lock_timeout_seconds",
        "smaller than",
    ),
    ("statement timeout", shop(migrate={"statement_timeout_seconds": -1}), "apps.shop.migrate.statement_timeout_seconds", "between 1 and"),
    ("unknown strategy", shop(strategy="rolling"), "apps.shop.strategy", "blue_green"),
    ("hold too short", shop(strategy="hold", hold_seconds=1), "apps.shop.hold_seconds", "between 5 and 600"),
    ("hold beyond the proxy's patience", shop(strategy="hold", hold_seconds=60), "apps.shop.hold_seconds", "must be less than timeout_seconds"),
    ("hold of what nobody visits", {"bot": {**BOT, "strategy": "hold"}}, "apps.bot.strategy", "set overlap: false on its processes"),
    ("soak too long", shop(soak={"seconds": 4000}), "apps.shop.soak.seconds", "between 0 and 3600"),
    ("unknown permission", shop(migrate={"allow": ["everything"]}), "apps.shop.migrate.allow[0]", "must be one of contract, lock_heavy"),
    (
        "rehearsal of a local database elsewhere",
        shop(migrate={"rehearsal": {"url": f"postgres://u:{RANDOM}@10.0.0.9/copy"}}),
        "apps.shop.migrate.rehearsal.url",
        "is only for a managed database",
    ),
    (
        "rehearsal on the database itself",
        shop(database={"url": MANAGED}, migrate={"rehearsal": {"enabled": True, "url": MANAGED}}),
        "apps.shop.migrate.rehearsal.url",
        "must not be database.url",
    ),
    (
        "rehearsal of a managed database without a copy",
        shop(database={"url": MANAGED}, migrate={"rehearsal": {"enabled": True}}),
        "apps.shop.migrate.rehearsal.url",
        "is required, since database.url names a managed database",
    ),
    ("releases kept", shop(keep_releases=1), "apps.shop.keep_releases", "between 2 and 50"),
    ("bytes kept", shop(keep_mb=-1), "apps.shop.keep_mb", "between 0 and"),
    ("migration's memory", shop(migrate={"memory_mb": 8}), "apps.shop.migrate.memory_mb", "between 64 and"),
    ("no public instance", shop(processes={"server": {"instances": 0}}), "apps.shop.processes.server.instances", "between 1 and"),
    ("too many instances", shop(processes={"worker": {"instances": 99}}), "apps.shop.processes.worker.instances", "between 0 and 64"),
    ("process memory", shop(processes={"worker": {"memory_mb": 8}}), "apps.shop.processes.worker.memory_mb", "between 64 and"),
    ("less than no time to drain", shop(processes={"server": {"drain_seconds": -1}}), "apps.shop.processes.server.drain_seconds", "between 0 and"),
    ("no time to stop", shop(processes={"worker": {"stop_seconds": 0}}), "apps.shop.processes.worker.stop_seconds", "between 1 and"),
    ("body limit", shop(max_body_mb=0), "apps.shop.max_body_mb", "between 1 and"),
    # processes
    ("no process", {"web": changed(WEB, domain=..., processes={})}, "apps.web.processes", "holds none"),
    ("process without command", web(processes__web__command=...), "apps.web.processes.web.command", "is required"),
    ("empty command", web(processes__web__command=[]), "apps.web.processes.web.command", "is an empty list"),
    ("unsplit command", web(processes__web__command=["node web.js"]), "apps.web.processes.web.command", "one word with blanks"),
    ("npm as a process", web(processes__web__command=["npm", "start"]), "apps.web.processes.web.command", "does not pass signals on"),
    (".bin as a process", web(processes__web__command=["node_modules/.bin/next"]), "apps.web.processes.web.command", "shell scripts with pnpm"),
    ("process is text", web(processes={"web": "node web.js"}), "apps.web.processes.web", "must be a mapping"),
    ("worker public", shop(processes={"worker": {"public": True}}), "apps.shop.processes.worker.public", "must stay false"),
    ("two public", web(processes__two={"command": ["node", "b.js"], "public": True}), "apps.web.processes.two.public", "only one process can be public"),
    ("worker in shared mode", shop(mode="shared", processes={"worker": {"memory_mb": 700}}), "apps.shop.processes.worker", "mode shared has no process worker"),
    ("health path", web(processes__web__health={"path": "health"}), "apps.web.processes.web.health.path", "must begin with /"),
    ("health status", web(processes__web__health={"status": 20}), "apps.web.processes.web.health.status", "between 100 and 599"),
    (
        "health that cannot pass",
        web(processes__web__health={"deadline_seconds": 4, "successes": 9}),
        "apps.web.processes.web.health.deadline_seconds",
        "too short",
    ),
    # paths
    ("shared absolute", shop(shared=["/static"]), "apps.shop.shared[0]", "must be relative"),
    ("shared climbs", shop(shared=["static", "../x"]), "apps.shop.shared[1]", "must not climb"),
    ("shared twice", shop(shared=["static", "static"]), "apps.shop.shared[1]", "stands there twice"),
    ("output climbs", shop(build={"output": "../server"}), "apps.shop.build.output", "must not climb"),
    ("webhook without slash", shop(webhooks=["hooks"]), "apps.shop.webhooks[0]", "must begin with /"),
    ("webhook breaks out of Nginx", shop(webhooks=["/hooks;}"]), "apps.shop.webhooks[0]", "characters"),
    ("rate limit breaks out of Nginx", shop(rate_limit={"paths": ["/a { return 200;"]}), "apps.shop.rate_limit.paths[0]", "characters"),
    ("rate limit without paths", web(rate_limit={"burst": 5}), "apps.web.rate_limit.paths", "is required"),
    ("pattern", shop(migrate={"error_patterns": ["("]}), "apps.shop.migrate.error_patterns[0]", "no regular expression"),
    ("directory climbs", shop(build={"directories": ["../x"]}), "apps.shop.build.directories[0]", "must not climb"),
    ("directory absolute", shop(build={"directories": ["/var/x/*"]}), "apps.shop.build.directories[0]", "must be relative"),
    ("proof without query", shop(migrate={"verify": [{"name": "a", "expect": "1"}]}), "apps.shop.migrate.verify[0].sql", "is required"),
    ("proof with an unknown key", shop(migrate={"verify": [{"name": "a", "sql": "b", "expect": "1", "x": 1}]}), "apps.shop.migrate.verify[0].x", "is unknown"),
    ("proof is text", shop(migrate={"verify": ["SELECT 1"]}), "apps.shop.migrate.verify[0]", "must be a mapping"),
    ("expectation is a boolean", shop(migrate={"verify": [{"name": "a", "sql": "b", "expect": True}]}), "apps.shop.migrate.verify[0].expect", "in quotes"),
    # the rest
    ("admin without address", shop(admin={}), "apps.shop.admin.email", "is required"),
    ("admin's address", shop(admin={"email": "root"}), "apps.shop.admin.email", "no e-mail address"),
    ("admin of a preset without one", web(admin={"email": "a@example.com"}), "apps.web.admin.command", "the preset node brings none"),
    ("admin by npx", shop(admin={"email": "a@example.com", "command": ["npx", "user", "{email}", "{password}"]}), "apps.shop.admin.command", "begin with node"),
    ("admin without password", shop(admin={"email": "a@example.com", "command": ["node", "u.js", "{email}"]}), "apps.shop.admin.command", "lacks {password}"),
    ("host unknown", shop(hosts=["vps2"]), "apps.shop.hosts[0]", "vps2 is no host of group app; there are vps"),
    ("host twice", shop(hosts=["vps", "vps"]), "apps.shop.hosts[1]", "stands there twice"),
    ("no host", shop(hosts=[]), "apps.shop.hosts", "empty list"),
]


@pytest.mark.parametrize(("apps", "path", "words"), [pytest.param(*row[1:], id=row[0]) for row in BAD])
def test_a_bad_contract_is_refused_by_key_and_rule(apps, path, words):
    found = problems(apps).problems
    rules = [problem.rule for problem in found if problem.path == path]
    assert rules, f"no problem of {path} among {[str(problem) for problem in found]}"
    assert any(words in rule for rule in rules), rules


@pytest.mark.parametrize(("apps", "path", "words"), [pytest.param(*row[1:], id=row[0]) for row in BAD])
def test_a_bad_contract_is_refused_without_noise(apps, path, words):
    """One mistake gives one line; only a clash of two names or a mistake that has two sides gives another."""
    assert len(problems(apps).problems) <= 2, [str(problem) for problem in problems(apps).problems]


def test_the_table_is_long_enough():
    assert len(BAD) >= 60
    assert len({row[0] for row in BAD}) == len(BAD)


def test_all_problems_come_at_once_with_numbers():
    apps = {"shop": changed(SHOP, domain="https://x", env={"JWT_SECRET": "supersecret"}, port=22, quux=1), "Bad": WEB}
    error = problems(apps)
    assert [problem.path for problem in error.problems] == ["apps.shop.quux", "apps.shop.domain", "apps.shop.port", "apps.shop.env.JWT_SECRET", "apps.Bad"]
    lines = error.message.splitlines()
    assert lines[0] == "The contract has 5 problems; no host was touched."
    assert lines[1].startswith(" 1. apps.shop.quux: is unknown")
    assert len(lines) == 6


CANARY = "kQ7rT2vX"
SECRET_PLACES = [
    env(JWT_SECRET=CANARY),
    env(JWT_SECRET=CANARY + "\n" + CANARY),
    env(JWT_SECRET={"x": CANARY}),
    env(JWT_SECRET=[CANARY, CANARY]),
    env(DATABASE_URL=f"postgres://u:{CANARY}@h/x"),
    shop(database=f"postgres://u:{CANARY}@h/x"),
    shop(database={"url": f"postgres://u:{CANARY}[@h/x"}),
    shop(database={"url": f"postgres://u:{CANARY}@h"}),
    shop(database={"url": [f"postgres://u:{CANARY}@h/x"]}),
    shop(database={"url": f"mysql://u:{CANARY}@h/x", "name": "shop"}),
    shop(redis={"url": f"http://u:{CANARY}@h/x"}),
    shop(source__repo=f"https://u:{CANARY}@git.example.com/x.git"),
    shop(url=f"https://u:{CANARY}@api.example.com"),
    shop(admin={"email": {"password": CANARY}}),
    shop(preset=CANARY),
    shop(keep_releases=CANARY),
    shop(processes={"server": {"env": {"API_TOKEN": [[CANARY]]}}}),
]


@pytest.mark.parametrize("apps", SECRET_PLACES)
def test_no_message_shows_a_secret(apps):
    assert CANARY not in problems(apps).text()


def paths_of(options, path=""):
    for name, option in options.items():
        yield path + name
        if option["type"] == "dict" and "options" in option:
            yield from paths_of(option["options"], f"{path}{name}__")


ODD = [
    None,
    "",
    " ",
    "x",
    "{{ x }}",
    0,
    -1,
    10**9,
    1.5,
    True,
    False,
    [],
    [None],
    [[]],
    [{}],
    [""],
    ["x"],
    {},
    {"x": None},
    {"x": {}},
    {"x": [1]},
    {"": 1},
    {1: 2},
]


@pytest.mark.parametrize("path", list(paths_of(SPEC["contract"]["options"])))
@pytest.mark.parametrize("base", [SHOP, WEB])
def test_nothing_odd_in_an_app_breaks_the_judge(base, path):
    for value in ODD:
        check_judged({"shop": changed(base, **{path: value})})


@pytest.mark.parametrize("path", list(paths_of(SPEC["contract_process"]["options"])))
def test_nothing_odd_in_a_process_breaks_the_judge(path):
    for value in ODD:
        check_judged({"shop": changed(SHOP, **{f"processes__server__{path}": value})})
        check_judged({"web": changed(WEB, **{f"processes__web__{path}": value})})


@pytest.mark.parametrize("value", ODD)
def test_nothing_odd_beside_the_keys_breaks_the_judge(value):
    check_judged({"shop": value})
    check_judged({"shop": {"preset": "medusa", "source": value, "domain": value, "env": {"A": value, "JWT_SECRET": value, "STORE_CORS": value}}})
    check_judged({1: WEB, "": WEB, None: WEB})
    check_judged({"web": WEB}, {**ONE_HOST, "app": value})
    check_judged(value)


def check_judged(apps, topology=None):
    """Either the contract resolves to plain data or the problems are told; there is no third way."""
    try:
        json.dumps(resolved(apps, topology))
    except ContractError as error:
        assert error.problems


# ---------------------------------------------------------------------------------------------- good ones


def test_a_shop_of_four_lines_resolves_completely():
    app = resolved({"shop": SHOP})["apps"]["shop"]
    assert app == {
        "name": "shop",
        "edge_port": 9019,
        "preset": "medusa",
        "runtime": "pm2",
        "mode": "split",
        "user": "shop",
        "group": "shop",
        "home": "/srv/shop",
        "hosts": ["vps"],
        "secrets_host": "vps",
        "source": {"kind": "git", **GIT, "path": None, "archive": None, "sha256": None, "subdir": "", "image": None, "digest": None},
        "image": None,
        "package_manager": "auto",
        "domains": ["api.example.com"],
        "url": "https://api.example.com",
        "tls": {"mode": "acme", "challenge": "webroot", "certificate": None, "key": None},
        "env": {
            "NODE_ENV": "production",
            "MEDUSA_DISABLE_TELEMETRY": "true",
            "STORE_CORS": "https://shop.example.com",
            "MEDUSA_BACKEND_URL": "https://api.example.com",
            "ADMIN_CORS": "https://api.example.com",
            "AUTH_CORS": "https://shop.example.com,https://api.example.com",
        },
        "secret_keys": [],
        "generated": {"JWT_SECRET": 128, "COOKIE_SECRET": 128},
        "sessions": ["JWT_SECRET", "COOKIE_SECRET"],
        "rotating": {},
        "aliases": {},
        "build": {
            "command": ["node", "node_modules/@medusajs/cli/cli.js", "build"],
            "env": {"DISABLE_MEDUSA_ADMIN": "false", "MEDUSA_DISABLE_TELEMETRY": "true", "MEDUSA_BACKEND_URL": "https://api.example.com"},
            "output": ".medusa/server",
            "memory_mb": 1536,
            "timeout_seconds": 1800,
            "directories": ["node_modules/@medusajs/*/dist/migrations"],
        },
        "migrate": {
            "command": ["node", "node_modules/@medusajs/cli/cli.js", "db:migrate", "--execute-safe-links", "--execute-safe-search"],
            "timeout_seconds": 900,
            "lock_timeout_seconds": 1,
            "statement_timeout_seconds": 600,
            "memory_mb": 512,
            "error_patterns": ['"level":"error"'],
            "changed_patterns": ["● Migrating ", "Links sync completed", "Running migration script /"],
            "files": ["medusa-config.*", "src/modules/*", "src/links/*", "src/migration-scripts/*"],
            "allow": [],
            "large_table_mb": 64,
            "rehearsal": {"enabled": False, "url": None, "max_lock_seconds": 2},
            "restore_point": {"enabled": True, "timeout_seconds": 3600, "keep": 3},
            "verify": PRESETS["medusa"]["contract"]["migrate"]["verify"],
        },
        "database": {
            "enabled": True,
            "external": False,
            "url": None,
            "name": "shop",
            "user": "shop",
            "host": "vps",
            "port": 5432,
            "extensions": [],
            "image": None,
            "pool": None,
            "read_url_env": None,
        },
        "redis": {
            "enabled": True,
            "external": False,
            "url": None,
            "host": "vps",
            "image": None,
            "jobs": {"port": 6379, "tls_port": None, "maxmemory_mb": 256},
            "cache": None,
        },
        "processes": [
            {
                "name": "server",
                "command": ["node", "node_modules/@medusajs/cli/cli.js", "start"],
                "public": True,
                "instances": 1,
                "slots": {"blue": [9000], "green": [9002]},
                "memory_mb": 1024,
                "env": {"MEDUSA_WORKER_MODE": "server", "DISABLE_MEDUSA_ADMIN": "false"},
                "overlap": True,
                "drain_seconds": 30,
                "stop_seconds": 30,
                "health": HEALTH,
                "heartbeat": None,
            },
            {
                "name": "worker",
                "command": ["node", "node_modules/@medusajs/cli/cli.js", "start"],
                "public": False,
                "instances": 1,
                "slots": {"blue": [9001], "green": [9003]},
                "memory_mb": 640,
                "env": {"MEDUSA_WORKER_MODE": "worker", "DISABLE_MEDUSA_ADMIN": "true"},
                "overlap": True,
                "drain_seconds": 30,
                "stop_seconds": 30,
                "health": HEALTH,
                "heartbeat": None,
            },
        ],
        "components": {},
        "shared": ["static"],
        "admin": None,
        "rate_limit": {"requests_per_second": 10, "burst": 20, "paths": ["/store", "/auth", "/admin"]},
        "webhooks": ["/hooks"],
        "max_body_mb": 25,
        "timeout_seconds": 60,
        "keep_releases": 3,
        "strategy": "blue_green",
        "hold_seconds": 40,
        "soak": {"seconds": 30, "max_error_percent": 1, "max_slowdown": 3},
        "keep_mb": None,
    }


HEALTH = {"path": "/health", "status": 200, "body": "OK", "deadline_seconds": 120, "interval_seconds": 0.5, "successes": 3}


def test_the_smallest_app_needs_no_domain_database_or_redis():
    app = resolved({"bot": BOT})["apps"]["bot"]
    assert (app["domains"], app["url"], app["migrate"], app["generated"], app["env"]) == ([], None, None, {}, {})
    assert not app["database"]["enabled"] and not app["redis"]["enabled"]
    assert app["database"]["host"] is None and app["redis"]["host"] is None
    assert app["processes"][0]["health"] is None


def test_a_public_process_always_has_a_health_check():
    assert resolved({"web": WEB})["apps"]["web"]["processes"][0]["health"]["path"] == "/"


def test_two_apps_share_nothing():
    apps = resolved({"shop": SHOP, "b2b": changed(SHOP, domain="b2b.example.com", redis={"cache": {}})})["apps"]
    assert [process["slots"] for process in apps["b2b"]["processes"]] == [{"blue": [9020], "green": [9022]}, {"blue": [9021], "green": [9023]}]
    assert apps["b2b"]["redis"]["jobs"]["port"] == 6381
    assert apps["b2b"]["redis"]["cache"] == {"port": 6382, "tls_port": None, "maxmemory_mb": 128}
    assert apps["b2b"]["database"]["name"] == "b2b"


def test_ports_can_be_pinned():
    app = changed(WEB, port=8000, processes__web__instances=2, processes__job={"command": ["node", "j.js"], "port": 8100, "instances": 2})
    processes = resolved({"web": app})["apps"]["web"]["processes"]
    assert processes[0]["slots"] == {"blue": [8000, 8002], "green": [8001, 8003]}
    assert processes[1]["slots"] == {"blue": [8100, 8102], "green": [8101, 8103]}


def test_instances_of_all_processes_lie_in_one_block():
    processes = resolved(shop(processes={"server": {"instances": 2}}))["apps"]["shop"]["processes"]
    assert [process["slots"] for process in processes] == [{"blue": [9000, 9004], "green": [9002, 9006]}, {"blue": [9001], "green": [9003]}]


@pytest.mark.parametrize("pinned", [{}, {"port": 8000}])
def test_no_port_moves_when_there_are_to_be_more(pinned):
    def slots(count):
        processes = resolved(shop(processes={"server": {"instances": count, **pinned}}))["apps"]["shop"]["processes"]
        return {(process["name"], slot): ports for process in processes for slot, ports in process["slots"].items()}

    few, many = slots(1), slots(5)
    assert all(many[key][: len(ports)] == ports for key, ports in few.items())
    assert len({port for ports in many.values() for port in ports}) == 12


def test_an_app_that_is_scaled_is_released_alone_and_keeps_its_source():
    contract = resolved({"shop": SHOP, "web": WEB}, scale={"shop": {"server": "3"}})
    assert [process["instances"] for process in contract["apps"]["shop"]["processes"]] == [3, 1]
    assert contract["scaled"] == ["shop"]
    assert "scaled" not in resolved({"shop": SHOP})


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({"shopp": {"server": 3}}, "apps.shopp: is no app that could be scaled; there are shop"),
        ({"shop": {"serverr": 3}}, "apps.shop.processes.serverr: is no process of this app; there are server, worker"),
        ({"shop": {"server": "many"}}, "apps.shop.processes.server.instances: must be a whole number, is text"),
        ({"shop": {"server": 0}}, "apps.shop.processes.server.instances: must lie between 1 and 64"),
        ({"shop": {"server": 65}}, "apps.shop.processes.server.instances: must lie between 1 and 64"),
    ],
)
def test_what_cannot_be_scaled_is_named(scale, words):
    with pytest.raises(ContractError) as caught:
        resolved({"shop": SHOP}, scale=scale)
    assert words in str(caught.value)


def test_a_process_that_nobody_asks_has_no_port():
    assert [process["slots"] for process in resolved({"bot": BOT})["apps"]["bot"]["processes"]] == [{"blue": [], "green": []}]
    two = changed(WEB, processes__bot={"command": ["node", "bot.js"]}, processes__pinned={"command": ["node", "p.js"], "port": 9100})
    slots = {process["name"]: process["slots"] for process in resolved({"web": two})["apps"]["web"]["processes"]}
    assert slots == {"web": {"blue": [9000], "green": [9001]}, "bot": {"blue": [], "green": []}, "pinned": {"blue": [9100], "green": [9101]}}


@pytest.mark.parametrize(
    ("beat", "words"),
    [
        ({}, "apps.shop.processes.worker.heartbeat: must hold exactly one of sql, redis_key and file, holds none"),
        (
            {"sql": "SELECT 1", "file": "static/beat"},
            "apps.shop.processes.worker.heartbeat: must hold exactly one of sql, redis_key and file, holds sql and file",
        ),
        ({"file": "/var/beat"}, "apps.shop.processes.worker.heartbeat.file: must be relative"),
        ({"file": "state/beat"}, "apps.shop.processes.worker.heartbeat.file: must lie in one of shared"),
        ({"file": "static/beat", "max_age_seconds": 0}, "apps.shop.processes.worker.heartbeat.max_age_seconds: must lie between 1 and 86400"),
        ({"sqll": "SELECT 1"}, "apps.shop.processes.worker.heartbeat.sqll: is unknown; did you mean sql?"),
    ],
)
def test_a_sign_of_life_that_cannot_be_read_is_refused(beat, words):
    with pytest.raises(ContractError) as caught:
        resolved(shop(processes={"worker": {"heartbeat": beat}}))
    assert words in str(caught.value)


@pytest.mark.parametrize(("kind", "value", "service"), [("sql", "SELECT at FROM beats", "database"), ("redis_key", "beat", "redis")])
def test_a_sign_of_life_needs_the_place_where_it_is_left(kind, value, service):
    app = changed(BOT, processes__bot__heartbeat={kind: value})
    with pytest.raises(ContractError, match=f"heartbeat.{kind}: needs {service}.enabled"):
        resolved({"bot": app})
    beat = resolved({"bot": {**app, service: {"enabled": True}}})["apps"]["bot"]["processes"][0]["heartbeat"]
    assert beat == {"sql": None, "redis_key": None, "file": None, "max_age_seconds": 60, kind: value}


def test_a_worker_can_be_scaled_to_zero():
    worker = resolved(shop(processes={"worker": {"instances": 0}}))["apps"]["shop"]["processes"][1]
    assert worker["slots"] == {"blue": [], "green": []}


def test_managed_services_leave_nothing_local():
    app = shop(database={"url": f"postgres://u:{RANDOM}@db.example.com:5432/shop?sslmode=require"}, redis={"url": f"rediss://u:{RANDOM}@r.example.com/0"})
    app = resolved(app)["apps"]["shop"]
    assert (app["database"]["external"], app["database"]["host"], app["database"]["name"]) == (True, None, None)
    assert (app["redis"]["external"], app["redis"]["host"], app["redis"]["jobs"]) == (True, None, None)


def test_an_address_switches_a_service_on():
    app = resolved(web(database={"url": f"postgres://u:{RANDOM}@db.example.com/x"}))["apps"]["web"]
    assert app["database"]["enabled"] and app["database"]["external"]


def test_shared_mode_is_one_process():
    app = resolved(shop(mode="shared"))["apps"]["shop"]
    assert [(process["name"], process["env"]["MEDUSA_WORKER_MODE"]) for process in app["processes"]] == [("server", "shared")]


def test_shared_mode_can_do_without_redis():
    assert not resolved(shop(mode="shared", redis={"enabled": False}))["apps"]["shop"]["redis"]["enabled"]


def test_the_user_beats_the_preset_key_by_key():
    app = resolved(shop(processes={"server": {"memory_mb": 2048, "env": {"LOG_LEVEL": "warn"}}}, build={"timeout_seconds": 60}))["apps"]["shop"]
    assert app["processes"][0]["memory_mb"] == 2048
    assert app["processes"][0]["env"] == {"MEDUSA_WORKER_MODE": "server", "DISABLE_MEDUSA_ADMIN": "false", "LOG_LEVEL": "warn"}
    assert (app["build"]["timeout_seconds"], app["build"]["output"]) == (60, ".medusa/server")


def test_null_sets_a_preset_aside():
    app = resolved(shop(rate_limit=None, migrate=None))["apps"]["shop"]
    assert (app["rate_limit"], app["migrate"]) == (None, None)


def test_lists_of_the_user_replace_those_of_the_preset():
    assert resolved(shop(shared=["uploads"]))["apps"]["shop"]["shared"] == ["uploads"]


def test_every_value_of_the_environment_is_text():
    app = resolved(env(ENABLED=True, OFF=False, COUNT=4, SHARE=2.5, NAMES=["a", " b ", 3], EMPTY=""))["apps"]["shop"]
    wanted = {"ENABLED": "true", "OFF": "false", "COUNT": "4", "SHARE": "2.5", "NAMES": "a,b,3", "EMPTY": ""}
    assert {key: app["env"][key] for key in wanted} == wanted


def test_a_secret_of_the_user_is_not_generated():
    app = resolved(env(JWT_SECRET=RANDOM))["apps"]["shop"]
    assert app["generated"] == {"COOKIE_SECRET": 128}
    assert app["secret_keys"] == ["JWT_SECRET"]


def test_a_foreign_secret_may_be_short_but_no_placeholder():
    app = {"shop": changed(SHOP, env={"SMTP_PASSWORD": "abcd efgh ijkl"}, secrets={"foreign": ["SMTP_PASSWORD"]})}
    assert resolved(app)["apps"]["shop"]["env"]["SMTP_PASSWORD"] == "abcd efgh ijkl"
    app["shop"]["env"]["SMTP_PASSWORD"] = "changeme"
    assert "placeholder" in problems(app).message


def test_a_retired_key_may_be_empty():
    assert resolved(env(ENCRYPTION_KEY_OLD=[]))["apps"]["shop"]["env"]["ENCRYPTION_KEY_OLD"] == ""


def test_any_app_may_bring_a_command_for_its_admin():
    command = ["node", "make-admin.js", "--email={email}", "--password={password}"]
    assert resolved(web(admin={"email": "a@example.com", "command": command}))["apps"]["web"]["admin"] == {"email": "a@example.com", "command": command}
    assert resolved(shop(admin={"email": "a@example.com"}))["apps"]["shop"]["admin"]["command"][-1] == "{password}"


def test_secrets_of_processes_and_build_are_known_too():
    app = shop(processes={"server": {"env": {"MAIL_TOKEN": RANDOM}}}, build={"env": {"REGISTRY_TOKEN": RANDOM}})
    assert resolved(app)["apps"]["shop"]["secret_keys"] == ["MAIL_TOKEN", "REGISTRY_TOKEN"]


def test_settings_about_secrets_are_no_secrets():
    app = resolved(env(JWT_SECRET_EXPIRES_IN="1d", PASSWORD_MIN_LENGTH=12, STRIPE_PUBLISHABLE_KEY="pk_1"))["apps"]["shop"]
    assert app["secret_keys"] == []


def test_an_anchored_expression_is_an_origin():
    pattern = r"/^https:\/\/[a-z0-9-]+\.example\.com$/"
    app = resolved(shop(env={"STORE_CORS": ["https://shop.example.com", pattern]}))["apps"]["shop"]
    assert app["env"]["AUTH_CORS"] == f"https://shop.example.com,{pattern},https://api.example.com"


def test_without_a_storefront_the_origins_are_the_back_end_itself():
    app = resolved(shop(env={}))["apps"]["shop"]
    assert {app["env"][key] for key in ("STORE_CORS", "ADMIN_CORS", "AUTH_CORS")} == {"https://api.example.com"}


def test_the_address_can_have_another_port_and_reaches_the_build():
    app = resolved(shop(url="https://api.example.com:8443"))["apps"]["shop"]
    assert app["build"]["env"]["MEDUSA_BACKEND_URL"] == "https://api.example.com:8443"
    assert app["env"]["ADMIN_CORS"] == "https://api.example.com:8443"


def test_a_proxy_in_front_may_speak_tls():
    app = resolved(shop(tls={"mode": "off"}, url="https://api.example.com"))["apps"]["shop"]
    assert app["env"]["MEDUSA_BACKEND_URL"] == "https://api.example.com"


@pytest.mark.parametrize("off", ["off", False])
def test_without_tls_the_address_is_plain_http(off):
    assert resolved(shop(tls={"mode": off}, url="http://api.example.com:8080"))["apps"]["shop"]["tls"]["mode"] == "off"
    assert resolved(shop(tls={"mode": off}))["apps"]["shop"]["url"] == "http://api.example.com"


def test_a_wildcard_is_welcome_with_the_dns_challenge():
    app = resolved(shop(domain=..., domains=["example.com", "*.example.com"], tls={"challenge": "dns"}))["apps"]["shop"]
    assert (app["url"], app["domains"]) == ("https://example.com", ["example.com", "*.example.com"])


@pytest.mark.parametrize("source", [{"path": "../shop"}, {"archive": "shop.tgz", "sha256": SHA256}], ids=["directory", "archive"])
def test_the_controller_builds_what_lies_there(source):
    app = resolved(shop(runtime="compose", source=source, image={"build_on": "controller"}))["apps"]["shop"]
    assert app["image"]["build_on"] == "controller"
    assert resolved(shop(runtime="compose", source=source))["apps"]["shop"]["image"]["build_on"] == "host"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"repo": "git@git.example.com:acme/shop.git", "version": "main"}, "git"),
        ({"repo": "ssh://git@git.example.com:2222/acme/shop.git", "version": "feature/x"}, "git"),
        ({"path": "../shop"}, "path"),
        ({"archive": "https://example.com/shop.tar.gz", "sha256": SHA256, "subdir": "apps/backend"}, "archive"),
    ],
)
def test_sources(source, kind):
    app = resolved(shop(source=source))["apps"]["shop"]["source"]
    assert app["kind"] == kind
    assert {key: app[key] for key in source} == source


def test_numbers_given_as_text_are_numbers():
    assert resolved(shop(port="9100", keep_releases="4"))["apps"]["shop"]["processes"][0]["slots"]["blue"] == [9100]


def test_two_apps_may_use_one_port_on_different_hosts():
    apps = {"one": changed(WEB, port=9000, hosts=["a1"]), "two": changed(WEB, domain="b.example.com", port=9000, hosts=["a2"])}
    resolved(apps, FLEET)
    apps["two"]["hosts"] = ["a1"]
    assert "apps.two.processes.web.port: port 9000 on a1 is already taken by apps.one.processes.web" in problems(apps, FLEET).message


def test_several_hosts():
    app = resolved({"shop": SHOP}, FLEET)["apps"]["shop"]
    assert (app["hosts"], app["database"]["host"], app["redis"]["host"], app["secrets_host"]) == (["a1", "a2"], "d1", "d1", "d1")


def test_the_first_app_host_keeps_the_secrets_beside_a_managed_database():
    app = resolved(shop(database={"url": f"postgres://u:{RANDOM}@db.example.com/shop"}), FLEET)["apps"]["shop"]
    assert app["secrets_host"] == "a1"


@pytest.mark.parametrize(
    ("topology", "path", "words"),
    [
        ({**FLEET, "proxy": FLEET["app"]}, "apps.shop.strategy", "hold is for an app on one host, which is its own proxy"),
        ({**ONE_HOST, "proxy": [*ONE_HOST["proxy"], *FLEET["proxy"]]}, "apps.shop.strategy", "hold is for an app on one host, which is its own proxy"),
        ({**FLEET, "app": FLEET["app"][:1]}, "apps.shop.strategy", "hold is for an app on one host, which is its own proxy"),
        ({**FLEET, "database": []}, "apps.shop.database", "put one into group database of the inventory, or give database.url"),
        ({**FLEET, "cache": []}, "apps.shop.redis", "put one into group cache of the inventory, or give redis.url"),
        ({**ONE_HOST, "app": []}, "topology.app", "holds no host"),
        ({**ONE_HOST, "proxy": []}, "topology.proxy", "there are domains to serve"),
        ({**FLEET, "proxy": [{"name": "p1", "address": "127.0.0.1"}]}, "topology.proxy", "p1 has the address 127.0.0.1, which no other host can reach"),
        ({**FLEET, "cache": [{"name": "c1", "address": "c1.example.com"}]}, "topology.cache", "is no IP address; set anchorage_address"),
        ({**ONE_HOST, "cache": ["vps"]}, "topology.cache", "must be a list of {name, address}"),
    ],
)
def test_a_topology_that_cannot_serve_is_refused(topology, path, words):
    found = problems({"shop": {**SHOP, "strategy": "hold"}}, topology).problems
    assert any(problem.path == path and words in problem.rule for problem in found), found


def test_no_app_is_a_contract_too():
    assert resolved({})["apps"] == {}


def test_what_the_user_wrote_is_left_alone():
    apps = {"shop": changed(SHOP, redis={"cache": {}})}
    before = copy.deepcopy(apps)
    presets = copy.deepcopy(PRESETS)
    resolved(apps)
    resolved(apps)
    assert apps == before
    assert presets == PRESETS


def test_permissions_are_a_list_of_words():
    assert resolved(shop(migrate={"allow": ["contract", "lock_heavy"]}))["apps"]["shop"]["migrate"]["allow"] == ["contract", "lock_heavy"]


def test_the_edge_of_an_app_takes_no_port_of_another():
    apps = {"one": changed(WEB, hosts=["a1"]), "two": changed(WEB, domain="b.example.com", hosts=["a1"], edge_port=9019)}
    assert "apps.two.edge_port: port 9019 on a1 is already taken by apps.one.edge_port" in problems(apps, FLEET).message
    apps["two"]["edge_port"] = 70000
    assert "apps.two.edge_port" in problems(apps, FLEET).message
    del apps["two"]["edge_port"]
    resolved(apps, FLEET)


def test_ports_over_tls_are_judged_like_all_others():
    with pytest.raises(ContractError) as caught:
        resolved({"shop": changed(SHOP, redis={"jobs": {"tls_port": 6380}, "cache": {}})}, FLEET)
    assert "port 6380 on d1 is already taken by apps.shop.redis.jobs (TLS)" in caught.value.message
    with pytest.raises(ContractError, match=r"apps\.shop\.redis\.jobs\.tls_port"):
        resolved({"shop": changed(SHOP, redis={"jobs": {"tls_port": 80}})}, FLEET)
    assert resolved({"shop": changed(SHOP, redis={"jobs": {"tls_port": 80}})})["apps"]["shop"]["redis"]["jobs"]["tls_port"] is None, "nobody comes"
