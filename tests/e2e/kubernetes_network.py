"""What clients of pods see of a cluster's network: names that resolve to pods, and one address for several gateways."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

Endpoints = Callable[[str], Sequence[str]]
"""The addresses of the pods that a name stands for."""

_CHUNK: Final = 65_536
_ADDRESS: Final = b"\x00\x01"
"""The type A of a question: https://www.rfc-editor.org/rfc/rfc1035#section-3.2.2."""


class CachedEndpoints:
    """Endpoints as a client knows them.

    Args:
        newest: the endpoints of this moment.
        seconds: how long an answer is repeated.
    """

    def __init__(self, newest: Endpoints, seconds: float) -> None:
        self._newest = newest
        self._seconds = seconds
        self._known: dict[str, tuple[float, Sequence[str]]] = {}

    def __call__(self, name: str) -> Sequence[str]:
        until, known = self._known.get(name, (0.0, ()))
        if time.monotonic() >= until:
            known = self._newest(name)
            self._known[name] = time.monotonic() + self._seconds, known
        return known


class Dns(asyncio.DatagramProtocol):
    """A DNS server that knows the addresses of a name's pods, whatever domain follows the name: RFC 1035 over UDP.

    Args:
        endpoints: what it answers from.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(self._answer(data), addr)

    def _answer(self, query: bytes) -> bytes:
        # After the header of 12 bytes, the question: labels with their lengths, a zero, type and class.
        end = query.index(0, 12) + 5
        label = query[13 : 13 + query[12]].decode()
        addresses = self._endpoints(label) if query[end - 4 : end - 2] == _ADDRESS else ()
        head = query[:2] + struct.pack("!5H", 0x8580, 1, len(addresses), 0, 0)
        # Each answer refers to the name at offset 12, is valid for no time, and has four bytes of data.
        answers = (struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address) for address in addresses)
        return head + query[12:end] + b"".join(answers)


class ServiceAddress:
    """The one address of a Service: each new connection goes to one of its pods, and stays there, as with kube-proxy.

    Args:
        name: of the Service.
        endpoints: its pods.
        port: at which they listen.
    """

    def __init__(self, name: str, endpoints: Endpoints, port: int) -> None:
        self._name = name
        self._endpoints = endpoints
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Listens at a free port of the loopback interface; returns the URL."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, IndexError):
            pod = random.choice(self._endpoints(self._name))  # noqa: S311 (no secret)
            pod_reader, pod_writer = await asyncio.open_connection(pod, self._port)
            await asyncio.gather(_pump(reader, pod_writer), _pump(pod_reader, writer))
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                writer.write(chunk)
                await writer.drain()
    finally:
        writer.close()
