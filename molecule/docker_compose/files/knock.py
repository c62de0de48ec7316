# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print which of the given addresses (HOST:PORT) answer."""

import concurrent.futures
import socket
import sys


def answers(address: str) -> bool:
    """Try one."""
    host, _colon, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


with concurrent.futures.ThreadPoolExecutor() as pool:
    print(*[address for address, open_ in zip(sys.argv[1:], pool.map(answers, sys.argv[1:])) if open_])
