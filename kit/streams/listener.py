"""The listener of a process for streams over HTTP/1.1, to which the gateway connects.

Each connection carries one stream. A call passes the same boundary as one over gRPC: credential, scope, rules, span, metric, log line.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from opentelemetry.trace import SpanKind
from pmp.options.v1 import options_pb2
from websockets.http11 import Request

from kit.boundary.admission import admit
from kit.boundary.boundary import Boundary
from kit.boundary.caller import Method, current_call
from kit.boundary.outcome import Outcome, outcome_of
from kit.credentials.certificates import certificates_in
from kit.errors import NotFound
from kit.settings import split_address
from kit.streams.exchange import BUFFER_BYTES, Exchange, exchange_for, read_request
from kit.streams.requests import refusal, request_of
from kit.streams.stream import Frame, Stream
from kit.telemetry.roles import act_as
from kit.telemetry.tracing import span

_log = structlog.get_logger(__name__)

_REQUEST_SECONDS: Final = 10.0
"""How long a request may take to arrive."""
_BACKLOG: Final = 1024
"""Connections that may wait to be accepted, such as after a restart, when all clients come back."""


@dataclass(frozen=True, slots=True)
class _Served:
    stream: Stream
    method: Method
    role: str


class StreamListener:
    """Serves streams.

    Args:
        boundary: the boundary of the process.
        streams: the streams with the roles that serve them.
        certificates: folder with the certificate of the process and the authority of its callers' ones; None is without TLS.
    """

    def __init__(self, boundary: Boundary, streams: list[tuple[str, Stream]], certificates: Path | None = None) -> None:
        self._boundary = boundary
        self._certificates = certificates
        self._served: Mapping[str, _Served] = {
            stream.method.GetOptions().Extensions[options_pb2.stream]: _Served(stream, boundary.method(_path(stream)), role)
            for role, stream in streams
        }
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, address: str) -> int:
        """Listens on an address; returns the port.

        Raises:
            OSError: the port is taken, or the address is not of this machine.
            WrongSetting: the certificates are of no use.
        """
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # a stream takes one
        host, port = split_address(address)
        context = certificates_in(self._certificates).of_listener() if self._certificates else None
        self._server = await asyncio.start_server(self._accept, host, port, backlog=_BACKLOG, ssl=context)
        _log.info("listening", address=address, streams=sorted(self._served))
        return self._server.sockets[0].getsockname()[1]

    async def close(self, seconds: float) -> None:
        """Stops to accept connections, gives those that are open so many seconds to end, and then cuts them off."""
        if self._server is None:
            return
        self._server.close()
        if self._connections:
            await asyncio.wait(self._connections, timeout=seconds)
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
            # What a peer does to its connection is no error of this process.
            with suppress(ConnectionError, TimeoutError, ssl.SSLError):
                async with asyncio.timeout(_REQUEST_SECONDS):
                    read = await read_request(reader)
                if read is not None:
                    await self._answer(exchange_for(reader, writer, *read), writer, read[1])
        finally:
            writer.close()

    async def _answer(self, exchange: Exchange, writer: asyncio.StreamWriter, request: Request) -> None:
        path, _, query = request.path.partition("?")
        served = self._served.get(path)
        if served is None:
            writer.write(refusal(outcome_of(NotFound("there is no such path"))))
            return
        metadata = {name.lower(): value for name, value in request.headers.raw_items()}
        call = self._boundary.admission.call(served.method, metadata)
        current_call.set(call)
        act_as(served.role)
        answer = _Answer(exchange, writer)
        parent = metadata.get("traceparent", "")
        with span(served.method.name, parent=parent, kind=SpanKind.SERVER, attributes=served.method.attributes) as current:
            outcome, fault = Outcome(grpc.StatusCode.CANCELLED), None
            try:
                admit(call)
                asked = request_of(served.stream.method.input_type, query, metadata.get("last-event-id", ""))
                async with aclosing(served.stream.open(asked, exchange.offer)) as frames:
                    outcome = await answer.stream(frames)
            except ConnectionError:
                return  # the client has left
            except Exception as error:  # noqa: BLE001  (the boundary is where every error ends)
                outcome, fault = outcome_of(error), error
            finally:
                self._boundary.recorder.record(call, current, outcome.code, fault)
        if fault is not None:
            await answer.fail(outcome)


class _Answer:
    """The response to one call.

    Args:
        exchange: streams it.
        writer: of the same connection.
    """

    def __init__(self, exchange: Exchange, writer: asyncio.StreamWriter) -> None:
        self._exchange = exchange
        self._writer = writer
        self._accepted = False

    async def stream(self, frames: AsyncGenerator[Frame[Any]]) -> Outcome:
        """Writes all frames, or as many as the client stays for.

        Raises:
            Exception: the stream failed, before or after it began.
        """
        first = await anext(frames)
        await self._exchange.accept()
        self._accepted = True
        sending, watching = asyncio.create_task(self._send(first, frames)), asyncio.create_task(self._exchange.watch())
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Both read from the connection or the stream: what follows does so alone.
            watching.cancel()
            sending.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
        if sending.cancelled():
            return Outcome(grpc.StatusCode.CANCELLED)
        await self._exchange.end(sending.result().come_back_after or 0.0)
        return Outcome(grpc.StatusCode.OK)

    async def _send(self, first: Frame[Any], frames: AsyncGenerator[Frame[Any]]) -> Frame[Any]:
        """Writes frames; returns the last one."""
        await self._exchange.send(first)
        last = first
        async for last in frames:
            await self._exchange.send(last)
        return last

    async def fail(self, outcome: Outcome) -> None:
        """Refuses the call; ends the response if it has begun."""
        if self._accepted:
            await self._exchange.end(None)
        else:
            self._writer.write(refusal(outcome))
            await self._writer.drain()


def _path(stream: Stream) -> str:
    return f"/{stream.method.containing_service.full_name}/{stream.method.name}"
