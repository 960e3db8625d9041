"""The rpcs by which a reader signs in to the dashboard."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from pmp.analytics.v1 import dashboard_pb2 as pb
from pmp.analytics.v1.dashboard_pb2_grpc import DashboardServiceServicer
from redis.asyncio import Redis
from typing_extensions import override

from kit.boundary.caller import Context, caller
from kit.errors import Unauthenticated

COOKIE: Final = "pmp_dashboard"
"""The cookie that the gateway accepts for reading."""
SESSION: Final = timedelta(days=1)
"""How long a browser keeps it."""
LINK: Final = timedelta(minutes=5)
"""How long a link can be opened."""


class DashboardServicer(DashboardServiceServicer):
    """Exchanges one-time links for sessions.

    Args:
        redis: where the sessions of links that were not opened yet are kept.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis  # redis-py's types don't cover what its commands return

    @override
    async def AddSignInLink(self, request: pb.AddSignInLinkRequest, context: Context) -> pb.AddSignInLinkResponse:
        await self._redis.set(_key(request.link_id), request.session, px=LINK)
        return pb.AddSignInLinkResponse()

    @override
    async def SignIn(self, request: pb.SignInRequest, context: Context) -> pb.SignInResponse:
        # Removed as it is read: by one of several concurrent callers.
        session: bytes | None = await self._redis.getdel(_key(caller().user))
        if session is None:
            raise Unauthenticated("the link was opened before, or is older than 5 minutes: `pmp open` prints a new one")
        metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        cookie = f"{COOKIE}={session.decode()}; Path=/; Max-Age={SESSION // timedelta(seconds=1)}; HttpOnly; SameSite=Strict"
        if metadata.get("x-forwarded-proto") == "https":
            cookie += "; Secure"
        await context.send_initial_metadata((("set-cookie", cookie), ("cache-control", "no-store")))
        return pb.SignInResponse()


def _key(link_id: str) -> str:
    return f"pmp:sign-in:{link_id}"
