# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster of this host, spoken to as its superuser: what a restore does to databases in it."""

from __future__ import annotations

import json
import typing as t

from .database import Database, first_line
from .encoders import sql_identifier, sql_literal
from .errors import AnchorageError
from .postgresql_objects import clusters
from .world import Completed, World

SOCKET = "/var/run/postgresql"

#: Whose lists PostgreSQL takes as they are: in quotes, all of it would be one name.
LISTS = ("search_path", "temp_tablespaces", "session_preload_libraries", "shared_preload_libraries", "local_preload_libraries", "unix_socket_directories")

#: How often those are sent away who hold on to a database that is to be renamed.
TRIES = 5

#: Processes that dump, load and build indexes.
JOBS = "2"

Data = dict[str, t.Any]


def local_cluster(world: World, archive: t.Any) -> tuple[str, str, int]:
    """Return version, name and port of this host's cluster.

    :arg archive: what the settings say of the cluster whose WAL is archived, if there is one.
    :raises AnchorageError: when there is none.
    """
    if archive is not None:
        return archive.version, archive.cluster, archive.port
    known = clusters(world)
    if not known:
        raise AnchorageError("There is no PostgreSQL cluster on this host.", next_step="Run this on the host of the group database.")
    version, _slash, name = known[-1]["name"].partition("/")
    return version, name, known[-1]["port"]


