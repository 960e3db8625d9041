"""The role of realtime: streams events, orders and figures over gRPC and HTTP."""

from __future__ import annotations

from typing import Final

from pmp.realtime.v1 import realtime_pb2
from pmp.realtime.v1.realtime_pb2_grpc import add_RealtimeServiceServicer_to_server

from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.streams.stream import Stream
from services.realtime.dashboard import Dashboard
from services.realtime.lifetime import Lifetimes
from services.realtime.live import LiveStreams
from services.realtime.servicer import RealtimeServicer
from services.realtime.settings import SERVICE, RealtimeSettings
from services.realtime.today import TodaysOrders
from services.realtime.topics import Topics

_METHODS = realtime_pb2.DESCRIPTOR.services_by_name["RealtimeService"].methods_by_name


def compose(settings: RealtimeSettings, resources: Resources) -> ServiceRuntime:
    """Composes realtime, which has no database: it reads the log, and only while somebody listens."""
    topics = Topics(resources.log, settings.log_partitions)
    lifetimes = Lifetimes(settings.realtime_streams, settings.realtime_streams_per_caller)
    live = LiveStreams(topics, lifetimes, settings.realtime_window_bytes)
    dashboard = Dashboard(topics, TodaysOrders(settings), lifetimes, settings.site_timezone)
    return ServiceRuntime(
        settings,
        resources,
        SERVICE,
        checks={"log": resources.log.check},
        rpcs=[(add_RealtimeServiceServicer_to_server, RealtimeServicer(live, dashboard))],
        streams=[
            Stream(_METHODS["StreamEvents"], live.open, live.end),
            Stream(_METHODS["StreamDashboard"], dashboard.open, dashboard.end),
        ],
    )


ROLE: Final = Role(SERVICE, RealtimeSettings, compose)
