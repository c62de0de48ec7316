# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PostgreSQL cluster holds, read with one psql, and what of the wanted roles and databases is off."""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from .encoders import sql_identifier, sql_literal
from .errors import AnchorageError
from .postgresql_scram import matches
from .world import World

#: What provisioning left of PgBouncer, for health and for a promotion.
POOL = "/etc/anchorage/pool.json"

SUPERUSER = "postgres"
SHORTEST_PASSWORD = 12
CLOSED_DATABASES = ("postgres", "template1")
PUBLIC_SCHEMA_OWNED_BY_DATABASE_OWNER = 150000
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_PORT = re.compile(r"^\s*port\s*=?\s*'?([0-9]+)", re.MULTILINE)
_RESERVED = frozenset({"postgres", "template0", "template1", "public", "none"})


@dataclasses.dataclass(frozen=True)
class Login:
    """A role that may enter, or without a password may not; beside the owner there may be others that act as the owner."""

    name: str
    password: str | None = dataclasses.field(repr=False)
    owner: str

    @property
    def is_owner(self) -> bool:
        """Whether it is the owner itself."""
        return self.name == self.owner


@dataclasses.dataclass(frozen=True)
class Database:
    """A database that one role owns."""

    name: str
    owner: str
    password: str | None = dataclasses.field(repr=False)
    extensions: tuple[str, ...] = ()
    others: tuple[Login, ...] = ()

    @property
    def logins(self) -> tuple[Login, ...]:
        """Its owner and those that act as the owner."""
        return (Login(self.owner, self.password, self.owner), *self.others)


def wanted_databases(entries: t.Iterable[t.Mapping[str, t.Any]], extensions: t.Sequence[str] = ()) -> list[Database]:
    """Return the checked databases of the user, or say which key of which entry is wrong.

    :arg extensions: extensions that every database has.
    """
    databases: list[Database] = []
    known: dict[str, Login] = {}
    for index, entry in enumerate(entries):
        others = tuple(Login(login["name"], login.get("password"), entry["owner"]) for login in entry.get("logins") or ())
        wanted = tuple(dict.fromkeys([*extensions, *(entry.get("extensions") or ())]))
        database = Database(entry["name"], entry["owner"], entry.get("password"), wanted, others)
        names = (("name", database.name), ("owner", database.owner), *(("logins", login.name) for login in others))
        for key, value in (*names, *(("extensions", name) for name in database.extensions)):
            if not _IDENTIFIER.fullmatch(value) or value in _RESERVED:
                raise AnchorageError(
                    f"postgresql_databases[{index}].{key}: '{value}' cannot be used.",
                    next_step="Use lower-case letters, digits, - and _, at most 63, and no name that PostgreSQL keeps for itself.",
                )
        if all(login.password is None for login in database.logins):
            raise AnchorageError(f"postgresql_databases[{index}].password: nobody may log in.", next_step="Give the owner a password, or one of logins.")
        for login in database.logins:
            if login.password is not None and (len(login.password) < SHORTEST_PASSWORD or "\0" in login.password):
                raise AnchorageError(
                    f"postgresql_databases[{index}].password is shorter than {SHORTEST_PASSWORD} characters or holds a NUL.",
                    next_step=f"Give the role {login.name} a longer password.",
                )
            if known.setdefault(login.name, login) != login:
                raise AnchorageError(f"postgresql_databases[{index}].password: role '{login.name}' has two passwords, or two owners.", next_step="Give it one.")
        if any(database.name == other.name for other in databases):
            raise AnchorageError(f"postgresql_databases[{index}].name: '{database.name}' is there twice.", next_step="Keep one of the two.")
        databases.append(database)
    return databases


