# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures in, words out."""

from __future__ import annotations

import dataclasses
import typing


class Target(typing.NamedTuple):
    """A ratio that the project wants to keep: over and under name measurements."""

    over: str
    under: str
    most: float


class Allowance(typing.NamedTuple):
    """Seconds that one measurement may take more than another."""

    over: str
    under: str
    most: float


#: What is measured, in the order in which it is printed.
FRESH_SCRIPT, FRESH_PROVISION = "fresh host: shell script", "fresh host: provision.yml"
EMPTY, PING, PROVISION, SITE = "unchanged: empty playbook", "unchanged: one ping", "unchanged: provision.yml", "unchanged: site.yml"
UNCHANGED_DEPLOY = "unchanged: deploy.yml"
FLOOR, DEPLOY = "new release: rsync and one ssh", "new release: deploy.yml"
NAMES = (FRESH_SCRIPT, FRESH_PROVISION, EMPTY, PING, PROVISION, UNCHANGED_DEPLOY, SITE, FLOOR, DEPLOY)
TARGETS = (Target(FRESH_PROVISION, FRESH_SCRIPT, 1.4), Target(PROVISION, PING, 6), Target(SITE, PING, 12), Target(DEPLOY, FLOOR, 4))
ALLOWANCES = (Allowance(UNCHANGED_DEPLOY, EMPTY, 3.0),)


@dataclasses.dataclass
class Measurement:
    """One thing that was measured, several times: seconds, and what noise cannot touch."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    executions: int | None = None
    transactions: int | None = None
    changed: int | None = None
    phases: dict[str, float] | None = None

    def as_dict(self) -> dict:
        """Return the figures, and the least time, which is the one that others disturbed least."""
        known = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {**known, "least": min(self.seconds)} if self.seconds else known


def ratios(measured: dict[str, Measurement]) -> list[dict]:
    """Compare least times with the targets."""
    found = []
    for over, under, most in TARGETS:
        if measured[over].seconds and measured[under].seconds:
            ratio = round(min(measured[over].seconds) / min(measured[under].seconds), 2)
            found.append({"over": over, "under": under, "ratio": ratio, "target": most, "reached": ratio <= most})
    return found


def differences(measured: dict[str, Measurement]) -> list[dict]:
    """Compare the differences of least times with what is allowed."""
    found = []
    for over, under, most in ALLOWANCES:
        if measured[over].seconds and measured[under].seconds:
            seconds = round(min(measured[over].seconds) - min(measured[under].seconds), 2)
            found.append({"over": over, "under": under, "seconds": seconds, "allowed": most, "reached": seconds <= most})
    return found


def lines(measured: dict[str, Measurement], *, load: float, cores: int, difference: int | None) -> list[str]:
    """Return what is printed."""
    width = max(map(len, NAMES))
    told = [f"{'':<{width}}  {'seconds':<24} {'remote executions':>17} {'apt transactions':>16} {'changed':>8}"]
    for name in NAMES:
        one = measured[name]
        seconds = " ".join(f"{value:.2f}" for value in one.seconds)
        counts = ["" if value is None else str(value) for value in (one.executions, one.transactions, one.changed)]
        told.append(f"{name:<{width}}  {seconds:<24} {counts[0]:>17} {counts[1]:>16} {counts[2]:>8}")
    told.append("")
    for entry in ratios(measured):
        verdict = "reached" if entry["reached"] else "missed"
        told.append(f"{entry['over']} / {entry['under'].rpartition(': ')[2]}: {entry['ratio']:.2f} (target {entry['target']:g}, {verdict})")
    for entry in differences(measured):
        verdict = "reached" if entry["reached"] else "missed"
        told.append(f"{entry['over']} - {entry['under'].rpartition(': ')[2]}: {entry['seconds']:.2f} s (at most {entry['allowed']:g} s, {verdict})")
    phases = measured[DEPLOY].phases
    if phases:
        told.append("Seconds of the steps of a new release, median: " + ", ".join(f"{name} {seconds:g}" for name, seconds in phases.items()))
    if difference is not None:
        told.append(f"After the script, provision.yml would still change {difference} tasks.")
    if load > cores:
        told.append(f"The load was {load:.1f} on {cores} cores when this began: the seconds say little, the counts are right.")
    return told
