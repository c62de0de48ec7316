# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New secrets in place of old ones, as a row of states that every run can go on from. Pure: data in, data out.

Whoever uses a secret and whoever accepts it cannot change in the same moment, so for a while both are accepted:

- C(accept): services take the new credentials as well, and processes learn the new keys to read with; they still use the old ones;
- C(use): releases are made with the new ones; services take the old ones as well, for processes that still run and for the way back;
- C(retire): nobody uses the old ones, and services refuse them.

What is wanted of services and releases is the same for each run as long as a state lasts, so provision.yml and deploy.yml fit into a rotation wherever it
was cut off. PostgreSQL keeps one password for a role, so a database has two logins that are used in turn, and the second acts as the first, its owner.
"""

from __future__ import annotations

import typing as t

from .errors import AnchorageError

Data = dict[str, t.Any]

ACCEPT, USE, RETIRE = PHASES = ("accept", "use", "retire")

#: What can be chosen besides single keys, which are refused with the reason.
DATABASE, REDIS, SESSIONS, ENCRYPTION = "database", "redis", "sessions", "encryption"

#: Lengths of passwords, in characters.
PASSWORD_LENGTH = 48

#: The two logins of a database, by which one is in use.
FIRST, SECOND = "a", "b"

#: No name of a role in a contract holds a hyphen, so the second login is never somebody else's first.
SECOND_SUFFIX = "-b"
LONGEST_NAME = 63

#: Under this name, what is no secret of a release stands beside those that are; no variable and no secret is called so.
STATE = "@rotation"


def login(user: str, turn: str) -> str:
    """Return the name of one of the two logins of a database.

    :arg user: the role that owns it, which is the first login.
    """
    return user if turn == FIRST else f"{user[: LONGEST_NAME - len(SECOND_SUFFIX)]}{SECOND_SUFFIX}"


# ---- what can be chosen ----------------------------------------------------------------------------------------------


def choices(app: Data) -> list[Data]:
    """Return every secret of a resolved app: C(name), C(keys) with their lengths, C(old) for encryption keys, C(ends_sessions), and in C(refused) why not."""
    found = [
        _service(DATABASE, app["database"], {"database_password": PASSWORD_LENGTH}, "a database"),
        _service(REDIS, app["redis"], {"redis_password": PASSWORD_LENGTH}, "a Redis"),
        _given(app, SESSIONS, app["sessions"], "secrets.sessions names none", ends_sessions=True),
        _given(app, ENCRYPTION, list(app["rotating"]), "secrets.rotating names none", old=app["rotating"]),
    ]
    for group in found[2:]:
        for key in group["keys"]:
            found.append(_refused(key, f"goes together with all of its kind: write {group['name']}"))
    for key in app["generated"]:
        if key not in app["sessions"] and key not in app["rotating"]:
            why = "nothing says what hangs on it; write it into secrets.sessions where it signs, or into secrets.rotating where it encrypts"
            found.append(_refused(key, why))
    if app["admin"]:
        found.append(_refused("admin", "is the password that the first user was made with; the app keeps its users itself, so change it there"))
    for name in app["components"]:
        found.append(_refused(name, "is a component, which took its passwords into its own data when it was made; change them there"))
    return found


def _choice(name: str, keys: Data, **more: t.Any) -> Data:
    return {"name": name, "keys": keys, "old": {}, "ends_sessions": False, "refused": "", **more}


def _refused(name: str, why: str) -> Data:
    return _choice(name, {}, refused=why)


def _service(name: str, service: Data, keys: Data, what: str) -> Data:
    if not service["enabled"]:
        return _refused(name, f"the app has no {what.split()[-1]}")
    if service["external"]:
        return _refused(name, f"{what} that is managed elsewhere keeps its own passwords; change it there, then {name}.url, and run deploy.yml")
    if service["image"]:
        return _refused(name, f"{what} in a container takes a password when it is made, and a restart to take another")
    return _choice(name, keys)


def _given(app: Data, name: str, keys: list[str], none: str, **more: t.Any) -> Data:
    """Return a choice of keys of the environment; the ones that the user gives are the user's."""
    theirs = [key for key in keys if key not in app["generated"]]
    if not keys:
        return _refused(name, none)
    if theirs:
        why = f"{' and '.join(theirs)} {'come' if len(theirs) > 1 else 'comes'} from env; change {' and '.join(keys)} there, and run deploy.yml"
        return _refused(name, why)
    return _choice(name, {key: app["generated"][key] for key in keys}, **more)


