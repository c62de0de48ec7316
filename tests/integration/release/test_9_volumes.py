# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers come and go, what they keep stays: the services made anew, from another image, and through releases."""

from __future__ import annotations

import urllib.request

import pytest

from ansible_collections.anchorage.vps.tests.lab import images

from .conftest import RUNTIME, until
from .fault import made_good

pytestmark = [pytest.mark.fault, pytest.mark.skipif(RUNTIME != "compose", reason="PM2 keeps no volumes")]

DATABASE, QUEUE = "alpha-base-postgres-1", "alpha-base-redis-jobs-1"
PORT = "python3 -c \"import json; print(json.load(open('/etc/anchorage/apps/alpha.json'))['redis_url'])\""


def write(host, name):
    """Let the app write a row, and leave a job in its queue."""
    request = urllib.request.Request(f"http://127.0.0.1:{host.facts['lab_ports']['80']}/items", data=name.encode(), headers={"Host": "alpha.localhost"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201
    assert queue(host, f"SET {name} kept") == "OK"


def queue(host, words):
    """Ask the queue as the app does."""
    url = host.shell(PORT).strip()
    user, _colon, password = url.partition("//")[2].partition("@")[0].partition(":")
    asked = f"docker exec -i -e REDISCLI_AUTH {QUEUE} redis-cli --user {user} --no-auth-warning {words}"
    return host.shell(f"REDISCLI_AUTH={password} {asked}").strip()


def kept(host, names):
    """Which of the rows and jobs are still there."""
    rows = host.sql(f"SELECT string_agg(name, ',' ORDER BY name) FROM stub_items WHERE name IN ({', '.join(repr(name) for name in names)})")
    return rows.split(","), [queue(host, f"GET {name}") for name in names]


def container(host, name):
    """Which container has a name."""
    return host.shell(f"docker inspect --format '{{{{.Id}}}}' {name}").strip()


def test_data_outlives_its_containers(shop):
    host = shop.host
    volumes = host.shell("docker volume ls --quiet").split()
    write(host, "kept-1")
    before = {name: container(host, name) for name in (DATABASE, QUEUE)}

    # Somebody has removed them.
    host.shell(f"docker rm --force {DATABASE} {QUEUE}")
    shop.apps.run("provision")
    until(lambda: host.state()["running"], "the live release")
    after = {name: container(host, name) for name in (DATABASE, QUEUE)}
    assert all(after[name] != before[name] for name in after)
    assert kept(host, ["kept-1"]) == (["kept-1"], ["kept"])

    # Another image of the same major version.
    host.shell(f"docker tag {images.STAND_INS['postgres']} lab/postgres:17.next; docker tag {images.STAND_INS['redis']} lab/redis:8.next")
    original = shop.apps.apps["alpha"]
    wanted = {"database": {**original["database"], "image": "lab/postgres:17.next"}, "redis": {**original["redis"], "image": "lab/redis:8.next"}}
    shop.apps.apps["alpha"] = {**original, **wanted}
    shop.apps.write()
    shop.apps.run("provision")
    assert all(container(host, name) != after[name] for name in after)
    write(host, "kept-2")
    assert kept(host, ["kept-1", "kept-2"]) == (["kept-1", "kept-2"], ["kept", "kept"])
    assert shop.apps.run("provision").changed == 0

    # Releases touch neither containers nor volumes.
    at_rest = {name: container(host, name) for name in (DATABASE, QUEUE)}
    for _number in range(2):
        shop.apps.app("alpha")
        shop.apps.apps["alpha"].update(wanted)
        shop.apps.write()
        made_good(shop)
    assert {name: container(host, name) for name in at_rest} == at_rest
    assert kept(host, ["kept-1", "kept-2"]) == (["kept-1", "kept-2"], ["kept", "kept"])
    assert set(volumes) <= set(host.shell("docker volume ls --quiet").split())
