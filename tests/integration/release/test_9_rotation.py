# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every secret of an app is made anew while customers use it: nobody notices, the old ones are refused, and what is cut off is gone on with."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from .conftest import RUNTIME, Visitor, kill, until

pytestmark = pytest.mark.skipif(RUNTIME == "compose", reason="in containers only what a release alone needs is rotated")

SECRETS = {
    "generate": {"JWT_SECRET": 128, "COOKIE_SECRET": 128, "ENCRYPTION_KEY_CURRENT": 64},
    "sessions": ["JWT_SECRET", "COOKIE_SECRET"],
    "rotating": {"ENCRYPTION_KEY_CURRENT": "ENCRYPTION_KEY_OLD"},
}
QUIET = "database,redis,encryption"
KEPT, STATE = "/etc/anchorage/secrets/alpha.json", "/etc/anchorage/secrets/alpha.rotation.json"


@pytest.fixture
def clinic(shop):
    """The host, with an app that has every kind of secret."""
    if shop.apps.apps["alpha"].get("secrets") != SECRETS:
        shop.apps.app("alpha", pulses=True)
        shop.apps.apps["alpha"] = patient({**shop.apps.apps["alpha"], "secrets": SECRETS})
        shop.apps.write()
        shop.apps.run("site")
    if "pending" in kept(shop.host)[1]:
        rotate(shop)  # what a test before left, where it failed
    return shop


def patient(app):
    """Give the processes of an app time to start: customers of many kinds are a load for a small machine."""
    processes = {name: {**told, "health": {**told["health"], "deadline_seconds": 90}} for name, told in app["processes"].items()}
    return {**app, "processes": processes}


def kept(host):
    """Return the secrets as they lie on the host, and how far a rotation is."""
    return json.loads(host.shell(f"cat {KEPT}")), json.loads(host.shell(f"cat {STATE} 2>/dev/null || echo '{{}}'"))


