# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a text as one word of a unit file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unit_word
short_description: Write a text as one word of a systemd unit
version_added: 0.1.0
author: Anchorage maintainers (@anchorage)
description:
  - Returns a text as one quoted word of a unit file, which systemd reads as that very text, whatever blanks, quotes and percent signs it holds.
  - For C(Environment=) the word is the whole assignment. In C(ExecStart=) a dollar sign begins a variable; write it twice there.
positional: _input
options:
  _input:
    description: Text. A NUL character is refused.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show a line of a unit
  ansible.builtin.debug:
    msg: "Environment={{ ('REQUESTS_CA_BUNDLE=' ~ ca_file) | anchorage.vps.unit_word }}"
  vars:
    ca_file: /etc/ssl/certs/100% ours.pem
"""

RETURN = r"""
_value:
  description: Word.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.anchorage.vps.plugins.module_utils.encoders import systemd_word
from ansible_collections.anchorage.vps.plugins.module_utils.errors import AnchorageError


def unit_word(text: str) -> str:
    """Return the word."""
    try:
        return systemd_word(str(text), "the text")
    except AnchorageError as error:
        raise AnsibleFilterError(error.text()) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return them by name."""
        return {"unit_word": unit_word}
