"""All SQL of purchases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from kit.database.records import RecordTable, RecordWriter
from kit.database.transactions import upsert
from kit.rules import PageKey
from services.purchases.claims import Claim, ReportKind
from services.purchases.entries import lines_of
from services.purchases.exchange import ANCHOR, OLDEST, Quote, by_day, rate_on
from services.purchases.models import EntryRow, LineRow, PurchaseRow, RateRow, ReportRow
from services.purchases.money import PAR, Rate
from services.purchases.order_ids import purchase_id_of
from services.purchases.orders import HELD, Order
from services.purchases.records import EntryRecord, LineRecord, PurchaseRecord
from services.purchases.statuses import Reason, Status

_EXPIRY_BATCH = 500
_ORDERS: Final = RecordTable(PurchaseRow, PurchaseRecord)
_LINES: Final = RecordTable(LineRow, LineRecord)
_ENTRIES: Final = RecordTable(EntryRow, EntryRecord)
_REPORTS: Final = cast("Table", ReportRow.__table__)
_RATES: Final = cast("Table", RateRow.__table__)
_CLAIMS: Final = select(
    ReportRow.purchase_id,
    ReportRow.kind,
    ReportRow.reference,
    ReportRow.status,
    ReportRow.amount,
    ReportRow.currency,
    ReportRow.refunded_total,
    ReportRow.timestamp,
    ReportRow.source,
    ReportRow.reason,
    ReportRow.reported_at,
    ReportRow.paid_at,
    ReportRow.deleted,
    ReportRow.payment,
    ReportRow.lines,
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which orders to list; None means any."""

    identifiers: Collection[str] | None = None
    status: str | None = None
    product_id: str | None = None
    date: str = "order"
    """Whether the period is that of the order, its sale, or an entry of its ledger."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    include_excluded: bool = False


class Purchases:
    """Orders and their ledger within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._writer = RecordWriter(session)

    async def find(self, site: str, order: str) -> PurchaseRecord | None:
        """The order with this purchase id, or else with this number of the shop."""
        ids = (order, purchase_id_of(site, order))
        rows = await _ORDERS.read(self._session, _ORDERS.query.where(PurchaseRow.id.in_(ids)))
        return min(rows, key=lambda row: ids.index(row.id), default=None)

    async def by_id(self, ids: Collection[str]) -> Sequence[Order]:
        """The orders with these ids; without their claims."""
        return await self._without_claims(_ORDERS.query.where(PurchaseRow.id.in_(ids)).order_by(PurchaseRow.id))

    async def orders(self, references: Sequence[tuple[str, str]]) -> Sequence[Order | None]:
        """The orders of sites, each referred to as in `find`, with all that is known of them.

        They are locked until the end of the transaction.
        """
        ids = [(order, purchase_id_of(site, order)) for site, order in references]
        query = _ORDERS.query.where(PurchaseRow.id.in_({each for pair in ids for each in pair})).order_by(PurchaseRow.id)
        rows = {row.id: row for row in await _ORDERS.read(self._session, query.with_for_update())}
        if not rows:
            return [None] * len(references)
        claims = await self._claims(rows)
        orders = {order.row.id: order for order in await self._read(list(rows.values()), claims)}
        return [orders.get(first) or orders.get(second) for first, second in ids]

    async def add(self, order: Order, entries: Sequence[EntryRecord], report: Mapping[str, Any], now: datetime) -> None:
        """Adds a report, by its columns, and what it changed of an order, to be written by the next `flush`."""
        row, is_new = order.row, not self._writer.knows(order.row.id)
        if order.changed:
            row.updated_at = now
        if "lines" in order.changed:
            if order.had_lines:
                await self._session.execute(delete(LineRow).where(LineRow.purchase_id == row.id))
            self._writer.insert(_LINES.table, map(_LINES.values, order.lines))
        self._writer.insert(_ORDERS.table, [_ORDERS.values(row)] if is_new else ())
        self._writer.insert(_ENTRIES.table, map(_ENTRIES.values, entries))
        self._writer.insert(_REPORTS, [report])

    async def flush(self) -> None:
        """Writes what was added, and what changed of the orders that were read.

        Raises:
            IntegrityError: another transaction created one of the orders meanwhile.
        """
        await self._writer.flush()

    async def lines(self, purchase_ids: Collection[str]) -> Mapping[str, Sequence[LineRecord]]:
        """The lines of orders."""
        found: dict[str, list[LineRecord]] = defaultdict(list)
        query = _LINES.query.where(LineRow.purchase_id.in_(purchase_ids)).order_by(LineRow.purchase_id, LineRow.number)
        for row in await _LINES.read(self._session, query):
            found[row.purchase_id].append(row)
        return found

    async def entries(self, purchase_ids: Collection[str]) -> Mapping[str, Sequence[EntryRecord]]:
        """The ledgers of orders, in the order of booking."""
        found: dict[str, list[EntryRecord]] = defaultdict(list)
        query = _ENTRIES.query.where(EntryRow.purchase_id.in_(purchase_ids)).order_by(EntryRow.purchase_id, EntryRow.id)
        for row in await _ENTRIES.read(self._session, query):
            found[row.purchase_id].append(row)
        return found

    async def page(self, chosen: Filter, after: PageKey[str] | None, limit: int) -> Sequence[PurchaseRecord]:
        """A page of orders, newest first."""
        return await _ORDERS.read(self._session, list_query(chosen, after, limit))

    async def unpriced(self, after: str, limit: int) -> Sequence[Order]:
        """Paid orders without a rate, in the order of their ids, after one of them; locked, and without their claims."""
        query = _ORDERS.query.where(PurchaseRow.base_net_amount.is_(None), PurchaseRow.id > after)
        return await self._without_claims(query.order_by(PurchaseRow.id).limit(limit).with_for_update())

    async def count_unpriced(self) -> int:
        """The number of paid orders without a rate."""
        return await self._session.scalar(select(func.count()).where(PurchaseRow.base_net_amount.is_(None))) or 0

    async def count_held(self) -> int:
        """The number of unknown orders for which reports are held."""
        return await self._session.scalar(select(func.count()).where(PurchaseRow.payment_status == HELD)) or 0

    async def delete_held(self, before: datetime) -> int:
        """Deletes unknown orders whose first report arrived before a time, with their reports.

        Returns:
            The number of orders deleted.
        """
        expired = (PurchaseRow.payment_status == HELD, PurchaseRow.timestamp < before)
        ids = (await self._session.scalars(select(PurchaseRow.id).where(*expired).limit(_EXPIRY_BATCH).with_for_update())).all()
        await self._session.execute(delete(ReportRow).where(ReportRow.purchase_id.in_(ids)))
        await self._session.execute(delete(PurchaseRow).where(PurchaseRow.id.in_(ids)))
        return len(ids)

    async def count_reports(self, purchase_id: str) -> int:
        """The number of reports about an order."""
        return await self._session.scalar(select(func.count()).where(ReportRow.purchase_id == purchase_id)) or 0

    async def _without_claims(self, query: Select[Any]) -> Sequence[Order]:
        """Orders that can be priced and published."""
        return await self._read(await _ORDERS.read(self._session, query), {})

    async def _read(self, rows: Sequence[PurchaseRecord], claims: Mapping[str, Sequence[Claim]]) -> Sequence[Order]:
        """Orders with their lines and ledgers; `flush` writes what changes of them."""
        ids = [row.id for row in rows]
        lines, entries = await self.lines(ids), await self.entries(ids)
        self._writer.watch(_ORDERS, rows)
        self._writer.watch(_ENTRIES, chain.from_iterable(entries.values()))
        return [Order(row, claims.get(row.id, ()), lines.get(row.id, ()), entries.get(row.id, ())) for row in rows]

    async def _claims(self, purchase_ids: Collection[str]) -> Mapping[str, Sequence[Claim]]:
        """The claims of the reports that added facts, by order, in the order of their arrival."""
        found: dict[str, list[Claim]] = defaultdict(list)
        query = _CLAIMS.where(ReportRow.purchase_id.in_(purchase_ids), ReportRow.adds_facts).order_by(ReportRow.id)
        for row in await self._session.execute(query):
            found[row.purchase_id].append(_claim(row))
        return found


