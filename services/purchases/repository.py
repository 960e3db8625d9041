"""All SQL of purchases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from kit.database.transactions import upsert
from kit.log.tables import outbox_heads
from kit.rules import PageKey
from services.purchases.exchange import ANCHOR, OLDEST, Quote, by_day, rate_on
from services.purchases.messages import TOPIC, purchase_id_of
from services.purchases.models import EntryRow, LineRow, NoticeRow, PurchaseRow, RateRow
from services.purchases.money import PAR, Rate
from services.purchases.orders import AWAITED, Order
from services.purchases.rules import Claim, NoticeKind, Reason, Status

_AT_ONCE = 500
_RATES: Table = cast("Table", RateRow.__table__)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which orders to list; None does not choose."""

    subjects: Collection[str] | None = None
    status: str | None = None
    product_id: str | None = None
    date: str = "order"
    """Of which date the period is: of the order, its sale, or an entry of its ledger."""
    since: datetime | None = None
    until: datetime | None = None
    """Orders of this time are left out."""
    include_excluded: bool = False


class Purchases:
    """Orders and their ledger within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, site: str, name: str) -> PurchaseRow | None:
        """The order that is named by its purchase id, or by the shop's own number."""
        ids = (name, purchase_id_of(site, name))
        rows = (await self._session.scalars(select(PurchaseRow).where(PurchaseRow.id.in_(ids)))).all()
        return min(rows, key=lambda row: ids.index(row.id), default=None)

    async def named(self, ids: Collection[str]) -> Sequence[PurchaseRow]:
        """The orders of these ids, as they are now."""
        query = select(PurchaseRow).where(PurchaseRow.id.in_(ids)).order_by(PurchaseRow.id)
        return (await self._session.scalars(query.execution_options(populate_existing=True))).all()

    async def orders(self, named: Sequence[tuple[str, str]]) -> Sequence[Order | None]:
        """The orders that are named by site and name, as `find` has it, each with all that is known of it.

        They are locked: until the end nobody else changes them.
        """
        ids = [(name, purchase_id_of(site, name)) for site, name in named]
        query = select(PurchaseRow).where(PurchaseRow.id.in_({each for pair in ids for each in pair})).order_by(PurchaseRow.id)
        rows = {row.id: row for row in await self._session.scalars(query.with_for_update())}
        if not rows:
            return [None] * len(named)
        lines, entries, claims = await self.lines(rows), await self.entries(rows), await self._claims(rows)
        found = (rows.get(first) or rows.get(second) for first, second in ids)
        return [row and Order(row, claims.get(row.id, ()), lines.get(row.id, ()), entries.get(row.id, ())) for row in found]

    async def add(self, order: Order, entries: Sequence[EntryRow], notice: NoticeRow, now: datetime) -> None:
        """What a notice changed of an order, and the notice, to be written with the next `flush`."""
        row = order.row
        if "lines" in order.changed and row.created_at:
            await self._session.execute(delete(LineRow).where(LineRow.purchase_id == row.id))
        row.created_at = row.created_at or now
        if order.changed or not row.updated_at:
            row.updated_at = now
        if "lines" in order.changed:
            self._session.add_all(order.lines)
        self._session.add_all([row, *entries, notice])

    async def flush(self) -> None:
        """Writes what was added.

        Raises:
            IntegrityError: another transaction made one of the orders meanwhile.
        """
        await self._session.flush()

    async def lines(self, purchase_ids: Collection[str]) -> Mapping[str, Sequence[LineRow]]:
        """The lines of orders."""
        found: dict[str, list[LineRow]] = defaultdict(list)
        query = select(LineRow).where(LineRow.purchase_id.in_(purchase_ids)).order_by(LineRow.purchase_id, LineRow.number)
        for row in await self._session.scalars(query):
            found[row.purchase_id].append(row)
        return found

    async def entries(self, purchase_ids: Collection[str]) -> Mapping[str, Sequence[EntryRow]]:
        """The ledgers of orders, in the order they were booked."""
        found: dict[str, list[EntryRow]] = defaultdict(list)
        query = select(EntryRow).where(EntryRow.purchase_id.in_(purchase_ids)).order_by(EntryRow.purchase_id, EntryRow.id)
        for row in await self._session.scalars(query):
            found[row.purchase_id].append(row)
        return found

    async def page(self, chosen: Filter, behind: PageKey[str] | None, limit: int) -> Sequence[PurchaseRow]:
        """Orders, newest first."""
        return (await self._session.scalars(choice(chosen, behind, limit))).all()

    async def unpriced(self, after: str, limit: int) -> Sequence[Order]:
        """Paid orders without a rate whose ids come after one, locked; with what it takes to price and to publish them."""
        query = select(PurchaseRow).where(PurchaseRow.base_net_amount.is_(None), PurchaseRow.id > after)
        rows = (await self._session.scalars(query.order_by(PurchaseRow.id).limit(limit).with_for_update())).all()
        ids = [row.id for row in rows]
        lines, entries = await self.lines(ids), await self.entries(ids)
        return [Order(row, lines=lines.get(row.id, ()), entries=entries.get(row.id, ())) for row in rows]

    async def count_unpriced(self) -> int:
        """How many paid orders have no rate."""
        return await self._session.scalar(select(func.count()).where(PurchaseRow.base_net_amount.is_(None))) or 0

    async def count_awaited(self) -> int:
        """How many orders are not known yet, while notices wait for them."""
        return await self._session.scalar(select(func.count()).where(PurchaseRow.payment_status == AWAITED)) or 0

    async def give_up(self, before: datetime) -> int:
        """Deletes orders that have been awaited since before a time, and their notices; says how many there were."""
        own = (PurchaseRow.payment_status == AWAITED, PurchaseRow.timestamp < before)
        ids = (await self._session.scalars(select(PurchaseRow.id).where(*own).limit(_AT_ONCE).with_for_update())).all()
        await self._session.execute(delete(NoticeRow).where(NoticeRow.purchase_id.in_(ids)))
        await self._session.execute(delete(PurchaseRow).where(PurchaseRow.id.in_(ids)))
        return len(ids)

    async def count_notices(self, purchase_id: str) -> int:
        """How many notices there are of an order."""
        return await self._session.scalar(select(func.count()).where(NoticeRow.purchase_id == purchase_id)) or 0

    async def partitions(self) -> int:
        """Into how many partitions the topic is cut; 0 when the service has never run."""
        return await self._session.scalar(select(func.count()).where(outbox_heads.c.topic == TOPIC)) or 0

    async def _claims(self, purchase_ids: Collection[str]) -> Mapping[str, Sequence[Claim]]:
        """What the notices of orders told that was new then, in the order of their arrival."""
        found: dict[str, list[Claim]] = defaultdict(list)
        query = select(NoticeRow).where(NoticeRow.purchase_id.in_(purchase_ids), NoticeRow.is_news).order_by(NoticeRow.id)
        for row in await self._session.scalars(query):
            found[row.purchase_id].append(_claim(row))
        return found


