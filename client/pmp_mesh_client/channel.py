"""Channels to a mesh: what every call needs is set once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import grpc
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pmp_mesh_client.credentials import MeshCredentials, Metadata
from pmp_mesh_client.policy import service_config

SECONDS: Final = 30.0
"""How long a call may take by default, with its repeats: the gateway gives each attempt 15 s."""
_Add: TypeAlias = Callable[[], Metadata]
_Continuation: TypeAlias = Callable[[Any, Any], Any]
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def connect(url: str, credentials: MeshCredentials, *, seconds: float = SECONDS, root_certificates: bytes | None = None) -> grpc.Channel:
    """Opens a channel for the stubs of `pmp.<service>.v1`; close it, or use it in a `with` block.

    Calls carry the credentials and the trace context of the current span; calls that are declared idempotent are repeated when
    the mesh is down or busy for a moment.

    Args:
        url: of the gateway, such as `https://mesh.example` or `http://127.0.0.1:8080`.
        credentials: of the calling system. Without TLS they are readable on the way: use `http` within one network only.
        seconds: how long a call may take with its repeats, unless it is made with a `timeout`. Streams have no limit.
        root_certificates: of the authorities to trust, in PEM; by default those of gRPC.

    Raises:
        ValueError: the URL is none of a gateway.
    """
    target, has_tls = _target(url)
    if not has_tls:
        channel = grpc.insecure_channel(target, _options())
        return grpc.intercept_channel(channel, _Blocking(seconds, lambda: (*credentials.metadata(), *_trace())))
    channel = grpc.secure_channel(target, _secure(credentials, root_certificates), _options())
    return grpc.intercept_channel(channel, _Blocking(seconds, _trace))


def connect_async(
    url: str, credentials: MeshCredentials, *, seconds: float = SECONDS, root_certificates: bytes | None = None
) -> grpc.aio.Channel:
    """Opens a channel for asyncio; otherwise as `connect`. Close it, or use it in an `async with` block.

    Args:
        url: of the gateway.
        credentials: of the calling system.
        seconds: how long a call may take with its repeats.
        root_certificates: of the authorities to trust, in PEM.

    Raises:
        ValueError: the URL is none of a gateway.
    """
    target, has_tls = _target(url)
    if not has_tls:
        interceptors = _interceptors(seconds, lambda: (*credentials.metadata(), *_trace()))
        return grpc.aio.insecure_channel(target, _options(), interceptors=interceptors)
    secure = _secure(credentials, root_certificates)
    return grpc.aio.secure_channel(target, secure, _options(), interceptors=_interceptors(seconds, _trace))


def _target(url: str) -> tuple[str, bool]:
    """The address of a gateway, and whether it has TLS."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        message = "expected the URL of a gateway without a path, such as https://mesh.example or http://127.0.0.1:8080"
        raise ValueError(message)
    has_tls = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if has_tls else 80)}", has_tls


def _options() -> list[tuple[str, Any]]:
    return [("grpc.service_config", service_config())]


def _secure(credentials: MeshCredentials, root_certificates: bytes | None) -> grpc.ChannelCredentials:
    return grpc.composite_channel_credentials(grpc.ssl_channel_credentials(root_certificates), grpc.metadata_call_credentials(credentials))


def _trace() -> Metadata:
    """The trace context of the current span; nothing outside of one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())


class _Details(grpc.ClientCallDetails):
    """A call with a timeout and further metadata."""

    def __init__(self, of: grpc.ClientCallDetails, timeout: float | None, added: Metadata) -> None:
        self.method = of.method
        self.timeout = timeout
        self.metadata = (*(of.metadata or ()), *added)
        self.credentials = of.credentials
        self.wait_for_ready = of.wait_for_ready
        self.compression = of.compression


class _Blocking(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Completes calls on a blocking channel."""

    def __init__(self, seconds: float, add: _Add) -> None:
        self._seconds = seconds
        self._add = add

    def intercept_unary_unary(self, continuation: _Continuation, client_call_details: grpc.ClientCallDetails, request: Any) -> Any:
        """Called by gRPC for a call with one answer."""
        timeout = self._seconds if client_call_details.timeout is None else client_call_details.timeout
        return continuation(_Details(client_call_details, timeout, self._add()), request)

    def intercept_unary_stream(self, continuation: _Continuation, client_call_details: grpc.ClientCallDetails, request: Any) -> Any:
        """Called by gRPC for a call with a stream of answers."""
        return continuation(_Details(client_call_details, client_call_details.timeout, self._add()), request)


def _interceptors(seconds: float, add: _Add) -> list[grpc.aio.ClientInterceptor]:
    """What completes calls on a channel of asyncio, where each kind of call needs an interceptor of its own."""
    return [_AsyncUnary(seconds, add), _AsyncStream(add)]


class _AsyncUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, seconds: float, add: _Add) -> None:
        self._seconds = seconds
        self._add = add

    async def intercept_unary_unary(
        self, continuation: _Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        timeout = self._seconds if client_call_details.timeout is None else client_call_details.timeout
        return await continuation(_with(client_call_details, timeout, self._add()), request)


class _AsyncStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, add: _Add) -> None:
        self._add = add

    async def intercept_unary_stream(
        self, continuation: _Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_with(client_call_details, client_call_details.timeout, self._add()), request)


def _with(of: grpc.aio.ClientCallDetails, timeout: float | None, added: Metadata) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(of.metadata or ()), *added)
    return grpc.aio.ClientCallDetails(of.method, timeout, metadata, of.credentials, of.wait_for_ready)