_CLUSTER = """\
\\set ON_ERROR_STOP on
SET log_min_duration_statement = -1;
SELECT json_build_object('kind', 'server', 'version', current_setting('server_version_num')::int, 'in_recovery', pg_is_in_recovery());
SELECT json_build_object('kind', 'role', 'name', rolname, 'login', rolcanlogin, 'verifier', rolpassword,
       'powers', rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,
       'member_of', (SELECT json_agg(pg_get_userbyid(roleid)) FROM pg_auth_members WHERE member = pg_authid.oid),
       'settings', (SELECT json_agg(setting) FROM pg_db_role_setting, unnest(setconfig) AS setting WHERE setrole = pg_authid.oid AND setdatabase = 0),
       'sessions', (SELECT count(*) FROM pg_stat_activity WHERE usesysid = pg_authid.oid))
  FROM pg_authid WHERE rolname IN ({roles});
SELECT json_build_object('kind', 'database', 'name', datname, 'owner', pg_get_userbyid(datdba),
       'public', EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0))
  FROM pg_database WHERE datname IN ({names});
SELECT json_build_object('kind', 'pending', 'name', name) FROM pg_settings WHERE pending_restart;
SELECT json_build_object('kind', 'slot', 'name', slot_name) FROM pg_replication_slots WHERE slot_type = 'physical' AND starts_with(slot_name, 'anchorage_');
SELECT json_build_object('kind', 'broken', 'file', f.sourcefile, 'line', f.sourceline, 'name', f.name, 'error', f.error)
  FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
 WHERE f.error IS NOT NULL AND s.context IS DISTINCT FROM 'postmaster';
SELECT json_build_object('kind', 'broken', 'file', current_setting('hba_file'), 'line', line_number, 'error', error)
  FROM pg_hba_file_rules WHERE error IS NOT NULL;
"""
_INSIDE = """\
SELECT EXISTS (SELECT FROM pg_database WHERE datname = {literal} AND datallowconn) AS present \\gset
\\if :present
\\connect {name}
SELECT json_build_object('kind', 'inside', 'name', current_database(),
       'schema_owner', (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'),
       'extensions', (SELECT json_agg(extname) FROM pg_extension));
\\endif
"""


def _literals(names: t.Iterable[str]) -> str:
    return ", ".join(map(sql_literal, sorted(set(names)))) or "NULL"


def inspection(databases: t.Sequence[Database]) -> str:
    """Return the psql script that prints every fact as one JSON object a line. It holds no password, and names are checked before."""
    script = _CLUSTER.format(
        roles=_literals(login.name for database in databases for login in database.logins),
        names=_literals([*CLOSED_DATABASES, *(database.name for database in databases)]),
    )
    return script + "".join(_INSIDE.format(name=sql_identifier(database.name), literal=_literals([database.name])) for database in databases)


def facts(output: str) -> dict[str, list[dict[str, t.Any]]]:
    """Return the printed facts by their kind."""
    found: dict[str, list[dict[str, t.Any]]] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            fact = json.loads(line)
            found.setdefault(fact.pop("kind"), []).append(fact)
    return found


