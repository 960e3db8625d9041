"""The gRPC services of a process, and which of its roles serve them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio

from kit.boundary.caller import ROLE_HEADER
from kit.errors import NotFound
from kit.streams.stream import Stream
from kit.telemetry.roles import current_role

Registration: TypeAlias = tuple[Callable[[Any, Any], None], object]
"""The generated function that adds a servicer to a server, and the servicer."""
Check: TypeAlias = Callable[[], Awaitable[object]]
"""Returns while what it checks is up, raises while it is not."""
Background: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Runs until it is cancelled, and finishes the current step before it ends."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Part:
    """What a role contributes to its process."""

    role: str
    """Its name, also in health."""
    services: Sequence[Registration] = ()
    """What it serves."""
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    """What must be up for it to work, by name."""
    background: Sequence[Background] = ()
    """What runs as long as it serves."""
    streams: Sequence[Stream] = ()
    """Which of its rpcs it serves over HTTP as well."""


class Registry:
    """The servicers of several roles by gRPC service: what generated code adds a role's servicers to.

    A service that several roles serve answers for the current role.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._handlers: dict[str, dict[str, Mapping[str, Handler]]] = {}
        self._role = ""
        for part in parts:
            self._role = part.role
            for add, servicer in part.services:
                add(servicer, self)

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Is called by generated code beside the method below, for servers that have no such method."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Is called by generated code with the handlers of a service by method."""
        self._handlers.setdefault(service, {})[self._role] = handlers

    @property
    def roles(self) -> Mapping[str, Sequence[str]]:
        """The roles that serve a gRPC service, by its full name."""
        return {service: list(by_role) for service, by_role in self._handlers.items()}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the services to a server."""
        for service, by_role in self._handlers.items():
            (first, *others) = by_role.values()
            methods = {name: _by_role({role: each[name] for role, each in by_role.items()}) for name in first} if others else first
            server.add_registered_method_handlers(service, methods)


def _by_role(handlers: Mapping[str, Handler]) -> Handler:
    """Returns the handler of a method that answers as the current role's does."""
    first = next(iter(handlers.values()))
    streams = first.response_streaming

    def respond(request: Any, context: Any) -> Any:
        handler = handlers.get(current_role())
        if handler is None:
            raise NotFound(f"{ROLE_HEADER} names none of {', '.join(handlers)}")
        respond: Any = handler.unary_stream if streams else handler.unary_unary
        return respond(request, context)

    wrapped = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    return wrapped(respond, first.request_deserializer, first.response_serializer)
