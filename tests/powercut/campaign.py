# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thirty power cuts, spread over the phases of a deploy, while a client writes rows through the site and keeps what was acknowledged."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import fcntl
import http.client
import json
import pathlib
import random
import subprocess
import sys
import threading
import time
import typing as t
import urllib.request
import uuid

from ..integration.release.conftest import Apps, Ended, kill, until
from ..lab import engine, options
from ..lab.errors import LabError
from ..lab.lab import ROOT
from .guest import HOST, Guest

RESULTS = ROOT / "tests" / "results" / "power-cuts.json"
CLAIMS = ROOT / ".cache" / "powercut" / "claims"
LOOK = pathlib.Path(__file__).parent / "look.py"

#: What a deploy says when it comes to a phase, how many seconds after that the power may go, and how often it does.
PHASES = {
    "build": ("node build.js", 8.0, 4),
    "restore point": ("Migrate the database", 6.0, 4),
    "migrate": ("node migrate.js (at most", 8.0, 4),
    "before the switch": ("start alpha-server-", 8.0, 4),
    "after the switch": ("the proxy's slot is", 20.0, 14),
}

#: Moments of one deploy: the guest is stopped for each while its disk is copied.
TOGETHER = 4

#: Everything is slow in a guest whose processor is a program.
ROOM_SECONDS = 180

#: A whole deploy takes minutes there, and more on a machine that does other things too.
DEPLOY_SECONDS = 900


class Cut(t.NamedTuple):
    """One power cut that is to be."""

    number: int
    phase: str
    delay: float


def planned(seed: int) -> list[Cut]:
    """Return the moments: spread evenly over each phase with some chance, the phases mixed."""
    generator = random.Random(seed)
    moments = []
    for phase, (_words, span, times) in PHASES.items():
        moments += [(phase, round((index + generator.random()) * span / times, 1)) for index in range(times)]
    generator.shuffle(moments)
    return [Cut(number, *moment) for number, moment in enumerate(moments, start=1)]


def groups(cuts: t.Iterable[Cut]) -> list[list[Cut]]:
    """Return the cuts by phase, the moments that one deploy is cut at together and in order."""
    found = []
    for phase in PHASES:
        of_phase = sorted((cut for cut in cuts if cut.phase == phase), key=lambda cut: cut.delay)
        deploys = max(1, round(len(of_phase) / TOGETHER))
        found += [of_phase[index::deploys] for index in range(deploys)]
    return found


