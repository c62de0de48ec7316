# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils import command, memory
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.slots import Slots, instances
from ansible_collections.anchorage.vps.plugins.module_utils.step_migrate import migrate

from .engine_fakes import make, place, written_json
from .health_fakes import FakeWorld

V1 = {"/proc/self/cgroup": "5:memory:/system.slice/x.service\n1:name=systemd:/system.slice/x.service\n"}
V2 = {"/proc/self/cgroup": "0::/system.slice/x.service/.control\n"}


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({**V1, "/sys/fs/cgroup/memory/system.slice/x.service/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}, 2),
        ({**V1, "/sys/fs/cgroup/memory/system.slice/x.service/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"}, 0),
        ({**V2, "/sys/fs/cgroup/system.slice/x.service/memory.events": "oom 3\noom_kill 1\noom_group_kill 0\n"}, 1),
        ({**V2, "/sys/fs/cgroup/system.slice/x.service/memory.events": "oom 3\noom_kill 0\n"}, 0),
        (V1, 0),
        ({}, 0),
    ],
    ids=["v1", "v1-none", "v2", "v2-none", "no-counter", "no-proc"],
)
def test_a_unit_says_whether_it_was_out_of_memory(files, number, monkeypatch, capsys):
    monkeypatch.setattr(command, "World", lambda: FakeWorld(files=files))
    assert command.main(["out-of-memory"]) == 0
    wanted = f"{memory.MARK} {number} processes of this unit were killed at its limit\n"
    assert capsys.readouterr().out == (wanted if number else "")


@pytest.mark.parametrize(
    ("lines", "rc", "seconds", "heap", "words"),
    [
        ([f"{memory.MARK} 1 processes"], 1, 5, 300, "it ran out of memory (build.memory_mb is 300, in MiB, for Node's heap, and the whole unit may take 600)"),
        (["FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"], 134, 5, 300, "it ran out of memory (build.memory_mb is 300"),
        ([], 137, 5, 300, "it ended with code 137, and this is how running out of memory looks (build.memory_mb is 300"),
        ([], 255, 60, 300, "it was stopped after 60 s"),
        ([], 1, 5, 300, ""),
        ([], 137, 5, None, ""),
    ],
    ids=["killed-child", "heap", "killed", "timeout", "ordinary", "no-limit"],
)
def test_why_a_command_ended(lines, rc, seconds, heap, words):
    world, said = FakeWorld(), []
    watch = memory.Watch(world, said.append)
    for line in ["one", *lines, "two"]:
        watch(line)
    world.clock += seconds
    cause = watch.cause(rc, key="build.memory_mb", heap_mb=heap, limit_seconds=60)
    assert (cause.startswith(words) if words else cause == "") and said == ["one", *lines, "two"]


def test_the_heap_is_limited_unless_the_environment_says_something_of_its_own():
    environment = {}
    memory.limit_heap(environment, 512)
    memory.limit_heap(environment, 100)
    memory.limit_heap(environment, None)
    assert environment == {"NODE_OPTIONS": "--max-old-space-size=512"} and memory.unit_limit(512) == 1024 and memory.unit_limit(None) is None


@pytest.fixture
def host(tmp_path, monkeypatch):
    place(tmp_path, monkeypatch)
    app, world, log = make(tmp_path)
    app.document["migrate"]["memory_mb"] = 300
    app.journal.mark("r1", "staged", tree="t1", source="s1")
    return app, world, log


def test_a_migration_has_a_limit_of_its_own(host):
    app, world, log = host
    migrate(app, log, release="r1")
    (argv,) = world.streamed
    assert "--property=MemoryMax=600M" in argv and any(word.startswith("--property=ExecStopPost=-") and word.endswith(" out-of-memory") for word in argv)
    assert written_json(world, f"{app.layout.release('r1')}/run/migrate.json")["env"]["NODE_OPTIONS"] == "--max-old-space-size=300"


def test_a_migration_that_ran_out_of_memory_names_the_key_to_raise(host):
    app, world, log = host
    world.rc, world.output = 1, ["● Migrating x", f"{memory.MARK} 1 processes of this unit were killed at its limit"]
    with pytest.raises(AnchorageError, match=r"it ran out of memory \(migrate.memory_mb is 300") as error:
        migrate(app, log, release="r1")
    assert "Raise apps.shop.migrate.memory_mb" in error.value.next_step and world.marks == set()


@pytest.mark.parametrize(("resident", "good"), [(200 * 1024, True), (300 * 1024, False), (None, True)])
def test_a_process_over_its_own_limit_is_not_proven(host, resident, good):
    app, world, log = host
    (server,) = instances(app.document, "green", public=True)
    world.process(100, environ={"ANCHORAGE_RELEASE": "r1", "ANCHORAGE_PROCESS": server.name}, sockets=[100])
    world.listen(("127.0.0.1", server.port, 100))
    if resident:
        world.files["/proc/100/status"] += f"VmRSS:\t  {resident} kB\n"
    if good:
        Slots(app, log).prove(server, "r1")
        return
    with pytest.raises(AnchorageError, match="it takes 300 MiB, and processes.server.memory_mb is 256, so PM2 would restart it again and again"):
        Slots(app, log).prove(server, "r1")
