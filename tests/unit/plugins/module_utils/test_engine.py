# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import json
import os
import pathlib
import threading

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import engine
from ansible_collections.anchorage.vps.plugins.module_utils.app import UNIT, App
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.layout import COMMAND
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed, World

from .engine_fakes import OK, PASSWORD, document, make, place, written_json

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = "f" * 64


@pytest.fixture
def shop(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    return make(tmp_path)


def source(app, **changes):
    app.document["source"] = {**app.document["source"], "path": None, **changes}
    return app


# -- the source


def test_an_image_that_the_controller_builds_is_asked_for_instead_of_the_source(shop):
    app, world, _log = shop
    app.document.update(runtime="compose", image={"build_on": "controller"})
    world.machine = lambda: "aarch64"
    plan = engine.plan(app, SOURCE)
    tree = plan["tree"]
    assert plan["image_needed"] and not plan["source_needed"] and plan["image_platform"] == "linux/arm64"
    assert plan["image_incoming"] == f"{app.layout.incoming}/{tree}.image.tar.gz"
    world.files[app.layout.image(tree)] = "tar"
    assert not engine.plan(app, SOURCE)["image_needed"], "it arrived, and the run died"
    app.document["image"] = {"build_on": "host"}
    plan = engine.plan(app, SOURCE)
    assert plan["source_needed"] and plan["tree"] == tree and "image_needed" not in plan


def test_what_is_scaled_keeps_the_source_that_is_live(shop):
    app, world, _log = shop
    app.document["keep_source"] = True
    with pytest.raises(AnchorageError, match=r"no live release on this host whose source could be kept") as caught:
        engine.plan(app, SOURCE)
    assert caught.value.next_step == "Run deploy.yml, which makes one."
    app.journal.data["releases"]["r1"] = {"source": COMMIT, "tree": "t1"}
    app.journal.data["live"] = "r1"
    plan = engine.plan(app, SOURCE)
    assert plan["source"] == COMMIT and not plan["source_needed"] and "stage" in plan["steps"]
    assert engine.keep_document(app) and "keep_source" not in world.files[f"{engine.DOCUMENTS}/shop.json"], "that is the wish of one run"
    del app.document["keep_source"]
    assert not engine.keep_document(app), "so the next run has nothing to write"


def test_a_full_commit_needs_no_repository(shop):
    app, world, _log = shop
    assert engine.resolve_source(source(app, kind="git", repo="https://git.example.com/shop.git", version=COMMIT), None) == COMMIT
    assert world.ran == []


@pytest.mark.parametrize(
    ("answer", "commit"),
    [
        ("1\trefs/heads/v1\n", "1"),
        ("1\trefs/heads/v1\n2\trefs/tags/v1\n", "2"),
        ("1\trefs/heads/v1\n2\trefs/tags/v1\n3\trefs/tags/v1^{}\n", "3"),
    ],
    ids=["branch", "tag-before-branch", "the-commit-of-an-annotated-tag"],
)
def test_a_name_becomes_a_commit(shop, answer, commit):
    app, world, _log = shop
    world._git = lambda argv, call: Completed(0, answer, "")
    assert engine.resolve_source(source(app, kind="git", repo="https://git.example.com/shop.git", version="v1"), None) == commit
    (call,) = world.ran
    assert call["env"]["GIT_TERMINAL_PROMPT"] == "0" and call["timeout"] and call["argv"][:3] == ["git", "ls-remote", "--"]
    assert call["user"] == app.user, "a build may have left a .gitconfig that names commands"


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (Completed(0, "", ""), "has no branch or tag 'v1'"),
        (Completed(128, "", "warning: x\nfatal: could not read Username\n"), "does not answer: fatal: could not read Username"),
        (Completed(124, "", ""), "does not answer: 124"),
    ],
)
def test_a_repository_that_does_not_help_is_named(shop, done, message):
    app, world, _log = shop
    world._git = lambda argv, call: done
    with pytest.raises(AnchorageError, match=message):
        engine.resolve_source(source(app, kind="git", repo="https://git.example.com/shop.git", version="v1"), None)


