"""An envoyproxy/ratelimit: it counts what is asked for, for all who ask, and never forgets.

The fields are those of envoy/service/ratelimit/v3/rls.proto: https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ratelimit/v3/rls.proto.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory

from tests.servers import free_port

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE: Final = "double.ratelimit"
_NUMBER: Final = _Field.TYPE_UINT32
_TEXT: Final = _Field.TYPE_STRING
_FIELDS: Final[Mapping[str, Mapping[str, tuple[int, Any, bool]]]] = {
    "Entry": {"key": (1, _TEXT, False), "value": (2, _TEXT, False)},
    "Descriptor": {"entries": (1, "Entry", True)},
    "Request": {"domain": (1, _TEXT, False), "descriptors": (2, "Descriptor", True)},
    "Limit": {"requests_per_unit": (1, _NUMBER, False), "unit": (2, _NUMBER, False)},
    "Status": {
        "code": (1, _NUMBER, False),
        "current_limit": (2, "Limit", False),
        "limit_remaining": (3, _NUMBER, False),
        "duration_until_reset": (4, ".google.protobuf.Duration", False),
    },
    "Response": {"overall_code": (1, _NUMBER, False), "statuses": (2, "Status", True)},
}
"""Number and type of each field, and whether it is repeated; enums are numbers."""
_OK, _OVER_LIMIT, _HOUR = 1, 2, 3

Asked: TypeAlias = tuple[tuple[str, str], ...]
"""The keys and values of one descriptor."""


def _messages() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="double_ratelimit.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.append(duration_pb2.DESCRIPTOR.name)
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, is_repeated) in fields.items():
            made = message.field.add(name=field, number=number, label=_Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                made.type, made.type_name = _Field.TYPE_MESSAGE, kind if kind.startswith(".") else f".{_PACKAGE}.{kind}"
            else:
                made.type = kind
    pool = descriptor_pool.Default()
    pool.Add(file)  # pyright: ignore[reportAttributeAccessIssue]  (its stub lacks it)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


_MESSAGES: Final = _messages()


class RateLimits:
    """What it was asked, and how much of each it allows."""

    SECONDS: Final = 1234
    """Until a window ends."""

    def __init__(self, address: str, limit: int) -> None:
        self.address = address
        self.limit = limit
        self.asked: Counter[Asked] = Counter()
        self.domains: set[str] = set()

    def answer(self, request: Any, _context: grpc.ServicerContext) -> Any:
        """`ShouldRateLimit`: whether a request may pass."""
        self.domains.add(request.domain)
        statuses = [self._status(tuple((entry.key, entry.value) for entry in descriptor.entries)) for descriptor in request.descriptors]
        return _MESSAGES["Response"](overall_code=max((status.code for status in statuses), default=_OK), statuses=statuses)

    def _status(self, asked: Asked) -> Any:
        self.asked[asked] += 1
        count = self.asked[asked]
        return _MESSAGES["Status"](
            code=_OK if count <= self.limit else _OVER_LIMIT,
            current_limit=_MESSAGES["Limit"](requests_per_unit=self.limit, unit=_HOUR),
            limit_remaining=max(0, self.limit - count),
            duration_until_reset=duration_pb2.Duration(seconds=self.SECONDS),
        )


@contextmanager
def counting(limit: int) -> Generator[RateLimits]:
    """Counts until the block ends, at a free port."""
    limits = RateLimits(f"127.0.0.1:{free_port()}", limit)
    method = grpc.unary_unary_rpc_method_handler(
        limits.answer,
        request_deserializer=_MESSAGES["Request"].FromString,
        response_serializer=_MESSAGES["Response"].SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = grpc.method_handlers_generic_handler("envoy.service.ratelimit.v3.RateLimitService", {"ShouldRateLimit": method})
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(limits.address)
    server.start()
    try:
        yield limits
    finally:
        server.stop(None).wait()
