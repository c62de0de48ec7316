# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that mean something to whatever reads them on the way from an inventory to a process, and a file that is there once one of them was run."""

from __future__ import annotations

import itertools
import random

#: What a value that is run leaves behind.
CANARY = "/tmp/pwned"

#: Each has a meaning to something: a shell, systemd, Compose, a Dockerfile, dotenv, SQL, a URL.
PLAIN = [
    "", " ", " blanks around ", "a b", "#", "a #b", "ab$cd#ef", "$", "$$", "$HOME", "${HOME}", "${HOME:-x}", "$(id)", f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"; touch {CANARY}", f"| touch {CANARY}", f"&& touch {CANARY}", "'", "''", "'x'", '"', '"x"', "\\", "\\\\", "\\n", "\\$", "a\\", "\\'", '\\"',
    "%", "%h", "%%", "%s",
    "=", "a=b", "a=b=c", "{", "}", "{}", "{x",
    "{host}", "{port}", "{release}", "!", "!!", "~", "*", "?", "[a]", ":@/", "user:p@ss/w:rd@host", "postgres://u:p%40@h/d", "\t",
    "tab\there", "äöü", "日本語", "🚢", "\u202eabc", "é", "\u00a0", "null", "true", "~", "0x1f", "1e3", "2026-11-22", "-", "--help", "- a", "a: b", "&a", "*a",
    "|", ">", "@a", "A" * 1024,
]  # fmt: skip

#: What Ansible takes for a template of the inventory, or the contract refuses on one line.
LINES = [
    "{{7*7}}", "{{ lookup('pipe', 'touch /tmp/pwned') }}", "{% raw %}", "{# #}", "two\nlines", "ends\n", "\n", "\r", "a\rb", "a\r\nb",
    f"x\n$(touch {CANARY})\n", f"'\ntouch {CANARY}\n'", f'"\ntouch {CANARY}\n"', f"x\\\ntouch {CANARY}", f"'; \\! touch {CANARY}\n",
    f"');\nCOPY (SELECT 1) TO PROGRAM 'touch {CANARY}'; --", f"E'\\'; COPY (SELECT 1) TO PROGRAM 'touch {CANARY}'; --", "$$; DROP TABLE x; $$",
    "[section]", "key=value", ";", "#!/bin/sh", "\x01\x1b[31m\x7f", "\x0b\x0c", "\ufeffx", "a\u2028b", "a\u0085b", ":name", ":'name'", ':"name"',
    "on nopass ~* +@all", "\\x41", "\\u0041", "\\101", "${anchorage}", "%%n%n%n", "EOF\n", "<<EOF",
]  # fmt: skip

ALPHABET = "$\\\"'`#%{}()[]<>|&;:@/=~!*?, \tabcXYZ019äß🚢"
TEMPLATES = ("{{", "{%", "{#")


def made(count: int) -> list[str]:
    """Return values that nobody thought of. The seed is fixed, so that a failure comes again; none looks like a template."""
    dice = random.Random(3)
    endless = ("".join(dice.choices(ALPHABET, k=dice.randrange(1, 40))) for _endless in itertools.count())
    return [*itertools.islice((text for text in endless if not any(mark in text for mark in TEMPLATES)), count)]


def contract_values() -> dict[str, str]:
    """Return values by variable that a contract may hold: on one line, and no template, which is Ansible's before the contract sees it."""
    return {f"V{number:03}": value for number, value in enumerate([*PLAIN, *made(240)])}


def all_values() -> dict[str, str]:
    """Return these and what only a sink can be given."""
    return {f"v{number:03}": value for number, value in enumerate([*PLAIN, *LINES, *made(240)])}
