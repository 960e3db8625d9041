"""What a payment provider states of an order's refunds and chargebacks: money that it moved itself. Pure.

A shop may not know of a refund that was made in the provider's dashboard, or of a chargeback: its own reports, however new, don't
contradict the provider. A refund that both report is one: the cumulative totals of the two overlap. A chargeback is none of the
refunds, and counts in addition to them until its funds are returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from services.purchases.claims import Claim, ReportKind
from services.purchases.facts import State
from services.purchases.ledger import EntryKind
from services.purchases.money import NOTHING
from services.purchases.refunds import Change
from services.purchases.statuses import Reason, Status

BY_PROVIDER: Final = frozenset({ReportKind.PROVIDER_REFUND, ReportKind.CHARGEBACK})
"""Kinds of reports that no report of the shop replaces."""


class Returns(NamedTuple):
    """An order with what its payment provider has returned."""

    state: State
    changes: Sequence[Change]


@dataclass(slots=True)
class _Chargeback:
    """A chargeback under one reference."""

    at: datetime | None = None
    amount: Decimal | None = None
    """None for all that was paid."""
    reinstated_at: datetime | None = None


def returned_by_provider(claims: Sequence[Claim], before: State) -> Returns:
    """What follows from the claims of payment providers.

    Args:
        claims: those of the kinds `BY_PROVIDER`.
        before: the state that follows from all other claims.
    """
    refunds, due = _refunds(claims, before)
    chargebacks = _chargebacks(claims)
    open_amount = sum((_amount(each, before) for each in chargebacks.values() if each.at and each.reinstated_at is None), NOTHING)
    returned = due + open_amount
    paid = before.paid_amount if before.is_paid else NOTHING
    state = replace(
        before,
        status=_status(before, paid, min(paid, returned), charged_back=open_amount > NOTHING),
        refunded_amount=min(paid, returned),
        returned=returned,
        disputed=before.disputed or (before.is_paid and returned > paid),
    )
    return Returns(state, [*refunds, *(change for each in chargebacks.items() for change in _changes(*each, before))])


def _refunds(claims: Iterable[Claim], before: State) -> tuple[list[Change], Decimal]:
    """The refunds that the shop has not reported, and the refunded amount with them."""
    changes: list[Change] = []
    due = before.returned
    totals = ((claim.refunded_total or NOTHING, claim) for claim in claims if claim.kind is ReportKind.PROVIDER_REFUND)
    for total, claim in sorted(totals, key=lambda each: (each[0], each[1].version)):
        if total > due:
            changes.append(Change(_not_before(before.sold_at, claim), EntryKind.REFUND, returned=total - due, reference=claim.reference))
            due = total
    return changes, due


def _chargebacks(claims: Iterable[Claim]) -> dict[str, _Chargeback]:
    """Chargebacks by reference. One whose funds were returned stays returned, in whatever order the two are reported."""
    found: dict[str, _Chargeback] = {}
    for claim in sorted((claim for claim in claims if claim.kind is ReportKind.CHARGEBACK), key=lambda claim: claim.version):
        chargeback, at = found.setdefault(claim.reference, _Chargeback()), claim.at or claim.read_at
        if claim.deleted:
            chargeback.reinstated_at = min(at, chargeback.reinstated_at or at)
        else:
            chargeback.at, chargeback.amount = min(at, chargeback.at or at), claim.amount
    return found


def _changes(reference: str, chargeback: _Chargeback, before: State) -> Iterator[Change]:
    if chargeback.at is None:
        return
    at, amount = max(filter(None, (chargeback.at, before.sold_at))), _amount(chargeback, before)
    yield Change(at, EntryKind.CHARGEBACK, returned=amount, reference=reference)
    if chargeback.reinstated_at is not None:
        yield Change(max(at, chargeback.reinstated_at), EntryKind.CORRECTION, returned=-amount, reason=Reason.REINSTATED)


def _amount(chargeback: _Chargeback, before: State) -> Decimal:
    return before.paid_amount if chargeback.amount is None else chargeback.amount


def _not_before(sold_at: datetime | None, claim: Claim) -> datetime:
    """No money goes back before the sale."""
    at = claim.at or claim.read_at
    return at if sold_at is None else max(at, sold_at)


def _status(before: State, paid: Decimal, refunded: Decimal, *, charged_back: bool) -> Status:
    if not before.is_paid or before.status is Status.CHARGED_BACK:
        return before.status
    if charged_back:
        return Status.CHARGED_BACK
    if NOTHING < paid <= refunded:
        return Status.REFUNDED
    return Status.PARTIALLY_REFUNDED if refunded and before.status is Status.COMPLETED else before.status