class Client(threading.Thread):
    """Writes rows through the site as customers do, and keeps a ledger of those that were acknowledged."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.stop, self.ledger, self.refused = port, threading.Event(), [], 0

    def run(self) -> None:
        """Write until it is enough."""
        while not self.stop.is_set():
            name = uuid.uuid4().hex
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/items", data=name.encode(), headers={"Host": "alpha.localhost"}, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    if answer.status == 201:
                        self.ledger.append(name)
            except (OSError, http.client.HTTPException):
                self.refused += 1
            time.sleep(0.5)


def contract(guest: Guest) -> Apps:
    """Return a contract for the guest, in a directory that outlives this run."""
    directory = guest.place / f"contract-{time.time_ns()}"
    directory.mkdir(parents=True)
    return Apps(guest.lab.directory / "hosts.yml", directory)


def ask_for(apps: Apps, **switches: str) -> None:
    """Ask for a new release, with deadlines that suit the guest."""
    apps.app("alpha", **switches)
    wanted = apps.apps["alpha"] = copy.deepcopy(apps.apps["alpha"])
    for section in ("build", "migrate"):
        wanted[section]["timeout_seconds"] = ROOM_SECONDS
    for process in wanted["processes"].values():
        process["health"]["deadline_seconds"] = ROOM_SECONDS
        process["stop_seconds"] = 30
    apps.write()


def play(apps: Apps, playbook: str) -> Ended:
    """Run a playbook to its end, and not beyond ours.

    :raises LabError: when it fails.
    """
    process = apps.start(playbook)
    try:
        ended = apps.end(process, timeout=3600)
    except BaseException:
        kill(process)
        raise
    if ended.rc:
        raise LabError(f"{playbook}.yml ended with {ended.rc}: {ended.output[-1500:]}")
    return ended


def prepare(guest: Guest) -> None:
    """Provision a host of the lab, make it a guest, and let site.yml have its way with that too."""
    if not guest.disk.exists():
        subprocess.run([sys.executable, "-m", "tests.lab", "up", guest.lab.name, f"--host={HOST}:trixie:app,database,cache,proxy"], cwd=ROOT, check=True)
        if not engine.answers("exec", options.container(guest.lab.name, HOST), "test", "-e", "/var/lib/anchorage/alpha/journal.json"):
            apps = contract(guest)
            ask_for(apps)
            play(apps, "site")
        guest.make()
    if not guest.is_on():
        guest.start()
    say(f"the guest is up after {guest.wait():.0f} s")
    ready = guest.place / "ready"
    if ready.exists():
        return
    apps = contract(guest)
    ask_for(apps)
    say(f"site.yml changed {play(apps, 'site').changed} of the guest")
    problems = seen(guest)["problems"]
    if problems:
        raise LabError(f"The guest is not well: {problems}")
    ready.touch()


def say(words: str) -> None:
    """Tell the person who waits."""
    print(f"powercut: {words}", file=sys.stderr, flush=True)


def seen(guest: Guest, *, patience: float = ROOM_SECONDS) -> dict[str, t.Any]:
    """Look into the guest until it is as it should be, or does not come to be."""
    end = time.monotonic() + patience
    while True:
        try:
            found = json.loads(guest.shell("python3 -", given=LOOK.read_text()))
        except LabError as error:
            found = {"live": None, "newest": None, "reached": "", "rows": [], "problems": [str(error)]}
        if not found["problems"] or time.monotonic() > end:
            return found
        time.sleep(3)


@dataclasses.dataclass
class Outcome:
    """What came of a power cut."""

    number: int
    phase: str
    delay: float
    reached: str = ""
    live: str = ""
    acknowledged: int = 0
    lost: int = 0
    boot_seconds: float = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def until_said(process: subprocess.Popen, words: str, seconds: float) -> bool:
    """Wait until a run says something. Returns whether it did before it ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(process.log.name, encoding="utf-8", errors="replace") as stream:  # type: ignore[attr-defined]
            if words in stream.read():
                return True
        if process.poll() is not None:
            return False
        time.sleep(0.2)
    return False


def together(guest: Guest, cuts: t.Sequence[Cut]) -> list[Outcome]:
    """Cut the power at some moments of one phase of one deploy, and see what each cut left. The last one ends the guest, the others keep its disk.

    The deploy of the next cuts has to do with what the last of these left.
    """
    phase = cuts[0].phase
    before = seen(guest)["live"]
    apps = contract(guest)
    ask_for(apps, build="slow:6", migrate="slow:6", server="slow:4", worker="slow:8")
    client = Client(guest.ports["80"])
    client.start()
    until(lambda: client.ledger, "the client's first row", ROOM_SECONDS)
    process = apps.start("deploy")
    reached = False
    ledgers: list[list[str]] = []
    try:
        reached = until_said(process, PHASES[phase][0], DEPLOY_SECONDS)
        said = pathlib.Path(process.log.name).read_text()[-600:]  # type: ignore[attr-defined]
        passed = 0.0
        for cut in cuts:
            time.sleep(max(0.0, cut.delay - passed))
            passed = cut.delay
            if cut is cuts[-1]:
                guest.cut()
                ledgers.append(list(client.ledger))
            else:
                ledgers.append(list(client.ledger))  # what is acknowledged while QEMU is being stopped may be on its disk and need not be
                guest.freeze(cut.number)
    finally:
        kill(process)
        client.stop.set()
    client.join()
    outcomes = []
    last = cuts[-1]
    if len(cuts) > 1:
        guest.disk.rename(guest.image(last.number))
    for cut, ledger in zip(cuts, ledgers):
        if len(cuts) > 1:
            guest.take(cut.number)
        outcome = after_boot(guest, cut, before, ledger)
        if not reached:
            outcome.problems.append(f"the deploy never came to the phase: {said}")
        outcomes.append(outcome)
        if cut is not last:
            guest.cut()
    return outcomes


