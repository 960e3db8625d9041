"""The SQL of comparisons with the shop: balances of orders, and what comparisons found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, cast

from sqlalchemy import Select, Table, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import upsert
from kit.rules import PageKey
from services.purchases.claims import ReportKind
from services.purchases.models import ComparisonRow, PurchaseRow, ReportRow
from services.purchases.order_ids import purchase_id_of

_COMPARISONS: Final = cast("Table", ComparisonRow.__table__)


@dataclass(frozen=True, slots=True)
class Balance:
    """What the ledger holds of an order."""

    id: str
    order_id: str
    timestamp: datetime
    payment_status: str
    currency: str
    amount: Decimal
    paid_amount: Decimal
    refunded_amount: Decimal


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of comparing the ledger with the shop; the fields are the columns of `ComparisonRow`."""

    shop: str
    checked_at: datetime
    since: datetime
    until: datetime
    orders: int
    found: int
    different: int


_BALANCES: Final = cast("Select[Any]", select(*(getattr(PurchaseRow, name) for name in Balance.__slots__)))


class Balances:
    """Balances of orders within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(
        self, since: datetime | None, until: datetime | None, after: PageKey[str] | None, limit: int
    ) -> Sequence[tuple[Balance, Collection[str]]]:
        """A page of balances with the sources of each order's reports, the oldest order first."""
        return await self._read(balances_query(since, until, after, limit))

    async def of(self, site: str, order_ids: Collection[str]) -> Sequence[tuple[Balance, Collection[str]]]:
        """The balances of orders with these numbers of the shop, with their sources; unknown orders are left out."""
        ids = {purchase_id_of(site, each) for each in order_ids}
        query = _BALANCES.where(PurchaseRow.id.in_(ids), PurchaseRow.currency != "").order_by(PurchaseRow.timestamp, PurchaseRow.id)
        return await self._read(query)

    async def _read(self, query: Select[Any]) -> Sequence[tuple[Balance, Collection[str]]]:
        rows = [Balance(*row) for row in await self._session.execute(query)]
        sources = await self._sources([row.id for row in rows])
        return [(row, sources.get(row.id, ())) for row in rows]

    async def _sources(self, purchase_ids: Collection[str]) -> Mapping[str, Collection[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        query = select(ReportRow.purchase_id, ReportRow.source).where(
            ReportRow.purchase_id.in_(purchase_ids), ReportRow.kind == ReportKind.PURCHASE.value
        )
        for purchase_id, source in await self._session.execute(query.distinct()):
            found[purchase_id].add(source)
        return found


class Comparisons:
    """Outcomes of comparisons within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, comparison: Comparison) -> None:
        """Adds an outcome; adding it again changes nothing."""
        await upsert(self._session, _COMPARISONS, [asdict(comparison)])

    async def newest(self) -> Comparison | None:
        """The outcome of the newest comparison; None if there was none."""
        columns = [getattr(ComparisonRow, name) for name in Comparison.__slots__]
        row = (await self._session.execute(select(*columns).order_by(ComparisonRow.checked_at.desc()).limit(1))).first()
        return None if row is None else Comparison(*row)


def balances_query(since: datetime | None, until: datetime | None, after: PageKey[str] | None, limit: int) -> Select[Any]:
    """The query of a page of balances, the oldest order first; without the orders for which reports are held."""
    time, id_ = PurchaseRow.timestamp, PurchaseRow.id
    query = _BALANCES.where(PurchaseRow.currency != "")
    if since is not None:
        query = query.where(time >= since)
    if until is not None:
        query = query.where(time < until)
    if after is not None:
        query = query.where(time >= after.at, or_(time > after.at, and_(time == after.at, id_ > after.id)))
    return query.order_by(time, id_).limit(limit)
