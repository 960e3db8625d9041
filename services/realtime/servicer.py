"""The rpcs of realtime over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from pmp.realtime.v1 import realtime_pb2 as pb
from pmp.realtime.v1.realtime_pb2_grpc import RealtimeServiceServicer
from typing_extensions import override

from kit.boundary.caller import Context
from services.realtime.dashboard import Dashboard
from services.realtime.live import LiveStreams


class RealtimeServicer(RealtimeServiceServicer):
    """Streams what happens."""

    def __init__(self, live: LiveStreams, dashboard: Dashboard) -> None:
        self._live = live
        self._dashboard = dashboard

    @override
    async def StreamEvents(self, request: pb.StreamEventsRequest, context: Context) -> AsyncIterator[pb.StreamEventsResponse]:
        async with aclosing(self._live.open(request)) as frames:
            async for frame in frames:
                yield frame.message

    @override
    async def StreamDashboard(self, request: pb.StreamDashboardRequest, context: Context) -> AsyncIterator[pb.StreamDashboardResponse]:
        async with aclosing(self._dashboard.open(request)) as frames:
            async for frame in frames:
                yield frame.message
