"""How a stream is written to one connection: as messages of a WebSocket, or as server-sent events."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from typing_extensions import override
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Opcode
from websockets.frames import Frame as WebSocketFrame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from kit.errors import InvalidRequest, Violation
from kit.streams.requests import head
from kit.streams.stream import Frame, as_json

SUBPROTOCOL: Final = Subprotocol("pmp.v1")
"""The one that is chosen when a client offers any: browsers refuse a connection whose server chooses none."""
BUFFER_BYTES: Final = 32_768
"""What is buffered for a client that does not read before its stream waits."""
_READ_BYTES: Final = 4096
_MOST_RECEIVED_BYTES: Final = 1024
"""Largest message of a client, none of which means anything."""
_CLOSE_SECONDS: Final = 2.0
"""How long a client may take to answer the end of its WebSocket."""
_EVENT_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # a reverse proxy in front of the gateway passes on each event as it comes
    "connection": "close",
}


class Exchange(ABC):
    """A connection whose request was read, and which streams the response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @abstractmethod
    async def accept(self) -> None:
        """Begins the response.

        Raises:
            InvalidRequest: the request can't be answered in this way.
        """

    def offer(self, frame: Frame[Any]) -> bool:
        """Writes a response, as `stream.Offer` says."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > BUFFER_BYTES:
            return False
        self._writer.write(frame.encoded(self._encode))
        return True

    async def send(self, frame: Frame[Any]) -> None:
        """Writes a response. Waits while the client has much to read yet."""
        self._writer.write(frame.encoded(self._encode))
        await self._writer.drain()

    @staticmethod
    @abstractmethod
    def _encode(frame: Frame[Any]) -> bytes:
        """Encodes a response."""

    @abstractmethod
    async def watch(self) -> None:
        """Reads what the client sends, which is ignored; returns when the client has left."""

    @abstractmethod
    async def end(self, come_back_after: float | None) -> None:
        """Ends the response.

        Args:
            come_back_after: seconds after which the client should come back; None when the stream failed.
        """


class WebSocketExchange(Exchange):
    """A WebSocket (RFC 6455) with one text message for each response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol, request: Request) -> None:
        super().__init__(reader, writer)
        self._protocol = protocol
        self._request = request

    @override
    async def accept(self) -> None:
        response = self._protocol.accept(self._request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            raise InvalidRequest([Violation("", "this is not how version 13 of WebSocket begins")])
        self._protocol.send_response(response)
        self._flush()

    @staticmethod
    @override
    def _encode(frame: Frame[Any]) -> bytes:
        return WebSocketFrame(Opcode.TEXT, as_json(frame)).serialize(mask=False)

    @override
    async def watch(self) -> None:
        while received := await self._reader.read(_READ_BYTES):
            self._protocol.receive_data(received)
            self._protocol.events_received()
            self._flush()  # answers pings and the client's own end
            if self._protocol.close_expected():
                return

    @override
    async def end(self, come_back_after: float | None) -> None:
        if self._protocol.state is not State.OPEN:
            return  # the client has ended it
        if come_back_after is None:
            self._protocol.send_close(CloseCode.INTERNAL_ERROR, "the stream failed; come back in 5 s")
        else:
            self._protocol.send_close(CloseCode.SERVICE_RESTART, f"come back in {come_back_after:.1f} s")
        self._flush()
        # A client that does not answer has nothing to lose.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._closed()

    async def _closed(self) -> None:
        """Waits until the client has answered the end."""
        await self._writer.drain()
        while received := await self._reader.read(_READ_BYTES):
            self._protocol.receive_data(received)
            if self._protocol.close_rcvd is not None:
                return

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)


class EventExchange(Exchange):
    """A response of type text/event-stream, with one event for each response: its id is the cursor, its data the JSON."""

    @override
    async def accept(self) -> None:
        self._writer.write(head(HTTPStatus.OK, _EVENT_STREAM))

    @staticmethod
    @override
    def _encode(frame: Frame[Any]) -> bytes:
        retry = b"" if frame.come_back_after is None else b"retry: %d\n" % round(frame.come_back_after * 1000)
        event_id = f"id: {frame.cursor}\n".encode() if frame.cursor else b""
        return b"%s%sdata: %s\n\n" % (retry, event_id, as_json(frame))

    @override
    async def watch(self) -> None:
        while await self._reader.read(_READ_BYTES):
            pass

    @override
    async def end(self, come_back_after: float | None) -> None:
        if come_back_after is None:
            self._writer.write(b"retry: 5000\n\n")
        await self._writer.drain()


async def read_request(reader: asyncio.StreamReader) -> tuple[ServerProtocol, Request] | None:
    """Reads the head of a request; None when there is none, or when it is not one."""
    protocol = ServerProtocol(select_subprotocol=_chosen, max_size=_MOST_RECEIVED_BYTES)
    while received := await reader.read(_READ_BYTES):
        protocol.receive_data(received)
        for event in protocol.events_received():
            if isinstance(event, Request):
                return protocol, event
        if protocol.handshake_exc is not None:
            break
    return None


def exchange_for(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol, request: Request) -> Exchange:
    """The exchange that a request asks for: a WebSocket by `upgrade`, else server-sent events."""
    if "websocket" in _words(request.headers, "Upgrade"):
        return WebSocketExchange(reader, writer, protocol, request)
    return EventExchange(reader, writer)


def _words(headers: Headers, name: str) -> set[str]:
    return {word.strip().lower() for value in headers.get_all(name) for word in value.split(",")}


def _chosen(_protocol: ServerProtocol, offered: object) -> Subprotocol | None:
    return SUBPROTOCOL if isinstance(offered, list | tuple) and SUBPROTOCOL in offered else None
