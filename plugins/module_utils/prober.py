# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a site through its proxy for as long as a step runs, so that whoever deploys knows what customers saw meanwhile."""

from __future__ import annotations

import threading
import time
import typing as t
import urllib.parse

from . import hold
from .http_probe import ProbeError, Target, fetch

#: Seconds between two requests.
INTERVAL = 0.2

#: Seconds after which a request counts as not answered.
PATIENCE = 10.0

#: Seconds that the end waits longer than the request in hand may take.
LAST_ANSWER = 5.0


def target(document: dict[str, t.Any]) -> Target | None:
    """Return what is asked: the health check of the public process at the site's own address; None where an app has no site."""
    public = next((process for process in document["processes"] if process["public"]), None)
    url = document.get("url")
    if not url or public is None or not document.get("proxy_address"):
        return None
    scheme = urllib.parse.urlsplit(url).scheme
    address, port = document["proxy_address"], 443 if scheme == "https" else 80
    if document.get("edge"):
        # What the others serve meanwhile says nothing of this host.
        address, port, url = document["edge"]["address"], document["edge"]["port"], f"http{url[len(scheme) :]}"
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    path = (public.get("health") or {}).get("path") or "/"
    # Whether the certificate is good is for verify.yml to say; here every answer counts.
    patience = PATIENCE + (hold.seconds(document) if hold.wanted(document) else 0)
    return Target(f"{url}{path}", timeout_seconds=patience, connect_to=place, validate_certs=False)


class Prober:
    """One watch over one site.

    :arg target: what is asked; nothing where there is None.
    """

    def __init__(self, asked: Target | None) -> None:
        self.target = asked
        self.requests = self.failed = 0
        self.longest = 0.0
        self.first_failure = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)

    def __enter__(self) -> Prober:
        if self.target:
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self.target:
            self._thread.join(timeout=self.target.timeout_seconds + LAST_ANSWER)

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            self.ask()
            self._stop.wait(INTERVAL)

    def ask(self) -> None:
        """Ask once and write down what came."""
        began = time.monotonic()
        try:
            status = fetch(t.cast(Target, self.target)).status
            problem = f"status {status}" if status >= 500 else ""
        except ProbeError as error:
            problem = error.message
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        self.requests += 1
        self.longest = max(self.longest, time.monotonic() - began)
        if problem:
            self.failed += 1
            self.first_failure = self.first_failure or problem

    def figures(self) -> dict[str, t.Any]:
        """Return what was seen: C(requests), C(failed), C(longest_seconds), C(first_failure)."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "longest_seconds": round(self.longest, 3),
            "first_failure": self.first_failure or None,
        }

    def summary(self) -> str:
        """Say it in one line."""
        said = f"the site was asked {self.requests} times meanwhile: {self.failed} failed, the longest answer took {self.longest:.2f} s"
        return f"{said}; first: {self.first_failure}" if self.failed else said
