# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outside world of a lab, as its hosts see it: one more container that is called `world`."""

from __future__ import annotations

import json
import pathlib

from . import engine

NAME = "world"
ASK = """
import json, ssl, sys, time, urllib.request
url, body, attempts = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile="/etc/pebble/tls.crt") if url.startswith("https") else None
for attempt in range(attempts):
    try:
        with urllib.request.urlopen(url, data=body.encode() if body else None, timeout=5, context=context) as answer:
            sys.stdout.write(answer.read().decode())
        break
    except OSError as error:
        if attempt == attempts - 1:
            sys.exit(f"{url}: {error}")
        time.sleep(0.2)
"""


def parse_record(text: str) -> tuple[str, str]:
    """Read NAME=HOST; the name `*` is the answer to every other question."""
    name, equals, host = text.partition("=")
    if not (name and equals and host):
        raise ValueError(f"{text!r} is not NAME=HOST")
    return name, host


def requests(records: dict[str, str], addresses: dict[str, str]) -> list[tuple[str, dict]]:
    """Say what the name server has to be told: (path, body) for each record."""
    told = []
    for name, host in records.items():
        if name == "*":
            told.append(("set-default-ipv4", {"ip": addresses[host]}))
        else:
            told.append(("clear-a", {"host": f"{name}."}))
            told.append(("add-a", {"host": f"{name}.", "addresses": [addresses[host]]}))
    return told


def ask(container: str, url: str, body: dict | None = None) -> str:
    """Send one request from inside the world."""
    question = json.dumps([url, json.dumps(body) if body else "", 50])
    return engine.docker("exec", container, "python3", "-I", "-c", ASK, question)


def prepare(container: str, records: dict[str, str], addresses: dict[str, str], directory: pathlib.Path) -> dict:
    """Tell the name server its records, fetch the authority's certificates, return the hosts' variables."""
    for path, body in requests(records, addresses):
        ask(container, f"http://localhost:8055/{path}", body)
    root = ask(container, "https://localhost:15000/roots/0")
    directory_ca = engine.docker("exec", container, "cat", "/etc/pebble/tls.crt")
    (directory / "acme-root.pem").write_text(root)
    (directory / "acme-directory-ca.pem").write_text(directory_ca)
    return {
        "lab_acme_directory": f"https://{NAME}:14000/dir",
        "lab_acme_ca_pem": directory_ca,
        "lab_acme_root_pem": root,
        "lab_acme_root_file": str(directory / "acme-root.pem"),
        "lab_archive_url": f"http://{NAME}",
        "lab_world_container": container,
    }
