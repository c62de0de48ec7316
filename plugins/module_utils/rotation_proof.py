# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a rotation, proven from a host of the app: what is in use gets in, what was in use before is turned away, and nobody holds it any more.

That nothing gets in proves nothing by itself, so each refusal counts only beside a login that succeeds in the same way.
"""

from __future__ import annotations

import typing as t

from . import processes, redis_probe
from .database import Database, first_line
from .errors import AnchorageError
from .http_probe import ProbeError
from .runtime import SWARM, name_of
from .world import Completed, World

Data = dict[str, t.Any]

#: How PostgreSQL turns a login away, and how PgBouncer does. Anything else (nothing listens, no such database) is no answer to the question.
TURNED_AWAY = ("password authentication failed", "is not permitted to log in", "SASL authentication failed", "no such user")

SECONDS = 10.0


def judge_database(done: Completed) -> str:
    """Return C(in), C(out), or what else PostgreSQL said."""
    if done.rc == 0:
        return "in"
    return "out" if any(words in done.stderr for words in TURNED_AWAY) else first_line(done.stderr)


def judge_redis(error: Exception | None) -> str:
    """Return C(in), C(out), or what else Redis said."""
    if error is None:
        return "in"
    if isinstance(error, redis_probe.Refused):
        return "out" if error.code == "WRONGPASS" else error.code
    return str(getattr(error, "message", error))


def ask_database(world: World, url: str) -> str:
    """Try a login."""
    return judge_database(Database(world, url).psql("SELECT 1", timeout=SECONDS))


def ask_redis(world: World, url: str) -> str:
    """Try a login."""
    login = redis_probe.parse_url(url)
    try:
        connection = redis_probe.Connection(login, SECONDS, world.monotonic)
        try:
            connection.command("AUTH", *([login.user] if login.user else []), login.password or "")
            connection.command("PING")
        finally:
            connection.close()
    except (redis_probe.Refused, ProbeError) as error:
        return judge_redis(error)
    return judge_redis(None)


def holders(world: World, app: str, live: str | None, environment: t.Mapping[str, str], keys: t.Mapping[str, str], *, elsewhere: bool = False) -> list[str]:
    """Return what is wrong with the environments of an app's processes.

    :arg environment: values that none may have.
    :arg keys: values that each of the live release must have.
    :arg elsewhere: whether all of them may be on other hosts.
    """
    wrong: list[str] = []
    seen = 0
    for pid in processes.pids(world):
        found = processes.environment(world, pid) or {}
        name = found.get("ANCHORAGE_PROCESS")
        if not name or not name.startswith(f"{app}-"):
            continue
        seen += 1
        wrong += [f"{name} (process {pid}) still has the old {key}" for key, value in environment.items() if found.get(key) == value]
        if found.get("ANCHORAGE_RELEASE") == live:
            wrong += [f"{name} (process {pid}) does not have the new {key}" for key, value in keys.items() if found.get(key) != value]
    if not seen and live and not elsewhere:
        wrong.append("no process of it is there that could be looked at")
    return wrong


def prove(world: World, document: Data, former: Data, live: str | None) -> list[str]:
    """Return what was proven, one line each.

    :arg document: the app as it is today.
    :arg former: C(urls) with the credentials of before by the document's own keys, C(environment) with values that no process may have, and the C(keys) that
      each process must have as the document says.
    :raises AnchorageError: when something is not as it must be; no credential is in the message.
    """
    app, wrong, proven = document["name"], [], []
    for key, old in former["urls"].items():
        ask = ask_database if key.startswith("database") else ask_redis
        present, before = ask(world, document[key]), ask(world, old)
        if present != "in":
            wrong.append(f"{key}: the new credential does not get in ({present})")
        elif before == "in":
            wrong.append(f"{key}: the old credential still gets in")
        elif before != "out":
            wrong.append(f"{key}: whether the old credential is refused is not known ({before})")
        else:
            proven.append(f"{app}: proven: {key}: the new credential gets in, the old one is refused")
    if former["urls"].get("database_url") and not wrong:
        owner, acts = document["database"]["user"], Database(world, document["database_url"]).execute("SELECT current_user")
        if acts != owner:
            wrong.append(f"database_url: the login acts as {acts}, and what it makes would not belong to {owner}")
    keys = {key: document["secrets_env"][key] for key in former["keys"] if key in document["secrets_env"]}
    if former["environment"] or keys:
        found = holders(world, app, live, former["environment"], keys, elsewhere=name_of(document) == SWARM)
        wrong += found
        if not found:
            proven.append(f"{app}: proven: every process has the new {', '.join(keys)}")
    if wrong:
        raise AnchorageError(
            f"The rotation of {app} is not proven: {'; '.join(wrong)}.",
            what="proof that old credentials are refused",
            next_step="Mend the cause and run rotate_secrets.yml again; it goes on here.",
        )
    return proven


def end_connections(world: World, cli: t.Sequence[str], user: str, older_seconds: float) -> int:
    """End what a user of Redis has connected before a time: by a password that is gone, since nobody had the new one then. Returns how many there were.

    :arg cli: the command that speaks to the instance as its administrator.
    """
    listed = world.run([*cli, "CLIENT", "LIST"], timeout=SECONDS)
    if listed.rc != 0:
        raise AnchorageError(f"The connections of Redis cannot be listed: {first_line(listed.stderr or listed.stdout)}")
    old = aged(listed.stdout, user, older_seconds)
    for number in old:
        world.run([*cli, "CLIENT", "KILL", "ID", number], timeout=SECONDS)
    return len(old)


def aged(listing: str, user: str, older_seconds: float) -> list[str]:
    """Return the ids of a user's connections that are older than so many seconds, out of what CLIENT LIST says."""
    found = []
    for line in listing.splitlines():
        facts = dict(word.partition("=")[::2] for word in line.split())
        if facts.get("user") == user and facts.get("age", "").isdigit() and float(facts["age"]) > older_seconds:
            found.append(facts["id"])
    return found
