# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the tests of health: a clock that jumps, a /proc made of a dictionary, and an HTTP server that misbehaves."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
import typing as t

from ansible_collections.anchorage.vps.plugins.module_utils.world import Completed


class FakeWorld:
    """A world whose time passes only when somebody sleeps and whose files and links are dictionaries."""

    def __init__(
        self,
        files: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
        commands: t.Callable[..., Completed] | None = None,
    ) -> None:
        self.clock = 1000.0
        self.slept: list[float] = []
        self.files = files or {}
        self.links = links or {}
        self.commands = commands
        self.ran: list[dict[str, t.Any]] = []

    def now(self) -> float:
        return 1_700_000_000 + self.clock

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock += seconds

    def run(self, argv, *, input=None, env=None, timeout=None, cwd=None, user=None) -> Completed:
        call = {"argv": list(argv), "input": input, "env": env, "timeout": timeout, "cwd": cwd, "user": user}
        self.ran.append(call)
        return self.commands(call) if self.commands else Completed(127, "", "no such command")

    def read(self, path: str) -> bytes | None:
        text = self.files.get(path)
        return None if text is None else text.encode()

    def size(self, path: str) -> int:
        return len(self.read(path) or b"")

    def read_part(self, path: str, offset: int, limit: int) -> bytes:
        return (self.read(path) or b"")[offset : offset + limit]

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.links

    def listdir(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return sorted({name[len(prefix) :].split("/")[0] for name in [*self.files, *self.links] if name.startswith(prefix)})

    def readlink(self, path: str) -> str | None:
        return self.links.get(path)

    def process(self, pid: int, *, parent: int = 1, uid: int = 1000, cwd: str = "/", environ: dict[str, str] | None = None, **more: t.Any) -> None:
        """Add a process; ``sockets`` are inodes, ``cgroup`` its path, ``command`` its command line."""
        base = f"/proc/{pid}"
        self.files[f"{base}/status"] = f"Name:\tnode\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        self.files[f"{base}/environ"] = "\0".join(f"{key}={value}" for key, value in (environ or {}).items()) + "\0"
        self.files[f"{base}/cmdline"] = more.get("command", "node\0server.js")
        self.files[f"{base}/cgroup"] = f"0::{more.get('cgroup', '/system.slice/pm2-shop.service')}\n"
        self.links[f"{base}/cwd"] = cwd
        for index, inode in enumerate(more.get("sockets", ())):
            self.links[f"{base}/fd/{index + 3}"] = f"socket:[{inode}]"

    def listen(self, *sockets: tuple[str, int, int]) -> None:
        """Write /proc/net/tcp and tcp6 with listening sockets (address, port, inode)."""
        head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        tables = {"tcp": head, "tcp6": head}
        for address, port, inode in sockets:
            six = ":" in address
            raw = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, address)
            text = "".join(f"{struct.unpack('<I', raw[index : index + 4])[0]:08X}" for index in range(0, len(raw), 4))
            line = f"   0: {text}:{port:04X} {'0' * len(text)}:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0\n"
            tables["tcp6" if six else "tcp"] += line
        self.files.update({f"/proc/net/{name}": table for name, table in tables.items()})


# ---- a server that misbehaves ----------------------------------------------------------------------------------------

Behaviour = t.Callable[["Call"], None]


class Call:
    """One connection to the stub, its request already read."""

    def __init__(self, sock: socket.socket, request: bytes, number: int, stop: threading.Event) -> None:
        self.sock = sock
        self.request = request.decode("latin-1")
        self.number = number
        self.stop = stop

    @property
    def path(self) -> str:
        return self.request.split(" ")[1]

    def send(self, text: str | bytes) -> None:
        self.sock.sendall(text.encode() if isinstance(text, str) else text)

    def answer(self, status: str = "200 OK", body: str = "OK", *headers: str, kind: str = "text/html; charset=utf-8") -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}", *headers]
        self.send("\r\n".join([*lines, "", body]))

    def hang(self) -> None:
        self.stop.wait(30)


class Stub:
    """A server on a free port that treats every connection as its behaviour says."""

    def __init__(self, behaviour: Behaviour, *, family: int = socket.AF_INET, tls: tuple[str, str] | None = None, path: str | None = None) -> None:
        self.behaviour = behaviour
        self.stop = threading.Event()
        self.calls: list[str] = []
        self.listener = socket.socket(socket.AF_UNIX if path else family, socket.SOCK_STREAM)
        if not path:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(path or ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.listener.listen(64)
        self.port = 0 if path else self.listener.getsockname()[1]
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str = "/health", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.context else 'http'}://{host}:{self.port}{path}"

    def _accept(self) -> None:
        while not self.stop.is_set():
            try:
                sock, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request and request[:1] != b"\x16":  # what TLS begins with
                part = sock.recv(65536)
                if not part:
                    return
                request += part
            head, _end, body = request.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: *([0-9]+)", head.lower())
            while length and len(body) < int(length.group(1)):
                body += sock.recv(65536)
                request = head + b"\r\n\r\n" + body
            self.calls.append(request.decode("latin-1"))
            self.behaviour(Call(sock, request, len(self.calls), self.stop))
        with contextlib.suppress(OSError):
            sock.close()

    def close(self) -> None:
        self.stop.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def fine(call: Call) -> None:
    call.answer()


