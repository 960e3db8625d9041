"""What an owner reads: a server of e-mail and a channel, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

import orjson
from aiosmtpd.smtp import SMTP, Envelope


@dataclass
class Mailbox:
    """A server that accepts messages for all addresses."""

    port: int = 0
    answer: str = "250 accepted"
    messages: list[EmailMessage] = field(default_factory=list[EmailMessage])
    recipients: list[list[str]] = field(default_factory=list[list[str]])

    async def handle_DATA(self, _server: object, _session: object, envelope: Envelope) -> str:
        """Takes a message, or answers as a test wants."""
        if self.answer.startswith("2"):
            content = cast("bytes", envelope.content)
            self.messages.append(message_from_bytes(content, policy=default))
            self.recipients.append(list(envelope.rcpt_tos))
        return self.answer

    def subjects(self) -> list[str]:
        """The subjects of all messages, in order."""
        return [str(message["Subject"]) for message in self.messages]


@asynccontextmanager
async def mailbox() -> AsyncGenerator[Mailbox]:
    """Listens until the block ends."""
    found = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(found, hostname="localhost"), "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


@dataclass
class Channel:
    """A channel, and its incoming webhook: it takes an object with a text, as Slack does."""

    port: int = 0
    status: int = 200
    texts: list[str] = field(default_factory=list[str])

    def answer(self, body: bytes) -> int:
        """Shows a message, if it is one."""
        try:
            message: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            return 400
        if not isinstance(message, dict) or not isinstance(text := cast("dict[str, Any]", message).get("text"), str) or not text:
            return 400
        if self.status == 200:
            self.texts.append(text)
        return self.status


@asynccontextmanager
async def channel() -> AsyncGenerator[Channel]:
    """Listens until the block ends."""
    found = Channel()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        status = found.answer(await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {status} ANSWER\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
