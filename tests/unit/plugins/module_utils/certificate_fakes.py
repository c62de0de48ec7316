# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with certbot and Nginx that lives in memory."""

from __future__ import annotations

import json
import ssl
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils.certificates import TlsWorld
from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed

NOW = 1_800_000_000.0
DAY = 86400.0


def pem(serial: str, names: t.Sequence[str], *, issuer: str = "CN=Test CA", left: float = 90, life: float = 90) -> bytes:
    """Return what stands for a certificate: a PEM block around a description that the fake openssl reads."""
    fields = {"serial": serial, "names": list(names), "issuer": issuer, "before": NOW + (left - life) * DAY, "after": NOW + left * DAY}
    return ssl.DER_cert_to_PEM_cert(json.dumps(fields).encode()).encode()


def key_of(chain: bytes) -> bytes:
    """Return the key that belongs to a chain."""
    return b"key of " + chain


def fields_of(chain: str | bytes) -> dict[str, t.Any]:
    """Return the description inside a chain."""
    text = chain if isinstance(chain, str) else chain.decode()
    return json.loads(ssl.PEM_cert_to_DER_cert(text))


def date(seconds: float) -> str:
    """Return a time as openssl prints it."""
    import time

    return time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(seconds))


class FakeWorld(TlsWorld):
    """Files, commands and a web server in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.commands: list[list[str]] = []
        self.environments: list[t.Mapping[str, str] | None] = []
        self.presented: dict[str, bytes] = {}
        self.authority: t.Callable[[list[str]], Completed] = self.issue
        self.nginx_error = ""
        self.nginx_serves = True
        self.active = True
        self.missing: set[str] = set()
        self.clock = 0.0
        self.issued = 0

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def resolve(self, path: str) -> str:
        for link, target in self.links.items():
            if path.startswith(link + "/"):
                return f"{link.rpartition('/')[0]}/{target}{path[len(link) :]}"
        return path

    def read(self, path: str) -> bytes | None:
        return self.files.get(self.resolve(path))

    def exists(self, path: str) -> bool:
        return self.resolve(path) in self.files

    def write_atomic(self, path: str, data: bytes, *, mode: int, uid: int | None = None, gid: int | None = None) -> None:
        self.files[path] = data

    def make_directory(self, path: str, *, mode: int) -> None:
        pass

    def private_directory(self, parent: str) -> str:
        return f"{parent}/.private-x"

    def replace_link(self, path: str, target: str) -> None:
        self.links[path] = target

    def listdir(self, path: str) -> list[str]:
        return sorted({name[len(path) + 1 :].split("/")[0] for name in self.files if name.startswith(path + "/")})

    def remove_tree(self, path: str) -> None:
        self.files = {name: data for name, data in self.files.items() if not name.startswith(path + "/")}

    def served(self, name: str, *, address: str, port: int) -> bytes | None:
        return self.presented.get(name)

    def lineage(self, name: str, chain: bytes, *, server: str = "https://acme.test/dir", authenticator: str = "webroot") -> None:
        """Put a lineage on the disk as certbot does."""
        self.files[f"/etc/letsencrypt/live/{name}/fullchain.pem"] = chain
        self.files[f"/etc/letsencrypt/live/{name}/privkey.pem"] = key_of(chain)
        renewal = f"# comment\nversion = 4.0\n[renewalparams]\nauthenticator = {authenticator}\nserver = {server}\n[[webroot_map]]\nx = /var/www/acme\n"
        self.files[f"/etc/letsencrypt/renewal/{name}.conf"] = renewal.encode()

    def issue(self, argv: list[str]) -> Completed:
        """Issue what is asked for."""
        self.issued += 1
        names = [argv[index + 1] for index, word in enumerate(argv) if word == "-d"]
        option = dict(zip(argv, argv[1:]))
        if "--dry-run" not in argv:
            method = "webroot" if "--webroot" in argv else "manual"
            self.lineage(option["--cert-name"], pem(f"N{self.issued}", names), server=option["--server"], authenticator=method)
        return Completed(0, "", "")

    def run(self, argv: t.Sequence[str], **options: t.Any) -> Completed:
        command = list(argv)
        self.commands.append(command)
        self.environments.append(options.get("env"))
        if command[0] in self.missing:
            return Completed(127, "", f"{command[0]}: No such file or directory")
        given = options.get("input") or ""
        if command[:2] == ["openssl", "x509"] and "-pubkey" in command:
            return Completed(0, f"public {given}", "") if "CERTIFICATE" in given else Completed(1, "", "unable to load certificate")
        if command[:2] == ["openssl", "pkey"]:
            return Completed(0, given.replace("key of", "public", 1), "") if given.startswith("key of") else Completed(1, "", "no key")
        if command[:2] == ["openssl", "x509"]:
            return self.describe(given)
        if command[:2] == ["openssl", "req"]:
            option = dict(zip(command, command[1:]))
            config = (self.files[option["-config"]]).decode()
            names = [part.replace("DNS:", "").strip() for part in config.split("subjectAltName = ")[1].splitlines()[0].split(",")]
            chain = pem("B1", names, issuer="CN=anchorage bootstrap")
            self.files[option["-out"]], self.files[option["-keyout"]] = chain, key_of(chain)
        if command[:2] == ["certbot", "certonly"]:
            return self.authority(command)
        if command[0] == "nginx":
            return Completed(1 if self.nginx_error else 0, "", self.nginx_error)
        if command[:2] == ["systemctl", "is-active"]:
            return Completed(0 if self.active else 3, "", "")
        if command[:2] == ["systemctl", "reload"] and self.nginx_serves:
            self.load()
        return Completed(0, "", "")

    def load(self) -> None:
        """Let Nginx present what its files hold."""
        for link in list(self.links):
            chain = self.read(f"{link}/fullchain.pem")
            if chain:
                for name in fields_of(chain)["names"]:
                    self.presented[name.replace("*.", "anchorage-probe.")] = ssl.PEM_cert_to_DER_cert(chain.decode())

    @staticmethod
    def describe(given: str) -> Completed:
        try:
            fields = fields_of(given)
        except ValueError:
            return Completed(1, "", "unable to load certificate")
        subject = fields["issuer"] if "bootstrap" in fields["issuer"] else "CN=" + fields["names"][0]
        lines = [f"serial={fields['serial']}", f"subject={subject}", f"issuer={fields['issuer']}"]
        lines += [f"notBefore={date(fields['before'])}", f"notAfter={date(fields['after'])}"]
        lines += ["X509v3 Subject Alternative Name: ", "    " + ", ".join(f"DNS:{name}" for name in fields["names"])]
        return Completed(0, "\n".join(lines), "")
