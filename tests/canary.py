# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks for secrets where they do not belong, in every notation that something on the way may have given them.

It shares nothing with the engine's masking, which is among what it judges.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import shlex
import typing as t
import urllib.parse

#: Below this, a piece of a secret may stand somewhere by chance.
SHORTEST = 10

#: Shell: prints files that hold one of the patterns on standard input. The trees are given by whoever calls it.
GREP = "cd / && {runner} env LC_ALL=C grep -rlaF -f - --devices=skip {excluded} -- {trees} 2>/dev/null || true"


def forms(secret: str) -> dict[str, str]:
    """Return the notations of a secret by their names. A piece of letters and digits is the same in most; base64 and hexadecimal have none of it."""
    raw = secret.encode()
    quoted = urllib.parse.quote(secret, safe="")
    found = {
        "raw": secret,
        "URL": quoted,
        "URL in small letters": re.sub("%..", lambda code: code[0].lower(), quoted),
        "path of a URL": urllib.parse.quote(secret),
        "form": urllib.parse.quote_plus(secret),
        "JSON": json.dumps(secret)[1:-1],
        "JSON with letters": json.dumps(secret, ensure_ascii=False)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(secret))[3:-3],
        "SQL": secret.replace("'", "''"),
        "SQL with backslashes": secret.replace("\\", "\\\\").replace("'", "''"),
        "shell": shlex.quote(secret)[1:-1] if shlex.quote(secret) != secret else secret,
        "Compose": secret.replace("$", "$$"),
        "unit": secret.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"),
        "HTML": html.escape(secret),
        "Python": repr(secret)[1:-1],
        "hexadecimal": raw.hex(),
        "hexadecimal in capitals": raw.hex().upper(),
    }
    for before in range(3):
        # What the base64 of any text that holds the secret has in common; the first and the last character hold bits of what is around it.
        text = base64.b64encode(b"\0" * before + raw).decode()
        common = text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        found[f"base64 at {before}"] = common
        found[f"base64 for URLs at {before}"] = common.replace("+", "-").replace("/", "_")
    pieces = [piece for piece in re.findall("[A-Za-z0-9]+", secret) if len(piece) >= SHORTEST]
    found |= {f"piece {number}": piece for number, piece in enumerate(pieces, 1) if piece != secret}
    return {name: text for name, text in found.items() if len(text) >= SHORTEST}


class Canaries:
    """Secrets that are looked for.

    :arg secrets: their values, by name; each long enough to stand nowhere by chance, and on one line.
    """

    def __init__(self, secrets: t.Mapping[str, str]) -> None:
        for name, secret in secrets.items():
            assert len(secret) >= 2 * SHORTEST and "\n" not in secret, f"{name} is no canary"
        self.needles: dict[str, str] = {}
        for name, secret in secrets.items():
            for form, text in forms(secret).items():
                self.needles.setdefault(text, f"{name} ({form})")

    def text(self, text: str) -> list[str]:
        """Return which secrets stand in a text, and in which notation."""
        return [label for needle, label in self.needles.items() if needle in text]

    def texts(self, places: t.Mapping[str, str]) -> list[str]:
        """Return what was found in which of many texts."""
        return [f"{label} in {place}" for place, text in places.items() for label in self.text(text)]

    def files(self, shell: t.Callable[..., str], trees: t.Iterable[str], *, excluded: t.Iterable[str] = (), runner: str = "") -> dict[str, list[str]]:
        """Return the files that hold a secret, and what they hold.

        :arg shell: runs a shell script that gets C(given) on its standard input, and returns what it printed.
        :arg excluded: names of directories that are passed over.
        :arg runner: a command that the search is run by, such as one that makes it somebody else's.
        """
        patterns = "\n".join(self.needles)
        leave = " ".join(f"--exclude-dir={shlex.quote(name)}" for name in excluded)
        listed = shell(GREP.format(runner=runner, excluded=leave, trees=" ".join(map(shlex.quote, trees))), given=patterns).splitlines()
        found = {}
        for path in listed:
            seen = shell(f"LC_ALL=C grep -oaF -f - -- {shlex.quote(path)} || true", given=patterns).splitlines()
            found[path] = sorted({self.needles.get(text, "something") for text in seen})
        return found


#: Runs on a host as root until it is stopped, and writes down each command line, each environment with its owner, and what systemd tells everybody.
SAMPLER = r"""
import os, pathlib, subprocess, sys, time
place = pathlib.Path(sys.argv[1])
place.mkdir(mode=0o700, exist_ok=True)
seen, own, shown = set(), os.getpid(), 0.0
streams = {kind: open(place / kind, "ab", buffering=0) for kind in ("commands", "environments", "units")}
def keep(kind, data):
    if data and (kind, data) not in seen:
        seen.add((kind, data))
        streams[kind].write(data.replace(b"\0", b"\n") + b"\n")
(place / "ready").touch()
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == own:
            continue
        try:
            keep("commands", pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
            owner = os.stat(f"/proc/{pid}").st_uid
            keep("environments", b"uid %d\0" % owner + pathlib.Path(f"/proc/{pid}/environ").read_bytes())
        except OSError:
            pass
    if len(sys.argv) > 2 and time.monotonic() > shown + 0.7:
        shown = time.monotonic()
        told = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "systemctl", "show", *sys.argv[2:]]
        keep("units", subprocess.run(told, capture_output=True).stdout)
    time.sleep(0.01)
"""


def environments(text: str) -> dict[int, str]:
    """Return what the sampler saw of environments, by the owner of the process."""
    found: dict[int, list[str]] = {}
    for part in re.split(r"^uid (?=\d+$)", text, flags=re.MULTILINE)[1:]:
        owner, _end, rest = part.partition("\n")
        found.setdefault(int(owner), []).append(rest)
    return {owner: "\n".join(itertools.chain(parts)) for owner, parts in found.items()}
