"""WebSocket clients of realtime, many in one thread: most count what they receive, some note when each event arrives, some don't read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
from typing_extensions import override
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from bench.servers import BenchFailed
from cli.credentials import Credentials

_PATH: Final = "/api/v1/realtime/events"
_MARK: Final = b'"event":{"id":'
"""What each message of an event has once."""


class Listener(asyncio.Protocol):
    """A client.

    Args:
        caller: its credentials.
    """

    def __init__(self, caller: Credentials) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._caller = caller
        self._protocol = ClientProtocol(parse_uri(f"ws{caller.url.removeprefix('http')}{_PATH}"), max_size=None)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        request = self._protocol.connect()
        request.headers.update(self._caller.headers())
        self._protocol.send_request(request)
        self._send()

    @override
    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            self.received(data)
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response) and event.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
                self.opened.set_exception(BenchFailed(f"a stream was answered with {event.status_code}"))
            elif isinstance(event, Frame):
                self.opened.set_result(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(BenchFailed("a stream was cut off"))

    def received(self, data: bytes) -> None:
        """Takes what arrives after the first response."""

    def frames(self, data: bytes) -> Sequence[Any]:
        """The responses that end in what arrived."""
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        self._send()
        return [orjson.loads(event.data) for event in events if isinstance(event, Frame) and event.data]

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data and self.transport is not None:
                self.transport.write(data)


class Counting(Listener):
    """Counts events without parsing them: parsing would take more time than the mesh."""

    def __init__(self, caller: Credentials) -> None:
        super().__init__(caller)
        self.events = 0
        self._rest = b""

    @override
    def received(self, data: bytes) -> None:
        joined = self._rest + data
        self.events += joined.count(_MARK)
        self._rest = joined[-len(_MARK) + 1 :]


class Noting(Listener):
    """Notes when each event arrives."""

    def __init__(self, caller: Credentials) -> None:
        super().__init__(caller)
        self.arrived: dict[str, float] = {}
        """Seconds since 1970, by id."""
        self.missed = 0

    @property
    def events(self) -> int:
        """Number of events that arrived."""
        return len(self.arrived)

    @override
    def received(self, data: bytes) -> None:
        now = time.time()
        for response in self.frames(data):
            self.missed += int(response.get("missed", 0))
            for message in response.get("messages", ()):
                self.arrived[message["event"]["id"]] = now


class Unread(Noting):
    """Does not read before it is asked to."""

    @override
    def data_received(self, data: bytes) -> None:
        before = self.opened.done()
        super().data_received(data)
        if not before and self.opened.done() and self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Reads from now on."""
        if self.transport is not None:
            self.transport.resume_reading()
