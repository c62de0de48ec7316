# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases under load: `python -m tests.load shop`, or `node`. It goes on where it was stopped; `make load` does both.

Visitors ask the site over TLS, through Nginx, all the time in which releases are made and taken back. Each of their requests is counted once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import typing as t

from .client import Site, Visitors
from .ground import ROOT, Ended, Fleet
from .results import BUILT, ROLLBACK, UPGRADE, Results, table
from .subjects import SUBJECTS, Subject

#: Seconds of load before the first release and after each one, so that what a switch leaves behind is seen.
AROUND = 4.0

#: Seconds until a job that a dead worker had in hand is surely taken up by another one: twice BullMQ's lock and its look for stalled jobs.
JOBS_SECONDS = 120.0


def say(words: str) -> None:
    """Tell the person who waits."""
    print(f"load: {words}", file=sys.stderr, flush=True)


def commit() -> str:
    """Name what is measured; results that were written before do not make it another thing."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!tests/results")
    return git("rev-parse", "--short=12", "HEAD") + ("-changed" if changed else "")


def release(subject: Subject, what: str, number: int) -> Ended:
    """Make the next release, or go back by one."""
    if what == ROLLBACK:
        return subject.ground.play("rollback", "-e", f"app={subject.ground.app}")
    if what == UPGRADE:
        return upgrade(subject, number)
    subject.ground.want(subject.built(number) if what == BUILT else subject.prebuilt(number))
    return subject.ground.play("deploy")


def upgrade(subject: Subject, number: int) -> Ended:
    """Upgrade packages and Node.js of every host, so that all processes are started again."""
    ground = t.cast(Fleet, subject.ground)
    ground.age()
    ground.next_node(number)
    before = ground.processes()
    ended = ground.play("rolling_upgrade", "-e", "upgrade_soak_seconds=5")
    after = ground.processes()
    left = [name for name in before if set(before[name].split()) & set(after[name].split())]
    return ended._replace(rc=ended.rc or 1, output=f"{ended.output}\nnot upgraded: {left}, before {before}, after {after}") if left else ended


def jobs(subject: Subject) -> dict[str, int] | None:
    """Say what became of the jobs that were sent since the last call; those in hand get the time to be finished."""
    if subject.jobs is None:
        return None
    wanted, end = set(subject.jobs.take()), time.monotonic() + JOBS_SECONDS
    done = subject.finished(wanted)
    while len(done) < len(wanted) and time.monotonic() < end:
        time.sleep(2)
        done = subject.finished(wanted)
    return {
        "sent": len(wanted),
        "done": len(done),
        "lost": len(wanted) - len(done),
        "repeated": sum(1 for times in done.values() if times > 1),
    }


def one(subject: Subject, site: Site, what: str, number: int) -> dict[str, t.Any]:
    """Do the next thing of the plan and return what is known of it."""
    before, (busy, had) = subject.ground.live(), subject.ground.busy()
    ended = release(subject, what, number)
    busy_now, had_now = subject.ground.busy()
    time.sleep(AROUND)
    live, served = subject.ground.live(), subject.serving(site)
    line = {
        "number": number,
        "what": what,
        "ok": ended.rc == 0 and (live == before) == (what == UPGRADE) and served == live,
        "release": live,
        "from": before,
        "commit": commit(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": ended.seconds,
        "steps": ended.steps,
        "dependencies_here_already": "are here already" in ended.output,
        "cores_busy": round((busy_now - busy) / (had_now - had), 2),
    }
    if not line["ok"]:
        say(f"{what} ended with {ended.rc}; live is {live}, {served} answers:\n{ended.output[-3000:]}")
    return line


def run(name: str, *, minutes: float | None, fresh: bool) -> int:
    """Go on with one test until it is complete or its time is over. Returns how many of its requirements are missed."""
    path = ROOT / "tests" / "results" / f"load-{name}.json"
    if fresh:
        path.unlink(missing_ok=True)
    subject = SUBJECTS[name]()
    planned = subject.plan
    what = "releases, rollbacks and upgrades" if UPGRADE in planned else "releases and rollbacks"
    results = Results(path, f"{len(planned)} {what} of {name} under load", planned)
    end = None if minutes is None else time.monotonic() + minutes * 60
    if not subject.ground.stand():
        say("no release yet: the first one, which nobody visits")
        if not subject.ground.inventory.exists():
            subject.ground.want(subject.built(0))
        first = subject.ground.play("site")
        if first.rc:
            raise SystemExit(f"load: site.yml ended with {first.rc}:\n{first.output[-4000:]}")
    site = subject.ground.site()
    subject.prepare(site)
    todo, longest = results.next(), 0.0
    if todo and (end is None or time.monotonic() < end):
        visitors = Visitors(site, subject.kinds())
        visitors.start()
        looked, good = time.monotonic(), True
        time.sleep(AROUND)
        while todo and good and (end is None or time.monotonic() + longest < end):
            number, what = todo
            began = time.monotonic()
            line = one(subject, site, what, number)
            longest = max(longest, time.monotonic() - began)
            last = len(planned) == number or not line["ok"] or (end is not None and time.monotonic() + longest >= end)
            if last:
                visitors.stop()
            line |= {**visitors.count.take(), "watched_seconds": round(time.monotonic() - looked, 1)}
            looked = time.monotonic()
            line["jobs"] = jobs(subject)
            results.add(line)
            told = f"{line['requests']} requests, {line['failed']} failed, jobs {line['jobs']}, {line['seconds']} s {line['steps']}"
            say(f"{number:>2} of {len(planned)}: {what}: {told}")
            good, todo = not last, results.next()
    print("\n".join(table(results)))
    return int(results.next() is None and not results.totals()["reached"]) or int(any(not line["ok"] for line in results.lines[-1:]))


def main(arguments: list[str]) -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="load", description=__doc__.partition("\n")[0])
    parser.add_argument("subject", nargs="*", choices=[*SUBJECTS, []], help="what is put under load (all, one after the other)")
    parser.add_argument("--minutes", type=float, help="stop between two releases when so much time is over; a later call goes on")
    parser.add_argument("--fresh", action="store_true", help="forget the lines of earlier calls")
    chosen = parser.parse_args(arguments)
    return max(run(name, minutes=chosen.minutes, fresh=chosen.fresh) for name in chosen.subject or SUBJECTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
