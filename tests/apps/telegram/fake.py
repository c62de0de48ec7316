# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Telegram for one bot: long polling as the real one does it, where of two pollers with one token the older gets 409. Standard library only.

It takes any token of the real form and keeps each token's pollers, updates and answers apart. What it has seen is read, and what users write is
put in, below C(/control), without a token:

  GET  /control/status                 all of it as JSON
  POST /control/send                   {"text": "/start", "chat_id": 7, "token": "..."}; of all tokens that have polled where none is given
  POST /control/reset                  forgets what was counted
"""

from __future__ import annotations

import argparse
import collections
import http.server
import json
import re
import socket
import threading
import time
import typing as t
import urllib.parse

Data = dict[str, t.Any]

PATH = re.compile(r"/bot(?P<token>\d+:[\w-]+)/(?P<method>\w+)\Z")
CONFLICT = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"

#: How long the real one may be asked to wait.
LONGEST_POLL = 50

#: Polls that are remembered.
KEPT = 2000

#: Seconds between two looks at whether the poller is still there.
LOOK = 0.1


class Poll(t.NamedTuple):
    """One open request for news."""

    number: int
    who: str
    gone: t.Callable[[], bool]


class Bot:
    """What Telegram knows of one token."""

    def __init__(self) -> None:
        self.updates: list[Data] = []
        self.next_update = 1
        self.open: Poll | None = None
        self.polls = 0
        self.conflicts = 0
        self.overlaps = 0
        self.sent: list[Data] = []
        self.seen: collections.deque[Data] = collections.deque(maxlen=KEPT)

    def status(self) -> Data:
        """Return it as plain data."""
        return {
            "polls": self.polls,
            "open": self.open.who if self.open else None,
            "conflicts": self.conflicts,
            "overlaps": self.overlaps,
            "waiting": len(self.updates),
            "sent": self.sent,
            "seen": list(self.seen),
            "who": list(dict.fromkeys(entry["who"] for entry in self.seen)),
        }


class Telegram:
    """All bots, behind one lock."""

    def __init__(self, clock: t.Callable[[], float] = time.time) -> None:
        self.bots: dict[str, Bot] = {}
        self.changed = threading.Condition()
        self.clock = clock

    def bot(self, token: str) -> Bot:
        """Return what is known of a token; the caller holds the lock."""
        return self.bots.setdefault(token, Bot())

    def status(self) -> Data:
        """Return everything as plain data; of a token only its number, since the rest is a secret."""
        with self.changed:
            bots = {token.partition(":")[0]: bot.status() for token, bot in self.bots.items()}
        return {"bots": bots, **{key: sum(bot[key] for bot in bots.values()) for key in ("polls", "conflicts", "overlaps")}}

    def send(self, text: str, chat: int, token: str | None) -> int:
        """Let a user write to bots. Returns to how many."""
        with self.changed:
            found = [self.bot(token)] if token else list(self.bots.values())
            for bot in found:
                message = {"message_id": bot.next_update, "date": int(self.clock()), "chat": {"id": chat, "type": "private"}, "text": text}
                bot.updates.append({"update_id": bot.next_update, "message": message})
                bot.next_update += 1
            self.changed.notify_all()
        return len(found)

    def reset(self) -> None:
        """Forget what was counted; open polls stay open."""
        with self.changed:
            for bot in self.bots.values():
                bot.polls = bot.conflicts = bot.overlaps = 0
                bot.sent.clear()
                bot.seen.clear()

    def poll(self, token: str, who: str, offset: int, timeout: float, gone: t.Callable[[], bool]) -> list[Data] | None:
        """Wait for news. Returns None for the poller that another one has driven out.

        :arg gone: tells whether the poller has hung up.
        """
        with self.changed:
            bot = self.bot(token)
            bot.polls += 1
            mine = Poll(bot.polls, who, gone)
            entry: Data = {"at": self.clock(), "who": who, "end": None}
            bot.seen.append(entry)
            # Who has hung up is no second poller.
            bot.overlaps += bot.open is not None and not bot.open.gone()
            bot.open = mine
            self.changed.notify_all()
            end = time.monotonic() + min(max(timeout, 0), LONGEST_POLL)
            bot.updates = [update for update in bot.updates if update["update_id"] >= offset]
            while bot.open is mine and not bot.updates and time.monotonic() < end and not gone():
                self.changed.wait(LOOK)
            entry["seconds"] = round(self.clock() - entry["at"], 3)
            if bot.open is not mine:
                entry["end"] = "gone" if gone() else "conflict"
                bot.conflicts += entry["end"] == "conflict"
                return None
            bot.open = None
            entry["end"] = "gone" if gone() else "news" if bot.updates else "nothing"
            return list(bot.updates)

    def answer(self, token: str, who: str, words: Data) -> Data:
        """Take a message of a bot."""
        with self.changed:
            bot = self.bot(token)
            bot.sent.append({"at": self.clock(), "who": who, "chat_id": words.get("chat_id"), "text": words.get("text")})
            number = len(bot.sent)
        return {"message_id": number, "date": int(self.clock()), "chat": {"id": words.get("chat_id"), "type": "private"}, "text": words.get("text")}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Telegram takes GET and POST for every method."""
        self._serve()

    def do_POST(self) -> None:
        """See do_GET."""
        self._serve()

    def log_message(self, *_words: t.Any) -> None:
        """The address holds the token, so nothing is logged."""

    def _serve(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        words = {**dict(urllib.parse.parse_qsl(parts.query)), **self._body()}
        if parts.path.startswith("/control/"):
            return self._control(parts.path.removeprefix("/control/"), words)
        found = PATH.match(parts.path)
        if found is None:
            return self._error(404, "Not Found")
        who = self.headers.get("X-Release") or self.headers.get("User-Agent") or ""
        return self._method(found["method"], found["token"], who, words)

    def _method(self, method: str, token: str, who: str, words: Data) -> None:
        telegram = self.server.telegram
        if method == "getUpdates":
            news = telegram.poll(token, who, int(words.get("offset") or 0), float(words.get("timeout") or 0), self._gone)
            return self._error(409, CONFLICT) if news is None else self._result(news)
        if method == "sendMessage":
            return self._result(telegram.answer(token, who, words))
        if method == "getMe":
            return self._result({"id": int(token.partition(":")[0]), "is_bot": True, "first_name": "Club", "username": "club_bot"})
        return self._error(404, "Not Found: method not found")

    def _control(self, what: str, words: Data) -> None:
        telegram = self.server.telegram
        if what == "status":
            return self._json(200, telegram.status())
        if what == "send":
            return self._json(200, {"bots": telegram.send(str(words.get("text") or "/start"), int(words.get("chat_id") or 7), words.get("token"))})
        if what == "reset":
            telegram.reset()
            return self._json(200, {})
        return self._json(404, {"error": "there are status, send and reset"})

    def _body(self) -> Data:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not raw:
            return {}
        if "json" in (self.headers.get("Content-Type") or ""):
            return t.cast("Data", json.loads(raw))
        return dict(urllib.parse.parse_qsl(raw.decode()))

    def _gone(self) -> bool:
        """Tell whether the other side has hung up: then there is an end to be read."""
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _result(self, result: t.Any) -> None:
        self._json(200, {"ok": True, "result": result})

    def _error(self, code: int, description: str) -> None:
        self._json(code, {"ok": False, "error_code": code, "description": description})

    def _json(self, code: int, value: t.Any) -> None:
        raw = json.dumps(value).encode()
        try:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    """A thread for each poller."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], telegram: Telegram) -> None:
        super().__init__(address, Handler)
        self.telegram = telegram


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    given = parser.parse_args()
    Server((given.listen, given.port), Telegram()).serve_forever()
