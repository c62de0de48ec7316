# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError
from ansible_collections.anchorage.vps.plugins.module_utils.release_plan import Instance
from ansible_collections.anchorage.vps.plugins.module_utils.soak import ACCESS_LOG, Figures, Soak, count, judge_errors, judge_latency

from .health_fakes import FakeWorld

LIMITS = {"seconds": 5, "max_error_percent": 1, "max_slowdown": 3}
OLD, NEW = 9000, 9002
SERVER = Instance("shop-server-green", {"name": "server"}, 0, "green", NEW)


def at(port):
    return f"127.0.0.1:{port}"


def plain(port, status=200, seconds=0.01):
    return f'192.0.2.7 - - [21/Nov/2026:17:00:00 +0000] "GET /a 1.1" {status} 12 "-" "a b" shop.example.com {seconds} 127.0.0.1:{port} {status} {seconds} 0af1'


def as_json(port, status=200, seconds=0.01):
    return (
        f'{{"time":"2026-11-21T17:00:00+00:00","uri":"/a","status":{status},"upstream":"127.0.0.1:{port}",'
        f'"upstream_status":"{status}","upstream_seconds":"{seconds}","referer":"","agent":"x","request_id":"0af1"}}'
    )


@pytest.mark.parametrize("line", [plain, as_json])
def test_requests_are_counted_by_the_port_that_answered(line):
    figures = Figures()
    count([line(NEW), line(NEW, 503, 0.5), line(OLD, 500), "nonsense", ""], {at(NEW)}, figures)
    assert (figures.requests, figures.failed, figures.seconds) == (2, 1, [0.01, 0.5])


def test_a_request_that_the_release_before_had_to_answer_counts_against_the_new_one():
    figures = Figures()
    line = plain(NEW).replace(f"127.0.0.1:{NEW} 200 0.01", f"127.0.0.1:{NEW}, 127.0.0.1:{OLD} 502, 200 0.000, 0.031")
    count([line], {at(NEW)}, figures)
    assert (figures.requests, figures.failed) == (1, 1)


def test_a_process_of_another_host_on_the_same_port_is_not_counted():
    figures = Figures()
    count([plain(NEW).replace(f"127.0.0.1:{NEW} 200 0.01", f"10.0.0.2:{NEW}, 127.0.0.1:{NEW} 502, 200 0.001, 0.02")], {at(NEW)}, figures)
    assert (figures.requests, figures.failed) == (1, 0)


def test_a_request_that_never_reached_an_app_counts_for_nobody():
    figures = Figures()
    count([plain(NEW).replace(f"127.0.0.1:{NEW} 200 0.01", "- - -")], {at(NEW)}, figures)
    assert figures.requests == 0


@pytest.mark.parametrize(
    ("old", "new", "bad"),
    [
        ((1000, 0), (1000, 2), False),
        ((1000, 0), (100, 3), True),
        ((1000, 100), (1000, 105), False),
        ((1000, 0), (1000, 10), False),
        ((0, 0), (3, 3), True),
    ],
    ids=["few", "more", "no-more-than-before", "within-the-limit", "all"],
)
def test_failures_are_judged_against_the_release_before(old, new, bad):
    assert bool(judge_errors(Figures(*old), Figures(*new), LIMITS)) is bad


@pytest.mark.parametrize(
    ("old", "new", "bad"),
    [
        ([0.01] * 50, [0.2] * 50, False),
        ([0.2] * 50, [0.7] * 50, True),
        ([0.2] * 50, [0.55] * 50, False),
        ([0.2] * 50, [3.0] * 19, False),
        ([0.2] * 50, [0.2] * 49 + [9.0], False),
    ],
    ids=["noise", "slower", "within-the-factor", "too-few", "one-outlier"],
)
def test_latency_is_judged_against_the_release_before(old, new, bad):
    assert bool(judge_latency(Figures(seconds=old), Figures(seconds=new), LIMITS)) is bad


