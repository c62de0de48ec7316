# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knock at TCP ports of a host; exactly three may answer. Ports: 1 to 1024 and those that are given."""

import asyncio
import socket
import sys

EXPECTED = [22, 80, 443]


async def knock(host, port, gate, found):
    async with gate:
        try:
            _reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 3)
        except (OSError, asyncio.TimeoutError):
            return
        found.append(port)
        writer.close()


async def main(host, ports):
    gate, found = asyncio.Semaphore(300), []
    await asyncio.gather(*(knock(host, port, gate, found) for port in ports))
    return sorted(found)


ports = sorted({*range(1, 1025), *(int(port) for port in sys.argv[2:])})
open_ports = asyncio.run(main(socket.gethostbyname(sys.argv[1]), ports))
print(f"{len(ports)} asked, open from outside: {open_ports}")
sys.exit(0 if open_ports == EXPECTED else 1)
