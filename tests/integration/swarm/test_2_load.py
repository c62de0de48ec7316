# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases on a Swarm under load: readers, writers, slow answers, on kept and on fresh connections; what was acknowledged is in the database."""

from __future__ import annotations

import collections
import http.client
import itertools
import threading
import time

import pytest

from .test_1_stack import settled

pytestmark = pytest.mark.fault

RELEASES = 3

#: What is written in this run; hosts that were kept have more.
RUN = f"load-{time.time_ns()}"


class Customer(threading.Thread):
    """Asks one thing again and again.

    :arg kept: whether on one connection, as long as it is left open.
    """

    numbers = itertools.count(1)

    def __init__(self, port: int, method: str, path: str, wanted: int, *, kept: bool = True, pause: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.port, self.method, self.path, self.wanted, self.kept, self.pause = port, method, path, wanted, kept, pause
        self.stop = threading.Event()
        self.answers: collections.Counter[str] = collections.Counter()
        self.failed: list[str] = []
        self.written: list[str] = []

    def run(self) -> None:
        """Ask until it is enough."""
        connection = None
        while not self.stop.is_set():
            name = f"{RUN}-{next(self.numbers)}" if self.method == "POST" else None
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                connection.request(self.method, self.path, name, {"Host": "alpha.localhost"})
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status != self.wanted:
                    raise OSError(f"{self.method} {self.path}: {answer.status} {text[:80]}")
                self.answers[f"{self.method} {self.path}"] += 1
                if name:
                    self.written.append(name)
                if not self.kept or answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{self.method} {self.path} ({'kept' if self.kept else 'fresh'}): {error!r}")
                if connection:
                    connection.close()
                connection = None
            time.sleep(self.pause)


def test_releases_under_load(swarm, record_property):
    old = settled(swarm)
    port = int(swarm.proxy.facts["lab_ports"]["80"])
    wishes = [("GET", "/info", 200, True)] * 4 + [("GET", "/info", 200, False)] * 2 + [("GET", "/slow?ms=1500", 200, True)] * 3
    wishes += [("POST", "/items", 201, True)] * 3 + [("POST", "/items", 201, False)] * 2
    customers = [Customer(port, method, path, wanted, kept=kept) for method, path, wanted, kept in wishes]
    for customer in customers:
        customer.start()
    try:
        for _number in range(RELEASES):
            swarm.apps.app("alpha")
            swarm.deploy()
    finally:
        for customer in customers:
            customer.stop.set()
        for customer in customers:
            customer.join()
    failed = [line for customer in customers for line in customer.failed]
    answers = sum((customer.answers for customer in customers), collections.Counter())
    written = [name for customer in customers for name in customer.written]
    known = int(swarm.database.sql(f"SELECT count(*) FROM stub_items WHERE name LIKE '{RUN}-%'"))
    record_property("requests", sum(answers.values()) + len(failed))
    record_property("failed", len(failed))
    record_property("written", len(written))
    print(f"{RELEASES} releases: {dict(answers)}, {len(failed)} failed, {len(written)} written, {known} in the database")
    assert settled(swarm) != old
    assert not failed, (len(failed), failed[:5])
    assert known == len(written), "each was written once"
