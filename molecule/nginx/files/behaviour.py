# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sites of the nginx scenario must do, asked of the real server on the host that runs this.

Prints one JSON object: each behaviour with null or what was wrong, and the figures of the load. Backends are started and ended here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback

FLAG = "/var/lib/anchorage/slots/shop/green"
ACCESS_LOG = "/var/log/nginx/access.log"
WEBHOOK_LOG = "/var/log/nginx/shop-webhooks.log"
LOAD_REQUESTS = int(os.environ.get("LOAD_REQUESTS", "20000"))
FIGURES: dict[str, str] = {}
SECURITY_HEADERS = (
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
)


class Backend(http.server.BaseHTTPRequestHandler):
    """Says what arrived, answers 404 under /missing, speaks websocket, and forgets to answer where it is told to."""

    protocol_version = "HTTP/1.1"
    label = "?"
    seen: list[str] = []
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_arguments):
        """Stay silent."""

    def answer(self):
        """Answer any request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Backend.seen.append(f"{self.label} {self.command} {self.path}")
        if self.headers.get("Upgrade") == "websocket":
            return self.websocket()
        if self.path.startswith("/swallow") and self.label == "first":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        told = {"label": self.label, "path": self.path, "length": len(body), "headers": {k.lower(): v for k, v in self.headers.items()}}
        data = json.dumps(told).encode()
        self.send_response(404 if self.path.startswith("/missing") else 200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Powered-By", "Express")
        if self.path.startswith("/own-header"):
            self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()
        return None

    def websocket(self):
        """Accept the upgrade and send one frame back."""
        digest = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.wfile.flush()
        self.wfile.write(b"\x81" + bytes([len(received := self.rfile.read(9)[-3:])]) + received)
        self.wfile.flush()
        self.close_connection = True

    do_GET = do_POST = do_HEAD = do_PUT = answer


class Server(http.server.ThreadingHTTPServer):
    """A backend that takes many connections at once."""

    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Stay silent about connections that end early: Ansible mixes what is printed with the verdicts."""


def start_backend(label, port):
    """Serve a backend in this process."""
    handler = type("Labelled", (Backend,), {"label": label})
    server = Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def run_backend(label, port):
    """Serve a backend in a process of its own, for load."""
    Server(("127.0.0.1", port), type("Labelled", (Backend,), {"label": label})).serve_forever()


def tls_context():
    """Return a client context that looks at no name: certificates are the certbot scenario's business."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(host, port=443, context=None):
    """Return a connection to 127.0.0.1 that asks for a host by SNI."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return (context or tls_context()).wrap_socket(plain, server_hostname=host) if port == 443 else plain


class Client(http.client.HTTPConnection):
    """An HTTP client whose socket is already connected."""

    def __init__(self, host, port=443):
        super().__init__(host, port, timeout=30)
        self.sock = connect(host, port)


def ask(host, path, method="GET", *, body=None, headers=None, port=443):
    """Return status, headers and body of one request."""
    client = Client(host, port)
    with contextlib.closing(client):
        client.request(method, path, body=body, headers={"Host": host, **(headers or {})})
        reply = client.getresponse()
        return reply.status, reply.headers, reply.read()


def expect(condition, text):
    """Fail with a sentence."""
    if not condition:
        raise AssertionError(text)


def burst(path, count=60):
    """Return the replies to requests that all leave at the same moment, over connections that stand already."""
    clients = [Client("shop.test") for attempt in range(count)]
    replies = []

    def send(client):
        gate.wait()
        client.request("GET", path, headers={"Host": "shop.test"})
        reply = client.getresponse()
        reply.read()
        replies.append((reply.status, reply.headers))
        client.close()

    gate = threading.Barrier(count)
    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def limited_path_gets_429():
    """Sixty quick requests: the burst passes, the rest is refused with 429 and told when to come back."""
    replies = burst("/store/products")
    expect(len(replies) == 60, f"{len(replies)} of 60 answered")
    refused = [reply for reply in replies if reply[0] == 429]
    expect({reply[0] for reply in replies} == {200, 429}, f"statuses {sorted({reply[0] for reply in replies})}")
    expect(20 <= len(refused) <= 39, f"{len(refused)} of 60 refused")
    expect(refused[0][1]["Retry-After"] == "1", "429 without Retry-After")


