"""Analytics through a real channel, a real log and each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.message import Message
from pmp.analytics.v1 import analytics_pb2 as pb
from pmp.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from pmp.ingestion.v1 import event_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.analytics.composition import ROLE
from tests.conftest import newest_database
from tests.roles import serving
from tests.services.shop_oracle import Oracle, generated
from tests.topics import Topics

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def event(
    key: str,
    at: datetime,
    *,
    kind: str = "page_view",
    session: str = "",
    user: str = "",
    source: str = "",
    url: str = "",
    bot: bool = False,
) -> event_pb2.EventStored:
    """An event as ingestion publishes it; without a session and a user that of someone who denied analytics."""
    stored = event_pb2.EventStored(
        event=event_pb2.Event(id=key, event_type=kind, session_id=session, user_id=user, page_url=url),
        enrichment=event_pb2.Enrichment(
            is_bot=bot,
            channel=event_pb2.CHANNEL_CAMPAIGN if source else event_pb2.CHANNEL_DIRECT,
            traffic_source=source,
            visitor=user or session,
            session=session,
            device="mobile",
        ),
        scope="site",
        key=key,
    )
    stored.event.timestamp.FromDatetime(at)
    return stored


class Analytics(Topics):
    """The service, and the topics it follows, step by step."""

    def __init__(self, runtime: ServiceRuntime, channel: grpc.aio.Channel) -> None:
        super().__init__(runtime)
        self.sessions = runtime.sessions
        self._stub: Any = AnalyticsServiceStub(channel)
        self._token = runtime.settings.mesh_token.get_secret_value()

    async def call(self, method: str, request: Message, *, scope: str = "read") -> Any:
        metadata = (("x-pmp-mesh-token", self._token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope))
        return await getattr(self._stub, method)(request, metadata=metadata)

    async def happen(self, *messages: Message) -> None:
        async with self.sessions.begin() as session:
            for message in messages:
                if isinstance(message, event_pb2.EventStored):
                    await self.publish_events(session, [message])
                elif isinstance(message, PurchaseChanged):
                    await self.publish_states(session, "purchases", [(message.purchase_id, message)])
                else:
                    await self.publish_states(session, "identity", [(str(message), message)])
        await self.follow()

    async def dashboard(self, since: str = "2026-03-01", until: str = "2026-03-31", **fields: Any) -> pb.GetDashboardResponse:
        return await self.call("GetDashboard", pb.GetDashboardRequest(**{"from": since, "to": until}, **fields))

    async def figures(self, *keys: str, **period: Any) -> Sequence[float]:
        found = {each.key: each.value for each in (await self.dashboard(**period)).figures}
        return [found[key] for key in keys]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With what a test sets beside."""
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
async def analytics(settings: Settings, resources: Resources) -> AsyncIterator[Analytics]:
    async with newest_database(settings, "analytics"):
        runtime = ROLE.compose(settings, resources)
        async with serving(runtime) as channel:
            yield Analytics(runtime, channel)


async def test_a_session_ends_after_thirty_idle_minutes_whatever_the_order_of_events(analytics: Analytics) -> None:
    at = [NOON, NOON + timedelta(minutes=25), NOON + timedelta(minutes=50), NOON + timedelta(minutes=81)]
    await analytics.happen(event("c", at[2], session="s"), event("a", at[0], session="s"))
    assert await analytics.figures("sessions", "visitors", "page_views", "bounce_rate") == [2, 1, 2, 1]
    await analytics.happen(event("b", at[1], session="s"))
    assert await analytics.figures("sessions", "visitors", "page_views", "bounce_rate", "session_seconds") == [1, 1, 3, 0, 3000]
    await analytics.happen(event("d", at[3], session="s"))
    assert await analytics.figures("sessions", "page_views") == [2, 4]


PERIODS = [("2026-03-01", "2026-04-30"), ("2026-03-28", "2026-03-30"), ("2026-03-29", "2026-03-29"), ("2026-03-22", "2026-04-02")]


@pytest.mark.parametrize("settings", [{"site_timezone": ZoneInfo(zone)} for zone in ("Europe/Berlin", "Asia/Kathmandu")], indirect=True)
async def test_every_figure_is_that_of_what_was_sent(analytics: Analytics, settings: Settings) -> None:
    shop = generated(seed=16)
    for batch in shop.batches:
        await analytics.happen(*batch)
    oracle = Oracle(shop, settings.site_timezone.key)
    for period in PERIODS:
        answer = await analytics.dashboard(*period)
        found = {each.key: each.value if each.HasField("value") else None for each in answer.figures}
        assert found == pytest.approx(oracle.figures(*period)), period
