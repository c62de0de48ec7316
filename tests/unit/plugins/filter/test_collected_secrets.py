# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.filter.collected_secrets import collected_secrets

EXTERNAL = {"host": None, "image": None}
TOPOLOGY = {"database": [{"name": "d1"}]}
CONTRACT = {"apps": {"shop": {"secrets_host": "d1", "database": EXTERNAL}, "blog": {"secrets_host": "a1", "database": EXTERNAL}}, "topology": TOPOLOGY}
ANSWERS = {
    "d1": {"answer": {"secrets": {"shop": {"JWT_SECRET": "s"}}}},
    "a1": {"answer": {"secrets": {"blog": {"JWT_SECRET": "b"}, "shop": {"JWT_SECRET": "another host's idea"}}}},
}


def test_each_apps_secrets_come_from_the_host_that_keeps_them():
    assert collected_secrets(CONTRACT, ANSWERS, "answer") == {"shop": {"JWT_SECRET": "s"}, "blog": {"JWT_SECRET": "b"}}


@pytest.mark.parametrize("hostvars", [{}, {"d1": {}}, {"d1": {"answer": None}}, {"d1": {"answer": {"secrets": {}}}}, {"d1": {"answer": {"skipped": True}}}])
def test_a_run_without_the_answer_is_refused_by_name(hostvars):
    with pytest.raises(AnsibleFilterError, match=r"secrets of apps.shop are kept on d1, which gave none in this run.*includes d1"):
        collected_secrets(CONTRACT, {**ANSWERS, "d1": {}, **hostvars}, "answer")


def test_in_check_mode_unknown_secrets_are_left_out():
    assert collected_secrets(CONTRACT, {"a1": ANSWERS["a1"]}, "answer", True) == {"blog": {"JWT_SECRET": "b"}}


def test_an_app_without_secrets_is_no_missing_answer():
    contract = {"apps": {"bot": {"secrets_host": "a1", "database": EXTERNAL}}, "topology": TOPOLOGY}
    assert collected_secrets(contract, {"a1": {"answer": {"secrets": {"bot": {}}}}}, "answer") == {"bot": {}}


def test_the_password_of_the_replicas_comes_from_the_primary():
    apps = {"shop": {"secrets_host": "d1", "database": {"host": "d1", "image": None}}}
    contract = {"apps": apps, "topology": {"database": [{"name": "d1"}, {"name": "d2"}]}}
    kept = {"shop": {}, "postgresql.replication": {"password": "p"}}
    assert collected_secrets(contract, {"d1": {"answer": {"secrets": kept}}, "d2": {}}, "answer") == kept
    with pytest.raises(AnsibleFilterError, match=r"secrets of postgresql.replication are kept on d1"):
        collected_secrets(contract, {"d1": {"answer": {"secrets": {"shop": {}}}}}, "answer")