def select(app: str, offered: t.Sequence[Data], wanted: t.Sequence[str]) -> list[Data]:
    """Return what is to be rotated: what is named, or without a name all that can be without ending sessions.

    :raises AnchorageError: when something that is named cannot be rotated, or nothing can.
    """
    known = {choice["name"]: choice for choice in offered}
    wrong = []
    for name in wanted:
        if name not in known:
            able = [choice["name"] for choice in offered if not choice["refused"]]
            wrong.append(f"{name} is no secret of {app}; there are {', '.join(able) or 'none'}")
        elif known[name]["refused"]:
            wrong.append(f"{name}: {known[name]['refused']}")
    if wrong:
        raise AnchorageError(f"Not everything that is named can be rotated. {'; '.join(wrong)}. Nothing was done.")
    if wanted:
        return [known[name] for name in dict.fromkeys(wanted)]
    found = [choice for choice in offered if not choice["refused"] and not choice["ends_sessions"]]
    if not found:
        reasons = "; ".join(f"{choice['name']}: {choice['refused'] or 'would end sessions'}" for choice in offered)
        raise AnchorageError(f"Nothing of {app} can be rotated without ending sessions. {reasons or 'It has no secrets'}. Nothing was done.")
    return found


# ---- the row of states -----------------------------------------------------------------------------------------------


def begin(values: t.Mapping[str, str], state: Data, chosen: t.Sequence[Data], *, now: float, name: str, make: t.Callable[[int], str]) -> Data:
    """Return the state in which a rotation has begun. All new values are made here and never again.

    :arg values: the secrets as they are kept.
    :arg name: what this rotation is called, so that nobody goes on with another one's.
    :arg make: makes a secret of so many characters.
    :raises AnchorageError: when there is nothing yet that could be replaced.
    """
    after: dict[str, str] = {}
    teach: dict[str, str] = {}
    for choice in chosen:
        for key, length in choice["keys"].items():
            if not values.get(key):
                raise AnchorageError(f"There is no {key} yet that could be rotated.", next_step="Run site.yml first, which makes it.")
            after[key] = make(length)
            old = choice["old"].get(key)
            if old:
                teach[old] = joined(after[key], values.get(old))
                after[old] = joined(values[key], values.get(old))
    names = [choice["name"] for choice in chosen]
    turn = state.get("login", FIRST)
    pending = {
        "id": name,
        "secrets": names,
        "ends_sessions": any(choice["ends_sessions"] for choice in chosen),
        "began_at": now,
        "phase": ACCEPT,
        "phase_at": now,
        "before": {"login": turn, "values": {key: values.get(key, "") for key in after}},
        "teach": teach,
        "after": {"login": _next(turn) if DATABASE in names else turn, "values": after},
    }
    return {**state, "pending": pending}


def joined(*keys: str | None) -> str:
    """Return keys as the app finds them in one variable."""
    return ",".join(key for key in keys if key)


def _next(turn: str) -> str:
    return SECOND if turn == FIRST else FIRST


def advance(state: Data, phase: str, *, now: float, name: str) -> Data:
    """Return the state that follows; one that was reached already is left alone.

    :raises AnchorageError: when this rotation is not the one that is under way, or a state would be left out.
    """
    pending = state.get("pending")
    if not pending or pending["id"] != name:
        raise AnchorageError("The rotation that this run works on is not under way any more; another run has ended it.", next_step="Run it again.")
    here, there = PHASES.index(pending["phase"]), PHASES.index(phase)
    if there > here + 1:
        raise AnchorageError(f"A rotation cannot go from {pending['phase']} to {phase}.")
    return state if there <= here else {**state, "pending": {**pending, "phase": phase, "phase_at": now}}