class Rates:
    """Exchange rates within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def rate(self, day: date, currency: str, base: str) -> Rate | None:
        """What a currency was worth in the base currency on a day; None when there was no rate for it, nor in the week before."""
        return PAR if currency == base else (await self.rates([(day, currency, base)]))[0]

    async def rates(self, wanted: Sequence[tuple[date, str, str]]) -> Sequence[Rate | None]:
        """The same for several days, currencies and base currencies, in one query."""
        if not wanted:
            return []
        first, last = min(day for day, _, _ in wanted) - OLDEST, max(day for day, _, _ in wanted)
        codes = {code for _, *pair in wanted for code in pair} - {ANCHOR}
        query = select(RateRow.day, RateRow.currency, RateRow.units).where(
            RateRow.day.between(first, last), RateRow.currency.in_(sorted(codes))
        )
        days = by_day(Quote(row.day, row.currency, row.units) for row in await self._session.execute(query))
        return [rate_on(day, currency, base, days) for day, currency, base in wanted]

    async def store(self, quotes: Sequence[Quote], source: str) -> None:
        """Writes rates down; those that are known are replaced."""
        rows: list[dict[str, Any]] = [
            {"day": quote.day, "currency": quote.currency, "units": quote.units, "source": source} for quote in quotes
        ]
        await upsert(self._session, _RATES, rows)


def choice(chosen: Filter, behind: PageKey[str] | None, limit: int) -> Select[PurchaseRow]:
    """The query of a page of orders, newest first."""
    time, id_ = PurchaseRow.timestamp, PurchaseRow.id
    query = select(PurchaseRow).where(*_conditions(chosen))
    if behind is not None:
        query = query.where(time <= behind.at, or_(time < behind.at, and_(time == behind.at, id_ < behind.id)))
    return query.order_by(time.desc(), id_.desc()).limit(limit)


def _conditions(chosen: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [PurchaseRow.payment_status != AWAITED]
    if not chosen.include_excluded:
        conditions += [PurchaseRow.is_test.is_(False), PurchaseRow.is_staff.is_(False)]
    if chosen.subjects is not None:
        conditions.append(PurchaseRow.subject.in_(chosen.subjects))
    if chosen.status is not None:
        conditions.append(PurchaseRow.payment_status == chosen.status)
    if chosen.product_id is not None:
        conditions.append(PurchaseRow.id.in_(select(LineRow.purchase_id).where(LineRow.product_id == chosen.product_id)))
    if chosen.date == "entry":
        booked = _period(EntryRow.timestamp, chosen)
        return [*conditions, PurchaseRow.id.in_(select(EntryRow.purchase_id).where(*booked))]
    if chosen.date == "sale":
        return [*conditions, PurchaseRow.sold_at.is_not(None), *_period(PurchaseRow.sold_at, chosen)]
    return [*conditions, *_period(PurchaseRow.timestamp, chosen)]


def _period(time: InstrumentedAttribute[Any], chosen: Filter) -> list[ColumnElement[bool]]:
    since = [] if chosen.since is None else [time >= chosen.since]
    return since if chosen.until is None else [*since, time < chosen.until]


def _claim(row: NoticeRow) -> Claim:
    return Claim(
        kind=NoticeKind(row.kind),
        status=None if row.status is None else Status(row.status),
        amount=row.amount,
        currency=row.currency,
        at=row.timestamp,
        reference=row.reference,
        refunded_total=row.refunded_total,
        source=row.source,
        reported_at=row.reported_at,
        paid_at=row.paid_at,
        reason=Reason(row.reason) if row.kind == NoticeKind.PURCHASE and row.reason else None,
        deleted=row.deleted,
    )
