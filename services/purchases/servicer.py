"""The rpcs of purchases: orders are told, paid, paid back and looked up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple
from urllib.parse import unquote
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields, caller
from kit.database.group_commit import GroupCommit
from kit.database.transactions import Sessions
from kit.errors import InvalidRequest, NotFound, Violation
from kit.log.publish.state_topic import StateTopic
from kit.people.keys.seals import Decryptor
from kit.people.keys.store import Keys
from kit.people.persons import Persons, subject_of
from kit.people.subjects.holdings import Row
from kit.people.subjects.words import OTHER, SENDERS, listed
from kit.people.suppression import Suppressed, Suppressions
from kit.rules import Period, check, page_key, page_token, wrong_struct, wrong_time
from kit.settings import Settings
from services.purchases.messages import (
    Told,
    changed_message,
    is_erased,
    may_be_ordered,
    names_in,
    of_nobody,
    purchase_id_of,
    recorded_message,
    reference_pseudonym,
    sealed_under,
    told,
    unsuppressed,
)
from services.purchases.models import PurchaseRow
from services.purchases.money import NOTHING, exact, is_currency
from services.purchases.orders import Order, new_row
from services.purchases.repository import Filter, Purchases, Rates
from services.purchases.rules import Claim, NoticeKind, Status, paid_when_paid, reason_of, status_of

MOST_WAITING: Final = 100
"""Notices that wait for an order at most."""
_PAGE = 50
_NO_CURRENCY = "currency is no code of ISO 4217, nor of WooCommerce, in which one pays or could once"
_TIMES: Final = ("timestamp", "paid_at", "reported_at")
_UNKNOWN = "there is no such purchase"


@dataclass(frozen=True, slots=True)
class _Notice:
    """What somebody tells of an order."""

    site: str
    name: str
    """The purchase id, or the shop's own number."""
    claim: Callable[[Order], Claim]
    """What is claimed; a refund is in the currency of its order."""
    reason: str = ""
    told: Told | None = None
    """What else is known of the order; None when it has to be there already."""

    @property
    def purchase_id(self) -> str:
        """The purchase id, if the name is the shop's number."""
        return purchase_id_of(self.site, self.name)


class _Recorded(NamedTuple):
    """What became of a notice."""

    order: Order
    booked_refund: Decimal
    """By how much it raised what was paid back."""


class _ToldTwice(Exception):
    """Two notices that were taken in together, by the shop's number and by the purchase id, are about one order."""


class Retell:
    """What follows from purchases having been erased: the topic tells them anew without the person, or not any more."""

    def __init__(self, topic: StateTopic) -> None:
        self._topic = topic

    async def __call__(self, session: AsyncSession, rows: Sequence[Row]) -> None:
        """Tells of those that stay."""
        purchases, ids = Purchases(session), [row["id"] for row in rows]
        stay, lines, entries = await purchases.named(ids), await purchases.lines(ids), await purchases.entries(ids)
        await self._topic.forget(session, set(ids) - {row.id for row in stay})
        told = [(row.id, changed_message(row, lines.get(row.id, ()), entries.get(row.id, ()))) for row in stay]
        await self._topic.publish(session, told)