def test_a_source_on_the_controller_is_what_its_checksum_says(shop):
    app, _world, _log = shop
    assert engine.resolve_source(app, SOURCE) == SOURCE
    with pytest.raises(AnchorageError, match="lies on the controller"):
        engine.resolve_source(app, None)


def test_an_archive_must_be_the_one_that_was_meant(shop):
    app, _world, _log = shop
    source(app, kind="archive", archive="shop.tar.gz", sha256=SOURCE.upper())
    assert engine.resolve_source(app, SOURCE) == engine.resolve_source(app, None) == SOURCE
    with pytest.raises(AnchorageError, match="shop.tar.gz has the SHA-256 0000, the contract says F"):
        engine.resolve_source(app, "0000")


# -- the plan


def proven(app, world):
    """Bring an app to the state after a deploy, as far as journal and database know."""
    tree, release = app.wanted(SOURCE)
    app.journal.mark(release, "staged", tree=tree, source=SOURCE)
    app.journal.mark(release, "migrated")
    app.journal.go_live(release, "blue", tree)
    app.journal.settled()
    world.marks.add(release)
    run(world, release, "blue")
    return release


def run(world, release, slot):
    """Let the processes of a release run."""
    for pid, name in enumerate(("server", "worker"), start=100):
        world.process(pid, environ={"ANCHORAGE_RELEASE": release, "ANCHORAGE_PROCESS": f"shop-{name}-{slot}"}, sockets=[pid])
    world.listen(("127.0.0.1", {"blue": 9000, "green": 9002}[slot], 100))


def test_a_new_app_needs_everything(shop):
    app, _world, _log = shop
    plan = engine.plan(app, SOURCE)
    assert plan["steps"] == ["stage", "migrate", "activate"] and plan["source_needed"] and plan["live"] is None


def test_what_serves_needs_nothing(shop):
    app, world, _log = shop
    release = proven(app, world)
    plan = engine.plan(app, SOURCE)
    assert plan["steps"] == [] and not plan["source_needed"] and plan["live"] == plan["release"] == release


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        (lambda app, world: world.marks.clear(), ["migrate"]),
        (lambda app, world: world.files.pop("/proc/101/environ"), ["activate"]),
        (lambda app, world: world.listen(), ["activate"]),
        (lambda app, world: app.document.update(env={"A": "2"}), ["stage", "migrate", "activate"]),
        (lambda app, world: app.document.update(admin={"email": "a@example.com", "command": ["node"]}), ["activate"]),
        (lambda app, world: app.document["processes"][0].update(health=None), []),
    ],
    ids=["restored-database", "dead-worker", "deaf-server", "environment", "admin", "only-a-check"],
)
def test_a_difference_needs_its_steps_and_no_others(shop, change, steps):
    app, world, _log = shop
    proven(app, world)
    change(app, world)
    assert engine.plan(app, SOURCE)["steps"] == steps


def test_a_source_that_lies_on_the_host_is_not_sent_again(shop):
    app, world, _log = shop
    world.files[app.layout.source(SOURCE)] = "tar"
    assert not engine.plan(app, SOURCE)["source_needed"]


# -- lock and step


def test_a_step_waits_for_whoever_holds_the_lock_for_a_moment_only(shop, monkeypatch):
    """As a run does that tidies up. By hand, the answer comes at once."""
    app, world, log = shop
    monkeypatch.setattr(engine, "keep_document", lambda app: True)
    monkeypatch.setattr(engine, "stage", lambda app, log, **wish: True)
    with open(app.layout.lock, "a", encoding="utf-8") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AnchorageError, match="Another step works on shop"):
            engine.run_step(app, "stage", wish(app), log)
        monkeypatch.setenv(UNIT, app.layout.unit)
        world.on_sleep = lambda: fcntl.flock(other, fcntl.LOCK_UN)
        assert engine.run_step(app, "stage", wish(app), log)["ok"] is True
        world.on_sleep, began = None, world.clock
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AnchorageError, match="Another step works on shop"):
            engine.run_step(app, "stage", wish(app), log)
        assert world.clock - began == pytest.approx(engine.LAST_WORDS, abs=1)


