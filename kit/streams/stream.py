"""A stream of responses that gRPC, WebSockets and server-sent events share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import orjson
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_Response = TypeVar("_Response", bound=Message)

Encode: TypeAlias = Callable[["Frame[Any]"], bytes]
"""Encodes a frame as it is written to a connection."""

Offer: TypeAlias = Callable[["Frame[Any]"], bool]
"""Writes a response to a connection at once, which takes a quarter of the time that it takes to wake a task for it. Returns False, and has
written nothing, while the client has much to read yet, or when it has left."""


class Frame(Generic[_Response]):
    """A response of a stream, encoded once for all who receive it.

    Args:
        message: the response.
        cursor: where a new stream continues after it; empty where streams can't be continued.
        come_back_after: seconds after which the reader should open a new stream, in the last response of a stream that the server
            ends.
    """

    __slots__ = ("_encoded", "come_back_after", "cursor", "message")

    def __init__(self, message: _Response, cursor: str = "", *, come_back_after: float | None = None) -> None:
        self.message = message
        self.cursor = cursor
        self.come_back_after = come_back_after
        self._encoded: dict[Encode, bytes] = {}

    def encoded(self, encode: Encode) -> bytes:
        """Returns what `encode` makes of the frame; it is called once."""
        found = self._encoded.get(encode)
        if found is None:
            found = self._encoded[encode] = encode(self)
        return found


def as_json(frame: Frame[Any]) -> bytes:
    """Encodes a response as JSON on one line, with the names of its fields as in the proto; what is empty is left out."""
    return orjson.dumps(MessageToDict(frame.message, preserving_proto_field_name=True))


@dataclass(frozen=True, slots=True)
class Stream:
    """A server-streaming rpc whose method has the option `stream`."""

    method: MethodDescriptor
    open: Callable[[Any, Offer], AsyncGenerator[Frame[Any]]]
    """Given the request, yields the responses: the first one at once, or an error that refuses the call. Those that it offers to the
    connection while it has nothing to yield, it does not yield."""
    end: Callable[[], None]
    """Ends all that are open, with a last response that says when to come back. Is called when the process drains."""