def flapping(call: Call) -> None:
    call.answer("200 OK" if call.number % 2 else "503 Service Unavailable")


def slow_headers(call: Call) -> None:
    for char in "HTTP/1.1 200 OK\r\n":
        call.send(char)
        if call.stop.wait(0.2):
            return


def slow_body(call: Call) -> None:
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not call.stop.wait(0.1):
        call.send("x")


def slow_chunks(call: Call) -> None:
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not call.stop.wait(0.1):
        call.send("1\r\nx\r\n")


def hang_after_headers(call: Call) -> None:
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    call.hang()


def hang_at_once(call: Call) -> None:
    call.hang()


def endless_body(call: Call) -> None:
    call.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while not call.stop.is_set():
        call.send(b"y" * 65536)


def huge_body(call: Call) -> None:
    call.send(f"HTTP/1.1 200 OK\r\nContent-Length: {2 * 1024**3}\r\n\r\n")
    for _index in range(2 * 1024):
        call.send(b"z" * 1024**2)


def json_error(call: Call) -> None:
    call.answer(body='{"status": "ok", "database": "error"}', kind="application/json")


def json_truncated(call: Call) -> None:
    call.send('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"status": "o')


def default_site(call: Call) -> None:
    call.answer(body="<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head></html>", kind="text/html")


def redirect_loop(call: Call) -> None:
    call.answer("301 Moved Permanently", "", f"Location: {'/b' if call.path == '/a' else '/a'}")


def redirect_to_itself(call: Call) -> None:
    call.answer("302 Found", "", f"Location: {call.path}")


def redirect_away(call: Call) -> None:
    call.answer("302 Found", "", "Location: http://evil.example.net/health")


def redirect_home(call: Call) -> None:
    if call.path == "/new":
        call.answer()
    else:
        call.answer("301 Moved Permanently", "", "Location: /new")


def unavailable(call: Call) -> None:
    call.answer("503 Service Unavailable", "down for repair")


def close_without_answer(call: Call) -> None:
    return


def reset(call: Call) -> None:
    call.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    call.sock.close()


def not_http(call: Call) -> None:
    call.send("-ERR unknown command\r\n")


def http_1_0(call: Call) -> None:
    call.send("HTTP/1.0 200 OK\r\n\r\nOK")


def keeps_alive(call: Call) -> None:
    call.answer()
    call.hang()


def many_headers(call: Call) -> None:
    call.send("HTTP/1.1 200 OK\r\n" + "".join(f"X-{index}: {'v' * 100}\r\n" for index in range(500)) + "\r\n")


class FakeRedis:
    """Answers each command by a table; the key is its first word."""

    def __init__(self, answers, chunk=65536):
        self.answers = answers
        self.chunk = chunk
        self.seen = []
        self.stop = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _address = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with contextlib.suppress(OSError, ValueError), sock, sock.makefile("rb") as stream:
            while True:
                words = [stream.read(int(stream.readline()[1:]) + 2)[:-2].decode() for _index in range(int(stream.readline()[1:]))]
                self.seen.append(words)
                reply = self.answers.get(words[0], "+OK\r\n")
                if reply is None:
                    self.stop.wait(20)
                if not reply:
                    return
                for index in range(0, len(reply), self.chunk):
                    sock.sendall(reply[index : index + self.chunk].encode())

    def close(self):
        self.stop.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Authority:
    """A CA made for one test run, and the certificates it signs, made with the openssl program."""

    def __init__(self, directory: str, name: str) -> None:
        self.base = os.path.join(directory, name)
        self.certificate = f"{self.base}.pem"
        self._openssl("req", "-x509", *self._key(self.base), "-out", self.certificate, "-subj", f"/CN={name}", "-days", "2")

    @staticmethod
    def _openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], check=True, capture_output=True)

    @staticmethod
    def _key(base: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{base}.key"]

    def issue(self, name: str, days: int = 2, *more: str) -> tuple[str, str]:
        """Return the paths of a certificate for one or more names, and of its key."""
        base = f"{self.base}-{posixpath.basename(name)}-{days}"
        with open(f"{base}.ext", "w", encoding="utf-8") as stream:
            names = ",".join([f"DNS:{each}" for each in (name, *more)] + (["IP:127.0.0.1"] if name == "localhost" else []))
            stream.write(f"subjectAltName={names}\n")
        self._openssl("req", *self._key(base), "-out", f"{base}.csr", "-subj", f"/CN={name}")
        signer = ["-CA", self.certificate, "-CAkey", f"{self.base}.key", "-CAcreateserial", "-days", str(days), "-extfile", f"{base}.ext"]
        self._openssl("x509", "-req", "-in", f"{base}.csr", *signer, "-out", f"{base}.pem")
        return f"{base}.pem", f"{base}.key"


@contextlib.contextmanager
def within(seconds: float) -> t.Iterator[None]:
    """Fail when the block takes longer."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took < seconds, f"took {took:.2f} s, at most {seconds} s were allowed"


def has_ipv6():
    """Tell whether this machine has an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
