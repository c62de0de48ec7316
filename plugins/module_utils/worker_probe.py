# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers are proven by their work: a job that is handed in and comes back done, or a sign of life that is young enough.

A worker that runs and takes no jobs looks like one that has nothing to do. Only work tells them apart.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import typing as t
import urllib.parse

from . import postgresql_probe, redis_probe
from .errors import AnchorageError
from .health import FAIL, OK, Check, Verdict, judge, poll, verdict
from .http_probe import TIMEOUTS, Answer, Expression, ProbeError, Target, compiled, fetch, judge_json, parse_url
from .world import World

TOKEN = "{token}"
LOG_TAIL = 256 * 1024
EXCERPT = 200

#: A number above this is milliseconds since the epoch, as JavaScript counts, and no year beyond 5000.
MILLISECONDS = 1e11


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    """A job that is handed in, and how to see that it was done."""

    submit: Target
    poll: Target
    status: t.Sequence[int] = (200, 201, 202)
    token: str | None = None
    done: t.Sequence[Expression] = ()


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """A sign of life; exactly one of the first four is given."""

    file: str | None = None
    redis: tuple[redis_probe.Login, str] | None = None
    sql: tuple[postgresql_probe.Login, str] | None = None
    log: tuple[str, str] | None = None
    max_age_seconds: float = 120

    @property
    def subject(self) -> str:
        """Return what it is, in a few words that hold no secret."""
        if self.file:
            return f"the file {self.file}"
        if self.redis:
            return f"the key {self.redis[1]} of {self.redis[0].subject}"
        if self.sql:
            return f"the query to the {self.sql[0].subject}"
        return f"the log {t.cast('tuple[str, str]', self.log)[0]}"


# ---- the round trip --------------------------------------------------------------------------------------------------


def _load(answer: Answer) -> t.Any:
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise ProbeError("json", f"{answer.url} answered {answer.excerpt!r}, which is not JSON", "who answered there") from error


def _program(expression: str) -> t.Any:
    return compiled([Expression(expression)])[0][1]


def hand_in(trip: RoundTrip, *, world: World, seconds: float) -> tuple[Check, str]:
    """Hand the job in. Returns the check and the token that the answer gave."""
    try:
        answer = fetch(trip.submit, seconds=seconds, monotonic=world.monotonic)
        evidence = {"url": answer.url, "status": answer.status, "excerpt": answer.excerpt}
        if answer.status not in trip.status:
            wanted = " or ".join(str(status) for status in trip.status)
            cause = f"the job was not taken: status {answer.status} came, wanted {wanted} (it says {answer.excerpt!r})"
            return Check("submit", FAIL, evidence, cause, "the log of the process that answers"), ""
        if not trip.token:
            return Check("submit", OK, evidence), ""
        token = _program(trip.token).search(_load(answer))
    except ProbeError as error:
        return Check("submit", FAIL, {"url": trip.submit.url, "error": error.kind}, f"the job could not be handed in: {error.message}", error.advice), ""
    if not isinstance(token, (str, int)) or isinstance(token, bool) or token == "":
        cause = f"the answer to the job has no token ({trip.token} is {json.dumps(token)[:EXCERPT]})"
        return Check("submit", FAIL, evidence, cause, "what that address answers"), ""
    return Check("submit", OK, {**evidence, "token": token}), str(token)


def look_for(trip: RoundTrip, token: str, *, world: World, seconds: float) -> Check:
    """Ask once whether the job was done."""
    url = trip.poll.url.replace(TOKEN, urllib.parse.quote(token, safe=""))
    target = dataclasses.replace(trip.poll, url=url)
    advice = "the worker's log, its queue, and whether it is connected to the same Redis"
    try:
        answer = fetch(target, seconds=seconds, monotonic=world.monotonic)
        if answer.status != 200:
            cause = f"whether it was done cannot be asked: status {answer.status} came (it says {answer.excerpt!r})"
            return Check("done", FAIL, {"url": url, "status": answer.status}, cause, "the log of the process that answers")
    except ProbeError as error:
        return Check("done", FAIL, {"url": url, "error": error.kind}, f"whether it was done cannot be asked: {error.message}", error.advice)
    found = judge_json(answer, trip.done)[0]
    cause = f"no worker has done the job: {found.cause}"
    return judge("done", found.healthy, evidence={"url": url, **found.evidence}, cause=cause, advice=advice)


