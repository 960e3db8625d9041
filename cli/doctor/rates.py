"""Examines the exchange rates: an order without one counts in no sum of the base currency."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import func, select

from cli.doctor.findings import Finding
from cli.doctor.subject import NotExamined, Subject
from services.purchases.models import RateRow
from services.purchases.pricing import count_unpriced

_USED_FOR: Final = timedelta(days=7)
"""How long a rate is used on days that have none."""
_ACTION: Final = "`pmp rates import https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip`; PMP_SITE_RATES_URL does so daily"


async def rates(subject: Subject, today: date | None = None) -> AsyncIterator[Finding]:
    """Finds orders without a rate, and rates that have become too old to be used."""
    purchases = subject.databases.get("purchases")
    if purchases is None:
        raise NotExamined("in a pod of purchases")
    if count := await count_unpriced(purchases.sessions):
        yield Finding(what=f"{count:,} paid orders have no exchange rate, and are left out of sums", action=_ACTION)
    async with purchases.sessions.reading() as session:
        newest: date | None = await session.scalar(select(func.max(RateRow.day)))
    if newest is not None and (today or datetime.now(UTC).date()) - newest > _USED_FOR:
        yield Finding(what=f"the newest exchange rates are of {newest}: new orders in other currencies get none", action=_ACTION)
