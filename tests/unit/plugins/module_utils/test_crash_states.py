# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every state that a power cut in a whole deploy can leave on the disk: after the boot one release is live, wholly, and the plain re-run ends well.

The engine's own code does a first deploy, two more (the last one prunes), a rollback, a deploy of what is live after an upgrade of Node, and one for
which visitors wait; each operation on the disk is recorded. The states are made of every prefix, with what no fsync has covered lost, kept alone or
torn. A sample runs with the unit tests; ANCHORAGE_FAULTS=1 runs all of them and writes tests/results/crash-states.json. ANCHORAGE_SEED repeats a sample.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import os
import pathlib
import random
import subprocess
import tempfile
import typing as t

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine, recovery
from ansible_collections.anchorage.vps.plugins.module_utils.journal import Journal
from ansible_collections.anchorage.vps.plugins.module_utils.slots import running
from ansible_collections.anchorage.vps.plugins.module_utils.tree_build import MANIFEST, checksums
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

from .crash_disk import Crash, Operation, Recorder, State, after, crashes, prefixes
from .crash_host import HELD, Host, contract, install, source

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a release belongs to root")

ROOT = pathlib.Path(__file__).resolve().parents[4]
RESULTS = ROOT / "tests" / "results" / "crash-states.json"
ALL = bool(os.environ.get("ANCHORAGE_FAULTS"))
SEED = int(os.environ.get("ANCHORAGE_SEED") or random.SystemRandom().randrange(1 << 32))

#: How many states of each run are recovered where not all of them are, and how many there must be at least in all.
SAMPLE = 25
LEAST = 2000

STORIES = ("first deploy", "deploy", "deploy that prunes", "rollback", "upgrade of Node", "deploy that holds")
JOURNAL = "/state/shop/journal.json"


@dataclasses.dataclass
class Story:
    """A run that was recorded: what it did, what was live before and after it, and from which operation on that may and must be the new release."""

    name: str
    node: str
    act: t.Callable[[Host], None]
    version: int
    states: list[State]
    operations: list[Operation]
    old: str | None
    new: str
    tree: str
    final: dict[str, tuple[str, int, bytes]]
    migrations: tuple[str, ...]
    may: int = 0
    must: int = 0

    def __post_init__(self) -> None:
        """Find the confirmation: the rename that puts a journal in place in which the new release is live, and the fsync of its directory."""
        for number, operation in enumerate(self.operations):
            if not self.may and operation.kind == "name" and operation.what.endswith(f"to {JOURNAL}"):
                node = operation.names[-1][1]
                said = json.loads(self.states[number].data[t.cast(int, node)])
                self.may = number + 1 if (said["live"], said["tree"]) == (self.new, self.tree) else 0
            elif self.may and not self.must and operation.kind == "sync" and operation.what == os.path.dirname(JOURNAL):
                self.must = number + 1
        assert 0 < self.may < self.must

    def live_after(self, crash: Crash) -> set[str | None]:
        """Return what may be live after a crash."""
        return ({self.old} if crash.done < self.must else set()) | ({self.new} if crash.done >= self.may else set())


