"""Reads the history of a topic from its publisher: for new consumers, replays, and consumers that a trim has overtaken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pmp.log.v1 import log_pb2

from kit.credentials.channels import open_channel
from kit.log.consume.reader import BATCH_MESSAGES, History
from kit.log.streams import Entry, Offset
from kit.settings import MeshSettings

_SECONDS: Final = 30.0
_MAX_BYTES: Final = 16_777_216
_OPTIONS: Final = (("grpc.max_receive_message_length", _MAX_BYTES),)


def remote_history(settings: MeshSettings, method: MethodDescriptor) -> History:
    """Makes a history of a topic from its publisher's INTERNAL rpc.

    The rpc takes `partition` and `after_position`, and streams responses of a `position` and one repeated field, which holds
    the topic's messages.

    Args:
        settings: the publisher's address, and the mesh's credentials.
        method: the rpc, of the publisher's package.

    Returns:
        A function that reads about a transaction's worth of entries; it raises ConnectionError while the publisher does not answer.
    """
    path = f"/{method.containing_service.full_name}/{method.name}"
    publisher = method.containing_service.full_name.split(".")[1]
    request: Callable[..., Any] = GetMessageClass(method.input_type)
    answer: Any = GetMessageClass(method.output_type)
    ((name, kind),) = ((field.name, field.message_type.full_name) for field in method.output_type.fields if field.message_type)

    async def responses(partition: int, after: int) -> AsyncIterator[Any]:
        async with open_channel(settings, publisher, _OPTIONS) as channel:
            call: Any = channel.unary_stream(path, request_serializer=request.SerializeToString, response_deserializer=answer.FromString)  # pyright: ignore[reportFunctionMemberAccess]
            stream = call(request(partition=partition, after_position=after), metadata=settings.mesh_metadata, timeout=_SECONDS)
            async for each in stream:
                yield each

    async def history(partition: int, after: int) -> list[Entry]:
        entries: list[Entry] = []
        count = 0
        try:
            async for each in responses(partition, after):
                records = [log_pb2.Record(type=kind, payload=message.SerializeToString()) for message in getattr(each, name)]
                pack = log_pb2.Pack(records=records).SerializeToString()
                entries.append(Entry(Offset(each.position, 0), pack, len(records), hour=0))
                count += len(records)
                if count >= BATCH_MESSAGES:
                    break
        except grpc.aio.AioRpcError as error:
            if entries:
                return entries
            raise ConnectionError(f"{path} answers {error.code().name}") from None
        return entries

    return history
