# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib
import shlex

import jinja2
import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.filter.unit_word import unit_word

ROLES = pathlib.Path(__file__).resolve().parents[4] / "roles"


def test_a_word_means_itself():
    assert unit_word('REQUESTS_CA_BUNDLE=/a "b" 100%.pem') == '"REQUESTS_CA_BUNDLE=/a \\"b\\" 100%%.pem"'
    with pytest.raises(AnsibleFilterError, match="NUL"):
        unit_word("a\0b")


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("certbot/templates/certbot.service.conf.j2", 'Environment="REQUESTS_CA_BUNDLE=/a b/$(touch /x) 1%%.pem"\n'),
        ("nodejs/templates/node.env.j2", "NODE_EXTRA_CA_CERTS='/a b/$(touch /x) 1%.pem'\n"),
        ("nodejs/templates/node.sh.j2", "export NODE_EXTRA_CA_CERTS='/a b/$(touch /x) 1%.pem'\n"),
    ],
)
def test_a_path_of_the_user_stays_one_where_it_is_read(template, line):
    path = "/a b/$(touch /x) 1%.pem"
    variables = {"certbot_ca_file": path, "nodejs_extra_ca_file": path, "__certbot_program": "/x"}
    environment = jinja2.Environment(keep_trailing_newline=True)
    environment.filters.update({"anchorage.vps.unit_word": unit_word, "quote": shlex.quote})
    assert line in environment.from_string((ROLES / template).read_text()).render(variables)