class PurchasesServicer(PurchasesServiceServicer):
    """Keeps the shop's orders and their ledger."""

    def __init__(self, settings: Settings, sessions: Sessions, topic: StateTopic, keys: Keys) -> None:
        self._settings = settings
        self._sessions = sessions
        self._topic = topic
        self._vault = keys.vault
        self._keys = keys
        # A storm of notices of one order waits here, and not with all connections in hand.
        self._together: GroupCommit[_Notice, _Recorded] = GroupCommit(sessions, self._recorded, key=lambda notice: notice.purchase_id)

    @override
    async def TrackPurchase(self, request: pb.TrackPurchaseRequest, context: Context) -> pb.TrackPurchaseResponse:
        purchase, site = request.purchase, self._site()
        currency = purchase.currency.upper() or self._settings.site_currency
        check(
            *(self._wrong_time(f"purchase.{name}", getattr(purchase, name)) for name in _TIMES if purchase.HasField(name)),
            wrong_struct("purchase.billing_address", purchase.billing_address),
            wrong_struct("purchase.metadata", purchase.metadata),
            None if is_currency(currency) else Violation("purchase.currency", _NO_CURRENCY),
        )
        word, paid_at, reported_at = purchase.payment_status or Status.COMPLETED, _at(purchase, "paid_at"), _at(purchase, "reported_at")
        method, status = purchase.payment_method, _status("purchase.payment_status", word)
        claim = Claim(
            kind=NoticeKind.PURCHASE,
            status=paid_when_paid(status, word, method=method, paid_at=paid_at, reported=reported_at is not None),
            amount=exact(purchase.amount, currency),
            currency=currency,
            at=paid_at or purchase.timestamp.ToDatetime(UTC),
            reference=purchase.id,
            refunded_total=exact(purchase.refunded_total, currency) if purchase.HasField("refunded_total") else None,
            source=purchase.source,
            reported_at=reported_at,
            paid_at=paid_at,
            reason=reason_of(purchase.reason, word) if reported_at else None,
        )
        email_hash = self._vault.fingerprint(purchase.email) if purchase.email else b""
        news = told(purchase, currency, email_hash, await self._keys.seals(sealed_under(purchase, email_hash)))
        order, _ = await self._record(_Notice(site, purchase.order_id, lambda _: claim, told=news))
        return pb.TrackPurchaseResponse(success=True, purchase_id=order.row.id, duplicate=order.is_duplicate)

    @override
    async def RefundPurchase(self, request: pb.RefundPurchaseRequest, context: Context) -> pb.RefundPurchaseResponse:
        refund = request.refund
        reported_at = self._time("refund.reported_at", refund.reported_at) if refund.HasField("reported_at") else None
        at = self._time("refund.timestamp", refund.timestamp) if refund.HasField("timestamp") else reported_at or datetime.now(UTC)

        def claim(order: Order) -> Claim:
            currency = order.row.currency
            return Claim(
                kind=NoticeKind.REFUND,
                amount=_exact(refund.amount, currency) if refund.HasField("amount") else None,
                currency=currency,
                at=at,
                reference=refund.reference,
                refunded_total=_exact(refund.refunded_total, currency) if refund.HasField("refunded_total") else None,
                source=refund.source,
                reported_at=reported_at,
                deleted=refund.deleted,
            )

        order, booked = await self._record(_Notice(self._site(), unquote(request.id), claim, refund.reason))
        return pb.RefundPurchaseResponse(
            success=True,
            purchase_id=order.row.id,
            duplicate=order.is_duplicate,
            booked_amount=float(booked),
            waiting=order.waiting > 0,
        )

    @override
    async def UpdatePaymentStatus(self, request: pb.UpdatePaymentStatusRequest, context: Context) -> pb.UpdatePaymentStatusResponse:
        status = _status("payment_status", request.payment_status)
        at = self._time("timestamp", request.timestamp) if request.HasField("timestamp") else datetime.now(UTC)

        def claim(order: Order) -> Claim:
            stands = paid_when_paid(status, request.payment_status, method=order.row.payment_method or "")
            return Claim(NoticeKind.STATUS, stands, currency=order.row.currency, at=at, reference=request.reference, source=request.source)

        order, _ = await self._record(_Notice(self._site(), unquote(request.id), claim))
        return pb.UpdatePaymentStatusResponse(
            success=True,
            purchase_id=order.row.id,
            duplicate=order.is_duplicate,
            payment_status="" if order.waiting else order.row.payment_status,
            waiting=order.waiting > 0,
        )

    @override
    async def GetPurchase(self, request: pb.GetPurchaseRequest, context: Context) -> pb.GetPurchaseResponse:
        async with self._sessions.reading() as session:
            purchases = Purchases(session)
            row = await purchases.find(self._site(), unquote(request.id))
            if row is None:
                raise NotFound(_UNKNOWN)
            if not row.is_known:
                raise NotFound(f"{_UNKNOWN}; {await purchases.count_notices(row.id)} refunds or statuses wait for it")
            [shown] = await self._shown(session, [row], await self._keys.decryptor([row.billing_data]))
        return pb.GetPurchaseResponse(purchase=shown)

    @override
    async def ListPurchases(self, request: pb.ListPurchasesRequest, context: Context) -> pb.ListPurchasesResponse:
        behind = page_key(request.page_token, lambda text: str(UUID(text)))
        since, limit = getattr(request, "from"), request.page_size or _PAGE  # a keyword of Python
        async with self._sessions.reading() as session:
            chosen = Filter(
                subjects=await _subjects(session, request.user_id) if request.user_id else None,
                status=request.payment_status or None,
                product_id=request.product_id or None,
                date=request.date or "order",
                since=since.ToDatetime(UTC) if request.HasField("from") else None,
                until=request.to.ToDatetime(UTC) if request.HasField("to") else None,
                include_excluded=request.include_excluded,
            )
            rows = await Purchases(session).page(chosen, behind, limit + 1)
            page = rows[:limit]
            shown = await self._shown(session, page)
        bind_log_fields(purchases=len(shown))
        return pb.ListPurchasesResponse(
            purchases=shown, next_page_token=page_token(page[-1].timestamp, page[-1].id) if len(rows) > limit else ""
        )

    @override
    async def ListPurchaseChanges(
        self, request: pb.ListPurchaseChangesRequest, context: Context
    ) -> AsyncIterator[pb.ListPurchaseChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            changes = [change_pb2.PurchaseChanged.FromString(payload) for payload in payloads]
            yield pb.ListPurchaseChangesResponse(position=position, changes=changes)

    async def _record(self, notice: _Notice) -> _Recorded:
        """Writes down what a notice told, and publishes what it changed."""
        recorded = await self._together(notice)
        self._topic.wake()
        row = recorded.order.row
        bind_log_fields(
            payment_status=row.payment_status,
            duplicate=recorded.order.is_duplicate,
            priced=row.base_net_amount is not None,
            disputed=row.disputed,
        )
        return recorded

    async def _recorded(self, session: AsyncSession, notices: Sequence[_Notice]) -> Sequence[_Recorded]:
        purchases, rates, now = Purchases(session), Rates(session), datetime.now(UTC)
        known = await purchases.orders([(notice.site, notice.name) for notice in notices])
        names = {name for notice in notices if notice.told for name in names_in(notice.told)}
        suppressed = await Suppressions(session).of(self._vault, names)
        recorded: list[_Recorded] = []
        seen: set[str] = set()
        for notice, found in zip(notices, known, strict=True):
            if found is None and notice.told is None and not may_be_ordered(notice.name):
                raise NotFound(_UNKNOWN)
            order = found or Order(new_row(notice.site, notice.name, self._settings.site_currency))
            row = order.row
            if row.id in seen:
                raise _ToldTwice
            seen.add(row.id)
            before, claim, reason = row.refunded_amount, notice.claim(order), notice.reason
            news = notice.told and _unsuppressed(order, notice.told, suppressed)
            if is_erased(row.subject, news):
                source = claim.source and (listed(claim.source, SENDERS) or OTHER)
                claim, reason = replace(claim, reference=reference_pseudonym(self._vault, claim.reference), source=source), ""
            if notice.told is None and not row.is_known:
                if order.waiting >= MOST_WAITING:
                    raise NotFound(f"{_UNKNOWN}, and {MOST_WAITING} notices wait for it")
                order.wait(claim, now)
                await purchases.add(order, (), order.notice(claim, reason, now), now)
                recorded.append(_Recorded(order, NOTHING))
                continue
            order.tell(claim, news)
            if order.awaits_rate:
                row.ordered_on = day = row.timestamp.astimezone(self._settings.site_timezone).date()
                rate = await rates.rate(day, row.currency, row.base_currency)
            else:
                rate = row.rate
            entries = order.book(claim, rate, now)
            await purchases.add(order, entries, order.notice(claim, reason, now), now)
            recorded.append(_Recorded(order, max(NOTHING, row.refunded_amount - before)))
        await purchases.flush()
        told = [order for order, _ in recorded if order.changed]
        await self._topic.publish(session, [(order.row.id, changed_message(order.row, order.lines, order.entries)) for order in told])
        return recorded

    async def _shown(
        self, session: AsyncSession, rows: Sequence[PurchaseRow], decryptor: Decryptor | None = None
    ) -> list[pb.RecordedPurchase]:
        ids, purchases = [row.id for row in rows], Purchases(session)
        lines, entries = await purchases.lines(ids), await purchases.entries(ids)
        people = await Persons(session).people({row.subject for row in rows})
        return [
            recorded_message(row, lines.get(row.id, []), entries.get(row.id, []), people.get(row.subject, ""), decryptor) for row in rows
        ]

    def _site(self) -> str:
        """The shop that speaks: the owner of the API key. Inside the mesh it is the mesh's own shop."""
        return caller().client or self._settings.site_name

    def _time(self, field: str, told: Timestamp) -> datetime:
        """When something happened."""
        check(self._wrong_time(field, told))
        return told.ToDatetime(UTC)

    def _wrong_time(self, field: str, told: Timestamp) -> Violation | None:
        return wrong_time(field, told, Period.kept(self._settings, "purchases.purchases"))


def _unsuppressed(order: Order, news: Told, suppressed: Suppressed) -> Told:
    """What a notice tells, but of nobody who was erased: the sale counts, whoever it was."""
    return of_nobody(news) if is_erased(order.row.subject, None) else unsuppressed(news, suppressed)


def _at(message: Message, field: str) -> datetime | None:
    """A time that may be missing."""
    return getattr(message, field).ToDatetime(UTC) if message.HasField(field) else None


def _exact(amount: float, currency: str) -> Decimal:
    """An amount in its currency; as it was told, where that is not known yet."""
    return exact(amount, currency) if currency else Decimal(repr(amount))


async def _subjects(session: AsyncSession, user_id: str) -> Sequence[str]:
    """The names of the person that a user belongs to; of one that nobody knows, the user's own."""
    persons, subject = Persons(session), subject_of(user_id=user_id)
    person = await persons.person(subject)
    return sorted({subject, *(await persons.subjects(person) if person else ())})


def _status(field: str, word: str) -> Status:
    status = status_of(word)
    if status is None:
        raise InvalidRequest([Violation(field, f"payment_status is none of {', '.join(Status)}, nor a word of WooCommerce for one")])
    return status
