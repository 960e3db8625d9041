"""Another system next to the mesh: receives webhooks, and stores the signed ones."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError
from typing_extensions import override

SECRET = "whsec_c2hhcmVkIGJ5IHRoZSBtZXNoIGFuZCBhbm90aGVyIHN5c3RlbQ=="


@dataclass
class Receiver:
    """The webhooks it received."""

    url: str
    status: int = 200
    """Status of the answer to signed webhooks; 401 to all others."""
    ids: list[str] = field(default_factory=list[str])
    received: list[Any] = field(default_factory=list[Any])
    secret: str = SECRET


@contextmanager
def receiving() -> Generator[Receiver]:
    """Listens on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.status
            try:
                receiver.received.append(Webhook(receiver.secret).verify(body, dict(self.headers)))
                receiver.ids.append(self.headers["webhook-id"])
            except WebhookVerificationError:
                status = 401
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/forget")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()