def test_the_lock_names_its_owner_and_dies_with_it(shop):
    app, world, _log = shop
    world.files[app.layout.step] = json.dumps({"step": "migrate", "release": "r7", "started_at": world.now() - 42})
    words = "Another step works on shop: migrate of release r7, started 42 s ago in anchorage-shop.service"
    with engine.lock(app), pytest.raises(AnchorageError, match=words), engine.lock(app):
        pass
    with engine.lock(app):
        pass


def wish(app):
    return {"release": "r1", "tree": "t1", "source": SOURCE}


def test_a_step_that_failed_is_written_down_with_cause_and_what_lives(shop):
    app, world, log = shop
    app.journal.mark("r0", "staged", tree="t0")
    app.journal.go_live("r0", "green", "t0")
    record = engine.run_step(app, "activate", wish(app), log)
    assert record["ok"] is False and record["finished_at"] >= record["started_at"]
    assert record == written_json(world, app.layout.step)
    assert "Release r1 of shop is not staged on this host." in record["text"] and "Live now: shop release r0 in slot green." in record["text"]
    assert log.tail[-1] == record["text"] and world.written[app.layout.step]["mode"] == 0o600


def test_a_fault_of_the_engine_itself_ends_the_step_too(shop):
    app, world, log = shop
    app.journal.mark("r1", "staged", tree="t1")
    del app.document["migrate"]["error_patterns"]
    record = engine.run_step(app, "migrate", wish(app), log)
    assert record["ok"] is False and "The engine itself failed in step migrate of shop: KeyError: 'error_patterns'" in record["text"]
    with engine.lock(app):
        pass


def test_a_step_that_worked_says_what_it_did(shop):
    app, world, log = shop
    app.journal.mark("r1", "staged", tree="t1")
    record = engine.run_step(app, "migrate", wish(app), log)
    assert record["ok"] is True and record["changed"] is True and "text" not in record
    assert engine.run_step(app, "migrate", wish(app), log)["changed"] is False


def test_a_step_says_where_its_time_went_and_what_customers_saw(shop, monkeypatch):
    app, world, log = shop
    asked = []
    monkeypatch.setattr(engine.Prober, "_ask_on", lambda self: asked.append(self.target) or self.__dict__.update(requests=7, failed=1, first_failure="boom"))
    app.document.update(url="https://shop.example.com", proxy_address="127.0.0.1")
    app.journal.mark("r1", "staged", tree="t1")
    app.journal.mark("r2", "staged", tree="t2")
    assert engine.run_step(app, "migrate", wish(app), log)["prober"]["requests"] == 0, "nothing serves yet, so nobody is asked"
    app.journal.go_live("r1", "blue", "t1")
    record = engine.run_step(app, "migrate", {**wish(app), "release": "r2"}, log)
    assert set(record["phases"]) == {"restore point", "migration"}
    assert record["prober"]["requests"] == 7 and record["prober"]["failed"] == 1 and len(asked) == 1
    assert "the site was asked 7 times meanwhile: 1 failed" in " ".join(log.tail)


def test_a_step_is_started_as_a_unit_that_outlives_its_caller(shop):
    app, world, _log = shop
    started = engine.start(app, "stage", wish(app))
    assert started["attached"] is False
    (command,) = [call["argv"] for call in world.ran if call["argv"][0] == "systemd-run"]
    assert "--unit=anchorage-shop.service" in command and "--wait" not in command
    assert command[command.index(COMMAND) :] == [
        COMMAND,
        "step",
        "stage",
        "shop",
        "--release=r1",
        "--tree=t1",
        f"--source={SOURCE}",
        "--owner=",
        f"--document={app.layout.wish('r1')}",
        f"--log={started['log']}",
    ]
    assert json.loads(world.files[app.layout.wish("r1")]) == app.document and world.written[app.layout.wish("r1")]["mode"] == 0o600
    assert PASSWORD not in " ".join(command)
    assert engine.read_step(app)["finished_at"] is None and os.path.isdir(app.layout.logs)


@pytest.mark.parametrize(
    ("step", "runtime", "wanted"),
    [
        ("migrate", "compose", f"--property=ExecStopPost=-{COMMAND} end shop"),
        ("migrate", "pm2", None),
        ("stage", "compose", None),
        ("activate", "compose", f"--property=ExecStopPost={COMMAND} recover shop"),
    ],
)
def test_what_outlives_a_steps_unit_is_made_good_by_the_unit(shop, step, runtime, wanted):
    app, world, _log = shop
    app.document["runtime"] = runtime
    engine.start(app, step, wish(app))
    (command,) = [call["argv"] for call in world.ran if call["argv"][0] == "systemd-run"]
    assert [word for word in command if "ExecStopPost" in word] == ([wanted] if wanted else [])