def finish(values: t.Mapping[str, str], state: Data, *, now: float, name: str) -> tuple[dict[str, str], Data]:
    """Return secrets and state after a rotation. The secrets are written first: until the state is, both say the same.

    :raises AnchorageError: when old credentials are not retired yet.
    """
    pending = advance(state, RETIRE, now=now, name=name)["pending"]
    rotated = {**state.get("rotated", {}), **dict.fromkeys(pending["secrets"], now)}
    rest = {key: value for key, value in state.items() if key != "pending"}
    return {**values, **pending["after"]["values"]}, {**rest, "login": pending["after"]["login"], "rotated": rotated}


def in_force(values: t.Mapping[str, str], state: Data) -> Data:
    """Return the secrets that releases are to be made with, and under STATE what services need to know of a rotation.

    STATE holds C(login), which of the database's two logins is used; C(second), whether there ever was a second one; C(also), credentials that are
    accepted besides; C(former), those that are to be refused; and C(rotated), the names of what those replaced. Without any rotation ever, there is none.
    """
    if not state:
        return dict(values)
    pending = state.get("pending")
    turn = state.get("login", FIRST)
    if not pending:
        return {**values, STATE: _told(turn, second=turn == SECOND or DATABASE in state.get("rotated", {}))}
    before, after, phase = pending["before"], pending["after"], pending["phase"]
    second = SECOND in (before["login"], after["login"]) or DATABASE in state.get("rotated", {})
    secrets = pending["secrets"]
    if phase == ACCEPT:
        return {**values, **before["values"], **pending["teach"], STATE: _told(before["login"], second=second, also=after, rotated=secrets)}
    use = {**values, **after["values"]}
    kept = {"also": before} if phase == USE else {"former": before}
    return {**use, STATE: _told(after["login"], second=second, rotated=secrets, **kept)}


def _told(turn: str, *, second: bool, also: Data | None = None, former: Data | None = None, rotated: t.Sequence[str] = ()) -> Data:
    return {"login": turn, "second": second, "also": also or {}, "former": former or {}, "rotated": list(rotated)}


# ---- what people are told --------------------------------------------------------------------------------------------


def story(app: str, chosen: t.Sequence[Data], offered: t.Sequence[Data]) -> list[str]:
    """Return what a rotation is going to do, before it does anything."""
    lines = [f"{app}: these secrets are made anew: {', '.join(choice['name'] for choice in chosen)}"]
    for choice in chosen:
        lines.append(f"{app}:   {choice['name']}: {_what(choice)}")
    names = [choice["name"] for choice in chosen]
    for choice in offered:
        if choice["name"] not in names and choice["keys"]:
            lines.append(f"{app}:   left as it is: {choice['name']}" + (" (would end sessions; -e secrets=…)" if choice["ends_sessions"] else ""))
    releases = 2 if any(choice["old"] for choice in chosen) else 1
    lines.append(f"{app}:   {releases} release{'s' if releases > 1 else ''} of the source that is live, each started, proven and switched to as any other")
    return lines


def _what(choice: Data) -> str:
    if choice["ends_sessions"]:
        return f"{' and '.join(choice['keys'])}, in one go. EVERYBODY WHO IS LOGGED IN IS LOGGED OUT when the new release gets the traffic"
    if choice["old"]:
        return "; ".join(f"{key}, once all processes can read with it; the one before is kept in {old}" for key, old in choice["old"].items())
    if choice["name"] == DATABASE:
        return "the other one of the database's two logins gets a new password; the one in use now is shut when nobody uses it any more"
    return "a second password for the same user; the one in use now is taken away when nobody uses it any more"


def describe(app: str, state: Data, now: float) -> str:
    """Say in a line what rotation is under way; empty where none is."""
    pending = state.get("pending")
    if not pending:
        return ""
    doing = {ACCEPT: "services learn to accept the new ones", USE: "releases are made with the new ones", RETIRE: "the old ones are retired"}
    minutes = (now - pending["began_at"]) / 60
    return f"{app}: a rotation of {', '.join(pending['secrets'])} has been under way for {minutes:.0f} min: {doing[pending['phase']]}"
