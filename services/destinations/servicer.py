"""The rpcs of destinations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pmp.destinations.v1 import destinations_pb2 as pb
from pmp.destinations.v1.destinations_pb2_grpc import DestinationsServiceServicer
from typing_extensions import override

from kit.boundary.caller import Context
from kit.database.transactions import Sessions
from services.destinations.kind import Destination
from services.destinations.messages import destination_message
from services.destinations.repository import Destinations


class DestinationsServicer(DestinationsServiceServicer):
    """Serves the rpcs.

    Args:
        destinations: those that are configured, by name.
    """

    def __init__(self, sessions: Sessions, destinations: Mapping[str, Destination[Any]]) -> None:
        self._sessions = sessions
        self._destinations = destinations

    @override
    async def ListDestinations(self, request: pb.ListDestinationsRequest, context: Context) -> pb.ListDestinationsResponse:
        async with self._sessions.reading() as session:
            states, books = await Destinations(session).all(), await Destinations(session).books()
        listed = [name for name in sorted(states) if name in self._destinations or name in books]
        return pb.ListDestinationsResponse(
            destinations=[destination_message(states[name], books.get(name), is_configured=name in self._destinations) for name in listed]
        )
