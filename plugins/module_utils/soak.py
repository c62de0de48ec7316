# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch a release that has the traffic and is not confirmed yet, against the one before it, which still runs.

Three things are watched: that its processes stay the same ones, that it goes on answering its health check, and what the proxy's
log says of its requests, where the proxy is on this host.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .errors import AnchorageError
from .release_plan import Instance
from .world import World

ACCESS_LOG = "/var/log/nginx/access.log"

#: Bytes of the proxy's log before the switch that tell how the release before did.
LOOK_BACK = 512 * 1024

#: Bytes of the proxy's log that are read at once.
SLICE = 4 * 1024 * 1024

#: Failed requests below which a share says nothing.
FEW_FAILURES = 3

#: Requests of either release below which a percentile says nothing.
FEW_REQUESTS = 20

#: Seconds by which the p95 may grow in any case: a factor of a few milliseconds is noise.
NOISE = 0.25

#: Health checks in a row that may fail. One slow answer on a busy host is no sick release.
PATIENCE = 2

#: Least seconds between two looks.
INTERVAL = 1.0

_UPSTREAM = r"[^,\s]+(?:(?:,| :) [^,\s]+)*"
_PLAIN = re.compile(rf" (?P<addresses>{_UPSTREAM}) (?P<statuses>{_UPSTREAM}) (?P<seconds>{_UPSTREAM}) \S+$")
_JSON = re.compile(r'"upstream":"(?P<addresses>[^"]*)","upstream_status":"(?P<statuses>[^"]*)","upstream_seconds":"(?P<seconds>[^"]*)"')


@dataclasses.dataclass
class Figures:
    """Requests that one release answered, or did not."""

    requests: int = 0
    failed: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def share(self) -> float:
        """Failed requests of all, from 0 to 1."""
        return self.failed / self.requests if self.requests else 0.0

    @property
    def p95(self) -> float:
        """Seconds within which 95 of 100 requests were answered."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)] if self.seconds else 0.0


def place(address: str, port: int) -> str:
    """Return how the proxy's log calls a process of this host."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def count(lines: t.Iterable[str], places: t.Collection[str], into: Figures) -> None:
    """Add to figures what lines of the proxy's log say of the processes at some places.

    A request that failed there counts as failed, even if another process answered it afterwards. Processes of other hosts have places of their own.
    """
    for line in lines:
        found = _JSON.search(line) or _PLAIN.search(line)
        if not found:
            continue
        addresses, statuses, seconds = (re.split(r", | : ", found[name]) for name in ("addresses", "statuses", "seconds"))
        for address, status, took in zip(addresses, statuses, seconds):
            if address not in places:
                continue
            into.requests += 1
            into.failed += status.startswith("5")
            if took.replace(".", "", 1).isdigit():
                into.seconds.append(float(took))


def judge_errors(old: Figures, new: Figures, limits: t.Mapping[str, t.Any]) -> str:
    """Return what is wrong with the share of failed requests, or nothing."""
    if new.failed < FEW_FAILURES or new.share <= old.share + limits["max_error_percent"] / 100:
        return ""
    return f"{new.failed} of {new.requests} requests failed (5xx), {old.failed} of {old.requests} did with the release before"


def judge_latency(old: Figures, new: Figures, limits: t.Mapping[str, t.Any]) -> str:
    """Return what is wrong with the time that requests take, or nothing."""
    if min(len(old.seconds), len(new.seconds)) < FEW_REQUESTS or new.p95 <= max(old.p95 * limits["max_slowdown"], old.p95 + NOISE):
        return ""
    return f"95 % of {len(new.seconds)} requests took up to {new.p95:.2f} s, {old.p95:.2f} s with the release before"


class Soak:
    """The watch over one switch. Made before it, so that it knows how things were.

    :arg old: where the release before listens, as place() says.
    :arg new: where the new one does.
    """

    def __init__(self, world: World, limits: t.Mapping[str, t.Any], *, old: t.Collection[str], new: t.Collection[str]) -> None:
        self.world = world
        self.limits = limits
        self.old, self.new = Figures(), Figures()
        self.places = new
        #: Seconds of the watch in which all come at once who had to wait: what these take says nothing of the release.
        self.rush = 0.0
        self.known: dict[str, int | None] = {}
        self.offset = world.size(ACCESS_LOG)
        if self.offset:
            start = max(0, self.offset - LOOK_BACK)
            count(self._read(start, self.offset - start), old, self.old)

    def _read(self, start: int, limit: int) -> list[str]:
        return self.world.read_part(ACCESS_LOG, start, limit).decode("utf-8", "replace").splitlines()

    def _follow(self) -> None:
        if self.world.size(ACCESS_LOG) < self.offset:
            self.offset = 0  # rotated
        data = self.world.read_part(ACCESS_LOG, self.offset, SLICE)
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        count(whole.decode("utf-8", "replace").splitlines(), self.places, self.new)

    def know(self, wanted: t.Sequence[Instance], main: t.Callable[[Instance], int | None]) -> None:
        """Remember which processes some instances are, right after they were proven."""
        self.known.update({instance.name: main(instance) for instance in wanted})

    def watch(self, wanted: t.Sequence[Instance], main: t.Callable[[Instance], int | None], ask: t.Callable[[Instance], str]) -> None:
        """Watch the new release for as long as the contract says.

        :arg wanted: its processes, each one known.
        :arg main: returns the process that an instance is, if it lives.
        :arg ask: asks an instance once and returns what is wrong, or nothing.
        :raises AnchorageError: as soon as it does not do as well as the release before.
        """
        begun = self.world.monotonic()
        bad = dict.fromkeys(self.known, 0)
        while True:
            for instance in wanted:
                now = main(instance)
                if now is None:
                    self._fail(f"{instance.name} died", begun)
                if now != self.known[instance.name]:
                    self._fail(f"{instance.name} was restarted", begun)
                problem = ask(instance)
                bad[instance.name] = bad[instance.name] + 1 if problem else 0
                if bad[instance.name] >= PATIENCE:
                    self._fail(f"{instance.name}: {problem}", begun)
            self._follow()
            if self.world.monotonic() - begun < self.rush:
                self.new.seconds.clear()
            problem = judge_errors(self.old, self.new, self.limits)
            if problem:
                self._fail(problem, begun)
            left = begun + self.limits["seconds"] - self.world.monotonic()
            if left <= 0:
                break
            self.world.sleep(min(INTERVAL, left))
        problem = judge_latency(self.old, self.new, self.limits)
        if problem:
            self._fail(problem, begun)

    def summary(self) -> str:
        """Say what was seen of the new release's requests."""
        if not self.new.requests:
            return "no request of it is in this host's proxy log"
        return f"{self.new.requests} requests, {self.new.failed} failed, p95 {self.new.p95:.2f} s"

    def _fail(self, cause: str, begun: float) -> t.NoReturn:
        after = self.world.monotonic() - begun
        raise AnchorageError(f"The release was proven and got the traffic, but {after:.0f} s later {cause}.", what="soak")
