from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from cli.books import fetch_books
from cli.calls import call, connect
from cli.credentials import Credentials
from cli.errors import CommandFailed
from tests.servers import free_port

Answer = tuple[int, dict[str, str], bytes]
NONE: dict[str, str] = {}


@contextmanager
def answering(*answers: Answer) -> Generator[Credentials]:
    """A server that gives these answers, one after the other."""

    todo = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = next(todo)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Credentials(f"http://127.0.0.1:{server.server_port}", "key", "token")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_refusal_for_the_moment_is_repeated_when_it_says_so() -> None:
    with answering((429, {"retry-after": "1"}, b""), (503, NONE, b""), (200, NONE, b"{}")) as mesh:
        started = time.monotonic()
        async with connect() as client:
            answer = await call(client, mesh, "/", patience=20)
    assert (answer.response.status_code, answer.attempts) == (200, 3)
    assert time.monotonic() - started >= 1


async def test_a_refusal_for_good_is_answered_at_once() -> None:
    with answering((400, NONE, b"{}")) as mesh:
        async with connect() as client:
            answer = await call(client, mesh, "/", patience=20)
    assert (answer.response.status_code, answer.attempts) == (400, 1)


async def test_a_gateway_that_stays_away_is_reported() -> None:
    nobody = Credentials(f"http://127.0.0.1:{free_port()}", "key", "token")
    async with connect() as client:
        with pytest.raises(CommandFailed, match=r"accepted nothing for 0\.5 s .*see `pmp status`"):
            await call(client, nobody, "/", patience=0.5)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [(403, b'{"code":7}', r"refused to show the books: 403 \{"), (200, b"<html>", "not with books")],
)
async def test_what_is_not_the_books_is_reported(status: int, body: bytes, message: str) -> None:
    with answering((status, NONE, body)) as mesh, pytest.raises(CommandFailed, match=message):
        await fetch_books(mesh)
