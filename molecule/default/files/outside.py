# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Use the shop as its customers and its owner do, through TLS."""

import http.client
import json
import os
import ssl
import time

PORTS = json.loads(os.environ["VERIFY_PORTS"])
NAME = "shop.localhost"
CONTEXT = ssl.create_default_context(cafile=os.environ["VERIFY_ROOT"])


class Connection(http.client.HTTPSConnection):
    """Speaks to the published port, and means the shop."""

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = CONTEXT.wrap_socket(self.sock, server_hostname=NAME)


def ask(method, path, body=None, token=None):
    connection = Connection("127.0.0.1", int(PORTS["443"]), timeout=30)
    headers = {"Host": NAME, "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    return answer.status, answer.headers, text


def redirects():
    connection = http.client.HTTPConnection("127.0.0.1", int(PORTS["80"]), timeout=30)
    connection.request("GET", "/store/products?a=b", headers={"Host": NAME})
    answer = connection.getresponse()
    assert answer.status in (301, 308), answer.status
    assert answer.getheader("Location") == f"https://{NAME}/store/products?a=b", answer.getheader("Location")


def serves():
    status, headers, text = ask("GET", "/health")
    assert (status, text) == (200, "OK"), (status, text)
    assert headers["Strict-Transport-Security"], "HSTS is missing"
    status, headers, text = ask("GET", "/app")
    assert status == 200 and "<html" in text.lower(), status


def logs_in():
    login = {"email": "admin@example.com", "password": os.environ["VERIFY_PASSWORD"]}
    status, _headers, text = ask("POST", "/auth/user/emailpass", login)
    assert status == 200, (status, text[:200])
    token = json.loads(text)["token"]
    status, headers, text = ask("POST", "/auth/session", {}, token)
    cookie = headers.get("Set-Cookie") or ""
    assert status == 200 and "connect.sid" in cookie and "secure" in cookie.lower(), (status, cookie.partition("=")[0])
    status, _headers, text = ask("GET", "/admin/users/me", token=token)
    assert status == 200 and json.loads(text)["user"]["email"] == login["email"], status


def uploads():
    login = {"email": "admin@example.com", "password": os.environ["VERIFY_PASSWORD"]}
    token = json.loads(ask("POST", "/auth/user/emailpass", login)[2])["token"]
    part = b'--xyz\r\nContent-Disposition: form-data; name="files"; filename="proof.txt"\r\nContent-Type: text/plain\r\n\r\nkept\r\n--xyz--\r\n'
    connection = Connection("127.0.0.1", int(PORTS["443"]), timeout=30)
    headers = {"Host": NAME, "Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=xyz"}
    connection.request("POST", "/admin/uploads", part, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status == 200, (answer.status, text[:200])
    path = "/static/" + json.loads(text)["files"][0]["url"].rsplit("/static/", 1)[1]
    status, _headers, text = ask("GET", path)
    assert (status, text) == (200, "kept"), (status, text[:200])


def works():
    status, _headers, text = ask("POST", "/ops/pulses", {})
    assert status == 202, status
    token = json.loads(text)["token"]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        answer = json.loads(ask("GET", f"/ops/pulses?token={token}")[2])
        # The two are two queries: a beat that came between them is counted and not listed yet.
        if answer["count"] and answer["beats"]:
            assert answer["beats"][0]["worker_mode"] == "worker", answer["beats"][0]
            return
        time.sleep(0.5)
    raise AssertionError("no worker took the event within 60 s")


for check in (redirects, serves, logs_in, uploads, works):
    check()
    print(f"{check.__name__}: ok")
