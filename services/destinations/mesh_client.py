"""What notices consist of, from the services that know it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

import grpc.aio
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.analytics.v1 import analytics_pb2, courses_pb2
from pmp.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from pmp.analytics.v1.courses_pb2_grpc import CoursesServiceStub
from pmp.ingestion.v1 import ingestion_pb2
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp.purchases.v1 import comparison_pb2
from pmp.purchases.v1.comparison_pb2_grpc import ComparisonServiceStub

from kit.credentials.channels import open_channel
from kit.errors import Unavailable
from kit.settings import Settings

_CALL_SECONDS: Final = 10.0
_TOP: Final = 5
_CHANGES: Final = 500


class MeshClient:
    """Asks analytics, ingestion and purchases.

    Args:
        settings: the addresses of services, and the mesh's credential.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def dashboard(self, first: date, last: date) -> analytics_pb2.GetDashboardResponse:
        """Returns the figures of a period beside those of as many days before.

        Raises:
            Unavailable: analytics does not answer.
        """
        days = {"from": first.isoformat(), "to": last.isoformat(), "compare": "previous", "top": _TOP}
        request = ParseDict(days, analytics_pb2.GetDashboardRequest())
        return await self._ask("analytics", AnalyticsServiceStub, "GetDashboard", request)

    async def content_changes(self, since: str) -> courses_pb2.ListContentChangesResponse:
        """Returns the content that has changed since a cursor.

        Raises:
            Unavailable: analytics does not answer.
        """
        request = courses_pb2.ListContentChangesRequest(since=since, page_size=_CHANGES)
        return await self._ask("analytics", CoursesServiceStub, "ListContentChanges", request)

    async def is_unbalanced(self, since: datetime) -> bool:
        """Whether an event that was accepted since then is missing.

        Raises:
            Unavailable: ingestion does not answer.
        """
        first = Timestamp()
        first.FromDatetime(since)
        request = ingestion_pb2.GetAccountingRequest(**{"from": first})
        return not (await self._ask("ingestion", IngestionServiceStub, "GetAccounting", request)).balanced

    async def differs_from_shop(self) -> bool:
        """Whether orders still differed from the shop's when they were last compared; False if they never were.

        Raises:
            Unavailable: purchases does not answer.
        """
        request = comparison_pb2.GetNewestComparisonRequest()
        return (await self._ask("purchases", ComparisonServiceStub, "GetNewestComparison", request)).comparison.different > 0

    async def _ask(self, service: str, stub: Any, method: str, request: Message) -> Any:
        try:
            async with open_channel(self._settings, service) as channel:
                return await getattr(stub(channel), method)(request, metadata=self._settings.mesh_metadata, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{service} answers {error.code().name} to {method}") from None
