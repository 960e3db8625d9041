"""A TCP relay on loopback that stands between two servers of a test, and is what a network may be: slow, away, or without an answer."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

_CHUNK = 65_536


class Relay:
    """Passes connections on to a port; one request a connection, as PHP's servers and clients make them."""

    def __init__(self) -> None:
        self.to = 0
        """The port of the server behind it."""
        self.delay = 0.0
        """Seconds that each connection takes longer."""
        self.is_open = True
        """Nobody gets through otherwise: connections are closed."""
        self.loses: re.Pattern[bytes] | None = None
        """Requests that begin so are served, and their answers lost."""
        self.lost = 0
        """How many answers were."""
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"relay": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def relaying() -> Generator[Relay]:
    """A relay, until the block ends."""
    relay = Relay()
    thread = threading.Thread(target=relay.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield relay
    finally:
        relay.server.shutdown()
        thread.join()
        relay.server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class _Handler(BaseRequestHandler):
    relay: Relay
    request: socket.socket

    def handle(self) -> None:
        relay = self.relay
        # Either side may leave when it likes.
        with suppress(OSError):
            first = self.request.recv(_CHUNK) if relay.is_open else b""
            if not first:
                return
            is_lost = relay.loses is not None and relay.loses.match(first) is not None
            time.sleep(relay.delay)
            with socket.create_connection(("127.0.0.1", relay.to)) as behind:
                behind.sendall(first)
                threading.Thread(target=_pass_on, args=(self.request, behind), daemon=True).start()
                if is_lost:
                    behind.recv(1)
                    relay.lost += 1
                else:
                    _pass_on(behind, self.request)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
