"""Calls of a service from a pod of the mesh, by the path that its rpc has at the gateway: no key of a caller is needed there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import grpc.aio
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cli.errors import CommandFailed
from kit.credentials.channels import open_channel
from kit.settings import MeshSettings

_SECONDS: Final = 20.0
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


async def call_service(settings: MeshSettings, service: str, verb: str, path: str) -> Mapping[str, Any]:
    """Calls the rpc with a path; returns its answer as the gateway would.

    Args:
        settings: of the pod.
        service: the service that serves it.
        verb: GET or POST.
        path: without a body: all parameters are in the path or the query.

    Raises:
        CommandFailed: the service does not answer, or refuses the call.
    """
    method, request = _request(service, verb, path)
    async with open_channel(settings, service) as channel:
        send: Any = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=_serialized,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            answer = await send(request, metadata=settings.mesh_metadata, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CommandFailed(f"{error.code().name} {error.details()}") from None
    return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _request(service: str, verb: str, path: str) -> tuple[MethodDescriptor, Message]:
    http: Any = annotations_pb2.http  # the stubs of googleapis take it for a plain field
    found = urlsplit(path)
    for method in _methods(service):
        rule: Any = method.GetOptions().Extensions[http]
        template = str(rule.get if verb == "GET" else rule.post)
        pattern = _PARAMETER.sub(r"(?P<\1>[^/]+)", template)
        if template and (match := re.fullmatch(pattern, found.path)):
            fields = {name: unquote(value) for name, value in match.groupdict().items()} | _query(method, found.query)
            return method, ParseDict(fields, GetMessageClass(method.input_type)())
    raise LookupError(f"no rpc of {service} has the path {found.path}")


def _query(method: MethodDescriptor, query: str) -> dict[str, object]:
    repeated = {field.name for field in method.input_type.fields if field.is_repeated}
    return {name: values if name in repeated else _value(values[0]) for name, values in parse_qs(query).items()}


def _value(text: str) -> object:
    return {"true": True, "false": False}.get(text, text)


def _methods(service: str) -> Iterator[MethodDescriptor]:
    for each in importlib.import_module(f"pmp.{service}.v1.{service}_pb2").DESCRIPTOR.services_by_name.values():
        yield from each.methods
