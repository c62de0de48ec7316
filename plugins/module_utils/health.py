# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts with evidence, and the loop that asks until a thing is proven or its time is over.

A probe asks one thing once and returns checks. ``poll`` repeats it until enough probes in a row were healthy or the deadline
is reached. ``verdict`` turns what was watched into one sentence for people and plain data for programs.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .errors import AnchorageError

OK = "ok"
WARN = "warn"
FAIL = "fail"

IGNORE = "ignore"
SEVERITIES = (IGNORE, WARN, FAIL)


class Clock(t.Protocol):
    """What polling needs of the world."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One question, its verdict and what the verdict rests on."""

    name: str
    verdict: str = OK
    evidence: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    cause: str = ""
    advice: str = ""
    attempts: int = 1
    seconds: float = 0.0

    @property
    def healthy(self) -> bool:
        """Tell whether this check lets the whole be called healthy; a warning does."""
        return self.verdict != FAIL

    def as_dict(self) -> dict[str, t.Any]:
        """Return the check as plain data."""
        return {
            "name": self.name,
            "healthy": self.healthy,
            "verdict": self.verdict,
            "evidence": dict(self.evidence),
            "cause": self.cause,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 3),
        }


Probe = t.Callable[[float], t.Sequence[Check]]


@dataclasses.dataclass(frozen=True)
class Watch:
    """What was seen between the first probe and the last one."""

    checks: tuple[Check, ...]
    attempts: int
    healthy_attempts: int
    longest_run: int
    wanted_run: int
    seconds: float
    causes: tuple[tuple[str, int], ...] = ()

    @property
    def healthy(self) -> bool:
        """Tell whether every check of the last probe and the run of healthy probes are good enough."""
        return all(check.healthy for check in self.checks)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer of a health module."""

    healthy: bool
    checks: tuple[Check, ...]
    summary: str
    message: str
    extra: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def grade(self) -> str:
        """Return the worst verdict of all checks."""
        return worst(check.verdict for check in self.checks)

    def as_result(self) -> dict[str, t.Any]:
        """Return what a module hands to Ansible."""
        return {
            **self.extra,
            "changed": False,
            "healthy": self.healthy,
            "checks": [check.as_dict() for check in self.checks],
            "summary": self.summary,
        }


def worst(verdicts: t.Iterable[str]) -> str:
    """Return the worst of some verdicts."""
    return max(verdicts, key=(OK, WARN, FAIL).index, default=OK)


def judge(name: str, good: bool, *, evidence: t.Mapping[str, t.Any] | None = None, cause: str = "", advice: str = "", severity: str = FAIL) -> Check:
    """Return the check for a condition; ``severity`` says what it means when the condition does not hold."""
    verdict = OK if good or severity == IGNORE else severity
    if verdict == OK:
        cause = advice = ""
    return Check(name, verdict, evidence or {}, cause, advice)


def judge_limit(
    name: str,
    value: float,
    *,
    unit: str,
    subject: str,
    warn: float | None = None,
    fail: float | None = None,
    evidence: t.Mapping[str, t.Any] | None = None,
    advice: str = "",
) -> Check:
    """Return the check for a figure that must stay below one or two limits."""
    facts = {"value": value, "unit": unit, **{key: limit for key, limit in (("warn", warn), ("fail", fail)) if limit is not None}}
    facts.update(evidence or {})
    for severity, limit in ((FAIL, fail), (WARN, warn)):
        if limit is not None and value > limit:
            return Check(name, severity, facts, f"{subject} is {value:g} {unit}, the limit is {limit:g} {unit}", advice)
    return Check(name, OK, facts)


def poll(probe: Probe, *, world: Clock, deadline_seconds: float, interval_seconds: float, successes: int) -> Watch:
    """Probe until ``successes`` probes in a row were healthy, or until the deadline.

    :arg probe: takes the seconds that are left and returns the checks of one try; it must return within that time.
    :arg deadline_seconds: the whole time for everything. The first probe is always made.
    """
    start = world.monotonic()
    end = start + deadline_seconds
    attempts = healthy_attempts = run = longest = 0
    asked: dict[str, int] = {}
    causes: dict[str, int] = {}
    while True:
        begun = world.monotonic()
        checks = [*probe(max(end - begun, 0.05))]
        now = world.monotonic()
        attempts += 1
        for check in checks:
            asked[check.name] = asked.get(check.name, 0) + 1
        if all(check.healthy for check in checks):
            healthy_attempts += 1
            run += 1
            longest = max(longest, run)
        else:
            run = 0
            cause = "; ".join(check.cause for check in checks if not check.healthy)
            causes[cause] = causes.pop(cause, 0) + 1
        # A probe that would be cut short by the deadline says nothing but that, so it is not begun.
        if run >= successes or now + interval_seconds + (now - begun) >= end:
            break
        world.sleep(interval_seconds)
    seconds = world.monotonic() - start
    if successes > 1:
        evidence = {"wanted_in_a_row": successes, "longest_run": longest, "healthy_probes": healthy_attempts, "probes": attempts}
        cause = (
            f"only {longest} of the wanted {successes} healthy probes came in a row, {healthy_attempts} of {attempts} probes were healthy" if longest else ""
        )
        checks.append(judge("steadiness", run >= successes, evidence=evidence, cause=cause, advice="why it changes between probes" if longest else ""))
        asked["steadiness"] = attempts
    return Watch(
        checks=tuple(dataclasses.replace(check, attempts=asked[check.name], seconds=seconds) for check in checks),
        attempts=attempts,
        healthy_attempts=healthy_attempts,
        longest_run=longest,
        wanted_run=successes,
        seconds=seconds,
        causes=tuple(causes.items()),
    )


def joined(words: t.Iterable[str], glue: str = "; ") -> str:
    """Join what is not empty, each once."""
    return glue.join(dict.fromkeys(word for word in words if word))


def verdict(subject: str, watch: Watch, *, good: str, extra: t.Mapping[str, t.Any] | None = None) -> Verdict:
    """Turn a watch into a verdict.

    :arg subject: what was asked about, as the first words of a sentence.
    :arg good: what to say of it when all is well, such as ``answered 200 in 12 ms``.
    """
    probes = f"{watch.attempts} probe{'s' if watch.attempts != 1 else ''} in {watch.seconds:.1f} s"
    failing = [check for check in watch.checks if check.verdict == FAIL]
    warning = [check for check in watch.checks if check.verdict == WARN]
    if not failing:
        words = f", with a warning: {joined(check.cause for check in warning)}" if warning else ""
        summary = f"{subject} is healthy{words} ({joined([good, probes], ', ')})."
        return Verdict(True, watch.checks, summary, summary, extra or {})
    cause = joined(check.cause for check in failing)
    summary = f"{subject} is not healthy: {cause}."
    last = "; ".join(check.cause for check in failing if check.name != "steadiness")
    times = dict(watch.causes)
    parts = [f"{subject} is not healthy: {cause}."]
    if times.get(last) and watch.attempts > 1:
        parts.append(f"This was seen last and in {times[last]} of {probes}.")
    else:
        parts.append(f"Asked: {probes}, {watch.healthy_attempts} healthy.")
    others = [(text, count) for text, count in watch.causes if text != last]
    if others:
        text, count = others[-1]
        parts.append(f"Seen {'before' if last else 'as the last failure'}: {text} ({count} of {watch.attempts} probes).")
    advice = joined((check.advice for check in failing), ", ")
    if advice:
        parts.append(f"Look next at: {advice}.")
    return Verdict(False, watch.checks, summary, " ".join(parts), extra or {})


def poll_spec(deadline_seconds: float, timeout_seconds: float) -> dict[str, dict[str, t.Any]]:
    """Return the options that every health module has in common, with a module's own defaults."""
    return {
        "deadline_seconds": {"type": "float", "default": deadline_seconds},
        "interval_seconds": {"type": "float", "default": 1},
        "successes": {"type": "int", "default": 1},
        "timeout_seconds": {"type": "float", "default": timeout_seconds},
        "fail": {"type": "bool", "default": True},
    }


