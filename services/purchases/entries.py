"""The rows of ledger entries, with the lines of an order that refunds are about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.purchases.claims import Claim, ReportKind, ReturnedLine
from services.purchases.ledger import EntryKind, LedgerEntry
from services.purchases.records import EntryRecord, PurchaseRecord
from services.purchases.statuses import Reason


def ledger_entry(row: EntryRecord) -> LedgerEntry:
    """The entry of a row."""
    reason = Reason(row.reason) if row.reason else None
    return LedgerEntry(row.timestamp, EntryKind(row.kind), row.amount, row.reference, reason, row.base_amount)


def entry_row(row: PurchaseRecord, entry: LedgerEntry, now: datetime, *, historical: bool) -> EntryRecord:
    """The row of a new entry.

    Args:
        row: its order.
        entry: the entry.
        now: when it is booked.
        historical: whether a historical report books it.
    """
    return EntryRecord(
        purchase_id=row.id,
        site=row.site,
        order_id=row.order_id,
        kind=entry.kind.value,
        reference=entry.reference,
        amount=entry.amount,
        base_amount=entry.base_amount,
        timestamp=entry.at,
        booked_at=now,
        reason=entry.reason or "",
        historical=historical,
    )


def add_lines(entries: Iterable[EntryRecord], claims: Sequence[Claim]) -> bool:
    """Adds to refunds what they returned, as soon as a report says so.

    An entry that books a part of its refund alone, since the rest was booked before, remains without: the lines are those of the whole.

    Returns:
        Whether that changed any.
    """
    stated = {claim.reference: claim for claim in sorted(claims, key=lambda each: each.version) if _states_lines(claim)}
    changed = False
    for entry in entries:
        claim = stated.get(entry.reference)
        if claim is not None and entry.lines is None and entry.kind != EntryKind.CORRECTION and -entry.amount == claim.amount:
            entry.lines = stored_lines(claim.lines)
            changed = True
    return changed


def stored_lines(lines: Iterable[ReturnedLine]) -> Sequence[Mapping[str, Any]] | None:
    """Lines as their column has them; None for none."""
    return [{**asdict(line), "amount": str(line.amount)} for line in lines] or None


def lines_of(stored: Iterable[Mapping[str, Any]] | None) -> tuple[ReturnedLine, ...]:
    """The lines of a column."""
    return tuple(ReturnedLine(line["product_id"], line["quantity"], Decimal(line["amount"])) for line in stored or ())


def _states_lines(claim: Claim) -> bool:
    return bool(claim.lines) and claim.kind is ReportKind.REFUND and not claim.deleted