class Traveller:
    """Hands the job in once, again only as long as that fails, and then looks for its end."""

    def __init__(self, trip: RoundTrip, world: World, timeout_seconds: float) -> None:
        self.trip, self.world, self.timeout = trip, world, timeout_seconds
        self.submitted: Check | None = None
        self.token = ""
        self.handed_in_at = 0.0
        self.took: float | None = None

    def __call__(self, seconds: float) -> list[Check]:
        """Do what is next and judge."""
        if self.submitted is None or not self.submitted.healthy:
            self.handed_in_at = self.world.monotonic()
            self.submitted, self.token = hand_in(self.trip, world=self.world, seconds=min(seconds, self.timeout))
            if not self.submitted.healthy:
                return [self.submitted]
        done = look_for(self.trip, self.token, world=self.world, seconds=min(seconds, self.timeout))
        if done.healthy:
            self.took = self.world.monotonic() - self.handed_in_at
        return [self.submitted, done]


# ---- the heartbeat ---------------------------------------------------------------------------------------------------


def parse_time(text: str) -> float | None:
    """Return a time as seconds since the epoch: a number of seconds or milliseconds, or ISO 8601 (UTC where it names no zone)."""
    text = text.strip().strip('"')
    try:
        number = float(text)
        return number / 1000 if number > MILLISECONDS else number
    except ValueError:
        pass
    # Before Python 3.11 neither a Z nor fractions of other than three or six digits were understood.
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*(Z|[+-]\d\d:?(?:\d\d)?)?", text)
    if not found:
        return None
    day, hour, fraction, zone = found.groups()
    zone = "+00:00" if zone in (None, "Z") else zone if ":" in zone else f"{zone[:3]}:{zone[3:] or '00'}"
    try:
        return datetime.datetime.fromisoformat(f"{day}T{hour}.{((fraction or '') + '000000')[:6]}{zone}").timestamp()
    except ValueError:
        return None


