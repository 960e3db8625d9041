"""Signing in to the dashboard, through a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from pmp.analytics.v1 import dashboard_pb2 as pb
from pmp.analytics.v1.dashboard_pb2_grpc import DashboardServiceStub

from kit.service.resources import Resources
from kit.settings import Settings
from services.analytics.composition import ROLE
from tests.roles import serving, settings_for

ID = "x" * 43
SESSION = "header.claims.signature"


class Dashboard:
    """The service, as the gateway calls it."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: Any = DashboardServiceStub(channel)
        self._token = token

    def _metadata(self, scope: str, **others: str) -> list[tuple[str, str]]:
        named = [(f"x-{name.replace('_', '-')}", value) for name, value in others.items()]
        return [("x-pmp-mesh-token", self._token), ("x-pmp-scope", scope), *named]

    async def add(self, link: str = ID, session: str = SESSION) -> None:
        await self._stub.AddSignInLink(pb.AddSignInLinkRequest(link_id=link, session=session), metadata=self._metadata("admin"))

    async def open(self, link: str = ID, *, scope: str = "link", protocol: str = "http") -> str:
        """Opens a link; returns the cookie."""
        call = self._stub.SignIn(pb.SignInRequest(), metadata=self._metadata(scope, pmp_user=link, forwarded_proto=protocol))
        await call
        return dict(await call.initial_metadata())["set-cookie"]


@pytest.fixture
async def dashboard(settings: Settings, resources: Resources) -> AsyncIterator[Dashboard]:
    async with serving(ROLE.compose(settings_for(ROLE, settings), resources)) as channel:
        yield Dashboard(channel, settings.mesh_token.get_secret_value())


async def test_a_link_sets_the_session_as_a_cookie(dashboard: Dashboard) -> None:
    await dashboard.add()
    assert await dashboard.open() == f"pmp_dashboard={SESSION}; Path=/; Max-Age=86400; HttpOnly; SameSite=Strict"


async def test_with_tls_the_cookie_is_never_sent_without(dashboard: Dashboard) -> None:
    await dashboard.add()
    assert (await dashboard.open(protocol="https")).endswith("; SameSite=Strict; Secure")


async def test_a_link_is_opened_by_one_of_many(dashboard: Dashboard) -> None:
    await dashboard.add()
    answers = await asyncio.gather(*(dashboard.open() for _ in range(10)), return_exceptions=True)
    assert len([each for each in answers if isinstance(each, str)]) == 1
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {(each.code(), each.details()) for each in refused} == {
        (grpc.StatusCode.UNAUTHENTICATED, "the link was opened before, or is older than 5 minutes: `pmp open` prints a new one")
    }


async def test_a_link_is_forgotten_after_five_minutes_or_when_it_was_opened(dashboard: Dashboard, resources: Resources) -> None:
    await dashboard.add()
    (key,) = await resources.log.redis.keys("pmp:sign-in:*")
    assert 299_000 < await resources.log.redis.pttl(key) <= 300_000
    await dashboard.open()
    assert not await resources.log.redis.dbsize()


@pytest.mark.parametrize("scope", ["read", "track", "site", "admin", ""])
async def test_no_other_token_opens_a_link(dashboard: Dashboard, scope: str) -> None:
    await dashboard.add()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await dashboard.open(scope=scope)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await dashboard.open()


@pytest.mark.parametrize(
    ("link", "session"), [("short", SESSION), (ID, "a session; Domain=other.example"), (ID, ""), (ID + "\r\n", SESSION)]
)
async def test_a_link_that_would_be_no_cookie_is_refused(dashboard: Dashboard, link: str, session: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await dashboard.add(link, session)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
