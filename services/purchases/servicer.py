"""The rpcs of purchases: record, find and list orders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote
from uuid import UUID

from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.batch import BatchReader
from kit.boundary.caller import Context, bind_log_fields, caller
from kit.database.transactions import Sessions
from kit.errors import NotFound
from kit.log.publish.state_topic import StateTopic
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import Decryptor
from kit.people.keys.store import Keys
from kit.people.persons import Persons
from kit.rules import Period, page_key, page_token
from kit.settings import Settings
from services.purchases.messages import recorded_message
from services.purchases.recorder import UNKNOWN_PURCHASE, OrderRecorder
from services.purchases.records import PurchaseRecord
from services.purchases.reports import CheckedPurchase, check_purchase, refund_report, status_report
from services.purchases.repository import Filter, Purchases

_PAGE: Final = 50


class PurchasesServicer(PurchasesServiceServicer):
    """Keeps the shop's orders and their ledger."""

    def __init__(self, settings: Settings, sessions: Sessions, topic: StateTopic, keys: Keys) -> None:
        self._settings = settings
        self._sessions = sessions
        self._topic = topic
        self._keys = keys
        self._recorder = OrderRecorder(settings, sessions, topic, keys)
        self._batches = BatchReader(settings, pb.TrackPurchasesRequest.DESCRIPTOR, "purchases", "purchase")

    @override
    async def TrackPurchase(self, request: pb.TrackPurchaseRequest, context: Context) -> pb.TrackPurchaseResponse:
        result = await self._recorder.record(self._checked(request.purchase))
        return pb.TrackPurchaseResponse(success=True, purchase_id=result.purchase_id, duplicate=result.is_duplicate)

    @override
    async def TrackPurchases(self, request: pb.TrackPurchasesRequest, context: Context) -> pb.TrackPurchasesResponse:
        batch = self._batches.read(request)
        results = await self._recorder.record_each(batch.admit(self._checked))
        response = pb.TrackPurchasesResponse()
        batch.answer(response, results, lambda result: {"purchase_id": result.purchase_id, "duplicate": result.is_duplicate})
        return response

    @override
    async def RefundPurchase(self, request: pb.RefundPurchaseRequest, context: Context) -> pb.RefundPurchaseResponse:
        report = refund_report(self._site(), request, self._allowed_times(), datetime.now(UTC))
        result = await self._recorder.record(report)
        return pb.RefundPurchaseResponse(
            success=True,
            purchase_id=result.purchase_id,
            duplicate=result.is_duplicate,
            booked_amount=float(result.booked_refund),
            waiting=result.is_held,
        )

    @override
    async def UpdatePaymentStatus(self, request: pb.UpdatePaymentStatusRequest, context: Context) -> pb.UpdatePaymentStatusResponse:
        report = status_report(self._site(), request, self._allowed_times(), datetime.now(UTC))
        result = await self._recorder.record(report)
        return pb.UpdatePaymentStatusResponse(
            success=True,
            purchase_id=result.purchase_id,
            duplicate=result.is_duplicate,
            payment_status="" if result.is_held else result.payment_status,
            waiting=result.is_held,
        )

    @override
    async def GetPurchase(self, request: pb.GetPurchaseRequest, context: Context) -> pb.GetPurchaseResponse:
        async with self._sessions.reading() as session:
            purchases = Purchases(session)
            row = await purchases.find(self._site(), unquote(request.id))
            if row is None:
                raise NotFound(UNKNOWN_PURCHASE)
            if not row.is_known:
                raise NotFound(f"{UNKNOWN_PURCHASE}; {await purchases.count_reports(row.id)} refunds or statuses wait for it")
            [purchase] = await _messages(session, [row], await self._keys.decryptor([row.billing_data, row.visitor]))
        return pb.GetPurchaseResponse(purchase=purchase)

    @override
    async def ListPurchases(self, request: pb.ListPurchasesRequest, context: Context) -> pb.ListPurchasesResponse:
        after = page_key(request.page_token, lambda text: str(UUID(text)))
        since, limit = getattr(request, "from"), request.page_size or _PAGE  # a keyword of Python
        async with self._sessions.reading() as session:
            chosen = Filter(
                identifiers=await _identifiers(session, request.user_id) if request.user_id else None,
                status=request.payment_status or None,
                product_id=request.product_id or None,
                date=request.date or "order",
                since=since.ToDatetime(UTC) if request.HasField("from") else None,
                until=request.to.ToDatetime(UTC) if request.HasField("to") else None,
                include_excluded=request.include_excluded,
            )
            rows = await Purchases(session).page(chosen, after, limit + 1)
            page = rows[:limit]
            purchases = await _messages(session, page)
        bind_log_fields(purchases=len(purchases))
        return pb.ListPurchasesResponse(
            purchases=purchases, next_page_token=page_token(page[-1].timestamp, page[-1].id) if len(rows) > limit else ""
        )

    @override
    async def ListPurchaseChanges(
        self, request: pb.ListPurchaseChangesRequest, context: Context
    ) -> AsyncIterator[pb.ListPurchaseChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            changes = [change_pb2.PurchaseChanged.FromString(payload) for payload in payloads]
            yield pb.ListPurchaseChangesResponse(position=position, changes=changes)

    def _checked(self, purchase: pb.Purchase) -> CheckedPurchase:
        email_hash = self._keys.hasher.fingerprint(purchase.email) if purchase.email else b""
        return check_purchase(self._site(), purchase, email_hash, self._settings.site_currency, self._allowed_times())

    def _site(self) -> str:
        """The calling shop, which owns the API key; for calls from inside the mesh, the mesh's own shop."""
        return caller().client or self._settings.site_name

    def _allowed_times(self) -> Period:
        return Period.kept(self._settings, "purchases.purchases")


async def _messages(session: AsyncSession, rows: Sequence[PurchaseRecord], decryptor: Decryptor | None = None) -> list[pb.RecordedPurchase]:
    """The messages of orders, with their lines, ledgers and persons."""
    ids, purchases = [row.id for row in rows], Purchases(session)
    lines, entries = await purchases.lines(ids), await purchases.entries(ids)
    persons = await Persons(session).people({row.subject for row in rows})
    return [recorded_message(row, lines.get(row.id, []), entries.get(row.id, []), persons.get(row.subject, ""), decryptor) for row in rows]


async def _identifiers(session: AsyncSession, user_id: str) -> Sequence[str]:
    """The identifiers of the person that a user belongs to; for an unknown user, the user's own."""
    persons, identifier = Persons(session), identifier_of(user_id=user_id)
    person = await persons.person(identifier)
    return sorted({identifier, *(await persons.identifiers(person) if person else ())})
