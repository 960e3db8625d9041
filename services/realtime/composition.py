"""The role of realtime: streams events and orders over gRPC and HTTP."""

from __future__ import annotations

from typing import Final

from pmp.realtime.v1 import realtime_pb2
from pmp.realtime.v1.realtime_pb2_grpc import add_RealtimeServiceServicer_to_server

from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.streams.stream import Stream
from services.realtime.live import LiveStreams
from services.realtime.servicer import RealtimeServicer
from services.realtime.settings import SERVICE, RealtimeSettings

_METHODS = realtime_pb2.DESCRIPTOR.services_by_name["RealtimeService"].methods_by_name


def compose(settings: RealtimeSettings, resources: Resources) -> ServiceRuntime:
    """Composes realtime, which has no database: it reads the log alone, and only while somebody listens."""
    live = LiveStreams(settings, resources.log)
    return ServiceRuntime(
        settings,
        resources,
        SERVICE,
        checks={"log": resources.log.check},
        rpcs=[(add_RealtimeServiceServicer_to_server, RealtimeServicer(live))],
        streams=[Stream(_METHODS["StreamEvents"], live.open, live.end)],
    )


ROLE: Final = Role(SERVICE, RealtimeSettings, compose)
