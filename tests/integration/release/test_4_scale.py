# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""More and fewer instances of a process, while visitors come, and nothing else changes."""

from __future__ import annotations

import json

import pytest

from .conftest import Visitor

THREE = ("-e", "instances=3")
WORDS = ("-e", "app=alpha", "-e", "process=server", "-e")


def servers(host):
    """Return the names of the servers that run."""
    return {name for name, entry in host.processes().items() if "-server" in name and entry["pm2_env"]["status"] == "online"}


def ports(host):
    """Return where the live release's servers listen."""
    state = host.state()
    document = json.loads(host.shell(f"cat /srv/alpha/releases/{state['live']}/document.json"))
    return next(process["slots"][state["slot"]] for process in document["processes"] if process["name"] == "server")


@pytest.mark.fault
def test_an_app_is_scaled_to_three_and_back_without_a_failed_request(shop):
    host, before = shop.host, shop.host.serving()
    tree = host.journal()["tree"]
    # What lies in the source by now is nobody's wish; nothing else is another.
    app = shop.apps.apps["alpha"]
    shop.apps.app("alpha")
    shop.apps.apps["alpha"] = {**app, "source": shop.apps.apps["alpha"]["source"]}
    shop.apps.write()
    with Visitor(host) as visitor:
        ended = shop.apps.run("scale", *WORDS, "instances=3")
        three, slot, places = servers(host), host.state()["slot"], ports(host)
        answers = [json.loads(host.direct(port)) for port in places]
        back = shop.apps.run("scale", *WORDS, "instances=1")
    assert three == {f"alpha-server-{number}-{slot}" for number in (1, 2, 3)}
    assert len(set(places)) == 3 and {answer["version"] for answer in answers} == {host.public()["version"]}
    assert "alpha runs 3 of server until the next deploy.yml" in ended.output and "which says 1" in ended.output
    assert "until the next deploy.yml" not in back.output, "that is what the inventory says"
    after = host.serving()
    after.check()
    assert host.journal()["tree"] == tree and after.live == before.live, "the source is the one that was live"
    visitor.check()


@pytest.mark.fault
def test_what_cannot_be_scaled_is_refused_before_anything_changes(shop):
    before = shop.host.serving()
    for words, answer in (
        (
            ("-e", "app=alpha", "-e", "process=serverr", *THREE),
            "apps.alpha.processes.serverr: is no process of this app; there are server, worker",
        ),
        (("-e", "app=beta", "-e", "process=server", *THREE), "apps.beta: is no app that could be scaled; there are alpha"),
        ((*WORDS, "instances=many"), "apps.alpha.processes.server.instances: must be a whole number, is text"),
        (("-e", "process=server"), "Say what is to be scaled, with -e process=NAME -e instances=NUMBER"),
    ):
        ended = shop.apps.run("scale", *words, rc=None)
        assert answer in ended.output and ended.changed == 0
    assert shop.host.serving() == before
