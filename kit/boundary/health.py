"""What a process answers to probes: grpc.health.v1, at its own port and, for probes without a certificate, at a second one."""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from kit.credentials.channels import listen_on

SERVICE: Final = health.SERVICE_NAME
"""Its full name."""


class _Servicer(Protocol):
    """What grpcio's stubs leave out of its asyncio health servicer."""

    async def set(self, service: str, status: Any) -> None: ...

    async def enter_graceful_shutdown(self) -> None: ...


class Health:
    """The health of a process, and of what it serves, by name."""

    def __init__(self) -> None:
        self._servicer = cast("_Servicer", health.aio.HealthServicer())  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
        self._server: grpc.aio.Server | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)  # pyright: ignore[reportUnknownMemberType]

    async def listen(self, address: str) -> int:
        """Answers at an address of its own, without TLS, until `close`; returns the port.

        Raises:
            OSError: the port is taken, or the address is not of this machine.
        """
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.add_to(self._server)
        port = listen_on(self._server, address)
        await self._server.start()
        return port

    async def set(self, name: str, *, serving: bool) -> None:
        """Sets what is answered about a name."""
        await self._servicer.set(name, HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)

    async def drain(self) -> None:
        """Answers from now on that nothing is served."""
        await self._servicer.enter_graceful_shutdown()

    async def close(self) -> None:
        """Ends the second port."""
        if self._server is not None:
            await self._server.stop(None)