class Rates:
    """Exchange rates within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def rates(self, wanted: Sequence[tuple[date, str, str]]) -> Sequence[Rate | None]:
        """The rates of currencies in a base currency, each on a day; None where there is none of that day or the week before it."""
        foreign = [(day, *pair) for day, *pair in wanted if len({*pair}) > 1]
        if not foreign:
            return [PAR] * len(wanted)
        first, last = min(day for day, *_ in foreign) - OLDEST, max(day for day, *_ in foreign)
        codes = {code for _, *pair in foreign for code in pair} - {ANCHOR}
        query = select(RateRow.day, RateRow.currency, RateRow.units).where(
            RateRow.day.between(first, last), RateRow.currency.in_(sorted(codes))
        )
        days = by_day(Quote(row.day, row.currency, row.units) for row in await self._session.execute(query))
        return [rate_on(day, currency, base, days) for day, currency, base in wanted]

    async def store(self, quotes: Sequence[Quote], source: str) -> None:
        """Stores rates, replacing known ones."""
        rows: list[dict[str, Any]] = [
            {"day": quote.day, "currency": quote.currency, "units": quote.units, "source": source} for quote in quotes
        ]
        await upsert(self._session, _RATES, rows)


def list_query(chosen: Filter, after: PageKey[str] | None, limit: int) -> Select[Any]:
    """The query of a page of orders, newest first."""
    time, id_ = PurchaseRow.timestamp, PurchaseRow.id
    query = _ORDERS.query.where(*_conditions(chosen))
    if after is not None:
        query = query.where(time <= after.at, or_(time < after.at, and_(time == after.at, id_ < after.id)))
    return query.order_by(time.desc(), id_.desc()).limit(limit)


def _conditions(chosen: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [PurchaseRow.payment_status != HELD]
    if not chosen.include_excluded:
        conditions += [PurchaseRow.is_test.is_(False), PurchaseRow.is_staff.is_(False)]
    if chosen.identifiers is not None:
        conditions.append(PurchaseRow.subject.in_(chosen.identifiers))
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


def _claim(row: Any) -> Claim:
    return Claim(
        kind=ReportKind(row.kind),
        status=None if row.status is None else Status(row.status),
        amount=row.amount,
        currency=row.currency,
        at=row.timestamp,
        reference=row.reference,
        refunded_total=row.refunded_total,
        source=row.source,
        reported_at=row.reported_at,
        paid_at=row.paid_at,
        reason=Reason(row.reason) if row.kind == ReportKind.PURCHASE and row.reason else None,
        deleted=row.deleted,
        payment=row.payment,
        lines=lines_of(row.lines),
    )
