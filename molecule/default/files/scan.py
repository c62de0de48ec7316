# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knock at every TCP port of a host; exactly three may answer."""

import asyncio
import socket
import sys

EXPECTED = [22, 80, 443]


async def knock(host, port, gate, found):
    async with gate:
        try:
            _reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1)
        except (OSError, asyncio.TimeoutError):
            return
        found.append(port)
        writer.close()


async def main(host):
    gate, found = asyncio.Semaphore(4000), []
    await asyncio.gather(*(knock(host, port, gate, found) for port in range(1, 65536)))
    return sorted(found)


open_ports = asyncio.run(main(socket.gethostbyname(sys.argv[1])))
print(f"open from outside: {open_ports}")
sys.exit(0 if open_ports == EXPECTED else 1)