class NoBeat(Exception):
    """There is no sign of life to judge; ``advice`` says where to look."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message, self.advice = message, advice


def last_beat(beat: Heartbeat, *, world: World, seconds: float) -> float:
    """Return the age of the last sign of life in seconds.

    :raises NoBeat: when there is none, or none that can be read.
    """
    if beat.file:
        modified = world.modified(os.path.realpath(beat.file))
        if modified is None:
            raise NoBeat(f"the file {beat.file} is not there", "the worker's log, and where it writes that file")
        return world.now() - modified
    if beat.redis:
        return world.now() - _beat_of_redis(*beat.redis, world=world, seconds=seconds)
    if beat.sql:
        return _age_by_sql(*beat.sql, world=world, seconds=seconds)
    return world.now() - _beat_of_log(*t.cast("tuple[str, str]", beat.log), world=world)


def _beat_of_redis(login: redis_probe.Login, key: str, *, world: World, seconds: float) -> float:
    try:
        connection = redis_probe.Connection(login, seconds, world.monotonic)
        try:
            if login.password is not None:
                connection.command("AUTH", *([login.user] if login.user else []), login.password)
            if login.database:
                connection.command("SELECT", str(login.database))
            value = connection.command("GET", key)
        finally:
            connection.close()
    except ProbeError as error:
        raise NoBeat(error.message, error.advice) from error
    except redis_probe.Refused as error:
        raise NoBeat(f"Redis refuses to tell the key {key} ({error})", "the rights of that user (~key and +get)") from error
    if value is None:
        raise NoBeat(f"there is no key {key} in Redis", "the worker's log, and whether it is connected to this Redis")
    found = parse_time(str(value))
    if found is None:
        raise NoBeat(f"the key {key} holds {str(value)[:EXCERPT]!r}, which is no time", "what the worker writes there")
    return found


def _age_by_sql(login: postgresql_probe.Login, query: str, *, world: World, seconds: float) -> float:
    # A time without a zone is UTC, as most libraries write it; the query may end in a comment.
    statement = f"SELECT extract(epoch FROM clock_timestamp() - ({query.strip().rstrip(';')}\n)::timestamptz);"
    limits = f"SET LOCAL statement_timeout = '{max(100, int(seconds * 1000))}ms'; SET LOCAL timezone = 'UTC';"
    lines = [r"\set ON_ERROR_STOP on", "BEGIN READ ONLY;", limits, statement, "COMMIT;", ""]
    done = world.run(["psql", "-X", "-q", "-A", "-t", "-w", "-f", "-"], input="\n".join(lines), env=login.environment(seconds), timeout=seconds)
    if done.rc == 127:
        raise AnchorageError("The program psql cannot be run on the host that is asked from.", next_step="Install the package postgresql-client there.")
    if done.rc:
        cause, said, advice = postgresql_probe.explain(done)
        raise NoBeat(f"the query failed: {said or cause}", advice)
    try:
        return float(done.stdout.strip())
    except ValueError:
        raise NoBeat("the query found nothing", "the worker's log, and whether that table is written to") from None


def _beat_of_log(path: str, pattern: str, *, world: World) -> float:
    size = world.size(path)
    if not world.exists(path):
        raise NoBeat(f"there is no log {path}", "the worker's state, and where it writes its log")
    text = world.read_part(path, max(0, size - LOG_TAIL), LOG_TAIL).decode("utf-8", "replace")
    beats = [found.group("time") for line in text.splitlines() if (found := re.search(pattern, line))]
    if not beats:
        raise NoBeat(f"no line of {path} matches {pattern!r} (its last {LOG_TAIL // 1024} KiB were read)", "the worker's log")
    found_at = parse_time(beats[-1])
    if found_at is None:
        raise NoBeat(f"the last line that matches says the time {beats[-1][:EXCERPT]!r}, which is none", "the group 'time' of the expression")
    return found_at


def feel(beat: Heartbeat, *, world: World, seconds: float) -> list[Check]:
    """Look for a sign of life once and judge its age."""
    evidence: dict[str, t.Any] = {"of": beat.subject, "max_age_seconds": beat.max_age_seconds}
    try:
        age = round(last_beat(beat, world=world, seconds=seconds), 1)
    except NoBeat as error:
        return [Check("heartbeat", FAIL, evidence, error.message, error.advice)]
    except OSError as error:
        return [Check("heartbeat", FAIL, evidence, f"{beat.subject} cannot be read: {error.strerror or error}", "run this as root")]
    except TIMEOUTS:
        return [Check("heartbeat", FAIL, evidence, f"{beat.subject} did not answer within {seconds:.3g} s", "load of that service")]
    cause = f"the last sign of life in {beat.subject} is {age:g} s old, the limit is {beat.max_age_seconds:g} s"
    if age < -5:
        return [Check("heartbeat", FAIL, {**evidence, "age_seconds": age}, f"{beat.subject} is {-age:g} s in the future", "the clocks of both hosts")]
    advice = "the worker's log, its queue, and whether it hangs"
    return [judge("heartbeat", age <= beat.max_age_seconds, evidence={**evidence, "age_seconds": age}, cause=cause, advice=advice)]


# ---- the question ----------------------------------------------------------------------------------------------------


def refuse_nonsense(question: RoundTrip | Heartbeat) -> None:
    """Fail before anything is asked when the question itself is wrong."""
    if isinstance(question, RoundTrip):
        parse_url(question.submit.url)
        parse_url(question.poll.url.replace(TOKEN, "x"))
        if not question.done:
            raise AnchorageError("done must have at least one expression, or any answer would do.")
        if (TOKEN in question.poll.url) != bool(question.token):
            raise AnchorageError(f"{TOKEN} in the url of poll and the option token go together: one of them is missing.")
        compiled([*question.done, *([Expression(question.token)] if question.token else [])])
        return
    if question.log:
        try:
            groups = re.compile(question.log[1]).groupindex
        except re.error as error:
            raise AnchorageError(f"The regular expression {question.log[1]!r} is not valid: {error}.") from error
        if "time" not in groups:
            raise AnchorageError(f"The regular expression {question.log[1]!r} needs a group (?P<time>…), which is the time of the line.")
    if question.max_age_seconds <= 0:
        raise AnchorageError(f"max_age_seconds must be more than 0, not {question.max_age_seconds:g}.")


def check(
    question: RoundTrip | Heartbeat,
    *,
    world: World,
    timeout_seconds: float = 5.0,
    deadline_seconds: float = 30.0,
    interval_seconds: float = 0.5,
    successes: int = 1,
) -> Verdict:
    """Ask until it is proven or the deadline is over."""
    refuse_nonsense(question)
    traveller = Traveller(question, world, timeout_seconds) if isinstance(question, RoundTrip) else None
    watch = poll(
        traveller or (lambda seconds: feel(t.cast(Heartbeat, question), world=world, seconds=min(seconds, timeout_seconds))),
        world=world,
        deadline_seconds=deadline_seconds,
        interval_seconds=interval_seconds,
        successes=successes,
    )
    if traveller is not None:
        took = None if traveller.took is None else round(traveller.took, 2)
        good = f"the job was done after {took:g} s" if took is not None else ""
        return verdict("The worker", watch, good=good, extra={"job_seconds": took, "age_seconds": None})
    age = watch.checks[0].evidence.get("age_seconds")
    good = f"its last sign of life is {age:g} s old" if age is not None else ""
    return verdict("The worker", watch, good=good, extra={"job_seconds": None, "age_seconds": age})
