# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package cache for the lab's hosts: a proxy that keeps what never changes (packages, indexes by their digest).

Runs alone inside a container; standard library only.
"""

from __future__ import annotations

import hashlib
import http.client
import http.server
import os
import pathlib
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request

STORE = pathlib.Path("/var/cache/anchorage-lab")
PORT = 3142
PASSED = ("Content-Type", "Last-Modified", "ETag", "Content-Length")
ASKED = ("If-Modified-Since", "User-Agent", "Range", "If-Range", "Cache-Control")
locks: dict[str, threading.Lock] = {}
guard = threading.Lock()


def is_immutable(url: str) -> bool:
    """Say whether a URL names content that cannot change under its name."""
    path = urllib.parse.urlsplit(url).path
    return path.endswith((".deb", ".udeb")) or "/by-hash/SHA256/" in path


def lock_of(url: str) -> threading.Lock:
    """One lock for each URL, so that two hosts fetch it once."""
    with guard:
        return locks.setdefault(url, threading.Lock())


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answer absolute-URI GET requests, from the store where it can."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):  # pylint: disable=redefined-builtin
        """Stay quiet: apt tells what it fetched."""

    def do_GET(self):
        """Serve one request."""
        if not self.path.startswith("http://"):
            self.send_error(400, "this is a proxy for http URLs")
        elif is_immutable(self.path):
            self.from_store(self.path)
        else:
            self.from_upstream(self.path)

    def from_store(self, url):
        """Serve a kept file, fetched first where it is missing."""
        kept = STORE / hashlib.sha256(url.encode()).hexdigest()
        with lock_of(url):
            if not kept.exists():
                try:
                    with urllib.request.urlopen(url, timeout=60) as answer:
                        fresh = kept.with_suffix(".part")
                        with fresh.open("wb") as target:
                            shutil.copyfileobj(answer, target)
                        expected = answer.headers.get("Content-Length")
                        if expected and int(expected) != fresh.stat().st_size:
                            raise http.client.IncompleteRead(b"")
                        os.replace(fresh, kept)
                except urllib.error.HTTPError as error:
                    self.send_error(error.code)
                    return
                except (OSError, http.client.HTTPException):
                    self.send_error(502)
                    return
        self.send_response(200)
        self.send_header("Content-Length", str(kept.stat().st_size))
        self.end_headers()
        with kept.open("rb") as source:
            shutil.copyfileobj(source, self.wfile)

    def from_upstream(self, url):
        """Pass a request on and its answer back."""
        headers = {name: self.headers[name] for name in ASKED if self.headers[name]}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, http.client.HTTPException):
            self.send_error(502)
            return
        with answer:
            length = answer.headers.get("Content-Length")
            body = b"" if answer.status == 304 else None if length else answer.read()
            self.send_response(answer.status)
            for name in PASSED:
                if answer.headers[name] and not (name == "Content-Length" and body is not None):
                    self.send_header(name, answer.headers[name])
            if body is not None:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if body is None:
                shutil.copyfileobj(answer, self.wfile)
            else:
                self.wfile.write(body)


if __name__ == "__main__":
    STORE.mkdir(parents=True, exist_ok=True)
    http.server.ThreadingHTTPServer(("", PORT), Proxy).serve_forever()
