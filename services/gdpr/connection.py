"""The rpcs by which the shop's site gets its settings, and finds out whether the mesh reaches it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import grpc.aio
import httpx
from pmp.destinations.v1.destinations_pb2 import ConnectSiteRequest, ConnectSiteResponse
from pmp.destinations.v1.destinations_pb2_grpc import DestinationsServiceStub
from pmp.gdpr.v1 import connection_pb2 as pb
from pmp.gdpr.v1.connection_pb2_grpc import ConnectionServiceServicer
from redis.asyncio import Redis
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields, caller
from kit.credentials.channels import open_channel
from kit.errors import InvalidRequest, Unauthenticated, Unavailable, Violation
from kit.settings import is_private
from services.gdpr.calls import REACHED, check_site
from services.gdpr.rules import DESTINATIONS
from services.gdpr.settings import GdprSettings

VALID: Final = timedelta(minutes=10)
"""How long settings can be taken, and how long afterwards the site that took them may state its address."""
_CALL_SECONDS: Final = 5.0
_STATES: Final = "pmp:connection:stated"
"""Key that is set while a site may state its address."""
_CHECKED: Final = re.compile(r"/pmp/v1/connection/[0-9a-f]{32}$")
"""What the address ends with that the plugin has the mesh call."""


class ConnectionServicer(ConnectionServiceServicer):
    """Hands out sealed settings once, and calls sites that want to know whether they are reached.

    The first site that is reached after settings were taken is the one that was connected: `destinations` synchronises with it from
    then on. Another one can take its place by a new code alone.

    Args:
        redis: where settings are kept that nobody took yet.
    """

    def __init__(self, redis: Redis, settings: GdprSettings) -> None:
        self._redis: Any = redis  # redis-py's types don't cover what its commands return
        self._settings = settings
        self._hosts = settings.site_hosts
        self._called = {url.host for url in settings.site_erasure_calls.values()}

    @override
    async def AddConnection(self, request: pb.AddConnectionRequest, context: Context) -> pb.AddConnectionResponse:
        await self._redis.set(_key(request.connection_id), request.sealed, px=VALID)
        return pb.AddConnectionResponse()

    @override
    async def TakeConnection(self, request: pb.TakeConnectionRequest, context: Context) -> pb.TakeConnectionResponse:
        # Removed as it is read: by one of several concurrent callers.
        sealed: bytes | None = await self._redis.getdel(_key(caller().user))
        if sealed is None:
            raise Unauthenticated("the code was used before, or is older than 10 minutes: `pmp connect wordpress` prints a new one")
        await self._redis.set(_STATES, 1, px=VALID)
        await context.send_initial_metadata((("cache-control", "no-store"),))
        return pb.TakeConnectionResponse(sealed=sealed.decode())

    @override
    async def CheckSite(self, request: pb.CheckSiteRequest, context: Context) -> pb.CheckSiteResponse:
        host = self._host(request.url)
        finding, status = await check_site(request.url, request.answer)
        bind_log_fields(finding=finding)
        if finding == REACHED and _CHECKED.search(request.url) and await self._redis.exists(_STATES):
            await self._connect(_CHECKED.sub("/pmp/v1/users", request.url))
            await self._redis.delete(_STATES)
        return pb.CheckSiteResponse(finding=finding, status=status, is_called_on_erasure=host in self._called)

    async def _connect(self, url: str) -> None:
        """Has the site synchronised.

        Raises:
            Unavailable: destinations does not answer.
        """
        try:
            async with open_channel(self._settings, DESTINATIONS) as channel:
                stub: Any = DestinationsServiceStub(channel)
                answer: ConnectSiteResponse = await stub.ConnectSite(
                    ConnectSiteRequest(url=url), metadata=self._settings.mesh_metadata, timeout=_CALL_SECONDS
                )
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{DESTINATIONS} answers {error.code().name}") from None
        bind_log_fields(synchronised=answer.connected)

    def _host(self, url: str) -> str:
        """The host of an address that may be called.

        Raises:
            InvalidRequest: it may not.
        """
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise InvalidRequest([Violation("url", "is no URL")]) from None
        if parsed.scheme != "https" and not is_private(parsed.host):
            raise InvalidRequest([Violation("url", "is neither https nor in a private network")])
        if self._hosts and not any(_is_below(parsed.host, each) for each in self._hosts):
            raise InvalidRequest([Violation("url", "is of none of the shop's hosts, which the mesh's setting PMP_SITE_HOSTS lists")])
        return parsed.host


def _is_below(host: str, pattern: str) -> bool:
    """Whether a host is the one of a pattern or, with `*.`, below it."""
    return host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _key(connection_id: str) -> str:
    return f"pmp:connection:{connection_id}"