def poll_options(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return these options as the engines take them; refuse what could never end well."""
    for name in ("deadline_seconds", "interval_seconds", "successes", "timeout_seconds"):
        if params[name] <= 0:
            raise AnchorageError(f"{name} must be more than 0, not {params[name]}.")
    if params["successes"] > 1 and params["interval_seconds"] * (params["successes"] - 1) >= params["deadline_seconds"]:
        raise AnchorageError(
            f"{params['successes']} successes with {params['interval_seconds']:g} s between them do not fit into"
            f" deadline_seconds = {params['deadline_seconds']:g}."
        )
    return {name: params[name] for name in ("deadline_seconds", "interval_seconds", "successes", "timeout_seconds")}


class Leaver(t.Protocol):
    """What ending needs of an AnsibleModule."""

    params: t.Mapping[str, t.Any]

    def exit_json(self, **result: t.Any) -> t.NoReturn:
        """Succeed."""

    def fail_json(self, msg: str, **result: t.Any) -> t.NoReturn:
        """Fail."""


def answer(module: Leaver, ask: t.Callable[[], Verdict]) -> t.NoReturn:
    """Ask, and end the module by the verdict: the one way in which all health modules end."""
    try:
        found = ask()
    except AnchorageError as error:
        module.fail_json(msg=error.text(), healthy=False, checks=[], summary=error.message)
    if found.healthy or not module.params["fail"]:
        module.exit_json(**found.as_result())
    module.fail_json(msg=found.message, **found.as_result())
