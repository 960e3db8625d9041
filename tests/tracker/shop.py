"""A small shop on loopback: pages with the tracker, its REST route, and a gateway that asks before it lets a browser in."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCRIPT = "/wp-content/plugins/pmp-analytics/assets/shop.js"
ROUTE = "/wp-json/pmp/v1/notes"
TOKENS = "/wp-json/pmp/v1/pass"
BATCH = "/api/v1/events/batch"
ASK_SCRIPT = "/wp-content/plugins/pmp-analytics/assets/ask.js"
CHOICES = "/wp-json/pmp/v1/choices"
ASK = {
    "script": ASK_SCRIPT,
    "route": CHOICES,
    "title": "Your privacy choices",
    "text": "We <b>count</b> visits.",
    "yes": "Accept, and thank you",
    "no": "Decline",
    "policy": {"url": "/privacy", "text": "Privacy policy"},
}
"""What asks for consent."""

_ASSETS = Path(__file__).parents[2] / "wordpress" / "pmp-analytics" / "assets"
_SERVED = {SCRIPT: _ASSETS / "shop.js", ASK_SCRIPT: _ASSETS / "ask.js"}
_PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>{path}</title>
<script type="application/json" id="pmp-settings">{settings}</script><script type="module" src="{script}?ver=1"></script></head>
<body style="min-height: 4000px"><main data-pmp-page="{path}"><a id="pricing" href="/pricing">Pricing</a>
<button id="hero" data-pmp-click="hero">Start</button>
<form id="lead" action="/thanks"><input type="email" id="lead-email" name="email"><button id="send">Send</button></form></main>
{banner}</body></html>"""
_BANNER = """<aside data-pmp-banner hidden><button id="yes" data-pmp-consent="granted">Yes</button>
<button data-pmp-consent="denied">No</button></aside>"""

Event = dict[str, Any]


@dataclass
class Shop:
    """The shop's pages, and the events it received."""

    settings: dict[str, Any]
    received: list[Event] = field(default_factory=list[Event])
    """Every event of every accepted request, as often as it came."""
    bodies: list[bytes] = field(default_factory=list[bytes])
    choices: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """What visitors answered when they were asked for their consent."""
    has_banner: bool = True
    """The theme brings a banner of its own."""
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Method and path of every request."""
    posted_at: list[float] = field(default_factory=list[float])
    """When something was posted, by the monotonic clock."""
    pages: dict[str, set[bytes]] = field(default_factory=dict[str, set[bytes]])
    """Every body that a path was served with."""
    status: int = 200
    """What the route answers; `retry-after` comes with 429."""
    token: str = "a-token"
    """What a browser gets for the gateway."""
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens, as a host that browsers trust as they trust TLS."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def plain_url(self) -> str:
        """The same, as a host without TLS: no Web Locks, no randomUUID. The browser has to map it."""
        return f"http://shop.example:{self.port}"

    def types(self) -> Counter[str]:
        """Number of received events of each type."""
        return Counter(event["event_type"] for event in self.received)

    def only(self, event_type: str) -> list[Event]:
        """The events of one type."""
        return [event for event in self.received if event["event_type"] == event_type]

    def posts(self) -> list[str]:
        """Paths that were posted to."""
        return [path for method, path in self.asked if method == "POST"]


@contextmanager
def opened(settings: dict[str, Any]) -> Generator[Shop]:
    """A shop that is open until the block ends."""
    shop = Shop(settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"shop": shop}))
    shop.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    shop: Shop

    def do_GET(self) -> None:
        self._note()
        path = self.path.partition("?")[0]
        if path in _SERVED:
            self._answer(200, "text/javascript", _SERVED[path].read_bytes())
        elif path == "/favicon.ico":
            self._answer(204, "image/png", b"")
        else:
            page = _PAGE.format(
                path=path, settings=json.dumps(self.shop.settings), script=SCRIPT, banner=_BANNER if self.shop.has_banner else ""
            ).encode()
            self.shop.pages.setdefault(path, set()).add(page)
            self._answer(200, "text/html; charset=utf-8", page)

    def do_OPTIONS(self) -> None:
        self._note()
        self._answer(204, "text/plain", b"")

    def do_POST(self) -> None:
        self._note()
        self.shop.posted_at.append(time.monotonic())
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        if self.path == TOKENS:
            self._json(200, {"token": self.shop.token, "expires_in": 600})
            return
        if self.path == CHOICES:
            self.shop.choices.append(json.loads(body))
            self._json(202, {"success": True})
            return
        wanted = {ROUTE: "text/plain", BATCH: "application/json"}[self.path]
        allowed = self.path == ROUTE or (self.headers["x-api-key"], self.headers["authorization"]) == (
            "browser-key",
            f"Bearer {self.shop.token}",
        )
        if not allowed or not self.headers["content-type"].startswith(wanted):
            self._json(401, {"code": 16, "message": "who is that?", "details": []})
        elif self.shop.status != 200:
            self._json(self.shop.status, {"code": 14, "message": "not now", "details": []})
        else:
            events = json.loads(body)["events"]
            self.shop.bodies.append(body)
            self.shop.received.extend(events)
            results = [{"success": True, "event_id": event["id"]} for event in events]
            self._json(200, {"success": True, "accepted": len(events), "rejected": 0, "results": results})

    def _note(self) -> None:
        self.shop.asked.append((self.command, self.path))

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(answer).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        if status == 429:
            self.send_header("retry-after", "3")
        self.send_header("access-control-allow-origin", self.headers["origin"] or "*")
        self.send_header("access-control-allow-headers", "x-api-key, authorization, content-type")
        self.send_header("access-control-expose-headers", "retry-after")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the standard library)
        """Says nothing: what was asked is in the shop."""
