"""Records reports about orders: in the order's columns, its lines, its ledger and on the topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from kit.boundary.caller import bind_log_fields
from kit.database.group_commit import GroupCommit
from kit.database.transactions import Sessions
from kit.errors import MeshError, NotFound
from kit.log.publish.state_topic import StateTopic
from kit.people.keys.store import Keys
from kit.people.suppression import Suppressed, Suppressions
from kit.settings import Settings
from services.purchases.claims import Claim
from services.purchases.erasure import without_erased
from services.purchases.money import NOTHING, Rate
from services.purchases.order_ids import is_purchase_id
from services.purchases.orders import Order, new_row
from services.purchases.publishing import publish_orders
from services.purchases.reports import CheckedPurchase, OrderReport
from services.purchases.repository import Purchases, Rates

MAX_HELD_REPORTS: Final = 100
"""The largest number of reports that are held for an unknown order."""

UNKNOWN_PURCHASE: Final = "there is no such purchase"
"""What a caller reads of an order that does not exist."""

Report: TypeAlias = CheckedPurchase | OrderReport
"""A report as it is recorded: a purchase is sealed in its turn, with the others of its transaction."""


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """The order after a report was recorded, and what the report changed."""

    purchase_id: str
    payment_status: str
    is_duplicate: bool
    """The report changed nothing."""
    is_held: bool
    """The order is unknown: the report is held for it."""
    is_priced: bool
    """The order has an amount in the base currency."""
    is_disputed: bool
    booked_refund: Decimal
    """The increase of the refunded amount."""


class _SameOrderError(Exception):
    """Two reports of a batch, one by the shop's number and one by the purchase id, are about the same order."""


class OrderRecorder:
    """Records reports; those that arrive at the same time share a transaction."""

    def __init__(self, settings: Settings, sessions: Sessions, topic: StateTopic, keys: Keys) -> None:
        self._currency = settings.site_currency
        self._timezone = settings.site_timezone
        self._topic = topic
        self._keys = keys
        self._hasher = keys.hasher
        # A storm of reports about one order queues here, rather than with all connections in hand.
        self._commits: GroupCommit[Report, RecordingResult] = GroupCommit(
            sessions, self._record_batch, key=lambda report: report.purchase_id
        )

    async def record(self, report: Report) -> RecordingResult:
        """Records a report, and publishes the order if it changed.

        Raises:
            NotFound: the order is unknown, and the report can't be held for it.
        """
        result = await self._commits(report)
        self._topic.wake()
        bind_log_fields(
            payment_status=result.payment_status,
            duplicate=result.is_duplicate,
            priced=result.is_priced,
            disputed=result.is_disputed,
        )
        return result

    async def record_each(self, reports: Sequence[Report]) -> Sequence[RecordingResult | MeshError]:
        """Records reports in their order, and returns the result of each, or why it is refused.

        So many are sealed before their turn, while others are recorded.
        """
        sealed = await self._sealed(reports)
        try:
            return await self._commits.each(sealed)
        finally:
            self._topic.wake()

    async def _record_batch(self, session: AsyncSession, several: Sequence[Report]) -> Sequence[RecordingResult]:
        """Records reports about different orders in one transaction.

        Raises:
            _SameOrderError: two of them are about the same order; each of them can be recorded by itself.
        """
        reports = await self._sealed(several)
        purchases, now = Purchases(session), datetime.now(UTC)
        orders = await self._orders(purchases, reports, now)
        suppressed = await self._suppressed(session, reports)
        refunded_before = [order.row.refunded_amount for order in orders]
        stored = [
            without_erased(report, order.row.subject, suppressed, self._hasher) for order, report in zip(orders, reports, strict=True)
        ]
        claims = [_apply(order, report) for order, report in zip(orders, stored, strict=True)]
        rates = await self._rates(session, orders)
        for order, report, claim, rate in zip(orders, stored, claims, rates, strict=True):
            entries = order.book(claim, rate, now, historical=report.historical) if order.row.is_known else ()
            await purchases.add(order, entries, order.report_columns(claim, report.note, now), now)
        await purchases.flush()
        await publish_orders(session, self._topic, [order for order in orders if order.changed])
        return [_result(order, order.row.refunded_amount - before) for order, before in zip(orders, refunded_before, strict=True)]

    async def _sealed(self, reports: Sequence[Report]) -> Sequence[OrderReport]:
        """The reports with personal values sealed. Keys are made together, and committed before the first statement about orders."""
        seals = await self._keys.seals({owner for each in reports if isinstance(each, CheckedPurchase) for owner in each.owners})
        return [each.sealed(seals) if isinstance(each, CheckedPurchase) else each for each in reports]

    async def _orders(self, purchases: Purchases, reports: Sequence[OrderReport], now: datetime) -> Sequence[Order]:
        """The orders that reports are about, locked; new ones where there are none yet."""
        stored = await purchases.orders([(report.site, report.order) for report in reports])
        orders = [order or self._new_order(report, now) for order, report in zip(stored, reports, strict=True)]
        if len({order.row.id for order in orders}) < len(orders):
            raise _SameOrderError
        return orders

    def _new_order(self, report: OrderReport, now: datetime) -> Order:
        if report.details is None and is_purchase_id(report.order):
            raise NotFound(UNKNOWN_PURCHASE)
        return Order(new_row(report.site, report.order, self._currency, now))

    async def _suppressed(self, session: AsyncSession, reports: Sequence[OrderReport]) -> Suppressed:
        identifiers = {identifier for report in reports if report.details for identifier in report.details.identifiers}
        return await Suppressions(session).of(self._hasher, identifiers)

    async def _rates(self, session: AsyncSession, orders: Sequence[Order]) -> Sequence[Rate | None]:
        """The pinned rates of orders; where none is pinned yet, those of the day of the order where the shop is."""
        unpinned = [order.row for order in orders if order.needs_rate]
        for row in unpinned:
            row.ordered_on = row.timestamp.astimezone(self._timezone).date()
        wanted = [(row.rate_day, row.currency, row.base_currency) for row in unpinned]
        found = dict(zip((row.id for row in unpinned), await Rates(session).rates(wanted), strict=True))
        return [found.get(order.row.id, order.row.rate) for order in orders]


def _apply(order: Order, report: OrderReport) -> Claim:
    """Applies a report to its order, or holds it for an unknown one, which has no ledger. Returns what it claims of this order.

    Raises:
        NotFound: the report can't be held.
    """
    claim = report.claim_about(order.row)
    if report.details is not None or order.row.is_known:
        order.apply(claim, report.details)
    elif order.held_reports >= MAX_HELD_REPORTS:
        raise NotFound(f"{UNKNOWN_PURCHASE}, and {MAX_HELD_REPORTS} notices wait for it")
    else:
        order.hold(claim)
    return claim


def _result(order: Order, refund: Decimal) -> RecordingResult:
    row = order.row
    return RecordingResult(
        purchase_id=row.id,
        payment_status=row.payment_status,
        is_duplicate=order.is_duplicate,
        is_held=order.held_reports > 0,
        is_priced=row.base_net_amount is not None,
        is_disputed=row.disputed,
        booked_refund=max(NOTHING, refund),
    )
