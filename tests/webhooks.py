"""Other systems that receive webhooks over HTTP on loopback: each checks the signature, and answers as a test wants."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, Final

import orjson
from standardwebhooks import Webhook

SECRET: Final = "whsec_c2hhcmVkIGJ5IHRoZSBtZXNoIGFuZCBhbm90aGVyIHN5c3RlbQ=="
SECOND_SECRET: Final = "whsec_YW5vdGhlciBzZWNyZXQgd2hpbGUgb25lIHJlcGxhY2VzIGl0"


def with_a_destination(folder: Path) -> dict[str, str]:
    """Settings of a mesh with the destination `crm`, which nothing happens for; its file is in the folder."""
    file = folder / "destinations.toml"
    file.write_text(
        '[crm]\nkind = "webhook"\nurl = "https://crm.example/hook"\nsecrets = ["CRM_SECRET"]\ntypes = ["conversion.recorded"]\n'
    )
    return {"PMP_DESTINATIONS": str(file), "CRM_SECRET": SECRET}


@dataclass
class Reply:
    """How a system answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    seconds: float = 0.0
    """How long it takes."""


@dataclass
class Received:
    """A webhook with a valid signature."""

    id: str
    at: float
    content: Any


@dataclass
class Systems:
    """Systems by the path of their address."""

    port: int = 0
    replies: dict[str, Reply] = field(default_factory=lambda: defaultdict[str, Reply](Reply))
    received: dict[str, list[Received]] = field(default_factory=lambda: defaultdict[str, list[Received]](list))
    forged: int = 0
    """Requests without a valid signature."""
    secret: str = SECRET

    def ids(self, path: str) -> Counter[str]:
        """How often each webhook was received at a path."""
        return Counter(each.id for each in self.received[path])

    def types(self, path: str) -> list[str]:
        """The types of what was received at a path, in order."""
        return [each.content["type"] for each in self.received[path]]


@asynccontextmanager
async def systems(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Systems]:
    """Listens on loopback until the block ends."""
    found = Systems()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await _exchange(found, reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _exchange(found: Systems, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    path = head[0].split(" ")[1]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    reply = found.replies[path]
    try:
        Webhook(found.secret).verify(body, headers)
    except Exception:  # noqa: BLE001 (whatever is wrong with the signature)
        found.forged += 1
        reply = Reply(401)
    else:
        found.received[path].append(Received(headers["webhook-id"], time(), orjson.loads(body)))
    await asyncio.sleep(reply.seconds)
    lines = [
        f"HTTP/1.1 {reply.status} x",
        f"content-length: {len(reply.body)}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body)
    await writer.drain()