def exempt_paths_are_not_limited():
    """Health, admin assets, webhooks and paths outside the limit answer as often as they are asked."""
    for path in ("/health", "/store/assets/app.js", "/hooks/payment", "/app/index"):
        statuses = [reply[0] for reply in burst(path)]
        expect(statuses == [200] * 60, f"{path}: {statuses.count(200)} of 60")


def health_leaves_no_log_line():
    """The access log knows other paths and not the health path."""
    ask("shop.test", "/logged-path")
    ask("shop.test", "/health")
    time.sleep(0.3)
    with open(ACCESS_LOG, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    expect("/logged-path" in text, "the access log lacks an ordinary request")
    expect("GET /health" not in text, "the access log has health checks")


def webhooks_have_their_own_log():
    """A webhook's request is in the webhook log and not in the common one."""
    ask("shop.test", "/hooks/own-log", "POST", body=b"{}")
    time.sleep(0.3)
    with open(WEBHOOK_LOG, encoding="utf-8") as stream:
        expect("POST /hooks/own-log" in stream.read(), "not in the webhook log")
    with open(ACCESS_LOG, encoding="utf-8", errors="replace") as stream:
        expect("/hooks/own-log" not in stream.read(), "in the common log too")


def headers_on_every_status():
    """200, 404, 413, 429, 502 and 308 carry the security headers once each."""
    replies = {
        200: ask("shop.test", "/ok"),
        404: ask("shop.test", "/missing"),
        413: ask("shop.test", "/upload", "POST", body=b"x" * (6 << 20)),
        502: ask("dead.test", "/"),
    }
    replies.update({reply[0]: reply for reply in burst("/auth/session") if reply[0] == 429})
    for status in (200, 404, 413, 429, 502):
        expect(status in replies and replies[status][0] == status, f"no {status}: {replies.get(status, ['?'])[0]}")
        for name in SECURITY_HEADERS:
            values = replies[status][1].get_all(name) or []
            expect(len(values) == 1, f"{name} on {status}: {values}")
    expect(replies[502][1]["Strict-Transport-Security"] == "max-age=63072000", "HSTS")
    expect(replies[200][1]["X-Frame-Options"] == "DENY", "the site's own header does not win")
    expect(replies[200][1]["Content-Security-Policy"] == "default-src 'self'", "the site's additional header is absent")
    for status in replies:
        expect("X-XSS-Protection" not in replies[status][1], "X-XSS-Protection")
        expect("X-Powered-By" not in replies[status][1], "X-Powered-By")
        expect(replies[status][1]["Server"] == "nginx", replies[status][1]["Server"])
    redirect = ask("shop.test", "/", port=80)
    expect(redirect[1]["X-Content-Type-Options"] == "nosniff", "no headers on the redirect")
    expect("Strict-Transport-Security" not in redirect[1], "HSTS over plain http")
    own = ask("shop.test", "/own-header")[1].get_all("Referrer-Policy")
    expect(own == ["no-referrer"], f"the application's own header: {own}")


def client_address_cannot_be_spoofed():
    """Whatever the client claims, the application sees the address that it really has."""
    lies = ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP", "X-Cluster-Client-IP")
    more = {"Forwarded": "for=6.6.6.6", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.test", "Proxy": "http://6.6.6.6"}
    seen = json.loads(ask("shop.test", "/echo", headers={**dict.fromkeys(lies, "6.6.6.6"), **more})[2])["headers"]
    expect("6.6.6.6" not in json.dumps(seen) and "evil.test" not in json.dumps(seen), f"a lie came through: {seen}")
    expect(seen["x-forwarded-for"] == "127.0.0.1" and seen["x-real-ip"] == "127.0.0.1", str(seen))
    expect(seen["x-forwarded-proto"] == "https" and seen["host"] == "shop.test", str(seen))


def ordinary_requests_close_and_do_not_upgrade():
    """Only a websocket is upgraded; h2c smuggling and ordinary requests are not."""
    seen = json.loads(ask("shop.test", "/echo", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"})[2])["headers"]
    expect("upgrade" not in seen and seen["connection"] == "close", str(seen))


def websocket_passes():
    """The handshake and one frame in each direction pass."""
    with connect("shop.test") as stream:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET /socket HTTP/1.1", "Host: shop.test", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        stream.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(4096)
        expect(b" 101 " in head.splitlines()[0], head.decode())
        stream.sendall(b"\x81\x83" + bytes(4) + b"hey")
        frame = head.partition(b"\r\n\r\n")[2]
        while len(frame) < 5:
            frame += stream.recv(16)
        expect(frame == b"\x81\x03hey", repr(frame))


def uploads_have_their_limits():
    """2 MB pass, 6 MB do not where 5 are allowed, and a webhook may send 12."""
    status, _headers, body = ask("shop.test", "/upload", "POST", body=b"x" * (2 << 20))
    expect((status, json.loads(body)["length"]) == (200, 2 << 20), f"2 MB: {status}")
    expect(ask("shop.test", "/hooks/big", "POST", body=b"x" * (12 << 20))[0] == 200, "12 MB webhook")


def http_redirects_to_https():
    """Port 80 redirects with path and query, and keeps the method."""
    status, headers, _body = ask("shop.test", "/a/b?c=d", "POST", port=80)
    expect((status, headers["Location"]) == (308, "https://shop.test/a/b?c=d"), f"{status} {headers['Location']}")


def challenges_are_served_over_http():
    """The ACME directory is served on port 80 for each site."""
    path = "/.well-known/acme-challenge/probe"
    os.makedirs(f"/var/www/acme{os.path.dirname(path)}", exist_ok=True)
    with open(f"/var/www/acme{path}", "w", encoding="ascii") as stream:
        stream.write("proof")
    for host in ("shop.test", "front.test"):
        expect(ask(host, path, port=80)[2] == b"proof", host)
    os.unlink(f"/var/www/acme{path}")


def unknown_names_are_refused():
    """No answer on port 80, no handshake on 443, 421 for another name inside a handshake."""
    with connect("x", 80) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            expect(stream.recv(100) == b"", "port 80 answered")
    try:
        connect("unknown.test").close()
    except ssl.SSLError as error:
        expect("UNRECOGNIZED_NAME" in str(error).upper(), str(error))
    else:
        raise AssertionError("the handshake for an unknown name succeeded")
    expect(ask("shop.test", "/", headers={"Host": "unknown.test"})[0] == 421, "another Host in the handshake")


def old_tls_is_refused():
    """TLS 1.1 is refused by the server; 1.2 uses an AEAD suite with ECDHE; 1.3 and HTTP/2 are spoken."""
    old = tls_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        connect("shop.test", context=old).close()
    except ssl.SSLError as error:
        expect("PROTOCOL_VERSION" in str(error).upper(), f"refused by the client, not by the server: {error}")
    else:
        raise AssertionError("TLS 1.1 was accepted")
    middle = tls_context()
    middle.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect("shop.test", context=middle) as stream:
        name = stream.cipher()[0]
        expect(name.startswith("ECDHE-") and ("GCM" in name or "CHACHA20" in name), name)
    weak = tls_context()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:AES128-SHA:@SECLEVEL=0")
    try:
        connect("shop.test", context=weak).close()
    except ssl.SSLError:
        pass
    else:
        raise AssertionError("a CBC suite was accepted")
    new = tls_context()
    new.set_alpn_protocols(["h2", "http/1.1"])
    with connect("shop.test", context=new) as stream:
        expect((stream.version(), stream.selected_alpn_protocol()) == ("TLSv1.3", "h2"), f"{stream.version()} {stream.selected_alpn_protocol()}")


def static_site_has_fallback_and_caching():
    """Deep links get the index, hashed assets a year, absent assets 404, hidden files nothing."""
    status, headers, body = ask("front.test", "/deep/link")
    expect((status, body, headers["Cache-Control"]) == (200, b"<p>index</p>", "no-cache"), f"{status} {headers['Cache-Control']}")
    expect(headers["X-Content-Type-Options"] == "nosniff", "a location lost the headers")
    status, headers, _body = ask("front.test", "/assets/app-1a2b.js")
    expect((status, headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable"), str(headers["Cache-Control"]))
    expect(headers["X-Content-Type-Options"] == "nosniff", "assets lost the headers")
    expect(ask("front.test", "/assets/absent.js")[0] == 404, "an absent asset")
    expect(ask("front.test", "/.env")[0] == 404, "/.env")
    expect(ask("front.test", "/.git/config")[0] == 404, "/.git/config")


def plain_site_speaks_http():
    """A site without TLS serves over port 80, and its application hears so."""
    status, headers, body = ask("plain.test", "/echo", port=80)
    expect((status, json.loads(body)["headers"]["x-forwarded-proto"]) == (200, "http"), body.decode())
    expect("Strict-Transport-Security" not in headers, "HSTS over plain http")


def another_host_is_asked_where_one_has_nothing_that_answers():
    """A host whose application is gone says 502 at its edge, and visitors do not see it."""
    statuses = [ask("crew.test", "/", port=80)[0] for _attempt in range(20)]
    expect(statuses == [200] * 20, f"statuses {statuses}")


def an_edge_believes_its_proxy():
    """Through two proxies the application is told of the visitor, of one scheme and of one id; what the visitor claims, neither believes."""
    claimed = {"X-Real-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Request-Id": "0" * 32}
    # The proxy comes to the edges from the host's own address, and the visitor from loopback.
    told = json.loads(ask("crew.test", "/two-hops", headers=claimed, port=80)[2])["headers"]
    expect(told["x-real-ip"] == "127.0.0.1" and told["x-forwarded-for"] == "127.0.0.1", f"the client is {told['x-real-ip']}, {told['x-forwarded-for']}")
    expect(told["x-forwarded-proto"] == "http", f"the scheme is {told['x-forwarded-proto']}")
    expect(told["host"] == "crew.test", f"the host is {told['host']}")
    time.sleep(0.3)
    with open(ACCESS_LOG, encoding="utf-8", errors="replace") as stream:
        lines = [line for line in stream if "/two-hops" in line]
    expect(len(lines) >= 2 and all(told["x-request-id"] in line for line in lines), f"the id {told['x-request-id']} is not in {lines}")


def a_post_is_never_repeated():
    """A server that took a POST and died gives 502; the next server is not asked. One that refuses is passed over."""
    Backend.seen.clear()
    statuses = [ask("pair.test", "/swallow/once", "POST", body=b"pay")[0] for attempt in range(6)]
    posts = [entry for entry in Backend.seen if "POST /swallow" in entry]
    expect(len(posts) == 6, f"6 POSTs arrived {len(posts)} times: {posts}")
    expect(502 in statuses and 200 in statuses, f"statuses {statuses}")
    expect([ask("pair.test", "/swallow/read")[0] for attempt in range(6)] == [200] * 6, "GETs are not repeated")
    expect([ask("half.test", "/pay", "POST", body=b"pay")[0] for attempt in range(10)] == [200] * 10, "a refused connection is not passed over")


def load(number, count, results):
    """Send requests over one connection at a time and report what failed."""
    failed: list[str] = []
    labels: dict[str, int] = {}
    client = None
    for index in range(count):
        try:
            if client is None:
                client = Client("shop.test")
            method, body = ("POST", b"x" * 100) if index % 2 else ("GET", None)
            client.request(method, f"/load/{number}/{index}", body=body, headers={"Host": "shop.test"})
            reply = client.getresponse()
            data = reply.read()
            if reply.status != 200:
                failed.append(f"{method} {reply.status}")
            else:
                label = json.loads(data)["label"]
                labels[label] = labels.get(label, 0) + 1
            if reply.getheader("Connection") == "close" or index % 200 == 199:
                client.close()
                client = None
        except (OSError, http.client.HTTPException) as error:
            failed.append(repr(error))
            client = None
    results.put((failed, labels))


def switching_loses_no_request():
    """The flag file turns the traffic under load, without a reload and without a failed request."""
    backends = [multiprocessing.Process(target=run_backend, args=pair, daemon=True) for pair in (("blue", 9000), ("green", 9002))]
    for process in backends:
        process.start()
    time.sleep(0.5)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(FLAG)
    expect(json.loads(ask("shop.test", "/who")[2])["label"] == "blue", "blue does not serve without the flag")
    master = subprocess.run(["pgrep", "-P", "1", "nginx"], capture_output=True, text=True, check=False).stdout
    workers = subprocess.run(["pgrep", "-P", master.strip(), "nginx"], capture_output=True, text=True, check=False).stdout
    results: multiprocessing.Queue = multiprocessing.Queue()
    clients = [multiprocessing.Process(target=load, args=(number, LOAD_REQUESTS // 4, results)) for number in range(4)]
    started = time.monotonic()
    for process in clients:
        process.start()
    switches = 0
    while any(process.is_alive() for process in clients) and results.qsize() < 4:
        if switches % 2:
            os.unlink(FLAG)
        else:
            open(FLAG, "w", encoding="ascii").close()
        label = json.loads(ask("shop.test", "/who")[2])["label"]
        expect(label == ("blue" if switches % 2 else "green"), "the flag did not turn the traffic at once")
        switches += 1
        time.sleep(0.2)
    answers = [results.get() for process in clients]
    seconds = time.monotonic() - started
    with contextlib.suppress(FileNotFoundError):
        os.unlink(FLAG)
    failed = [text for part, _labels in answers for text in part]
    labels = {label: sum(part.get(label, 0) for _failed, part in answers) for label in ("blue", "green")}
    FIGURES["load"] = f"{LOAD_REQUESTS} requests, {switches} switches, {seconds:.1f} s, {labels}, failed {len(failed)}"
    for process in backends:
        process.terminate()
        process.join()
    expect(not failed, f"{len(failed)} failed: {failed[:5]}")
    expect(switches >= 10 and min(labels.values()) > LOAD_REQUESTS / 20, f"{switches} switches, {labels}")
    after = subprocess.run(["pgrep", "-P", master.strip(), "nginx"], capture_output=True, text=True, check=False).stdout
    expect(workers and after == workers, "the workers changed: nginx was reloaded")


def a_body_that_comes_slowly_reaches_the_slot_of_its_end():
    """A POST that began before the switch and ends when the old processes are gone is answered by the new ones, once and whole."""
    backends = {label: multiprocessing.Process(target=run_backend, args=(label, port), daemon=True) for label, port in (("blue", 9000), ("green", 9002))}
    with contextlib.suppress(FileNotFoundError):
        os.unlink(FLAG)
    try:
        for process in backends.values():
            process.start()
        time.sleep(0.5)
        client = connect("shop.test")
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 4000\r\n\r\n" + b"x" * 2000)
        time.sleep(0.5)
        open(FLAG, "w", encoding="ascii").close()
        backends["blue"].kill()
        backends["blue"].join()
        client.sendall(b"x" * 2000)
        reply = b"".join(iter(lambda: client.recv(65536), b""))
    finally:
        for process in backends.values():
            process.kill()
            process.join()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(FLAG)
    head, _end, body = reply.partition(b"\r\n\r\n")
    expect(head.startswith(b"HTTP/1.1 200"), head.decode("latin-1")[:60])
    told = json.loads(body)
    expect((told["label"], told["length"]) == ("green", 4000), f"{told['label']} got {told['length']} bytes")


#: What needs backends that are processes of their own.
ALONE = (switching_loses_no_request, a_body_that_comes_slowly_reaches_the_slot_of_its_end)
BEHAVIOURS = (
    limited_path_gets_429,
    exempt_paths_are_not_limited,
    health_leaves_no_log_line,
    webhooks_have_their_own_log,
    headers_on_every_status,
    client_address_cannot_be_spoofed,
    ordinary_requests_close_and_do_not_upgrade,
    websocket_passes,
    uploads_have_their_limits,
    http_redirects_to_https,
    challenges_are_served_over_http,
    unknown_names_are_refused,
    old_tls_is_refused,
    static_site_has_fallback_and_caching,
    plain_site_speaks_http,
    another_host_is_asked_where_one_has_nothing_that_answers,
    an_edge_believes_its_proxy,
    a_post_is_never_repeated,
)


def main():
    """Run every behaviour and print the verdicts."""
    threading.excepthook = lambda _arguments: None
    os.makedirs("/srv/front/assets", exist_ok=True)
    for name, text in {"index.html": "<p>index</p>", "assets/app-1a2b.js": "1", ".env": "SECRET=1"}.items():
        with open(f"/srv/front/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
    # First the load, whose backends are processes; then the others, whose backends live in threads here.
    verdicts = {}
    for number, behaviour in enumerate((*ALONE, *BEHAVIOURS)):
        if number == len(ALONE):
            for label, port in (("blue", 9000), ("green", 9002), ("first", 9011), ("second", 9012)):
                start_backend(label, port)
        try:
            behaviour()
            verdicts[behaviour.__name__] = None
        except AssertionError as error:
            verdicts[behaviour.__name__] = str(error)
        except Exception:  # pylint: disable=broad-exception-caught
            verdicts[behaviour.__name__] = traceback.format_exc()[-800:]
    print(json.dumps({"behaviours": verdicts, **FIGURES}, indent=1))
    sys.exit(1 if any(verdicts.values()) else 0)


if __name__ == "__main__":
    main()