class LocalDatabase(Database):
    """One database of the host's own cluster; root enters it as postgres by who it is."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.world = cluster.world
        self.environment = {**cluster.environment, "PGDATABASE": name}

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.environment["PGDATABASE"]


class LocalCluster:
    """The cluster of this host."""

    def __init__(self, world: World, version: str, cluster: str, port: int) -> None:
        self.world = world
        self.version = version
        self.cluster = cluster
        self.port = port
        self.programs = f"/usr/lib/postgresql/{version}/bin"
        self.data = f"/var/lib/postgresql/{version}/{cluster}"
        self.unit = f"postgresql@{version}-{cluster}.service"
        self.environment = {
            "PATH": f"{self.programs}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PGHOST": SOCKET,
            "PGPORT": str(port),
            "PGUSER": "postgres",
            "PGAPPNAME": "anchorage-restore",
            "PGCONNECT_TIMEOUT": "10",
        }

    def database(self, name: str = "postgres") -> LocalDatabase:
        """Return one of its databases."""
        return LocalDatabase(self, name)

    def execute(self, sql: str, *, timeout: float = 60, **variables: str) -> str:
        """Run SQL that is about databases and not in one."""
        return self.database().execute(sql, timeout=timeout, **variables)

    def answers(self) -> bool:
        """Tell whether it takes writes."""
        done = self.database().psql("SELECT pg_is_in_recovery()", timeout=30)
        return done.rc == 0 and done.stdout.strip() == "f"

    def known(self, name: str) -> Data | None:
        """Return what the catalog says of a database; None where there is none."""
        text = self.execute(
            "SELECT to_jsonb(d) || jsonb_build_object('owner', pg_get_userbyid(datdba), 'coding', pg_encoding_to_char(encoding),"
            " 'bytes', pg_database_size(oid), 'said', shobj_description(oid, 'pg_database')) FROM pg_database d WHERE datname = :'name'",
            name=name,
        )
        return t.cast("Data", json.loads(text)) if text else None

    def databases(self) -> list[str]:
        """Return the names of its databases, templates apart."""
        text = self.execute("SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE NOT datistemplate")
        return t.cast("list[str]", json.loads(text))

    def end_sessions(self, name: str) -> None:
        """End everybody's sessions in a database."""
        self.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = :'name' AND pid <> pg_backend_pid()", name=name)

    def fence(self, name: str) -> None:
        """Keep everybody but superusers out of a database."""
        self.execute(f"ALTER DATABASE {sql_identifier(name)} CONNECTION LIMIT 0")
        self.end_sessions(name)

    def unfence(self, name: str, limit: int) -> None:
        """Let them in again."""
        self.execute(f"ALTER DATABASE {sql_identifier(name)} CONNECTION LIMIT {limit}")

    def drop(self, name: str) -> None:
        """Drop a database, whoever is in it; one that is not there is no error."""
        self.execute(f"DROP DATABASE IF EXISTS {sql_identifier(name)} WITH (FORCE)", timeout=600)

    def say_of(self, name: str, words: str | None) -> None:
        """Attach a remark to a database, or take it away."""
        self.execute(f"COMMENT ON DATABASE {sql_identifier(name)} IS {'NULL' if words is None else sql_literal(words)}")

    def create_like(self, name: str, model: Data, owner: str) -> None:
        """Create a database with encoding and locale of another one."""
        words = [f"CREATE DATABASE {sql_identifier(name)} TEMPLATE template0 OWNER {sql_identifier(owner)} ENCODING {sql_literal(model['coding'])}"]
        words.append(f"LC_COLLATE {sql_literal(model['datcollate'])} LC_CTYPE {sql_literal(model['datctype'])}")
        locale = model.get("datlocale") or model.get("daticulocale")
        if model.get("datlocprovider") == "i" and locale:
            words.append(f"LOCALE_PROVIDER icu ICU_LOCALE {sql_literal(locale)}")
        if model.get("datlocprovider") == "b" and locale:
            words.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {sql_literal(locale)}")
        self.execute(" ".join(words), timeout=600)

    def copy_rights(self, source: str, name: str) -> None:
        """Give a database the rights and the settings of another one; without another, nobody but its owner may enter."""
        shut = f"REVOKE ALL ON DATABASE {sql_identifier(name)} FROM PUBLIC;\n"
        text = self.execute(
            "SELECT json_build_object('default', datacl IS NULL, 'rights', (SELECT coalesce(json_agg(json_build_object('right', privilege_type,"
            " 'to', CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee) END, 'pass', is_grantable)), '[]') FROM aclexplode(datacl)),"
            " 'settings', (SELECT coalesce(json_agg(json_build_object('role', CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole) END,"
            " 'values', setconfig)), '[]') FROM pg_db_role_setting WHERE setdatabase = d.oid)) FROM pg_database d WHERE datname = :'name'",
            name=source,
        )
        found: Data = json.loads(text) if text else {"default": False, "rights": [], "settings": []}
        self.execute((shut if not found["default"] else "") + rights_sql(name, found["rights"]) + settings_sql(name, found["settings"]) + "SELECT 1")

    def exchange(self, name: str, coming: str, aside: str | None) -> None:
        """Let one database take another one's name, in one transaction: at no moment is there none of that name.

        :arg aside: the name that the present one gets; None where there is none.
        :raises AnchorageError: when somebody cannot be made to leave.
        """
        away = f"ALTER DATABASE {sql_identifier(name)} RENAME TO {sql_identifier(aside)};" if aside else ""
        done = Completed(1, "", "")
        for _try in range(TRIES):
            for one in (name, coming) if aside else (coming,):
                self.end_sessions(one)
            done = self.database().psql(f"BEGIN; {away} ALTER DATABASE {sql_identifier(coming)} RENAME TO {sql_identifier(name)}; COMMIT;", timeout=120)
            if done.rc == 0:
                return
        raise AnchorageError(f"{name} could not be exchanged for {coming}: {first_line(done.stderr)}")

    def tool(self, program: str, *words: str, database: Database, seconds: float) -> Completed:
        """Run one of PostgreSQL's programs. Not behind everybody else: an app is stopped meanwhile."""
        return self.world.run([f"{self.programs}/{program}", *words], env=database.environment, cwd="/", timeout=seconds)


def rights_sql(name: str, rights: t.Sequence[Data]) -> str:
    """Return what gives a database these rights."""
    lines = []
    for entry in rights:
        to = "PUBLIC" if entry["to"] is None else sql_identifier(entry["to"])
        lines.append(f"GRANT {entry['right']} ON DATABASE {sql_identifier(name)} TO {to}{' WITH GRANT OPTION' if entry['pass'] else ''};\n")
    return "".join(lines)


def settings_sql(name: str, settings: t.Sequence[Data]) -> str:
    """Return what gives a database these settings."""
    lines = []
    for entry in settings:
        subject = f"DATABASE {sql_identifier(name)}" if entry["role"] is None else f"ROLE {sql_identifier(entry['role'])} IN DATABASE {sql_identifier(name)}"
        for setting in entry["values"]:
            key, _equals, value = setting.partition("=")
            lines.append(f"ALTER {subject} SET {'.'.join(map(sql_identifier, key.split('.')))} TO {value if key.lower() in LISTS else sql_literal(value)};\n")
    return "".join(lines)