def differences(databases: t.Sequence[Database], found: t.Mapping[str, t.Sequence[t.Mapping[str, t.Any]]]) -> dict[str, t.Any]:
    """Return the names of what is missing or not as wanted; no secret is in it."""
    version = found["server"][0]["version"]
    roles = {fact["name"]: fact for fact in found.get("role", ())}
    present = {fact["name"]: fact for fact in found.get("database", ())}
    inside = {fact["name"]: fact for fact in found.get("inside", ())}
    self_owned = version >= PUBLIC_SCHEMA_OWNED_BY_DATABASE_OWNER

    logins = list(dict.fromkeys(login for database in databases for login in database.logins))

    def enters(login: Login) -> bool:
        role = roles.get(login.name)
        return role is not None and role["login"] and not role["powers"] and matches(t.cast(str, login.password), role["verifier"])

    def is_shut(login: Login) -> bool:
        role = roles.get(login.name)
        # What nobody ever made need not be shut, but somebody must own the database.
        return not login.is_owner if role is None else not role["login"] and not role["powers"]

    def acts_as_owner(login: Login) -> bool:
        role: t.Mapping[str, t.Any] = roles.get(login.name) or {}
        return login.owner in (role.get("member_of") or ()) and f"role={login.owner}" in (role.get("settings") or ())

    def schema_is_right(database: Database) -> bool:
        owner = inside.get(database.name, {}).get("schema_owner", "pg_database_owner" if self_owned else SUPERUSER)
        return owner == database.owner or (self_owned and owner == "pg_database_owner")

    open_to_all = [name for name in CLOSED_DATABASES if present.get(name, {}).get("public", False)]
    return {
        "roles": [login.name for login in logins if login.password is not None and not enters(login)],
        "members": [
            {"role": login.name, "owner": login.owner} for login in logins if login.password is not None and not login.is_owner and not acts_as_owner(login)
        ],
        "shut": [login.name for login in logins if login.password is None and not is_shut(login)],
        "sessions": [login.name for login in logins if login.password is None and roles.get(login.name, {}).get("sessions")],
        "databases": [database.name for database in databases if present.get(database.name, {}).get("owner") != database.owner],
        "schemas": [database.name for database in databases if not schema_is_right(database)],
        "public": [database.name for database in databases if present.get(database.name, {}).get("public", True)] + open_to_all,
        "extensions": [
            {"database": database.name, "name": extension}
            for database in databases
            for extension in database.extensions
            if extension not in (inside.get(database.name, {}).get("extensions") or ())
        ],
    }


def configured_port(text: str) -> int:
    """Return the port that a postgresql.conf names; the last line wins."""
    found = _PORT.findall(text)
    return int(found[-1]) if found else 5432


def clusters(world: World) -> list[dict[str, t.Any]]:
    """Return the clusters that Debian's tools know, each with the port that it holds."""
    found = []
    for version in world.listdir("/etc/postgresql"):
        for cluster in world.listdir(f"/etc/postgresql/{version}"):
            directory = f"/etc/postgresql/{version}/{cluster}"
            main = world.read(f"{directory}/postgresql.conf")
            if main is None:
                continue
            parts = [main] + [world.read(f"{directory}/conf.d/{name}") or b"" for name in world.listdir(f"{directory}/conf.d") if name.endswith(".conf")]
            port = configured_port(b"\n".join(parts).decode("utf-8", "replace"))
            found.append({"name": f"{version}/{cluster}", "port": port})
    return found


def inspect(world: World, *, version: str, cluster: str, databases: t.Sequence[Database]) -> dict[str, t.Any]:
    """Return what is on the host and in the server, changing nothing."""
    known = clusters(world)
    here = any(fact["name"] == f"{version}/{cluster}" for fact in known) and world.exists(f"/usr/lib/postgresql/{version}/bin/postgres")
    result: dict[str, t.Any] = {"installed": here, "clusters": known, "answering": False, "answer": "", "differences": {}, "pending_restart": [], "slots": []}
    result["pooled"] = world.exists(POOL)
    if not here:
        result["answer"] = f"PostgreSQL {version} is not installed yet"
        return result
    command = ["psql", "--cluster", f"{version}/{cluster}", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", "postgres"]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "anchorage"}
    done = world.run(command, input=inspection(databases), env=environment, cwd="/", timeout=60, user=SUPERUSER)
    if done.rc != 0:
        result["answer"] = done.stderr.strip() or f"psql ended with {done.rc}"
        return result
    found = facts(done.stdout)
    broken = found.get("broken", [])
    if broken:
        lines = "; ".join(f"{fact['file']}:{fact['line']} {fact.get('name') or ''} {fact['error']}" for fact in broken)
        raise AnchorageError(
            f"PostgreSQL does not accept its configuration: {lines}.",
            live="the server, with the configuration it had before",
            next_step="Correct postgresql_settings and run again.",
        )
    server = found["server"][0]
    result.update(
        answering=True,
        server_version_num=server["version"],
        in_recovery=server["in_recovery"],
        differences=differences(databases, found),
        pending_restart=sorted(fact["name"] for fact in found.get("pending", ())),
        slots=sorted(fact["name"] for fact in found.get("slot", ())),
    )
    return result
