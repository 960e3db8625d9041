"""A TCP relay on loopback between two servers of a test, which behaves as a network may: slow, down, or losing answers."""

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
    """Forwards connections to a port; one request per connection, as PHP's servers and clients make them."""

    def __init__(self) -> None:
        self.to = 0
        """The port it forwards to."""
        self.delay = 0.0
        """Seconds of latency added to each connection."""
        self.is_open = True
        """While False, connections are closed."""
        self.loses: re.Pattern[bytes] | None = None
        """Requests that match are served, and their answers are lost."""
        self.lost = 0
        """The number of answers lost."""
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
        # Either side may close the connection at any time.
        with suppress(OSError):
            first = self.request.recv(_CHUNK) if relay.is_open else b""
            if not first:
                return
            is_lost = relay.loses is not None and relay.loses.match(first) is not None
            time.sleep(relay.delay)
            with socket.create_connection(("127.0.0.1", relay.to)) as server:
                server.sendall(first)
                threading.Thread(target=_forward, args=(self.request, server), daemon=True).start()
                if is_lost:
                    server.recv(1)
                    relay.lost += 1
                else:
                    _forward(server, self.request)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