def ask(host, path, *, method="GET", body=None, token=None, status=200):
    """Ask the site as a customer does; any other status is a failure."""
    headers = {"Host": "alpha.localhost", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"http://127.0.0.1:{host.facts['lab_ports']['80']}{path}", data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            got, said = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        got, said = error.code, error.read()
    assert got == status, f"{method} {path}: {got} {said[:200]!r}"
    return said


def sealed(host, text):
    """Let the app encrypt something."""
    return json.loads(ask(host, f"/ops/seal?text={urllib.parse.quote(text)}"))["sealed"]


def opened(host, secret):
    """Let the app decrypt something."""
    return json.loads(ask(host, f"/ops/open?sealed={secret}"))["text"]


def sealing(host):
    """A customer whose record is written, and read by whichever process answers then."""
    assert opened(host, sealed(host, "diagnosis")) == "diagnosis"
    return "sealed"


@contextlib.contextmanager
def customers(host, *, token=None, plain=False):
    """Customers of every kind: those who read, write over a new connection, use Redis, keep secrets, and are logged in.

    :arg plain: only the first two, who are served without what C(pulses) brings.
    """
    kinds = {
        "read": lambda: ask(host, "/items") and "read",
        # Each write is a login of its own to PostgreSQL.
        "write": lambda: ask(host, "/items", method="POST", body=b"rotated", status=201) and "write",
        **({} if plain else {"redis": lambda: ask(host, "/ops/ready") and "redis", "seal": lambda: sealing(host)}),
        **({"session": lambda: ask(host, "/ops/me", token=token) and "session"} if token else {}),
    }

    def at_leisure(one):
        time.sleep(0.2)
        return one()

    with contextlib.ExitStack() as stack:
        found = {name: stack.enter_context(Visitor(host, functools.partial(at_leisure, one))) for name, one in kinds.items()}
        yield found
    for visitor in found.values():
        visitor.check()


def rotate(shop, *words, rc=0, **environment):
    """Run the playbook for alpha."""
    return shop.apps.run("rotate_secrets", "-e", "app=alpha", *words, rc=rc, **environment)


def psql(host, user, password):
    """Log in to PostgreSQL past everything of ours, and say how that went."""
    script = f"PGPASSWORD={shlex.quote(password)} psql -XAtq -h 127.0.0.1 -U {user} alpha -c 'SELECT current_user' 2>&1 || true"
    return host.shell(script).strip()


def redis(host, password):
    """Log in to Redis past everything of ours."""
    return host.shell(f"REDISCLI_AUTH={shlex.quote(password)} redis-cli --user alpha --no-auth-warning PING 2>&1").strip()


def in_processes(host):
    """Return the environments of all processes of the app."""
    return host.shell("for pid in $(pgrep -u alpha); do tr '\\0' '\\n' < /proc/$pid/environ; done")


def check_refused(host, old, *, login):
    """Ask with the old credentials, past everything of ours."""
    new, _state = kept(host)
    other = {"alpha": "alpha-b", "alpha-b": "alpha"}[login]
    assert psql(host, login, new["database_password"]) == "alpha", "whoever logs in acts as the owner"
    assert "is not permitted to log in" in psql(host, other, old["database_password"])
    assert "password authentication failed" in psql(host, login, old["database_password"])
    assert redis(host, new["redis_password"]).endswith("PONG") and "WRONGPASS" in redis(host, old["redis_password"])
    processes = in_processes(host)
    assert new["database_password"] in processes and old["database_password"] not in processes and old["redis_password"] not in processes


def owners(host):
    """Return who owns what is in the database, but for what extensions brought."""
    of_extensions = "SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'"
    tables = "pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname IN ('public', 'anchorage')"
    return host.sql(f"SELECT DISTINCT pg_get_userbyid(relowner) FROM {tables} AND NOT EXISTS ({of_extensions})")


def login_of(state):
    """Return which login is in use."""
    return "alpha" if state.get("login", "a") == "a" else "alpha-b"


def test_what_cannot_be_rotated_is_refused_and_check_mode_changes_nothing(shop):
    before, secrets = shop.host.serving(), kept(shop.host)
    said = rotate(shop, "-e", "secrets=database,admin,JWT_SECRET", rc=None)
    assert "admin is no secret of alpha; there are database, redis" in said.output and said.changed == 0
    assert "nothing says what hangs on it" in said.output
    said = shop.apps.run("rotate_secrets", "-e", "app=nobody", rc=None)
    assert "Say whose secrets are rotated, with -e app=NAME: alpha" in said.output
    planned = rotate(shop, "--check")
    assert "these secrets are made anew: database, redis" in planned.output
    assert kept(shop.host) == secrets and shop.host.serving() == before


def test_passwords_are_made_anew_without_a_failed_request_and_the_old_ones_are_refused(shop):
    first, state = kept(shop.host)
    with customers(shop.host, plain=True):
        rotate(shop)
    second, now = kept(shop.host)
    assert "pending" not in now and {key for key in second if second[key] != first.get(key)} == {"database_password", "redis_password"}
    check_refused(shop.host, first, login=login_of(now))
    assert login_of(now) != login_of(state) and owners(shop.host) == "alpha"
    assert shop.apps.run("site").changed == 0


@pytest.mark.fault
def test_every_secret_is_made_anew_under_load_and_the_old_ones_are_refused(clinic):
    host = clinic.host
    first, state = kept(host)
    record, token = sealed(host, "kept for years"), json.loads(ask(host, "/ops/login"))["token"]
    before = host.serving()
    with customers(host, token=token):
        ended = rotate(clinic, "-vvv", "--diff")
    after = host.serving()
    after.check()
    second, now = kept(host)
    assert after.live != before.live and login_of(now) != login_of(state)
    changed = {key for key in second if second[key] != first.get(key)}
    assert changed == {"database_password", "redis_password", "ENCRYPTION_KEY_CURRENT", "ENCRYPTION_KEY_OLD"}
    assert second["ENCRYPTION_KEY_OLD"].split(",")[0] == first["ENCRYPTION_KEY_CURRENT"]
    check_refused(host, first, login=login_of(now))
    assert owners(host) == "alpha", "whoever logged in, all belongs to the owner"
    assert opened(host, record) == "kept for years" and ask(host, "/ops/me", token=token)
    assert clinic.apps.run("site").changed == 0

    # No value, old or new, is in what was said or left.
    hidden = [value for secrets in (first, second) for key in secrets for value in secrets[key].split(",")]
    places = {
        "the output": ended.output,
        "the journal": host.shell("journalctl --no-pager -o cat"),
        "the logs": host.shell("cat /var/lib/anchorage/alpha/log/* /var/lib/anchorage/alpha/journal.json /var/log/postgresql/*"),
        "the state": host.shell(f"cat {STATE}"),
        "what is left": host.shell("ls -A /etc/anchorage/secrets /tmp; cat /tmp/* 2>/dev/null || true"),
    }
    assert not [(place, value[:6]) for place, text in places.items() for value in hidden if value in text]

    # A release from before cannot come back: its credentials are refused.
    refused = clinic.apps.run("rollback", "-e", "app=alpha", "-e", f"release={before.live}", rc=None)
    assert "was made before its secrets were rotated" in refused.output and host.serving() == after

    # Sessions end when it is named, and that is said before anything is done.
    with customers(host):
        ended = rotate(clinic, "-e", "secrets=sessions")
    assert ended.output.index("EVERYBODY WHO IS LOGGED IN IS LOGGED OUT") < ended.output.index("TASK [Begin, or find what was begun]")
    ask(host, "/ops/me", token=token, status=401)
    ask(host, "/ops/me", token=json.loads(ask(host, "/ops/login"))["token"])
    third, _now = kept(host)
    assert {key for key in third if third[key] != second[key]} == {"JWT_SECRET", "COOKIE_SECRET"}
    assert second["JWT_SECRET"] not in in_processes(host) and third["JWT_SECRET"] in in_processes(host)
    assert opened(host, record) == "kept for years"

    # And back to the first login.
    with customers(host):
        rotate(clinic, "-e", f"secrets={QUIET}")
    fourth, now = kept(host)
    assert login_of(now) == login_of(state)
    check_refused(host, third, login=login_of(now))
    assert owners(host) == "alpha" and opened(host, record) == "kept for years"
    assert len(fourth["ENCRYPTION_KEY_OLD"].split(",")) == len(second["ENCRYPTION_KEY_OLD"].split(",")) + 1
    assert clinic.apps.run("site").changed == 0


LOGINS, REDIS, RELEASE = "anchorage.vps.postgresql : logins", "anchorage.vps.redis : configure", "anchorage.vps.release"

#: Where a run is killed: before a task, or some seconds after its start. A task's key says how often its name came before in the same run.
KILLED = {
    "before anything is made": ("Begin, or find what was begun", 0),
    "before PostgreSQL knows the second login": (f"{LOGINS} | Give each login its role and password", 0),
    "before the second login acts as the owner": (f"{LOGINS} | Let each further login act as its owner", 0),
    "before Redis knows the second password": (f"{REDIS} | Put every instance into its state", 0),
    "before processes learn": (f"{RELEASE} : stage | Build the release and put it beside the one that runs", 0),
    "while those that learned take over": (f"{RELEASE} : activate | Start the release, prove it, give it the traffic", 4),
    "before the new ones are used": ("Make releases with the new ones from now on", 0),
    "before a release with the new ones": (f"{RELEASE} : stage | Build the release and put it beside the one that runs #1", 0),
    "while it is migrated": (f"{RELEASE} : Migrate the database #1", 1),
    "while it takes over": (f"{RELEASE} : activate | Start the release, prove it, give it the traffic #1", 4),
    "before the old ones are retired": ("Let services refuse the old ones from now on", 0),
    "before the old login is shut": (f"{LOGINS} | Shut roles that may not log in #1", 0),
    "before Redis forgets the old password": (f"{REDIS} | Put every instance into its state #1", 0),
    "before the proof": ("Prove that the old ones are refused", 0),
    "before the end is written down": ("Keep the new ones, and forget the old ones", 0),
}


#: Without keys to be learned first there is one release, and not two.
CASES = [*((moment, QUIET) for moment in KILLED), *((moment, "database,redis") for moment in ("before a release with the new ones", "before the proof"))]


def cut_off(shop, directory, task, seconds, *, way=kill, secrets=QUIET):
    """Start a rotation, and end it at a task."""
    directory.mkdir()
    borders = {"ANSIBLE_CALLBACKS_ENABLED": "task_borders", "TASK_BORDERS": str(directory), "TASK_BORDERS_STOP": task}
    run = shop.apps.start("rotate_secrets", "-e", "app=alpha", "-e", f"secrets={secrets}", **borders)
    until(lambda: (directory / "reached").exists() or run.poll() is not None, f"task {task}", 240)
    assert run.poll() is None, f"the run never came to {task}"
    if seconds:
        (directory / "go").touch()
        time.sleep(seconds)
    way(run)


def check_gone_on_with(shop, first, state, pending, record):
    """All of it is new, as it was begun, and the old ones are refused."""
    host = shop.host
    second, now = kept(host)
    assert "pending" not in now and login_of(now) != login_of(state)
    if pending:
        assert second["database_password"] == pending["after"]["values"]["database_password"], "what was begun was gone on with"
    check_refused(host, first, login=login_of(now))
    assert owners(host) == "alpha" and opened(host, record) == "kept for years"
    known = f"{second['ENCRYPTION_KEY_CURRENT']},{second.get('ENCRYPTION_KEY_OLD', '')}".split(",")
    assert first["ENCRYPTION_KEY_CURRENT"] in known, "no earlier key is lost"


@pytest.mark.fault
@pytest.mark.parametrize(("moment", "secrets"), CASES)
def test_a_rotation_that_is_killed_anywhere_is_gone_on_with(clinic, record_property, tmp_path, moment, secrets):
    host, (task, seconds) = clinic.host, KILLED[moment]
    record = sealed(host, "kept for years")
    first, state = kept(host)
    with customers(host) as found:
        cut_off(clinic, tmp_path / "cut", task, seconds, secrets=secrets)
        pending = kept(host)[1].get("pending")
        # What anybody does meanwhile fits in.
        if moment in ("while it takes over", "before the old ones are retired"):
            clinic.apps.run("site")
        rotate(clinic)
    check_gone_on_with(clinic, first, state, pending, record)
    assert clinic.apps.run("site").changed == 0
    record_property("answers", sum(len(visitor.releases) for visitor in found.values()))


@pytest.mark.fault
@pytest.mark.parametrize("moment", ["before PostgreSQL knows the second login", "while it takes over", "before the old login is shut"])
def test_a_power_cut_in_a_rotation_is_made_good(clinic, tmp_path, moment):
    host, (task, seconds) = clinic.host, KILLED[moment]
    record = sealed(host, "kept for years")
    first, state = kept(host)

    def power_cut(run):
        host.command("power-cut", host.lab, host.name)
        kill(run)

    cut_off(clinic, tmp_path / "cut", task, seconds, way=power_cut)
    until(lambda: host.state()["running"], "the release", 90)
    until(lambda: opened(host, record) == "kept for years", "the site")
    pending = kept(host)[1]["pending"]
    with customers(host):
        rotate(clinic)
    check_gone_on_with(clinic, first, state, pending, record)


@pytest.mark.fault
def test_a_release_that_cannot_live_with_the_new_ones_leaves_the_old_ones_in_force(clinic):
    """The old login must not be shut while it is needed: here the app cannot use the new one."""
    host, before, (first, state) = clinic.host, clinic.host.serving(), kept(clinic.host)
    other = {"alpha": "alpha-b", "alpha-b": "alpha"}[login_of(state)]
    with customers(host):
        # As if somebody had shut it: in the middle of the run, so that provisioning does not mend it.
        run = clinic.apps.start("rotate_secrets", "-e", "app=alpha", "-e", "secrets=database")
        until(lambda: kept(host)[1].get("pending", {}).get("phase") == "use", "the second half", 120)
        host.sql(f'ALTER ROLE "{other}" CONNECTION LIMIT 0')
        ended = clinic.apps.end(run)
        assert ended.rc != 0 and "Live now: alpha release" in ended.output.replace("\n", " ")
        assert host.serving().live == before.live and kept(host)[1]["pending"]["phase"] == "use"
        assert psql(host, login_of(state), first["database_password"]) == "alpha", "the old one still gets in"
        host.sql(f'ALTER ROLE "{other}" CONNECTION LIMIT -1')
        rotate(clinic)
    check_refused(host, {**first, "redis_password": "x" * 48}, login=other)