@pytest.fixture(scope="module")
def place() -> t.Iterator[str]:
    """A directory in memory, where there is one: nothing here needs a disk."""
    with tempfile.TemporaryDirectory(prefix="anchorage-crash-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as top:
        os.mkdir(f"{top}/host")
        yield f"{top}/host"


@pytest.fixture(scope="module")
def host(place: str) -> t.Iterator[Host]:
    """A host on which nothing was deployed yet."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield install(place, monkeypatch)


def living(host: Host) -> tuple[str, str]:
    """Return the live release and its tree."""
    journal = host.app().journal
    return t.cast(str, journal.live), journal.data["tree"]


def record(host: Host, name: str, version: int, old: str | None, act: t.Callable[[Host], None]) -> Story:
    """Run something on a host, and return what it did."""
    recorder = host.recorder = Recorder(host.root, host.database)
    with recorder.watching():
        act(host)
    host.recorder = None
    return Story(
        name, host.node, act, version, prefixes(recorder.base, recorder.operations), recorder.operations, old, *living(host), host.lies(), host.migrations
    )


@pytest.fixture(scope="module")
def stories(host: Host) -> dict[str, Story]:
    """What is recorded: each run begins where the one before ended."""
    found: dict[str, Story] = {}
    old = None
    for version, name in enumerate(("first deploy", "deploy", "deploy that prunes"), start=1):
        found[name] = record(host, name, version, old, lambda host, version=version: host.deploy(version))
        old = found[name].new
    earlier = found["deploy"].new
    found["rollback"] = record(host, "rollback", 2, old, lambda host: host.roll_back(earlier))

    host.node = "20.20.0"
    found["upgrade of Node"] = record(host, "upgrade of Node", 2, earlier, lambda host: host.deploy(2))
    found["deploy that holds"] = record(host, "deploy that holds", HELD, earlier, lambda host: host.deploy(HELD))
    return found


def whole(host: Host, stories: dict[str, Story]) -> str | None:
    """Return what is live, having seen that journal, proxy, boot file and processes are of it, and that it is on the disk to the last byte."""
    app = host.app()
    live, slot = app.journal.live, app.journal.slot
    assert not app.journal.unsettled
    if live is None:
        assert not host.table and not app.world.exists(app.layout.live_file)
        return None
    assert not os.path.exists(app.layout.hold_flag), "visitors wait"
    assert ("green" if os.path.exists(app.layout.slot_flag) else "blue") == slot, "the proxy"
    assert set(host.table) == {f"shop-server-{slot}", f"shop-worker-{slot}"}, f"PM2 runs {sorted(host.table)}"
    assert not host.dead and running(app), "a process died at its start"
    assert live in host.marks, "it runs without its mark"
    with open(f"{app.layout.release(live)}/release.json", encoding="utf-8") as stream:
        tree = app.layout.build(json.load(stream)["tree"])
    with open(f"{tree}/{MANIFEST}", encoding="utf-8") as stream:
        manifest = json.load(stream)
    found = checksums(tree)
    found.pop(MANIFEST)
    assert found == manifest["files"], "the tree is not what its manifest says"
    places = [path[len(host.root) + 1 :] for path in (tree, app.layout.release(live), app.layout.dependencies(manifest["dependencies"]))]
    lies = host.lies(*places)
    prefixes = tuple(f"/{path}/" for path in places)

    def lasting(paths: dict[str, t.Any]) -> dict[str, t.Any]:
        return {path: what for path, what in paths.items() if path.startswith(prefixes) and "migrate.json" not in path}

    assert lasting(lies) in [lasting(story.final) for story in stories.values() if story.new == live], "it is not what was made"
    return live


def put(host: Host, state: State) -> None:
    """Cut a host's power, and let there be what that left."""
    host.power_cut()
    state.write(host.root)
    host.restore_database(state.database)


def begin(host: Host, state: State) -> None:
    """Let a host come back with what a power cut left."""
    put(host, state)
    host.boot()


def judge(host: Host, stories: dict[str, Story], story: Story, crash: Crash, state: State) -> None:
    """Cut the power there, boot, look; then run the same again, and look again."""
    host.node = story.node
    begin(host, state)
    deployed = os.path.exists(f"{host.root}/etc/shop.json")
    live = whole(host, stories) if deployed else None
    assert deployed or not host.table
    assert live in story.live_after(crash), f"{live} is live"
    _migrations, marks, runs = host.database()
    story.act(host)
    host.ask("prune")  # a rollback leaves that to the next deploy
    assert whole(host, stories) == story.new
    assert host.runs == runs + (story.new not in marks), "migrated once"
    assert host.migrations == story.migrations
    settled(host, story)


def settled(host: Host, story: Story) -> None:
    """Nothing is left of the crash, and nothing is to be done."""
    # A second attempt may have dumps of its own; the reserve comes back with the next step; who waited last and where they went means nothing any more.
    elsewhere = ("/state/shop/restore", "/state/shop/reserve", "/state/slots/shop/hold-")
    lies = {path for path in host.lies() if not path.startswith(elsewhere)}
    ought = {path for path in story.final if not path.startswith(elsewhere)}
    assert lies == ought, f"left: {sorted(lies - ought)}, missing: {sorted(ought - lies)}"
    app = host.app()
    kept = {point["path"] for point in app.journal.restore_points()}
    assert {f"{app.layout.restore_points}/{name}" for name in app.world.listdir(app.layout.restore_points)} == kept
    assert not any(point["pending"] for point in app.journal.restore_points())
    plan = host.ask("plan", documents=[json.dumps(contract(host.root, story.version))], sources={"shop": source(story.version)[0]})["apps"]["shop"]
    assert plan["steps"] == [] and plan["release"] == plan["live"] == story.new
    assert engine.prune(app) == []


@pytest.fixture(scope="module")
def cases(stories: dict[str, Story]) -> dict[str, list[Crash]]:
    """The crashes of each run that leave different contents, or the same before and after the confirmation."""
    found: dict[str, dict[tuple[bool, bool, str], Crash]] = collections.defaultdict(dict)
    generator = random.Random(SEED)
    for story in stories.values():
        for crash in crashes(story.operations, generator):
            digest = after(story.states, story.operations, crash).digest()
            found[story.name].setdefault((crash.done >= story.may, crash.done >= story.must, digest), crash)
    return {name: list(crashes.values()) for name, crashes in found.items()}


def commit() -> str:
    """Name what is measured."""
    return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def known() -> dict[str, t.Any]:
    """Return what was written down before."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def skip_what_was_seen(section: str) -> None:
    """Let a full run go on where one of the same commit was stopped."""
    before = known().get(section, {})
    if ALL and before.get("commit") == commit() and not before["failures"]:
        pytest.skip("all of them were recovered at this commit")


def report(section: str, states: int, failures: list[str]) -> None:
    """Write down what was seen, and at which commit, beside what the other tests of this file saw."""
    if not ALL:
        return
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    facts = {**known(), "what": t.cast(str, __doc__).splitlines()[0]}
    facts[section] = {"commit": commit(), "date": date, "seed": SEED, "states": states, "recovered": states - len(failures), "failures": failures}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def seen(host: Host, stories: dict[str, Story], cases: t.Iterable[tuple[Story, Crash]]) -> t.Iterator[str]:
    """Let crashes happen, and give what is wrong after one."""
    for story, crash in cases:
        try:
            judge(host, stories, story, crash, after(story.states, story.operations, crash))
        except Exception as error:
            yield f"{story.name} {crash.told(story.operations)}: {type(error).__name__}: {str(error)[:300]}"


def test_there_are_enough_states_to_say_something(cases):
    assert sum(map(len, cases.values())) >= LEAST and set(cases) == set(STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_after_every_crash_one_release_is_live_and_the_next_run_ends_well(host, stories, cases, capsys, name):
    skip_what_was_seen(name)
    chosen = cases[name] if ALL else random.Random(SEED).sample(cases[name], min(SAMPLE, len(cases[name])))
    with capsys.disabled():
        print(f" {len(chosen)} of {len(cases[name])} states of '{name}', ANCHORAGE_SEED={SEED}", end="", flush=True)
    failures = list(seen(host, stories, ((stories[name], crash) for crash in chosen)))
    report(name, len(chosen), failures)
    assert not failures, f"{len(failures)} of {len(chosen)}:\n" + "\n".join(failures[:20])


def test_a_boot_that_is_cut_short_is_made_good_by_the_next(host, stories):
    """The power goes again while the host puts right what the first cut left."""
    skip_what_was_seen("boots cut short")
    generator, failures, boots = random.Random(SEED), [], 0
    for name in ("deploy", "rollback"):
        story = stories[name]
        host.node = story.node
        cuts = [done for done in range(len(story.operations)) if begun(story.states[done])]
        for done in cuts if ALL else generator.sample(cuts, 8):
            put(host, story.states[done])
            recorder = host.recorder = Recorder(host.root, host.database)
            with recorder.watching():
                host.boot()
            host.recorder = None
            states = prefixes(recorder.base, recorder.operations)
            seconds = list(crashes(recorder.operations, generator))
            for second in seconds if ALL else generator.sample(seconds, min(4, len(seconds))):
                boots += 1
                try:
                    judge(host, stories, story, Crash(done), after(states, recorder.operations, second))
                except Exception as error:
                    failures.append(f"{name} {Crash(done).told(story.operations)}, then {second.told(recorder.operations)}: {str(error)[:300]}")
    report("boots cut short", boots, failures)
    assert boots >= 30 and not failures, f"{len(failures)} of {boots}:\n" + "\n".join(failures[:20])


def begun(state: State) -> bool:
    """Whether a switch has begun and not ended."""
    path = next((node for path, node in state.walk() if path == JOURNAL), None)
    said = json.loads(state.data[path]) if path is not None else {}
    return bool(said.get("switch") or said.get("unsettled"))


def forget_the_sync(monkeypatch):
    """Let a tree get its name before it is on the disk."""
    monkeypatch.setattr(Host, "_sync", lambda self, argv, call: Completed(0, "", ""))


def forget_the_boot(monkeypatch):
    """Let the host come back without looking at the journal."""
    monkeypatch.setattr(recovery, "at_boot", lambda app, log: False)


def forget_the_way_back(monkeypatch):
    """Let an unconfirmed release stay the one that the journal calls live."""
    monkeypatch.setattr(Journal, "should_live", lambda self: (self.switch["release"], self.switch["slot"]) if self.switch else (self.live, self.slot))


def rename_twice(monkeypatch):
    """Let what is live be away while it is laid out anew."""
    monkeypatch.setattr(Host, "exchange", lambda self, one, other: False)


@pytest.mark.parametrize(
    ("fault", "name", "where"),
    [
        (forget_the_sync, "deploy", "live.json"),
        (forget_the_boot, "deploy", "/slots/"),
        (forget_the_way_back, "deploy", "/slots/"),
        (rename_twice, "upgrade of Node", ".old"),
    ],
)
def test_a_fault_of_the_engine_is_found(host, stories, monkeypatch, fault, name, where):
    """Otherwise the test above says nothing."""
    fault(monkeypatch)
    good = stories[name]
    host.node = good.node
    begin(host, good.states[0])
    story = record(host, name, good.version, good.old, good.act)
    there = [crash for crash in crashes(story.operations, random.Random(SEED)) if crash.done and where in story.operations[crash.done - 1].what]
    assert next(seen(host, stories, ((story, crash) for crash in there)), None)