def test_the_same_step_is_attached_to_and_another_one_is_refused(shop):
    app, world, _log = shop
    first = engine.start(app, "stage", wish(app))
    world.units.add(app.layout.unit)
    assert engine.start(app, "stage", wish(app)) == {"log": first["log"], "attached": True}
    for step, other in (("migrate", wish(app)), ("stage", {**wish(app), "release": "r2"})):
        with pytest.raises(AnchorageError, match="Another step works on shop: stage of release r1"):
            engine.start(app, step, other)
    assert len([call for call in world.ran if call["argv"][0] == "systemd-run"]) == 1


def test_of_two_that_start_at_once_the_other_sees_the_step_of_the_one(shop):
    app, world, _log = shop
    told = []

    def other():
        try:
            engine.start(App("shop", world, app.document), "stage", {**wish(app), "release": "r2", "owner": "other"})
        except AnchorageError as error:
            told.append(error.message)

    second = threading.Thread(target=other)

    def systemd_run(argv, call):
        if second.ident is None:
            second.start()
            second.join(0.3)
        world.units.add(app.layout.unit)
        return OK

    world._systemd_run = systemd_run
    engine.start(app, "stage", {**wish(app), "owner": "one"})
    second.join(10)
    assert len(told) == 1 and "Another step works on shop: stage of release r1, started by one" in told[0]
    assert len([call for call in world.ran if call["argv"][0] == "systemd-run"]) == 1
    assert engine.read_step(app)["release"] == "r1", "what the other wished was not written over the step that runs"


def test_a_unit_that_cannot_be_started_is_a_failure(shop):
    app, world, _log = shop
    world._systemd_run = lambda argv, call: Completed(1, "", "Failed to connect to bus")
    with pytest.raises(AnchorageError, match="The step stage of shop could not be started: Failed to connect to bus"):
        engine.start(app, "stage", wish(app))


# -- follow


@pytest.fixture
def running(shop):
    """A step that runs and logs."""
    app, world, _log = shop
    log = pathlib.Path(engine.start(app, "stage", wish(app))["log"])
    world.units.add(app.layout.unit)
    return app, world, log


def finish(app, world, **outcome):
    app.world.write_atomic(app.layout.step, json.dumps({**engine.read_step(app), "finished_at": 1.0, **outcome}).encode(), mode=0o600)
    world.units.clear()


def test_following_gives_whole_lines_from_where_it_was(running):
    app, world, log = running
    log.write_bytes("eins\nzwei ä".encode())
    first = engine.follow(app, log=str(log), offset=0, wait_seconds=1)
    assert first["running"] and first["lines"] == ["eins"] and first["offset"] == 5 and first["outcome"] is None
    log.write_bytes("eins\nzwei ä\ndrei".encode())
    second = engine.follow(app, log=str(log), offset=first["offset"], wait_seconds=1)
    assert second["lines"] == ["zwei ä"]
    finish(app, world, ok=True)
    last = engine.follow(app, log=str(log), offset=second["offset"], wait_seconds=1)
    assert last["lines"] == ["drei"] and not last["running"] and last["outcome"]["ok"] is True


def test_following_waits_no_longer_than_it_may(running):
    app, world, log = running
    engine.follow(app, log=str(log), offset=0, wait_seconds=10)
    assert 9.5 < sum(world.slept) <= 10.5


def test_following_ends_as_soon_as_the_step_does(running):
    app, world, log = running
    world.on_sleep = lambda: finish(app, world, ok=True) if len(world.slept) == 3 else None
    assert engine.follow(app, log=str(log), offset=0, wait_seconds=10)["outcome"]["ok"] is True
    assert len(world.slept) == 3


