"""The rpcs of destinations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from pmp.destinations.v1 import destinations_pb2 as pb
from pmp.destinations.v1.destinations_pb2_grpc import DestinationsServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.caller import Context
from kit.database.transactions import Sessions, transact
from kit.errors import NotFound
from services.destinations.connected import connect_site
from services.destinations.erasing import Erasing
from services.destinations.kind import Destination, Outcome, Result
from services.destinations.messages import delivery_message, destination_message, is_open
from services.destinations.models import DestinationRow
from services.destinations.operations import AT_ONCE, Operations, Verdict
from services.destinations.repository import Deliveries, Destinations

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_BY_OPERATOR: Final = "by an operator"


class DestinationsServicer(DestinationsServiceServicer):
    """Serves the rpcs.

    Args:
        destinations: those that are configured, by name.
        wake: signals that there may be more to send.
    """

    def __init__(self, sessions: Sessions, destinations: Mapping[str, Destination[Any]], wake: Callable[[], None]) -> None:
        self._sessions = sessions
        self._destinations = destinations
        self._wake = wake
        self._erasing = Erasing(sessions, destinations)

    @override
    async def ListDestinations(self, request: pb.ListDestinationsRequest, context: Context) -> pb.ListDestinationsResponse:
        async with self._sessions.reading() as session:
            states, books = await Destinations(session).all(), await Destinations(session).books()
        now = datetime.now(UTC)
        listed = [name for name in sorted(states) if name in self._destinations or name in books]
        return pb.ListDestinationsResponse(
            destinations=[
                destination_message(states[name], books.get(name), now, is_configured=name in self._destinations) for name in listed
            ]
        )

    @override
    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: Context) -> pb.ListDeliveriesResponse:
        what = f"order:{request.order_id}" if request.order_id else f"event:{request.event_id}"
        async with self._sessions.reading() as session:
            rows = await Deliveries(session).about(what, AT_ONCE)
        return pb.ListDeliveriesResponse(deliveries=[delivery_message(row) for row in rows])

    @override
    async def ConnectSite(self, request: pb.ConnectSiteRequest, context: Context) -> pb.ConnectSiteResponse:
        now = datetime.now(UTC)
        connected = await transact(self._sessions, lambda session: connect_site(session, request.url, now))
        return pb.ConnectSiteResponse(connected=connected)

    @override
    async def PauseDestination(self, request: pb.PauseDestinationRequest, context: Context) -> pb.PauseDestinationResponse:
        async def work(session: AsyncSession) -> bool:
            row = await self._locked(session, request.name)
            await Destinations(session).set_paused(row.name, request.reason or _BY_OPERATOR)
            return not row.is_paused

        return pb.PauseDestinationResponse(changed=await transact(self._sessions, work))

    @override
    async def ResumeDestination(self, request: pb.ResumeDestinationRequest, context: Context) -> pb.ResumeDestinationResponse:
        async def work(session: AsyncSession) -> bool:
            row = await self._locked(session, request.name)
            await Destinations(session).set_paused(row.name, None)
            return row.is_paused or is_open(row, datetime.now(UTC))

        changed = await transact(self._sessions, work)
        self._wake()
        return pb.ResumeDestinationResponse(changed=changed)

    @override
    async def TestDestination(self, request: pb.TestDestinationRequest, context: Context) -> pb.TestDestinationResponse:
        try:
            result = await self._configured(request.name).test()
        except httpx.HTTPError as error:
            result = Result(Outcome.RETRY, type(error).__name__)
        return pb.TestDestinationResponse(success=result.outcome is Outcome.DELIVERED, detail=result.detail)

    @override
    async def ReplayDeliveries(self, request: pb.ReplayDeliveriesRequest, context: Context) -> pb.ReplayDeliveriesResponse:
        destination, now = self._configured(request.name), datetime.now(UTC)
        since = getattr(request, "from").ToDatetime(UTC) if request.HasField("from") else _BEGINNING
        until = request.to.ToDatetime(UTC) if request.HasField("to") else now
        counts: Counter[Verdict] = Counter()
        last: int | None = 0
        while last is not None:

            async def work(session: AsyncSession, after: int = last) -> tuple[int | None, Counter[Verdict]]:
                operations = Operations(session, request.name)
                return await operations.replay(destination, since, until, after, now, dry_run=request.dry_run)

            last, some = await transact(self._sessions, work)
            counts += some
        self._wake()
        return pb.ReplayDeliveriesResponse(**{verdict.value: counts[verdict] for verdict in Verdict})

    @override
    async def ListDeadDeliveries(self, request: pb.ListDeadDeliveriesRequest, context: Context) -> pb.ListDeadDeliveriesResponse:
        async with self._sessions.reading() as session:
            await self._known(session, request.name)
            rows = await Operations(session, request.name).dead(request.after)
        return pb.ListDeadDeliveriesResponse(deliveries=[delivery_message(row) for row in rows])

    @override
    async def RetryDeadDeliveries(self, request: pb.RetryDeadDeliveriesRequest, context: Context) -> pb.RetryDeadDeliveriesResponse:
        self._configured(request.name)
        now = datetime.now(UTC)
        retried = await self._repeated(lambda session: Operations(session, request.name).retry(request.ids, now))
        self._wake()
        return pb.RetryDeadDeliveriesResponse(retried=retried)

    @override
    async def DropDeadDeliveries(self, request: pb.DropDeadDeliveriesRequest, context: Context) -> pb.DropDeadDeliveriesResponse:
        async with self._sessions.reading() as session:
            await self._known(session, request.name)
        dropped = await self._repeated(lambda session: Operations(session, request.name).drop(request.ids))
        return pb.DropDeadDeliveriesResponse(dropped=dropped)

    @override
    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Context) -> pb.ErasePersonResponse:
        return await self._erasing.erase(request)

    async def _repeated(self, work: Callable[[AsyncSession], Awaitable[int]]) -> int:
        """Does work in transactions until one has nothing to do; returns how much was done."""
        total = 0
        while some := await transact(self._sessions, work):
            total += some
        return total

    def _configured(self, name: str) -> Destination[Any]:
        if name not in self._destinations:
            raise NotFound(f"no destination {name} is configured; there are {', '.join(sorted(self._destinations)) or 'none'}")
        return self._destinations[name]

    async def _known(self, session: AsyncSession, name: str) -> None:
        if await Destinations(session).get(name) is None:
            raise NotFound(f"there is no destination {name}")

    async def _locked(self, session: AsyncSession, name: str) -> DestinationRow:
        if name in self._destinations:
            await Destinations(session).add({name: self._destinations[name].options.kind}, datetime.now(UTC))
        row = (await Destinations(session).lock([name])).get(name)
        if row is None:
            raise NotFound(f"there is no destination {name}")
        return row
