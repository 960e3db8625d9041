"""Which parts of an order are history: reported by imports and backfills, not by the shop as they happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kit.times import LIVE_FOR
from services.purchases.ledger import EntryKind
from services.purchases.records import EntryRecord


def confirm_entries(entries: Iterable[EntryRecord], now: datetime) -> bool:
    """Makes historical entries live that a live report of now confirms in time, whichever reported them first.

    Returns:
        Whether there were any.
    """
    confirmed = [entry for entry in entries if entry.historical and now - entry.timestamp <= LIVE_FOR]
    for entry in confirmed:
        entry.historical = False
    return bool(confirmed)


def is_order_historical(entries: Iterable[EntryRecord], *, before: bool, reported: bool) -> bool:
    """True for an order that is history: as its sale is, and until it is sold, while all of its reports are.

    Args:
        entries: its ledger.
        before: whether it was history before the report.
        reported: whether the report is historical.
    """
    sale = next((entry for entry in entries if entry.kind == EntryKind.SALE), None)
    return sale.historical if sale else before and reported