def after_boot(guest: Guest, cut: Cut, before: str, ledger: t.Sequence[str]) -> Outcome:
    """Turn the guest on again, and see what a cut left."""
    outcome = Outcome(cut.number, cut.phase, cut.delay)
    guest.start()
    outcome.boot_seconds = round(guest.wait(), 1)
    after = seen(guest)
    outcome.reached, outcome.problems = after["reached"], list(after["problems"])
    outcome.live = "old" if after["live"] == before else "new"
    if outcome.live == "new" and after["live"] != after["newest"]:
        outcome.problems.append(f"{after['live']} is live, which is neither {before} nor {after['newest']}")
    outcome.acknowledged, outcome.lost = len(ledger), len(set(ledger) - set(after["rows"]))
    if outcome.lost:
        outcome.problems.append(f"{outcome.lost} acknowledged writes are lost")
    return outcome


def at_last(guest: Guest) -> list[str]:
    """Deploy once to the end, and once more. Returns what was not as it should be. The last cut of each deploy had the next one as its re-run."""
    apps = contract(guest)
    ask_for(apps)
    try:
        play(apps, "deploy")
        again = play(apps, "deploy")
    except LabError as failure:
        return [f"a deploy after the last cut failed: {failure}"]
    after = seen(guest)
    problems = [f"an unchanged deploy changed {again.changed}"] if again.changed else []
    if after["live"] != after["newest"]:
        problems.append(f"{after['live']} is live, not {after['newest']}")
    return problems + after["problems"]


def commit() -> str:
    """Name what is measured."""
    return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def results() -> dict[str, t.Any]:
    """Return what was measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cuts": []}


@contextlib.contextmanager
def alone(name: str, *, patient: bool = True) -> t.Iterator[bool]:
    """Hold a lock that another guest's campaign in this clone sees; yields whether it was had."""
    CLAIMS.mkdir(parents=True, exist_ok=True)
    with open(CLAIMS / f"{name}.lock", "w", encoding="ascii") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def write(seed: int, cut: dict[str, t.Any] | None, end: list[str] | None = None) -> list[dict[str, t.Any]]:
    """Add what was measured and return all of it; C(end) is what was wrong after the last cut, once that was looked at."""
    RESULTS.parent.mkdir(exist_ok=True)
    with alone("results"):
        known = results()
        cuts = (known["cuts"] if known.get("seed") == seed else []) + ([cut] if cut else [])
        end_before = known.get("deploys_after_the_last", "not yet") if known.get("seed") == seed else "not yet"
        facts = {
            "what": "power cuts (kill -9 of a QEMU guest, or the disk that one would leave at that moment) in deploys of a plain Node app with PostgreSQL, "
            "while a client writes",
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "seed": seed,
            "planned": len(planned(seed)),
            "done": len(cuts),
            "failed": sum(bool(cut["problems"]) for cut in cuts),
            "acknowledged_writes": sum(cut["acknowledged"] for cut in cuts),
            "lost_writes": sum(cut["lost"] for cut in cuts),
            "deploys_after_the_last": end_before if end is None else end or "well",
            "cuts": sorted(cuts, key=lambda cut: cut["number"]),
        }
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    return cuts


def run(guest: Guest, *, deadline: float, seed: int | None) -> int:
    """Do the cuts that are missing, as far as the time reaches; another guest may do some of them. Returns 1 where one went wrong."""
    with alone("seed"):  # two guests that begin together choose one
        seed = seed if seed is not None else results().get("seed", random.SystemRandom().randrange(1 << 32))
        cuts = write(seed, None)
    say(f"seed {seed}, {len(cuts)} cuts are done")
    if not guest.is_on():
        guest.start()
        guest.wait()
    longest = 0.0
    for group in groups(planned(seed)):
        began = time.monotonic()
        if began + longest > deadline:
            break
        with alone(f"{seed}-{group[0].number}", patient=False) as mine:
            done = {cut["number"] for cut in results()["cuts"]}
            left = [cut for cut in group if cut.number not in done]
            if not mine or not left:
                continue
            say(f"{left[0].phase}, {', '.join(f'{cut.delay} s' for cut in left)} into it")
            for outcome in together(guest, left):
                cuts = write(seed, {**dataclasses.asdict(outcome), "commit": commit()})
                words = f"{outcome.live} release after the boot (journal: {outcome.reached}), {outcome.acknowledged} writes"
                say(f"{outcome.number}: {outcome.phase}, {outcome.delay} s: {words}, {outcome.problems or 'well'}")
        longest = max(longest, time.monotonic() - began)
    end = at_last(guest) if len(cuts) == len(planned(seed)) else None
    cuts = write(seed, None, end)
    if end is not None:
        say(f"after the last: {end or 'well'}")
    return int(bool(end) or any(cut["problems"] for cut in cuts))