def test_a_step_that_was_killed_is_a_failure_and_not_a_silence(running):
    app, world, log = running
    log.write_text("half a li")
    world.units.clear()
    answer = engine.follow(app, log=str(log), offset=0, wait_seconds=10)
    assert not answer["running"] and answer["lines"] == ["half a li"]
    assert answer["outcome"]["ok"] is False and "ended without a word" in answer["outcome"]["text"] and "Run deploy.yml again" in answer["outcome"]["text"]


def test_a_step_that_ends_while_we_look_has_not_died(running):
    """The record is read after the unit: what ended between the two looks has written its last word."""
    app, world, log = running
    asked = world._systemctl

    def systemctl(argv, call):
        answer = asked(argv, call)
        if argv[1] == "is-active" and len(world.slept) == 2:
            finish(app, world, ok=True)
            return Completed(3, "", "")
        return answer

    world._systemctl = systemctl
    assert engine.follow(app, log=str(log), offset=0, wait_seconds=10)["outcome"]["ok"] is True


@pytest.mark.parametrize("text", ["x" * 99 + "\n" + ("y" * 99 + "\n") * 2000, "z" * 200_000 + "\nend\n"], ids=["many", "one-long-line"])
def test_a_long_log_comes_in_slices_to_its_end(running, text):
    app, world, log = running
    log.write_text(text)
    finish(app, world, ok=True)
    offset, said, rounds = 0, "", 0
    while rounds < 10:
        answer = engine.follow(app, log=str(log), offset=offset, wait_seconds=1)
        offset, said, rounds = answer["offset"], said + "".join(answer["lines"]), rounds + 1
        if not answer["running"]:
            break
    assert said == text.replace("\n", "") and rounds == 4 and answer["outcome"]["ok"] is True


# -- state


def test_status_tells_what_is_live_and_what_ran_last(shop):
    app, world, log = shop
    release = proven(app, world)
    engine.run_step(app, "migrate", {**wish(app), "release": release}, log)
    told = engine.status(app)
    assert (told["live"], told["slot"], told["previous"], told["running"]) == (release, "blue", None, True)
    assert told["last_step"]["step"] == "migrate" and told["last_step"]["ok"] is True
    world.files.pop("/proc/100/environ")
    assert engine.status(app)["running"] is False


def test_status_does_not_call_a_dead_step_running(shop):
    app, world, _log = shop
    record = {"step": "stage", "release": "r9", "started_at": world.now(), "finished_at": None}
    world.files[app.layout.step] = json.dumps(record)
    world.units.add(app.layout.unit)
    assert engine.status(app)["last_step"]["finished_at"] is None
    world.units.clear()
    told = engine.status(app)["last_step"]
    assert told["finished_at"] is not None and told["ok"] is False and "ended without a word" in told["text"]


def test_pruning_keeps_the_live_the_previous_and_what_they_stand_on(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app = App("shop", World(), document(str(tmp_path / "home"), keep_releases=3))
    for number in range(6):
        release, tree = f"r{number}", f"t{number}"
        for path in (app.layout.release(release), app.layout.build(tree), f"{app.layout.dependencies(f'd{number // 2}')}/full", app.layout.incoming):
            os.makedirs(path, exist_ok=True)
        pathlib.Path(app.layout.build(tree), ".anchorage.json").write_text(json.dumps({"dependencies": f"d{number // 2}"}))
        pathlib.Path(app.layout.source(f"s{number}")).write_text("tar")
        app.journal.mark(release, "staged", tree=tree, source=f"s{number}")
    app.journal.go_live("r0", "blue", "t0")
    app.journal.go_live("r1", "green", "t1")
    os.makedirs(app.layout.release("left-by-a-lost-journal"))
    pathlib.Path(app.layout.wish("left-by-a-killed-step")).touch()
    assert len(engine.prune(app, check=True)) == len(engine.prune(app)) == 3 + 3 + 1 + 3 + 2
    kept = {name: sorted(os.listdir(f"{app.layout.home}/{name}")) for name in ("releases", "builds", "deps", "incoming")}
    assert kept == {"releases": ["r0", "r1", "r5"], "builds": ["t0", "t1", "t5"], "deps": ["d0", "d2"], "incoming": ["s0.tar", "s1.tar", "s5.tar"]}
    assert set(app.journal.data["releases"]) == {"r0", "r1", "r5"}
    assert engine.prune(app) == []