@pytest.fixture
def world():
    found = FakeWorld({ACCESS_LOG: "".join(f"{plain(OLD)}\n" for _number in range(50))})
    found.on_look = []
    return found


def watch(world, ask=lambda instance: "", main=lambda instance: 7, rush=0.0):
    soak = Soak(world, LIMITS, old={at(OLD)}, new={at(NEW)})
    soak.rush = rush
    asked = []

    def look(instance):
        asked.append(world.clock)
        for act in world.on_look:
            act()
        return ask(instance)

    soak.know([SERVER], main)
    soak.watch([SERVER], main, look)
    return soak, asked


def test_it_is_watched_for_the_whole_time(world):
    soak, asked = watch(world)
    assert asked == [1000, 1001, 1002, 1003, 1004, 1005] and soak.old.requests == 50
    assert soak.summary() == "no request of it is in this host's proxy log"


def test_failing_requests_end_it_at_once(world):
    world.on_look.append(lambda: world.files.__setitem__(ACCESS_LOG, world.files[ACCESS_LOG] + f"{plain(NEW, 500)}\n"))
    with pytest.raises(AnchorageError, match=r"2 s later 3 of 3 requests failed \(5xx\), 0 of 50 did"):
        watch(world)


@pytest.mark.parametrize(("rush", "bad"), [(0.0, True), (2.5, False), (60.0, False)])
def test_requests_that_come_all_at_once_after_a_wait_are_not_judged_by_their_time(world, rush, bad):
    def crowd():
        seconds = 4.0 if world.clock < 1002 else 0.01
        world.files[ACCESS_LOG] += "".join(f"{plain(NEW, seconds=seconds)}\n" for _number in range(30))

    world.on_look.append(crowd)
    if bad:
        with pytest.raises(AnchorageError, match="requests took up to 4.00 s"):
            watch(world, rush=rush)
    else:
        assert watch(world, rush=rush)


def test_slow_requests_are_judged_at_the_end(world):
    world.on_look.append(lambda: world.files.__setitem__(ACCESS_LOG, world.files[ACCESS_LOG] + f"{plain(NEW, seconds=2.5)}\n" * 5))
    with pytest.raises(AnchorageError, match=r"5 s later 95 % of 30 requests took up to 2.50 s, 0.01 s with"):
        watch(world)


def test_half_a_line_is_read_when_it_is_whole(world):
    line = f"{plain(NEW, 500)}\n"
    parts = iter([line[:-12], line[-12:] + line[:-9], line[-9:], "", "", ""])
    world.on_look.append(lambda: world.files.__setitem__(ACCESS_LOG, world.files[ACCESS_LOG] + next(parts)))
    soak, _asked = watch(world)
    assert (soak.new.requests, soak.new.failed) == (2, 2)


def test_a_rotated_log_is_read_from_its_beginning(world):
    world.on_look.append(lambda: world.files.__setitem__(ACCESS_LOG, f"{plain(NEW)}\n"))
    soak, _asked = watch(world)
    assert soak.new.requests == 1


def test_one_failed_health_check_is_forgiven_two_in_a_row_are_not(world):
    answers = iter(["late", "", "late", "late"])
    with pytest.raises(AnchorageError, match="3 s later shop-server-green: late"):
        watch(world, ask=lambda instance: next(answers))


@pytest.mark.parametrize(("pids", "cause"), [([7, 7, None], "died"), ([7, 7, 8], "was restarted")])
def test_a_process_must_stay_the_same(world, pids, cause):
    seen = iter(pids)
    with pytest.raises(AnchorageError, match=f"shop-server-green {cause}"):
        watch(world, main=lambda instance: next(seen))


def test_without_a_proxy_on_this_host_the_processes_are_watched_all_the_same():
    soak, asked = watch(type("World", (FakeWorld,), {"on_look": []})())
    assert len(asked) == 6 and soak.old.requests == 0
