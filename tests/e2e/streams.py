"""Readers of the mesh's streams: over WebSocket, as server-sent events and over gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from pmp.realtime.v1 import realtime_pb2 as pb
from pmp.realtime.v1.realtime_pb2_grpc import RealtimeServiceStub
from websockets.asyncio.client import connect

EVENTS = "/api/v1/realtime/events"
DASHBOARD = "/api/v1/realtime/dashboard"

Response: TypeAlias = dict[str, Any]
"""A response of a stream, as JSON has it."""
Responses: TypeAlias = AsyncGenerator[Response]


@asynccontextmanager
async def web_socket(
    url: str, headers: Mapping[str, str], query: str = "", path: str = EVENTS, **options: Any
) -> AsyncGenerator[Responses]:
    """The responses over WebSocket."""

    async def responses() -> Responses:
        async for message in connection:
            yield json.loads(message)

    address = f"{url.replace('http', 'ws', 1)}{path}{query}"
    # The gateway takes a second to close a connection that has ended.
    async with connect(address, additional_headers=headers, max_size=None, close_timeout=0.1, **options) as connection:
        yield responses()


@asynccontextmanager
async def server_sent(url: str, headers: Mapping[str, str], query: str = "", path: str = EVENTS) -> AsyncGenerator[Responses]:
    """The responses as server-sent events; what an event has beside its data is in `sse`."""

    async def responses() -> Responses:
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            else:
                yield {**json.loads(fields.pop("data")), "sse": fields}
                fields = {}

    async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", f"{url}{path}{query}", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield responses()


@asynccontextmanager
async def native(url: str, headers: Mapping[str, str], query: str = "") -> AsyncGenerator[Responses]:
    """The responses over gRPC, as JSON."""
    request = pb.StreamEventsRequest()
    for name, value in httpx.QueryParams(query.removeprefix("?")).multi_items():
        if name == "since":
            request.since = value
        else:
            getattr(request, name).append(value)
    async with grpc.aio.insecure_channel(url.removeprefix("http://")) as channel:
        stub: Any = RealtimeServiceStub(channel)
        call = stub.StreamEvents(request, metadata=tuple(headers.items()))

        async def responses() -> Responses:
            async for message in call:
                yield MessageToDict(message, preserving_proto_field_name=True)

        yield responses()
        call.cancel()


TRANSPORTS: Mapping[str, Callable[..., Any]] = {"grpc": native, "websocket": web_socket, "events": server_sent}


def page_view(number: object, **fields: object) -> dict[str, object]:
    """An event."""
    return {"id": f"event-{number}", "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat(), **fields}


@dataclass
class Read:
    """What a reader has received."""

    ids: list[str]
    missed: int = 0
    cursor: str = ""
    trimmed: bool = False

    def take(self, response: Response) -> None:
        """Adds a response."""
        self.ids += [message["event"]["id"] for message in response.get("messages", ()) if "event" in message]
        self.missed += int(response.get("missed", 0))
        self.cursor = response["cursor"]
        self.trimmed |= response.get("trimmed", False)
