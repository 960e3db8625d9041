"""A vendor's API as a local double: a server on loopback that answers as the real one does, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from typing_extensions import override


class Request(NamedTuple):
    """A request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: Any
    """The JSON of its body; None without one."""


class Reply(NamedTuple):
    """An answer. A text is sent as it is, anything else as JSON."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}


@dataclass
class Vendor(ABC):
    """What all doubles have in common."""

    url: str = ""
    requests: list[Request] = field(default_factory=list[Request])
    """Those that were answered, in order."""
    next_replies: list[Reply] = field(default_factory=list[Reply])
    """Answers to the next requests, whatever these ask for."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """Answers a request; one at a time."""

    def sent(self, method: str, path: str) -> list[Any]:
        """Returns the bodies of requests whose path ends like this."""
        return [each.body for each in self.requests if each.method == method and each.path.endswith(path)]

    def take(self, request: Request) -> Reply:
        """Keeps a request, and answers it."""
        with self.lock:
            self.requests.append(request)
            return self.next_replies.pop(0) if self.next_replies else self.answer(request)


@dataclass
class Unchanging(Vendor):
    """A system that gives every request the same answer."""

    status: int = 200

    @override
    def answer(self, request: Request) -> Reply:
        return Reply(self.status)


@contextmanager
def serving(vendor: Vendor) -> Generator[None]:
    """Listens on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            url = urlsplit(self.path)
            content = self.rfile.read(int(self.headers["content-length"] or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(content) if content else None
            reply = vendor.take(Request(self.command, unquote(url.path), dict(parse_qsl(url.query)), headers, body))
            text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body) if reply.body is not None else ""
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 (names of the standard library)

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        vendor.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()
